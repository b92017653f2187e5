"""Forward-backward consistency of two flows: a pixel that is followed there and back should end where it started.

Inside this package a flow is often split into its planes dx and dy, since OpenCV is faster on single planes.
"""

from collections.abc import Sequence

import cv2
import numpy as np

Planes = Sequence[np.ndarray]  # a flow as dx and dy, each float32 (H, W), in pixels


def sample_flow(flow: Planes, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sample a flow at the end points of the displacements (u, v). Returns its dx and dy there, and `inside`.

    flow: dx and dy, each float32 (H, W). u, v: float32 (H, W), the displacement of each pixel. Sampling is bilinear;
    outside the frame the nearest edge pixel counts. inside: bool (H, W), True where the end point is in the frame.
    """
    height, width = u.shape
    x = u + np.arange(width, dtype=np.float32)
    y = v + np.arange(height, dtype=np.float32)[:, None]
    # A pixel is a square of side 1 around its centre. Half a pixel of noise at the edge of a still frame stays inside.
    inside = cv2.bitwise_and(cv2.inRange(x, -0.5, width - 0.5), cv2.inRange(y, -0.5, height - 0.5))
    # One plane at a time: for two channels at once OpenCV rounds the position to 1/32 pixel.
    sampled = [cv2.remap(plane, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for plane in flow]
    return *sampled, inside.view(bool)


def consistency_error(
    forward: Planes, backward: Planes, *, slope: float, offset: float | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Forward-backward error relative to its bound: |w + v|^2 / (slope * (|w|^2 + |v|^2) + offset).

    forward, backward: dx and dy of each flow, all float32 (H, W). w is the forward flow at x, and v the backward flow
    at x + w. offset: one number or float32 (H, W), in px^2. Returns the error, float32 (H, W), above 1 where the flows
    contradict each other, and `leaves`, bool (H, W), True where x + w is outside the frame.
    Source: Sundaram, Brox & Keutzer, ECCV 2010.
    """
    u, v = forward
    back_u, back_v, inside = sample_flow(backward, u, v)
    bound = cv2.multiply(u, u)
    for plane in (v, back_u, back_v):
        cv2.accumulateSquare(plane, bound)
    bound *= np.float32(slope)
    bound += offset
    back_u += u
    back_v += v
    error = cv2.multiply(back_u, back_u, dst=back_u)
    cv2.accumulateSquare(back_v, error)
    error /= bound
    return error, ~inside
