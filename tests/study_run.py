"""A small benchmark run, the server of a study, and a rater that uses HTTP."""

import http.client
import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from evaluation import benchmark, methods, pairing
from evaluation.pairs import Sources
from evaluation.settings import BenchmarkConfig

ROOT = Path(__file__).parents[1]


def results(folder, names=("telea", "ns", "mean"), count=8, out="results"):
    """Results of methods on `count` photos of 64 px. Half of the pairs are of class `free_0.1-0.2`, the others of
    `free_0.2-0.3`; in such a small image each hole is near the border."""
    photos, masks = folder / "photos", folder / "masks"
    for path in (photos, masks):
        path.mkdir(exist_ok=True)
    for i in range(count):
        rng = np.random.default_rng([7, i])
        small = rng.integers(0, 255, (6, 6, 3), np.uint8)
        cv2.imwrite(str(photos / f"secretname{i:02d}.png"), cv2.resize(small, (64, 64), interpolation=cv2.INTER_CUBIC))
        hole = np.zeros((64, 64), np.uint8)
        hole[20:44, 20 : 44 if i % 2 else 62] = 255  # 576 or 1008 of 4096 px
        cv2.imwrite(str(masks / f"{i:02d}.png"), hole)
    config = BenchmarkConfig(metrics=("l1_image",), size=(64, 64))
    pairs = pairing.make_pairs(photos, masks, config)
    chosen = [methods.parse(name) for name in names]
    sources = Sources(photos, masks)
    benchmark.run(chosen, pairs, sources, folder / out, config, names=(str(photos), "masks"), workers=1)
    return folder / out


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(study, port, *words):
    """Start `evaluate study serve` on the loopback interface. Returns when it accepts connections."""
    code = "import cli; cli.evaluate(prog_name='evaluate')"
    command = [sys.executable, "-c", code, "study", "serve", str(study), "--port", str(port), *words]
    server = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
    for _ in range(400):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return server
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the server did not start")


def stop(server):
    """Kill the server with SIGKILL."""
    server.kill()
    server.wait()
    server.stderr.close()


class Visitor:
    """A minimal browser: keeps one cookie and the CSRF token of the last page."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.cookie = self.csrf = self.link = ""

    def ask(self, method, path, body=None, kind="application/json"):
        headers = {"Cookie": self.cookie, "X-Study-Token": self.csrf, "Content-Type": kind}
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        data = answer.read()
        if answer.getheader("Set-Cookie"):
            self.cookie = answer.getheader("Set-Cookie").split(";")[0]
        found = re.search(rb'csrf(?:="|" value=")(\w{64})"', data)
        self.csrf = found[1].decode() if found else self.csrf
        return answer, data

    def join(self):
        self.ask("GET", "/")
        answer, _ = self.ask("POST", "/join", f"csrf={self.csrf}&consent=yes", "application/x-www-form-urlencoded")
        assert answer.status == 303, answer.status
        self.link = answer.getheader("Location")
        self.ask("GET", self.link)

    def state(self):
        return json.loads(self.ask("GET", f"{self.link}/state")[1])

    def answer(self, n, side, shown=0, **more):
        body = {"n": n, "side": side, "shown_ms": shown, "answer_ms": 1500, "width": 300, "views": 1, **more}
        answer, data = self.ask("POST", f"{self.link}/answer", json.dumps(body))
        return answer.status, json.loads(data)
