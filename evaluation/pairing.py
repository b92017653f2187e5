"""Pair the images of one folder with the masks of another: find both, and deal the images to the masks."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from evaluation.pairs import Pair, PairSet, Sources
from evaluation.settings import BUILT_IN, BUILT_IN_MASKS, BenchmarkConfig
from maskgen import maskset
from maskgen.categories import CATEGORIES, category, measure
from maskgen.errors import BadInput
from maskgen.runtime import images as pictures
from maskgen.runtime.output import check_finished
from maskgen.runtime.recipe import RECIPE
from maskgen.settings import TESTSET

PHOTOS = (  # the photographs among the images that scikit-image installs
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png"),
    *("gravel.png", "hubble_deep_field.jpg", "moon.png", "motorcycle_left.png", "rocket.jpg"),
)
OWN_MASKS = Path(__file__).parent / "data" / "masks"  # ten of each class
OTHER = "other"  # class of holes outside all classes of the paper


def default_masks() -> Path:
    """The default masks: the test set in the working folder if there is one, else those that ship with this package."""
    return Path(TESTSET) if Path(TESTSET).is_dir() else OWN_MASKS


def image_folder(images: Path | None) -> Path:
    """The folder of images: the given one, or that of scikit-image's photos. Raises BadInput where it is missing."""
    if images is None:
        import skimage.data

        return Path(skimage.data.__file__).parent
    if not images.is_dir():
        raise BadInput(f"no such folder: {images} (expected a folder of images, PNG or JPEG)")
    return images


def find_images(images: Path | None, *, outside: Iterable[Path] = ()) -> list[str]:
    """Every image below a folder in natural order, as paths relative to it; None takes scikit-image's photos.

    outside: folders below it to skip, such as the masks and the results.
    """
    folder = image_folder(images)
    if images is None:
        return [name for name in PHOTOS if (folder / name).is_file()]
    return [path.relative_to(folder).as_posix() for path in pictures.find(folder, exclude=outside)]


def check_masks(masks: Path, polarity: str = "hole-white", threshold: int | None = None) -> None:
    """Raise BadInput for a folder of masks that is missing or unfinished, or whose index contradicts the arguments."""
    if not masks.is_dir():
        raise BadInput(f"no such folder: {masks} (expected masks, which `maskgen testset` makes)")
    check_finished(masks)
    if (masks / "test" / "made.jsonl").exists() and not (masks / RECIPE).exists():  # as earlier versions left it
        raise BadInput(f"{masks} is unfinished: finish it first with the same `maskgen testset` command")
    maskset.check_polarity(masks, polarity)
    index = maskset.index_of(masks)
    if index and threshold is not None:
        raise BadInput(f"{masks} has an index, {index}: its masks have two values, leave out --threshold")


def find_masks(masks: Path, polarity: str = "hole-white", threshold: int | None = None) -> pd.DataFrame:
    """Every mask below a folder: `mask` (path relative to it), `category`, `hole_ratio`, `border_distance`.

    For a mask set the values come from its index; the masks of any other folder are measured. Masks without a hole are
    left out; holes outside the paper's classes are in the class `other`. Raises BadInput where no mask has a hole.
    """
    check_masks(masks, polarity, threshold)
    for split in ("test", ".", "train"):
        if (masks / split / maskset.INDEX).is_file():
            table = maskset.read_index(masks / split)
            if {"category", "hole_ratio", "border_distance"} <= set(table):
                table["mask"] = [Path(split, name).as_posix() for name in table["file_name"]]
                break
    else:
        rows = []
        for path in tqdm(
            pictures.find(masks, kind="mask"), desc="measuring masks", unit="mask", disable=None, leave=False
        ):
            size = measure(maskset.read_hole(path, polarity=polarity, threshold=threshold))
            rows.append(
                {
                    "mask": path.relative_to(masks).as_posix(),
                    "category": category(size.hole_ratio, size.border_distance),
                    "hole_ratio": size.hole_ratio,
                    "border_distance": size.border_distance,
                }
            )
        table = pd.DataFrame(rows)
    table = table[table["hole_ratio"].astype(float) > 0][["mask", "category", "hole_ratio", "border_distance"]]
    if table.empty:
        other = "hole-black" if polarity == "hole-white" else "hole-white"
        raise BadInput(
            f"no mask in {masks} has a hole, read as {polarity}: expected masks with one, or --polarity {other}"
        )
    table["category"] = table["category"].replace("", OTHER)
    return in_order(table)


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Sort by class: those of the paper in its order, then all others. The order within a class is kept."""
    known = {name: i for i, name in enumerate(CATEGORIES)}
    first = dict.fromkeys(table["category"])
    rank = {name: known.get(name, len(known) + i) for i, name in enumerate(first)}
    return table.sort_values("category", key=lambda column: column.map(rank), kind="stable", ignore_index=True)


def draw_pairs(images: list[str], masks: pd.DataFrame, config: BenchmarkConfig) -> list[tuple[str, dict]]:
    """Pair every mask with an image: (image, row of masks) in the order of the masks.

    Images are drawn at random without replacement, as in section 4.3 of the paper. If there are more masks, all images
    are drawn again and again: the numbers of uses of two images differ by one at most.
    """
    choose = np.random.default_rng([config.seed, 0])
    if config.per_class:
        kept = []
        for _, group in masks.groupby("category", sort=False):
            drawn = choose.permutation(len(group))[: config.per_class]
            kept.append(group.iloc[np.sort(drawn)])
        masks = pd.concat(kept, ignore_index=True)
    return list(zip(deal(images, len(masks), config.seed), masks.to_dict("records"), strict=True))


def deal(images: list[str], count: int, seed: int) -> list[str]:
    """`count` images in random order; each comes once before any comes again."""
    rng = np.random.default_rng([seed, 1])
    order = np.concatenate([rng.permutation(len(images)) for _ in range(-(-count // len(images)))])
    return [images[i] for i in order[:count]]


class Hashes:
    """SHA-256 of the images in a folder by name; each file is read once. Raises BadInput for damaged images."""

    def __init__(self, folder: Path):
        self.folder, self.known = folder, {}

    def __getitem__(self, name: str) -> str:
        if name not in self.known:
            data = pictures.read_bytes(self.folder / name)
            if not pictures.looks_complete(data):
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
    drawn = draw_pairs(photos, find_masks(masks, polarity, threshold), config)
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
    """The pairs of two folders, as `make_pairs`; None takes the images and masks that ship. out: for the results."""
    masks = masks or default_masks()
    pairs = make_pairs(images, masks, config, polarity, threshold, outside=[out])
    return pair_set(pairs, Sources(image_folder(images), masks, polarity, threshold))


def pair_set(pairs: list[Pair], sources: Sources, **more) -> PairSet:
    """Pairs with the names of their folders, as recipe.json and the first line of output give them.

    more: other fields of PairSet.
    """
    photos = BUILT_IN if sources.images == image_folder(None) else str(sources.images)
    count, name = len({pair.mask for pair in pairs}), mask_name(sources.masks)
    text = f"{count:,} of {name}"
    if name == BUILT_IN_MASKS:
        text = f"{count:,} that ship with {BUILT_IN_MASKS}"
        text += "" if Path(TESTSET).is_dir() else f", as there is no {TESTSET}"
    return PairSet(pairs, sources, (photos, name), text, **more)


def mask_name(masks: Path) -> str:
    """What recipe.json calls a folder of masks."""
    return BUILT_IN_MASKS if masks == OWN_MASKS else str(masks)
