"""One function that maps tasks over worker processes or a Dask cluster."""

import gc
import multiprocessing
import os
import pickle
import re
import signal
import sys
import threading
import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, wait
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path

import cloudpickle

from maskgen.errors import BadInput, collected_warnings, warn
from maskgen.runtime.opencv import one_opencv_thread, use_one_opencv_thread

AHEAD = 2  # tasks sent to each process in advance: one running, one waiting
IDLE = 300  # s after which a process without a task ends; until then the next run can use it
START_TIMEOUT = 60  # s within which the first process has to answer
END_TIMEOUT = 5  # s in which processes without a task may end by themselves
THREADED = ("BLIS", "MKL", "NUMEXPR", "OMP", "OPENBLAS")  # libraries whose threads share the cores with our processes


def cores() -> int:
    """The cores this process may use, in a container possibly fewer than the machine has."""
    try:
        return _loky().cpu_count()
    except (ImportError, ValueError):  # no processes can be started; `run` warns about it
        return os.cpu_count() or 1


def run(
    function: Callable,
    tasks: Iterable,
    *,
    workers: int | None = None,
    cluster: str | None = None,
    shared_files: Iterable[Path] = (),
) -> Iterator:
    """Yield function(task) for every task, in the order of the tasks, as soon as each is ready.

    Tasks and results must be picklable; paths in tasks should be absolute. A generator of tasks is consumed as workers
    become free. Each process unpickles the function once. OpenCV uses one thread in every task. An `InputWarning` in a
    task is issued in the calling process.

    workers: number of processes, None for all cores. With 1, or where no processes can be started (with an
        `InputWarning`), all work is done in this process.
    cluster: address of a Dask scheduler whose workers are used instead.
    shared_files: files and folders that every worker of the cluster must find as they are here.

    Closing the iterator, or Ctrl-C, ends the processes at once. A cluster finishes the tasks that are running, then
    calls the function's `close()`, if it has one, on every worker. Raises BadInput if a worker was killed, if there is
    no scheduler, or if a worker does not see `shared_files`.
    """
    workers = workers or cores()
    if cluster is not None:
        from maskgen.runtime.cluster import run_on_cluster

        yield from run_on_cluster(function, tasks, cluster, shared_files)
        return
    pool = _start_pool(workers) if workers > 1 else None
    if pool is not None:
        yield from _run_on_pool(pool, function, tasks)
    else:
        with one_opencv_thread():
            yield from map(function, tasks)


def end_workers() -> None:
    """End the processes that the last run left for the next one."""
    pool, _Pool.idle = _Pool.idle, None
    if pool is not None and pool.parent == os.getpid():
        pool.end()


@cache
def _loky():
    """The part of joblib that starts processes. ImportError if Python was built without semaphores."""
    with warnings.catch_warnings(action="ignore"):  # joblib's "will operate in serial mode"; we warn ourselves
        from joblib.externals import loky
    return loky


class _Pool:
    """Worker processes of loky: they do not run the main script again, and are safe beside threads, unlike a fork."""

    idle: "_Pool | None" = None  # of the last run, for the next one: starting takes half a second
    idle_lock = threading.Lock()

    def __init__(self, workers):
        self.workers, self.parent = workers, os.getpid()
        threads = str(max(1, cores() // workers))
        variables = (f"{library}_NUM_THREADS" for library in THREADED)
        limits = {name: os.environ.get(name, threads) for name in variables}
        others = set(multiprocessing.active_children())
        self.executor = _loky().ProcessPoolExecutor(workers, timeout=IDLE, env=limits)
        try:
            with _ctrl_c_blocked():  # workers inherit it: until they can ignore Ctrl-C they would print a traceback
                first = self.executor.submit(os.getpid)
            first.result(START_TIMEOUT)
            self.processes = set(multiprocessing.active_children()) - others
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                _kill(process)
                process.join()
            raise

    @classmethod
    def of_last_run(cls, workers):
        """The pool of the last run, or None if it has another size or its processes have ended."""
        with cls.idle_lock:
            pool, cls.idle = cls.idle, None
        if pool is None or pool.parent != os.getpid():  # inherited by a fork: the parent ends it
            return None
        with suppress(BrokenExecutor):
            if pool.workers == workers and pool.executor.submit(os.getpid).result():
                return pool
        pool.end()
        return None

    def keep(self):
        """Let the next run have this pool."""
        pool = self
        if multiprocessing.parent_process() is None:  # a child process would not end before its workers
            with self.idle_lock:
                pool, _Pool.idle = _Pool.idle, self
        if pool is not None:
            pool.end()

    def end(self):
        """End the processes, which have no task."""
        from multiprocessing.connection import wait

        self.executor.shutdown(wait=False)
        alive, deadline = {process.sentinel: process for process in self.processes}, time.monotonic() + END_TIMEOUT
        while alive and time.monotonic() < deadline:
            for sentinel in wait(list(alive), END_TIMEOUT / 10):
                del alive[sentinel]
        for process in alive.values():  # one that was stopped, or waits for another that was killed
            _kill(process)

    def kill(self, futures):
        """End the processes at once, also while they work. futures: of their tasks."""
        deadline = time.monotonic() + 1  # loky misses tasks that are just being handed over
        while not all(future.running() or future.done() for future in futures) and time.monotonic() < deadline:
            time.sleep(0.001)
        self.executor.shutdown(kill_workers=True)


def _kill(process):
    if hasattr(signal, "SIGKILL"):
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    else:
        process.terminate()


def _start_pool(workers):
    """A pool of worker processes, or None and an `InputWarning` where none can be started."""
    why = _why_forbidden()
    if not why:
        try:
            return _Pool.of_last_run(workers) or _Pool(workers)
        except BrokenExecutor:
            why = "one was killed as it started"
        except Exception as error:  # systems refuse in many ways
            why = (str(error).splitlines() or [f"no reply within {START_TIMEOUT} s"])[0]
    _warn_of_one_process(why)
    return None


def _why_forbidden():
    """Why this process must not start others, "" if it may."""
    process = multiprocessing.current_process()
    switch = os.environ.get("JOBLIB_MULTIPROCESSING", "1").strip()
    if not switch.isdecimal() or int(switch) == 0:
        return f"JOBLIB_MULTIPROCESSING is {switch}"
    if process.daemon:
        return "this is a daemonic process, such as a worker of multiprocessing.Pool"
    if type(process).__name__.startswith("Loky"):
        return "this is a worker of joblib, which uses the cores already"
    return ""


def _warn_of_one_process(why):
    warn(f"all work is done in one process, no others can be started: {why}")


def _run_on_pool(pool, function, tasks):
    function = uuid.uuid4().hex, cloudpickle.dumps(function)  # the key tells it from the function of an earlier run
    tasks, waiting, busy = iter(tasks), deque(), set()
    try:
        while True:
            busy = {future for future in busy if not future.done()}
            for task in islice(tasks, AHEAD * pool.workers - len(busy)):
                waiting.append(pool.executor.submit(_in_worker, function, task, pool.parent))
                busy.add(waiting[-1])
            if not waiting:
                break
            if not waiting[0].done():
                wait(busy, return_when=FIRST_COMPLETED)
                continue
            result, lines = waiting.popleft().result()
            for line in lines:
                warn(line)
            yield result
    except BrokenExecutor as error:
        pool.kill(waiting)
        raise BadInput(_why_ended(str(error))) from None
    except BaseException:
        pool.kill(waiting)
        raise
    pool.keep()


def _why_ended(text):
    """The message for a worker that ended. text: loky's message, which names the signals that ended its workers."""
    crash = re.search(r"SIG(SEGV|ABRT|BUS|ILL|FPE)", text)
    if crash:
        return (
            f"a worker crashed ({crash[0]}), probably while a library read a damaged input: remove that input, then "
            "run the same command again to continue"
        )
    return (
        "a worker was killed, probably because memory ran out: run the same command again to continue, with fewer "
        "--workers if it happens again"
    )


@contextmanager
def _ctrl_c_blocked():
    """Defer Ctrl-C until the block ends, where the system supports it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # otherwise the pool starts it, which unblocks Ctrl-C up to Python 3.12
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _in_worker(function, task, parent):
    """The result of a task, and the lines of its `InputWarning`s."""
    use_one_opencv_thread()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with(parent)
    with collected_warnings() as lines:
        return _unpickled(*function)(task), lines


@lru_cache(maxsize=1)
def _unpickled(run, function):
    """The function of a run, unpickled once per process, so that it can keep what it has read."""
    function = pickle.loads(function)
    gc.collect()
    gc.freeze()  # garbage is collected often, by loky and after each film; imported modules need not be searched
    return function


def _allow_growth():
    """Keep loky from replacing this worker when it grows by 300 MB, as it does when a task loads torch."""
    from joblib.externals.loky import process_executor

    process_executor._MAX_MEMORY_LEAK_SIZE = sys.maxsize


@cache
def _end_with(parent):
    """Let this worker end within a second of its parent, also if the parent was killed."""
    _allow_growth()

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
