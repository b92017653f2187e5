"""A pair of image and mask, and how its files become pixels."""

import hashlib
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from evaluation.settings import BenchmarkConfig, ReportConfig
from maskgen import maskset
from maskgen.errors import BadInput
from maskgen.runtime import images


@dataclass(frozen=True)
class Pair:
    """One image and the mask that is laid over it."""

    pair: str  # its name, "00000" onwards
    image: str  # path below the folder of images
    mask: str  # path below the folder of masks
    category: str
    hole_ratio: float  # of the mask file; at another --size the ratio in scores.csv differs a little
    border_distance: int
    image_sha256: str
    mask_sha256: str


@dataclass(frozen=True)
class Sources:
    """Where the files of the pairs lie, and how to read the masks."""

    images: Path
    masks: Path
    polarity: str = "hole-white"
    threshold: int | None = None  # as in maskgen.maskset.read_hole

    def absolute(self) -> "Sources":
        """The same, for a worker that is in another folder."""
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

    @property
    def description(self) -> str:
        """One line about the masks and photos."""
        photos = len({pair.image_sha256 for pair in self.pairs})
        return f"masks: {self.masks}; photos: {photos:,} of {self.names[0]}"


def read_bytes(path: Path, sha256: str = "") -> bytes:
    """The bytes of a file. Raises BadInput where it cannot be read, or is not the one whose hash is given."""
    data = images.read_bytes(path)
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise BadInput(
            f"{path} is not the file that its pair was made with, the SHA-256 differs: bring the old one back"
        )
    return data


def fit(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cut the largest centred rectangle of the size's shape and bring it to that size. uint8 (H, W, 3).

    Pixel areas are averaged when it shrinks, cubic splines are used when it grows; an image of the size is untouched.
    """
    height, width = image.shape[:2]
    if (height, width) == size:
        return image
    scale = min(height / size[0], width / size[1])
    tall, wide = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    top, left = (height - tall) // 2, (width - wide) // 2
    cut = image[top : top + tall, left : left + wide]
    return cv2.resize(cut, size[::-1], interpolation=cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC)


def load_pair(pair: Pair, sources: Sources, config: BenchmarkConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read (truth, image, hole): uint8 (H, W, 3), what a method sees of it, and bool (H, W), at the configured size.

    Masks are brought to the size by nearest neighbour. The image is black where pixels are missing. Raises BadInput
    where a file is unreadable or is not the one that the pair names.
    """
    truth = _truth(sources.images / pair.image, pair.image_sha256, config.size)
    if config.factor:
        return truth, *sparse(reduced(truth, config.factor), config.factor)
    mask = sources.masks / pair.mask
    data = read_bytes(mask, pair.mask_sha256)
    hole = maskset.decode(data, mask, polarity=sources.polarity, threshold=sources.threshold)
    if hole.shape != config.size:
        hole = cv2.resize(hole.astype(np.uint8), config.size[::-1], interpolation=cv2.INTER_NEAREST).astype(bool)
    return truth, cv2.copyTo(truth, (~hole).view(np.uint8)), hole


@lru_cache(maxsize=32)  # a few images often serve many masks
def _truth(path, sha256, size):
    truth = fit(images.decode_rgb(read_bytes(path, sha256), path), size)
    truth.flags.writeable = False
    return truth


def reduced(truth: np.ndarray, factor: int) -> np.ndarray:
    """The small image of super-resolution: every factor x factor block averaged. The sides are multiples of it."""
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
    """An image as JPEG for looking at. uint8 (H, W, 3)."""
    return images.encode(image, ".jpg", quality=quality)
