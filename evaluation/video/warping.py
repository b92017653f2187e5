"""The warping error, a measure of temporal consistency: flicker where the true video has none.

E_warp of two consecutive frames a and b is the mean, over the pixels x of a that b shows and over the channels, of

    (a(x) - b(x + w(x)))^2      with values in 0..1,

where w is the optical flow from a to b. Flow and occlusions are those of the true frames; a and b are frames of a
result. That of a video is the mean over its pairs of frames. Source: Lai et al., Learning Blind Video Temporal
Consistency, ECCV 2018, section 4.2. Their formula adds up the channels, their public code takes the mean, and so do the
numbers in papers on video inpainting. They take the flow of FlowNet2, ours is `dis`.
"""

from typing import NamedTuple

import cv2
import numpy as np

from evaluation.video.settings import FLOW
from maskgen.extraction.flow import both
from maskgen.extraction.occlusion import motion_boundaries, occlusion


class Motion(NamedTuple):
    """How the pixels of a true frame move to the next one."""

    x: np.ndarray  # float32 (H, W), px, where each pixel is in the next frame
    y: np.ndarray
    visible: np.ndarray  # bool (H, W), True where the next frame shows the pixel


def motion(first: np.ndarray, second: np.ndarray) -> Motion:
    """The motion from a true frame to the next one, uint8 (H, W, 3) each.

    A pixel is not visible where the flows there and back contradict each other, on motion boundaries, as Lai et al.
    have it (the rules and constants of Sundaram, Brox & Keutzer, ECCV 2010), and where it leaves the frame.
    """
    forward, backward = both(FLOW, first, second)
    planes = cv2.split(forward)
    return displaced(forward, ~(occlusion(forward, backward) | motion_boundaries(planes)))


def displaced(flow: np.ndarray, visible: np.ndarray) -> Motion:
    """A motion by a known flow, float32 (H, W, 2), px. visible: bool (H, W)."""
    height, width = visible.shape
    x = flow[..., 0] + np.arange(width, dtype=np.float32)
    y = flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]
    return Motion(x, y, visible)


def warp_error(first: np.ndarray, second: np.ndarray, moves: Motion) -> float:
    """E_warp of two consecutive frames of a result, times 1000; nan if no pixel is visible in both. uint8 (H, W, 3)."""
    warped = cv2.remap(second.astype(np.float32), moves.x, moves.y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    squares = cv2.norm(warped, first.astype(np.float32), cv2.NORM_L2SQR, moves.visible.view(np.uint8))
    count = first.shape[2] * np.count_nonzero(moves.visible)
    return 1000 * squares / (255**2 * count) if count else np.nan
