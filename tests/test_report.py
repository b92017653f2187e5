import base64
import json
import re
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
from small_run import SIDE, folders, plug_in, score

from evaluation import metrics, report
from evaluation.pairing import make_pairs
from evaluation.pairs import Sources, load_pair
from evaluation.report import statistics, tables
from evaluation.settings import BenchmarkConfig, ReportConfig
from maskgen.categories import CATEGORIES
from maskgen.errors import BadInput
from maskgen.runtime.images import decode_rgb

CONFIG = BenchmarkConfig(size=(SIDE, SIDE), metrics=("l1_image", "psnr"))
RECIPE = {"settings": {"raw": False}, "sources": {"pairs": 7}}


def summary(*rows):
    """A summary of (metric, method, class, mean, low, high, best, tied)."""
    columns = ["metric", "method", "category", "mean", "low", "high", "best", "tied"]
    return pd.DataFrame(rows, columns=columns).assign(n=5, identical=0, failed=0)


TABLE = summary(
    ("psnr", "my_net", "interior_0.01-0.1", 30.126, 29.5, 30.5, True, False),
    ("psnr", "telea", "interior_0.01-0.1", 29.9, 29.0, 31.0, False, True),
    ("psnr", "telea", "free_0.5-0.6", 17.0, np.nan, np.nan, True, False),
)


def written(root, methods=("telea", "grey"), **how):
    """A finished small run with its report. Returns the text for the terminal."""
    folders(root)
    scores = score(root, methods, config=CONFIG)
    pairs, sources = make_pairs(root / "images", root / "masks", CONFIG), Sources(root / "images", root / "masks")
    return report.write(root / "out", scores, pairs, sources, CONFIG, how.pop("report", ReportConfig()), **how)


def test_the_columns_are_those_of_the_paper():
    columns = tables.columns_of(["free_0.1-0.2"])
    assert columns[:2] == [
        ("(0.01, 0.1]", "interior", "interior_0.01-0.1"),
        ("(0.01, 0.1]", "free", "free_0.01-0.1"),
    ]
    assert sorted(name for _, _, name in columns) == sorted(CATEGORIES)


def test_other_classes_have_columns_of_their_own():
    assert [name for _, _, name in tables.columns_of(["grown_05", "grown_15"])] == ["grown_05", "grown_15"]
    assert tables.columns_of(["other", "free_0.1-0.2"])[-1] == ("other", "", "other")


def test_the_text_table_shows_means_marks_and_half_intervals():
    lines = tables.as_text(TABLE, RECIPE).splitlines()
    assert lines[0] == "psnr (dB), higher is better; composited images, 7 pairs"
    assert lines[3].split() == ["my_net", "30.13*"] + ["-"] * 11
    assert lines[4].split() == ["±0.50"]
    assert lines[5].split() == ["telea", "29.90~"] + ["-"] * 10 + ["17.00*"]
    assert lines[6].split() == ["±1.00"]


def test_the_published_table_is_told_apart():
    table = tables.with_published(TABLE)
    lines = tables.as_text(table, RECIPE).splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("as published"))
    numbers = [33.0, 33.7, 26.9, 27.5, 23.7, 24.4, 21.3, 22.1, 19.7, 20.6, 17.6, 18.2]  # PSNR of PatchMatch
    assert lines[first + 1].split()[0] == "PM"
    assert [float(text) for text in lines[first + 1].split()[1:]] == pytest.approx(numbers, abs=0.06)
    assert table["source"].value_counts().to_dict() == {"published": 60, "this run": 3}


def test_the_published_table_is_whole():
    table = tables.published()
    assert table.groupby(["metric", "method"]).size().eq(12).all() and len(table) == 4 * 5 * 12
    # Section 4.3 of the paper: PConv is first in all 12 columns of IScore and in 10 of l1.
    wins = table.loc[table.groupby(["metric", "category"])["mean"].idxmin()]
    wins = wins[wins["method"] == "PConv"].groupby("metric").size()
    assert wins["iscore"] == 12 and wins["l1_image"] == 10


def test_latex_escapes_names_and_marks_the_best():
    text = tables.as_latex(TABLE, RECIPE)
    assert "my\\_net & \\textbf{30.13} & --" in text
    assert "telea & \\underline{29.90} & --" in text
    assert "\\multicolumn{2}{c}{$(0.01, 0.1]$}" in text and "{l*{12}{r}}" in text
    assert text.count("{") == text.count("}")
    body = text[text.index("\\midrule") : text.index("\\bottomrule")].splitlines()[1:]
    assert all(line.count(" & ") == 12 for line in body)


def test_markdown_has_one_cell_for_each_class():
    lines = tables.as_markdown(TABLE, RECIPE).splitlines()
    assert lines[2].count("|") == lines[3].count("|") == lines[4].count("|") == 14
    assert lines[4].startswith("| my_net | **30.13** ±0.50 | - |")


def test_failures_and_identical_results_are_told_below_the_table():
    lines = tables.legend(TABLE.assign(failed=[2, 0, 0], identical=[0, 1, 2]))
    assert lines[1:] == [
        "my_net: 2 pairs failed and are in no mean; scores.csv tells why",
        "telea: 3 identical results, infinite PSNR, not in its mean",
    ]


def test_a_run_without_a_single_result_still_has_a_report(tmp_path, monkeypatch):
    plug_in(tmp_path, monkeypatch)
    text = written(tmp_path, ["raises"])
    told = "raises: no result, all 4 pairs failed; scores.csv tells why"
    assert text.splitlines()[-1] == told
    for name in ("report.html", "table.md"):
        assert told in (tmp_path / "out" / name).read_text()


def test_a_method_that_failed_everywhere_is_told_beside_one_that_did_not(tmp_path, monkeypatch):
    plug_in(tmp_path, monkeypatch)
    assert "raises: no result, all 4 pairs failed; scores.csv tells why" in written(tmp_path, ["telea", "raises"])
    grid = cv2.imread(str(tmp_path / "out" / "grid.jpg"))
    column = grid[report.TOP :, report.MARGIN + 2 * (report.TILE + 6) :][:, : report.TILE]
    assert (np.abs(column.astype(int) - 200) < 20).mean() > 0.9 and (column < 100).any()  # grey, with words on it


def test_the_hole_is_white_in_what_a_reader_sees_and_the_page_says_so(tmp_path):
    written(tmp_path)
    text = (tmp_path / "out" / "report.html").read_text()
    assert "White in the input is the hole, as in the masks." in text
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])
    pairs = {pair.pair: pair for pair in make_pairs(tmp_path / "images", tmp_path / "masks", CONFIG)}
    for name, entry in data.items():
        picture = decode_rgb(base64.b64decode(entry["pictures"]["input"].split(",")[1]), name)
        hole = load_pair(pairs[name], Sources(tmp_path / "images", tmp_path / "masks"), CONFIG)[2]
        assert picture[hole].mean() > 245


def test_a_long_name_does_not_run_into_the_next_column(tmp_path):
    name = "a" * 60
    written(tmp_path, [f"{name}=telea", "grey"])
    head = cv2.imread(str(tmp_path / "out" / "grid.jpg"))[: report.TOP]
    ink = (head < 128).any((0, 2))
    first = report.MARGIN + report.TILE + 6
    assert ink[first : first + report.TILE].any() and not ink[first + report.TILE : first + report.TILE + 6].any()


def test_worst_median_and_best_are_picked_by_the_mean_over_methods():
    rows = [
        {"method": method, "pair": pair, "category": "a", "l1_image": value + shift, "psnr": -value}
        for method, shift in (("x", 0), ("y", 1))
        for pair, value in {"p": 5.0, "q": 1.0, "r": 3.0}.items()
    ]
    table = pd.DataFrame(rows)
    assert report.choose(table, "l1_image") == {"a": {"worst": "p", "median": "r", "best": "q"}}
    assert report.choose(table, "psnr") == {"a": {"worst": "p", "median": "r", "best": "q"}}
    assert report.choose(table[table["pair"] == "q"], "psnr") == {"a": {"median": "q"}}


def test_a_method_that_failed_everywhere_does_not_hide_the_pictures():
    rows = [("good", "p", 1.0), ("good", "q", 2.0), ("bad", "p", np.nan), ("bad", "q", np.nan)]
    table = pd.DataFrame(rows, columns=["method", "pair", "psnr"]).assign(category="a")
    assert report.choose(table, "psnr") == {"a": {"worst": "p", "median": "q"}}


def test_the_report_loads_nothing_from_elsewhere(tmp_path):
    written(tmp_path, paper=True)
    text = (tmp_path / "out" / "report.html").read_text()
    assert not re.search(r"""(src|href)=(?!["']?data:)""", text.split('<script type="application/json"')[0])
    assert "http" not in re.sub(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+", "", text)
    assert "__" not in re.sub(r'"data:[^"]+"', "", text)
    assert "a class needs six images" in text  # or else every ~ would look like the outcome of a test


def test_the_report_holds_the_pictures_of_the_pairs_it_shows(tmp_path):
    written(tmp_path)
    text = (tmp_path / "out" / "report.html").read_text()
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])
    shown = set(re.findall(r'data-of="(\d+)/', text))
    assert shown == set(data) and shown
    for entry in data.values():
        assert list(entry["pictures"]) == ["input", "telea", "grey", "truth"]
        jpeg = base64.b64decode(entry["pictures"]["truth"].split(",")[1])
        assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), 1).shape == (SIDE, SIDE, 3)
        assert set(entry["scores"]) == {"telea", "grey"} and len(entry["scores"]["grey"]) == len(entry["metrics"]) == 2


def test_every_pair_can_have_a_page(tmp_path):
    written(tmp_path, pages=True)
    assert len(list((tmp_path / "out" / "pages").rglob("*.html"))) == 4


def test_the_report_is_the_same_twice(tmp_path):
    written(tmp_path / "a")
    written(tmp_path / "b")
    for name in ("report.html", "table.csv", "grid.jpg", "tests.csv"):
        assert (tmp_path / "a" / "out" / name).read_bytes() == (tmp_path / "b" / "out" / name).read_bytes()


def test_a_metric_that_was_not_computed_picks_nothing(tmp_path):
    with pytest.raises(BadInput, match="computes for a pair: expected one of l1_image, psnr"):
        written(tmp_path, report=ReportConfig(by="ssim"))


def test_names_of_files_cannot_break_the_page():
    entry = {"p": {"category": "</script><b>"}}
    text = report._filled(title="<t>", about="", sections="", classes="", notes="", data=entry)
    assert "</script><b>" not in text and "<title>&lt;t&gt;</title>" in text


def test_ticks_are_round_and_cover_the_data():
    assert report.nice(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert report.nice(17.2, 33.9) == [15, 20, 25, 30, 35]
    assert report.nice(3, 3) == [3]


def test_metrics_of_sets_join_the_summary_without_an_interval():
    sets = pd.DataFrame([{"metric": "fid", "method": "telea", "category": "free_0.5-0.6", "n": 5, "mean": 80.0}])
    scores = pd.DataFrame({"method": "telea", "category": "free_0.5-0.6", "error": ["", "no result", ""]})
    for table in (TABLE, TABLE[:0]):  # beside metrics of pairs, and alone
        joined = statistics.with_sets(table.drop(columns=["best", "tied"]), sets, scores)
        cell = tables.rows_of(joined, "fid")[0][2][-1]
        assert cell["mean"] == 80 and cell["failed"] == 1 and tables.spread(cell, "fid") == ""


def test_a_run_of_metrics_of_sets_alone_has_a_report(tmp_path, monkeypatch):
    monkeypatch.setitem(metrics.VECTORS, "posterior", lambda image: np.log([0.5, 0.5]))
    row = replace(metrics.SETS["inception_score"], weights=lambda: tmp_path / "images" / "photo0.png")
    monkeypatch.setitem(metrics.ALL, "inception_score", row)
    config = replace(CONFIG, metrics=("inception_score",))
    folders(tmp_path)
    scores = score(tmp_path, ["mean"], config=config)
    pairs, sources = (
        make_pairs(tmp_path / "images", tmp_path / "masks", config),
        Sources(tmp_path / "images", tmp_path / "masks"),
    )
    text = report.write(tmp_path / "out", scores, pairs, sources, config, ReportConfig())
    assert text.startswith("inception_score (EfficientNet-Lite2), higher is better") and "1.00*" in text
    assert (tmp_path / "out" / "report.html").is_file()
