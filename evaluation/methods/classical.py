"""Classical inpainting methods, one function and one row of METHODS each.

A method is a function of (image, hole): uint8 (H, W, 3) RGB, black where pixels are missing, and bool (H, W), True
where pixels are missing. It returns uint8 (H, W, 3).
"""

from importlib.util import find_spec

import cv2
import numpy as np

from evaluation.methods.errors import Failed
from maskgen.errors import BadInput, install_hint
from maskgen.runtime.recipe import library_versions

PACKAGES = {"biharmonic": ("scikit-image", "scipy"), "patchmatch": ("pypatchmatch",)}  # all others use OpenCV


def mean(image, hole):
    """Every missing pixel takes the mean colour of the known pixels; grey if there are none."""
    return _filled(image, hole, image[~hole].mean(0) if not hole.all() else 127.5)


def grey(image, hole):
    """Every missing pixel is 128."""
    return _filled(image, hole, 128)


def telea(image, hole):
    """Fast marching (Telea 2004), radius 3, OpenCV."""
    return cv2.inpaint(image, hole.astype(np.uint8), 3, cv2.INPAINT_TELEA)


def ns(image, hole):
    """Navier-Stokes (Bertalmio et al. 2001), radius 3, OpenCV."""
    return cv2.inpaint(image, hole.astype(np.uint8), 3, cv2.INPAINT_NS)


def biharmonic(image, hole):
    """Biharmonic equation (Damelin & Hoang 2018), scikit-image; each connected hole is solved separately."""
    from skimage.restoration import inpaint_biharmonic

    filled = inpaint_biharmonic(image, hole, split_into_regions=True, channel_axis=-1)
    return (filled * 255).round().clip(0, 255).astype(np.uint8)


def patchmatch(image, hole):
    """PatchMatch (Barnes et al. 2009) by the package PyPatchMatch, patches of radius 3: 7 x 7 px."""
    from patchmatch import patch_match

    return patch_match.inpaint(image, hole.astype(np.uint8) * 255, patch_size=3)


def bicubic(image, hole):
    """Cubic enlargement of the small image of a super-resolution problem, OpenCV."""
    return cv2.resize(small_image(image, hole), hole.shape[::-1], interpolation=cv2.INTER_CUBIC)


METHODS = {
    "mean": mean,
    "grey": grey,
    "telea": telea,
    "ns": ns,
    "biharmonic": biharmonic,
    "patchmatch": patchmatch,
    "bicubic": bicubic,
}
PLAIN = ("mean", "grey", "telea", "ns", "bicubic")  # cannot hang or crash: they need no process of their own


def small_image(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The small image of a super-resolution problem: its known pixels, which form a regular lattice. uint8 (h, w, 3).

    Raises Failed where they do not, as in an inpainting problem.
    """
    rows, columns = np.flatnonzero(~hole.all(1)), np.flatnonzero(~hole.all(0))
    if len(rows) < 2 or len(columns) < 2 or hole[np.ix_(rows, columns)].any() or not hole.any():
        raise Failed("it enlarges images: it is a method of `evaluate superres`")
    return image[np.ix_(rows, columns)]


def load(name: str):
    """The function of a method. Raises BadInput where its package is missing."""
    if name == "patchmatch" and not find_spec("patchmatch"):
        raise BadInput(f"patchmatch is not installed: {install_hint('patchmatch')}")
    return METHODS[name]


def identity(name: str) -> dict:
    """The method and the version of the package that computes it, for recipe.json."""
    return {"method": name, **library_versions(*PACKAGES.get(name, ("opencv",)))}


def _filled(image, hole, colour):
    filled = image.copy()
    filled[hole] = np.round(colour)
    return filled
