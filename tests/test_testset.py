import csv
import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy import stats
from skimage.measure import label
from skimage.transform import downscale_local_mean

from maskgen.categories import CATEGORIES
from maskgen.commands import maskgen
from maskgen.errors import BadInput, InputWarning
from maskgen.maskset import describe, encode, read_hole, write_index
from maskgen.runtime.files import read_rows
from maskgen.runtime.journal import Journal
from maskgen.settings import EDGES, FillConfig
from maskgen.testset import make_testset
from maskgen.testset.near_duplicates import near_duplicates
from maskgen.testset.one_mask import make_mask
from maskgen.testset.run import shortfalls, summary
from maskgen.testset.tasks import mask_tasks
from maskgen.verify import find_faults
from tests.rawmasks import streaks, write_raw

ROOT = Path(__file__).parents[1]
CONFIG = FillConfig(per_category=2)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_raw(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def testset(raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "testset"
    make_testset(raw, out, CONFIG, workers=1)
    return out


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_mask_is_in_its_class_as_measured_by_numpy_and_scikit_image(testset):
    with (testset / "test" / "metadata.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["category"] for row in rows) == dict.fromkeys(CATEGORIES, 2)
    for row in rows:
        grey = cv2.imread(str(testset / "test" / row["file_name"]), cv2.IMREAD_UNCHANGED)
        assert grey.shape == (512, 512) and set(np.unique(grey)) == {0, 255}
        side, low, high = row["category"].replace("_", "-").split("-")
        ratio = (grey == 255).sum() / 512**2
        y, x = np.nonzero(grey)
        distance = min(y.min(), x.min(), 511 - y.max(), 511 - x.max())
        assert float(low) < ratio <= float(high) and (distance >= 50) == (side == "interior")
        assert abs(float(row["hole_ratio"]) - ratio) < 1e-6 and int(row["border_distance"]) == distance
        assert int(row["components"]) == label(grey, connectivity=2).max()


def test_the_same_bytes_for_two_workers_as_for_one(raw, testset, tmp_path):
    make_testset(raw, tmp_path / "two", CONFIG, workers=2)
    assert contents(tmp_path / "two") == contents(testset)


def test_the_recipe_has_the_highest_correlation_of_two_masks(testset):
    recipe = json.loads((testset / "recipe.json").read_text())
    paths = sorted((testset / "test").rglob("*.png"))
    highest = []
    for side, rim in (("interior", 3), ("free", 0)):
        holes = [read_hole(path) for path in paths if path.parent.name.startswith(side)]
        highest += [correlation(holes[i], holes[k], rim) for i in range(len(holes)) for k in range(i)]
    assert recipe["closest_pair"] == pytest.approx(max(highest), abs=0.0006)


def test_the_recipe_sums_up_the_index(testset):
    recipe = json.loads((testset / "recipe.json").read_text())
    table = pd.read_csv(testset / "test" / "metadata.csv")
    assert recipe["counts"] == table.groupby("category").size().to_dict() and recipe["missing"] == {}
    assert recipe["free_touching_the_edge"] == (table["border_distance"] == 0).sum()
    begun = table["raw"].str.split(";").str[0].value_counts()
    used = table["raw"].str.split(";").explode().value_counts()
    assert recipe["raw_masks_used"] == len(used)
    assert recipe["masks_begun_by_one_raw_mask"] == [0, begun.max()]  # 24 masks cannot begin with 40 raw masks
    assert recipe["masks_that_use_one_raw_mask"] == [used.min() if len(used) == 40 else 0, used.max()]
    shares = table[table["category"].str.startswith("interior")].groupby("category")["clipped"]
    assert recipe["clipped"] == {
        name: {"mean": pytest.approx(shares.mean()[name], abs=1e-4), "max": pytest.approx(shares.max()[name], abs=1e-4)}
        for name in CATEGORIES[:6]
    }


def test_a_summary_counts_raw_masks_and_masks_on_the_edge():
    row = {"category": "free_0.1-0.2", "border_distance": 0, "clipped": "0.1", "raw": "a"}
    rows = [
        row,
        {**row, "border_distance": 1, "raw": "b;a"},
        {**row, "category": "interior_0.1-0.2", "raw": "b", "border_distance": 50},
        {**row, "category": "interior_0.1-0.2", "raw": "b;b", "border_distance": 51, "clipped": "0.3"},
    ]
    sums = summary(rows, 2)
    assert sums["counts"] == dict.fromkeys(CATEGORIES, 0) | {"free_0.1-0.2": 2, "interior_0.1-0.2": 2}
    assert sums["free_touching_the_edge"] == 1 and sums["raw_masks_used"] == 2
    assert sums["masks_begun_by_one_raw_mask"] == [1, 3] and sums["masks_that_use_one_raw_mask"] == [2, 4]
    assert sums["clipped"] == {"interior_0.1-0.2": {"mean": 0.2, "max": 0.3}}
    assert summary(rows, 3)["masks_begun_by_one_raw_mask"] == [0, 3]  # one raw mask is not used
    assert summary(rows, 3)["masks_that_use_one_raw_mask"] == [0, 4]


def test_a_shortfall_says_what_would_help():
    missing = {"free_0.3-0.4": {"not_made": 2}, "free_0.4-0.5": {"not_made": 1, "like_others": 4}}
    lines = shortfalls({"settings": {"per_category": 10}, "missing": missing})
    assert lines == [
        "free_0.3-0.4 has 8 of 10 masks: 2 could not be made (add raw masks from videos with larger motion)",
        "free_0.4-0.5 has 5 of 10 masks: 1 could not be made (add raw masks from videos with larger motion); "
        "4 looked like others in every attempt (add more raw masks)",
    ]
    small = {"settings": {"per_category": 10}, "missing": {"interior_0.2-0.3": {"not_made": 1}}}
    assert "videos with other motion" in shortfalls(small)[0]


def test_the_columns_say_how_a_mask_was_made(raw, testset):
    rows = {row["file_name"]: row for row in read_rows(raw / "test" / "metadata.csv")}
    for row in read_rows(testset / "test" / "metadata.csv"):
        names = row["raw"].split(";")
        assert int(row["layers"]) == len(names) == len(row["rotation"].split(";")) == len(row["zoom"].split(";"))
        assert row["source"].split(";") == sorted({rows[name]["source"] for name in names})
        assert (row["frame"], row["kind"]) == (rows[names[0]]["frame"], rows[names[0]]["kind"])
        assert 9 <= float(row["dilation"]) <= 49 and row["attempt"] == "0"
        c, number = CATEGORIES.index(row["category"]), int(row["file_name"][-9:-4])
        assert row["seed"] == f"0 {c} {number}"
        lowest, highest = (0.6 if c < 6 else 1), 1.5
        assert all(lowest <= float(zoom) <= highest for zoom in row["zoom"].split(";"))
    interior = [row for row in read_rows(testset / "test" / "metadata.csv") if row["category"].startswith("interior")]
    assert min(int(row["border_distance"]) for row in interior) < 56  # up to the border line
    assert any(float(zoom) < 1 for row in interior for zoom in row["zoom"].split(";"))  # some are shrunk to fit


def test_most_masks_start_from_the_raw_mask_of_their_task(raw, testset):
    by_size = sorted(read_rows(raw / "test" / "metadata.csv"), key=lambda row: float(row["hole_ratio"]))
    rows = {row["file_name"]: row for row in read_rows(testset / "test" / "metadata.csv")}
    starts = [
        rows[task.file_name]["raw"].split(";")[0] == by_size[task.rank]["file_name"] for task in mask_tasks(CONFIG, 40)
    ]
    assert np.mean(starts) > 0.8


def test_another_seed_makes_other_masks(raw, testset, tmp_path):
    make_testset(raw, tmp_path / "other", FillConfig(per_category=2, seed=1), workers=1)
    name = "test/free_0.1-0.2/00000.png"
    assert (tmp_path / "other" / name).read_bytes() != (testset / name).read_bytes()


class Stop(Exception):
    """Interrupts a run."""


def test_an_interrupted_run_is_resumed_to_the_same_bytes(raw, tmp_path, monkeypatch):
    config = FillConfig(
        per_category=1, alike=0.3
    )  # so low that some masks are made again, some of them without success
    make_testset(raw, tmp_path / "whole", config, workers=1)
    add, added = Journal.add, []

    def fails(journal, row):
        add(journal, row)
        added.append(row)
        if len(added) % 5 == 0:
            raise Stop

    stops = 0
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", fails)
        while not (tmp_path / "out" / "recipe.json").exists():
            with suppress(Stop):
                make_testset(raw, tmp_path / "out", config, workers=1)
                stops -= 1
            stops += 1
    assert stops > 4 and any("alike" in row for row in added)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


KILLED = """
import os, pathlib, signal, sys
from maskgen import generated_set, settings
from maskgen.testset import run
def kill(*args): os.kill(os.getpid(), signal.SIGKILL)
setattr(*{"masks": (run, "near_duplicates"), "index": (generated_set, "write_checksums")}[sys.argv[3]], kill)
raw, out = map(pathlib.Path, sys.argv[1:3])
run.make_testset(raw, out, settings.FillConfig(per_category=2), workers=1)
"""


@pytest.mark.parametrize("when", ["masks", "index"])
def test_a_killed_run_is_resumed_to_the_same_bytes(raw, testset, tmp_path, monkeypatch, when):
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", KILLED, raw, out, when], cwd=ROOT, capture_output=True)
    assert done.returncode == -signal.SIGKILL and len(list(out.rglob("*.png"))) == 24
    # As after a power cut: one mask missing, one half-written, a line of the journal truncated.
    (out / "test" / "free_0.1-0.2" / "00000.png").unlink()
    (out / "test" / "free_0.1-0.2" / "00001.png").write_bytes(b"half")
    if when == "masks":
        with (out / ".progress" / "made.jsonl").open("a") as journal:
            journal.write('{"file_na')
    made = []
    monkeypatch.setattr(
        "maskgen.testset.run.make_mask", lambda task, *rest, **more: made.append(task) or make_mask(task, *rest)
    )
    make_testset(raw, out, CONFIG, workers=1)
    assert contents(out) == contents(testset) and [task.file_name[-9:] for task in made] == ["00000.png", "00001.png"]


def test_a_finished_set_is_not_touched(raw, testset):
    before, lines = contents(testset), []
    make_testset(raw, testset, CONFIG, workers=1, say=lines.append)
    assert contents(testset) == before and lines == [f"{testset} is already complete"]


@pytest.mark.parametrize("lost", ["test/free_0.1-0.2/00001.png", "test/metadata.csv", "CREDITS.md", "checksums.sha256"])
@pytest.mark.parametrize("loss", ["deleted", "changed"])
def test_missing_and_changed_files_of_a_finished_set_are_made_again(raw, testset, tmp_path, lost, loss):
    out = shutil.copytree(testset, tmp_path / "set")
    if loss == "deleted":
        (out / lost).unlink()
    else:
        (out / lost).write_bytes((out / lost).read_bytes().replace(b"1", b"2"))
    lines = []
    make_testset(raw, out, CONFIG, workers=1, say=lines.append)
    assert contents(out) == contents(testset) and not lines


CHANGES = {  # what is changed: the message that refuses it
    "seed": "seed was 0, is 1",
    "preset": "preset was nvidia, is nvidia-old",
    "per_category": "per_category was 2, is 3",
    "layers": "layers was 32, is 33",
    "pixel of a raw mask": "raw_masks: sha256 was",
    "frame in the raw index": "raw_masks: sha256 was",
    "raw mask less": "raw_masks: number was 40, is 39",
    "numpy": "libraries: numpy was .*, is 99",
    "opencv": "libraries: opencv was .*, is 99",
    "version": "version was .*, is 99",
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_of_anything_that_decides_the_result_is_refused_by_name(raw, testset, tmp_path, monkeypatch, what):
    raw, out = shutil.copytree(raw, tmp_path / "raw"), shutil.copytree(testset, tmp_path / "set")
    config, before = CONFIG, contents(out)
    if what in ("seed", "per_category", "layers"):
        config = replace(config, **{what: getattr(config, what) + 1})
    elif what == "preset":
        config = replace(config, preset="nvidia-old")
    elif what == "pixel of a raw mask":
        path = next((raw / "test").rglob("*.png"))
        hole = read_hole(path)
        hole[0, 0] = ~hole[0, 0]
        path.write_bytes(encode(hole))
    elif what in ("frame in the raw index", "raw mask less"):
        index = raw / "test" / "metadata.csv"
        lines = index.read_text().splitlines(keepends=True)
        index.write_text("".join(lines[:-1]) + (lines[-1].replace(",39,", ",38,") if what[0] == "f" else ""))
    elif what == "numpy":
        monkeypatch.setattr("maskgen.runtime.recipe.version", lambda name: "99")
    elif what == "opencv":
        monkeypatch.setattr(cv2, "__version__", "99")
    else:
        monkeypatch.setattr("maskgen.runtime.output.__version__", "99")
    with pytest.raises(BadInput, match=rf"set was created with other settings \({CHANGES[what]}"):
        make_testset(raw, out, config, workers=1)
    assert contents(out) == before


def test_a_folder_with_other_files_is_refused(raw, tmp_path):
    (tmp_path / "thesis.tex").write_text("dear")
    with pytest.raises(BadInput, match="not empty"):
        make_testset(raw, tmp_path, CONFIG, workers=1)


def test_the_recipe_credits_the_videos_that_were_used(testset):
    sources = json.loads((testset / "recipe.json").read_text())["sources"]
    assert [source["name"] for source in sources] == ["clip0.mp4", "clip1.mp4"]
    assert sources[0]["licence"] == "CC-BY-4.0"


def test_ratios_are_spread_evenly_over_each_interval():
    tasks = mask_tasks(FillConfig(per_category=100), 50)
    for c, name in enumerate(CATEGORIES):
        low, high = EDGES[c % 6], EDGES[c % 6 + 1]
        ratios = np.sort([task.ratio for task in tasks if task.category == c])
        assert low < ratios[0] and ratios[-1] <= high, name
        # One ratio in each hundredth of the interval, so the k-th lies within a step of its place.
        steps = (ratios - low) / (high - low) * 100
        assert (np.abs(steps - (np.arange(100) + 0.5)) <= 0.51).all(), name


def test_ratios_are_whole_pixels_above_the_lower_edge_however_many_there_are():
    for name, tasks in by_class(mask_tasks(FillConfig(per_category=4000, size=448), 50)).items():
        pixels = np.array([task.ratio for task in tasks]) * 448**2
        assert np.abs(pixels - np.round(pixels)).max() < 1e-6
        low, high = (float(edge) * 448**2 for edge in name.split("_")[1].split("-"))
        assert np.floor(low) + 1 <= pixels.min() + 1e-6 and pixels.max() <= high + 1e-6
        assert pixels.min() < low + 30 and pixels.max() > high - 30


def by_class(tasks):
    return {name: [task for task in tasks if CATEGORIES[task.category] == name] for name in CATEGORIES}


def test_one_seed_gives_one_set_of_tasks_and_each_class_has_its_own_ratios():
    config = FillConfig(per_category=30)
    tasks, others = mask_tasks(config, 50), mask_tasks(replace(config, seed=1), 50)
    assert tasks == mask_tasks(config, 50) and not any(task.attempt for task in tasks)
    assert [task.rank for task in tasks] != [task.rank for task in others]
    for name, same_class in by_class(others).items():
        ratios = {task.ratio for task in same_class}
        assert len(ratios & {task.ratio for task in by_class(tasks)[name]}) < 10
    interior, free = ([task.ratio for task in by_class(tasks)[f"{side}_0.1-0.2"]] for side in ("interior", "free"))
    assert len(set(interior) & set(free)) < 10


def test_fewer_masks_than_raw_masks_start_from_different_ones_of_all_sizes():
    ranks = [task.rank for task in mask_tasks(FillConfig(per_category=5), 1000)]
    assert len(set(ranks)) == 60 and min(ranks) < 100 and max(ranks) >= 900


def test_ratios_come_in_no_order_within_a_class():
    tasks = mask_tasks(FillConfig(per_category=200), 50)
    for c in range(12):
        numbers, ratios = zip(*((task.number, task.ratio) for task in tasks if task.category == c), strict=True)
        assert list(numbers) == list(range(200)) and abs(np.corrcoef(numbers, ratios)[0, 1]) < 0.25


def test_all_raw_masks_start_the_same_number_of_masks():
    uses = Counter(task.rank for task in mask_tasks(FillConfig(per_category=100), 70)).values()
    assert len(uses) == 70 and max(uses) - min(uses) <= 1


def test_small_raw_masks_start_small_holes():
    tasks = mask_tasks(FillConfig(per_category=100), 1000)
    correlation = stats.spearmanr([task.rank for task in tasks], [task.ratio for task in tasks]).statistic
    assert 0.7 < correlation < 0.97  # with some disorder


def save(folder, holes):
    """Write holes as masks of one class. Returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:05d}.png" for i in range(len(holes))]
    for path, hole in zip(paths, holes, strict=True):
        path.write_bytes(encode(hole))
    return paths


def checkers(seed, cells=8):
    """Random squares over the whole mask."""
    squares = np.random.default_rng(seed).integers(0, 2, (cells, cells))
    return np.kron(squares, np.ones((512 // cells, 512 // cells))).astype(bool)


def correlation(one, other, rim=0):
    """Of two thumbnails of 32 x 32 px without their rim, by numpy and scikit-image."""
    inner = slice(rim, 32 - rim)
    thumbnails = [downscale_local_mean(hole.astype(float), (16, 16))[inner, inner].ravel() for hole in (one, other)]
    return np.corrcoef(thumbnails)[0, 1]


def test_a_copy_is_a_near_duplicate_and_other_masks_are_not(tmp_path):
    holes = [checkers(seed) for seed in (1, 2, 1)]
    duplicates, closest = near_duplicates(save(tmp_path / "free_0.1-0.2", holes), 0.95)
    assert duplicates == [2] and closest == pytest.approx(max(0, correlation(holes[0], holes[1])), abs=1e-5)


def test_masks_are_near_duplicates_from_the_limit_on(tmp_path):
    one = checkers(1)
    other = one ^ (checkers(2) & checkers(3))
    paths, exact = save(tmp_path / "free_0.1-0.2", [one, other]), correlation(one, other)
    assert near_duplicates(paths, exact - 0.001) == ([1], 0)
    assert near_duplicates(paths, exact + 0.001) == ([], pytest.approx(exact, abs=1e-5))


def test_interior_masks_are_compared_without_the_rim_that_is_valid_in_all(tmp_path):
    inside = np.zeros((512, 512), bool)
    inside[50:462, 50:462] = True
    one = inside & (checkers(1) | checkers(2) | checkers(3))
    other = inside & (checkers(4) | checkers(5) | checkers(6))
    # The rim of 32 * 50 / 512 = 3 px of the thumbnail makes them far more alike than they are.
    within, whole = correlation(one, other, rim=3), correlation(one, other)
    assert whole > within + 0.1
    for folder, exact in (("interior_0.5-0.6", within), ("free_0.5-0.6", whole)):
        paths = save(tmp_path / folder, [one, other])
        assert near_duplicates(paths, (within + whole) / 2)[0] == ([1] if exact == whole else [])
        assert near_duplicates(paths, 1)[1] == pytest.approx(max(0, exact), abs=1e-5)


def test_interior_and_free_masks_are_not_compared_with_each_other(tmp_path):
    hole = checkers(1) & checkers(2)
    paths = [*save(tmp_path / "interior_0.1-0.2", [hole]), *save(tmp_path / "free_0.1-0.2", [hole])]
    assert near_duplicates(paths, 0.95) == ([], 0)


def test_near_duplicates_of_both_kinds_are_given_in_the_order_of_the_masks(tmp_path):
    free = save(tmp_path / "free_0.1-0.2", [checkers(seed) for seed in (1, 2, 1)])
    interior = save(tmp_path / "interior_0.1-0.2", [checkers(seed) for seed in (3, 3)])
    assert near_duplicates([*free[:2], *interior, free[2]], 0.95)[0] == [3, 4]
    assert near_duplicates([*interior[:1], *free, interior[1]], 0.95)[0] == [3, 4]


@pytest.mark.parametrize("block", [1, 2, 3, 100])
def test_near_duplicates_are_found_among_any_number_of_masks(tmp_path, monkeypatch, block):
    monkeypatch.setattr("maskgen.testset.near_duplicates.BLOCK", block)
    holes = [checkers(seed) for seed in (0, 1, 2, 1, 3, 0, 4, 0)]
    duplicates, closest = near_duplicates(save(tmp_path / "free_0.1-0.2", holes), 0.95)
    pairs = [correlation(holes[i], holes[k]) for i in range(8) for k in range(i)]
    assert duplicates == [3, 5, 7] and closest == pytest.approx(max(c for c in pairs if c < 0.95), abs=1e-5)


def test_blank_masks_correlate_with_nothing(tmp_path):
    paths = save(tmp_path / "free_0.1-0.2", [np.zeros((512, 512), bool), np.ones((512, 512), bool), checkers(1)])
    with pytest.warns(InputWarning, match="covers the whole image"):
        assert near_duplicates(paths, 0.5) == ([], 0)


def raw_set(folder, holes):
    """Write a raw mask set. Returns its folder."""
    rows = []
    for i, hole in enumerate(holes):
        data, name = encode(hole), f"clip/{i:06d}.png"
        (folder / "test" / "clip").mkdir(parents=True, exist_ok=True)
        (folder / "test" / name).write_bytes(data)
        rows.append({**describe(hole, name, data), "source": "clip.mp4"})
    write_index(folder / "test", rows)
    return folder


def square(side, top, left, height=512, width=512):
    hole = np.zeros((height, width), bool)
    hole[top : top + side, left : left + side] = True
    return hole


def scattered(side, count=20):
    """Squares at random places, one in each mask."""
    rng = np.random.default_rng(0)
    return [square(side, *rng.integers(0, 512 - side, 2)) for _ in range(count)]


FEW = {  # raw masks from which the usual draws cannot make all classes
    "specks": (scattered(60), {"layers": 8}),
    "specks in one corner": ([square(60 + i, 0, 0) for i in range(20)], {"layers": 8}),
    "specks in the centre": ([square(60 + i, 220, 220) for i in range(20)], {"layers": 8}),
    "large blots": ([square(330 + i, 60, 60) for i in range(20)], {}),
    "one mask": ([streaks(3, pieces=3)], {"layers": 6}),
    "other sizes": ([np.kron(square(2, i % 6, 3, 10, 8), np.ones((9, 7), bool)) for i in range(20)], {"layers": 4}),
    "some empty": ([*scattered(60, 18), square(0, 0, 0), square(0, 0, 0)], {"layers": 8}),
}


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("kind", FEW)
def test_few_raw_masks_fill_every_class(tmp_path, kind):
    holes, settings = FEW[kind]
    raw, lines = raw_set(tmp_path / "raw", holes), []
    config = FillConfig(per_category=1, **settings)
    recipe = make_testset(raw, tmp_path / "out", config, workers=1, say=lines.append)
    assert recipe["counts"] == dict.fromkeys(CATEGORIES, 1) and not recipe["missing"] and not lines
    assert find_faults(tmp_path / "out", workers=1) == (12, [])


def test_few_raw_masks_give_the_same_bytes_for_two_workers_as_for_one(tmp_path):
    raw, config = raw_set(tmp_path / "raw", scattered(60)), FillConfig(per_category=1, layers=8)
    for workers in (1, 2):
        make_testset(raw, tmp_path / f"{workers}", config, workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_a_class_that_cannot_be_filled_is_reported(tmp_path):
    raw, lines = raw_set(tmp_path / "raw", scattered(30)), []
    config = FillConfig(per_category=1, layers=1)
    recipe = make_testset(raw, tmp_path / "out", config, workers=1, say=lines.append)
    short = [name for name in CATEGORIES if not recipe["counts"][name]]
    assert "interior_0.5-0.6" in short and len(short) < 12
    assert recipe["missing"] == {name: {"not_made": 1} for name in short}
    assert [line.split(":")[0] for line in lines] == [f"{name} has 0 of 1 masks" for name in short]
    assert all("raw masks from videos with" in line for line in lines)
    assert find_faults(tmp_path / "out", workers=1) == (12 - len(short), [])
    again = []
    make_testset(raw, tmp_path / "out", config, workers=1, say=again.append)
    assert again == [f"{tmp_path / 'out'} is already complete", *lines]


def test_masks_that_stay_near_duplicates_are_left_out_and_reported(raw, tmp_path):
    lines = []
    recipe = make_testset(raw, tmp_path, FillConfig(per_category=1, alike=0.3), workers=1, say=lines.append)
    assert recipe["missing"] and recipe["closest_pair"] < 0.3
    assert all(missing == {"like_others": 1} for missing in recipe["missing"].values())
    assert len(lines) == len(recipe["missing"]) and "has 0 of 1 masks: 1 looked like others" in lines[0]
    assert find_faults(tmp_path, workers=1) == (sum(recipe["counts"].values()), [])
    attempts = [int(row["attempt"]) for row in read_rows(tmp_path / "test" / "metadata.csv")]
    assert 0 < max(attempts) <= 5  # others were made again with success


def test_raw_masks_without_a_hole_are_refused_and_leave_no_folder(tmp_path):
    raw = raw_set(tmp_path / "raw", [square(0, 0, 0)] * 3)
    with pytest.raises(BadInput, match="masks without any hole"):
        make_testset(raw, tmp_path / "out", CONFIG, workers=1)
    (raw / "test" / "metadata.csv").write_text(
        (raw / "test" / "metadata.csv").read_text().replace("0.000000", "0.100000")
    )
    with pytest.raises(BadInput, match="none of the 3 raw masks"):
        make_testset(raw, tmp_path / "out", replace(CONFIG, layers=1), workers=1)
    assert not (tmp_path / "out").exists()


def test_a_missing_raw_mask_is_named(raw, tmp_path):
    raw = shutil.copytree(raw, tmp_path / "raw")
    (raw / "test" / "clip1" / "000003_occluded.png").unlink()
    with pytest.raises(BadInput, match=r"lists clip1/000003_occluded\.png, which is missing"):
        make_testset(raw, tmp_path / "out", CONFIG, workers=1)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_an_index_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"no metadata\.csv"):
        make_testset(tmp_path, tmp_path / "out", CONFIG, workers=1)


def test_the_command_succeeds_although_a_class_is_incomplete(raw, tmp_path, monkeypatch):
    def fails(task, *rest, **more):
        return make_mask(task, *rest, **more) if task.category < 11 else None

    monkeypatch.setattr("maskgen.testset.run.make_mask", fails)
    done = CliRunner().invoke(maskgen, ["testset", str(raw), str(tmp_path / "out"), "--per-category=1", "--workers=1"])
    assert done.exit_code == 0 and "free_0.5-0.6 has 0 of 1 masks: 1 could not be made" in done.stderr
    assert done.stdout.startswith("11 masks in 11 classes in ") and "of the 5 free ones" in done.stdout


def test_the_command_reports_how_many_masks_touch_the_edge(raw, tmp_path):
    code = "import cli; cli.maskgen(['testset', *__import__('sys').argv[1:], '--per-category', '1', '--workers', '1'])"
    command = [sys.executable, "-c", code, raw, tmp_path / "out"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0 and run.stdout.startswith("12 masks in 12 classes in ")
    assert "of the 6 free ones touch the image edge" in run.stdout
