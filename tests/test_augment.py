from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import label
from skimage.morphology import disk

from maskgen.augment import augment, composition, dilate
from maskgen.augment.composition import Target, compose, random_part
from maskgen.augment.dilation import UNREACHED, dilate_to, distance_levels, radius_for
from maskgen.augment.placement import (
    Placement,
    base_scale,
    crop_to_hole,
    fitted_placement,
    place,
    random_placement,
)
from maskgen.categories import border_distance
from maskgen.errors import BadInput
from maskgen.settings import PRESETS, AugmentConfig
from tests.rawmasks import draw, streaks

STILL = AugmentConfig(rotate=0, shift=0, zoom=(1, 1), flip=False)
MIDDLE = (512 - 1) / 2
IN_PLACE = Placement(False, 0, 1, MIDDLE, MIDDLE)


def dot(side=512, at=(256, 256)):
    hole = np.zeros((side, side), bool)
    hole[at] = True
    return hole


def box(top, bottom, left, right, shape=(512, 512)):
    hole = np.zeros(shape, bool)
    hole[top:bottom, left:right] = True
    return hole


def bounds(hole):
    """First and last row, first and last column of a hole."""
    rows, columns = np.nonzero(hole)
    return rows.min(), rows.max(), columns.min(), columns.max()


def test_the_presets_are_those_of_the_two_pages():
    assert PRESETS["nvidia"].brush == (9, 49) and PRESETS["nvidia-old"].brush == (5, 47)


# Dilation.


def test_a_square_brush_makes_a_square_of_a_dot():
    dilated = dilate(draw(".....", ".....", "..#..", ".....", "....."), 3)
    assert (dilated.astype(bool) == draw(".....", ".###.", ".###.", ".###.", ".....")).all()


def test_a_disc_leaves_out_the_corners():
    dilated = dilate(draw(".....", ".....", "..#..", ".....", "....."), 5, "disc")
    assert (dilated.astype(bool) == draw(".###.", "#####", "#####", "#####", ".###.")).all()


def test_a_disc_includes_pixels_at_exactly_its_radius():
    dilated = dilate(draw(".....", ".....", "..#..", ".....", "....."), 4, "disc")
    assert (dilated.astype(bool) == draw("..#..", ".###.", "#####", ".###.", "..#..")).all()


@pytest.mark.parametrize("side", [1, 2, 3, 8, 9])
def test_a_square_brush_dilates_as_scipy_does(side):
    raw = streaks(1, 128)
    dilated = ndimage.binary_dilation(raw, np.ones((side, side)), origin=-(1 - side % 2))
    assert (dilate(raw, side) == dilated).all()


def test_a_disc_is_that_of_scikit_image():
    # OpenCV's distances have an error of up to 2 %: at a radius of 10.25 that is a pixel here and there.
    dilated = dilate(dot(64, (32, 32)), 21, "disc")
    assert (
        np.count_nonzero(dilated[22:43, 22:43] != disk(10, strict_radius=False)) <= 8
        and bounds(dilated) == (22, 42) * 2
    )


def test_an_unknown_brush_is_refused():
    with pytest.raises(BadInput, match=r"^shape is one of square, disc, got 'round'"):
        dilate(dot(), 9, "round")
    with pytest.raises(BadInput, match=r"^shape is one of square, disc, got 'round'"):
        distance_levels(dot(), IN_PLACE, 512, "round", 9)


def test_levels_are_twice_the_chessboard_distance_for_a_square_brush():
    raw = streaks(1)
    levels = distance_levels(raw, IN_PLACE, 512, "square", 30)
    distance = ndimage.distance_transform_cdt(~raw, "chessboard")
    assert (levels[distance <= 30] == 2 * distance[distance <= 30]).all() and (levels[distance > 33] > 2 * 30).all()


def test_levels_are_twice_the_euclidean_distance_for_a_disc():
    raw = streaks(1)
    levels = distance_levels(raw, IN_PLACE, 512, "disc", 30)
    distance = ndimage.distance_transform_edt(~raw)
    near = distance <= 30
    assert np.abs(levels[near] - 2 * distance[near]).max() <= 0.5 + 2 * 0.03 * 30


def test_levels_are_px_of_the_new_mask_whatever_the_zoom_and_the_size():
    # A raw mask of 256 px, enlarged to 512 px, zoomed by 1.5, in a mask of 256 px: 1.5 px of the new mask per raw px.
    levels = distance_levels(dot(256, (128, 128)), Placement(False, 0, 1.5, 128, 128), 256, "square", 60)
    assert levels[128, 128] == 0
    for px in (15, 30, 45):  # 10, 20 and 30 raw px
        assert abs(levels[128, 128 + px] / 2 - px) <= 1.5


@pytest.mark.parametrize("zoom", [0.25, 0.5, 2, 4])
def test_levels_reach_as_far_as_the_dilation_whatever_the_zoom(zoom):
    levels = distance_levels(dot(), Placement(False, 0, zoom, 256, 256), 512, "square", 60)
    for px in (20, 40, 60):
        assert abs(levels[255, 255 + px] / 2 - px) <= zoom + 1


def test_raw_holes_are_cut_at_the_margins():
    levels = distance_levels(np.ones((512, 512), bool), IN_PLACE, 512, "square", 5, np.array([10.0, 20, 30, 40]))
    assert bounds(levels == 0) == (20, 511 - 40, 10, 511 - 30) and (levels[20:472, 10:482] == 0).all()
    assert (levels[0, :] == UNREACHED).all()


@pytest.mark.parametrize("flip", [False, True])
def test_a_turned_enlarged_and_shifted_raw_mask_is_cut_at_the_margins_of_the_new_one(flip):
    # The raw mask is larger than the new one, so all of the new one but the margins is hole.
    placement = Placement(flip, 30, 1.5, 500, 320)
    levels = distance_levels(np.ones((700, 900), bool), placement, 512, "square", 5, np.array([10.0, 20, 30, 40]))
    near = np.array(bounds(levels == 0)) - (20, 511 - 40, 10, 511 - 30)
    assert np.abs(near).max() <= 2 and (levels[23:469, 13:479] == 0).all()


def test_what_is_cut_off_is_reached_by_dilation_like_any_other_pixel():
    levels = distance_levels(np.ones((512, 512), bool), IN_PLACE, 512, "square", 5, np.full(4, 100.0))
    assert [int(levels[256, 100 - px]) for px in (0, 1, 3, 5)] == [0, 2, 6, 10]
    assert [int(levels[411 + px, 256]) for px in (0, 1, 3, 5)] == [0, 2, 6, 10]


def test_the_middle_of_a_new_mask_shows_the_pixel_that_its_placement_names():
    for flip in (False, True):
        for angle in (0, 30, 180):
            matrix = Placement(flip, angle, 1.5, 12, 34).matrix(101, 2)
            assert matrix @ (50, 50, 1) == pytest.approx([12, 34])
            assert abs(np.linalg.det(matrix[:, :2])) == pytest.approx(1 / 2**2)  # 2 px of the new one per raw px
    # A quarter turn counter-clockwise: what is right of the middle comes from below it, and is then mirrored.
    assert Placement(False, 90, 1, 12, 34).matrix(101, 2) @ (60, 50, 1) == pytest.approx([12, 34 + 5])
    assert Placement(True, 90, 1, 12, 34).matrix(101, 2) @ (50, 40, 1) == pytest.approx([12 - 5, 34])


def test_a_hole_is_cropped_with_a_margin_around_it():
    part, left, top = crop_to_hole(draw("......", "...#..", "....#.", "......"), 2)
    expected = draw("......", "......", "..#...", "...#..", "......", "......")
    assert (part == expected).all() and part.dtype == np.uint8 and (left, top) == (1, -1)


def test_pixels_beyond_a_part_have_the_value_that_is_given():
    part = np.array([[1, 2], [3, 4]], np.uint8)
    placed = place(part, 10, 20, Placement(False, 0, 1, 11, 21), 5, 1, 9)  # its pixel (11, 21) is in the middle
    assert (placed == [[9, 9, 9, 9, 9], [9, 1, 2, 9, 9], [9, 3, 4, 9, 9], [9, 9, 9, 9, 9], [9, 9, 9, 9, 9]]).all()


@pytest.mark.parametrize(("shape", "scale"), [((512, 512), 1), ((600, 900), 1), ((256, 900), 2), ((400, 128), 4)])
def test_raw_masks_are_enlarged_until_their_short_side_has_512_px(shape, scale):
    assert base_scale(shape) == scale


def test_a_raw_mask_without_a_hole_reaches_nothing():
    levels = distance_levels(np.zeros((512, 512), bool), IN_PLACE, 512, "square", 5)
    assert (levels == UNREACHED).all() and radius_for(levels, 1) == np.inf


def test_the_radius_for_an_area_is_that_of_the_first_ring_that_suffices():
    levels = distance_levels(dot(), IN_PLACE, 512, "square", 5)
    assert [radius_for(levels, area) for area in (1, 2, 9, 10, 25, 26)] == [0, 1, 1, 2, 2, 3]


def test_a_part_of_the_outermost_ring_is_filled_from_one_side():
    levels = distance_levels(dot(), IN_PLACE, 512, "disc", 40)
    whole = levels < 2 * 30
    quadrants = set()
    for seed in range(12):
        hole = dilate_to(levels, int(whole.sum()) + 60, np.random.default_rng(seed))
        ring = levels == levels[hole].max()
        y, x = np.nonzero(ring)
        chosen = hole[y, x][np.argsort(np.arctan2(y - 256, x - 256))]
        assert 0 < chosen.sum() < ring.sum() and (chosen != np.roll(chosen, 1)).sum() == 2  # one arc
        rows, columns = np.nonzero(hole & ring)
        quadrants.add((rows.mean() > 256, columns.mean() > 256))
    assert len(quadrants) == 4  # any side


# Random masks.


def test_a_mask_that_stays_in_place_is_dilated_only():
    raw = streaks(1)
    hole, columns = augment(raw, replace(STILL, brush=(9, 9)), np.random.default_rng(0))
    assert (hole == ndimage.binary_dilation(raw, np.ones((9, 9)))).all() and columns["dilation"] == 9


def test_a_quarter_turn_is_the_quarter_turn_of_numpy():
    raw = streaks(2)
    placed = distance_levels(raw, Placement(False, 90, 1, MIDDLE, MIDDLE), 512, "square", 20) == 0
    assert (placed == np.rot90(raw)).all()


def test_a_mirrored_mask_is_mirrored_left_to_right():
    raw = streaks(3)
    assert ((distance_levels(raw, Placement(True, 0, 1, MIDDLE, MIDDLE), 512, "square", 20) == 0) == raw[:, ::-1]).all()


@pytest.mark.parametrize("seed", range(20))
def test_pixels_from_outside_the_raw_mask_are_valid(seed):
    # One hole pixel in the middle of a mask rotated by any angle: nothing but that hole may appear.
    config = AugmentConfig(brush=(9, 49), min_ratio=0.0001)
    hole, columns = augment(dot(), config, np.random.default_rng(seed))
    assert hole.sum() <= 1.2 * (columns["dilation"] + 2) ** 2


@pytest.mark.parametrize("seed", range(30))
def test_the_ratio_stays_within_its_bounds(seed):
    hole, _ = augment(streaks(seed), AugmentConfig(min_ratio=0.05, max_ratio=0.2), np.random.default_rng(seed))
    assert 0.05 <= hole.mean() <= 0.2 and hole.dtype == bool


def test_a_ratio_equal_to_a_bound_is_within_it():
    exact, config = 81 / 512**2, replace(STILL, brush=(9, 9))  # a dot becomes 9 x 9 px
    for bounds_of_ratio in ({"min_ratio": exact}, {"min_ratio": exact / 2, "max_ratio": exact}):
        hole, _ = augment(dot(), replace(config, attempts=1, **bounds_of_ratio), np.random.default_rng(0))
        assert hole.sum() == 81


def test_a_round_brush_makes_a_round_hole():
    config = replace(STILL, brush=(41, 41), shape="disc", min_ratio=1e-4)
    hole, _ = augment(dot(), config, np.random.default_rng(0))
    assert hole.sum() == pytest.approx(np.pi * 20.5**2, rel=0.02) and bounds(hole) == (236, 276) * 2


def test_a_raw_mask_that_cannot_reach_the_ratio_is_refused_in_one_line():
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


@pytest.mark.parametrize("zoom", [0.5, 1, 2])
def test_the_brush_is_px_of_the_result_whatever_the_zoom(zoom):
    config = replace(STILL, brush=(41, 41), zoom=(zoom, zoom), min_ratio=1e-4)
    hole, columns = augment(dot(), config, np.random.default_rng(0))
    first, last, left, right = bounds(hole)
    assert abs(last - first + 1 - 41) <= 2 * zoom and abs(right - left + 1 - 41) <= 2 * zoom
    assert columns["dilation"] == 41 and columns["zoom"] == f"{zoom:.3f}"


def test_a_smaller_raw_mask_is_enlarged_to_512_px():
    raw = box(60, 100, 40, 120, (128, 256))  # the short side becomes 512 px: four times as large
    hole, _ = augment(raw, replace(STILL, brush=(1, 1)), np.random.default_rng(0))
    first, last, left, right = bounds(hole)
    assert last - first + 1 == pytest.approx(4 * 40, abs=2) and right - left + 1 == pytest.approx(4 * 80, abs=2)
    assert (first + last) / 2 == pytest.approx(4 * 80, abs=2)


def test_the_brush_is_px_of_the_result_for_an_enlarged_raw_mask():
    config = replace(STILL, brush=(41, 41), min_ratio=1e-4)
    first, last, left, right = bounds(augment(dot(128, (64, 64)), config, np.random.default_rng(0))[0])
    assert abs(last - first + 1 - 41) <= 4 and abs(right - left + 1 - 41) <= 4  # 4 px of the result per raw px


def test_a_mask_is_shifted_by_up_to_an_eighth_of_the_side_on_both_axes():
    config = replace(STILL, brush=(9, 9), shift=0.125, min_ratio=1e-5)
    places = []
    for seed in range(60):
        first, last, left, right = bounds(augment(dot(), config, np.random.default_rng(seed))[0])
        places.append(((left + right) / 2 - 256, (first + last) / 2 - 256))
    for axis in np.transpose(places):
        assert 55 < axis.max() <= 65 and -65 <= axis.min() < -55
    assert abs(np.corrcoef(np.transpose(places))[0, 1]) < 0.5


def test_the_crop_may_lie_anywhere_in_a_larger_raw_mask():
    drawn = [random_placement((600, 1000), STILL, np.random.default_rng(seed)) for seed in range(60)]
    x, y = [placement.x for placement in drawn], [placement.y for placement in drawn]
    assert 256 - 0.5 <= min(x) < 290 and 710 < max(x) <= 1000 - 256 - 0.5
    assert 256 - 0.5 <= min(y) < 265 and 335 < max(y) <= 600 - 256 - 0.5


def test_every_second_mask_is_flipped_and_angles_and_zooms_fill_their_ranges():
    config = AugmentConfig(rotate=30, zoom=(0.5, 2))
    drawn = [random_placement((512, 512), config, np.random.default_rng(seed)) for seed in range(200)]
    assert 70 < sum(placement.flip for placement in drawn) < 130
    assert not any(random_placement((512, 512), STILL, np.random.default_rng(seed)).flip for seed in range(20))
    angles, zooms = [placement.angle for placement in drawn], [placement.zoom for placement in drawn]
    assert -30 <= min(angles) < -27 and 27 < max(angles) <= 30 and 0.5 <= min(zooms) < 0.6 and 1.9 < max(zooms) <= 2


def test_without_a_shift_a_raw_mask_of_the_size_of_the_new_one_stays_in_the_middle():
    assert random_placement((512, 512), STILL, np.random.default_rng(0)) == IN_PLACE


def test_a_smaller_raw_mask_is_shifted_by_as_much_of_the_side():
    config = replace(STILL, shift=0.125)  # 64 px of the new mask, 32 px of a raw mask that is enlarged twice
    drawn = [random_placement((256, 300), config, np.random.default_rng(seed)) for seed in range(60)]
    x, y = [placement.x for placement in drawn], [placement.y for placement in drawn]
    spare = (2 * 300 - 512) / 2 / 2  # px of the raw mask, the crop may lie that far from the middle anyway
    assert 149.5 - spare - 32 <= min(x) < 149.5 - spare - 25 and 149.5 + spare + 25 < max(x) <= 149.5 + spare + 32
    assert 127.5 - 32 <= min(y) < 127.5 - 29 and 127.5 + 29 < max(y) <= 127.5 + 32


def test_the_columns_of_an_index_say_how_a_mask_was_placed():
    columns = Placement(True, -12.346, 1.25, 100.04, 7).columns()
    assert columns == {"rotation": "-12.35", "zoom": "1.250", "flip": 1, "centre": "100.0 7.0"}


# Masks of an exact area.


def test_dilation_to_an_area_reaches_it_exactly():
    raw = streaks(5)
    level = distance_levels(raw, random_placement(raw.shape, STILL, np.random.default_rng(0)), 512, "square", 30)
    for count in (20_000, 50_001, 77_777):
        hole = dilate_to(level, count, np.random.default_rng(1))
        assert hole.sum() == count and hole[raw].all()


def test_dilation_to_the_area_of_a_brush_is_the_dilation_by_that_brush():
    raw = streaks(6)
    level = distance_levels(raw, random_placement(raw.shape, STILL, np.random.default_rng(0)), 512, "square", 30)
    dilated = ndimage.binary_dilation(raw, np.ones((15, 15)))  # 7 px to each side
    assert radius_for(level, int(dilated.sum())) == 7
    assert (dilate_to(level, int(dilated.sum()), np.random.default_rng(0)) == dilated).all()


def test_dilation_to_an_area_leaves_out_unreached_pixels():
    level = distance_levels(streaks(7), Placement(False, 0, 1, 255, 255), 512, "square", 60)
    level[:, 256:] = UNREACHED
    assert not dilate_to(level, 30_000, np.random.default_rng(0))[:, 256:].any()


def test_a_ring_is_filled_along_the_direction_that_was_drawn():
    levels = np.full((5, 5), 2, np.uint8)
    levels[2, 2] = 0
    hole = dilate_to(levels, 11, SimpleNamespace(uniform=lambda low, high: low))  # 0 degrees: by columns
    assert (hole == draw("##...", "##...", "###..", "##...", "##...")).all()
    hole = dilate_to(levels, 11, SimpleNamespace(uniform=lambda low, high: high / 4))  # a quarter turn: by rows
    assert (hole == draw("#####", "#####", "..#..", ".....", ".....")).all()
    hole = dilate_to(levels, 12, SimpleNamespace(uniform=lambda low, high: high / 2))  # from the other side
    assert (hole[:, 3:].all() and hole[0, 2]) and hole.sum() == 12


def test_the_pixels_of_a_ring_that_are_taken_lie_before_the_others_at_any_angle():
    for angle in (0.3, 1, 2, 4.5):
        hole = dilate_to(np.ones((20, 20), np.uint8), 150, SimpleNamespace(uniform=lambda low, high, at=angle: at))
        y, x = np.indices(hole.shape)
        along = np.cos(angle) * x + np.sin(angle) * y
        assert along[hole].max() <= along[~hole].min()


def test_an_area_that_cannot_be_reached_is_an_error():
    with pytest.raises(ValueError, match="expected 2 pixels within reach, got 1"):
        dilate_to(np.array([[UNREACHED - 1, UNREACHED]], np.uint8), 2, np.random.default_rng(0))


@pytest.mark.parametrize("seed", range(10))
def test_a_mask_is_shrunk_to_fit_the_room(seed):
    raw = np.zeros((512, 512), bool)
    raw[100:400, 60:420] = True
    placement = fitted_placement(raw, 380, 0.5, PRESETS["nvidia"], np.random.default_rng(seed))
    placed = distance_levels(raw, placement, 512, "square", 1) == 0
    assert border_distance(placed) >= 512 / 2 - 380 / 2 - 1
    assert placed.sum() == pytest.approx(raw.sum() * placement.zoom**2, rel=0.02)  # nothing is cut off


@pytest.mark.parametrize("seed", range(10))
def test_a_hole_that_is_too_large_is_shrunk_as_far_as_allowed(seed):
    placement = fitted_placement(box(6, 506, 6, 506), 200, 0.6, STILL, np.random.default_rng(seed))
    assert placement.zoom == 0.6
    # The room, a centred square of 200 px, is full wherever the hole of 300 px is shifted.
    placed = distance_levels(box(6, 506, 6, 506), placement, 512, "square", 1) == 0
    assert placed[158:354, 158:354].all()


@pytest.mark.parametrize("shape", [(512, 512), (300, 256)])  # the latter is enlarged to 512 px
@pytest.mark.parametrize("box_of_hole", [(20, 200, 40, 100), (100, 160, 30, 210)])
def test_a_hole_fills_80_to_100_percent_of_the_room_at_any_angle_and_lies_anywhere_in_it(shape, box_of_hole):
    raw, config, room = box(*box_of_hole, shape), AugmentConfig(zoom=(0.1, 9), flip=True), 300
    extents, places = [], []
    for seed in range(120):
        placement = fitted_placement(raw, room, 0.1, config, np.random.default_rng(seed))
        first, last, left, right = bounds(distance_levels(raw, placement, 512, "square", 1) == 0)
        extents.append((last - first + 1, right - left + 1))
        places.append((first, last, left, right))
    longest = np.max(extents, axis=1) / room
    assert 0.78 < longest.min() < 0.82 and 0.98 < longest.max() < 1.02
    places = np.array(places) - (512 - room) / 2  # px from the start of the room
    assert places.min() > -3 and places.max() < room + 3
    for first, last in (places[:, :2].T, places[:, 2:].T):
        spare = room - (last - first)
        shift = first[spare > 50] / spare[spare > 50]
        # A beta distribution of 0.5 and 0.5: a third of it lies in the outer quarters, to each side.
        assert 0.2 < (shift < 0.25).mean() < 0.5 and 0.2 < (shift > 0.75).mean() < 0.5


def test_a_hole_that_is_not_shifted_lies_in_the_middle():
    chance = SimpleNamespace(uniform=lambda low, high: high, beta=lambda a, b: 0.5)
    placement = fitted_placement(box(20, 200, 40, 100), 300, 0.1, replace(STILL, zoom=(0.1, 9)), chance)
    assert placement == Placement(False, 0, 300 / 180, (40 + 99) / 2, (20 + 199) / 2)


def test_every_second_hole_is_flipped_as_it_is_fitted_and_all_angles_are_drawn():
    raw, config = box(20, 200, 40, 100), AugmentConfig(rotate=30)
    drawn = [fitted_placement(raw, 300, 0.1, config, np.random.default_rng(seed)) for seed in range(200)]
    assert 70 < sum(placement.flip for placement in drawn) < 130
    angles = [placement.angle for placement in drawn]
    assert -30 <= min(angles) < -27 and 27 < max(angles) <= 30
    still = [fitted_placement(raw, 300, 0.1, STILL, np.random.default_rng(seed)) for seed in range(20)]
    assert not any(placement.flip or placement.angle for placement in still)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_an_empty_hole_is_enlarged_as_far_as_allowed():
    placement = fitted_placement(np.zeros((512, 512), bool), 300, 0.6, AugmentConfig(), np.random.default_rng(0))
    assert placement.zoom == 1.5


def test_a_small_hole_is_enlarged_as_far_as_allowed_and_shifted_about_in_the_room():
    raw, config = box(200, 220, 300, 320), replace(STILL, zoom=(1, 1.5))
    placed = []
    for seed in range(40):
        placement = fitted_placement(raw, 400, 0.6, config, np.random.default_rng(seed))
        assert placement.zoom == 1.5
        placed.append(bounds(distance_levels(raw, placement, 512, "square", 1) == 0))
    assert np.min(placed) >= 55 and np.max(placed) <= 457  # the room is 56 to 456
    for first, last in (np.transpose(placed)[:2], np.transpose(placed)[2:]):
        assert first.min() < 60 and last.max() > 450  # on both axes up to both sides


def test_a_part_of_a_raw_mask_has_whole_components_where_it_can():
    raw = streaks(8, pieces=12)
    components = label(raw, connectivity=2)
    kinds = set()
    for seed in range(30):
        side = (100, 260)[seed % 2]
        part = random_part(raw, side, np.random.default_rng(seed))
        first, last, left, right = bounds(part)
        assert max(last - first, right - left) <= side and (part <= raw).all() and part.any()
        whole = (part == np.isin(components, components[part])).all()
        kinds.add(whole)
        if not whole:  # only where the square has no whole component is one cut
            assert not any(
                (components == i).sum() == (components[part] == i).sum() for i in np.unique(components[part])
            )
    assert kinds == {True, False}


def drawing(index):
    """A source of chance that draws hole pixel `index`."""
    return SimpleNamespace(integers=lambda number: index)


@pytest.mark.parametrize(
    ("pixel", "rows", "columns"),
    [
        ((30, 25), (25, 35), (20, 30)),
        ((3, 20), (0, 8), (15, 25)),
        ((60, 45), (55, 63), (40, 47)),
        ((20, 2), (15, 25), (0, 7)),
    ],
)
def test_a_part_of_a_single_blot_is_the_square_around_a_pixel(pixel, rows, columns):
    part = random_part(np.ones((64, 48), bool), 10, drawing(pixel[0] * 48 + pixel[1]))
    (first, last), (left, right) = rows, columns
    assert (part == box(first, last + 1, left, right + 1, (64, 48))).all()


def test_a_part_leaves_out_what_the_square_would_cut():
    hole = draw(
        "##########",
        "..........",
        "#...#.....",
        "...#......",
        ".......###",
    )
    whole = draw(
        "..........",
        "..........",
        "....#.....",
        "...#......",
        "..........",
    )
    assert (random_part(hole, 6, drawing(11)) == whole).all()  # around (2, 4): to columns 1 and 7
    assert not random_part(np.zeros((5, 5), bool), 6, drawing(0)).any()


def composed(seeds, target, config=PRESETS["nvidia"], pieces=6):
    """Masks of streaks that `compose` could make, with what it says of them."""
    for seed in seeds:
        rng = np.random.default_rng(seed)
        made = compose(lambda layer, rng=rng: streaks(int(rng.integers(50)), pieces=pieces), target, config, rng)
        if made:
            yield made


@pytest.mark.parametrize(("ratio", "border"), [(0.05, 50), (0.3, 50), (0.59, 50), (0.05, 0), (0.59, 0)])
def test_a_composed_mask_has_the_ratio_and_the_border(ratio, border):
    area = round(ratio * 512 * 512)
    hole, made = next(composed(range(20), Target(area, 512, border, layers=40, min_zoom=0.6)))
    assert hole.sum() == area and border_distance(hole) >= border
    assert 9 <= float(made["dilation"]) <= 49 and 1 <= len(made["layers"]) <= 40


def test_a_composed_mask_is_its_raw_mask_dilated_by_what_it_says():
    raw = streaks(6)
    for seed in range(10):
        made = compose(lambda layer: raw, Target(50_000), STILL, np.random.default_rng(seed))
        if made:
            hole, dilation = made[0], float(made[1]["dilation"])
            distance = ndimage.distance_transform_cdt(~raw, "chessboard")
            assert (distance[hole] <= dilation / 2).all() and hole[distance <= dilation / 2 - 1].all()
            return
    pytest.fail("no draw succeeded")


def test_half_the_size_gives_half_the_brush_in_px():
    hole, made = next(composed(range(20), Target(round(0.2 * 256 * 256), 256, layers=40)))
    large, made_large = next(composed(range(20), Target(round(0.2 * 512 * 512), 512, layers=40)))
    assert hole.shape == (256, 256) and float(made["dilation"]) == pytest.approx(float(made_large["dilation"]), abs=4)
    assert (hole == large[::2, ::2]).mean() > 0.95


def test_a_hole_that_fills_nearly_all_its_room_keeps_islands():
    area = round(0.58 * 512 * 512)  # 0.9 of the room inside the border
    holes = [hole for hole, _ in composed(range(8), Target(area, 512, 50, layers=40, min_zoom=0.6))]
    # Valid pixels 40 px or more inside the border line. Without islands their median share is 0.003, with them 0.02.
    assert np.median([1 - hole[90:422, 90:422].mean() for hole in holes]) > 0.01


@pytest.mark.parametrize("border", [0, 50])
@pytest.mark.parametrize(("share", "keeps"), [(0.69, False), (0.71, True)])
def test_islands_are_kept_from_70_percent_of_the_allowed_pixels_on(monkeypatch, border, share, keeps):
    calls = []
    monkeypatch.setattr(composition, "_islands", lambda *arguments: calls.append(arguments))
    target = Target(round(share * (512 - 2 * border) ** 2), 512, border)
    compose(lambda layer: streaks(1), target, PRESETS["nvidia"], np.random.default_rng(0))
    assert bool(calls) == keeps


def test_a_raw_mask_that_is_too_large_is_not_dilated_to_a_smaller_hole():
    raw = box(100, 300, 100, 300)
    assert compose(lambda layer: raw, Target(39_999), STILL, np.random.default_rng(0)) is None
    assert (
        compose(lambda layer: raw, Target(208**2 - 1), STILL, np.random.default_rng(0)) is None
    )  # below 9 px of brush
    assert compose(lambda layer: raw, Target(220**2), STILL, np.random.default_rng(0))[0].sum() == 220**2


def test_a_raw_mask_that_is_cut_can_be_dilated_up_to_the_border_line_and_never_beyond():
    full, target = np.ones((512, 512), bool), Target(round(0.95 * 412**2), 512, 50)
    made = [compose(lambda layer: full, target, PRESETS["nvidia"], np.random.default_rng(seed)) for seed in range(15)]
    holes = [mask[0] for mask in made if mask]
    assert len(holes) > 7  # cut so far inside that a brush fits, most masks succeed
    assert all(border_distance(hole) >= 50 and hole.sum() == target.area for hole in holes)


def test_the_margin_is_that_of_a_rotated_brush():
    target, rng = Target(1, 512, 50), np.random.default_rng(0)
    assert composition._margins(10, 45, 1, target, PRESETS["nvidia"], rng) == pytest.approx(50 + 10 * 2**0.5 + 1)
    assert composition._margins(10, -90, 1, target, PRESETS["nvidia"], rng) == pytest.approx(50 + 10 + 1)
    assert composition._margins(10, 45, 1, target, AugmentConfig(shape="disc"), rng) == pytest.approx(50 + 10 + 1)
    spare = [composition._margins(10, 0, 0.5, target, PRESETS["nvidia"], rng) - 61 for _ in range(50)]
    assert 0 <= np.min(spare) < 5 and 45 < np.max(spare) <= 50 and np.shape(spare) == (50, 4)


def test_a_raw_mask_that_is_too_large_is_left_out_unless_it_is_the_first():
    large, small = box(0, 400, 0, 400), box(200, 300, 200, 300)
    for first, second, expected in ((large, small, None), (small, large, [0, 2])):
        raws = [first, second, box(300, 320, 200, 300)]
        target = Target(160 * 140, layers=3)  # the small one and the third, dilated by 20 px to each side
        made = [
            compose(lambda layer, raws=raws: raws[layer], target, STILL, np.random.default_rng(s)) for s in range(20)
        ]
        layers = [[layer for layer, _ in mask[1]["layers"]] for mask in made if mask]
        assert (layers == []) if expected is None else (layers and all(1 not in one for one in layers))


def test_another_raw_mask_is_joined_where_the_brush_that_was_drawn_is_too_small():
    corners = np.zeros((512, 512), bool)
    corners[np.ix_([60, 450], [60, 450])] = True
    raws = [corners, np.roll(corners, (60, 60), (0, 1))]
    target = Target(4 * 41**2, layers=2)  # a brush of 41 px makes it of the first one alone
    joined = 0
    for seed in range(30):
        hole, made = compose(lambda layer: raws[layer], target, STILL, np.random.default_rng(seed))
        joined += len(made["layers"]) == 2
        assert hole.sum() == target.area
    assert 20 <= joined < 30  # brushes are drawn from 9 to 49 px, so about 80 % of them are smaller


def test_the_brush_has_an_upper_end():
    raw = box(255, 257, 255, 257)  # a brush of 49 px makes it 50 px wide
    for area, succeeds in ((48**2, True), (52**2, False)):
        made = [compose(lambda layer: raw, Target(area), STILL, np.random.default_rng(seed)) for seed in range(20)]
        assert any(mask is not None for mask in made) == succeeds


class Chance:
    """A source of chance that always gives the upper end, and remembers the ranges that it was asked for."""

    def __init__(self, integer=0):
        self.ranges, self.integer = [], integer

    def uniform(self, low, high, size=None):
        self.ranges.append((low, high))
        return high if size is None else np.full(size, high)

    def integers(self, number):
        assert number == 2  # half of all masks
        return self.integer


@pytest.mark.parametrize(
    ("size", "border", "share", "expected"),  # a brush of 9 to 49 px has 4.5 to 24.5 px to each side
    [
        (512, 0, 0.3, (4.5 + 0.15 * 20, 24.5)),
        (512, 0, 0.6, (4.5 + 0.3 * 20, 24.5)),
        (256, 0, 0.3, (2.25 + 0.15 * 10, 12.25)),
        (512, 50, 0.3, (4.5 + 0.15 * 10, 14.5)),  # the smaller half of the brushes, to end before the border line
        (512, 50, 1.2, (4.5 + 0.5 * 10, 14.5)),  # more than the room: the upper half of them at most
    ],
)
def test_larger_holes_get_larger_brushes(size, border, share, expected):
    chance, target = Chance(), Target(round(share * (size - 2 * border) ** 2), size, border)
    assert compose(lambda layer: dot(), target, replace(STILL, rotate=1), chance) is None  # a dot does not suffice
    assert chance.ranges[0] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("size", "border"), [(512, 50), (256, 25)])
@pytest.mark.parametrize("shrinks", [True, False])
def test_every_second_raw_mask_is_shrunk_to_fit_inside_the_border_and_the_others_are_cut(
    monkeypatch, size, border, shrinks
):
    asked, raw = [], dot()

    def levels(*given):
        asked.append(given)
        return np.full((size, size), UNREACHED, np.uint8)

    fitted, random = replace(IN_PLACE, angle=90), replace(IN_PLACE, angle=45)
    monkeypatch.setattr(composition, "distance_levels", levels)
    monkeypatch.setattr(composition, "fitted_placement", lambda *given: asked.append(given) or fitted)
    monkeypatch.setattr(composition, "random_placement", lambda *given: asked.append(given) or random)
    unit, chance = size / 512, Chance(int(shrinks))
    target = Target(round(0.2 * (size - 2 * border) ** 2), size, border, min_zoom=0.7)
    assert compose(lambda layer: raw, target, STILL, chance) is None
    placing, [hole, placement, *how, margins] = asked
    if shrinks:
        assert placing[0] is raw and placement is fitted  # 512 px less the border and 14.5 px of dilation on each side
        assert placing[1:] == (pytest.approx(512 - 2 * 50 - 2 * 14.5), 0.7, STILL, chance)
    else:
        assert placing == ((512, 512), STILL, chance) and placement is random
    assert hole is raw and how == [size, "square", 14.5 * unit]
    corner = 1 if shrinks else 2**0.5  # half of a square brush, turned by 90 or 45 degrees
    spare = 100 * (1 - 0.2)  # px of a 512 px mask, the upper end
    assert margins == pytest.approx(border + 14.5 * unit * corner + 1 + spare * unit, abs=0.01)


@pytest.mark.parametrize(("top", "left"), [(50, 50), (50, 412), (412, 50), (412, 412)])
def test_only_pixels_inside_the_border_count_for_the_dilation(monkeypatch, top, left):
    # A square of 50 px in a corner of the room: dilated by 10 px it has 60 x 60 px in the room, and 70 x 70 in all.
    hole = box(top, top + 50, left, left + 50)
    levels = distance_levels(hole, IN_PLACE, 512, "square", 30)
    monkeypatch.setattr(composition, "distance_levels", lambda *given: levels)
    made, how = compose(lambda layer: hole, Target(60 * 60, 512, 50), STILL, Chance())
    assert how["dilation"] == "20.0" and border_distance(made) == 50 and made.sum() == 60 * 60


def ring_of(level, size=512):
    """Levels of a hole of 10 x 10 px, with all other pixels at one level: twice the radius that is needed for more."""
    levels = np.full((size, size), level, np.uint8)
    levels[:10, :10] = 0
    return levels


@pytest.mark.parametrize(
    ("size", "level", "succeeds"),
    [(512, 8, False), (512, 9, True), (512, 49, True), (512, 50, False), (256, 24, True), (256, 25, False)],
)
def test_brushes_are_9_to_49_px_of_a_512_px_mask(monkeypatch, size, level, succeeds):
    monkeypatch.setattr(composition, "distance_levels", lambda *given: ring_of(level, size))
    made = compose(lambda layer: dot(), Target(101, size, layers=2), STILL, Chance())
    assert (made is not None) == succeeds
    if made:  # one raw mask suffices
        assert made[1]["dilation"] == f"{level / (size / 512):.1f}" and [layer for layer, _ in made[1]["layers"]] == [0]


@pytest.mark.parametrize(("level", "spare", "succeeds"), [(0, 9, 0), (1, 1001, 1), (29, 1001, 1), (30, 1001, 0)])
def test_islands_are_dilated_by_up_to_a_brush_of_29_px(monkeypatch, level, spare, succeeds):
    monkeypatch.setattr(composition, "distance_levels", lambda *given: ring_of(level))
    target = Target(512**2 - round(spare / 0.35))
    islands = composition._islands(lambda layer: dot(), target, STILL, Chance())
    assert (islands is not None) == bool(succeeds)


@pytest.fixture
def compose_from_many(monkeypatch):
    """Calls `compose_from_many`, and returns what it hands to `compose` and the sizes of the parts that it takes."""
    asked = SimpleNamespace()

    def compose(draw, target, config, rng):
        asked.raws, asked.target, asked.config, asked.chance = [draw(k) for k in (0, 1, 2)], target, config, rng
        return "made"

    def part(hole, side, rng):
        asked.sides.append(side)
        assert hole is asked.raw and rng is asked.rng
        return "part"

    monkeypatch.setattr(composition, "compose", compose)
    monkeypatch.setattr(composition, "random_part", part)

    def call(raw, target, config, seed, *, parts):
        asked.sides, asked.raw, asked.rng, asked.layers = [], raw, np.random.default_rng(seed), []
        made = composition.compose_from_many(
            lambda layer: asked.layers.append(layer) or raw, target, config, asked.rng, parts=parts
        )
        assert made == "made" and asked.layers == [0, 1, 2] and asked.chance is asked.rng
        return asked

    return call


def test_many_raw_masks_are_shifted_further_and_enlarged_more(compose_from_many):
    target, config, raw = Target(40_000, 512, 50, 4, 0.6), AugmentConfig(zoom=(0.5, 1.5), rotate=9), dot()
    asked = compose_from_many(raw, target, config, 0, parts=False)
    assert asked.target == replace(target, layers=32) and not asked.sides
    assert asked.config == replace(config, shift=0.5, zoom=(0.5, 3.0)) and all(one is raw for one in asked.raws)


@pytest.mark.parametrize(("size", "middle"), [(512, 100), (256, 200)])
def test_parts_are_half_to_one_and_a_half_times_as_wide_as_the_target(compose_from_many, size, middle):
    # A square of 40,000 px is 200 px wide; a raw mask of 256 px is enlarged twice for a mask of 512 px.
    target, config, sides = Target(40_000, size, layers=4), AugmentConfig(zoom=(0.5, 1.5)), []
    for seed in range(100):
        asked = compose_from_many(dot(256, (9, 9)), target, config, seed, parts=True)
        assert asked.raws == ["part"] * 3 and len(set(asked.sides)) == 1
        assert asked.target == replace(target, layers=32) and asked.config == replace(config, shift=0.5)
        sides.append(asked.sides[0])
    assert 0.5 * middle <= min(sides) < 0.55 * middle and 1.45 * middle < max(sides) <= 1.5 * middle
    for seed in range(9):
        assert set(compose_from_many(dot(256, (9, 9)), Target(1), config, seed, parts=True).sides) == {1}  # at least


@pytest.mark.parametrize("border", [0, 50])
def test_holes_may_lie_inside_the_border(border):
    assert (composition._allowed(Target(1, 512, border)) == box(border, 512 - border, border, 512 - border)).all()


@pytest.mark.parametrize("border", [0, 50])
def test_islands_are_5_to_35_percent_of_the_pixels_that_stay_valid(border):
    target, layers = Target(round(0.8 * (512 - 2 * border) ** 2), 512, border, layers=7), []
    spare = (512 - 2 * border) ** 2 - target.area
    shares = []
    for seed in range(60):
        raw = streaks(seed, pieces=2)
        rng = np.random.default_rng(seed)
        islands = composition._islands(lambda layer, raw=raw: layers.append(layer) or raw, target, STILL, rng)
        if islands is not None:
            assert border_distance(islands) >= border and islands.dtype == bool
            shares.append(islands.sum() / spare)
    assert set(layers) == {7} and len(shares) > 30  # a layer of their own
    assert 0.05 <= min(shares) < 0.1 and 0.3 < max(shares) <= 0.35


def test_islands_are_raw_masks_dilated_by_half_of_the_widest_brush_at_most():
    # A brush of (9 + 49) / 2 = 29 px makes a dot 29 px wide at most: 841 px.
    for area, possible in ((800, True), (870, False)):
        target, drawn = Target(512**2 - area * 5, layers=1), []
        # A fifth of the pixels that stay valid, and nothing moved.
        rng = SimpleNamespace(uniform=lambda low, high: 0.2 if (low, high) == (0.05, 0.35) else (low + high) / 2)
        islands = composition._islands(lambda layer, drawn=drawn: drawn.append(layer) or dot(), target, STILL, rng)
        assert (islands is not None) == possible and len(drawn) == (1 if possible else 8)  # after 8 raw masks: none
        assert not possible or islands.sum() == area


def test_islands_are_dilated_from_raw_masks_that_are_not_too_large():
    rng, target = np.random.default_rng(0), Target(512**2 - 1000)
    assert composition._islands(lambda layer: box(0, 400, 0, 400), target, STILL, rng) is None
