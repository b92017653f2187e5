"""A run: every method on every pair, one journal line for each, and `scores.csv` from the journals.

Results depend only on the pairs and the settings. A run that stops anywhere is resumed from its journals; the tables
are made when all journals are complete.
"""

import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from evaluation import metrics
from evaluation.listed import PAIRS_CSV, changes, pairs_csv, pairs_sha256
from evaluation.methods import Method
from evaluation.pairs import Pair, Sources
from evaluation.scoring import (
    TRUTH,
    Call,
    Job,
    close_processes,
    fill_and_score,
    fill_batches,
    picture_file,
    process_of,
    shared_file,
    started_methods,
)
from evaluation.settings import TOGETHER, BenchmarkConfig, ReportConfig
from maskgen import maskset
from maskgen.errors import BadInput, warn
from maskgen.runtime import files, parallel
from maskgen.runtime.journal import Journal
from maskgen.runtime.output import PROGRESS, OutputFolder
from maskgen.runtime.recipe import RECIPE, library_versions

DRAWN = "masks"  # folder in the results for masks that were drawn for them
JOURNALS = "journal"
PARTS = ("_hole", "_outside")  # endings of metrics of a part of the image
SHARED = "shared"  # folder in the progress for results on their way to the workers of a cluster


def run(
    methods: list[Method],
    pairs: list[Pair],
    sources: Sources,
    out: Path,
    config: BenchmarkConfig,
    *,
    names: tuple[str, str] = ("images", "masks"),
    experiment: dict | None = None,
    identities: dict[str, dict] | None = None,
    drawn: dict[str, bytes] | None = None,
    timeout: float = 300.0,
    workers: int | None = None,
    cluster: str | None = None,
    pictures: bool = True,
    retry: bool = False,
    report: Callable[[pd.DataFrame], None] = lambda scores: None,
    say: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """Score the methods on the pairs and return the scores, which are also in `out/scores.csv`.

    names: what recipe.json calls the two sources. experiment: its name as `made_by`, and its settings. identities:
    `Method.identity` of each method by its label, if known. drawn: mask files to write below `out`, by name. timeout:
    s for one image. pictures: keep each result as a JPEG. retry: try failed pairs again. report: writes the tables from
    the scores, before recipe.json marks the folder as complete. say: takes a line for the user.

    Resumes an interrupted run; methods can be added to finished results. A method without any score is tried again, and
    so is a Python function. Raises BadInput where `out` holds results of other settings.
    """
    metrics.check(config.metrics, config.common_size, composited=not config.raw)
    _check_classes(config, pairs)
    identities = identities or {method.label: method.identity() for method in methods}
    methods = [method.absolute() for method in methods]
    with results_folder(identities, pairs, sources, out, config, names=names, experiment=experiment) as folder:
        shared = (folder.progress / SHARED).absolute() if cluster else None
        kept = (out / "pictures").absolute() if pictures else None
        job = Job(tuple(methods), sources.absolute(), config, timeout, kept, ReportConfig().quality, shared)
        journals = _open_journals(folder, job, pairs, retry)
        unfinished = {label for label, journal in journals.items() if len(journal.rows) < len(pairs)}
        if folder.complete and not unfinished:
            say(folder.complete_message)
        else:
            if folder.complete:
                folder.reopen()
            try:
                many = bool(cluster) or (workers or parallel.cores()) > 1
                job = replace(job, methods=started_methods(job, unfinished, many=many))
                write_inputs(out, pairs, drawn or {})
                (out / JOURNALS).mkdir(exist_ok=True)
                _fill_journals(job, pairs, journals, workers, cluster, folder.recipe_file)
            finally:
                close_processes()
                if any(method.kind in ("serve", "py") and not method.serial for method in job.methods):
                    parallel.end_workers()  # which would keep a model each for the next run
        scores = write_scores(out, pairs)
        empty = scores[(scores["hole_ratio"] == 0) & (scores["error"] == "")]["pair"].unique()
        if len(empty):
            size = config.common_size
            where = f"{size[0]} x {size[1]} px" if size else "the size of their image"
            warn(f"{len(empty)} masks have no hole left at {where}, as of {empty[0]}")
        _warn_of_small_images(scores, config)
        report(scores)
        if not folder.complete or unfinished:
            folder.finish()
    return scores


def results_folder(
    identities: dict[str, dict],
    pairs: list[Pair],
    sources: Sources,
    out: Path,
    config: BenchmarkConfig,
    *,
    names: tuple[str, str],
    experiment: dict | None = None,
) -> OutputFolder:
    """The folder of a run. A method is part of its recipe once a pair has a score."""
    settings = asdict(config) | {key: value for key, value in (experiment or {}).items() if key != "made_by"}
    if not config.factor:  # super-resolution has no masks
        settings |= {"polarity": sources.polarity, "threshold": sources.threshold}
    recipe = {
        "made_by": (experiment or {}).get("made_by", "evaluate"),
        "settings": settings,
        "sources": {"pairs": len(pairs), "pairs_sha256": pairs_sha256(pairs)},
        "libraries": {**library_versions("numpy", "pillow", "scipy", "opencv"), **metrics.identity(config.metrics)},
        "methods": identities,
    }

    def has_scores(label):
        if _is_function(identities.get(label)) and _is_function(_recorded_methods(out).get(label)):
            return False  # it may have changed: all its pairs are done again
        journal = _journal_file(out, label)
        return journal.is_file() and b'"error": ""' in journal.read_bytes()

    return OutputFolder(
        out,
        recipe,
        grows=("methods",),
        info={"folders": dict(zip(("images", "masks"), names, strict=True))},
        has_result=has_scores,
        explain=partial(changes, out / PAIRS_CSV, pairs),
    )


def _is_function(identity):
    """True for the identity of a Python function; every other method has its own name there."""
    return identity is not None and "function" in identity


def _recorded_methods(out):
    """The identities of all methods that earlier runs have recorded in a folder, by label."""
    found = {}
    for folder in (out, out / PROGRESS):
        if (folder / RECIPE).is_file():
            found |= maskset.read_recipe(folder).get("methods", {})
    return found


def recipe_of(out: Path) -> dict:
    """The recipe of results, also of a run that is not finished."""
    return maskset.read_recipe(out / PROGRESS if (out / PROGRESS / RECIPE).exists() else out)


def _warn_of_small_images(scores, config):
    """Warn of pairs that a metric cannot score because their images are too small: they are not in its means."""
    for name in config.metrics:
        if config.common_size is None and name in metrics.METRICS and metrics.METRICS[name].smallest > 1:
            left_out = scores[(scores["error"] == "") & scores[name].isna()]["pair"].unique()
            if len(left_out):
                least = metrics.METRICS[name].smallest
                needs = f"{least} px a side" + (", and pixels of its part" if name.endswith(PARTS) else "")
                warn(f"{name} needs at least {needs}: {len(left_out)} pairs are left out, as {left_out[0]}")


def _check_classes(config, pairs):
    """Warn of classes too small for a metric of sets; raise BadInput if all are."""
    for name in config.metrics:
        if name in metrics.SETS and metrics.SETS[name].with_truth:
            counts = Counter(pair.category for pair in pairs)
            small = [category for category, count in counts.items() if count < 2]
            if len(small) == len(counts):
                raise BadInput(f"{name} needs two pairs of a class, no class has more than one: use more masks")
            if small:
                warn(f"{name} needs two pairs of a class: it is left out for {', '.join(small)}")


def _open_journals(folder, job, pairs, retry):
    """The journals of a run by label, without the rows of pairs that have to be done again."""
    out = folder.path
    labels = [method.label for method in job.methods]
    new = [label for label in labels if label not in folder.entries("methods")]
    if any(metrics.SETS[name].with_truth for name in job.config.metrics if name in metrics.SETS):
        labels.insert(0, TRUTH)
    # A run without a score may have left a journal of other pairs, or of another method with the same label.
    old = (out / JOURNALS).glob("*.jsonl") if folder.is_new else [_journal_file(out, label) for label in new]
    for path in old:
        path.unlink(missing_ok=True)
    journals, known = {label: _journal(out, label) for label in labels}, {pair.pair: pair for pair in pairs}

    def is_done(label, row):
        if row["pair"] not in known:
            return False
        if row["error"]:
            return not retry
        return label == TRUTH or not job.pictures or picture_file(job, label, known[row["pair"]]).is_file()

    for label, journal in journals.items():
        journal.keep(partial(is_done, label))
    return journals


def _journal_file(out, label):
    return out / JOURNALS / f"{label}.jsonl"


def _journal(out, label):
    return Journal(_journal_file(out, label), "pair", partial(_is_row, label))


def _is_row(label, row):
    """True for a row as a run writes it."""
    return isinstance(row.get("error"), str) and (label == TRUTH or isinstance(row.get("hole_ratio"), int | float))


def write_inputs(out: Path, pairs: list[Pair], drawn: dict[str, bytes]) -> None:
    """Write `pairs.csv`, and the masks that were drawn for the pairs."""
    files.write_whole(out / PAIRS_CSV, pairs_csv(pairs))
    for name, data in drawn.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(out / name, data)


def _fill_journals(job, pairs, journals, workers, cluster, recipe_file):
    """Fill and score all pairs that the journals lack."""
    masks = job.sources.masks
    first_mask = masks if masks.is_file() else masks / pairs[0].mask
    shared_files = [recipe_file, job.sources.images / pairs[0].image, first_mask]
    on_workers = partial(parallel.run, workers=workers, cluster=cluster, shared_files=shared_files)
    groups = by_image(pairs)
    try:
        if job.shared:
            job.shared.mkdir(exist_ok=True)
        _run(job, groups, journals, on_workers)
    finally:
        for journal in journals.values():
            journal.close()
        if job.shared:
            shutil.rmtree(job.shared, ignore_errors=True)


def by_image(pairs: list[Pair]) -> list[list[Pair]]:
    """The pairs in groups of one image each, in the order of its first pair, so that each image is read once.

    This mixes the classes, which makes the time left a fair estimate.
    """
    groups = {}
    for pair in pairs:
        groups.setdefault(pair.image, []).append(pair)
    return list(groups.values())


def _run(job, groups, journals, on_workers):
    """Fill and score all that the journals lack. Each pair is read once by a worker, for all methods together.

    The methods that take all pairs in one process each fill a pair first; workers do the rest.
    """
    serial = {method.label: method for method in job.methods if method.serial}
    done = {label: set(journals[label].rows) for label in serial}
    total = sum(map(len, groups))
    # The processes were started by this thread already: Linux ends each together with the thread that started it.
    processes = {
        label: process_of(method, job, parallel.cores()) for label, method in serial.items() if len(done[label]) < total
    }
    ordered = [pair for group in groups for pair in group]
    waiting = {pair.pair for pair in ordered if any(pair.pair not in done[label] for label in processes)}

    def missing(pair):
        return tuple(label for label in journals if label not in serial and pair.pair not in journals[label].rows)

    def tasks():
        for group in groups:
            todo = [(pair, labels, {}) for pair in group if pair.pair not in waiting and (labels := missing(pair))]
            yield from (todo[first : first + TOGETHER] for first in range(0, len(todo), TOGETHER))
        for pair, results in fill_batches(processes, job, ordered, done) if waiting else ():
            yield [(pair, missing(pair), results)]

    with _bars([label for label in journals if len(journals[label].rows) < total], journals, total) as bars:
        for pairs in on_workers(Call(fill_and_score, job), tasks()) if bars else ():
            for rows in pairs:
                for label, row in rows.items():
                    journals[label].add(row)
                    if job.shared and label in processes:
                        shared_file(job, row["pair"], label).unlink(missing_ok=True)
                    bars[label].update()


@contextmanager
def _bars(labels, journals, total):
    """A progress bar for each of some methods, one below the other."""
    bars = {
        label: tqdm(total=total, initial=len(journals[label].rows), desc=label, unit="pair", position=i)
        for i, label in enumerate(labels)
    }
    try:
        yield bars
    finally:
        for bar in bars.values():
            bar.close()


def set_scores(out: Path, pairs: list[Pair], groups: dict[str, str] | None = None) -> pd.DataFrame:
    """The metrics of sets: metric, method, category, n, mean (the set's value); one row for a class and a method.

    Only pairs that the method has filled count; they are compared with the true images of the same pairs. groups: the
    set of each pair by its name, where this is not its class.
    """
    groups = {pair.pair: pair.category for pair in pairs} if groups is None else groups
    recipe, rows = recipe_of(out), []
    names = [name for name in recipe["settings"]["metrics"] if name in metrics.SETS]
    truths = _journal(out, TRUTH).rows if names else {}
    for label in recipe["methods"] if names else []:
        done = _journal(out, label).rows
        if not all(pair.pair in done for pair in pairs):
            continue
        for category in dict.fromkeys(groups.values()):
            kept = [pair for pair, group in groups.items() if group == category and not done[pair]["error"]]
            for name in names:
                row = metrics.SETS[name]
                results = [metrics.vector(done[pair][row.vector]) for pair in kept]
                true = [metrics.vector(truths[pair][row.vector]) for pair in kept] if row.with_truth else None
                value = row.function(np.array(results), np.array(true)) if kept else np.nan
                rows.append({"metric": name, "method": label, "category": category, "n": len(kept), "mean": value})
    return pd.DataFrame(rows)


def write_scores(out: Path, pairs: list[Pair]) -> pd.DataFrame:
    """Gather the journals of all finished methods in `scores.csv`: one row for a method and a pair.

    Photos with the same content have one name in `image`, because pairs that share a photo are not independent.
    """
    recipe, rows, photos = recipe_of(out), [], {}
    names = [name for name in recipe["settings"]["metrics"] if name in metrics.METRICS]
    for pair in pairs:
        photos.setdefault(pair.image_sha256, pair.image)
    for label in recipe["methods"]:
        done = _journal(out, label).rows
        if not all(pair.pair in done for pair in pairs):
            continue
        for pair in pairs:
            row = done[pair.pair]
            start = {"method": label, "pair": pair.pair, "category": pair.category, "image": photos[pair.image_sha256]}
            values = {name: row.get(name, np.nan) for name in names}
            rows.append({**start, "hole_ratio": row["hole_ratio"], **values, "error": row["error"]})
    table = pd.DataFrame(rows)
    files.write_whole(out / "scores.csv", table.to_csv(index=False, lineterminator="\n").encode())
    return table
