"""`serve:`, a program that is started once and fills pair after pair.

It reads one line of JSON for each pair from stdin, `{"pair": ..., "image": ..., "mask": ..., "output": ...}`, writes
the output file, and prints the line `ok`, or `error: TEXT` where it has no result. Other lines on stdout are no
answers: libraries print there. The program ends when its stdin ends.
"""

import contextlib
import io
import json
import os
import queue
import shlex
import shutil
import sys
import tempfile
import threading
import time

import numpy as np

from evaluation.methods import external
from evaluation.methods.errors import Failed
from evaluation.methods.process import READ_TIMEOUT, START_TIMEOUT, ChildProcess, timeout_message
from evaluation.methods.registry import Method
from evaluation.methods.results import fill_one
from maskgen.errors import BadInput

MOST_STARTS = 3  # without the first answer of all
EXPECTED = "expected the line `ok` or `error: TEXT` on stdout for each line on stdin"
# Python that becomes the program after asking Linux to end it together with this process, also by a kill -9.
TIED = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):  # it ended before we asked
    os._exit(1)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it
os.execvp(sys.argv[2], sys.argv[2:])
"""


class ServedProgram(ChildProcess):
    """A program that fills pair after pair. One that has ended is started again by the next pair.

    timeout: s for one image; the first answer after a start may take `START_TIMEOUT` more. `fill` raises BadInput where
    the program has ended `MOST_STARTS` times and never answered.
    """

    batch = 1  # pair is in work, so that a run that is killed loses no other

    def __init__(self, method: Method, timeout: float = 300.0):
        super().__init__(method, timeout)
        self.words = shlex.split(method.argument)
        self.starts, self.why = 0, ""  # before the first answer of all; why the last of them ended
        self.has_answered = self.ever_answered = False  # since its last start; since the first

    def __call__(self, pair: str, image: np.ndarray, hole: np.ndarray) -> np.ndarray:
        """The result of a pair. Raises Failed where there is none."""
        (result,) = self.fill([(pair, image, hole)])
        if isinstance(result, str):
            raise Failed(result)
        return result

    def start(self) -> None:
        """Start the program; what it loads is not waited for. Raises BadInput after `MOST_STARTS` without an answer."""
        if self.starts == MOST_STARTS and not self.ever_answered:
            raise BadInput(f"the method {self.method.label} cannot start: {self.why}")
        line = self.words
        if sys.platform == "linux":
            line = [sys.executable, "-I", "-S", "-c", TIED, str(os.getpid()), *line]
        self._spawn(line, {"PYTHONUNBUFFERED": "1"})  # so that a Python program need not flush its answers
        self.starts += 1
        self.has_answered, self.stray, self.lines = False, "", queue.SimpleQueue()
        stdout, self.process.stdout = self.process.stdout, None  # the thread closes it
        threading.Thread(target=_read_lines, args=(stdout, self.lines), daemon=True).start()

    def _send(self, pairs):
        """Send the first pair."""
        self.code = None
        if not self.is_running:
            self.start()
        elif self.has_answered:
            self._forget_output()
        pair, image, hole = pairs[0]
        self.work = tempfile.mkdtemp(dir=self.folder.name)
        paths = external.write_inputs(self.work, image, hole)
        self.output = paths["output"]
        request = {"pair": pair, **{name: str(path) for name, path in paths.items()}}
        self.seconds = self.timeout + (0 if self.has_answered else START_TIMEOUT)
        self.deadline = time.monotonic() + self.seconds
        with contextlib.suppress(OSError):  # the program has ended: reading its answer will say how
            self.process.stdin.write(f"{json.dumps(request)}\n".encode())
            self.process.stdin.flush()

    def _receive(self, pairs):
        """The results of the pairs, the first of which was sent."""
        result = fill_one(self._result, *pairs[0])
        # A program may end by itself between two pairs, and one that was killed from outside gets a second try.
        if self.was_killed or (self.code == 0 and self.has_answered):
            self._send(pairs)
            result = fill_one(self._result, *pairs[0])
        results = [result]
        for pair in pairs[1:]:
            self._send([pair])
            results += self._receive([pair])
        return results

    def _result(self, pair, image, hole):
        """What the program has written for the pair that was sent. Raises Failed where there is no result."""
        answer = self._answer()
        self.has_answered = self.ever_answered = True
        if answer != "ok":
            raise Failed(self._without_folder(answer.partition(":")[2].strip()) or "error: without a text")
        if not self.output.is_file():
            line = self._last_line()
            self.close()  # this `ok` may belong to another pair
            raise Failed(f"{self.words[0]} answered ok but wrote no output" + (f": {line}" if line else ""))
        try:
            return external.read_output(self.output, self.words[0])
        finally:
            shutil.rmtree(self.work, ignore_errors=True)

    def _answer(self):
        """The next line that is an answer. Raises Failed where the program ends or takes too long."""
        while True:
            try:
                line = self.lines.get(timeout=max(READ_TIMEOUT, self.deadline - time.monotonic()))
            except queue.Empty:
                self.why = timeout_message(self.seconds)
                if not self.ever_answered:
                    self.why += f": {EXPECTED}" + (f", got {self.stray}" if self.stray else "")
                    self.starts = MOST_STARTS
                self.close()
                raise Failed(self.why) from None
            if line is None:
                self.why = self._exit_message(self.words[0])
                raise Failed(self.why)
            if line == "ok" or line.startswith("error:"):
                return line
            self.stray = line or self.stray

    def _forget_output(self):
        """Drop what the program has printed for earlier pairs."""
        self.stray = ""
        self.stderr.truncate(0)
        with contextlib.suppress(queue.Empty):
            while self.lines.get_nowait() is not None:
                pass
            self.lines.put(None)  # it has ended

    def _last_line(self):
        """The last line on stderr, else the last one on stdout that was no answer."""
        return self._without_folder(super()._last_line() or self.stray)

    def _without_folder(self, text):
        """A message without the name of the temporary folder, so that it is the same in every run."""
        return text.replace(f"{self.work}{os.sep}", "")


def _read_lines(stream, lines):
    """Put the lines of a stream into a queue, and None at its end."""
    with stream, contextlib.suppress(OSError):
        # Progress bars end their lines with a carriage return.
        for line in io.TextIOWrapper(stream, encoding="utf-8", errors="replace", newline=None):
            lines.put(line.strip())
    lines.put(None)
