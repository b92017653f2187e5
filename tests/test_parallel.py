import gc
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from maskgen.errors import BadInput
from maskgen.runtime import parallel


def late_if_even(number):
    time.sleep(0.05 if number % 2 == 0 else 0)
    return number


def fail_at_three(number):
    if number == 3:
        raise ValueError("three")
    return number


def end_own_process(number):
    os.kill(os.getpid(), signal.SIGKILL)


def loaded_for_good(number):
    return gc.get_freeze_count()


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_tasks(workers):
    assert list(parallel.run(late_if_even, range(9), workers=workers)) == list(range(9))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_a_task_reaches_the_caller(workers):
    with pytest.raises(ValueError, match="three"):
        list(parallel.run(fail_at_three, range(9), workers=workers))


def test_what_a_worker_has_loaded_is_no_work_for_its_garbage_collection():
    assert min(parallel.run(loaded_for_good, range(2), workers=2)) > 10_000  # objects of OpenCV, numpy and joblib


def test_a_caller_that_stops_early_sees_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = parallel.run(late_if_even, range(9), workers=2)
        assert next(results) == 0
        results.close()


def test_opencv_has_its_threads_back_after_a_run_in_this_process():
    import cv2

    before = cv2.getNumThreads()
    during = list(parallel.run(lambda _: cv2.getNumThreads(), [0], workers=1))
    assert during == [1] and cv2.getNumThreads() == before


def test_a_killed_worker_is_told_in_one_line():
    with pytest.raises(BadInput, match=r"a worker was killed.*the same command goes on"):
        list(parallel.run(end_own_process, range(4), workers=2))


def test_workers_end_with_a_killed_parent(tmp_path):
    code = (
        "import os, time; from maskgen.runtime import parallel;"
        f"note = lambda i: open(f'{tmp_path}/{{os.getpid()}}', 'w').close() or time.sleep(30);"
        "list(parallel.run(note, range(2), workers=2))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[1])
    deadline = time.monotonic() + 30
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = [int(file.name) for file in tmp_path.iterdir()]
    time.sleep(0.1)
    parent.kill()
    parent.wait()
    while any(_lives(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(workers) == 2 and not any(_lives(worker) for worker in workers)


def _lives(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="needs a system with signal masks")
def test_workers_are_deaf_to_ctrl_c_from_their_first_moment_and_the_parent_is_not():
    code = (  # in a process of its own, where nothing that joblib needs is running yet
        "import signal; from maskgen.runtime import parallel;"
        "deaf = lambda _: signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []);"
        "print(list(parallel.run(deaf, [0], workers=2)), deaf(0))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.stdout == "[True] False\n", done.stderr
