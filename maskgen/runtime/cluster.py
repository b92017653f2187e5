"""Tasks on a Dask cluster: what is sent, what is checked first, and what happens when a machine is lost.

Masks and pictures go through a shared folder; only tasks, rows and file names go through the scheduler. When a worker
is lost, Dask gives its tasks to another. Files appear whole and do not depend on who writes them, so nothing is lost or
duplicated.
"""

import asyncio
import hashlib
import logging
import pickle
import socket
import sys
import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from itertools import count, islice
from pathlib import Path

import cloudpickle
import cv2
from tqdm import tqdm

from maskgen import __version__
from maskgen.errors import BadInput, collected_warnings, install_hint, warn
from maskgen.runtime.memory import keep_memory
from maskgen.runtime.opencv import use_one_opencv_thread

PACKAGES = ("maskgen", "pconv_model", "evaluation")
LIBRARIES = ("numpy", "pillow", "av", "scikit-image", "torch")  # besides OpenCV, those that may change a result
BATCH_TIME = 1.0  # s of work sent as one batch: long beside the scheduler's millisecond, short enough to lose
MAX_BATCH = 64  # tasks in a batch
AHEAD = 3  # batches sent in advance for each thread of the cluster
POLL = 5.0  # s after which the cluster's number of threads is asked for again
TIMEOUT = 10.0  # s in which a scheduler has to reply, and in which a shared folder has to show a new file
MARK_BYTES = 4096  # read from the beginning of a file to recognise it on another machine


def run_on_cluster(function: Callable, tasks: Iterable, address: str, shared_files: Iterable[Path]) -> Iterator:
    """Yield function(task) for every task, in their order; see `parallel.run`."""
    key = uuid.uuid4().hex  # of this run: a worker must not use the function of an earlier one
    marks = [_mark(path) for path in shared_files]
    setup = cloudpickle.dumps((key, _environment(), marks, TIMEOUT, cloudpickle.dumps(function)))
    client = _connect(address)
    try:
        yield from _in_order(_Connection(client, address, key, setup), iter(tasks))
    finally:
        if hasattr(function, "close"):
            with suppress(Exception):  # a worker that is gone has nothing to close
                client.run(function.close, on_error="ignore")
        client.close(timeout=TIMEOUT)


def check_scheduler(address: str) -> None:
    """Raise BadInput unless a Dask scheduler replies at the address within TIMEOUT seconds."""
    try:
        import distributed  # noqa: F401 - only to see whether it is installed
    except ImportError:
        raise BadInput(f"--cluster needs Dask, install it with: {install_hint('cluster')}") from None
    for name in ("distributed", "distributed.client"):  # our own error says it in one line
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    if not address.strip():
        raise BadInput(f"--cluster expects the address of a Dask scheduler such as tcp://host:8786, got {address!r}")
    try:
        with ThreadPoolExecutor(1) as thread:  # in a notebook, this thread already runs an event loop
            kind = thread.submit(asyncio.run, _kind(address)).result()
        why = f"it is a {kind.lower()}"
    except TimeoutError:
        kind, why = "", f"no reply within {TIMEOUT:g} s"
    except (TypeError, ValueError) as error:  # from the address itself, or tls:// without keys
        kind, why = "", str(error)
    except Exception as error:  # whatever else listens there may reply anything
        reason = str(error.__cause__ or "").rpartition(">: ")[2]
        kind, why = "", reason or ("no reply" if error.__cause__ else "another program replies")
    if kind != "Scheduler":
        raise BadInput(f"no Dask scheduler at {address}, expected for example tcp://host:8786 ({why})")


async def _kind(address):
    """The kind of Dask server at an address: "Scheduler", "Worker" or "Nanny"."""
    from distributed.core import rpc
    from distributed.security import Security

    async def ask():
        # Half of the time for the connection, the rest for the reply: another program may accept it and stay silent.
        connection_args = Security().get_connection_args("client")
        async with rpc(address, timeout=TIMEOUT / 2, connection_args=connection_args) as server:
            return str((await server.identity())["type"])

    return await asyncio.wait_for(ask(), TIMEOUT)


def _connect(address):
    check_scheduler(address)
    from distributed import Client

    try:
        with warnings.catch_warnings(action="ignore"):  # about versions: every worker compares those that matter
            return Client(address, timeout=TIMEOUT, set_as_default=False)
    except Exception as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"the Dask scheduler at {address} refuses the connection ({why}): restart it") from None


def _in_order(cluster, tasks):
    pending = deque()  # batches that were sent: their tasks, and the future of their results
    while True:
        while len(pending) < cluster.max_pending and (batch := list(islice(tasks, cluster.batch_size))):
            pending.append((batch, cluster.send(batch)))
        if not pending:
            return
        batch, future = pending[0]
        results = cluster.wait(future)
        if results is None:
            continue
        pending.popleft()
        yield from results
        if len(results) < len(batch):  # the next task failed; sent again as the first of a batch, it raises its error
            rest = batch[len(results) :]
            pending.appendleft((rest, cluster.send(rest)))


class _Connection:
    """Sends batches of tasks to the cluster, and turns its failures into errors that the user understands."""

    def __init__(self, client, address, key, setup):
        self.client, self.address, self.key, self.setup = client, address, key, setup
        self.batch_size, self.number = 1, count()
        self.threads, self.last_poll, self.said_waiting = 0, 0.0, False

    @property
    def max_pending(self) -> int:
        """Number of batches that may be sent in advance."""
        if time.monotonic() - self.last_poll > POLL:
            self.threads, self.last_poll = sum(self._call(self.client.nthreads).values()), time.monotonic()
            if not self.threads and not self.said_waiting:
                self.said_waiting = True
                tqdm.write(f"the scheduler at {self.address} has no workers yet: waiting for one", file=sys.stderr)
        return max(1, AHEAD * self.threads)

    def send(self, batch):
        """Returns the future of what `_run_batch` returns."""
        # The scheduler gets bytes, so that it needs neither our package nor time to unpickle them.
        data = cloudpickle.dumps(_Batch(self.setup, batch), protocol=5)
        return self._call(self.client.submit, pickle.loads, data, key=(f"masks-{self.key}", next(self.number)))

    def wait(self, future):
        """The results of a batch, or None if they are not ready within POLL seconds."""
        from distributed import wait

        try:
            if not future.done():
                with self.client.as_current():
                    self._call(wait, future, timeout=POLL)
        except TimeoutError:
            return None
        seconds, results, lines = self._call(future.result)
        for line in lines:
            warn(line)
        if results:
            self.batch_size = max(1, min(MAX_BATCH, int(BATCH_TIME * len(results) / max(seconds, 1e-6))))
        return results

    def _call(self, function, *args, **options):
        """Call a function of Dask; raises BadInput for what the user can fix."""
        from distributed import KilledWorker

        resume = "run the same command again to continue"
        try:
            return function(*args, **options)
        except KilledWorker:
            raise BadInput(
                f"several workers died at the same task, probably because memory ran out: {resume}, with fewer workers "
                "per machine if it happens again"
            ) from None
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in PACKAGES:
                raise
            raise BadInput(
                f"a worker of {self.address} has no {error.name}: install irregular-masks {__version__} on all machines"
            ) from None
        except ImportError as error:
            if error.name != "cv2":
                raise
            raise BadInput(f"a worker of {self.address} cannot start: {error}") from None
        except TimeoutError:
            raise
        except (CancelledError, OSError) as error:
            if isinstance(error, OSError) and self.client.status == "running":
                raise  # from the task itself
            raise BadInput(f"lost the scheduler at {self.address}: restart it, then {resume}") from None


class _Batch:
    """Some tasks; unpickling it does them."""

    def __init__(self, setup, tasks):
        self.setup, self.tasks = setup, tasks

    def __reduce__(self):
        return _run_batch, (self.setup, self.tasks)


def _run_batch(setup, tasks):
    """Do tasks on a worker, up to the first that fails. Returns (seconds, results, lines of warnings)."""
    begin, function, results = time.monotonic(), _checked_function(setup), []
    use_one_opencv_thread()
    keep_memory()  # Dask sets MALLOC_TRIM_THRESHOLD_, by which freed memory is returned at once: twice the time
    with collected_warnings() as lines:
        for task in tasks:
            try:
                results.append(function(task))
            except Exception:
                if not results:
                    raise
                break  # the results so far are returned, and the task is sent again to raise its error
    return time.monotonic() - begin, results, lines


@lru_cache(maxsize=2)
def _checked_function(setup):
    """The function of a run, once this worker has the same versions and sees the same files as the command."""
    _, expected_versions, marks, patience, function = pickle.loads(setup)
    environment, host = _environment(), socket.gethostname()
    for name, expected in expected_versions.items():
        if environment.get(name) != expected:
            raise BadInput(
                f"a worker on {host} has {name} {environment.get(name)}, the command has {expected}: install the same "
                "version on all machines, as results may differ"
            )
    deadline = time.monotonic() + patience
    for path, *mark in marks:
        while _start_of(path, mark[0]) != mark:
            if time.monotonic() > deadline:
                raise BadInput(
                    f"a worker on {host} does not see {path} as the command does: expected a folder that all machines "
                    "share, under the same path"
                )
            time.sleep(0.2)
    return pickle.loads(function)


def _mark(path):
    """What identifies a file on another machine: [absolute path, number of bytes read, their SHA-256]."""
    return [path.absolute(), *_start_of(path, MARK_BYTES)]


def _start_of(path, length):
    """[number of bytes, SHA-256] of the beginning of a file; for a folder only that it exists."""
    try:
        if path.is_dir():
            return [0, "folder"]
        with path.open("rb") as file:
            data = file.read(length)
    except OSError:
        return [0, ""]
    return [len(data), hashlib.sha256(data).hexdigest()]


@cache
def _environment():
    """All that decides a result besides the task: name -> version."""
    code = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((Path(__file__).parents[2] / package).rglob("*.py")):
            code.update(path.read_bytes())
    found = {"irregular-masks": __version__, "code": code.hexdigest()[:12], "OpenCV": cv2.__version__}
    for name in LIBRARIES:
        try:
            found[name] = version(name).partition("+")[0]  # without the build, such as +cpu
        except PackageNotFoundError:
            found[name] = "none"
    return found
