"""One function that maps tasks over processes or over a Dask cluster."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import joblib


def cores() -> int:
    """The cores this process may use, which in a container can be fewer than the machine has."""
    return joblib.cpu_count()


def run(function: Callable, tasks: Iterable, *, workers: int | None = None, cluster: str | None = None) -> Iterator:
    """Yield function(task) for every task, in the order of the tasks, as soon as each is ready.

    workers: processes, None for all cores; 1 stays in this process. cluster: address of a Dask scheduler, which
    then does the work. OpenCV keeps to one thread wherever a task runs. Tasks and results must pickle; a generator
    of tasks is drawn from as workers become free. Closing the iterator, or Ctrl-C, stops the workers at once.
    """
    workers = workers or cores()
    if cluster:
        yield from _on_cluster(function, tasks, cluster)
    elif workers == 1:
        with _one_opencv_thread():
            yield from map(function, tasks)
    else:
        yield from _on_processes(function, tasks, workers)


def _on_processes(function, tasks, workers):
    # Workers leave Ctrl-C to the parent, which kills them; otherwise each would print its own traceback.
    pool = joblib.Parallel(n_jobs=workers, return_as="generator", batch_size=1, pre_dispatch="2*n_jobs")
    results = pool(joblib.delayed(_in_worker)(function, task) for task in tasks)
    try:
        yield from results
    except BaseException:
        _kill_workers()
        raise


def _kill_workers():
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True, kill_workers=True)


def _in_worker(function, task):
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    return function(task)


def _on_cluster(function, tasks, address):
    try:
        from distributed import Client
    except ImportError:
        from maskgen.errors import BadInput

        raise BadInput("--cluster needs Dask: pip install 'irregular-masks[cluster]'") from None
    with Client(address) as client, joblib.parallel_config("dask", client=client):
        pool = joblib.Parallel(return_as="generator", batch_size=1)
        yield from pool(joblib.delayed(_in_worker)(function, task) for task in tasks)


@contextmanager
def _one_opencv_thread():
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def quiet_codecs():
    """Keep OpenCV's and FFmpeg's own chatter off the user's terminal; our errors say what matters."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
