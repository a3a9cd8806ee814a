"""requests through an exit.

    from exitgate.requests import Session

    with Session("us") as web:
        print(web.get("https://example.org").status_code, web.exit())
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
from requests.adapters import HTTPAdapter

from . import errors
from ._attempts import REFUSED_STATUSES, TRIES, Attempts, Policy
from .gateway import Gateway
from .models import CurrentExit, Moved
from .session import Session as ExitSession

__all__ = ["Session", "proxies"]


def proxies(selector: str | None = None, *, session: str | None = None, strict: bool = False, gateway: Gateway | None = None) -> dict[str, str]:
    """The argument `proxies` of requests. The dictionary contains the key: do not log it."""
    url = (gateway or Gateway()).proxy_url(selector, session=session, strict=strict)
    return {"http": url, "https": url}


class _Adapter(HTTPAdapter):
    def proxy_headers(self, proxy: str) -> dict[str, str]:
        # requests encodes the username as latin-1, and cannot send names beyond it. The gateway reads UTF-8.
        parts = urlsplit(proxy)
        if not parts.username or parts.scheme not in ("http", "https"):
            return {}
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


class Session(requests.Session):
    """A `requests.Session` whose requests leave through one exit.

    If a site refuses the exit (a status of `refused_statuses`, or `refused(response)` is true), the exit is reported,
    and the request is sent again through another exit: at most `tries` exits for each request. After that SiteRefused
    is raised. A request that changes something (POST, PATCH) is reported, but not sent again.
    """

    def __init__(
        self,
        selector: str | None = None,
        *,
        session: str | None = None,
        strict: bool = False,
        gateway: Gateway | None = None,
        tries: int = TRIES,
        refused_statuses: Iterable[int] = REFUSED_STATUSES,
        refused: Callable[[requests.Response], bool | str | None] | None = None,
        timeout: float | tuple[float, float] = 60.0,
        scheme: str | None = None,
    ) -> None:
        super().__init__()
        self.exit_session = (gateway or Gateway()).session(selector, session, strict=strict)
        self.timeout = timeout
        self._policy = Policy.of(tries, refused_statuses, refused)
        self._scheme = scheme
        adapter = _Adapter()
        self.mount("http://", adapter)
        self.mount("https://", adapter)

    def exit(self) -> CurrentExit | None:
        """The exit of this session. None before its first request."""
        return self.exit_session.exit()

    def rotate(self) -> Moved:
        """Moves to another exit, which the gateway tests before this returns."""
        return self.exit_session.rotate()

    def report(self, site: str, outcome: str | None = None) -> CurrentExit | None:
        """Reports that a site refuses the exit of this session."""
        return self.exit_session.report(site, outcome=outcome)

    def rebuild_proxies(self, prepared_request: Any, proxies: Any) -> Any:
        # Called for redirects. send() sets the proxies of each request.
        prepared_request.headers.pop("Proxy-Authorization", None)
        return proxies

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        if options.get("timeout") is None:
            options["timeout"] = self.timeout
        repeatable = request.body is None or isinstance(request.body, (str, bytes))
        attempts = Attempts(self.exit_session, self._policy, request.method or "GET", repeatable=repeatable)
        url = request.url or ""
        while True:
            attempts.begin()
            proxy = self.exit_session.proxy_url(self._scheme)
            options["proxies"] = {"http": proxy, "https": proxy}
            try:
                response = super().send(request, **options)
            except requests.exceptions.ConnectionError as problem:
                error = _translate(problem)
                if error is None:
                    raise
                if isinstance(error, errors.GatewayError):
                    error = attempts.explain(error)
                time.sleep(_wait(attempts, error, False, problem))
                continue
            if errors.is_own(response.headers):
                own = errors.of_status(response.status_code, response.reason or "", response.headers)
                response.close()
                time.sleep(_wait(attempts, own, True, None))
                continue
            outcome = self._policy.outcome(response.status_code, response)
            if outcome is None:
                return response
            site = urlsplit(response.url or url).hostname or ""
            attempts.report(site, outcome)
            if not attempts.after_refusal(site, outcome, response.status_code, response):
                return response
            response.close()


def _wait(attempts: Attempts, error: errors.ExitgateError, sent: bool, cause: BaseException | None) -> float:
    try:
        return attempts.wait_after(error, sent=sent)
    except errors.ExitgateError as last:
        raise last from cause


def _translate(problem: requests.exceptions.ConnectionError) -> errors.ExitgateError | None:
    text = str(problem)
    if "SOCKS5 authentication failed" in text:
        return errors.KeyRefused("SOCKS: the gateway refused the username or the key")
    if "Tunnel connection failed" in text or "0x0" in text:
        return errors.of_failed_tunnel(text)
    if isinstance(problem, requests.exceptions.ProxyError):
        return errors.Unreachable(text)
    return None
