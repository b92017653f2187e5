"""Training and validation samples from folders of photos and a sampler of masks. Sample i is always the same."""

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path

import cv2
import numpy as np
import torch

from maskgen.errors import BadInput
from maskgen.runtime import images
from maskgen.runtime.files import sha256
from maskgen.runtime.parallel import cores
from maskgen.settings import SIZE
from pconv_model.settings import TrainConfig
from pconv_model.superres import spread

DEFAULTS = TrainConfig()
MIN_RATIO, MAX_RATIO = 0.003, 0.8  # hole ratio of a window of a mask
WINDOW_ATTEMPTS = 20
VALIDATION_OFFSET = 10**9  # first index of the validation masks; no training run gets that far


def read_names(path: Path) -> frozenset[str]:
    """Read a list of photos, one name or relative path a line. Raises BadInput if it is not a text file."""
    try:
        return frozenset(line.strip() for line in path.read_text().splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read as a list of names: expected one photo a line ({error})") from None


def split(folders: list[Path], *, exclude=frozenset(), config: TrainConfig = DEFAULTS) -> tuple[list[Path], list[Path]]:
    """Divide the photos of folder trees into those to train on and those of the validation set.

    The first rule that applies decides which photos are held out: those named in `exclude`; those in a top folder
    `val*`, as in ImageNet and Places2 (`test*` is then ignored); a random fraction `config.hold_out`, which for
    CelebA-HQ gives 27,000 and 3,000. With a fraction of 0 the validation set is drawn from the training photos.
    Raises BadInput if no training photo is left.
    """
    found = [(folder, path) for folder in folders for path in images.find(folder)]
    photos = [path for _, path in found]
    tops = [path.relative_to(folder).parts[0].lower() for folder, path in found]
    rng = np.random.default_rng([config.seed, 0])
    if exclude:
        held_out = [p.name in exclude or p.relative_to(f).as_posix() in exclude for f, p in found]
        training = [not out for out in held_out]
    elif any(top.startswith("val") for top in tops):
        held_out = [top.startswith("val") for top in tops]
        training = [not top.startswith(("val", "test")) for top in tops]
    else:
        drawn = set(rng.permutation(len(photos))[: round(config.hold_out * len(photos))].tolist())
        held_out = [i in drawn for i in range(len(photos))]
        training = [not out for out in held_out]
    kept = [photo for photo, use in zip(photos, training, strict=True) if use]
    if not kept:
        raise BadInput(f"no photo is left to train on, of {len(photos)} found: hold out fewer")
    pool = [photo for photo, out in zip(photos, held_out, strict=True) if out] or kept
    chosen = rng.permutation(len(pool))[: config.validation]
    return kept, [pool[i] for i in sorted(chosen.tolist())]


def draw_probabilities(photos: list[Path], photo_weights) -> np.ndarray:
    """How often each photo is drawn: float64 (N,), sum 1.

    photo_weights: pairs (pattern, factor); the pattern is matched against the end of the whole path. A photo that
    matches several patterns gets the product of their factors. Raises BadInput for a pattern that matches no photo, and
    where all photos get 0.
    """
    weights = np.ones(len(photos))
    for pattern, factor in photo_weights:
        matches = [fnmatch(photo.as_posix(), f"*{pattern}") for photo in photos]
        if not any(matches):
            raise BadInput(f"photo_weights: the pattern {pattern!r} matches none of {len(photos)} photos")
        weights[matches] *= factor
    if not weights.sum():
        raise BadInput("photo_weights gives every photo the weight 0: leave some patterns out")
    return weights / weights.sum()


class TrainingSamples:
    """Endless training samples: a random crop of a random photo, and hole i of the sampler.

    sampler: [i] returns a hole, bool (h, h), for any i >= 0; not used where config.factor is above 1. cache: bytes of
    memory for decoded photos, reduced to twice the largest crop size; the other photos are decoded each time.
    """

    def __init__(self, photos: list[Path], sampler, config: TrainConfig, *, cache: int = 4 * 2**30):
        self.photos, self.sampler, self.config = photos, sampler, config
        self.cumulative = draw_probabilities(photos, config.photo_weights).cumsum()
        self.short_side = 2 * max(config.size)  # px, of cached photos
        if config.factor > 1:  # the smallest crop keeps the sharpness of its photo
            self.short_side = round(max(config.size) / config.scale[0])
        self.free_bytes, self.cached = cache, {}

    def __call__(self, i: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Sample i: RGB image, uint8 (size, size, 3), and hole, bool (size, size)."""
        rng = np.random.default_rng([self.config.seed, 1, i])
        photo = self._photo(min(int(np.searchsorted(self.cumulative, rng.random(), "right")), len(self.photos) - 1))
        short = min(photo.shape[:2])
        low, high = (share * short for share in self.config.scale)
        # A crop is never enlarged where the photo is large enough.
        side = round(rng.uniform(max(low, min(size, high)), high))
        top, left = (int(rng.integers(0, length - side, endpoint=True)) for length in photo.shape[:2])
        crop = resize_square(photo[top : top + side, left : left + side], size)
        if rng.random() < 0.5 and self.config.flip:
            crop = np.ascontiguousarray(crop[:, ::-1])
        crop = jitter_colour(crop, self.config.colour, rng)
        if self.config.grey and rng.random() < self.config.grey:
            crop = cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        if self.config.factor > 1:
            return superres_sample(crop, self.config.factor)
        return crop, resize_hole(random_window(self.sampler[i], self.config.mask_scale, rng), size)

    def _photo(self, number):
        if number in self.cached:
            return self.cached[number]
        photo = read_rgb(self.photos[number], self.short_side)
        if photo.nbytes <= self.free_bytes:  # two threads may both pass here, which costs one photo of memory
            self.free_bytes -= photo.nbytes
            self.cached[number] = photo
        return photo


class ValidationSamples:
    """Validation samples: the largest centred square of photo i, and hole VALIDATION_OFFSET + i. Never augmented."""

    def __init__(self, photos: list[Path], sampler, factor: int = 1):
        self.photos, self.sampler, self.factor = photos, sampler, factor

    def __call__(self, i: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Sample i < len(photos): RGB image, uint8 (size, size, 3), and hole, bool (size, size)."""
        photo = read_rgb(self.photos[i], size)
        side = min(photo.shape[:2])
        top, left = ((length - side) // 2 for length in photo.shape[:2])
        square = resize_square(photo[top : top + side, left : left + side], size)
        if self.factor > 1:
            return superres_sample(square, self.factor)
        return square, resize_hole(self.sampler[VALIDATION_OFFSET + i], size)


def mask_sampler(masks: Path, config: TrainConfig):
    """Endless training masks of 512x512 px from a folder of raw masks; None for super-resolution, which needs none.

    Raises BadInput if there is no such folder.
    """
    from maskgen.sampler import MaskSampler

    if config.factor > 1:
        return None
    if not masks.is_dir():
        raise BadInput(
            f"no folder of masks at {masks}: make it with `maskgen extract videos/`, or name yours with --masks"
        )
    return MaskSampler(masks, size=SIZE, preset="nvidia", ratio=config.ratio, seed=config.seed, uniform=config.uniform)


def sha256_of_masks(sampler) -> str:
    """One SHA-256 of all files of a MaskSampler."""
    digest = hashlib.sha256()
    for i in range(len(sampler.raw)):
        digest.update(hashlib.sha256(sampler.raw.data(i)).digest())
    return digest.hexdigest()


def sha256_of_photos(photos: list[Path]) -> str:
    """One SHA-256 of the bytes of all photos, in their order, independent of their names."""
    with ThreadPoolExecutor(cores()) as pool:
        return hashlib.sha256("".join(pool.map(sha256, photos)).encode()).hexdigest()


def read_rgb(path: Path, short: int) -> np.ndarray:
    """Read a photo as uint8 RGB (H, W, 3), reduced to a short side of at most `short` px. Raises BadInput."""
    image = images.read_rgb(path)
    share = short / min(image.shape[:2])
    if share < 1:
        height, width = (max(short, round(side * share)) for side in image.shape[:2])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return image


def resize_square(square: np.ndarray, size: int) -> np.ndarray:
    """Resize a square image: area averages where it shrinks, else bicubic."""
    method = cv2.INTER_AREA if square.shape[0] > size else cv2.INTER_CUBIC
    return cv2.resize(square, (size, size), interpolation=method)


def resize_hole(hole: np.ndarray, size: int) -> np.ndarray:
    """Resize a square hole by nearest neighbour: bool (h, h) -> bool (size, size)."""
    if hole.shape == (size, size):
        return hole
    return cv2.resize(hole.astype(np.uint8), (size, size), interpolation=cv2.INTER_NEAREST).astype(bool)


def random_window(hole: np.ndarray, scale: tuple[float, float], rng) -> np.ndarray:
    """A random square window of a hole, whose side is a fraction drawn from `scale`: bool (H, H) -> bool (h, h).

    The hole ratio of the window lies between MIN_RATIO and MAX_RATIO; after WINDOW_ATTEMPTS draws without one the whole
    hole is returned.
    """
    whole = hole.shape[0]
    for _ in range(WINDOW_ATTEMPTS if scale[0] < 1 else 0):
        side = round(whole * rng.uniform(*scale))
        top, left = rng.integers(0, whole - side, 2, endpoint=True)
        part = hole[top : top + side, left : left + side]
        if MIN_RATIO < part.mean() < MAX_RATIO:
            return part
    return hole


def superres_sample(image: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """A super-resolution problem as inpainting: the image, uint8 (H, W, 3), and hole, bool (H, W).

    Each block of factor x factor px has one known pixel, where `superres.spread` puts it. H and W are multiples of the
    factor. The network sees the means of the blocks there, see `superres.spread_means`.
    """
    height, width = image.shape[:2]
    return image, spread(np.zeros((height // factor, width // factor), np.uint8), factor)[1]


def jitter_colour(image: np.ndarray, strength: float, rng) -> np.ndarray:
    """Change brightness, contrast and saturation at random by up to a fraction `strength`. uint8 (H, W, 3)."""
    brightness, contrast, saturation = 1 + rng.uniform(-strength, strength, 3)
    mix = brightness * (saturation * np.eye(3) + (1 - saturation) / 3)  # towards or away from the grey of each pixel
    shift = (1 - contrast) * mix @ cv2.mean(image)[:3]
    return cv2.transform(image, np.column_stack([contrast * mix, shift]))  # one pass, which rounds and clips


def batches(samples, indices, size: int, *, workers: int, ahead: int = 3) -> Iterator[tuple]:
    """Yield (image (B, 3, size, size) in [0, 1], valid (B, 1, size, size)), float32, for each list of indices.

    samples(i, size): one sample, such as TrainingSamples. Threads prepare `ahead` batches in advance; OpenCV and NumPy
    release Python's lock.
    """
    with ThreadPoolExecutor(workers) as pool:
        waiting = deque()
        try:
            for numbers in indices:
                waiting.append([pool.submit(samples, i, size) for i in numbers])
                if len(waiting) > ahead:
                    yield _stack(waiting.popleft())
            while waiting:
                yield _stack(waiting.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _stack(futures):
    images, holes = zip(*(future.result() for future in futures), strict=True)
    image = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div_(255)  # stays channels last
    return image, 1 - torch.from_numpy(np.stack(holes)).float()[:, None]
