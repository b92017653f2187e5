"""Pairs that are not dealt from two folders: the paper's further experiments, arrays, and pairs for other programs."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from evaluation import drawn_holes, listed, pairing
from evaluation import masks as mask_files
from evaluation.benchmark import DRAWN
from evaluation.pairs import Pair, PairSet, Sources, fit_hole, load_pair, reduced
from evaluation.settings import BUILT_IN, LAYOUTS, NATIVE, BenchmarkConfig, Size
from maskgen import canonical, maskset
from maskgen.categories import CATEGORIES, category, measure
from maskgen.errors import BadInput
from maskgen.runtime import files, images
from maskgen.runtime.journal import Journal
from maskgen.runtime.output import OutputFolder
from maskgen.runtime.recipe import library_versions

ARRAYS = "images"  # folder in the results for images that were given as arrays


class _Drawing:
    """Pairs whose masks are drawn, one after the other, and the mask files by their names below the results."""

    def __init__(self, photos: Path | None):
        self.pairs: list[Pair] = []
        self.files: dict[str, bytes] = {}
        self.hashes = pairing.Hashes(pairing.image_folder(photos))

    def size(self, image: str) -> tuple[int, int]:
        """Height and width of an image in px."""
        return images.read_rgb(self.hashes.folder / image).shape[:2]

    def add(self, image: str, name: str, hole: np.ndarray, category: str) -> None:
        """Add a pair. name: of the mask file, below the folder of drawn masks. hole: bool (H, W)."""
        name, data = f"{DRAWN}/{name}", maskset.encode(hole)
        self.files[name] = data
        self.pairs.append(
            _pair(
                f"{len(self.pairs):05d}",
                image,
                name,
                category,
                hole,
                self.hashes[image],
                hashlib.sha256(data).hexdigest(),
            )
        )


def _pair(name, image, mask, class_, hole, image_sha256, mask_sha256):
    size = measure(hole)
    return Pair(name, image, mask, class_, round(size.hole_ratio, 6), size.border_distance, image_sha256, mask_sha256)


def growing_holes(
    photos: Path | None,
    masks: Path | None,
    growth: tuple[int, ...],
    config: BenchmarkConfig,
    polarity: str = "hole-white",
    threshold: int | None = None,
    *,
    out: Path,
) -> PairSet:
    """Pairs whose hole grows (figure 10): each mask of the smallest class, dilated by every brush of growth, px.

    The dilated masks are `masks/grown_05/00000.png` below out; a hole keeps its image as it grows. The brush is a
    square of that side, as in the augmentation of the mask's authors. masks: None takes the default masks.
    """
    masks = canonical.masks_path(masks) if masks else mask_files.default_masks()
    table = mask_files.find_masks(masks, polarity, threshold)
    ratio = table.groupby("category", sort=False)["hole_ratio"].mean()
    small = table[table["category"] == ratio.idxmin()]
    images = pairing.find_images(photos, outside=(masks, out))
    drawn = pairing.draw_pairs(images, small, config, first=masks == canonical.TESTSET)
    drawing = _Drawing(photos)
    for side in growth:
        for i, (image, row) in enumerate(drawn):
            data = mask_files.read(masks, row["mask"])
            hole = maskset.decode(data, masks / row["mask"], polarity=polarity, threshold=threshold)
            if config.common_size is None:  # the brush is measured in px of the image
                hole = fit_hole(hole, drawing.size(image))
            if side > 1:
                hole = cv2.dilate(hole.astype(np.uint8), np.ones((side, side), np.uint8)).astype(bool)
            drawing.add(image, f"grown_{side:02d}/{i:05d}.png", hole, f"grown_{side:02d}")
    text = f"{len(drawn)} of {mask_files.mask_name(masks)}, widened by {', '.join(map(str, growth))} px"
    experiment = {"made_by": "evaluate dilation", "growth": growth}
    return _pair_set(drawing, photos, out, "grown holes", text, experiment)


def drawn_pairs(photos: Path | None, kind: str, config: BenchmarkConfig, *, out: Path) -> PairSet:
    """Pairs with boxes or free-form strokes (figure 15): config.per_class holes of every class, drawn below out."""
    per_class = config.per_class or 1
    order = pairing.deal(pairing.find_images(photos, outside=[out]), per_class * len(CATEGORIES), config.seed)
    drawing = _Drawing(photos)
    for i, image in enumerate(order):
        category = CATEGORIES[i // per_class]
        size = config.common_size or drawing.size(image)
        hole = drawn_holes.draw(kind, category, size, np.random.default_rng([config.seed, 2, i]))
        drawing.add(image, f"{category}/{i:05d}.png", hole, category)
    text = f"{len(drawing.pairs):,} drawn {kind} holes"
    return _pair_set(drawing, photos, out, f"{kind} holes", text, {"made_by": "evaluate holes", "kind": kind})


def _pair_set(drawing, photos, out, name, text, experiment):
    sources = Sources(pairing.image_folder(photos), out)
    return PairSet(drawing.pairs, sources, (str(photos or BUILT_IN), name), text, drawing.files, experiment)


def enlarged_pairs(photos: Path | None, config: BenchmarkConfig, *, out: Path) -> PairSet:
    """One super-resolution problem for each image. Raises BadInput where the size is no multiple of the factor."""
    if config.common_size and any(side % config.factor for side in config.common_size):
        raise BadInput(f"--size {config.size[0]}x{config.size[1]} is no multiple of the factor {config.factor}")
    hashes, missing = pairing.Hashes(pairing.image_folder(photos)), round(1 - 1 / config.factor**2, 6)
    pairs = [
        Pair(f"{i:05d}", image, "", f"x{config.factor}", missing, 0, hashes[image], "")
        for i, image in enumerate(pairing.find_images(photos, outside=[out]))
    ]
    names = str(photos or BUILT_IN), f"{config.factor} times smaller"
    sources = Sources(pairing.image_folder(photos), out)
    return PairSet(pairs, sources, names, "none", experiment={"made_by": "evaluate superres"}, factor=config.factor)


def array_pairs(
    photos: Sequence[np.ndarray],
    holes: Sequence[np.ndarray] | str | Path | None,
    size: Size | None = None,
    *,
    out: Path,
) -> PairSet:
    """Pairs of arrays, the first image with the first hole and so on; files are written below out.

    photos: uint8 (H, W, 3) RGB each. holes: bool (H, W) each, True where pixels are missing. size: None takes that of
    the images. Raises BadInput for other types, shapes and numbers, and for images of several sizes without `size`.
    """
    if holes is None or isinstance(holes, str | Path) or len(photos) != len(holes) or not len(photos):
        count = f"{len(holes)} holes" if isinstance(holes, Sequence | np.ndarray) else "no array of holes"
        raise BadInput(f"expected one hole for each image, got {len(photos)} images and {count}")
    pairs, data, sizes = [], {}, {}
    for i, (photo, hole) in enumerate(zip(map(np.asarray, photos), map(np.asarray, holes), strict=True)):
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
            raise BadInput(f"image {i} is {photo.dtype} of shape {photo.shape}: expected uint8 (H, W, 3), RGB")
        if hole.dtype != bool or hole.shape != photo.shape[:2]:
            raise BadInput(
                f"hole {i} is {hole.dtype} of shape {hole.shape}: expected bool of shape {photo.shape[:2]}, "
                "True where pixels are missing"
            )
        sizes[hole.shape] = measures = measure(hole)
        image, mask = f"{ARRAYS}/{i:05d}.png", f"{DRAWN}/{i:05d}.png"
        data |= {image: images.encode(photo, ".png"), mask: maskset.encode(hole)}
        hashes = (hashlib.sha256(data[name]).hexdigest() for name in (image, mask))
        class_ = category(measures.hole_ratio, measures.border_distance) or mask_files.OTHER
        pairs.append(_pair(f"{i:05d}", image, mask, class_, hole, *hashes))
    if size is None and len(sizes) > 1:
        raise BadInput(f"the images have several sizes: give the size to which all are cut, or {NATIVE!r}")
    text, size = f"{len(pairs):,} arrays", size or next(iter(sizes))
    return PairSet(pairs, Sources(out, out), ("arrays", "arrays"), text, data, size=size)


def export(
    pairs: list[Pair],
    sources: Sources,
    out: Path,
    config: BenchmarkConfig,
    *,
    layout: str = "folders",
    white: str = "hole",
    names: tuple[str, str] = ("images", "masks"),
    protocol: dict | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Write every pair as PNG files for another program, with all that is needed to score its results.

    layout: "folders" writes `images/00000.png`, black where pixels are missing, and `masks/00000.png`; "lama" writes
    `00000.png` and `00000_mask001.png` side by side. white: what white means in the masks, "hole" or "valid". The true
    images are `truth/00000.png`; `pairs.csv` names them, the masks, and the files they were made from. With a factor in
    config, `images/00000.png` is the small image of a super-resolution problem, and there is no mask. names: what
    recipe.json calls the two sources. protocol: what it says of the protocol of the pairs, if they have one. say: takes
    a line for the user.

    Resumes an interrupted run. Raises BadInput where `out` holds pairs of other settings.
    """
    if layout not in LAYOUTS:
        raise BadInput(f"layout is one of {', '.join(LAYOUTS)}, got {layout!r}")
    settings = {"size": config.size, "per_class": config.per_class, "seed": config.seed, "layout": layout}
    settings |= {"white": white, "polarity": sources.polarity, "threshold": sources.threshold}
    if config.factor:
        settings = {"size": config.size, "factor": config.factor}
    settings |= {"protocol": protocol} if protocol else {}
    recipe = {
        "made_by": "evaluate pairs",
        "settings": settings,
        "pairs": len(pairs),
        "pairs_sha256": listed.pairs_sha256(pairs),
        "libraries": library_versions("numpy", "pillow", "opencv"),
    }
    info = {"folders": dict(zip(("images", "masks"), names, strict=True))}
    with OutputFolder(out, recipe, info=info) as folder:
        if folder.complete:
            say(folder.complete_message)
            return
        with Journal(folder.progress / "written.jsonl", "pair") as journal:
            for pair in tqdm(pairs, desc="writing pairs", unit="pair", disable=None):
                if pair.pair not in journal.rows:
                    arrays = load_pair(pair, sources, config)
                    if config.factor:
                        row = _write_small(pair, arrays[0], out, config.factor)
                    else:
                        row = _write_pair(pair, arrays, out, layout, white)
                    journal.add(row)
            table = pd.DataFrame([journal.rows[pair.pair] for pair in pairs])
        files.write_whole(out / listed.PAIRS_CSV, table.to_csv(index=False, lineterminator="\n").encode())
        folder.finish()


def _write_small(pair, truth, out, factor):
    """Write the files of a super-resolution problem. Returns its row of `pairs.csv`."""
    data, truth_file = images.encode(truth, ".png"), f"truth/{pair.pair}.png"
    images.write(out / f"images/{pair.pair}.png", reduced(truth, factor))
    (out / truth_file).parent.mkdir(parents=True, exist_ok=True)
    files.write_whole(out / truth_file, data)
    row = replace(pair, image=truth_file, image_sha256=hashlib.sha256(data).hexdigest())
    return {**vars(row), "source_image": pair.image, "source_image_sha256": pair.image_sha256}


def _write_pair(pair, arrays, out, layout, white):
    """Write the files of a pair. Returns its row of `pairs.csv`."""
    truth, image, hole = arrays
    image_file, mask_file = (
        (f"images/{pair.pair}.png", f"masks/{pair.pair}.png")
        if layout == "folders"
        else (f"{pair.pair}.png", f"{pair.pair}_mask001.png")
    )
    truth_file = f"truth/{pair.pair}.png"
    images.write(out / image_file, image)
    data = {truth_file: images.encode(truth, ".png"), mask_file: maskset.encode(hole if white == "hole" else ~hole)}
    for name, content in data.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(out / name, content)
    hashes = (hashlib.sha256(data[name]).hexdigest() for name in (truth_file, mask_file))
    row = _pair(pair.pair, truth_file, mask_file, pair.category, hole, *hashes)
    source = {f"source_{name}": getattr(pair, name) for name in ("image", "mask", "image_sha256", "mask_sha256")}
    return {**vars(row), **source}
