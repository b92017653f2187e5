"""Folders of photos: which are meant, which mask belongs to which, where results go, and the run that makes them."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tqdm import tqdm

from maskgen.errors import BadInput
from maskgen.runtime import images
from maskgen.runtime.files import sha256, shortened
from maskgen.runtime.output import OutputFolder

LONGEST = 255  # bytes of a file name that file systems take


@dataclass(frozen=True)
class Job:
    """A photo of a run."""

    name: str  # its path below the folder of photos
    inputs: dict[str, Path]  # the files that decide its results: "image", and "mask" where there is one
    results: tuple[Path, ...]


def find(photos: Path, *others: Path) -> list[Path]:
    """One photo, or all below a folder but those in other folders of the run, such as its results."""
    return [photos] if photos.is_file() else images.find(photos, exclude=others)


def pairs(photos: Path, masks: Path, out: Path) -> list[tuple[Path, Path]]:
    """Which mask belongs to which photo: one mask serves all, a folder of masks is matched as `pair_by_path` does."""
    if not masks.exists():
        raise BadInput(f"no such file or folder: {masks} (expected masks)")
    found = find(photos, masks, out)
    if masks.is_file():
        return [(photo, masks) for photo in found]
    return pair_by_path(found, folder_of(photos), images.find(masks, kind="mask"), masks)


def folder_of(photos: Path) -> Path:
    """The folder to which names of photos are relative."""
    return photos.parent if photos.is_file() else photos


def places(found: list[Path], photos: Path, out: Path, *endings: str) -> list[tuple[Path, ...]]:
    """Where the results of each photo go, one of each ending: below `out` as the photo lies below its folder.

    `out` may be the name of a PNG file, where there is one photo: the first result is that file. Raises BadInput where
    two photos would go to one file.
    """
    if is_picture(out):
        return [_places_beside(out, photos, endings)]
    if out.is_file():
        raise BadInput(f"{out} is a file: expected a folder for the results, or a name.png for that of one photo")
    found = [photo.relative_to(folder_of(photos)) for photo in found]
    longest = LONGEST - max(map(len, endings))
    stems = [photo.stem if len(os.fsencode(photo.stem)) <= longest else shortened(photo.stem) for photo in found]
    results = [
        tuple(out / photo.parent / f"{stem}{ending}" for ending in endings)
        for photo, stem in zip(found, stems, strict=True)
    ]
    for (first, *_), times in Counter(results).items():
        if times > 1:
            raise BadInput(f"{times} photos in {photos} would be written to {first}: rename them")
    return results


def _places_beside(out, photos, endings):
    """A PNG file for the first result of one photo, and its name with what the other endings add to the first."""
    if not photos.is_file():
        raise BadInput(f"{photos} is a folder of photos: expected a folder for their results, got {out}")
    if out.suffix.lower() != ".png":
        raise BadInput(f"results are PNG files, which keep known pixels: expected a folder or a name.png, got {out}")
    if out.resolve() == photos.resolve():
        raise BadInput(f"{out} is the photo itself: name another file for the result")
    first = endings[0].removesuffix(".png")
    return out, *(out.with_name(f"{out.stem}{ending.removeprefix(first)}") for ending in endings[1:])


def is_picture(out: Path) -> bool:
    """Whether a name is that of a picture file and not of a folder."""
    return out.suffix.lower() in images.ENDINGS and not out.is_dir()


def run(
    jobs: list[Job],
    out: Path,
    recipe: dict,
    check: Callable[[list[Job]], None],
    make: Callable[[Job], None],
    say: Callable[[str], None],
) -> int:
    """Make the results of photos in an output folder, or in the file `out`. Returns of how many photos.

    recipe: as in OutputFolder, the photos and masks are added by their content. Photos may be added to a finished
    folder; a result that is there already is left alone. check: raises BadInput for photos that cannot be done, before
    any result is made. make: writes the results of one photo.
    """
    if is_picture(out):
        check(jobs)
        make(jobs[0])
        say(f"result in {out}")
        return 1
    digest = cache(sha256)  # one mask may serve all photos
    inputs = {job.name: {kind: digest(path) for kind, path in job.inputs.items()} for job in jobs}
    with OutputFolder(out, {**recipe, "inputs": inputs}, grows=("inputs",)) as folder:
        todo = [job for job in jobs if not all(path.exists() for path in job.results)]
        if folder.complete and not todo:
            say(folder.complete_message)
            return 0
        check(todo)
        if folder.complete:
            folder.reopen()
        each(todo, "image", make)
        folder.finish()
    say(f"{len(todo)} images in {out}")
    return len(todo)


def each(jobs: list[Job], unit: str, do: Callable[[Job], None], *, leave: bool = True) -> None:
    """Do one job after the other, with a progress bar where there are several. leave: the bar, at the end."""
    with tqdm(jobs, unit=unit, disable=len(jobs) < 2, leave=leave) as bar:
        for job in bar:
            do(job)


def pair_by_path(
    images: list[Path], image_folder: Path, masks: list[Path], mask_folder: Path
) -> list[tuple[Path, Path]]:
    """(image, mask) for each image. Its mask has the same path below the folder, without the ending, or the same name.

    The name alone is used only where a single image and a single mask have it. Raises BadInput for an image without a
    mask, and for one that two masks could belong to.
    """

    def path_of(path, folder):
        return path.relative_to(folder).with_suffix("").as_posix()

    by_path, by_name = defaultdict(list), defaultdict(list)
    for mask in masks:
        by_path[path_of(mask, mask_folder)].append(mask)
        by_name[mask.stem].append(mask)
    names = Counter(image.stem for image in images)
    pairs = []
    for image in images:
        key = path_of(image, image_folder)
        found = by_path.get(key) or by_name.get(image.stem, [])
        if not found:
            raise BadInput(f"no mask for {image} in {mask_folder}: expected {key}.png there, or pass one mask for all")
        if len(found) > 1 or (key not in by_path and names[image.stem] > 1):
            meant = " or ".join(mask.relative_to(mask_folder).as_posix() for mask in found[:3])
            raise BadInput(f"{image} could belong to the mask {meant} in {mask_folder}: name it {key}.png")
        pairs.append((image, found[0]))
    return pairs
