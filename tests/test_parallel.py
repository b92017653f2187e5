import faulthandler
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
from joblib.externals.loky import process_executor

from maskgen.errors import BadInput, InputWarning, warn
from maskgen.runtime import parallel

kept = []


def late_if_even(number):
    time.sleep(0.05 if number % 2 == 0 else 0)
    return number


def fail_at_three(number):
    if number == 3:
        raise ValueError("three")
    return number


def end_own_process(number):
    os.kill(os.getpid(), signal.SIGKILL)


def keep_400_megabytes(number):
    """Grow, and have loky look at the size after this task. Returns the process."""
    process_executor._MEMORY_LEAK_CHECK_DELAY = 0
    kept[:] = [bytearray(b"x") * 400_000_000]
    return os.getpid()


def frozen_objects(number):
    return gc.get_freeze_count()


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_tasks(workers):
    assert list(parallel.run(late_if_even, range(9), workers=workers)) == list(range(9))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_a_task_reaches_the_caller(workers):
    with pytest.raises(ValueError, match="three"):
        list(parallel.run(fail_at_three, range(9), workers=workers))


def test_the_garbage_collector_of_a_worker_skips_imported_modules():
    assert min(parallel.run(frozen_objects, range(2), workers=2)) > 10_000  # objects of OpenCV and numpy


def test_a_worker_that_grows_as_it_loads_a_network_is_not_replaced(recwarn):
    pytest.importorskip("psutil", reason="loky looks at the size of a worker with psutil only")
    assert len(set(parallel.run(keep_400_megabytes, range(4), workers=2))) <= 2
    assert not recwarn.list


def test_closing_the_iterator_early_issues_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = parallel.run(late_if_even, range(9), workers=2)
        assert next(results) == 0
        results.close()


def test_opencv_uses_its_threads_again_after_a_run_in_this_process():
    import cv2

    before = cv2.getNumThreads()
    during = list(parallel.run(lambda _: cv2.getNumThreads(), [0], workers=1))
    assert during == [1] and cv2.getNumThreads() == before


def test_a_killed_worker_is_an_error():
    with pytest.raises(BadInput, match=r"a worker was killed.*run the same command again to continue"):
        list(parallel.run(end_own_process, range(4), workers=2))


def crash(number):
    faulthandler.disable()  # of loky, whose words go to the terminal
    os.kill(os.getpid(), signal.SIGSEGV)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a system with signals")
def test_a_crashed_worker_is_an_error_that_names_the_signal():
    with pytest.raises(BadInput, match=r"a worker crashed \(SIGSEGV\), probably while a library read a damaged input"):
        list(parallel.run(crash, range(4), workers=2))


def test_workers_end_after_their_parent_was_killed(tmp_path):
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
def test_ctrl_c_is_blocked_in_workers_from_their_start_and_not_in_the_parent():
    code = (  # in a process of its own, where nothing that joblib needs is running yet
        "import signal; from maskgen.runtime import parallel;"
        "blocked = lambda _: signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []);"
        "print(list(parallel.run(blocked, [0], workers=2)), blocked(0))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.stdout == "[True] False\n", done.stderr


def odd_if_odd(number):
    warn(f"{number} is odd") if number % 2 else warn("even")
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_warnings_of_tasks_are_issued_by_the_caller(workers):
    with pytest.warns(InputWarning) as said:
        assert list(parallel.run(odd_if_odd, range(5), workers=workers)) == list(range(5))
    assert {str(one.message) for one in said} == {"even", "1 is odd", "3 is odd"}


def test_an_error_in_the_first_task_leaves_no_processes():
    parallel.end_workers()
    with pytest.raises(ValueError, match="three"):
        list(parallel.run(fail_at_three, [3, *range(100)], workers=2))
    assert not multiprocessing.active_children()


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs a system with signals")
def test_a_worker_that_does_not_end_is_killed(monkeypatch):
    monkeypatch.setattr(parallel, "END_TIMEOUT", 0.2)
    list(parallel.run(late_if_even, range(4), workers=2))
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGSTOP)
    parallel.end_workers()
    deadline = time.monotonic() + 10
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not multiprocessing.active_children()


def test_each_thread_uses_processes_of_its_own():
    results, late = [], parallel.run(late_if_even, range(40), workers=2)

    def closes_early():
        others = parallel.run(late_if_even, range(10), workers=2)
        next(others)
        others.close()

    results.append(next(late))
    thread = threading.Thread(target=closes_early)
    thread.start()
    thread.join()
    assert results + list(late) == list(range(40))


WORK = """
import multiprocessing, os, sys, warnings
from maskgen.runtime import parallel

def own(_):
    return os.getpid()

def one_process(_=0):
    with warnings.catch_warnings(record=True) as said:
        answer = set(parallel.run(own, range(4), workers=2)) == {os.getpid()}
    return answer, [str(one.message) for one in said if one.category.__name__ == "InputWarning"]

def nobody(*arguments, **named):
    raise PermissionError(1, "Operation not permitted")
"""
REFUSED = "(True, ['all work is done in one process, no others can be started: "


def ran(code):
    """The lines that a script without a guard for its main part prints."""
    line = [sys.executable, "-c", WORK + code]
    done = subprocess.run(line, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("sys.modules['_multiprocessing'] = None; print(one_process())", "import of _multiprocessing halted"),
        (  # as without /dev/shm
            "import _multiprocessing as m; m.SemLock = type('No', (m.SemLock,), {'__new__': nobody})\n"
            "print(one_process())",
            "[Errno 1] Operation not permitted']",
        ),
        (  # as in a container that forbids it
            "from joblib.externals.loky.backend import fork_exec; fork_exec.fork_exec = nobody; print(one_process())",
            "[Errno 1] Operation not permitted']",
        ),
        (
            "with multiprocessing.get_context('fork').Pool(1) as pool: print(*pool.map(one_process, [0]))",
            "this is a daemonic process, such as a worker of multiprocessing.Pool']",
        ),
        (
            "import cv2, numpy; cv2.blur(numpy.zeros((2000, 2000)), (9, 9))\n"  # with threads of its own
            "with multiprocessing.get_context('fork').Pool(1) as pool: print(*pool.map(one_process, [0]))",
            "this is a daemonic process, such as a worker of multiprocessing.Pool']",
        ),
        (
            "import joblib; print(*joblib.Parallel(2)([joblib.delayed(one_process)()]))",
            "this is a worker of joblib, which uses the cores already']",
        ),
        ("os.environ['JOBLIB_MULTIPROCESSING'] = '0'; print(one_process())", "JOBLIB_MULTIPROCESSING is 0']"),
        ("os.environ['JOBLIB_MULTIPROCESSING'] = 'no'; print(one_process())", "JOBLIB_MULTIPROCESSING is no']"),
    ],
    ids=["no _multiprocessing", "no semaphores", "no fork", "pool", "pool after OpenCV", "joblib", "off", "nonsense"],
)
@pytest.mark.skipif(sys.platform == "win32", reason="needs a system that forks")
def test_one_process_does_the_work_with_a_warning_where_no_others_can_be_started(code, why):
    (said,) = ran(code)
    assert said.startswith(REFUSED + why)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
def test_a_forked_process_starts_workers_of_its_own():
    code = (
        "first = set(parallel.run(own, range(9), workers=2))\n"
        "def inner(): print(first & set(parallel.run(own, range(9), workers=2)))\n"
        "child = multiprocessing.get_context('fork').Process(target=inner)\n"
        "child.start(); child.join(30); print(child.exitcode)"
    )
    assert ran(code) == ["set()", "0"]


def test_a_script_without_a_main_guard_runs_once():
    code = (
        "multiprocessing.set_start_method('spawn')\n"
        "print(one_process(), list(parallel.run(lambda i: -i, [1], workers=2)))"
    )
    assert ran(code) == ["(False, []) [-1]"]
