"""Overlapping tiles for images that are larger than the network should take at once."""

from collections.abc import Iterator

import numpy as np

OVERLAP = 128  # px, the most by which neighbouring tiles overlap


def tile_weights(length: int, tile: int, unit: int = 1) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the start of each tile along one side, and its blending weights, float32 (min(tile, length),).

    Weights are 1 inside a tile and at the edges of the image, and fall linearly where two tiles overlap. Where at most
    two tiles overlap, their weights add up to 1. length, tile: px. unit: px, of which every start is a multiple; so are
    length and tile.
    """
    step = tile - min(OVERLAP, tile // 4)
    count = max(1, -(-(length - tile) // step) + 1)
    starts = [round(i * (length - tile) / (count - 1)) // unit * unit if count > 1 else 0 for i in range(count)]
    for i, start in enumerate(starts):
        weights = np.ones(min(tile, length), np.float32)
        if i:
            shared = starts[i - 1] + tile - start
            weights[:shared] = (np.arange(shared) + 0.5) / shared
        if i + 1 < count:
            shared = start + tile - starts[i + 1]
            weights[-shared:] *= (np.arange(shared)[::-1] + 0.5) / shared
        yield start, weights
