import cv2
import numpy as np
import pytest

from maskgen.extraction import mending


def flat(level, height=48, width=64):
    """A frame of one grey level, uint8 (H, W, 3)."""
    return np.full((height, width, 3), level, np.uint8)


def moving(dx, dy, height=48, width=64):
    """The flow of a frame that moves as a whole."""
    return np.full((height, width, 2), (dx, dy), np.float32)


def red_and_blue():
    """A frame with a red and a blue half, uint8 (64, 128, 3)."""
    frame = np.zeros((64, 128, 3), np.uint8)
    frame[:, :64], frame[:, 64:] = (200, 30, 30), (30, 30, 200)
    return frame


def test_wrong_flow_is_replaced_by_that_of_pixels_of_the_same_colour():
    frame = red_and_blue()
    forward = np.zeros((64, 128, 2), np.float32)
    forward[:, 64:, 0] = 2
    right = forward.copy()
    forward[28:36, 56:64, 0] = 2  # the motion of the blue side has spread to the red one
    mended, _ = mending.mend(frame, frame, forward, -right)
    assert np.abs(mended - right)[20:44, 40:60].max() < np.abs(forward - right)[20:44, 40:60].max() / 4


def test_both_flows_are_mended():
    frame = red_and_blue()
    right = np.zeros((64, 128, 2), np.float32)
    right[:, 64:, 0] = 2
    wrong = right.copy()
    wrong[28:36, 56:64, 0] = 2
    _, backward = mending.mend(frame, frame, -right, wrong)
    assert np.abs(backward - right)[20:44, 40:60].max() < np.abs(wrong - right)[20:44, 40:60].max() / 4


def test_wrong_flow_far_from_any_right_one_is_replaced_too():
    frame = np.zeros((128, 256, 3), np.uint8)
    frame[:, :128], frame[:, 128:] = (200, 30, 30), (30, 30, 200)
    forward = np.zeros((128, 256, 2), np.float32)
    forward[:, 128:, 0] = 2
    right = forward.copy()
    forward[40:88, 80:128, 0] = 2  # farther than the 6 px of the last pass
    mended, _ = mending.mend(frame, frame, forward, -right)
    assert np.abs(mended - right)[64, 104].max() < 0.05


def test_the_search_finds_the_same_flow_in_a_dim_copy_of_the_frames(monkeypatch):
    noise = np.random.default_rng(0).normal(size=(128, 160)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    photo = cv2.cvtColor(np.clip(60 + 25 * smooth / smooth.std(), 0, 127).astype(np.uint8), cv2.COLOR_GRAY2RGB)
    pair = photo[16:112, 16:144].copy(), photo[18:114, 12:140].copy()
    monkeypatch.setattr(mending, "mend", lambda first, second, forward, backward: (forward, backward))
    monkeypatch.setattr(mending, "_better_by_colour", lambda frames, halves, mended, original: 2 * mended)
    dim, bright = mending.mended_dis(*pair), mending.mended_dis(*(2 * frame for frame in pair))
    assert np.array_equal(dim, bright)
    assert np.median(dim[0][8:-8, 8:-8], axis=(0, 1)) == pytest.approx((4, -2), abs=0.2)
    assert np.median(dim[1][8:-8, 8:-8], axis=(0, 1)) == pytest.approx((-4, 2), abs=0.2)


def test_the_curve_makes_the_joint_histogram_flat():
    first, second = np.zeros((8, 8), np.uint8), np.full((8, 8), 200, np.uint8)
    curve = mending._equalization_curve(first, second)
    assert (curve[0], curve[200]) == pytest.approx((255 / 4, 255 * 3 / 4))  # the middles of the two halves


def test_neighbours_are_compared_by_colours_half_way_to_a_flat_histogram(monkeypatch):
    frames, filtered = [], mending._filtered
    monkeypatch.setattr(mending, "_filtered", lambda *args: (frames.append(args[0]), filtered(*args))[1])
    mending.mend(flat(0), flat(200), moving(0, 0), moving(0, 0))
    levels = [(frame.min(), frame.max()) for frame in frames]
    assert levels == [(32, 32), (196, 196)] * 3  # (0 + 63.75) / 2 and (200 + 191.25) / 2, in three passes


def test_a_colour_difference_is_that_of_the_worst_channel_averaged_over_3x3_pixels():
    first, second = flat(100), flat(100)
    second[20, 30] = (100, 190, 40)
    difference = mending._colour_difference(first, second, *cv2.split(moving(2, 0)))
    expected = np.zeros((48, 64), np.uint8)
    expected[19:22, 27:30] = 10  # 90 / 9, at the pixels that lead there
    assert np.array_equal(difference, expected)


def test_confidence_follows_its_formula():
    def confidence(first, second, flow, back):
        return mending._confidence(first, second, flow, back)[24, 30]

    grey = flat(100)
    assert confidence(grey, grey, moving(0, 0), moving(0, 0)) == 1
    # |w + v|^2 = 1, |w|^2 + |v|^2 = 5: slope 0.01, and a quarter of the offset 0.5, as px are twice as large
    assert confidence(grey, grey, moving(2, 0), moving(-1, 0)) == pytest.approx(np.exp(-1 / 0.175), rel=1e-5)
    assert confidence(grey, flat(115), moving(0, 0), moving(0, 0)) == pytest.approx(np.exp(-1), rel=1e-5)
    assert confidence(grey, grey, moving(40, 0), moving(-40, 0)) == 0  # leaves the frame


@pytest.mark.parametrize(("dx", "dy"), [(6, 0), (-6, 0), (0, 6), (0, -6)])
def test_a_pixel_takes_over_the_flow_of_a_neighbour_if_it_leads_to_more_similar_grey_levels(dx, dy):
    first = np.random.default_rng(1).integers(0, 256, (48, 64), np.uint8)
    flow = moving(5, 5)
    flow[24 + dy, 32 + dx] = (3, 0)  # right; all others are wrong
    best = mending._best_of_neighbours(first, np.roll(first, 3, axis=1), flow)
    assert best[24, 32].tolist() == best[24 + dy, 32 + dx].tolist() == [3, 0]
    assert best[24 - dy, 32 - dx].tolist() == [5, 5]  # 12 px away


@pytest.mark.parametrize(("difference", "u"), [(3, 5), (4, 1)])
def test_the_flow_of_a_neighbour_has_to_be_better_by_more_than_3_grey_levels(difference, u):
    first, second = np.full((48, 64), 100, np.uint8), np.full((48, 64), 100, np.uint8)
    second[:, 36:] += np.uint8(difference)
    flow = moving(5, 0)
    flow[22:27, 24:29, 0] = 1
    assert mending._best_of_neighbours(first, second, flow)[24, 32, 0] == u  # 37 is brighter, and 33 is not


def test_a_pixel_keeps_its_flow_if_no_neighbour_leads_to_more_similar_grey_levels():
    grey, flow = flat(100)[..., 0], np.random.default_rng(2).normal(0, 2, (48, 64, 2)).astype(np.float32)
    assert np.array_equal(mending._best_of_neighbours(grey, grey, flow), flow)


@pytest.mark.parametrize(
    ("one_pass", "reach", "neighbours"),  # half-size px; points (i, j) with i^2 + j^2 <= rings^2 + 1
    [
        (mending.PASSES[0], 48, 37),
        (mending.PASSES[1], 18, 37),
        (mending.PASSES[2], 6, 21),
    ],
)
def test_a_confident_pixel_spreads_its_flow_as_far_as_documented(one_pass, reach, neighbours):
    side = 160
    flow, confidence = moving(0, 0, side, side), np.zeros((side, side), np.float32)
    place = one_pass.grid // 2 + one_pass.grid * (side // 2 // one_pass.grid)
    flow[place, place], confidence[place, place] = (1, 0), 1
    dx, dy = mending._bilateral_mean(flat(90, side, side), flow, confidence, one_pass)
    rows, columns = np.nonzero(dx)
    assert dx[rows, columns] == pytest.approx(1) and not dy.any() and len(rows) == neighbours
    assert np.ptp(rows) * one_pass.grid == np.ptp(columns) * one_pass.grid == 2 * reach


def test_neighbours_are_weighted_by_confidence_and_colour():
    frame = flat(100, 64, 64)
    frame[:, 33:] = 104  # differs by 4 in R, G and B: 12 together
    flow, confidence = moving(0, 0, 64, 64), np.zeros((64, 64), np.float32)
    one_pass = mending.Pass(grid=1, step=3, rings=2)
    confidence[30, 27], flow[30, 27] = 0.5, (1, 8)
    confidence[30, 33] = 1
    dx, dy = mending._bilateral_mean(frame, flow, confidence, one_pass)
    similar, other = 0.5 * (1 + 1e-3), np.exp(-1) + 1e-3
    assert (dx[30, 30], dy[30, 30]) == pytest.approx((similar / (similar + other), 8 * similar / (similar + other)))


def test_the_less_confident_a_pixel_the_more_it_takes_from_its_neighbours():
    flow, confidence = moving(1, 0), np.ones((48, 64), np.float32)
    flow[24, 32], confidence[24, 32] = (5, 0), 0.25
    filtered = mending._filtered(flat(90), flow, confidence, mending.Pass(grid=1, step=1, rings=2))
    mean = (20 * 1 + 0.25 * 5) / 20.25  # 20 neighbours and the pixel itself
    assert filtered[24, 32, 0] == pytest.approx(0.25 * 5 + 0.75 * mean)
    assert filtered[24, 34, 0] == 1


@pytest.mark.parametrize(("difference", "original_leads", "kept"), [(15, 0, 8), (16, 0, -8), (16, 20, 8)])
def test_a_pixel_keeps_its_original_flow_if_only_that_leads_to_its_colour(difference, original_leads, kept):
    first, second = flat(100), flat(100)
    second[:, 32:], second[:, :32] = 100 + difference, 100 + original_leads
    halves = [frame[::2, ::2] for frame in (first, second)]
    half_size = moving(4, 0)[::2, ::2]
    flow = mending._better_by_colour((first, second), halves, half_size, -half_size)  # mended, original
    assert flow[24, 32].tolist() == [kept, 0]
