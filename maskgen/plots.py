"""Pictures of a mask set: a contact sheet, histograms, a map of where holes lie."""

import io
from pathlib import Path

import cv2
import matplotlib.figure
import numpy as np

from maskgen.categories import CATEGORIES
from maskgen.errors import BadInput
from maskgen.maskset import INDEX, read_hole, read_index
from maskgen.runtime.files import write_whole
from maskgen.settings import BORDER, EDGES

CELL = 96  # px, side of a mask on the contact sheet
GAP = 6  # px between masks
INK = {"interior": "#1f77b4", "free": "#d95f02"}


def draw_figures(folder: Path, out: Path, columns: int = 10) -> list[Path]:
    """Draw a mask set into `out`: sheet.png, histograms.png, heatmap.png. Returns their paths.

    folder: a mask set, or one part of it. columns: masks of each class on the sheet. Without classes, as raw masks
    often are, the sheet shows masks evenly spread over the set.
    """
    folder = next((path for path in (folder, folder / "test", folder / "train") if (path / INDEX).exists()), folder)
    table = read_index(folder)
    if table.empty:
        raise BadInput(f"{folder}/{INDEX} lists no masks: nothing to draw")
    out.mkdir(parents=True, exist_ok=True)
    drawn = {"sheet.png": sheet(folder, table, columns)}
    drawn["histograms.png"] = histograms(table)
    drawn["heatmap.png"] = heatmap(folder, table)
    for name, data in drawn.items():
        write_whole(out / name, data)
    return [out / name for name in drawn]


def sheet(folder: Path, table, columns: int = 10) -> bytes:
    """PNG bytes of a contact sheet: a row for each class, holes black, as in figure 4 of the paper."""
    if set(table["category"]) >= set(CATEGORIES):
        groups = [(name.replace("_", " "), table[table["category"] == name]) for name in CATEGORIES]
    else:
        rows = min(12, -(-len(table) // columns))
        cuts = np.array_split(np.arange(len(table)), rows)
        groups = [("", table.iloc[cut]) for cut in cuts]
    columns = min(columns, max(len(group) for _, group in groups))
    label = 120 if groups[0][0] else 0
    lines = []
    for name, group in groups:
        line = np.full((CELL + GAP, label + columns * (CELL + GAP) + GAP), 200, np.uint8)
        cv2.putText(line, name, (GAP, CELL // 2 + 4), cv2.FONT_HERSHEY_SIMPLEX, 0.42, 0, 1, cv2.LINE_AA)
        chosen = np.unique(np.linspace(0, len(group) - 1, min(columns, len(group))).astype(int))
        for k, i in enumerate(chosen):
            left = label + GAP + k * (CELL + GAP)
            line[GAP:, left : left + CELL] = 255 - small(read_hole(folder / group.iloc[i]["file_name"]), CELL)
        lines.append(line)
    lines.append(np.full((GAP, lines[0].shape[1]), 200, np.uint8))
    return cv2.imencode(".png", np.vstack(lines), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()


def small(hole: np.ndarray, side: int) -> np.ndarray:
    """A thumbnail, uint8 (side, side), 255 where all is hole; what is not square is fitted in. hole: bool (H, W)."""
    scale = side / max(hole.shape)
    size = max(1, round(hole.shape[1] * scale)), max(1, round(hole.shape[0] * scale))
    picture = np.zeros((side, side), np.uint8)
    picture[: size[1], : size[0]] = cv2.resize(hole.view(np.uint8) * 255, size, interpolation=cv2.INTER_AREA)
    return picture


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
    figure = matplotlib.figure.Figure(figsize=(9, 3.8), layout="constrained")
    for axes, name, rows in zip(figure.subplots(1, 2), INK, (table[interior], table[~interior]), strict=True):
        total = np.zeros((side, side))
        chosen = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int))
        for i in chosen:
            hole = read_hole(folder / rows.iloc[i]["file_name"]).view(np.uint8) * 255
            total += cv2.resize(hole, (side, side), interpolation=cv2.INTER_AREA) / 255
        share = total / max(1, len(chosen))
        image = axes.imshow(share, vmin=0, cmap="magma", extent=(0, 1, 1, 0))
        axes.set_title(f"{name}: share of {len(chosen)} masks with a hole here", fontsize=9)
        axes.set_xticks([0, 0.5, 1])
        axes.set_yticks([0, 0.5, 1])
        figure.colorbar(image, ax=axes, shrink=0.9)
    return _png(figure)


def _png(figure):
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110, metadata={"Software": None})  # no version: same set, same bytes
    return data.getvalue()
