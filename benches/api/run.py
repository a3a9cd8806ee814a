#!/usr/bin/env python3
"""The API under load: a thousand routes, ten thousand clients, and a hundred routes that are created and deleted ten times.

  benches/api/run.py BINARY     starts a gateway without Tor and without internet, and prints the figures
"""

import os
import resource
import selectors
import socket
import statistics
import sys
import tempfile
import time

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "shared"))
from gateway import Gateway

HOST = "127.71.0.1"
API = 18080


def start(binary, folder):
    path = os.path.join(folder, "exitgate.toml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(
            f'data_dir = "{folder}/data"\ntor.enabled = false\napi.listen = "{HOST}:{API}"\nlog.level = "warn"\n'
            f'[gateway]\nlisten = "{HOST}:11080"\nroute_bind = "{HOST}"\nallow_direct = true\n'
        )
    return Gateway(binary, path, (HOST, API))


def megabytes(gateway):
    return gateway.memory("VmRSS") / 1024


def open_files(gateway):
    return len(os.listdir(f"/proc/{gateway.process.pid}/fd"))


def open_ports(first, count):
    def is_open(port):
        try:
            socket.create_connection((HOST, port), 1).close()
            return True
        except OSError:
            return False

    return all(is_open(port) for port in range(first, first + count))


def percentile(times, share):
    return sorted(times)[min(len(times) - 1, int(len(times) * share))] * 1000


def thousand_routes(binary, folder):
    gateway = start(binary, folder)
    client, empty = gateway.client(), megabytes(gateway)
    begun = time.monotonic()
    for n in range(1000):
        gateway.must(201, "POST", "/proxies", {"name": f"r{n}", "selector": "any-source-direct"}, client)
    took = time.monotonic() - begun
    print(f"1,000 routes, one POST each, one after the other: {took:.2f} s")
    time.sleep(6)
    print(f"memory: {empty:.0f} MB without routes, {megabytes(gateway):.0f} MB with 1,000")
    for path in ["/proxies", "/proxies?limit=1000"]:
        times = []
        for _ in range(300):
            begun = time.monotonic()
            gateway.ask("GET", path, None, client)
            times.append(time.monotonic() - begun)
        print(f"GET {path}: p50 {percentile(times, 0.5):.1f} ms, p99 {percentile(times, 0.99):.1f} ms")
    begun = time.monotonic()
    metrics = gateway.ask("GET", "/metrics", None, client)[1]
    print(f"GET /metrics: {len(metrics) // 1024} KiB in {(time.monotonic() - begun) * 1000:.0f} ms")
    gateway.stop()
    gateway = start(binary, folder)
    while not open_ports(20000, 1000):
        pass
    print(f"restart to all 1,000 ports open: {time.monotonic() - gateway.begun:.2f} s")
    client, begun = gateway.client(), time.monotonic()
    for n in range(1000):
        gateway.must(202, "DELETE", f"/proxies/r{n}", None, client)
    print(f"1,000 routes deleted: {time.monotonic() - begun:.2f} s")
    many_clients(gateway)
    create_and_delete(gateway)
    gateway.stop()


def many_clients(gateway):
    """Ten thousand clients at once: each is served or refused, and the gateway goes on."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    wanted, ends = min(10_000, limit - 100), {"served": 0, "refused": 0, "closed": 0}
    begun, wait = time.monotonic(), selectors.DefaultSelector()
    for _ in range(wanted):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex((HOST, API))
        wait.register(client, selectors.EVENT_WRITE)
    while wait.get_map() and time.monotonic() - begun < 100:
        for key, event in wait.select(1):
            end = None
            try:
                if event & selectors.EVENT_WRITE:
                    key.fileobj.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    wait.modify(key.fileobj, selectors.EVENT_READ)
                else:
                    end = "served" if key.fileobj.recv(64).startswith(b"HTTP/1.1 200") else "closed"
            except OSError:
                end = "refused"
            if end:
                ends[end] += 1
                wait.unregister(key.fileobj)
                key.fileobj.close()
    left = len(wait.get_map())
    for key in list(wait.get_map().values()):
        key.fileobj.close()
    status = gateway.ask("GET", "/health")[0]
    counts = ", ".join(f"{count} {end}" for end, count in ends.items())
    print(
        f"{wanted} API clients at once: {counts}, {left} still waiting after {time.monotonic() - begun:.1f} s; "
        f"then /health {status}, {megabytes(gateway):.0f} MB, {open_files(gateway)} files"
    )
    if status != 200 or gateway.process.poll() is not None:
        sys.exit("the gateway did not survive it")


def create_and_delete(gateway):
    """Creates and deletes a hundred routes, ten times: nothing may be left."""
    client, seen = gateway.client(), []
    for _ in range(10):
        for n in range(100):
            gateway.must(201, "POST", "/proxies", {"name": f"l{n}", "selector": "any-source-direct"}, client)
        for n in range(100):
            gateway.must(202, "DELETE", f"/proxies/l{n}", None, client)
        time.sleep(1)
        seen.append((megabytes(gateway), open_files(gateway)))
    left = gateway.must(200, "GET", "/proxies")["total"]
    growth = statistics.mean(memory for memory, _ in seen[-3:]) - statistics.mean(memory for memory, _ in seen[1:4])
    files = seen[-1][1] - seen[0][1]
    print(f"100 routes created and deleted, 10 times: {left} left, {growth:+.1f} MB, {files:+d} files")
    if left or files > 5 or growth > 10:
        sys.exit("routes, files or memory are left behind")


with tempfile.TemporaryDirectory() as place:
    thousand_routes(sys.argv[1], place)
