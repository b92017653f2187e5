"""Charts of a metric over the hole ratio, as SVG to be embedded in the report."""

import io
from xml.etree import ElementTree

import numpy as np
import pandas as pd

from evaluation.metrics import ALL
from maskgen.categories import CATEGORIES

WIDTH, HEIGHT = 420, 266  # px
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 10, 36  # px, margins around the axes
COLOURS = ("#1f66c1", "#d9650b", "#14885f", "#8a4fc7", "#c22f4d", "#6f6b12", "#0f8a99", "#7a5a45")
DASHES = ("-", "--", ":")  # for more methods than there are colours
SOFT, LINE = "#63666b", "#e1e1dd"  # text and grid
# The page has variables for these colours, which are others in its dark theme.
VARIABLES = {SOFT: "--soft", LINE: "--line"} | {colour: f"--s{i}" for i, colour in enumerate(COLOURS)}
STYLE = {
    "svg.fonttype": "none",  # text stays text, in the font of the page
    "font.sans-serif": ["DejaVu Sans"],  # comes with Matplotlib
    "font.size": 11,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "text.color": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "grid.color": LINE,
}


def charts(table: pd.DataFrame, scores: pd.DataFrame, name: str) -> list[tuple[str, str]]:
    """Draw the mean of a metric over the hole ratio, one curve for each method, with its interval as a band.

    Args:
        table: summary of this metric, as `statistics.summary` returns it.
        scores: for the mean hole ratio of each class.
        name: the metric.

    Returns:
        (caption, SVG) of a chart of the interior classes, the free classes, and all other classes together. All have
        the same y-axis. A chart with fewer than two classes is left out. The same input gives the same text.
    """
    if not np.isfinite(table["mean"]).any():
        return []
    ratios = scores.groupby("category", sort=False)["hole_ratio"].mean()
    present = [category for category in ratios.index if category in set(table["category"])]
    sides = {
        side: [category for category in CATEGORIES if category in present and category.startswith(side)]
        for side in ("interior", "free")
    }
    sides["hole ratio"] = [category for category in present if category not in CATEGORIES]
    values = table[["mean", "low", "high"]].to_numpy(float)
    limits = np.nanmin(values), np.nanmax(values)
    return [
        (side, _chart(table, ratios[categories], limits, f"{name} over hole ratio, {side}", ALL[name].digits))
        for side, categories in sides.items()
        if len(categories) > 1
    ]


def _chart(table, ratios, limits, label, digits):
    """One chart. ratios: mean hole ratio by class, in the order in which the points are joined."""
    import matplotlib.style
    from matplotlib.figure import Figure
    from matplotlib.ticker import MultipleLocator

    values = {}
    with matplotlib.style.context(["default", STYLE | {"svg.hashsalt": label}]):
        figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72))
        size = (WIDTH - LEFT - RIGHT) / WIDTH, (HEIGHT - TOP - BOTTOM) / HEIGHT
        axes = figure.add_axes((LEFT / WIDTH, BOTTOM / HEIGHT, *size))
        axes.grid(axis="y", clip_on=False)
        for i, (method, rows) in enumerate(table.groupby("method", sort=False)):
            rows = rows.set_index("category").reindex(ratios.index).dropna(subset="mean")
            look = {"color": COLOURS[i % len(COLOURS)], "clip_on": False}
            band = rows.dropna(subset=["low", "high"])
            if len(band) > 1:
                axes.fill_between(ratios[band.index], band["low"], band["high"], alpha=0.14, linewidth=0, **look)
            dash = DASHES[i // len(COLOURS) % len(DASHES)]
            axes.plot(ratios[rows.index], rows["mean"], dash, marker="o", linewidth=2, gid=f"curve{i}", **look)
            values[f"curve{i}"] = [f"{method}: {mean:.{digits}f}" for mean in rows["mean"]]
        axes.set_xlim(0, max(1.04 * ratios.max(), 0.1))
        margin = 0.04 * (limits[1] - limits[0]) or 0.5
        axes.set_ylim(limits[0] - margin, limits[1] + margin)
        axes.locator_params(axis="y", nbins=5)
        axes.xaxis.set_major_locator(MultipleLocator(0.1))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("hole ratio", loc="right")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, pad=6)
        axes.set_axisbelow(True)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return _embeddable(file.getvalue(), label, values)


def _embeddable(svg, label, values):
    """Prepare Matplotlib's SVG for a page: without metadata, styles and ids that concern the rest of the page.

    values: the tooltips of the points of each curve, by the curve's id.
    """
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        parent.tag = parent.tag.rpartition("}")[2]  # an inline SVG needs no namespaces
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    for name, texts in values.items():
        points = root.findall(f".//g[@id='{name}']//use")
        for point, text in zip(points, texts, strict=True):
            ElementTree.SubElement(point, "title").text = text
    links = {element.get("{http://www.w3.org/1999/xlink}href") for element in root.iter()}
    for element in root.iter():
        link = element.attrib.pop("{http://www.w3.org/1999/xlink}href", None)
        if link:
            element.set("href", link)
        if f"#{element.get('id')}" not in links:
            element.attrib.pop("id", None)
        style = element.get("style", "")
        for colour, variable in VARIABLES.items():
            style = style.replace(colour, f"var({variable}, {colour})")
        if style:
            element.set("style", style)
    root.attrib = {"viewBox": root.get("viewBox"), "role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode")
