"""The steps of the test set one by one, on tiny drawings."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from maskgen.augment.composition import Target
from maskgen.augment.placement import Placement
from maskgen.categories import CATEGORIES
from maskgen.errors import BadInput
from maskgen.maskset import describe, encode, read_hole, write_index
from maskgen.runtime.journal import Journal
from maskgen.settings import PRESETS, FillConfig
from maskgen.testset import one_mask, run
from maskgen.testset.one_mask import are_scarce, list_raw_masks, make_mask
from maskgen.testset.tasks import MaskTask
from tests.rawmasks import draw

CONFIG = FillConfig()
TASK = MaskTask(category=7, number=3, ratio=0.15, rank=40)  # free_0.1-0.2
MIDDLE = (512 - 1) / 2
IN_PLACE = Placement(False, 0, 1, MIDDLE, MIDDLE)


def rows_of(top, bottom):
    """A hole of whole rows of a 512 px mask."""
    hole = np.zeros((512, 512), bool)
    hole[top:bottom] = True
    return hole


# Raw masks.


def write_masks(folder, holes):
    """Write raw masks and their index. Returns what `make_mask` takes: the folder and its hash."""
    rows = []
    for i, hole in enumerate(holes):
        name, data = f"{i:03d}.png", encode(hole)
        (folder / name).write_bytes(data)
        rows.append({**describe(hole, name, data), "source": f"{i}.mp4", "frame": i, "kind": "occluded"})
    write_index(folder, rows)
    return str(folder), list_raw_masks(folder)[1]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """100 raw masks of 1 to 100 hole pixels, in disorder: the rank of each is its number of hole pixels less one."""
    sizes = np.random.default_rng(0).permutation(100) + 1
    return write_masks(tmp_path_factory.mktemp("raw"), [(np.arange(256) < n).reshape(16, 16) for n in sizes])


def test_raw_masks_are_listed_in_the_order_of_their_index_with_a_hash_of_their_bytes(tmp_path):
    holes = [draw("##", ".."), draw("#.", "..")]
    _, digest = write_masks(tmp_path, holes)
    assert list_raw_masks(tmp_path) == (["000.png", "001.png"], digest)
    (tmp_path / "other.png").write_bytes(encode(holes[0]))  # is not in the index
    assert list_raw_masks(tmp_path)[1] == digest
    (tmp_path / "001.png").write_bytes(encode(holes[0]))
    assert list_raw_masks(tmp_path)[1] != digest


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("file_name,hole_ratio\n", r"metadata\.csv has no masks: expected raw masks"),
        ("file_name,category\na.png,\n", r"metadata\.csv has no column hole_ratio: expected raw masks"),
        ("file_name,hole_ratio\na.png,0\n", r"metadata\.csv lists masks without any hole"),
        ("file_name,hole_ratio\na.png,0.1\nb.png,0.1\n", r"metadata\.csv lists b\.png, which is missing"),
    ],
)
def test_an_unusable_index_is_refused(tmp_path, index, message):
    (tmp_path / "a.png").write_bytes(encode(draw("#.")))
    (tmp_path / "metadata.csv").write_text(index)
    with pytest.raises(BadInput, match=f"^{tmp_path}/{message}"):
        list_raw_masks(tmp_path)


# One mask.


def test_a_place_beyond_an_end_is_reflected_back_inside():
    assert [one_mask._reflect(place, 4) for place in range(12)] == [0, 1, 2, 3, 3, 2, 1, 0, 0, 1, 2, 3]
    assert [one_mask._reflect(place, 4) for place in (-1, -3, -4, -9)] == [1, 3, 3, 1]


def composed_draw(monkeypatch, draw, source, *, task=TASK, config=CONFIG, layers=1, made=None):
    """What `_make_from_draw` asks of `compose` for one draw, the sizes of the raw masks it gives, and its result."""
    asked = SimpleNamespace(drawn={})

    def compose(draw_raw, target, preset, rng, parts=None):
        asked.sizes = [np.count_nonzero(draw_raw(layer)) for layer in range(layers)]
        asked.target, asked.preset, asked.chance, asked.parts = target, preset, rng.random(), parts
        return made

    monkeypatch.setattr(one_mask, "compose", compose)
    monkeypatch.setattr(one_mask, "compose_from_many", compose)
    asked.result = one_mask._make_from_draw(task, draw, source, config, asked.drawn)
    asked.ranks = np.array(asked.sizes) - 1
    return asked


def test_the_first_draws_start_from_the_raw_mask_of_the_task_and_join_others_of_similar_size(monkeypatch, source):
    drawn = np.array([composed_draw(monkeypatch, d, source, layers=32).ranks for d in range(10)])
    assert (drawn[:, 0] == TASK.rank).all()
    # A normal distribution with a deviation of 15 of the 100 raw masks around the 40th.
    assert 12 < drawn[:, 1:].std() < 18 and abs(drawn[:, 1:].mean() - 40) < 3


def test_later_draws_start_from_a_raw_mask_of_similar_size_and_then_from_any(monkeypatch, source):
    similar = np.array([composed_draw(monkeypatch, d, source).ranks for d in range(10, 50)])
    assert 10 < similar.std() < 20 and abs(similar.mean() - 40) < 6 and len(np.unique(similar)) > 15
    anyone = np.array([composed_draw(monkeypatch, d, source, layers=8).ranks for d in range(50, 200)])
    assert anyone.min() == 0 and anyone.max() == 99  # evenly: a deviation of 100 / sqrt(12)
    assert all(26 < anyone[:, layer].std() < 32 for layer in range(8))


@pytest.mark.parametrize(
    ("number", "low", "high"), [(0, 0, 0), (9, 0, 0), (10, 10, 20), (49, 10, 20), (50, 24, 34), (199, 24, 34)]
)
def test_the_raw_mask_to_start_from_is_left_from_the_tenth_draw_on_and_its_size_from_the_50th(
    monkeypatch, source, number, low, high
):
    configs = [replace(CONFIG, seed=seed) for seed in range(80)]
    starts = np.array([composed_draw(monkeypatch, number, source, config=config).ranks[0] for config in configs])
    assert low <= starts.std() <= high and ((starts == TASK.rank).all() or number > 9)


def test_layers_beyond_the_usual_number_are_of_any_size(monkeypatch, source):
    config = replace(CONFIG, layers=4)
    drawn = np.array([composed_draw(monkeypatch, d, source, config=config, layers=12).ranks for d in range(40)])
    assert drawn[:, :4].std() < 18 and all(22 < drawn[:, layer].std() < 36 for layer in range(4, 12))


def test_two_extra_draws_start_from_the_raw_mask_of_the_task(monkeypatch, source):
    starts = np.array([composed_draw(monkeypatch, d, source, layers=8).ranks for d in range(200, 220)])
    assert (starts[:2, 0] == TASK.rank).all() and len(np.unique(starts[2:, 0])) > 8
    assert 26 < starts[:, 1:].std() < 32


def test_every_second_extra_draw_uses_parts_of_raw_masks(monkeypatch, source):
    kinds = [composed_draw(monkeypatch, d, source).parts for d in (0, 49, 199, *range(200, 206))]
    assert kinds == [None, None, None, *[False, True] * 3]  # the usual draws do without


@pytest.mark.parametrize(("category", "border"), [(0, 50), (5, 50), (6, 0), (11, 0)])
def test_what_a_composed_mask_must_be_follows_from_the_task_and_the_settings(monkeypatch, source, category, border):
    config = FillConfig(size=480, layers=7, shrink=0.5, preset="nvidia-old")
    task = replace(TASK, category=category, ratio=0.1501)
    for one_draw in (0, 200):
        asked = composed_draw(monkeypatch, one_draw, source, task=task, config=config)
        assert asked.target == Target(round(0.1501 * 480**2), 480, border, 7, 0.5)
        assert asked.preset == PRESETS["nvidia-old"] and asked.result is None


def test_each_draw_of_each_mask_has_chances_of_its_own(monkeypatch, source):
    changes = [{}, {"category": 1}, {"number": 4}, {"attempt": 1}]
    chances = [composed_draw(monkeypatch, 0, source, task=replace(TASK, **change)).chance for change in changes]
    chances += [composed_draw(monkeypatch, 1, source).chance]
    chances += [composed_draw(monkeypatch, 0, source, config=replace(CONFIG, seed=1)).chance]
    assert len(set(chances)) == 6 and composed_draw(monkeypatch, 0, source).chance == chances[0]


def test_a_mask_comes_with_the_columns_of_the_layers_that_were_joined(monkeypatch, source):
    hole = rows_of(0, 77)  # 0.15 of the mask, on its edge
    made = hole, {"dilation": "9.0", "layers": [(0, IN_PLACE), (2, IN_PLACE)]}
    asked = composed_draw(monkeypatch, 0, source, layers=3, made=made)
    names = {np.count_nonzero(read_hole(path)): path.name for path in Path(source[0]).glob("*.png")}
    drawn = [names[size] for size in asked.sizes]
    assert asked.result[0] is hole and asked.result[1]["raw"] == f"{drawn[0]};{drawn[2]}"
    assert asked.result[1]["frame"] == str(int(drawn[0][:3])) and asked.result[1]["dilation"] == "9.0"
    assert asked.drawn == {layer: int(name[:3]) for layer, name in enumerate(drawn)}


def test_a_mask_that_is_of_another_class_by_chance_does_not_count(monkeypatch, source):
    inside = rows_of(60, 160)
    inside[:, :60], inside[:, -60:] = False, False  # 0.15 of the mask, and interior by chance
    for hole in (inside, rows_of(0, 40)):  # of the latter, the ratio is too small
        made = hole, {"dilation": "9.0", "layers": [(0, IN_PLACE)]}
        assert composed_draw(monkeypatch, 0, source, made=made).result is None


def test_the_columns_name_each_video_once_and_each_raw_mask_in_order():
    b = {"file_name": "b/1.png", "source": "b.mp4", "frame": 3, "kind": "occluded"}
    a = {"file_name": "a/2.png", "source": "a.mp4", "frame": 4, "kind": "disoccluded"}
    layers = [(b, Placement(False, -12.34, 1.2345, 0, 0)), (a, Placement(True, 5, 1, 0, 0)), (b, IN_PLACE)]
    hole = np.zeros((512, 512), bool)
    hole[50:462, 50:462] = True  # all four sides of 412 px are clipped, and the outline has their corners once
    columns = one_mask._columns(replace(TASK, attempt=2), layers, "12.5", hole, FillConfig(seed=5))
    assert columns == {
        "source": "a.mp4;b.mp4",
        "frame": "3",
        "kind": "occluded",
        "raw": "b/1.png;a/2.png;b/1.png",
        "layers": 3,
        "dilation": "12.5",
        "rotation": "-12.3;5.0;0.0",
        "zoom": "1.234;1.000;1.000",
        "clipped": f"{4 * 412 / (4 * 412 - 4):.4f}",
        "seed": "5 7 3",
        "attempt": 2,
    }


def test_raw_masks_of_unknown_origin_leave_the_columns_empty():
    columns = one_mask._columns(TASK, [({"file_name": "1.png"}, IN_PLACE)], "12.5", rows_of(0, 77), CONFIG)
    assert (columns["source"], columns["frame"], columns["kind"], columns["raw"]) == ("", "", "", "1.png")


def test_the_first_draw_that_succeeds_is_taken(monkeypatch):
    tried = []

    def make(task, draw, source, config, drawn):
        tried.append((task, draw, source, config))
        return ("mask", draw) if draw >= 7 else None

    monkeypatch.setattr(one_mask, "_make_from_draw", make)
    assert one_mask._first_success(TASK, "source", CONFIG, [3, 5, 7, 9]) == ("mask", 7)
    assert tried == [(TASK, draw, "source", CONFIG) for draw in (3, 5, 7)]
    assert one_mask._first_success(TASK, "source", CONFIG, [3, 5, 6]) is None


def test_a_task_is_given_up_after_four_draws_in_which_all_raw_masks_were_too_small(monkeypatch):
    used = [15, 16, 16, 15, 17, 15, 16, 16, 16]  # raw masks; 8 times the usual 2 is all
    tried = []

    def make(task, draw, source, config, drawn):
        tried.append(draw)
        drawn.update(dict.fromkeys(range(used[draw])))

    monkeypatch.setattr(one_mask, "_make_from_draw", make)
    assert one_mask._first_success(TASK, "source", replace(CONFIG, layers=2), range(9)) is None
    assert tried == [0, 1, 2, 3, 4, 5, 6]


def test_most_of_the_usual_draws_are_left_out_where_raw_masks_are_scarce(monkeypatch):
    monkeypatch.setattr(one_mask, "_first_success", lambda *given: given)
    # 4 draws for each of the 50 attempts of the preset, then 20 more.
    assert make_mask(TASK, "source", CONFIG) == (TASK, "source", CONFIG, list(range(220)))
    few = [*range(10), *range(200, 220)]
    assert make_mask(TASK, "source", CONFIG, scarce=True) == (TASK, "source", CONFIG, few)


def test_raw_masks_are_scarce_if_the_largest_interior_hole_fails(monkeypatch):
    asked = []
    monkeypatch.setattr(one_mask, "_usual_draws_fail", lambda *given: asked.append(given) or "answer")
    interior = [MaskTask(4, 0, 0.45, 1), MaskTask(5, 0, 0.55, 2, attempt=3), MaskTask(5, 1, 0.51, 3)]
    assert are_scarce([*interior, MaskTask(11, 0, 0.59, 4)], "source", CONFIG) == "answer"
    assert asked == [(MaskTask(5, 0, 0.55, 2), "source", CONFIG)]


# The whole set.

FAILED = {"file_name": "free_0.1-0.2/00003.png", "attempt": 0, "sha256": ""}
MADE = {
    "file_name": "free_0.1-0.2/00003.png",
    "attempt": "1",
    "sha256": "0" * 64,
    "category": "free_0.1-0.2",
    "source": "a.mp4",
    "raw": "a/1.png",
    "border_distance": "0",
    "clipped": "0.1",
    "hole_ratio": "0.15",
}


def test_rows_of_masks_that_were_made_and_that_failed_are_valid():
    assert run._is_row(FAILED) is True and run._is_row(MADE) is True


@pytest.mark.parametrize("name", ["file_name", "sha256", "category", "source", "raw"])
@pytest.mark.parametrize("cell", [None, 5, ["a"]])
def test_a_row_without_a_text_where_one_belongs_is_invalid(name, cell):
    assert not run._is_row({**MADE, name: cell}) and not run._is_row({**FAILED, "file_name": cell})


@pytest.mark.parametrize("name", ["attempt", "border_distance", "clipped", "hole_ratio"])
@pytest.mark.parametrize("cell", [None, [], "", "far", "nan", float("nan"), float("inf"), 10**400])
def test_a_row_without_a_finite_number_where_one_belongs_is_invalid(name, cell):
    assert not run._is_row({**MADE, name: cell}) and not run._is_row({**FAILED, "attempt": cell})


@pytest.mark.parametrize("row", [FAILED, MADE])
def test_attempts_count_from_zero_on(row):
    assert run._is_row({**row, "attempt": 0}) and run._is_row({**row, "attempt": "0"})
    assert not run._is_row({**row, "attempt": -1})


@pytest.mark.parametrize("row", [FAILED, MADE])
def test_a_row_that_lacks_a_cell_is_invalid(row):
    assert not any(run._is_row({key: row[key] for key in row if key != name}) for name in row)


def test_a_round_lists_masks():
    assert run._is_round({"alike": []}) and not run._is_round({"alike": "a"}) and not run._is_round({})


def test_a_mask_is_done_if_its_file_is_intact_or_if_it_cannot_be_made(tmp_path):
    data = encode(rows_of(0, 77))
    path = tmp_path / TASK.file_name
    path.parent.mkdir()
    path.write_bytes(data)
    row = {**describe(rows_of(0, 77), TASK.file_name, data), "attempt": "0"}
    assert run._is_done(TASK, row, tmp_path) and run._is_done(TASK, FAILED, tmp_path)
    assert not run._is_done(TASK, None, tmp_path)
    again = replace(TASK, attempt=1)  # the row is of an earlier attempt
    assert not run._is_done(again, row, tmp_path) and not run._is_done(again, FAILED, tmp_path)
    path.write_bytes(b"changed")
    assert not run._is_done(TASK, row, tmp_path)


THREE = [MaskTask(6, k, 0.05, k) for k in range(3)]
NAMES = [task.file_name for task in THREE]


def made_distinct(monkeypatch, tmp_path, found):
    """`_make_distinct` of three masks, with what it asked for. found: for each comparison, its result."""
    asked = SimpleNamespace(attempts=[], compared=[])

    def make(tasks):
        asked.attempts.append([task.attempt for task in tasks])
        return [{"file_name": task.file_name} for task in tasks]

    def compare(paths, limit):
        asked.compared.append((paths, limit))
        return found[len(asked.compared) - 1]

    monkeypatch.setattr(run, "near_duplicates", compare)
    with Journal(tmp_path / "rounds.jsonl", "round", run._is_round) as rounds:
        asked.result = run._make_distinct(THREE, rounds, make, tmp_path, 0.9)
        asked.rounds = list(rounds.rows.values())
    return asked


def test_near_duplicates_are_made_again_until_there_are_none(monkeypatch, tmp_path):
    asked = made_distinct(monkeypatch, tmp_path, [([2, 1], 0.5), ([2], 0.6), ([], 0.7)])
    assert asked.attempts == [[0, 0, 0], [0, 1, 1], [0, 1, 2]]
    assert asked.rounds == [{"round": "0", "alike": NAMES[1:]}, {"round": "1", "alike": NAMES[2:]}]
    assert asked.result == ([{"file_name": name} for name in NAMES], Counter(), 0.7)
    assert asked.compared == [([tmp_path / name for name in NAMES], 0.9)] * 3
    resumed = made_distinct(monkeypatch, tmp_path, [([], 0.7)])
    assert resumed.attempts == [[0, 1, 2]] and resumed.result == asked.result


def test_near_duplicates_that_are_left_after_five_rounds_are_dropped(monkeypatch, tmp_path):
    asked = made_distinct(monkeypatch, tmp_path, [([1], 0.5)] * 6 + [([], 0.4)])
    assert asked.attempts == [[0, attempt, 0] for attempt in range(6)] and len(asked.rounds) == 5
    kept = [NAMES[0], NAMES[2]]
    assert asked.result == ([{"file_name": name} for name in kept], Counter({"free_0.01-0.1": 1}), 0.4)
    assert asked.compared[-1] == ([tmp_path / name for name in kept], 0.9)


@pytest.fixture
def made_missing(monkeypatch, tmp_path):
    """Calls `_make_missing` with workers that fail for every fifth task, and records what they are given."""
    asked = SimpleNamespace(runs=[], scarce=[])

    def work(job, batches, **how):
        asked.runs.append((job, [list(batch) for batch in batches], how))
        for batch in reversed(batches):
            yield [{**MADE, **identity(task), "sha256": "" if task.number % 5 == 0 else "0" * 64} for task in batch]

    def identity(task):
        return {"file_name": task.file_name, "attempt": task.attempt}

    monkeypatch.setattr(run.parallel, "run", work)
    monkeypatch.setattr(run, "are_scarce", lambda *given: asked.scarce.append(given) or "scarce")
    folder = SimpleNamespace(path=tmp_path, recipe_file=tmp_path / "recipe.json")

    def call(made, tasks):
        asked.rows = run._make_missing(made, folder, ("raw", "hash"), CONFIG, tasks, workers=2, cluster="tcp:")
        return asked

    return call


def test_missing_masks_are_made_twenty_at_a_time(made_missing, tmp_path):
    tasks = [MaskTask(6, k, 0.05, k) for k in range(46)]
    made = Journal(tmp_path / "made.jsonl", "file_name")
    made.add({"file_name": tasks[0].file_name, "attempt": 0, "sha256": ""})
    asked = made_missing(made, tasks)
    [(job, batches, how)] = asked.runs
    assert batches == [tasks[1:21], tasks[21:41], tasks[41:]]  # all but the one that cannot be made
    assert asked.scarce == [(tasks, ("raw", "hash"), CONFIG)]
    where = {"source": ("raw", "hash"), "folder": str((tmp_path / "test").absolute())}
    assert job.func is run._make_batch and job.keywords == {**where, "config": CONFIG, "scarce": "scarce"}
    files = (Path("raw/metadata.csv"), tmp_path / "recipe.json")  # that the workers of a cluster must see
    assert how == {"workers": 2, "cluster": "tcp:", "shared_files": files}
    assert [row["file_name"] for row in asked.rows] == [task.file_name for task in tasks if task.number % 5]
    assert len(Journal(tmp_path / "made.jsonl", "file_name").rows) == 46


def test_a_mask_is_made_again_only_if_its_file_is_not_intact(made_missing, tmp_path):
    made = Journal(tmp_path / "made.jsonl", "file_name")
    for name in NAMES[:2]:
        path = tmp_path / "test" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(rows_of(0, 20)))
        made.add({**describe(rows_of(0, 20), name, encode(rows_of(0, 20))), "attempt": 0})
    path.write_bytes(b"changed")
    assert made_missing(made, THREE).runs[0][1] == [THREE[1:]]


def test_nothing_is_made_where_all_masks_are_done(made_missing, tmp_path):
    made = Journal(tmp_path / "made.jsonl", "file_name")
    for name in NAMES:
        made.add({"file_name": name, "attempt": 0, "sha256": ""})
    asked = made_missing(made, THREE)
    assert asked.rows == [] and not asked.runs and not asked.scarce


def test_the_progress_counts_masks(made_missing, tmp_path, capsys):
    made_missing(Journal(tmp_path / "made.jsonl", "file_name"), THREE)
    shown = capsys.readouterr().err
    assert "testset:" in shown and "3/3" in shown and "mask/s" in shown


def test_a_batch_writes_its_masks_and_returns_their_rows(monkeypatch, tmp_path):
    hole, asked = rows_of(0, 20), []

    def make(task, source, config, *, scarce):
        asked.append((task, source, config, scarce))
        return None if task.number == 1 else (hole, {"raw": "a.png", "attempt": task.attempt})

    monkeypatch.setattr(run, "make_mask", make)
    tasks = [replace(task, attempt=2) for task in THREE]
    rows = run._make_batch(tasks, ("raw", "hash"), str(tmp_path / "set" / "test"), CONFIG, True)
    assert asked == [(task, ("raw", "hash"), CONFIG, True) for task in tasks]
    made = [{**describe(hole, name, encode(hole)), "raw": "a.png", "attempt": 2} for name in NAMES]
    assert rows == [made[0], {"file_name": NAMES[1], "attempt": 2, "sha256": ""}, made[2]]
    assert [(tmp_path / "set" / "test" / name).exists() for name in NAMES] == [True, False, True]
    assert np.array_equal(read_hole(tmp_path / "set" / "test" / NAMES[0]), hole)


def finished(monkeypatch, tmp_path, videos, dropped=(), raw_masks=40):
    """`_finish` of two classes with three masks each, of which the first class has two and the second one."""
    asked = SimpleNamespace()
    tasks = [*THREE, *(replace(task, category=7) for task in THREE)]
    kept = [tasks[0], tasks[2], tasks[3]]
    row = {**MADE, "source": "b.mp4;a.mp4"}
    rows = [{**row, "file_name": task.file_name, "category": CATEGORIES[task.category]} for task in kept]
    rows[0]["source"] = ""
    for task in tasks[:5]:
        path = tmp_path / "test" / task.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"mask")

    def finish(folder, part, rows, **outcome):
        asked.folder, asked.part, asked.rows, asked.outcome = folder, part, rows, outcome
        return "recipe"

    monkeypatch.setattr(run, "finish_set", finish)
    folder = SimpleNamespace(path=tmp_path)
    assert run._finish(folder, tasks, rows, Counter(dropped), 0.12345, videos, raw_masks) == "recipe"
    assert asked.folder is folder and asked.part == "test" and asked.rows == rows
    asked.left = {path.relative_to(tmp_path / "test").as_posix() for path in tmp_path.rglob("*.png")}
    assert asked.left == {task.file_name for task in kept}
    asked.credits = (tmp_path / "CREDITS.md").read_text()
    return asked


def test_the_recipe_says_why_masks_are_missing(monkeypatch, tmp_path):
    asked = finished(monkeypatch, tmp_path, None, {"free_0.1-0.2": 1})
    assert asked.outcome["missing"] == {
        "free_0.01-0.1": {"not_made": 1},
        "free_0.1-0.2": {"not_made": 1, "like_others": 1},
    }
    assert asked.outcome["closest_pair"] == 0.123 and asked.outcome["counts"]["free_0.01-0.1"] == 2
    assert asked.outcome["masks_begun_by_one_raw_mask"] == [0, 3]  # all by one of the 40


def test_the_recipe_names_near_duplicates_alone_where_all_masks_were_made(monkeypatch, tmp_path):
    asked = finished(monkeypatch, tmp_path, None, {"free_0.1-0.2": 2, "free_0.01-0.1": 1})
    assert asked.outcome["missing"] == {"free_0.01-0.1": {"like_others": 1}, "free_0.1-0.2": {"like_others": 2}}


def test_only_videos_that_were_used_are_credited(monkeypatch, tmp_path):
    videos = [{"name": "c.mp4"}, {"name": "b.mp4", "licence": "CC0-1.0"}]
    asked = finished(monkeypatch, tmp_path, videos)
    assert asked.outcome["sources"] == videos[1:]
    table = "| video | from | licence |\n|---|---|---|\n| b.mp4 | not stated | CC0-1.0 |\n"
    assert asked.credits == f"The masks come from these videos:\n\n{table}"


def test_without_a_recipe_of_the_raw_masks_their_index_names_the_videos(monkeypatch, tmp_path):
    asked = finished(monkeypatch, tmp_path, None, raw_masks=1)
    assert asked.outcome["sources"] == [{"name": "a.mp4"}, {"name": "b.mp4"}]
    assert asked.outcome["masks_begun_by_one_raw_mask"] == [3, 3]  # there is no other raw mask


def test_a_summary_counts_free_masks_on_the_edge_and_rounds_shares_to_four_places():
    free = [{**MADE, "border_distance": distance} for distance in ("0", "0", "0", "1", "7")]
    interior = {**MADE, "category": "interior_0.1-0.2", "border_distance": "0"}
    sums = run.summary([*free, {**interior, "clipped": "0.12346"}, {**interior, "clipped": "0.12345"}], 1)
    assert sums["free_touching_the_edge"] == 3
    assert sums["clipped"] == {"interior_0.1-0.2": {"mean": 0.1235, "max": 0.1235}}
