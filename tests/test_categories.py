import numpy as np
import pytest
from skimage.measure import label
from skimage.morphology import erosion

from maskgen.categories import (
    CATEGORIES,
    border_distance,
    category,
    category_names,
    clipped_share,
    interval_of,
    measure,
    outline,
)
from tests.rawmasks import draw, streaks


def test_a_ratio_on_the_edge_goes_to_the_lower_interval():
    assert interval_of(draw("##..", "##..").mean()) == 4  # exactly 0.5, so (0.4, 0.5]


@pytest.mark.parametrize(
    ("ratio", "name"),
    [
        (0.01, ""),
        (0.010001, "free_0.01-0.1"),
        (0.1, "free_0.01-0.1"),
        (0.100001, "free_0.1-0.2"),
        (0.6, "free_0.5-0.6"),
        (0.6001, ""),
    ],
)
def test_intervals_contain_their_upper_edge_alone(ratio, name):
    assert category(ratio, 0) == name


def test_a_hole_pixel_on_the_edge_has_border_distance_zero():
    assert border_distance(draw("#...", "....", "....")) == 0
    assert border_distance(draw("....", "....", "...#")) == 0


@pytest.mark.parametrize("turns", range(4))
def test_the_border_distance_is_that_of_the_nearest_edge_on_any_side(turns):
    hole = draw("........", "........", "...#....", "........", "........", "........", "........")
    assert border_distance(np.rot90(hole, turns)) == 2


def test_the_border_distance_is_that_of_the_nearest_hole_pixel():
    assert border_distance(draw("......", "......", "..##..", "......", "......")) == 2
    assert border_distance(draw("......", ".#....", "...#..", "......", "......")) == 1


def test_a_mask_without_a_hole_has_no_components_and_the_largest_distance():
    size = measure(np.zeros((30, 40), bool))
    assert (size.hole_ratio, size.border_distance, size.components) == (0, 30, 0)


def test_components_are_those_of_scikit_image():
    hole = streaks(3, 64)
    assert measure(hole).components == label(hole, connectivity=2).max() and measure(hole).hole_ratio == hole.mean()


def test_an_interior_mask_keeps_fifty_pixels_from_the_border():
    assert category(0.15, 50) == "interior_0.1-0.2"
    assert category(0.15, 49) == "free_0.1-0.2"
    assert category(0.15, 20, border=20) == "interior_0.1-0.2"
    assert category(0.3, 49, edges=(0.2, 0.25, 0.9)) == "free_0.25-0.9"


def test_there_are_twelve_classes_in_the_order_of_the_paper():
    assert len(CATEGORIES) == 12 and CATEGORIES[0] == "interior_0.01-0.1" and CATEGORIES[-1] == "free_0.5-0.6"
    assert CATEGORIES[5:7] == ("interior_0.5-0.6", "free_0.01-0.1")
    assert category_names((0.1, 0.25, 1)) == ["interior_0.1-0.25", "interior_0.25-1", "free_0.1-0.25", "free_0.25-1"]


def test_corners_that_touch_are_one_component():
    assert measure(draw("#..", ".#.", "...")).components == 1
    assert measure(draw("#..", "...", "..#")).components == 2


def test_an_outline_is_the_hole_beside_valid_pixels():
    hole = draw(".....", ".###.", ".###.", ".###.", ".....")
    assert (outline(hole) == draw(".....", ".###.", ".#.#.", ".###.", ".....")).all()
    assert not outline(np.ones((4, 4), bool)).any()  # nothing beyond the image edge is valid
    hole = streaks(1, 64)
    cross = draw(".#.", "###", ".#.")
    assert (outline(hole) == (hole & ~erosion(hole, cross, mode="max"))).all()


def square(top, bottom, left, right):
    hole = np.zeros((512, 512), bool)
    hole[top:bottom, left:right] = True
    return hole


def test_a_square_on_the_border_line_is_all_clipped():
    # Four sides of 412 px, and the outline counts their corners once.
    assert clipped_share(square(50, 462, 50, 462)) == pytest.approx(4 * 412 / (4 * 412 - 4))


@pytest.mark.parametrize(
    ("inset", "clipped"),
    [(0, True), (15, True), (16, False), (-1, False)],
)
def test_an_outline_is_clipped_less_than_16_px_inside_the_border_line(inset, clipped):
    hole = square(50 + inset, 300, 200, 260)  # the other sides are far from the line
    assert clipped_share(hole) == (60 / (2 * (250 - inset + 60) - 4) if clipped else 0)


@pytest.mark.parametrize(("length", "clipped"), [(15, False), (16, True)])
def test_runs_count_from_16_px_on(length, clipped):
    hole = square(50, 300, 200, 200 + length)
    assert clipped_share(hole) == (length / (2 * (250 + length) - 4) if clipped else 0)


@pytest.mark.parametrize("turns", range(4))
def test_a_clipped_side_counts_on_any_side_of_the_mask(turns):
    assert clipped_share(np.rot90(square(50, 300, 200, 260), turns)) == 60 / (2 * (250 + 60) - 4)


def test_a_diamond_is_not_clipped_and_one_straight_side_is():
    y, x = np.mgrid[:512, :512]
    diamond = abs(y - 256) + abs(x - 256) <= 200
    assert clipped_share(diamond) == 0
    cut = diamond | ((y >= 60) & (y < 64) & (abs(x - 256) < 20))
    assert 0 < clipped_share(cut) < 0.1


def test_a_mask_without_a_hole_is_not_clipped():
    assert clipped_share(np.zeros((512, 512), bool)) == 0
