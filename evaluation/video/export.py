"""The pairs as files, for a video inpainting program: frames and masks in folders of the same names."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from tqdm import tqdm

from evaluation.video.pairing import PAIRS_CSV, PairList
from evaluation.video.scoring import Task
from evaluation.video.settings import VideoConfig
from maskgen import maskset
from maskgen.runtime import files, images, parallel
from maskgen.runtime.journal import Journal
from maskgen.runtime.output import OutputFolder
from maskgen.runtime.recipe import library_versions


def export(
    pairs: PairList,
    out: Path,
    config: VideoConfig,
    *,
    workers: int | None = None,
    cluster: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Write `frames/<sequence>/00000.png` and `masks/<sequence>/00000.png`, 255 for a hole, for every pair.

    Resumes an interrupted run. Raises BadInput where `out` holds pairs of other settings. say: takes a line for the
    user.
    """
    settings = {name: value for name, value in asdict(config).items() if name != "metrics"}
    recipe = {
        "made_by": "evaluate video --export",
        "settings": settings | {"polarity": pairs.masks.polarity, "threshold": pairs.masks.threshold},
        "sources": {"pairs": len(pairs.pairs), "pairs_sha256": pairs.sha256()},
        "libraries": library_versions("numpy", "pillow", "opencv", "av"),
    }
    info = {"folders": dict(zip(("videos", "masks"), pairs.folders, strict=True))}
    with OutputFolder(out, recipe, info=info) as folder:
        if folder.complete:
            say(folder.complete_message)
            return
        with Journal(folder.progress / "written.jsonl", "sequence") as journal:
            todo = [
                Task(pair.sequence, pairs.clips[pair.video], pair.start, pair.frames, pair.size, ())
                for pair in pairs.pairs
                if pair.sequence not in journal.rows
            ]
            job = partial(_write_pair, masks=pairs.masks, out=out.absolute())
            probes = [folder.recipe_file, pairs.masks.probe_file]
            done = parallel.run(job, todo, workers=workers, cluster=cluster, shared_files=probes)
            for name in tqdm(done, "writing pairs", len(todo), unit="sequence", disable=None):
                journal.add({"sequence": name})
        files.write_whole(out / PAIRS_CSV, pairs.csv())
        folder.finish()


def _write_pair(task, masks, out):
    """Write the files of a pair. Returns its name."""
    for name, truth, hole in task.read(masks):
        images.write(out / "frames" / f"{name}.png", truth)
        path = out / "masks" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(path, maskset.encode(hole))
    return task.sequence
