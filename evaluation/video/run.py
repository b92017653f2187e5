"""A run: every method on every pair, one journal line for each, and the tables of scores from the journals.

Results depend only on the pairs and the settings. A run that stops anywhere is resumed from its journals.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from evaluation import scoring
from evaluation.benchmark import recipe_of
from evaluation.methods import Method
from evaluation.pairs import Sources
from evaluation.scoring import close_processes, started_methods
from evaluation.settings import NATIVE, TIMEOUT, BenchmarkConfig, ReportConfig
from evaluation.video import metrics
from evaluation.video.pairing import PAIRS_CSV, Pair, PairList
from evaluation.video.scoring import TRUTH, Job, Task, fill_pair, folder_of_filled, score_pair
from evaluation.video.settings import FLOW, WARP_ERROR, VideoConfig
from maskgen.errors import BadInput
from maskgen.extraction import flow
from maskgen.runtime import files, parallel
from maskgen.runtime.journal import Journal
from maskgen.runtime.output import PROGRESS, OutputFolder
from maskgen.runtime.recipe import RECIPE, differences, library_versions, read_recipe

JOURNALS = "journal"
FILLED = "filled"  # folder in the progress for frames on their way to the workers that score them
PICTURES = "pictures"


def run(
    methods: list[Method],
    pairs: PairList,
    out: Path,
    config: VideoConfig,
    *,
    identities: dict[str, dict],
    faults: dict[str, dict[str, str]] | None = None,
    timeout: float = TIMEOUT,
    workers: int | None = None,
    cluster: str | None = None,
    pictures: bool = False,
    retry: bool = False,
    report: Callable[[pd.DataFrame], None] = lambda scores: None,
    say: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """Score the methods on the pairs and return the scores, which are also in `out/scores.csv`.

    identities: `Method.identity` of each method by its label. faults: why methods have no results, by label and
    sequence. timeout: s for one frame. pictures: keep each result as a JPEG. retry: try failed pairs again. report:
    writes the tables from the scores, before recipe.json marks the folder as complete. say: takes a line for the user.

    Resumes an interrupted run; methods can be added to finished results. Raises BadInput where `out` holds results of
    other settings.
    """
    metrics.check(config.metrics, min((pair.size for pair in pairs.pairs), key=min))
    methods = [method.absolute() for method in methods]
    with _results_folder(identities, pairs, out, config) as folder:
        kept = (out / PICTURES).absolute() if pictures else None
        stills = scoring.Job(
            tuple(methods),
            Sources(Path(), Path()),
            BenchmarkConfig(size=pairs.common_size or NATIVE),
            timeout,
            None,
            ReportConfig.quality,
        )
        filled = (folder.progress / FILLED).absolute()
        job = Job(tuple(methods), pairs.masks, config.metrics, stills, faults or {}, filled, kept)
        journals = _open_journals(folder, job, pairs, retry)
        unfinished = {label for label, journal in journals.items() if len(journal.rows) < len(pairs.pairs)}
        if folder.complete and not unfinished:
            say(folder.complete_message)
        else:
            if folder.complete:
                folder.reopen()
            try:
                many = bool(cluster) or (workers or parallel.cores()) > 1
                started = started_methods(job.stills, unfinished, many=many)
                job = replace(job, methods=started, stills=replace(job.stills, methods=started))
                files.write_whole(out / PAIRS_CSV, pairs.csv())
                (out / JOURNALS).mkdir(exist_ok=True)
                _fill_journals(job, pairs, journals, workers, cluster, folder.recipe_file)
            finally:
                for journal in journals.values():
                    journal.close()
                close_processes()
                shutil.rmtree(filled, ignore_errors=True)
                if any(method.kind in ("serve", "py") and not method.serial for method in job.methods):
                    parallel.end_workers()  # which would keep a model each for the next run
        scores = write_scores(out, pairs.pairs)
        report(scores)
        if not folder.complete or unfinished:
            folder.finish()
    return scores


def _results_folder(identities, pairs, out, config):
    """The folder of a run. A method is part of its recipe once a pair has a score."""
    libraries = ["numpy", "pillow", "opencv"]
    if any(clip.path.is_file() for clip in pairs.clips.values()):
        libraries.append("av")
    if WARP_ERROR in config.metrics:
        libraries += flow.packages(FLOW)
    settings = asdict(config) | ({"flow": FLOW} if WARP_ERROR in config.metrics else {})
    recipe = {
        "made_by": "evaluate video",
        "settings": settings | {"polarity": pairs.masks.polarity, "threshold": pairs.masks.threshold},
        "sources": {"pairs": len(pairs.pairs), "pairs_sha256": pairs.sha256()},
        "libraries": {**library_versions(*libraries), **metrics.identity(config.metrics)},
        "methods": identities,
    }

    def has_scores(label):
        if "function" in identities.get(label, {}) and "function" in _recorded_methods(out).get(label, {}):
            return False  # it may have changed: all its pairs are done again
        journal = _journal_file(out, label)
        return journal.is_file() and b'"error": ""' in journal.read_bytes()

    folders = dict(zip(("videos", "masks"), pairs.folders, strict=True))
    explain = partial(_changes, out / PAIRS_CSV, pairs)
    return OutputFolder(
        out, recipe, grows=("methods",), info={"folders": folders}, has_result=has_scores, explain=explain
    )


def _recorded_methods(out):
    """The identities of all methods that earlier runs have recorded in a folder, by label."""
    recipes = [read_recipe(folder / RECIPE) or {} for folder in (out, out / PROGRESS)]
    return {label: identity for recipe in recipes for label, identity in recipe.get("methods", {}).items()}


def _changes(path: Path, pairs: PairList) -> Iterator[str]:
    """Lines that say which pairs differ from those in an earlier `pairs.csv`; none if there is no such file."""

    def contents(rows):
        return {row["sequence"]: {key: str(value) for key, value in row.items() if key != "sequence"} for row in rows}

    try:
        before = files.read_rows(path)
    except BadInput:
        return
    if before and "sequence" in before[0]:
        now = files.parse_rows(pairs.csv(), PAIRS_CSV)
        yield from differences(contents(before), contents(now), ("pairs",))


def _open_journals(folder, job, pairs, retry):
    """The journals of a run by label, without the rows of pairs that have to be done again."""
    out, known = folder.path, {pair.sequence for pair in pairs.pairs}
    labels = [method.label for method in job.methods]
    new = [label for label in labels if label not in folder.entries("methods")]
    if WARP_ERROR in job.names:
        labels.insert(0, TRUTH)
    # A run without a score may have left a journal of other pairs, or of another method with the same label.
    old = (out / JOURNALS).glob("*.jsonl") if folder.is_new else [_journal_file(out, label) for label in new]
    for path in old:
        path.unlink(missing_ok=True)

    def is_done(label, row):
        if row["sequence"] not in known:
            return False
        if row["error"]:
            return not retry
        lacks_pictures = job.pictures and label != TRUTH and not (job.pictures / label / row["sequence"]).is_dir()
        return not lacks_pictures

    journals = {label: _journal(out, label) for label in labels}
    for label, journal in journals.items():
        journal.keep(partial(is_done, label))
    return journals


def _journal_file(out, label):
    return out / JOURNALS / f"{label}.jsonl"


def _journal(out, label):
    return Journal(_journal_file(out, label), "sequence", _is_row)


def _is_row(row):
    """True for a row as `score_pair` makes it."""
    done = isinstance(row.get("values"), dict) and isinstance(row.get("hole_ratios"), list)
    return isinstance(row.get("error"), str) and (row["error"] != "" or done)


def _fill_journals(job, pairs, journals, workers, cluster, recipe_file):
    """Score all pairs that the journals lack; each is read once, and its flow computed once, for all methods."""
    todo = []
    for pair in pairs.pairs:
        labels = tuple(label for label, journal in journals.items() if pair.sequence not in journal.rows)
        if labels:
            clip = pairs.clips[pair.video]
            todo.append(Task(pair.sequence, clip, pair.start, pair.frames, pair.size, labels))
    probes = [recipe_file, *(task.clip.path for task in todo[:1]), job.masks.probe_file]
    on_workers = parallel.run(
        scoring.Call(score_pair, job), _filled_tasks(job, todo), workers=workers, cluster=cluster, shared_files=probes
    )
    with tqdm(total=len(pairs.pairs), initial=len(pairs.pairs) - len(todo), desc="score", unit="sequence") as bar:
        for task, rows in zip(todo, on_workers, strict=True):
            for label, row in rows.items():
                journals[label].add(row)
                shutil.rmtree(folder_of_filled(job, label, task.sequence), ignore_errors=True)
            bar.update()


def _filled_tasks(job, todo):
    """The tasks, each filled by the methods that run in one process, as workers become free."""
    for task in todo:
        errors = {}
        for method in job.methods:
            if method.serial and method.label in task.labels:
                error = fill_pair(job, task, method, parallel.cores())
                if error:
                    errors[method.label] = error
        yield replace(task, errors=errors)


def write_scores(out: Path, pairs: list[Pair]) -> pd.DataFrame:
    """Gather the journals of all finished methods in `scores.csv`, a row for a pair, and `frames.csv`, one for a frame.

    The score of a pair is the mean over its frames. Frames without a hole have no scores but the warping error, and
    results that equal the true frame have an infinite PSNR, which is in no mean unless all are.
    """
    recipe = recipe_of(out)
    names, rows, frames = recipe["settings"]["metrics"], [], []
    for label in [TRUTH] * (WARP_ERROR in names) + list(recipe["methods"]):
        done = _journal(out, label).rows
        if not all(pair.sequence in done for pair in pairs):
            continue
        for pair in pairs:
            row = done[pair.sequence]
            start = {"method": label, "sequence": pair.sequence, "category": pair.category, "video": pair.video}
            measures = {"frames": pair.frames, "hole_ratio": pair.hole_ratio, "speed": pair.speed}
            values = {name: mean_of_frames(row.get("values", {}).get(name, [])) for name in names}
            rows.append({**start, **measures, **values, "error": row["error"]})
            if not row["error"]:
                frames += _frame_rows(start, row, names)
    tables = {"scores.csv": pd.DataFrame(rows), "frames.csv": pd.DataFrame(frames)}
    for name, table in tables.items():
        files.write_whole(out / name, table.to_csv(index=False, lineterminator="\n").encode())
    return tables["scores.csv"]


def mean_of_frames(values: list[float]) -> float:
    """The mean of finite values; inf if none is finite but some are infinite; nan if there are none."""
    found = np.array(values, float)
    finite = found[np.isfinite(found)]
    return float(finite.mean()) if finite.size else np.inf if np.isposinf(found).any() else np.nan


def _frame_rows(start, row, names):
    """A row of `frames.csv` for each frame."""
    columns = {name: row["values"].get(name, []) for name in names}
    for t, ratio in enumerate(row["hole_ratios"]):
        values = {name: column[t] if t < len(column) else np.nan for name, column in columns.items()}
        yield {"method": start["method"], "sequence": start["sequence"], "frame": t, "hole_ratio": ratio, **values}
