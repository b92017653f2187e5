"""Images as users have them (grey, RGB, alpha, 8 or 16 bits), and the RGB images that the network takes."""

import numpy as np

from maskgen.errors import BadInput


def check(image: np.ndarray, hole: np.ndarray) -> None:
    """Raise BadInput for an array that is not an image or a hole, or if the two differ in size."""
    if image.dtype not in (np.uint8, np.uint16):
        raise BadInput(f"expected an image of uint8 or uint16, got {image.dtype}")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)) or not image.size:
        raise BadInput(f"expected a grey image, RGB or RGB with alpha, got an array of shape {image.shape}")
    if hole.dtype != bool or hole.ndim != 2:
        raise BadInput(f"expected a hole of bool (H, W), got {hole.dtype} of shape {hole.shape}")
    check_sizes(image, hole, "the image", "the mask")


def check_sizes(image: np.ndarray, hole: np.ndarray, image_name: object, mask_name: object) -> None:
    """Raise BadInput if image and hole differ in height or width. The names are used in the message."""
    if hole.shape == image.shape[:2]:
        return
    (height, width), (rows, columns) = image.shape[:2], hole.shape
    rotated = (rows, columns) == (width, height)
    advice = "rotate it, EXIF orientation is applied to photos" if rotated else "resize one to fit the other"
    raise BadInput(f"{mask_name} is {columns}x{rows} px, {image_name} is {width}x{height}: {advice}")


def to_rgb(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) of an image with 1, 3 or 4 channels, in its own dtype. Alpha is dropped."""
    planes = image.reshape(*image.shape[:2], -1)
    return np.repeat(planes, 3, 2) if planes.shape[2] == 1 else planes[..., :3]


def with_result(image: np.ndarray, hole: np.ndarray, result: np.ndarray | None, replaced: np.ndarray) -> np.ndarray:
    """A copy of the image with the network's result where `replaced` is True, and an opaque hole.

    result: float (H, W, 3) in about [0, 1], or None to replace nothing. hole, replaced: bool (H, W). If all known
    pixels are grey, the mean of the result's channels is used.
    """
    highest = np.iinfo(image.dtype).max
    filled = image.copy()
    planes = filled.reshape(*filled.shape[:2], -1)  # a view, also for (H, W)
    if result is not None:
        colours = result[replaced]
        if _is_grey(planes, hole):
            colours = colours.mean(1, keepdims=True)
        planes[replaced, :3] = np.rint(colours.clip(0, 1) * highest).astype(image.dtype)
    if planes.shape[2] == 4:
        planes[hole, 3] = highest
    return filled


def _is_grey(planes, hole):
    """True if R = G = B in every known pixel of (H, W, C), as in a grey photo that is stored as RGB."""
    red = planes[..., 0]
    return all(((plane == red) | hole).all() for plane in np.moveaxis(planes[..., 1:3], 2, 0))
