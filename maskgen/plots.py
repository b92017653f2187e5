"""Figures of a mask set: a contact sheet, histograms, and maps of hole frequency. Holes are white, as in the files."""

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import matplotlib.figure
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.font_manager import FontProperties

from maskgen.errors import BadInput
from maskgen.maskset import INDEX, read_hole, read_index
from maskgen.runtime.files import write_whole
from maskgen.settings import BORDER, EDGES

if TYPE_CHECKING:
    import pandas as pd

CELL = 96  # px, side of a mask on the contact sheet
GAP = 6  # px between masks
MIN_COLUMN = 48  # px, least width of a column, for the labels
LABEL = 20  # px, height of a line of text
LINES = 12  # of masks on a contact sheet: the paper's classes
DPI = 100
FONT = FontProperties(family="DejaVu Sans", size=9)  # comes with matplotlib, so it looks the same on every machine
BACKGROUND = 190  # grey level; holes are 255, valid pixels 0
REQUIRED = ("category", "hole_ratio", "border_distance")
COLOURS = {"interior": "#1f77b4", "free": "#d95f02"}


def draw_figures(folder: Path | str, out: Path | str, columns: int = 10) -> list[Path]:
    """Draw a mask set into the folder `out`: sheet.png, histograms.png, heatmap.png. Returns their paths.

    folder: a mask set, of which all parts are drawn, or one part of it. columns: masks side by side on the sheet.
    Raises BadInput if there is no index, or one that lists no masks or lacks the measured columns.
    """
    folder, out = Path(folder), Path(out)
    table = read_parts(folder)
    drawn = {
        "sheet.png": contact_sheet(folder, table, columns),
        "histograms.png": histograms(table),
        "heatmap.png": heatmap(folder, table),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, data in drawn.items():
        write_whole(out / name, data)
    return [out / name for name in drawn]


def read_parts(folder: Path) -> "pd.DataFrame":
    """Read the indices of all parts of a mask set as one DataFrame, with `file_name` relative to `folder`.

    The column `part` is "train" or "test", or "" if the folder itself has an index. Raises BadInput as `draw_figures`.
    """
    import pandas as pd

    parts = [part for part in ("train", "test") if (folder / part / INDEX).is_file()]
    if (folder / INDEX).is_file() or not parts:  # if there is none, read_index raises
        parts = [""]
    tables = []
    for part in parts:
        table = read_index(folder / part)
        missing = [column for column in REQUIRED if column not in table]
        if missing:
            raise BadInput(
                f"{folder / part / INDEX} has no column {missing[0]}: expected an index as maskgen writes it; "
                f"`maskgen bin {folder / part} --out FOLDER` makes a mask set from any masks"
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
    files: list[str]  # of the masks that are shown
    total: int  # masks in the group


def contact_sheet(folder: Path, table: "pd.DataFrame", columns: int = 10) -> bytes:
    """Draw a contact sheet, with the number of masks shown and of all masks in its title. Returns PNG bytes.

    From a set sorted by class it shows masks spaced evenly over each class; from any other set, the masks with the
    largest holes of each video. table: as `read_parts` returns it. columns: masks side by side.
    """
    groups, choice = _groups(table, columns)
    title = f"{sum(len(group.files) for group in groups)} of {len(table)} masks, {choice}; white is the hole"
    thumbnails = [[thumbnail(read_hole(folder / name), CELL) for name in group.files] for group in groups]
    shapes = [cell.shape for row in thumbnails for cell in row]
    row_height = max(height for height, _ in shapes) + GAP
    column_width = max(MIN_COLUMN, *(width for _, width in shapes)) + GAP
    placed, texts = [], [(title, GAP, GAP)]
    top, bottom, taken = 0, GAP + LABEL + GAP, columns
    for group, row in zip(groups, thumbnails, strict=True):
        lines = -(-len(row) // columns)
        length = -(-len(row) // lines)  # the same for all lines of a group, so that none is half empty
        if taken + length > columns:
            top, taken = bottom, 0
        first = top + LABEL * bool(group.name)
        bottom = max(bottom, first + lines * row_height)
        left = GAP + taken * column_width
        texts.append((_label(group, length * column_width - 3 * GAP), left, top))
        for i, cell in enumerate(row):
            y, x = first + i // length * row_height, left + i % length * column_width
            placed.append((cell, y + (row_height - GAP - cell.shape[0]) // 2, x))
        taken += length
    width = max(max(x for _, _, x in placed) + column_width, GAP + _text_width(title) + GAP)
    picture = np.full((bottom, width), BACKGROUND, np.uint8)
    for cell, y, x in placed:
        picture[y : y + cell.shape[0], x : x + cell.shape[1]] = cell
    return cv2.imencode(".png", draw_texts(picture, texts), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()


def _groups(table, columns):
    """The groups of a contact sheet, and how their masks are chosen, in words."""
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
            if named.nunique() <= len(table) / 2:  # otherwise each mask has its own
                table["group"], choice = named, "largest holes first in each video"
        order = table["group"].loc[sorted(table.index)].unique()
    if len(order) > LINES * columns:
        choice += f", {LINES * columns} of {len(order)} videos"
        order = order[_evenly_spaced(len(order), LINES * columns)]
    # Few groups have several lines each, many share a line.
    most = columns * (LINES // len(order)) if len(order) <= LINES else max(1, LINES * columns // len(order))
    groups = []
    for name in order:
        files = table["file_name"][table["group"] == name]
        chosen = files.iloc[_evenly_spaced(len(files), most)] if "class" in choice else files.iloc[:most]
        groups.append(Group(name, list(chosen), len(files)))
    return groups, choice


def _evenly_spaced(length, most):
    """At most `most` of the numbers below `length`, evenly spaced."""
    return np.unique(np.linspace(0, length - 1, min(most, length)).astype(int))


def _label(group, width):
    """Name of a group and number of masks shown, shortened to `width` px; empty for a group without a name."""
    label = f"{group.name}, {len(group.files)} of {group.total}" if group.name else ""
    if _text_width(label) <= width:
        return label
    label, kept = group.name, len(group.name)
    while _text_width(label) > width and kept > 2:  # cut in the middle, since names often differ at their end
        kept -= 1
        label = f"{group.name[: kept // 2]}…{group.name[-(kept - kept // 2) :]}"
    return label


def _text_width(text):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that the font lacks are drawn as boxes
        renderer = FigureCanvasAgg(matplotlib.figure.Figure(dpi=DPI)).get_renderer()
        return int(np.ceil(renderer.get_text_width_height_descent(text, FONT, ismath=False)[0]))


def draw_texts(picture: np.ndarray, texts: list[tuple[str, int, int]]) -> np.ndarray:
    """Draw lines of text on an image, uint8 (H, W). texts: (text, left, top), in px."""
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


def thumbnail(hole: np.ndarray, side: int) -> np.ndarray:
    """A thumbnail of a hole, bool (H, W): uint8, 255 for hole; its longer side has `side` px."""
    scale = side / max(hole.shape)
    size = max(1, round(hole.shape[1] * scale)), max(1, round(hole.shape[0] * scale))
    return cv2.resize(hole.view(np.uint8) * 255, size, interpolation=cv2.INTER_AREA)


def histograms(table: "pd.DataFrame") -> bytes:
    """Draw histograms of hole ratio, with the edges of the classes, and border distance, with BORDER. PNG bytes."""
    interior = table["border_distance"].astype(int) >= BORDER
    figure = matplotlib.figure.Figure(figsize=(10, 3.4), layout="constrained")
    ratio, distance = figure.subplots(1, 2)
    ratios, distances = table["hole_ratio"].astype(float), table["border_distance"].astype(int)
    top = max(EDGES[-1], float(ratios.max()))
    for axes, values, bins in (
        (ratio, ratios, np.linspace(0, top, 61)),
        (distance, distances, np.linspace(0, max(100, distances.max()), 51)),
    ):
        axes.hist(
            [values[interior], values[~interior]],
            bins,
            stacked=True,
            color=list(COLOURS.values()),
            label=[f"{name}, {n}" for name, n in zip(COLOURS, (interior.sum(), (~interior).sum()), strict=True)],
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


def heatmap(folder: Path, table: "pd.DataFrame", most: int = 2000, side: int = 128) -> bytes:
    """Draw the share of masks with a hole at each place, for interior and for free masks. PNG bytes.

    most: masks of each kind that are read. side: px, resolution of the maps.
    """
    interior = table["border_distance"].astype(int) >= BORDER
    kinds = [(name, rows) for name, rows in zip(COLOURS, (table[interior], table[~interior]), strict=True) if len(rows)]
    figure = matplotlib.figure.Figure(figsize=(4.5 * len(kinds), 3.8), layout="constrained")
    for axes, (name, rows) in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        total = np.zeros((side, side))
        chosen = _evenly_spaced(len(rows), most)
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
    # Without matplotlib's version in the file, the same set gives the same bytes.
    figure.savefig(data, format="png", dpi=110, metadata={"Software": None})
    return data.getvalue()
