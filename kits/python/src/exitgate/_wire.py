"""HTTP to the gateway with the standard library: to its API, and to the host name `exit.gate` at its proxy port.

Connections are kept and used again. Safe to use from several threads. No request goes anywhere else.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult

from .errors import ApiError, NotFound, TokenRefused, Unreachable, of_status, seconds

# Idle connections that are kept for each address. Not tuned: one for each thread that asks at the same time.
_KEPT = 8
# The gateway closes idle connections after a minute (`gateway.keep_alive_timeout`).
_IDLE = 50.0


class Wire:
    """Requests to one address."""

    def __init__(self, url: SplitResult, timeout: float, tls: ssl.SSLContext | None) -> None:
        self._host = url.hostname or "127.0.0.1"
        self._tls = (tls or ssl.create_default_context()) if url.scheme == "https" else None
        self._port = url.port or (443 if self._tls else 80)
        self._timeout = timeout
        self._idle: list[tuple[float, http.client.HTTPConnection]] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    def _take(self, timeout: float) -> tuple[http.client.HTTPConnection, bool]:
        """A connection, and whether it was used before."""
        oldest = time.monotonic() - _IDLE
        with self._lock:
            stale = [pair for pair in self._idle if pair[0] < oldest]
            self._idle = [pair for pair in self._idle if pair[0] >= oldest]
            kept = self._idle.pop()[1] if self._idle else None
        for _, old in stale:
            old.close()
        if kept is not None:
            if kept.sock is not None:
                kept.sock.settimeout(timeout)
            return kept, True
        if self._tls:
            return http.client.HTTPSConnection(self._host, self._port, timeout=timeout, context=self._tls), False
        return http.client.HTTPConnection(self._host, self._port, timeout=timeout), False

    def _keep(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if len(self._idle) < _KEPT and connection.sock is not None:
                self._idle.append((time.monotonic(), connection))
                return
        connection.close()

    def send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None, timeout: float | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Sends a request and reads the whole answer."""
        while True:
            connection, used = self._take(timeout or self._timeout)
            try:
                connection.request(method, path, body, dict(headers))
                answer = connection.getresponse()
                content = answer.read()
            except BaseException as error:
                connection.close()
                # The gateway may close a kept connection at any moment, so it says nothing about the gateway. A
                # request that may have arrived is sent again only if it changes nothing.
                if used and isinstance(error, (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError)):
                    if method == "GET" or not isinstance(error, ConnectionResetError):
                        continue
                if isinstance(error, (OSError, http.client.HTTPException)):
                    late = isinstance(error, (TimeoutError, socket.timeout))
                    why = f"no answer within {timeout or self._timeout:g} s" if late else str(error) or type(error).__name__
                    raise Unreachable(f"{self._host}:{self._port}: {why}") from error
                raise
            if answer.will_close:
                connection.close()
            else:
                self._keep(connection)
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, content


def api_answer(status: int, headers: Mapping[str, str], content: bytes) -> Any:
    """The JSON of an answer of the API, or the error that it describes."""
    try:
        said = json.loads(content) if content else {}
    except ValueError:
        said = {}
    if 200 <= status < 300:
        return said
    error = said.get("error", {}) if isinstance(said, dict) else {}
    code = str(error.get("code", f"http_{status}"))
    message = str(error.get("message") or content[:200].decode("utf-8", "replace") or f"the API answered {status}")
    kind = {401: TokenRefused, 404: NotFound}.get(status, ApiError)
    raise kind(
        message,
        code=code,
        status=status,
        retry_after=seconds(headers.get("retry-after")),
        request_id=error.get("request_id") or headers.get("x-request-id"),
        details=error.get("details"),
    )


def gate_answer(status: int, headers: Mapping[str, str], content: bytes) -> Any:
    """The JSON of an answer of exit.gate, or the error of the gateway."""
    if 200 <= status < 300:
        return json.loads(content)
    raise of_status(status, content.decode("utf-8", "replace"), headers)
