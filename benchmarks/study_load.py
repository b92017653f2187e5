"""Load test of the study's web app with simultaneous raters: latency, errors, and whether every answer is kept.

    python benchmarks/study_load.py [--raters 50] [--seconds 120] [--pause 1.0] [--kill]

Server and raters run on this machine and use its loopback interface. A rater loads the pages, fetches the pictures in
advance as the real page does, and answers after a pause. With --kill the server is killed and restarted half way;
raters repeat their requests until it is back, and this wait does not count as latency.
"""

import argparse
import http.client
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import redirect_stderr, suppress
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from evaluation import benchmark, methods, pairing
from evaluation.pairs import Sources
from evaluation.settings import BenchmarkConfig
from evaluation.study.make import make
from evaluation.study.settings import StudyConfig


def results(folder: Path) -> Path:
    """Results of three methods on 16 pairs of 512 px: smooth noise with round holes."""
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for i in range(16):
        rng = np.random.default_rng([0, i])
        noise = cv2.resize(rng.integers(0, 255, (48, 48, 3), np.uint8), (512, 512), interpolation=cv2.INTER_CUBIC)
        hole = cv2.circle(np.zeros((512, 512), np.uint8), (256, 256), 60 + 8 * i, 255, -1)
        cv2.imwrite(str(folder / "images" / f"{i:02d}.png"), noise)
        cv2.imwrite(str(folder / "masks" / f"{i:02d}.png"), hole)
    config = BenchmarkConfig(metrics=("l1_image",))
    pairs = pairing.make_pairs(folder / "images", folder / "masks", config)
    sources = Sources(folder / "images", folder / "masks")
    chosen = [methods.parse(name) for name in ("telea", "ns", "mean")]
    names = (str(folder / "images"), str(folder / "masks"))
    with Path(os.devnull).open("w") as nothing, redirect_stderr(nothing):  # hides the progress bars
        benchmark.run(chosen, pairs, sources, folder / "results", config, names=names, workers=1)
    return folder / "results"


def start(study: Path, port: int) -> subprocess.Popen:
    """Start the real command on the loopback interface. Returns when it accepts connections."""
    root = Path(__file__).parents[1]
    code = f"import sys; sys.path.insert(0, {str(root)!r}); import cli; cli.evaluate(prog_name='evaluate')"
    words = [sys.executable, "-c", code, "study", "serve", str(study), "--port", str(port)]
    server = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return server
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the server did not start")


class Rater(threading.Thread):
    """One rater. Records the latency of each request and each answer that the server has acknowledged."""

    def __init__(self, number, port, until, pause, patient):
        super().__init__(daemon=True)
        self.port, self.until, self.patient = port, until, patient
        self.rng, self.pause = np.random.default_rng([1, number]), pause
        self.connection, self.cookie = None, ""
        self.times, self.errors, self.kept, self.link = defaultdict(list), [], {}, ""

    def ask(self, what, method, path, body=None, kind="application/json", token=""):
        """Send one request, record an error, and repeat the request if the server may be down."""
        headers = {"Cookie": self.cookie, "X-Study-Token": token, "Content-Type": kind}
        while True:
            began = time.perf_counter()
            try:
                if self.connection is None:
                    self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
                self.connection.request(method, path, body, headers)
                answer = self.connection.getresponse()
                data = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.connection.close()
                self.connection = None
                if self.patient:
                    time.sleep(0.3)
                    continue
                self.errors.append(f"{what}: {error!r}")
                raise
            self.times[what].append(time.perf_counter() - began)
            if answer.status >= 400:
                self.errors.append(f"{what}: {answer.status}")
                raise RuntimeError(answer.status)
            if answer.getheader("Set-Cookie"):
                self.cookie = answer.getheader("Set-Cookie").split(";")[0]
            return answer, data

    def run(self):
        with suppress(RuntimeError, OSError, http.client.HTTPException):  # recorded in self.errors
            self.session()

    def session(self):
        time.sleep(self.rng.uniform(0, self.pause))
        _, page = self.ask("page", "GET", "/")
        token = re.search(rb'name="csrf" value="(\w+)"', page)[1].decode()
        form = f"csrf={token}&consent=yes"
        answer, _ = self.ask("join", "POST", "/join", form, "application/x-www-form-urlencoded")
        self.link = answer.getheader("Location")
        _, page = self.ask("page", "GET", self.link)
        token = re.search(rb'data-csrf="(\w+)"', page)[1].decode()
        state, fetched = json.loads(self.ask("state", "GET", f"{self.link}/state")[1]), set()
        while state["ahead"] and time.time() < self.until:
            for trial in state["ahead"]:
                for side in ("left", "right"):
                    if (trial["n"], side) not in fetched:
                        self.ask("picture", "GET", f"{self.link}/{trial['n']}/{side}")
                        fetched.add((trial["n"], side))
            time.sleep(self.rng.uniform(0.5, 1.5) * self.pause)
            n, side = state["ahead"][0]["n"], str(self.rng.choice(["left", "right"]))
            shown_ms = state["ahead"][0]["exposure"]
            body = {"n": n, "side": side, "shown_ms": shown_ms, "answer_ms": 900, "width": 400, "views": 1}
            data = self.ask("answer", "POST", f"{self.link}/answer", json.dumps(body), token=token)[1]
            self.kept[n] = side
            state = json.loads(data)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raters", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--pause", type=float, default=1.0, help="mean seconds before an answer")
    parser.add_argument("--kill", action="store_true", help="kill the server half way and restart it")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "study"
        config = StudyConfig(per_rater=1000, answers=1000, catches=16)
        make([results(Path(folder))], study, config, Path(folder) / "images")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = start(study, port)
        try:
            until = time.time() + asked.seconds
            raters = [Rater(i, port, until, asked.pause, asked.kill) for i in range(asked.raters)]
            for rater in raters:
                rater.start()
            if asked.kill:
                time.sleep(asked.seconds / 2)
                server.kill()
                server.wait()
                time.sleep(1)
                server = start(study, port)
            for rater in raters:
                rater.join()
        finally:
            server.kill()
            server.wait()
        db = sqlite3.connect(study / "study.sqlite")
        stored = db.execute("SELECT count(*) FROM answers").fetchone()[0]
        sides = sorted(db.execute("SELECT position, side, count(*) FROM answers GROUP BY position, side").fetchall())
        db.close()
    acknowledged = defaultdict(int)
    for rater in raters:
        for n, side in rater.kept.items():
            acknowledged[n, side] += 1
    lost = sum(acknowledged.values()) - sum(min(count, acknowledged[n, side]) for n, side, count in sides)
    errors = [error for rater in raters for error in rater.errors]
    total = sum(len(times) for rater in raters for times in rater.times.values())
    print(f"{asked.raters} raters, {asked.seconds:g} s, {total} requests, {total / asked.seconds:.0f} a second")
    print(f"{sum(acknowledged.values())} answers acknowledged, {stored} stored, {lost} lost, {len(errors)} errors")
    for error in sorted(set(errors))[:5]:
        print("  ", error)
    print(f"{'request':10}{'number':>8}{'median ms':>11}{'p95 ms':>9}{'largest':>9}")
    for what in ("page", "join", "state", "picture", "answer", "all"):
        times = [t for rater in raters for name, found in rater.times.items() if what in (name, "all") for t in found]
        low, high = np.quantile(times, [0.5, 0.95]) * 1000
        print(f"{what:10}{len(times):8}{low:11.1f}{high:9.1f}{max(times) * 1000:9.1f}")


if __name__ == "__main__":
    main()
