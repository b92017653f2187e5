"""Fill the holes of photos in files and folders: the command `pconv inpaint`."""

from functools import partial
from pathlib import Path

from maskgen.errors import BadInput, warn
from maskgen.maskset import check_polarity, read_hole
from maskgen.runtime import images
from pconv_model import photos as files
from pconv_model.inpaint import Inpainter
from pconv_model.pixels import check_sizes


def inpaint_files(
    inpainter: Inpainter,
    photos: Path,
    masks: Path,
    out: Path,
    *,
    raw: bool = False,
    polarity: str = "hole-white",
    threshold: int | None = None,
    say=print,
) -> int:
    """Fill a photo, or every photo below a folder, into PNG files below `out`. Returns the number of photos filled.

    photos, masks: a file or a folder each, see `pconv_model.photos.match_masks`. out: an output folder, to which photos
    can be added later, or the name of one PNG file. raw: write the network's result everywhere. polarity, threshold: as
    in `maskgen.maskset.read_hole`. say: called with one line for the user at the end.

    Raises BadInput, before anything is written, if a file cannot be read, a mask is missing or has another size, or no
    mask has a hole.
    """
    check_polarity(masks if masks.is_dir() else masks.parent, polarity)
    read = partial(read_hole, polarity=polarity, threshold=threshold)
    matched = files.match_masks(photos, masks, out)
    results = files.result_paths([photo for photo, _ in matched], photos, out, ".png")
    jobs = [
        files.Job(photo.relative_to(files.base_folder(photos)).as_posix(), {"image": photo, "mask": mask}, result)
        for (photo, mask), result in zip(matched, results, strict=True)
    ]

    def check(todo):
        empty = []

        def check_one(job):
            image, hole = images.read(job.inputs["image"]), read(job.inputs["mask"])
            check_sizes(image, hole, job.inputs["image"], job.inputs["mask"])
            if not hole.any():
                empty.append(job.inputs["mask"])

        files.for_each(todo, "pair", check_one, leave=False)
        if empty and not raw:
            colour = polarity.removeprefix("hole-")
            if len(jobs) == 1:
                line = f"{empty[0]} has no hole ({colour} marks holes)"
            else:
                line = f"{len(empty)} of {len(jobs)} masks, such as {empty[0]}, have no hole ({colour} marks holes)"
            if len(empty) == len(jobs):
                raise BadInput(f"{line}: nothing would be filled")
            warn(f"{line}: their photos are copied unchanged")

    def fill(job):
        image, metadata = images.read_with_metadata(job.inputs["image"])
        images.write(job.results[0], inpainter(image, read(job.inputs["mask"]), raw), metadata)

    identity = inpainter.identity(raw=raw, polarity=polarity, threshold=threshold)
    return files.make_results(jobs, out, {"made_by": "pconv inpaint", **identity}, check, fill, say)
