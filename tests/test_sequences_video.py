"""Mask sequences from video: tracking on films with known motion, windows, and the command."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from films import texture, write_frames
from PIL import Image

from maskgen.commands import maskgen
from maskgen.errors import BadInput
from maskgen.extraction import video
from maskgen.sequences.film import Crop, Footage, random_crop, read_window
from maskgen.sequences.filmed import FLOW_FAILED, NEAR_EMPTY, occlusion_holes, tracked_holes
from maskgen.sequences.run import make_sequences
from maskgen.sequences.settings import SequenceConfig
from maskgen.sequences.task import tasks_of
from maskgen.sequences.tracking import origins
from maskgen.verify import find_faults
from tests.rawmasks import streaks, write_raw
from tests.test_extract import fingerprint

SMALL = SequenceConfig(train=4, test=4, frames=6, size=(96, 64), flow="dis-fast")
GROUND, THING = np.array([-1.5, 0.5]), np.array([2.5, 1.0])  # px a frame
SIDE, CORNER = 56, np.array([40, 30])  # px, of the thing, and where it is in frame 0


def rendered(count, height=120, width=200):
    """A square thing that moves over a moving ground, by fractions of pixels. A list of uint8 (H, W, 3)."""
    # As in most films, the thing has other colours than the ground: by them the flow finds its outline.
    ground, thing = texture(3 * height, 3 * width, 1) // 2, texture(SIDE + 40, SIDE + 40, 2) // 2 + 120
    frames = []
    for t in range(count):
        shift = np.array([[1, 0, -width + GROUND[0] * t], [0, 1, -height + GROUND[1] * t]])
        frame = cv2.warpAffine(ground, shift, (width, height), flags=cv2.INTER_LINEAR)
        x, y = CORNER + THING * t
        nearer = cv2.warpAffine(
            thing, np.array([[1, 0, x - 20], [0, 1, y - 20]]), (width, height), flags=cv2.INTER_LINEAR
        )
        covers = on_thing(t, height, width)
        frame[covers] = nearer[covers]
        frames.append(frame)
    return frames


def on_thing(t, height=120, width=200):
    """Where the thing is in frame t. bool (H, W)."""
    x, y = CORNER + THING * t
    columns, rows = np.arange(width), np.arange(height)[:, None]
    return (columns >= x) & (columns < x + SIDE) & (rows >= y) & (rows < y + SIDE)


@pytest.fixture(scope="module")
def track():
    """The origins of 17 frames of the film."""
    return list(origins(rendered(17), "dis"))


# Tracking


def test_after_16_frames_pixels_are_within_a_pixel_of_where_they_came_from(track):
    last, thing = track[16], on_thing(16)
    for place, motion in ((thing, THING), (~thing, GROUND)):
        error = np.hypot(last.dx + 16 * motion[0], last.dy + 16 * motion[1])[place]
        assert np.median(error) < 1 and np.quantile(error, 0.8) < 4


def disc(x, y):
    return cv2.circle(np.zeros((120, 200), np.uint8), (x, y), 12, 1, -1)


def test_a_mask_is_carried_to_its_place_without_blur(track):
    rows, columns = np.mgrid[:120, :200].astype(np.float32)
    for begin, end in (((68, 58), (108, 74)), ((170, 25), (146, 33))):  # on the thing, and on the ground
        carried = cv2.remap(disc(*begin), columns + track[16].dx, rows + track[16].dy, cv2.INTER_NEAREST)
        carried[~track[16].known] = 0  # the ground that was behind the thing has no mask
        assert np.count_nonzero(carried & disc(*end)) > 0.85 * np.count_nonzero(carried | disc(*end))


def test_ground_that_comes_out_from_behind_the_thing_moves_with_the_ground(track):
    """What the thing uncovers, in all frames: most of it is carried on by the ground, not by the thing."""
    was_covered = on_thing(0)
    shift = (16 * GROUND).round().astype(int)
    covered_ground = np.roll(was_covered, shift[::-1], (0, 1)) & ~on_thing(16)  # where that ground is in frame 16
    error = np.hypot(track[16].dx + 16 * GROUND[0], track[16].dy + 16 * GROUND[1])[covered_ground]
    assert np.count_nonzero(covered_ground) > 1000 and np.mean(error < 3) > 0.8


def test_what_enters_at_the_edge_is_carried_on_like_what_is_beside_it(track):
    entered = track[16].dx[5:-20, -16:]  # the ground moves left by 24 px
    assert np.mean(np.abs(entered - 24) < 3) > 0.9


def test_before_a_fixed_camera_only_what_moves_is_carried():
    """A plain wall with a curtain, the noise of a camera, and a thing that moves in front of the wall."""
    rng, frames = np.random.default_rng(0), []
    for t in range(5):
        wall = cv2.GaussianBlur(texture(120, 200, 3), (0, 0), 6)
        wall[:, 140:] = texture(120, 60, 4)
        wall[on_thing(t)] = rendered(t + 1)[t][on_thing(t)]
        frames.append(np.clip(wall + rng.normal(0, 2, wall.shape), 0, 255).astype(np.uint8))
    *_, last = origins(frames, "dis")
    far = cv2.dilate((on_thing(0) | on_thing(4)).astype(np.uint8), np.ones((31, 31), np.uint8)) == 0
    assert np.mean((last.dx == 0)[far] & (last.dy == 0)[far]) > 0.98
    assert np.median(last.dx[on_thing(4)]) == pytest.approx(-4 * THING[0], abs=0.5)


def test_a_tracked_mask_follows_the_ground_from_the_middle_to_both_ends():
    rng, frames = np.random.default_rng(0), rendered(9)
    holes, columns = tracked_holes(frames, lambda: ("a", streaks(int(rng.integers(9)))), 0.3, "dis", rng)
    assert (holes.shape, columns["anchor"]) == ((9, 120, 200), 4)
    assert holes[4].mean() == pytest.approx(0.3, abs=0.08)
    for t in (0, 8):
        shift = (GROUND * (t - 4)).round().astype(int)  # 6 px to one side, 2 px down or up
        expected = np.roll(holes[4], shift[::-1], (0, 1))
        ground = ~(on_thing(t) | on_thing(4) | np.roll(on_thing(4), shift[::-1], (0, 1)))
        ground[:8] = ground[-8:] = ground[:, :8] = ground[:, -8:] = False
        assert np.mean(holes[t][ground] == expected[ground]) > 0.95
        assert np.mean(holes[t][ground] == holes[4][ground]) < 0.9


def test_frames_without_anything_in_common_are_passed_over():
    frames = [texture(64, 96, seed) for seed in range(4)]
    rng = np.random.default_rng(0)
    assert tracked_holes(frames, lambda: ("a", streaks(1)), 0.3, "dis", rng) == FLOW_FAILED


# Occlusions


def test_occlusion_masks_lie_along_the_outline_of_what_moves():
    holes, columns = occlusion_holes(rendered(4), 0.1, "dis")
    assert holes.shape == (4, 120, 200) and 0.03 < holes.mean() < 0.2
    for t, hole in enumerate(holes):
        outline = cv2.morphologyEx(on_thing(t).astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((9, 9), np.uint8)) > 0
        inner = np.zeros_like(hole)
        inner[12:-12, 12:-12] = True
        assert (hole & outline).sum() > 0.3 * (outline & inner).sum()
        far = cv2.dilate(outline.astype(np.uint8), np.ones((31, 31), np.uint8)) == 0
        assert (hole & far & inner).sum() < 0.02 * (far & inner).sum()
    assert 9 <= float(columns["dilation"]) <= 49


def test_a_film_in_which_nothing_moves_gives_no_occlusion_masks():
    assert occlusion_holes([texture(64, 96, 0)] * 6, 0.1, "dis") == NEAR_EMPTY


# Windows


@pytest.mark.parametrize("shape", [(480, 640), (720, 1280), (1280, 720), (144, 176)])
def test_crops_have_the_shape_of_the_result_and_enlarge_only_small_frames(shape):
    rng = np.random.default_rng(0)
    for _ in range(50):
        crop = random_crop(shape, (432, 240), rng)
        assert 0 <= crop.x <= shape[1] - crop.width and 0 <= crop.y <= shape[0] - crop.height
        assert crop.width / crop.height == pytest.approx(432 / 240, rel=0.01)
        assert crop.width >= min(432, shape[1])


def footage_of(path):
    return Footage(path, "film", 0, video.probe(path, "film").frames, (96, 128), b"")


def test_a_window_is_cropped_and_mirrored(tmp_path):
    film = write_frames(tmp_path / "film", 4)
    frames = read_window(footage_of(film), 1, 2, Crop(10, 20, 96, 64, True), (96, 64))
    for index, frame in enumerate(frames):
        whole = cv2.imread(str(film / f"{index + 2}.png"))[..., ::-1]
        assert (frame == whole[20:84, 10:106][:, ::-1]).all()


def test_windows_across_a_scene_cut_are_passed_over(tmp_path):
    film = write_frames(tmp_path / "film", 8)
    for index in range(5, 9):
        cv2.imwrite(str(film / f"{index}.png"), np.full((96, 128, 3), (30, 200, 90), np.uint8))
    crop = Crop(0, 0, 128, 96, False)
    assert len(read_window(footage_of(film), 0, 4, crop, (128, 96))) == 4
    assert read_window(footage_of(film), 2, 4, crop, (128, 96)) == "with a scene cut"
    assert read_window(footage_of(film), 4, 4, crop, (128, 96)) == "with a frame of one colour"
    (film / "2.png").write_bytes(b"no picture")
    assert read_window(footage_of(film), 0, 4, crop, (128, 96)) == "with unreadable frames"


# The plan


def test_modes_and_groups_have_equal_shares_and_windows_are_spread_over_a_video():
    tasks = tasks_of(replace(SMALL, train=30, test=5), {"train": [[0], [1, 2]], "test": [[0]]})
    assert len({task.name for task in tasks}) == 35
    train = [task for task in tasks if task.split == "train"]
    assert [sum(task.mode == mode for task in train) for mode in SMALL.modes] == [7, 8, 7, 8]
    sources = [task.source for task in train if task.mode == "occlusion"]
    assert [sources.count(source) for source in range(3)] == [4, 2, 2]
    assert [task.part for task in train if task.mode == "occlusion" and task.source == 0] == [(i, 4) for i in range(4)]


# The command


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with `videos`, in which there are three films, and raw masks `masks/raw`."""
    place = tmp_path_factory.mktemp("inputs")
    for seed in range(3):
        write_frames(place / f"videos/film {seed}", 14, seed=10 * seed)
    for split in ("train", "test"):
        write_raw(place / "masks/raw", 8, split)
    return place


def made(inputs, out, config=SMALL, workers=1, **more):
    say = more.pop("say", lambda line: None)
    return make_sequences([inputs / "videos"], inputs / "masks/raw", out, config, workers=workers, say=say, **more)


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory):
    """A finished set, which must not be changed."""
    out = tmp_path_factory.mktemp("sets") / "sequences"
    made(inputs, out)
    return out


def rows_of(out):
    with (out / "sequences.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_sequence_is_a_folder_of_frames_with_0_and_255(finished):
    for split in ("train", "test"):
        folders = sorted((finished / split).iterdir())
        assert [folder.name for folder in folders] == [f"{mode}_00000" for mode in sorted(SMALL.modes)]
        for folder in folders:
            assert [path.name for path in sorted(folder.iterdir())] == [f"{t:05d}.png" for t in range(6)]
            frames = [np.asarray(Image.open(folder / f"{t:05d}.png")) for t in range(6)]
            assert frames[3].shape == (64, 96) and set(np.unique(frames)) == {0, 255}


def test_the_index_describes_the_sequences_and_verify_agrees(finished):
    rows = rows_of(finished)
    assert len(rows) == 8 and {row["frames"] for row in rows} == {"6"}
    for row in rows:
        frames = [(finished / row["sequence"] / f"{t:05d}.png").read_bytes() for t in range(6)]
        holes = np.stack([np.asarray(Image.open(finished / row["sequence"] / f"{t:05d}.png")) for t in range(6)]) == 255
        assert float(row["hole_ratio"]) == pytest.approx(holes.mean(), abs=1e-6)
        assert float(row["never_seen"]) == pytest.approx(holes.all(0).mean(), abs=1e-6)
        assert float(row["highest_ratio"]) == pytest.approx(holes.mean((1, 2)).max(), abs=1e-6)
        assert row["sha256"] == sha256(b"".join(frames))
        assert (row["source"] != "") == (row["mode"] in ("tracked", "occlusion"))
    assert find_faults(finished, workers=1) == (8, [])


def sha256(data):
    return subprocess.run(["sha256sum"], input=data, capture_output=True, check=True).stdout.split()[0].decode()


def test_train_and_test_share_neither_videos_nor_raw_masks(finished):
    rows = rows_of(finished)
    by_split = {split: [row for row in rows if row["split"] == split] for split in ("train", "test")}
    sources = {split: {row["source"] for row in of_split} - {""} for split, of_split in by_split.items()}
    assert sources["train"] and sources["test"] and not sources["train"] & sources["test"]


def test_two_workers_give_the_bytes_of_one(inputs, finished, tmp_path):
    made(inputs, tmp_path / "two", workers=2)
    assert fingerprint(tmp_path / "two") == fingerprint(finished)


def test_a_killed_run_resumes_to_the_same_bytes(inputs, finished, tmp_path):
    code = (
        "from tests.test_sequences_video import *; from pathlib import Path; "
        f"made(Path({str(inputs)!r}), Path({str(tmp_path / 'cut')!r}))"
    )
    here = Path(__file__).parents[1]
    command, path = [sys.executable, "-c", code], f"{here}{os.pathsep}{here / 'tests'}"
    for wanted in (1, 4):  # finished sequences, after which the run is killed
        process = subprocess.Popen(
            command, cwd=here, env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + 60
        while len(list((tmp_path / "cut").rglob("00005.png"))) < wanted and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "cut/recipe.json").exists()
    made(inputs, tmp_path / "cut")
    assert fingerprint(tmp_path / "cut") == fingerprint(finished)


def test_a_finished_run_is_not_repeated_and_mends_changed_and_missing_frames(inputs, tmp_path):
    config = replace(SMALL, modes=("drifting", "stationary"))
    made(inputs, tmp_path / "set", config)
    before, lines = fingerprint(tmp_path / "set"), []
    made(inputs, tmp_path / "set", config, say=lines.append)
    assert fingerprint(tmp_path / "set") == before and "already complete" in lines[0]
    (tmp_path / "set/test/drifting_00001/00002.png").unlink()
    (tmp_path / "set/train/stationary_00000/00000.png").write_bytes(b"other")
    made(inputs, tmp_path / "set", config)
    assert fingerprint(tmp_path / "set") == before


@pytest.mark.parametrize(
    ("change", "says"),
    [({"seed": 1}, "seed was 0, is 1"), ({"frames": 5}, "frames was 6, is 5"), ({"test": 3}, "test was 4, is 3")],
)
def test_a_folder_of_other_settings_is_refused(inputs, finished, change, says):
    with pytest.raises(BadInput, match=says):
        made(inputs, finished, replace(SMALL, **change))


def test_a_sequence_does_not_depend_on_the_other_modes(inputs, finished, tmp_path):
    made(inputs, tmp_path / "alone", replace(SMALL, train=0, test=1, modes=("drifting",)))
    name = "test/drifting_00000/00003.png"
    assert (tmp_path / "alone" / name).read_bytes() == (finished / name).read_bytes()


FAULTS = {
    "a changed pixel": (
        lambda folder: change_pixel(folder / "test/tracked_00000/00001.png"),
        "test/tracked_00000: hole_ratio is .*, the index says",
    ),
    "a missing frame": (
        lambda folder: (folder / "train/drifting_00000/00004.png").unlink(),
        "train/drifting_00000: 00004.png is missing, the index says 6 frames",
    ),
    "one frame more": (
        lambda folder: (folder / "train/drifting_00000/00006.png").write_bytes(b""),
        "train/drifting_00000: 00006.png is there, the index says 6 frames",
    ),
    "a sequence more": (lambda folder: (folder / "test/new").mkdir(), "test/new: there, but not listed"),
    "a grey frame": (
        lambda folder: cv2.imwrite(str(folder / "test/tracked_00000/00001.png"), np.full((64, 96), 100, np.uint8)),
        "test/tracked_00000/00001.png: expected 0 and 255 only, 6144 pixels have other values",
    ),
    "a damaged frame": (
        lambda folder: (folder / "test/tracked_00000/00001.png").write_bytes(b"no PNG"),
        "test/tracked_00000/00001.png",
    ),
}


def change_pixel(path):
    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    picture[5, 5] = 255 - picture[5, 5]
    cv2.imwrite(str(path), picture)


@pytest.mark.parametrize("what", FAULTS)
def test_verify_finds(what, finished, tmp_path):
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", finished, copy], check=True)
    spoil, says = FAULTS[what]
    spoil(copy)
    number, faults = find_faults(copy, workers=1)
    assert number == 8
    assert any(re.match(says, fault) for fault in faults), faults


def test_show_draws_strips_and_an_animation(finished, tmp_path):
    result = CliRunner().invoke(maskgen, ["show", str(finished), "--out", str(tmp_path), "--columns", "4"])
    assert result.exit_code == 0 and result.output.split() == [str(tmp_path / n) for n in ("strips.png", "preview.gif")]
    with Image.open(tmp_path / "preview.gif") as film:
        assert film.n_frames == 6
    assert cv2.imread(str(tmp_path / "strips.png")).shape[1] > 4 * 120


def run(*arguments, cwd, monkeypatch):
    monkeypatch.chdir(cwd)
    return CliRunner().invoke(maskgen, ["sequences", *map(str, arguments)])


def test_the_command_uses_videos_and_masks_of_the_working_folder(inputs, tmp_path, monkeypatch):
    options = "--train 2 --test 2 --frames 4 --size 64 --modes stationary,occlusion -j 1 --out".split()
    result = run(*options, tmp_path / "set", cwd=inputs, monkeypatch=monkeypatch)
    assert result.exit_code == 0
    assert "2 sequences for training, 2 for testing: 2 stationary, 2 occlusion" in result.output
    assert "(0.1, 0.2]" in result.output and f"maskgen show {tmp_path / 'set'}" in result.output
    assert {row["width"] for row in rows_of(tmp_path / "set")} == {"64"}


WRONG = {
    "no videos": (["-j", "1"], "tracked and occlusion masks need some; for masks without video, use --modes"),
    "a path that is not there": (["nowhere", "-j", "1"], "no such file or folder: nowhere"),
    "a size": (["--size", "big"], "expected a width and a height such as 432x240, got 'big'"),
    "a small size": (["--size", "20x20"], "size is 2 to 2 values, each a whole number, 64 to 2048"),
    "a mode": (
        ["--modes", "drifting,flying"],
        "modes is one or more of stationary, drifting, tracked, occlusion, each once",
    ),
    "no number": (["--train", "0", "--test", "0"], "not both 0"),
    "raw masks": (["--modes", "drifting", "--from", "nowhere"], "nowhere"),
}


@pytest.mark.parametrize("what", WRONG)
def test_mistakes_get_one_line_and_write_nothing(what, tmp_path, monkeypatch):
    arguments, says = WRONG[what]
    result = run(*arguments, cwd=tmp_path, monkeypatch=monkeypatch)
    assert result.exit_code == 2 and says in result.output and not list(tmp_path.iterdir()), result.output


def test_videos_that_are_too_short_are_named(inputs, tmp_path):
    lines = []
    with pytest.raises(BadInput, match="no video for train has 20 frames or more"):
        made(inputs, tmp_path / "set", replace(SMALL, frames=20), say=lines.append)
    assert "is not used: 14 frames for" in lines[0] and not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train": 6}, "train was 4, is 6"),
        ({"modes": ("drifting",)}, "modes was"),
        ({"frames": 8}, "frames was 6, is 8"),
    ],
)
def test_a_finished_set_with_other_numbers_or_modes_is_refused_by_name(tmp_path, change, words):
    config, raw = replace(SMALL, modes=("stationary", "drifting")), write_raw(tmp_path / "raw", 8)
    make_sequences([], raw, tmp_path / "x", config, workers=1, say=lambda line: None)
    before = fingerprint(tmp_path / "x")
    with pytest.raises(BadInput, match=words):
        make_sequences([], raw, tmp_path / "x", replace(config, **change), workers=1, say=lambda line: None)
    assert fingerprint(tmp_path / "x") == before
