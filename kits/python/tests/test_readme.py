"""Every example of the README, as it is written there. Only the page is replaced, because the tests have no internet,
and the browser is this machine's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import run_python
from readme import TEXT, block, blocks
from test_playwright import CHROMIUM

from exitgate.demo import Demo

PAGE = "https://check.torproject.org/api/ip"
EXAMPLES = blocks("python")


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example(number: int, exitgate_demo: Demo, tmp_path: Path) -> None:
    code = EXAMPLES[number]
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 7, "an example is short"
    assert run(code, exitgate_demo, tmp_path).strip()


def run(code: str, demo: Demo, folder: Path) -> str:
    example = folder / "example.py"
    example.write_text(code.replace(PAGE, demo.secure_page))
    trust = {"SSL_CERT_FILE": str(demo.ca), "REQUESTS_CA_BUNDLE": str(demo.ca)}
    said = run_python(str(example), cwd=folder, env={"EXITGATE_PROXY": demo.proxy, "EXITGATE_API": demo.api, **trust})
    if PAGE in code:
        assert re.search(r"\b127\.\d+\.\d+\.\d+\b", said), said
    return said


def test_playwright(exitgate_demo: Demo, tmp_path: Path) -> None:
    code = block("python playwright").replace("launch(", f"launch(executable_path={CHROMIUM!r}, args=['--no-sandbox'], ")
    said = run(code.replace("new_page(", "new_page(ignore_https_errors=True, "), exitgate_demo, tmp_path)
    assert "America/New_York" in said


def test_pytest(pytester: pytest.Pytester, exitgate_demo: Demo) -> None:
    pytester.makepyfile(block("python pytest"))
    pytester.runpytest_subprocess("--exitgate-required").assert_outcomes(passed=1)


def test_without_a_demo_tests_are_skipped(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXITGATE_DEMO")
    pytester.makepyfile(block("python pytest"))
    pytester.runpytest_subprocess().assert_outcomes(skipped=1)
    pytester.runpytest_subprocess("--exitgate-required").assert_outcomes(errors=1)


def test_every_error_is_in_the_table() -> None:
    import exitgate

    for name in exitgate.__all__:
        kind = getattr(exitgate, name)
        if isinstance(kind, type) and issubclass(kind, exitgate.GatewayError) and kind is not exitgate.GatewayError:
            assert f"| `{name}` | `{kind.code}` |" in TEXT, name
