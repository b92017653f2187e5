from maskgen.categories import CATEGORIES, border_distance, category, interval_of, measure
from tests.rawmasks import draw


def test_a_ratio_on_the_edge_goes_to_the_lower_interval():
    assert interval_of(draw("##..", "##..").mean()) == 4  # exactly 0.5, so (0.4, 0.5]


def test_a_hole_pixel_on_the_edge_has_border_distance_zero():
    assert border_distance(draw("#...", "....", "....")) == 0
    assert border_distance(draw("....", "....", "...#")) == 0


def test_the_border_distance_is_that_of_the_nearest_hole_pixel():
    assert border_distance(draw("......", "......", "..##..", "......", "......")) == 2
    assert border_distance(draw("......", ".#....", "...#..", "......", "......")) == 1


def test_an_interior_mask_keeps_fifty_pixels_from_the_border():
    assert category(0.15, 50) == "interior_0.1-0.2"
    assert category(0.15, 49) == "free_0.1-0.2"


def test_ratios_outside_the_paper_have_no_category():
    assert category(0.01, 60) == "" and category(0.6001, 60) == ""


def test_there_are_twelve_classes_in_the_order_of_the_paper():
    assert len(CATEGORIES) == 12 and CATEGORIES[0] == "interior_0.01-0.1" and CATEGORIES[-1] == "free_0.5-0.6"


def test_corners_that_touch_are_one_component():
    assert measure(draw("#..", ".#.", "...")).components == 1
    assert measure(draw("#..", "...", "..#")).components == 2
