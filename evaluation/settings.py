"""The settings of the benchmark and their defaults. Imports nothing heavy."""

from dataclasses import dataclass
from typing import Literal

from maskgen.settings import RESULTS, SIZE

OUT = RESULTS
PAIRS = "pairs"
BUILT_IN = "scikit-image"  # stands for the photos that scikit-image installs
NATIVE: Literal["native"] = "native"  # a size: images are neither cropped nor resized
Size = tuple[int, int] | Literal["native"]  # px, height and width
REFERENCE = "reference"  # stands for the 60 photos that ship with this package
FIRST = 10  # masks of each class of v1 that a run without --masks takes
TIMEOUT = 300.0  # s that a method may take for one image
METHODS = ("telea", "ns")  # default of --method
COPIES = ("one", "per-worker")  # of a program of serve:
METRICS = (  # the names in evaluation.metrics.table, for --help
    *("l1_image", "l1_hole", "psnr", "psnr_hole", "psnr_outside"),
    *("ssim", "ssim_hole", "ssim_outside", "ssim_padded", "ms_ssim"),
    *("lpips", "lpips_hole", "lpips_outside", "lpips_vgg", "iscore"),
    *("inception_score", "fid", "kid"),
)
LIKE = {  # default metrics of --like
    "lama": ("fid", "lpips_vgg", "ssim_padded"),
    "mmagic": ("l1_hole", "psnr", "ssim"),
}
RIVALS = (
    "gl",
    "gl+post",
    "gntipt",
    "srresnet",
    "srgan",
)  # networks of other authors; +post: blended
NETWORKS = ("pconv", "conv", "pconv+", "conv+", *RIVALS)  # methods with weights; +: all scales and the mirror image


@dataclass(frozen=True)
class BenchmarkConfig:
    """What a benchmark computes. Runs with different settings have different results."""

    metrics: tuple[str, ...] = ("l1_image", "l1_hole", "psnr", "ssim", "iscore")  # names in evaluation.metrics.table
    size: Size = (SIZE, SIZE)  # px, height and width of all images; NATIVE keeps the size of each
    per_class: int = 0  # masks drawn from each class; 0 takes all
    raw: bool = False  # score the method's own pixels everywhere, not the composited image
    seed: int = 0  # draws the pairs and the bootstrap samples
    factor: int = 0  # 0 inpaints; K > 1 enlarges images K times instead, section 5.2 of the paper

    @property
    def common_size(self) -> tuple[int, int] | None:
        """Height and width of all images in px, None if each keeps its own."""
        return None if self.size == NATIVE else self.size


@dataclass(frozen=True)
class ReportConfig:
    """How tables are made from scores."""

    resamples: int = 2000  # bootstrap samples of an interval
    confidence: float = 0.95  # of the intervals
    alpha: float = 0.05  # differences are significant below this p, after Holm's correction
    quality: int = 90  # JPEG quality of the pictures
    by: str = ""  # metric that picks the pairs in the report; empty takes the first
    overall: bool = False  # a column for all classes together


BATCH = 4  # images that a network fills together
TOGETHER = 4  # pairs of one image in a task: the image is read once, and a kill loses at most these
GROWTH = (0, 5, 15, 35, 55, 95)  # px, side of the brush that dilates a hole, figure 10 of the paper
FACTOR = 4  # K of the paper's super-resolution, section 5.2
LAYOUTS = ("folders", "lama")  # of exported pairs
KINDS = ("box", "free-form")  # of drawn holes
PROTOCOLS = (
    "places2",
    "imagenet",
    "celebahq",
    "paris",
    "reference",
)  # the names in evaluation.protocols, for --help; new ones come last
