"""A pair of image and mask, and how its files are read."""

from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from evaluation import masks as mask_files
from evaluation.settings import BenchmarkConfig, ReportConfig, Size
from maskgen import maskset
from maskgen.errors import BadInput
from maskgen.runtime import images


@dataclass(frozen=True)
class Pair:
    """One image and its mask."""

    pair: str  # its name, "00000" onwards
    image: str  # path below the folder of images
    mask: str  # path below the folder of masks, or in their archive
    category: str
    hole_ratio: float  # of the mask file; at another size the ratio in scores.csv differs slightly
    border_distance: int
    image_sha256: str
    mask_sha256: str


@dataclass(frozen=True)
class Sources:
    """The folders of the pairs' files, and how to read the masks, which may be in a zip or tar."""

    images: Path
    masks: Path
    polarity: str = "hole-white"
    threshold: int | None = None  # as in maskgen.maskset.read_hole

    def absolute(self) -> "Sources":
        """The same sources with absolute paths, for workers in another folder."""
        return replace(self, images=self.images.absolute(), masks=self.masks.absolute())


@dataclass(frozen=True)
class PairSet:
    """The pairs of a run, where their files are, and what messages and recipe.json say of them."""

    pairs: list[Pair]
    sources: Sources
    names: tuple[str, str]  # of the images and the masks, in recipe.json
    masks: str  # how many masks of what, in words
    files: dict[str, bytes] = field(default_factory=dict)  # to be written below the results: masks that were drawn
    experiment: dict | None = None  # its name as `made_by`, and its settings
    size: Size | None = None  # of the images, where the pairs decide it
    factor: int = 0  # of super-resolution, as in BenchmarkConfig
    called: dict[str, tuple[str, str]] | None = None  # pair -> mask and image, after which results may be called
    by_name: bool = False  # the pairs were found by name, or listed by hand

    @property
    def description(self) -> str:
        """One line about the masks and photos."""
        photos = len({pair.image_sha256 for pair in self.pairs})
        return f"masks: {self.masks}; photos: {photos:,} of {self.names[0]}"


def fit(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Crop the largest centred rectangle with the size's aspect ratio and resize it to the size. uint8 (H, W, 3).

    Pixel areas are averaged to shrink and cubic splines are used to enlarge; an image of the size is returned as it is.
    """
    height, width = image.shape[:2]
    if (height, width) == size:
        return image
    scale = min(height / size[0], width / size[1])
    tall, wide = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    top, left = (height - tall) // 2, (width - wide) // 2
    cut = image[top : top + tall, left : left + wide]
    return cv2.resize(cut, size[::-1], interpolation=cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC)


def fit_hole(hole: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a hole by nearest neighbour to (height, width). bool (H, W); one of that size is returned as it is."""
    if hole.shape == size:
        return hole
    return cv2.resize(hole.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST).astype(bool)


def load_pair(pair: Pair, sources: Sources, config: BenchmarkConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read (truth, image, hole) at the configured size: uint8 (H, W, 3) twice, and bool (H, W).

    The image is the truth with black where pixels are missing. Masks of another size are resized by nearest neighbour.
    At native size, images for super-resolution lose the rows and columns that are no multiple of the factor, at the
    bottom and the right. Raises BadInput where a file cannot be read or is not the one that the pair names.
    """
    if config.common_size is None:
        truth = _native_truth(sources.images / pair.image, pair.image_sha256, config.factor)
    else:
        truth = _truth(sources.images / pair.image, pair.image_sha256, config.common_size)
    if config.factor:
        return truth, *sparse(reduced(truth, config.factor), config.factor)
    data = mask_files.read(sources.masks, pair.mask, pair.mask_sha256)
    hole = maskset.decode(data, sources.masks / pair.mask, polarity=sources.polarity, threshold=sources.threshold)
    hole = fit_hole(hole, truth.shape[:2])
    return truth, cv2.copyTo(truth, (~hole).view(np.uint8)), hole


@lru_cache(maxsize=32)  # often many masks share a few images
def _truth(path, sha256, size):
    truth = fit(images.decode_rgb(images.read_bytes(path, sha256), path), size)
    truth.flags.writeable = False
    return truth


@lru_cache(maxsize=2)  # images may be large
def _native_truth(path, sha256, factor):
    truth = images.decode_rgb(images.read_bytes(path, sha256), path)
    if factor:
        height, width = (side - side % factor for side in truth.shape[:2])
        if not height or not width:
            raise BadInput(f"{path} is {truth.shape[0]} x {truth.shape[1]} px: expected at least {factor} px a side")
        truth = np.ascontiguousarray(truth[:height, :width])
    truth.flags.writeable = False
    return truth


def reduced(truth: np.ndarray, factor: int) -> np.ndarray:
    """The small image of a super-resolution problem: the mean of every factor x factor block of pixels."""
    height, width = truth.shape[:2]
    return cv2.resize(truth, (width // factor, height // factor), interpolation=cv2.INTER_AREA)


def sparse(small: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Spread a small image over one factor times as large, as in section 5.2 of the paper: (image, hole).

    Pixel (x, y) goes to (factor * x + factor // 2, factor * y + factor // 2); all others are missing.
    """
    height, width = small.shape[:2]
    image = np.zeros((factor * height, factor * width, 3), np.uint8)
    hole = np.ones(image.shape[:2], bool)
    known = slice(factor // 2, None, factor)
    image[known, known], hole[known, known] = small, False
    return image, hole


def jpeg(image: np.ndarray, quality: int = ReportConfig.quality) -> bytes:
    """The bytes of a JPEG file for display. image: uint8 (H, W, 3)."""
    return images.encode(image, ".jpg", quality=quality)
