"""Starts exitgate's demo for tests: a gateway on a private Tor network with a fake web, all on loopback, no internet.

The program is `examples/demo` of exitgate's source: `cargo build --example demo`, and for the simulated network also
`cargo build -p exitgate-simtor`. It runs on Linux.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from .errors import ApiError, NotReady
from .gateway import Gateway

# Usable exits of the demo's network.
EXITS = 8


class Demo:
    """A running demo. Use it as a context manager."""

    def __init__(
        self,
        program: str | Path | None = None,
        *,
        simulated: bool = True,
        settings: Mapping[str, str] | None = None,
        timeout: float = 180.0,
    ) -> None:
        """`program` is by default EXITGATE_DEMO, or `exitgate-demo` in PATH. `settings` are settings of the gateway, as
        the environment writes them: `{"EXITGATE__GATEWAY__REQUIRE_USERNAME": "true"}`."""
        found = program or os.environ.get("EXITGATE_DEMO") or shutil.which("exitgate-demo")
        if not found:
            raise FileNotFoundError(
                "the demo of exitgate was not found: set EXITGATE_DEMO to target/debug/examples/demo of a checkout "
                "(cargo build --example demo && cargo build -p exitgate-simtor)"
            )
        self._program, self._simulated, self._timeout = str(found), simulated, timeout
        self._settings = dict(settings or {})
        self._child: subprocess.Popen[bytes] | None = None
        self._said = ""
        self.ip = ""
        """The loopback address of the gateway: the shared port is 1080, the API's port is 8080."""
        self.page = ""
        """A page of the fake web that shows the address from which it was asked. `http://echo.test/ip`, as a rule."""
        self.secure_page = ""
        """The same page over HTTPS."""
        self.ca = Path()
        """The certificate authority of the fake web, as PEM."""
        self.config = Path()
        """The gateway's configuration file."""

    @property
    def proxy(self) -> str:
        return f"http://{self.ip}:1080"

    @property
    def api(self) -> str:
        return f"http://{self.ip}:8080"

    def gateway(self, **arguments: str) -> Gateway:
        """A Gateway of this demo."""
        return Gateway(self.proxy, self.api, **arguments)  # type: ignore[arg-type]

    def start(self) -> Demo:
        deadline = time.monotonic() + self._timeout
        self.ip = _free_address()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("EXITGATE__")}
        environment |= {
            "EXITGATE__GATEWAY__LISTEN": f"{self.ip}:1080",
            "EXITGATE__GATEWAY__ROUTE_BIND": self.ip,
            "EXITGATE__API__LISTEN": f"{self.ip}:8080",
            **self._settings,
        }
        arguments = [self._program, *(["--simtor"] if self._simulated else [])]
        with tempfile.TemporaryFile() as said:
            self._child = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment, start_new_session=True
            )
            try:
                while "\nReady." not in self._said:
                    said.seek(0)
                    self._said = said.read().decode("utf-8", "replace")
                    if self._child.poll() is not None:
                        raise NotReady(f"the demo ended by itself:\n{self._said}")
                    if time.monotonic() > deadline:
                        raise NotReady(f"the demo was not ready within {self._timeout:g} s:\n{self._said}")
                    time.sleep(0.05)
                self.page = _find(r"\S+@\S+ (http://echo\.test\S*)", self._said)
                self.secure_page = _find(r"(https://echo\.test\S*)", self._said)
                self.ca, self.config = Path(_find(r"--cacert (\S+)", self._said)), Path(_find(r"-c FILE`: (\S+)", self._said))
                with self.gateway() as gateway:
                    gateway.wait_ready(max(1.0, deadline - time.monotonic()), exits=EXITS)
            except BaseException:
                self.stop()
                raise
        return self

    def stop(self) -> None:
        child, self._child = self._child, None
        if child is None or child.poll() is not None:
            return
        child.send_signal(signal.SIGINT)
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            # A second signal ends open tunnels at once.
            child.send_signal(signal.SIGINT)
            try:
                child.wait(15)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def configure(self, lines: str) -> None:
        """Adds lines to the gateway's configuration, and reloads it."""
        self.config.write_text(f"{self.config.read_text()}\n{lines}\n")
        with self.gateway() as gateway:
            try:
                gateway.call("POST", "/reload")
            except ApiError as error:
                raise ValueError(f"{error.message}: {error.details}") from error

    def __enter__(self) -> Demo:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def _find(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if not found:
        raise NotReady(f"the demo printed nothing like {pattern}:\n{text}")
    return found[1]


def _free_address() -> str:
    """A loopback address whose ports 1080 and 8080 are free. Several demos may run at the same time."""
    for _ in range(100):
        # The private networks of demos use 127.100 and above, and people use the lowest ones.
        address = f"127.{random.randint(40, 89)}.{random.randint(1, 254)}.1"
        try:
            for port in (1080, 8080):
                with socket.socket() as probe:
                    probe.bind((address, port))
            return address
        except OSError:
            continue
    raise NotReady("no loopback address has its ports 1080 and 8080 free: the demo needs Linux")
