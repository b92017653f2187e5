"""Figures of mask sequences: strips of frames, and an animated preview. Holes are white, as in the files."""

import io
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from maskgen.maskset import read_hole
from maskgen.plots import BACKGROUND, GAP, LABEL, draw_texts, thumbnail
from maskgen.runtime.files import write_whole
from maskgen.sequences.index import frame_name, read_index
from maskgen.sequences.reader import Sequences, is_packed
from maskgen.sequences.settings import MODES

STRIPS = 5  # of each mode
CELL = 120  # px, longer side of a frame on a strip
ACROSS = 5  # sequences side by side in the preview
PREVIEW = 160  # px, longer side of a frame of the preview
MAX_FRAMES = 64  # of the preview
DURATION = 80  # ms, of a frame

Frame = Callable[[dict, int], np.ndarray]  # reads frame t of the sequence of a row, bool (H, W)


def draw_figures(folder: Path, out: Path, columns: int = 10) -> list[Path]:
    """Draw mask sequences into the folder `out`: strips.png and preview.gif. Returns their paths.

    folder: a set of `maskgen sequences`, or a packed file of them. columns: frames of a strip. Raises BadInput if there
    is no index.
    """
    rows, frame = _packed(folder) if is_packed(folder) else (read_index(folder), partial(_frame, folder))
    chosen = {mode: _chosen([row for row in rows if row["mode"] == mode]) for mode in MODES}
    chosen = {mode: of_mode for mode, of_mode in chosen.items() if of_mode}
    drawn = {"strips.png": strips(chosen, frame, columns), "preview.gif": preview(chosen, frame)}
    out.mkdir(parents=True, exist_ok=True)
    for name, data in drawn.items():
        write_whole(out / name, data)
    return [out / name for name in drawn]


def _chosen(rows):
    """STRIPS sequences of a mode, evenly spaced in the order of hole ratio."""
    rows = sorted(rows, key=lambda row: (row["hole_ratio"], row["sequence"]))
    return [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, min(STRIPS, len(rows))).astype(int))]


def strips(chosen: dict[str, list[dict]], frame: Frame, columns: int) -> bytes:
    """Draw one strip of evenly spaced frames for each sequence. PNG bytes. chosen: index rows by mode."""
    cells, texts, top = [], [], GAP
    for row in (row for of_mode in chosen.values() for row in of_mode):
        numbers = np.unique(np.linspace(0, int(row["frames"]) - 1, columns).astype(int))
        strip = [thumbnail(frame(row, t), CELL) for t in numbers]
        text = f"{row['sequence']}: hole ratio {float(row['hole_ratio']):.2f}, {float(row['speed']):.1f} px a frame"
        texts.append((text + f", from {row['source']}" * bool(row.get("source")), GAP, top))
        cells += [(cell, top + LABEL, GAP + i * (cell.shape[1] + GAP)) for i, cell in enumerate(strip)]
        top += LABEL + strip[0].shape[0] + GAP
    width = max(x + cell.shape[1] for cell, _, x in cells) + GAP
    picture = np.full((top, width), BACKGROUND, np.uint8)
    for cell, y, x in cells:
        picture[y : y + cell.shape[0], x : x + cell.shape[1]] = cell
    return cv2.imencode(".png", draw_texts(picture, texts), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()


def preview(chosen: dict[str, list[dict]], frame: Frame) -> bytes:
    """Draw an animation with a line of sequences for each mode, in the order of MODES. GIF bytes."""
    count = min(MAX_FRAMES, min(int(row["frames"]) for of_mode in chosen.values() for row in of_mode))
    pictures = []
    for t in range(count):
        lines = []
        for of_mode in chosen.values():
            cells = [thumbnail(frame(row, t), PREVIEW) for row in of_mode[:ACROSS]]
            cells += [np.full_like(cells[0], BACKGROUND)] * (ACROSS - len(cells))
            lines.append(np.hstack([np.pad(cell, GAP // 2, constant_values=BACKGROUND) for cell in cells]))
        pictures.append(Image.fromarray(np.vstack(lines)))
    data = io.BytesIO()
    pictures[0].save(data, "GIF", save_all=True, append_images=pictures[1:], duration=DURATION, loop=0)
    return data.getvalue()


def _packed(path):
    """The rows of a packed file, and a function that reads a frame."""
    sequences = Sequences(path)
    read = cache(sequences.__getitem__)  # a few sequences are drawn, and each of them whole
    return [sequences.row(name) for name in sequences.names], lambda row, t: read(row["sequence"])[t]


def _frame(folder, row, t):
    return read_hole(folder / row["sequence"] / frame_name(int(t)))
