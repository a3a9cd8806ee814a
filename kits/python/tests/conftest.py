"""The tests run against the shipped gateway in the demo's private network. `site` is a web site of the test's own, which
sees the exits' addresses and can refuse them."""

from __future__ import annotations

import base64
import itertools
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from exitgate import Gateway
from exitgate.demo import Demo

pytest_plugins = ["pytester"]


@pytest.fixture(scope="session")
def exitgate_settings() -> dict[str, str]:
    # The sites of the tests are on this machine, where targets are refused by default.
    return {"EXITGATE__GATEWAY__ALLOW_PRIVATE_TARGETS": "true", "EXITGATE__LIFECYCLE__DRAIN": "1s"}


@pytest.fixture(autouse=True)
def no_proxies_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower() in ("http_proxy", "https_proxy", "all_proxy", "no_proxy") or name in (
            "EXITGATE_PROXY", "EXITGATE_API", "EXITGATE_KEY", "EXITGATE_TOKEN",
        ):  # fmt: skip
            monkeypatch.delenv(name)


@pytest.fixture
def gateway(exitgate_gateway: Gateway) -> Gateway:
    return exitgate_gateway


@pytest.fixture
def trusted(exitgate_demo: Demo, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Clients of this test trust the fake web and the site."""
    both = tmp_path / "trusted.pem"
    both.write_text(exitgate_demo.ca.read_text() + site.certificate.read_text())
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.setenv(name, str(both))
    return both


class Site:
    """A site over HTTP and HTTPS. Each has a host of its own, so bans of one test do not reach another."""

    def __init__(self, ip: str, folder: Path) -> None:
        self.ip, self.lock = ip, threading.Lock()
        self.refused: dict[str, int] = {}
        """Sources that are refused: their addresses and the status. 200 is a page with a captcha."""
        self.refuse_first = 0
        """So many sources, those that come first, are refused with 403."""
        self.seen: list[tuple[str, str, str]] = []
        """Source, method and path of each request."""
        self.connections = 0
        self.headers: list[dict[str, str]] = []
        self.certificate, key = folder / "site.pem", folder / "site.key"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", f"/CN={ip}", "-addext", f"subjectAltName=IP:{ip}", "-keyout", str(key), "-out", str(self.certificate)],
            check=True, capture_output=True,
        )  # fmt: skip
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        self.servers = [self._server(8000, None), self._server(8443, context)]
        self.http, self.https = f"http://{ip}:8000", f"https://{ip}:8443"

    def _server(self, port: int, context: ssl.SSLContext | None) -> ThreadingHTTPServer:
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def setup(self) -> None:
                if context:
                    self.request.settimeout(30)
                    self.request = context.wrap_socket(self.request, server_side=True)
                with site.lock:
                    site.connections += 1
                super().setup()

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                self.rfile.read(length)
                source = self.client_address[0]
                with site.lock:
                    site.seen.append((source, self.command, self.path))
                    site.headers.append({name.lower(): value for name, value in self.headers.items()})
                    if site.refuse_first and source not in site.refused:
                        site.refuse_first -= 1
                        site.refused[source] = 403
                    status = site.refused.get(source)
                if self.path.startswith("/status/"):
                    status = int(self.path.split("/")[2])
                if self.path.startswith("/slow"):
                    threading.Event().wait(20)
                body = b"please solve this captcha" if status == 200 else source.encode()
                self.send_response(status or 200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                if self.path == "/cookie":
                    self.send_header("Set-Cookie", "known=1")
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass  # clients that go away

        server = Server((self.ip, port), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return server

    def sources(self, path: str = "") -> list[str]:
        with self.lock:
            return [source for source, _, at in self.seen if at.startswith(path)]

    def close(self) -> None:
        for server in self.servers:
            server.shutdown()
            server.server_close()


_numbers = itertools.count(10)


@pytest.fixture
def site(exitgate_demo: Demo, tmp_path: Path) -> Iterator[Site]:
    site = Site(exitgate_demo.ip.rsplit(".", 1)[0] + f".{next(_numbers)}", tmp_path)
    yield site
    site.close()


class Scripted:
    """Faults of exits cannot be ordered from the demo. This stands in for a gateway that answers `answers` in this order, each
    a status, a reason and further fields; after that it serves plain HTTP and forbids tunnels."""

    def __init__(self) -> None:
        scripted = self
        self.answers: list[str] = []
        self.names: list[str] = []
        """The session's name of each request."""

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                user = base64.b64decode(self.headers["Proxy-Authorization"].split()[1]).decode().rpartition(":")[0]
                if self.path.startswith("http://exit.gate/"):
                    return self.answer("200 OK", b'{"exit":null}')
                scripted.names.append(user.partition("session-")[2])
                if scripted.answers:
                    said = scripted.answers.pop(0)
                    reason = said.partition("\r\n")[0].partition(" ")[2]
                    return self.answer(f"{said}\r\nX-Exitgate-Error: {reason}\r\nX-Exitgate-Id: c-1", b"")
                if self.command == "CONNECT":
                    return self.answer("403 enough\r\nX-Exitgate-Error: enough", b"")
                self.answer("200 OK", b"served")

            do_POST = do_CONNECT = do_GET

            def answer(self, head: str, body: bytes) -> None:
                self.wfile.write(f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

        self.server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.gateway = Gateway(f"http://127.0.0.1:{self.server.server_port}")


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    scripted = Scripted()
    yield scripted
    scripted.server.shutdown()
    scripted.server.server_close()


def run_python(*arguments: str, cwd: Path, env: dict[str, str] | None = None, timeout: float = 120) -> str:
    """Runs this Python, and returns what it printed. The test fails if the program fails."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout
