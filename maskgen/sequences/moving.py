"""Sequences that need no video: an irregular mask that stays, or that drifts along a smooth random path."""

import cv2
import numpy as np

from maskgen.sequences.path import at_rest, random_path
from maskgen.sequences.plane import VIEWS, Draw, augment, compose, evenly_spaced

SMALLEST = 0.002  # hole ratio that each frame has at least, as of raw masks
DRAWS = 50  # of a path and a raw mask for one sequence
UNIFORM_DRAWS = 8  # the same, with a ratio that is drawn first


def moving_holes(
    draw: Draw,
    mode: str,
    frames: int,
    shape: tuple[int, int],
    ratios: tuple[float, float],
    speeds: tuple[float, float],
    rng: np.random.Generator,
    *,
    uniform: bool,
) -> tuple[np.ndarray, dict] | None:
    """Make a stationary or a drifting sequence. Returns the holes, bool (T, H, W), and their index columns.

    shape: (height, width). ratios: lowest and highest mean hole ratio, on VIEWS frames spread evenly. uniform: draw the
    ratio uniformly from that range; otherwise it results from the brush and one raw mask. speeds: lowest and highest
    speed of a drifting mask in px a frame at 432x240. None if no draw succeeds.
    """
    ratio = rng.uniform(*ratios)  # drawn once: ratios that are hard to reach must not become rare
    holes = np.empty((frames, *shape), np.uint8)
    for _ in range(UNIFORM_DRAWS if uniform else DRAWS):
        path = random_path(frames, shape, speeds, rng) if mode == "drifting" else None
        matrices = path.matrices(*shape) if path else at_rest(1)
        made = compose(draw, matrices, shape, ratio, rng) if uniform else augment(draw, matrices, shape, rng)
        if made is None:
            continue
        plane, columns = made
        first = evenly_spaced(len(matrices), VIEWS)
        for i in first:
            plane.frame(matrices[i], holes[i])
        found = [cv2.countNonZero(holes[i]) / holes[i].size for i in first]
        if not ratios[0] <= np.mean(found) <= ratios[1]:
            continue
        for i in set(range(len(matrices))) - set(first.tolist()):
            plane.frame(matrices[i], holes[i])
        if min(cv2.countNonZero(hole) for hole in holes[: len(matrices)]) < SMALLEST * holes[0].size:
            continue
        holes[len(matrices) :] = holes[0]
        return holes.view(bool), {**columns, "path_speed": f"{path.speed:.2f}" if path else "0"}
    return None
