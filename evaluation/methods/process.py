"""Run a method in a process of its own, so that a crash or an endless loop costs one pair and not the run.

`WorkerProcess` starts `evaluation.methods.worker` and talks to it through pipes; `ServedProgram` in `served` talks to a
program of the user's. Methods that need no such care run `InProcess`.
"""

import contextlib
import json
import math
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from evaluation.methods.registry import Method
from evaluation.methods.results import fill_one
from maskgen.errors import BadInput

START_TIMEOUT = 600.0  # s for imports and for loading weights
POLL_INTERVAL = 0.1  # s between two checks of the deadline
READ_TIMEOUT = 0.5  # s for reading an answer that is already there
END_TIMEOUT = 5  # s in which a process may end that has closed its stdout
CODE = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from evaluation.methods.worker import main; main()"


class ChildProcess:
    """A method in a process that can be killed; one that has ended is started again by the next call.

    Subclasses have `start`, `_send(pairs)` and `_receive(pairs)`.
    """

    def __init__(self, method: Method, timeout: float):
        self.method, self.timeout = method, timeout
        self.process = self.folder = None
        self.code = None  # with which it ended by itself
        self.lock = threading.Lock()  # a Dask worker calls from several threads

    def fill(self, pairs: list[tuple]) -> list[np.ndarray | str]:
        """The results for [(pair id, image, hole), ...]: arrays, or messages that say what went wrong.

        A list that fails as a whole is done again one by one, so that only the pair at fault is lost; a process that
        was killed from outside gets a second try. Raises BadInput where the method cannot start.
        """
        with self.filling(pairs) as results:
            pass
        return results

    @contextlib.contextmanager
    def filling(self, pairs: list[tuple]) -> Iterator[list]:
        """Let the method work while the block runs; afterwards the list holds what `fill` returns."""
        results = []
        with self.lock:
            self._send(pairs)
            try:
                yield results
            except BaseException:
                self.close()  # its answer will not be read
                raise
            results += self._receive(pairs)

    @property
    def is_running(self) -> bool:
        """True from the start of the process to its end."""
        return self.process is not None and self.process.poll() is None

    def _spawn(self, line: list[str], environment: dict[str, str]) -> None:
        """Start the process. environment: variables besides ours."""
        self.close()
        if self.method.folder and not Path(self.method.folder).is_dir():
            raise BadInput(
                f"the method {self.method.label} runs in {self.method.folder}, which does not exist on "
                f"{socket.gethostname()}: expected a folder that all machines share"
            )
        # Temporary files of the method are removed with its process, however that ends.
        self.folder = tempfile.TemporaryDirectory(prefix="evaluate-", ignore_cleanup_errors=True)
        self.stderr = Path(self.folder.name, ".stderr").open("ab+")  # noqa: SIM115 - lives as long as the process
        self.process = subprocess.Popen(
            line,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            env={**os.environ, **environment, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), self.folder.name)},
            cwd=self.method.folder or None,
            start_new_session=True,  # a program that the method starts is killed with it
        )

    def _last_line(self):
        """The last line that the process has written to stderr."""
        self.stderr.seek(max(0, self.stderr.seek(0, os.SEEK_END) - 4000))
        lines = self.stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""

    def _exit_message(self, who="its process"):
        """How the process ended, with the last line that it printed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(END_TIMEOUT)
        self.code, line = self.process.poll(), self._last_line()
        self.close()
        if self.code is None:
            end = "closed its stdout"
        elif self.code < 0:
            end = f"was killed by {signal.Signals(-self.code).name}"
        else:
            end = f"ended with code {self.code}"
        return f"{who} {end}" + (f": {line}" if line else "")

    @property
    def was_killed(self) -> bool:
        """True if the last process that ended was killed from outside, perhaps because memory ran out."""
        return self.code == -signal.SIGKILL

    def close(self) -> None:
        """End the process and all programs that it started."""
        if self.process is None:
            return
        _kill(self.process)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.stderr):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()
        self.process = None
        self.folder.cleanup()


class WorkerProcess(ChildProcess):
    """A method in a Python process of ours.

    raw, threads, size: as for `registry.load`. timeout: s for one image.
    """

    def __init__(self, method: Method, *, raw=False, threads=1, timeout=300.0, size=None):
        super().__init__(method, timeout)
        self.raw, self.threads, self.size = raw, threads, size
        self.batched = False  # known after the start: the method takes several images together

    def _send(self, pairs):
        """Send a list of pairs to the process."""
        self.code = None
        if not self.is_running:
            self.start()
        self.sent_at = time.monotonic()
        self.deadline = self.sent_at + self.timeout * len(pairs)  # for a process that does not even read
        self._write(pairs)
        self.deadline = math.inf

    def _receive(self, pairs):
        """The results of the pairs that were sent. Pairs of a list that failed as a whole are sent again one by one."""
        answer = self._read_answer(len(pairs))
        if isinstance(answer, str) and self.was_killed:
            self._send(pairs)
            answer = self._read_answer(len(pairs))
        if isinstance(answer, list):
            return answer
        if len(pairs) == 1:
            return [answer]
        results = []
        for pair in pairs:
            self._send([pair])
            results += self._receive([pair])
        return results

    def _read_answer(self, count):
        """The list of results of `count` pairs, or a message that says why there is none."""
        seconds = self.timeout * count
        # The caller may have been busy for longer than that: an answer that is there is read in any case.
        answer = self._read(max(self.sent_at + seconds, time.monotonic() + READ_TIMEOUT))
        if answer is None and self.timed_out:
            self.close()
            return timeout_message(seconds)
        return self._exit_message() if answer is None else answer

    def _write(self, message):
        with contextlib.suppress(OSError):  # the process has ended: reading its answer will say how
            pickle.dump(message, self.process.stdin, protocol=5)
            self.process.stdin.flush()

    def _read(self, deadline):
        """The next message of the process, or None if it has ended or was killed at the deadline."""
        self.deadline = deadline
        try:
            return pickle.load(self.process.stdout)
        except Exception:  # part of a pickle can lead to any error
            return None
        finally:
            self.deadline = math.inf

    def start(self) -> None:
        """Start the process and wait until it has loaded the method. Raises BadInput where it cannot."""
        # The module search path is an argument: PYTHONPATH would reach programs that use another Python.
        # -P: a file in the working folder must not replace a module.
        flag, path = "-I" if sys.flags.isolated else "-P", [path or str(Path.cwd()) for path in sys.path]
        threads = {f"{library}_NUM_THREADS": str(self.threads) for library in ("OMP", "OPENBLAS", "MKL")}
        self._spawn([sys.executable, flag, "-c", CODE, json.dumps(path)], threads)
        self.timed_out, self.deadline = False, math.inf
        threading.Thread(target=self._watch, args=(self.process,), daemon=True).start()
        self._write((self.method, self.raw, self.threads, self.size, os.getpid()))
        answer = self._read(time.monotonic() + START_TIMEOUT)
        if answer is None:
            raise BadInput(f"the method {self.method.label} cannot start: {self._exit_message()}")
        if isinstance(answer, str):
            raise BadInput(answer)
        self.batched = answer["batched"]

    def _watch(self, process):
        """Kill the process at the deadline, which ends the reading of its answer."""
        while process.poll() is None:
            if time.monotonic() > self.deadline:
                self.timed_out = True
                _kill(process)
                return
            time.sleep(POLL_INTERVAL)


class InProcess:
    """A method in this process, with the interface of `WorkerProcess`: nothing can be killed or end the run.

    function: of (pair id, image, hole). timeout: s for one image, checked when its result is there.
    """

    def __init__(self, function: Callable, timeout: float = 300.0):
        self.function, self.timeout = function, timeout
        self.lock = threading.Lock()

    def fill(self, pairs: list[tuple]) -> list[np.ndarray | str]:
        """The results for [(pair id, image, hole), ...]: arrays, or messages that say what went wrong."""
        results = []
        for pair, image, hole in pairs:
            start = time.monotonic()
            result = fill_one(self.function, pair, image.copy(), hole.copy())  # a method may write on its input
            late = time.monotonic() - start > self.timeout
            results.append(timeout_message(self.timeout) if late else result)
        return results

    @contextlib.contextmanager
    def filling(self, pairs: list[tuple]) -> Iterator[list]:
        """Run the block first; afterwards the list holds what `fill` returns."""
        results = []
        yield results
        results += self.fill(pairs)

    def close(self) -> None:
        """Nothing to end."""


def timeout_message(seconds: float) -> str:
    """The message for a pair that took too long."""
    return f"no result within {seconds:g} s"


def _kill(process):
    """End a process and all programs that it started."""
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
