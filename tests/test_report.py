import base64
import json
import re
from dataclasses import replace
from types import SimpleNamespace
from urllib.parse import unquote

import cv2
import numpy as np
import pandas as pd
import pytest
from small_run import SIDE, folders, plug_in, score

from evaluation import metrics, report
from evaluation.pairing import make_pairs
from evaluation.pairs import Sources, jpeg, load_pair
from evaluation.report import page, statistics, tables
from evaluation.report.grid import GAP, HEADER, MARGIN, TILE, grid
from evaluation.report.pictures import Pictures, select_pairs
from evaluation.settings import BenchmarkConfig, ReportConfig
from maskgen.categories import CATEGORIES
from maskgen.errors import BadInput
from maskgen.runtime.images import decode_rgb

CONFIG = BenchmarkConfig(size=(SIDE, SIDE), metrics=("l1_image", "psnr"))
RECIPE = {"settings": {"raw": False}, "sources": {"pairs": 7}}
TESTS = pd.DataFrame({"metric": ["psnr", "psnr"], "p_holm": [0.04, 0.06]})
MARKS = (
    "~: not significantly different from the best at p < 0.05 (Wilcoxon's signed-rank test over images, "
    "Holm-corrected); ±: half of the 95 % bootstrap interval"
)


def summary(*rows):
    """A summary of (metric, method, class, mean, low, high, best, tied)."""
    columns = ["metric", "method", "category", "mean", "low", "high", "best", "tied"]
    return pd.DataFrame(rows, columns=columns).assign(n=5, identical=0, failed=0)


TABLE = summary(
    ("psnr", "my_net", "interior_0.01-0.1", 30.126, 29.5, 30.5, True, False),
    ("psnr", "telea", "interior_0.01-0.1", 29.9, 29.0, 31.0, False, True),
    ("psnr", "telea", "free_0.5-0.6", 17.0, np.nan, np.nan, True, False),
)
TWO = pd.concat([TABLE, summary(("fid", "telea", "free_0.5-0.6", 80.0, np.nan, np.nan, True, False))])


def results(table=TABLE, tests=TESTS):
    return tables.Results(table, tests, RECIPE, ReportConfig())


def written(root, methods=("telea", "grey"), **options):
    """Score a small run and write its report. Returns the text for the terminal."""
    folders(root)
    scores = score(root, methods, config=CONFIG)
    pairs, sources = make_pairs(root / "images", root / "masks", CONFIG), Sources(root / "images", root / "masks")
    config = options.pop("report", ReportConfig())
    return report.write(root / "out", scores, pairs, sources, CONFIG, config, **options)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The folder of a small run with its report, to look at only."""
    root = tmp_path_factory.mktemp("small")
    written(root, paper=True)
    return root


def html(root):
    """report.html of a small run."""
    return (root / "out" / "report.html").read_text()


def entries(text):
    """The data of a page's slider."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def picture(entry, name):
    """A picture of a page's slider, uint8 (H, W, 3), RGB."""
    return decode_rgb(base64.b64decode(entry["pictures"][name].split(",")[1]), name)


# Tables


def test_the_columns_are_those_of_the_paper():
    columns = tables.columns_of(["free_0.1-0.2"])
    assert columns[:2] == [
        ("(0.01, 0.1]", "interior", "interior_0.01-0.1"),
        ("(0.01, 0.1]", "free", "free_0.01-0.1"),
    ]
    assert sorted(column.category for column in columns) == sorted(CATEGORIES)


def test_other_classes_have_columns_of_their_own():
    assert [column.category for column in tables.columns_of(["grown_05", "grown_15"])] == ["grown_05", "grown_15"]
    assert tables.columns_of(["other", "free_0.1-0.2"])[-1] == ("other", "", "other")


def test_a_cell_has_the_mean_the_mark_and_half_the_interval():
    (_, _, first), (_, _, second) = tables.rows_of(TABLE, "psnr")
    assert first[0] == ("30.13", "*", "0.50") and second[0] == ("29.90", "~", "1.00")
    assert second[-1] == ("17.00", "*", "") and first[-1] == ("-", "", "")


def test_results_that_a_metric_cannot_score_are_counted_below_its_table():
    scores = pd.DataFrame({"method": ["a", "a", "b"], "psnr": [np.inf, 1, 2], "ms_ssim": [np.nan, np.nan, 1]})
    unscored = statistics.unscored(scores.assign(error=["", "", ""]))
    assert unscored == {"ms_ssim": {"a": 2}}
    assert statistics.unscored(scores.assign(error=["", "it crashed", ""])) == {"ms_ssim": {"a": 1}}
    line = "a: 2 results have no ms_ssim and are not in its mean (too small, or no such pixels)"
    shown = replace(results(), unscored=unscored)
    assert tables.legend(shown)[-1] == tables.legend(shown, "ms_ssim")[-1] == line
    assert line not in tables.legend(shown, "psnr")


def test_the_text_table_shows_means_marks_and_half_intervals():
    lines = tables.as_text(results()).splitlines()
    assert lines[0] == "psnr (dB), higher is better; composited images, 7 pairs"
    assert lines[3].split() == ["my_net", "30.13*"] + ["-"] * 11
    assert lines[4].split() == ["±0.50"]
    assert lines[5].split() == ["telea", "29.90~"] + ["-"] * 10 + ["17.00*"]
    assert lines[6].split() == ["±1.00"]
    assert lines[-1] == f"*: best; {MARKS}"


def test_headings_of_the_text_table_stand_above_their_columns():
    intervals, sides, means = tables.as_text(results()).splitlines()[1:4]
    ends = [found.end() for found in re.finditer("interior|free", sides)]
    assert means[: ends[0]].endswith("30.13*") and means[: ends[3]].endswith("- ")
    for i, interval in enumerate(tables.INTERVALS):
        assert ends[2 * i] - 9 <= intervals.index(interval) < ends[2 * i + 1] - len(interval)


def test_published_rows_come_after_a_note():
    table = tables.with_published(TABLE)
    lines = tables.as_text(results(table)).splitlines()
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
    text = tables.as_latex(results())
    assert "my\\_net & \\textbf{30.13} & --" in text
    assert "telea & 29.90\\rlap{$^{\\sim}$} & --" in text
    assert "underline" not in text  # which means second best in most papers
    assert "Bold: best; $\\sim$: not significantly different" in text and "p $<$ 0.05" in text and "95 \\%" in text
    assert "\\multicolumn{2}{c}{$(0.01, 0.1]$}" in text and "{l*{12}{r}}" in text
    assert "\\cmidrule(lr){2-3}\\cmidrule(lr){4-5}" in text
    assert text.count("{") == text.count("}")
    body = text[text.index("\\midrule") : text.index("\\bottomrule")].splitlines()[1:]
    assert all(line.count(" & ") == 12 for line in body)


def test_markdown_has_one_cell_for_each_class():
    lines = tables.as_markdown(results()).splitlines()
    assert lines[2].count("|") == lines[3].count("|") == lines[4].count("|") == 14
    assert lines[4].startswith("| my_net | **30.13** ±0.50 | - |")
    assert lines[5].startswith("| telea | 29.90\\~ ±1.00 | - |")


def test_each_markdown_table_has_the_legend_of_its_own_marks():
    text = tables.as_markdown(results(TWO))
    psnr, fid = text.split("**fid")
    assert psnr.rstrip().endswith("- bold: best; " + MARKS.replace("~", "\\~"))
    assert fid.rstrip().endswith("- bold: best")  # no interval, nothing tied


def test_a_legend_does_not_claim_tests_that_were_not_made():
    tests = pd.DataFrame({"metric": ["psnr", "ssim"], "p_holm": [np.nan, 0.01]})
    line = tables.legend(results(tests=tests), "psnr")[0]
    assert "~: not tested against the best: a test needs six images in a class" in line and "Wilcoxon" not in line


def test_significant_differences_of_a_metric_are_counted():
    assert tables.significant(results(), "psnr") == [
        "1 of 2 differences between two methods in a class are significant at p < 0.05; tests.csv lists them all"
    ]
    assert tables.significant(results(), "fid") == []


def test_failures_and_identical_results_are_listed_below_the_table():
    lines = tables.legend(results(TABLE.assign(failed=[2, 0, 0], identical=[0, 1, 2])))
    assert lines[1:] == [
        "my_net: 2 pairs failed and are not in its means; see scores.csv for the reasons",
        "telea: 3 identical results, infinite PSNR, not in its mean",
    ]


def test_a_failed_pair_is_counted_once_for_all_metrics():
    rows = [(metric, "telea", "free_0.1-0.2", 1.0, np.nan, np.nan, True, False) for metric in ("psnr", "ssim")]
    table = summary(*rows).assign(failed=3, identical=[2, 0], n=[0, 2])
    assert tables.legend(results(table))[1:] == [
        "telea: 2 identical results, infinite PSNR, not in its mean",
        "telea: 3 pairs failed and are not in its means; see scores.csv for the reasons",
    ]
    assert len(tables.legend(results(table), "ssim")) == 2  # nothing on identical results


def test_metrics_of_sets_join_the_summary_without_an_interval():
    sets = pd.DataFrame([{"metric": "fid", "method": "telea", "category": "free_0.5-0.6", "n": 5, "mean": 80.0}])
    scores = pd.DataFrame({"method": "telea", "category": "free_0.5-0.6", "error": ["", "no result", ""]})
    for table in (TABLE, TABLE[:0]):  # beside metrics of pairs, and alone
        joined = statistics.with_sets(table.drop(columns=["best", "tied"]), sets, scores)
        assert joined.iloc[-1]["failed"] == 1
        cells = tables.rows_of(joined.assign(best=False, tied=False), "fid")[0][2]
        assert cells[-1] == ("80.0", "", "")


# Selected pairs and the grid


def test_worst_median_and_best_are_picked_by_the_mean_over_methods():
    rows = [
        {"method": method, "pair": pair, "category": "a", "l1_image": value + shift, "psnr": -value}
        for method, shift in (("x", 0), ("y", 1))
        for pair, value in {"p": 5.0, "q": 1.0, "r": 3.0}.items()
    ]
    table = pd.DataFrame(rows)
    assert select_pairs(table, "l1_image") == {"a": {"worst": "p", "median": "r", "best": "q"}}
    assert select_pairs(table, "psnr") == {"a": {"worst": "p", "median": "r", "best": "q"}}
    assert select_pairs(table[table["pair"] == "q"], "psnr") == {"a": {"median": "q"}}


def test_a_method_that_failed_everywhere_does_not_hide_the_pictures():
    rows = [("good", "p", 1.0), ("good", "q", 2.0), ("bad", "p", np.nan), ("bad", "q", np.nan)]
    table = pd.DataFrame(rows, columns=["method", "pair", "psnr"]).assign(category="a")
    assert select_pairs(table, "psnr") == {"a": {"worst": "p", "median": "q"}}


def test_a_pair_that_one_method_failed_on_is_not_selected():
    values = {"p": (1.0, 1.0), "q": (2.0, 2.0), "r": (9.0, np.nan), "s": (3.0, np.inf)}
    rows = [(method, pair, value[i]) for pair, value in values.items() for i, method in enumerate("xy")]
    table = pd.DataFrame(rows, columns=["method", "pair", "psnr"]).assign(category="a")
    assert select_pairs(table, "psnr") == {"a": {"worst": "p", "median": "q"}}


COLOURS = {"input": (230, 0, 0), "x": (0, 230, 0), "y": (0, 0, 230), "truth": (230, 230, 0)}


class Coloured:
    """Pictures of one colour each, for the grid."""

    methods, config = ("x", "y", "z"), BenchmarkConfig(size=(40, 80))

    def __init__(self):
        self.pairs = {"p": SimpleNamespace(category="interior_0.1-0.2"), "q": SimpleNamespace(category="other")}

    def load(self, pair):
        dim = 0.5 if pair == "q" else 1
        return {name: jpeg(np.full((40, 80, 3), dim * np.array(c)).astype("u1")) for name, c in COLOURS.items()}

    def missing(self, pair, method):
        return "failed"


def test_the_grid_shows_input_methods_and_truth_from_left_to_right():
    image = grid(Coloured(), ["p", "q"])
    height, width = TILE // 2 + 2 * GAP, TILE + 2 * GAP  # pictures of 40 x 80
    assert image.shape == (HEADER + 2 * height, MARGIN + 5 * width, 3)
    for i, name in enumerate(["input", "x", "y", None, "truth"]):
        for row, dim in enumerate((1, 0.5)):
            tile = image[HEADER + row * height + GAP :, MARGIN + i * width + GAP :][: TILE // 2, :TILE]
            if name:
                assert np.abs(tile - dim * np.array(COLOURS[name])).max() < 6
            else:
                assert np.median(tile) == 200 and tile.min() < 100  # the word on grey
    rim = image[HEADER : HEADER + height, MARGIN:]
    assert (rim[0] == 255).all() and (rim[:, ::width] == 255).all()


def test_the_grid_of_a_run_shows_the_hole_in_the_input_and_the_photo_in_true_colours(small):
    shown = decode_rgb((small / "out" / "grid.jpg").read_bytes(), "grid.jpg")
    side = TILE + 2 * GAP
    tiles = [shown[HEADER + GAP :, MARGIN + i * side + GAP :][:TILE, :TILE] for i in range(4)]
    scores = pd.read_csv(small / "out" / "scores.csv", dtype={"pair": str})
    median = next(iter(select_pairs(scores, "l1_image").values()))["median"]
    pairs = {pair.pair: pair for pair in make_pairs(small / "images", small / "masks", CONFIG)}
    truth, _, hole = load_pair(pairs[median], Sources(small / "images", small / "masks"), CONFIG)
    shrunk = [cv2.resize(tile, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(int) for tile in tiles]
    assert shrunk[0][hole].mean() > 245  # white, as in the mask
    assert np.abs(shrunk[0][~hole] - truth[~hole]).mean() < 8
    assert np.abs(shrunk[-1] - truth).mean() < 8
    assert np.abs(shrunk[-1][..., ::-1] - truth).mean() > 16  # so red and blue could not be swapped
    assert np.abs(shrunk[2][hole] - 128).mean() < 12  # grey


def test_a_pair_that_failed_later_does_not_show_its_earlier_picture(small):
    scores = pd.read_csv(small / "out" / "scores.csv", dtype={"pair": str}).assign(error="")
    scores.loc[scores["method"] == "grey", "error"] = "no result"
    pairs = {pair.pair: pair for pair in make_pairs(small / "images", small / "masks", CONFIG)}
    sources = Sources(small / "images", small / "masks")
    pictures = Pictures(small / "out", scores, pairs, sources, CONFIG, ReportConfig())
    name = next(iter(pairs))
    assert list(pictures.load(name)) == ["input", "telea", "truth"] and pictures.missing(name, "grey") == "failed"
    assert pictures.missing(name, "telea") == "no picture"


def test_a_long_name_does_not_run_into_the_next_column(tmp_path):
    name = "a" * 60
    written(tmp_path, [f"{name}=telea", "grey"])
    head = cv2.imread(str(tmp_path / "out" / "grid.jpg"))[:HEADER]
    ink = (head < 128).any((0, 2))
    first = MARGIN + TILE + 6
    assert ink[first : first + TILE].any() and not ink[first + TILE : first + TILE + 6].any()


# The report of a run


def test_a_run_without_a_single_result_still_has_a_report(tmp_path, monkeypatch):
    plug_in(tmp_path, monkeypatch)
    text = written(tmp_path, ["raises"])
    line = "raises: no result, all 4 pairs failed; see scores.csv for the reasons"
    assert text.splitlines()[-1] == line
    for name in ("report.html", "table.md"):
        assert line in (tmp_path / "out" / name).read_text()


def test_a_method_that_failed_everywhere_is_listed_beside_one_that_did_not(tmp_path, monkeypatch):
    plug_in(tmp_path, monkeypatch)
    assert "raises: no result, all 4 pairs failed; see scores.csv" in written(tmp_path, ["telea", "raises"])
    shown = cv2.imread(str(tmp_path / "out" / "grid.jpg"))
    column = shown[HEADER:, MARGIN + 2 * (TILE + 6) :][:, :TILE]
    assert (np.abs(column.astype(int) - 200) < 20).mean() > 0.9 and (column < 100).any()  # grey, with a word on it


def test_the_hole_is_white_in_the_input_and_the_page_says_so(small):
    assert "White pixels in the input are the hole, as in the masks." in html(small)
    pairs = {pair.pair: pair for pair in make_pairs(small / "images", small / "masks", CONFIG)}
    for name, entry in entries(html(small)).items():
        truth, _, hole = load_pair(pairs[name], Sources(small / "images", small / "masks"), CONFIG)
        assert picture(entry, "input")[hole].mean() > 245
        assert np.abs(picture(entry, "truth")[hole].astype(int) - truth[hole]).mean() < 10


def test_the_report_loads_nothing_from_elsewhere(small):
    text = html(small)
    assert not re.search(r"""(src|href)=(?!["']?(data:|#))""", text.split('<script type="application/json"')[0])
    assert "http" not in re.sub(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+", "", text)
    assert "{{" not in text and "{%" not in text
    assert "a test needs six images in a class" in text  # or else each ~ would look like the outcome of a test


def test_each_table_of_the_page_has_its_legend_and_marks(small):
    sections = re.findall(r"<section.*?</section>", html(small), re.S)
    assert [re.search('id="m-(.*?)"', section)[1] for section in sections] == ["l1_image", "psnr"]
    for section in sections:
        assert section.index("</table>") < section.index("bold: best; ~: not tested") < section.index("<svg")
        assert re.search(r"<tr><th>telea</th>(<td>-</td>)*<td class=best>[\d.]+<small>±", section)
        assert re.search(r"<tr><th>grey</th>(<td>-</td>)*<td>[\d.]+<i>~</i><small>±", section)
    assert " hidden" not in sections[0][:60] and " hidden" in sections[1][:60]


def test_the_page_names_the_curves_in_the_colours_of_the_charts(small):
    text = html(small)
    assert re.findall(r"var\(--s(\d)\)\"></i>(\w+)</span>", text)[:2] == [("0", "telea"), ("1", "grey")]
    points = re.findall(r"<use [^>]*fill: var\(--s(\d), [^>]*><title>(\w+): ", text)
    assert set(points) == {("0", "telea"), ("1", "grey")}
    ids = re.findall(r' id="?([^" >]+)', text.split('<script type="application/json"')[0])
    assert len(ids) == len(set(ids))


def test_published_numbers_are_in_the_table_and_not_in_the_charts(small):
    section = re.search(r"<section.*?</section>", html(small), re.S)[0]
    assert section.index(tables.PUBLISHED) < section.index("<tr><th>PConv</th>")
    assert "<title>telea: " in section and "<title>PConv: " not in section


def test_the_report_holds_the_pictures_of_the_pairs_it_shows(small):
    data = entries(html(small))
    shown = set(re.findall(r'data-of="(\d+)/', html(small)))
    assert shown == set(data) and shown
    for entry in data.values():
        assert list(entry["pictures"]) == ["input", "telea", "grey", "truth"]
        assert picture(entry, "truth").shape == (SIDE, SIDE, 3)
        assert set(entry["scores"]) == {"telea", "grey"} and len(entry["scores"]["grey"]) == len(entry["metrics"]) == 2


def test_pages_of_all_pairs_are_linked_from_the_report_by_an_index(tmp_path):
    written(tmp_path, pages=True)
    out = tmp_path / "out"
    assert re.findall('href="(pages.*?)"', html(tmp_path)) == ["pages/index.html"]
    index = (out / "pages" / "index.html").read_text()
    linked = {(out / "pages" / unquote(link)).resolve() for link in re.findall(r'<th><a href="(.*?)"', index)}
    assert linked == set((out / "pages").rglob("*.html")) - {out / "pages" / "index.html"} and len(linked) == 4
    scores = pd.read_csv(out / "scores.csv", dtype={"pair": str}).set_index(["pair", "method"])
    for name, cells in re.findall(r"<tr><th><a [^>]*>(\d+)</a></th>(.*?)</tr>", index):
        assert re.findall("<td>(.*?)</td>", cells)[1:] == [
            f"{scores.loc[(name, 'telea'), 'hole_ratio']:.3f}",
            *(f"{scores.loc[(name, method), 'l1_image']:.2f}" for method in ("telea", "grey")),
        ]
    for path in linked:
        links = re.findall('<a href="(.*?)"', path.read_text())
        assert {(path.parent / unquote(link)).resolve() for link in links} <= {
            *linked,
            out / "report.html",
            out / "pages" / "index.html",
        }
        assert list(entries(path.read_text())) == [path.stem]


def test_a_walk_over_the_pages_of_pairs_sees_each_once(tmp_path):
    written(tmp_path, pages=True)
    folder = tmp_path / "out" / "pages"
    path = folder / re.search(r'<th><a href="(.*?)"', (folder / "index.html").read_text())[1]
    seen = [path]
    while link := re.search(r'<a href="([^"]*)" rel=next>', path.read_text()):
        path = (path.parent / link[1]).resolve()
        seen.append(path)
    assert len(seen) == len(set(seen)) == 4


def test_the_report_is_the_same_twice(tmp_path):
    written(tmp_path / "a", pages=True)
    written(tmp_path / "b", pages=True)
    for name in ("report.html", "table.csv", "grid.jpg", "tests.csv", "pages/index.html"):
        assert (tmp_path / "a" / "out" / name).read_bytes() == (tmp_path / "b" / "out" / name).read_bytes()


def test_a_metric_that_was_not_computed_picks_nothing(tmp_path):
    with pytest.raises(BadInput, match="single pairs that this run computes: expected one of l1_image, psnr"):
        written(tmp_path, report=ReportConfig(by="ssim"))


def test_the_first_metric_of_pairs_selects_the_pairs_to_show():
    assert report.shown_by(replace(CONFIG, metrics=("fid", "psnr", "ssim")), "") == "psnr"
    assert report.shown_by(replace(CONFIG, metrics=("fid", "psnr", "ssim")), "ssim") == "ssim"
    assert report.shown_by(replace(CONFIG, metrics=("fid",)), "") == ""


def test_names_of_files_cannot_break_the_page():
    entry = {"<p>": {"category": "</script><b>"}}
    shots = [('"x', "<i>")]
    values = {"category": "<u>", "covered": True, "before": "", "after": 'a"b', "pair": "<p>", "shots": shots}
    text = page._render("pair.html", title="<t>", entries=entry, **values)
    assert "<title>&lt;t&gt;</title>" in text and entries(text) == entry
    for injected in ("</script><b>", "<p>", "<i>", "<u>", '"x', 'a"b'):
        assert injected not in text.replace("<p class", "")


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
    text = report.write(tmp_path / "out", scores, pairs, sources, config, ReportConfig(), pages=True)
    assert text.startswith("inception_score (EfficientNet-Lite2), higher is better") and "1.00*" in text
    assert "pages/index.html" not in html(tmp_path)  # no metric of pairs orders them
