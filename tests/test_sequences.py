"""Mask sequences that need no video: measuring, paths, raw masks, and the sampler."""

import pickle

import cv2
import numpy as np
import pytest

from maskgen.errors import BadInput
from maskgen.maskset import encode
from maskgen.sequences.measure import category, measure, motion_of, outline_speed
from maskgen.sequences.path import MAX_GROWTH, MAX_TURN, Path, random_path
from maskgen.sequences.plane import Plane, compose
from maskgen.sequences.raw import raw_masks_of
from maskgen.sequences.sampler import SequenceSampler
from maskgen.settings import EDGES
from tests.rawmasks import draw, streaks, write_raw


def squares(places, side=40, shape=(100, 200)):
    """A sequence with a square at each (x, y)."""
    holes = np.zeros((len(places), *shape), bool)
    for hole, (x, y) in zip(holes, places, strict=True):
        hole[y : y + side, x : x + side] = True
    return holes


# Measuring


def test_a_square_that_moves_by_3_px_a_frame_has_the_speed_3():
    # 2 * 3 * 40 pixels change, and 4 * 40 pairs of neighbours lie across the outline: 2 * 240 / 160.
    assert outline_speed(squares([(20 + 3 * t, 30) for t in range(5)])) == 3


@pytest.mark.parametrize("direction", [0, 30, 45, 90])
def test_a_disc_has_its_speed_in_any_direction(direction):
    holes = np.zeros((8, 400, 400), np.uint8)
    for t, hole in enumerate(holes):
        x, y = (150 + 5 * t * np.array([np.cos(np.deg2rad(direction)), np.sin(np.deg2rad(direction))])).round(3)
        cv2.circle(hole, (round(x * 16), round(y * 16)), 80 * 16, 1, -1, shift=4)
    assert outline_speed(holes.view(bool)) == pytest.approx(5, rel=0.03)


def test_what_enters_at_the_edge_counts_like_the_outline_inside():
    # One outline of 100 px moves right by 2 px a frame: 200 pixels change.
    holes = np.arange(50)[None, None] < 10 + 2 * np.arange(6)[:, None, None]
    assert outline_speed(np.broadcast_to(holes, (6, 100, 50))) == 2 * 200 / 100


def test_masks_that_stay_or_have_no_outline_have_the_speed_0():
    assert outline_speed(squares([(20, 30)] * 3)) == 0
    assert outline_speed(np.zeros((3, 20, 20), bool)) == outline_speed(np.ones((3, 20, 20), bool)) == 0


def test_ratios_and_the_pixels_that_are_never_seen():
    size = measure(np.stack([draw("##..", "...."), draw(".##.", "####")]))
    assert size.ratios.tolist() == [2 / 8, 6 / 8] and size.ratio == 0.5
    assert size.never_seen == 1 / 8


@pytest.mark.parametrize(
    ("speed", "shape", "motion"),
    [
        (0.6, (240, 432), "still"),
        (0.61, (240, 432), "slow"),
        (3, (240, 432), "slow"),
        (3.01, (240, 432), "fast"),
        (6, (480, 864), "slow"),  # twice as long sides
        (6.02, (480, 864), "fast"),
        (3 * 512 / (240 * 432) ** 0.5, (512, 512), "slow"),
        (3.01 * 512 / (240 * 432) ** 0.5, (512, 512), "fast"),
    ],
)
def test_the_edges_of_the_motion_classes_grow_with_the_frame(speed, shape, motion):
    assert motion_of(speed, shape) == motion


def test_a_class_is_a_ratio_interval_and_a_motion():
    assert category(0.2, 1, (240, 432)) == "0.1-0.2_slow"
    assert category(0.6, 9, (240, 432)) == "0.5-0.6_fast"
    assert category(0.61, 0, (240, 432)) == category(0.01, 0, (240, 432)) == ""


# Paths


def straight(frames, heading=0.0, speed=2.0, turn=0.0, growth=0.0):
    return Path(np.full(frames - 1, heading), speed, turn, growth)


def test_a_straight_path_moves_the_mask_by_its_speed():
    hole = squares([(20, 30)])[0]
    frame = np.empty(hole.shape, np.uint8)
    for t, matrix in enumerate(straight(5).matrices(100, 200)):
        Plane(hole.view(np.uint8), np.eye(2, 3)).frame(matrix, frame)
        assert (frame.view(bool) == squares([(20 + 2 * t, 30)])[0]).all()
    for t, matrix in enumerate(straight(5, np.pi / 2).matrices(100, 200)):  # down
        Plane(hole.view(np.uint8), np.eye(2, 3)).frame(matrix, frame)
        assert (frame.view(bool) == squares([(20, 30 + 2 * t)])[0]).all()


def test_a_path_turns_back_a_fifth_of_the_frame_from_where_it_began():
    matrices = straight(10, speed=8).matrices(50, 100)  # 20 px to each side
    assert (-matrices[:, 0, 2]).round(9).tolist() == [0, 8, 16, 16, 8, 0, -8, -16, -16, -8]


def test_a_mask_turns_about_the_centre_of_the_frame_and_back_after_30_degrees():
    matrices = straight(5, speed=0, turn=np.deg2rad(15)).matrices(101, 201)
    for matrix, degrees in zip(matrices, (0, 15, 30, 15, 0), strict=True):
        angle = np.deg2rad(degrees)  # clockwise, as y points down: what lay right of the centre is now below
        point = 100 + 10 * np.cos(angle), 50 + 10 * np.sin(angle), 1
        assert (matrix @ point) == pytest.approx([110, 50])
    assert pytest.approx(np.deg2rad(30)) == MAX_TURN


def test_a_mask_grows_about_the_centre_up_to_a_quarter():
    matrices = straight(4, speed=0, growth=MAX_GROWTH / 2).matrices(101, 201)
    for matrix, factor in zip(matrices, (1, 1.25**0.5, 1.25, 1.25**0.5), strict=True):
        assert (matrix @ (100 + 10 * factor, 50, 1)) == pytest.approx([110, 50])


def test_random_paths_have_speeds_of_the_range_at_the_frames_size():
    rng = np.random.default_rng(0)
    speeds = [random_path(8, (480, 864), (0.5, 8), rng).speed for _ in range(400)]  # twice 432x240
    assert 1 <= min(speeds) < 1.1 and 15 < max(speeds) <= 16
    assert np.median(speeds) == pytest.approx(2 * (0.5 * 8) ** 0.5, rel=0.2)  # log-uniform


def test_random_paths_are_smooth_and_keep_their_speed():
    path = random_path(64, (240, 432), (3, 3), np.random.default_rng(1))
    steps = np.diff(
        np.vstack([[0, 0], path.speed * np.stack([np.cos(path.headings), np.sin(path.headings)], 1)]), axis=0
    )
    assert np.hypot(*steps[1:].T).max() < 3 * np.deg2rad(8) * 4  # no turn beyond 4 standard deviations
    moved = [matrix @ (0, 0, 1) for matrix in Path(path.headings, 3, 0, 0).matrices(240, 432)]
    lengths = np.hypot(*np.diff(moved, axis=0).T)
    assert np.quantile(lengths, 0.2) == pytest.approx(3) and lengths.max() < 3.001  # shorter where it turns back


# Raw masks


@pytest.mark.parametrize("ratio", [0.02, 0.1, 0.3, 0.55])
def test_raw_masks_are_joined_to_the_mean_ratio_of_what_the_frames_show(ratio):
    rng, shape = np.random.default_rng(3), (90, 160)
    matrices = random_path(9, shape, (4, 4), rng).matrices(*shape)
    plane, columns = compose(lambda: ("a", streaks(int(rng.integers(9)))), matrices, shape, ratio, rng)
    frames = np.empty((9, *shape), np.uint8)
    for matrix, frame in zip(matrices, frames, strict=True):
        plane.frame(matrix, frame)
    assert frames[::2].mean() == pytest.approx(ratio, rel=0.03, abs=0.003)
    assert 8.5 <= float(columns["dilation"]) <= 49.5  # of the brush, in px of 512


def test_a_set_with_parts_is_used_part_by_part_and_others_are_cut_between_videos(tmp_path):
    for split in ("train", "test"):
        write_raw(tmp_path / "set", 4, split)
    raw = raw_masks_of(tmp_path / "set", {"train": 3, "test": 1})
    assert [raw[split].masks.path.name for split in ("train", "test")] == ["train", "test"]
    flat = write_raw(tmp_path / "other", 10, "test") / "test"  # 5 masks each of clip0 and clip1
    raw = raw_masks_of(flat, {"train": 9, "test": 1})
    names = {split: {one.masks.names[i].split("/")[0] for i in one.numbers} for split, one in raw.items()}
    assert names == {"train": {"clip0"}, "test": {"clip1"}}


def test_a_flat_folder_of_masks_is_cut_by_the_shares_of_the_splits(tmp_path):
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(encode(streaks(i, 64)))
    raw = raw_masks_of(tmp_path, {"train": 300, "test": 100})
    assert (list(raw["train"].numbers), list(raw["test"].numbers)) == ([0, 1, 2, 3, 4, 5], [6, 7])
    for i in range(1, 8):
        (tmp_path / f"{i}.png").unlink()
    with pytest.raises(BadInput, match="only 1 raw mask"):
        raw_masks_of(tmp_path, {"train": 1, "test": 1})


# The sampler


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_raw(tmp_path_factory.mktemp("raw"), 16, "train")


@pytest.mark.parametrize("uniform", [False, True])
def test_an_index_always_gives_the_same_sequence(raw, uniform):
    sampler = SequenceSampler(raw, 5, (60, 108), seed=3, uniform=uniform)
    first = [sampler[i].copy() for i in range(6)]
    copy = pickle.loads(pickle.dumps(sampler))  # as for the worker of a data loader
    assert all((copy[i] == first[i]).all() for i in reversed(range(6)))
    other = SequenceSampler(raw, 5, (60, 108), seed=4, uniform=uniform)
    assert not all((other[i] == first[i]).all() for i in range(6))


@pytest.mark.parametrize(("frames", "size", "shape"), [(2, 96, (2, 96, 96)), (7, (121, 65), (7, 121, 65))])
def test_any_number_of_frames_and_any_size(raw, frames, size, shape):
    sampler = SequenceSampler(raw, frames, size, ratio=(0.02, 0.4))
    for i in (0, 15, 16, 10**9):
        holes = sampler[i]
        assert (holes.shape, holes.dtype) == (shape, bool) and 0.02 <= holes.mean() <= 0.41
        assert holes.any((1, 2)).all()
    with pytest.raises(IndexError):
        sampler[-1]


def test_half_of_the_sequences_stand_still_and_half_drift_at_speeds_of_the_range(raw):
    sampler = SequenceSampler(raw, 6, (120, 216), speed=(4, 8))
    made = [sampler.sample(i) for i in range(40)]
    still = [holes for holes, how in made if how["mode"] == "stationary"]
    assert 10 <= len(still) <= 30 and all((holes == holes[0]).all() for holes in still)
    moving = [(outline_speed(holes), float(how["path_speed"])) for holes, how in made if how["mode"] == "drifting"]
    assert all(2 <= path <= 4 for _, path in moving)  # half the size of 432x240
    # The mask also turns and grows, and thin holes move further than they are wide.
    assert np.median([measured / path for measured, path in moving]) == pytest.approx(1.1, abs=0.25)


def test_uniform_ratios_are_uniform_over_the_classes(raw):
    sampler = SequenceSampler(raw, 3, (60, 108), uniform=True)
    ratios = np.array([sampler[i].mean() for i in range(60)])
    assert (np.histogram(ratios, EDGES)[0] >= 4).all()  # 10 expected in each


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"frames": 1}, "frames is a whole number, 2 to"),
        ({"size": (240, 8)}, "size is a side, or .height, width."),
        ({"ratio": (0.5, 0.1)}, "ratio is .lowest, highest."),
        ({"speed": (0, 3)}, "speed is two numbers"),
        ({"modes": ("tracked",)}, "modes is one or more of"),
    ],
)
def test_wrong_settings_are_named(raw, settings, says):
    with pytest.raises(BadInput, match=says):
        SequenceSampler(raw, **settings)


def test_masks_without_holes_are_refused(tmp_path):
    (tmp_path / "empty.png").write_bytes(encode(np.zeros((64, 64), bool)))
    with pytest.raises(BadInput, match="are empty"):
        SequenceSampler(tmp_path)[0]
