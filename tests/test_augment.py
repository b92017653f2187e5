from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from maskgen.augment import augment, dilate
from maskgen.augment.composition import Target, compose
from maskgen.augment.dilation import UNREACHED, dilate_to, distance_levels, radius_for
from maskgen.augment.placement import Placement, fitted_placement, random_placement
from maskgen.categories import border_distance
from maskgen.errors import BadInput
from maskgen.settings import PRESETS, AugmentConfig
from tests.rawmasks import draw, streaks

STILL = AugmentConfig(rotate=0, shift=0, zoom=(1, 1), flip=False)


def dot(side=512, at=(256, 256)):
    hole = np.zeros((side, side), bool)
    hole[at] = True
    return hole


def test_the_presets_are_those_of_the_two_pages():
    assert PRESETS["nvidia"].brush == (9, 49) and PRESETS["nvidia-old"].brush == (5, 47)


def test_a_square_brush_makes_a_square_of_a_dot():
    wide = dilate(draw(".....", ".....", "..#..", ".....", "....."), 3)
    assert (wide.astype(bool) == draw(".....", ".###.", ".###.", ".###.", ".....")).all()


def test_a_disc_leaves_out_the_corners():
    wide = dilate(draw(".....", ".....", "..#..", ".....", "....."), 5, "disc")
    assert (wide.astype(bool) == draw(".###.", "#####", "#####", "#####", ".###.")).all()


def test_a_mask_that_stays_in_place_is_only_dilated():
    raw = streaks(1)
    hole, columns = augment(raw, replace(STILL, brush=(9, 9)), np.random.default_rng(0))
    assert (hole == ndimage.binary_dilation(raw, np.ones((9, 9)))).all() and columns["dilation"] == 9


def test_a_quarter_turn_is_the_quarter_turn_of_numpy():
    raw = streaks(2)
    middle = (512 - 1) / 2
    placed = distance_levels(raw, Placement(False, 90, 1, middle, middle), 512, "square", 20) == 0
    assert (placed == np.rot90(raw)).all()


def test_a_mirrored_mask_is_mirrored_left_to_right():
    raw = streaks(3)
    middle = (512 - 1) / 2
    assert ((distance_levels(raw, Placement(True, 0, 1, middle, middle), 512, "square", 20) == 0) == raw[:, ::-1]).all()


@pytest.mark.parametrize("seed", range(20))
def test_what_turns_in_from_outside_is_valid(seed):
    # One hole pixel in the middle of a mask turned by any angle: nothing but that hole may appear.
    config = AugmentConfig(brush=(9, 49), min_ratio=0.0001)
    hole, columns = augment(dot(), config, np.random.default_rng(seed))
    assert hole.sum() <= 1.2 * (columns["dilation"] + 2) ** 2


@pytest.mark.parametrize("seed", range(30))
def test_the_ratio_stays_within_its_bounds(seed):
    hole, _ = augment(streaks(seed), AugmentConfig(min_ratio=0.05, max_ratio=0.2), np.random.default_rng(seed))
    assert 0.05 <= hole.mean() <= 0.2 and hole.dtype == bool


def test_a_raw_mask_that_cannot_do_it_is_refused_in_one_line():
    with pytest.raises(BadInput, match=r"0\.5 to 0\.6 in 50 draws"):
        augment(dot(), AugmentConfig(min_ratio=0.5), np.random.default_rng(0))


def test_an_empty_raw_mask_is_refused():
    with pytest.raises(BadInput, match="at least one hole pixel"):
        augment(np.zeros((64, 64), bool), AugmentConfig(), np.random.default_rng(0))


def test_a_smaller_size_shows_the_same_mask():
    raw = streaks(4)
    large, _ = augment(raw, AugmentConfig(), np.random.default_rng(7), 512)
    small, _ = augment(raw, AugmentConfig(), np.random.default_rng(7), 256)
    assert (large[::2, ::2] == small).mean() > 0.98


def test_a_larger_raw_mask_is_cropped_and_not_shrunk():
    raw = np.zeros((700, 900), bool)
    raw[::50] = True  # lines 50 px apart stay 50 px apart
    hole, _ = augment(raw, replace(STILL, brush=(9, 9)), np.random.default_rng(0))
    tops = np.flatnonzero(np.diff(hole[:, 250].astype(int)) == 1)
    assert set(np.diff(tops)) == {50}


def test_growth_reaches_the_count_exactly():
    raw = streaks(5)
    level = distance_levels(raw, random_placement(raw.shape, STILL, np.random.default_rng(0)), 512, "square", 30)
    for count in (20_000, 50_001, 77_777):
        hole = dilate_to(level, count, np.random.default_rng(1))
        assert hole.sum() == count and hole[raw].all()


def test_growth_by_whole_rings_is_a_dilation():
    raw = streaks(6)
    level = distance_levels(raw, random_placement(raw.shape, STILL, np.random.default_rng(0)), 512, "square", 30)
    dilated = ndimage.binary_dilation(raw, np.ones((15, 15)))  # 7 px to each side
    assert radius_for(level, int(dilated.sum())) == 7
    assert (dilate_to(level, int(dilated.sum()), np.random.default_rng(0)) == dilated).all()


def test_growth_stays_where_it_is_allowed():
    level = distance_levels(streaks(7), Placement(False, 0, 1, 255, 255), 512, "square", 60)
    level[:, 256:] = UNREACHED
    assert not dilate_to(level, 30_000, np.random.default_rng(0))[:, 256:].any()


def test_growth_that_cannot_reach_says_so():
    with pytest.raises(ValueError, match="expected 2 pixels within reach, got 1"):
        dilate_to(np.array([[0, UNREACHED]], np.uint8), 2, np.random.default_rng(0))


@pytest.mark.parametrize("seed", range(10))
def test_a_mask_is_shrunk_to_fit_the_room(seed):
    raw = np.zeros((512, 512), bool)
    raw[100:400, 60:420] = True
    placement = fitted_placement(raw, 380, 0.5, PRESETS["nvidia"], np.random.default_rng(seed))
    placed = distance_levels(raw, placement, 512, "square", 1) == 0
    assert border_distance(placed) >= 512 / 2 - 380 / 2 - 1
    assert placed.sum() == pytest.approx(raw.sum() * placement.zoom**2, rel=0.02)  # nothing is cut off


@pytest.mark.parametrize(("ratio", "border"), [(0.05, 50), (0.3, 50), (0.59, 50), (0.05, 0), (0.59, 0)])
def test_a_composed_mask_has_the_ratio_and_the_border(ratio, border):
    count = round(ratio * 512 * 512)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        wanted = Target(count, 512, border, layers=40, min_zoom=0.6)
        made = compose(lambda layer, rng=rng: streaks(int(rng.integers(50)), pieces=6), wanted, PRESETS["nvidia"], rng)
        if made:
            break
    hole, columns = made
    assert hole.sum() == count and border_distance(hole) >= border
    assert 9 <= float(columns["dilation"]) <= 49
