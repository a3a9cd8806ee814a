"""The errors of this kit.

Each error has a `code` for programs that never changes its meaning, the gateway's own words in `message`, and in
`advice` what to do next. `retry` says whether the same request can succeed later or through another exit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# How the libraries show a refused tunnel: requests, httpx, Scrapy.
_TUNNELS = (
    re.compile(r"Tunnel connection failed: (\d{3})\b *(.*?)['\")]*$", re.DOTALL),
    re.compile(r"^(\d{3})\b *(.*)$", re.DOTALL),
    re.compile(r"'status': (\d{3}), 'reason': b?['\"](.*)['\"]}", re.DOTALL),
)
# The sentences of the gateway for faults of the target.
_TARGET = re.compile(r"the (target|name|onion service)\b")
_SOCKS = re.compile(r"0x0?([1-8])\b")


class ExitgateError(Exception):
    """The base of all errors of this kit."""

    code = "exitgate"
    advice = "Read the message."
    retry = False

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        """The HTTP status, if there was one."""
        self.retry_after = retry_after
        """After how many seconds the same request may succeed, if the gateway said so."""
        self.request_id = request_id
        """The id of the request or the connection in the gateway's log."""
        self.details = dict(details or {})

    def __reduce__(self) -> tuple[Any, ...]:
        # The default loses the keyword arguments, and Scrapy and multiprocessing pickle errors.
        return (_rebuild, (type(self), self.message, self.__dict__.copy()))

    def __str__(self) -> str:
        return f"{self.message} [{self.code}] {self.advice}"


def _rebuild(kind: type[ExitgateError], message: str, state: dict[str, Any]) -> ExitgateError:
    error = kind.__new__(kind, message)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class BadSelector(ExitgateError, ValueError):
    """The kit cannot write a username from these arguments. No request was sent."""

    code = "bad_selector"
    advice = "Correct the selector or the session."


class Unreachable(ExitgateError):
    """Nothing answers at the gateway's address, or the connection broke."""

    code = "unreachable"
    advice = "Start the gateway, or correct EXITGATE_PROXY and EXITGATE_API."
    retry = True


class NotReady(ExitgateError):
    """The gateway did not become ready in time."""

    code = "not_ready"
    advice = "Read the reasons in the message; the gateway's log says more."
    retry = True


# Answers of the gateway's proxy ports.


class GatewayError(ExitgateError):
    """The gateway itself refused a request. The site did not see the request."""

    code = "gateway"


class BadRequest(GatewayError):
    """400: the username is no selector, or the request is malformed."""

    code = "bad_request"
    advice = "Correct the username; Gateway.why() explains it."


class KeyRefused(GatewayError):
    """407: the key is missing or wrong."""

    code = "key_refused"
    advice = "Set EXITGATE_KEY to a key of this gateway."


class Denied(GatewayError):
    """403: the gateway's configuration forbids the target, the port, the source or this client."""

    code = "denied"
    advice = "Change the gateway's configuration, or do not ask for this."


class LimitReached(GatewayError):
    """429: the client has reached one of the gateway's limits."""

    code = "limit_reached"
    advice = "Wait for `retry_after` seconds, or open fewer connections."
    retry = True


class NoExit(GatewayError):
    """503: no exit can serve the request now."""

    code = "no_exit"
    advice = "Gateway.why() shows how many exits are left after each condition."
    retry = True


class ExitFailed(GatewayError):
    """502: the exit failed. The gateway has tried others already, if the username allows others."""

    code = "exit_failed"
    advice = "Try another exit: a new session, or rotate()."
    retry = True


class TargetFailed(ExitFailed):
    """502: the target itself failed, and would fail through every exit: its name does not exist, or it refused."""

    code = "target_failed"
    advice = "Check the URL."
    retry = False


class TimedOut(GatewayError):
    """504: the exit or the target did not answer in time."""

    code = "timed_out"
    advice = "Try another exit: a new session, or rotate()."
    retry = True


class SiteRefused(ExitgateError):
    """The site refused every exit that was tried. `response` is the last answer."""

    code = "site_refused"
    advice = "Ask for other countries, slow down, or change how the requests look."

    def __init__(self, message: str, *, response: Any = None, exits: tuple[str, ...] = (), **more: Any) -> None:
        super().__init__(message, **more)
        self.response = response
        self.exits = exits
        """The addresses of the exits that were tried and reported, in this order."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, {**self.__dict__, "response": None}))


# Answers of the API.


class ApiError(ExitgateError):
    """The API refused a request. `code` is the API's own code, such as `bad_field`."""

    advice = "Read the message; `details` names the wrong field."

    def __init__(self, message: str, *, code: str = "api", **more: Any) -> None:
        super().__init__(message, **more)
        self.code = code


class TokenRefused(ApiError):
    """401: the API's token is missing or wrong."""

    advice = "Set EXITGATE_TOKEN to the token of the gateway's API."


class NotFound(ApiError):
    """404: there is no route, exit or source of this name."""

    advice = "List the names, for example with Gateway.routes.list()."


_BY_STATUS: dict[int, type[GatewayError]] = {
    400: BadRequest, 403: Denied, 405: BadRequest, 407: KeyRefused, 408: TimedOut, 417: BadRequest, 429: LimitReached,
    431: BadRequest, 502: ExitFailed, 503: NoExit, 504: TimedOut, 505: BadRequest,
}  # fmt: skip

# The reply codes of SOCKS5. They say less than the statuses of HTTP: code 2 is a bad username, a wrong key, a limit or
# a forbidden target.
_BY_SOCKS: dict[int, type[GatewayError]] = {
    1: ExitFailed, 2: Denied, 3: NoExit, 4: TargetFailed, 5: TargetFailed, 6: TimedOut, 7: BadRequest, 8: BadRequest,
}  # fmt: skip


def of_status(status: int, message: str, headers: Mapping[str, str] | None = None) -> GatewayError:
    """The error for an answer that the gateway wrote itself."""
    headers = {name.lower(): value for name, value in (headers or {}).items()}
    text = headers.get("x-exitgate-error") or message.strip() or f"the gateway answered {status}"
    kind = TargetFailed if status == 502 and _TARGET.match(text) else _BY_STATUS.get(status, GatewayError)
    return kind(text, status=status, retry_after=seconds(headers.get("retry-after")), request_id=headers.get("x-exitgate-id"))


def is_own(headers: Mapping[str, str]) -> bool:
    """True if the gateway wrote this answer to a plain HTTP request itself, so that it is not the site's."""
    return any(name.lower() == "x-exitgate-error" for name in headers)


def of_failed_tunnel(text: str) -> GatewayError | None:
    """The error for a proxy library's message about a tunnel that was refused. Such messages hold the status and the
    reason phrase, which is where the gateway puts its reason. None if the message holds neither."""
    for pattern in _TUNNELS:
        if found := pattern.search(text):
            return of_status(int(found[1]), found[2])
    if found := _SOCKS.search(text):
        code = int(found[1])
        return _BY_SOCKS[code](f"SOCKS reply {code}: the gateway refused the connection (an http:// proxy URL shows more)")
    return None


def seconds(text: str | None) -> float | None:
    """The value of a `Retry-After` field in seconds. The gateway never sends a date."""
    try:
        return max(0.0, float(text)) if text else None
    except ValueError:
        return None
