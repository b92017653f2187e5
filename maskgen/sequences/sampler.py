"""Endless random mask sequences for a data loader. Imports neither torch nor pandas."""

from pathlib import Path

import numpy as np

from maskgen.canonical import raw_path
from maskgen.checks import Rule, expect, flag, optional, whole
from maskgen.errors import BadInput
from maskgen.maskset import Masks, split_of
from maskgen.sampler import EndlessSampler
from maskgen.sequences.moving import moving_holes
from maskgen.sequences.raw import RawMasks
from maskgen.sequences.settings import FRAMES, FROM_VIDEO, MODES, SPEEDS, SequenceConfig
from maskgen.settings import RATIOS, SEEDS, SIZES

WITHOUT_VIDEO = tuple(mode for mode in MODES if mode not in FROM_VIDEO)
SHAPES = Rule(
    lambda size: SIZES.allows(size) or (len(size) == 2 and all(map(SIZES.allows, size))),
    f"a side, or (height, width), each {SIZES.says}",
)
SOME_MODES = Rule(
    lambda modes: isinstance(modes, tuple | list) and len(modes) > 0 and set(modes) <= set(WITHOUT_VIDEO),
    f"one or more of {WITHOUT_VIDEO}",
)


class SequenceSampler(EndlessSampler):
    """Random mask sequences from raw masks: sampler[i] is always the same holes, bool (frames, height, width).

    Half of the sequences stand still; half drift along a smooth random path, turn and grow. `modes` selects one kind.

    masks: folder, zip or tar of raw masks; of a mask set the `train` part is used. Without it, the raw masks that come
    with the package are used. polarity, threshold: how the files are read, see `maskgen.read_hole`. size: px, (height,
    width), or the side of a square. ratio: (lowest, highest) hole ratio, mean of a sequence. uniform: draw the ratio
    uniformly from that range, and join raw masks to reach it; otherwise it results from the brush and one raw mask.
    speed: (lowest, highest) px a frame at 432x240, drawn log-uniformly; it grows with the frame's size.

    Each index has its own random generator, so worker processes never draw the same sequences. Each process caches the
    raw masks it has read, packed into about 3 KB each. The length is the number of raw masks, but indices have no end.
    Raises BadInput for settings that make no sense, and for masks that cannot be read.
    """

    def __init__(
        self,
        masks: Path | str | None = None,
        frames: int = SequenceConfig.frames,
        size: int | tuple[int, int] = SequenceConfig.size[::-1],
        ratio: tuple[float, float] = SequenceConfig.ratio,
        speed: tuple[float, float] = SequenceConfig.speed,
        seed: int = 0,
        *,
        modes: tuple[str, ...] = WITHOUT_VIDEO,
        uniform: bool = False,
        polarity: str = "hole-white",
        threshold: int | None = None,
    ):
        expect("frames", frames, FRAMES)
        expect("size", size, SHAPES)
        expect("ratio", ratio, RATIOS)
        expect("speed", speed, SPEEDS)
        expect("seed", seed, SEEDS)
        expect("modes", modes, SOME_MODES)
        expect("uniform", uniform, flag())
        expect("threshold", threshold, optional(whole(1, 255)))
        self.frames, self.shape = int(frames), (int(size),) * 2 if SIZES.allows(size) else tuple(map(int, size))
        self.ratio, self.speed, self.seed, self.modes, self.uniform = ratio, speed, int(seed), tuple(modes), uniform
        folder = split_of(raw_path(masks), "train")
        self.raw = RawMasks(Masks(folder, polarity=polarity, threshold=threshold, cache=True))

    def __len__(self) -> int:
        return len(self.raw)

    def sample(self, i: int) -> tuple[np.ndarray, dict]:
        """Sequence i and how it was made: `mode`, `raw` (names), `dilation` (px of 512), `path_speed` (px a frame)."""
        rng = np.random.default_rng([self.seed, i])
        mode = self.modes[int(rng.integers(len(self.modes)))]
        made = moving_holes(
            lambda: self.raw.draw(rng), mode, self.frames, self.shape, self.ratio, self.speed, rng, uniform=self.uniform
        )
        if made is None:
            raise BadInput(
                f"no sequence with a mean hole ratio from {self.ratio[0]:g} to {self.ratio[1]:g} could be made from "
                f"the raw masks in {self.raw.masks.path}: widen the range, use other raw masks, or the other polarity"
            )
        return made[0], {"mode": mode, **made[1]}
