"""requests, httpx and aiohttp, each with the real library: exits, refusals, errors, connections."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import ssl
from collections.abc import Callable
from typing import Any

import aiohttp
import httpx
import pytest
import requests
from conftest import Scripted, Site

import exitgate
from exitgate import Gateway, aiohttp as kit_aiohttp, httpx as kit_httpx, requests as kit_requests
from exitgate.demo import Demo


class Requests:
    """One way to use all clients: `go` calls `steps` with a function that fetches a page, and the session."""

    socks = True

    def go(self, gateway: Gateway, steps: Callable[..., Any], selector: str = "us", refused: Any = None, **options: Any) -> Any:
        callback = (lambda response: refused(response.text)) if refused else None
        with kit_requests.Session(selector, gateway=gateway, refused=callback, **options) as web:

            def fetch(url: str, method: str = "GET", data: bytes | None = None) -> tuple[int, str]:
                answer = web.request(method, url, data=data)
                return answer.status_code, answer.text

            return steps(fetch, web.exit_session)


class Httpx(Requests):
    def go(self, gateway: Gateway, steps: Callable[..., Any], selector: str = "us", refused: Any = None, **options: Any) -> Any:
        callback = (lambda response: refused(response.text)) if refused else None
        with kit_httpx.Client(selector, gateway=gateway, refused=callback, **options) as web:

            def fetch(url: str, method: str = "GET", data: bytes | None = None) -> tuple[int, str]:
                answer = web.request(method, url, content=data)
                return answer.status_code, answer.text

            return steps(fetch, web.exit_session)


class HttpxAsync(Requests):
    def go(self, gateway: Gateway, steps: Callable[..., Any], selector: str = "us", refused: Any = None, **options: Any) -> Any:
        callback = (lambda response: refused(response.text)) if refused else None

        async def main() -> Any:
            async with kit_httpx.AsyncClient(selector, gateway=gateway, refused=callback, **options) as web:
                loop = asyncio.get_running_loop()

                async def one(url: str, method: str, data: bytes | None) -> tuple[int, str]:
                    answer = await web.request(method, url, content=data)
                    return answer.status_code, answer.text

                def fetch(url: str, method: str = "GET", data: bytes | None = None) -> tuple[int, str]:
                    return asyncio.run_coroutine_threadsafe(one(url, method, data), loop).result(90)

                return await asyncio.to_thread(steps, fetch, web.exit_session)

        return asyncio.run(main())


def connector() -> aiohttp.TCPConnector:
    # aiohttp reads SSL_CERT_FILE when it is imported, which is before the test sets it.
    return aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"]))


class Aiohttp(Requests):
    socks = False

    def go(self, gateway: Gateway, steps: Callable[..., Any], selector: str = "us", refused: Any = None, **options: Any) -> Any:
        callback = (lambda response, text: refused(text)) if refused else None

        async def main() -> Any:
            session = gateway.session(selector, options.pop("session", None), strict=options.pop("strict", False))
            async with kit_aiohttp.client(exit_session=session, refused=callback, connector=connector(), **options) as web:
                loop = asyncio.get_running_loop()

                async def one(url: str, method: str, data: bytes | None) -> tuple[int, str]:
                    async with web.request(method, url, data=data) as answer:
                        return answer.status, await answer.text()

                def fetch(url: str, method: str = "GET", data: bytes | None = None) -> tuple[int, str]:
                    return asyncio.run_coroutine_threadsafe(one(url, method, data), loop).result(90)

                return await asyncio.to_thread(steps, fetch, session)

        return asyncio.run(main())


CLIENTS = [Requests(), Httpx(), HttpxAsync(), Aiohttp()]
each_client = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: type(client).__name__)
each_scheme = pytest.mark.parametrize("kind", ["http", "https"])
pytestmark = pytest.mark.usefixtures("trusted")


def base(site: Site, kind: str) -> str:
    return site.https if kind == "https" else site.http


@each_client
@each_scheme
@pytest.mark.parametrize("scheme", ["http", "socks5h"])
@pytest.mark.parametrize("session", [None, "cart42", "dora-é+ж@example.org /%?#"])
def test_one_exit_over_one_connection(client: Requests, kind: str, scheme: str, session: str | None, gateway: Gateway, site: Site) -> None:
    if scheme == "socks5h" and not client.socks:
        pytest.skip("this library has no SOCKS")
    options = {"scheme": scheme} if client.socks else {}

    def steps(fetch: Any, exit_session: Any) -> None:
        answers = {fetch(base(site, kind)) for _ in range(4)}
        assert answers == {(200, exit_session.exit()["ip"])}
        assert site.connections == 1, "the tunnel is used again"
        assert session is None or exit_session.name == session

    client.go(gateway, steps, session=session, **options)
    assert not any("proxy-authorization" in headers for headers in site.headers), "the key reaches no site"


@each_client
@each_scheme
def test_a_rotation_reaches_the_next_request(client: Requests, kind: str, gateway: Gateway, site: Site) -> None:
    def steps(fetch: Any, exit_session: Any) -> None:
        before = fetch(base(site, kind))[1]
        moved = exit_session.rotate()
        assert moved["before"]["ip"] == before != moved["after"]["ip"]
        assert fetch(base(site, kind))[1] == moved["after"]["ip"]

    client.go(gateway, steps, session="turn")


@each_client
@each_scheme
def test_a_refused_exit_is_reported_and_another_one_serves(client: Requests, kind: str, gateway: Gateway, site: Site) -> None:
    site.refuse_first = 2

    def steps(fetch: Any, exit_session: Any) -> None:
        status, source = fetch(base(site, kind))
        first, second, third = site.sources()
        assert (status, source) == (200, third) and len({first, second, third}) == 3
        assert exit_session.exit()["ip"] == third
        for refused in (first, second):
            banned = next(exit for exit in gateway.exits() if exit["ip"] == refused)
            whole = gateway.call("GET", f"/exits/{banned['id']}")
            assert [ban["site"] for ban in whole["bans"] if ban["site"] == site.ip], whole
        assert fetch(base(site, kind))[1] == third, "the session stays at the exit that works"

    client.go(gateway, steps)


@each_client
def test_a_callback_finds_refusals_with_status_200(client: Requests, gateway: Gateway, site: Site) -> None:
    def steps(fetch: Any, exit_session: Any) -> None:
        site.refused[exit_session.choose()["ip"]] = 200
        status, text = fetch(site.https)
        assert status == 200 and "captcha" not in text and len(set(site.sources())) == 2

    client.go(gateway, steps, refused=lambda text: "captcha" in text)


@each_client
def test_tries_are_limited(client: Requests, gateway: Gateway, site: Site) -> None:
    def steps(fetch: Any, exit_session: Any) -> None:
        with pytest.raises(exitgate.SiteRefused) as refused:
            fetch(f"{site.https}/status/429")
        assert list(refused.value.exits) == site.sources() and len(site.sources()) == 2
        assert refused.value.status == 429 and refused.value.code == "site_refused"

    client.go(gateway, steps, selector="any", tries=2)


@each_client
def test_no_exit_left_is_the_sites_refusal(client: Requests, gateway: Gateway, site: Site) -> None:
    def steps(fetch: Any, exit_session: Any) -> None:
        with pytest.raises(exitgate.SiteRefused) as refused:
            fetch(f"{site.http}/status/403")
        assert sorted(refused.value.exits) == sorted(site.sources()) and 1 <= len(site.sources()) <= 3

    client.go(gateway, steps, selector="us", tries=9)


@each_client
def test_a_post_is_reported_and_not_sent_again(client: Requests, gateway: Gateway, site: Site) -> None:
    def steps(fetch: Any, exit_session: Any) -> None:
        assert fetch(f"{site.https}/status/403", "POST", b"order=1")[0] == 403
        assert len(site.sources()) == 1 and exit_session.name.endswith(".2")

    client.go(gateway, steps, selector="any")


@each_client
def test_a_strict_exit_is_not_reported(client: Requests, gateway: Gateway, site: Site) -> None:
    def steps(fetch: Any, exit_session: Any) -> None:
        assert fetch(f"{site.http}/status/403")[0] == 403
        assert fetch(site.http)[0] == 200 and len(set(site.sources())) == 1

    client.go(gateway, steps, selector="us", session=f"s{site.ip}", strict=True)


@each_client
@each_scheme
@pytest.mark.parametrize(
    ("selector", "kind_of_error", "words"),
    [("us-strcit", exitgate.BadRequest, "did you mean `strict`"), ("jp", exitgate.NoExit, "0 in jp")],
)
@pytest.mark.parametrize("scheme", ["http", "socks5h"])
def test_errors_of_the_gateway(
    client: Requests, kind: str, scheme: str, selector: str, kind_of_error: type, words: str, gateway: Gateway, site: Site
) -> None:
    if scheme == "socks5h" and not client.socks:
        pytest.skip("this library has no SOCKS")
    options = {"scheme": scheme} if client.socks else {}

    def steps(fetch: Any, _: Any) -> None:
        with pytest.raises(kind_of_error) as failed:
            fetch(base(site, kind))
        # SOCKS has no words for a missing exit.
        assert words in str(failed.value) or (scheme == "socks5h" and selector == "jp")
        assert site.sources() == []

    client.go(gateway, steps, selector=selector, **options)


@each_client
def test_a_dead_target_is_not_tried_through_other_exits(client: Requests, gateway: Gateway, site: Site) -> None:
    def steps(fetch: Any, exit_session: Any) -> None:
        name = exit_session.name
        with pytest.raises(exitgate.TargetFailed):
            fetch(f"https://{site.ip}:9/")
        assert exit_session.name == name

    client.go(gateway, steps)


@each_client
@each_scheme
def test_failed_exits_and_limits_are_tried_again(client: Requests, kind: str, scripted: Scripted) -> None:
    url = f"{kind}://shop.test/"
    scripted.answers = [
        "502 the connection to the exit broke", "504 the exit does not answer", "429 slow\r\nRetry-After: 0", "503 busy\r\nRetry-After: 0",
    ]  # fmt: skip
    if kind == "https":
        del scripted.answers[3]  # the libraries hide the fields of an answer to CONNECT

    def steps(fetch: Any, exit_session: Any) -> None:
        if kind == "http":
            assert fetch(url) == (200, "served")
        else:
            with pytest.raises(exitgate.Denied, match="enough"):
                fetch(url)
        assert [name.partition(".")[2] for name in scripted.names] == ["", "2", "3", "3", "3"][: 5 if kind == "http" else 4]

    client.go(scripted.gateway, steps, tries=9)


@each_client
@each_scheme
def test_a_named_session_stays_at_its_exit_while_exits_fail(client: Requests, kind: str, scripted: Scripted) -> None:
    scripted.answers = ["502 the connection to the exit broke"] * 9

    def steps(fetch: Any, exit_session: Any) -> None:
        with pytest.raises(exitgate.ExitFailed, match="the exit broke"):
            fetch(f"{kind}://shop.test/")
        assert scripted.names == ["cart42"] * 3

    client.go(scripted.gateway, steps, session="cart42")


@each_client
@pytest.mark.parametrize("answer", ["429 slow\r\nRetry-After: 999", "503 no exit to use", "403 forbidden", "400 bad"])
def test_what_no_retry_cures_fails_at_once(client: Requests, answer: str, scripted: Scripted) -> None:
    scripted.answers = [answer] * 9

    def steps(fetch: Any, exit_session: Any) -> None:
        with pytest.raises(exitgate.GatewayError) as failed:
            fetch("http://shop.test/")
        assert failed.value.status == int(answer[:3]) and len(scripted.names) == 1
        assert failed.value.retry_after == (999 if "999" in answer else None) and failed.value.request_id == "c-1"

    client.go(scripted.gateway, steps, tries=9)


@each_client
def test_a_post_that_may_have_arrived_is_not_sent_again(client: Requests, scripted: Scripted) -> None:
    scripted.answers = ["502 the connection to the exit broke"] * 9

    def steps(fetch: Any, exit_session: Any) -> None:
        with pytest.raises(exitgate.ExitFailed):
            fetch("http://shop.test/", "POST", b"order=1")
        assert len(scripted.names) == 1

    client.go(scripted.gateway, steps, tries=9)


@each_client
def test_no_gateway(client: Requests, exitgate_demo: Demo, site: Site) -> None:
    nobody = Gateway(f"http://{site.ip}:9")

    def steps(fetch: Any, _: Any) -> None:
        with pytest.raises((exitgate.Unreachable, httpx.ConnectError)):
            fetch(site.http)

    client.go(nobody, steps)


def test_many_threads_change_the_session_once(gateway: Gateway, site: Site) -> None:
    with kit_requests.Session("us", gateway=gateway) as web:
        first = web.exit_session.choose()["ip"]
        site.refused[first] = 403
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: web.get(site.http).text, range(8)))
        assert first not in answers
        assert web.exit_session.name and web.exit_session.name.endswith(".2")


def test_a_stream_outlives_a_rotation(gateway: Gateway, exitgate_demo: Demo) -> None:
    with kit_httpx.Client("us", gateway=gateway) as web:
        page = exitgate_demo.secure_page.replace("/ip", "/bytes/3000000")
        with web.stream("GET", page) as answer:
            parts = answer.iter_bytes(1000)
            next(parts)
            web.rotate()
            assert web.get(exitgate_demo.secure_page).text == web.exit()["ip"]
            assert sum(map(len, parts)) == 2_999_000


@pytest.mark.parametrize("kit", ["httpx", "aiohttp"])
def test_a_cancelled_request_leaves_the_client_usable(kit: str, gateway: Gateway, site: Site) -> None:
    async def main() -> None:
        web = kit_httpx.AsyncClient("us", gateway=gateway) if kit == "httpx" else kit_aiohttp.client("us", gateway=gateway, connector=connector())
        async with web:
            slow = asyncio.ensure_future(web.get(f"{site.https}/slow"))
            while not site.sources("/slow"):
                await asyncio.sleep(0.01)
            slow.cancel()
            with pytest.raises(asyncio.CancelledError):
                await slow
            assert (await web.get(f"{site.https}/after")).status_code if kit == "httpx" else True
            if kit == "aiohttp":
                async with web.get(f"{site.https}/after") as answer:
                    assert answer.status == 200

    asyncio.run(main())


def test_timeouts(gateway: Gateway, site: Site) -> None:
    with kit_requests.Session("us", gateway=gateway, timeout=1) as web, pytest.raises(requests.exceptions.Timeout):
        web.get(f"{site.https}/slow")
    with kit_httpx.Client("us", gateway=gateway, timeout=1) as web, pytest.raises(httpx.TimeoutException):
        web.get(f"{site.https}/slow")

    async def main() -> None:
        async with kit_aiohttp.client("us", gateway=gateway, connector=connector(), timeout=aiohttp.ClientTimeout(total=1)) as web:
            with pytest.raises(asyncio.TimeoutError):
                await web.get(f"{site.https}/slow")

    asyncio.run(main())


def test_redirects_and_cookies_stay_in_the_session(gateway: Gateway, exitgate_demo: Demo, site: Site) -> None:
    page = exitgate_demo.page.replace("/ip", f"/redirect-to?url={site.http}/cookie")
    with kit_requests.Session("us", gateway=gateway, session="dora-é") as web:
        assert web.get(page).text == web.exit()["ip"]
        assert web.cookies.get("known") == "1"


def test_arguments_for_plain_libraries(gateway: Gateway, site: Site, exitgate_demo: Demo) -> None:
    expected = gateway.session("us", "plain").choose()["ip"]
    proxies = kit_requests.proxies("us", session="plain", gateway=gateway)
    assert requests.get(site.https, proxies=proxies, timeout=60).text == expected
    with httpx.Client(proxy=kit_httpx.proxy("us", session="plain", gateway=gateway), timeout=60) as web:
        assert web.get(site.https).text == expected

    async def main() -> str:
        async with aiohttp.ClientSession(connector=connector()) as web:
            arguments = kit_aiohttp.proxy_arguments("us", session="plain", gateway=gateway)
            async with web.get(site.https, **arguments) as answer:
                return await answer.text()

    assert asyncio.run(main()) == expected
