"""Endless random training masks for a data loader. Imports neither torch nor pandas."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from maskgen.augment import Wanted, augment, compose, compose_of_many
from maskgen.checks import expect, flag, one_of, optional, whole
from maskgen.errors import BadInput
from maskgen.maskset import Masks, split_of
from maskgen.settings import EDGES, PRESETS, RATIOS, SEEDS, SIZE, SIZES

DRAWS = 100  # raw masks that are tried for one index
MORE = 20  # draws beyond, by joining many raw masks or taking parts of them, for a ratio that must be reached
SOME = 16  # raw masks that are looked at to find out whether their polarity is what was said


class MaskSampler:
    """Random masks made of raw ones while a network trains: sampler[i] is the same hole whenever it is asked for.

    masks: folder, zip or tar of raw masks (of a mask set the `train` part). polarity and threshold: how their files
    are read, see `maskgen.maskset.read_hole`; NVIDIA's train archive has grey levels, and takes polarity="hole-black"
    and threshold=153, which is their 0.6 of 255.
    size: px, side of the masks. preset: a name in maskgen.settings.PRESETS; brushes are px of a 512 px mask and
    scale with the size. ratio: (lowest, highest) hole ratio. uniform: draw the ratio uniformly from that range, so
    that training sees all sizes alike; otherwise it is whatever the brush and the raw mask make of it.

    Every index has its own generator, so worker processes never draw alike, and each keeps its own small copy of
    what it has read. Length is the number of raw masks; the indices go on beyond it without end.
    """

    def __init__(
        self,
        masks: Path | str,
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
        self.config = replace(PRESETS[preset], min_ratio=ratio[0], max_ratio=ratio[1], attempts=4)
        self.size, self.seed, self.uniform = int(size), int(seed), uniform
        self.raw = Masks(split_of(Path(masks), "train"), polarity=polarity, threshold=threshold, keep=True)

    def __len__(self) -> int:
        return len(self.raw)

    def __getitem__(self, i: int) -> np.ndarray:
        """Hole i, bool (size, size), True where pixels are missing. i: 0 or more, also beyond the length."""
        if i < 0:
            raise IndexError(f"indices begin at 0 and never end, got {i}")
        return self.sample(i)[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        """All masks from index 0 on, without end."""
        i = 0
        while True:
            yield self[i]
            i += 1

    def sample(self, i: int) -> tuple[np.ndarray, dict]:
        """Hole i and how it was made: the raw mask's name, and the columns of an augmented mask set."""
        rng = np.random.default_rng([self.seed, i])
        # Drawn once: drawn anew with every raw mask, the ratios that few of them can reach would become rare.
        ratio = rng.uniform(self.config.min_ratio, self.config.max_ratio)
        for _ in range(DRAWS):
            made = self._grown(ratio, rng, compose) if self.uniform else self._as_it_comes(rng)
            if made:
                return made
        self._check_polarity()
        for k in range(MORE if self.uniform else 0):
            made = self._grown(ratio, rng, partial(compose_of_many, parts=k % 2 == 1))
            if made:
                return made
        raise BadInput(
            f"no mask with a hole ratio from {self.config.min_ratio:g} to {self.config.max_ratio:g} came out of "
            f"{DRAWS} raw masks of {self.raw.path}: widen the range, or take other raw masks"
        )

    def _check_polarity(self):
        """BadInput where most raw masks are nearly all hole: white means something else in them."""
        some = range(0, len(self.raw), -(-len(self.raw) // SOME))
        ratio = float(np.median([self.raw[j].mean() for j in some]))
        if ratio > EDGES[-1]:
            other = "hole-black" if self.raw.polarity == "hole-white" else "hole-white"
            raise BadInput(
                f"the holes of raw masks in {self.raw.path} fill {ratio:.0%} of the image, with polarity "
                f"{self.raw.polarity}: expected less than {EDGES[-1]:.0%}, so {other} may be meant"
            )

    def _as_it_comes(self, rng):
        j = int(rng.integers(len(self.raw)))
        try:
            hole, told = augment(self.raw[j], self.config, rng, self.size)
        except BadInput:  # this raw mask cannot do it, the next may
            return None
        return hole, {"raw": self.raw.names[j], **told}

    def _grown(self, ratio, rng, compose):
        used = {}

        def draw(layer):
            used[layer] = int(rng.integers(len(self.raw)))
            return self.raw[used[layer]]

        made = compose(draw, Wanted(round(ratio * self.size**2), self.size, layers=40), self.config, rng)
        if made is None:
            return None
        hole, told = made
        names = [self.raw.names[used[layer]] for layer, _ in told["layers"]]
        return hole, {"raw": ";".join(names), "dilation": told["dilation"]}
