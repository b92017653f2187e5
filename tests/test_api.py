"""`evaluate(...)` from Python: functions as methods, arrays, and the same results as the command."""

import warnings
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from small_run import SIDE, folders, photo

from evaluation import commands
from evaluation.api import Evaluation, evaluate
from maskgen.errors import BadInput, InputWarning

QUICK = {"size": SIDE, "metrics": ["l1_hole", "psnr"], "workers": 1}


def run(root, methods, **options) -> Evaluation:
    """A run on the small photos and masks of `root`."""
    return evaluate(methods, root / "images", root / "masks", **{**QUICK, **options})


def every_file(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_function_is_scored_on_the_image_that_it_returns(tmp_path):
    folders(tmp_path)
    scores = run(tmp_path, {"white": lambda image, hole: np.full_like(image, 255)}).scores
    truth = photo(0)
    pair = scores[scores["image"] == "photo0.png"].iloc[0]
    hole = cv2.imread(str(tmp_path / "masks" / f"{int(pair['pair'])}.png"), 0) == 255
    assert pair["l1_hole"] == pytest.approx(100 * (1 - truth[hole] / 255).mean())  # only the hole is white


def test_a_function_gives_the_scores_of_the_same_method_by_name_with_any_number_of_workers(tmp_path):
    folders(tmp_path)

    def telea(image, hole):
        return cv2.inpaint(image, hole.astype(np.uint8), 3, cv2.INPAINT_TELEA)

    for workers in (1, 2):
        scores = run(tmp_path, {"mine": telea, "telea": "telea"}, workers=workers).scores
        mine, theirs = (scores[scores["method"] == name].drop(columns="method") for name in ("mine", "telea"))
        assert mine.reset_index(drop=True).equals(theirs.reset_index(drop=True))


def test_a_function_sees_black_in_the_hole_and_cannot_change_the_pair(tmp_path):
    folders(tmp_path)

    def vandal(image, hole):
        assert (image[hole] == 0).all() and hole.any()
        image[:], hole[:] = 255, True
        return image

    scores = run(tmp_path, {"vandal": vandal, "white": lambda image, hole: np.full_like(image, 255)}).scores
    assert (scores["error"] == "").all()
    assert scores[scores["method"] == "vandal"]["psnr"].tolist() == scores[scores["method"] == "white"]["psnr"].tolist()


def test_an_exception_of_a_function_costs_its_pair_and_is_reported(tmp_path):
    folders(tmp_path)

    def moody(image, hole):
        if hole.mean() > 0.1:
            raise ValueError("too large")
        return image

    with pytest.warns(InputWarning, match="moody: 2 pairs failed, the first, 00002: ValueError: too large"):
        result = run(tmp_path, {"moody": moody})
    assert result.scores["error"].tolist() == ["", "", "ValueError: too large", "ValueError: too large"]
    assert result.failures == ["moody: 2 pairs failed, the first, 00002: ValueError: too large"]
    assert "too large" in repr(result) and not result.all_failed
    with pytest.warns(InputWarning, match="nothing: all pairs failed"):
        assert run(tmp_path, {"nothing": lambda image, hole: None}).all_failed


def test_a_function_is_never_taken_for_an_earlier_one_of_its_label(tmp_path):
    folders(tmp_path)
    out, level = tmp_path / "out", [0]

    def flat(image, hole):
        return np.full_like(image, level[0])

    def scores(**options):
        rows = run(tmp_path, {"mine": flat, "telea": "telea"}, **options).scores
        return rows.sort_values(["method", "pair"], ignore_index=True)

    first = scores(out=out)
    level[0] = 200  # the code is the same, its data are not
    journal = (out / "journal" / "telea.jsonl").stat().st_mtime_ns
    second = scores(out=out)
    assert second.equals(scores()) and not second.equals(first)
    assert (out / "journal" / "telea.jsonl").stat().st_mtime_ns == journal  # telea is not run again
    with pytest.raises(BadInput, match="mine: method was function, is ns"):
        run(tmp_path, {"mine": "ns"}, out=out)
    with pytest.raises(BadInput, match="telea: method was telea, is function"):
        run(tmp_path, {"telea": flat}, out=out)
    assert sorted(run(tmp_path, ["ns"], out=out).scores["method"].unique()) == ["mine", "ns", "telea"]


def test_python_and_the_command_write_the_same_bytes(tmp_path):
    images, masks = folders(tmp_path)
    run(tmp_path, ["telea", "ns"], out=tmp_path / "python", per_class=1, seed=3, raw=True, pages=True, by="psnr")
    line = f"-m telea -m ns --images {images} --masks {masks} --per-class 1 --seed 3 --raw --pages --by psnr -j 1"
    line += f" --metric l1_hole --metric psnr --size {SIDE} -o {tmp_path / 'command'}"
    done = CliRunner().invoke(commands.evaluate, line.split())
    assert done.exit_code == 0, done.output
    assert every_file(tmp_path / "python") == every_file(tmp_path / "command")


def test_arrays_are_paired_in_their_order_at_their_own_size(tmp_path):
    photos = [photo(i)[:40] for i in range(3)]
    holes = [np.zeros((40, SIDE), bool) for _ in photos]
    for i, hole in enumerate(holes):
        hole[5 : 10 + 2 * i, 5:20] = True
    result = evaluate({"grey": "grey"}, photos, holes, metrics=["l1_hole"], workers=1)
    expected = [100 * np.abs(photo[hole] / 255 - 128 / 255).mean() for photo, hole in zip(photos, holes, strict=True)]
    assert result.scores["l1_hole"].tolist() == pytest.approx(expected)
    again = evaluate(["grey"], pairs=result.report(tmp_path / "kept").parent, metrics=["l1_hole"], workers=1)
    assert again.scores["l1_hole"].tolist() == result.scores["l1_hole"].tolist()


@pytest.mark.parametrize(
    ("images", "masks", "words"),
    [
        ([photo(0)], None, "got 1 images and no array of holes"),
        ([photo(0)], [], "got 1 images and 0 holes"),
        ([photo(0) / 255], [np.ones((SIDE, SIDE), bool)], r"image 0 is float64 of shape .*: expected uint8"),
        ([photo(0)], [np.ones((SIDE, SIDE), np.uint8)], r"hole 0 is uint8 of shape .*: expected bool"),
        ([photo(0)], [np.ones((SIDE, 9), bool)], r"hole 0 is bool of shape \(64, 9\)"),
        ([photo(0), photo(0)[:50]], [np.ones((n, SIDE), bool) for n in (SIDE, 50)], "several sizes: give the size"),
    ],
)
def test_arrays_of_another_form_are_refused(images, masks, words):
    with pytest.raises(BadInput, match=words), warnings.catch_warnings(action="ignore"):
        evaluate(["grey"], images, masks)


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        ([], "expected a dict of label -> function"),
        (np.mean, "expected a dict of label -> function"),
        ({"a b": "telea"}, "a method's label is a file name"),
        ({"a/b": np.mean}, "a method's label is a file name"),
        ({"Mine": np.mean, "mine": "telea"}, "two methods are called mine"),
        ({"mine": "tela"}, "did you mean telea"),
    ],
)
def test_methods_of_another_form_are_refused(methods, words):
    with pytest.raises(BadInput, match=words):
        evaluate(methods)


def test_weights_and_listed_pairs_are_named_as_in_the_command(tmp_path):
    folders(tmp_path)
    with pytest.raises(BadInput, match="no weights file"):
        run(tmp_path, ["pconv"], weights={"pconv": tmp_path / "missing"})
    before = run(tmp_path, ["telea"], out=tmp_path / "out", per_class=1).scores
    again = evaluate(["telea"], pairs=tmp_path / "out", metrics=QUICK["metrics"], workers=1).scores
    assert again.equals(before)
    with pytest.raises(BadInput, match="leave one of the two out"):
        evaluate(["telea"], pairs=tmp_path / "out", per_class=1)


def test_a_result_shows_its_table_and_keeps_its_files_as_long_as_it_lives(tmp_path, capsys):
    folders(tmp_path)
    result = run(tmp_path, ["telea", "grey"])
    assert capsys.readouterr().out == ""
    table = result.table
    group = result.scores[(result.scores["method"] == "grey") & (result.scores["category"] == "free_0.1-0.2")]
    row = table[(table["method"] == "grey") & (table["category"] == "free_0.1-0.2") & (table["metric"] == "psnr")]
    assert row["mean"].item() == pytest.approx(group["psnr"].mean())
    assert "psnr (dB), higher is better" in repr(result) and "telea" in repr(result)
    assert f"{row['mean'].item():.2f}" in result._repr_html_() and "<table" in result._repr_html_()
    page = result.report(tmp_path / "report")
    assert result.report(tmp_path / "alone.html").read_bytes() == page.read_bytes()
    assert page == tmp_path / "report" / "report.html" and page.is_file()
    assert every_file(page.parent) == every_file(result.folder)
    with pytest.raises(BadInput, match="is not empty"):
        result.report(tmp_path / "report")
    folder = Path(result.folder)
    del result
    assert not folder.exists()
    assert pd.read_csv(tmp_path / "report" / "scores.csv")["method"].nunique() == 2


def test_without_metrics_those_of_the_paper_are_scored_iscore_among_them(tmp_path):
    images, masks = folders(tmp_path, images=1, ratios=(0.05,))
    table = evaluate(["grey"], images, masks, size=SIDE, workers=1, pictures=False).table
    assert set(table["metric"]) == {"l1_image", "l1_hole", "psnr", "ssim", "iscore"}
    assert table.set_index("metric")["mean"]["iscore"] > 0
