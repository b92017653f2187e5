"""Super-resolution by filling in what lies between the pixels (section 5.2 of the paper)."""

from pathlib import Path

import cv2
import numpy as np

from maskgen.errors import BadInput
from maskgen.runtime import images
from pconv_model.inpaint import identity, inpaint
from pconv_model.photos import Job, each, find, folder_of, places, run
from pconv_model.settings import TILE
from pconv_model.unet import UNet


def spread(image: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """The large image with holes between the known pixels, (K*H, K*W) or (K*H, K*W, C), and its hole, bool.

    Pixel (x, y) goes to (K*x + floor(K/2), K*y + floor(K/2)); everything else is hole.
    """
    if factor < 1:
        raise BadInput(f"the factor is 1 or more, got {factor}")
    shape = (image.shape[0] * factor, image.shape[1] * factor)
    large, hole = np.zeros((*shape, *image.shape[2:]), image.dtype), np.ones(shape, bool)
    places = slice(factor // 2, None, factor), slice(factor // 2, None, factor)
    large[places] = image
    hole[places] = False
    return large, hole


def superres(model: UNet, image: np.ndarray, factor: int, *, tile: int = TILE) -> np.ndarray:
    """The image `factor` times as large in its own dtype; its pixels come back untouched. Images as for `inpaint`."""
    large, hole = spread(image, factor)
    filled = inpaint(model, large, hole, tile=tile)
    if (
        image.ndim == 3 and image.shape[2] == 4
    ):  # a hole of `inpaint` becomes opaque; here transparency is a picture too
        filled[..., 3] = bicubic(image[..., 3], factor)
    return filled


def bicubic(image: np.ndarray, factor: int) -> np.ndarray:
    """The same size by bicubic interpolation, to compare with."""
    size = (image.shape[1] * factor, image.shape[0] * factor)
    return cv2.resize(image, size, interpolation=cv2.INTER_CUBIC).reshape(size[1], size[0], *image.shape[2:])


def superres_files(model: UNet, photos: Path, out: Path, factor: int, *, tile: int = TILE, say=print) -> int:
    """Enlarge a photo or every photo below a folder: `<name>_x4.png` and, beside it, `<name>_x4_bicubic.png`.

    Returns how many photos were done. out: an output folder, to which photos may be added later, or the name of one PNG
    file. say: is called with a line for the user. Raises BadInput for what the user can mend.
    """
    found = find(photos, out)
    results = places(found, photos, out, f"_x{factor}.png", f"_x{factor}_bicubic.png")
    jobs = [
        Job(photo.relative_to(folder_of(photos)).as_posix(), {"image": photo}, paths)
        for photo, paths in zip(found, results, strict=True)
    ]

    def check(todo):
        each(todo, "photo", lambda job: images.read(job.inputs["image"]), leave=False)

    def make(job):
        image, metadata = images.read_with_metadata(job.inputs["image"])
        enlarged, interpolated = job.results
        images.write(interpolated, bicubic(image, factor), metadata)
        images.write(enlarged, superres(model, image, factor, tile=tile), metadata)

    return run(jobs, out, {"made_by": "pconv superres", **identity(model, factor=factor, tile=tile)}, check, make, say)
