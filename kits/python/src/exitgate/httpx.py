"""httpx through an exit.

    from exitgate.httpx import Client, AsyncClient

    with Client("us") as web:
        print(web.get("https://example.org").status_code, web.exit())
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar
from urllib.parse import unquote, urlsplit

import httpx

from . import errors
from ._attempts import REFUSED_STATUSES, TRIES, Attempts, Policy
from .gateway import Gateway
from .models import CurrentExit, Moved
from .session import Session

__all__ = ["AsyncClient", "AsyncExitTransport", "Client", "ExitTransport", "proxy"]

Refused = Callable[[httpx.Response], "bool | str | None"]
_T = TypeVar("_T", httpx.HTTPTransport, httpx.AsyncHTTPTransport)


def proxy(selector: str | None = None, *, session: str | None = None, strict: bool = False, gateway: Gateway | None = None) -> httpx.Proxy:
    """The argument `proxy` of httpx."""
    return _proxy((gateway or Gateway()).proxy_url(selector, session=session, strict=strict))


def _proxy(url: str) -> httpx.Proxy:
    parts = urlsplit(url)
    plain = url.replace(f"{parts.username}:{parts.password}@", "", 1)
    return _Proxy(plain, auth=(unquote(parts.username or ""), unquote(parts.password or "")))


class _Proxy(httpx.Proxy):
    @property
    def raw_auth(self) -> tuple[bytes, bytes] | None:
        auth = super().raw_auth
        return auth and (auth[0], _Hidden(auth[1]))


class _Hidden(bytes):
    """A key that httpcore cannot write into its log: on level DEBUG it logs the arguments of SOCKS connections."""

    def __repr__(self) -> str:
        return "b'[hidden]'"


class _Pools(Generic[_T]):
    """One pool of connections for each name of the session. A pool whose name is not used any more is closed when its
    last response is closed."""

    def __init__(self, make: Callable[[str], _T]) -> None:
        self._make: Callable[[str], _T] = make
        self._lock = threading.Lock()
        self._name: str | None = None
        self._pool: _T | None = None
        self._open: dict[int, int] = {}

    def take(self, session: Session, scheme: str | None) -> tuple[_T, _T | None]:
        """The pool for the session's present name, and an old pool to close."""
        name = session.username
        with self._lock:
            old = None
            if self._pool is None or self._name != name:
                if self._pool is not None and not self._open.get(id(self._pool)):
                    old = self._pool
                self._pool, self._name = self._make(session.proxy_url(scheme)), name
            self._open[id(self._pool)] = self._open.get(id(self._pool), 0) + 1
            return self._pool, old

    def give_back(self, pool: _T) -> bool:
        """True if the pool is to be closed."""
        with self._lock:
            self._open[id(pool)] -= 1
            if self._open[id(pool)]:
                return False
            del self._open[id(pool)]
            return pool is not self._pool

    def end(self) -> _T | None:
        with self._lock:
            pool, self._pool = self._pool, None
            return pool


class _Stream(httpx.SyncByteStream):
    """A response's body that says when it is closed."""

    def __init__(self, inner: Any, closed: Callable[[], None]) -> None:
        self._inner, self._closed, self._done = inner, closed, False

    def __iter__(self) -> Iterator[bytes]:
        yield from self._inner

    def close(self) -> None:
        self._inner.close()
        if not self._done:
            self._done = True
            self._closed()


class _AsyncStream(httpx.AsyncByteStream):
    def __init__(self, inner: Any, closed: Callable[[], Any]) -> None:
        self._inner, self._closed, self._done = inner, closed, False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._inner:
            yield part

    async def aclose(self) -> None:
        await self._inner.aclose()
        if not self._done:
            self._done = True
            await self._closed()


def _translate(problem: httpx.TransportError) -> errors.GatewayError | None:
    if isinstance(problem, httpx.ProxyError):
        text = str(problem)
        if "username/password" in text.lower():
            return errors.KeyRefused("SOCKS: the gateway refused the username or the key")
        return errors.of_failed_tunnel(text) or _of_socks_words(text)
    return None


# httpx shows SOCKS5 replies in words.
_SOCKS_WORDS = {
    "general socks server failure": 1, "connection not allowed by ruleset": 2, "network unreachable": 3,
    "host unreachable": 4, "connection refused": 5, "ttl expired": 6, "command not supported": 7,
    "address type not supported": 8,
}  # fmt: skip


def _of_socks_words(text: str) -> errors.GatewayError | None:
    lowered = text.lower().replace("_", " ")
    for words, code in _SOCKS_WORDS.items():
        if words in lowered:
            return errors.of_failed_tunnel(f"0x0{code}")
    return None


class ExitTransport(httpx.BaseTransport):
    """The transport of `Client`, for a client of your own. Further arguments go to `httpx.HTTPTransport`."""

    def __init__(self, session: Session, policy: Policy | None = None, *, scheme: str | None = None, **options: Any) -> None:
        self.exit_session, self._policy, self._scheme = session, policy or Policy(), scheme
        self._pools = _Pools(lambda url: httpx.HTTPTransport(proxy=_proxy(url), **options))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        attempts = Attempts(self.exit_session, self._policy, request.method, repeatable=_repeatable(request))
        while True:
            attempts.begin()
            try:
                response = self._once(request)
            except httpx.TransportError as problem:
                error = _translate(problem)
                if error is None:
                    raise
                error = attempts.explain(error)
                time.sleep(_wait(attempts, error, False, problem))
                continue
            if errors.is_own(response.headers):
                response.read()
                own = errors.of_status(response.status_code, response.reason_phrase, response.headers)
                response.close()
                time.sleep(_wait(attempts, own, True, None))
                continue
            response.request = request
            if self._policy.refused or response.status_code in self._policy.statuses:
                response.read()
            outcome = self._policy.outcome(response.status_code, response)
            if outcome is None:
                return response
            attempts.report(request.url.host, outcome)
            if not attempts.after_refusal(request.url.host, outcome, response.status_code, response):
                return response
            response.close()

    def _once(self, request: httpx.Request) -> httpx.Response:
        pool, old = self._pools.take(self.exit_session, self._scheme)
        if old is not None:
            old.close()

        def closed() -> None:
            if self._pools.give_back(pool):
                pool.close()

        try:
            response = pool.handle_request(request)
        except BaseException:
            closed()
            raise
        response.stream = _Stream(response.stream, closed)
        return response

    def close(self) -> None:
        if (pool := self._pools.end()) is not None:
            pool.close()


class AsyncExitTransport(httpx.AsyncBaseTransport):
    """The transport of `AsyncClient`, for a client of your own. Further arguments go to `httpx.AsyncHTTPTransport`.
    Works on asyncio."""

    def __init__(self, session: Session, policy: Policy | None = None, *, scheme: str | None = None, **options: Any) -> None:
        self.exit_session, self._policy, self._scheme = session, policy or Policy(), scheme
        self._pools = _Pools(lambda url: httpx.AsyncHTTPTransport(proxy=_proxy(url), **options))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        attempts = Attempts(self.exit_session, self._policy, request.method, repeatable=_repeatable(request))
        while True:
            attempts.begin()
            try:
                response = await self._once(request)
            except httpx.TransportError as problem:
                error = _translate(problem)
                if error is None:
                    raise
                error = await asyncio.to_thread(attempts.explain, error)
                await asyncio.sleep(_wait(attempts, error, False, problem))
                continue
            if errors.is_own(response.headers):
                await response.aread()
                own = errors.of_status(response.status_code, response.reason_phrase, response.headers)
                await response.aclose()
                await asyncio.sleep(_wait(attempts, own, True, None))
                continue
            response.request = request
            if self._policy.refused or response.status_code in self._policy.statuses:
                await response.aread()
            outcome = self._policy.outcome(response.status_code, response)
            if outcome is None:
                return response
            await asyncio.to_thread(attempts.report, request.url.host, outcome)
            if not attempts.after_refusal(request.url.host, outcome, response.status_code, response):
                return response
            await response.aclose()

    async def _once(self, request: httpx.Request) -> httpx.Response:
        pool, old = self._pools.take(self.exit_session, self._scheme)

        async def closed() -> None:
            if self._pools.give_back(pool):
                await pool.aclose()

        try:
            if old is not None:
                await old.aclose()
            response = await pool.handle_async_request(request)
        except BaseException:
            await closed()
            raise
        response.stream = _AsyncStream(response.stream, closed)
        return response

    async def aclose(self) -> None:
        if (pool := self._pools.end()) is not None:
            await pool.aclose()


def _repeatable(request: httpx.Request) -> bool:
    return hasattr(request, "_content")  # a body that is a generator has none


def _wait(attempts: Attempts, error: errors.ExitgateError, sent: bool, cause: BaseException | None) -> float:
    try:
        return attempts.wait_after(error, sent=sent)
    except errors.ExitgateError as last:
        raise last from cause


class Client(httpx.Client):
    """An `httpx.Client` whose requests leave through one exit. `exitgate.requests.Session` describes when a request is
    sent again. Further arguments go to `httpx.Client`."""

    def __init__(
        self,
        selector: str | None = None,
        *,
        session: str | None = None,
        strict: bool = False,
        gateway: Gateway | None = None,
        tries: int = TRIES,
        refused_statuses: Iterable[int] = REFUSED_STATUSES,
        refused: Refused | None = None,
        scheme: str | None = None,
        verify: Any = True,
        http2: bool = False,
        timeout: Any = 60.0,
        **options: Any,
    ) -> None:
        self.exit_session = (gateway or Gateway()).session(selector, session, strict=strict)
        policy = Policy.of(tries, refused_statuses, refused)
        transport = ExitTransport(self.exit_session, policy, scheme=scheme, verify=verify, http2=http2)
        super().__init__(transport=transport, timeout=timeout, **options)

    def exit(self) -> CurrentExit | None:
        """The exit of this client. None before its first request."""
        return self.exit_session.exit()

    def rotate(self) -> Moved:
        """Moves to another exit, which the gateway tests before this returns."""
        return self.exit_session.rotate()

    def report(self, site: str, outcome: str | None = None) -> CurrentExit | None:
        """Reports that a site refuses the exit of this client."""
        return self.exit_session.report(site, outcome=outcome)


class AsyncClient(httpx.AsyncClient):
    """`Client` for asyncio."""

    def __init__(
        self,
        selector: str | None = None,
        *,
        session: str | None = None,
        strict: bool = False,
        gateway: Gateway | None = None,
        tries: int = TRIES,
        refused_statuses: Iterable[int] = REFUSED_STATUSES,
        refused: Refused | None = None,
        scheme: str | None = None,
        verify: Any = True,
        http2: bool = False,
        timeout: Any = 60.0,
        **options: Any,
    ) -> None:
        self.exit_session = (gateway or Gateway()).session(selector, session, strict=strict)
        policy = Policy.of(tries, refused_statuses, refused)
        transport = AsyncExitTransport(self.exit_session, policy, scheme=scheme, verify=verify, http2=http2)
        super().__init__(transport=transport, timeout=timeout, **options)

    async def exit(self) -> CurrentExit | None:
        """The exit of this client. None before its first request."""
        return await asyncio.to_thread(self.exit_session.exit)

    async def rotate(self) -> Moved:
        """Moves to another exit, which the gateway tests before this returns."""
        return await asyncio.to_thread(self.exit_session.rotate)

    async def report(self, site: str, outcome: str | None = None) -> CurrentExit | None:
        """Reports that a site refuses the exit of this client."""
        return await asyncio.to_thread(lambda: self.exit_session.report(site, outcome=outcome))
