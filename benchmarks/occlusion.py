"""Precision, recall and F1 of the occlusions found with each optical flow, by source and by speed, and its cost.

    python benchmarks/occlusion.py [--truth DIR] [--flow NAME ...]

Ground truth: layered scenes rendered here, the stereo pair of scikit-image, and any folder of pairs
(frame1.png, frame2.png, occ.png with white for occluded, invalid.png with white for unknown).
"""

import time
from pathlib import Path
from typing import NamedTuple

import click
import cv2
import numpy as np
import skimage.data
from tqdm import tqdm

from maskgen.errors import BadInput
from maskgen.extraction.flow import FLOWS, both
from maskgen.extraction.occlusion import holes_of_pair, occlusion
from maskgen.settings import ExtractConfig

SIDE = 512  # px
SCENES = 8
FAST = 20  # px; pairs are fast if a tenth of their pixels or more move farther
PHOTOS = ("astronaut", "coffee", "chelsea", "rocket", "hubble_deep_field", "immunohistochemistry", "gravel", "brick")


class Pair(NamedTuple):
    """Two frames, uint8 (H, W, 3), RGB, and their ground truth, bool (H, W)."""

    first: np.ndarray
    second: np.ndarray
    occluded: np.ndarray
    known: np.ndarray
    speed: float  # px: 90 % of the pixels move by this or less


def pairs_in(folder: Path) -> list[Pair]:
    """The pairs of a folder of folders, in order of name. Raises BadInput if there are none."""
    found = []
    for path in sorted(folder.glob("*/frame1.png")):
        images = {name: cv2.imread(str(path.with_name(f"{name}.png"))) for name in ("frame1", "frame2", "occ")}
        missing = [name for name, image in images.items() if image is None]
        if missing:
            raise BadInput(f"cannot read {missing[0]}.png in {path.parent}: expected frame1, frame2 and occ")
        invalid = cv2.imread(str(path.with_name("invalid.png")), cv2.IMREAD_GRAYSCALE)
        occluded = images["occ"][..., 0] > 127
        known = np.ones_like(occluded) if invalid is None else invalid < 128
        frames = [np.ascontiguousarray(images[name][..., ::-1]) for name in ("frame1", "frame2")]
        found.append(Pair(*frames, occluded, known, estimated_speed(*frames)))
    if not found:
        raise BadInput(f"no */frame1.png in {folder}: expected one folder per pair of frames")
    return found


def estimated_speed(first, second):
    """The motion in px that 90 % of the pixels do not exceed, by the flow `dis-medium` where it is consistent."""
    forward, backward = both("dis-medium", first, second)
    return float(np.percentile(np.hypot(*cv2.split(forward))[~occlusion(forward, backward)], 90))


def stereo_pair() -> Pair:
    """The motorcycle of Middlebury 2014, from scikit-image. Its disparity gives what the right eye cannot see."""
    left, right, disparity = skimage.data.stereo_motorcycle()
    known = np.isfinite(disparity)
    disparity = np.where(known, disparity, 0)
    width = disparity.shape[1]
    rows, columns = np.indices(disparity.shape)
    x = columns - disparity  # in the right image
    nearest = np.full(disparity.shape, -np.inf)  # largest disparity at each pixel of the right image
    for column in (np.floor(x).astype(int), np.floor(x).astype(int) + 1):
        there = known & (column >= 0) & (column < width)
        np.maximum.at(nearest, (rows[there], column[there]), disparity[there])
    behind = nearest[rows, np.clip(np.rint(x).astype(int), 0, width - 1)] > disparity + 1
    occluded, speed = known & (behind | (x < -0.5)), float(np.percentile(disparity[known], 90))
    return Pair(left[..., :3].copy(), right[..., :3].copy(), occluded, known, speed)


class Layer(NamedTuple):
    """A piece of photo with a wavy outline. It moves from frame 1 to frame 2 by x -> turn @ x + shift."""

    photo: np.ndarray  # float32 (H, W, 3)
    origin: np.ndarray  # (x, y) in px, position of the frame's corner in the photo
    centre: np.ndarray  # (x, y) in px
    waves: np.ndarray | None  # (2, n) cosine and sine coefficients of the outline; None: unbounded
    radius: float  # px
    turn: np.ndarray  # (2, 2)
    shift: np.ndarray  # (2,) px
    squeeze: np.ndarray = np.eye(2)  # (2, 2), applied to positions relative to the centre: makes it thin

    def at(self, time):
        """The layer at a time between frame 1 (0) and frame 2 (1)."""
        return self._replace(turn=np.eye(2) + time * (self.turn - np.eye(2)), shift=time * self.shift)

    def forward(self, x, y):
        return tuple(self.turn[i, 0] * x + self.turn[i, 1] * y + self.shift[i] for i in (0, 1))

    def backward(self, x, y):
        inverse, x, y = np.linalg.inv(self.turn), x - self.shift[0], y - self.shift[1]
        return tuple(inverse[i, 0] * x + inverse[i, 1] * y for i in (0, 1))

    def covers(self, x, y):
        """Whether the layer covers a position of frame 1."""
        if self.waves is None:
            return np.ones(np.shape(x), bool)
        dx, dy = np.tensordot(self.squeeze, np.stack((x - self.centre[0], y - self.centre[1])), 1)
        distance = np.hypot(dx, dy)
        turn = (dx - 1j * dy) / np.maximum(distance, 1e-9)  # exp(-i angle)
        wave, power = 0, 1
        for cosine, sine in self.waves.T:
            power = power * turn
            wave = wave + ((cosine + 1j * sine) * power).real
        return distance < np.maximum(self.radius * (1 + wave), 8)


def scene(index: int, kind: str = "layered") -> Pair:
    """Two to four pieces of photo that move over another one, each by its own affine motion; the last is the nearest.

    kind: in "hard" scenes, pieces move by up to 30 px over a pan of up to 14 px, and half of them are thin; every
    second scene has motion blur, every third is dark. In "fast" ones, all layers move by up to 80 px at their centres,
    the near ones faster than the far ones, and turn by up to 15 degrees; every second scene has motion blur. In "still"
    ones the camera stands still, and half of the pieces are small.
    """
    rng = np.random.default_rng([2010, index])
    names = rng.permutation(PHOTOS)[: rng.integers(3, 6)]
    layers = [random_layer(name, depth, rng) for depth, name in enumerate(names)]
    moments = (0,)
    if kind == "hard":
        layers = _harder(layers, rng)
        if index % 2:
            moments = np.linspace(-0.22, 0.22, 5)  # the shutter is open 0.44 of the time
    elif kind == "fast":
        layers = _faster(layers, rng)
        if index % 2:
            moments = np.linspace(-0.1, 0.1, 7)
    elif kind == "still":
        layers = _with_still_ground(layers)
    y, x = np.mgrid[0.0:SIDE, 0.0:SIDE]
    frames, top = [], np.zeros((SIDE, SIDE), int)
    for depth, layer in enumerate(layers):
        top[layer.covers(x, y)] = depth
    for start in (0, 1):
        frame = np.mean([rendered([layer.at(start + moment) for layer in layers], x, y) for moment in moments], axis=0)
        if kind == "hard" and index % 3 == 1:
            frame = 0.22 * frame + 6
        frame += rng.normal(0, 1.5, frame.shape)  # grey levels of camera noise
        frames.append(np.clip(np.rint(frame), 0, 255).astype(np.uint8))
    occluded, motion = np.zeros((SIDE, SIDE), bool), np.zeros((SIDE, SIDE))
    for depth, layer in enumerate(layers):
        to_x, to_y = layer.forward(x, y)
        motion = np.where(top == depth, np.hypot(to_x - x, to_y - y), motion)
        hidden = (np.minimum(to_x, to_y) < -0.5) | (np.maximum(to_x, to_y) > SIDE - 0.5)
        for nearer in layers[depth + 1 :]:
            hidden |= nearer.covers(*nearer.backward(to_x, to_y))
        occluded |= hidden & (top == depth)
    return Pair(*frames, occluded, np.ones_like(occluded), float(np.percentile(motion, 90)))


def rendered(layers, x, y):
    """The scene at one moment, float32 (H, W, 3)."""
    frame = np.zeros((SIDE, SIDE, 3), np.float32)
    for layer in layers:
        position = np.float32(np.stack(layer.backward(x, y)) + layer.origin[:, None, None])
        colour = cv2.remap(layer.photo, *position, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        # Four samples per pixel make outlines as soft as in a camera.
        samples = [layer.covers(*layer.backward(x + dx, y + dy)) for dx in (-0.25, 0.25) for dy in (-0.25, 0.25)]
        frame += np.mean(samples, axis=0, dtype=np.float32)[..., None] * (colour - frame)
    return frame


def _harder(layers, rng):
    """The same layers with a pan, larger motions, and half of them thin."""
    pan = rng.uniform(-14, 14) * np.array([1, 0.3])
    harder = []
    for depth, layer in enumerate(layers):
        moved = layer.shift + pan
        if depth:
            way = rng.uniform(0, 2 * np.pi)
            step = rng.uniform(1, 30) * np.array([np.cos(way), np.sin(way)])
            moved = layer.centre - layer.turn @ layer.centre + pan + step
        angle = rng.uniform(0, np.pi)
        thin = np.diag([1, rng.uniform(8, 20)]) @ [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
        harder.append(layer._replace(shift=moved, squeeze=thin if depth % 2 else np.eye(2)))
    return harder


def _faster(layers, rng):
    """The same layers with a long pan that moves near layers more than far ones, long steps and large rotations."""
    way, pan = rng.uniform(0, 2 * np.pi), rng.uniform(10, 40)
    faster = []
    for depth, layer in enumerate(layers):
        by_pan = min(pan * (1 + 0.35 * depth), 80)
        step = by_pan * np.array([np.cos(way), np.sin(way)])
        if depth:
            own = rng.uniform(0, 2 * np.pi)
            step += rng.uniform(0, 80 - by_pan) * np.array([np.cos(own), np.sin(own)])
        angle, size = rng.uniform(-0.26, 0.26) if depth else rng.uniform(-0.06, 0.06), rng.uniform(0.94, 1.06)
        turn = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        faster.append(layer._replace(turn=turn, shift=layer.centre - turn @ layer.centre + step))
    return faster


def _with_still_ground(layers):
    """The same layers in front of a ground that does not move, every second one half as large."""
    ground, *pieces = layers
    pieces = [piece._replace(radius=piece.radius / (2 - i % 2)) for i, piece in enumerate(pieces)]
    return [ground._replace(turn=np.eye(2), shift=np.zeros(2)), *pieces]


def random_layer(name: str, depth: int, rng: np.random.Generator) -> Layer:
    """A piece of a photo of scikit-image with a random outline, place and motion; depth 0 is the unbounded ground."""
    photo = getattr(skimage.data, name)()
    photo = cv2.cvtColor(photo, cv2.COLOR_GRAY2RGB) if photo.ndim == 2 else photo[..., :3]
    scale = max(700 / min(photo.shape[:2]), 0.7)
    photo = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR).astype(np.float32)
    origin = rng.uniform(60, np.array(photo.shape[1::-1]) - SIDE - 60)
    centre = rng.uniform(0.15, 0.85, 2) * SIDE if depth else np.full(2, SIDE / 2)
    waves = rng.normal(0, 0.5, (2, 6)) / np.arange(2, 8) if depth else None
    angle, size, way = rng.normal(0, 0.03), 1 + rng.normal(0, 0.02), rng.uniform(0, 2 * np.pi)
    step = rng.uniform(0.3, 1) * (22 if depth else 6)  # px
    turn = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shift = centre - turn @ centre + step * np.array([np.cos(way), np.sin(way)])
    return Layer(photo, origin, centre, waves, rng.uniform(40, 130), turn, shift)


def score(hole, pair):
    """Precision, recall and F1 over the known pixels; 0 if no pixel is right."""
    right = np.count_nonzero(hole & pair.occluded & pair.known)
    found, there = (np.count_nonzero(part & pair.known) for part in (hole, pair.occluded))
    return right / max(found, 1), right / max(there, 1), 2 * right / max(found + there, 1)


def sources(truth: Path | None) -> dict[str, list[Pair]]:
    """The pairs of each available source."""
    found = {truth.name: pairs_in(truth)} if truth else {}
    try:
        found["motorcycle"] = [stereo_pair()]
    except (OSError, ImportError) as error:  # scikit-image may have to download it
        click.echo(f"left out: skimage.data.stereo_motorcycle() is not available ({error})", err=True)
    rendered = {kind: [scene(index, kind) for index in range(SCENES)] for kind in ("layered", "still", "hard", "fast")}
    return {**found, **rendered}


def rows(names, found):
    """Yield one row for each flow, and one for the whole mask with default settings: name, cells, ms, ratio."""
    cpu = {}
    bar = tqdm(total=(len(names) + 1) * sum(map(len, found.values())), unit="pair")
    for name in [*names, "mask"]:
        spent, pixels, cells, by_speed = 0.0, 0, [], ([], [])
        for pairs in found.values():
            scores = []
            for pair in pairs:
                start = time.process_time()  # on one thread, so this is the wall time on a free core
                if name == "mask":
                    hole = holes_of_pair(pair.first, pair.second, ExtractConfig())[0]
                else:
                    flows = both(name, pair.first, pair.second)
                spent += time.process_time() - start
                pixels += pair.occluded.size
                scores.append(score(hole if name == "mask" else occlusion(*flows), pair))
                by_speed[pair.speed > FAST].append(scores[-1][2])
                bar.update()
            cells.append(" / ".join(f"{value:.2f}" for value in np.mean(scores, axis=0)))
        cells += [f"{np.mean(f1):.3f}" for f1 in by_speed]
        cpu[name] = 1000 * spent * SIDE**2 / pixels
        yield name, cells, cpu[name], cpu[name] / cpu["dis-medium"]
    bar.close()


@click.command()
@click.option("--truth", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of pairs.")
@click.option("--flow", "names", multiple=True, type=click.Choice(list(FLOWS)), help="Only these flows. [default: all]")
def main(truth, names):
    """Print a Markdown table: precision / recall / F1, mean over the pairs of each source, F1 by speed, and cost."""
    cv2.setNumThreads(1)
    names = ["dis-medium", *(name for name in names or FLOWS if name != "dis-medium")]
    try:
        found = sources(truth)
    except BadInput as error:
        raise click.ClickException(str(error)) from None
    heads = [f"{name} ({len(pairs)})" for name, pairs in found.items()]
    fast = sum(pair.speed > FAST for pairs in found.values() for pair in pairs)
    heads += [f"F1 to {FAST} px ({sum(map(len, found.values())) - fast})", f"F1 above {FAST} px ({fast})"]
    click.echo(f"| flow | {' | '.join(heads)} | ms per pair | times dis-medium |")
    click.echo("|---" * (len(heads) + 3) + "|")
    for name, cells, cost, ratio in rows(names, found):
        title = f"whole {name}, flow `{ExtractConfig.flow}`" if name == "mask" else f"`{name}`"
        click.echo(f"| {title} | {' | '.join(cells)} | {cost:.1f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
