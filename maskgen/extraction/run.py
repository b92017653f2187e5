"""Videos in, raw mask set out.

A run consists of rounds. In each round every source is asked for its share of the missing masks, from pairs of frames
spread evenly over its length. The results decide what the next round asks for, until there are enough masks or no
pairs are left. The masks of a pair depend only on the pair and the settings, and results are merged in a fixed order,
so neither the number of workers nor an interruption changes a byte.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import count, pairwise
from math import ceil
from pathlib import Path

from tqdm import tqdm

from maskgen import maskset
from maskgen.errors import BadInput
from maskgen.extraction import flow, schedule, task, video
from maskgen.extraction.merging import NEAR_DUPLICATE, Accepted, merge
from maskgen.extraction.schedule import Request, Segment
from maskgen.extraction.video import SPLITS
from maskgen.runtime import files, parallel
from maskgen.runtime.lock import locked
from maskgen.runtime.output import OutputFolder
from maskgen.runtime.recipe import RECIPE, library_versions
from maskgen.runtime.rows import RowSorter
from maskgen.settings import ExtractConfig

# These sizes are fixed: with others, the same settings would examine other pairs of frames and give another mask set.
TASK_MASKS = 48  # masks of a task, some seconds of work: little is lost with a worker, and seeking costs little
MIN_TASK_MASKS = 8  # the same, where few masks are missing
TASKS_A_ROUND = 16  # at least, if the size allows: no worker has to wait long for the others at the end of a round
TASK_PAIRS = 8 * TASK_MASKS  # pairs offered to a task at most, for films in which hardly anything moves
MAX_NAMED = 10  # sources without a mask that the summary names
EXPLANATIONS = {  # why a source has given no mask, by the most frequent reason
    task.ONE_COLOUR: "its frames are all of one colour",
    task.NEAR_EMPTY: "its masks are near-empty, as hardly anything moves",
    task.NEAR_FULL: "the optical flow fails on it, as its frames differ too much",
    task.SCENE_CUT: "there is a scene cut in every pair",
    task.UNREADABLE: "its frames cannot be decoded",
    task.OTHER_SIZE: "its frames change size",
    NEAR_DUPLICATE: "its masks are the same as those of other frames",
}


def extract(
    paths: Path | str | Iterable[Path | str],
    out: Path | str,
    config: ExtractConfig | None = None,
    *,
    workers: int | None = None,
    cluster: str | None = None,
    strict: bool = False,
    say: Callable[[str], None] = print,
) -> dict:
    """Make raw masks from videos and write them as a mask set. Returns its recipe.

    paths: video files, folders of frames, or folders of those. out: a new folder, or the folder of an interrupted run
    with the same arguments, which is resumed. config: the settings. workers: processes, by default one for each
    core. cluster: address of a Dask scheduler whose workers are used instead. strict: stop at the first source or frame
    that cannot be used instead of passing it over. say: called with lines for the user. Raises BadInput for what the
    user can correct; finished work is kept. If no mask can be made, nothing is written.
    """
    paths = [paths] if isinstance(paths, Path | str) else list(paths)
    out, config = Path(out), config or ExtractConfig()
    _check(config)
    config = replace(config, flow=flow.absolute(config.flow))
    with locked(out):
        sources, unusable = probe_sources(paths, out, workers, cluster, strict, say)
        segments = schedule.assign_splits(sources, config, say)
        if not any(segment.remaining for segment in segments):
            longest = max(source.frames for source in sources)
            raise BadInput(
                f"the gap of {min(config.gaps)} is too large for these videos, the longest has {longest} frames: "
                "give a smaller --gap, or longer videos"
            )
        recipe = _recipe(segments, config)
        with OutputFolder(out, recipe, info={"unusable": unusable}, item_info=video.CREDIT) as folder:
            if folder.complete:
                say(folder.complete_message)
                return folder.finish(counts=_finished_counts(out))  # with the current SOURCES.csv
            return write_masks(segments, folder, config, workers=workers, cluster=cluster, strict=strict)


def write_masks(
    segments: list[Segment],
    folder: OutputFolder,
    config: ExtractConfig,
    *,
    workers: int | None = None,
    cluster: str | None = None,
    strict: bool = False,
) -> dict:
    """Make the masks of some segments and write the mask set. Returns its recipe."""
    with ExitStack() as stack:
        rows = {split: stack.enter_context(RowSorter(_by_name, folder.progress)) for split in SPLITS}
        accepted = stack.enter_context(Accepted(folder.progress))
        passed_over = _run_rounds(segments, folder, config, workers, cluster, strict, rows, accepted)
        counts = _counts(segments, rows, passed_over)
        for split in SPLITS:
            if len(rows[split]):
                maskset.write_index(folder.path / split, rows[split])
    if not any(counts["masks"].values()):
        folder.discard()
        return {**folder.recipe, "counts": counts}
    return folder.finish(counts=counts)


def _by_name(row):
    return files.natural(row["file_name"])


def summary(recipe: dict) -> list[str]:
    """What a run made, what it passed over and what is missing, as lines for the user. recipe: of a finished run."""
    counts, wanted = recipe["counts"], recipe["settings"]
    lines = []
    for split in SPLITS:
        got, examined = counts["masks"][split], counts["pairs"][split]
        missing = wanted[split] - got
        lines.append(
            f"{split}: {got} masks" + (", as many as wanted" if not missing else f" of {wanted[split]} wanted")
        )
        if missing:
            more = f"about {ceil(missing * examined / got)} more pairs of frames like these" if got else "other videos"
            limited = f", or raise --max-share from {wanted['max_share']:g}" * (wanted.get("max_share", 1) < 1)
            lines.append(
                f"  no pairs are left and {missing} masks are missing: {more} are needed; "
                f"add videos, or get more from these with --gap 1,2,4 or --crops 2{limited}"
            )
    sources = f"{len(recipe['sources'])} source{'s' * (len(recipe['sources']) > 1)}"
    lines.append(f"from {sources}, {sum(counts['pairs'].values())} pairs of frames examined")
    lines.append(f"masks passed over: {passed_over_in(recipe) or 'none'}")
    lines += schedule.leaving_line(recipe)
    lines += [f"{name}: {number} masks {reason}" for name, reason, number in counts["faults"]]
    fruitless = [f"no mask came from {name}: {EXPLANATIONS[reason]}" for name, reason in counts["fruitless"]]
    lines += fruitless[:MAX_NAMED]
    if len(fruitless) > MAX_NAMED:
        lines.append(f"no mask came from {len(fruitless) - MAX_NAMED} more sources; recipe.json lists them")
    return lines


def passed_over_in(recipe: dict) -> str:
    """How many masks were passed over for each reason, as a phrase; empty if none."""
    return ", ".join(f"{number} {reason}" for reason, number in recipe["counts"]["passed_over"].items())


def _check(config):
    """Refuse impossible settings before anything is read or written."""
    flow.flow_named(config.flow)
    for name, value, least in (("size", config.size, video.SMALLEST), ("crops", config.crops, 1)):
        if value < least:
            raise BadInput(f"{name}: expected {least} or more, got {value}")
    if not config.gaps or min(config.gaps) < 1:
        raise BadInput(f"gaps: expected frame distances of 1 or more, got {','.join(map(str, config.gaps)) or 'none'}")
    if min(config.train, config.test) < 0 or not config.train + config.test:
        raise BadInput(f"train and test: expected numbers of masks, not both 0, got {config.train} and {config.test}")
    if not 0 <= config.min_ratio < config.max_ratio <= 1:
        raise BadInput(f"expected 0 <= min-ratio < max-ratio <= 1, got {config.min_ratio} and {config.max_ratio}")


def probe_sources(
    paths: Iterable[Path | str],
    out: Path,
    workers: int | None,
    cluster: str | None,
    strict: bool,
    say: Callable[[str], None],
) -> tuple[list[video.Source], list[dict]]:
    """The usable sources below some paths, and a row with the reason for each of the others.

    out: a folder that is not searched. Raises BadInput if none can be used, with `strict` also if one cannot.
    """
    found = video.find([Path(path) for path in paths], outside=out)
    described = video.described([path for path, _ in found])
    probes = parallel.run(_probe, _absolute(found), workers=workers, cluster=cluster, shared_files=[found[0][0]])
    sources, unusable = [], []
    first: dict[str, Path] = {}
    bar = tqdm(found, "probing videos", unit="", leave=False)
    for (path, name), probe in zip(bar, probes, strict=True):
        fault, reason = "", ""
        remarks: tuple[str, ...] = ()
        if isinstance(probe, str):
            reason, fault = probe, f"passed over: {probe}"
        elif first.setdefault(probe.content, path) is not path:  # a copy, or a link to a folder
            reason = f"{path} holds the same frames as {first[probe.content]}: they are used once"
        else:
            table = described.get(path, {})
            sources.append(replace(probe, path=path, **{key: table.get(key, "") for key in video.SPLITTING}))
            fault, remarks = _truncation(sources[-1]), probe.remarks
        if reason:
            unusable.append({"name": name, "file": _printable(path.name), "reason": _printable(reason)})
        if fault and strict:
            bar.close()
            raise BadInput(f"{fault} (stopped because of --strict)")
        with tqdm.external_write_mode(sys.stderr):
            for line in filter(None, (fault or reason, *(f"{path} {remark}" for remark in remarks))):
                say(line)
    if not sources:
        raise BadInput(f"none of the {len(found)} videos found can be used: repair or replace them")
    return sources, unusable


def _printable(name):
    """A file name as text, even if its bytes are not valid text."""
    return os.fsencode(name).decode(errors="replace")


def _absolute(found):
    """(absolute path, path as given, name): a worker on another machine has another working folder."""
    return ((path.absolute(), path, name) for path, name in found)


def _truncation(source):
    if source.frames >= source.announced - 2:  # headers often count one or two too many
        return ""
    return f"{source.path} is truncated: of {source.announced} frames the first {source.frames} are used"


def _probe(found):
    """The `Source` at a path, or a str with what is wrong with it."""
    path, given, name = found
    try:
        return video.probe(path, name)
    except (BadInput, OSError) as error:
        return str(error).replace(str(path), str(given))


def _recipe(segments, config):
    """All that decides the result, and the credits of the sources."""
    return {
        "made_by": "maskgen extract",
        "settings": {**asdict(config), "flow": flow.identity(config.flow)},
        "libraries": library_versions("opencv", "numpy", "av", "pillow", *flow.packages(config.flow)),
        "sources": recipe_sources(segments),
    }


def recipe_sources(segments: list[Segment]) -> list[dict]:
    """A row for each source of some segments: what identifies it, its splits, and its credits."""
    sources = list({segment.source.name: segment.source for segment in segments}.values())
    described, rows = video.described([source.path for source in sources]), []
    for source in sources:
        of_source = [segment for segment in segments if segment.source is source]
        table = described.get(source.path, {})
        frames = {segment.split: [segment.start, segment.stop] for segment in of_source}
        rows.append(
            {
                "name": source.name,
                "file": _printable(source.path.name),
                "sha256": source.sha256,
                "frames": source.frames,
                "width": source.width,
                "height": source.height,
                "split": of_source[0].split if len(of_source) == 1 else frames,
                **{key: value for key, value in table.items() if key != "split"},
            }
        )
    return rows


def _finished_counts(out):
    """The counts of a finished run. Raises BadInput if its recipe has been edited and lacks them."""
    recipe = maskset.read_recipe(out)
    try:
        summary(recipe)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BadInput(
            f"{out / RECIPE} lacks the counts of a finished run: delete the folder, or name another one"
        ) from None
    return recipe["counts"]


def _run_rounds(segments, target, config, workers, cluster, strict, rows, accepted):
    """A Counter of (source, reason) of the masks passed over. rows, accepted: are added to."""
    passed_over, given = Counter(), Counter()
    wanted = {split: getattr(config, split) for split in SPLITS}
    shared_files = (target.recipe_file, segments[0].source.path)
    with tqdm(total=sum(wanted.values()), desc="masks", unit=" masks", smoothing=0.05) as bar:
        for number in count():
            missing = {split: wanted[split] - len(rows[split]) for split in SPLITS}
            requests = schedule.plan_round(segments, missing, number)
            if not requests:
                break
            folder = target.progress / f"round{number:03d}"
            pieces = _pieces(requests)
            tasks = (_task(piece, _result(folder, i)) for i, piece in enumerate(pieces))  # one by one: they are large
            done = parallel.run(task.extract_masks, tasks, workers=workers, cluster=cluster, shared_files=shared_files)
            for i, (piece, _) in enumerate(zip(pieces, done, strict=True)):
                segment = piece.segment
                group = segment.split, segment.group
                room = min(wanted[segment.split] - len(rows[segment.split]), segment.most_of_group - given[group])
                candidates = task.read_candidates(_result(folder, i))
                segment.mark_examined(dict.fromkeys((one.frame, one.gap, one.square) for one in candidates))
                for row in merge(candidates, segment, target.path, room, passed_over, accepted, strict):
                    rows[segment.split].add(row)
                    given[group] += 1
                    bar.update()
    return passed_over


def _pieces(requests):
    """Cut the requests of a round by time into pieces, one for each task, the longest first."""
    masks = sum(request.wanted for request in requests)
    size = min(TASK_MASKS, max(MIN_TASK_MASKS, masks // TASKS_A_ROUND))
    pieces = []
    for request in requests:
        offered = len(request.codes)
        number = ceil(max(min(request.wanted, offered) / size, offered / TASK_PAIRS))
        edges = [[i * whole // number for i in range(number + 1)] for whole in (request.wanted, offered)]
        for (before, after), (first, last) in zip(*map(pairwise, edges), strict=True):
            if after > before:
                pieces.append(Request(request.segment, after - before, request.codes[first:last]))
    return sorted(pieces, key=lambda piece: -piece.wanted)  # so that all workers end at about the same time


def _result(folder, number):
    return folder / f"{number // 1000:03d}" / f"{number:06d}.npz"


def _task(piece, result):
    segment, source = piece.segment, piece.segment.source
    return task.Task(
        path=source.path.absolute(),
        pairs=segment.pairs(piece.codes),
        wanted=piece.wanted,
        squares=tuple(segment.squares),
        shape=(source.height, source.width),
        config=segment.config,
        result=result.absolute(),
        stamps=source.stamps,
    )


def _counts(segments, rows, passed_over):
    """The counts of a run for recipe.json: masks, pairs, and what was passed over."""
    reasons, faults, fruitless = Counter(), [], []
    for (source, reason), number in sorted(passed_over.items()):
        reasons[reason] += number
        if reason in (task.UNREADABLE, task.OTHER_SIZE):
            faults.append([source, reason, number])
    fruitful = {segment.source.name for segment in segments if segment.accepted}
    for name in dict.fromkeys(segment.source.name for segment in segments):
        numbers = {reason: passed_over[name, reason] for reason in EXPLANATIONS}
        if name not in fruitful and any(numbers.values()):
            fruitless.append([name, max(numbers, key=numbers.get)])
    return {
        "masks": {split: len(rows[split]) for split in SPLITS},
        "pairs": {split: sum(one.examined for one in segments if one.split == split) for split in SPLITS},
        "masks_by_source": {f"{one.split}/{one.source.name}": one.accepted for one in segments},
        "leaving": schedule.leaving_counts(segments),
        "passed_over": dict(reasons.most_common()),
        "faults": faults,
        "fruitless": fruitless,
    }
