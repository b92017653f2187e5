"""The parts of filling at several scales and in tiles, by pencil."""

import cv2
import numpy as np
import pytest

from pconv_model import multiscale
from pconv_model.tiles import tile_weights


def test_the_weight_of_the_smaller_image_rises_from_4_to_20_px_inside_the_hole():
    hole = np.zeros((100, 100), bool)
    hole[:, 10:90] = True  # column 10 is 1 px from known pixels
    weights = multiscale.depth_weight(hole)[50]
    assert weights[[9, 10, 13, 21, 29, 50]] == pytest.approx([0, 0, 0, 0.5, 1, 1], abs=0.01)
    assert not multiscale.depth_weight(np.ones((9, 9), bool)).any()


def test_a_halved_image_is_the_mean_of_known_pixels():
    image = np.uint8([[10, 20, 99, 99], [30, 99, 99, 99]])[..., None].repeat(3, 2)
    hole = np.array([[False, False, True, True], [False, True, True, True]])
    small, small_hole = multiscale.halve(image, hole)
    assert small_hole.tolist() == [[False, True]] and small[0, 0].tolist() == [20, 20, 20]


def test_the_window_of_a_hole_is_its_bounding_box_with_a_margin_of_one_pixel():
    hole = np.zeros((10, 12), bool)
    hole[3:5, 7:12] = True
    assert multiscale.hole_window(hole) == (slice(2, 6), slice(6, 13))


def test_a_window_of_an_enlarged_image_is_that_of_opencv_resize():
    coarse = np.random.default_rng(0).random((12, 9, 3)).astype(np.float32)
    window = slice(3, 20), slice(0, 17)
    expected = cv2.resize(coarse, (18, 25), interpolation=cv2.INTER_LINEAR)[window]
    np.testing.assert_allclose(multiscale.enlarge(coarse, (25, 18), window), expected, atol=1e-4)


def merged(fine, coarse, hole, blind=0.0, depth=0.0):
    """The result of `merge` for images of one value per column and weights that are the same everywhere."""
    fine, coarse = (np.tile(np.float32(x)[None, :, None], (64, 1, 3)) for x in (fine, coarse))
    multiscale.merge(fine, coarse, hole, *(np.full(hole.shape, w, np.float32) for w in (blind, depth)))
    return fine


def test_merging_takes_coarse_pixels_without_known_ones_in_reach_and_low_frequencies_by_depth():
    x, hole = np.arange(256), np.zeros((64, 256), bool)
    hole[10:50, 40:200] = True
    fine, coarse = np.full(256, 0.25), np.full(256, 0.75)
    assert (merged(fine, coarse, hole) == 0.25).all()
    assert (merged(fine, coarse, hole, blind=1, depth=1) == 0.75).all()
    assert merged(fine, coarse, hole, depth=1)[hole] == pytest.approx(0.75)
    assert merged(fine, coarse, hole, blind=0.5, depth=0.5)[hole] == pytest.approx(0.75 - 0.5 * 0.5 * 0.5)
    # exp(-2 (pi 4 / period)^2) of a wave is taken from the coarse result
    for period, kept in ((8, 0.99), (128, 0.02)):  # px
        wave = 0.1 * np.sin(2 * np.pi * x / period)
        result = merged(wave, np.zeros(256), hole, depth=1)[32, 80:160, 0]
        assert np.abs(result).max() == pytest.approx(0.1 * kept, abs=0.002)


@pytest.mark.parametrize(
    ("length", "tile", "starts"), [(1000, 512, [0, 244, 488]), (40, 16, [0, 12, 24]), (9, 16, [0])]
)
def test_tiles_cover_the_side_and_overlap_by_a_quarter_or_128_px(length, tile, starts):
    assert [start for start, _ in tile_weights(length, tile)] == starts


def test_weights_of_two_overlapping_tiles_add_up_to_1():
    total = np.zeros(40)
    for start, weights in tile_weights(40, 16):
        total[start : start + 16] += weights
    assert total == pytest.approx(1)
    assert next(tile_weights(40, 16))[1] == pytest.approx([1] * 12 + [7 / 8, 5 / 8, 3 / 8, 1 / 8])
