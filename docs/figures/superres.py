"""Draw superres.jpg: small input, bicubic interpolation, the net, and the photo, as in figure 13 of the paper.

Usage: python docs/figures/superres.py [WEIGHTS]. The photos are scikit-image's: astronaut (NASA, public domain),
chelsea and coffee (CC0).
"""

import sys
from pathlib import Path

import cv2
import numpy as np
from skimage import data

from evaluation.pairs import fit, reduced
from maskgen.runtime import images
from pconv_model.inpaint import Inpainter
from pconv_model.superres import bicubic, superres

FACTOR, SIDE, GAP = 4, 168, 4  # px, side of a crop and distance between crops
CROPS = {
    "astronaut": (60, 136),
    "chelsea": (112, 176),
    "coffee": (232, 190),
}  # px, top and left


def main(weights=None):
    inpainter = Inpainter.load(weights, factor=FACTOR, device="cpu")
    rows = []
    for name, (top, left) in CROPS.items():
        photo = fit(getattr(data, name)()[..., :3], (512, 512))
        small = reduced(photo, FACTOR)
        blocks = small.repeat(FACTOR, 0).repeat(FACTOR, 1)
        results = blocks, bicubic(small, FACTOR), superres(inpainter, small, FACTOR), photo
        rows.append(join([result[top : top + SIDE, left : left + SIDE] for result in results], 1))
    path = Path(__file__).with_suffix(".jpg")
    images.write(path, join(rows, 0), quality=88)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def join(parts, axis):
    """Images side by side (axis 1) or one below the other (axis 0), with white between."""
    white = np.full_like(parts[0], 255)[:, :GAP] if axis else np.full_like(parts[0], 255)[:GAP]
    return np.concatenate([each for part in parts for each in (white, part)][1:], axis)


if __name__ == "__main__":
    cv2.setNumThreads(1)
    main(*map(Path, sys.argv[1:]))
