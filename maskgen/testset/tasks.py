"""What each mask of the test set has to be: its class, its hole ratio and the raw mask it starts from."""

from dataclasses import dataclass

import numpy as np

from maskgen.categories import CATEGORIES
from maskgen.settings import EDGES, FillConfig

INTERVALS = len(EDGES) - 1
DISORDER = 0.5  # standard deviation of the log of the factor by which ratios are shuffled before the pairing by size


@dataclass(frozen=True)
class MaskTask:
    """One mask to be made."""

    category: int  # place in CATEGORIES
    number: int  # within the class
    ratio: float  # hole pixels / all pixels
    rank: int  # place of the raw mask to start from, in the order of hole size
    attempt: int = 0  # how often this mask has been a near-duplicate of another

    @property
    def file_name(self) -> str:
        return f"{CATEGORIES[self.category]}/{self.number:05d}.png"

    @property
    def is_interior(self) -> bool:
        return self.category < INTERVALS


def mask_tasks(config: FillConfig, raw_masks: int) -> list[MaskTask]:
    """One task for each mask: ratios evenly over each class, raw masks evenly over all masks.

    raw_masks: their number. Each interval is cut into as many steps as there are masks, and one ratio is drawn from
    each. Masks and raw masks are then paired by size, with some disorder: each raw mask starts the same number of
    masks, give or take one, and small raw masks do not have to become large holes.
    """
    number = config.per_category
    pixels = config.size**2
    ratios = np.empty((len(CATEGORIES), number))
    for c in range(len(CATEGORIES)):
        rng = np.random.default_rng([config.seed, c])
        low, high = EDGES[c % INTERVALS], EDGES[c % INTERVALS + 1]
        areas = np.floor((high - (high - low) * (np.arange(number) + rng.uniform(0, 1, number)) / number) * pixels)
        ratios[c] = rng.permutation(np.clip(areas, np.floor(low * pixels) + 1, np.floor(high * pixels)) / pixels)
    rng = np.random.default_rng([config.seed, len(CATEGORIES)])
    total = ratios.size
    ranks_by_size = np.sort(np.concatenate([rng.permutation(raw_masks) for _ in range(-(-total // raw_masks))])[:total])
    order = np.argsort(ratios.ravel() * np.exp(rng.normal(0, DISORDER, total)), kind="stable")
    ranks = np.empty(total, int)
    ranks[order] = ranks_by_size
    return [
        MaskTask(c, k, float(ratios[c, k]), int(ranks[c * number + k]))
        for c in range(len(CATEGORIES))
        for k in range(number)
    ]
