"""One function that maps tasks over processes or over a Dask cluster."""

import gc
import os
import pickle
import signal
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from multiprocessing import resource_tracker
from pathlib import Path

import cloudpickle
import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from maskgen.errors import BadInput


def cores() -> int:
    """The cores this process may use, which in a container can be fewer than the machine has."""
    return joblib.cpu_count()


def run(
    function: Callable,
    tasks: Iterable,
    *,
    workers: int | None = None,
    cluster: str | None = None,
    sees: Iterable[Path] = (),
) -> Iterator:
    """Yield function(task) for every task, in the order of the tasks, as soon as each is ready.

    workers: processes, None for all cores; 1 stays in this process. cluster: address of a Dask scheduler, which
    then does the work. sees: files and folders that a worker of the cluster must find as they are here; what a task
    names should be absolute paths. OpenCV keeps to one thread wherever a task runs. Tasks and results must pickle; a
    generator of tasks is drawn from as workers become free. A process unpickles the function once for all its tasks.
    Closing the iterator, or Ctrl-C, stops processes at once; a cluster ends the tasks that it has begun, and then calls
    the function's `close()`, where it has one, on every worker. Raises BadInput where a worker, the scheduler or the
    folder that all share is missing.
    """
    workers = workers or cores()
    if cluster is not None:
        from maskgen.runtime import cluster as far

        yield from far.run(function, tasks, cluster, sees)
    elif workers == 1:
        with _one_opencv_thread():
            yield from map(function, tasks)
    else:
        yield from _on_processes(function, tasks, workers)


def _on_processes(function, tasks, workers):
    # A caller that stops early has its reasons. A filter for good, since the garbage collector may be who stops it.
    warnings.filterwarnings("ignore", r"\d+ tasks (have been successfully executed|which were still)", UserWarning)
    # Workers leave Ctrl-C to the parent, which kills them; otherwise each would print its own traceback.
    pool = joblib.Parallel(n_jobs=workers, return_as="generator", batch_size=1, pre_dispatch="2*n_jobs")
    function = uuid.uuid4().hex, cloudpickle.dumps(function)  # the processes may know another run's, now outdated
    with _ctrl_c_later():  # workers inherit that, so they are deaf from their first moment on
        results = pool(joblib.delayed(_in_worker)(function, task, os.getpid()) for task in tasks)
    try:
        yield from results
    except TerminatedWorkerError:
        _kill_workers()
        raise BadInput(
            "a worker was killed, perhaps for want of memory: the same command goes on from here, "
            "with fewer --workers if it happens again"
        ) from None
    except BaseException:
        _kill_workers()
        raise


@contextmanager
def _ctrl_c_later():
    """Hold Ctrl-C back until the block ends, where the system can."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # else the pool starts it, which up to Python 3.12 lets Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _kill_workers():
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True, kill_workers=True)


def _in_worker(function, task, parent):
    import cv2

    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with(parent)
    return _unpickled(*function)(task)


@lru_cache(maxsize=1)
def _unpickled(run, function):
    """A function once for all tasks of a process, so that it may keep what it has read."""
    return pickle.loads(function)


@cache
def _end_with(parent):
    """Let this worker end soon after its parent, also where that was killed and could not say goodbye."""
    gc.freeze()  # joblib collects garbage every second: what was loaded for good it need not go through

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _one_opencv_thread():
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
