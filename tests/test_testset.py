import csv
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.measure import label

from maskgen.categories import CATEGORIES, clipped, outline
from maskgen.errors import BadInput
from maskgen.maskset import encode
from maskgen.settings import EDGES, FillConfig
from maskgen.testset import alike, make_testset, plan
from tests.rawmasks import draw, write_raw

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


def test_an_interrupted_run_goes_on_to_the_same_bytes(raw, testset, tmp_path):
    out = tmp_path / "testset"
    make_testset(raw, out, CONFIG, workers=1)
    # As a kill leaves it: no index, a journal cut off in the middle of a line, a mask missing and one half-written.
    rows = list(csv.DictReader((out / "test" / "metadata.csv").open()))
    recipe = json.loads((out / "recipe.json").read_text())
    head = {key: recipe[key] for key in ("settings", "raw_sha256")}
    lines = [json.dumps(line) + "\n" for line in (head, *rows[:9])]
    (out / "test" / "made.jsonl").write_text("".join(lines) + '{"file_na')
    for name in ("recipe.json", "checksums.sha256", "test/metadata.csv", f"test/{rows[2]['file_name']}"):
        (out / name).unlink()
    (out / "test" / rows[3]["file_name"]).write_bytes(b"half")
    make_testset(raw, out, CONFIG, workers=1)
    assert contents(out) == contents(testset)


def test_a_finished_set_is_left_as_it_is(raw, testset):
    before = contents(testset)
    make_testset(raw, testset, CONFIG, workers=1)
    assert contents(testset) == before


def test_other_settings_do_not_mix_with_what_is_there(raw, testset):
    with pytest.raises(BadInput, match="other settings"):
        make_testset(raw, testset, FillConfig(per_category=3), workers=1)


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


def test_raw_masks_too_small_for_any_class_end_in_one_line(tmp_path):
    raw = write_raw(tmp_path / "raw", 2)
    hole = np.zeros((512, 512), bool)
    hole[0, 0] = True
    for path in (raw / "test").rglob("*.png"):
        path.write_bytes(encode(hole))
    with pytest.raises(BadInput, match="extract more raw"):
        make_testset(raw, tmp_path / "out", FillConfig(per_category=1, layers=2), workers=1)


def test_a_folder_without_an_index_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"no metadata\.csv"):
        make_testset(tmp_path, tmp_path / "out", CONFIG, workers=1)


def test_the_command_makes_the_set_and_says_how_many_touch_the_edge(raw, tmp_path):
    code = "import cli; cli.maskgen(['testset', *__import__('sys').argv[1:], '--per-category', '1', '--workers', '1'])"
    command = [sys.executable, "-c", code, raw, tmp_path / "out"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert run.returncode == 0 and run.stdout.startswith("12 masks of 12 classes in ")
    assert "of the 6 free ones touch the image edge" in run.stdout
