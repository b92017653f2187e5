"""Random masks as Pillow pictures of any size, for training code that works with pictures."""

import math
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from maskgen import canonical
from maskgen.augment.any_shape import augment_to_shape, with_area
from maskgen.checks import expect, optional, whole
from maskgen.errors import BadInput
from maskgen.maskset import Masks
from maskgen.settings import PRESETS, RATIOS, SEEDS

if TYPE_CHECKING:
    from PIL.Image import Image

SIDES = whole(1, 16384)  # px
DRAWS = 20  # random masks, after which the best one is widened or narrowed


def random_mask(
    width: int, height: int, *, seed: int | None = None, ratio: tuple[float, float] = (0.01, 0.6)
) -> "Image":
    """Draw a random irregular mask as a Pillow picture of mode "L": 255 where pixels are missing, else 0.

    width, height: px, 1 to 16384. seed: the same seed and size give the same mask; None draws a new one. ratio:
    (lowest, highest) hole ratio of the mask. The raw masks that come with the package are dilated, rotated, zoomed and
    cropped as `MaskSampler` does; brushes scale with the size. If that does not give a hole ratio in the range, a hole
    is widened or narrowed to one.

    White is the hole, as diffusers, kohya's trainers and LaMa expect. Raises BadInput for settings that make no sense,
    and for a mask so small that no whole number of pixels has a ratio in the range.
    """
    expect("width", width, SIDES)
    expect("height", height, SIDES)
    expect("seed", seed, optional(SEEDS))
    expect("ratio", ratio, RATIOS)
    from PIL import Image

    hole = _random_hole((int(height), int(width)), ratio, np.random.default_rng(seed))
    return Image.fromarray(hole.view(np.uint8) * np.uint8(255))


def _random_hole(shape, ratio, rng):
    """A random hole of some height and width whose ratio is in the range. bool."""
    pixels = shape[0] * shape[1]
    lowest, highest = math.ceil(ratio[0] * pixels), math.floor(ratio[1] * pixels)
    if lowest > highest:
        raise BadInput(
            f"no hole in {shape[1]}x{shape[0]} px has a ratio from {ratio[0]:g} to {ratio[1]:g}: "
            "widen the range, or take a larger mask"
        )
    raw, config = _raw_masks(), replace(PRESETS["nvidia"], min_ratio=ratio[0], max_ratio=ratio[1])
    best, least = None, pixels
    for _ in range(DRAWS):
        hole = augment_to_shape(raw[int(rng.integers(len(raw)))], shape, config, rng)
        area = np.count_nonzero(hole)
        excess = max(lowest - area, area - highest)
        if excess <= 0:
            return hole
        if best is None or excess < least:
            best, least = hole, excess
    return with_area(best, int(rng.integers(lowest, highest, endpoint=True)), rng)


@cache
def _raw_masks():
    """The packaged raw masks; those that were read stay in memory, packed."""
    return Masks(canonical.RAW, cache=True)
