"""Draw 80 smooth pictures for `scripts/train-weights`: python scripts/gradients.py FOLDER.

Smooth skies and walls are rare in photos, and errors are easily seen there. Each picture mixes four random colours in
its corners, often with a glow; half of them have a second such mixture beyond a straight or curved edge. All have noise
of 0 to 2 grey levels. 640x640, PNG, the same bytes every time.
"""

import sys
from pathlib import Path

import cv2
import numpy as np

COUNT, SIDE = 80, 640


def mixture(rng, y, x):
    """A smooth picture, float (SIDE, SIDE, 3) in [0, 255]. y, x: coordinates in [0, 1]."""
    base = rng.uniform(20, 235, 3)
    corners = (base + rng.normal(0, rng.uniform(5, 45), (4, 3))).clip(0, 255)
    y, x = (at[..., None] ** rng.uniform(0.6, 1.7) for at in (y, x))
    colours = (corners[0] * (1 - x) + corners[1] * x) * (1 - y) + (corners[2] * (1 - x) + corners[3] * x) * y
    if rng.random() < 0.4:
        centre, width = rng.uniform(-0.2, 1.2, 2), rng.uniform(0.2, 0.8)
        glow = np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / width**2)
        colours = colours + glow * rng.normal(0, 50, 3)
    return colours


def picture(rng):
    """A picture as described above, uint8 (SIDE, SIDE, 3)."""
    y, x = np.mgrid[:SIDE, :SIDE] / (SIDE - 1)
    colours = mixture(rng, y, x)
    if rng.random() < 0.5:
        angle, bend = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.5)
        along = (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle)
        across = (y - 0.5) * np.cos(angle) - (x - 0.5) * np.sin(angle)
        beyond = across + bend * along**2 + rng.uniform(-0.3, 0.3)
        share = (beyond * SIDE / rng.uniform(1, 6) + 0.5).clip(0, 1)[..., None]  # the edge is 1 to 6 px wide
        colours = colours * share + mixture(rng, y, x) * (1 - share)
    colours = colours + rng.normal(0, rng.uniform(0, 2), (SIDE, SIDE, 1))
    colours = colours + rng.normal(0, rng.uniform(0, 1), colours.shape)
    return colours.round().clip(0, 255).astype(np.uint8)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(COUNT):
        cv2.imwrite(str(folder / f"gradient-{number:02d}.png"), picture(np.random.default_rng(number)))


if __name__ == "__main__":
    main()
