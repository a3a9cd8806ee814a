"""Writes usernames: the selector, and after it the mode and the session."""

from __future__ import annotations

import re
import unicodedata

from .errors import BadSelector

# A name that fits into the form `session-NAME`. Other names need `session=NAME`, which must come last.
_PLAIN = re.compile(r"[A-Za-z0-9_.]{1,64}\Z")
_MODES = ("strict", "flexible", "rotate")
# Words that are followed by a value; `sessid` and the like are words of paid gateways.
_KEYS = frozenset(
    ("session", "sessid", "sessionid", "ttl", "sesstime", "sessionduration", "lifetime", "exit", "asn", "source", "country", "cc", "geo")
)
LONGEST = 255
LONGEST_SESSION = 128


def check_session(session: str) -> str:
    """The name itself, if a username can carry it."""
    if not session:
        raise BadSelector("a session's name must not be empty")
    if ":" in session or any(unicodedata.category(letter) == "Cc" for letter in session):
        raise BadSelector(f"the session {session!r} contains `:` or a control character")
    if len(session.encode()) > LONGEST_SESSION:
        raise BadSelector(f"the session {session[:20]!r}… is longer than {LONGEST_SESSION} bytes")
    return session


def username(selector: str, *, session: str | None = None, strict: bool = False) -> str:
    """The username for these exits, for example `us-strict-session-cart42`."""
    words, names_session = _words(selector)
    if not selector or any(unicodedata.category(letter) == "Cc" for letter in selector) or ":" in selector:
        raise BadSelector(f"the selector {selector!r} is empty, or contains `:` or a control character")
    if session is not None and names_session:
        raise BadSelector(f"the selector {selector!r} names a session already")
    if session is not None and "rotate" in words:
        raise BadSelector("a session keeps its exit, and `rotate` changes it: use one of the two")
    parts = [selector]
    if strict and "strict" not in words:
        if any(mode in words for mode in _MODES) or names_session:
            raise BadSelector(f"write `strict` into the selector {selector!r} itself, in place of its mode or before its session")
        parts.append("strict")
    if session is not None:
        check_session(session)
        parts.append(f"session-{session}" if _PLAIN.match(session) else f"session={session}")
    text = "-".join(parts)
    if len(text.encode()) > LONGEST:
        raise BadSelector(f"the username is longer than {LONGEST} bytes: use a shorter session")
    return text


def is_strict(selector: str) -> bool:
    """True if the selector itself asks for one address."""
    return "strict" in _words(selector)[0]


def _words(selector: str) -> tuple[list[str], bool]:
    """The words of a selector without the values of keys, and whether it names a session."""
    words: list[str] = []
    tokens, names_session = iter(selector.lower().split("-")), False
    for token in tokens:
        if token.startswith("session="):
            return words, True
        words.append(token)
        if token in _KEYS:
            names_session |= token.startswith("sess") and token != "sesstime"
            next(tokens, None)
    return words, names_session
