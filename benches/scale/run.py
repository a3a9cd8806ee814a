#!/usr/bin/env python3
"""What one more tunnel, route or exit costs, with ten times as many at each step.

  benches/scale/run.py [FOLDER]     prints the tables as Markdown, and draws FOLDER/scale.svg (docs, if none is named)

Needs target/release with exitgate, exitgate-peers and exitgate-public-bench: `make bench-scale` builds them. Load, target and fakes
run on the same machine. Each step starts a new gateway, so that no step begins with the memory of another.
"""

import os
import re
import resource
import socket
import struct
import subprocess
import sys
import tempfile
import time

from plot import draw

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "shared"))
from gateway import Gateway

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
BUILT = os.path.join(ROOT, "target", "release")
HOST = "127.0.0.1"
API, SHARED, TARGET = 17250, 17251, 17001
FIRST_PORT = 20000

# New tunnels a second while a step is measured: far below what the gateway can do, so that no tunnel waits in a queue.
RATE = 400


def enter_own_network():
    """Starts this script again in a network namespace of its own."""
    if "SCALE_ALONE" not in os.environ:
        os.environ["SCALE_ALONE"] = "yes"
        apart = os.path.join(ROOT, "benches", "apart")
        os.execv(apart, [apart, sys.executable, *sys.argv])


def most_tunnels():
    """Raises the limit on open files as far as it goes, and returns how many tunnels the gateway can hold under it."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    return (limit - 600) // 3


def start(folder, more=""):
    """Starts a gateway with `more` lines of configuration; with the configuration that is there if `more` is None."""
    path = os.path.join(folder, "exitgate.toml")
    if more is not None:
        with open(path, "w", encoding="utf-8") as file:
            file.write(
                f'data_dir = "{folder}/data"\nlog.level = "warn"\ntor.enabled = false\napi.listen = "{HOST}:{API}"\n'
                f'[gateway]\nlisten = "{HOST}:{SHARED}"\nroute_ports = "{FIRST_PORT}-{FIRST_PORT + 5999}"\n'
                f"allow_direct = true\nallow_private_targets = true\n{more}"
            )
    return Gateway(os.path.join(BUILT, "exitgate"), path, (HOST, API))


def memory(gateway):
    """Resident memory that is not backed by a file, in KiB."""
    return gateway.memory("RssAnon")


def load(gateway, port):
    """CPU µs for each tunnel; p50 and p99 µs to open one."""
    server = f"x=socks5@{HOST}:{port}#{gateway.process.pid}"
    command = [f"{BUILT}/exitgate-peers", "open", str(TARGET), str(RATE), server]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    found = dict(re.findall(r"(\w+): ([\d.]+)", ran.stdout))
    if "cpu" not in found:
        sys.exit(ran.stdout + ran.stderr)
    return float(found["cpu"]), float(found["p50"]), float(found["p99"])


def tunnel(port, number):
    """Opens one SOCKS5 tunnel to the echo, and uses it once."""
    stream = socket.create_connection((HOST, port), 20)
    ip = socket.inet_aton(f"127.0.0.{1 + number % 4}")
    stream.sendall(b"\5\1\0")
    if stream.recv(2) != b"\5\0":
        raise OSError("no SOCKS5 greeting")
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
            gateway = start(folder, "max_connections = 20000\n" + route("bench", FIRST_PORT))
            warm = [tunnel(FIRST_PORT, n) for n in range(10)]
            time.sleep(1)
            before, begun = memory(gateway), time.monotonic()
            held = [tunnel(FIRST_PORT, n) for n in range(count)]
            took = (time.monotonic() - begun) / count
            time.sleep(3)
            each = (memory(gateway) - before) / count
            # The memory of ten tunnels is less than the noise of a page.
            rows.append([count, each if count >= 100 else None, *load(gateway, FIRST_PORT), took * 1e6])
            for stream in held + warm:
                stream.close()
            gateway.stop()
        log("tunnels", rows[-1])
    return rows


def route(name, port):
    return f'[[routes]]\nname = "{name}"\nselector = "any-source-direct"\nport = {port}\n'


def routes():
    rows = []
    for count in [10, 100, 1_000, 5_000]:
        with tempfile.TemporaryDirectory() as folder:
            gateway = start(folder)
            time.sleep(1)
            before, begun = memory(gateway), time.monotonic()
            for n in range(count):
                gateway.must(201, "POST", "/proxies", {"name": f"r{n}", "selector": "any-source-direct"})
            took = (time.monotonic() - begun) / count
            time.sleep(6)
            each = (memory(gateway) - before) / count
            last = FIRST_PORT + count - 1
            cost = load(gateway, last)
            gateway.stop()
            again = start(folder, None)
            restored = again.until(lambda port=last: socket.create_connection((HOST, port), 1).close() is None)
            again.stop()
            rows.append([count, each if count >= 100 else None, *cost, took * 1e6, restored * 1e3])
        log("routes", rows[-1])
    return rows


def exits():
    """Fake public proxies. The bench that runs them prints a line for each step."""
    rows = []
    ran = subprocess.Popen([f"{BUILT}/exitgate-public-bench", "scale"], stdout=subprocess.PIPE, text=True)
    for line in ran.stdout:
        words = line.split()
        if words and words[0] == "scale":
            rows.append([int(words[1]), *map(float, words[2:])])
            log("exits", rows[-1])
    if ran.wait() != 0:
        sys.exit("the bench of public exits failed")
    return rows


def log(what, row):
    print(f"{what}: {row}", file=sys.stderr, flush=True)


def table(title, heads, rows):
    print(f"\n{title}\n\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for row in rows:
        cells = ["–" if cell is None else f"{cell:,.0f}" if cell >= 100 or isinstance(cell, int) else f"{cell:.2f}" for cell in row]
        print(f"| {' | '.join(cells)} |")


def main():
    enter_own_network()
    most = most_tunnels()
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
    kinds["exits"] = (["exits", "KiB each", *per, "µs to test one", "served again after ms"], exits())
    print(f"{os.cpu_count()} cores, {time.strftime('%F')}, {RATE} new tunnels a second while a row is measured (exits: one after the other)")
    for name, (heads, rows) in kinds.items():
        table(name.capitalize(), heads, rows)
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "docs")
    with open(os.path.join(folder, "scale.svg"), "w", encoding="utf-8") as file:
        file.write(draw(kinds))


if __name__ == "__main__":
    main()
