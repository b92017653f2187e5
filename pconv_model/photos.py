"""Photos on disk: found, matched with masks, read and written as they are."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from maskgen.errors import BadInput
from maskgen.maskset import find_masks
from maskgen.runtime.files import natural, write_whole

PHOTOS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def read_image(path: Path) -> np.ndarray:
    """A photo as it is stored, 8 or 16 bits: grey (H, W), RGB (H, W, 3) or with alpha (H, W, 4). BadInput otherwise."""
    try:
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    except (OSError, cv2.error):
        image = None
    if image is None or image.dtype not in (np.uint8, np.uint16):
        raise BadInput(f"{path} cannot be read as an image of 8 or 16 bits: expected {', '.join(PHOTOS)}")
    if image.ndim == 2:
        return image
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image whole, as PNG or as its name says. Raises BadInput for a name that no format has."""
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    try:
        data = cv2.imencode(path.suffix, image)[1].tobytes()
    except cv2.error:
        raise BadInput(f"cannot write {path}: expected a name that ends in .png, .jpg, .tif or .webp") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data)


def find_images(folder: Path) -> list[Path]:
    """Every photo below a folder in natural order; BadInput where there is none."""
    if not folder.is_dir():
        raise BadInput(f"no such folder: {folder} (expected a folder of photos)")
    found = sorted((p for p in folder.rglob("*") if p.suffix.lower() in PHOTOS and p.is_file()), key=natural)
    if not found:
        raise BadInput(f"no photo in {folder}: expected files that end in {', '.join(PHOTOS)}")
    return found


def pairs(images: Path, masks: Path) -> list[tuple[Path, Path]]:
    """Which mask belongs to which photo: one mask serves all, a folder of masks is matched by name without suffix.

    Raises BadInput that names the first photo without a mask.
    """
    photos = [images] if images.is_file() else find_images(images)
    if masks.is_file():
        return [(photo, masks) for photo in photos]
    by_name = {mask.stem: mask for mask in find_masks(masks)}
    for photo in photos:
        if photo.stem not in by_name:
            raise BadInput(f"no mask for {photo} in {masks}: expected {photo.stem}.png there, or pass one mask for all")
    return [(photo, by_name[photo.stem]) for photo in photos]


def places(photos: list[Path], images: Path, out: Path, ending: str = ".png") -> list[Path]:
    """Where the result of each photo goes: below `out` as the photo lies below `images`, its suffix replaced.

    Raises BadInput where two photos would go to one file.
    """
    base = images.parent if images.is_file() else images
    found = [out / photo.relative_to(base).parent / f"{photo.stem}{ending}" for photo in photos]
    for place, times in Counter(found).items():
        if times > 1:
            raise BadInput(f"{times} photos in {images} would be written to {place}: rename them")
    return found
