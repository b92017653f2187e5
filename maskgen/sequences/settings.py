"""Settings of mask sequences and their defaults; imports nothing heavy."""

from dataclasses import dataclass

from maskgen.checks import Rule, expect, expect_fields, one_of, pair, several, whole
from maskgen.errors import BadInput
from maskgen.settings import RATIOS, SEEDS

SEQUENCES = "masks/sequences"
INDEX = "sequences.csv"  # beside the folders `train` and `test`, whose only contents are folders of frames
MODES = ("stationary", "drifting", "tracked", "occlusion")
FROM_VIDEO = ("tracked", "occlusion")  # modes that need video
FROM_RAW = ("stationary", "drifting", "tracked")  # modes that start from raw masks
REFERENCE = (432, 240)  # px, width and height, as usual in video inpainting; speeds are stated at this size
MOTIONS = ("still", "slow", "fast")
MOTION_EDGES = (0.6, 3.0)  # px a frame at 432x240: still up to the first, slow up to the second, fast above
SIDES = whole(64, 2048)  # px; optical flow needs no less
FRAMES = whole(2, 10_000)
SPEEDS = pair(0, 1000, above=True)
SOME_MODES = Rule(
    lambda modes: several(one_of(MODES)).allows(modes) and len(set(modes)) == len(modes),
    f"one or more of {', '.join(MODES)}, each once",
)


@dataclass(frozen=True)
class SequenceConfig:
    """How many mask sequences are made, and how."""

    train: int = 2000  # sequences
    test: int = 600  # sequences, from other videos and raw masks
    frames: int = 32  # of each sequence
    size: tuple[int, int] = REFERENCE  # px, width and height
    modes: tuple[str, ...] = MODES  # in equal shares
    ratio: tuple[float, float] = (0.01, 0.6)  # hole pixels / all pixels, drawn uniformly, mean of a sequence
    speed: tuple[float, float] = (0.5, 8.0)  # px a frame at 432x240, of drifting masks, drawn log-uniformly
    flow: str = "dis"  # a name in maskgen.extraction.flow.FLOWS
    seed: int = 0

    def __post_init__(self):
        expect_fields(self, train=whole(0, 100_000), test=whole(0, 100_000), frames=FRAMES, seed=SEEDS)
        expect_fields(self, size=several(SIDES, 2, 2), modes=SOME_MODES, speed=SPEEDS)
        expect("ratio", self.ratio, RATIOS)
        if not self.train + self.test:
            raise BadInput("train and test: expected numbers of sequences, not both 0")
