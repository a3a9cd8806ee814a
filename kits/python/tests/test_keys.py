"""A gateway with keys, tokens and limits, and what it refuses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Site
from readme import block
from test_scrapy import QUICK, Project, spider

import exitgate
from exitgate import Gateway, aiohttp as kit_aiohttp, httpx as kit_httpx, requests as kit_requests
from exitgate.demo import Demo

KEY, SLOW = "s3cret:key@1/%", "slow-key"


@pytest.fixture(scope="module")
def demo(exitgate_settings: dict[str, str]) -> Iterator[Demo]:
    with Demo(settings={**exitgate_settings, "EXITGATE__GATEWAY__AUTH_FAILURES": "1000"}) as demo:
        demo.configure(
            f'[[gateway.keys]]\nname = "one"\nkey = "{KEY}"\n\n'
            f'[[gateway.keys]]\nname = "slow"\nkey = "{SLOW}"\nlimits = {{ per_second = 1 }}\n'
        )
        yield demo


def fetch(kit: str, gateway: Gateway, url: str, **options: object) -> str:
    if kit in ("requests", "requests-socks"):
        scheme = "socks5h" if kit.endswith("socks") else None
        with kit_requests.Session("us", gateway=gateway, scheme=scheme, **options) as web:  # type: ignore[arg-type]
            return str(web.get(url).text)
    if kit in ("httpx", "httpx-socks"):
        scheme = "socks5h" if kit.endswith("socks") else None
        with kit_httpx.Client("us", gateway=gateway, scheme=scheme, **options) as client:  # type: ignore[arg-type]
            return client.get(url).text

    async def main() -> str:
        async with kit_aiohttp.client("us", gateway=gateway, **options) as session, session.get(url) as answer:  # type: ignore[arg-type]
            return await answer.text()

    return asyncio.run(main())


each_kit = pytest.mark.parametrize("kit", ["requests", "requests-socks", "httpx", "httpx-socks", "aiohttp"])


@each_kit
def test_a_key_opens_the_gateway_and_is_shown_nowhere(kit: str, demo: Demo, site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    gateway = demo.gateway(key=KEY)
    gateway.check_key()
    assert fetch(kit, gateway, site.http).startswith("127.")
    if kit.startswith("httpx"):
        assert fetch(kit, gateway, site.https, verify=False).startswith("127.")
    assert "s3cret" not in caplog.text and "Basic " not in caplog.text
    assert not any("proxy-authorization" in headers for headers in site.headers)


@each_kit
@pytest.mark.parametrize("kind", ["http", "https"])
@pytest.mark.parametrize("key", [None, "wrong"])
def test_a_wrong_key(kit: str, kind: str, key: str | None, demo: Demo, site: Site) -> None:
    gateway = Gateway(demo.proxy, demo.api, key=key)
    with pytest.raises(exitgate.KeyRefused) as refused:
        fetch(kit, gateway, getattr(site, kind))
    assert refused.value.code == "key_refused" and "EXITGATE_KEY" in str(refused.value) and not refused.value.retry
    with pytest.raises(exitgate.KeyRefused):
        gateway.check_key()
    assert site.sources() == []
    error: BaseException | None = refused.value
    while error is not None:
        assert "Basic " not in repr(error) + repr(vars(error))
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("key", [KEY, "wrong"], ids=["right", "wrong"])
def test_scrapy_with_a_key(key: str, demo: Demo, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXITGATE_KEY", key)
    project = Project(tmp_path, demo)
    project.settings.write_text(project.settings.read_text() + "\n" + block("python scrapy settings"))
    items, _ = project.crawl(spider(site.https), {**QUICK, "LOG_LEVEL": "DEBUG"})
    assert items[0].get("error") == (None if key == KEY else "key_refused")
    assert "s3cret" not in project.log and "Basic " not in project.log and len(site.sources()) == (key == KEY)


@pytest.mark.parametrize("kit", ["requests", "httpx", "aiohttp"])
def test_a_limit_is_waited_for(kit: str, demo: Demo, site: Site) -> None:
    gateway = demo.gateway(key=SLOW)
    for _ in range(3):
        assert fetch(kit, gateway, site.http, tries=10).startswith("127.")


def test_a_limit_without_patience(demo: Demo) -> None:
    gateway = demo.gateway(key=SLOW)
    with pytest.raises(exitgate.LimitReached) as reached:
        for _ in range(20):
            gateway.close()
            gateway.exit("us")
    assert reached.value.retry_after and reached.value.retry_after >= 1 and reached.value.request_id


def test_a_forbidden_target(demo: Demo) -> None:
    for kit in ("requests", "httpx", "aiohttp"):
        with pytest.raises(exitgate.Denied):
            fetch(kit, demo.gateway(key=KEY), "https://echo.test:25/")


def test_a_token(demo: Demo, exitgate_settings: dict[str, str]) -> None:
    with Demo(settings={**exitgate_settings, "EXITGATE__API__TOKEN": "hidden-token-0123456789abcdef"}) as locked:
        assert len(list(locked.gateway(token="hidden-token-0123456789abcdef").exits())) == 8
        for wrong in (None, "no"):
            with pytest.raises(exitgate.TokenRefused) as refused:
                Gateway(locked.proxy, locked.api, token=wrong).countries()
            assert refused.value.status == 401 and "hidden" not in str(refused.value)


def test_a_gateway_that_ends(site: Site, exitgate_settings: dict[str, str]) -> None:
    with Demo(settings=exitgate_settings) as demo:
        gateway = demo.gateway()
        with kit_requests.Session("us", gateway=gateway) as web:
            assert web.get(site.http).ok
            demo.stop()
            with pytest.raises(exitgate.Unreachable):
                web.get(site.http)
        with pytest.raises(exitgate.Unreachable):
            gateway.exit("us")
        with pytest.raises(exitgate.NotReady):
            gateway.wait_ready(0.3)
