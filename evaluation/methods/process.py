"""A process that does one method's work, so that a crash or an endless loop costs one pair and not the run.

`Hand` is the side that asks. The process itself runs `main`: it reads pickles from stdin, the
method first and then what there is to fill, and answers on stdout. Pixels do not go through these pipes: they lie on a
`Desk`, a piece of memory that both sides see. Both ends are the same program. What needs no such care works `Here`.
"""

import contextlib
import json
import math
import mmap
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from maskgen.errors import BadInput
from maskgen.runtime.memory import keep_memory

STARTING = 600.0  # s that imports and weights may take
TICK = 0.1  # s between two looks at the clock
MOMENT = 0.5  # s for an answer that is there to be read
START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from evaluation.methods.process import main; main()"
FAR = 255  # grey levels that a result in 0..255 may leave its range by, as where a filter overshoots
DARK = 4  # a result without a higher grey level is black, and most likely one in 0..1 or -1..1
ZEROS = bytes(1 << 16)  # by which a file is filled


class Desk:
    """Memory that two processes share: room for an image, its hole and its result, several times over.

    A temporary file that both map, since that works on every system: what multiprocessing offers for it wants a
    third process to clean up, and lives in /dev/shm, which in containers is small.
    """

    def __init__(self, path: Path, size: int):
        """Map a file of `size` bytes, which is made if it is not there. Raises BadInput where the disk is full."""
        self.path, self.size = path, size
        try:
            with path.open("r+b" if path.exists() else "w+b") as file:
                for _ in range(file.seek(0, os.SEEK_END), size, len(ZEROS)):
                    file.write(ZEROS)  # a full disk must show here and not when the memory is used
                file.flush()
                self.memory = mmap.mmap(file.fileno(), size)
        except OSError as error:
            raise BadInput(f"{path} cannot hold {size:,} bytes ({error.strerror}): make room there") from None

    def places(self, shapes):
        """Arrays (image, hole, result) for each (H, W) of shapes, one after the other."""
        begin = 0
        for height, width in shapes:
            area = height * width
            image, result = (
                np.frombuffer(self.memory, np.uint8, 3 * area, begin + offset).reshape(height, width, 3)
                for offset in (0, 4 * area)
            )
            hole = np.frombuffer(self.memory, bool, area, begin + 3 * area).reshape(height, width)
            yield image, hole, result
            begin += 7 * area


class Hand:
    """A running method that can be killed. Use `fill`; a process that died is started again by the next call."""

    def __init__(self, method, *, raw=False, threads=1, timeout=300.0, size=None):
        self.method, self.raw, self.threads, self.timeout, self.size = method, raw, threads, timeout, size
        self.process = self.desk = self.scratch = None
        self.killed = False
        self.turn = threading.Lock()  # a Dask worker asks from several threads

    def fill(self, pairs: list[tuple]) -> list:
        """What the method makes of [(pair id, image, hole), ...]: an array each, or a str that says what went wrong.

        A list that fails as a whole is asked again one by one, so that only the guilty pair is lost; a process that
        was killed is asked once more. Raises BadInput where the method cannot start at all.
        """
        with self.filling(pairs) as results:
            pass
        return results

    @contextlib.contextmanager
    def filling(self, pairs: list[tuple]):
        """Let the method work on the pairs while the block does something else; then the list has what `fill` gives."""
        results = []
        with self.turn:
            self._ask(pairs)
            try:
                yield results
            except BaseException:
                self.close()  # nobody is going to take its answer
                raise
            results += self._results(pairs)

    def _ask(self, pairs):
        self.killed = False
        if self.process is None or self.process.poll() is not None:
            self.start()
        shapes = [hole.shape for _, _, hole in pairs]
        size = sum(7 * height * width for height, width in shapes)
        if self.desk is None or self.desk.size < size:
            self.desk = Desk(Path(self.scratch.name, f"desk{size}"), size)
        for place, (_, image, hole) in zip(self.desk.places(shapes), pairs, strict=True):
            place[0][...], place[1][...] = image, hole
        self.asked_at = time.monotonic()
        with contextlib.suppress(OSError):  # a process that is gone has its last words when the answer is read
            self._say((self.desk.path, self.desk.size, [pair for pair, _, _ in pairs], shapes))

    def _results(self, pairs):
        """What was asked for, one of each pair; where the list failed as a whole the pairs are asked for again."""
        answer = self._answer(pairs)
        if isinstance(answer, str) and self.killed:  # from outside, perhaps for want of memory: no fault of a pair
            self._ask(pairs)
            answer = self._answer(pairs)
        if isinstance(answer, list):
            return answer
        if len(pairs) == 1:
            return [answer]
        results = []
        for pair in pairs:
            self._ask([pair])
            results += self._results([pair])
        return results

    def _answer(self, pairs):
        """The list of what the process made of the pairs, or a str that says why it has made nothing."""
        seconds = self.timeout * len(pairs)
        # Where the caller was busy the answer may be there since long: it gets a moment to be read in any case.
        answer = self._read(max(self.asked_at + seconds, time.monotonic() + MOMENT))
        if answer is None and self.late:
            self.close()
            return _too_late(seconds)
        if answer is None:
            return self._last_words()
        places = self.desk.places([hole.shape for _, _, hole in pairs])
        return [why or result.copy() for why, (_, _, result) in zip(answer, places, strict=True)]

    def _say(self, what):
        pickle.dump(what, self.process.stdin, protocol=5)
        self.process.stdin.flush()

    def _read(self, deadline):
        """What the process says; None where it is gone, or was killed because the deadline passed."""
        self.deadline = deadline
        try:
            return pickle.load(self.process.stdout)
        except Exception:  # whatever half a pickle leads to
            return None
        finally:
            self.deadline = math.inf

    def start(self):
        """Start the process and wait until it has loaded the method. Raises BadInput where it cannot."""
        environment = dict(os.environ)
        for library in ("OMP", "OPENBLAS", "MKL"):
            environment[f"{library}_NUM_THREADS"] = str(self.threads)
        self.close()
        if self.method.folder and not Path(self.method.folder).is_dir():
            raise BadInput(
                f"the method {self.method.label} works in {self.method.folder}, which is not there on "
                f"{socket.gethostname()}: expected a folder that all machines share"
            )
        # What the method leaves among temporary files goes with its process, however that ends.
        self.scratch = tempfile.TemporaryDirectory(prefix="evaluate-", ignore_cleanup_errors=True)
        environment.update(dict.fromkeys(("TMPDIR", "TEMP", "TMP"), self.scratch.name))
        self.said = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self.process = subprocess.Popen(
            # Where modules are is told as an argument: PYTHONPATH would reach programs that have a Python of their own.
            # -P: a file of the folder where it starts must not stand in for a module.
            [
                sys.executable,
                "-I" if sys.flags.isolated else "-P",
                "-c",
                START,
                json.dumps([path or str(Path.cwd()) for path in sys.path]),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            env=environment,
            cwd=self.method.folder or None,
            start_new_session=True,  # a program that the method started dies with it
        )
        self.late, self.deadline = False, math.inf
        threading.Thread(target=self._watch, args=(self.process,), daemon=True).start()
        with contextlib.suppress(OSError):
            self._say((self.method, self.raw, self.threads, self.size, os.getpid()))
        answer = self._read(time.monotonic() + STARTING)
        if answer is None:
            raise BadInput(f"the method {self.method.label} cannot start: {self._last_words()}")
        if answer != "ready":
            raise BadInput(answer)

    def _watch(self, process):
        """Kill the process when the deadline has passed; that ends the reading of its answer."""
        while process.poll() is None:
            if time.monotonic() > self.deadline:
                self.late = True
                _kill(process)
                return
            time.sleep(TICK)

    def _last_words(self):
        """Why the process is gone, with the last line it said."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        code = self.process.poll()
        self.killed = code == -signal.SIGKILL
        self.said.seek(0)
        lines = self.said.read()[-4000:].decode(errors="replace").strip().splitlines()
        self.close()
        why = f"killed by {signal.Signals(-code).name}" if code and code < 0 else f"ended with code {code}"
        return f"its process was {why}" + (f": {lines[-1].strip()}" if lines else "")

    def close(self):
        """End the process and all that it started."""
        if self.process is None:
            return
        _kill(self.process)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.said):
            with contextlib.suppress(OSError):
                stream.close()
        self.process = self.desk = None
        self.scratch.cleanup()


class Here:
    """A method that works in this process, with what the benchmark needs of a `Hand`: for those that are `plain`."""

    def __init__(self, method, timeout=300.0):
        from evaluation import methods

        self.function, self.timeout = methods.load(method), timeout
        self.turn = threading.Lock()

    @contextlib.contextmanager
    def filling(self, pairs: list[tuple]):
        """After the block the list has what `Hand.fill` gives for the pairs. What takes too long is told afterwards."""
        results = []
        yield results
        for pair in pairs:
            start = time.monotonic()
            result = _one(self.function, *pair)
            late = time.monotonic() - start > self.timeout
            results.append(_too_late(self.timeout) if late else result)

    def close(self):
        """There is nothing to end."""


def _too_late(seconds):
    return f"no result within {seconds:g} s"


def _kill(process):
    """End a process and all that it started."""
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)


def main():
    """Serve one method until stdin closes."""
    from evaluation import methods
    from evaluation.methods.doors import die_with

    stdin, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a method prints must not fall among the answers
    method, raw, threads, size, parent = pickle.load(stdin)
    die_with(parent)
    import cv2

    cv2.setNumThreads(threads)
    keep_memory()

    def say(answer):
        pickle.dump(answer, answers, protocol=5)
        answers.flush()

    try:
        function = methods.load(method, raw=raw, threads=threads, size=size)
    except BadInput as error:
        say(str(error))
        return
    say("ready")
    desk = None
    while True:
        try:
            path, size, names, shapes = pickle.load(stdin)
        except EOFError:
            return
        if desk is None or desk.path != path:
            desk = Desk(path, size)
            with contextlib.suppress(OSError):  # Windows keeps the name of a file in use
                path.unlink()  # both sides have it: after a kill of either nothing large stays behind
        places = list(desk.places(shapes))
        # The arrays lie on the desk, and a method may write on them: who asked has its own.
        pairs = [(name, image, hole) for name, (image, hole, _) in zip(names, places, strict=True)]
        answer = []
        for result, (_, _, place) in zip(_all(function, pairs), places, strict=True):
            if not isinstance(result, str):
                place[...] = result
            answer.append(result if isinstance(result, str) else "")
        say(answer)


def _all(function, pairs):
    """Results or reasons in the order of the pairs, at once where the method can do that."""
    if len(pairs) > 1 and hasattr(function, "many"):
        with contextlib.suppress(Exception):  # one by one it shows whose fault it was
            results = function.many(pairs)
            return [checked(result, image.shape) for result, (_, image, _) in zip(results, pairs, strict=True)]
    return [_one(function, *pair) for pair in pairs]


def _one(function, pair, image, hole):
    try:
        return checked(function(pair, image, hole), image.shape)
    except Exception as error:  # whatever a method raises costs its own pair
        return f"{error}" if type(error).__name__ in ("Failed", "BadInput") else f"{type(error).__name__}: {error}"


def checked(result, shape) -> np.ndarray | str:
    """The result as uint8 of that shape, or a str that says why it is none.

    Other numbers count as grey levels 0..255. Those of another range, such as floats in 0..1, are told and not taken:
    they would come out black or white.
    """
    result = np.asarray(result)
    if result.shape != shape:
        return f"the result is {_size(result.shape)}, expected {_size(shape)}"
    if result.dtype == np.uint8:
        return np.ascontiguousarray(result)
    if result.dtype.kind not in "iuf":
        return f"the result is of type {result.dtype}, expected uint8"
    if not np.isfinite(result).all():
        return "the result holds NaN or infinite values"
    low, high = result.min(), result.max()
    if low < -FAR or high > 255 + FAR or (0 < high <= DARK) or (low < 0 and high <= DARK):
        return (
            f"the result is {result.dtype} from {float(low):g} to {float(high):g}, "
            "expected uint8 or numbers from 0 to 255: scale it in the method"
        )
    return result.round().clip(0, 255).astype(np.uint8)


def _size(shape):
    return " x ".join(map(str, shape)) or "a number"
