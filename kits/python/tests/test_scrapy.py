"""The add-on in a real Scrapy project: `scrapy startproject`, the README's lines, `scrapy crawl`."""

from __future__ import annotations

import atexit
import difflib
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import pytest
from conftest import Scripted, Site, run_python
from readme import block

from exitgate import Gateway
from exitgate.demo import Demo

PAGE = "https://check.torproject.org/api/ip"


@functools.cache
def template() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="exitgate-scrapy-"))
    atexit.register(shutil.rmtree, folder)
    run_python("-m", "scrapy", "startproject", "shop", cwd=folder)
    return folder / "shop"


class Project:
    """A Scrapy project as `startproject` makes it, with the add-on."""

    def __init__(self, folder: Path, demo: Demo) -> None:
        self.folder, self.demo = folder / "shop", demo
        shutil.copytree(template(), self.folder)
        self.settings, self.spiders = self.folder / "shop/settings.py", self.folder / "shop/spiders"
        self.log = ""

    def crawl(self, spider: str, settings: dict[str, Any] | None = None) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The items and the statistics."""
        (self.spiders / "one.py").write_text(textwrap.dedent(spider))
        name = re.search(r"name = \"(\w+)\"", spider)
        out = self.folder / "out.jsonl"
        given = [part for pair in (settings or {}).items() for part in ("-s", f"{pair[0]}={pair[1]}")]
        done = subprocess.run(
            [sys.executable, "-m", "scrapy", "crawl", name[1] if name else "", "-O", str(out), *given],
            cwd=self.folder, env={**os.environ, "EXITGATE_PROXY": self.demo.proxy, "EXITGATE_API": self.demo.api},
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        self.log = done.stdout + done.stderr
        assert done.returncode == 0, self.log
        stats = {}
        for key, value in re.findall(r"'(exitgate/[^']+|downloader/request_count|log_count/ERROR)': (\d+)", self.log):
            stats[key] = int(value)
        return [json.loads(line) for line in out.read_text().splitlines()], stats


QUICK = {"DOWNLOAD_DELAY": 0, "CONCURRENT_REQUESTS_PER_DOMAIN": 8, "ROBOTSTXT_OBEY": False}

SPIDER = """
import scrapy

class One(scrapy.Spider):
    name = "one"

    async def start(self):
        for number in range({count}):
            yield scrapy.Request("{url}", dont_filter=True, errback=self.failed, meta={meta})

    def parse(self, response):
        keys = ("exit_ip", "exit_id", "exit_country", "exit_session")
        left = [key for key in response.meta if key.startswith("_exitgate") or key == "proxy"]
        yield {{"text": response.text, "status": response.status, "left": left, "meta": {{key: response.meta.get(key) for key in keys}}}}

    def failed(self, failure):
        error = failure.value
        yield {{"error": getattr(error, "code", type(error).__name__), "message": str(error)}}
"""


def spider(url: str, count: int = 1, meta: str = "{}") -> str:
    return SPIDER.format(url=url, count=count, meta=meta)


@pytest.fixture
def project(tmp_path: Path, exitgate_demo: Demo) -> Project:
    made = Project(tmp_path, exitgate_demo)
    made.settings.write_text(made.settings.read_text() + "\n" + block("python scrapy settings"))
    return made


def test_the_readme_in_ten_changed_lines_by_three_exits(tmp_path: Path, exitgate_demo: Demo, gateway: Gateway) -> None:
    project = Project(tmp_path, exitgate_demo)
    before = project.settings.read_text()
    after = re.sub(r"^ADDONS = \{\}\n", "", before, flags=re.MULTILINE) + block("python scrapy settings")
    project.settings.write_text(after)
    changed = [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[:1] in "+-"]
    assert len(changed) <= 10, changed
    items, stats = project.crawl(block("python scrapy spider").replace(PAGE, exitgate_demo.page), {"ROBOTSTXT_OBEY": False, "DOWNLOAD_DELAY": 0})
    known = {exit["ip"]: exit["country"] for exit in gateway.exits()}
    assert len(items) == 12 and all(item["page"] == item["exit"] for item in items)
    exits = {item["exit"] for item in items}
    assert len(exits) >= 3 and not any(known[ip] == "US" for ip in exits), exits
    assert stats["exitgate/exits"] == len(exits) and stats["exitgate/responses"] == 12


@pytest.mark.parametrize("kind", ["http", "https"])
def test_answers_name_their_exit(kind: str, project: Project, site: Site, gateway: Gateway) -> None:
    items, stats = project.crawl(spider(getattr(site, kind), 16), {**QUICK, "EXITGATE_SESSIONS": 4})
    assert len(items) == 16 and {item["text"] for item in items} == set(site.sources())
    countries = {exit["ip"]: (exit["country"], exit["id"]) for exit in gateway.exits()}
    for item in items:
        meta = item["meta"]
        assert item["text"] == meta["exit_ip"] and countries[meta["exit_ip"]] == (meta["exit_country"], meta["exit_id"])
        assert item["left"] == []
    assert len({item["meta"]["exit_session"] for item in items}) == 4
    assert stats["exitgate/requests"] == stats["downloader/request_count"] == 16
    if kind == "https":
        assert site.connections <= 4 * 8 and not any("proxy-authorization" in headers for headers in site.headers)


@pytest.mark.parametrize("kind", ["http", "https"])
def test_refused_exits_are_reported_and_others_serve(kind: str, project: Project, site: Site) -> None:
    site.refuse_first = 2
    items, stats = project.crawl(spider(getattr(site, kind), 6), {**QUICK, "EXITGATE_SESSIONS": 2, "CONCURRENT_REQUESTS": 1})
    assert [item["status"] for item in items] == [200] * 6
    assert not {item["text"] for item in items} & set(site.refused)
    assert stats["exitgate/refused"] == stats["exitgate/refused/403"] == stats["exitgate/reports"] == stats["exitgate/retries"] == 2


def test_a_function_of_the_project_finds_refusals(project: Project, site: Site, gateway: Gateway) -> None:
    (project.folder / "shop/exits.py").write_text('def refused(response):\n    return "captcha" if "captcha" in response.text else False\n')
    for exit in list(gateway.exits())[:3]:
        site.refused[str(exit["ip"])] = 200
    items, stats = project.crawl(
        spider(site.https, 8), {**QUICK, "EXITGATE_REFUSED": "shop.exits.refused", "EXITGATE_SELECTOR": "any", "EXITGATE_TRIES": 5}
    )
    assert len(items) == 8 and not any("captcha" in item["text"] for item in items)
    assert stats.get("exitgate/refused", 0) == stats.get("exitgate/refused/200", 0)


def test_tries_are_limited_and_the_spider_gets_the_answer(project: Project, site: Site) -> None:
    items, stats = project.crawl(
        spider(f"{site.https}/status/403", meta="{'handle_httpstatus_list': [403]}"), {**QUICK, "EXITGATE_TRIES": 2}
    )
    assert [item["status"] for item in items] == [403] and items[0]["left"] == []
    assert len(site.sources()) == 2 == len(set(site.sources()))
    assert (stats["exitgate/gave_up"], stats["exitgate/reports"], stats["exitgate/retries"]) == (1, 2, 1)


def test_sessions_of_meta_and_cookie_jars(project: Project, site: Site) -> None:
    meta = "{'cookiejar': number % 2} if number < 8 else {'exitgate_session': 'dora-é@x', 'exitgate_selector': 'us'}"
    items, _ = project.crawl(spider(site.https, 12, meta), QUICK)
    by_session: dict[str, set[str]] = {}
    for item in items:
        by_session.setdefault(item["meta"]["exit_session"], set()).add(item["text"])
    assert len(by_session) == 3 and all(len(exits) == 1 for exits in by_session.values()), by_session
    assert any(name.endswith(".jar.1") for name in by_session) and "dora-é@x" in by_session
    assert {item["meta"]["exit_country"] for item in items if item["meta"]["exit_session"] == "dora-é@x"} == {"US"}


def test_a_strict_crawl_keeps_one_address(project: Project, site: Site) -> None:
    items, stats = project.crawl(
        spider(f"{site.http}/status/429", 3, "{'handle_httpstatus_list': [429], 'dont_retry': True}"), {**QUICK, "EXITGATE_SELECTOR": "us-strict"}
    )
    assert len(items) == 3 and len(set(site.sources())) == 1 and stats.get("exitgate/reports", 0) == 0


@pytest.mark.parametrize("kind", ["http", "https"])
def test_errors_that_no_retry_cures_reach_the_errback_at_once(kind: str, project: Project, site: Site) -> None:
    items, stats = project.crawl(spider(getattr(site, kind)), {**QUICK, "EXITGATE_SELECTOR": "us-strcit"})
    assert [item["error"] for item in items] == ["bad_request"] and "did you mean `strict`" in items[0]["message"]
    assert stats["exitgate/errors/bad_request"] == stats["downloader/request_count"] == 1 and "exitgate/retries" not in stats


def test_a_dead_target_is_not_tried_again(project: Project, site: Site) -> None:
    items, stats = project.crawl(spider(f"https://{site.ip}:9/"), QUICK)
    assert [item["error"] for item in items] == ["target_failed"] and "exitgate/retries" not in stats, items


def test_failed_exits_are_tried_again_with_a_limit(project: Project, scripted: Scripted) -> None:
    scripted.answers = ["504 the exit does not answer", "429 slow\r\nRetry-After: 0"] + ["502 the connection to the exit broke"] * 9
    items, stats = project.crawl(spider("https://shop.test/"), {**QUICK, "EXITGATE_PROXY": scripted.gateway.address, "EXITGATE_TRIES": 4})
    assert [item["error"] for item in items] == ["exit_failed"]
    assert [name.split(".")[2:] for name in scripted.names] == [[], ["2"], ["2"], ["3"]]
    assert stats["exitgate/retries"] == 3 and stats["exitgate/errors/exit_failed"] == 2 and stats["exitgate/errors/timed_out"] == 1


def test_requests_can_be_left_out(project: Project, site: Site) -> None:
    items, stats = project.crawl(spider(site.http, 2, "{'exitgate': False}"), QUICK)
    assert [item["meta"]["exit_ip"] for item in items] == [None, None] and "exitgate/requests" not in stats
    assert set(site.sources()) == {"127.0.0.1"}


def test_a_spider_may_pass_its_meta_on(project: Project, site: Site) -> None:
    text = spider(site.http).replace(
        "        keys =",
        '        if response.url.endswith("8000/") or response.url.endswith(":8000"):\n'
        f'            yield scrapy.Request("{site.http}/next", meta=response.meta, errback=self.failed)\n'
        "        keys =",
    )
    items, stats = project.crawl(text, QUICK)
    assert len(items) == 2 and stats["exitgate/requests"] == 2 and all(item["text"] == item["meta"]["exit_ip"] for item in items)


def test_a_redirect_stays_in_the_session(project: Project, exitgate_demo: Demo) -> None:
    page = exitgate_demo.page.replace("/ip", "/redirect/2")
    items, stats = project.crawl(spider(page, 3), QUICK)
    assert len(items) == 3 and all(item["text"] == item["meta"]["exit_ip"] for item in items) and stats["exitgate/requests"] == 9


def test_a_slow_exit_is_left(project: Project, site: Site) -> None:
    items, _ = project.crawl(spider(f"{site.https}/slow"), {**QUICK, "DOWNLOAD_TIMEOUT": 1, "RETRY_TIMES": 1})
    assert "Timeout" in items[0]["error"] and len(site.sources()) == 2


@pytest.mark.parametrize("setting", ["HTTPPROXY_ENABLED=False", "EXITGATE_TRIES=0", "EXITGATE_PROXY=ftp://x"])
def test_a_wrong_setting_stops_the_crawl_and_no_request_leaves(setting: str, project: Project, site: Site) -> None:
    name, value = setting.split("=")
    with pytest.raises(AssertionError, match="exitgate|tries|proxy"):
        project.crawl(spider(site.http), {**QUICK, name: value})
    assert site.sources() == []
