"""Training pairs from folders of photos and a sampler of masks: sample i is always the same, whatever the threads."""

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

RUN = TrainConfig()
LEAST, MOST = 0.003, 0.8  # hole ratio of a window of a mask
FAR = 10**9  # validation masks are samples from here on, which no training run reaches


def read_names(path: Path) -> frozenset:
    """The names in a text file, one a line, as photos are named or with folders before it. BadInput if unreadable."""
    try:
        return frozenset(line.strip() for line in path.read_text().splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read as a list of names: expected one photo a line ({error})") from None


def split(folders: list[Path], *, exclude=frozenset(), config: TrainConfig = RUN) -> tuple[list[Path], list[Path]]:
    """The photos to train on and those held out, both from folder trees of any depth.

    Held out are, the first of these that applies: photos named in `exclude`; those below a top folder `val*`, as
    ImageNet and Places2 have it (`test*` is then left alone); a share `config.hold_out` of all, drawn with the seed,
    which for CelebA-HQ gives 27,000 and 3,000. A share of 0 holds nothing out and validates on the training photos.
    """
    found = [(folder, path) for folder in folders for path in images.find(folder)]
    photos = [path for _, path in found]
    tops = [path.relative_to(folder).parts[0].lower() for folder, path in found]
    rng = np.random.default_rng([config.seed, 0])
    if exclude:
        held = [p.name in exclude or p.relative_to(f).as_posix() in exclude for f, p in found]
        training = [not out for out in held]
    elif any(top.startswith("val") for top in tops):
        held = [top.startswith("val") for top in tops]
        training = [not top.startswith(("val", "test")) for top in tops]
    else:
        drawn = set(rng.permutation(len(photos))[: round(config.hold_out * len(photos))].tolist())
        held = [i in drawn for i in range(len(photos))]
        training = [not out for out in held]
    kept = [photo for photo, use in zip(photos, training, strict=True) if use]
    if not kept:
        raise BadInput(f"no photo is left to train on, of {len(photos)} found: hold out fewer")
    pool = [photo for photo, out in zip(photos, held, strict=True) if out] or kept
    chosen = rng.permutation(len(pool))[: max(1, config.validation)]
    return kept, [pool[i] for i in sorted(chosen.tolist())]


def odds(photos: list[Path], favour) -> np.ndarray:
    """How often each photo is drawn, adding up to 1. favour: pairs (pattern, factor), matched against whole paths.

    A factor below 1 weighs a narrow lot of photos down; a photo that several patterns match gets their product.
    """
    weights = np.ones(len(photos))
    for pattern, factor in favour:
        hit = [fnmatch(photo.as_posix(), f"*{pattern}") for photo in photos]
        if factor < 0 or not any(hit):
            raise BadInput(
                f"--favour {pattern}={factor:g} matches {sum(hit)} photos; expected some, and a factor from 0 up"
            )
        weights[hit] *= factor
    if not weights.sum():
        raise BadInput("every photo has the weight 0: leave some --favour out")
    return weights / weights.sum()


class Pairs:
    """Endless training pairs: photo number `draw(i)` under hole number i of the sampler.

    sampler: anything whose [i] is a hole, bool (h, w), for any i >= 0. cache: bytes of decoded photos, shrunk to twice
    the largest training size, that are kept in memory; the rest is decoded each time.
    """

    def __init__(self, photos: list[Path], sampler, config: TrainConfig, *, favour=(), cache=4 * 2**30):
        for name, shares in (("scale", config.scale), ("mask-scale", config.mask_scale)):
            if len(shares) != 2 or not 0 < shares[0] <= shares[1] <= 1:
                came = ",".join(f"{share:g}" for share in shares)
                raise BadInput(f"{name} is two shares, 0 < least <= most <= 1, got {came}")
        if config.factor < 1 or any(size % config.factor for size in config.size):
            sizes = ", ".join(map(str, config.size))
            raise BadInput(f"sizes are multiples of the factor, which is 1 or more, got {sizes} and {config.factor}")
        if not 0 <= config.grey <= 1:
            raise BadInput(f"grey is a share of the crops, from 0 to 1, got {config.grey:g}")
        self.photos, self.sampler, self.config = photos, sampler, config
        self.edges = odds(photos, favour).cumsum()
        self.keep = 2 * max(config.size)  # px, short side
        self.room, self.kept = cache, {}

    def __call__(self, i: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Sample i at a size: uint8 (size, size, 3), RGB, and hole, bool (size, size)."""
        rng = np.random.default_rng([self.config.seed, 1, i])
        photo = self._photo(min(int(np.searchsorted(self.edges, rng.random(), "right")), len(self.photos) - 1))
        short = min(photo.shape[:2])
        low, high = (share * short for share in self.config.scale)
        side = round(
            rng.uniform(max(low, min(size, high)), high)
        )  # no crop is blown up where the photo is large enough
        top, left = (int(rng.integers(0, length - side, endpoint=True)) for length in photo.shape[:2])
        crop = resized(photo[top : top + side, left : left + side], size)
        if rng.random() < 0.5 and self.config.flip:
            crop = np.ascontiguousarray(crop[:, ::-1])
        crop = recolour(crop, self.config.colour, rng)
        if self.config.grey and rng.random() < self.config.grey:
            crop = cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        if self.config.factor > 1:
            return lattice(crop, self.config.factor)
        return crop, fitted(window(self.sampler[i], self.config.mask_scale, rng), size)

    def _photo(self, number):
        if number in self.kept:
            return self.kept[number]
        photo = read_rgb(self.photos[number], self.keep)
        if photo.nbytes <= self.room:  # threads may both pass here; a photo too many is no harm
            self.room -= photo.nbytes
            self.kept[number] = photo
        return photo


class Fixed:
    """The validation set: photo i, its largest centred square, under hole FAR + i; never changed, never coloured."""

    def __init__(self, photos: list[Path], sampler, factor: int = 1):
        self.photos, self.sampler, self.factor = photos, sampler, factor

    def __call__(self, i: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """As Pairs; i below len(photos)."""
        photo = read_rgb(self.photos[i], size)
        side = min(photo.shape[:2])
        top, left = ((length - side) // 2 for length in photo.shape[:2])
        square = resized(photo[top : top + side, left : left + side], size)
        return lattice(square, self.factor) if self.factor > 1 else (square, fitted(self.sampler[FAR + i], size))


def mask_sampler(masks: Path, config: TrainConfig):
    """Endless training masks from a folder of raw ones, as large as the paper's. BadInput without it.

    None for a net that learns to enlarge: its holes need no masks.
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
    """One SHA-256 of the photos' bytes, in their order, whatever their names."""
    with ThreadPoolExecutor(cores()) as pool:
        return hashlib.sha256("".join(pool.map(sha256, photos)).encode()).hexdigest()


def read_rgb(path: Path, short: int) -> np.ndarray:
    """A photo as uint8 RGB, shrunk so that its short side has at most `short` px. Raises BadInput if it is none."""
    image = images.read_rgb(path)
    share = short / min(image.shape[:2])
    if share < 1:
        height, width = (max(short, round(side * share)) for side in image.shape[:2])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return image


def resized(square: np.ndarray, size: int) -> np.ndarray:
    """A square image at another size, averaged where it shrinks."""
    way = cv2.INTER_AREA if square.shape[0] > size else cv2.INTER_CUBIC
    return cv2.resize(square, (size, size), interpolation=way)


def fitted(hole: np.ndarray, size: int) -> np.ndarray:
    """A hole at another size; nearest neighbour, so that it stays a hole and not a shade of grey."""
    if hole.shape == (size, size):
        return hole
    return cv2.resize(hole.astype(np.uint8), (size, size), interpolation=cv2.INTER_NEAREST).astype(bool)


def window(hole: np.ndarray, scale: tuple[float, float], rng) -> np.ndarray:
    """A random square of a square hole, its side a share of the hole's drawn from `scale`. bool (H, H) -> bool (h, h).

    A square must hold some of the hole and something beside it; where 20 draws give none, all of the hole is taken.
    """
    whole = hole.shape[0]
    for _ in range(20 if scale[0] < 1 else 0):
        side = round(whole * rng.uniform(*scale))
        top, left = rng.integers(0, whole - side, 2, endpoint=True)
        part = hole[top : top + side, left : left + side]
        if LEAST < part.mean() < MOST:
            return part
    return hole


def lattice(image: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """A super-resolution problem with its answer: (the image, known pixels and all, the hole). uint8 (H, W, 3), bool.

    A block of factor x factor px has one known pixel, where `superres.spread` puts it; it has the block's mean colour,
    as a pixel of the small image has, also in the answer. The sides are multiples of the factor.
    """
    height, width = image.shape[:2]
    small = cv2.resize(image, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
    spread_out, hole = spread(small, factor)
    return np.where(hole[..., None], image, spread_out), hole


def recolour(image: np.ndarray, most: float, rng) -> np.ndarray:
    """Change brightness, contrast and saturation by up to a share `most`. uint8 (H, W, 3) -> the same."""
    light, contrast, colour = 1 + rng.uniform(-most, most, 3)
    mix = light * (colour * np.eye(3) + (1 - colour) / 3)  # towards or away from each pixel's grey
    shift = (1 - contrast) * mix @ cv2.mean(image)[:3]
    return cv2.transform(image, np.column_stack([contrast * mix, shift]))  # rounds and clips; one pass


def batches(samples, indices, size: int, *, workers: int, ahead: int = 3) -> Iterator:
    """Yield (image (B, 3, size, size) in [0, 1], valid (B, 1, size, size)), float32, for each list of indices.

    samples(i, size): one pair, as Pairs and Fixed give it. Threads prepare `ahead` batches, so that the net never
    waits; OpenCV and numpy do their work outside Python's lock.
    """
    with ThreadPoolExecutor(workers) as pool:
        waiting = deque()
        try:
            for numbers in indices:
                waiting.append([pool.submit(samples, i, size) for i in numbers])
                if len(waiting) > ahead:
                    yield _stacked(waiting.popleft())
            while waiting:
                yield _stacked(waiting.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _stacked(futures):
    images, holes = zip(*(future.result() for future in futures), strict=True)
    image = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div_(255)  # channels last, as numpy has it
    return image, 1 - torch.from_numpy(np.stack(holes)).float()[:, None]
