"""The benchmark from Python: `evaluate(...)`, with every option of the command `evaluate`, which calls it."""

import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from evaluation import benchmark, experiments, listed, matching, pairing, protocol_pairs, protocols, report
from evaluation import metrics as metric_table
from evaluation.masks import default_per_class
from evaluation.methods import Method, external, parse_all
from evaluation.methods.registry import check_labels, checked_label
from evaluation.names import folder_of
from evaluation.outcome import Outcome
from evaluation.pairs import PairSet
from evaluation.report import forms
from evaluation.settings import (
    COPIES,
    LIKE,
    METHODS,
    NATIVE,
    OUT,
    TIMEOUT,
    BenchmarkConfig,
    ReportConfig,
    Size,
)
from maskgen.errors import BadInput, InputWarning
from maskgen.runtime import files

ONLY_DRAWN = "per_class (--per-class) draws pairs and pairs (--pairs) names them: leave one of the two out"


def evaluate(
    methods: Mapping[str, str | Callable] | Iterable[str] = METHODS,
    images: str | Path | Sequence[np.ndarray] | None = None,
    masks: str | Path | Sequence[np.ndarray] | None = None,
    *,
    metrics: Iterable[str] | None = None,
    per_class: int | None = None,
    size: int | Size | None = None,
    seed: int = BenchmarkConfig.seed,
    pairs: str | Path | PairSet | None = None,
    protocol: str | None = None,
    polarity: str | None = None,
    threshold: int | None = None,
    raw: bool = BenchmarkConfig.raw,
    weights: Mapping[str, str | Path] | Iterable[str] = (),
    range: Mapping[str, tuple[float, float]] | tuple[float, float] | Iterable[str] = (),
    white: Mapping[str, str] | str | Iterable[str] = (),
    bgr: bool | Iterable[str] = (),
    copies: str = COPIES[0],
    out: str | Path | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    timeout: float = TIMEOUT,
    retry: bool = False,
    by: str | None = None,
    pictures: bool = True,
    pages: bool = False,
    paper: bool = False,
    like: str | None = None,
    verbose: bool = False,
) -> "Evaluation":
    """Score inpainting methods on images with holes.

    Parameters
    ----------
    methods
        A dict of label -> method, or a list of names. A method is a name, or a prefix with its argument, as for the
        option `--method` ("telea", "pconv", "dir:FOLDER", ...), or a Python function of (image, hole): image uint8
        (H, W, 3) RGB, black in the hole, hole bool (H, W), True where pixels are missing. It returns uint8 (H, W, 3).
        Functions run in this process, one image after another, and their scores are computed anew in every run.
    images, masks
        A folder each; masks may also be a zip or tar. None takes those that ship. The images "reference" are the 60
        reference photos, the masks "v1" the 12,000 canonical test masks. Or two lists of arrays of the same length,
        images as uint8 (H, W, 3) and holes as bool (H, W): the first image has the first hole, and so on.
    metrics
        Names of metrics, as for the option `--metric`. None takes its default, or the metrics of `like`.
    per_class
        Number of masks of each class: of the canonical masks the first ones, of all others drawn by the seed. 0 takes
        all, and so does None; without `masks`, None takes ten of each class of v1.
    size
        Height and width in px to which all images are cut, or one number for both; "native" keeps each image at its
        own size. None takes 512, or the size of `pairs` or of the arrays.
    seed
        Draws the pairs and the bootstrap samples.
    pairs
        A `pairs.csv` or its folder, as `evaluate pairs` and earlier runs write it, or a list with the columns `image`
        and `mask`: these pairs are scored. Or the pairs that `match_folders` finds.
    protocol
        "places2", "imagenet", "celebahq" or "paris": the canonical masks lie over the images of that data set as a list
        in the package says, and `images` is its folder. "reference": over the reference photos, without `images`.
        `per_class` takes the first masks of each class. What else decides the pairs is refused: `masks`, `pairs`,
        `seed`, `polarity`, `threshold` and other sizes.
    polarity, threshold
        How mask files are read: "hole-white" or "hole-black", and the grey level from which on they are white.
    raw
        Score the method's own pixels everywhere, not only in the hole.
    weights
        Checkpoints of networks: a dict of label or name -> file.
    range, white, bgr
        How networks in files (`onnx:`, `torchscript:`, `exported:`) take images: the floats of black and white, such as
        (-1, 1); what 1 means in the mask, "hole" or "valid"; True if blue is the first channel. One value for all of
        them, or a dict of label -> value; for bgr a list of labels.
    copies
        Copies of a program of `serve:`, "one" or "per-worker".
    out
        Folder for the results. An interrupted run is resumed, and methods are added to finished results. None takes a
        temporary folder, which is removed together with the returned object.
    workers, cluster
        Number of processes, None for all cores; or the address of a Dask scheduler.
    timeout
        Seconds that a method may take for one image. For a function this is checked when it returns.
    retry
        Try the pairs again that failed in an earlier run.
    by, pictures, pages, paper
        For the report: the metric that picks the pairs to show; keep every result as a JPEG; write a page for every
        pair; show the published Table 1.
    like
        "lama" or "mmagic": print the table as their evaluators do, and write it as `like-lama.csv`, `like-mmagic.csv`.
    verbose
        Print what the command prints. The progress bar is shown in any case.

    Returns
    -------
    Evaluation
        The scores, the table and the report.

    Raises
    ------
    BadInput
        If input has to be fixed: an unknown method, missing weights, a folder without masks and the like. A method that
        fails on a pair raises nothing: the error is in the scores, and an `InputWarning` names the first.

    Examples
    --------
    >>> from evaluation.api import evaluate
    >>> result = evaluate({"mine": lambda image, hole: image, "telea": "telea"}, size=64, per_class=1)
    >>> sorted(result.scores["method"].unique())
    ['mine', 'telea']
    """
    size = (size, size) if isinstance(size, int) else size
    if protocol is not None:
        others = {"masks": masks, "pairs": pairs, "polarity": polarity, "threshold": threshold, "seed": seed or None}
        size = protocol_pairs.check_options(protocol, size, images, **others)
    if pairs is not None and per_class is not None:
        raise BadInput(ONLY_DRAWN)
    if isinstance(pairs, PairSet) and any(value is not None for value in (images, masks, polarity, threshold, size)):
        raise BadInput("pairs know their files and size: leave images, masks, polarity, threshold and size out")
    if isinstance(size, str) and size != NATIVE:
        raise BadInput(f"size is height and width in px, or {NATIVE!r}, got {size!r}")
    if per_class is None and pairs is None and protocol is None:
        per_class = default_per_class(masks)
    names = LIKE.get(like or "", BenchmarkConfig.metrics) if metrics is None else tuple(metrics)
    config = BenchmarkConfig(names, size or BenchmarkConfig.size, per_class or 0, raw, seed)
    chosen = read_methods(methods, weights, range=range, white=white, bgr=bgr, copies=copies)
    check_metrics(config, by, config.common_size if size else None, like)
    temporary = None
    if not out:
        temporary = tempfile.TemporaryDirectory(prefix="evaluate-", ignore_cleanup_errors=True)
        out = Path(temporary.name, OUT)
    folder = Path(out)
    if protocol is not None:
        pair_set = protocol_pairs.protocol_pairs(
            protocol, _path(images), config.common_size, config.per_class, out=folder
        )
    elif isinstance(images, Sequence | np.ndarray) and not isinstance(images, str):
        pair_set = experiments.array_pairs(images, masks, size, out=folder)
    elif isinstance(pairs, PairSet):
        pair_set = pairs
    elif pairs is not None:
        folders = {"images": _path(images), "masks": _path(masks)}
        pair_set = listed.open_pairs(Path(pairs), **folders, polarity=polarity, threshold=threshold, size=size)
        pair_set = protocol_pairs.recognised(pair_set, Path(pairs))
    else:
        reading = polarity or "hole-white", threshold
        pair_set = pairing.pair_folders(_path(images), _path(masks), config, *reading, out=folder)
    config = replace(config, size=pair_set.size or config.size, factor=pair_set.factor)
    if config.factor:
        config = replace(config, raw=True)
    result = score_pairs(
        chosen,
        pair_set,
        config,
        folder,
        by=by,
        paper=paper,
        pages=pages,
        like=like,
        verbose=verbose,
        workers=workers,
        cluster=cluster,
        timeout=timeout,
        pictures=pictures,
        retry=retry,
    )
    result._temporary = temporary
    if not verbose:
        for line in result.failures:
            warnings.warn(line, InputWarning, stacklevel=2)
    return result


def _path(folder):
    return None if folder is None else Path(folder)


def read_methods(
    methods: Mapping[str, str | Callable] | Iterable[str],
    weights: Mapping[str, str | Path] | Iterable[str] = (),
    *,
    range: Mapping[str, tuple[float, float]] | tuple[float, float] | Iterable[str] = (),
    white: Mapping[str, str] | str | Iterable[str] = (),
    bgr: bool | Iterable[str] = (),
    copies: str = COPIES[0],
) -> dict[Method, dict | None]:
    """The methods of a run, each with its identity; that of dir: depends on the pairs and is None.

    weights: a dict of label or name -> file, or `--weights` options.

    range, white, bgr, copies: as for `evaluate`, or as the command's options. Raises BadInput for an unknown method,
    two methods of one name, options that belong to no method, and a file or folder of a method that is missing.
    """
    functions: dict[str, Callable] = {}
    if not isinstance(methods, Mapping):
        texts: list = [methods] if isinstance(methods, str) or callable(methods) else list(methods)
        if not texts or any(callable(method) for method in texts):
            raise BadInput("expected a dict of label -> function or method name, or a list of method names")
    else:
        texts = [f"{checked_label(label)}={method}" for label, method in methods.items() if not callable(method)]
        functions = {label: method for label, method in methods.items() if callable(method)}
    if isinstance(weights, Mapping):
        weights = [f"{name}={file}" for name, file in weights.items()]
    parsed = parse_all(texts, weights, range=range, white=white, bgr=bgr, copies=copies)
    found = {method.label: method for method in parsed}
    for label, function in functions.items():
        found[checked_label(label)] = Method(label, "function", label, function=function)
    order = list(methods) if isinstance(methods, Mapping) else list(found)
    check_labels(order)
    for label in order:
        if found[label].kind == "dir":
            external.check_folder(folder_of(Path(found[label].argument)))
    return {found[label]: None if found[label].kind == "dir" else found[label].identity() for label in order}


def check_metrics(
    config: BenchmarkConfig, by: str | None, size: tuple[int, int] | None = None, like: str | None = None
) -> None:
    """Raise BadInput for metrics that cannot be computed, at `size` if it is known, and for a `by` not among them.

    like: also for a form of the table that does not exist, or that shows none of the metrics.
    """
    report.shown_by(config, by or "")
    forms.check(like or "", config.metrics)
    metric_table.check(config.metrics, size, composited=not config.raw)


def score_pairs(
    methods: dict[Method, dict | None],
    pair_set: PairSet,
    config: BenchmarkConfig,
    out: Path,
    *,
    by: str | None = None,
    paper: bool = False,
    pages: bool = False,
    like: str | None = None,
    verbose: bool = False,
    **options: Any,
) -> "Evaluation":
    """Score pairs and write the report. methods: from `read_methods`. options: as for `benchmark.run`."""
    say = print if verbose else lambda line: None
    pairs, sources, text = pair_set.pairs, pair_set.sources, ""

    def write_report(scores: pd.DataFrame) -> None:
        nonlocal text
        shown = ReportConfig(by=by or "", overall=pair_set.by_name)
        text = report.write(out, scores, pairs, sources, config, shown, paper=paper, pages=pages, like=like or "")

    say(pair_set.description)
    protocol = (pair_set.experiment or {}).get("protocol")
    if protocol:
        say(protocols.caption(protocol))
    found = {}
    for method, identity in methods.items():
        method = matching.with_results(method, pair_set)
        if config.factor and method.kind == "network":  # other weights, of another identity
            method, identity = replace(method, factor=config.factor), None
        found[method] = identity
    scores = benchmark.run(
        list(found),
        pairs,
        sources,
        out,
        config,
        names=pair_set.names,
        experiment=pair_set.experiment,
        identities={method.label: identity or method.identity() for method, identity in found.items()},
        drawn=pair_set.files,
        report=write_report,
        say=say,
        **options,
    )
    say(text)
    say(f"\nscores, tables and pictures are in {out}; look at {out / 'report.html'}")
    if protocol:
        say(protocols.last_line(protocol, raw=config.raw))
    result = Evaluation(out, scores, text, [method.label for method in methods])
    if verbose:
        for line in result.failures:
            print(line, file=sys.stderr)
    return result


class Evaluation(Outcome):
    """The results of a run: `scores`, `table`, `failures`, and `report(path)`, which writes them to a folder.

    scores: DataFrame with a row for each method and pair, with the pair's class and its error if it failed, as in
    `scores.csv`. table: one row for each metric, class and method: the mean, its interval and what is tested. folder:
    where all files of the run are.
    """

    def report(self, path: str | Path) -> Path:
        """Write the report: the page alone if path ends in .html, else all files of the run to a new or empty folder.

        The page needs no other file, except those of `pages`. The folder gets the tables, scores, pictures and pairs as
        well. Returns the path of the page. Raises BadInput where the folder holds anything else.
        """
        path = Path(path)
        if path.suffix == ".html":
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_whole(path, (self.folder / "report.html").read_bytes())
            return path
        if path.resolve() != self.folder.resolve():
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise BadInput(f"{path} is not empty: expected a new or empty folder for the report")
            shutil.copytree(self.folder, path, dirs_exist_ok=True)
        return path / "report.html"

    def _repr_html_(self) -> str:
        parts = []
        for name, rows in self.table.groupby("metric", sort=False):
            row = metric_table.ALL[str(name)]
            unit = f" ({row.unit})" if row.unit else ""
            means = rows.pivot_table("mean", "method", "category", sort=False)
            parts.append(f"<p>{name}{unit}, {row.better} is better</p>")
            parts.append(means.to_html(float_format=f"{{:.{row.digits}f}}".format, na_rep="-"))
        return "".join(parts)
