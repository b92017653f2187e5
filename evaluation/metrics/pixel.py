"""Metrics computed from pixels alone: l1, PSNR, SSIM and MS-SSIM.

Each takes (result, truth, hole): uint8 (H, W, 3) RGB twice, and bool (H, W), True where pixels were missing.
"""

import cv2
import numpy as np

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
    squares = cv2.norm(result, truth, cv2.NORM_L2SQR)
    return 10 * np.log10(PEAK**2 * result.size / squares) if squares else np.inf


def ssim(result: np.ndarray, truth: np.ndarray, hole: np.ndarray) -> float:
    """Structural similarity of Wang et al. 2004, mean over RGB: Gaussian window 11 x 11, sigma 1.5, data range 255.

    Equal to scikit-image's `structural_similarity(gaussian_weights=True, sigma=1.5, data_range=255,
    use_sample_covariance=False, channel_axis=2)`, which leaves out 5 px at the border; several times faster.
    """
    luminance, contrast = _ssim_terms(result.astype(np.float64), truth.astype(np.float64))
    return float((luminance * contrast).mean())


def ms_ssim(result: np.ndarray, truth: np.ndarray, hole: np.ndarray) -> float:
    """Multi-scale SSIM of Wang, Simoncelli & Bovik 2003, mean over RGB, windows and constants as in `ssim`.

    Each of five scales halves the image by averaging 2 x 2 pixels. Negative terms count as 0.
    """
    x, y = result.astype(np.float64), truth.astype(np.float64)
    product = np.ones(3)
    for weight in SCALES:
        luminance, contrast = _ssim_terms(x, y)
        term = contrast if weight != SCALES[-1] else luminance * contrast
        product = product * np.clip(term.mean((0, 1)), 0, None) ** weight
        half = (x.shape[1] // 2, x.shape[0] // 2)
        x, y = (cv2.resize(z[: 2 * half[1], : 2 * half[0]], half, interpolation=cv2.INTER_AREA) for z in (x, y))
    return float(product.mean())


def _ssim_terms(x, y):
    """Luminance, and contrast times structure, wherever the window fits: (H - 10, W - 10, 3) each."""
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    mean_x, mean_y = _blur(x), _blur(y)
    product, squares = mean_x * mean_y, mean_x**2 + mean_y**2
    covariance, variances = _blur(x * y) - product, _blur(x * x + y * y) - squares
    luminance, contrast = (2 * product + c1) / (squares + c1), (2 * covariance + c2) / (variances + c2)
    return luminance[5:-5, 5:-5], contrast[5:-5, 5:-5]


def _blur(x):
    return cv2.GaussianBlur(x, (11, 11), 1.5)
