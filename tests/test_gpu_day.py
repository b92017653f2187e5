"""scripts/gpu-day at toy size."""

import importlib.util
import json
import sys
import time
from dataclasses import replace
from importlib.machinery import SourceFileLoader
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image

from maskgen.errors import BadInput
from pconv_model import checkpoints

SCRIPT = Path(__file__).parents[1] / "scripts/gpu-day"


@pytest.fixture(scope="module")
def gpu_day():
    loader = SourceFileLoader("gpu_day", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("gpu_day", loader))
    sys.modules["gpu_day"], before = module, sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # no scripts/gpu-dayc
    loader.exec_module(module)
    sys.dont_write_bytecode = before
    yield module
    del sys.modules["gpu_day"]


@pytest.fixture(scope="module")
def prepared(gpu_day, tmp_path_factory):
    """What --prepare makes of 21 photos, of which the 11th is held out."""
    photos, out = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("day")
    small = cv2.resize(skimage.data.astronaut(), (400, 340))
    for i in range(21):
        Image.fromarray(np.roll(small, 20 * i, axis=1)).save(photos / f"{i:02d}.jpg")
    Image.fromarray(small[:, :160]).save(photos / "20.jpg")  # twice as high as wide, and small
    gpu_day.prepare([photos], out)
    return out


def test_photos_are_prepared_at_320_px_with_some_held_out(prepared, gpu_day, monkeypatch):
    assert len(list((prepared / "train").iterdir())) == 20
    assert [path.name for path in (prepared / "val").iterdir()] == ["00010.jpg"]
    assert Image.open(prepared / "train" / "00000.jpg").size == (376, 320)
    assert Image.open(prepared / "train" / "00020.jpg").size == (160, 340)  # never enlarged
    monkeypatch.setattr(gpu_day, "MOST_BYTES", 100_000)
    monkeypatch.setattr(gpu_day, "_write_vgg", lambda out: 0)
    with pytest.raises(BadInput, match=r"20 photos have 0\.\d MB at 320 px, 0\.1 are left for them"):
        gpu_day.prepare([prepared / "train"], prepared / "less")


def test_long_photos_become_several_squares_that_cover_them(gpu_day, prepared, tmp_path):
    photos = [prepared / "train" / "00020.jpg"]
    assert gpu_day.write_array(photos, tmp_path / "a.npy") == 3  # of 160 px, in a height of 340
    squares = np.load(tmp_path / "a.npy")
    whole = np.asarray(Image.open(photos[0])).astype(int)
    assert squares.shape == (3, 320, 320, 3)
    for square, top in zip(squares, (0, 90, 180), strict=True):
        assert abs(cv2.resize(square, (160, 160), interpolation=cv2.INTER_AREA) - whole[top : top + 160]).mean() < 3


def test_the_training_fills_its_time_and_leaves_weights_history_and_samples(gpu_day, prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_day, "VGG", "none.pth")  # without VGG, which is slow on a CPU
    plan = replace(gpu_day.TOY, trial=2, batch=2)
    begin = time.monotonic()
    gpu_day.train_part(plan, prepared, tmp_path, "cpu", 1)
    result = json.loads((tmp_path / "training.json").read_text())
    assert result["squares"] == 41 and result["vgg"] is False and 1 <= result["steps"] <= result["planned"]
    assert result["at_the_end"].keys() == {"val_l1", "val_psnr"} and time.monotonic() - begin < 60
    assert checkpoints.load(tmp_path / "pconv.safetensors").config.detail == 12
    assert (tmp_path / "history.csv").exists() and (tmp_path / "samples.jpg").exists()


def test_a_part_is_killed_at_its_limit_and_keeps_what_it_wrote(gpu_day, tmp_path):
    code = "import time; print('one', flush=True); time.sleep(60)"
    ended = gpu_day.run_for(1, ["-c", code], tmp_path / "log.txt")
    assert ended["ended"] == "stopped at its limit" and ended["seconds"] < 20
    assert (
        gpu_day.run_for(20, ["-c", "print('two'); raise SystemExit(3)"], tmp_path / "log.txt")["ended"] == "exit code 3"
    )
    assert (tmp_path / "log.txt").read_text().endswith("two\n")


def test_the_summary_is_written_after_each_part_and_says_what_was_not_run(gpu_day, prepared, tmp_path, monkeypatch):
    seen = []

    def part(seconds, command, log):
        seen.append((tmp_path / "summary.md").read_text() if (tmp_path / "summary.md").exists() else "")
        log.write_text("3 passed in 1s\n")
        return {"ended": "stopped at its limit", "seconds": 9.0}

    monkeypatch.setattr(gpu_day, "run_for", part)
    gpu_day.run_day(gpu_day.TOY, prepared, tmp_path, "cpu", ["tests", "training"])
    text = (tmp_path / "summary.md").read_text()
    assert "| layer | stopped at its limit | 9.0 | 3 passed in 1s |" in seen[1] and len(seen) == 7
    assert "## Speed\n\nNot run." in text and "## Training\n\nStopped at its limit, 9.0 s." in text
    assert "Not run" in seen[-1].split("## Training")[1]
