"""Pairs of image and mask, and the run that scores every method on every pair.

Results are a pure function of the pairs and the settings. A run writes one line per pair and method into a journal,
so that it can stop anywhere; the tables are made from the journals when all are complete.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, fields
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from evaluation import metrics
from evaluation.methods import Method
from evaluation.pairs import Pair, Sources, load_pair, read_bytes
from evaluation.scoring import TRUTH, Call, Job, close_hands, fill_and_score, hand, laid_out, lay_out, score_filled
from evaluation.settings import BATCH, TOGETHER, BenchmarkConfig, ReportConfig
from evaluation.worker import Hand
from maskgen import __version__, maskset
from maskgen.categories import CATEGORIES, category, measure
from maskgen.errors import BadInput
from maskgen.runtime import files, parallel
from maskgen.runtime.output import LOCK, alone
from maskgen.settings import TESTSET

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
BEGINNINGS = (b"\x89PNG", b"\xff\xd8", b"RIFF", b"BM", b"II", b"MM")  # of files of these kinds
PHOTOS = (  # of those that scikit-image installs, the ones a camera took
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png"),
    *("gravel.png", "hubble_deep_field.jpg", "moon.png", "motorcycle_left.png", "rocket.jpg"),
)
DRAWN = "masks"  # folder in the results for masks that were made for them
OWN_MASKS = Path(__file__).parent / "data" / "masks"  # ten of each class
SHARED = ".shared"  # folder in the results for pixels on their way to the workers of a cluster
OTHER = "other"  # the class of a hole that lies outside all of the paper's


def default_masks() -> Path:
    """The masks of a run that names none: the test set in the working folder, else the small one that ships with us."""
    if (Path(TESTSET) / "test" / maskset.INDEX).is_file():
        return Path(TESTSET)
    return OWN_MASKS


def image_folder(images: Path | None) -> Path:
    """The folder of a run's images: the given one, or that of scikit-image's own photos."""
    if images is None:
        import skimage.data

        return Path(skimage.data.__file__).parent
    if not images.is_dir():
        raise BadInput(f"no such folder: {images} (expected a folder of images, PNG or JPEG)")
    return images


def find_images(images: Path | None) -> list[str]:
    """Every image below a folder in natural order, as paths relative to it; without one scikit-image's photos."""
    folder = image_folder(images)
    if images is None:
        return [name for name in PHOTOS if (folder / name).is_file()]
    found = [path for path in folder.rglob("*") if path.suffix.lower() in IMAGES and path.is_file()]
    names = [path.relative_to(folder).as_posix() for path in found]
    names = sorted((name for name in names if not name.startswith(".") and "/." not in name), key=files.natural)
    if not names:
        raise BadInput(f"no image in {folder}: expected {', '.join(IMAGES)}")
    return names


def find_masks(masks: Path, polarity: str = "hole-white") -> pd.DataFrame:
    """Every mask below a folder: `mask` (path relative to it), `category`, `hole_ratio`, `border_distance`.

    A mask set is believed its index; the masks of any other folder are measured. Masks without a hole are left out;
    a hole outside the paper's classes is in the class `other`.
    """
    if not masks.is_dir():
        raise BadInput(f"no such folder: {masks} (expected masks, `maskgen testset` makes them)")
    for split in ("test", ".", "train"):
        if (masks / split / maskset.INDEX).is_file():
            table = maskset.read_index(masks / split)
            if {"category", "hole_ratio", "border_distance"} <= set(table):
                table["mask"] = [Path(split, name).as_posix() for name in table["file_name"]]
                break
    else:
        rows = []
        for path in tqdm(maskset.find_masks(masks), desc="measuring masks", unit="mask", disable=None, leave=False):
            size = measure(maskset.read_hole(path, polarity=polarity))
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
        raise BadInput(
            f"no mask in {masks} has a hole: expected 255 where pixels are missing, or --polarity hole-black"
        )
    table["category"] = table["category"].replace("", OTHER)
    return in_order(table)


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Sort by class, the paper's in its own order before all others; within a class the order stays."""
    known = {name: i for i, name in enumerate(CATEGORIES)}
    first = dict.fromkeys(table["category"])
    rank = {name: known.get(name, len(known) + i) for i, name in enumerate(first)}
    return table.sort_values("category", key=lambda column: column.map(rank), kind="stable", ignore_index=True)


def draw_pairs(images: list[str], masks: pd.DataFrame, config: BenchmarkConfig) -> list[tuple[str, dict]]:
    """Lay every mask over one image: (image, row of masks) in the order of the masks.

    Images are dealt at random without replacement, as in section 4.3 of the paper. Where masks outnumber them they
    are dealt again and again, so that every image is used equally often, or once more than another.
    """
    choose, deal = np.random.default_rng([config.seed, 0]), np.random.default_rng([config.seed, 1])
    if config.per_class:
        kept = []
        for _, group in masks.groupby("category", sort=False):
            drawn = choose.permutation(len(group))[: config.per_class]
            kept.append(group.iloc[np.sort(drawn)])
        masks = pd.concat(kept, ignore_index=True)
    rounds = -(-len(masks) // len(images))
    order = np.concatenate([deal.permutation(len(images)) for _ in range(rounds)])[: len(masks)]
    return [(images[i], row) for i, row in zip(order, masks.to_dict("records"), strict=True)]


def make_pairs(images: Path | None, masks: Path, config: BenchmarkConfig, polarity="hole-white") -> list[Pair]:
    """Draw the pairs of two folders and name their files by their hashes. Raises BadInput for what is no image."""
    folder = image_folder(images)
    drawn = draw_pairs(find_images(images), find_masks(masks, polarity), config)
    known = {}

    def sha256(path):
        if path not in known:
            data = read_bytes(path)
            if not data.startswith(BEGINNINGS):  # told now, and not when a long run comes to it
                raise BadInput(f"{path} is not an image that can be read: remove it")
            known[path] = hashlib.sha256(data).hexdigest()
        return known[path]

    return [
        Pair(
            f"{i:05d}",
            image,
            row["mask"],
            row["category"],
            round(float(row["hole_ratio"]), 6),
            int(row["border_distance"]),
            sha256(folder / image),
            sha256(masks / row["mask"]),
        )
        for i, (image, row) in enumerate(tqdm(drawn, desc="reading pairs", unit="pair", disable=None, leave=False))
    ]


def pairs_csv(pairs: list[Pair]) -> bytes:
    """The text of `pairs.csv`."""
    return pd.DataFrame([vars(pair) for pair in pairs]).to_csv(index=False, lineterminator="\n").encode()


def read_pairs(path: Path) -> list[Pair]:
    """Read a `pairs.csv`. Raises BadInput for what is none, or names a pair twice."""
    texts = {field.name: str for field in fields(Pair) if field.type is str or field.type == "str"}
    try:
        table = pd.read_csv(path, dtype=texts, keep_default_na=False)
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or error
        raise BadInput(f"{path} is not a list of pairs that can be read: {told}") from None
    wanted = [field.name for field in fields(Pair)]
    missing = [name for name in wanted if name not in table]
    if missing or table.empty:
        raise BadInput(f"{path} has no {missing[0] if missing else 'row'}: expected a pairs.csv that evaluate wrote")
    if table["pair"].duplicated().any():
        raise BadInput(f"{path} has the pair {table['pair'][table['pair'].duplicated()].iloc[0]} twice")
    for column in ("hole_ratio", "border_distance"):
        table[column] = pd.to_numeric(table[column], errors="coerce")
        if not table[column].between(0, 2**31).all():
            raise BadInput(f"{path}: {column} is not a number in every row: make it anew with evaluate pairs")
    for row in table.itertuples():  # pair and category become names of folders and files
        plain = re.fullmatch(r"[\w.-]+", row.pair) and re.fullmatch(r"[\w.-]+", row.category)
        if not plain or not all(files.leads_inside(name) for name in (row.pair, row.category, row.image)):
            raise BadInput(f"{path}: {row.pair!r:.40} of {row.image!r:.40} is no pair as evaluate writes them")
        if row.mask and not files.leads_inside(row.mask):
            raise BadInput(f"{path}: the mask {row.mask!r:.40} leads out of the masks")
    return [Pair(**row) for row in table[wanted].to_dict("records")]


class Journal:
    """The rows of one method, one JSON line a pair, appended as they come.

    A line that a kill cut short is dropped when the journal is opened again.
    """

    def __init__(self, path: Path):
        self.path = path
        self.rows = {}
        self.file = None
        whole = 0
        data = path.read_bytes() if path.exists() else b""
        for line in data.splitlines(keepends=True):
            try:
                row = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                row = None
            if not _is_row(row, path.stem):
                break
            self.rows[row["pair"]] = row
            whole += len(line)
        if whole < len(data):
            os.truncate(path, whole)

    def forget_failures(self) -> None:
        """Drop the rows of pairs that failed, so that they are tried again."""
        kept = [row for row in self.rows.values() if not row["error"]]
        if len(kept) < len(self.rows):
            self.rows = {row["pair"]: row for row in kept}
            files.write_whole(self.path, b"".join(map(_line, kept)))

    def add(self, row: dict) -> None:
        """Append a row; it is on its way to the disk when this returns."""
        if self.file is None:
            self.file = self.path.open("ab", buffering=0)
        self.file.write(_line(row))
        self.rows[row["pair"]] = row

    def close(self) -> None:
        """End the writing, if there was any."""
        if self.file:
            self.file.close()
            self.file = None


def _is_row(row, label):
    """Whether a line of a journal is a row as we write it; from the first that is not, all are made again."""
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("pair", "error")):
        return False
    return label == TRUTH or isinstance(row.get("hole_ratio"), int | float)


def _line(row):
    return (json.dumps(row, ensure_ascii=False) + "\n").encode()


@alone("out")
def run(
    methods: list[Method],
    pairs: list[Pair],
    sources: Sources,
    out: Path,
    config: BenchmarkConfig,
    *,
    names: tuple[str, str] = ("images", "masks"),
    timeout: float = 300.0,
    workers: int | None = None,
    cluster: str | None = None,
    pictures: bool = True,
    retry: bool = False,
) -> pd.DataFrame:
    """Score the methods on the pairs and return the scores, which are in `out/scores.csv` then.

    names: what recipe.json calls the two sources. timeout: s for one image. pictures: keep each result as a JPEG.
    retry: try failed pairs again. Goes on where an earlier run stopped; methods can be added to a finished one.
    Raises BadInput where `out` holds results of other settings.
    """
    metrics.check(config.metrics)
    identities = {method.label: method.identity() for method in methods}
    methods = [method.absolute() for method in methods]
    folder, shared = (out / "pictures").absolute() if pictures else None, (out / SHARED).absolute() if cluster else None
    job = Job(tuple(methods), sources.absolute(), config, timeout, folder, ReportConfig().quality, shared)
    try:
        for method in methods:  # what cannot start is told before anything is written
            if not method.always_starts:
                hand(method, job, parallel.cores() if method.batched else 1).start()
        _settle_recipe(out, identities, pairs, config, names)
        _run(job, pairs, out, workers, cluster, retry)
    finally:
        close_hands()
    return write_scores(out, pairs)


def _run(job, pairs, out, workers, cluster, retry):
    """Fill the journals."""
    files.write_whole(out / "pairs.csv", pairs_csv(pairs))
    (out / "journal").mkdir(exist_ok=True)
    labels = [method.label for method in job.methods]
    if any(metrics.SETS[name].with_truth for name in job.config.metrics if name in metrics.SETS):
        labels.insert(0, TRUTH)
    journals = {label: Journal(out / "journal" / f"{label}.jsonl") for label in labels}
    if retry:
        for journal in journals.values():
            journal.forget_failures()
    sees = [out / maskset.RECIPE, job.sources.images / pairs[0].image, job.sources.masks / pairs[0].mask]
    spread = partial(parallel.run, workers=workers, cluster=cluster, sees=sees)
    try:
        if job.shared:
            job.shared.mkdir(exist_ok=True)
        _run_processes(job, pairs, journals, spread)
        for method in job.methods:
            if method.batched:
                _run_network(method, job, pairs, journals[method.label], spread)
    finally:
        for journal in journals.values():
            journal.close()
        if job.shared:
            shutil.rmtree(job.shared, ignore_errors=True)


def _run_processes(job, pairs, journals, spread):
    """The methods that run in many processes: each pair is read once for all of them."""
    batched = {method.label for method in job.methods if method.batched}
    labels = [label for label in journals if label not in batched]
    tasks = []
    for group in by_image(pairs):
        lacking = [(pair, tuple(label for label in labels if pair.pair not in journals[label].rows)) for pair in group]
        lacking = [(pair, missing) for pair, missing in lacking if missing]
        tasks += [lacking[first : first + TOGETHER] for first in range(0, len(lacking), TOGETHER)]
    if not tasks:
        return
    bars = {
        label: tqdm(total=len(pairs), initial=len(journals[label].rows), desc=label, unit="pair", position=i)
        for i, label in enumerate(labels)
        if len(journals[label].rows) < len(pairs)
    }
    try:
        for done in spread(Call(fill_and_score, job), tasks):
            for rows in done:
                for label, row in rows.items():
                    journals[label].add(row)
                    bars[label].update()
    finally:
        for bar in bars.values():
            bar.close()


def by_image(pairs: list[Pair]) -> list[list[Pair]]:
    """The pairs in the order in which a run goes through them: those of one image together, so that it is read once.

    Images come in the order of their first pairs. As classes are mixed then, the time left is a fair guess.
    """
    groups = {}
    for pair in pairs:
        groups.setdefault(pair.image, []).append(pair)
    return list(groups.values())


def _run_network(method, job, pairs, journal, spread):
    """A method that takes all cores or the graphics card: one process fills, the workers score."""
    lacking = [pair for group in by_image(pairs) for pair in group if pair.pair not in journal.rows]
    if not lacking:
        return
    # It runs already and was started from this thread: Linux ends it together with the thread that started it.
    tasks = _filled(hand(method, job, parallel.cores()), method.label, job, lacking)
    with tqdm(total=len(pairs), initial=len(journal.rows), desc=method.label, unit="pair") as bar:
        for rows in spread(Call(score_filled, job), tasks):
            row = rows[method.label]
            journal.add(row)
            if job.shared:
                laid_out(job, row["pair"], method.label).unlink(missing_ok=True)
            bar.update()


def _filled(network: Hand, label: str, job: Job, pairs: list[Pair]) -> Iterator[tuple]:
    for first in range(0, len(pairs), BATCH):
        batch = pairs[first : first + BATCH]
        results = network.fill([(pair.pair, *load_pair(pair, job.sources, job.config)[1:]) for pair in batch])
        for pair, result in zip(batch, results, strict=True):
            yield lay_out(job, pair, label, result)


def _settle_recipe(out, identities, pairs, config, names):
    """Write recipe.json, or compare with the one that is there and add the new methods."""
    recipe = {
        "settings": asdict(config),
        "sources": {
            "images": names[0],
            "masks": names[1],
            "pairs": len(pairs),
            "pairs_sha256": hashlib.sha256(pairs_csv(pairs)).hexdigest(),
        },
        "libraries": _libraries(config),
        "methods": identities,
    }
    recipe = json.loads(json.dumps(recipe))  # tuples to lists, as they will be read back
    if (out / maskset.RECIPE).exists():
        old = maskset.read_recipe(out)
        if not all(isinstance(old.get(key), dict) for key in recipe) or not all(
            isinstance(identity, dict) for identity in old["methods"].values()
        ):
            raise BadInput(f"{out / maskset.RECIPE} is no recipe of evaluate: use another --out, or delete {out}")
        files.remove_parts(out)
        # The folders may have other names now: the hash of the pairs tells whether their files are the same.
        same = ("pairs", "pairs_sha256")
        differences = [
            *_differences("", {"version": old.get("version")}, {"version": __version__}),
            *_differences("", old.get("settings", {}), recipe["settings"]),
            *_differences("", *({key: told["sources"].get(key) for key in same} for told in (old, recipe))),
            *_differences("", old.get("libraries", {}), recipe["libraries"]),
        ]
        for label, identity in recipe["methods"].items():
            differences += _differences(f"{label}: ", old["methods"].get(label, identity), identity)
        if differences:
            raise BadInput(
                f"{out} holds results of another run ({'; '.join(differences)}): "
                "use the same settings, another --out, or delete it"
            )
        recipe["sources"] = old["sources"]
        recipe["methods"] = {**old["methods"], **recipe["methods"]}
    elif out.is_dir() and any(path.name not in (DRAWN, LOCK) for path in out.iterdir()):
        raise BadInput(
            f"{out} is not empty and holds no {maskset.RECIPE}: expected results of evaluate, or a new folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    maskset.write_recipe(out, recipe)


def _differences(where, old, new):
    return [
        f"{where}{key} was {old.get(key, 'not there')}, now {new.get(key, 'not there')}"
        for key in {**old, **new}
        if old.get(key) != new.get(key)
    ]


def _libraries(config):
    """Versions of what computes the numbers."""
    found = {}
    for name in ("numpy", "opencv-python", "scikit-image", *metrics.libraries(config.metrics)):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = cv2.__version__ if name == "opencv-python" else "not there"
    return found


def set_scores(out: Path, pairs: list[Pair]) -> pd.DataFrame:
    """The metrics of sets: metric, method, category, n, mean (the set's value); one row for a class and a method.

    Only pairs that the method has filled count, and the true images of the same pairs stand against them.
    """
    recipe, rows = maskset.read_recipe(out), []
    names = [name for name in recipe["settings"]["metrics"] if name in metrics.SETS]
    truths = Journal(out / "journal" / f"{TRUTH}.jsonl").rows if names else {}
    for label in recipe["methods"] if names else []:
        done = Journal(out / "journal" / f"{label}.jsonl").rows
        if not all(pair.pair in done for pair in pairs):
            continue
        for category_ in dict.fromkeys(pair.category for pair in pairs):
            kept = [pair.pair for pair in pairs if pair.category == category_ and not done[pair.pair]["error"]]
            for name in names:
                row = metrics.SETS[name]
                results = [metrics.vector(done[pair][row.vector]) for pair in kept]
                true = [metrics.vector(truths[pair][row.vector]) for pair in kept] if row.with_truth else None
                value = row.function(np.array(results), np.array(true)) if kept else np.nan
                rows.append({"metric": name, "method": label, "category": category_, "n": len(kept), "mean": value})
    return pd.DataFrame(rows)


def write_scores(out: Path, pairs: list[Pair]) -> pd.DataFrame:
    """Gather the journals of all methods that are through into `scores.csv`: one row for a method and a pair."""
    names = maskset.read_recipe(out)["settings"]["metrics"]
    rows = []
    for label in maskset.read_recipe(out)["methods"]:
        done = Journal(out / "journal" / f"{label}.jsonl").rows
        if all(pair.pair in done for pair in pairs):
            for pair in pairs:
                row = done[pair.pair]
                values = {name: row.get(name, np.nan) for name in names if name in metrics.METRICS}
                told = {"method": label, "pair": pair.pair, "category": pair.category, "image": pair.image}
                rows.append({**told, "hole_ratio": row["hole_ratio"], **values, "error": row["error"]})
    table = pd.DataFrame(rows)
    files.write_whole(out / "scores.csv", table.to_csv(index=False, lineterminator="\n").encode())
    return table
