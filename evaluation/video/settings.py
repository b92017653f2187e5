"""Settings of `evaluate video` and their defaults. Imports nothing heavy."""

from dataclasses import dataclass

from evaluation import settings
from maskgen.checks import Rule, expect_fields, optional, several, whole
from maskgen.settings import SEEDS

OUT = f"{settings.OUT}-video"
VIDEOS = "videos"
WARP_ERROR = "warp_error"
METRICS = (  # the names in evaluation.video.metrics, for --help
    *("psnr", "ssim", WARP_ERROR),
    *("psnr_hole", "ssim_hole", "ssim_65", "ssim_padded", "ms_ssim", "l1_image", "l1_hole"),
    *("lpips", "lpips_hole", "lpips_vgg", "iscore"),
)
SIDES = whole(16, 8192)  # px
FRAMES = Rule(lambda count: count == 0 or whole(2).allows(count), "2 or more, or 0 for all")
FLOW = "dis"  # of the warping error, a name in maskgen.extraction.flow.FLOWS


@dataclass(frozen=True)
class VideoConfig:
    """What is scored. Runs with different settings have different results."""

    metrics: tuple[str, ...] = ("psnr", "ssim", WARP_ERROR)
    size: tuple[int, int] | None = None  # px, height and width; None takes that of each mask sequence
    frames: int = 0  # of each pair, the first masks of its sequence; 0 takes all
    per_class: int = 0  # mask sequences of each class, the first ones; 0 takes all
    seed: int = 0  # draws the pairs and the bootstrap samples

    def __post_init__(self):
        expect_fields(self, size=optional(several(SIDES, 2, 2)), frames=FRAMES, per_class=whole(0), seed=SEEDS)
