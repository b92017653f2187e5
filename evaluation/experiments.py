"""The paper's further experiments as benchmarks of their own, and pairs written out for programs of others."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from evaluation import benchmark, shapes
from evaluation.benchmark import DRAWN
from evaluation.pairs import Pair, Sources, load_pair
from evaluation.settings import LAYOUTS, BenchmarkConfig
from maskgen import maskset
from maskgen.categories import CATEGORIES, measure
from maskgen.errors import BadInput
from maskgen.runtime import files
from maskgen.runtime.output import alone


def growing(images: Path | None, masks: Path, out: Path, growth, config: BenchmarkConfig, polarity: str) -> list[Pair]:
    """Pairs whose hole grows (figure 10): each mask of the smallest class, widened by every brush of growth, px.

    The grown masks go to `out/masks/grown_05/00000.png`; a hole keeps its image as it grows. The brush is a square of
    that side, as in the augmentation of the mask's authors.
    """
    table = benchmark.find_masks(masks, polarity)
    ratio = table.groupby("category", sort=False)["hole_ratio"].mean()
    small = table[table["category"] == ratio.idxmin()]
    drawn = benchmark.draw_pairs(benchmark.find_images(images), small, config)
    pairs = []
    for side in growth:
        for i, (image, row) in enumerate(drawn):
            hole = maskset.read_hole(masks / row["mask"], polarity=polarity)
            if side > 1:
                hole = cv2.dilate(hole.astype(np.uint8), np.ones((side, side), np.uint8)).astype(bool)
            name = f"{DRAWN}/grown_{side:02d}/{i:05d}.png"
            pairs.append(_pair(len(pairs), images, image, out, name, hole, f"grown_{side:02d}"))
    return pairs


def drawn(images: Path | None, out: Path, kind: str, config: BenchmarkConfig) -> list[Pair]:
    """Pairs with boxes or free-form strokes (figure 15): config.per_class holes of every class, in `out/masks`."""
    photos = benchmark.find_images(images)
    count = (config.per_class or 1) * len(CATEGORIES)
    deal = np.random.default_rng([config.seed, 1])
    order = np.concatenate([deal.permutation(len(photos)) for _ in range(-(-count // len(photos)))])
    pairs = []
    for i in range(count):
        category = CATEGORIES[i // (config.per_class or 1)]
        hole = shapes.draw(kind, category, config.size, np.random.default_rng([config.seed, 2, i]))
        name = f"{DRAWN}/{category}/{i:05d}.png"
        pairs.append(_pair(i, images, photos[order[i]], out, name, hole, category))
    return pairs


def _pair(i, images, image, out, name, hole, category):
    """Write a mask below `out` and describe the pair that it makes with an image."""
    path = out / name
    path.parent.mkdir(parents=True, exist_ok=True)
    data, size = maskset.encode(hole), measure(hole)
    files.write_whole(path, data)
    return Pair(
        f"{i:05d}",
        image,
        name,
        category,
        round(size.hole_ratio, 6),
        size.border_distance,
        hashlib.sha256((benchmark.image_folder(images) / image).read_bytes()).hexdigest(),
        hashlib.sha256(data).hexdigest(),
    )


def enlarging(images: Path | None, config: BenchmarkConfig) -> list[Pair]:
    """One problem of super-resolution for each image. Raises BadInput where the size is no multiple of the factor."""
    if any(side % config.factor for side in config.size):
        raise BadInput(f"--size {config.size[0]}x{config.size[1]} is no multiple of the factor {config.factor}")
    folder = benchmark.image_folder(images)
    missing = round(1 - 1 / config.factor**2, 6)
    return [
        Pair(
            f"{i:05d}",
            image,
            "",
            f"x{config.factor}",
            missing,
            0,
            hashlib.sha256((folder / image).read_bytes()).hexdigest(),
            "",
        )
        for i, image in enumerate(benchmark.find_images(images))
    ]


@alone("out")
def export(pairs: list[Pair], sources: Sources, out: Path, config: BenchmarkConfig, *, layout="folders", white="hole"):
    """Write every pair as PNG files for another program: the image, black where pixels are missing, and the mask.

    layout: "folders" is `images/00000.png` and `masks/00000.png`; "lama" is `00000.png` and `00000_mask001.png`
    side by side. white: what white means in the masks, "hole" or "valid". `pairs.csv` names them all, for
    `evaluate --pairs`. Files that are there are written anew.
    """
    if layout not in LAYOUTS:
        raise BadInput(f"layout is one of {', '.join(LAYOUTS)}, got {layout!r}")
    image_folder, mask_folder = (out / "images", out / "masks") if layout == "folders" else (out, out)
    suffix = "" if layout == "folders" else "_mask001"
    for folder in (image_folder, mask_folder):
        folder.mkdir(parents=True, exist_ok=True)
    for pair in tqdm(pairs, desc="writing pairs", unit="pair"):
        _, image, hole = load_pair(pair, sources, config)
        data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
        files.write_whole(image_folder / f"{pair.pair}.png", data)
        files.write_whole(mask_folder / f"{pair.pair}{suffix}.png", maskset.encode(hole if white == "hole" else ~hole))
    files.write_whole(out / "pairs.csv", benchmark.pairs_csv(pairs))
