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
import pytest
from click.testing import CliRunner
from skimage.measure import label

from maskgen.categories import CATEGORIES, clipped, outline
from maskgen.commands import maskgen
from maskgen.errors import BadInput
from maskgen.fill import make_one
from maskgen.likeness import alike
from maskgen.maskset import describe, encode, read_hole, write_index
from maskgen.runtime.journal import Journal
from maskgen.settings import EDGES, FillConfig
from maskgen.testset import make_testset, plan
from maskgen.verify import find_faults
from tests.rawmasks import draw, streaks, write_raw

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


def test_every_mask_is_in_its_class_by_a_second_measurement(testset):
    # Nothing of maskgen measures here: ratio, distance and pieces come from numpy and scikit-image.
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


def test_another_seed_makes_other_masks(raw, testset, tmp_path):
    make_testset(raw, tmp_path / "other", FillConfig(per_category=2, seed=1), workers=1)
    name = "test/free_0.1-0.2/00000.png"
    assert (tmp_path / "other" / name).read_bytes() != (testset / name).read_bytes()


class Stop(Exception):
    """What interrupts a run in these tests."""


def test_a_run_interrupted_again_and_again_goes_on_to_the_same_bytes(raw, tmp_path, monkeypatch):
    config = FillConfig(per_category=1, alike=0.3)  # so low that some masks are made anew, and some of those in vain
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
from maskgen import making, settings, testset
def kill(*args): os.kill(os.getpid(), signal.SIGKILL)
setattr(*{"masks": (testset, "alike"), "index": (making, "write_checksums")}[sys.argv[3]], kill)
raw, out = map(pathlib.Path, sys.argv[1:3])
testset.make_testset(raw, out, settings.FillConfig(per_category=2), workers=1)
"""


@pytest.mark.parametrize("when", ["masks", "index"])
def test_a_run_ended_by_kill_9_goes_on_to_the_same_bytes(raw, testset, tmp_path, monkeypatch, when):
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", KILLED, raw, out, when], cwd=ROOT, capture_output=True)
    assert done.returncode == -signal.SIGKILL and len(list(out.rglob("*.png"))) == 24
    # As a power cut leaves it: a mask missing, one half-written, a line of the journal cut off.
    (out / "test" / "free_0.1-0.2" / "00000.png").unlink()
    (out / "test" / "free_0.1-0.2" / "00001.png").write_bytes(b"half")
    if when == "masks":
        with (out / ".progress" / "made.jsonl").open("a") as journal:
            journal.write('{"file_na')
    made = []
    monkeypatch.setattr(
        "maskgen.testset.make_one", lambda task, *how, **more: made.append(task) or make_one(task, *how)
    )
    make_testset(raw, out, CONFIG, workers=1)
    assert contents(out) == contents(testset) and [task.file_name[-9:] for task in made] == ["00000.png", "00001.png"]


def test_a_finished_set_is_left_as_it_is(raw, testset):
    before, said = contents(testset), []
    make_testset(raw, testset, CONFIG, workers=1, say=said.append)
    assert contents(testset) == before and said == [f"{testset} is already complete"]


@pytest.mark.parametrize("lost", ["test/free_0.1-0.2/00001.png", "test/metadata.csv", "CREDITS.md", "checksums.sha256"])
@pytest.mark.parametrize("how", ["deleted", "changed"])
def test_what_a_finished_set_has_lost_is_made_again(raw, testset, tmp_path, lost, how):
    out = shutil.copytree(testset, tmp_path / "set")
    if how == "deleted":
        (out / lost).unlink()
    else:
        (out / lost).write_bytes((out / lost).read_bytes().replace(b"1", b"2"))
    said = []
    make_testset(raw, out, CONFIG, workers=1, say=said.append)
    assert contents(out) == contents(testset) and not said


CHANGES = {  # what is changed, and the words by which it is refused
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
def test_a_change_of_whatever_decides_the_result_is_refused_by_name(raw, testset, tmp_path, monkeypatch, what):
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


def test_a_folder_with_something_else_is_refused(raw, tmp_path):
    (tmp_path / "thesis.tex").write_text("dear")
    with pytest.raises(BadInput, match="not empty"):
        make_testset(raw, tmp_path, CONFIG, workers=1)


def test_the_recipe_credits_the_videos_that_were_used(testset):
    sources = json.loads((testset / "recipe.json").read_text())["sources"]
    assert [source["name"] for source in sources] == ["clip0.mp4", "clip1.mp4"]
    assert sources[0]["licence"] == "CC-BY-4.0"


def test_ratios_are_spread_evenly_over_each_interval():
    tasks = plan(FillConfig(per_category=100), 50)
    for c, name in enumerate(CATEGORIES):
        low, high = EDGES[c % 6], EDGES[c % 6 + 1]
        ratios = np.sort([task.ratio for task in tasks if task.category == c])
        assert low < ratios[0] and ratios[-1] <= high, name
        # One ratio in each hundredth of the interval, so the k-th lies within a step of its place.
        steps = (ratios - low) / (high - low) * 100
        assert (np.abs(steps - (np.arange(100) + 0.5)) <= 0.51).all(), name


def test_every_raw_mask_begins_as_many_masks_as_any_other():
    uses = Counter(task.rank for task in plan(FillConfig(per_category=100), 70)).values()
    assert len(uses) == 70 and max(uses) - min(uses) <= 1


def test_small_raw_masks_begin_small_holes():
    tasks = plan(FillConfig(per_category=100), 1000)
    assert np.corrcoef([task.rank for task in tasks], [task.ratio for task in tasks])[0, 1] > 0.7


def test_a_mask_and_its_copy_are_alike_and_others_are_not(tmp_path):
    (tmp_path / "free_0.1-0.2").mkdir()
    paths = []
    for i, seed in enumerate((1, 2, 1)):
        rng = np.random.default_rng(seed)
        hole = cv2.resize(rng.integers(0, 2, (8, 8), np.uint8), (512, 512), interpolation=cv2.INTER_NEAREST)
        paths.append(tmp_path / "free_0.1-0.2" / f"{i:05d}.png")
        paths[-1].write_bytes(encode(hole.astype(bool)))
    later, closest = alike(paths, 0.95)
    assert later == [2] and closest < 0.6


def test_an_outline_is_the_hole_beside_valid_pixels():
    hole = draw(".....", ".###.", ".###.", ".###.", ".....")
    assert (outline(hole) == draw(".....", ".###.", ".#.#.", ".###.", ".....")).all()
    assert not outline(np.ones((4, 4), bool)).any()  # the image edge is no neighbour


def test_a_square_on_the_border_line_is_all_clipped():
    hole = np.zeros((512, 512), bool)
    hole[50:462, 50:462] = True
    # Four sides of 412 px, and the outline counts their corners once.
    assert clipped(hole) == pytest.approx(4 * 412 / (4 * 412 - 4))


def test_a_diamond_is_not_clipped_and_one_straight_side_is():
    y, x = np.mgrid[:512, :512]
    diamond = abs(y - 256) + abs(x - 256) <= 200
    assert clipped(diamond) == 0
    cut = diamond | ((y >= 60) & (y < 64) & (abs(x - 256) < 20))
    assert 0 < clipped(cut) < 0.1


def of_holes(folder, holes):
    """A raw mask set of these holes."""
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
    """Squares at random places, one to a mask."""
    rng = np.random.default_rng(0)
    return [square(side, *rng.integers(0, 512 - side, 2)) for _ in range(count)]


FEW = {  # raw masks of which the usual draws cannot make all classes
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
    raw, said = of_holes(tmp_path / "raw", holes), []
    config = FillConfig(per_category=1, **settings)
    recipe = make_testset(raw, tmp_path / "out", config, workers=1, say=said.append)
    assert recipe["counts"] == dict.fromkeys(CATEGORIES, 1) and not recipe["missing"] and not said
    assert find_faults(tmp_path / "out", workers=1) == (12, [])


def test_few_raw_masks_give_the_same_bytes_for_two_workers_as_for_one(tmp_path):
    raw, config = of_holes(tmp_path / "raw", scattered(60)), FillConfig(per_category=1, layers=8)
    for workers in (1, 2):
        make_testset(raw, tmp_path / f"{workers}", config, workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_a_class_that_cannot_be_filled_is_left_short_and_said(tmp_path):
    raw, said = of_holes(tmp_path / "raw", scattered(30)), []
    config = FillConfig(per_category=1, layers=1)
    recipe = make_testset(raw, tmp_path / "out", config, workers=1, say=said.append)
    short = [name for name in CATEGORIES if not recipe["counts"][name]]
    assert "interior_0.5-0.6" in short and len(short) < 12
    assert recipe["missing"] == {name: {"not_made": 1} for name in short}
    assert [line.split(":")[0] for line in said] == [f"{name} has 0 of 1 masks" for name in short]
    assert all("raw masks from videos with" in line for line in said)
    assert find_faults(tmp_path / "out", workers=1) == (12 - len(short), [])
    again = []
    make_testset(raw, tmp_path / "out", config, workers=1, say=again.append)
    assert again == [f"{tmp_path / 'out'} is already complete", *said]


def test_masks_that_stay_alike_are_left_out_and_said(raw, tmp_path):
    said = []
    recipe = make_testset(raw, tmp_path, FillConfig(per_category=1, alike=0.3), workers=1, say=said.append)
    assert recipe["missing"] and recipe["closest_pair"] < 0.3
    assert all(missing == {"like_others": 1} for missing in recipe["missing"].values())
    assert len(said) == len(recipe["missing"]) and "has 0 of 1 masks: 1 looked like others" in said[0]
    assert find_faults(tmp_path, workers=1) == (sum(recipe["counts"].values()), [])


def test_raw_masks_without_a_hole_end_in_one_line_and_claim_nothing(tmp_path):
    raw = of_holes(tmp_path / "raw", [square(0, 0, 0)] * 3)
    with pytest.raises(BadInput, match="masks without any hole"):
        make_testset(raw, tmp_path / "out", CONFIG, workers=1)
    (raw / "test" / "metadata.csv").write_text(
        (raw / "test" / "metadata.csv").read_text().replace("0.000000", "0.100000")
    )
    with pytest.raises(BadInput, match="none of the 3 raw masks"):
        make_testset(raw, tmp_path / "out", replace(CONFIG, layers=1), workers=1)
    assert not (tmp_path / "out").exists()


def test_what_an_index_lists_in_vain_is_named(raw, tmp_path):
    raw = shutil.copytree(raw, tmp_path / "raw")
    (raw / "test" / "clip1" / "000003_occluded.png").unlink()
    with pytest.raises(BadInput, match=r"lists clip1/000003_occluded\.png, which is not there"):
        make_testset(raw, tmp_path / "out", CONFIG, workers=1)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_an_index_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"no metadata\.csv"):
        make_testset(tmp_path, tmp_path / "out", CONFIG, workers=1)


def test_a_class_left_short_is_no_failure_of_the_command(raw, tmp_path, monkeypatch):
    def fails(task, *how, **few):
        return make_one(task, *how, **few) if task.category < 11 else None

    monkeypatch.setattr("maskgen.testset.make_one", fails)
    done = CliRunner().invoke(maskgen, ["testset", str(raw), str(tmp_path / "out"), "--per-category=1", "--workers=1"])
    assert done.exit_code == 0 and "free_0.5-0.6 has 0 of 1 masks: 1 could not be made" in done.stderr
    assert done.stdout.startswith("11 masks in 11 classes in ") and "of the 5 free ones" in done.stdout


def test_the_command_makes_the_set_and_says_how_many_touch_the_edge(raw, tmp_path):
    code = "import cli; cli.maskgen(['testset', *__import__('sys').argv[1:], '--per-category', '1', '--workers', '1'])"
    command = [sys.executable, "-c", code, raw, tmp_path / "out"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0 and run.stdout.startswith("12 masks in 12 classes in ")
    assert "of the 6 free ones touch the image edge" in run.stdout
