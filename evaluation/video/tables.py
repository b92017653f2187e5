"""The table of a run: means of sequences by class, with intervals, as text, Markdown, CSV and JSON.

A class is a hole ratio and a motion. Each table has a block for each motion and one for all, a column for each hole
ratio and one for all: `all_slow`, `0.1-0.2_all` and `all_all` are classes too.
"""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from evaluation.masks import OTHER
from evaluation.report.statistics import interval
from evaluation.settings import ReportConfig
from evaluation.video.metrics import ALL
from evaluation.video.scoring import TRUTH
from maskgen.runtime import files
from maskgen.sequences.measure import CATEGORIES
from maskgen.sequences.settings import MOTIONS

EVERY = "all"
RATIOS = (*dict.fromkeys(name.partition("_")[0] for name in CATEGORIES), OTHER)


def write(out: Path, scores: pd.DataFrame, names: tuple[str, ...], seed: int, pixels: str) -> str:
    """Write `table.csv`, `table.json` and `table.md`. Returns the table as text. pixels: what was scored, in words."""
    table = summary(scores, names, seed)
    records = json.loads(table.to_json(orient="records"))  # nan as null
    for name, text in {
        "table.csv": table.to_csv(index=False, lineterminator="\n"),
        "table.json": json.dumps(records, indent=1, ensure_ascii=False) + "\n",
        "table.md": as_markdown(table, scores, pixels),
    }.items():
        files.write_whole(out / name, text.encode())
    return as_text(table, scores, pixels)


def summary(scores: pd.DataFrame, names: tuple[str, ...], seed: int) -> pd.DataFrame:
    """One row for each metric, class and method: n, mean, low, high, best, identical and failed.

    n: sequences in the mean. low, high: bounds of the 95 % bootstrap interval, resampling the videos. best: the best
    mean as printed. identical: sequences of infinite PSNR. failed: sequences without a result. The last three columns
    and n count those of the class.
    """
    ratio, motion = (scores["category"].str.split("_").str[i] for i in (0, 1))
    rows = []
    for name in names:
        for block in _present(MOTIONS, motion):
            for column in _present(RATIOS, ratio):
                inside = scores[((motion == block) | (block == EVERY)) & ((ratio == column) | (column == EVERY))]
                if len(inside):
                    rows += _summarised(inside, name, f"{column}_{block}", seed)
    return pd.DataFrame(rows)


def _present(known, column):
    """The values of a column in their order, then EVERY if there are several."""
    found = [value for value in known if value in set(column)]
    return [*found, EVERY] if len(found) > 1 else found


def _summarised(scores, name, class_, seed):
    rows = []
    for method, own in scores.groupby("method", sort=False):
        if method == TRUTH and own[name].isna().all():
            continue
        finite = own[np.isfinite(own[name])]
        mean, low, high = interval(finite[name], finite["video"], ReportConfig(), [seed, zlib.crc32(class_.encode())])
        row = {"metric": name, "category": class_, "method": method, "n": len(finite)}
        row |= {"mean": mean, "low": low, "high": high, "best": False}
        row |= {"identical": int(np.isposinf(own[name]).sum()), "failed": int((own["error"] != "").sum())}
        rows.append(row)
    printed = [np.nan if row["method"] == TRUTH else round(row["mean"], ALL[name].digits) for row in rows]
    known = [value for value in printed if not np.isnan(value)]
    top = (min if ALL[name].better == "lower" else max)(known, default=None)
    for row, value in zip(rows, printed, strict=True):
        row["best"] = value == top
    return rows


def _heading(column):
    """A hole ratio as the paper's interval."""
    low, dash, high = column.partition("-")
    return f"({low}, {high}]" if dash else column


def _blocks(table: pd.DataFrame, name: str) -> Iterator[tuple[str, list[tuple[str, list[str]]]]]:
    """For each motion of a metric, the rows (method, cells). A cell is a mean, with * if it is the best, or "-"."""
    own = table[table["metric"] == name]
    cells = {(row.category, row.method): row for row in own.itertuples()}
    columns, digits = _columns(table), ALL[name].digits

    def cell(category, method):
        row = cells.get((category, method))
        return "-" if row is None or np.isnan(row.mean) else f"{row.mean:.{digits}f}{'*' * row.best}"

    motions = own["category"].str.partition("_")[2]
    for block in dict.fromkeys(motions):
        methods = dict.fromkeys(own["method"][motions == block])
        yield block, [(method, [cell(f"{column}_{block}", method) for column in columns]) for method in methods]


def _columns(table):
    present = set(table["category"].str.partition("_")[0])
    return [column for column in (*RATIOS, EVERY) if column in present]


def _title(name, scores, pixels):
    metric, count = ALL[name], scores["sequence"].nunique()
    unit = f" ({metric.unit})" if metric.unit else ""
    return f"{name}{unit}, {metric.better} is better; {pixels}, {count:,} sequence{'s' * (count > 1)}"


def _legend(table, scores):
    """What the marks mean, and which sequences are in no mean."""
    lines = ["*: best; intervals are in table.csv"] if table["best"].any() else []
    if (table["method"] == TRUTH).any():
        lines.append(f"{TRUTH}: the warping error of the true frames, from noise, light and the flow's own errors")
    if table["category"].str.startswith(OTHER).any():
        lines.append(f"{OTHER}: mean hole ratio outside (0.01, 0.6]")
    for method, own in scores.groupby("method", sort=False):
        failed = own["error"] != ""
        if failed.any():
            what = "all sequences failed" if failed.all() else f"{failed.sum()} sequences failed and are in no mean"
            lines.append(f"{method}: {what}; see scores.csv for the reasons")
        infinite = np.isposinf(own.select_dtypes("number")).any(axis=1).sum()
        if infinite:
            lines.append(f"{method}: {infinite} sequences equal the truth, infinite PSNR, not in its mean")
    return lines


def as_text(table: pd.DataFrame, scores: pd.DataFrame, pixels: str) -> str:
    """Tables for a terminal, with one legend at the end."""
    columns, parts = _columns(table), []
    first = max(12, *(len(method) + 4 for method in table["method"]))
    for name in dict.fromkeys(table["metric"]):
        lines = [_title(name, scores, pixels)]
        lines.append("hole ratio".ljust(first) + "".join(_heading(column).rjust(12) for column in columns))
        for block, rows in _blocks(table, name):
            lines.append(block)
            for method, cells in rows:
                padded = (cell + " " * (not cell.endswith("*")) for cell in cells)
                lines.append((f"  {method}".ljust(first) + "".join(cell.rjust(12) for cell in padded)).rstrip())
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, "\n".join(_legend(table, scores))])


def as_markdown(table: pd.DataFrame, scores: pd.DataFrame, pixels: str) -> str:
    """Tables for a README. The best means are bold."""
    columns, parts = _columns(table), []
    for name in dict.fromkeys(table["metric"]):
        lines = [f"**{_title(name, scores, pixels)}**", ""]
        lines.append("| motion | method | " + " | ".join(map(_heading, columns)) + " |")
        lines.append("|---|---|" + "---:|" * len(columns))
        for block, rows in _blocks(table, name):
            for method, cells in rows:
                bold = (f"**{cell[:-1]}**" if cell.endswith("*") else cell for cell in cells)
                lines.append(f"| {block} | {method} | " + " | ".join(bold) + " |")
        parts.append("\n".join(lines))
    legend = [line.replace("*: best", "bold: best") for line in _legend(table, scores)]
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in legend)]) + "\n"
