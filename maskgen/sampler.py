"""Endless random training masks for a data loader. Imports neither torch nor pandas."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np

from maskgen import canonical
from maskgen.augment import augment
from maskgen.augment.composition import Target, compose, compose_from_many
from maskgen.checks import expect, flag, one_of, optional, whole
from maskgen.errors import BadInput
from maskgen.maskset import Masks, split_of
from maskgen.settings import EDGES, PRESETS, RATIOS, SEEDS, SIZE, SIZES

DRAWS = 100  # draws of raw masks for one index
EXTRA_DRAWS = 20  # further draws with `uniform`, which join many raw masks or use parts of them
ATTEMPTS = 4  # random masks made from one raw mask before another is drawn
LAYERS = 40  # raw masks that may be joined with `uniform`
POLARITY_SAMPLE = 16  # raw masks that are measured to check their polarity


class EndlessSampler(ABC):
    """Holes by index, without end: sampler[i] is the first value of `sample(i)`, which a subclass defines."""

    def __getitem__(self, i: int) -> np.ndarray:
        """Hole i, True where pixels are missing. i: 0 or more, also beyond the length."""
        if i < 0:
            raise IndexError(f"expected an index of 0 or more, got {i}")
        return self.sample(i)[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        """All holes from index 0 on, without end."""
        return map(self.__getitem__, count())

    @abstractmethod
    def sample(self, i: int) -> tuple[np.ndarray, dict]:
        """Hole i and how it was made."""


class MaskSampler(EndlessSampler):
    """Random training masks from raw masks: sampler[i] is always the same hole, bool (size, size).

    masks: folder, zip or tar of raw masks; of a mask set the `train` part is used. Without it, the raw masks that come
    with the package are used. polarity, threshold: how the files are read, see `maskgen.maskset.read_hole`; NVIDIA's
    train archive has grey levels and needs polarity="hole-black" and threshold=153, which is their 0.6 of 255. size:
    px, side of the masks. preset: a name in `maskgen.settings.PRESETS`; its brushes are px of a 512 px mask and scale
    with the size. ratio: (lowest, highest) hole ratio. uniform: draw the ratio uniformly from that range; otherwise it
    results from the brush and the raw mask.

    Each index has its own random generator, so worker processes never draw the same masks. Each process caches the raw
    masks it has read, packed into about 3 KB each. The length n is the number of raw masks, but indices have no end:
    those from e * n to (e + 1) * n - 1 are the masks of epoch e, which `epoch` returns as a data set of their own.
    Raises BadInput for settings that make no sense, and for masks that cannot be read.

    A data set of images takes other masks in each epoch if the epoch is part of the index. This also works with
    `persistent_workers=True`, which keep the data set as it was at the start:

        class Holes(torch.utils.data.Dataset):
            def __init__(self, images):
                self.images, self.masks = images, MaskSampler(size=256)

            def __len__(self):
                return len(self.images)

            def __getitem__(self, i):  # i grows from epoch to epoch
                return self.images[i % len(self.images)], self.masks[i]

        class Epochs(torch.utils.data.DistributedSampler):  # Lightning and accelerate call its set_epoch
            def __iter__(self):
                return (i + self.epoch * len(self.dataset) for i in super().__iter__())

        data = Holes(images)
        indices = Epochs(data, num_replicas=1, rank=0)  # without these two where torch.distributed is initialised
        loader = DataLoader(data, batch_size=8, sampler=indices, num_workers=2, persistent_workers=True)
        for epoch in range(100):
            indices.set_epoch(epoch)
            for image, hole in loader:
                ...
    """

    def __init__(
        self,
        masks: Path | str | None = None,
        size: int = SIZE,
        preset: str = "nvidia",
        ratio: tuple[float, float] = (0.01, 0.6),
        seed: int = 0,
        *,
        uniform: bool = False,
        polarity: str = "hole-white",
        threshold: int | None = None,
    ):
        expect("preset", preset, one_of(PRESETS))
        expect("ratio", ratio, RATIOS)
        expect("size", size, SIZES)
        expect("seed", seed, SEEDS)
        expect("uniform", uniform, flag())
        expect("threshold", threshold, optional(whole(1, 255)))
        self.config = replace(PRESETS[preset], min_ratio=ratio[0], max_ratio=ratio[1], attempts=ATTEMPTS)
        self.size, self.seed, self.uniform = int(size), int(seed), uniform
        folder = split_of(canonical.raw_path(masks), "train")
        self.raw = Masks(folder, polarity=polarity, threshold=threshold, cache=True)

    def __len__(self) -> int:
        return len(self.raw)

    def epoch(self, number: int) -> "Epoch":
        """The masks of an epoch, 0 or more, as a data set with the length of the sampler: other masks in each epoch.

        A `DataLoader` with such a data set is made anew for each epoch. See above for one with persistent workers.
        """
        expect("epoch", number, whole(0))
        return Epoch(self, int(number))

    def sample(self, i: int) -> tuple[np.ndarray, dict]:
        """Hole i and how it was made, as columns of an index: `raw`, the raw mask's name, and the augmentation."""
        rng = np.random.default_rng([self.seed, i])
        # Drawn once: with a new ratio for each raw mask, ratios that few of them can reach would become rare.
        ratio = rng.uniform(self.config.min_ratio, self.config.max_ratio)
        for _ in range(DRAWS):
            made = self._composed(ratio, rng, compose) if self.uniform else self._augmented(rng)
            if made:
                return made
        self._check_polarity()
        for k in range(EXTRA_DRAWS if self.uniform else 0):
            made = self._composed(ratio, rng, partial(compose_from_many, parts=k % 2 == 1))
            if made:
                return made
        raise BadInput(
            f"no mask with a hole ratio from {self.config.min_ratio:g} to {self.config.max_ratio:g} in {DRAWS} draws "
            f"of raw masks from {self.raw.path}: widen the range, or use other raw masks"
        )

    def _check_polarity(self):
        """Raise BadInput if most raw masks are nearly all hole: their polarity is probably the other one."""
        numbers = range(0, len(self.raw), -(-len(self.raw) // POLARITY_SAMPLE))
        ratio = float(np.median([self.raw[j].mean() for j in numbers]))
        if ratio > EDGES[-1]:
            other = "hole-black" if self.raw.polarity == "hole-white" else "hole-white"
            raise BadInput(
                f"with polarity {self.raw.polarity}, holes fill {ratio:.0%} of the raw masks in {self.raw.path}: "
                f"expected {EDGES[-1]:.0%} or less, so try polarity {other}"
            )

    def _augmented(self, rng):
        """A random mask from one raw mask, with its columns; None if that fails."""
        j = int(rng.integers(len(self.raw)))
        try:
            hole, columns = augment(self.raw[j], self.config, rng, self.size)
        except BadInput:  # another raw mask may succeed
            return None
        return hole, {"raw": self.raw.names[j], **columns}

    def _composed(self, ratio, rng, compose):
        """A mask of a given ratio from one raw mask or several, with its columns; None if that fails."""
        drawn = {}

        def draw(layer):
            drawn[layer] = int(rng.integers(len(self.raw)))
            return self.raw[drawn[layer]]

        made = compose(draw, Target(round(ratio * self.size**2), self.size, layers=LAYERS), self.config, rng)
        if made is None:
            return None
        hole, composition = made
        names = [self.raw.names[drawn[layer]] for layer, _ in composition["layers"]]
        return hole, {"raw": ";".join(names), "dilation": composition["dilation"]}


class Epoch:
    """The masks of one epoch of a `MaskSampler` with n raw masks: epoch[i] is sampler[i + number * n], 0 <= i < n."""

    def __init__(self, sampler: MaskSampler, number: int):
        self.sampler, self.number = sampler, number

    def __len__(self) -> int:
        return len(self.sampler)

    def __getitem__(self, i: int) -> np.ndarray:
        """Hole i of the epoch, bool (size, size); a negative i counts from the end."""
        n = len(self)
        if not -n <= i < n:
            raise IndexError(f"expected an index below {n}, got {i}")
        return self.sampler[self.number * n + i % n]

    def __iter__(self) -> Iterator[np.ndarray]:
        """The holes of the epoch."""
        return (self[i] for i in range(len(self)))
