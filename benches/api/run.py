#!/usr/bin/env python3
"""The API under load: a thousand routes, ten thousand clients, a hundred proxies made and unmade again and again.

  benches/api.py BINARY     starts a gateway of its own, without Tor and without internet, and prints what it measured
"""

import http.client
import json
import os
import re
import resource
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HOST = "127.71.0.1"
API = 18080


def config(folder):
    path = os.path.join(folder, "exitgate.toml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(
            f'data_dir = "{folder}/data"\ntor.enabled = false\napi.listen = "{HOST}:{API}"\nlog.level = "warn"\n'
            f'[gateway]\nlisten = "{HOST}:11080"\nroute_bind = "{HOST}"\nallow_direct = true\n'
        )
    return path


class Gateway:
    def __init__(self, binary, folder):
        self.begun = time.monotonic()
        self.process = subprocess.Popen([binary, "serve", "--config", config(folder)], stdout=subprocess.DEVNULL)
        while True:
            try:
                if Client().ask("GET", "/ready")[0] == 200:
                    break
            except OSError:
                pass
            if self.process.poll() is not None:
                sys.exit("the gateway ended")
            time.sleep(0.01)
        self.ready = time.monotonic() - self.begun

    def status(self, key):
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as file:
            return int(re.search(rf"{key}:\s+(\d+)", file.read()).group(1))

    def memory(self):
        return self.status("VmRSS") / 1024

    def files(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


class Client:
    def __init__(self):
        self.http = http.client.HTTPConnection(HOST, API, timeout=60)

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body)
        self.http.request(method, path, data, {"Content-Type": "application/json"})
        answer = self.http.getresponse()
        return answer.status, answer.read()

    def must(self, want, method, path, body=None):
        status, text = self.ask(method, path, body)
        if status != want:
            sys.exit(f"{method} {path}: {status} {text[:300]}")
        return json.loads(text) if text else None


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


def thousand(binary, folder):
    gateway, client = Gateway(binary, folder), Client()
    empty = gateway.memory()
    begun = time.monotonic()
    for n in range(1000):
        client.must(201, "POST", "/proxies", {"name": f"r{n}", "selector": "any-source-direct"})
    took = time.monotonic() - begun
    print(f"1,000 routes, one POST each, one after the other: {took:.2f} s")
    time.sleep(6)
    print(f"memory: {empty:.0f} MB without routes, {gateway.memory():.0f} MB with 1,000")
    for path in ["/proxies", "/proxies?limit=1000"]:
        times = []
        for _ in range(300):
            begun = time.monotonic()
            client.ask("GET", path)
            times.append(time.monotonic() - begun)
        print(f"GET {path}: p50 {percentile(times, 0.5):.1f} ms, p99 {percentile(times, 0.99):.1f} ms")
    begun = time.monotonic()
    metrics = client.ask("GET", "/metrics")[1]
    print(f"GET /metrics: {len(metrics) // 1024} KiB in {(time.monotonic() - begun) * 1000:.0f} ms")
    gateway.stop()
    gateway = Gateway(binary, folder)
    while not open_ports(20000, 1000):
        pass
    print(f"restart to all 1,000 ports open: {time.monotonic() - gateway.begun:.2f} s")
    client, begun = Client(), time.monotonic()
    for n in range(1000):
        client.must(202, "DELETE", f"/proxies/r{n}")
    print(f"1,000 routes deleted: {time.monotonic() - begun:.2f} s")
    crowd(gateway)
    loop(gateway)
    gateway.stop()


def crowd(gateway):
    """Ten thousand clients at once: each is served or refused, and the gateway lives."""
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
    status = Client().ask("GET", "/health")[0]
    told = ", ".join(f"{count} {end}" for end, count in ends.items())
    print(
        f"{wanted} API clients at once: {told}, {left} still waiting after {time.monotonic() - begun:.1f} s; "
        f"then /health {status}, {gateway.memory():.0f} MB, {gateway.files()} files"
    )
    if status != 200 or gateway.process.poll() is not None:
        sys.exit("the gateway did not live through it")


def loop(gateway):
    """A hundred proxies made, used, and unmade, ten times over: nothing may be left."""
    client, seen = Client(), []
    for _ in range(10):
        for n in range(100):
            client.must(201, "POST", "/proxies", {"name": f"l{n}", "selector": "any-source-direct"})
        for n in range(100):
            client.must(202, "DELETE", f"/proxies/l{n}")
        time.sleep(1)
        seen.append((gateway.memory(), gateway.files()))
    left = client.must(200, "GET", "/proxies")["total"]
    growth = statistics.mean(memory for memory, _ in seen[-3:]) - statistics.mean(memory for memory, _ in seen[1:4])
    files = seen[-1][1] - seen[0][1]
    print(f"100 proxies made and unmade, 10 times: {left} left, {growth:+.1f} MB, {files:+d} files")
    if left or files > 5 or growth > 10:
        sys.exit("something is left behind")


with tempfile.TemporaryDirectory() as place:
    thousand(sys.argv[1], place)
