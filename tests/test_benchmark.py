import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import click
import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from small_run import SIDE, folders, photo, plug_in, score

from evaluation import api, benchmark, drawn_holes, experiments, listed, metrics, pairing, scoring
from evaluation import pairs as pairs_module
from evaluation.commands import evaluate
from evaluation.listed import read_pairs
from evaluation.methods import networks, parse_all
from evaluation.metrics import pixel
from evaluation.options import SizeType
from evaluation.pairing import draw_pairs, find_masks, make_pairs
from evaluation.pairs import Pair, Sources, fit, load_pair, reduced, sparse
from evaluation.settings import BATCH, BenchmarkConfig
from evaluation.study import make as study
from evaluation.study.settings import StudyConfig
from maskgen import maskset
from maskgen.categories import CATEGORIES, measure
from maskgen.errors import BadInput, InputWarning
from maskgen.runtime import images, output
from maskgen.runtime.journal import Journal
from maskgen.runtime.output import PROGRESS
from pconv_model import inpaint

CONFIG = BenchmarkConfig(size=(SIDE, SIDE), metrics=("l1_image", "psnr"))


def table(**counts):
    """Masks of classes, as find_masks gives them."""
    rows = [(f"{name}/{i}.png", name, 0.1, 0) for name, count in counts.items() for i in range(count)]
    return pd.DataFrame(rows, columns=["mask", "category", "hole_ratio", "border_distance"])


def every_file(folder):
    """What lies in a folder, as bytes by path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_images_are_dealt_without_replacement():
    pairs = draw_pairs([f"{i}.png" for i in range(10)], table(a=4, b=3), CONFIG)
    assert len({image for image, _ in pairs}) == 7
    assert [row["category"] for _, row in pairs] == ["a"] * 4 + ["b"] * 3


def test_a_file_that_is_not_an_image_is_refused_before_a_run(tmp_path):
    images, masks = folders(tmp_path, images=1)
    (images / "notes.png").write_text("no picture")
    with pytest.raises(BadInput, match=r"notes\.png is not an image that can be read"):
        make_pairs(images, masks, CONFIG)


def test_few_images_are_used_equally_often():
    used = Counter(image for image, _ in draw_pairs(["x.png", "y.png", "z.png"], table(a=8), CONFIG))
    assert sorted(used.values()) == [2, 3, 3]


def test_the_same_seed_deals_the_same_pairs_and_another_others():
    images, masks = [f"{i}.png" for i in range(50)], table(a=30)
    dealt = [[image for image, _ in draw_pairs(images, masks, replace(CONFIG, seed=seed))] for seed in (0, 0, 1)]
    assert dealt[0] == dealt[1] != dealt[2]


def test_some_masks_of_each_class_are_drawn():
    pairs = draw_pairs(["x.png"], table(a=9, b=2), replace(CONFIG, per_class=3))
    assert Counter(row["category"] for _, row in pairs) == {"a": 3, "b": 2}
    assert len({row["mask"] for _, row in pairs}) == 5
    drawn = [
        {row["mask"] for _, row in draw_pairs(["x.png"], table(a=99), replace(CONFIG, per_class=3, seed=seed))}
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_an_image_is_cut_in_the_middle_and_made_smaller_by_averaging():
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 2:6] = 100  # the middle square
    image[0, 2] = 140
    assert fit(image, (2, 2))[..., 0].tolist() == [[110, 100], [100, 100]]


def test_a_small_image_is_enlarged_by_cubic_splines_and_a_true_image_is_read_only(tmp_path):
    image = photo(3, 20)
    assert (fit(image, (50, 50)) == cv2.resize(image, (50, 50), interpolation=cv2.INTER_CUBIC)).all()
    images, masks = folders(tmp_path)
    truth = load_pair(make_pairs(images, masks, CONFIG)[0], Sources(images, masks), CONFIG)[0]
    with pytest.raises(ValueError, match="read-only"):  # it is kept for the next mask
        truth[0] = 0


def test_a_mask_is_made_smaller_by_nearest_neighbour(tmp_path):
    images, masks = folders(tmp_path)
    hole = np.zeros((3 * SIDE, 3 * SIDE), bool)
    hole[::3, ::3] = True  # nearest neighbour takes the first of three pixels
    (masks / "0.png").write_bytes(maskset.encode(hole))
    pair = next(pair for pair in make_pairs(images, masks, CONFIG) if pair.mask == "0.png")
    assert load_pair(pair, Sources(images, masks), CONFIG)[2].all()


def test_an_image_can_be_fitted_to_a_tall_shape():
    image = np.zeros((10, 10, 3), np.uint8)
    image[:, 3:8] = 9  # five columns around the middle: (10 - 5) // 2 = 2 from the left
    assert fit(image, (10, 5)).shape == (10, 5, 3)
    assert fit(image, (10, 5))[0, :, 0].tolist() == [0, 9, 9, 9, 9]
    assert fit(image, (10, 10)) is image


def test_masks_of_any_folder_are_measured(tmp_path):
    for name, ratio in {"small": 0.05, "large": 0.55, "huge": 0.8, "none": 0}.items():
        hole = np.arange(SIDE**2).reshape(SIDE, SIDE) < ratio * SIDE**2
        (tmp_path / f"{name}.png").write_bytes(maskset.encode(hole))
    with pytest.warns(InputWarning, match=r"1 of 4 masks have no hole and are left out: none\.png"):
        found = find_masks(tmp_path)
    assert found["category"].tolist() == ["free_0.01-0.1", "free_0.5-0.6", "other"]
    assert found["mask"].tolist() == ["small.png", "large.png", "huge.png"]


def test_the_classes_of_a_mask_set_come_from_its_index(tmp_path):
    (tmp_path / "test" / "a").mkdir(parents=True)
    hole = np.eye(SIDE, dtype=bool)
    data = maskset.encode(hole)
    (tmp_path / "test" / "a" / "0.png").write_bytes(data)
    row = {**maskset.describe(hole, "a/0.png", data), "category": "interior_0.5-0.6"}
    maskset.write_index(tmp_path / "test", [row])
    found = find_masks(tmp_path).iloc[0]
    assert (found["mask"], found["category"]) == ("test/a/0.png", "interior_0.5-0.6")


def test_black_masks_without_the_right_polarity_are_refused(tmp_path):
    (tmp_path / "0.png").write_bytes(maskset.encode(np.zeros((8, 8), bool)))
    with pytest.raises(BadInput, match=r"no mask in .* has a hole.*--polarity hole-black"):
        find_masks(tmp_path)
    with pytest.warns(InputWarning, match="covers the whole image"):
        assert find_masks(tmp_path, "hole-black")["hole_ratio"].tolist() == [1.0]


def test_pairs_survive_their_file(tmp_path):
    pairs = make_pairs(*folders(tmp_path), CONFIG)
    (tmp_path / "pairs.csv").write_bytes(listed.pairs_csv(pairs))
    assert read_pairs(tmp_path / "pairs.csv") == pairs
    (tmp_path / "pairs.csv").write_text("pair,image\n00000,a.png\n")
    with pytest.raises(BadInput, match=r"has no mask: expected a pairs\.csv"):
        read_pairs(tmp_path / "pairs.csv")


def test_a_file_that_changed_since_it_was_paired_is_refused(tmp_path):
    images, masks = folders(tmp_path, images=1)
    pair = make_pairs(images, masks, CONFIG)[0]
    cv2.imwrite(str(images / "photo0.png"), photo(9))
    with pytest.raises(BadInput, match=r"photo0\.png has changed, its SHA-256 is not the recorded one"):
        load_pair(pair, Sources(images, masks), CONFIG)


def test_a_method_never_sees_what_is_missing(tmp_path):
    images, masks = folders(tmp_path)
    truth, image, hole = load_pair(make_pairs(images, masks, CONFIG)[0], Sources(images, masks), CONFIG)
    assert (image[hole] == 0).all() and (image[~hole] == truth[~hole]).all() and (truth[hole] != 0).any()


def test_a_mask_of_another_size_is_stretched_without_grey(tmp_path):
    images, masks = folders(tmp_path)
    config = replace(CONFIG, size=(SIDE * 2, SIDE))
    _, _, hole = load_pair(make_pairs(images, masks, config)[0], Sources(images, masks), config)
    original = maskset.read_hole(masks / "0.png")
    assert (hole == original.repeat(2, 0)).all()


def test_a_run_writes_a_row_for_every_method_and_pair(tmp_path):
    folders(tmp_path)
    scores = score(tmp_path, ["telea", "grey"])
    assert scores["method"].tolist() == ["telea"] * 4 + ["grey"] * 4
    assert scores["category"].tolist() == 2 * (["free_0.01-0.1"] * 2 + ["free_0.1-0.2"] * 2)
    written = pd.read_csv(tmp_path / "out" / "scores.csv", dtype={"pair": str})
    assert written["psnr"].tolist() == scores["psnr"].tolist() and written["error"].isna().all()


def test_scores_are_those_of_the_metrics_on_the_composited_image(tmp_path, monkeypatch):
    folders(tmp_path)
    plug_in(tmp_path, monkeypatch)
    scores = score(tmp_path, ["good"])
    raw = score(tmp_path, ["good"], out="raw", config=replace(CONFIG, raw=True))
    pair = make_pairs(tmp_path / "images", tmp_path / "masks", CONFIG)[0]
    truth, _, hole = load_pair(pair, Sources(tmp_path / "images", tmp_path / "masks"), CONFIG)
    flat = np.full_like(truth, 100)
    assert scores["l1_image"][0] == pixel.l1_image(np.where(hole[..., None], flat, truth), truth, hole)
    assert raw["l1_image"][0] == pixel.l1_image(flat, truth, hole)


def test_two_workers_give_the_bytes_of_one(tmp_path):
    folders(tmp_path)
    score(tmp_path, ["telea", "mean"], out="one", workers=1)
    score(tmp_path, ["telea", "mean"], out="two", workers=2)
    assert every_file(tmp_path / "one") == every_file(tmp_path / "two")


def test_an_image_is_read_once_for_all_its_masks(tmp_path, monkeypatch):
    folders(tmp_path, images=3)
    read = []
    monkeypatch.setattr(pairs_module, "_truth", lru_cache(maxsize=1)(pairs_module._truth.__wrapped__))
    decode = images.decode_rgb
    monkeypatch.setattr(images, "decode_rgb", lambda data, name: read.append(name) or decode(data, name))
    score(tmp_path, ["grey", "mean"])
    assert len(read) == len(set(read)) == 3


def test_pairs_of_one_image_come_together_in_the_order_of_the_first():
    pairs = [Pair(name, image, "", "", 0.1, 0, "", "") for name, image in (("0", "x"), ("1", "y"), ("2", "x"))]
    assert [[pair.pair for pair in group] for group in benchmark.by_image(pairs)] == [["0", "2"], ["1"]]


def test_a_run_leaves_no_temporary_files(tmp_path, monkeypatch):
    folders(tmp_path)
    plug_in(tmp_path, monkeypatch)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    score(tmp_path, ["telea", "moody", "hang"], timeout=1)
    assert not list((tmp_path / "temporary").iterdir())


def test_a_run_with_a_truncated_journal_is_completed(tmp_path):
    folders(tmp_path)
    score(tmp_path, ["telea"], out="whole")
    score(tmp_path, ["telea"])
    journal = tmp_path / "out" / "journal" / "telea.jsonl"
    journal.write_bytes(journal.read_bytes()[:-40])
    assert len(Journal(journal, "pair").rows) == 3
    score(tmp_path, ["telea"])
    assert every_file(tmp_path / "whole") == every_file(tmp_path / "out")


COMMAND = "import sys; sys.path[:0] = {path!r}; import cli; cli.evaluate(prog_name='evaluate')"


def command(root, *arguments):
    """The command `evaluate` as a process of its own, in `root`."""
    code = COMMAND.format(path=[str(root), str(Path(__file__).parent.parent)])
    metric = ("--metric", "l1_image", "--metric", "psnr")
    line = [sys.executable, "-c", code, "--images", "images", "--masks", "masks", "--size", "64", *metric, *arguments]
    return subprocess.Popen(line, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_command_is_resumed_to_the_same_bytes(tmp_path, monkeypatch):
    folders(tmp_path)
    plug_in(tmp_path, monkeypatch)
    asked = ("--method", "slow", "--workers", "1")
    assert command(tmp_path, *asked, "--out", "whole").wait() == 0
    running = command(tmp_path, *asked, "--out", "out")
    journal = tmp_path / "out" / "journal" / "slow.jsonl"
    while not (journal.exists() and journal.stat().st_size):
        assert running.poll() is None, running.stderr.read()
        time.sleep(0.02)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert 1 <= len(journal.read_bytes().splitlines()) < 4
    assert not (tmp_path / "out" / "scores.csv").exists()
    assert command(tmp_path, *asked, "--out", "out").wait() == 0
    assert every_file(tmp_path / "whole") == every_file(tmp_path / "out")


def test_methods_that_fail_cost_their_own_pairs_only(tmp_path, monkeypatch):
    folders(tmp_path)
    plug_in(tmp_path, monkeypatch)
    scores = score(tmp_path, ["moody", "hang", "telea"], timeout=1)
    errors = {method: rows["error"].tolist() for method, rows in scores.groupby("method")}
    assert errors["telea"] == [""] * 4
    assert errors["moody"] == ["", "", *["its process ended with code 1"] * 2]
    assert errors["hang"] == ["no result within 1 s"] * 4
    assert scores[scores["error"] != ""][["l1_image", "psnr"]].isna().all(axis=None)


def test_a_method_that_is_killed_from_outside_once_loses_no_pair(tmp_path, monkeypatch):
    folders(tmp_path)
    plug_in(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    scores = score(tmp_path, ["shot", "killed"])
    errors = {method: rows["error"].tolist() for method, rows in scores.groupby("method")}
    assert (tmp_path / "shot").exists() and errors["shot"] == [""] * 4
    assert all("killed by SIGKILL" in error for error in errors["killed"])


def test_failed_pairs_are_kept_until_they_are_tried_again(tmp_path, monkeypatch):
    folders(tmp_path)
    plug_in(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    assert (score(tmp_path, ["moody"])["error"] != "").sum() == 2
    (tmp_path / "cured").touch()
    assert (score(tmp_path, ["moody"])["error"] != "").sum() == 2
    assert (score(tmp_path, ["moody"], retry=True)["error"] != "").sum() == 0


def test_a_method_can_be_added_to_results(tmp_path):
    folders(tmp_path)
    score(tmp_path, ["telea"])
    scores = score(tmp_path, ["grey"])
    assert list(dict.fromkeys(scores["method"])) == ["telea", "grey"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": replace(CONFIG, raw=True)}, "raw was false, is true"),
        ({"config": replace(CONFIG, metrics=("psnr",))}, r'metrics was \["l1_image", "psnr"\], is \["psnr"\]'),
        ({"config": replace(CONFIG, seed=1)}, "seed was 0, is 1"),
        ({"methods": ["telea=ns"]}, "telea: method was telea, is ns"),
    ],
)
def test_changed_settings_do_not_mix_into_old_results(change, message, tmp_path):
    folders(tmp_path)
    score(tmp_path, ["telea"])
    before = every_file(tmp_path / "out")
    with pytest.raises(BadInput, match=message):
        score(tmp_path, **{"methods": ["telea"], **change})
    assert every_file(tmp_path / "out") == before


def test_other_images_do_not_mix_into_old_results(tmp_path):
    folders(tmp_path)
    score(tmp_path, ["telea"])
    cv2.imwrite(str(tmp_path / "images" / "photo1.png"), photo(9))
    with pytest.raises(BadInput, match=r"photos: photo1\.png was \w{12}, is \w{12}"):
        score(tmp_path, ["telea"])


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    folders(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    with pytest.raises(BadInput, match="is not empty and was not made by `evaluate`"):
        score(tmp_path, ["telea"])


def test_a_method_that_cannot_start_leaves_nothing_behind(tmp_path):
    folders(tmp_path)
    with pytest.raises(BadInput, match="no such program"):
        score(tmp_path, ["cmd:not-there {image} {mask} {output}"])
    assert not (tmp_path / "out").exists()


def test_metrics_of_sets_are_computed_from_the_journal(tmp_path, monkeypatch):
    folders(tmp_path)
    # A "posterior" that is sure of one of two classes, by the parity of a pixel: the score is 1 to 2.
    sure = np.log(np.array([[1 - 1e-9, 1e-9], [1e-9, 1 - 1e-9]]))
    monkeypatch.setitem(metrics.VECTORS, "posterior", lambda image: sure[image[-1, -1, 0] % 2])
    bare = replace(metrics.SETS["inception_score"], needs=(), weights=None)
    monkeypatch.setitem(metrics.ALL, "inception_score", bare)
    config = replace(CONFIG, metrics=("psnr", "inception_score"))
    score(tmp_path, ["telea"], config=config)
    pairs = make_pairs(tmp_path / "images", tmp_path / "masks", config)
    sources = Sources(tmp_path / "images", tmp_path / "masks")
    rows = benchmark.set_scores(tmp_path / "out", pairs)
    for _, row in rows.iterrows():
        group = [pair for pair in pairs if pair.category == row["category"]]
        parities = {load_pair(pair, sources, config)[0][-1, -1, 0] % 2 for pair in group}
        assert row["mean"] == pytest.approx(len(parities), abs=1e-5)
    assert rows["n"].tolist() == [2, 2]


def test_true_images_are_described_where_a_metric_needs_them(tmp_path, monkeypatch):
    folders(tmp_path)
    monkeypatch.setitem(metrics.VECTORS, "inception", lambda image: image[-1, -1].astype(float))
    mean_gap = lambda results, truths: float(np.abs(results - truths).mean())  # noqa: E731
    monkeypatch.setitem(metrics.SETS, "fid", replace(metrics.SETS["fid"], function=mean_gap, needs=()))
    score(tmp_path, ["telea"], config=replace(CONFIG, metrics=("psnr", "fid")))
    pairs = make_pairs(tmp_path / "images", tmp_path / "masks", CONFIG)
    assert len(Journal(tmp_path / "out" / "journal" / "truth.jsonl", "pair").rows) == 4
    assert benchmark.set_scores(tmp_path / "out", pairs)["mean"].tolist() == [0, 0]  # the last pixel is no hole


def test_exported_pairs_are_scored_from_a_folder_of_results(tmp_path):
    images, masks = folders(tmp_path)
    pairs, sources = make_pairs(images, masks, CONFIG), Sources(images, masks)
    experiments.export(pairs, sources, tmp_path / "pairs", CONFIG)
    (tmp_path / "theirs").mkdir()
    for path in (tmp_path / "pairs" / "images").iterdir():
        image = cv2.imread(str(path))
        hole = cv2.imread(str(tmp_path / "pairs" / "masks" / path.name), 0)
        cv2.imwrite(str(tmp_path / "theirs" / path.name), cv2.inpaint(image, hole, 3, cv2.INPAINT_NS))
    scores = score(tmp_path, ["ns", f"theirs=dir:{tmp_path}/theirs"], workers=1)
    ours, theirs = (scores[scores["method"] == name].reset_index() for name in ("ns", "theirs"))
    assert ours["error"].eq("").all() and (ours["psnr"] - theirs["psnr"]).abs().max() < 0.1


def test_pairs_can_be_written_for_lama_and_for_nets_where_white_is_valid(tmp_path):
    images, masks = folders(tmp_path)
    pairs, sources = make_pairs(images, masks, CONFIG), Sources(images, masks)
    experiments.export(pairs, sources, tmp_path / "lama", CONFIG, layout="lama", white="valid")
    hole = load_pair(pairs[0], sources, CONFIG)[2]
    assert (maskset.read_hole(tmp_path / "lama" / "00000_mask001.png", polarity="hole-black") == hole).all()
    assert (tmp_path / "lama" / "00000.png").is_file()


def test_growing_holes_grow_under_the_same_image(tmp_path):
    images, masks = folders(tmp_path)
    drawing = experiments.growing_holes(images, masks, (0, 5, 15), replace(CONFIG, per_class=1), out=tmp_path / "out")
    pairs = drawing.pairs
    assert [pair.category for pair in pairs] == ["grown_00", "grown_05", "grown_15"]
    assert len({pair.image for pair in pairs}) == 1
    # A bar of full rows at the top: a 5 px brush adds 2 rows below, a 15 px brush 7.
    before, after, last = (maskset.decode(drawing.files[pair.mask], pair.mask)[:, 0].sum() for pair in pairs)
    assert (after - before, last - before) == (2, 7)


@pytest.mark.parametrize("kind", drawn_holes.SHAPES)
@pytest.mark.parametrize("name", ["interior_0.01-0.1", "interior_0.5-0.6", "free_0.3-0.4"])
def test_drawn_holes_belong_to_their_class(kind, name):
    side, interval = name.split("_")
    low, high = map(float, interval.split("-"))
    size = measure(drawn_holes.draw(kind, name, (512, 512), np.random.default_rng(0)))
    assert low < size.hole_ratio <= high
    assert side == "free" or size.border_distance >= 50
    assert kind == "free-form" or size.components == 1


def test_drawn_pairs_fill_every_class(tmp_path):
    images, _ = folders(tmp_path)
    drawing = experiments.drawn_pairs(images, "box", replace(CONFIG, per_class=2), out=tmp_path / "out")
    assert Counter(pair.category for pair in drawing.pairs) == dict.fromkeys(CATEGORIES, 2)
    assert [pair.mask for pair in drawing.pairs] == list(drawing.files)


def test_super_resolution_spreads_a_small_image_over_a_lattice():
    small = photo(0, 2)
    image, hole = sparse(small, 4)
    assert image.shape == (8, 8, 3) and (~hole).sum() == 4
    assert (image[2, 6] == small[0, 1]).all() and not hole[2, 6]  # (x, y) = (1, 0) goes to (4 + 2, 0 + 2)


def test_the_small_image_averages_blocks():
    truth = np.zeros((4, 4, 3), np.uint8)
    truth[:2, 2:] = [[[4]], [[8]]]
    assert reduced(truth, 2)[..., 0].tolist() == [[0, 6], [0, 0]]


def test_super_resolution_needs_a_multiple_of_the_factor(tmp_path):
    images, _ = folders(tmp_path)
    with pytest.raises(BadInput, match="66x64 is no multiple of the factor 4"):
        experiments.enlarged_pairs(images, replace(CONFIG, size=(66, 64), factor=4), out=tmp_path / "out")


def test_the_recipe_tells_how_the_scores_came_about(tmp_path):
    folders(tmp_path)
    score(tmp_path, ["telea"])
    recipe = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert recipe["settings"]["size"] == [SIDE, SIDE] and recipe["sources"]["pairs"] == 4
    assert set(recipe["libraries"]) >= {"numpy", "opencv", "pillow"}


def test_the_command_prints_a_table_and_names_the_report(tmp_path):
    folders(tmp_path)
    running = command(tmp_path, "--method", "telea", "--workers", "1", "--paper")
    out, err = running.communicate()
    assert running.returncode == 0, err
    assert "l1_image (%), lower is better; composited images, 4 pairs" in out
    assert "as published by Liu et al. 2018" in out and "results/report.html" in out
    for name in ("scores.csv", "table.csv", "table.md", "table.tex", "tests.csv", "grid.jpg", "report.html"):
        assert (tmp_path / "results" / name).is_file(), name


@pytest.mark.parametrize("name", ["", "dilation", "holes", "superres"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--method tela", "did you mean telea?"),
        ("--method dir:lama", "no such folder: lama"),
        ("--method cmd:not-there", "has no {image}"),
        ("--weights net.pth", "expected one network among the methods"),
        ("--by kid", "--by kid is not a metric"),
    ],
)
def test_a_wrong_option_is_refused_before_any_file_is_read(name, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(evaluate, [*filter(None, [name]), "--images", "not-there", *words.split()])
    assert done.exit_code == 2 and message in done.output and not list(tmp_path.iterdir())


def test_the_command_tells_why_the_first_of_failed_pairs_failed(tmp_path):
    images, masks = folders(tmp_path)
    (tmp_path / "empty").mkdir()
    line = ["--images", str(images), "--masks", str(masks), "--size", str(SIDE), "--workers", "1"]
    line += ["--method", "grey", "--method", f"mine=dir:{tmp_path / 'empty'}", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(evaluate, line)
    assert done.exit_code == 1 and (tmp_path / "out" / "table.csv").is_file()
    assert done.output.splitlines()[-1] == "mine: all pairs failed, the first, 00000: no 00000.png among the results"


def test_the_recipe_names_the_masks_that_ship_and_not_where_they_lie(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ["--per-class", "1", "--method", "grey", "--metric", "psnr", "--size", "64", "--workers", "1"]
    assert CliRunner().invoke(evaluate, asked).exit_code == 0
    recorded = json.loads((tmp_path / "results" / "recipe.json").read_text())["folders"]
    assert recorded == {"images": "scikit-image", "masks": "v1"}


def test_without_masks_the_set_that_ships_is_scored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Counter(pairing.find_masks(pairing.default_masks())["category"]) == dict.fromkeys(CATEGORIES, 1000)
    (tmp_path / "masks/testset/test").mkdir(parents=True)
    (tmp_path / "masks/testset/test/metadata.csv").write_text("file_name\n")
    assert pairing.default_masks() == Path("masks/testset")


@pytest.mark.parametrize("name", ["", "pairs", "dilation", "holes", "superres"])
def test_every_command_of_evaluate_has_help(name):
    done = CliRunner().invoke(evaluate, [*([name] if name else []), "--help"])
    assert done.exit_code == 0 and "--images" in done.output and "--seed" in done.output


def test_a_size_is_height_by_width():
    assert SizeType().convert("384x512", None, None) == (384, 512)
    assert SizeType().convert("256", None, None) == (256, 256)
    for wrong in ("8", "axb", "1x2x3"):
        with pytest.raises(click.BadParameter, match="expected pixels as 512 or 384x512"):
            SizeType().convert(wrong, None, None)


def test_an_image_is_reduced_to_the_mean_of_its_blocks():
    block = np.array([[0, 10], [20, 90]], np.uint8)[..., None].repeat(3, 2)
    assert reduced(np.tile(block, (2, 3, 1)), 2).tolist() == np.full((2, 3, 3), 30).tolist()


def test_super_resolution_scores_every_method_on_the_large_image(tmp_path):
    images, _ = folders(tmp_path)
    config = replace(CONFIG, factor=4, raw=True)
    pairs = experiments.enlarged_pairs(images, config, out=tmp_path / "out").pairs
    scores = benchmark.run(
        parse_all(["bicubic", "mean"]), pairs, Sources(images, tmp_path), tmp_path / "out", config, workers=1
    )
    truth = fit(photo(0), (SIDE, SIDE))
    small = reduced(truth, 4)
    expected = cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    assert scores["category"].eq("x4").all() and scores["error"].eq("").all()
    assert scores["psnr"][0] == pixel.psnr(expected, truth, np.ones((SIDE, SIDE), bool))
    by_method = scores.groupby("method")["psnr"].mean()
    assert by_method["bicubic"] > by_method["mean"]


def test_pixels_for_other_machines_go_through_the_shared_folder(tmp_path):
    folders(tmp_path)
    config = BenchmarkConfig(size=(SIDE, SIDE), metrics=("l1_image",))
    pair = pairing.make_pairs(tmp_path / "images", tmp_path / "masks", config)[0]
    near = scoring.Job((), Sources(tmp_path / "images", tmp_path / "masks"), config, 9, None, 90)
    far = replace(near, shared=tmp_path)
    result = photo(8)
    network = SimpleNamespace(fill=lambda batch: [result])
    (here,), (there,) = (
        list(scoring.fill_batches({"net": network}, job, [pair], {"net": set()})) for job in (near, far)
    )
    assert len(pickle.dumps(there)) < 1000 < len(pickle.dumps(here))
    scores = [scoring.fill_and_score(job, [(pair, (), made)]) for job, (_, made) in ((far, there), (near, here))]
    assert scores[0] == scores[1] and set(scores[0][0]) == {"net"}


# ---- what decides a result ----


def claimed(root, methods, config=CONFIG, retry=False):
    """A finished run of methods whose scores are made up, so that no network has to work for it."""
    images, masks = root / "images", root / "masks"
    pairs, sources = make_pairs(images, masks, config), Sources(images, masks)
    identities = {method.label: method.identity() for method in parse_all(methods)}
    with benchmark.results_folder(
        identities, pairs, sources, root / "out", config, names=("images", "masks")
    ) as folder:
        if not folder.complete:
            benchmark.write_inputs(root / "out", pairs, {})
            (root / "out" / "journal").mkdir()
            for label in folder.recipe["methods"]:
                with Journal(root / "out" / "journal" / f"{label}.jsonl", "pair") as journal:
                    for pair in pairs:
                        journal.add({"pair": pair.pair, "error": "", "hole_ratio": 0.1})
            folder.finish()
        return folder.complete


def flip(path):
    """Change one byte of a file, which keeps its size."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def other_version(monkeypatch, package):
    known = metadata.version
    monkeypatch.setattr("maskgen.runtime.recipe.version", lambda name: "0.0" if name == package else known(name))


CHANGES = {
    "a byte in the weights that ship": (
        lambda root, patch: flip(root / "weights" / "pconv.safetensors"),
        r"methods: pconv: weights was \w{12}, is \w{12}",
    ),
    "the version of PyTorch": (
        lambda root, patch: other_version(patch, "torch"),
        r"methods: pconv: torch was .*, is 0\.0",
    ),
    "the kind of device": (
        lambda root, patch: patch.setattr(networks, "device", lambda: "tpu"),
        "methods: pconv: device was cpu, is tpu",
    ),
    "a result picture of the same size": (
        lambda root, patch: flip(root / "theirs" / "00001.png"),
        r"methods: theirs: pictures was \w{12}, is \w{12}",
    ),
    "a photo": (lambda root, patch: flip(root / "images" / "photo1.png"), r"photos: photo1\.png was \w{12}, is \w{12}"),
    "a mask": (
        lambda root, patch: (root / "masks" / "2.png").write_bytes(maskset.encode(np.eye(SIDE, dtype=bool))),
        r"masks: 2\.png was \w{12}, is \w{12}",
    ),
    "one photo more": (
        lambda root, patch: cv2.imwrite(str(root / "images" / "photo3.png"), photo(3)),
        r"photos: photo3\.png is new",
    ),
    "a photo less": (lambda root, patch: (root / "images" / "photo2.png").unlink(), r"photos: photo2\.png is gone"),
    "the version of NumPy": (lambda root, patch: other_version(patch, "numpy"), r"libraries: numpy was .*, is 0\.0"),
    "the version of OpenCV": (lambda root, patch: patch.setattr(cv2, "__version__", "0.0"), r"opencv was .*, is 0\.0"),
    "our own version": (lambda root, patch: patch.setattr(output, "__version__", "0.0"), r"version was .*, is 0\.0"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_decides_a_result_is_refused_by_name_when_it_changes(change, tmp_path, monkeypatch):
    folders(tmp_path)
    (tmp_path / "theirs").mkdir()
    for i in range(4):
        cv2.imwrite(str(tmp_path / "theirs" / f"{i:05d}.png"), photo(i))
    shutil.copytree(inpaint.WEIGHTS, tmp_path / "weights")
    monkeypatch.setattr(inpaint, "WEIGHTS", tmp_path / "weights")
    asked = ["pconv", f"theirs=dir:{tmp_path / 'theirs'}", "telea"]
    assert claimed(tmp_path, asked) and claimed(tmp_path, asked)
    before = every_file(tmp_path / "out")
    make_the_change, words = CHANGES[change]
    make_the_change(tmp_path, monkeypatch)
    with pytest.raises(BadInput, match=f"out was created with other settings .*{words}"):
        claimed(tmp_path, asked)
    assert every_file(tmp_path / "out") == before


def test_folders_may_have_another_name(tmp_path):
    folders(tmp_path)
    (tmp_path / "theirs").mkdir()
    assert claimed(tmp_path, [f"theirs=dir:{tmp_path / 'theirs'}"])
    (tmp_path / "theirs").rename(tmp_path / "moved")
    assert claimed(tmp_path, [f"theirs=dir:{tmp_path / 'moved'}"])


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (("dilation", 0, 5), ("dilation", 0, 5, "--seed", 1), "seed was 0, is 1"),
        (("dilation", 0, 5), ("dilation", 0, 7), r"growth was \[0, 5\], is \[0, 7\]"),
        (("dilation", 0, 5), ("dilation", 0, 5, "--count", 1), "per_class was 2, is 1"),
        (("holes", "--kind", "box"), ("holes", "--kind", "free-form"), "kind was box, is free-form"),
        (("holes",), ("holes", "--seed", 1), "seed was 0, is 1"),
        (("superres",), ("superres", "--factor", 2), "factor was 4, is 2"),
        (("superres",), ("superres", "--method", "bicubic=mean"), "bicubic: method was bicubic, is mean"),
        (("superres",), ("holes",), "made by evaluate superres, not by evaluate holes"),
        ((), ("superres",), "made by evaluate, not by evaluate superres"),
    ],
)
def test_an_experiment_is_compared_before_its_masks_are_drawn(first, second, words, tmp_path):
    images, masks = folders(tmp_path)
    more = ["--images", images, "--size", SIDE, "--metric", "psnr", "--workers", 1, "--out", tmp_path / "out"]
    extra = {"dilation": ["--masks", masks, "--count", 2], "holes": ["--per-class", 1], "superres": []}

    def run(name="", *given):
        line = [name, *more, *extra[name], *given] if name else [*more, "--masks", masks]
        return CliRunner().invoke(evaluate, [str(word) for word in line])

    assert run(*first).exit_code == 0
    before = every_file(tmp_path / "out")
    refused = run(*second)
    assert refused.exit_code == 2 and re.search(words, refused.stderr)
    assert every_file(tmp_path / "out") == before
    again = run(*first)
    assert again.exit_code == 0 and again.stdout.splitlines()[1] == f"{tmp_path / 'out'} is already complete"
    assert every_file(tmp_path / "out") == before


# ---- runs that fail ----


@pytest.mark.parametrize(
    "wrong",
    [
        ["--method", "pconv", "--weights", "not-there.pth"],
        ["--method", "pconv", "--weights", "notes.txt"],
        ["--method", "onnx:notes.txt"],
        ["--method", "cmd:not-there {image} {mask} {output}"],
        ["--method", "cmd:python not-there.py {image} {mask} {output}"],  # every pair fails
        ["--method", "dir:empty"],
        ["--method", "grey", "--by", "ssim"],
        ["--method", "grey", "--metric", "ms_ssim"],
        ["--method", "crash"],
    ],
)
def test_after_a_failed_start_the_corrected_command_runs(wrong, tmp_path, monkeypatch):
    folders(tmp_path)
    plug_in(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("no network")
    (tmp_path / "empty").mkdir()
    line = "--images images --masks masks --workers 1 --metric l1_image --out out".split()
    failed = CliRunner().invoke(evaluate, [*line, "--size", str(SIDE), *wrong])
    assert failed.exit_code == 1 or (failed.exit_code == 2 and not (tmp_path / "out").exists())
    right = CliRunner().invoke(evaluate, [*line, "--size", "32", "--method", "python=mean", "--method", "empty=grey"])
    assert right.exit_code == 0, right.output
    recipe = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert recipe["settings"]["size"] == [32, 32] and list(recipe["methods"]) == ["python", "empty"]
    assert not (tmp_path / "out" / PROGRESS).exists()


def test_a_run_that_is_killed_before_its_first_pair_leaves_the_folder_free(tmp_path, monkeypatch):
    folders(tmp_path)

    class Killed(BaseException):
        pass

    def kill(*arguments):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(benchmark, "_fill_journals", kill)
        patch.setattr(output.OutputFolder, "__exit__", lambda self, *error: self._lock.__exit__(*error))
        with pytest.raises(Killed):
            score(tmp_path, ["telea"])
    assert (tmp_path / "out" / PROGRESS / "recipe.json").is_file()
    score(tmp_path, ["telea"], config=replace(CONFIG, seed=1))
    score(tmp_path, ["telea"], config=replace(CONFIG, seed=1), out="whole")
    assert every_file(tmp_path / "out") == every_file(tmp_path / "whole")


def test_a_method_without_a_single_score_ends_in_an_error_and_is_tried_again(tmp_path, monkeypatch):
    images, masks = folders(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("theirs", "others"):
        (tmp_path / name).mkdir()
    line = ["--images", str(images), "--masks", str(masks), "--size", str(SIDE), "--workers", "1", "--metric", "psnr"]
    asked = [*line, "--method", "grey", "--method", "x=dir:theirs", "--method", "y=dir:others"]
    cv2.imwrite("others/00002.png", photo(5))
    done = CliRunner().invoke(evaluate, asked)
    lines = done.stderr.splitlines()
    assert done.exit_code == 1 and lines[-1] == "x: all pairs failed, the first, 00000: no 00000.png among the results"
    assert lines[-2] == "y: 3 pairs failed, the first, 00000: no 00000.png among the results"
    assert "x: no result, all 4 pairs failed" in done.stdout and (tmp_path / "results" / "report.html").is_file()
    for i in range(4):
        cv2.imwrite(f"theirs/{i:05d}.png", photo(i))  # another method now, under the same name
    done = CliRunner().invoke(evaluate, asked)
    assert done.exit_code == 0 and [line for line in done.stderr.splitlines() if "failed" in line] == lines[-2:-1]
    scores = pd.read_csv("results/scores.csv", keep_default_na=False)
    assert scores.groupby("method", sort=False)["error"].apply(lambda errors: (errors != "").sum()).to_dict() == {
        "grey": 0,
        "x": 0,
        "y": 3,
    }


def test_results_are_read_as_they_were_while_another_method_is_unfinished(tmp_path, monkeypatch):
    folders(tmp_path)
    score(tmp_path, ["telea"])
    before = every_file(tmp_path / "out")
    add, left = Journal.add, [2]

    def stopped(journal, row):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        add(journal, row)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Journal, "add", stopped)
        score(tmp_path, ["grey"])
    after = every_file(tmp_path / "out")
    assert {name: after[name] for name in before} == before
    assert len(Journal(tmp_path / "out" / "journal" / "grey.jsonl", "pair").rows) == 2
    config = StudyConfig(parts=("limited",), per_class=1)
    made = study.make([tmp_path / "out"], tmp_path / "study", config, tmp_path / "images")
    assert made["pairs"] == 4
    assert list(score(tmp_path, ["mean"])["method"].unique()) == ["telea", "mean"]  # grey waits
    with pytest.raises(BadInput, match="grey: method was grey, is ns"):
        score(tmp_path, ["grey=ns"])
    scores = score(tmp_path, ["grey"])
    assert sorted(scores["method"].unique()) == ["grey", "mean", "telea"]
    assert not (tmp_path / "out" / PROGRESS).exists()


def test_a_retry_that_is_stopped_goes_on_without_being_asked_again(tmp_path, monkeypatch):
    folders(tmp_path)
    plug_in(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    assert (score(tmp_path, ["moody"])["error"] != "").sum() == 2
    (tmp_path / "cured").touch()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(benchmark, "_fill_journals", Mock(side_effect=KeyboardInterrupt))
        score(tmp_path, ["moody"], retry=True)
    assert (score(tmp_path, ["moody"])["error"] != "").sum() == 0


def test_a_run_without_pictures_has_no_grid_of_them(tmp_path):
    images, masks = folders(tmp_path)
    line = ["--images", str(images), "--masks", str(masks), "--size", str(SIDE), "--workers", "1", "--method", "grey"]
    line += ["--metric", "psnr", "--out", str(tmp_path / "out")]
    for more, expected in (["--no-pictures"], False), ([], True):
        assert CliRunner().invoke(evaluate, [*line, *more]).exit_code == 0
        assert (tmp_path / "out" / "grid.jpg").exists() == expected


def test_pictures_that_an_earlier_run_did_not_keep_are_made(tmp_path):
    folders(tmp_path)
    before = score(tmp_path, ["telea"], pictures=False)
    assert not (tmp_path / "out" / "pictures").exists()
    after = score(tmp_path, ["telea"])
    assert len(list((tmp_path / "out" / "pictures").rglob("*.jpg"))) == 4 and after.equals(before)


class Recording:
    """A process of a method that notes the names in each batch."""

    def __init__(self, batch):
        self.batch, self.asked = batch, []

    def fill(self, pairs):
        self.asked.append([name for name, *_ in pairs])
        return [f"{name} by {self.batch}" for name, *_ in pairs]


def filled(folder, done, batches=(BATCH,)):
    """The batches that methods with these batch sizes are asked for, and what is filled by which of them."""
    folders(folder, images=6, ratios=(0.05, 0.1, 0.15))
    config = BenchmarkConfig(size=(SIDE, SIDE))
    pairs = pairing.make_pairs(folder / "images", folder / "masks", config, "hole-white")
    ordered = [pair for group in benchmark.by_image(pairs) for pair in group]
    job = scoring.Job((), Sources(folder / "images", folder / "masks"), config, 1.0, None, 90)
    processes = {str(batch): Recording(batch) for batch in batches}
    tasks = list(scoring.fill_batches(processes, job, ordered, done))
    return [process.asked for process in processes.values()], [(pair.pair, results) for pair, results in tasks]


def test_a_network_fills_the_same_batches_when_a_run_is_resumed(tmp_path):
    label = str(BATCH)
    (whole,), tasks = filled(tmp_path, {label: set()})
    order = [name for name, _ in tasks]
    assert [len(batch) for batch in whole] == [BATCH, len(order) - BATCH]
    (resumed,), rest = filled(tmp_path, {label: set(order[: BATCH + 1])})
    assert resumed == whole[1:] and rest == tasks[BATCH + 1 :]


def test_networks_that_run_together_fill_the_batches_that_each_fills_alone(tmp_path):
    (twos, threes), tasks = filled(tmp_path, {"2": set(), "3": set()}, (2, 3))
    order = [name for name, _ in tasks]
    assert twos == [order[i : i + 2] for i in range(0, 6, 2)] and threes == [order[:3], order[3:]]
    assert tasks == [(name, {"2": f"{name} by 2", "3": f"{name} by 3"}) for name in order]
    (twos, threes), tasks = filled(tmp_path, {"2": set(order[:5]), "3": set(order[2:3])}, (2, 3))
    assert twos == [order[4:]] and threes == [order[:3], order[3:]]  # half-done batches are filled as a whole
    assert [set(results) for _, results in tasks] == [{"3"}, {"3"}, {"3"}, {"3"}, {"2", "3"}]


def test_methods_of_all_kinds_that_run_together_read_a_pair_twice_and_score_as_each_alone(tmp_path, monkeypatch):
    images, masks = folders(tmp_path)
    methods = {"telea": "telea", "grey": lambda image, hole: image // 2 + 64, "same": lambda image, hole: image}
    how = {"images": images, "masks": masks, "size": SIDE, "metrics": ["l1_image", "psnr"], "workers": 1}
    read = Mock(side_effect=load_pair)
    monkeypatch.setattr(scoring, "load_pair", read)
    together = api.evaluate(methods, out=tmp_path / "together", **how).scores
    assert read.call_count == 2 * together["pair"].nunique()
    for name, method in methods.items():
        alone = api.evaluate({name: method}, out=tmp_path / name, **how).scores
        assert together[together["method"] == name].reset_index(drop=True).equals(alone)


def test_each_pair_is_read_once_for_all_networks(tmp_path, monkeypatch):
    read = []
    plain = scoring.load_pair
    monkeypatch.setattr(scoring, "load_pair", lambda pair, *rest: read.append(pair.pair) or plain(pair, *rest))
    _, tasks = filled(tmp_path, {"1": set(), "4": set()}, (1, 4))
    assert read == [name for name, _ in tasks] and len(set(read)) == 6
