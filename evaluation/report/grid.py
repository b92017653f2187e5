"""The picture grid: a row for each pair with its input, the result of each method and the true image."""

import cv2
import numpy as np

from evaluation.report.pictures import Pictures
from maskgen.runtime.images import decode_rgb

TILE, MARGIN, HEADER = 192, 150, 28  # px: side of a picture, width of the class names, height of the column names
GAP = 3  # px of white around each picture
FONT = cv2.FONT_HERSHEY_SIMPLEX, 0.5


def grid(pictures: Pictures, pairs: list[str]) -> np.ndarray:
    """Draw a row of pictures for each pair: input, results, truth. Returns uint8 (H, W, 3), RGB."""
    names = ["input", *pictures.methods, "truth"]
    rows = [_row(pictures, pair, names) for pair in pairs]
    rows = [_widened(row, max(other.shape[1] for other in rows), len(names)) for row in rows]
    header = np.full((HEADER, rows[0].shape[1], 3), 255, np.uint8)
    width = (rows[0].shape[1] - MARGIN) // len(names)
    for i, name in enumerate(names):
        _write(header, _shortened(name, width - 12), (MARGIN + i * width + 6, 20))
    return np.vstack([header, *rows])


def _row(pictures, pair, names):
    loaded = pictures.load(pair)
    size = decode_rgb(loaded["truth"], "a picture").shape[:2]
    tiles = [_tile(loaded.get(name) or pictures.missing(pair, name), size) for name in names]
    margin = np.full((tiles[0].shape[0], MARGIN, 3), 255, np.uint8)
    for i, line in enumerate(pictures.pairs[pair].category.split("_")):
        _write(margin, line, (8, margin.shape[0] // 2 + 20 * i))
    return np.hstack([margin, *tiles])


def _widened(row, width, count):
    """A row with its `count` tiles on white, so that it has a width. Rows of images of one size have it already."""
    side, missing = (row.shape[1] - MARGIN) // count, (width - row.shape[1]) // count
    if not missing:
        return row
    tiles = np.split(row[:, MARGIN:], range(side, side * count, side), axis=1)
    left = missing // 2
    white = ((0, 0), (left, missing - left), (0, 0))
    return np.hstack([row[:, :MARGIN], *(np.pad(tile, white, constant_values=255) for tile in tiles)])


def _tile(content, size):
    """A JPEG picture scaled to the tile size; or text on a grey tile. size: (height, width) of the pictures."""
    scale = TILE / max(size)
    height, width = (max(1, round(side * scale)) for side in size)
    if isinstance(content, str):
        tile = np.full((height, width, 3), 200, np.uint8)
        _write(tile, content, (8, height // 2))
    else:
        tile = cv2.resize(decode_rgb(content, "a picture"), (width, height), interpolation=cv2.INTER_AREA)
    return cv2.copyMakeBorder(tile, GAP, GAP, GAP, GAP, cv2.BORDER_CONSTANT, value=(255, 255, 255))


def _write(image, text, position):
    cv2.putText(image, text, position, *FONT, (40, 40, 40), 1, cv2.LINE_AA)


def _shortened(name, width):
    """A name, cut to fit a width in px."""
    shown = name
    while shown and cv2.getTextSize(shown, *FONT, 1)[0][0] > width:
        name = name[:-1]
        shown = f"{name}.."
    return shown
