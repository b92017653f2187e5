"""Pair the images of one folder with the masks of another: find both, and deal the images to the masks."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from evaluation import masks as mask_files
from evaluation.masks import default_masks, find_masks, mask_name
from evaluation.pairs import Pair, PairSet, Sources
from evaluation.settings import BUILT_IN, REFERENCE, BenchmarkConfig
from maskgen import canonical
from maskgen.errors import BadInput
from maskgen.runtime import images as pictures
from maskgen.settings import TESTSET

PHOTOS = (  # the photographs among the images that scikit-image installs
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png"),
    *("gravel.png", "hubble_deep_field.jpg", "moon.png", "motorcycle_left.png", "rocket.jpg"),
)
REFERENCE_PHOTOS = Path(__file__).parent / "data" / "photos"


def image_folder(images: Path | None) -> Path:
    """The folder of images; None takes scikit-image's photos, `reference` those that ship with this package.

    A folder `reference` in the working folder comes first. Raises BadInput where the folder is missing.
    """
    if images is None:
        import skimage.data

        return Path(skimage.data.__file__).parent
    if images == Path(REFERENCE) and not images.exists():
        return REFERENCE_PHOTOS
    if not images.is_dir():
        raise BadInput(f"no such folder: {images} (expected a folder of images, PNG or JPEG, or {REFERENCE})")
    return images


def find_images(images: Path | None, *, outside: Iterable[Path] = ()) -> list[str]:
    """Every image below a folder in natural order, as paths relative to it; None takes scikit-image's photos.

    outside: folders below it to skip, such as the masks and the results.
    """
    folder = image_folder(images)
    if images is None:
        return [name for name in PHOTOS if (folder / name).is_file()]
    return [path.relative_to(folder).as_posix() for path in pictures.find(folder, exclude=outside)]


def draw_pairs(
    images: list[str], masks: pd.DataFrame, config: BenchmarkConfig, *, first: bool = False
) -> list[tuple[str, dict]]:
    """Pair every mask with an image: (image, row of masks) in the order of the masks.

    Of config.per_class masks of each class, the first ones are taken if `first`, else the seed draws them. Images are
    drawn at random without replacement, as in section 4.3 of the paper. If there are more masks, all images are drawn
    again and again: the numbers of uses of two images differ by one at most.
    """
    choose = np.random.default_rng([config.seed, 0])
    if config.per_class:
        kept = []
        for _, group in masks.groupby("category", sort=False):
            drawn = np.arange(len(group)) if first else choose.permutation(len(group))
            kept.append(group.iloc[np.sort(drawn[: config.per_class])])
        masks = pd.concat(kept, ignore_index=True)
    return list(zip(deal(images, len(masks), config.seed), masks.to_dict("records"), strict=True))


def deal(images: list[str], count: int, seed: int) -> list[str]:
    """`count` images in random order; each comes once before any comes again."""
    rng = np.random.default_rng([seed, 1])
    order = np.concatenate([rng.permutation(len(images)) for _ in range(-(-count // len(images)))])
    return [images[i] for i in order[:count]]


class Hashes:
    """SHA-256 of the images in a folder, or of masks in an archive, by name; each file is read once.

    Raises BadInput for damaged images.
    """

    def __init__(self, folder: Path):
        self.folder, self.known = folder, {}

    def __getitem__(self, name: str) -> str:
        if name not in self.known:
            data = mask_files.read(self.folder, name)
            # The masks that come with the package are complete, and decoding 12,000 of them takes time.
            if self.folder != canonical.TESTSET and not pictures.looks_complete(data):
                pictures.decode_rgb(data, self.folder / name)  # raises now and not in the middle of a long run
            self.known[name] = hashlib.sha256(data).hexdigest()
        return self.known[name]


def make_pairs(
    images: Path | None,
    masks: Path,
    config: BenchmarkConfig,
    polarity: str = "hole-white",
    threshold: int | None = None,
    *,
    outside: Iterable[Path] = (),
) -> list[Pair]:
    """Draw the pairs of two folders, with the hashes of their files. Raises BadInput for files that are not images.

    outside: as in `find_images`; the folder of masks is always skipped.
    """
    photos = find_images(images, outside=(masks, *outside))
    found = find_masks(masks, polarity, threshold)
    drawn = draw_pairs(photos, found, config, first=masks == canonical.TESTSET)
    image_hashes, mask_hashes = Hashes(image_folder(images)), Hashes(masks)
    return [
        Pair(
            f"{i:05d}",
            image,
            row["mask"],
            row["category"],
            round(float(row["hole_ratio"]), 6),
            int(row["border_distance"]),
            image_hashes[image],
            mask_hashes[row["mask"]],
        )
        for i, (image, row) in enumerate(tqdm(drawn, desc="reading pairs", unit="pair", disable=None, leave=False))
    ]


def pair_folders(
    images: Path | None,
    masks: Path | None,
    config: BenchmarkConfig,
    polarity: str = "hole-white",
    threshold: int | None = None,
    *,
    out: Path,
) -> PairSet:
    """The pairs of two folders, as `make_pairs`; None takes the images and masks that ship. out: for the results.

    Of the canonical masks, the first config.per_class masks of each class are taken, whatever the seed.
    """
    taken = canonical.masks_path(masks) if masks else default_masks()
    pairs = make_pairs(images, taken, config, polarity, threshold, outside=[out])
    return pair_set(pairs, Sources(image_folder(images), taken, polarity, threshold), default=masks is None)


def pair_set(pairs: list[Pair], sources: Sources, *, default: bool = False, **more) -> PairSet:
    """Pairs with the names of their folders, as recipe.json and the first line of output give them.

    default: nobody named masks. more: other fields of PairSet.
    """
    count, name = len({pair.mask for pair in pairs}), mask_name(sources.masks)
    text = f"{count:,} of {name}"
    if default and sources.masks == canonical.TESTSET:
        text += f", which come with this package, as there is no {TESTSET}"
    return PairSet(pairs, sources, (image_name(sources.images), name), text, **more)


def image_name(images: Path) -> str:
    """What recipe.json calls a folder of images."""
    if images == Path(REFERENCE):  # a folder in the working folder
        return f"./{images}"
    return {image_folder(None): BUILT_IN, REFERENCE_PHOTOS: REFERENCE}.get(images, str(images))
