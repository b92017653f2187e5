import cv2
import numpy as np
import pytest

from maskgen.extraction import large_motion, mending
from maskgen.extraction.flow import both
from maskgen.extraction.occlusion import occlusion

SIDE = 384  # px; cells of 6 px, so matches reach 72 px


def texture(height, width, seed):
    """Random colours with fine and coarse structure, as in photos. uint8 (H, W, 3)."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3)).astype(np.float32)
    layers = [cv2.GaussianBlur(noise, (0, 0), sigma) for sigma in (1.5, 6, 15)]
    return np.clip(128 + 30 * sum(layer / layer.std() for layer in layers), 0, 255).astype(np.uint8)


def disc(x, y, radius=40):
    """Which pixels a disc covers, bool (SIDE, SIDE)."""
    rows, columns = np.indices((SIDE, SIDE))
    return np.hypot(columns - x, rows - y) < radius


def fast_disc(pan=0):
    """Two frames: a textured disc moves from (150, 160) by (60, 20) px, over a texture that moves by (pan, 0) px."""
    ground, piece = texture(SIDE, SIDE + 100, seed=1), texture(SIDE, SIDE + 100, seed=2)
    first, second = ground[:, 50 : 50 + SIDE].copy(), ground[:, 50 - pan : 50 - pan + SIDE].copy()
    first[disc(150, 160)] = piece[:, :SIDE][disc(150, 160)]
    second[disc(210, 180)] = np.roll(piece[:, :SIDE], (20, 60), (0, 1))[disc(210, 180)]
    return first, second


def test_the_motion_of_a_disc_that_moves_by_most_of_its_size_is_found():
    forward, backward = both("dis", *fast_disc())
    inner, inner_later = disc(150, 160, 30), disc(210, 180, 30)
    assert np.median(forward[inner], axis=0) == pytest.approx((60, 20), abs=0.3)
    assert np.median(backward[inner_later], axis=0) == pytest.approx((-60, -20), abs=0.3)
    assert np.median(forward[~disc(180, 170, 120)], axis=0) == pytest.approx((0, 0), abs=0.1)


def test_without_the_second_search_that_motion_is_lost(monkeypatch):
    monkeypatch.setattr(mending, "search_again", lambda frames, flows: flows)
    forward, _ = both("dis", *fast_disc())
    assert np.hypot(*(np.median(forward[disc(150, 160, 30)], axis=0) - (60, 20))) > 10


def test_the_hole_of_two_moving_layers_is_what_the_disc_covers_and_what_leaves():
    hole = occlusion(*both("dis", *fast_disc(pan=-16)))
    truth = disc(210 + 16, 180) & ~disc(150, 160)  # the ground that will be behind the disc
    truth[:, :16] = True  # the columns that leave
    assert 2 * np.count_nonzero(hole & truth) / (np.count_nonzero(hole) + np.count_nonzero(truth)) > 0.9


def test_swapping_the_frames_swaps_the_flows():
    first, second = fast_disc()
    for there, back in zip(both("dis", first, second), both("dis", second, first)[::-1], strict=True):
        assert np.array_equal(there, back)


def test_the_flow_of_fast_motion_has_the_same_bytes_for_any_number_of_threads():
    before, found = cv2.getNumThreads(), set()
    try:
        for threads in (1, 2, 5, 5):
            cv2.setNumThreads(threads)
            found.add(np.stack(both("dis", *fast_disc())).tobytes())
    finally:
        cv2.setNumThreads(before)
    assert len(found) == 1


def test_slow_motion_is_not_searched_again(monkeypatch):
    monkeypatch.setattr(large_motion, "_matches", lambda *cells: pytest.fail("searched again"))
    first = texture(SIDE, SIDE, seed=1)
    second = first.copy()
    first[disc(150, 160)] = second[disc(156, 160)] = 90
    both("dis", first, second)


def test_frames_without_anything_in_common_are_not_searched_again(monkeypatch):
    monkeypatch.setattr(large_motion, "_matches", lambda *cells: pytest.fail("searched again"))
    both("dis", texture(SIDE, SIDE, seed=1), texture(SIDE, SIDE, seed=2))


def test_each_cell_is_matched_with_the_most_similar_one_within_reach_and_inside_the_frame():
    noise = np.random.default_rng(0).integers(0, 256, (40, 60)).astype(np.float32)
    moved = np.roll(noise, (-5, 12), (0, 1))
    (match, difference), (back, difference_back) = large_motion._matches(noise, moved)
    inner, inner_later = np.s_[7:-2, 2:-14], np.s_[2:-7, 14:-2]  # away from what leaves and enters the frame
    assert (match[inner] == (12, -5)).all() and not difference[inner].any()
    assert (back[inner_later] == (-12, 5)).all() and not difference_back[inner_later].any()
    assert (np.arange(60) + match[..., 0] >= 0).all() and (np.arange(60) + match[..., 0] <= 59).all()
    (beyond, _), _ = large_motion._matches(noise, np.roll(noise, 13, 1))
    assert not (beyond == (13, 0)).all(-1).any()


def test_the_difference_of_a_match_is_the_mean_over_nine_cells():
    first, second = np.full((2, 20, 20), 7, np.float32)
    first[10, 10] = 25  # by 18 above the others, so the mean of nine differs by 2
    (match, difference), _ = large_motion._matches(first, second)
    assert difference[10, 10] == 2 and not match[10, 10].any()


def test_of_equally_similar_cells_the_nearest_one_counts():
    for match, difference in large_motion._matches(*[np.full((20, 20), 7, np.float32)] * 2):
        assert not match.any() and not difference.any()


def test_frames_of_fewer_cells_than_a_match_reaches_are_matched():
    for match, difference in large_motion._matches(*[np.full((1, 5), 7, np.float32)] * 2):
        assert match.shape == (1, 5, 2) and not difference.any()


def two_motions():
    """A turn by 5 degrees, and a shift of the disc by (20, 4) px. Two flows, float32 (SIDE, SIDE, 2)."""
    rows, columns = np.indices((SIDE, SIDE), np.float32)
    turn = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), 5, 1)
    there, back = (
        cv2.merge([xx * columns + xy * rows + dx - columns, yx * columns + yy * rows + dy - rows]).astype(np.float32)
        for (xx, xy, dx), (yx, yy, dy) in (turn, cv2.invertAffineTransform(turn))
    )
    there[disc(150, 160)], back[disc(170, 164)] = (20, 4), (-20, -4)
    return there, back, turn


def test_the_affine_motions_of_a_flow_are_found_largest_first():
    there, back, turn = two_motions()
    motions = large_motion._affine_motions(there, back)
    assert motions[0] == pytest.approx(turn, abs=1e-2)
    assert motions[1] == pytest.approx(np.array([[1, 0, 20], [0, 1, 4]]), abs=1e-2)


def test_flows_that_contradict_each_other_have_no_common_motion():
    flow = np.random.default_rng(0).uniform(-40, 40, (SIDE, SIDE, 2)).astype(np.float32)
    assert large_motion._affine_motions(flow, flow) == []


def test_a_pixel_takes_the_common_motion_that_explains_its_grey_level(monkeypatch):
    first = np.random.default_rng(0).integers(0, 256, (64, 96), np.uint8)
    second = np.roll(first, 8, 1)
    shift = np.float64([[1, 0, 8], [0, 1, 0]])
    monkeypatch.setattr(large_motion, "_affine_motions", lambda flow, back: [shift])
    flow = large_motion._best_motions(first, second, *np.zeros((2, 64, 96, 2), np.float32))
    assert (flow[:, :86] == (8, 0)).all()
    assert not flow[:, -8:].any()  # what would leave the frame keeps its own flow


@pytest.mark.parametrize(("shape", "cells"), [((256, 256), (64, 64)), ((100, 128), (50, 64)), ((218, 512), (72, 170))])
def test_frames_of_any_shape_have_about_64_cells_along_the_short_side(shape, cells):
    assert large_motion._cells(np.zeros(shape, np.uint8)).shape == cells
