"""Playwright through an exit: the proxy, and the time zone and the language of the exit's country.

    from exitgate.playwright import BrowserExit

    with BrowserExit("us") as exit, sync_playwright() as playwright:
        browser = playwright.chromium.launch(**exit.launch_options)
        page = browser.new_page(**exit.context_options)

For the asynchronous interface: `async with BrowserExit("us") as exit`.

A browser sends its username only to a proxy that asks for it (status 407). A gateway without keys does not ask, unless
it has `gateway.require_username = true`. At such a gateway the username would be lost, and the browser would use any
exit. So there `BrowserExit` makes a route with a port of its own, which needs the API, and deletes it at the end.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from . import errors
from .gateway import Gateway
from .identity import Identity, identity
from .models import CurrentExit, Moved
from .session import Session

__all__ = ["BrowserExit"]

# How long the route of a browser lives that never came back to delete it.
_ROUTE_TTL = "1d"


class BrowserExit:
    """One exit for a browser, as a context manager. `identity` is a guess from the exit's country: see
    `exitgate.identity`."""

    def __init__(
        self, selector: str | None = None, *, session: str | None = None, strict: bool = False, gateway: Gateway | None = None
    ) -> None:
        self.gateway = gateway or Gateway()
        self.session = self.gateway.session(selector, session, strict=strict)
        self._route: str | None = None
        self._port_gateway: Gateway | None = None
        self.exit: CurrentExit | None = None
        """The exit when this was opened, or since the last rotate()."""
        self.launch_options: dict[str, Any] = {}
        """Arguments of `launch()`: the proxy. Contains the key if there is one."""

    @property
    def identity(self) -> Identity:
        return identity(self.exit["country"] if self.exit else None)

    @property
    def context_options(self) -> dict[str, Any]:
        """Arguments of `new_context()` and `new_page()`: the time zone and the language."""
        return {"timezone_id": self.identity.timezone, "locale": self.identity.locale}

    def open(self) -> BrowserExit:
        """Makes the gateway choose an exit and test it. `with` does this."""
        if self.gateway.asks_for_username():
            scheme = "https" if self.gateway.address.startswith("https:") else "http"
            server = f"{scheme}{self.gateway.address[self.gateway.address.index(':') :]}"
            self.launch_options = {
                "proxy": {"server": server, "username": self.session.username, "password": self.gateway.password()}
            }
            self.exit = self.session.choose()
            return self
        name = f"browser-{secrets.token_hex(6)}"
        try:
            route = self.gateway.routes.create(self.session.username, name=name, ttl=_ROUTE_TTL)
        except errors.Unreachable as error:
            raise errors.Unreachable(
                "A browser sends no username to this gateway, because the gateway does not ask for one. "
                f"The route that helps needs the API: {error.message}. "
                "Set EXITGATE_API, or set gateway.require_username = true, or use a key"
            ) from error
        self._route = route["name"]
        try:
            server = self._server(route.get("port"))
            self.launch_options = {"proxy": {"server": server}}
            self._port_gateway = Gateway(server)
            self.exit = self._at_port("exit") or self._at_port("rotate")["after"]
        except BaseException:
            self.close()
            raise
        return self

    def _server(self, port: int | None) -> str:
        if port is None:
            raise errors.NotReady("the gateway gave the route no port")
        host = self.gateway.host
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def _at_port(self, what: str) -> Any:
        """Asks exit.gate at the route's own port. There an empty username means the route."""
        assert self._port_gateway is not None and self._route is not None
        return getattr(self._port_gateway, what)(self._route)

    def rotate(self) -> Moved:
        """Moves to another exit. The browser's open connections stay at the old one, so start a new browser, with the
        new `launch_options` and `context_options`."""
        if self._route is not None:
            moved: Moved = self._at_port("rotate")
        else:
            moved = self.session.rotate()
            self.launch_options["proxy"]["username"] = self.session.username
        self.exit = moved["after"]
        return moved

    def report(self, site: str, outcome: str | None = None) -> None:
        """Reports that a site refuses the exit."""
        if self._port_gateway is not None and self._route is not None:
            self._port_gateway.report(site, self._route, exit=self.exit["id"] if self.exit else None, outcome=outcome)
        else:
            self.session.report(site, outcome=outcome)

    def close(self) -> None:
        """Deletes the route, if there is one. `with` does this."""
        if self._port_gateway is not None:
            self._port_gateway.close()
        if self._route is not None:
            route, self._route = self._route, None
            try:
                self.gateway.routes.delete(route)
            except errors.NotFound:
                pass

    def __enter__(self) -> BrowserExit:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> BrowserExit:
        return await asyncio.to_thread(self.open)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)
