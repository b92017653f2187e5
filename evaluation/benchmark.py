"""The run that scores every method on every pair.

Results are a pure function of the pairs and the settings. A run writes one line per pair and method into a journal,
so that it can stop anywhere; the tables are made from the journals when all are complete.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from evaluation import metrics
from evaluation.methods import Method
from evaluation.methods.process import Hand
from evaluation.pairing import PAIRS_CSV, changes, pairs_csv, pairs_sha256
from evaluation.pairs import Pair, Sources, load_pair
from evaluation.scoring import (
    TRUTH,
    Call,
    Job,
    close_hands,
    fill_and_score,
    hand,
    laid_out,
    lay_out,
    picture_of,
    score_filled,
)
from evaluation.settings import BATCH, TOGETHER, BenchmarkConfig, ReportConfig
from maskgen import maskset
from maskgen.errors import BadInput, warn
from maskgen.runtime import files, parallel
from maskgen.runtime.journal import Journal
from maskgen.runtime.output import PROGRESS, OutputFolder
from maskgen.runtime.recipe import RECIPE, library_versions

DRAWN = "masks"  # folder in the results for masks that were made for them
JOURNALS = "journal"
SHARED = "shared"  # folder in the progress for pixels on their way to the workers of a cluster


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
    """Score the methods on the pairs and return the scores, which are in `out/scores.csv` then.

    names: what recipe.json calls the two sources. experiment: its name as `made_by`, and its settings. identities:
    `Method.identity` of each method by its label, where it is known already. drawn: files of masks that belong below
    `out`, by name. timeout: s for one image. pictures: keep each result as a JPEG. retry: try failed pairs again.
    report: writes what is made of the scores, before recipe.json tells that all is there. say: takes a line for the
    user.

    Goes on where an earlier run stopped; methods can be added to finished results. A method without a single score is
    tried again. Raises BadInput where `out` holds results of other settings.
    """
    metrics.check(config.metrics, config.size)
    _check_sets(config, pairs)
    identities = identities or {method.label: method.identity() for method in methods}
    methods = [method.absolute() for method in methods]
    with results_folder(identities, pairs, sources, out, config, names=names, experiment=experiment) as folder:
        shared = (folder.progress / SHARED).absolute() if cluster else None
        kept = (out / "pictures").absolute() if pictures else None
        job = Job(tuple(methods), sources.absolute(), config, timeout, kept, ReportConfig().quality, shared)
        journals = _journals(folder, job, pairs, retry)
        lacking = {label for label, journal in journals.items() if len(journal.rows) < len(pairs)}
        if folder.complete and not lacking:
            say(folder.complete_message)
        else:
            if folder.complete:
                folder.reopen()
            try:
                for method in methods:  # what cannot start is told before anything is written
                    if method.label in lacking and not method.always_starts:
                        hand(method, job, parallel.cores() if method.batched else 1).start()
                write_inputs(out, pairs, drawn or {})
                (out / JOURNALS).mkdir(exist_ok=True)
                _fill(job, pairs, journals, workers, cluster, folder.recipe_file)
            finally:
                close_hands()
        scores = write_scores(out, pairs)
        empty = scores[(scores["hole_ratio"] == 0) & (scores["error"] == "")]["pair"].unique()
        if len(empty):
            warn(f"{len(empty)} masks have no hole left at {config.size[0]} x {config.size[1]} px, as of {empty[0]}")
        report(scores)
        if not folder.complete or lacking:
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
    """The folder of a run. A method belongs to its recipe once a pair has a score."""
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


def recipe_of(out: Path) -> dict:
    """The recipe of results, also while a run makes them."""
    return maskset.read_recipe(out / PROGRESS if (out / PROGRESS / RECIPE).exists() else out)


def _check_sets(config, pairs):
    """Tell of classes that are too small for the distance of two sets, before they are scored."""
    for name in config.metrics:
        if name in metrics.SETS and metrics.SETS[name].with_truth:
            counts = Counter(pair.category for pair in pairs)
            small = [category for category, count in counts.items() if count < 2]
            if len(small) == len(counts):
                raise BadInput(f"{name} needs two pairs of a class, no class has more than one: use more masks")
            if small:
                warn(f"{name} needs two pairs of a class: it is left out for {', '.join(small)}")


def _journals(folder, job, pairs, retry):
    """The journals of a run by label, without the rows that are to be made again."""
    out = folder.path
    labels = [method.label for method in job.methods]
    new = [label for label in labels if label not in folder.entries("methods")]
    if any(metrics.SETS[name].with_truth for name in job.config.metrics if name in metrics.SETS):
        labels.insert(0, TRUTH)
    # What a run without a score has left there may be of other pairs, or of another method of the same name.
    old = (out / JOURNALS).glob("*.jsonl") if folder.is_new else [_journal_file(out, label) for label in new]
    for path in old:
        path.unlink(missing_ok=True)
    journals, known = {label: _journal(out, label) for label in labels}, {pair.pair: pair for pair in pairs}

    def counts(label, row):
        pictured = label == TRUTH or not job.pictures or picture_of(job, label, known[row["pair"]]).is_file()
        return not retry if row["error"] else pictured

    for label, journal in journals.items():
        journal.keep(lambda row, label=label: row["pair"] in known and counts(label, row))
    return journals


def _journal_file(out, label):
    return out / JOURNALS / f"{label}.jsonl"


def _journal(out, label):
    return Journal(_journal_file(out, label), "pair", partial(_is_row, label))


def _is_row(label, row):
    """Whether a line of a journal is a row as we write it."""
    return isinstance(row.get("error"), str) and (label == TRUTH or isinstance(row.get("hole_ratio"), int | float))


def write_inputs(out: Path, pairs: list[Pair], drawn: dict[str, bytes]) -> None:
    """Write `pairs.csv`, and the masks that were drawn for the pairs."""
    files.write_whole(out / PAIRS_CSV, pairs_csv(pairs))
    for name, data in drawn.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(out / name, data)


def _fill(job, pairs, journals, workers, cluster, recipe_file):
    """Fill the journals."""
    shared_files = [recipe_file, job.sources.images / pairs[0].image, job.sources.masks / pairs[0].mask]
    spread = partial(parallel.run, workers=workers, cluster=cluster, shared_files=shared_files)
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
    if all(pair.pair in journal.rows for pair in pairs):
        return
    # It runs already and was started from this thread: Linux ends it together with the thread that started it.
    tasks = _filled(hand(method, job, parallel.cores()), method.label, job, pairs, set(journal.rows))
    with tqdm(total=len(pairs), initial=len(journal.rows), desc=method.label, unit="pair") as bar:
        for rows in spread(Call(score_filled, job), tasks):
            row = rows[method.label]
            journal.add(row)
            if job.shared:
                laid_out(job, row["pair"], method.label).unlink(missing_ok=True)
            bar.update()


def _filled(network: Hand, label: str, job: Job, pairs: list[Pair], done: set[str]) -> Iterator[tuple]:
    """The tasks of scoring the pairs that are not done, filled in the batches of a run that was never interrupted.

    Neighbours in a batch change the last bit of a result, so a batch of which some pairs are done is filled as a whole.
    """
    ordered = [pair for group in by_image(pairs) for pair in group]
    for first in range(0, len(ordered), BATCH):
        batch = ordered[first : first + BATCH]
        if all(pair.pair in done for pair in batch):
            continue
        results = network.fill([(pair.pair, *load_pair(pair, job.sources, job.config)[1:]) for pair in batch])
        for pair, result in zip(batch, results, strict=True):
            if pair.pair not in done:
                yield lay_out(job, pair, label, result)


def set_scores(out: Path, pairs: list[Pair]) -> pd.DataFrame:
    """The metrics of sets: metric, method, category, n, mean (the set's value); one row for a class and a method.

    Only pairs that the method has filled count, and the true images of the same pairs stand against them.
    """
    recipe, rows = recipe_of(out), []
    names = [name for name in recipe["settings"]["metrics"] if name in metrics.SETS]
    truths = _journal(out, TRUTH).rows if names else {}
    for label in recipe["methods"] if names else []:
        done = _journal(out, label).rows
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
    """Gather the journals of all methods that are through into `scores.csv`: one row for a method and a pair.

    Photos of the same content have one name in `image`, as pairs that share a photo are not independent.
    """
    recipe, rows, photos = recipe_of(out), [], {}
    names = recipe["settings"]["metrics"]
    for pair in pairs:
        photos.setdefault(pair.image_sha256, pair.image)
    for label in recipe["methods"]:
        done = _journal(out, label).rows
        if all(pair.pair in done for pair in pairs):
            for pair in pairs:
                row = done[pair.pair]
                values = {name: row.get(name, np.nan) for name in names if name in metrics.METRICS}
                told = {"method": label, "pair": pair.pair, "category": pair.category}
                told["image"] = photos[pair.image_sha256]
                rows.append({**told, "hole_ratio": row["hole_ratio"], **values, "error": row["error"]})
    table = pd.DataFrame(rows)
    files.write_whole(out / "scores.csv", table.to_csv(index=False, lineterminator="\n").encode())
    return table
