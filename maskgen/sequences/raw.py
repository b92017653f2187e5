"""The raw masks that sequences are made from, and which of them serve which split."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maskgen.errors import BadInput
from maskgen.maskset import Masks, split_of


class RawMasks:
    """Random raw masks of one split. May be pickled; each process caches the masks that it has read."""

    def __init__(self, masks: Masks, numbers: Sequence[int] | None = None):
        self.masks = masks
        self.numbers = range(len(masks)) if numbers is None else numbers  # of the masks that are drawn

    def __len__(self):
        return len(self.numbers)

    def draw(self, rng: np.random.Generator) -> tuple[str, np.ndarray]:
        """The name and the hole, bool (H, W), of a random raw mask that is not empty. BadInput if there is none."""
        for _ in range(100):
            i = self.numbers[int(rng.integers(len(self.numbers)))]
            if (hole := self.masks[i]).any():
                return self.masks.names[i], hole
        raise BadInput(f"nearly all raw masks in {self.masks.path} are empty: use others")


def raw_masks_of(path: Path, wanted: dict[str, int]) -> dict[str, RawMasks]:
    """The raw masks of each split that is wanted. wanted: number of sequences by split.

    A mask set with the parts `train` and `test` is used part by part. Any other one, if both splits are wanted, is cut
    in two in natural order: the first masks are for training, the last for testing. Raises BadInput if it is too small.
    """
    if path.is_dir() and all((path / split).is_dir() for split in wanted):
        return {split: RawMasks(Masks(path / split, cache=True)) for split in wanted}
    masks = Masks(split_of(path, next(iter(wanted))), cache=True)
    if len(wanted) == 1:
        return {split: RawMasks(masks) for split in wanted}
    cut = _cut(masks.names, wanted["train"] / sum(wanted.values()))
    if not 0 < cut < len(masks):
        raise BadInput(f"only {len(masks)} raw mask in {path}: expected two or more, or --train 0 or --test 0")
    return {"train": RawMasks(masks, range(cut)), "test": RawMasks(masks, range(cut, len(masks)))}


def _cut(names, share):
    """Where to cut a list of names in two: between two folders if there are several, as each is mostly one video."""
    folders = [name.rpartition("/")[0] for name in names]
    cuts = [i for i in range(1, len(names)) if folders[i] != folders[i - 1]] or range(1, len(names))
    return min(cuts, key=lambda cut: abs(cut - share * len(names)), default=0)
