"""Gateway, Session and the errors."""

from __future__ import annotations

import concurrent.futures
import pickle
import random
import threading
import zoneinfo
from typing import Any

import pytest
from conftest import Scripted, Site

import exitgate
from exitgate import Gateway, identity, username
from exitgate._attempts import Attempts, Policy
from exitgate.demo import EXITS, Demo
from exitgate.errors import of_failed_tunnel
from exitgate.identity import IDENTITIES
from exitgate.username import is_strict


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"selector": "us"}, "us"),
        ({"selector": "us", "strict": True}, "us-strict"),
        ({"selector": "us-strict", "strict": True}, "us-strict"),
        ({"selector": "us", "session": "cart42"}, "us-session-cart42"),
        ({"selector": "us", "session": "a-b", "strict": True}, "us-strict-session=a-b"),
        ({"selector": "de+fr-ttl-2h", "session": "é"}, "de+fr-ttl-2h-session=é"),
        ({"selector": "us-session-strict"}, "us-session-strict"),
    ],
)
def test_usernames(arguments: dict[str, object], expected: str) -> None:
    assert username(**arguments) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments",
    [
        {"selector": ""}, {"selector": "u:s"}, {"selector": "us\n"}, {"selector": "us", "session": ""}, {"selector": "us", "session": "a:b"},
        {"selector": "us", "session": "a\r\nb"}, {"selector": "us", "session": "x" * 129}, {"selector": "us", "session": "é" * 65},
        {"selector": "us-session-a", "session": "b"}, {"selector": "us-session=a", "session": "b"}, {"selector": "us-rotate", "session": "b"},
        {"selector": "us-rotate", "strict": True}, {"selector": "us-session=a", "strict": True}, {"selector": "u" * 256},
    ],
)  # fmt: skip
def test_usernames_that_cannot_be_written(arguments: dict[str, object]) -> None:
    with pytest.raises(exitgate.BadSelector) as bad:
        username(**arguments)  # type: ignore[arg-type]
    assert isinstance(bad.value, ValueError) and bad.value.code == "bad_selector"


def test_a_session_named_strict_is_not_strict() -> None:
    assert is_strict("us-strict") and is_strict("us-STRICT-session-a") and is_strict("us-strict-session=x")
    assert not is_strict("us-session-strict") and not is_strict("us-session=a-strict") and not is_strict("us")


def test_the_gateway_reads_each_session_as_it_was_written(gateway: Gateway) -> None:
    some = random.Random(7)
    letters = "abcXYZ019._-=@+~ /%?#&'\"\\éжあ😀\u00a0\u202e"
    names = ["".join(some.choices(letters, k=some.randint(1, 25))) for _ in range(150)]
    for name in names:
        said = gateway._ask_gate("GET", "/", "us", name, False)
        assert said["session"] == name, name


def test_the_environment_and_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXITGATE_PROXY", "socks5://gate.example")
    monkeypatch.setenv("EXITGATE_KEY", "sécret:@/")
    assert Gateway().proxy_url("us") == "socks5h://us:s%C3%A9cret%3A%40%2F@gate.example:1080"
    assert Gateway("http://u:other@[::1]:7").proxy_url("us", session="a b") == "http://us-session%3Da%20b:other@[::1]:7"
    assert Gateway("gate:9", key="k").proxy_url("us", scheme="https") == "https://us:k@gate:9"
    assert Gateway("http://de:other@gate:7").proxy_url(session="a") == "http://de-session-a:other@gate:7"
    assert Gateway("http://gate:7", selector="fr").session().selector == "fr"
    monkeypatch.delenv("EXITGATE_KEY")
    assert Gateway().proxy_url() == "socks5h://any:x@gate.example:1080", "SOCKS clients drop a username without a password"
    for wrong in ("ftp://x", "http://"):
        with pytest.raises(exitgate.BadSelector, match="EXITGATE_PROXY|ftp"):
            Gateway(wrong)


def test_nothing_shows_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    gateway = Gateway("http://me:hidden1@127.0.0.1:9", "http://127.0.0.1:9", token="hidden2")
    said = [repr(gateway), repr(gateway.session("us", "a")), repr(gateway.routes), repr(vars(gateway.session("us")))]
    for call in (gateway.exit, gateway.why):
        with pytest.raises(exitgate.Unreachable) as failed:
            call()
        said += [str(failed.value), repr(failed.value)]
    assert not any("hidden" in text for text in said) and "hidden" not in caplog.text
    with pytest.raises(TypeError):
        pickle.dumps(gateway)


def test_errors_keep_what_they_know() -> None:
    error = exitgate.LimitReached("slow down", status=429, retry_after=2, request_id="c-1")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.message, again.status, again.retry_after, again.request_id) == (exitgate.LimitReached, "slow down", 429, 2, "c-1")
    refused = pickle.loads(pickle.dumps(exitgate.SiteRefused("x", response=object(), exits=("a",))))
    assert refused.exits == ("a",) and refused.response is None
    codes = [kind.code for kind in exitgate.GatewayError.__subclasses__()]
    assert len(set(codes)) == len(codes) == 7 and all(kind.advice for kind in exitgate.GatewayError.__subclasses__())


def test_a_session_has_an_exit_rotates_and_reports(gateway: Gateway, site: Site) -> None:
    session = gateway.session("us")
    assert session.exit() is None and session.report(site.ip) is None
    first = session.choose()
    assert first["country"] == "US" and session.exit() and session.exit()["id"] == first["id"]  # type: ignore[index]
    assert session.identity().timezone == "America/New_York" and session.identity().derived
    reported = session.report(f"{site.https}/page?x", outcome="captcha")
    assert reported and reported["id"] == first["id"]
    explained = session.why(site=site.https)
    assert any(step["step"] == f"not banned by {site.ip}" and step["left"] == 2 for step in explained["funnel"]), explained["text"]
    for _ in range(5):
        moved = session.rotate()
        assert moved["before"] and moved["before"]["id"] != moved["after"]["id"] == session.exit()["id"]  # type: ignore[index]


def test_threads_share_a_gateway(gateway: Gateway) -> None:
    def one(number: int) -> bool:
        session = gateway.session("any", f"thread{number % 5}.{gateway.host}")
        return session.choose()["id"] == (session.exit() or {}).get("id")

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert all(pool.map(one, range(80))), "a thread got an exit that another thread has moved the session away from"
    assert len(gateway._gate._idle) <= 8


def test_simultaneous_first_uses_of_a_session_get_one_exit(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    start, rotations, rotate = threading.Barrier(8), [], gateway.rotate

    def counted(*args: Any, **options: Any) -> Any:
        rotations.append(args)
        return rotate(*args, **options)

    def one(_: int) -> str:
        session = gateway.session("any", f"first.{gateway.host}")
        start.wait(30)
        return session.choose()["id"]

    monkeypatch.setattr(gateway, "rotate", counted)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(one, range(8)))) == 1
    assert len(rotations) == 1, "a second rotation can move the session away from the exit that the first one returned"


def test_only_the_first_of_several_changes_the_name() -> None:
    session = Gateway().session("us", "a-b")
    for seen, name in [("a-b", "a-b.2"), ("a-b", "a-b.2"), ("a-b.2", "a-b.3"), ("other", "a-b.3")]:
        session.renew(seen)
        assert session.name == name
    strict = Gateway().session("us", strict=True)
    strict.renew(None)
    assert (strict.name, strict.username) == (None, "us-strict")


def test_wait_ready(gateway: Gateway, exitgate_demo: Demo) -> None:
    assert gateway.wait_ready(30, exits=EXITS)["ready"]
    with pytest.raises(exitgate.NotReady, match="8 of 8 exits"):
        gateway.wait_ready(0.2, exits=99)
    assert gateway.wait_ready(30, selector="us")["ready"]
    with pytest.raises(exitgate.NotReady, match="none of the known exits"):
        gateway.wait_ready(0.2, selector="jp")
    with pytest.raises(exitgate.BadRequest):
        gateway.wait_ready(30, selector="us-strcit")
    with pytest.raises(exitgate.NotReady, match="refused"):
        Gateway(exitgate_demo.proxy, "http://127.0.0.1:9").wait_ready(0.2)


def test_the_table_of_countries_is_right() -> None:
    known = zoneinfo.available_timezones()
    for country, one in IDENTITIES.items():
        assert one.country == country and one.timezone in known and one.locale.endswith(f"-{country}"), one
    assert len(IDENTITIES) > 100
    assert identity("de").accept_language == "de-DE,de;q=0.9,en;q=0.8" and identity("US").accept_language == "en-US,en;q=0.9"
    assert (identity("ZZ").country, identity(None).country, identity(None).timezone) == ("ZZ", None, "UTC")


@pytest.mark.parametrize(
    "text",
    [
        "HTTPSConnectionPool(host='x', port=1): Max retries (Caused by ProxyError('Unable', OSError('Tunnel connection failed: 502 the target \"x\" (a) refused')))",
        '502 the target "x" (a) refused',
        "Could not open CONNECT tunnel with proxy 127.0.0.1:1080 [{'status': 502, 'reason': b'the target \"x\" (a) refused'}]",
    ],
)
def test_messages_of_libraries_about_refused_tunnels(text: str) -> None:
    error = of_failed_tunnel(text)
    assert type(error) is exitgate.TargetFailed and error.status == 502 and error.message == 'the target "x" (a) refused'


def test_messages_about_something_else() -> None:
    assert of_failed_tunnel("Cannot connect to proxy 1.2.3.4:502") is None and of_failed_tunnel("") is None
    assert type(of_failed_tunnel("0x03: Network unreachable")) is exitgate.NoExit


def test_a_report_that_fails_does_not_hide_the_answer(scripted: Scripted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise exitgate.Unreachable("gone")

    monkeypatch.setattr(scripted.gateway, "report", unreachable)
    monkeypatch.setattr(scripted.gateway, "exit", lambda *_, **__: {"id": "A", "ip": "192.0.2.7", "country": "US"})
    attempts = Attempts(scripted.gateway.session("us"), Policy(), "GET")
    attempts.begin()
    attempts.report("shop.example", "status 403")
    assert attempts.exits == [] and "could not be reported: gone" in caplog.text
    assert attempts.after_refusal("shop.example", "status 403", 403, None)
