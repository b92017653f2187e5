"""Mask sequences a second, compared in the same run with blobs that drift, as data sets for video inpainting draw them.

    python benchmarks/sequences.py masks/raw
    python benchmarks/sequences.py --tracked 8      # instead: how far tracked masks are from where they should be

One core. The baseline is of the kind that STTN, E2FGVI, FuseFormer and ProPainter train on, written anew here: a random
closed curve of cubic Bezier pieces, filled by matplotlib, pasted frame by frame with Pillow at a position that moves
and is thrown back at the edges; half of the sequences stand still. "OpenCV" draws the same curve as a polygon, which
shows how much of the time is matplotlib's.

--tracked N renders N films of 17 frames of 512x512: two to four pieces of photo that move over another one, each by its
own affine motion, so that the place in the first frame of each pixel of the last one is known exactly.
"""

import argparse
import time
from pathlib import Path

import cv2
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import occlusion
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Curve
from PIL import Image

from maskgen.sequences.sampler import WITHOUT_VIDEO as MODES
from maskgen.sequences.sampler import SequenceSampler
from maskgen.sequences.tracking import origins

POINTS = (6, 9)  # of the curve, drawn from this range


def closed_curve(rng):
    """Corners and control points of a smooth closed curve around 0. float64 (3 n + 1, 2), within about 1."""
    count = int(rng.integers(*POINTS))
    angles = np.sort(rng.uniform(0, 2 * np.pi, count))
    corners = rng.uniform(0.4, 1, (count, 1)) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    tangents = (np.roll(corners, -1, axis=0) - np.roll(corners, 1, axis=0)) / 6
    after = np.roll(corners, -1, axis=0)
    pieces = np.stack([corners + tangents, after - np.roll(tangents, -1, axis=0), after], axis=1)
    return np.vstack([corners[:1], pieces.reshape(-1, 2)])


def blob_by_matplotlib(rng, height, width):
    """A filled curve, drawn with anti-aliasing on a figure and made binary. uint8 (height, width) of 0 and 255."""
    points = closed_curve(rng)
    figure, axes = plt.subplots()
    axes.add_patch(PathPatch(Curve(points, [Curve.MOVETO] + [Curve.CURVE4] * (len(points) - 1)), facecolor="black"))
    axes.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1))
    axes.axis("off")
    figure.canvas.draw()
    picture = cv2.resize(np.asarray(figure.canvas.buffer_rgba()), (width, height))
    plt.close(figure)
    return np.where(picture[..., 0] < 128, np.uint8(255), np.uint8(0))


def blob_by_opencv(rng, height, width):
    """The same curve, drawn as a polygon. uint8 (height, width) of 0 and 255."""
    points, t = closed_curve(rng), np.linspace(0, 1, 12)[:, None]
    outline = []
    for i in range(0, len(points) - 1, 3):
        a, b, c, d = points[i : i + 4]
        outline.append((1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d)
    outline = (np.vstack(outline) / 2.2 + 0.5) * (width, height)
    return cv2.fillPoly(np.zeros((height, width), np.uint8), [outline.astype(np.int32)], 255)


def drifting_blob(rng, frames, height, width, blob):
    """A list of masks: a blob of a third to the whole of each side, still or drifting by up to 3 px a frame."""
    high, wide = int(rng.integers(height // 3, height)), int(rng.integers(width // 3, width))
    region = Image.fromarray(blob(rng, high, wide))
    room = np.array([height - high, width - wide])
    place, velocity = rng.uniform(0, 1, 2) * room, rng.uniform(-3, 3, 2)
    moves, masks = rng.uniform() < 0.5, []
    for _ in range(frames if moves else 1):
        mask = Image.fromarray(np.zeros((height, width), np.uint8))
        top, left = place.astype(int).tolist()
        mask.paste(region, (left, top, left + wide, top + high))
        masks.append(mask.convert("L"))
        velocity = np.where((place + velocity < 0) | (place + velocity > room), -velocity, velocity)
        velocity = np.clip(velocity + rng.normal(0, 0.3, 2), -3, 3)
        place = np.clip(place + velocity, 0, room)
    return masks if moves else masks * frames


def tracking_error(index, share=0.25):
    """Distance in px between the tracked and the true place in frame 0, for each pixel of frame 16; and the motion.

    share: of the motion of `occlusion.scene` that is made in a frame. Both results float64 (H, W).
    """
    rng = np.random.default_rng([2010, index])
    layers = [
        occlusion.random_layer(name, depth, rng) for depth, name in enumerate(rng.permutation(occlusion.PHOTOS)[:4])
    ]
    y, x = np.mgrid[0.0 : occlusion.SIDE, 0.0 : occlusion.SIDE]
    frames = []
    for t in range(17):
        frame = occlusion.rendered([layer.at(t * share) for layer in layers], x, y) + rng.normal(0, 1.5, (*x.shape, 3))
        frames.append(np.clip(np.rint(frame), 0, 255).astype(np.uint8))
    *_, last = origins(frames, "dis")
    true_x, true_y = x.copy(), y.copy()
    for layer in layers:
        from_x, from_y = layer.at(16 * share).backward(x, y)
        nearer = layer.covers(from_x, from_y)
        true_x[nearer], true_y[nearer] = from_x[nearer], from_y[nearer]
    return np.hypot(x + last.dx - true_x, y + last.dy - true_y), np.hypot(true_x - x, true_y - y)


def print_tracking_errors(films):
    """Print a line for each film, and the median of all."""
    medians = []
    for index in range(films):
        error, motion = tracking_error(index)
        medians.append(np.median(error))
        quantiles = ", ".join(f"{share:.0%} {np.quantile(error, share):.2f} px" for share in (0.5, 0.75, 0.9))
        print(
            f"film {index}: moved by {np.median(motion):.0f} px (median), at most {motion.max():.0f}; error {quantiles}"
        )
    print(f"median of the {films} medians: {np.median(medians):.2f} px after 16 frames")


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("masks", type=Path, nargs="?", help="raw masks [default: those that come with the package]")
    parser.add_argument("--count", type=int, default=100, help="sequences of each kind")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--size", default="432x240")
    parser.add_argument("--cpu", action="store_true", help="measure processor time, for a busy machine")
    parser.add_argument("--tracked", type=int, metavar="FILMS", help="measure the places of tracked masks instead")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    matplotlib.use("agg")
    if options.tracked:
        print_tracking_errors(options.tracked)
        return
    clock = time.process_time if options.cpu else time.perf_counter
    width, height = map(int, options.size.split("x"))
    blobs = {"blobs, matplotlib": blob_by_matplotlib, "blobs, OpenCV": blob_by_opencv}
    makers = {
        name: lambda i, blob=blob: drifting_blob(np.random.default_rng(i), options.frames, height, width, blob)
        for name, blob in blobs.items()
    }
    kinds = {"sampler": {}, **{f"sampler, {m}": {"modes": (m,)} for m in MODES}, "sampler, uniform": {"uniform": True}}
    for name, how in kinds.items():
        sampler = SequenceSampler(options.masks, options.frames, (height, width), **how)
        for i in range(len(sampler)):  # cached from here on
            sampler.raw.masks[i]
        makers[name] = sampler.__getitem__
    baseline = None
    print(f"{options.size}, {options.frames} frames, {options.count} sequences, one core, {len(sampler)} raw masks")
    for name, make in makers.items():
        make(0)
        begin = clock()
        for i in range(options.count):
            make(i)
        each = (clock() - begin) / options.count
        baseline = baseline or each
        print(f"{name:<24}{1e3 * each:8.2f} ms{1 / each:8.0f} sequences/s{baseline / each:8.1f} x blobs, matplotlib")


if __name__ == "__main__":
    main()
