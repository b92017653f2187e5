"""Videos in, raw mask set out.

A run goes in rounds. In each round every source is asked for about the masks it still owes, from pairs of frames
spread evenly over its length; what the round yields decides what the next one asks for, until the wanted numbers are
reached or no pair is left. A pair's masks depend on nothing but the pair and the settings, and results are merged in
the order of the plan, so neither the number of workers nor an interruption changes a byte.
"""

import os
import sys
from bisect import bisect, insort
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, replace
from itertools import count, pairwise
from math import ceil
from pathlib import Path

import numpy as np
from tqdm import tqdm

from maskgen import maskset
from maskgen.errors import BadInput
from maskgen.extraction import flow, schedule, task, video
from maskgen.extraction.schedule import SPLITS
from maskgen.runtime import files, parallel
from maskgen.runtime.lock import locked
from maskgen.runtime.output import OutputFolder
from maskgen.runtime.recipe import RECIPE, library_versions
from maskgen.settings import ExtractConfig

TASK = 48  # masks, some seconds of work: little is lost with a worker, and finding the place in a film costs little
FEW = 8  # masks, the same where few are missing
SLOW = 8  # times as many pairs a task may have to look at, where hardly anything moves
REPEATED = "almost identical to another"
FOLDER_LIMIT = 10_000  # files, beyond which file systems and dataset hosts suffer
NAMED = 10  # sources without a mask that the summary names
WHY = {  # what a source has given no mask for, most often
    task.BLANK: "its frames are all of one colour",
    task.EMPTY: "its masks are near-empty, as where hardly anything moves",
    task.FULL: "the optical flow fails on it, as frames differ too much",
    task.CUT: "scenes change at every pair",
    task.UNREADABLE: "its frames cannot be decoded",
    task.CHANGED: "its frames change size",
    REPEATED: "its masks are those of other frames",
}
ALIKE = 0.9  # intersection over union of two masks' occupied cells from which they count as the same mask


def extract(
    paths: Iterable[Path],
    out: Path,
    config: ExtractConfig | None = None,
    *,
    workers: int | None = None,
    cluster: str | None = None,
    strict: bool = False,
    say=print,
) -> dict:
    """Make raw masks from videos and write them as a mask set. Returns its recipe.

    paths: video files, folders of frames, or folders of those. out: a new folder, or one in which the same call was
    interrupted. strict: stop at the first source or frame that cannot be used instead of passing it over. say: is
    called with lines for the user. Raises BadInput for what the user can mend; what was made until then is kept.
    Where not one mask could be made nothing is written.
    """
    config = config or ExtractConfig()
    _check(config)
    with locked(out):
        sources, unusable = _look_at(list(paths), out, workers, cluster, strict, say)
        parts = schedule.divide(sources, config, say)
        if not any(part.left for part in parts):
            longest = max(source.frames for source in sources)
            raise BadInput(
                f"no two frames lie {min(config.gaps)} apart in these videos, the longest has {longest} frames: "
                "give a smaller --gap, or longer videos"
            )
        recipe = _recipe(sources, parts, config)
        with OutputFolder(out, recipe, info={"unusable": unusable}, item_info=video.CREDIT) as folder:
            if folder.complete:
                say(folder.complete_message)
                return folder.finish(counts=_finished_counts(out))  # with what SOURCES.csv says by now
            rows, passed_over = _run_rounds(parts, folder, config, workers, cluster, strict)
            counts = _counts(parts, rows, passed_over)
            if not any(rows.values()):
                folder.discard()
                return {**folder.recipe, "counts": counts}
            for split in SPLITS:
                if rows[split]:
                    rows[split].sort(key=lambda row: files.natural(row["file_name"]))
                    maskset.write_index(out / split, rows[split])
            return folder.finish(counts=counts)


def summary(recipe: dict) -> list[str]:
    """What a run gave, what it passed over and what is missing, in lines for people."""
    counts, wanted = recipe["counts"], recipe["settings"]
    lines = []
    for split in SPLITS:
        got, looked_at = counts["masks"][split], counts["pairs"][split]
        missing = wanted[split] - got
        lines.append(
            f"{split}: {got} masks" + (", as many as wanted" if not missing else f" of {wanted[split]} wanted")
        )
        if missing:
            more = f"about {ceil(missing * looked_at / got)} more pairs of frames like these" if got else "other videos"
            lines.append(
                f"  the videos are exhausted and {missing} masks are missing: {more} are needed; "
                "add videos, or take more out of these with --gap 1,2,4 or --crops 2"
            )
    sources = f"{len(recipe['sources'])} source{'s' * (len(recipe['sources']) > 1)}"
    lines.append(f"from {sources}, {sum(counts['pairs'].values())} pairs of frames looked at")
    lines.append(f"masks passed over: {passed_over_in(recipe) or 'none'}")
    lines += [f"{name}: {number} masks {reason}" for name, reason, number in counts["faults"]]
    fruitless = [f"no mask came from {name}: {WHY[reason]}" for name, reason in counts["fruitless"]]
    lines += fruitless[:NAMED]
    if len(fruitless) > NAMED:
        lines.append(f"no mask came from {len(fruitless) - NAMED} more; recipe.json lists them")
    return lines


def passed_over_in(recipe: dict) -> str:
    """Why masks were passed over, and how many, in words."""
    return ", ".join(f"{number} {reason}" for reason, number in recipe["counts"]["passed_over"].items())


def _check(config):
    """Refuse settings that cannot work before anything is read or written."""
    flow.flow_named(config.flow)
    for name, value, least in (("size", config.size, video.SMALLEST), ("crops", config.crops, 1)):
        if value < least:
            raise BadInput(f"{name} is {least} or more, got {value}")
    if not config.gaps or min(config.gaps) < 1:
        raise BadInput(f"gaps are frame distances of 1 or more, got {','.join(map(str, config.gaps)) or 'none'}")
    if min(config.train, config.test) < 0 or not config.train + config.test:
        raise BadInput(f"train and test are numbers of masks, not both 0, got {config.train} and {config.test}")
    if not 0 <= config.min_ratio < config.max_ratio <= 1:
        raise BadInput(f"expected 0 <= min-ratio < max-ratio <= 1, got {config.min_ratio} and {config.max_ratio}")


def _look_at(paths, out, workers, cluster, strict, say):
    """The usable sources, and what is wrong with the others."""
    found = video.find(paths, outside=out)
    looks = parallel.run(_probe, _absolute(found), workers=workers, cluster=cluster, shared_files=[found[0][0]])
    sources, unusable, first = [], [], {}
    bar = tqdm(found, "looking at videos", unit="", leave=False)
    for (path, name), look in zip(bar, looks, strict=True):
        fault, reason, remarks = "", "", ()
        if isinstance(look, str):
            reason, fault = look, f"passed over: {look}"
        elif first.setdefault(look.content, path) is not path:  # a copy, or a link to a folder
            reason = f"{path} holds the same frames as {first[look.content]}: they are used once"
        else:
            sources.append(replace(look, path=path))
            fault, remarks = _truncation(sources[-1]), look.remarks
        if reason:
            unusable.append({"name": name, "file": _printable(path.name), "reason": _printable(reason)})
        if fault and strict:
            bar.close()
            raise BadInput(f"{fault} (stopped because of --strict)")
        with tqdm.external_write_mode(sys.stderr):
            for line in filter(None, (fault or reason, *(f"{path} {remark}" for remark in remarks))):
                say(line)
    if not sources:
        raise BadInput(f"none of the {len(found)} videos found can be used: mend or replace them")
    return sources, unusable


def _printable(name):
    """A file name as text, also where its bytes are none."""
    return os.fsencode(name).decode(errors="replace")


def _absolute(found):
    """(absolute path, path as given, name): a worker on another machine is in a folder of its own."""
    return ((path.absolute(), path, name) for path, name in found)


def _truncation(source):
    if source.frames >= source.announced - 2:  # a header that counts one or two too many is usual
        return ""
    return f"{source.path} is truncated: of {source.announced} frames the first {source.frames} are used"


def _probe(found):
    path, given, name = found
    try:
        return video.probe(path, name)
    except (BadInput, OSError) as error:
        return str(error).replace(str(path), str(given))


def _recipe(sources, parts, config):
    """All that decides the outcome, and who made the sources."""
    credits = video.credits([source.path for source in sources])
    rows = []
    for source in sources:
        mine = [part for part in parts if part.source is source]
        frames = {part.split: [part.start, part.stop] for part in mine}  # which split uses which frames
        rows.append(
            {
                "name": source.name,
                "file": _printable(source.path.name),
                "sha256": source.sha256,
                "frames": source.frames,
                "width": source.width,
                "height": source.height,
                "split": mine[0].split if len(mine) == 1 else frames,
                **credits.get(source.path, {}),
            }
        )
    return {
        "made_by": "maskgen extract",
        "settings": asdict(config),
        "libraries": library_versions("opencv", "numpy", "av", "pillow", *flow.packages(config.flow)),
        "sources": rows,
    }


def _finished_counts(out):
    """The counts of a finished run. Raises BadInput where its recipe was changed since."""
    recipe = maskset.read_recipe(out)
    try:
        summary(recipe)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BadInput(
            f"{out / RECIPE} lacks the counts of a finished run: delete the folder, or name another"
        ) from None
    return recipe["counts"]


def _run_rounds(parts, target, config, workers, cluster, strict):
    """Returns the index rows of each split, and a Counter of (source, reason) for the masks passed over."""
    rows, passed_over, hashes = {split: [] for split in SPLITS}, Counter(), set()
    wanted = {split: getattr(config, split) for split in SPLITS}
    shared_files = (target.recipe_file, parts[0].source.path)
    with tqdm(total=sum(wanted.values()), desc="masks", unit=" masks", smoothing=0.05) as bar:
        for number in count():
            asked = schedule.ask(parts, {split: wanted[split] - len(rows[split]) for split in SPLITS}, number)
            if not asked:
                break
            folder = target.progress / f"round{number:03d}"
            size = min(TASK, max(FEW, sum(count for _, count, _ in asked) // 16))  # so that no worker has to wait long
            cut = [(part, *piece) for part, count, offered in asked for piece in _pieces(count, offered, size)]
            cut.sort(key=lambda piece: -piece[1])  # the long ones first: then all workers end at about the same time
            tasks = (_task(*piece, _result(folder, i)) for i, piece in enumerate(cut))  # one by one: they are large
            done = parallel.run(task.make, tasks, workers=workers, cluster=cluster, shared_files=shared_files)
            for i, ((part, _, _), _) in enumerate(zip(cut, done, strict=True)):
                room = wanted[part.split] - len(rows[part.split])
                masks = task.results(_result(folder, i))
                part.look_at(dict.fromkeys((mask.frame, mask.gap, mask.square) for mask in masks))
                new = list(_merge(masks, part, target.path, room, passed_over, hashes, strict))
                rows[part.split] += new
                bar.update(len(new))
    return rows, passed_over


def _pieces(wanted, offered, size):
    """Cut what is asked of a part into tasks of about `size` masks, by time: (masks wanted, codes to choose from)."""
    count = ceil(max(min(wanted, len(offered)) / size, len(offered) / (SLOW * TASK)))
    edges = [[i * whole // count for i in range(count + 1)] for whole in (wanted, len(offered))]
    for (more, most), (first, last) in zip(*map(pairwise, edges), strict=True):
        if most > more:
            yield most - more, offered[first:last]


def _result(folder, number):
    return folder / f"{number // 1000:03d}" / f"{number:06d}.npz"


def _task(part, wanted, codes, result):
    path, squares, shape = part.source.path.absolute(), tuple(part.squares), (part.source.height, part.source.width)
    return task.Task(
        path, part.pairs(codes), wanted, squares, shape, part.config, result.absolute(), part.source.stamps
    )


def _merge(masks, part, out, room, passed_over, hashes, strict):
    """Write new masks into the set, up to `room` of them, and yield their index rows."""
    for mask in masks:
        reason = mask.reason
        if strict and reason in (task.UNREADABLE, task.CHANGED):
            raise BadInput(
                f"{part.source.path}: frame {mask.frame} or the next is {reason[3:]} (stopped because of --strict)"
            )
        neighbours = part.seen.setdefault(mask.square, [])
        if not reason and (mask.row["sha256"] in hashes or _is_alike(mask, neighbours)):
            reason = REPEATED
        if reason:
            passed_over[part.source.name, reason] += 1
            continue
        if not room:
            return
        room -= 1
        part.accepted += 1
        hashes.add(mask.row["sha256"])
        insort(neighbours, (mask.frame, mask.kind, mask.cells))
        file_name = _file_name(mask, part)
        (out / part.split / file_name).parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(out / part.split / file_name, mask.png)
        made = {"source": part.source.name, "frame": mask.frame, "gap": mask.gap, "square": mask.square}
        yield mask.row | {"file_name": file_name, **made, "kind": mask.kind}


def _is_alike(mask, neighbours):
    """Whether one of the nearest masks in time, two before and two after, covers the same cells."""
    cells, place = np.frombuffer(mask.cells, np.uint8), bisect(neighbours, (mask.frame, mask.kind))
    for _, _, other in neighbours[max(0, place - 2) : place + 2]:
        other = np.frombuffer(other, np.uint8)
        if np.bitwise_count(cells & other).sum() > ALIKE * np.bitwise_count(cells | other).sum():
            return True
    return False


def _file_name(mask, part):
    """`<video>/<frame>_<kind>.png`; with several gaps or squares these stand between, and long films get subfolders."""
    several_gaps, several_squares = len(part.config.gaps) > 1, len(part.squares) > 1
    per_frame = len(task.KINDS) * len(part.config.gaps) * len(part.squares)
    folder = part.source.name
    if part.source.frames * per_frame > FOLDER_LIMIT:
        folder += f"/{mask.frame // (FOLDER_LIMIT // per_frame):04d}"
    words = [f"{mask.frame:06d}", f"gap{mask.gap}" * several_gaps, f"square{mask.square}" * several_squares, mask.kind]
    return f"{folder}/{'_'.join(filter(None, words))}.png"


def _counts(parts, rows, passed_over):
    reasons, faults, fruitless = Counter(), [], []
    for (source, reason), number in sorted(passed_over.items()):
        reasons[reason] += number
        if reason in (task.UNREADABLE, task.CHANGED):
            faults.append([source, reason, number])
    fruitful = {part.source.name for part in parts if part.accepted}
    for name in dict.fromkeys(part.source.name for part in parts):
        mine = {reason: passed_over[name, reason] for reason in WHY}
        if name not in fruitful and any(mine.values()):
            fruitless.append([name, max(mine, key=mine.get)])
    return {
        "masks": {split: len(rows[split]) for split in SPLITS},
        "pairs": {split: sum(part.looked_at for part in parts if part.split == split) for split in SPLITS},
        "masks_by_source": {f"{part.split}/{part.source.name}": part.accepted for part in parts},
        "passed_over": dict(reasons.most_common()),
        "faults": faults,
        "fruitless": fruitless,
    }
