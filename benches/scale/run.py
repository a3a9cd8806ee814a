#!/usr/bin/env python3
"""What one more costs: tunnels, routes and exits, ten times as many at each step.

  benches/scale/run.py [FOLDER]     prints the tables as Markdown, and draws FOLDER/scale.svg (docs, if none is named)

Needs target/release with exitgate, exitgate-peers and exitgate-public-bench: `make bench-scale` builds them. Load, target and fakes
have the same machine. Each step has a gateway of its own, so that none inherits the memory of the one before.
"""

import http.client
import json
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

from plot import draw

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
BUILT = os.path.join(ROOT, "target", "release")
HOST = "127.0.0.1"
API, SHARED, TARGET = 17250, 17251, 17001
FIRST_PORT = 20000

# New tunnels a second while the step is measured: far from what the gateway can do, so that the times are of waiting and not of
# queueing.
RATE = 400


def alone():
    """Goes on in a network of its own."""
    if "SCALE_ALONE" not in os.environ:
        os.environ["SCALE_ALONE"] = "yes"
        apart = os.path.join(ROOT, "benches", "apart")
        os.execv(apart, [apart, sys.executable, *sys.argv])


def files():
    """Lifts the limit on open files as far as it goes, and says how many tunnels the gateway finds room for under it."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    return (limit - 600) // 3


class Gateway:
    def __init__(self, folder, more=""):
        self.config = os.path.join(folder, "exitgate.toml")
        if more is not None:
            with open(self.config, "w", encoding="utf-8") as file:
                file.write(
                    f'data_dir = "{folder}/data"\nlog.level = "warn"\ntor.enabled = false\napi.listen = "{HOST}:{API}"\n'
                    f'[gateway]\nlisten = "{HOST}:{SHARED}"\nroute_ports = "{FIRST_PORT}-{FIRST_PORT + 5999}"\n'
                    f"allow_direct = true\nallow_private_targets = true\n{more}"
                )
        self.begun = time.monotonic()
        binary = os.path.join(BUILT, "exitgate")
        self.process = subprocess.Popen([binary, "serve", "--config", self.config], stdout=subprocess.DEVNULL)
        self.until(lambda: self.ask("GET", "/ready")[0] == 200)

    def until(self, done):
        while True:
            try:
                if done():
                    return time.monotonic() - self.begun
            except OSError:
                pass
            if self.process.poll() is not None:
                sys.exit("the gateway ended")
            time.sleep(0.005)

    def ask(self, method, path, body=None):
        api = http.client.HTTPConnection(HOST, API, timeout=60)
        api.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
        answer = api.getresponse()
        return answer.status, answer.read()

    def memory(self):
        """KiB that are its own."""
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as file:
            return int(re.search(r"RssAnon:\s+(\d+)", file.read()).group(1))

    def load(self, port):
        """CPU µs a tunnel, p50 and p99 µs to open one."""
        server = f"x=socks5@{HOST}:{port}#{self.process.pid}"
        ran = subprocess.run(
            [f"{BUILT}/exitgate-peers", "open", str(TARGET), str(RATE), server], capture_output=True, text=True, check=True
        )
        found = dict(re.findall(r"(\w+): ([\d.]+)", ran.stdout))
        if "cpu" not in found:
            sys.exit(ran.stdout + ran.stderr)
        return float(found["cpu"]), float(found["p50"]), float(found["p99"])

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def tunnel(port, number):
    """One SOCKS5 tunnel to the echo, used once."""
    stream = socket.create_connection((HOST, port), 20)
    ip = socket.inet_aton(f"127.0.0.{1 + number % 4}")
    stream.sendall(b"\5\1\0")
    if stream.recv(2) != b"\5\0":
        raise OSError("no greeting")
    stream.sendall(b"\5\1\0\1" + ip + struct.pack("!H", TARGET))
    if not stream.recv(10).startswith(b"\5\0"):
        raise OSError("refused")
    stream.sendall(b"x" * 64)
    if not stream.recv(64):
        raise OSError("no echo")
    return stream


def tunnels(most):
    rows = []
    for count in [10, 100, 1_000, 10_000]:
        count = min(count, most)
        with tempfile.TemporaryDirectory() as folder:
            gateway = Gateway(folder, "max_connections = 20000\n" + route("bench", FIRST_PORT))
            warm = [tunnel(FIRST_PORT, n) for n in range(10)]
            time.sleep(1)
            before, begun = gateway.memory(), time.monotonic()
            held = [tunnel(FIRST_PORT, n) for n in range(count)]
            took = (time.monotonic() - begun) / count
            time.sleep(3)
            memory = (gateway.memory() - before) / count
            # Ten are within the noise of a page.
            rows.append([count, memory if count >= 100 else None, *gateway.load(FIRST_PORT), took * 1e6])
            for stream in held + warm:
                stream.close()
            gateway.stop()
        say("tunnels", rows[-1])
    return rows


def route(name, port):
    return f'[[routes]]\nname = "{name}"\nselector = "any-source-direct"\nport = {port}\n'


def routes():
    rows = []
    for count in [10, 100, 1_000, 5_000]:
        with tempfile.TemporaryDirectory() as folder:
            gateway = Gateway(folder)
            time.sleep(1)
            before, begun = gateway.memory(), time.monotonic()
            for n in range(count):
                status, said = gateway.ask("POST", "/proxies", {"name": f"r{n}", "selector": "any-source-direct"})
                if status != 201:
                    sys.exit(f"route {n}: {status} {said[:200]}")
            took = (time.monotonic() - begun) / count
            time.sleep(6)
            memory = (gateway.memory() - before) / count
            last = FIRST_PORT + count - 1
            cost = gateway.load(last)
            gateway.stop()
            again = Gateway(folder, None)
            restored = again.until(lambda port=last: socket.create_connection((HOST, port), 1).close() is None)
            again.stop()
            rows.append([count, memory if count >= 100 else None, *cost, took * 1e6, restored * 1e3])
        say("routes", rows[-1])
    return rows


def exits():
    """Public proxies that really listen; the bench that has them prints a line a step."""
    rows = []
    ran = subprocess.Popen([f"{BUILT}/exitgate-public-bench", "scale"], stdout=subprocess.PIPE, text=True)
    for line in ran.stdout:
        words = line.split()
        if words and words[0] == "scale":
            rows.append([int(words[1]), *map(float, words[2:])])
            say("exits", rows[-1])
    if ran.wait() != 0:
        sys.exit("the bench of public exits failed")
    return rows


def say(what, row):
    print(f"{what}: {row}", file=sys.stderr, flush=True)


def table(title, heads, rows):
    print(f"\n{title}\n\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for row in rows:
        cells = ["–" if cell is None else f"{cell:,.0f}" if cell >= 100 or isinstance(cell, int) else f"{cell:.2f}" for cell in row]
        print(f"| {' | '.join(cells)} |")


def main():
    alone()
    most = files()
    target = subprocess.Popen([f"{BUILT}/exitgate-peers", "target", str(TARGET)], stdout=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        per = ["CPU µs a request", "p50 µs", "p99 µs"]
        kinds = {
            "tunnels": (["tunnels held", "KiB each", *per, "µs to open one"], tunnels(most)),
            "routes": (["routes", "KiB each", *per, "µs to make one", "restored after ms"], routes()),
        }
    finally:
        target.kill()
        target.wait()
    kinds["exits"] = (["exits", "KiB each", *per, "µs to judge one", "served again after ms"], exits())
    print(f"{os.cpu_count()} cores, {time.strftime('%F')}, {RATE} new tunnels a second while a row is measured (exits: one after the other)")
    for name, (heads, rows) in kinds.items():
        table(name.capitalize(), heads, rows)
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "docs")
    with open(os.path.join(folder, "scale.svg"), "w", encoding="utf-8") as file:
        file.write(draw(kinds))


if __name__ == "__main__":
    main()
