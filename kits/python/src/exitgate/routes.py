"""`Gateway.routes`: the routes of a gateway. The API calls a route `/proxies`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from .models import Ban, Closed, Exit, Last, Rotated, Route, RouteOptions, RouteSpec

if TYPE_CHECKING:
    from typing_extensions import Unpack  # only type checkers read this

    from .gateway import Gateway

# A rotation tests exits before it answers; the gateway gives it up to a minute.
_ROTATE_TIMEOUT = 75.0


# Inside the class the name `list` is the method.
_RouteList = list[Route]
_ExitList = list[Exit]


class Routes:
    """Creates, changes and deletes routes. Made by `Gateway.routes`."""

    def __init__(self, gateway: Gateway) -> None:
        self._call = gateway.call

    def list(self, *, name: str | None = None, origin: str | None = None, mode: str | None = None) -> Iterator[Route]:
        """All routes by name. Reads page after page."""
        after = None
        while True:
            query = {"name": name, "origin": origin, "mode": mode, "limit": 1000, "after": after}
            page = self._call("GET", "/proxies", query)
            yield from page["proxies"]
            after = page.get("next")
            if not after:
                return

    def get(self, route: str | int) -> Route:
        """One route, by name or port."""
        return cast(Route, self._call("GET", _path(route)))

    def create(self, selector: str | None = None, **spec: Unpack[RouteOptions]) -> Route:
        """Creates a route. The same name and the same body again return the route that exists."""
        body: dict[str, Any] = {**spec}
        if selector is not None:
            body["selector"] = selector
        return cast(Route, self._call("POST", "/proxies", body=body))

    def create_many(self, count: int, selector: str, **spec: Unpack[RouteOptions]) -> _RouteList:
        """Creates several routes at once, each with addresses of its own."""
        body: dict[str, Any] = {**spec, "count": count, "selector": selector}
        return cast(_RouteList, self._call("POST", "/proxies", body=body)["proxies"])

    def change(self, route: str | int, **spec: Unpack[RouteSpec]) -> Route:
        """Changes the named fields of a route. None removes a field."""
        return cast(Route, self._call("PATCH", _path(route), body={**spec}))

    def delete(self, route: str | int, *, force: bool | None = None) -> Closed:
        """Closes a route. Open connections may finish, unless `force` is true."""
        return cast(Closed, self._call("DELETE", _path(route), {"force": force}))

    def exits(self, route: str | int) -> _ExitList:
        """The exits that a route, or a username, uses now."""
        return cast(_ExitList, self._call("GET", f"{_path(route)}/exits")["exits"])

    def last(self, route: str | int, *, session: str | None = None, key: str | None = None) -> Last:
        """The exit that served last. `key` is the name of a key."""
        return cast(Last, self._call("GET", f"{_path(route)}/last", {"session": session, "key": key}))

    def rotate(self, route: str | int, *, session: str | None = None, key: str | None = None) -> Rotated:
        """Moves a route to another exit with another address, which is tested before the answer."""
        path, query = f"{_path(route)}/rotate", {"session": session, "key": key}
        return cast(Rotated, self._call("POST", path, query, timeout=_ROTATE_TIMEOUT))

    def report(
        self,
        route: str | int,
        site: str,
        *,
        exit: str | None = None,
        session: str | None = None,
        outcome: str | None = None,
        key: str | None = None,
    ) -> Ban:
        """Reports that a site refuses an exit of this route. The answer says until when the exit is not used for it."""
        from .gateway import host_of

        body = {"site": host_of(site), "exit": exit, "session": session, "outcome": outcome, "key": key}
        given = {name: value for name, value in body.items() if value is not None}
        return cast(Ban, self._call("POST", f"{_path(route)}/report", body=given))


def _path(route: str | int) -> str:
    return f"/proxies/{quote(str(route), safe='')}"
