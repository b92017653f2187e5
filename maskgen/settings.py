"""All settings of the mask generator and their defaults; imports nothing heavy.

`--help` and the Python functions use the same classes.
"""

from dataclasses import dataclass

from maskgen.checks import Rule, expect, expect_fields, flag, number, one_of, pair, whole

SIZE = 512  # px, side of the paper's masks
BORDER = 50  # px, a mask is "interior" if all its holes are at least this far from the image edge
EDGES = (0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)  # hole-to-image ratios of Liu et al., ECCV 2018, section 4.1
RAW = "masks/raw"
TESTSET = "masks/testset"
RESULTS = "results"
GET = {  # what `maskgen get` writes -> its default folder
    "testset": TESTSET,
    "raw": RAW,
    "nvidia-order": "masks/nvidia-order",
    "webdataset": "masks/webdataset",
    "parquet": "masks/parquet",
    "sequences": "masks/sequences",
}
LEAVING = ("keep", "drop")  # what happens to the pixels that leave the frame
SHAPES = ("square", "disc")  # of the brush that dilates a hole
SIZES = whole(16, 4096)  # px, side of generated masks
SEEDS = whole(0)
RATIOS = Rule(
    lambda ratio: len(ratio) == 2 and 0 < ratio[0] < ratio[1] < 1,
    "(lowest, highest) with 0 < lowest < highest < 1",
)


@dataclass(frozen=True)
class ExtractConfig:
    """How masks are extracted from video. The constants are the paper's where it states them."""

    train: int = 55116  # masks, section 4.1 of the paper
    test: int = 24866  # masks, the same
    size: int = SIZE  # px, side of the square masks
    crops: int = 1  # squares along the long side of a wide frame
    gaps: tuple[int, ...] = (1,)  # distance of the two frames of a pair; 1: consecutive, as in the paper
    flow: str = "dis"  # a name in maskgen.extraction.flow.FLOWS
    slope: float = 0.01  # Sundaram et al. 2010: |w + v|^2 > slope * (|w|^2 + |v|^2) + offset
    offset: float = 0.5  # px^2, the same
    leaving: str = "keep"  # or "drop": holes without the pixels that the flow leads out of the frame
    motion_boundaries: bool = True  # added to the hole, as in the original generator
    boundary_slope: float = 0.01  # Sundaram et al. 2010: |grad u|^2 + |grad v|^2 > slope * |w|^2 + offset
    boundary_offset: float = 0.002  # px^2 per px^2, the same
    noise: float = 0.2  # factor of the flow's noise variance (px^2) that is added to both offsets; 0: as published
    min_area: int = 64  # px, smaller components are removed
    min_ratio: float = 0.002  # hole pixels / all pixels; a mask below is near-empty and dropped
    max_ratio: float = 0.5  # a mask above is near-full, as where the flow failed, and dropped
    max_share: float = 1.0  # largest share of a split's masks from one source or group
    seed: int = 0  # decides which videos are for testing

    def __post_init__(self):
        bounds = dict.fromkeys(("slope", "offset", "boundary_slope", "boundary_offset", "noise"), number(0))
        expect_fields(
            self, **bounds, leaving=one_of(LEAVING), min_area=whole(0), max_share=number(0, 1, above=True), seed=SEEDS
        )


@dataclass(frozen=True)
class AugmentConfig:
    """How a raw mask is augmented: dilation, translation, rotation, cropping, as on the authors' page.

    Lengths are in px of a 512 px mask and scale with the size of the result.
    """

    brush: tuple[int, int] = (9, 49)  # px, side of the dilation brush, drawn uniformly
    shape: str = "square"  # of the brush: "square", as NVIDIA's, or "disc"
    rotate: float = 180.0  # degrees, drawn from [-rotate, rotate]
    shift: float = 0.125  # fraction of the side, drawn from [-shift, shift] for each axis
    zoom: tuple[float, float] = (1.0, 1.5)  # drawn uniformly; 1.5 crops most of the corners that rotation leaves empty
    flip: bool = True  # mirror half of the masks
    min_ratio: float = 0.01  # hole pixels / all pixels; below it a mask is drawn again
    max_ratio: float = 0.6  # the same, above it
    attempts: int = 50  # draws before a raw mask is skipped

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
    """The test set and how its classes are filled. The numbers are the paper's where it states them."""

    per_category: int = 1000  # masks, section 4.1 of the paper
    size: int = SIZE  # px, side of the square masks
    preset: str = "nvidia"  # a name in PRESETS
    seed: int = 0
    layers: int = 32  # raw masks that may be combined into one mask
    shrink: float = 0.6  # smallest zoom of a raw mask that has to keep 50 px from the edge
    alike: float = 0.95  # correlation of two 32x32 thumbnails above which masks are near-duplicates

    def __post_init__(self):
        expect_fields(
            self,
            per_category=whole(1),
            size=whole(448, 4096),  # a smaller mask has less than 60 % of its area 50 px from the edge
            preset=one_of(PRESETS),
            seed=SEEDS,
            layers=whole(1),
            shrink=number(0, 1, above=True),
            alike=number(0, 1, above=True),
        )


@dataclass(frozen=True)
class PublishConfig:
    """The metadata of a published mask set. Nothing here changes a mask."""

    name: str = "irregular-masks-testset"
    title: str = "Irregular masks: 6x2 classes by hole ratio and border"
    creator: str = "irregular-masks contributors"
    url: str = ""  # of the published set
    licence: str = "CC-BY-4.0"  # SPDX name, of the masks; the videos keep their own
    version: str = "1.0.0"
    date: str = "2026-11-23"  # of publication; not today's, so that the same set gives the same bytes
    archives: tuple[str, ...] = ("webdataset", "parquet")  # in addition to the zip
