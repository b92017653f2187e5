"""The results of a benchmark as tables in the layout of the paper's Table 1: as text, Markdown and LaTeX."""

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from evaluation import protocols
from evaluation.masks import OTHER
from evaluation.metrics import ALL
from evaluation.report.statistics import OVERALL
from evaluation.settings import NATIVE, ReportConfig
from maskgen.categories import CATEGORIES
from maskgen.settings import EDGES

INTERVALS = tuple(f"({low:g}, {high:g}]" for low, high in itertools.pairwise(EDGES))
PUBLISHED = "as published by Liu et al. 2018, Table 1: other images, masks and classifier"
NAMES = {"l1_percent": "l1_image", "psnr_db": "psnr", "ssim": "ssim", "iscore": "iscore"}  # the paper's: ours


@dataclass(frozen=True)
class Results:
    """What the tables show."""

    table: pd.DataFrame  # `statistics.summary` with the marks of `statistics.mark_best`
    tests: pd.DataFrame  # `statistics.comparisons`
    recipe: dict  # of the results folder
    report: ReportConfig
    unscored: dict[str, dict[str, int]] = field(default_factory=dict)  # `statistics.unscored`

    @property
    def metrics(self) -> list[str]:
        """The metrics, in the order of the tables."""
        return list(dict.fromkeys(self.table["metric"]))

    @property
    def own(self) -> pd.DataFrame:
        """The table without published numbers."""
        return self.table[self.table["source"] == "this run"] if "source" in self.table else self.table


class Column(NamedTuple):
    """A column of a table. The heading of a class of the paper is its interval, and it has a side."""

    heading: str
    side: str  # "interior" or "free"; "" for a class that is not the paper's
    category: str


class Cell(NamedTuple):
    """A cell of a table, as printed."""

    mean: str  # "-" without a mean
    mark: str  # "*" best, "~" not significantly different from the best, or ""
    spread: str  # half the width of the interval, or ""


def published() -> pd.DataFrame:
    """The paper's Table 1 with the columns metric, method, category and mean. Metrics have our names."""
    table = pd.read_csv(Path(__file__).parents[1] / "data" / "table1.csv", comment="#")
    side = table["border"].map({"N": "interior", "B": "free"})
    return pd.DataFrame(
        {
            "metric": table["metric"].map(NAMES),
            "method": table["method"],
            "category": side + "_" + table["ratio_bin"],
            "mean": table["value"],
        }
    )


def with_published(table: pd.DataFrame) -> pd.DataFrame:
    """Add the paper's numbers to a summary. The new column `source` is "this run" or "published"."""
    theirs = published()
    theirs = theirs[theirs["metric"].isin(table["metric"])].assign(source="published", best=False, tied=False)
    return pd.concat([table.assign(source="this run"), theirs], ignore_index=True)


def columns_of(categories: Iterable[str]) -> list[Column]:
    """The columns of a table: the paper's twelve if one of them is present, then all other classes."""
    present = list(dict.fromkeys(categories))
    paper = [
        Column(interval, side, f"{side}_{low:g}-{high:g}")
        for interval, (low, high) in zip(INTERVALS, itertools.pairwise(EDGES), strict=True)
        for side in ("interior", "free")
    ]
    others = [Column(name, "", name) for name in present if name not in CATEGORIES]
    return (paper if any(name in CATEGORIES for name in present) else []) + others


def rows_of(table: pd.DataFrame, name: str) -> list[tuple[str, str, list[Cell]]]:
    """The rows of a metric's table as (source, method, a cell for each column). Published rows come last."""
    rows = []
    columns = columns_of(table["category"])
    group = table[table["metric"] == name]
    sources = group["source"] if "source" in group else pd.Series("this run", group.index)
    for (source, method), summaries in group.groupby([sources, "method"], sort=False):
        found = {summary["category"]: summary for summary in summaries.to_dict("records")}
        rows.append((source, method, [_cell(found.get(column.category), name) for column in columns]))
    return rows


def _cell(summary, name):
    """A row of the summary as a cell. summary: None for a class without one."""
    if summary is None or np.isnan(summary["mean"]):
        return Cell("-", "", "")
    digits = ALL[name].digits
    width = (summary.get("high", np.nan) - summary.get("low", np.nan)) / 2
    return Cell(
        mean=f"{summary['mean']:.{digits}f}",
        mark="*" if summary["best"] else "~" if summary["tied"] else "",
        spread="" if np.isnan(width) else f"{width:.{digits}f}",
    )


def title(name: str, recipe: dict) -> str:
    """The heading of a metric's table: unit, direction, scored pixels, number of pairs or protocol."""
    metric = ALL[name]
    unit = f" ({metric.unit})" if metric.unit else ""
    pairs = protocol_of(recipe) or f"{recipe['sources']['pairs']} pairs"
    return f"{name}{unit}, {metric.better} is better; {pixels(recipe)}, {pairs}"


def protocol_of(recipe: dict) -> str:
    """The protocol of a run and the part of it that was scored, in words; empty for a run without one."""
    record = recipe["settings"].get("protocol")
    return protocols.caption(record) if record else ""


def with_protocol(table: pd.DataFrame, recipe: dict) -> pd.DataFrame:
    """Add the column `protocol` to a table that is written as CSV, if the run scored one. Published rows have none."""
    caption = protocol_of(recipe)
    if not caption:
        return table
    published = table["source"] == "published" if "source" in table else pd.Series(False, table.index)
    return table.assign(protocol=np.where(published, "", caption))


def pixels(recipe: dict) -> str:
    """Which pixels were scored."""
    return "the method's own pixels (raw)" if recipe["settings"]["raw"] else "composited images"


def size(settings: dict) -> str:
    """The size of the images in words. settings: of the recipe."""
    return "each image at its own size" if settings["size"] == NATIVE else "{} x {} px".format(*settings["size"])


def legend(results: Results, name: str = "", best: str = "*") -> list[str]:
    """The lines below a table: the meaning of the marks in it, and the pairs that are not in its means.

    Args:
        results: what the table shows.
        name: the metric of the table; empty for all tables together.
        best: how the best mean is marked.
    """
    table, tests = results.own, results.tests
    if name:
        table, tests = table[table["metric"] == name], tests[tests["metric"] == name]
    marks = []
    if table["best"].any():
        marks.append(f"{best}: best")
    if table["tied"].any():
        if tests["p_holm"].notna().any():
            rule = f"at p < {results.report.alpha:g} (Wilcoxon's signed-rank test over images, Holm-corrected)"
            marks.append(f"~: not significantly different from the best {rule}")
        else:
            marks.append("~: not tested against the best: a test needs six images in a class")
    if OTHER in set(table["category"]):
        marks.append(f"{OTHER}: masks outside all classes; the paper's have holes of {EDGES[0]:g} to {EDGES[-1]:g}")
    if table["low"].notna().any():
        marks.append(f"±: half of the {100 * results.report.confidence:g} % bootstrap interval")
    unscored = {metric: counts for metric, counts in results.unscored.items() if name in ("", metric)}
    return ["; ".join(marks)] * bool(marks) + left_out(table) + _without_value(unscored)


def _without_value(unscored):
    """A line for each metric and method with results that the metric cannot score."""
    return [
        f"{method}: {count} results have no {metric} and are not in its mean (too small, or no such pixels)"
        for metric, counts in unscored.items()
        for method, count in counts.items()
    ]


def left_out(table: pd.DataFrame) -> list[str]:
    """A line for each method with pairs that are not in its means."""
    lines = []
    table = table[table["category"] != OVERALL]
    counts = table.groupby(["method", "category"], sort=False)[["identical", "failed", "n"]].max()
    for method, row in counts.groupby("method", sort=False).sum().iterrows():
        if row["identical"]:
            lines.append(f"{method}: {int(row['identical'])} identical results, infinite PSNR, not in its mean")
        if row["failed"] and not row["n"] and not row["identical"]:
            lines.append(f"{method}: no result, all {int(row['failed'])} pairs failed; see scores.csv for the reasons")
        elif row["failed"]:
            failed = f"{int(row['failed'])} pairs failed and are not in its means"
            lines.append(f"{method}: {failed}; see scores.csv for the reasons")
    return lines


def significant(results: Results, name: str) -> list[str]:
    """A line that counts the significant differences of a metric; none if no difference was tested."""
    p = results.tests["p_holm"][results.tests["metric"] == name].dropna()
    if p.empty:
        return []
    alpha = results.report.alpha
    count = f"{(p < alpha).sum()} of {len(p)} differences between two methods in a class"
    return [f"{count} are significant at p < {alpha:g}; tests.csv lists them all"]


def as_nested(table: pd.DataFrame, name: str) -> dict[str, list]:
    """The table of a metric for a template.

    Returns {"head": [(heading, side), ...], "blocks": [(note, [(method, cells), ...]), ...]}. The published rows are a
    block of their own, with a note.
    """
    notes = {"this run": "", "published": PUBLISHED}
    return {
        "head": [(column.heading, column.side) for column in columns_of(table["category"])],
        "blocks": [
            (notes[source], [(method, cells) for _, method, cells in rows])
            for source, rows in itertools.groupby(rows_of(table, name), key=lambda row: row[0])
        ],
    }


def as_text(results: Results) -> str:
    """Tables for a terminal, with half the interval's width below each mean and one legend at the end."""
    table = results.table
    columns = columns_of(table["category"])
    wide = max(9, *(len(column.side or column.heading) + 1 for column in columns))
    first = max(10, *(len(method) + 2 for method in table["method"]))
    blocks = []
    for name in results.metrics:
        heads = [" " * first, " " * first]
        for column in columns:
            if column.side == "interior":
                heads[0] += column.heading.center(2 * wide)
            elif not column.side:
                heads[0] += column.heading.rjust(wide)
            heads[1] += column.side.rjust(wide)
        lines = [title(name, results.recipe), *[line.rstrip() for line in heads if line.strip()]]
        for source, rows in itertools.groupby(rows_of(table, name), key=lambda row: row[0]):
            if source == "published":
                lines.append(PUBLISHED)
            for _, method, cells in rows:
                means = "".join((cell.mean + (cell.mark or " ")).rjust(wide) for cell in cells)
                spreads = "".join((f"±{cell.spread} " if cell.spread else " ").rjust(wide) for cell in cells)
                lines.append((method.ljust(first) + means).rstrip())
                if spreads.strip():
                    lines.append((" " * first + spreads).rstrip())
        blocks.append("\n".join(lines))
    return "\n\n".join([*blocks, "\n".join(legend(results))])


def as_markdown(results: Results) -> str:
    """Tables for a README, each with its legend below. The best means are bold."""
    columns = columns_of(results.table["category"])
    blocks = []
    for name in results.metrics:
        heads = [f"{column.heading}<br>{column.side}" if column.side else column.heading for column in columns]
        lines = [f"**{title(name, results.recipe)}**", "", "| | " + " | ".join(heads) + " |"]
        lines.append("|---|" + "---:|" * len(columns))
        notes = [line.replace("~", "\\~") for line in legend(results, name, best="bold")]
        for source, method, cells in rows_of(results.table, name):
            label = f"*{method}, published*" if source == "published" else method
            lines.append(f"| {label} | " + " | ".join(_markdown_cell(cell) for cell in cells) + " |")
        if "published" in {source for source, _, _ in rows_of(results.table, name)}:
            notes.append(f"*published: {PUBLISHED}*")
        blocks.append("\n".join([*lines, "", *(f"- {note}" for note in notes)]))
    return "\n\n".join(blocks) + "\n"


def _markdown_cell(cell):
    mean = {"*": f"**{cell.mean}**", "~": f"{cell.mean}\\~"}.get(cell.mark, cell.mean)
    return f"{mean} ±{cell.spread}" if cell.spread else mean


def as_latex(results: Results) -> str:
    """Tables for a paper: one table environment for each metric, with booktabs. The legend is in the caption."""
    columns = columns_of(results.table["category"])
    blocks = ["% needs \\usepackage{booktabs}"]
    for name in results.metrics:
        caption = ". ".join([title(name, results.recipe), *legend(results, name, best="Bold")]) + "."
        blocks.append(
            "\n".join(
                [
                    "\\begin{table*}",
                    "\\centering\\small\\setlength{\\tabcolsep}{4pt}",
                    f"\\begin{{tabular}}{{l*{{{len(columns)}}}{{r}}}}",
                    "\\toprule",
                    *_latex_head(columns),
                    "\\midrule",
                    *_latex_body(rows_of(results.table, name), len(columns)),
                    "\\bottomrule",
                    "\\end{tabular}",
                    f"\\caption{{{_tex(caption)}}}",
                    "\\end{table*}",
                ]
            )
        )
    return "\n\n".join(blocks) + "\n"


def _latex_head(columns):
    """The one or two lines of headings."""
    over, rules = [""], []
    for place, column in enumerate(columns, start=2):
        if column.side == "interior":
            over.append(f"\\multicolumn{{2}}{{c}}{{${column.heading}$}}")
            rules.append(f"\\cmidrule(lr){{{place}-{place + 1}}}")
        elif not column.side:
            over.append(_tex(column.heading))
    lines = [" & ".join(over) + " \\\\"]
    if rules:
        lines += ["".join(rules), " & ".join(["", *(column.side for column in columns)]) + " \\\\"]
    return lines


def _latex_body(rows, width):
    """The lines between the rules. The best means are bold; ~ is a superscript that takes no room."""
    lines = []
    for source, group in itertools.groupby(rows, key=lambda row: row[0]):
        if source == "published":
            lines.append(f"\\midrule\n\\multicolumn{{{width + 1}}}{{l}}{{\\emph{{{_tex(PUBLISHED)}}}}} \\\\")
        for _, method, cells in group:
            means = [_latex_mean(cell) for cell in cells]
            spreads = [f"{{\\scriptsize$\\pm${cell.spread}}}" if cell.spread else "" for cell in cells]
            lines.append(" & ".join([_tex(method), *means]) + " \\\\")
            if any(spreads):
                lines.append(" & ".join(["", *spreads]) + " \\\\")
    return lines


def _latex_mean(cell):
    mean = cell.mean if cell.mean != "-" else "--"
    return {"*": f"\\textbf{{{mean}}}", "~": f"{mean}\\rlap{{$^{{\\sim}}$}}"}.get(cell.mark, mean)


TEX = {"±": "$\\pm$", "~": "$\\sim$", "<": "$<$", "\\": "\\textbackslash{}"}


def _tex(text):
    """Plain text with LaTeX's special characters escaped."""
    return re.sub(r"[±~<\\&%#_${}]", lambda found: TEX.get(found[0], f"\\{found[0]}"), text)
