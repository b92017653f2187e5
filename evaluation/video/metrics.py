"""The metrics of videos: those of single images, frame by frame, and `warp_error`."""

from collections.abc import Iterable

import numpy as np

from evaluation.metrics.table import METRICS, Metric, use_one_thread
from evaluation.metrics.table import check as check_images
from evaluation.metrics.table import identity as identity_of_images
from evaluation.video.settings import WARP_ERROR
from evaluation.video.warping import warp_error
from maskgen.errors import BadInput
from maskgen.runtime.recipe import library_versions

WINDOW = 65  # px, side of the window of `ssim_65`


def ssim_65(result: np.ndarray, truth: np.ndarray, hole: np.ndarray) -> float:
    """SSIM with a uniform window of 65 x 65 px, as the evaluators of STTN, E2FGVI and ProPainter compute it."""
    from skimage.metrics import structural_similarity

    return float(structural_similarity(result, truth, data_range=255, channel_axis=2, win_size=WINDOW))


FRAME = {name: row for name, row in METRICS.items() if not row.outside} | {  # of one frame: (result, truth, hole)
    "ssim_65": Metric(ssim_65, "", "higher", 3, ("scikit-image",), WINDOW)
}
ALL = {**FRAME, WARP_ERROR: Metric(warp_error, "x 1000", "lower", 3)}


def check(names: Iterable[str], size: tuple[int, int] | None = None) -> None:
    """Raise BadInput for a metric that does not exist, is named twice, or lacks a package.

    size: px, height and width of the smallest frames; BadInput for a metric that cannot score them.
    """
    names = list(names)
    if not names:
        raise BadInput(f"no metric is named: expected some of {', '.join(ALL)}")
    for name in names:
        if name not in ALL:
            raise BadInput(f"no metric {name!r} for videos: expected some of {', '.join(ALL)}")
        if names.count(name) > 1:
            raise BadInput(f"the metric {name} is given twice: name each metric once")
        if size and min(size) < ALL[name].smallest:
            raise BadInput(
                f"{name} needs at least {ALL[name].smallest} px, the frames are {size[1]}x{size[0]}: use a larger "
                "--size, or leave it out"
            )
    check_images(name for name in names if name in METRICS)


def score(names: Iterable[str], result: np.ndarray, truth: np.ndarray, hole: np.ndarray) -> dict[str, float]:
    """The metrics of one frame by name: uint8 (H, W, 3) twice, bool (H, W)."""
    use_one_thread()
    return {name: float(FRAME[name].function(result, truth, hole)) for name in names if name in FRAME}


def identity(names: Iterable[str]) -> dict[str, str]:
    """All that decides the scores, for recipe.json: versions of packages, SHA-256 of the networks' weights."""
    own = [name for name in names if name not in METRICS]
    found = identity_of_images(name for name in names if name in METRICS)
    return found | library_versions(*(package for name in own for package in ALL[name].needs))
