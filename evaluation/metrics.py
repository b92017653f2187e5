"""How far a result is from the truth: one function and one row of METRICS for each metric.

Images are uint8 (H, W, 3), RGB. A function of a pair takes (result, truth, hole) with hole bool (H, W).
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from maskgen.errors import BadInput

PEAK = 255  # the range of the data


@dataclass(frozen=True)
class Metric:
    """A row of the table of metrics."""

    function: Callable  # (result, truth, hole) -> float
    unit: str
    better: str  # "lower" or "higher"
    digits: int  # after the point, in tables


def l1_image(result, truth, hole):
    """Mean absolute error over all pixels and channels, in percent of the range: `l1 (%)` of the paper's Table 1."""
    return 100 * cv2.norm(result, truth, cv2.NORM_L1) / (result.size * PEAK)


def l1_hole(result, truth, hole):
    """Mean absolute error over the missing pixels alone, in percent of the range. nan without any."""
    missing = 3 * np.count_nonzero(hole)
    if not missing:
        return np.nan
    return 100 * cv2.norm(result, truth, cv2.NORM_L1, hole.astype(np.uint8)) / (missing * PEAK)


def psnr(result, truth, hole):
    """Peak signal-to-noise ratio in dB over all pixels and channels; inf for equal images."""
    squares = cv2.norm(result, truth, cv2.NORM_L2SQR)
    return 10 * np.log10(PEAK**2 * result.size / squares) if squares else np.inf


def ssim(result, truth, hole):
    """Structural similarity of Wang et al. 2004, mean over RGB: Gaussian window 11x11 with sigma 1.5, data range 255.

    The same number as scikit-image's `structural_similarity(gaussian_weights=True, sigma=1.5, data_range=255,
    use_sample_covariance=False, channel_axis=2)`, which leaves out 5 px at the border; several times faster.
    """
    if min(result.shape[:2]) < 11:
        return np.nan
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    x, y = result.astype(np.float64), truth.astype(np.float64)
    mean_x, mean_y = _blur(x), _blur(y)
    product, squares = mean_x * mean_y, mean_x**2 + mean_y**2
    covariance, variances = _blur(x * y) - product, _blur(x * x + y * y) - squares
    likeness = (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))
    return float(likeness[5:-5, 5:-5].mean())


def _blur(x):
    return cv2.GaussianBlur(x, (11, 11), 1.5)


METRICS = {
    "l1_image": Metric(l1_image, "%", "lower", 2),
    "l1_hole": Metric(l1_hole, "%", "lower", 2),
    "psnr": Metric(psnr, "dB", "higher", 2),
    "ssim": Metric(ssim, "", "higher", 3),
}


def check(config) -> None:
    """Raise BadInput for a metric that does not exist."""
    for name in config.metrics:
        if name not in METRICS:
            raise BadInput(f"no metric {name!r}: expected some of {', '.join(METRICS)}")


def libraries(config) -> list[str]:
    """The packages behind the metrics, beyond those behind every run."""
    return []


def score(config, result: np.ndarray, truth: np.ndarray, hole: np.ndarray) -> dict[str, float]:
    """Every metric of a pair by its name."""
    return {name: float(METRICS[name].function(result, truth, hole)) for name in config.metrics}
