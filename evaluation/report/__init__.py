"""Everything that is made of a finished run: tables, a grid of pictures, and a page that needs no other file."""

import base64
import html
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from evaluation.benchmark import recipe_of, set_scores
from evaluation.metrics import ALL, METRICS
from evaluation.pairs import Pair, Sources, jpeg, load_pair, reduced
from evaluation.report import statistics, tables
from evaluation.settings import BenchmarkConfig, ReportConfig
from maskgen.categories import CATEGORIES
from maskgen.errors import BadInput
from maskgen.runtime import files
from maskgen.runtime.images import decode_rgb
from maskgen.runtime.lock import locked

TILE, MARGIN, TOP = 192, 150, 28  # px of the grid: a picture, the class's name beside it, the line above
FONT = cv2.FONT_HERSHEY_SIMPLEX, 0.5


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
) -> str:
    """Write every table and picture of a finished run beside its scores. Returns the text for the terminal.

    paper: the published Table 1 stands below ours. pages: a page for every pair, not only for those in the report.
    """
    recipe = recipe_of(out)
    report = replace(report, by=shown_by(config, report.by))
    tests = statistics.comparisons(scores)
    means = statistics.with_sets(statistics.summary(scores, report, config.seed), set_scores(out, pairs), scores)
    table = statistics.best(means, tests, report.alpha)
    table["metric"] = pd.Categorical(table["metric"], categories=list(config.metrics), ordered=True)
    table = table.sort_values("metric", kind="stable", ignore_index=True).astype({"metric": str})
    if paper:
        table = tables.with_published(table)
    album = Album(out, scores, {pair.pair: pair for pair in pairs}, sources, config, report)
    with locked(out):
        _write_files(album, table, tests, recipe, pages=pages)
    return tables.as_text(table, recipe)


def _write_files(album, table, tests, recipe, *, pages):
    out, by = album.out, album.report.by
    for name, text in {
        "table.csv": table.to_csv(index=False, lineterminator="\n"),
        "tests.csv": tests.to_csv(index=False, lineterminator="\n"),
        "table.md": tables.as_markdown(table, recipe),
        "table.tex": tables.as_latex(table, recipe),
    }.items():
        files.write_whole(out / name, text.encode())
    chosen = choose(album.scores, by) if by else {}
    medians = [found["median"] for found in chosen.values() if "median" in found]
    if medians:
        files.write_whole(out / "grid.jpg", jpeg(grid(album, medians), album.report.quality))
    files.write_whole(out / "report.html", page(album, table, tests, recipe, chosen).encode())
    for pair in album.pairs.values() if pages and by else ():
        path = out / "pages" / pair.category / f"{pair.pair}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(path, page_of_pair(album, pair.pair).encode())


def shown_by(config: BenchmarkConfig, by: str) -> str:
    """The metric that picks the pairs to show: `by`, or else the run's first, "" if all are of sets of results.

    Raises BadInput for one that the run does not compute for a pair.
    """
    of_pairs = [name for name in config.metrics if name in METRICS]
    if by and by not in of_pairs:
        told = f"expected one of {', '.join(of_pairs)}" if of_pairs else "none of this run's is of single pairs"
        raise BadInput(f"--by {by} is no metric that this run computes for a pair: {told}")
    return by or next(iter(of_pairs), "")


class Album:
    """The pictures of a run: what the methods made comes from `out/pictures`, input and truth from their sources."""

    def __init__(self, out, scores, pairs, sources, config, report):
        self.out, self.scores, self.pairs = out, scores, pairs
        self.sources, self.config, self.report = sources, config, report
        self.methods = list(dict.fromkeys(scores["method"]))
        self.rows = {(row["pair"], row["method"]): row for row in scores.to_dict("records")}

    def of(self, pair: str) -> dict[str, bytes]:
        """JPEG bytes by name: input (white where pixels are missing), every method that has one, truth."""
        truth, covered, hole = load_pair(self.pairs[pair], self.sources, self.config)
        if self.config.factor:
            covered = reduced(truth, self.config.factor).repeat(self.config.factor, 0).repeat(self.config.factor, 1)
        else:
            covered[hole] = 255
        found = {"input": jpeg(covered, self.report.quality)}
        for method in self.methods:
            path = self.out / "pictures" / method / self.pairs[pair].category / f"{pair}.jpg"
            if path.exists() and not self.rows[pair, method]["error"]:
                found[method] = path.read_bytes()
        return {**found, "truth": jpeg(truth, self.report.quality)}


def choose(scores: pd.DataFrame, by: str) -> dict[str, dict[str, str]]:
    """The worst, median and best pair of every class by a metric's mean over the methods.

    Returns {class: {"worst": pair, ...}}. A method that failed on a whole class does not count there; a class where no
    pair was scored by all others has none.
    """
    chosen = {}
    for category, group in scores.groupby("category", sort=False):
        table = group.pivot(index="pair", columns="method", values=by).replace([np.inf, -np.inf], np.nan)
        means = table.dropna(axis=1, how="all").dropna().mean(axis=1)
        order = means.sort_values(ascending=METRICS[by].better == "higher", kind="stable").index
        picks = {"worst": 0, "median": len(order) // 2, "best": len(order) - 1} if len(order) else {}
        chosen[category] = {}
        for name, i in picks.items():
            if order[i] not in chosen[category].values():  # one or two pairs have no worst, median and best
                chosen[category][name] = order[i]
        if len(order) == 1:
            chosen[category] = {"median": order[0]}
    return chosen


def grid(album: Album, pairs: list[str]) -> np.ndarray:
    """One line of pictures for each pair: input, results, truth. Returns uint8 (H, W, 3)."""
    names = ["input", *album.methods, "truth"]
    rows = []
    for pair in pairs:
        found = album.of(pair)
        tiles = [_tile(found.get(name) or _why_not(album, pair, name), album.config.size) for name in names]
        margin = np.full((tiles[0].shape[0], MARGIN, 3), 255, np.uint8)
        for i, line in enumerate(album.pairs[pair].category.split("_")):
            _write(margin, line, (8, margin.shape[0] // 2 + 20 * i))
        rows.append(np.hstack([margin, *tiles]))
    head = np.full((TOP, rows[0].shape[1], 3), 255, np.uint8)
    width = (rows[0].shape[1] - MARGIN) // len(names)
    for i, name in enumerate(names):
        _write(head, _cut_to(name, width - 12), (MARGIN + i * width + 6, 20))
    return np.vstack([head, *rows])


def _why_not(album, pair, method):
    """What stands in place of a picture."""
    return "failed" if album.rows[pair, method]["error"] else "no picture"


def _tile(data, size):
    """A picture in JPEG bytes, or words, at the grid's size."""
    scale = TILE / max(size)
    shape = max(1, round(size[1] * scale)), max(1, round(size[0] * scale))
    if isinstance(data, str):
        tile = np.full((*shape[::-1], 3), 200, np.uint8)
        _write(tile, data, (8, shape[1] // 2))
    else:
        tile = cv2.resize(decode_rgb(data, "a picture"), shape, interpolation=cv2.INTER_AREA)
    return cv2.copyMakeBorder(tile, 3, 3, 3, 3, cv2.BORDER_CONSTANT, value=(255, 255, 255))


def _write(image, text, at):
    cv2.putText(image, text, at, *FONT, (40, 40, 40), 1, cv2.LINE_AA)


def _cut_to(name, width):
    """A name, without its end where it is wider than that."""
    shown = name
    while shown and cv2.getTextSize(shown, *FONT, 1)[0][0] > width:
        name = name[:-1]
        shown = f"{name}.."
    return shown


def page(album: Album, table: pd.DataFrame, tests: pd.DataFrame, recipe: dict, chosen: dict) -> str:
    """The report: tables, curves, pictures and a slider, in one HTML file that loads nothing else."""
    ours = table[table["source"] == "this run"] if "source" in table else table
    names = list(dict.fromkeys(table["metric"]))
    parts = ["<div class=tabs role=tablist>"]
    for i, name in enumerate(names):
        parts.append(f'<button role=tab data-of="m-{name}" aria-selected={str(not i).lower()}>{name}</button>')
    parts.append("</div>")
    for i, name in enumerate(names):
        parts.append(f'<section class=card id="m-{name}"{" hidden" if i else ""}>')
        parts.append(f"<b>{html.escape(tables.title(name, recipe))}</b>")
        parts.append(f"<div class=scroll>{tables.as_html(table, name)}</div>")
        parts.append(curves(ours[ours["metric"] == name], album.scores, name))
        parts.append("</section>")
    shown = [pair for found in chosen.values() for pair in found.values()]
    by = album.report.by
    classes = [
        "<h2>Pictures</h2>"
        f"<p class=soft>The worst, median and best pair of each class by {by}, the mean over all methods. "
        f"A picture opens the pair with a slider between result and truth.{_legend(album)}</p>"
    ]
    data = {}
    for category, found in chosen.items():
        if not found:
            continue
        classes.append(f"<div class='card class'><h3>{html.escape(category)}</h3>")
        for rank, pair in found.items():
            data[pair] = _entry(album, pair)
            classes.append("<div class=strip>" + "".join(_shots(album, pair, rank, by, data[pair])) + "</div>")
        classes.append("</div>")
    return _filled(
        title="Inpainting benchmark",
        about=_about(recipe, album),
        sections="".join(parts),
        classes="".join(classes) if shown else "",
        notes=_notes(table, tests),
        data=data,
    )


def page_of_pair(album: Album, pair: str) -> str:
    """The page of one pair, in one HTML file that loads nothing else."""
    entry = _entry(album, pair)
    by = album.report.by
    strip = "<div class='card class'><div class=strip>" + "".join(_shots(album, pair, "", by, entry)) + "</div></div>"
    category = html.escape(album.pairs[pair].category)
    about = f"<p class=soft>{category}. A picture opens a slider between result and truth.{_legend(album)}</p>"
    return _filled(title=f"Pair {pair}", about=about, sections="", classes=strip, notes="", data={pair: entry})


def _legend(album):
    """What the input shows."""
    return "" if album.config.factor else " White in the input is the hole, as in the masks."


def _filled(*, title, about, sections, classes, notes, data):
    template = (Path(__file__).parents[1] / "data" / "report.html").read_text()
    # "</" would end the script element that holds the data.
    text = json.dumps(data, ensure_ascii=False).replace("</", "<\\/")
    for name, value in {
        "TITLE": html.escape(title),
        "ABOUT": about,
        "SECTIONS": sections,
        "CLASSES": classes,
        "NOTES": notes,
        "DATA": text,
    }.items():
        template = template.replace(f"__{name}__", value)
    return template


def _entry(album, pair):
    """What the page knows of a pair: its pictures as data URIs, and its scores as text."""
    names = [name for name in METRICS if name in album.scores]
    pictures = {
        name: "data:image/jpeg;base64," + base64.b64encode(data).decode() for name, data in album.of(pair).items()
    }
    scores = {method: [_shown(album.rows[pair, method][name], name) for name in names] for method in album.methods}
    return {"category": album.pairs[pair].category, "metrics": names, "scores": scores, "pictures": pictures}


def _shown(value, name):
    return "-" if np.isnan(value) else f"{value:.{METRICS[name].digits}f}"


def _shots(album, pair, rank, by, entry):
    for name in entry["pictures"]:
        if name in ("input", "truth"):
            text = f"{rank} input".strip() if name == "input" else name
        else:
            text = f"{name} {_shown(album.rows[pair, name][by], by)}"
        label = html.escape(f"Pair {pair}, {text}", quote=True)
        yield (
            f'<button class=shot data-of="{pair}/{html.escape(name, quote=True)}" aria-label="{label}">'
            f"<img alt=''><span>{html.escape(text)}</span></button>"
        )


def _about(recipe, album):
    folders, settings = recipe["folders"], recipe["settings"]
    facts = [
        f"{recipe['sources']['pairs']} pairs of images from {folders['images']} and masks from {folders['masks']}",
        f"{settings['size'][0]} x {settings['size'][1]} px, seed {settings['seed']}, {tables.pixels(recipe)}",
        f"irregular-masks {recipe['version']}, "
        + ", ".join(f"{name} {number}" for name, number in recipe["libraries"].items()),
    ]
    return "".join(f"<p class=soft style='margin:0'>{html.escape(fact)}</p>" for fact in facts)


def _notes(table, tests):
    lines = tables._bold_legend(table)
    lines[0] = lines[0].replace("\\~", "~")
    known = tests["p_holm"].notna()
    if known.any():
        real = int((tests["p_holm"] < ReportConfig().alpha).sum())
        lines.append(
            f"{real} of {int(known.sum())} differences between two methods on a class and a metric are real at "
            f"p < {ReportConfig().alpha:g}; tests.csv lists them all"
        )
    elif len(tests):
        lines.append("no difference is tested: a class needs six images for that")
    return "<h2>Notes</h2>" + "".join(f"<p class=soft>{html.escape(line)}.</p>" for line in lines)


WIDE, HIGH, LEFT, LOW = 420, 266, 46, 36  # px of a chart, and of its margins left and below


def curves(table: pd.DataFrame, scores: pd.DataFrame, name: str) -> str:
    """The curves of a metric over hole ratio as SVG, interior and free apart, and one of all other classes."""
    methods = list(dict.fromkeys(table["method"]))
    ratios = scores.groupby("category", sort=False)["hole_ratio"].mean()
    present = [category for category in ratios.index if category in set(table["category"])]
    sides = {
        side: [category for category in CATEGORIES if category in present and category.startswith(side)]
        for side in ("interior", "free")
    }
    sides["hole ratio"] = [category for category in present if category not in CATEGORIES]
    values = table[["mean", "low", "high"]].to_numpy(float)
    if not np.isfinite(values).any():
        return ""
    low, high = np.nanmin(values), np.nanmax(values)
    charts = [
        f"<figure><figcaption>{side}</figcaption>{_chart(table, ratios, categories, methods, low, high, name)}</figure>"
        for side, categories in sides.items()
        if len(categories) > 1
    ]
    if not charts:
        return ""
    keys = "".join(
        f"<span><i style='background:var(--s{i % 8})'></i>{html.escape(m)}</span>" for i, m in enumerate(methods)
    )
    return f"<div class=keys>{keys}</div><div class=charts>{''.join(charts)}</div>"


def _chart(table, ratios, categories, methods, low, high, name):
    ticks = nice(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    right = max(ratios[categories].max() * 1.04, 0.1)

    def x(ratio):
        return round(LEFT + (WIDE - LEFT - 8) * ratio / right, 1)

    def y(value):
        return round(HIGH - LOW - (HIGH - LOW - 10) * (value - low) / (high - low or 1), 1)

    parts = [f'<svg viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{name} over hole ratio">']
    for tick in ticks:
        parts.append(f'<path class="axis" d="M{LEFT} {y(tick)}H{WIDE - 8}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(tick) + 4}" text-anchor="end">{tick:g}</text>')
    for tick in np.arange(0, right, 0.1).round(1):
        parts.append(f'<text x="{x(tick)}" y="{HIGH - LOW + 16}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text x="{WIDE - 8}" y="{HIGH - 2}" text-anchor="end">hole / image</text>')
    for i, method in enumerate(methods):
        rows = table[table["method"] == method].set_index("category")
        points = [
            (x(ratios[category]), *(rows.loc[category, key] for key in ("mean", "low", "high")))
            for category in categories
            if category in rows.index and np.isfinite(rows.loc[category, "mean"])
        ]
        colour = f"var(--s{i % 8})"
        bounded = [point for point in points if np.isfinite(point[2])]
        if len(bounded) > 1:
            edge = [f"{at} {y(top)}" for at, _, _, top in bounded]
            edge += [f"{at} {y(bottom)}" for at, _, bottom, _ in reversed(bounded)]
            parts.append(f'<path d="M{"L".join(edge)}Z" style="fill:{colour};opacity:.14"/>')
        line = "L".join(f"{at} {y(mean)}" for at, mean, _, _ in points)
        parts.append(f'<path d="M{line}" style="fill:none;stroke:{colour};stroke-width:2"/>' if points else "")
        for at, mean, _, _ in points:
            told = f"{html.escape(method)}: {mean:.{ALL[name].digits}f}"
            parts.append(
                f'<circle cx="{at}" cy="{y(mean)}" r="3.5" style="fill:{colour}"><title>{told}</title></circle>'
            )
    return "".join(parts) + "</svg>"


def nice(low: float, high: float) -> list[float]:
    """About five round numbers that cover low to high."""
    if not high > low:
        return [float(low)]
    step = 10 ** np.floor(np.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10) if (high - low) / (step * factor) <= 5)
    first, last = np.floor(low / step + 1e-9), np.ceil(high / step - 1e-9)
    return [float(np.round(i * step, 10)) for i in np.arange(first, last + 1)]
