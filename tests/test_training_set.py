"""Random training masks as files."""

import csv
import shutil
import signal
import subprocess
import sys
import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskgen.errors import BadInput
from maskgen.maskset import encode, read_hole
from maskgen.runtime.journal import Journal
from maskgen.sampler import MaskSampler
from maskgen.training_set import augment_folder
from maskgen.verify import find_faults
from tests.rawmasks import streaks, write_raw

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_raw(tmp_path_factory.mktemp("raw"), 12, "train")


@pytest.fixture(scope="module")
def masks(raw, tmp_path_factory):
    """Sixty training masks, more than one worker makes at a time."""
    out = tmp_path_factory.mktemp("made") / "masks"
    augment_folder(MaskSampler(raw, 64), out, 60, workers=1)
    return out


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_files_are_the_masks_of_the_sampler(raw, masks):
    sampler = MaskSampler(raw, 64)
    with (masks / "train" / "metadata.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60 and find_faults(masks, workers=1) == (60, [])
    for i, row in enumerate(rows):
        assert (read_hole(masks / "train" / row["file_name"]) == sampler[i]).all()


def test_the_same_bytes_for_two_workers_as_for_one(raw, masks, tmp_path):
    augment_folder(MaskSampler(raw, 64), tmp_path, 60, workers=2)
    assert contents(tmp_path) == contents(masks)


def test_a_larger_count_adds_to_a_smaller_one_and_a_smaller_one_is_refused(raw, masks, tmp_path):
    sampler = MaskSampler(raw, 64)
    augment_folder(sampler, tmp_path, 7, workers=1)
    first = (tmp_path / "train" / "0000" / "000003.png").stat().st_mtime_ns
    augment_folder(sampler, tmp_path, 60, workers=1)
    assert contents(tmp_path) == contents(masks)
    assert (tmp_path / "train" / "0000" / "000003.png").stat().st_mtime_ns == first
    with pytest.raises(BadInput, match="count was 60, is 7"):
        augment_folder(sampler, tmp_path, 7, workers=1)
    assert contents(tmp_path) == contents(masks)


class Stop(Exception):
    """Interrupts a run."""


@pytest.mark.parametrize("first", [0, 7], ids=["new", "added to"])
def test_an_interrupted_run_is_resumed_to_the_same_bytes(raw, masks, tmp_path, monkeypatch, first):
    sampler, add, added = MaskSampler(raw, 64), Journal.add, []
    if first:
        augment_folder(sampler, tmp_path, first, workers=1)

    def fails(journal, row):
        add(journal, row)
        added.append(row)
        if len(added) % 25 == 0:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", fails)
        for _ in range(3):
            with suppress(Stop):
                augment_folder(sampler, tmp_path, 60, workers=1)
    assert contents(tmp_path) == contents(masks) and len(added) <= 60 + first


def test_a_killed_run_is_resumed_and_no_smaller_one_replaces_it(raw, masks, tmp_path):
    code = "import os, pathlib, signal, sys\nfrom maskgen import generated_set, sampler, training_set\n"
    code += "generated_set.write_index = lambda *rows: os.kill(os.getpid(), signal.SIGKILL)\n"
    code += (
        "training_set.augment_folder(sampler.MaskSampler(sys.argv[1], 64), pathlib.Path(sys.argv[2]), 60, workers=1)"
    )
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", code, raw, out], cwd=ROOT, capture_output=True)
    assert done.returncode == -signal.SIGKILL and not (out / "recipe.json").exists()
    with pytest.raises(BadInput, match="count was 60, is 59"):
        augment_folder(MaskSampler(raw, 64), out, 59, workers=1)
    augment_folder(MaskSampler(raw, 64), out, 60, workers=1)
    assert contents(out) == contents(masks)


def test_a_finished_set_is_not_touched_and_missing_masks_are_made_again(raw, masks, tmp_path):
    out, lines = shutil.copytree(masks, tmp_path / "out"), []
    augment_folder(MaskSampler(raw, 64), out, 60, workers=1, say=lines.append)
    assert lines == [f"{out} is already complete"]
    (out / "train" / "0000" / "000003.png").unlink()
    (out / "train" / "0000" / "000004.png").write_bytes(b"changed")
    augment_folder(MaskSampler(raw, 64), out, 60, workers=1)
    assert contents(out) == contents(masks)


CHANGES = {  # what is changed: the message that refuses it
    "seed": "seed was 0, is 1",
    "size": "size was 64, is 65",
    "preset": r"brush was \[9, 49\], is \[5, 47\]",
    "ratio": r"min_ratio was 0.01, is 0.02",
    "uniform": "uniform was false, is true",
    "threshold": "threshold was null, is 128",
    "polarity": "polarity was hole-white, is hole-black",
    "shape": "shape was square, is disc",
    "pixel of a raw mask": "raw_masks: sha256 was",
    "raw mask renamed": "raw_masks: sha256 was",
    "raw mask less": "raw_masks: number was 12, is 11",
    "numpy": "libraries: numpy was .*, is 99",
    "opencv": "libraries: opencv was .*, is 99",
    "version": "version was .*, is 99",
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_of_anything_that_decides_the_result_is_refused_by_name(raw, masks, tmp_path, monkeypatch, what):
    raw, out = shutil.copytree(raw, tmp_path / "raw"), shutil.copytree(masks, tmp_path / "out")
    path, before = sorted((raw / "train").rglob("*.png"))[-1], contents(out)
    settings = {"seed": 1, "size": 65, "preset": "nvidia-old", "ratio": (0.02, 0.6), "uniform": True, "threshold": 128}
    settings = {"size": 64} | ({what: settings[what]} if what in settings else {})
    if what == "pixel of a raw mask":
        hole = read_hole(path)
        hole[0, 0] = ~hole[0, 0]
        path.write_bytes(encode(hole))
    elif what == "raw mask renamed":
        path.rename(path.with_name("999999.png"))
    elif what == "raw mask less":
        path.unlink()
    elif what == "numpy":
        monkeypatch.setattr("maskgen.runtime.recipe.version", lambda name: "99")
    elif what == "opencv":
        monkeypatch.setattr(cv2, "__version__", "99")
    elif what == "version":
        monkeypatch.setattr("maskgen.runtime.output.__version__", "99")
    sampler = MaskSampler(raw, **settings)
    if what == "polarity":
        sampler.raw.polarity = "hole-black"
    elif what == "shape":
        sampler.config = replace(sampler.config, shape="disc")
    with pytest.raises(BadInput, match=rf"out was created with other settings \((.*; )?{CHANGES[what]}"):
        augment_folder(sampler, out, 60, workers=1)
    assert contents(out) == before


def test_another_archive_is_refused(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr("0.png", encode(streaks(seed)))
    augment_folder(MaskSampler(tmp_path / "a.zip", 64), tmp_path / "out", 2, workers=1)
    (tmp_path / "b.zip").replace(tmp_path / "a.zip")
    with pytest.raises(BadInput, match="raw_masks: sha256 was"):
        augment_folder(MaskSampler(tmp_path / "a.zip", 64), tmp_path / "out", 2, workers=1)


def test_a_run_without_a_result_leaves_no_folder(raw, tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "dot.png").write_bytes(encode(np.eye(512, dtype=bool) & (np.arange(512) == 256)))
    with pytest.raises(BadInput, match=r"0\.5 to 0\.6"):
        augment_folder(MaskSampler(tmp_path / "raw", ratio=(0.5, 0.6)), tmp_path / "out", 2, workers=1)
    assert not (tmp_path / "out").exists()


def test_a_count_of_zero_is_refused(raw, tmp_path):
    with pytest.raises(BadInput, match="count is a whole number, 1 or more, got 0"):
        augment_folder(MaskSampler(raw), tmp_path / "out", 0)
