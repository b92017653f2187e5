"""A Dask cluster on this machine: two worker processes, which run in another folder than the command."""

import hashlib
import operator
import os
import signal
import socket
import time
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from films import write_video
from rawmasks import write_raw
from small_run import folders, score

from maskgen.commands import maskgen
from maskgen.errors import BadInput, InputWarning, warn
from maskgen.extraction.run import extract
from maskgen.maskset import Masks
from maskgen.runtime import cluster, parallel
from maskgen.sampler import MaskSampler
from maskgen.settings import ExtractConfig, FillConfig
from maskgen.sort import SortConfig, measure_masks
from maskgen.testset import make_testset
from maskgen.training_set import augment_folder
from maskgen.verify import find_faults

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    """Two workers with a nanny each, started in a folder of their own, so that no relative path can work there."""
    here = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    try:
        with distributed.LocalCluster(2, threads_per_worker=1, processes=True, dashboard_address=":0") as started:
            os.chdir(here)
            yield started
    finally:
        os.chdir(here)


@pytest.fixture
def address(machines, tmp_path, monkeypatch):
    """Of the scheduler; the test itself is in its own folder and gives relative paths."""
    monkeypatch.chdir(tmp_path)
    return machines.scheduler_address


def contents(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def same(one, other):
    return contents(one) == contents(other) and len(contents(one)) > 2


def test_results_come_in_the_order_of_the_tasks(address):
    naps = [0.05 * (i % 2) for i in range(9)]
    assert list(parallel.run(nap_and_say, enumerate(naps), cluster=address)) == list(range(9))


def nap_and_say(task):
    number, seconds = task
    time.sleep(seconds)
    return number


def test_results_before_an_error_are_not_lost(address):
    came = []
    with pytest.raises(ZeroDivisionError):
        for result in parallel.run(partial(operator.truediv, 4), [1, 2, 4, 0, 1], cluster=address):
            came.append(result)
    assert came == [4, 2, 1]


def test_tasks_are_consumed_as_workers_become_free(address):
    drawn = []
    results = parallel.run(nap_and_say, (drawn.append(i) or (i, 0.2) for i in range(1000)), cluster=address)
    next(results)
    results.close()
    assert len(drawn) < 100


def test_another_worker_repeats_the_tasks_of_a_killed_one(machines, address):
    results = parallel.run(nap_and_say, [(i, 0.1) for i in range(30)], cluster=address)
    came = [next(results)]
    os.kill(machines.workers[0].process.process.pid, signal.SIGKILL)
    assert came + list(results) == list(range(30))


def test_a_folder_that_workers_do_not_see_is_an_error(address, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "TIMEOUT", 0.5)
    monkeypatch.setattr(cluster, "_mark", lambda path: [path.absolute(), 3, "another file's hash"])
    with pytest.raises(BadInput, match=r"does not see .*film\.mp4 as the command does: expected a folder that"):
        list(parallel.run(abs, [1], cluster=address, shared_files=[tmp_path / "film.mp4"]))


def test_another_version_on_a_worker_is_an_error(address, monkeypatch):
    monkeypatch.setattr(cluster, "_environment", lambda: {"OpenCV": "1.0"})
    with pytest.raises(BadInput, match=r"has OpenCV \d.*, the command has 1.0: install the same"):
        list(parallel.run(abs, [1], cluster=address))


def test_a_missing_system_library_on_a_worker_is_an_error(address):
    with pytest.raises(BadInput, match=f"a worker of {address} cannot start: OpenCV lacks libGL"):
        list(parallel.run(lacks_libgl, [1], cluster=address))


def lacks_libgl(task):
    raise ImportError("OpenCV lacks libGL", name="cv2")


def odd(task):
    warn("odd")
    return task


def test_warnings_of_tasks_are_issued_by_the_caller(address):
    with pytest.warns(InputWarning, match="odd"):
        assert list(parallel.run(odd, range(9), cluster=address)) == list(range(9))


def test_the_code_of_all_packages_is_compared():
    assert cluster._environment()["code"] != hashlib.sha256().hexdigest()[:12]


def test_an_address_without_a_server_is_an_error(monkeypatch):
    monkeypatch.setattr(cluster, "TIMEOUT", 0.5)
    with pytest.raises(BadInput, match=r"no Dask scheduler at tcp://127\.0\.0\.1:1, expected for example"):
        next(parallel.run(abs, [1], cluster="tcp://127.0.0.1:1"))


def test_a_server_that_stays_silent_is_an_error_within_the_timeout(monkeypatch):
    monkeypatch.setattr(cluster, "TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begin = time.monotonic()
        with pytest.raises(BadInput, match=r"no Dask scheduler at .*no reply within 0\.5 s"):
            cluster.check_scheduler(f"tcp://127.0.0.1:{silent.getsockname()[1]}")
    assert time.monotonic() - begin < 5


def test_the_address_of_a_worker_is_an_error(machines):
    with pytest.raises(BadInput, match=r"no Dask scheduler at tcp://.* \(it is a worker\)"):
        cluster.check_scheduler(machines.workers[1].worker_address)


def test_commands_refuse_an_empty_address_before_they_write_anything(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in ("extract", "augment", "testset", "bin", "verify"):
        done = CliRunner().invoke(maskgen, [command, "--cluster", ""])
        assert done.exit_code == 2 and "--cluster expects the address of a Dask scheduler such as" in done.output
    assert not list(tmp_path.iterdir())


def test_extract_gives_the_same_bytes(address, tmp_path):
    for seed in range(2):
        write_video(tmp_path / f"films/film{seed}.avi", 16, seed=10 * seed)
    (tmp_path / "films/none.mp4").write_text("no film")  # is named in recipe.json as it was given
    config = ExtractConfig(train=6, test=4, size=64, min_area=4)
    films = (tmp_path / "films").relative_to(tmp_path)
    for name, how in (("one", {"workers": 1}), ("far", {"cluster": address})):
        extract([films], (tmp_path / name).relative_to(tmp_path), config, say=lambda line: None, **how)
    assert same(tmp_path / "one", tmp_path / "far")


def test_testset_bin_verify_and_augment_give_the_same_bytes(address, tmp_path):
    here = tmp_path.relative_to(tmp_path)
    write_raw(tmp_path / "raw", 20)
    for name, how in (("one", {"workers": 1}), ("far", {"cluster": address})):
        make_testset(here / "raw", here / name / "set", FillConfig(per_category=1), **how)
        assert find_faults(here / name / "set", **how) == (12, [])
        rows = measure_masks(Masks(here / "raw/test"), SortConfig(), here / name / "sorted", **how)
        assert len(rows) == 20 and find_faults(here / name / "sorted", **how) == (20, [])
        augment_folder(MaskSampler(here / "raw/test", size=128), here / name / "augmented", 60, **how)
    for made in ("set", "sorted", "augmented"):
        assert same(tmp_path / "one" / made, tmp_path / "far" / made)


def test_evaluate_gives_the_same_bytes(address, tmp_path):
    here = tmp_path.relative_to(tmp_path)
    folders(tmp_path)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/00000.png").write_bytes((tmp_path / "images/photo0.png").read_bytes())
    (tmp_path / "copy").write_text('#!/bin/sh\ncp "$1" "$2"\n')
    (tmp_path / "copy").chmod(0o755)
    methods = [
        "telea",
        "theirs=dir:theirs",  # has no other pairs: scores.csv records an error for each
        "copy=cmd:./copy {image} {output} {mask}",
    ]
    score(here, methods, out="one", workers=1)
    score(here, methods, out="far", cluster=address)
    assert same(tmp_path / "one", tmp_path / "far")


def test_evaluate_leaves_no_method_running_on_the_workers(machines, address, tmp_path):
    folders(tmp_path)
    score(tmp_path.relative_to(tmp_path), ["mean"], cluster=address)
    with distributed.Client(address) as client:
        running = client.run(lambda: len(__import__("evaluation.scoring").scoring._processes))
    assert running and not any(running.values())
