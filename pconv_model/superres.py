"""Super-resolution by filling in what lies between the pixels (section 5.2 of the paper)."""

from pathlib import Path

import cv2
import numpy as np

from maskgen.errors import BadInput
from maskgen.runtime.files import remove_parts
from maskgen.runtime.output import alone
from pconv_model.inpaint import inpaint
from pconv_model.photos import find_images, places, read_image, write_image
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


@alone("out")
def superres_files(model: UNet, images: Path, out: Path, factor: int, *, tile: int = TILE) -> int:
    """Enlarge a photo or every photo below a folder: `<name>_x4.png` and, beside it, `<name>_x4_bicubic.png`.

    Returns how many photos were done; those whose results are there already are left alone.
    """
    from tqdm import tqdm

    photos = [images] if images.is_file() else find_images(images)
    results = places(photos, images, out, f"_x{factor}.png")
    remove_parts(out)
    todo = [(photo, path) for photo, path in zip(photos, results, strict=True) if not path.exists()]
    for photo, path in tqdm(todo, unit="image", disable=len(todo) < 2):
        image = read_image(photo)
        write_image(path.with_stem(f"{path.stem}_bicubic"), bicubic(image, factor))
        write_image(path, superres(model, image, factor, tile=tile))
    return len(todo)
