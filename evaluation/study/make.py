"""Make a study from results of `evaluate`: draw its trials and copy its pictures."""

import hashlib
import itertools
import shutil
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from evaluation.benchmark import TRUTH
from evaluation.listed import read_pairs
from evaluation.masks import in_order
from evaluation.pairing import image_folder
from evaluation.pairs import fit, jpeg
from evaluation.settings import BUILT_IN, NATIVE, Size
from evaluation.study import store
from evaluation.study.settings import PARTS, StudyConfig
from maskgen import maskset
from maskgen.errors import BadInput
from maskgen.runtime import files, images
from maskgen.runtime.output import OutputFolder
from maskgen.runtime.recipe import library_versions

SPOILT = "spoilt"  # label, among the methods, of a true image with coloured blots: the wrong answer of a catch trial
LARGEST = 2**14  # px, side of a result; a recipe with a larger one was not written by evaluate
PRACTICE = 2  # trials of each part that do not count, at the beginning


@dataclass
class Item:
    """One pair of image and mask, with the paths of the methods' results."""

    image: Path
    image_sha256: str
    size: Size
    category: str
    hole_ratio: float
    results: dict[str, Path] = field(default_factory=dict)  # by method
    hashes: dict[str, str] = field(default_factory=dict)  # SHA-256 of these files


def make(
    results: list[Path],
    out: Path,
    config: StudyConfig,
    photos: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict:
    """Write a study to the folder `out` and return its counts. The same results and settings give the same trials.

    results: folders written by `evaluate`. photos: folder of the photos, if not that in the recipe of the results. say:
    called with a line for the user. A complete study is not changed. Raises BadInput for results without pictures, for
    methods without a common pair, and if `out` holds another study.
    """
    items, methods, sources = gather(results, photos)
    if config.reference and config.reference not in methods:
        raise BadInput(f"no method {config.reference} in the results: expected one of {', '.join(methods)}")
    if "unlimited" in config.parts and len(methods) < 2:
        raise BadInput(f"a comparison needs two methods, got only {methods[0]}: name more results, or --part limited")
    trials, equal = draw(items, methods, config)
    counts = {
        "pairs": len(items),
        **{part: sum(trial["kind"] == part for trial in trials) for part in config.parts},
        "answers_wanted": sum(trial["open"] for trial in trials),
        "left_out_as_equal": equal,
    }
    recipe = {
        "made_by": "evaluate study make",
        "settings": asdict(config),
        "methods": methods,  # in the order of the comparisons
        "sources": sources,
        "libraries": library_versions("numpy", "opencv"),
    }
    with OutputFolder(out, recipe, explain=lambda: store.answers_note(out)) as folder:
        if folder.complete:
            say(folder.complete_message)
        else:
            _write_study(out, items, trials, methods, config)
            folder.finish(counts=counts)
    return counts


def _write_study(out, items, trials, methods, config):
    """Write the pictures, `trials.csv` and the database. An existing database is never overwritten."""
    try:
        write_pictures(out, items, trials, config)
    except BadInput:  # a photo is missing: leave the folder empty for the corrected command
        shutil.rmtree(out / store.PICTURES, ignore_errors=True)
        raise
    columns = [name for name in store.TRIAL if not name.endswith("_picture")]
    table = pd.DataFrame(trials)[[*columns, "rank"]]
    files.write_whole(out / "trials.csv", table.to_csv(index=False, lineterminator="\n").encode())
    if not (out / store.DATABASE).exists():
        store.create(out, trials, {**asdict(config), "methods": methods})


def gather(folders: list[Path], photos: Path | None) -> tuple[list[Item], list[str], list[dict]]:
    """Read result folders. Returns their items, the names of the methods, and a recipe entry for each folder.

    The same image and mask at the same size in two folders are one item, so methods of separate runs can be compared.
    Raises BadInput if a folder holds no finished results, or lacks pictures or photos.
    """
    items, identities, sources = {}, {}, []
    for folder, name in zip(folders, _unique_names(folders), strict=True):
        recipe, pairs = maskset.read_recipe(folder), read_pairs(folder / "pairs.csv")
        try:
            scores = pd.read_csv(folder / "scores.csv", dtype={"pair": str}, keep_default_na=False)
            size, where = _size_in(recipe), str(recipe["folders"]["images"])
            reading = (recipe["settings"].get(key) for key in ("polarity", "threshold"))
            preparation = (size, int(recipe["settings"].get("factor", 0)), bool(recipe["settings"]["raw"]), *reading)
            done = {label: recipe["methods"][label] for label in scores["method"]}
            errors = {(row["method"], row["pair"]): row["error"] for row in scores.to_dict("records")}
            failed = {(label, pair.pair) for label in done for pair in pairs if errors[label, pair.pair]}
            entry = {"version": recipe["version"], "pairs_sha256": recipe["sources"]["pairs_sha256"], "methods": done}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInput(
                f"{folder} holds no finished results ({type(error).__name__}: {error}): run evaluate again, it resumes"
            ) from None
        place = photos or (image_folder(None) if where == BUILT_IN else Path(where))
        if not place.is_dir():
            raise BadInput(
                f"the photos of {folder} were in {where}, which does not exist: name their folder with --images"
            )
        for label in done:
            if identities.setdefault(label, done[label]) != done[label]:
                raise BadInput(f"{label} stands for different methods in {' and '.join(map(str, folders))}: rename one")
        digests = defaultdict(hashlib.sha256)
        for pair in pairs:
            key = (pair.image_sha256, pair.mask_sha256, *preparation)
            item = items.get(key)
            if item is None:
                item = Item(place / pair.image, pair.image_sha256, size, pair.category, float(pair.hole_ratio))
                items[key] = item
            for label in (label for label in done if (label, pair.pair) not in failed):
                path = folder / "pictures" / label / pair.category / f"{pair.pair}.jpg"
                sha256 = _sha256_of_picture(path, label)
                digests[label].update(f"{pair.pair} {sha256}\n".encode())
                if label not in item.results:
                    item.results[label], item.hashes[label] = path, sha256
        pictures = {label: digest.hexdigest() for label, digest in digests.items()}
        sources.append({"name": name, **entry, "pictures": pictures})
    if not identities:
        raise BadInput(f"no method in {' '.join(map(str, folders))} is finished: run evaluate again, it resumes")
    return list(items.values()), list(identities), sources


def _size_in(recipe):
    """The size of the images in a recipe. Raises ValueError where it is none."""
    size = recipe["settings"]["size"]
    if size == NATIVE:
        return NATIVE
    if len(size) != 2 or not all(type(side) is int and 0 < side <= LARGEST for side in size):
        raise ValueError(f"its size is {size}")
    return tuple(size)


def _unique_names(folders):
    """The names of the folders; equal ones are numbered."""
    names = [folder.absolute().name for folder in folders]
    return [name if (n := names[:i].count(name)) == 0 else f"{name}-{n + 1}" for i, name in enumerate(names)]


def _sha256_of_picture(path, label):
    if not path.is_file():
        raise BadInput(f"no {path}: a study needs the pictures of {label}, run evaluate again with --pictures")
    return files.sha256(path)


def draw(items: list[Item], methods: list[str], config: StudyConfig) -> tuple[list[dict], int]:
    """The trials, those that count first, and the number of those left out because both results are the same file."""
    order = in_order(pd.DataFrame({"category": [item.category for item in items], "item": range(len(items))}))
    classes = [(name, group["item"].tolist()) for name, group in order.groupby("category", sort=False)]
    comparisons = [
        (one, other) for one, other in itertools.combinations(methods, 2) if config.reference in ("", one, other)
    ]
    trials, equal = [], 0
    for k, (category, group) in enumerate(classes):
        for part, pairs in (("unlimited", comparisons), ("limited", [(method, TRUTH) for method in methods])):
            for m, (a, b) in enumerate(pairs if part in config.parts else ()):
                usable = [i for i in group if a in items[i].results and (b == TRUTH or b in items[i].results)]
                same = [i for i in usable if b != TRUTH and items[i].hashes[a] == items[i].hashes[b]]
                usable, equal = [i for i in usable if i not in set(same)], equal + len(same)
                rng = np.random.default_rng([config.seed, 0, PARTS.index(part), k, m])
                for i in np.sort(rng.permutation(len(usable))[: config.per_class]):
                    for exposure in config.exposures if part == "limited" else (0,):
                        trials.append(_trial(part, part, items, usable[i], category, a, b, exposure, config.answers))
    if not trials:
        raise BadInput(f"the methods {', '.join(methods)} have no pair in common: expected results of the same pairs")
    trials += _catch_and_practice_trials(items, config)
    ranks = _stratified_ranks(trials, np.random.default_rng([config.seed, 1]))
    return [{**trial, "rank": int(rank)} for trial, rank in zip(trials, ranks, strict=True)], equal


def _stratified_ranks(trials, rng):
    """Ranks of a random order in which each section has its share of each class, comparison and exposure."""
    table = pd.DataFrame(trials).groupby(["kind", "part", "category", "a", "b", "exposure"], sort=False)
    keys = np.empty(len(trials))
    for places in table.indices.values():
        keys[places] = (rng.permutation(len(places)) + rng.random(len(places))) / len(places)
    return keys.argsort().argsort()


def _trial(kind, part, items, i, category, a, b, exposure, answers):
    item = items[i]
    trial = {"kind": kind, "part": part, "category": category, "pair": f"{i:05d}", "image": item.image_sha256}
    return {**trial, "hole_ratio": item.hole_ratio, "a": a, "b": b, "exposure": int(exposure), "open": answers}


def _catch_and_practice_trials(items, config):
    """A true image against itself with blots. In the limited part these trials have the longest exposure."""
    rng, trials = np.random.default_rng([config.seed, 3]), []
    for part in config.parts:
        for kind, count in (("practice", PRACTICE), ("catch", 2 * config.catches)):
            for i in rng.permutation(len(items))[:count].tolist():
                exposure = max(config.exposures) if part == "limited" else 0
                trials.append(_trial(kind, part, items, i, items[i].category, TRUTH, SPOILT, exposure, 0))
    return trials


def spoil(image: np.ndarray, rng) -> np.ndarray:
    """Draw coloured blots on an image, so that nobody takes it for a photo. uint8 (H, W, 3) -> the same."""
    spoilt, (height, width) = image.copy(), image.shape[:2]
    colours = ((230, 0, 200), (0, 220, 60), (0, 90, 255), (255, 230, 0), (240, 30, 20))
    for i in rng.permutation(len(colours)):
        centre = int(rng.uniform(0.2, 0.8) * width), int(rng.uniform(0.2, 0.8) * height)
        axes = int(rng.uniform(0.08, 0.2) * width), int(rng.uniform(0.08, 0.2) * height)
        cv2.ellipse(spoilt, centre, axes, float(rng.uniform(0, 180)), 0, 360, colours[i], -1)
    return spoilt


def write_pictures(out: Path, items: list[Item], trials: list[dict], config: StudyConfig) -> None:
    """Copy the pictures of all trials to `out/pictures`, named by their content, and add these names to the trials.

    True images are encoded as JPEG in the same way as results, so that the files do not reveal which is which.
    """
    made = {}

    def picture(i, label):
        if (i, label) not in made:
            item = items[i]
            data = (
                item.results[label].read_bytes() if label in item.results else _true_image(item, label, config.seed, i)
            )
            name = hashlib.sha256(data).hexdigest()[:32]
            path = out / store.PICTURES / name[:2] / f"{name}.jpg"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                files.write_whole(path, data)
            made[i, label] = name
        return made[i, label]

    for trial in tqdm(trials, desc="pictures", unit="trial", disable=None):
        i = int(trial["pair"])
        trial["a_picture"], trial["b_picture"] = picture(i, trial["a"]), picture(i, trial["b"])


def _true_image(item, label, seed, i):
    """The true image of an item as JPEG, with blots if the label is SPOILT."""
    try:
        data = images.read_bytes(item.image)
        if hashlib.sha256(data).hexdigest() != item.image_sha256:
            raise BadInput(f"{item.image} is not the photo of the results, its SHA-256 differs")
        image = images.decode_rgb(data, item.image)
        image = image if item.size == NATIVE else fit(image, item.size)
    except BadInput as error:
        raise BadInput(f"a study needs the true images: {error}; name their folder with --images") from None
    return jpeg(spoil(image, np.random.default_rng([seed, 4, i])) if label == SPOILT else image)
