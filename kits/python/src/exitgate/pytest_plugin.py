"""Fixtures for pytest: a demo gateway for the tests of a scraper, without internet.

    def test_page(exitgate_demo, exitgate_gateway):
        assert exitgate_gateway.session("us").choose()["country"] == "US"

The demo starts when the first test asks for it, and ends with the run. `--exitgate-demo PROGRAM` or EXITGATE_DEMO names
the program. Where there is none, the tests that need it are skipped; with `--exitgate-required` they fail.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .demo import Demo
from .gateway import Gateway


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("exitgate")
    group.addoption("--exitgate-demo", metavar="PROGRAM", help="exitgate's demo program (default: EXITGATE_DEMO)")
    group.addoption("--exitgate-tor", action="store_true", help="run the demo on real tor, not on a simulated network")
    group.addoption("--exitgate-required", action="store_true", help="fail instead of skipping if there is no demo")


@pytest.fixture(scope="session")
def exitgate_settings() -> dict[str, str]:
    """Settings of the demo's gateway, as the environment writes them. Override this fixture to change some."""
    return {}


@pytest.fixture(scope="session")
def exitgate_demo(pytestconfig: pytest.Config, exitgate_settings: dict[str, str]) -> Iterator[Demo]:
    """A running demo: `page`, `secure_page`, `ca`, `proxy`, `api`."""
    try:
        program, simulated = pytestconfig.getoption("--exitgate-demo"), not pytestconfig.getoption("--exitgate-tor")
        demo = Demo(program, simulated=simulated, settings=exitgate_settings)
    except FileNotFoundError as missing:
        if pytestconfig.getoption("--exitgate-required"):
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))
    with demo:
        yield demo


@pytest.fixture
def exitgate_gateway(exitgate_demo: Demo) -> Iterator[Gateway]:
    """A `Gateway` of the demo."""
    with exitgate_demo.gateway() as gateway:
        yield gateway


@pytest.fixture
def exitgate_environment(exitgate_demo: Demo, monkeypatch: pytest.MonkeyPatch) -> Demo:
    """The demo, with EXITGATE_PROXY and EXITGATE_API set, for code that reads the environment."""
    for name, value in {"PROXY": exitgate_demo.proxy, "API": exitgate_demo.api}.items():
        monkeypatch.setenv(f"EXITGATE_{name}", value)
    for name in ("KEY", "TOKEN"):
        monkeypatch.delenv(f"EXITGATE_{name}", raising=False)
    return exitgate_demo
