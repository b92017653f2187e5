"""Every setting of the mask generator and its default, in one place that imports nothing heavy.

`--help` and the Python functions read the same classes, so they cannot disagree.
"""

from dataclasses import dataclass

from maskgen.checks import Rule, expect, expect_fields, flag, number, one_of, pair, whole

SIZE = 512  # px, side of the paper's masks
BORDER = 50  # px, a mask whose holes all keep this distance from the image edge is "interior"
EDGES = (0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)  # hole-to-image ratios of Liu et al., ECCV 2018, section 4.1
RAW = "masks/raw"
TESTSET = "masks/testset"
RESULTS = "results"
SHAPES = ("square", "disc")  # of a brush
SIZES = whole(16, 4096)  # px, side of a mask that is made
SEEDS = whole(0)
RATIOS = Rule(
    lambda ratio: len(ratio) == 2 and 0 < ratio[0] < ratio[1] < 1,
    "(lowest, highest) with 0 < lowest < highest < 1",
)


@dataclass(frozen=True)
class ExtractConfig:
    """How masks are made from video. The paper's constants where it has them."""

    train: int = 55116  # masks, section 4.1 of the paper
    test: int = 24866  # masks, the same
    size: int = SIZE  # px, side of the square masks
    crops: int = 1  # squares along the long side of a wide frame
    gaps: tuple[int, ...] = (1,)  # frames between the two of a pair; 1 is the paper's "consecutive"
    flow: str = "dis"  # a name in maskgen.extraction.flow.FLOWS
    slope: float = 0.01  # Sundaram et al. 2010: |w + v|^2 > slope * (|w|^2 + |v|^2) + offset
    offset: float = 0.5  # px^2, the same
    motion_boundaries: bool = True  # joined in, as in the original generator
    boundary_slope: float = 0.01  # Sundaram et al. 2010: |grad u|^2 + |grad v|^2 > slope * |w|^2 + offset
    boundary_offset: float = 0.002  # px^2 per px^2, the same
    noise: float = 0.2  # times the variance (px^2) that noise gives the flow, added to both offsets; 0: as published
    min_area: int = 64  # px, smaller specks are removed
    min_ratio: float = 0.002  # hole pixels / all pixels, below it a mask is near-empty
    max_ratio: float = 0.5  # above it a mask is near-full: the flow has failed
    seed: int = 0  # draws which sources are for testing

    def __post_init__(self):
        bounds = dict.fromkeys(("slope", "offset", "boundary_slope", "boundary_offset", "noise"), number(0))
        expect_fields(self, **bounds, min_area=whole(0), seed=SEEDS)


@dataclass(frozen=True)
class AugmentConfig:
    """How one mask is made out of a raw one, in the words of the authors' page: dilation, translation, rotation, crop.

    Lengths are px of a 512 px mask and scale with the size that is asked for.
    """

    brush: tuple[int, int] = (9, 49)  # px, side of the brush that widens the hole, drawn uniformly
    shape: str = "square"  # the brush: "square" as NVIDIA's, or "disc"
    rotate: float = 180.0  # degrees, drawn from [-rotate, rotate]
    shift: float = 0.125  # share of the side, drawn from [-shift, shift] on both axes
    zoom: tuple[float, float] = (1.0, 1.5)  # drawn uniformly; 1.5 hides most corners that rotation turns in
    flip: bool = True  # mirror every second mask
    min_ratio: float = 0.01  # hole pixels / all pixels, below it a mask is drawn anew
    max_ratio: float = 0.6  # the same, above it
    attempts: int = 50  # draws before a raw mask is given up

    def __post_init__(self):
        expect_fields(
            self,
            brush=pair(1, 512, whole=True),
            shape=one_of(SHAPES),
            rotate=number(0, 180),
            shift=number(0, 1),
            zoom=pair(0, 16, above=True),
            flip=flag(),
            attempts=whole(1),
        )
        expect("ratio", (self.min_ratio, self.max_ratio), RATIOS)


PRESETS = {
    "nvidia": AugmentConfig(),  # "from 9 to 49 pixels dilation", the page of 2018
    "nvidia-old": AugmentConfig(brush=(5, 47)),  # "random dilation (5~47 pixels)", the older page
}


@dataclass(frozen=True)
class FillConfig:
    """What the test set holds and how its classes are filled. The paper's numbers where it has them."""

    per_category: int = 1000  # masks, section 4.1 of the paper
    size: int = SIZE  # px, side of the square masks
    preset: str = "nvidia"  # a name in PRESETS
    seed: int = 0
    layers: int = 32  # raw masks that one mask may be joined from
    shrink: float = 0.6  # smallest zoom of a raw mask that has to fit inside the 50 px line
    alike: float = 0.95  # correlation of two 32x32 thumbnails from which masks count as alike

    def __post_init__(self):
        expect_fields(
            self,
            per_category=whole(1),
            size=whole(448, 4096),  # of a smaller mask, less than 60 % lies inside the 50 px line
            preset=one_of(PRESETS),
            seed=SEEDS,
            layers=whole(1),
            shrink=number(0, 1, above=True),
            alike=number(0, 1, above=True),
        )


@dataclass(frozen=True)
class PublishConfig:
    """What the papers of a published mask set say. Nothing here changes a mask."""

    name: str = "irregular-masks-testset"
    title: str = "Irregular masks: 6x2 classes by hole ratio and border"
    creator: str = "irregular-masks contributors"
    url: str = ""  # where the set will be found
    licence: str = "CC-BY-4.0"  # SPDX name; the masks' own, beside the videos' that are credited
    version: str = "1.0.0"
    date: str = "2026-11-23"  # of publication; never "today", so that the same set gives the same bytes
    archives: tuple[str, ...] = ("webdataset", "parquet")  # beside the zip
