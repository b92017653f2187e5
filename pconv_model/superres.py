"""Super-resolution as inpainting (section 5.2 of the paper): spread the pixels of a small image and fill the rest."""

from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from maskgen.errors import BadInput
from maskgen.runtime import images
from pconv_model import photos as files
from pconv_model.inpaint import Inpainter


def spread(image: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """The large image with the known pixels K px apart, (K*H, K*W) or (K*H, K*W, C), and its hole, bool (K*H, K*W).

    Pixel (x, y) moves to (K*x + floor(K/2), K*y + floor(K/2)); all others are hole. Raises BadInput if K is below 1.
    """
    if factor < 1:
        raise BadInput(f"the factor is 1 or more, got {factor}")
    shape = (image.shape[0] * factor, image.shape[1] * factor)
    large, hole = np.zeros((*shape, *image.shape[2:]), image.dtype), np.ones(shape, bool)
    lattice = slice(factor // 2, None, factor), slice(factor // 2, None, factor)
    large[lattice] = image
    hole[lattice] = False
    return large, hole


def spread_means(image: torch.Tensor, factor: int) -> torch.Tensor:
    """What a net that enlarges sees of an image: the mean of each block in whole grey levels where `spread` puts it.

    image: (B, C, H, W) in [0, 1], whose sides are multiples of the factor. Returns the same shape, 0 elsewhere.
    """
    known = torch.zeros_like(image)
    means = F.avg_pool2d(image, factor).mul_(255).round_().div_(255)
    known[..., factor // 2 :: factor, factor // 2 :: factor] = means
    return known


def superres(inpainter: Inpainter, image: np.ndarray, factor: int) -> np.ndarray:
    """Enlarge an image by a whole factor. Returns (K*H, K*W) or (K*H, K*W, C) of its dtype.

    inpainter: with a network that enlarges by this factor, all pixels are its own: a pixel of the small image is the
    mean of a block, not the value of one large pixel. With a network that fills holes, the small image's pixels stay
    unchanged. image: as for a call of Inpainter. Alpha is interpolated bicubically. Raises BadInput for a network that
    enlarges by another factor.
    """
    trained = inpainter.net.config.factor
    if trained not in (1, factor):
        raise BadInput(f"the network enlarges {trained} times, got a factor of {factor}")
    large, hole = spread(image, factor)
    filled = inpainter(large, hole, raw=trained > 1)
    if image.ndim == 3 and image.shape[2] == 4:  # inpainting makes holes opaque
        filled[..., 3] = bicubic(image[..., 3], factor)
    return filled


def bicubic(image: np.ndarray, factor: int) -> np.ndarray:
    """Enlarge an image by bicubic interpolation, for comparison."""
    size = (image.shape[1] * factor, image.shape[0] * factor)
    return cv2.resize(image, size, interpolation=cv2.INTER_CUBIC).reshape(size[1], size[0], *image.shape[2:])


def superres_files(inpainter: Inpainter, photos: Path, out: Path, factor: int, *, say=print) -> int:
    """Enlarge a photo, or every photo below a folder, to `<name>_x4.png` and `<name>_x4_bicubic.png`.

    Returns the number of photos enlarged. out: an output folder, to which photos can be added later, or the name of one
    PNG file. say: called with one line for the user at the end. Raises BadInput for files that cannot be read, before
    anything is written.
    """
    found = files.find_photos(photos, out)
    results = files.result_paths(found, photos, out, f"_x{factor}.png", f"_x{factor}_bicubic.png")
    jobs = [
        files.Job(photo.relative_to(files.base_folder(photos)).as_posix(), {"image": photo}, paths)
        for photo, paths in zip(found, results, strict=True)
    ]

    def check(todo):
        files.for_each(todo, "photo", lambda job: images.read(job.inputs["image"]), leave=False)

    def enlarge(job):
        image, metadata = images.read_with_metadata(job.inputs["image"])
        enlarged, interpolated = job.results
        images.write(interpolated, bicubic(image, factor), metadata)
        images.write(enlarged, superres(inpainter, image, factor), metadata)

    recipe = {"made_by": "pconv superres", **inpainter.identity(factor=factor)}
    return files.make_results(jobs, out, recipe, check, enlarge, say)
