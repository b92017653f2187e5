"""Scores as tables, pictures and a page: on the terminal, CSV, Markdown, LaTeX and HTML, all from the same rows."""

import itertools
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from evaluation import statistics
from evaluation.benchmark import Pair, Sources, jpeg, load_pair, set_scores
from evaluation.metrics import ALL, METRICS
from evaluation.settings import BenchmarkConfig, ReportConfig
from maskgen import maskset
from maskgen.categories import CATEGORIES
from maskgen.settings import EDGES

INTERVALS = tuple(f"({low:g}, {high:g}]" for low, high in itertools.pairwise(EDGES))


def columns_of(categories) -> list[tuple[str, str, str]]:
    """The table's columns as (heading, subheading, class): the paper's twelve pairwise, then any other class."""
    present = list(dict.fromkeys(categories))
    paper = [
        (interval, side, f"{side}_{low:g}-{high:g}")
        for interval, (low, high) in zip(INTERVALS, itertools.pairwise(EDGES), strict=True)
        for side in ("interior", "free")
    ]
    others = [(name, "", name) for name in present if name not in CATEGORIES]
    return (paper if any(name in CATEGORIES for name in present) else []) + others


def title(name: str, recipe: dict) -> str:
    """What stands above a metric's table: its unit and direction, whose pixels, how many pairs."""
    metric = ALL[name]
    unit = f" ({metric.unit})" if metric.unit else ""
    pixels = "the method's own pixels (raw)" if recipe["settings"]["raw"] else "composited images"
    return f"{name}{unit}, {metric.better} is better; {pixels}, {recipe['sources']['pairs']} pairs"


def as_text(table: pd.DataFrame, recipe: dict) -> str:
    """The summary for a terminal: the paper's layout, half the interval's width below each mean."""
    blocks = []
    for name, group in table.groupby("metric", sort=False):
        columns = columns_of(table["category"])
        wide = max(8, *(len(sub or head) + 1 for head, sub, _ in columns))
        first = max(10, *(len(method) + 2 for method in group["method"]))
        heads = [" " * first, " " * first]
        for head, sub, _ in columns:
            if sub == "interior":
                heads[0] += head.center(2 * wide)
            elif not sub:
                heads[0] += head.rjust(wide)
            heads[1] += sub.rjust(wide)
        lines = [title(name, recipe), *[line.rstrip() for line in heads if line.strip()]]
        for method, rows in group.groupby("method", sort=False):
            cells = rows.set_index("category")
            means, spreads = method.ljust(first), " " * first
            for _, _, category in columns:
                cell = cells.loc[category] if category in cells.index else None
                means += number(cell, name).rjust(wide)
                spreads += spread(cell, name).rjust(wide)
            lines += [means, spreads.rstrip()] if spreads.strip() else [means]
        blocks.append("\n".join(lines))
    return "\n\n".join([*blocks, *legend(table)])


def number(cell, name: str, marked=True) -> str:
    """A mean as printed; * after the best, ~ after what cannot be told from it, - where there is none."""
    if cell is None or np.isnan(cell["mean"]):
        return "-"
    mark = "*" if cell["best"] else "~" if cell["tied"] else ""
    return f"{cell['mean']:.{ALL[name].digits}f}" + (mark if marked else "")


def spread(cell, name: str) -> str:
    """Half the width of the interval, as ±0.05."""
    if cell is None or np.isnan(cell["low"]):
        return ""
    return f"±{(cell['high'] - cell['low']) / 2:.{ALL[name].digits}f}"


def legend(table: pd.DataFrame) -> list[str]:
    """The lines below the tables: what the marks mean, which pairs are not in the means."""
    lines = [
        "* best   ~ not to be told from the best (paired test, Holm-corrected)   ± half the 95 % bootstrap interval"
    ]
    identical = table[table["identical"] > 0].drop_duplicates(["method", "category"])
    for method, count in identical.groupby("method", sort=False)["identical"].sum().items():
        lines.append(f"{method}: {count} identical results, infinite PSNR, counted apart from its mean")
    failed = table.drop_duplicates(["method", "category"]).groupby("method", sort=False)["failed"].sum()
    for method, count in failed[failed > 0].items():
        lines.append(f"{method}: {count} pairs failed and are in no mean; scores.csv tells why")
    return lines


def as_csv(table: pd.DataFrame) -> bytes:
    """The summary as it is, one row for a metric, method and class."""
    return table.to_csv(index=False, lineterminator="\n").encode()


def grid(scores: pd.DataFrame, pairs: list[Pair], sources: Sources, out: Path, config: BenchmarkConfig, by: str):
    """A picture of the median pair of every class by a metric: input, results, truth. Returns uint8 (H, W, 3)."""
    methods = list(dict.fromkeys(scores["method"]))
    named = {pair.pair: pair for pair in pairs}
    rows = []
    for category in dict.fromkeys(scores["category"]):
        chosen = pick(scores[scores["category"] == category], by)
        if "median" not in chosen:
            continue
        pair = named[chosen["median"]]
        truth, hole = load_pair(pair, sources, config.size)
        tiles = [covered(truth, hole)]
        for method in methods:
            path = out / "pictures" / method / pair.category / f"{pair.pair}.jpg"
            shown = cv2.imread(str(path)) if path.exists() else None
            tiles.append(np.full_like(truth, 128) if shown is None else cv2.cvtColor(shown, cv2.COLOR_BGR2RGB))
        rows.append(label_row([small(tile) for tile in [*tiles, truth]], category))
    return np.vstack([header(["input", *methods, "truth"], rows[0].shape[1]), *rows]) if rows else None


TILE, MARGIN, TOP = 192, 150, 28  # px of the grid: a picture, the class's name beside it, the line above


def small(image):
    """A tile of the grid, its longer side TILE px."""
    scale = TILE / max(image.shape[:2])
    tile = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cv2.copyMakeBorder(tile, 3, 3, 3, 3, cv2.BORDER_CONSTANT, value=(255, 255, 255))


def label_row(tiles, text):
    """A row of the grid with its class in the margin."""
    row = np.hstack(tiles)
    margin = np.full((row.shape[0], MARGIN, 3), 255, np.uint8)
    for i, line in enumerate(text.split("_")):
        _write(margin, line, (8, row.shape[0] // 2 + 20 * i))
    return np.hstack([margin, row])


def header(texts, width):
    """The line of names above the grid."""
    line = np.full((TOP, width, 3), 255, np.uint8)
    step = (width - MARGIN) / len(texts)
    for i, text in enumerate(texts):
        _write(line, text, (int(MARGIN + i * step) + 6, 20))
    return line


def _write(image, text, at):
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 40, 40), 1, cv2.LINE_AA)


def covered(truth, hole):
    """The input as it is shown: white where pixels are missing."""
    image = truth.copy()
    image[hole] = 255
    return image


def pick(scores: pd.DataFrame, by: str) -> dict[str, str]:
    """The worst, median and best pair of one class by a metric's mean over the methods; {} where none is scored."""
    means = scores.pivot(index="pair", columns="method", values=by).replace([np.inf, -np.inf], np.nan).dropna().mean(1)
    if means.empty:
        return {}
    ordered = means.sort_values(ascending=METRICS[by].better == "higher", kind="stable").index
    return {"worst": ordered[0], "median": ordered[len(ordered) // 2], "best": ordered[-1]}


def write(out: Path, scores: pd.DataFrame, pairs: list[Pair], sources: Sources, config: BenchmarkConfig) -> str:
    """Write every table and picture of a finished run beside its scores. Returns the text for the terminal."""
    report, recipe = ReportConfig(), maskset.read_recipe(out)
    tests = statistics.comparisons(scores)
    means = statistics.with_sets(statistics.summary(scores, report, config.seed), set_scores(out, pairs))
    table = statistics.best(means, tests, report.alpha)
    maskset.write_whole(out / "table.csv", as_csv(table))
    maskset.write_whole(out / "tests.csv", tests.to_csv(index=False, lineterminator="\n").encode())
    picture = grid(scores, pairs, sources, out, config, config.metrics[0])
    if picture is not None:
        maskset.write_whole(out / "grid.jpg", jpeg(picture, report.quality))
    return as_text(table, recipe)
