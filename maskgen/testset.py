"""Fill the 6x2 classes of the paper's test set out of raw masks."""

import functools
import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from maskgen.augment import Wanted, compose
from maskgen.categories import CATEGORIES, clipped
from maskgen.errors import BadInput
from maskgen.maskset import (
    INDEX,
    RECIPE,
    Masks,
    credit_lines,
    describe,
    encode,
    read_hole,
    read_index,
    read_recipe,
    split_of,
    write_index,
    write_recipe,
)
from maskgen.runtime import parallel
from maskgen.runtime.files import read_rows, remove_parts, write_checksums, write_whole
from maskgen.runtime.output import alone, occupied
from maskgen.settings import BORDER, EDGES, PRESETS, SIZE, FillConfig

JOURNAL = "made.jsonl"  # rows of the masks that are there already; goes when the index is written
CREDITS = "CREDITS.md"
BATCH = 20  # masks that one worker makes at a time
THUMB = 32  # px, side of the thumbnails by which masks are compared


@dataclass(frozen=True)
class Task:
    """One mask to be made."""

    category: int  # place in CATEGORIES
    number: int  # within the class
    ratio: float  # hole pixels / all pixels
    rank: int  # the raw mask to begin with, its place in the order of hole size
    attempt: int = 0  # how often this mask had come out too much like another

    @property
    def file_name(self) -> str:
        return f"{CATEGORIES[self.category]}/{self.number:05d}.png"


@alone("out")
def make_testset(
    raw: Path, out: Path, config: FillConfig, *, workers: int | None = None, cluster: str | None = None
) -> dict:
    """Make `out`, a mask set whose `test` part has config.per_category masks of each of the twelve classes.

    raw: a mask set, of which the `test` part is used, or a folder of masks with an index. Goes on where an
    interrupted run stopped. Returns the recipe. Raises BadInput if raw masks cannot fill a class, or if `out` was
    begun with other settings or raw masks.
    """
    names, digest = raw_masks(split_of(raw, "test"))
    settings = {**asdict(config), "preset_values": asdict(PRESETS[config.preset]), "raw_masks": len(names)}
    head = json.loads(json.dumps({"settings": settings, "raw_sha256": digest}))
    done = _begin(out, head)
    tasks = plan(config, len(names))
    source = (str(split_of(raw, "test").absolute()), digest)
    rows = _make(tasks, done, out, config, source, workers, cluster)
    rows, closest = _tell_apart(tasks, rows, out, config, source, workers, cluster)
    return _finish(out, rows, head, raw, names, closest)


def raw_masks(folder: Path) -> tuple[list[str], str]:
    """Names of the raw masks, and a hash of all their bytes' hashes."""
    table, names, _ = _raw_table(str(folder.resolve()))
    told = "\n".join(f"{name} {sha}" for name, sha in zip(table["file_name"], table["sha256"], strict=True))
    return names, hashlib.sha256(told.encode()).hexdigest()


@functools.lru_cache(maxsize=2)
def _raw_table(folder: str):
    table = read_index(Path(folder))
    missing = [column for column in ("hole_ratio", "sha256") if column not in table]
    if missing or table.empty:
        raise BadInput(
            f"{folder}/{INDEX} has {'no masks' if table.empty else 'no column ' + missing[0]}: expected raw masks, "
            f"made by `maskgen extract videos/` or indexed by `maskgen bin FOLDER --out OTHER`"
        )
    by_size = np.argsort(table["hole_ratio"].to_numpy(), kind="stable")
    return table, table["file_name"].tolist(), by_size


def plan(config: FillConfig, raws: int) -> list[Task]:
    """What every mask shall be: ratios evenly over each class, raw masks evenly over all masks.

    Each interval is cut into as many steps as there are masks and a ratio drawn from each. Masks and raw masks are
    then paired by size, with some disorder, so that every raw mask begins the same number of masks, give or take
    one, and small ones do not have to become large holes.
    """
    number = config.per_category
    size = config.size**2
    ratios = np.empty((len(CATEGORIES), number))
    for c in range(len(CATEGORIES)):
        rng = np.random.default_rng([config.seed, c])
        low, high = EDGES[c % 6], EDGES[c % 6 + 1]
        counts = np.floor((high - (high - low) * (np.arange(number) + rng.uniform(0, 1, number)) / number) * size)
        ratios[c] = rng.permutation(np.clip(counts, np.floor(low * size) + 1, np.floor(high * size)) / size)
    rng = np.random.default_rng([config.seed, len(CATEGORIES)])
    total = ratios.size
    places = np.concatenate([rng.permutation(raws) for _ in range(-(-total // raws))])[:total]
    noisy_places = np.sort(places)  # raw masks, by size, each as often as any other
    order = np.argsort(ratios.ravel() * np.exp(rng.normal(0, 0.5, total)), kind="stable")
    ranks = np.empty(total, int)
    ranks[order] = noisy_places
    return [
        Task(c, k, float(ratios[c, k]), int(ranks[c * number + k]))
        for c in range(len(CATEGORIES))
        for k in range(number)
    ]


def _begin(out, head):
    """Rows by file name of the masks an earlier run has left in `out`; writes the journal's first line."""
    journal = out / "test" / JOURNAL
    advice = f"remove {out}, or name another folder"
    if not journal.exists():
        if (out / RECIPE).exists():
            recipe = read_recipe(out)
            if {key: recipe.get(key) for key in head} != head:
                raise BadInput(f"{out} holds masks made from other raw masks or with other settings: {advice}")
            rows = list(filter(_is_row, read_rows(out / "test" / INDEX)))
            write_whole(journal, "".join(json.dumps(line) + "\n" for line in [head, *rows]).encode())
            return {row["file_name"]: row for row in rows}
        if occupied(out):
            raise BadInput(f"{out} is not empty and holds no test set: {advice}")
        journal.parent.mkdir(parents=True, exist_ok=True)
        write_whole(journal, (json.dumps(head) + "\n").encode())
        return {}
    remove_parts(out)
    lines = journal.read_text(errors="replace").splitlines(keepends=True)
    first, *rows = map(_parsed, lines) if lines else (None,)
    if first != head:
        raise BadInput(f"{out} was begun from other raw masks or with other settings: {advice}")
    good = [row for row in rows if _is_row(row)]  # the last may have been cut off by a kill
    if len(good) < len(rows):
        write_whole(journal, "".join(json.dumps(line) + "\n" for line in [head, *good]).encode())
    return {row["file_name"]: row for row in good}


def _parsed(line):
    try:
        return json.loads(line) if line.endswith("\n") else None
    except ValueError:
        return None


def _is_row(row):
    """Whether a line of the journal or the index is a row as we write it; where it is not, its mask is made again."""
    try:
        numbers = int(row["attempt"]), int(row["border_distance"]), float(row["clipped"]), float(row["hole_ratio"])
        texts = [row[key] for key in ("file_name", "category", "sha256", "source", "raw")]
        return all(isinstance(text, str) for text in texts) and numbers == numbers  # NaN is not
    except (KeyError, TypeError, ValueError):
        return False


def _make(tasks, done, out, config, source, workers, cluster):
    """Rows of all tasks, by file name; makes the masks that are missing or changed."""
    folder = out / "test"
    rows = {}
    missing = []
    for task in tasks:
        row = done.get(task.file_name)
        if row and int(row["attempt"]) >= task.attempt and _is_there(folder, row):
            rows[task.file_name] = row
        else:
            missing.append(task)
    if not missing:
        return rows
    for name in CATEGORIES:
        (folder / name).mkdir(parents=True, exist_ok=True)
    batches = [missing[i : i + BATCH] for i in range(0, len(missing), BATCH)]
    job = functools.partial(_make_batch, source=source, folder=str(folder.absolute()), config=config)
    sees = (Path(source[0]) / INDEX, folder / JOURNAL)
    with (folder / JOURNAL).open("a") as journal, tqdm(total=len(missing), unit="mask", desc="testset") as bar:
        for made in parallel.run(job, batches, workers=workers, cluster=cluster, sees=sees):
            journal.writelines(json.dumps(row) + "\n" for row in made)
            journal.flush()
            rows.update((row["file_name"], row) for row in made)
            bar.update(len(made))
    return rows


def _is_there(folder, row):
    try:
        return hashlib.sha256((folder / row["file_name"]).read_bytes()).hexdigest() == row["sha256"]
    except OSError:
        return False


def _make_batch(tasks, source, folder, config):
    rows = []
    for task in tasks:
        hole, told = make_one(task, source, config)
        data = encode(hole)
        write_whole(Path(folder) / task.file_name, data)
        rows.append({**describe(hole, task.file_name, data), **told})
    return rows


@functools.lru_cache(maxsize=1)
def _opened(folder: str, digest: str):
    table, names, by_size = _raw_table(folder)
    raw = Masks(Path(folder), keep=True)
    place = {name: i for i, name in enumerate(raw.names)}
    missing = next((name for name in names if name not in place), None)
    if missing:
        raise BadInput(f"{folder}/{INDEX} lists {missing}, which is not there: make the raw masks anew")
    return raw, table, [place[name] for name in names], by_size


def make_one(task: Task, source: tuple[str, str], config: FillConfig) -> tuple[np.ndarray, dict]:
    """Make the mask of one task. Returns the hole, bool (size, size), and what its row tells beside the measures.

    source: folder of the raw masks and their hash, as `raw_masks` gives it. Raises BadInput if no draw succeeds.
    """
    raw, table, places, by_size = _opened(*source)
    preset = PRESETS[config.preset]
    border = BORDER if task.category < len(EDGES) - 1 else 0
    wanted = Wanted(round(task.ratio * config.size**2), config.size, border, config.layers, config.shrink)
    for draw in range(4 * preset.attempts):
        rng = np.random.default_rng([config.seed, task.category, task.number, task.attempt, draw])
        used = {}

        def pick(layer, draw=draw, rng=rng, used=used):
            rank = task.rank
            if layer >= config.layers or draw >= preset.attempts:
                rank = rng.integers(len(places))
            elif layer > 0 or draw >= 10:  # others of about the same size
                rank = _reflect(round(task.rank + rng.normal(0, 0.15) * len(places)), len(places))
            used[layer] = int(by_size[rank])
            return raw[places[used[layer]]]

        made = compose(pick, wanted, preset, rng)
        if made is None:
            continue
        hole, told = made
        row = describe(hole, "", b"")
        if row["category"] != CATEGORIES[task.category]:
            continue  # a free mask that keeps away from the border by chance would count as interior
        return hole, _row(task, table, [(used[layer], pose) for layer, pose in told["layers"]], told, hole, config)
    raise BadInput(
        f"no raw mask could be made into {CATEGORIES[task.category]} with the ratio {task.ratio:.3f}: extract more raw "
        f"masks, or such with {'larger' if task.ratio > 0.3 else 'other'} motion"
    )


def _reflect(place: int, length: int) -> int:
    """Fold a place beyond either end back, so that the ends are not drawn more often than the rest."""
    place = abs(place) % (2 * length)
    return place if place < length else 2 * length - 1 - place


def _row(task, table, layers, told, hole, config):
    first = table.iloc[layers[0][0]]
    sources = sorted({str(table.iloc[i]["source"]) for i, _ in layers}) if "source" in table else [""]
    return {
        "source": ";".join(sources),
        "frame": str(first.get("frame", "")),
        "kind": str(first.get("kind", "")),
        "raw": ";".join(str(table.iloc[i]["file_name"]) for i, _ in layers),
        "layers": len(layers),
        "dilation": told["dilation"],
        "rotation": ";".join(f"{pose.angle:.1f}" for _, pose in layers),
        "zoom": ";".join(f"{pose.zoom:.3f}" for _, pose in layers),
        "clipped": f"{clipped(hole):.4f}",
        "seed": f"{config.seed} {task.category} {task.number}",
        "attempt": task.attempt,
    }


def _tell_apart(tasks, rows, out, config, source, workers, cluster):
    """Make anew the later one of any two masks that are alike, until none are. Returns rows and the closest pair."""
    from dataclasses import replace

    tasks = list(tasks)
    for _ in range(5):
        names = [task.file_name for task in tasks]
        tasks = [replace(task, attempt=int(rows[task.file_name]["attempt"])) for task in tasks]
        later, closest = alike([out / "test" / name for name in names], config.alike)
        if not later:
            return [rows[name] for name in names], closest
        for i in later:
            tasks[i] = replace(tasks[i], attempt=tasks[i].attempt + 1)
        rows = _make(tasks, rows, out, config, source, workers, cluster)
    raise BadInput(
        f"{len(later)} masks look like others however often they are drawn: {source[0]} has too few raw masks"
    )


def alike(paths: list[Path], limit: float) -> tuple[list[int], float]:
    """Which masks are too much like an earlier one, and the highest likeness of two that are not.

    Likeness is the correlation of two thumbnails of 32x32 px, each the share of hole in its part of the mask; of
    interior masks, whose rim is always valid, only what lies inside it is compared.
    """
    later, closest = [], 0.0
    inside = np.array([path.parent.name.startswith("interior") for path in paths])
    rim = THUMB * BORDER // SIZE
    for part, cut in ((np.flatnonzero(inside), slice(rim, THUMB - rim)), (np.flatnonzero(~inside), slice(None))):
        if len(part):
            found, highest = _correlated(np.stack([_thumb(paths[i])[cut, cut].ravel() for i in part]), limit)
            later += part[found].tolist()
            closest = max(closest, highest)
    return sorted(later), closest


def _correlated(flat: np.ndarray, limit: float) -> tuple[list[int], float]:
    """Rows that correlate with an earlier one by `limit` or more, and the highest correlation below it."""
    flat = flat - flat.mean(1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    later, closest = [], 0.0
    for begin in range(0, len(flat), 1000):  # a thousand rows at a time, or the table would fill the memory
        block = np.tril(flat[begin : begin + 1000] @ flat[: begin + 1000].T, begin - 1)
        later += (begin + np.flatnonzero((block >= limit).any(1))).tolist()
        closest = max(closest, float(block[block < limit].max(initial=0)))
    return later, closest


def _thumb(path):
    import cv2

    grey = read_hole(path).astype(np.float32)
    return cv2.resize(grey, (THUMB, THUMB), interpolation=cv2.INTER_AREA)


def _finish(out, rows, head, raw, names, closest):
    recipe = {**head, **summary(rows, len(names)), "closest_pair": round(closest, 3)}
    recipe["sources"] = _sources(raw, rows)
    write_index(out / "test", rows)
    write_recipe(out, recipe)
    credits = f"The masks come from these videos:\n\n{credit_lines(recipe['sources'])}\n"
    write_whole(out / CREDITS, credits.encode())
    (out / "test" / JOURNAL).unlink()
    write_checksums(out)
    return recipe


def _sources(raw, rows):
    """The videos of the raw masks, with what the raw masks' recipe knows of their licence."""
    used = {name for row in rows for name in row["source"].split(";")}
    for folder in (raw, raw.parent):
        if (folder / RECIPE).exists():
            return [source for source in read_recipe(folder).get("sources", []) if source.get("name") in used]
    return [{"name": name} for name in sorted(used) if name]


def summary(rows: list[dict], raws: int) -> dict:
    """Counts that a reader of the test set wants: masks a class, free ones on the edge, use of raw masks, clipping."""
    first = Counter(row["raw"].split(";")[0] for row in rows)
    every = Counter(name for row in rows for name in row["raw"].split(";"))
    by_class = {name: [row for row in rows if row["category"] == name] for name in CATEGORIES}
    return {
        "counts": {name: len(found) for name, found in by_class.items()},
        "free_touching_the_edge": sum(
            row["category"].startswith("free") and int(row["border_distance"]) == 0 for row in rows
        ),
        "raw_masks_used": len(every),
        "masks_begun_by_one_raw_mask": [min(first.values()) if len(first) == raws else 0, max(first.values())],
        "masks_that_use_one_raw_mask": [min(every.values()) if len(every) == raws else 0, max(every.values())],
        "clipped": {
            name: {
                "mean": round(float(np.mean([float(row["clipped"]) for row in found])), 4),
                "max": round(float(max(float(row["clipped"]) for row in found)), 4),
            }
            for name, found in by_class.items()
            if found and name.startswith("interior")
        },
    }
