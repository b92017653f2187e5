"""Smooth random paths of a mask: where it is, how it is turned and how large it is in each frame."""

from dataclasses import dataclass

import numpy as np

from maskgen.sequences.measure import unit

REACH = 0.2  # of the frame's width and height, how far a mask drifts to each side; at this line it turns back
MAX_TURN = np.deg2rad(30)  # the same, of its angle
MAX_GROWTH = np.log(1.25)  # the same, of the log of its size
BEND = np.deg2rad(8)  # standard deviation of the change of direction from frame to frame
ARM = 108.0  # px at 432x240: a turn moves pixels at this distance by up to the speed


@dataclass(frozen=True)
class Path:
    """Motion of a mask: at `speed` px a frame in a direction that changes slowly, while it turns and grows."""

    headings: np.ndarray  # radians, float64 (T - 1,): direction of each step, 0 is to the right, pi/2 is down
    speed: float  # px a frame
    turn: float  # radians a frame, clockwise
    growth: float  # log of the factor a frame

    def matrices(self, height: int, width: int) -> np.ndarray:
        """Maps from the pixels (x, y, 1) of each frame to the mask as it lies in frame 0. float64 (T, 2, 3).

        The mask stays within REACH, MAX_TURN and MAX_GROWTH of where it is in frame 0; beyond, it is thrown back like a
        ball by a wall, at the same speed.
        """
        steps = self.speed * np.stack([np.cos(self.headings), np.sin(self.headings)], axis=1)
        moved = np.vstack([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
        time = np.arange(len(moved))
        moved = np.stack([_folded(moved[:, 0], REACH * width), _folded(moved[:, 1], REACH * height)], axis=1)
        angle, size = _folded(self.turn * time, MAX_TURN), np.exp(_folded(self.growth * time, MAX_GROWTH))
        cos, sin = np.cos(angle) / size, np.sin(angle) / size
        back = np.stack([np.stack([cos, sin], axis=1), np.stack([-sin, cos], axis=1)], axis=1)
        centre = np.array([(width - 1) / 2, (height - 1) / 2])
        shift = centre - np.einsum("tij,tj->ti", back, centre + moved)
        return np.concatenate([back, shift[:, :, None]], axis=2)


def _folded(values, limit):
    """Values reflected at -limit and limit as often as it takes."""
    return np.abs((values - limit) % (4 * limit) - 2 * limit) - limit


def random_path(frames: int, shape: tuple[int, int], speeds: tuple[float, float], rng: np.random.Generator) -> Path:
    """Draw a path. shape: (height, width) of the frames. speeds: px a frame at 432x240; drawn log-uniformly."""
    speed = float(np.exp(rng.uniform(*np.log(speeds)))) * unit(*shape)
    heading, bends = rng.uniform(0, 2 * np.pi), rng.normal(0, BEND, frames - 2)
    turn, growth = rng.uniform(-1, 1, 2) * (speed / (ARM * unit(*shape)))
    return Path(heading + np.concatenate([[0], np.cumsum(bends)]), speed, float(turn), float(growth) / 2)


def at_rest(frames: int) -> np.ndarray:
    """The matrices of a mask that does not move. float64 (T, 2, 3)."""
    return np.broadcast_to(np.eye(2, 3), (frames, 2, 3))
