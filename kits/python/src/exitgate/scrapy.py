"""An add-on for Scrapy 2.14 or later. In settings.py:

    ADDONS = {"exitgate.scrapy.Addon": 500}
    EXITGATE_SELECTOR = "us"

Settings, all optional:

| setting | default | meaning |
| --- | --- | --- |
| EXITGATE_SELECTOR | "any" | which exits the requests may use |
| EXITGATE_SESSIONS | 8 | requests without a session of their own take turns in so many sessions; each session has one exit |
| EXITGATE_STRICT | False | one address for all requests; refusals are then neither reported nor retried |
| EXITGATE_TRIES | 3 | exits that one request may try |
| EXITGATE_REFUSED_STATUSES | [403, 429] | statuses with which a site refuses an exit |
| EXITGATE_REFUSED | None | a function, or its path: gets the response, returns true (or a reason) if the site refuses the exit |
| EXITGATE_PROXY, _API, _KEY, _TOKEN | the environment | the gateway, as for `exitgate.Gateway` |

Keys of `Request.meta`: `exitgate_selector`, `exitgate_session` (a name), `cookiejar` (each jar gets a session), and
`exitgate` = False for a request that does not use the gateway. A request with its own `proxy` is left alone, too.

Keys of `Response.meta`: `exit_ip`, `exit_id`, `exit_country` and `exit_session` (the session's name at the gateway).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from scrapy import Request, signals
from scrapy.crawler import Crawler
from scrapy.http import Response
from scrapy.settings import BaseSettings
from scrapy.utils.asyncio import is_asyncio_available
from scrapy.utils.misc import load_object

from . import errors
from ._attempts import REFUSED_STATUSES, TRIES, Attempts, Policy
from .gateway import Gateway
from .models import CurrentExit
from .session import Session
from .username import is_strict

__all__ = ["Addon", "ExitMiddleware"]

logger = logging.getLogger(__name__)
_T = TypeVar("_T")

# Between the decompression (590) and the retries (550) of Scrapy: this middleware sees whole pages, before Scrapy
# tries again by itself.
_POSITION = 560
# How long the exit of a session is remembered, in seconds. A session moves if its exit dies. Not tuned.
_EXIT_KNOWN = 60.0
# Sessions whose exit is remembered at most, in case that a crawl has one for each of a million logins. Not tuned.
_EXITS_KEPT = 10_000


class Addon:
    """Switches the middleware on."""

    def update_settings(self, settings: BaseSettings) -> None:
        settings.set("DOWNLOADER_MIDDLEWARES", {**settings.getdict("DOWNLOADER_MIDDLEWARES"), ExitMiddleware: _POSITION}, "addon")
        # The gateway reads usernames as UTF-8. Scrapy's default cannot write all names of sessions.
        settings.set("HTTPPROXY_AUTH_ENCODING", "utf-8", "addon")


class ExitMiddleware:
    """Sends each request through the exit of a session, and reports exits that a site refuses."""

    def __init__(self, crawler: Crawler) -> None:
        settings, self.crawler = crawler.settings, crawler
        if not settings.getbool("HTTPPROXY_ENABLED"):
            # NotConfigured would only switch this middleware off, and the requests would leave from this machine.
            raise ValueError("exitgate needs HTTPPROXY_ENABLED = True")
        if not is_asyncio_available():
            raise ValueError("exitgate needs Scrapy's asyncio reactor, which is the default")
        self.gateway = Gateway(
            settings.get("EXITGATE_PROXY"),
            settings.get("EXITGATE_API"),
            key=settings.get("EXITGATE_KEY"),
            token=settings.get("EXITGATE_TOKEN"),
        )
        self._selector: str = settings.get("EXITGATE_SELECTOR") or self.gateway.selector
        self._strict = settings.getbool("EXITGATE_STRICT")
        self._turns = max(1, settings.getint("EXITGATE_SESSIONS", 8))
        refused = settings.get("EXITGATE_REFUSED")
        statuses = [int(status) for status in settings.getlist("EXITGATE_REFUSED_STATUSES", list(REFUSED_STATUSES))]
        callback = cast("Callable[[Response], bool | str | None] | None", load_object(refused) if refused else None)
        self._policy = Policy.of(settings.getint("EXITGATE_TRIES", TRIES), statuses, callback)
        self._lost = tuple(_class(path) for path in settings.getlist("RETRY_EXCEPTIONS"))
        # Names of sessions belong to the gateway, where another crawl must not meet them.
        self._crawl = secrets.token_hex(4)
        self._turn = 0
        self._sessions: dict[tuple[str, str | None], Session] = {}
        self._exits: dict[tuple[str, str | None], tuple[float, CurrentExit | None]] = {}
        self._asking: dict[tuple[str, str | None], asyncio.Lock] = {}
        self._seen: set[str] = set()

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> ExitMiddleware:
        middleware = cls(crawler)
        crawler.signals.connect(middleware.spider_closed, signal=signals.spider_closed)
        return middleware

    def spider_closed(self) -> None:
        self.gateway.close()

    def _count(self, name: str, by: int = 1) -> None:
        if self.crawler.stats:
            self.crawler.stats.inc_value(f"exitgate/{name}", by)

    # Which session a request uses.

    def _session(self, request: Request) -> Session:
        meta = request.meta
        selector = str(meta.get("exitgate_selector") or self._selector)
        strict = self._strict or is_strict(selector)
        name: str | None
        if (own := meta.get("exitgate_session")) is not None:
            name = str(own)
        elif (jar := meta.get("cookiejar")) is not None:
            name = f"{self._crawl}.jar.{jar}"
        elif strict:
            name = None
        elif (turn := meta.get("_exitgate_turn")) is not None:
            name = turn
        else:
            self._turn = self._turn % self._turns + 1
            name = meta["_exitgate_turn"] = f"{self._crawl}.{self._turn}"
        found = self._sessions.get((selector, name))
        if found is None:
            found = self._sessions[(selector, name)] = Session(self.gateway, selector, name, strict=strict)
            found.named = "_exitgate_turn" not in meta
        return found

    # Scrapy calls these.

    async def process_request(self, request: Request) -> None:
        meta = request.meta
        ours = meta.get("_exitgate_name") is not None
        if meta.get("exitgate") is False or ("proxy" in meta and not ours):
            return
        if not ours:
            # Left over if a spider passes the meta of a response on to its next request.
            for key in ("_exitgate_turn", "_exitgate_tries", "_exitgate_exits"):
                meta.pop(key, None)
        session = self._session(request)
        meta["_exitgate_name"] = (session.name,)
        url = session.proxy_url()
        if url.startswith("socks"):
            url = "http" + url[url.index(":") :]  # Scrapy speaks HTTP to proxies, and all protocols share the port
        meta["proxy"] = url
        self._count("requests")

    async def process_response(self, request: Request, response: Response) -> Response | Request:
        attempts = self._attempts(request)
        if attempts is None:
            return response
        if "cached" in response.flags:
            self._forget(request)
            return response
        headers = _text_headers(response)
        if errors.is_own(headers):
            return await self._again_after(errors.of_status(response.status, "", headers), request, attempts, sent=True)
        exit = await self._exit(attempts, headers)
        if exit is not None:
            request.meta.update(exit_ip=exit["ip"], exit_id=exit["id"], exit_country=exit["country"])
            if exit["id"] not in self._seen:
                self._seen.add(exit["id"])
                self._count("exits")
        request.meta["exit_session"] = attempts.name
        self._count("responses")
        outcome = self._policy.outcome(response.status, response)
        if outcome is None:
            self._forget(request)
            return response
        site = urlsplit(response.url).hostname or ""
        self._count("refused")
        self._count(f"refused/{response.status}")
        reported = len(attempts.exits)
        await _in_thread(lambda: attempts.report(site, outcome))
        self._count("reports", len(attempts.exits) - reported)
        try:
            again = attempts.after_refusal(site, outcome, response.status, response)
        except errors.SiteRefused as error:
            self._count("gave_up")
            logger.warning("%s", error, extra={"spider": self.crawler.spider})
            again = False
        if not again:
            self._forget(request)
            return response
        return self._retry(request, attempts)

    async def process_exception(self, request: Request, exception: Exception) -> Request | None:
        attempts = self._attempts(request)
        if attempts is None or isinstance(exception, errors.ExitgateError):
            return None
        # The class moved within Scrapy, so its name tells it.
        error = errors.of_failed_tunnel(str(exception)) if "Tunnel" in type(exception).__name__ or "CONNECT tunnel" in str(exception) else None
        self._exits.pop((attempts.session.selector, attempts.name), None)
        if error is None:
            # The connection broke or was too slow. Scrapy tries again by itself, through another exit if the request
            # is not bound to one.
            if "_exitgate_turn" in request.meta and isinstance(exception, self._lost):
                attempts.session.renew(attempts.name)
            return None
        return await self._again_after(error, request, attempts, sent=False)

    # Helpers of these.

    def _attempts(self, request: Request) -> Attempts | None:
        """The attempts of a request that this middleware has sent. None for other requests."""
        meta = request.meta
        if (name := meta.get("_exitgate_name")) is None:
            return None
        meta["_exitgate_tries"] = tries = meta.get("_exitgate_tries", 0) + 1
        again = not meta.get("dont_retry", False)
        return Attempts.resume(self._session(request), self._policy, request.method, again, tries, name[0], meta.get("_exitgate_exits", ()))

    async def _again_after(self, error: errors.GatewayError, request: Request, attempts: Attempts, *, sent: bool) -> Request:
        self._count(f"errors/{error.code}")
        try:
            wait = attempts.wait_after(error, sent=sent)
        except errors.ExitgateError:
            self._forget(request)
            raise
        await asyncio.sleep(wait) if wait else None
        return self._retry(request, attempts)

    def _retry(self, request: Request, attempts: Attempts) -> Request:
        self._count("retries")
        again = request.replace(dont_filter=True)
        again.meta["_exitgate_exits"] = tuple(attempts.exits)
        again.priority = request.priority + self.crawler.settings.getint("RETRY_PRIORITY_ADJUST")
        return again

    def _forget(self, request: Request) -> None:
        """Removes what must not reach a spider, which may pass the meta on."""
        for key in ("_exitgate_name", "_exitgate_turn", "_exitgate_tries", "_exitgate_exits", "proxy", "_auth_proxy"):
            request.meta.pop(key, None)
        request.headers.pop(b"Proxy-Authorization", None)

    async def _exit(self, attempts: Attempts, headers: dict[str, str]) -> CurrentExit | None:
        """The exit of an answer. A plain HTTP answer names it. For HTTPS the gateway is asked once for each session,
        because Scrapy hides the answer to CONNECT."""
        if "x-exitgate-exit" in headers:
            ip, country = headers.get("x-exitgate-exit-ip"), headers.get("x-exitgate-exit-country")
            return {"id": headers["x-exitgate-exit"], "ip": ip, "country": country, "checked_seconds_ago": None}
        session, name = attempts.session, attempts.name
        key = (session.selector, name)
        if len(self._exits) > _EXITS_KEPT:
            self._exits.clear()
            self._asking = {known: lock for known, lock in self._asking.items() if lock.locked()}
        async with self._asking.setdefault(key, asyncio.Lock()):
            at, exit = self._exits.get(key, (0.0, None))
            if time.monotonic() - at < _EXIT_KNOWN and exit is not None:
                return exit
            try:
                exit = await _in_thread(lambda: self.gateway.exit(session.selector, session=name, strict=session.strict))
            except errors.ExitgateError as error:
                logger.debug("the exit of %s is not known: %s", name, error)
                exit = None
            self._exits[key] = (time.monotonic(), exit)
            return exit


def _class(path: Any) -> type[BaseException]:
    return cast("type[BaseException]", load_object(path))


async def _in_thread(work: Callable[[], _T]) -> _T:
    return await asyncio.to_thread(work)


def _text_headers(response: Response) -> dict[str, str]:
    return {
        name.decode("latin-1").lower(): values[-1].decode("latin-1") for name, values in response.headers.items() if values
    }
