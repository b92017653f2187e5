"""Metrics computed from pixels alone: l1, PSNR, SSIM and MS-SSIM.

Each takes (result, truth, hole): uint8 (H, W, 3) RGB twice, and bool (H, W), True where pixels were missing. H and W
are any size from the metric's smallest on. Metrics of a part of the image are nan if it has no such pixel.
"""

import cv2
import numpy as np

from evaluation.metrics.reuse import reused

PEAK = 255  # the range of the data
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # weights of the five scales of MS-SSIM, Wang et al. 2003


def l1_image(result: np.ndarray, truth: np.ndarray, hole: np.ndarray) -> float:
    """Mean absolute error over all pixels and channels, in percent of the range: `l1 (%)` of the paper's Table 1."""
    return 100 * cv2.norm(result, truth, cv2.NORM_L1) / (result.size * PEAK)


def l1_hole(result: np.ndarray, truth: np.ndarray, hole: np.ndarray) -> float:
    """Mean absolute error over the missing pixels only, in percent of the range; nan if none is missing."""
    missing = 3 * np.count_nonzero(hole)
    if not missing:
        return np.nan
    return 100 * cv2.norm(result, truth, cv2.NORM_L1, hole.astype(np.uint8)) / (missing * PEAK)


def psnr(result: np.ndarray, truth: np.ndarray, hole: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels; inf for equal images."""
    return _psnr(cv2.norm(result, truth, cv2.NORM_L2SQR), result.size)


def psnr_hole(result: np.ndarray, truth: np.ndarray, hole: np.ndarray) -> float:
    """PSNR in dB over the missing pixels only: 10 log10(255^2 / their mean squared error); inf if they are equal."""
    return _psnr_of_part(result, truth, hole)


def psnr_outside(result: np.ndarray, truth: np.ndarray, hole: np.ndarray) -> float:
    """PSNR in dB over the pixels outside the hole: how well a method keeps what it was given, in raw results."""
    return _psnr_of_part(result, truth, ~hole)


def _psnr_of_part(result, truth, part):
    count = 3 * np.count_nonzero(part)
    return _psnr(cv2.norm(result, truth, cv2.NORM_L2SQR, part.astype(np.uint8)), count) if count else np.nan


def _psnr(squares, count):
    return 10 * np.log10(PEAK**2 * count / squares) if squares else np.inf


def ssim(result: np.ndarray, truth: np.ndarray, hole: np.ndarray) -> float:
    """Structural similarity of Wang et al. 2004, mean over RGB: Gaussian window 11 x 11, sigma 1.5, data range 255.

    Equal to scikit-image's `structural_similarity(gaussian_weights=True, sigma=1.5, data_range=255,
    use_sample_covariance=False, channel_axis=2)`, which leaves out 5 px at the border; several times faster.
    """
    return float(_ssim_map(result, truth).mean())


def ssim_hole(result: np.ndarray, truth: np.ndarray, hole: np.ndarray) -> float:
    """Mean of the map whose mean is `ssim`, over the missing pixels; nan if all are within 5 px of the border.

    The value of a pixel is that of the window around it, so the rim of the hole counts with its surroundings.
    """
    return _mean(_ssim_map(result, truth), hole[5:-5, 5:-5])


def ssim_outside(result: np.ndarray, truth: np.ndarray, hole: np.ndarray) -> float:
    """Mean of the map whose mean is `ssim`, over the pixels outside the hole, for raw results."""
    return _mean(_ssim_map(result, truth), ~hole[5:-5, 5:-5])


def ssim_padded(result: np.ndarray, truth: np.ndarray, hole: np.ndarray) -> float:
    """`ssim` with zeros beyond the border, and the border in the mean: the SSIM of LaMa's evaluator."""
    x, y = _floats(result, truth)
    luminance, contrast = _ssim_terms(x, y, cv2.BORDER_CONSTANT)
    return float((luminance * contrast).mean())


def _mean(values, where):
    return float(values[where].mean()) if where.any() else np.nan


def ms_ssim(result: np.ndarray, truth: np.ndarray, hole: np.ndarray) -> float:
    """Multi-scale SSIM of Wang, Simoncelli & Bovik 2003, mean over RGB, windows and constants as in `ssim`.

    Each of five scales halves the image by averaging 2 x 2 pixels. Negative terms count as 0.
    """
    x, y = _floats(result, truth)
    product = np.ones(3)
    for weight in SCALES:
        luminance, contrast = _inner_ssim_terms(x, y)
        term = contrast if weight != SCALES[-1] else luminance * contrast
        product = product * np.clip(term.mean((0, 1)), 0, None) ** weight
        half = (x.shape[1] // 2, x.shape[0] // 2)
        x, y = (cv2.resize(z[: 2 * half[1], : 2 * half[0]], half, interpolation=cv2.INTER_AREA) for z in (x, y))
    return float(product.mean())


def _ssim_map(result, truth):
    """The map whose mean is `ssim`: float64 (H - 10, W - 10, 3)."""
    return reused("SSIM map", lambda x, y: np.multiply(*_inner_ssim_terms(*_floats(x, y))), result, truth)


def _floats(result, truth):
    return result.astype(np.float64), truth.astype(np.float64)


def _inner_ssim_terms(x, y):
    """`_ssim_terms` wherever the window fits: (H - 10, W - 10, 3) each."""
    return [term[5:-5, 5:-5] for term in _ssim_terms(x, y)]


def _ssim_terms(x, y, border=cv2.BORDER_DEFAULT):
    """Luminance, and contrast times structure: (H, W, 3) each. border: OpenCV's name of what is beyond the image."""
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2

    def blur(x):
        return cv2.GaussianBlur(x, (11, 11), 1.5, borderType=border)

    mean_x, mean_y = blur(x), blur(y)
    product, squares = mean_x * mean_y, mean_x**2 + mean_y**2
    covariance, variances = blur(x * y) - product, blur(x * x + y * y) - squares
    return (2 * product + c1) / (squares + c1), (2 * covariance + c2) / (variances + c2)
