import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from films import encode, frame, texture, write_frames, write_video

from maskgen import maskset
from maskgen.errors import BadInput
from maskgen.extraction import task, video
from maskgen.extraction.occlusion import holes_of_pair
from maskgen.extraction.run import extract, summary
from maskgen.runtime import files, images, output
from maskgen.settings import ExtractConfig

SMALL = ExtractConfig(train=6, test=4, size=64, min_area=4)


@pytest.fixture
def films(tmp_path):
    """A folder with three films of the same length and a shorter one."""
    for seed in range(3):
        write_video(tmp_path / f"films/film{seed}.avi", 20, seed=10 * seed)
    write_frames(tmp_path / "films/frames", 8, seed=40)
    return tmp_path / "films"


def silent_extract(*args, **more):
    return extract(*args, workers=more.pop("workers", 1), say=more.pop("say", lambda line: None), **more)


def fingerprint(folder):
    """Every file below a folder with the hash of its bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_wanted_numbers_are_met_exactly_and_files_hold_only_0_and_255(films, tmp_path):
    recipe = silent_extract([films], tmp_path / "raw", SMALL)
    assert recipe["counts"]["masks"] == {"train": 6, "test": 4}
    for split, number in (("train", 6), ("test", 4)):
        files = images.find(tmp_path / "raw" / split)
        assert len(files) == number
        for file in files:
            mask = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
            assert mask.shape == (64, 64) and set(np.unique(mask)) == {0, 255}


def test_the_index_describes_the_files(films, tmp_path):
    silent_extract([films], tmp_path / "raw", SMALL)
    rows = maskset.read_index(tmp_path / "raw/train")
    for row in rows.itertuples():
        file = tmp_path / "raw/train" / row.file_name
        assert hashlib.sha256(file.read_bytes()).hexdigest() == row.sha256
        assert maskset.read_hole(file).mean() == pytest.approx(row.hole_ratio, abs=1e-6)
        assert file.name == f"{row.frame:06d}_{row.kind}.png" and file.parent.name == row.source


def test_no_source_is_in_both_splits_and_all_give_about_the_same_number(films, tmp_path):
    silent_extract([films], tmp_path / "raw", SMALL)
    sources = {split: Counter(maskset.read_index(tmp_path / "raw" / split).source) for split in ("train", "test")}
    assert not set(sources["train"]) & set(sources["test"])
    assert max(sources["train"].values()) - min(sources["train"].values()) <= 2


def test_the_table_of_sources_assigns_films_to_splits_and_groups(films, tmp_path):
    rows = ["film0.avi,test,,CC0", "film1.avi,test,,CC0", "film2.avi,train,room,MIT", "frames,train,room,MIT"]
    (films / "SOURCES.csv").write_text("\n".join(["file,split,group,licence", *rows]))
    recipe = silent_extract([films], tmp_path / "raw", SMALL)
    described = {one["file"]: (one["split"], one.get("group"), one["licence"]) for one in recipe["sources"]}
    assert described == {
        "film0.avi": ("test", None, "CC0"),
        "film1.avi": ("test", None, "CC0"),
        "film2.avi": ("train", "room", "MIT"),
        "frames": ("train", "room", "MIT"),
    }
    assert set(maskset.read_index(tmp_path / "raw/test").source) == {"film0", "film1"}
    test_alone = silent_extract([films], tmp_path / "alone", replace(SMALL, train=0))
    assert [one["file"] for one in test_alone["sources"]] == ["film0.avi", "film1.avi"]


def test_no_film_gives_more_than_the_largest_share(films, tmp_path):
    recipe = silent_extract([films], tmp_path / "raw", replace(SMALL, train=20, test=0, max_share=0.2))
    assert recipe["counts"]["masks_by_source"] == {f"train/{name}": 4 for name in ("film0", "film1", "film2", "frames")}
    assert any("4 masks are missing" in line and "or raise --max-share from 0.2" in line for line in summary(recipe))


def test_the_flow_of_a_pair_in_which_hardly_anything_changes_is_not_computed(monkeypatch):
    monkeypatch.setattr(task, "holes_and_leaving", lambda *args: pytest.fail("the flow was computed"))
    first = np.zeros((512, 512, 3), np.uint8)
    second = first.copy()
    second[100:116, 200:216] = 255  # 256 px, 144 of half the size after smoothing: fewer than 0.004 of 65,536
    assert task._holes_or_reasons(first, second, ExtractConfig()) == [(task.NEAR_EMPTY, 0)] * 2


def panning_film(folder):
    """Ten frames of 64 px over a wide texture, each 4 px further to the right: four columns leave in each pair."""
    folder.mkdir()
    photo = texture(64, 104, seed=3)
    for index in range(10):
        cv2.imwrite(str(folder / f"{index}.png"), photo[:, 4 * index : 4 * index + 64])
    return folder


def test_the_pixels_that_leave_are_counted_and_dropped_on_request(tmp_path):
    film, config = panning_film(tmp_path / "pan"), replace(SMALL, train=4, test=0, motion_boundaries=False)
    kept = silent_extract([film], tmp_path / "kept", config)
    assert kept["counts"]["leaving"] == {"masks": 2, "share": 1.0}  # the same two masks in all pairs
    assert any("in 2 masks, are kept; --leaving drop removes them" in line for line in summary(kept))
    dropped = silent_extract([film], tmp_path / "dropped", replace(config, leaving="drop"))
    assert dropped["counts"]["masks"]["train"] == 0 and dropped["counts"]["passed_over"] == {"near-empty": 18}


def test_two_workers_give_the_bytes_of_one(films, tmp_path):
    silent_extract([films], tmp_path / "one", SMALL, workers=1)
    silent_extract([films], tmp_path / "two", SMALL, workers=2)
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "two")


def test_a_killed_run_resumes_to_the_same_bytes(films, tmp_path):
    config = replace(SMALL, train=40, test=20)
    silent_extract([films], tmp_path / "whole", config)
    command = [sys.executable, "-c", "import cli; cli.maskgen()", "extract", str(films), "--out", str(tmp_path / "cut")]
    command += "--train 40 --test 20 --size 64 --min-area 4 --workers 2".split()
    here = Path(__file__).parents[1]
    for _ in range(2):
        process = subprocess.Popen(command, cwd=here, stderr=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + 60
        done = len(list((tmp_path / "cut").rglob("*.npz")))
        while len(list((tmp_path / "cut").rglob("*.npz"))) == done and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert subprocess.run(command, cwd=here, capture_output=True).returncode == 0
    assert fingerprint(tmp_path / "cut") == fingerprint(tmp_path / "whole")


def test_a_half_written_file_of_a_killed_run_is_removed(films, tmp_path):
    (tmp_path / "raw/.progress").mkdir(parents=True)
    (tmp_path / "raw/train/film0").mkdir(parents=True)
    (tmp_path / "raw/train/film0/000001_occluded.png.0123456789ab.part").write_bytes(b"half")
    silent_extract([films], tmp_path / "raw", SMALL)
    assert not list((tmp_path / "raw").rglob("*.part"))


def test_a_finished_run_is_not_repeated(films, tmp_path):
    silent_extract([films], tmp_path / "raw", SMALL)
    before = fingerprint(tmp_path / "raw")
    lines = []
    silent_extract([films], tmp_path / "raw", SMALL, say=lines.append)
    assert fingerprint(tmp_path / "raw") == before and "already complete" in lines[0]


CHANGES = {  # what differs between two runs into one folder: the change, and what the error names
    "an option": (lambda films, patch: {"config": replace(SMALL, noise=0.5)}, "noise was 0.2, is 0.5"),
    "the seed": (lambda films, patch: {"config": replace(SMALL, seed=1)}, "seed was 0, is 1"),
    "a film": (lambda films, patch: append_byte(films / "film1.avi"), "film1: sha256 was"),
    "a frame": (lambda films, patch: swap(films / "frames/3.png", films / "frames/4.png"), "frames: sha256 was"),
    "one more film": (lambda films, patch: write_video(films / "new.avi", 12, seed=70), "new is new"),
    "one film fewer": (lambda films, patch: (films / "film2.avi").unlink(), "film2 is gone"),
    "OpenCV": (lambda films, patch: patch.setattr(cv2, "__version__", "9.9"), "opencv was .*, is 9.9"),
    "NumPy": (lambda films, patch: change_version(patch, "numpy"), "numpy was .*, is 9.9"),
    "PyAV": (lambda films, patch: change_version(patch, "av"), "av was .*, is 9.9"),
    "the version": (
        lambda films, patch: patch.setattr(output, "__version__", "9.9"),
        "version was .*, is 9.9",
    ),
}


def append_byte(path):
    path.write_bytes(path.read_bytes() + b"\0")


def swap(one, other):
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def change_version(patch, package):
    known = metadata.version
    patch.setattr("maskgen.runtime.recipe.version", lambda name: "9.9" if name == package else known(name))


@pytest.mark.parametrize("is_finished", [True, False])
@pytest.mark.parametrize("what", CHANGES)
def test_a_folder_of_a_run_with_anything_else_is_refused_and_the_difference_named(
    films, tmp_path, monkeypatch, what, is_finished
):
    silent_extract([films], tmp_path / "raw", SMALL)
    if not is_finished:  # as after a kill
        (tmp_path / "raw/.progress").mkdir()
        (tmp_path / "raw/recipe.json").rename(tmp_path / "raw/.progress/recipe.json")
    before = fingerprint(tmp_path / "raw")
    change, message = CHANGES[what]
    changed = change(films, monkeypatch)
    config = changed["config"] if isinstance(changed, dict) else SMALL
    with pytest.raises(BadInput, match=f"was created with other settings.*{message}"):
        silent_extract([films], tmp_path / "raw", config)
    assert fingerprint(tmp_path / "raw") == before


def test_later_credits_are_added_to_a_finished_recipe(films, tmp_path):
    def licences():
        recipe = json.loads((tmp_path / "raw/recipe.json").read_text())
        return [source.get("licence") for source in recipe["sources"]]

    silent_extract([films], tmp_path / "raw", SMALL)
    masks = fingerprint(tmp_path / "raw/train")
    assert licences() == [None] * 4
    (films / "SOURCES.csv").write_text("file,license\nfilm0.avi,CC0\nfilm1.avi,\n")
    silent_extract([films], tmp_path / "raw", SMALL)
    assert licences() == ["CC0", None, None, None] and fingerprint(tmp_path / "raw/train") == masks


@pytest.mark.parametrize("counts", [{}, {"masks": {"train": 1}}, {"masks": 3}])
def test_a_finished_recipe_without_its_counts_is_refused(films, tmp_path, counts):
    recipe = silent_extract([films], tmp_path / "raw", SMALL)
    (tmp_path / "raw/recipe.json").write_text(json.dumps({**recipe, "counts": counts}))
    with pytest.raises(BadInput, match="lacks the counts"):
        silent_extract([films], tmp_path / "raw", SMALL)


def test_films_of_the_same_content_are_used_once(films, tmp_path):
    (films / "copy.avi").write_bytes((films / "film1.avi").read_bytes())
    (tmp_path / "linked").symlink_to(films)
    lines = []
    recipe = silent_extract([films, tmp_path / "linked/film0.avi"], tmp_path / "raw", SMALL, say=lines.append)
    assert lines == [
        f"{films / 'film1.avi'} holds the same frames as {films / 'copy.avi'}: they are used once",
        f"{tmp_path / 'linked/film0.avi'} holds the same frames as {films / 'film0.avi'}: they are used once",
    ]
    assert [source["file"] for source in recipe["sources"]] == ["copy.avi", "film0.avi", "film2.avi", "frames"]


def test_a_film_of_variable_rate_has_the_frame_numbers_of_a_plain_read_and_the_splits_share_none(tmp_path):
    stamps = np.cumsum([0] + [20] * 59 + [120] * 60 + [20] * 60).tolist()  # in 1/600 s: 30, 5, 30 frames a second
    path = encode(tmp_path / "film.mp4", [frame(i) for i in range(180)], stamps=stamps, options={"g": "12", "bf": "2"})
    with av.open(str(path)) as film:
        frames = [one.to_ndarray(format="rgb24") for one in film.decode(video=0)]
    config = replace(SMALL, train=40, test=20)
    silent_extract([path], tmp_path / "raw", config, workers=2)
    used = {}
    for split in ("train", "test"):
        rows = maskset.read_index(tmp_path / "raw" / split)
        used[split] = {number for frame in rows.frame for number in (frame, frame + 1)}
        for row in rows.itertuples():
            pair = [video.crop(frames[row.frame + i], (16, 0, 96), 64) for i in (0, 1)]
            hole = holes_of_pair(*pair, config)[task.KINDS.index(row.kind)]
            assert np.array_equal(hole, maskset.read_hole(tmp_path / "raw" / split / row.file_name))
    assert max(used["train"]) < min(used["test"]) and len(used["train"]) >= 40


NAMES = ("validation", "test_01", "train", "CON", "f" * 240, "Élan 映画", "clip", "CLIP", "eval-set", "a.b..c")


def test_a_set_of_films_of_any_name_loads_with_its_splits(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    for i, name in enumerate((*NAMES, f"{'d' * 150}/{'n' * 150}")):
        write_video(tmp_path / f"films/{name}.avi", 8, seed=2 * i)
    recipe = silent_extract([tmp_path / "films"], tmp_path / "raw", replace(SMALL, train=40, test=20))
    assert len({source["name"].lower() for source in recipe["sources"]}) == len(NAMES) + 1
    loaded = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "raw"), cache_dir=str(tmp_path / "cache"))
    assert {split: rows.num_rows for split, rows in loaded.items()} == {"train": 40, "test": 20}
    for split in ("train", "test"):
        index = maskset.read_index(tmp_path / "raw" / split)
        assert sorted(loaded[split]["sha256"]) == sorted(index.sha256)


def test_films_without_a_mask_are_named_with_the_reason(films, tmp_path):
    encode(films / "black.mp4", [np.zeros((96, 128, 3), np.uint8)] * 20)
    encode(films / "still.mp4", [frame(0)] * 20)
    recipe = silent_extract([films], tmp_path / "raw", replace(SMALL, train=400, test=200))
    lines = "\n".join(summary(recipe))
    assert "no mask came from black: its frames are all of one colour" in lines
    assert "no mask came from still: its masks are near-empty" in lines
    assert recipe["counts"]["passed_over"]["in frames of one colour"] == 38 and "film0:" not in lines


def test_a_gap_longer_than_every_film_is_refused(films, tmp_path):
    with pytest.raises(BadInput, match=r"the gap of 4096 is too large for these videos, the longest has \d+ frames"):
        silent_extract([films], tmp_path / "raw", replace(SMALL, gaps=(4096, 5000)))
    assert not (tmp_path / "raw").exists()


def test_a_run_without_any_mask_leaves_the_folder_free_for_another(films, tmp_path):
    black = encode(tmp_path / "black.mp4", [np.zeros((96, 128, 3), np.uint8)] * 20)
    recipe = silent_extract([black], tmp_path / "raw", SMALL)
    assert recipe["counts"]["masks"] == {"train": 0, "test": 0} and not (tmp_path / "raw").exists()
    assert sum("no mask came from black" in line for line in summary(recipe)) == 1  # a single film in two segments
    silent_extract([films], tmp_path / "raw", SMALL)


def test_many_films_without_a_mask_are_not_all_named():
    counts = {"masks": dict.fromkeys(video.SPLITS, 0), "pairs": dict.fromkeys(video.SPLITS, 9)}
    counts |= {"passed_over": {}, "faults": [], "fruitless": [[f"film{i}", task.NEAR_EMPTY] for i in range(200)]}
    lines = summary({"counts": counts, "sources": [0] * 200, "settings": {"train": 0, "test": 0}})
    assert len(lines) < 20 and lines[-1] == "no mask came from 190 more sources; recipe.json lists them"


def test_another_seed_draws_other_pairs(films, tmp_path):
    silent_extract([films], tmp_path / "zero", SMALL)
    silent_extract([films], tmp_path / "one", replace(SMALL, seed=1))
    assert set(fingerprint(tmp_path / "zero")) != set(fingerprint(tmp_path / "one"))


def test_a_single_source_is_cut_in_two_with_a_gap_and_the_user_is_informed(tmp_path):
    path = write_video(tmp_path / "film.avi", 60)
    lines = []
    silent_extract([path], tmp_path / "raw", SMALL, say=lines.append)
    train, test = (maskset.read_index(tmp_path / "raw" / split).frame for split in ("train", "test"))
    assert train.max() + 10 < test.min() and "only one source" in lines[0]


def test_the_summary_of_too_short_videos_says_how_many_masks_are_missing(films, tmp_path):
    recipe = silent_extract([films], tmp_path / "raw", replace(SMALL, train=5000))
    got = recipe["counts"]["masks"]["train"]
    assert f"no pairs are left and {5000 - got} masks are missing" in "\n".join(summary(recipe))
    assert recipe["counts"]["masks"]["test"] == 4


def test_a_scene_cut_gives_no_mask(tmp_path):
    folder = write_frames(tmp_path / "film", 6)
    for index in (4, 5, 6):  # another scene: dark
        picture = cv2.imread(str(folder / f"{index}.png"))
        cv2.imwrite(str(folder / f"{index}.png"), picture // 5)
    recipe = silent_extract([folder], tmp_path / "raw", replace(SMALL, train=100, test=0))
    assert recipe["counts"]["passed_over"]["at scene cuts"] == 2  # one pair, its two masks
    assert 2 not in set(maskset.read_index(tmp_path / "raw/train").frame)
    wide = silent_extract([folder], tmp_path / "wide", replace(SMALL, train=100, test=0, gaps=(2,)))
    assert wide["counts"]["passed_over"]["at scene cuts"] == 4  # the pairs of frames 1 and 2 span the cut


def test_a_still_camera_gives_no_mask(tmp_path):
    folder = tmp_path / "film"
    folder.mkdir()
    still, rng = frame(0), np.random.default_rng(0)
    for index in range(5):  # sensor noise of 2 grey levels
        noisy = np.clip(still + rng.normal(0, 2, still.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), noisy)
    recipe = silent_extract([folder], tmp_path / "raw", replace(SMALL, train=8, test=0))
    assert recipe["counts"]["masks"]["train"] == 0 and recipe["counts"]["passed_over"] == {"near-empty": 8}


def test_almost_identical_masks_of_repeated_motion_are_made_once(tmp_path):
    folder, rng = tmp_path / "film", np.random.default_rng(0)
    folder.mkdir()
    for index in range(8):  # two frames over and over, with noise: the masks differ in some pixels
        noisy = np.clip(frame(index % 2) + rng.normal(0, 1, (96, 128, 3)), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), noisy)
    recipe = silent_extract([folder], tmp_path / "raw", replace(SMALL, train=100, test=0, size=96))
    assert recipe["counts"]["pairs"]["train"] == 7
    assert recipe["counts"]["masks"]["train"] <= 6  # two directions, occluded and disoccluded, and few that differ
    assert recipe["counts"]["passed_over"] == {"almost identical to another": 14 - recipe["counts"]["masks"]["train"]}


def test_repeated_motion_gives_each_mask_once(tmp_path):
    folder = write_frames(tmp_path / "film", 2)
    for index in range(2, 10):  # the same two frames over and over
        (folder / f"{index + 1}.png").write_bytes((folder / f"{index % 2 + 1}.png").read_bytes())
    recipe = silent_extract([folder], tmp_path / "raw", replace(SMALL, train=100, test=0))
    assert recipe["counts"]["masks"]["train"] <= 4  # two directions, occluded and disoccluded
    assert recipe["counts"]["passed_over"]["almost identical to another"] >= 14


def test_gaps_and_crops_multiply_the_masks_and_are_in_the_names(tmp_path):
    folder = write_frames(tmp_path / "film", 12, width=192)
    config = replace(SMALL, train=10_000, test=0, gaps=(1, 3), crops=3)
    recipe = silent_extract([folder], tmp_path / "raw", config)
    assert recipe["counts"]["pairs"]["train"] == (11 + 9) * 3
    index = maskset.read_index(tmp_path / "raw/train")
    row = index.iloc[0]
    assert row.file_name == f"film/{row.frame:06d}_gap{row.gap}_square{row.square}_{row.kind}.png"
    assert set(index.gap) == {1, 3} and index.file_name.is_unique


def test_a_bad_video_is_passed_over_or_stops_a_strict_run(films, tmp_path):
    (films / "notes.mp4").write_text("not a video")
    lines = []
    recipe = silent_extract([films], tmp_path / "raw", SMALL, say=lines.append)
    assert recipe["counts"]["masks"]["train"] == 6 and "notes.mp4 is not a video" in lines[0]
    assert [row["file"] for row in recipe["unusable"]] == ["notes.mp4"]
    with pytest.raises(BadInput, match=r"notes\.mp4 is not a video.*--strict"):
        silent_extract([films], tmp_path / "strict", SMALL, strict=True)


@pytest.mark.parametrize(("damage", "reason"), [("text", "unreadable"), ("size", "another size")])
def test_only_the_pairs_of_bad_frames_are_lost(tmp_path, damage, reason):
    folder = write_frames(tmp_path / "film", 10)
    if damage == "text":
        (folder / "5.png").write_text("no picture")
    else:
        cv2.imwrite(str(folder / "5.png"), np.zeros((200, 100, 3), np.uint8))
    config = replace(SMALL, train=100, test=0)
    recipe = silent_extract([folder], tmp_path / "raw", config)
    [(name, what, number)] = recipe["counts"]["faults"]
    assert name == "film" and reason in what and number == 4  # two pairs of two masks
    assert recipe["counts"]["masks"]["train"] > 4
    with pytest.raises(BadInput, match=f"{reason}.*--strict"):
        silent_extract([folder], tmp_path / "strict", config, strict=True)


def test_the_readable_part_of_a_truncated_video_is_used(tmp_path):
    path = write_video(tmp_path / "films/film.avi", 60)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    write_video(tmp_path / "films/other.avi", 10, seed=3)
    lines = []
    recipe = silent_extract([tmp_path / "films"], tmp_path / "raw", SMALL, say=lines.append)
    assert "film.avi is truncated: of 60 frames the first" in lines[0] and recipe["counts"]["masks"]["train"] == 6
    with pytest.raises(BadInput, match="truncated"):
        silent_extract([tmp_path / "films"], tmp_path / "strict", SMALL, strict=True)


@pytest.mark.parametrize(
    ("path", "message"),
    [("nowhere", "no such file or folder"), ("empty", "no video in"), ("text.mp4", "none of the 1 videos found")],
)
def test_the_error_for_no_video_says_what_was_expected(tmp_path, path, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(BadInput, match=message):
        silent_extract([tmp_path / path], tmp_path / "raw", SMALL)
    assert not (tmp_path / "raw").exists()


def test_a_folder_with_other_files_is_refused_and_not_changed(films, tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/holiday.jpg").write_bytes(b"mine")
    with pytest.raises(BadInput, match="is not empty"):
        silent_extract([films], tmp_path / "raw", SMALL)
    assert fingerprint(tmp_path / "raw").keys() == {"holiday.jpg"}


def test_a_run_that_filled_the_disk_resumes_to_the_same_bytes(films, tmp_path, monkeypatch):
    silent_extract([films], tmp_path / "whole", SMALL)
    writes_left, write = [5], files.write_whole

    def write_until_full(path, data):
        writes_left[0] -= 1
        if writes_left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, data)

    monkeypatch.setattr(files, "write_whole", write_until_full)
    with pytest.raises(OSError, match="No space left"):
        silent_extract([films], tmp_path / "raw", SMALL)
    assert not list((tmp_path / "raw").rglob("*.part")) and not (tmp_path / "raw/recipe.json").exists()
    monkeypatch.setattr(files, "write_whole", write)
    silent_extract([films], tmp_path / "raw", SMALL)
    assert fingerprint(tmp_path / "raw") == fingerprint(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flow": "magic"}, "dis"),
        ({"size": 8}, "size: expected 64 or more"),
        ({"gaps": (0,)}, "gaps: expected frame distances"),
        ({"train": 0, "test": 0}, "not both 0"),
        ({"min_ratio": 0.7}, "min-ratio < max-ratio"),
    ],
)
def test_impossible_settings_are_refused_first(films, tmp_path, change, message):
    with pytest.raises(BadInput, match=message):
        silent_extract([films], tmp_path / "raw", replace(SMALL, **change))


def test_the_recipe_names_versions_settings_and_sources(films, tmp_path):
    (films / "SOURCES.csv").write_text("file,licence\nfilm0.avi,CC0\n")
    silent_extract([films], tmp_path / "raw", SMALL)
    recipe = json.loads((tmp_path / "raw/recipe.json").read_text())
    assert recipe["settings"]["slope"] == 0.01 and recipe["libraries"]["opencv"] == cv2.__version__
    film = recipe["sources"][0]
    assert film["sha256"] == hashlib.sha256((films / "film0.avi").read_bytes()).hexdigest()
    assert (film["frames"], film["width"], film["height"], film["licence"]) == (20, 128, 96, "CC0")
