"""One random mask from one raw mask, by NVIDIA's recipe: dilate, flip, rotate, shift, zoom, crop."""

import cv2
import numpy as np

from maskgen.augment.dilation import dilate
from maskgen.augment.placement import base_scale, crop_to_hole, place, random_placement
from maskgen.errors import BadInput
from maskgen.settings import SIZE, AugmentConfig


def augment(
    hole: np.ndarray, config: AugmentConfig, rng: np.random.Generator, size: int = SIZE
) -> tuple[np.ndarray, dict]:
    """Make one random mask from a raw hole, bool (H, W). Returns the new hole, bool (size, size), and its columns.

    The columns of an index say how the mask was made: `dilation` (px of a 512 px mask), `rotation`, `zoom`, `flip`,
    `centre`. Pixels from outside the raw mask are valid. Draws again until the hole ratio lies in
    [config.min_ratio, config.max_ratio]. Raises BadInput after config.attempts draws, and for an empty hole.
    """
    if not hole.any():
        raise BadInput("expected a raw mask with at least one hole pixel, got an empty one: remove the file")
    enlargement = base_scale(hole.shape)
    for _ in range(config.attempts):
        placement = random_placement(hole.shape, config, rng)
        side = int(rng.integers(*config.brush, endpoint=True))
        # The brush is given in px of the result, and the zoom will magnify it.
        raw_side = max(1, round(side / (placement.zoom * enlargement)))
        part, left, top = crop_to_hole(hole, raw_side // 2 + 1)
        dilated = dilate(part, raw_side, config.shape)
        placed = place(dilated, left, top, placement, size, placement.zoom * enlargement * size / SIZE, 0)
        if config.min_ratio <= cv2.countNonZero(placed) / placed.size <= config.max_ratio:
            return placed.view(bool), {"dilation": side, **placement.columns()}
    raise BadInput(
        f"no mask with a hole ratio from {config.min_ratio:g} to {config.max_ratio:g} in {config.attempts} draws "
        f"from a raw mask with the ratio {hole.mean():.4f}: widen the range, or the brush {config.brush}"
    )
