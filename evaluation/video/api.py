"""The benchmark of video inpainting from Python: `evaluate_video(...)`, which the command `evaluate video` calls."""

import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pandas as pd

from evaluation.api import read_methods
from evaluation.outcome import Outcome
from evaluation.settings import COPIES, METHODS, TIMEOUT
from evaluation.video import metrics as metric_table
from evaluation.video import tables
from evaluation.video.masks import default_masks, default_per_class
from evaluation.video.pairing import PairList, pair_videos
from evaluation.video.results import with_frames
from evaluation.video.run import run
from evaluation.video.settings import OUT, VideoConfig
from maskgen.errors import InputWarning


def evaluate_video(
    methods: Mapping[str, str | Callable] | Iterable[str] = METHODS,
    videos: str | Path = "videos",
    masks: str | Path | None = None,
    *,
    metrics: Iterable[str] = VideoConfig.metrics,
    frames: int = VideoConfig.frames,
    size: tuple[int, int] | None = None,
    per_class: int | None = None,
    seed: int = VideoConfig.seed,
    polarity: str = "hole-white",
    threshold: int | None = None,
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
    pictures: bool = False,
    verbose: bool = False,
) -> "VideoEvaluation":
    """Score inpainting methods on videos with mask sequences.

    Parameters
    ----------
    methods
        As for `evaluate`. Each fills one frame after the other; "dir:FOLDER" holds a folder of frames for each
        sequence, as a video inpainting program writes them.
    videos
        A folder of folders of frames, or of video files.
    masks
        A set that `maskgen sequences` made, of which the part `test` is taken, any folder of folders of masks, or "v1",
        the sequences that come with the package. Masks belong to the video of the same name; if no names agree, the
        seed draws a video for each sequence. None takes the set in `masks/sequences`, or v1 if there is none.
    metrics
        Names of metrics, as for the option `--metric`.
    frames
        Number of masks of each sequence that are used, the first ones; 0 takes all.
    size
        Height and width in px to which frames and masks are resized; None takes the size of the masks.
    per_class
        Number of mask sequences of each class, the first ones. 0 takes all, and so does None, which takes ten of v1
        where `masks` is None.
    seed
        Draws the videos and the bootstrap samples.
    polarity, threshold
        How mask files are read: "hole-white" or "hole-black", and the grey level from which on they are white.
    weights, range, white, bgr, copies
        As for `evaluate`.
    out
        Folder for the results. An interrupted run is resumed, and methods are added to finished results. None takes a
        temporary folder, which is removed together with the returned object.
    workers, cluster
        Number of processes, None for all cores; or the address of a Dask scheduler.
    timeout
        Seconds that a method may take for one frame.
    retry
        Try the sequences again that failed in an earlier run.
    pictures
        Keep every result as a JPEG.
    verbose
        Print what the command prints. The progress bar is shown in any case.

    Returns
    -------
    VideoEvaluation
        The scores of sequences and frames, and the table.

    Raises
    ------
    BadInput
        If input has to be fixed. A method that fails on a frame raises nothing: the sequence has no score, the error is
        in the scores, and an `InputWarning` names the first.
    """
    per_class = default_per_class(masks) if per_class is None else per_class
    config = VideoConfig(tuple(metrics), size, frames, per_class, seed)
    metric_table.check(config.metrics, size)
    chosen = read_methods(methods, weights, range=range, white=white, bgr=bgr, copies=copies)
    temporary = None
    if not out:
        temporary = tempfile.TemporaryDirectory(prefix="evaluate-", ignore_cleanup_errors=True)
        out = Path(temporary.name, OUT)
    out, say = Path(out), print if verbose else lambda line: None
    pairs = pair_videos(
        Path(videos), Path(masks or default_masks()), config, polarity=polarity, threshold=threshold, out=out
    )
    say(pairs.description)
    text = ""
    found, faults, identities = [], {}, {}
    for method, identity in chosen.items():
        method, faults[method.label] = with_frames(method, pairs)
        found.append(method)
        identities[method.label] = identity or method.identity()

    def write_tables(scores: pd.DataFrame) -> None:
        nonlocal text
        text = tables.write(out, scores, config.metrics, seed, pixels_of(pairs))

    scores = run(
        found,
        pairs,
        out,
        config,
        identities=identities,
        faults=faults,
        timeout=timeout,
        workers=workers,
        cluster=cluster,
        pictures=pictures,
        retry=retry,
        report=write_tables,
        say=say,
    )
    say(text)
    say(f"\nthe scores of sequences and frames, and the tables, are in {out}")
    result = VideoEvaluation(out, scores, text, list(identities))
    result._temporary = temporary
    if not verbose:
        for line in result.failures:
            warnings.warn(line, InputWarning, stacklevel=2)
    return result


def pixels_of(pairs: PairList) -> str:
    """What was scored, in words."""
    size = pairs.common_size
    return f"composited frames of {size[1]}x{size[0]} px" if size else "composited frames of several sizes"


class VideoEvaluation(Outcome):
    """The results of `evaluate_video`: `scores` of sequences, `frame_scores`, `table` and `failures`.

    scores: DataFrame with a row for each method and sequence, with the class and the error if it failed, as in
    `scores.csv`. folder: where all files of the run are.
    """

    UNIT = "sequence"

    @property
    def frame_scores(self) -> pd.DataFrame:
        """One row for each method, sequence and frame, as in `frames.csv`."""
        return pd.read_csv(self.folder / "frames.csv", dtype={"method": str, "sequence": str})
