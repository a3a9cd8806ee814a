"""The JSON objects of the API as types. A test compares them with the gateway's own `/openapi.json`.

A gateway that is newer than this kit may send more fields.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict


class _ExitAlways(TypedDict):
    id: str
    source: str
    announced: list[str]
    usable: bool
    verdict: str
    passed: list[str]
    streams: int


class Exit(_ExitAlways, total=False):
    """An exit, with what its source and its checks say of it."""

    ip: str | None
    country: str | None
    nickname: str
    asn: int | None
    as_name: str | None
    checked: str | None
    good: str | None
    latency_ms: int | None
    marks: list[str]
    username: str | None
    why: str | None


class Step(TypedDict):
    """One condition, and the number of exits that fulfil it and all conditions before it."""

    step: str
    left: int


class Pin(TypedDict):
    exit: str
    ip: str


class MatchedRule(TypedDict):
    """A rule of a route that matches the target. `number` is its place in the list, from 1."""

    route: str
    number: int
    rule: str


class _ExplanationAlways(TypedDict):
    username: str
    selector: str
    route: str
    funnel: list[Step]
    text: str
    pool: list[Exit]
    rules: list[MatchedRule]


class Escalation(TypedDict):
    """A later source of a route, with which requests to a site begin until a time."""

    source: str
    because: str
    until: str


class Explanation(_ExplanationAlways, total=False):
    """Which exits a username can use, and why the others are excluded."""

    refused: str | None
    session: str | None
    pin: Pin | None
    escalation: Escalation | None


class _PoolAlways(TypedDict):
    wanted: int
    have: int
    unique_ips: int


class Pool(_PoolAlways, total=False):
    latency_ms: int | None


class Live(TypedDict):
    connections: int
    exits: int
    requests: int
    errors: int
    bytes_up: int
    bytes_down: int
    rate_up: int
    rate_down: int
    by_source: dict[str, dict[str, int]]


class Urls(TypedDict):
    socks5: str
    http: str


class Pinned(TypedDict):
    id: str
    ip: str


class Rule(TypedDict, total=False):
    """A rule by destination: which targets it matches, and one of `use`, `route`, `refuse` and `direct`."""

    host: list[str] | None
    port: list[int | str] | None
    use: str | None
    route: str | None
    refuse: bool | None
    direct: bool | None


class _RouteAlways(TypedDict):
    name: str
    selector: str
    mode: str
    pool: Pool
    summary: str
    auth: str
    origin: str
    created: str
    state: str
    policy: dict[str, Any]
    live: Live
    rule_count: int


class Route(_RouteAlways, total=False):
    """A route, with the exits that it uses and what it carries."""

    port: int | None
    exit: Pinned | None
    check: str | None
    expires: str | None
    used: str | None
    urls: Urls | None
    missing: str | None
    rules: list[Rule] | None


class RouteOptions(TypedDict, total=False):
    """The fields of a new route beside its selector. In a change, None removes a field."""

    name: str | None
    geo_category: Literal["US", "NON_US", "ANY"] | None
    mode: Literal["strict", "flexible", "rotate"] | None
    port: int | None
    pool: int | None
    check: str | None
    auth: Literal["key", "open"] | None
    allow: list[str] | None
    engine: Literal["shared", "own"] | None
    exclusive: bool | None
    hops: int | None
    ipv6: bool | None
    isolation: Literal["key", "session", "target"] | None
    repin_after: str | int | None
    rotate_every: str | int | None
    ttl: str | int | None
    source: list[str] | None
    fallback: bool | None
    escalate_for: str | int | None
    rules: list[Rule] | None


class RouteSpec(RouteOptions, total=False):
    """The body that creates or changes a route."""

    selector: str | None
    count: int | None


class _RotatedAlways(TypedDict):
    exit: Exit


class Rotated(_RotatedAlways, total=False):
    """What the rotation of a route changed."""

    before: str | None
    before_exit: str | None
    after: str | None


class Ban(TypedDict):
    """The ban that a report made."""

    site: str
    exit: str
    until: str


class _LastAlways(TypedDict):
    by: str
    id: str


class Last(_LastAlways, total=False):
    """The exit that served last."""

    ip: str | None
    exit: Exit | None


class SourceReadiness(TypedDict):
    ready: bool
    usable: int
    reason: str


class Readiness(TypedDict):
    """Whether traffic can leave, and through which sources."""

    ready: bool
    draining: bool
    sources: dict[str, SourceReadiness]


class Country(TypedDict):
    country: str
    known: int
    usable: int


class Closed(TypedDict):
    """A closed route."""

    name: str
    state: str


# exit.gate is not in the API's description: it belongs to the proxy port.


class CurrentExit(TypedDict):
    """The exit that a username uses now, as exit.gate shows it."""

    id: str
    ip: str | None
    country: str | None
    checked_seconds_ago: int | None


class Seen(TypedDict):
    """What serves a username now. `refused` says why a request would be refused; None if it would be served."""

    route: str
    selector: str
    session: str | None
    key: str
    pool: int
    exit: CurrentExit | None
    refused: str | None


class Moved(TypedDict):
    """What a rotation of a username changed. `before` is None if no exit had been chosen yet."""

    before: CurrentExit | None
    after: CurrentExit


class Reported(TypedDict):
    """The site and the exit of a report that the gateway accepted."""

    site: str
    exit: str
