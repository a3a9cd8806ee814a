"""`Gateway`: one exitgate gateway, its proxy port and its API."""

from __future__ import annotations

import base64
import json
import os
import ssl
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import SplitResult, quote, unquote, urlencode, urlsplit

from ._wire import Wire, api_answer, gate_answer
from .errors import BadSelector, ExitgateError, KeyRefused, NotReady
from .models import Country, CurrentExit, Exit, Explanation, Moved, Readiness, Reported, Seen
from .routes import Routes
from .username import username

if TYPE_CHECKING:
    from .session import Session

_SCHEMES = {"http": 1080, "https": 1080, "socks5h": 1080, "socks5": 1080}
# A password for gateways without keys. Some SOCKS clients send no username if there is no password.
NO_KEY = "x"
# A rotation tests exits before it answers; the gateway gives it up to a minute.
ROTATE_TIMEOUT = 75.0
# Not tuned: more than threads that choose exits at the same time.
_LOCKS = 64


class Gateway:
    """A gateway. What is not given is read from EXITGATE_PROXY, EXITGATE_API, EXITGATE_KEY and EXITGATE_TOKEN.

    `proxy` is the URL of the shared port. All protocols share one port; the URL's scheme decides which one the helpers
    use: `http`, `https` (TLS to the gateway) or `socks5h`. `key` is the password of a client. `token` is needed by the
    API only: by `why`, `exits`, `countries` and `routes`. Everything else works with the proxy port alone. `selector` is
    for calls that name none. A username and a password in the proxy's URL are the selector and the key.
    """

    def __init__(
        self,
        proxy: str | None = None,
        api: str | None = None,
        *,
        key: str | None = None,
        token: str | None = None,
        selector: str | None = None,
        timeout: float = 30.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._proxy = _split(proxy or os.environ.get("EXITGATE_PROXY") or "http://127.0.0.1:1080", "EXITGATE_PROXY")
        self._api_url = urlsplit(api or os.environ.get("EXITGATE_API") or "http://127.0.0.1:8080")
        if self._api_url.scheme not in ("http", "https") or not self._api_url.hostname:
            raise BadSelector("the URL of the API must begin with http:// or https:// (EXITGATE_API)")
        in_url = unquote(self._proxy.password) if self._proxy.password else None
        self._key = key or in_url or os.environ.get("EXITGATE_KEY") or None
        self.selector = selector or unquote(self._proxy.username or "") or "any"
        """The selector of calls that name none."""
        self._token = token or os.environ.get("EXITGATE_TOKEN") or None
        self._tls, self._timeout = tls, timeout
        plain = "https" if self._proxy.scheme == "https" else "http"
        self._gate = Wire(self._proxy._replace(scheme=plain), timeout, tls)
        self._api = Wire(self._api_url, timeout, tls)
        self._locks = tuple(threading.Lock() for _ in range(_LOCKS))
        self.routes = Routes(self)
        """The gateway's routes: list, create, change, delete."""

    def __repr__(self) -> str:
        key, token = ("set" if secret else "none" for secret in (self._key, self._token))
        return f"Gateway(proxy={self.address!r}, api={self._api_url.hostname}:{self._api_url.port}, key={key}, token={token})"

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the idle connections. The gateway object can still be used."""
        self._gate.close()
        self._api.close()

    def __reduce__(self) -> str:
        raise TypeError("a Gateway holds connections and secrets: make one in each process")

    @property
    def address(self) -> str:
        """The proxy's URL without username and key."""
        return f"{self._proxy.scheme}://{self._netloc}"

    @property
    def _netloc(self) -> str:
        host = self._proxy.hostname or ""
        return f"[{host}]:{self._proxy.port}" if ":" in host else f"{host}:{self._proxy.port}"

    @property
    def host(self) -> str:
        """The host of the proxy's URL."""
        return self._proxy.hostname or ""

    @property
    def has_key(self) -> bool:
        return self._key is not None

    def password(self) -> str:
        """The password for the proxy port: the key, or a word that a gateway without keys ignores."""
        return self._key or NO_KEY

    # The proxy port.

    def username(self, selector: str | None = None, *, session: str | None = None, strict: bool = False) -> str:
        """The username for these exits, for example `us-strict-session-cart42`."""
        return username(selector or self.selector, session=session, strict=strict)

    def proxy_url(
        self, selector: str | None = None, *, session: str | None = None, strict: bool = False, scheme: str | None = None
    ) -> str:
        """The proxy's URL for any client, with the username and the key. It contains a secret: do not log it."""
        name = self.username(selector, session=session, strict=strict)
        kind = _scheme(scheme or self._proxy.scheme)
        return f"{kind}://{quote(name, safe='')}:{quote(self.password(), safe='')}@{self._netloc}"

    def authorization(self, selector: str | None = None, *, session: str | None = None, strict: bool = False) -> str:
        """The value of `Proxy-Authorization`, for clients that write it themselves. It contains a secret."""
        pair = f"{self.username(selector, session=session, strict=strict)}:{self.password()}"
        return "Basic " + base64.b64encode(pair.encode()).decode()

    def session(self, selector: str | None = None, name: str | None = None, *, strict: bool = False) -> Session:
        """A session: requests with it use one exit, until a site refuses it. Without a name it gets a random one."""
        from .session import Session

        return Session(self, selector or self.selector, name, strict=strict)

    def _choosing(self, username: str) -> threading.Lock:
        """The lock for the choice of this username's first exit. Some usernames share a lock."""
        return self._locks[hash(username) % _LOCKS]

    def exit(
        self, selector: str | None = None, *, session: str | None = None, strict: bool = False, timeout: float | None = None
    ) -> CurrentExit | None:
        """The exit that this username uses now. None if the username names no single exit, or has not used one yet."""
        return self.seen(selector, session=session, strict=strict, timeout=timeout)["exit"]

    def seen(
        self, selector: str | None = None, *, session: str | None = None, strict: bool = False, timeout: float | None = None
    ) -> Seen:
        """What serves this username now: the route, the size of the pool, the exit, and why a request would be refused."""
        return cast(Seen, self._ask_gate("GET", "/", selector, session, strict, timeout=timeout))

    def rotate(
        self, selector: str | None = None, *, session: str | None = None, strict: bool = False, timeout: float = ROTATE_TIMEOUT
    ) -> Moved:
        """Moves a session or a strict username to another exit, which the gateway tests before it answers.

        Open tunnels stay at the old exit: `Session.rotate()` makes new tunnels too.
        """
        return cast(Moved, self._ask_gate("POST", "/rotate", selector, session, strict, b"", timeout))

    def report(
        self,
        site: str,
        selector: str | None = None,
        *,
        session: str | None = None,
        strict: bool = False,
        exit: str | None = None,
        outcome: str | None = None,
        timeout: float | None = None,
    ) -> Reported:
        """Reports that a site refuses an exit: routes do not use the exit for this site for a while.

        `site` is a host name or a URL. `exit` is an exit's id or address. Without it, the exit of the session is
        meant. `outcome` is for people: `blocked`, `captcha`, …
        """
        body = {"site": host_of(site), "exit": exit, "outcome": outcome}
        data = json.dumps({name: value for name, value in body.items() if value is not None}).encode()
        return cast(Reported, self._ask_gate("POST", "/report", selector, session, strict, data, timeout))

    def asks_for_username(self) -> bool:
        """True if the port answers 407 to a client without a username. Browsers send theirs only after that."""
        status, _, _ = self._gate.send("GET", "http://exit.gate/", {"Host": "exit.gate"})
        return status == 407

    def _ask_gate(
        self,
        method: str,
        path: str,
        selector: str | None,
        session: str | None,
        strict: bool,
        body: bytes | None = None,
        timeout: float | None = None,
    ) -> Any:
        headers = {
            "Host": "exit.gate",
            "Proxy-Authorization": self.authorization(selector, session=session, strict=strict),
            "X-Exitgate": "1",
        }
        return gate_answer(*self._gate.send(method, f"http://exit.gate{path}", headers, body, timeout))

    # The API.

    def call(self, method: str, path: str, query: dict[str, Any] | None = None, body: Any = None, timeout: float | None = None) -> Any:
        """One request to the API, for endpoints that have no method here. Returns the JSON of the answer."""
        headers = {"Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None
        if body is not None:
            headers["Content-Type"], data = "application/json", json.dumps(body).encode()
        elif method not in ("GET", "HEAD", "DELETE"):
            headers["Content-Type"], data = "application/json", b""
        given = {name: _text(value) for name, value in (query or {}).items() if value is not None}
        whole = f"{self._api_url.path.rstrip('/')}{path}" + (f"?{urlencode(given)}" if given else "")
        return api_answer(*self._api.send(method, whole, headers, data, timeout))

    def why(
        self,
        selector: str | None = None,
        *,
        session: str | None = None,
        strict: bool = False,
        site: str | None = None,
        port: int | None = None,
        key: str | None = None,
    ) -> Explanation:
        """Explains which exits a username can use, and why the others are excluded. `key` is the name of a key."""
        name = self.username(selector, session=session, strict=strict)
        query = {"username": name, "host": host_of(site) if site else None, "port": port, "key": key}
        return cast(Explanation, self.call("GET", "/explain", query))

    def exits(self, *, country: str | None = None, usable: bool | None = None, source: str | None = None) -> Iterator[Exit]:
        """All exits that the gateway knows, sorted by id. Reads page after page."""
        after = None
        while True:
            query = {"country": country, "usable": usable, "source": source, "limit": 1000, "after": after}
            page = self.call("GET", "/exits", query)
            yield from page["exits"]
            after = page.get("next")
            if not after:
                return

    def countries(self) -> list[Country]:
        """The countries of the known exits."""
        return cast("list[Country]", self.call("GET", "/countries")["countries"])

    def ready(self) -> Readiness:
        """Whether traffic can leave now. Needs no token."""
        status, headers, content = self._api.send("GET", f"{self._api_url.path.rstrip('/')}/ready", {})
        if status == 503:
            return cast(Readiness, json.loads(content))
        return cast(Readiness, api_answer(status, headers, content))

    def wait_ready(self, timeout: float = 120.0, *, exits: int = 1, selector: str | None = None) -> Readiness:
        """Waits until at least `exits` tested exits can be used, and, if there is a `selector`, until the gateway can serve
        it. A wrong selector or key fails at once. The first start of a gateway takes a minute or two."""
        deadline, last, pause = time.monotonic() + timeout, "no answer", 0.05
        while True:
            try:
                said = self.ready()
                if said["ready"] and sum(source["usable"] for source in said["sources"].values()) >= exits:
                    refused = self.seen(selector)["refused"] if selector else None
                    if refused is None:
                        return said
                    last = refused
                else:
                    reasons = (f"{name}: {source['reason']}" for name, source in said["sources"].items())
                    last = "; ".join(reasons) or "no source"
            except ExitgateError as error:
                if not error.retry:
                    raise
                last = error.message
            left = deadline - time.monotonic()
            if left <= 0:
                raise NotReady(f"the gateway was not ready within {timeout:g} s: {last}")
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, 1.0)

    def check_key(self) -> None:
        """Raises KeyRefused if the key is missing or wrong."""
        if not self.has_key and self.asks_for_username():
            raise KeyRefused("the gateway asks for a key", status=407)
        self.exit("any")


def _split(url: str, variable: str) -> SplitResult:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    _scheme(parts.scheme)
    if not parts.hostname:
        raise BadSelector(f"the proxy's URL names no host ({variable})")
    if parts.port is None:
        parts = parts._replace(netloc=f"{parts.netloc}:{_SCHEMES[parts.scheme]}")
    return parts


def _scheme(scheme: str) -> str:
    if scheme not in _SCHEMES:
        raise BadSelector(f"the proxy's URL begins with {scheme}://; use one of {', '.join(_SCHEMES)}")
    # With socks5 the client resolves the name itself, so its own resolver would see every target.
    return "socks5h" if scheme == "socks5" else scheme


def host_of(site: str) -> str:
    """The host of a URL, or the text itself."""
    return (urlsplit(site).hostname or site) if "://" in site else site


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
