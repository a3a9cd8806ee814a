"""aiohttp through an exit. aiohttp speaks HTTP to proxies, and not SOCKS.

    from exitgate.aiohttp import client

    async with client("us") as web, web.get("https://example.org") as answer:
        print(answer.status)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import aiohttp
from yarl import URL

from . import errors
from ._attempts import REFUSED_STATUSES, TRIES, Attempts, Policy
from .gateway import Gateway
from .session import Session

__all__ = ["ExitMiddleware", "client", "proxy_arguments"]

# A response's body must be awaited, so the callback gets its text too.
Refused = Callable[[aiohttp.ClientResponse, str], "bool | str | None"]


def proxy_arguments(
    selector: str | None = None, *, session: str | None = None, strict: bool = False, gateway: Gateway | None = None
) -> dict[str, Any]:
    """The arguments `proxy` and `proxy_headers` of a request to an https:// URL. They contain the key.

    For http:// URLs aiohttp needs the username in `headers`; `client` does this.
    """
    used = gateway or Gateway()
    headers = {"Proxy-Authorization": used.authorization(selector, session=session, strict=strict)}
    return {"proxy": _address(used), "proxy_headers": headers}


def _address(gateway: Gateway) -> str:
    if gateway.address.startswith("socks"):
        # All protocols share the gateway's port.
        return "http" + gateway.address[gateway.address.index(":") :]
    return gateway.address


class ExitMiddleware:
    """A middleware of aiohttp (3.12 or later) that sends requests through the exit of a session, for a ClientSession
    of your own. `exitgate.requests.Session` describes when a request is sent again."""

    def __init__(self, session: Session, policy: Policy | None = None, refused: Refused | None = None) -> None:
        self.exit_session, self._policy, self._refused = session, policy or Policy(), refused
        self._proxy = URL(_address(session.gateway))

    async def __call__(
        self,
        request: aiohttp.ClientRequest,
        handler: Callable[[aiohttp.ClientRequest], Any],
    ) -> aiohttp.ClientResponse:
        attempts = Attempts(self.exit_session, self._policy, request.method, repeatable=_repeatable(request.body))
        while True:
            attempts.begin()
            self._set_proxy(request)
            refusal: errors.GatewayError | None = None
            try:
                response: aiohttp.ClientResponse = await handler(request)
            except aiohttp.ClientHttpProxyError as problem:
                refusal = errors.of_status(problem.status, problem.message, problem.headers)
            except aiohttp.ClientProxyConnectionError as problem:
                raise errors.Unreachable(str(problem)) from problem
            finally:
                request.headers.pop("Proxy-Authorization", None)
            if refusal is not None:
                # Outside of `except`, because aiohttp's error holds the key, and would be the context of this one.
                await asyncio.sleep(attempts.wait_after(refusal, sent=False))
                continue
            if errors.is_own(response.headers):
                own = errors.of_status(response.status, response.reason or "", response.headers)
                response.release()
                await asyncio.sleep(attempts.wait_after(own, sent=True))
                continue
            outcome = await self._outcome(response)
            if outcome is None:
                return response
            site = request.url.host or ""
            await asyncio.to_thread(attempts.report, site, outcome)
            if not attempts.after_refusal(site, outcome, response.status, response):
                return response
            response.release()

    def _set_proxy(self, request: aiohttp.ClientRequest) -> None:
        authorization = self.exit_session.authorization()
        # aiohttp sends `proxy_headers` with CONNECT only.
        if request.is_ssl():
            request.update_proxy(self._proxy, None, {"Proxy-Authorization": authorization})
        else:
            request.update_proxy(self._proxy, None, None)
            request.headers["Proxy-Authorization"] = authorization

    async def _outcome(self, response: aiohttp.ClientResponse) -> str | None:
        if response.status in self._policy.statuses or self._refused is None:
            return self._policy.outcome(response.status, response)
        said = self._refused(response, await response.text(errors="replace"))
        return said if isinstance(said, str) and said else "refused" if said else None


def _repeatable(body: Any) -> bool:
    return body is None or isinstance(body, (bytes, aiohttp.BytesPayload))


def client(
    selector: str | None = None,
    *,
    session: str | None = None,
    strict: bool = False,
    gateway: Gateway | None = None,
    tries: int = TRIES,
    refused_statuses: Iterable[int] = REFUSED_STATUSES,
    refused: Refused | None = None,
    exit_session: Session | None = None,
    **options: Any,
) -> aiohttp.ClientSession:
    """An `aiohttp.ClientSession` whose requests leave through one exit. `refused` gets the response and its text.
    Pass `exit_session` to ask for the exit, to report or to rotate. Further arguments go to `aiohttp.ClientSession`."""
    used = exit_session or (gateway or Gateway()).session(selector, session, strict=strict)
    middleware = ExitMiddleware(used, Policy.of(tries, refused_statuses, None), refused)
    options.setdefault("timeout", aiohttp.ClientTimeout(total=60))
    return aiohttp.ClientSession(middlewares=(*options.pop("middlewares", ()), middleware), **options)
