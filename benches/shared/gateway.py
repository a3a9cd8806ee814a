"""A gateway's process, for the benches in Python."""

import http.client
import json
import re
import signal
import subprocess
import sys
import time


class Gateway:
    """Starts `binary serve` with the configuration file `config`, and waits until it is ready. `api` is the (host, port) in that file."""

    def __init__(self, binary, config, api):
        self.api, self.begun = api, time.monotonic()
        self.process = subprocess.Popen([binary, "serve", "--config", config], stdout=subprocess.DEVNULL)
        self.ready = self.until(lambda: self.ask("GET", "/ready")[0] == 200)

    def until(self, done):
        """Waits until `done()`, and returns how many seconds after the start that was. An OSError means: not yet."""
        while True:
            try:
                if done():
                    return time.monotonic() - self.begun
            except OSError:
                pass
            if self.process.poll() is not None:
                sys.exit("the gateway ended")
            time.sleep(0.005)

    def client(self):
        return http.client.HTTPConnection(*self.api, timeout=60)

    def ask(self, method, path, body=None, client=None):
        """One request to the API: status and body. Without a client, over a connection of its own."""
        client = client or self.client()
        client.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
        answer = client.getresponse()
        return answer.status, answer.read()

    def must(self, want, method, path, body=None, client=None):
        """One request that must have the status `want`; its body as JSON."""
        status, text = self.ask(method, path, body, client)
        if status != want:
            sys.exit(f"{method} {path}: {status} {text[:300]}")
        return json.loads(text) if text else None

    def memory(self, field):
        """A field of /proc/PID/status, in KiB."""
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as file:
            return int(re.search(rf"{field}:\s+(\d+)", file.read()).group(1))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
