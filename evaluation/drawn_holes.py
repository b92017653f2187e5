"""Holes that are drawn, not extracted from video: boxes and free-form strokes, for every class of the paper."""

import cv2
import numpy as np

from maskgen.errors import BadInput
from maskgen.settings import BORDER, SIZE

ATTEMPTS = 1000  # drawings of a class before an error is raised


def box(shape: tuple[int, int], ratio: float, margin: int, rng: np.random.Generator) -> np.ndarray:
    """One rectangle with about that hole ratio, sides 1:2 to 2:1, at least margin px from the border. bool (H, W)."""
    height, width = shape
    area, stretch = ratio * height * width, np.exp(rng.uniform(-np.log(2), np.log(2)))
    tall = int(np.clip(round(np.sqrt(area * stretch)), 1, height - 2 * margin))
    wide = int(np.clip(round(area / tall), 1, width - 2 * margin))
    top = rng.integers(margin, height - margin - tall, endpoint=True)
    left = rng.integers(margin, width - margin - wide, endpoint=True)
    hole = np.zeros(shape, bool)
    hole[top : top + tall, left : left + wide] = True
    return hole


def free_form(shape: tuple[int, int], ratio: float, margin: int, rng: np.random.Generator) -> np.ndarray:
    """Random strokes of random width until the hole ratio is reached. bool (H, W).

    After the free-form masks of Yu et al., ICCV 2019; the numbers are our own.
    """
    side = min(shape)
    low, high = np.array([margin, margin]), np.array(shape)[::-1] - margin - 1
    drawn, inside = np.zeros(shape, np.uint8), np.zeros(shape, bool)
    inside[margin : shape[0] - margin, margin : shape[1] - margin] = True
    while np.count_nonzero(drawn) < ratio * drawn.size:
        at, angle = rng.uniform(low, high + 1), rng.uniform(0, 2 * np.pi)
        thick = max(1, round(side * rng.uniform(0.02, 0.08)))
        for _ in range(rng.integers(1, 9)):
            angle += rng.uniform(-1.2, 1.2)
            to = np.clip(at + side * rng.uniform(0.04, 0.16) * np.array([np.cos(angle), np.sin(angle)]), low, high)
            start, end = (tuple(int(x) for x in point) for point in (at, to))
            cv2.line(drawn, start, end, 1, thick)
            drawn &= inside
            at = to
            if np.count_nonzero(drawn) >= ratio * drawn.size:
                break
    return drawn.astype(bool)


SHAPES = {"box": box, "free-form": free_form}


def draw(kind: str, category: str, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A hole of one of the paper's classes. bool (H, W). Raises BadInput where the class does not fit the shape."""
    side, interval = category.split("_")
    low, high = (float(edge) for edge in interval.split("-"))
    margin = round(BORDER * min(shape) / SIZE) if side == "interior" else 0
    for _ in range(ATTEMPTS):
        hole = SHAPES[kind](shape, rng.uniform(low, high), margin, rng)
        if low < np.count_nonzero(hole) / hole.size <= high:
            return hole
    raise BadInput(f"no {kind} hole of the class {category} fits {shape[0]} x {shape[1]} px: use another --size")
