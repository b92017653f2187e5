"""One mask with an exact number of hole pixels, dilated from one raw mask or from several joined."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from maskgen.augment.dilation import UNREACHED, dilate_to, distance_levels, radius_for
from maskgen.augment.placement import base_scale, fitted_placement, random_placement
from maskgen.settings import SIZE, AugmentConfig

CROWDED = 0.7  # share of the allowed pixels above which a hole keeps islands of valid pixels
SPARE = 100  # px of a 512 px mask, how much further inside than needed a raw mask may be cut, where there is room
MANY = 8  # times as many raw masks are joined where the usual number does not suffice
ISLAND_DRAWS = 8  # raw masks that are tried for the islands


@dataclass(frozen=True)
class Target:
    """What a composed mask must be."""

    area: int  # hole pixels
    size: int = SIZE  # px, side
    border: int = 0  # px, distance of holes from the image edges; 0: any
    layers: int = 1  # raw masks that may be joined
    min_zoom: float = 1.0  # of a raw mask that has to fit inside the border


def compose(
    draw: Callable[[int], np.ndarray], target: Target, config: AugmentConfig, rng: np.random.Generator
) -> tuple[np.ndarray, dict] | None:
    """Dilate a raw mask to a hole of exactly target.area pixels; join several raw masks where one is too small.

    draw(layer): returns the raw hole for that layer, bool (H, W). The brush stays within config.brush. With a border,
    raw holes are shrunk to fit, or cut so far inside that the dilation ends before the border line: outlines are those
    of the brush, not of the line.

    Returns the hole, bool (size, size), and a dict of `dilation` (px of a 512 px mask) and `layers`, a list of
    (layer, Placement). None if this draw fails and another must be tried.
    """
    unit = target.size / SIZE
    lowest, highest = config.brush[0] / 2 * unit, config.brush[1] / 2 * unit
    share = target.area / (target.size - 2 * target.border) ** 2
    if target.border:
        highest = (lowest + highest) / 2  # a large brush needs a wide margin to end before the line
    # As with random brushes, larger holes get larger brushes on average; small ones are left to the raw mask.
    limit = rng.uniform(lowest + min(0.5, share / 2) * (highest - lowest), highest)
    inner = slice(target.border, target.size - target.border)
    islands = _islands(draw, target, config, rng) if share > CROWDED else None
    nearest = np.full((target.size, target.size), UNREACHED, np.uint8)
    layers = []
    for layer in range(target.layers):
        raw = draw(layer)
        if target.border:
            room = (target.size - 2 * target.border - 2 * limit) / unit
            # Shrinking keeps contours whole, but makes all of them small; so every second raw mask is cut instead.
            shrinks = bool(rng.integers(2))
            placement = (
                fitted_placement(raw, room, target.min_zoom, config, rng)
                if shrinks
                else random_placement(raw.shape, config, rng)
            )
            margins = _margins(limit, placement.angle, share, target, config, rng)
        else:
            placement, margins = random_placement(raw.shape, config, rng), None
        joined = np.minimum(nearest, distance_levels(raw, placement, target.size, config.shape, limit, margins))
        if islands is not None:
            joined[islands] = UNREACHED
        joined_radius = radius_for(joined[inner, inner], target.area)
        if joined_radius < lowest:
            if layer == 0:
                return None  # this raw mask alone is too large
            continue  # the two together are too large: leave this one out
        nearest, radius = joined, joined_radius
        layers.append((layer, placement))
        if radius <= limit:
            break
    # Raw masks that do not suffice may be dilated further, by the whole brush, and are then cut at the border line.
    if not layers or radius > config.brush[1] / 2 * unit:
        return None
    nearest[~_allowed(target)] = UNREACHED
    return dilate_to(nearest, target.area, rng), {"dilation": f"{2 * radius / unit:.1f}", "layers": layers}


def compose_from_many(
    draw: Callable[[int], np.ndarray],
    target: Target,
    config: AugmentConfig,
    rng: np.random.Generator,
    *,
    parts: bool,
) -> tuple[np.ndarray, dict] | None:
    """`compose` for raw masks that are too few, too small or too large for it. Returns the same.

    Joins up to MANY times as many raw masks, each shifted by up to half the side and enlarged up to twice as much.
    parts: use parts of raw masks instead, of about the size of the target.
    """
    share = rng.uniform(0.5, 1.5)

    def draw_part(layer):
        raw = draw(layer)
        if not parts:
            return raw
        side = share * np.sqrt(target.area) / (base_scale(raw.shape) * target.size / SIZE)
        return random_part(raw, max(1, round(side)), rng)

    zoom = config.zoom if parts else (config.zoom[0], 2 * config.zoom[1])
    return compose(draw_part, replace(target, layers=MANY * target.layers), replace(config, shift=0.5, zoom=zoom), rng)


def random_part(hole: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """A part of a raw hole that is too large as a whole. bool (H, W) -> bool (H, W).

    The 8-connected components that lie entirely in a square of `side` px around a random hole pixel, with contours as
    they were. If there is none, the hole pixels in the square.
    """
    pixels = np.flatnonzero(hole)
    if not pixels.size:
        return hole
    y, x = divmod(int(pixels[rng.integers(pixels.size)]), hole.shape[1])
    square = np.zeros_like(hole)
    square[max(0, y - side // 2) : y + side // 2 + 1, max(0, x - side // 2) : x + side // 2 + 1] = True
    inside = hole & square
    number, labels = cv2.connectedComponents(hole.view(np.uint8), connectivity=8)
    is_cut = np.zeros(number, bool)
    is_cut[labels[hole & ~square]] = True
    whole = inside & ~is_cut[labels]
    return whole if whole.any() else inside


def _margins(limit, angle, share, target, config, rng):
    """Px from each edge of the mask to the lines at which a raw mask is cut, so that `limit` px of dilation fit."""
    turn = np.deg2rad(angle)
    corner = abs(np.cos(turn)) + abs(np.sin(turn)) if config.shape == "square" else 1  # half a rotated square brush
    # Where there is room, each raw mask is cut at lines of its own, or all would end along one square.
    spare = rng.uniform(0, SPARE * target.size / SIZE * (1 - share), 4)
    return target.border + limit * corner + 1 + spare


def _islands(draw, target, config, rng):
    """Pixels that stay valid in a hole that fills nearly all its room: another dilated raw mask. bool, or None.

    Without them such a hole would be one blot, since dilation closes the gaps inside before it reaches the edge.
    """
    allowed = _allowed(target)
    area = int((np.count_nonzero(allowed) - target.area) * rng.uniform(0.05, 0.35))
    widest = (config.brush[0] + config.brush[1]) / 4 * target.size / SIZE
    for _ in range(ISLAND_DRAWS):
        raw = draw(target.layers)
        levels = distance_levels(raw, random_placement(raw.shape, config, rng), target.size, config.shape, widest)
        levels[~allowed] = UNREACHED
        if 0 < radius_for(levels, area) <= widest:
            return dilate_to(levels, area, rng)
    return None


def _allowed(target):
    """Where holes may lie. bool (size, size)."""
    allowed = np.zeros((target.size, target.size), bool)
    inner = slice(target.border, target.size - target.border)
    allowed[inner, inner] = True
    return allowed
