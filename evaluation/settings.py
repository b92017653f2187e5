"""Every setting of the benchmark and its default, in one place that imports nothing heavy."""

from dataclasses import dataclass

from maskgen.settings import RESULTS, SIZE

OUT = RESULTS
PAIRS = "pairs"
BUILT_IN = "scikit-image"  # in place of a folder of images: the photos that are installed with scikit-image
BUILT_IN_MASKS = "irregular-masks"  # in place of a folder of masks: those that ship with this package
TIMEOUT = 300.0  # s that a method may take for one image
METHODS = ("telea", "ns")  # of a run that names none
METRICS = (  # the names in evaluation.metrics, for --help
    *("l1_image", "l1_hole", "psnr", "ssim", "ms_ssim", "lpips", "lpips_vgg", "iscore"),
    *("inception_score", "fid", "kid"),
)
RIVALS = (
    "gl",
    "gl+post",
    "gntipt",
    "srresnet",
    "srgan",
)  # others' networks; +post: blended
NETWORKS = ("pconv", "conv", "pconv+", "conv+", *RIVALS)  # methods that take weights; +: at all scales and mirrored


@dataclass(frozen=True)
class BenchmarkConfig:
    """What a benchmark computes. Two runs that differ here are two different results."""

    metrics: tuple[str, ...] = ("l1_image", "l1_hole", "psnr", "ssim")  # names in evaluation.metrics
    size: tuple[int, int] = (SIZE, SIZE)  # px, height and width at which everything is scored
    per_class: int = 0  # masks drawn of each class; 0 takes all
    raw: bool = False  # score the method's own pixels everywhere, not its hole set into the true image
    seed: int = 0  # draws the pairs and the bootstrap's samples
    factor: int = 0  # 0 inpaints; K > 1 enlarges images K times instead, section 5.2 of the paper


@dataclass(frozen=True)
class ReportConfig:
    """How scores become tables."""

    resamples: int = 2000  # bootstrap samples behind an interval
    confidence: float = 0.95  # of the intervals
    alpha: float = 0.05  # a difference counts as real below this p, after Holm's correction
    quality: int = 90  # JPEG quality of the pictures that are kept
    by: str = ""  # the metric that picks the pairs shown; empty takes the first


BATCH = 4  # images that go through a network together
TOGETHER = 4  # pairs of one image that a worker takes at once: it is read once, and a kill loses no more
GROWTH = (0, 5, 15, 35, 55, 95)  # px, side of the brush that widens a hole, figure 10 of the paper
FACTOR = 4  # K of the paper's super-resolution, section 5.2
LAYOUTS = ("folders", "lama")  # of exported pairs
KINDS = ("box", "free-form")  # holes that are drawn and not made from video
