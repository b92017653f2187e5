"""Frames that another program has written, `dir:FOLDER`: which folder belongs to which pair."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from evaluation import names
from evaluation.methods import Method
from evaluation.methods.external import check_folder
from evaluation.video.pairing import PairList, some
from maskgen.errors import BadInput, warn
from maskgen.extraction.video import VIDEOS
from maskgen.runtime import files, images


def frame_id(sequence: str, t: int) -> str:
    """The name of frame t of a pair, for methods."""
    return f"{sequence}/{t:05d}"


def with_frames(method: Method, pairs: PairList) -> tuple[Method, dict[str, str]]:
    """A method of the kind dir that knows the file of each frame; any other method is returned as it is.

    Also returns why pairs have no results, by sequence. A folder of results is called after a mask sequence or its
    video, by the rules of `evaluation.names`; folders between it and the frames do not matter. Frames are taken in
    natural order. Issues an `InputWarning` for pairs without results. Raises BadInput where no pair has any, and where
    one has two folders.
    """
    if method.kind != "dir":
        return method, {}
    top = Path(method.argument)
    check_folder(top)
    folders = _folders_of_frames(top)
    found = _matched(list(folders), pairs, top)
    chosen, faults = {}, {}
    for pair in pairs.pairs:
        if pair.sequence not in found:
            faults[pair.sequence] = f"no folder of results is called after {pair.sequence}"
            continue
        key = found[pair.sequence]
        pictures = folders[key]
        whole = pair.start == 0 and len(pictures) == pairs.clips[pair.video].frames
        if len(pictures) != pair.frames and not whole:
            faults[pair.sequence] = f"{key or top.name} has {len(pictures)} frames, expected {pair.frames}"
            continue
        for t, name in enumerate(pictures[: pair.frames]):
            chosen[frame_id(pair.sequence, t)] = (PurePosixPath(key) / name).as_posix()
    if faults:
        first = f"{next(iter(faults))}: {next(iter(faults.values()))}"
        warn(f"{method.label}: {len(faults)} of {len(pairs.pairs)} sequences cannot be scored, the first, {first}")
    return replace(method, results=chosen), faults


def _folders_of_frames(top):
    """The pictures in each folder, in natural order, by its path below the top; "" is the top itself."""
    found, videos = {}, []
    for folder, listed, _ in files.walk(top):
        if pictures := [name for name in listed if name.lower().endswith(images.ENDINGS)]:
            key = "" if folder == top else folder.relative_to(top).as_posix()
            found[key] = sorted(pictures, key=files.natural)
        videos += [name for name in listed if name.lower().endswith(VIDEOS)]
    if not found:
        holds = f"it holds {some(videos)}" if videos else "it holds no picture"
        raise BadInput(f"no frames in {top}, {holds}: expected a folder of frames for each sequence")
    return found


def _matched(keys: list[str], pairs: PairList, top: Path) -> dict[str, str]:
    """The folder of each sequence that has one."""
    sequences = [pair.sequence for pair in pairs.pairs]
    if len(keys) == len(sequences) == 1:
        return {sequences[0]: keys[0]}
    videos: dict[str, list[str]] = {}
    for pair in pairs.pairs:
        videos.setdefault(pair.video, []).append(pair.sequence)
    choices = [{name: name for name in sequences}, {name: of[0] for name, of in videos.items() if len(of) == 1}]
    best: dict[str, list[str]] = {}
    for forms in _forms(keys):
        matched = names.best_match(forms, choices)
        if len(matched) > len(best):
            best = {sequence: [forms[form] for form in found] for sequence, found in matched.items()}
    if not best:
        raise BadInput(
            f"none of the {len(keys)} folders of frames in {top} belongs to a sequence: they are called "
            f"{some(key or '.' for key in keys)}, expected names such as {some(sequences)}"
        )
    for sequence, found in best.items():
        if len(found) > 1:
            both = " and ".join(map(str, found[:2]))
            raise BadInput(f"{top} holds {both}, two folders of results of {sequence}: remove or rename one")
    return {sequence: found[0] for sequence, found in best.items()}


def _forms(keys: Iterable[str]) -> list[dict[str, str]]:
    """Forms of the names of folders, each with the folder that it stands for, as a program may write `bear/frames`.

    These are the whole path, the first part that tells it from all others, and all but the last part.
    """
    keys = [key for key in keys if key]
    parts = {key: PurePosixPath(key).parts for key in keys}

    def shortest(key):
        for depth in range(1, len(parts[key])):
            if not any(other != key and parts[other][:depth] == parts[key][:depth] for other in keys):
                return "/".join(parts[key][:depth])
        return key

    forms = [{key: key for key in keys}, {shortest(key): key for key in keys}]
    parents = {"/".join(parts[key][:-1]): key for key in keys if len(parts[key]) > 1}
    return [*forms, parents] if len(parents) == len(keys) else forms
