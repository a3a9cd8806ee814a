"""exitgate for Python: choose the machines from which your requests leave, by country, session or address.

The helpers for frameworks are in modules of the same names: `exitgate.scrapy`, `exitgate.requests`, `exitgate.httpx`,
`exitgate.aiohttp` and `exitgate.playwright`. Each imports its framework; this module imports none.
"""

from .errors import (
    ApiError,
    BadRequest,
    BadSelector,
    Denied,
    ExitFailed,
    ExitgateError,
    GatewayError,
    KeyRefused,
    LimitReached,
    NoExit,
    NotFound,
    NotReady,
    SiteRefused,
    TargetFailed,
    TimedOut,
    TokenRefused,
    Unreachable,
)
from .gateway import Gateway
from .identity import Identity, identity
from .models import CurrentExit, Exit, Explanation, Moved, Readiness, Reported, Route, RouteSpec, Rule, Seen
from .session import Session
from .username import username

__version__ = "0.2.0"

__all__ = [
    "ApiError",
    "BadRequest",
    "BadSelector",
    "CurrentExit",
    "Denied",
    "Exit",
    "ExitFailed",
    "ExitgateError",
    "Explanation",
    "Gateway",
    "GatewayError",
    "Identity",
    "KeyRefused",
    "LimitReached",
    "Moved",
    "NoExit",
    "NotFound",
    "NotReady",
    "Readiness",
    "Reported",
    "Route",
    "RouteSpec",
    "Rule",
    "Seen",
    "Session",
    "SiteRefused",
    "TargetFailed",
    "TimedOut",
    "TokenRefused",
    "Unreachable",
    "identity",
    "username",
]
