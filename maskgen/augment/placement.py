"""Where a raw mask lies in a new one: flip, rotation, zoom and shift, drawn at random."""

from dataclasses import dataclass

import cv2
import numpy as np

from maskgen.settings import SIZE, AugmentConfig


@dataclass(frozen=True)
class Placement:
    """Where a raw mask lies in the new one."""

    flip: bool  # mirrored left to right, before the rotation
    angle: float  # degrees, counter-clockwise
    zoom: float  # 2 shows everything twice as large
    x: float  # px of the raw mask, the column that is moved to the centre
    y: float  # px of the raw mask, the row that is moved to the centre

    def matrix(self, size: int, scale: float) -> np.ndarray:
        """Affine map from the new mask's (x, y, 1) to the raw mask's (x, y). float64 (2, 3).

        size: px, side of the new mask. scale: px of the new mask per px of the raw mask.
        """
        cos, sin = np.cos(np.deg2rad(self.angle)) / scale, np.sin(np.deg2rad(self.angle)) / scale
        rotation = np.array([[cos, -sin], [sin, cos]])
        if self.flip:
            rotation[0] *= -1
        middle = (size - 1) / 2
        return np.column_stack([rotation, np.array([self.x, self.y]) - rotation @ (middle, middle)])

    def columns(self) -> dict:
        """The placement as columns of an index."""
        return {
            "rotation": f"{self.angle:.2f}",
            "zoom": f"{self.zoom:.3f}",
            "flip": int(self.flip),
            "centre": f"{self.x:.1f} {self.y:.1f}",
        }


def base_scale(shape: tuple[int, int]) -> float:
    """Px of a 512 px mask per px of a raw mask, before any zoom.

    1 for raw masks of 512 px or more, which are cropped. Smaller ones are enlarged until their short side has 512 px.
    """
    return max(1.0, SIZE / min(shape))


def random_placement(shape: tuple[int, int], config: AugmentConfig, rng: np.random.Generator) -> Placement:
    """Draw flip, angle, zoom and the centre of the crop. shape: (height, width) of the raw mask.

    The crop may lie anywhere in the raw mask, and beyond it by up to config.shift of the side.
    """
    flip = config.flip and bool(rng.integers(2))
    angle, zoom = rng.uniform(-config.rotate, config.rotate), rng.uniform(*config.zoom)
    scale = base_scale(shape)
    centre = [
        (length - 1) / 2 + rng.uniform(-1, 1) * (max(0, length * scale - SIZE) / 2 + config.shift * SIZE) / scale
        for length in (shape[1], shape[0])
    ]
    return Placement(flip, float(angle), float(zoom), *map(float, centre))


def fitted_placement(
    hole: np.ndarray, room: float, min_zoom: float, config: AugmentConfig, rng: np.random.Generator
) -> Placement:
    """Draw a placement that fits the whole raw hole, bool (H, W), into a centred square of `room` px of 512.

    The zoom is at least `min_zoom`: a hole that is too large even then extends beyond the square.
    """
    x, y, width, height = cv2.boundingRect(hole.view(np.uint8))
    scale = base_scale(hole.shape)
    flip = config.flip and bool(rng.integers(2))
    angle = float(rng.uniform(-config.rotate, config.rotate))
    cos, sin = abs(np.cos(np.deg2rad(angle))), abs(np.sin(np.deg2rad(angle)))
    wide, high = (width * cos + height * sin) * scale, (width * sin + height * cos) * scale  # the rotated box
    longest = max(wide, high, 1e-9)  # an empty hole has 0
    zoom = float(np.clip(room / longest * rng.uniform(0.8, 1), min_zoom, config.zoom[1]))
    # Shift the box of the hole within the square, or the square within a larger box. The beta distribution prefers
    # the sides, since several masks joined would otherwise pile up in the middle.
    across = (rng.beta(0.5, 0.5) - 0.5) * (room / zoom - wide) / scale
    down = (rng.beta(0.5, 0.5) - 0.5) * (room / zoom - high) / scale
    dx, dy = Placement(flip, angle, zoom, 0, 0).matrix(1, 1.0)[:, :2] @ (across, down)
    return Placement(flip, angle, zoom, float(x + (width - 1) / 2 - dx), float(y + (height - 1) / 2 - dy))


def crop_to_hole(hole: np.ndarray, margin: int) -> tuple[np.ndarray, int, int]:
    """The bounding box of a hole and `margin` px around it, uint8, with the column and row of its corner."""
    x, y, width, height = cv2.boundingRect(hole.view(np.uint8))
    part = np.zeros((height + 2 * margin, width + 2 * margin), np.uint8)
    part[margin : margin + height, margin : margin + width] = hole[y : y + height, x : x + width]
    return part, x - margin, y - margin


def place(
    part: np.ndarray, left: int, top: int, placement: Placement, size: int, scale: float, outside: int
) -> np.ndarray:
    """Draw a part of a raw mask in the new one, uint8 (H, W) -> uint8 (size, size).

    left, top: px, where the part lies in the raw mask. scale: px of the new mask per px of the raw mask. outside: the
    value of pixels beyond the part.
    """
    matrix = placement.matrix(size, scale) - [[0, 0, left], [0, 0, top]]
    # Nearest neighbour keeps a mask binary, without a threshold.
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(part, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=outside)
