"""Runs over folders of photos: find them, match masks to them, name their results, and make these one by one."""

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

MAX_NAME_BYTES = 255  # longest file name that file systems accept


@dataclass(frozen=True)
class Job:
    """One photo of a run."""

    name: str  # path of the photo relative to the folder of photos
    inputs: dict[str, Path]  # the files that decide its results: "image", and "mask" if there is one
    results: tuple[Path, ...]


def find_photos(photos: Path, *excluded: Path) -> list[Path]:
    """A single photo, or all photos below a folder, without those in excluded folders (masks, results)."""
    return [photos] if photos.is_file() else images.find(photos, exclude=excluded)


def match_masks(photos: Path, masks: Path, out: Path) -> list[tuple[Path, Path]]:
    """Pairs of photo and mask. A single mask file is used for all photos; a folder is matched by `pair_by_path`.

    Raises BadInput if the masks do not exist, or a photo has none.
    """
    if not masks.exists():
        raise BadInput(f"no such file or folder: {masks} (expected masks)")
    found = find_photos(photos, masks, out)
    if masks.is_file():
        return [(photo, masks) for photo in found]
    return pair_by_path(found, base_folder(photos), images.find(masks, kind="mask"), masks)


def base_folder(photos: Path) -> Path:
    """The folder to which the names of the photos are relative."""
    return photos.parent if photos.is_file() else photos


def result_paths(found: list[Path], photos: Path, out: Path, *endings: str) -> list[tuple[Path, ...]]:
    """Paths of the results of each photo, one per ending. Subfolders of `photos` are repeated below `out`.

    For a single photo, `out` may also be the name of a PNG file, which is then the first result. Raises BadInput if two
    photos would be written to the same file.
    """
    if is_picture(out):
        return [_paths_of_single(out, photos, endings)]
    if out.is_file():
        raise BadInput(f"{out} is a file: expected a folder for the results, or a name.png for a single photo")
    found = [photo.relative_to(base_folder(photos)) for photo in found]
    longest = MAX_NAME_BYTES - max(map(len, endings))
    stems = [photo.stem if len(os.fsencode(photo.stem)) <= longest else shortened(photo.stem) for photo in found]
    results = [
        tuple(out / photo.parent / f"{stem}{ending}" for ending in endings)
        for photo, stem in zip(found, stems, strict=True)
    ]
    for (first, *_), times in Counter(results).items():
        if times > 1:
            raise BadInput(f"{times} photos in {photos} would be written to {first}: rename them")
    return results


def _paths_of_single(out, photos, endings):
    """The PNG file for a single photo, and paths beside it with the other endings."""
    if not photos.is_file():
        raise BadInput(f"{photos} is a folder of photos: expected a folder for their results, got {out}")
    if out.suffix.lower() != ".png":
        raise BadInput(f"results are lossless PNG files: expected a folder or a name.png, got {out}")
    if out.resolve() == photos.resolve():
        raise BadInput(f"{out} is the photo itself: choose another name for the result")
    first = endings[0].removesuffix(".png")
    return out, *(out.with_name(f"{out.stem}{ending.removeprefix(first)}") for ending in endings[1:])


def is_picture(out: Path) -> bool:
    """True if the path names a picture file and not a folder."""
    return out.suffix.lower() in images.ENDINGS and not out.is_dir()


def make_results(
    jobs: list[Job],
    out: Path,
    recipe: dict,
    check: Callable[[list[Job]], None],
    make: Callable[[Job], None],
    say: Callable[[str], None],
) -> int:
    """Make the results of all photos in an output folder, or in the file `out`. Returns the number of photos done.

    recipe: as in OutputFolder; the SHA-256 of each photo and mask are added. Existing results are kept, and photos can
    be added to a finished folder. check: called before the first result is made; raises BadInput for photos that cannot
    be processed. make: writes the results of one photo. say: called with one line for the user at the end.
    """
    if is_picture(out):
        check(jobs)
        make(jobs[0])
        say(f"result in {out}")
        return 1
    digest = cache(sha256)  # one mask may be used for all photos
    inputs = {job.name: {kind: digest(path) for kind, path in job.inputs.items()} for job in jobs}
    with OutputFolder(out, {**recipe, "inputs": inputs}, grows=("inputs",)) as folder:
        todo = [job for job in jobs if not all(path.exists() for path in job.results)]
        if folder.complete and not todo:
            say(folder.complete_message)
            return 0
        check(todo)
        if folder.complete:
            folder.reopen()
        for_each(todo, "image", make)
        folder.finish()
    say(f"{len(todo)} images in {out}")
    return len(todo)


def for_each(jobs: list[Job], unit: str, function: Callable[[Job], None], *, leave: bool = True) -> None:
    """Call the function with each job, with a progress bar if there are several. leave: keep the bar at the end."""
    with tqdm(jobs, unit=unit, disable=len(jobs) < 2, leave=leave) as bar:
        for job in bar:
            function(job)


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
