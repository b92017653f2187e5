"""The paper's further experiments as benchmarks of their own, and pairs written out for programs of others."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from evaluation import drawn_holes, pairing
from evaluation.benchmark import DRAWN
from evaluation.pairs import Pair, Sources, load_pair
from evaluation.settings import LAYOUTS, BenchmarkConfig
from maskgen import maskset
from maskgen.categories import CATEGORIES, measure
from maskgen.errors import BadInput
from maskgen.runtime import files, images
from maskgen.runtime.journal import Journal
from maskgen.runtime.output import OutputFolder
from maskgen.runtime.recipe import library_versions


class Drawing:
    """Pairs whose masks are made for them: `pairs`, and `files`, the bytes of the masks by their names below `out`."""

    def __init__(self, photos: Path | None):
        self.pairs: list[Pair] = []
        self.files: dict[str, bytes] = {}
        self.hashes = pairing.Hashes(pairing.image_folder(photos))

    def add(self, image: str, name: str, hole: np.ndarray, category: str) -> None:
        """Lay a hole over an image. name: of the mask, below the folder of drawn masks. hole: bool (H, W)."""
        name, data, size = f"{DRAWN}/{name}", maskset.encode(hole), measure(hole)
        self.files[name] = data
        self.pairs.append(
            Pair(
                f"{len(self.pairs):05d}",
                image,
                name,
                category,
                round(size.hole_ratio, 6),
                size.border_distance,
                self.hashes[image],
                hashlib.sha256(data).hexdigest(),
            )
        )


def growing(
    photos: Path | None,
    masks: Path,
    growth,
    config: BenchmarkConfig,
    polarity: str = "hole-white",
    threshold: int | None = None,
    *,
    outside: Iterable[Path] = (),
) -> Drawing:
    """Pairs whose hole grows (figure 10): each mask of the smallest class, widened by every brush of growth, px.

    The grown masks are `masks/grown_05/00000.png`; a hole keeps its image as it grows. The brush is a square of that
    side, as in the augmentation of the mask's authors.
    """
    table = pairing.find_masks(masks, polarity, threshold)
    ratio = table.groupby("category", sort=False)["hole_ratio"].mean()
    small = table[table["category"] == ratio.idxmin()]
    drawn = pairing.draw_pairs(pairing.find_images(photos, outside=(masks, *outside)), small, config)
    drawing = Drawing(photos)
    for side in growth:
        for i, (image, row) in enumerate(drawn):
            hole = maskset.read_hole(masks / row["mask"], polarity=polarity, threshold=threshold)
            if side > 1:
                hole = cv2.dilate(hole.astype(np.uint8), np.ones((side, side), np.uint8)).astype(bool)
            drawing.add(image, f"grown_{side:02d}/{i:05d}.png", hole, f"grown_{side:02d}")
    return drawing


def drawn(photos: Path | None, kind: str, config: BenchmarkConfig, *, outside: Iterable[Path] = ()) -> Drawing:
    """Pairs with boxes or free-form strokes (figure 15): config.per_class holes of every class."""
    per_class = config.per_class or 1
    order = pairing.deal(pairing.find_images(photos, outside=outside), per_class * len(CATEGORIES), config.seed)
    drawing = Drawing(photos)
    for i, image in enumerate(order):
        category = CATEGORIES[i // per_class]
        hole = drawn_holes.draw(kind, category, config.size, np.random.default_rng([config.seed, 2, i]))
        drawing.add(image, f"{category}/{i:05d}.png", hole, category)
    return drawing


def enlarging(photos: Path | None, config: BenchmarkConfig, *, outside: Iterable[Path] = ()) -> list[Pair]:
    """One problem of super-resolution for each image. Raises BadInput where the size is no multiple of the factor."""
    if any(side % config.factor for side in config.size):
        raise BadInput(f"--size {config.size[0]}x{config.size[1]} is no multiple of the factor {config.factor}")
    hashes, missing = pairing.Hashes(pairing.image_folder(photos)), round(1 - 1 / config.factor**2, 6)
    return [
        Pair(f"{i:05d}", image, "", f"x{config.factor}", missing, 0, hashes[image], "")
        for i, image in enumerate(pairing.find_images(photos, outside=outside))
    ]


def export(
    pairs: list[Pair],
    sources: Sources,
    out: Path,
    config: BenchmarkConfig,
    *,
    layout: str = "folders",
    white: str = "hole",
    names: tuple[str, str] = ("images", "masks"),
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Write every pair as PNG files for another program, with all that scoring its results needs.

    layout: "folders" is `images/00000.png`, black where pixels are missing, and `masks/00000.png`; "lama" is
    `00000.png` and `00000_mask001.png` side by side. white: what white means in the masks, "hole" or "valid". The true
    images are `truth/00000.png`; `pairs.csv` names them and the masks, and the files that they were made of. names:
    what recipe.json calls the two sources. say: takes a line for the user.

    Goes on where an earlier run stopped. Raises BadInput where `out` holds pairs of other settings.
    """
    if layout not in LAYOUTS:
        raise BadInput(f"layout is one of {', '.join(LAYOUTS)}, got {layout!r}")
    settings = {"size": config.size, "per_class": config.per_class, "seed": config.seed, "layout": layout}
    settings |= {"white": white, "polarity": sources.polarity, "threshold": sources.threshold}
    recipe = {
        "made_by": "evaluate pairs",
        "settings": settings,
        "pairs": len(pairs),
        "pairs_sha256": pairing.pairs_sha256(pairs),
        "libraries": library_versions("numpy", "pillow", "opencv"),
    }
    about = {"folders": dict(zip(("images", "masks"), names, strict=True))}
    with OutputFolder(out, recipe, info=about) as folder:
        if folder.complete:
            say(folder.complete_message)
            return
        with Journal(folder.progress / "written.jsonl", "pair") as journal:
            for pair in tqdm(pairs, desc="writing pairs", unit="pair", disable=None):
                if pair.pair not in journal.rows:
                    journal.add(_written(pair, load_pair(pair, sources, config), out, layout, white))
            table = pd.DataFrame([journal.rows[pair.pair] for pair in pairs])
        files.write_whole(out / pairing.PAIRS_CSV, table.to_csv(index=False, lineterminator="\n").encode())
        folder.finish()


def _written(pair, arrays, out, layout, white):
    """Write the files of a pair. Returns its row of `pairs.csv`."""
    truth, image, hole = arrays
    given, mask = (
        (f"images/{pair.pair}.png", f"masks/{pair.pair}.png")
        if layout == "folders"
        else (f"{pair.pair}.png", f"{pair.pair}_mask001.png")
    )
    true = f"truth/{pair.pair}.png"
    images.write(out / given, image)
    data = {true: images.encode(truth, ".png"), mask: maskset.encode(hole if white == "hole" else ~hole)}
    for name, written in data.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(out / name, written)
    size = measure(hole)
    row = Pair(
        pair.pair,
        true,
        mask,
        pair.category,
        round(size.hole_ratio, 6),
        size.border_distance,
        *(hashlib.sha256(data[name]).hexdigest() for name in (true, mask)),
    )
    told = {name: getattr(pair, name) for name in ("image", "mask", "image_sha256", "mask_sha256")}
    return {**vars(row), **{f"source_{name}": value for name, value in told.items()}}
