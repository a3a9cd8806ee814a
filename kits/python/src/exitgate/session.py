"""`Session`: requests that leave through one exit, until a site refuses this exit."""

from __future__ import annotations

import secrets
import threading
from typing import TYPE_CHECKING

from .errors import BadRequest, BadSelector
from .identity import Identity, identity
from .username import LONGEST_SESSION, check_session, is_strict, username

if TYPE_CHECKING:
    from .gateway import Gateway
    from .models import CurrentExit, Explanation, Moved


class Session:
    """A session of a gateway. Made by `Gateway.session`. Safe to use from several threads.

    A client keeps its tunnels open, and a tunnel stays at its exit. So another exit needs new tunnels. For this the
    session changes its name at the gateway: `cart42`, then `cart42.2`, `cart42.3`. Clients keep tunnels for each
    username, so the new name never gets an old tunnel, and a report never hits a wrong exit.

    A strict session keeps its address: the kit neither reports its exit nor changes it by itself.
    """

    def __init__(self, gateway: Gateway, selector: str = "any", name: str | None = None, *, strict: bool = False) -> None:
        self.gateway, self.selector = gateway, selector
        self.strict = strict or is_strict(selector)
        if name is not None and len(check_session(name).encode()) > LONGEST_SESSION - 5:
            raise BadSelector(f"the session {name[:20]!r}… is longer than {LONGEST_SESSION - 5} bytes")
        self._name = name if name is not None or self.strict else secrets.token_hex(6)
        self.named = name is not None
        """True if the caller chose the name. Such a session changes its exit only when a site refuses it: the gateway
        moves it by itself when its exit dies."""
        self._generation = 1
        self._lock = threading.Lock()
        username(selector, session=self._name, strict=self.strict)  # raises if it cannot be written

    def __repr__(self) -> str:
        return f"Session({self.username!r} at {self.gateway.address})"

    @property
    def name(self) -> str | None:
        """The session's name at the gateway now. None for a strict username without a session."""
        with self._lock:
            return self._name if self._generation == 1 or self._name is None else f"{self._name}.{self._generation}"

    @property
    def username(self) -> str:
        return username(self.selector, session=self.name, strict=self.strict)

    def proxy_url(self, scheme: str | None = None) -> str:
        """The proxy's URL with this session. It contains a secret: do not log it."""
        return self.gateway.proxy_url(self.selector, session=self.name, strict=self.strict, scheme=scheme)

    def authorization(self) -> str:
        """The value of `Proxy-Authorization`. It contains a secret."""
        return self.gateway.authorization(self.selector, session=self.name, strict=self.strict)

    def renew(self, seen: str | None) -> None:
        """Takes a new name at the gateway, if the name is still `seen`: of several threads that were refused at the
        same time, only the first changes it. A strict session stays as it is."""
        if self.strict or self.name != seen:
            return
        with self._lock:
            current = self._name if self._generation == 1 else f"{self._name}.{self._generation}"
            if current == seen:
                self._generation += 1

    def exit(self, timeout: float | None = None) -> CurrentExit | None:
        """The exit that this session uses now. None before its first request."""
        return self.gateway.exit(self.selector, session=self.name, strict=self.strict, timeout=timeout)

    def choose(self) -> CurrentExit:
        """The exit of this session. If it has none yet, the gateway chooses and tests one before this returns."""
        if exit := self.exit():
            return exit
        # One thread after the other: a second rotation would move the session again, and the first thread would have an
        # exit that the session has left.
        with self.gateway._choosing(self.username):
            return self.exit() or self.gateway.rotate(self.selector, session=self.name, strict=self.strict)["after"]

    def identity(self) -> Identity:
        """The time zone and the language of the exit's country. See `exitgate.identity`."""
        return identity(self.choose()["country"])

    def rotate(self) -> Moved:
        """Moves the session to another exit, which the gateway tests before this returns. The next request makes a new
        tunnel. The new exit is not the one before, as long as the gateway has others."""
        before = self.exit()
        self.renew(self.name)
        moved = self.gateway.rotate(self.selector, session=self.name, strict=self.strict)
        if not self.strict and before and moved["after"]["id"] == before["id"]:
            moved = self.gateway.rotate(self.selector, session=self.name, strict=self.strict)
        return {"before": before, "after": moved["after"]}

    def report(self, site: str, *, outcome: str | None = None, name: str | None = None) -> CurrentExit | None:
        """Reports that a site refuses the exit of this session. Returns the exit. None if the session has no exit.

        `name` is the session's name when the request was sent, in case that it has changed since.
        """
        named = name if name is not None else self.name
        exit = self.gateway.exit(self.selector, session=named, strict=self.strict)
        if exit is None:
            return None
        try:
            self.gateway.report(
                site, self.selector, session=named, strict=self.strict, exit=exit["id"], outcome=outcome
            )
        except BadRequest:
            return None  # the exit is gone since
        return exit

    def why(self, site: str | None = None) -> Explanation:
        """Explains which exits this session can use, and why the others are excluded. Needs the API."""
        return self.gateway.why(self.selector, session=self.name, strict=self.strict, site=site)
