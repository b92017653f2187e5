"""Tasks on a Dask cluster: what travels, what is checked first, and what the loss of a machine means.

Masks and pictures go through the shared folder; only tasks, rows and names go through the scheduler. When a worker is
lost, Dask gives what it was at to another. Files appear whole, and are the same whoever makes them, so nothing is lost
or comes twice.
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
from maskgen.runtime.parallel import NONE

PACKAGES = ("maskgen", "pconv_model", "evaluation")
LIBRARIES = (
    "numpy",
    "pillow",
    "av",
    "scikit-image",
    "torch",
)  # beside OpenCV, those whose versions may change a result
AIM = 1.0  # s of work that travel together: much beside the scheduler's millisecond, and little to lose
MOST = 64  # tasks that travel together, however small they are
AHEAD = 3  # such parcels under way for each thread of the cluster
LOOK = 5.0  # s after which the cluster is asked again how many threads it has
ANSWER = 10.0  # s within which a scheduler answers, and within which a shared folder shows a new file
SEEN = 4096  # bytes at a file's beginning by which a worker knows that it sees the same one


def run(function: Callable, tasks: Iterable, address: str, shared_files: Iterable[Path]) -> Iterator:
    """Yield function(task) for every task, in their order. `parallel.run` is the door to this and tells the rest."""
    key = uuid.uuid4().hex  # of this run: what a worker keeps of an earlier one may be outdated
    marks = [_mark(path) for path in shared_files]
    head = cloudpickle.dumps((key, _identity(), marks, ANSWER, cloudpickle.dumps(function)))
    client = _connect(address)
    try:
        yield from _in_order(_Road(client, address, key, head), iter(tasks))
    finally:
        if hasattr(function, "close"):
            with suppress(Exception):  # whatever is gone has nothing left to close
                client.run(function.close, on_error="ignore")
        client.close(timeout=ANSWER)


def check_scheduler(address: str) -> None:
    """Raise BadInput unless a Dask scheduler answers at the address within ANSWER seconds."""
    try:
        import distributed  # noqa: F401 - only whether it is there
    except ImportError:
        raise BadInput(f"--cluster needs Dask, install it with: {install_hint('cluster')}") from None
    for name in ("distributed", "distributed.client"):  # in their place the user gets one line from us
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    if not address.strip():
        raise BadInput(f"--cluster expects the address of a Dask scheduler such as tcp://host:8786, got {address!r}")
    try:
        with ThreadPoolExecutor(1) as thread:  # where the caller has an event loop, it is not in our way there
            kind = thread.submit(asyncio.run, _kind(address)).result()
        why = f"a {kind.lower()} does"
    except TimeoutError:
        kind, why = "", f"no reply within {ANSWER:g} s"
    except (TypeError, ValueError) as error:  # of the address itself, or of tls:// without keys
        kind, why = "", str(error)
    except Exception as error:  # anything may stand at an address, and answer anything
        reason = str(error.__cause__ or "").rpartition(">: ")[2]
        kind, why = "", reason or ("nothing does" if error.__cause__ else "something else does")
    if kind != "Scheduler":
        raise BadInput(f"no Dask scheduler answers at {address}, expected for example tcp://host:8786 ({why})")


async def _kind(address):
    """What answers at an address: "Scheduler", "Worker", "Nanny"."""
    from distributed.core import rpc
    from distributed.security import Security

    async def ask():
        # A server that is no scheduler may keep silent: half of the time is for reaching it, the rest for its answer.
        async with rpc(address, timeout=ANSWER / 2, connection_args=Security().get_connection_args("client")) as there:
            return str((await there.identity())["type"])

    return await asyncio.wait_for(ask(), ANSWER)


def _connect(address):
    check_scheduler(address)
    from distributed import Client

    try:
        with warnings.catch_warnings(action="ignore"):  # of versions: those that matter are compared on every worker
            return Client(address, timeout=ANSWER, set_as_default=False)
    except Exception as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"the Dask scheduler at {address} takes no connection ({why}): start it again") from None


def _in_order(road, tasks):
    waiting = deque()  # parcels under way: their tasks, and the future of their results
    while True:
        while len(waiting) < road.room and (parcel := list(islice(tasks, road.size))):
            waiting.append((parcel, road.send(parcel)))
        if not waiting:
            return
        parcel, future = waiting[0]
        results = road.wait(future)
        if results is None:
            continue
        waiting.popleft()
        yield from results
        if len(results) < len(parcel):  # the next one failed; alone it raises its own error
            rest = parcel[len(results) :]
            waiting.appendleft((rest, road.send(rest)))


class _Road:
    """The way to the cluster and back: how much goes at once, and what is wrong when nothing comes."""

    def __init__(self, client, address, key, head):
        self.client, self.address, self.key, self.head = client, address, key, head
        self.size, self.number = 1, count()
        self.threads, self.looked, self.told = 0, 0.0, False

    @property
    def room(self) -> int:
        """Parcels that may be under way."""
        if time.monotonic() - self.looked > LOOK:
            self.threads, self.looked = sum(self._ask(self.client.nthreads).values()), time.monotonic()
            if not self.threads and not self.told:
                self.told = True
                tqdm.write(f"the scheduler at {self.address} has no workers yet: waiting for one", file=sys.stderr)
        return max(1, AHEAD * self.threads)

    def send(self, parcel):
        """Returns the future of (seconds, results, lines of warnings)."""
        # To the scheduler a parcel is bytes: it need not know our package, nor spend time on what is inside.
        data = cloudpickle.dumps(_Parcel(self.head, parcel), protocol=5)
        return self._ask(self.client.submit, pickle.loads, data, key=(f"masks-{self.key}", next(self.number)))

    def wait(self, future):
        """The results of a parcel, or None if they are not there after a while."""
        from distributed import wait

        try:
            if not future.done():
                with self.client.as_current():
                    self._ask(wait, future, timeout=LOOK)
        except TimeoutError:
            return None
        seconds, results, lines = self._ask(future.result)
        for line in lines:
            warn(line)
        if results:
            self.size = max(1, min(MOST, int(AIM * len(results) / max(seconds, 1e-6))))
        return results

    def _ask(self, function, *args, **more):
        from distributed import KilledWorker

        again = "the same command goes on from here"
        try:
            return function(*args, **more)
        except KilledWorker:
            raise BadInput(
                f"several workers died at the same task, perhaps for want of memory: {again}, with fewer workers "
                "on a machine if it happens again"
            ) from None
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in PACKAGES:
                raise
            raise BadInput(
                f"a worker of {self.address} has no {error.name}: install irregular-masks {__version__} on all of them"
            ) from None
        except ImportError as error:
            if error.name != "cv2":
                raise
            raise BadInput(f"a worker of {self.address} cannot work: {error}") from None
        except TimeoutError:
            raise
        except (CancelledError, OSError) as error:
            if isinstance(error, OSError) and self.client.status == "running":
                raise  # the task's own
            raise BadInput(f"the scheduler at {self.address} is gone: start it again, and {again}") from None


class _Parcel:
    """Some tasks, which a worker does by unpickling them."""

    def __init__(self, head, tasks):
        self.head, self.tasks = head, tasks

    def __reduce__(self):
        return _work, (self.head, self.tasks)


def _work(head, tasks):
    """Do the tasks one by one up to the first that fails; runs on a worker. Returns what `_Road.send` promises."""
    begin, function, results = time.monotonic(), _ready(head), []
    cv2.setNumThreads(NONE)
    keep_memory()  # Dask has its workers give it back at once (MALLOC_TRIM_THRESHOLD_), which doubles a pair's cost
    with collected_warnings() as lines:
        for task in tasks:
            try:
                results.append(function(task))
            except Exception:
                if not results:
                    raise
                break  # not swallowed: what is done goes home, and the task that failed comes back alone to raise it
    return time.monotonic() - begin, results, lines


@lru_cache(maxsize=2)
def _ready(head):
    """The function of a run, kept for all its tasks, once it is sure that they give here what they give elsewhere."""
    _, wanted, marks, patience, function = pickle.loads(head)
    here, host = _identity(), socket.gethostname()
    for name, expected in wanted.items():
        if here.get(name) != expected:
            raise BadInput(
                f"a worker on {host} has {name} {here.get(name)}, the command has {expected}: masks and scores may "
                "differ, install the same on all machines"
            )
    deadline = time.monotonic() + patience
    for path, *mark in marks:
        while _beginning(path, mark[0]) != mark:
            if time.monotonic() > deadline:
                raise BadInput(
                    f"a worker on {host} does not see {path} as it is here: expected a folder that all machines share, "
                    "under one name"
                )
            time.sleep(0.2)
    return pickle.loads(function)


def _mark(path):
    """What tells a file from another of the same name: (absolute path, bytes looked at, their hash)."""
    return [path.absolute(), *_beginning(path, SEEN)]


def _beginning(path, length):
    """[bytes at the beginning of a file, their hash]; of a folder nothing but that it is there."""
    try:
        if path.is_dir():
            return [0, "folder"]
        with path.open("rb") as file:
            data = file.read(length)
    except OSError:
        return [0, ""]
    return [len(data), hashlib.sha256(data).hexdigest()]


@cache
def _identity():
    """All that decides about a result, besides the task: name -> version."""
    code = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((Path(__file__).parents[2] / package).rglob("*.py")):
            code.update(path.read_bytes())
    told = {"irregular-masks": __version__, "its code": code.hexdigest()[:12], "OpenCV": cv2.__version__}
    for name in LIBRARIES:
        try:
            told[name] = version(name).partition("+")[0]  # the same release, whatever card it is built for
        except PackageNotFoundError:
            told[name] = "none"
    return told
