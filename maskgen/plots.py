"""Pictures of a mask set: a contact sheet, histograms, a map of where holes lie. Holes are white, as in the files."""

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib.figure
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.font_manager import FontProperties

from maskgen.errors import BadInput
from maskgen.maskset import INDEX, read_hole, read_index
from maskgen.runtime.files import write_whole
from maskgen.settings import BORDER, EDGES

CELL = 96  # px, side of a mask on the contact sheet
GAP = 6  # px between masks
NARROW = 48  # px, least width of a column, for the labels
LABEL = 20  # px, height of a line of text
LINES = 12  # of masks on a contact sheet: the paper's classes
DPI = 100
FONT = FontProperties(family="DejaVu Sans", size=9)  # comes with matplotlib, so every machine draws the same
GREY = 190  # of the background: holes are 255, valid pixels 0
NEEDED = ("category", "hole_ratio", "border_distance")
INK = {"interior": "#1f77b4", "free": "#d95f02"}


def draw_figures(folder: Path, out: Path, columns: int = 10) -> list[Path]:
    """Draw a mask set into `out`: sheet.png, histograms.png, heatmap.png. Returns their paths.

    folder: a mask set, of which all parts are drawn, or one part of it. columns: masks side by side on the sheet.
    Raises BadInput where there is no index, and for one that lists no masks or does not measure them.
    """
    table = read_parts(folder)
    drawn = {"sheet.png": sheet(folder, table, columns)}
    drawn["histograms.png"] = histograms(table)
    drawn["heatmap.png"] = heatmap(folder, table)
    out.mkdir(parents=True, exist_ok=True)
    for name, data in drawn.items():
        write_whole(out / name, data)
    return [out / name for name in drawn]


def read_parts(folder: Path):
    """The indices of a mask set as one DataFrame, with `file_name` relative to `folder`.

    The column `part` is "train" or "test", or "" where the folder has an index of its own. Raises BadInput as
    `draw_figures` does.
    """
    import pandas as pd

    parts = [part for part in ("train", "test") if (folder / part / INDEX).is_file()]
    if (folder / INDEX).is_file() or not parts:  # read_index says what is missing
        parts = [""]
    tables = []
    for part in parts:
        table = read_index(folder / part)
        missing = [column for column in NEEDED if column not in table]
        if missing:
            raise BadInput(
                f"{folder / part / INDEX} has no column {missing[0]}: expected an index as maskgen writes it; "
                f"`maskgen bin {folder / part} --out FOLDER` makes a mask set of any masks"
            )
        names = table["file_name"]
        tables.append(table.assign(part=part, file_name=f"{part}/" + names if part else names))
    table = pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)
    if table.empty:
        raise BadInput(f"{folder} lists no masks in its {INDEX}: nothing to draw")
    return table


@dataclass(frozen=True)
class Group:
    """Masks that share a label on the contact sheet."""

    name: str
    files: list[str]  # that are shown
    total: int  # masks, with those that are not shown


def sheet(folder: Path, table, columns: int = 10) -> bytes:
    """PNG bytes of a contact sheet that says how many masks of how many it shows. Holes are white.

    Of a set that is sorted by class the masks are spread evenly over each class; of any other set they are those with
    the largest holes in each video. table: as `read_parts` gives it.
    """
    groups, choice = _groups(table, columns)
    title = f"{sum(len(group.files) for group in groups)} of {len(table)} masks, {choice}; white is the hole"
    thumbnails = [[small(read_hole(folder / name), CELL) for name in group.files] for group in groups]
    shapes = [thumbnail.shape for row in thumbnails for thumbnail in row]
    down, right = max(height for height, _ in shapes) + GAP, max(NARROW, *(width for _, width in shapes)) + GAP
    placed, texts = [], [(title, GAP, GAP)]
    top, bottom, taken = 0, GAP + LABEL + GAP, columns
    for group, row in zip(groups, thumbnails, strict=True):
        lines = -(-len(row) // columns)
        wide = -(-len(row) // lines)  # lines of one length, so that no picture is half empty
        if taken + wide > columns:
            top, taken = bottom, 0
        head = top + LABEL * bool(group.name)
        bottom = max(bottom, head + lines * down)
        left = GAP + taken * right
        texts.append((_label(group, wide * right - 3 * GAP), left, top))
        for i, thumbnail in enumerate(row):
            y, x = head + i // wide * down, left + i % wide * right
            placed.append((thumbnail, y + (down - GAP - thumbnail.shape[0]) // 2, x))
        taken += wide
    width = max(max(x for _, _, x in placed) + right, GAP + _text_width(title) + GAP)
    picture = np.full((bottom, width), GREY, np.uint8)
    for thumbnail, y, x in placed:
        picture[y : y + thumbnail.shape[0], x : x + thumbnail.shape[1]] = thumbnail
    return cv2.imencode(".png", _write_on(picture, texts), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()


def _groups(table, columns):
    """The groups of a contact sheet, and in words how their masks are chosen."""
    within = table["file_name"].str.split("/").str[-2]  # the folder of each file
    if (within == table["category"].where(table["category"] != "", "outside")).all():
        side = within.str.partition("_")[0].map({"interior": 0, "free": 1}).fillna(2)
        table = table.assign(group=within.str.replace("_", " "), side=side)
        order = table.sort_values(["side", "hole_ratio"], kind="stable")["group"].unique()
        choice = "spread evenly over each class"
    else:
        table = table.assign(group="").sort_values("hole_ratio", ascending=False, kind="stable")
        choice = "largest holes first"
        if "source" in table:
            source = table["source"].astype(str)
            named = source + " (" + table["part"] + ")" if table["part"].nunique() > 1 else source
            if named.nunique() <= len(table) / 2:  # else it is a name for each mask
                table["group"], choice = named, "largest holes first in each video"
        order = table["group"].loc[sorted(table.index)].unique()
    if len(order) > LINES * columns:
        choice += f", {LINES * columns} of {len(order)} videos"
        order = order[_spread(len(order), LINES * columns)]
    # Few groups get several lines each, many share a line.
    most = columns * (LINES // len(order)) if len(order) <= LINES else max(1, LINES * columns // len(order))
    groups = []
    for name in order:
        files = table["file_name"][table["group"] == name]
        chosen = files.iloc[_spread(len(files), most)] if "class" in choice else files.iloc[:most]
        groups.append(Group(name, list(chosen), len(files)))
    return groups, choice


def _spread(length, most):
    """At most `most` of the numbers below `length`, evenly spread."""
    return np.unique(np.linspace(0, length - 1, min(most, length)).astype(int))


def _label(group, width):
    """What a group is and how much of it is shown, in `width` px at most; empty for a group without a name."""
    label = f"{group.name}, {len(group.files)} of {group.total}" if group.name else ""
    if _text_width(label) <= width:
        return label
    label, kept = group.name, len(group.name)
    while _text_width(label) > width and kept > 2:  # names often differ at their end
        kept -= 1
        label = f"{group.name[: kept // 2]}…{group.name[-(kept - kept // 2) :]}"
    return label


def _text_width(text):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a letter that the font has not is drawn as a box
        renderer = FigureCanvasAgg(matplotlib.figure.Figure(dpi=DPI)).get_renderer()
        return int(np.ceil(renderer.get_text_width_height_descent(text, FONT, ismath=False)[0]))


def _write_on(picture, texts):
    """Write lines of text on a picture, uint8 (H, W). texts: each with the left and top px of its line."""
    height, width = picture.shape
    figure = matplotlib.figure.Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    figure.figimage(picture, cmap="gray", vmin=0, vmax=255, origin="upper")
    for text, left, top in texts:
        middle = 1 - (top + LABEL / 2) / height
        figure.text(left / width, middle, text, fontproperties=FONT, va="center_baseline", parse_math=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., 0])


def small(hole: np.ndarray, side: int) -> np.ndarray:
    """A thumbnail, uint8, 255 where all is hole; its longer side has `side` px. hole: bool (H, W)."""
    scale = side / max(hole.shape)
    size = max(1, round(hole.shape[1] * scale)), max(1, round(hole.shape[0] * scale))
    return cv2.resize(hole.view(np.uint8) * 255, size, interpolation=cv2.INTER_AREA)


def histograms(table) -> bytes:
    """PNG bytes of two histograms: hole ratio with the edges of the classes, border distance with the 50 px line."""
    interior = table["border_distance"].astype(int) >= BORDER
    figure = matplotlib.figure.Figure(figsize=(10, 3.4), layout="constrained")
    ratio, distance = figure.subplots(1, 2)
    ratios, distances = table["hole_ratio"].astype(float), table["border_distance"].astype(int)
    top = max(EDGES[-1], float(ratios.max()))
    for axes, values, steps in (
        (ratio, ratios, np.linspace(0, top, 61)),
        (distance, distances, np.linspace(0, max(100, distances.max()), 51)),
    ):
        axes.hist(
            [values[interior], values[~interior]],
            steps,
            stacked=True,
            color=list(INK.values()),
            label=[f"{name}, {n}" for name, n in zip(INK, (interior.sum(), (~interior).sum()), strict=True)],
        )
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylabel("masks")
        axes.yaxis.get_major_locator().set_params(integer=True)
    for edge in EDGES:
        ratio.axvline(edge, color="0.6", lw=0.7, zorder=0)
    distance.axvline(BORDER, color="0.6", lw=0.7, zorder=0)
    ratio.set_xlabel("hole ratio")
    distance.set_xlabel("border distance, px")
    ratio.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return _png(figure)


def heatmap(folder: Path, table, most: int = 2000, side: int = 128) -> bytes:
    """PNG bytes of maps: how often each place is a hole, in interior and in free masks (at most `most` of each)."""
    interior = table["border_distance"].astype(int) >= BORDER
    kinds = [(name, rows) for name, rows in zip(INK, (table[interior], table[~interior]), strict=True) if len(rows)]
    figure = matplotlib.figure.Figure(figsize=(4.5 * len(kinds), 3.8), layout="constrained")
    for axes, (name, rows) in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        total = np.zeros((side, side))
        chosen = _spread(len(rows), most)
        for i in chosen:
            hole = read_hole(folder / rows.iloc[i]["file_name"]).view(np.uint8) * 255
            total += cv2.resize(hole, (side, side), interpolation=cv2.INTER_AREA) / 255
        image = axes.imshow(total / len(chosen), vmin=0, cmap="magma", extent=(0, 1, 1, 0))
        masks = "1 mask" if len(chosen) == 1 else f"{len(chosen)} masks"
        axes.set_title(f"{name}: share of {masks} with a hole here", fontsize=9)
        axes.set_xticks([0, 0.5, 1])
        axes.set_yticks([0, 0.5, 1])
        figure.colorbar(image, ax=axes, shrink=0.9)
    return _png(figure)


def _png(figure):
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110, metadata={"Software": None})  # no version: same set, same bytes
    return data.getvalue()
