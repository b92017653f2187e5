"""One function that maps tasks over processes or over a Dask cluster."""

import gc
import multiprocessing
import os
import pickle
import re
import signal
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

AHEAD = 2  # tasks for each process that are sent before it asks: one at work, one waiting
IDLE = 300  # s after which a process without a task ends; the next run has use of it until then
NONE = 0  # of OpenCV's own threads; for 1 it would wait for the end of others, which a fork has not copied
STARTING = 60  # s within which the first process has to answer
ENDING = 5  # s that processes without a task get to end by themselves
LIBRARIES = ("BLIS", "MKL", "NUMEXPR", "OMP", "OPENBLAS")  # whose threads share the cores with our processes


def cores() -> int:
    """The cores this process may use, which in a container can be fewer than the machine has."""
    try:
        return _loky().cpu_count()
    except (ImportError, ValueError):  # where there can be no processes; `run` says so
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

    workers: processes, None for all cores; 1 stays in this process, and so does a run for which no processes can be
    had, with an `InputWarning`. cluster: address of a Dask scheduler, which then does the work. sees: files and folders
    that a worker of the cluster must find as they are here; what a task names should be absolute paths. OpenCV keeps to
    one thread wherever a task runs. Tasks and results must pickle; a generator of tasks is drawn from as workers become
    free. A process unpickles the function once for all its tasks. An `InputWarning` of a task is issued here.
    Closing the iterator, or Ctrl-C, stops processes at once; a cluster ends the tasks that it has begun, and then calls
    the function's `close()`, where it has one, on every worker. Raises BadInput where a worker, the scheduler or the
    folder that all share is missing.
    """
    workers = workers or cores()
    if cluster is not None:
        from maskgen.runtime import cluster as far

        yield from far.run(function, tasks, cluster, shared_files)
        return
    pool = _started(workers) if workers > 1 else None
    if pool is not None:
        yield from _on_processes(pool, function, tasks)
    else:
        with _one_opencv_thread():
            yield from map(function, tasks)


def end_workers() -> None:
    """End the processes that the last run has left for the next one."""
    pool, _Pool.idle = _Pool.idle, None
    if pool is not None and pool.parent == os.getpid():
        pool.end()


@cache
def _loky():
    """The part of joblib that starts processes. ImportError where the system has no semaphores in Python's build."""
    with warnings.catch_warnings(action="ignore"):  # of joblib, that it "will operate in serial mode": we say it
        from joblib.externals import loky
    return loky


class _Pool:
    """Worker processes: those of loky, which run no script a second time and stand what a fork does not."""

    idle: "_Pool | None" = None  # that of the last run, for the next one: starting takes half a second
    turn = threading.Lock()

    def __init__(self, workers):
        self.workers, self.parent = workers, os.getpid()
        threads = str(max(1, cores() // workers))
        variables = (f"{library}_NUM_THREADS" for library in LIBRARIES)
        limits = {name: os.environ.get(name, threads) for name in variables}
        others = set(multiprocessing.active_children())
        self.executor = _loky().ProcessPoolExecutor(workers, timeout=IDLE, env=limits)
        try:
            with _ctrl_c_later():  # workers inherit that, so they are deaf from their first moment on
                first = self.executor.submit(os.getpid)
            first.result(STARTING)
            self.processes = set(multiprocessing.active_children()) - others
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                _kill(process)
                process.join()
            raise

    @classmethod
    def of_last_run(cls, workers):
        """The pool of the last run, or None where it has another size, or is gone."""
        with cls.turn:
            pool, cls.idle = cls.idle, None
        if pool is None or pool.parent != os.getpid():  # of the process that this one is a copy of: not ours to end
            return None
        with suppress(BrokenExecutor):
            if pool.workers == workers and pool.executor.submit(os.getpid).result():
                return pool
        pool.end()
        return None

    def keep(self):
        """Let the next run have this pool."""
        pool = self
        if multiprocessing.parent_process() is None:  # else it would wait for its workers' end before its own
            with self.turn:
                pool, _Pool.idle = _Pool.idle, self
        if pool is not None:
            pool.end()

    def end(self):
        """End the processes when they have nothing to do."""
        from multiprocessing.connection import wait

        self.executor.shutdown(wait=False)
        alive, deadline = {process.sentinel: process for process in self.processes}, time.monotonic() + ENDING
        while alive and time.monotonic() < deadline:
            for sentinel in wait(list(alive), ENDING / 10):
                del alive[sentinel]
        for process in alive.values():  # it waits for one that was killed meanwhile, and loky would wait for it
            _kill(process)

    def kill(self, futures):
        """End the processes, whatever they are at. futures: what they were asked for."""
        deadline = time.monotonic() + 1  # until loky has them all in one place: it looks for them in two while it ends
        while not all(future.running() or future.done() for future in futures) and time.monotonic() < deadline:
            time.sleep(0.001)
        self.executor.shutdown(kill_workers=True)


def _kill(process):
    if hasattr(signal, "SIGKILL"):
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    else:
        process.terminate()


def _started(workers):
    """A pool of so many processes, or None and an `InputWarning` where there can be none."""
    why = _forbidden()
    if not why:
        try:
            return _Pool.of_last_run(workers) or _Pool(workers)
        except BrokenExecutor:
            why = "one was killed as it started"
        except Exception as error:  # a system has many ways to say no
            why = (str(error).splitlines() or [f"none answers within {STARTING} s"])[0]
    _warn_of_one_process(why)
    return None


def _forbidden():
    """Why this process must not start others, "" where it may."""
    process = multiprocessing.current_process()
    switch = os.environ.get("JOBLIB_MULTIPROCESSING", "1").strip()
    if not switch.isdecimal() or int(switch) == 0:
        return f"JOBLIB_MULTIPROCESSING is {switch}"
    if process.daemon:
        return "this is a daemonic process, such as a worker of multiprocessing.Pool"
    if type(process).__name__.startswith("Loky"):
        return "this is a worker of joblib, which has as many of them already"
    return ""


def _warn_of_one_process(why):
    warn(f"all work is done in one process, no others can be started: {why}")  # its place is a line of `_started`


def _on_processes(pool, function, tasks):
    function = uuid.uuid4().hex, cloudpickle.dumps(function)  # the processes may know another run's, now outdated
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
        raise BadInput(_why_gone(str(error))) from None
    except BaseException:
        pool.kill(waiting)
        raise
    pool.keep()


def _why_gone(text):
    """What to tell of a worker that has ended. text: what loky says, with the signals by which its workers did."""
    crash = re.search(r"SIG(SEGV|ABRT|BUS|ILL|FPE)", text)
    if crash:
        return (
            f"a worker crashed ({crash[0]}), perhaps at an input that a library cannot stand: take that away, and the "
            "same command goes on from here"
        )
    return (
        "a worker was killed, perhaps for want of memory: the same command goes on from here, with fewer --workers "
        "if it happens again"
    )


@contextmanager
def _ctrl_c_later():
    """Hold Ctrl-C back until the block ends, where the system can."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # else the pool starts it, which up to Python 3.12 lets Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _in_worker(function, task, parent):
    """The result of a task, and the lines of its `InputWarning`s."""
    import cv2

    cv2.setNumThreads(NONE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with(parent)
    with collected_warnings() as lines:
        return _unpickled(*function)(task), lines


@lru_cache(maxsize=1)
def _unpickled(run, function):
    """A function once for all tasks of a process, so that it may keep what it has read."""
    return pickle.loads(function)


@cache
def _end_with(parent):
    """Let this worker end soon after its parent, also where that was killed and could not say goodbye."""
    gc.freeze()  # loky collects garbage every second: what was loaded for good it need not go through

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _one_opencv_thread():
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(NONE)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
