"""The report of a finished benchmark: tables, statistical tests, a grid of pictures and HTML pages."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from evaluation.benchmark import recipe_of, set_scores
from evaluation.metrics import METRICS
from evaluation.pairs import Pair, Sources, jpeg
from evaluation.report import forms, page, statistics, tables
from evaluation.report.grid import grid
from evaluation.report.pictures import Pictures, select_pairs
from evaluation.settings import BenchmarkConfig, ReportConfig
from maskgen.errors import BadInput
from maskgen.runtime import files
from maskgen.runtime.lock import locked


def write(
    out: Path,
    scores: pd.DataFrame,
    pairs: list[Pair],
    sources: Sources,
    config: BenchmarkConfig,
    report: ReportConfig,
    *,
    paper: bool = False,
    pages: bool = False,
    like: str = "",
) -> str:
    """Write the tables, the picture grid and the HTML report of a finished run to its folder.

    Args:
        out: the results folder, with `recipe.json`, the journals and the kept pictures of the run.
        scores: one row for each pair and method, as `evaluation.benchmark.run` returns them.
        pairs, sources, config: what the run scored.
        report: how to summarise and display it.
        paper: also show the published Table 1 of Liu et al. 2018.
        pages: also write an HTML page for each pair, and an index of these pages.
        like: also write `like-lama.csv` or `like-mmagic.csv`, see `evaluation.report.forms`, and return that table.

    Returns:
        The tables as text for a terminal.

    Raises:
        BadInput: `report.by` is not a metric of single pairs that the run computed.
    """
    report = replace(report, by=shown_by(config, report.by))
    counted = statistics.with_overall(scores) if report.overall else scores
    tests = statistics.comparisons(counted)
    summary = statistics.with_sets(statistics.summary(counted, report, config.seed), set_scores(out, pairs), counted)
    table = statistics.mark_best(summary, tests, report.alpha)
    table["metric"] = pd.Categorical(table["metric"], categories=list(config.metrics), ordered=True)
    table = table.sort_values("metric", kind="stable", ignore_index=True).astype({"metric": str})
    if paper:
        table = tables.with_published(table)
    results = tables.Results(table, tests, recipe_of(out), report, statistics.unscored(scores))
    pictures = Pictures(out, scores, {pair.pair: pair for pair in pairs}, sources, config, report)
    with locked(out):
        _write_files(out, results, pictures, pages=pages)
        if like:
            rows = forms.rows(like, scores, partial(set_scores, out, pairs))
            files.write_whole(out / f"like-{like}.csv", rows.to_csv(index=False, lineterminator="\n").encode())
            lines = [forms.text(like, rows, tables.pixels(results.recipe)), *tables.left_out(results.own)]
            return "\n".join(lines)
    return tables.as_text(results)


def _write_files(out, results, pictures, *, pages):
    by = results.report.by
    selected = select_pairs(pictures.scores, by) if by else {}
    medians = [pairs["median"] for pairs in selected.values() if "median" in pairs]
    for name, text in {
        "table.csv": tables.with_protocol(results.table, results.recipe).to_csv(index=False, lineterminator="\n"),
        "tests.csv": tables.with_protocol(results.tests, results.recipe).to_csv(index=False, lineterminator="\n"),
        "table.md": tables.as_markdown(results),
        "table.tex": tables.as_latex(results),
    }.items():
        files.write_whole(out / name, text.encode())
    if medians and any((out / "pictures").glob("*/*/*.jpg")):
        files.write_whole(out / "grid.jpg", jpeg(grid(pictures, medians), results.report.quality))
    with_pages = bool(pages and by)
    if with_pages:
        for path, text in page.pair_pages(pictures):
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            files.write_whole(out / path, text.encode())
    files.write_whole(out / "report.html", page.report_page(results, pictures, selected, with_pages).encode())


def shown_by(config: BenchmarkConfig, by: str) -> str:
    """The metric that selects the pairs to show: `by`, or the first metric of the run that scores single pairs.

    Returns "" if the run only computed metrics of sets of results. Raises BadInput if the run does not compute `by`
    for single pairs.
    """
    names = [name for name in config.metrics if name in METRICS]
    if by and by not in names:
        expected = f"expected one of {', '.join(names)}" if names else "this run computes none"
        raise BadInput(f"--by {by} is not a metric of single pairs that this run computes: {expected}")
    return by or next(iter(names), "")
