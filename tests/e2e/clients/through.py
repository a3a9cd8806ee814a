"""Python's HTTP clients, each through the gateway in every way that it knows.

Prints a line of JSON a case: {"case": …, "named": …}. `named` is the exit that the gateway said, in the answer's header
where the client shows it and at http://exit.gate/ otherwise; the site has seen the case's name in the query, so the
test knows where the request came from. Anything unexpected ends the program.
"""

import asyncio
import json
import ssl
import sys
import urllib.request

import aiohttp
import aiohttp_socks
import httpx
import requests
import websockets

AT, PLAIN, SECURE, CA = sys.argv[1:5]
GATE = "http://exit.gate/"
TLS = ssl.create_default_context(cafile=CA)


def way(scheme, case):
    return f"{scheme}://us-session-{case}:any@{AT}"


def say(case, body, said):
    """What the site saw is in the body as well: a client that mixes up its answers is found out."""
    named = said["exit"]["ip"]
    assert body == named, f"{case}: the site saw {body}, the gateway says {named}"
    print(json.dumps({"case": case, "named": named}), flush=True)


def with_requests():
    for scheme in ("socks5h", "socks4a", "http"):
        for kind, site in (("plain", PLAIN), ("secure", SECURE)):
            case = f"requests.{scheme}.{kind}"
            with requests.Session() as session:
                session.trust_env, session.verify = False, CA
                session.proxies = dict.fromkeys(("http", "https"), way(scheme, case))
                answer = session.get(f"{site}/ip", params={"case": case}, timeout=30)
                said = session.get(GATE, timeout=30).json()
                if (scheme, kind) == ("http", "plain"):
                    assert answer.headers["X-Exitgate-Exit-Ip"] == said["exit"]["ip"], answer.headers
                say(case, answer.text, said)


def with_urllib():
    case = "urllib"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": way("http", case)}))
    say(case, opener.open(f"{PLAIN}/ip?case={case}", timeout=30).read().decode(), json.load(opener.open(GATE)))


async def with_httpx():
    for scheme in ("socks5h", "http"):
        for kind, site in (("plain", PLAIN), ("secure", SECURE)):
            case = f"httpx.{scheme}.{kind}"
            async with httpx.AsyncClient(proxy=way(scheme, case), verify=TLS, trust_env=False, timeout=30) as client:
                answers = await asyncio.gather(*(client.get(f"{site}/ip?case={case}") for _ in range(5)))
                bodies = {answer.text for answer in answers}
                assert len(bodies) == 1, f"{case}: one session, several addresses: {bodies}"
                say(case, bodies.pop(), (await client.get(GATE)).json())


async def with_aiohttp():
    for kind, site in (("plain", PLAIN), ("secure", SECURE)):
        case = f"aiohttp.http.{kind}"
        async with aiohttp.ClientSession() as session:
            proxy = way("http", case)
            async with session.get(f"{site}/ip?case={case}", proxy=proxy, ssl=TLS) as answer:
                body = await answer.text()
            async with session.get(GATE, proxy=proxy) as answer:
                say(case, body, await answer.json())
        for scheme in ("socks5", "socks4"):
            case = f"aiohttp.{scheme}.{kind}"
            connector = aiohttp_socks.ProxyConnector.from_url(way(scheme, case), rdns=True, ssl=TLS)
            async with aiohttp.ClientSession(connector=connector) as session:
                async with session.get(f"{site}/ip?case={case}") as answer:
                    body = await answer.text()
                async with session.get(GATE) as answer:
                    say(case, body, await answer.json())


async def with_aiohttp_websocket():
    """aiohttp is the client that asks for a plain WebSocket in absolute form, as HTTP has it, and not by CONNECT."""
    for kind, site in (("upgrade", PLAIN), ("scheme", PLAIN.replace("http", "ws", 1)), ("secure", SECURE)):
        case = f"aiohttp.ws.{kind}"
        proxy = way("http", case)
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(f"{site}/ws?case={case}", proxy=proxy, ssl=TLS) as socket:
                for message in ("hello", "x" * 70_000):
                    await socket.send_str(message)
                    assert (await socket.receive_str(timeout=30)) == message, case
            async with session.get(f"{PLAIN}/ip?case={case}", proxy=proxy) as answer:
                body = await answer.text()
            async with session.get(GATE, proxy=proxy) as answer:
                say(case, body, await answer.json())


async def with_websockets():
    for scheme in ("http", "socks5h"):
        for kind, site in (("ws", PLAIN), ("wss", SECURE)):
            case = f"websockets.{scheme}.{kind}"
            uri = f"{site.replace('http', 'ws', 1)}/ws?case={case}"
            tls = {"ssl": TLS} if kind == "wss" else {}
            async with websockets.connect(uri, proxy=way(scheme, case), **tls) as socket:
                for message in ("hello", b"\0" * 70_000):
                    await socket.send(message)
                    assert (await asyncio.wait_for(socket.recv(), 30)) == message, case
            async with httpx.AsyncClient(proxy=way("http", case), trust_env=False, timeout=30) as client:
                body = (await client.get(f"{PLAIN}/ip?case={case}")).text
                say(case, body, (await client.get(GATE)).json())


async def main():
    await with_httpx()
    await with_aiohttp()
    await with_aiohttp_websocket()
    await with_websockets()


with_requests()
with_urllib()
asyncio.run(main())
