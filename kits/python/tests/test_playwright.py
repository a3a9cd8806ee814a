"""Playwright with a real Chromium. CHROMIUM names the program."""

from __future__ import annotations

import asyncio
import os
import shutil
from typing import Any

import pytest
from conftest import Site
from playwright.async_api import async_playwright
from playwright.sync_api import sync_playwright

import exitgate
from exitgate import Gateway
from exitgate.demo import Demo
from exitgate.identity import IDENTITIES
from exitgate.playwright import BrowserExit

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
BROWSER: dict[str, Any] = {"executable_path": CHROMIUM, "args": ["--no-sandbox"]}
WHO = "[Intl.DateTimeFormat().resolvedOptions().timeZone, navigator.language]"


@pytest.mark.parametrize("selector", ["us", "de+fr"])
def test_a_browser_at_a_gateway_without_keys(selector: str, gateway: Gateway, site: Site) -> None:
    with BrowserExit(selector, gateway=gateway) as exit, sync_playwright() as playwright:
        assert exit.exit and exit.exit["country"] in selector.upper()
        browser = playwright.chromium.launch(**exit.launch_options, **BROWSER)
        page = browser.new_page(**exit.context_options)
        page.goto(site.http)
        assert page.inner_text("body") == exit.exit["ip"]
        expected = IDENTITIES[str(exit.exit["country"])]
        assert page.evaluate(WHO) == [expected.timezone, expected.locale]
        browser.close()
        assert [route["name"] for route in gateway.routes.list()] != []
    assert list(gateway.routes.list()) == []


def test_a_browser_at_a_gateway_that_asks(site: Site, exitgate_settings: dict[str, str]) -> None:
    settings = {**exitgate_settings, "EXITGATE__GATEWAY__REQUIRE_USERNAME": "true"}
    with Demo(settings=settings) as demo, BrowserExit("us", session="dora-é", gateway=demo.gateway()) as exit:
        assert list(exit.gateway.routes.list()) == [] and exit.launch_options["proxy"]["username"] == "us-session=dora-é"

        async def main() -> None:
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(**exit.launch_options, **BROWSER)
                page = await browser.new_page(**exit.context_options, ignore_https_errors=True)
                await page.goto(site.https)
                assert exit.exit and await page.inner_text("body") == exit.exit["ip"]
                await browser.close()
                moved = exit.rotate()
                browser = await playwright.chromium.launch(**exit.launch_options, **BROWSER)
                page = await browser.new_page(**exit.context_options, ignore_https_errors=True)
                await page.goto(site.https)
                assert await page.inner_text("body") == moved["after"]["ip"] != (moved["before"] or {}).get("ip")
                await browser.close()

        asyncio.run(main())
        exit.report(site.ip, "captcha")


def test_rotate_and_report_at_a_route(gateway: Gateway, site: Site) -> None:
    async def main() -> None:
        async with BrowserExit("us", gateway=gateway) as exit:
            assert exit.exit
            moved = exit.rotate()
            assert moved["before"] and moved["before"]["id"] != moved["after"]["id"] == exit.exit["id"]
            exit.report(site.https, "captcha")
            bans = gateway.call("GET", f"/exits/{exit.exit['id']}")["bans"]
            assert site.ip in [ban["site"] for ban in bans]

    asyncio.run(main())
    assert list(gateway.routes.list()) == []


def test_without_the_api_the_error_says_what_to_do(exitgate_demo: Demo, site: Site) -> None:
    with pytest.raises(exitgate.Unreachable, match="require_username"), BrowserExit("us", gateway=Gateway(exitgate_demo.proxy, f"http://{site.ip}:9")):
        pass
