"""Pair images with masks: find both, deal the images to the masks, and list the pairs in `pairs.csv`."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from evaluation import masks as mask_files
from evaluation.masks import check_masks, default_masks, find_masks, mask_name
from evaluation.pairs import Pair, PairSet, Sources
from evaluation.settings import BUILT_IN, REFERENCE, BenchmarkConfig
from maskgen import canonical, maskset
from maskgen.errors import BadInput
from maskgen.runtime import files
from maskgen.runtime import images as pictures
from maskgen.runtime.output import check_finished
from maskgen.runtime.recipe import RECIPE, differences
from maskgen.settings import SIZE, TESTSET

PHOTOS = (  # the photographs among the images that scikit-image installs
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png"),
    *("gravel.png", "hubble_deep_field.jpg", "moon.png", "motorcycle_left.png", "rocket.jpg"),
)
REFERENCE_PHOTOS = Path(__file__).parent / "data" / "photos"
PAIRS_CSV = "pairs.csv"


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
    return _pair_set(pairs, Sources(image_folder(images), taken, polarity, threshold), default=masks is None)


def listed_pairs(
    path: Path,
    *,
    images: Path | None = None,
    masks: Path | None = None,
    polarity: str | None = None,
    threshold: int | None = None,
    size: tuple[int, int] | None = None,
) -> tuple[PairSet, tuple[int, int]]:
    """The pairs of a `pairs.csv`, and their size, as `open_pairs`."""
    given = {"images": images, "masks": masks, "polarity": polarity, "threshold": threshold, "size": size}
    pairs, sources, size = open_pairs(path, **given)
    return _pair_set(pairs, sources), size


def _pair_set(pairs, sources, *, default=False):
    """Pairs with the names of their folders, as recipe.json and the first line of output give them.

    default: nobody named masks.
    """
    count, name = len({pair.mask for pair in pairs}), mask_name(sources.masks)
    text = f"{count:,} of {name}"
    if default and sources.masks == canonical.TESTSET:
        text += f", which come with this package, as there is no {TESTSET}"
    return PairSet(pairs, sources, (image_name(sources.images), name), text)


def image_name(images: Path) -> str:
    """What recipe.json calls a folder of images."""
    if images == Path(REFERENCE):  # a folder in the working folder
        return f"./{images}"
    return {image_folder(None): BUILT_IN, REFERENCE_PHOTOS: REFERENCE}.get(images, str(images))


def pairs_csv(pairs: list[Pair]) -> bytes:
    """The bytes of `pairs.csv`."""
    return pd.DataFrame([vars(pair) for pair in pairs]).to_csv(index=False, lineterminator="\n").encode()


def pairs_sha256(pairs: list[Pair]) -> str:
    """One hash of all pairs: the images, the masks, and which belong together."""
    return hashlib.sha256(pairs_csv(pairs)).hexdigest()


def read_pairs(path: Path) -> list[Pair]:
    """Read a `pairs.csv`; other columns are ignored. Raises BadInput for any other file, and for a pair named twice."""
    texts = {field.name: str for field in fields(Pair) if field.type is str or field.type == "str"}
    try:
        table = pd.read_csv(path, dtype=texts, keep_default_na=False)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(f"{path} is not a list of pairs that can be read: {reason}") from None
    wanted = [field.name for field in fields(Pair)]
    missing = [name for name in wanted if name not in table]
    if missing or table.empty:
        raise BadInput(f"{path} has no {missing[0] if missing else 'row'}: expected a pairs.csv that evaluate wrote")
    if table["pair"].duplicated().any():
        raise BadInput(f"{path} has the pair {table['pair'][table['pair'].duplicated()].iloc[0]} twice")
    for column in ("hole_ratio", "border_distance"):
        table[column] = pd.to_numeric(table[column], errors="coerce")
        if not table[column].between(0, 2**31).all():
            raise BadInput(f"{path}: {column} is not a number in every row: make it again with evaluate pairs")
    for row in table.itertuples():  # pair and category become names of folders and files
        is_name = re.fullmatch(r"[\w.-]+", row.pair) and re.fullmatch(r"[\w.-]+", row.category)
        if not is_name or not all(files.leads_inside(name) for name in (row.pair, row.category, row.image)):
            raise BadInput(f"{path}: {row.pair!r:.40} of {row.image!r:.40} is not a pair as evaluate writes it")
        if row.mask and not files.leads_inside(row.mask):
            raise BadInput(f"{path}: the mask {row.mask!r:.40} leads out of the masks")
    return [Pair(**row) for row in table[wanted].to_dict("records")]


def changes(path: Path, pairs: list[Pair]) -> Iterator[str]:
    """Lines that say which files differ from those in an earlier `pairs.csv`; none if there is no such file."""

    def contents(pairs):
        return {
            "photos": {pair.image: pair.image_sha256 for pair in pairs},
            "masks": {pair.mask: pair.mask_sha256 for pair in pairs},
        }

    try:
        before = read_pairs(path)
    except BadInput:
        return
    yield from differences(contents(before), contents(pairs))


def open_pairs(
    path: Path,
    *,
    images: Path | None = None,
    masks: Path | None = None,
    polarity: str | None = None,
    threshold: int | None = None,
    size: tuple[int, int] | None = None,
) -> tuple[list[Pair], Sources, tuple[int, int]]:
    """Read listed pairs: the pairs, where their files are, and their size.

    path: a `pairs.csv` or its folder. What is not given is taken from the files beside it, as `evaluate pairs` writes
    them, and from the recipe there: folders, size and polarity. Raises BadInput where files are not found, and names
    the missing option.
    """
    file = path / PAIRS_CSV if path.is_dir() else path
    if not file.is_file():
        check_finished(file.parent)
        raise BadInput(f"no such file: {file} (expected a {PAIRS_CSV}, which `evaluate pairs` makes)")
    pairs, recorded, folders = read_pairs(file), *_recorded(file.parent)
    if not all(pair.mask for pair in pairs):
        raise BadInput(f"{file} lists super-resolution pairs, which have no masks: use `evaluate superres`")
    given = {"polarity": polarity, "threshold": threshold}
    for name, value in given.items():
        if value is not None and value != recorded.get(name, value):
            raise BadInput(f"--{name} {value}: {file.parent / RECIPE} says {recorded[name]}, leave out the option")
    places = {}
    for kind, folder, first in (("images", images, pairs[0].image), ("masks", masks, pairs[0].mask)):
        named = folders.get(kind)
        if folder is not None:
            places[kind] = image_folder(folder) if kind == "images" else canonical.masks_path(folder)
        elif _is_there(file.parent / first):
            places[kind] = file.parent
        elif named not in (None, BUILT_IN, REFERENCE, *canonical.VERSIONS) and Path(named).exists():
            places[kind] = Path(named)
        elif kind == "images":
            places[kind] = image_folder(Path(REFERENCE) if named == REFERENCE else None)
        else:
            places[kind] = canonical.path_of(named) if named in canonical.VERSIONS else default_masks()
        for pair in pairs:
            name = pair.image if kind == "images" else pair.mask
            if not mask_files.exists(places[kind], name):
                raise BadInput(f"{file} names {name}, which is not in {places[kind]}: give its folder with --{kind}")
    read = {name: recorded.get(name) if value is None else value for name, value in given.items()}
    sources = Sources(places["images"], places["masks"], read["polarity"] or "hole-white", read["threshold"])
    check_masks(sources.masks, sources.polarity, sources.threshold)
    return pairs, sources, size or recorded.get("size") or (SIZE, SIZE)


def _is_there(path):
    try:
        return path.is_file()
    except OSError:  # not a valid file name
        return False


def _recorded(folder):
    """Size, polarity and threshold in the recipe beside a `pairs.csv`, and the folders that it names."""
    if not (folder / RECIPE).is_file():
        return {}, {}
    recipe = maskset.read_recipe(folder)
    settings, folders = recipe.get("settings", {}), recipe.get("folders", {})
    found = {"polarity": settings["polarity"]} if settings.get("polarity") in maskset.POLARITIES else {}
    if type(settings.get("threshold")) is int:
        found["threshold"] = settings["threshold"]
    if "white" in settings:  # of `evaluate pairs`, which writes its own masks
        found = {"polarity": "hole-white" if settings["white"] == "hole" else "hole-black"}
    size = settings.get("size")
    if isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size):
        found["size"] = tuple(size)
    return found, folders if isinstance(folders, dict) else {}
