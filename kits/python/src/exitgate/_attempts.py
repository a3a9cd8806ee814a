"""When a request is sent again, for all clients of this kit: the decisions, without any framework."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .errors import Denied, ExitFailed, ExitgateError, GatewayError, KeyRefused, LimitReached, NoExit, SiteRefused, TimedOut
from .session import Session

logger = logging.getLogger("exitgate")

REFUSED_STATUSES = (403, 429)
TRIES = 3
# Requests that may be sent twice without harm (RFC 9110, 9.2.2).
IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"))
# Longest wait before another try, in seconds. A longer `Retry-After` becomes an error at once.
LONGEST_WAIT = 30.0


@dataclass(frozen=True)
class Policy:
    """What counts as a refusal by the site, and how many exits one request may try."""

    tries: int = TRIES
    statuses: frozenset[int] = frozenset(REFUSED_STATUSES)
    refused: Callable[[Any], bool | str | None] | None = None
    longest_wait: float = LONGEST_WAIT

    @classmethod
    def of(cls, tries: int, statuses: Iterable[int], refused: Callable[[Any], bool | str | None] | None) -> Policy:
        if tries < 1:
            raise ValueError("`tries` must be at least 1")
        return cls(tries, frozenset(statuses), refused)

    def outcome(self, status: int, response: Any) -> str | None:
        """How the site refused, in words for people. None if it did not."""
        if status in self.statuses:
            return f"status {status}"
        said = self.refused(response) if self.refused else None
        return said if isinstance(said, str) and said else "refused" if said else None


class Attempts:
    """The attempts of one request."""

    def __init__(self, session: Session, policy: Policy, method: str, *, repeatable: bool = True) -> None:
        self.session, self.policy = session, policy
        self._may_repeat = repeatable
        self._idempotent = method.upper() in IDEMPOTENT
        self._count = 0
        self.name: str | None = None
        self.exits: list[str] = []

    def begin(self) -> None:
        """Remembers which name this attempt uses."""
        self._count += 1
        self.name = self.session.name

    @classmethod
    def resume(
        cls, session: Session, policy: Policy, method: str, repeatable: bool, count: int, name: str | None, exits: Iterable[str]
    ) -> Attempts:
        """The attempts of a request whose earlier ones are written down elsewhere. `count` includes the present one."""
        attempts = cls(session, policy, method, repeatable=repeatable)
        attempts._count, attempts.name, attempts.exits = count, name, list(exits)
        return attempts

    @property
    def _left(self) -> bool:
        return self._may_repeat and self._count < self.policy.tries

    def wait_after(self, error: ExitgateError, *, sent: bool) -> float:
        """How many seconds to wait before the next attempt; raises the error if there is none. `sent` is true if the
        site may have got the request: a tunnel that was refused carried nothing."""
        if isinstance(error, NoExit) and self.exits and error.retry_after is None:
            raise self._site_refused() from error  # every exit that matches was reported
        if not self._left or not isinstance(error, GatewayError) or (sent and not self._idempotent):
            raise error
        if isinstance(error, (LimitReached, NoExit)):
            # Without `Retry-After` there is no exit for reasons that do not change within seconds.
            wait = error.retry_after if error.retry_after is not None else 1.0 if isinstance(error, LimitReached) else None
            if wait is None or wait > self.policy.longest_wait:
                raise error
            return wait
        if not error.retry or not isinstance(error, (ExitFailed, TimedOut)):
            raise error
        if not self.session.named:
            self.session.renew(self.name)
        return 0.0

    def report(self, site: str, outcome: str) -> None:
        """Reports the exit of this attempt, and takes another one. Sends requests to the gateway and waits for them."""
        if self.session.strict:
            return
        try:
            exit = self.session.report(site, outcome=outcome, name=self.name)
        except ExitgateError as error:
            exit = None  # the site's answer is worth more than the report
            logger.warning("the refusal by %s could not be reported: %s", site, error)
        if exit is not None:
            self.exits.append(exit["ip"] or exit["id"])
        self.session.renew(self.name)

    def after_refusal(self, site: str, outcome: str, status: int, response: Any) -> bool:
        """True if the request should be sent again after a refusal that was reported. False: pass the answer on."""
        if self.session.strict or not self._may_repeat or not self._idempotent:
            return False
        self._last = (site, outcome, status, response)
        if self._left:
            return True
        raise self._site_refused()

    def _site_refused(self) -> SiteRefused:
        site, outcome, status, response = self._last or ("the site", "refused", 0, None)
        tried = ", ".join(self.exits) or "none known"
        return SiteRefused(
            f"{site} refused every exit that was tried ({outcome}; exits: {tried})",
            response=response,
            exits=tuple(self.exits),
            status=status or None,
        )

    def explain(self, error: GatewayError) -> GatewayError:
        """A better error than the reply of SOCKS, which has one code for a wrong username and a wrong key: what HTTP
        says for the same username. Sends a request to the gateway and waits for it."""
        if error.status is None and isinstance(error, (Denied, KeyRefused)):
            try:
                self.session.exit()
            except GatewayError as better:
                return better
            except ExitgateError:
                pass
        return error
