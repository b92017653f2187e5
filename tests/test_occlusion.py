from dataclasses import replace

import cv2
import films
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates
from skimage.transform import downscale_local_mean

import maskgen.extraction.occlusion as occlusion_module
from maskgen.extraction.occlusion import holes_of_pair, motion_boundaries, occlusion, remove_specks
from maskgen.settings import ExtractConfig


def draw(*rows):
    """A hole from text: '#' is missing, '.' is kept."""
    return np.array([[c == "#" for c in row] for row in rows])


def flow_statistics(first, second, flow):
    """`FlowStatistics` of one direction. Frames uint8 (H, W, 3), flow float32 (H, W, 2)."""
    halves = [occlusion_module._grey_at_half_size(frame) for frame in (first, second)]
    difference = occlusion_module._difference_without_light(*halves)
    return occlusion_module._flow_statistics(*halves, difference, cv2.split(flow))


def moving(dx, dy, height=40, width=60):
    """The flow of a frame that moves as a whole."""
    return np.full((height, width, 2), (dx, dy), np.float32)


def random_flows():
    """Two smooth random flows of a few pixels."""
    rng = np.random.default_rng(5)
    return [cv2.GaussianBlur(rng.normal(0, 9, (50, 70, 2)).astype(np.float32), (0, 0), 2) for _ in "ab"]


def texture(height, width, seed=0):
    """A smooth random photo, uint8 (H, W, 3)."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return np.clip(128 + 40 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def test_a_pan_by_eight_pixels_hides_exactly_the_eight_columns_that_leave():
    hole = occlusion(moving(8, 0), moving(-8, 0))
    assert hole[:, -8:].all() and not hole[:, :-8].any()
    hole = occlusion(moving(0, -8), moving(0, 8))
    assert hole[:8].all() and not hole[8:].any()


def test_half_a_pixel_of_jitter_hides_no_border():
    assert not occlusion(moving(0.5, -0.5), moving(-0.5, 0.5)).any()
    assert occlusion(moving(0.51, 0), moving(-0.51, 0))[:, -1].all()


def test_a_square_that_moves_right_hides_what_it_moves_over():
    forward, backward = moving(0, 0), moving(0, 0)
    forward[10:30, 10:30] = (5, 0)
    backward[10:30, 15:35] = (-5, 0)
    expected = np.zeros((40, 60), bool)
    expected[10:30, 30:35] = True  # the side that it moves to; what it uncovers was not visible before
    assert np.array_equal(occlusion(forward, backward), expected)
    uncovered = np.zeros((40, 60), bool)
    uncovered[10:30, 10:15] = True
    assert np.array_equal(occlusion(backward, forward), uncovered)


def test_an_error_equal_to_the_bound_is_consistent():
    # |w + v|^2 = 0.25 and offset 0.25, which are exact in binary
    forward, backward = moving(0, 0.5), moving(0, 0)
    assert not occlusion(forward, backward, slope=0, offset=0.25).any()
    assert occlusion(forward, backward, slope=0, offset=0.24).any()


def test_the_check_equals_the_formula_of_the_paper_for_a_random_flow():
    forward, backward = random_flows()
    y, x = np.indices((50, 70))
    to_x, to_y = x + forward[..., 0], y + forward[..., 1]
    v = np.stack([map_coordinates(backward[..., i], (to_y, to_x), order=1, mode="nearest") for i in (0, 1)], axis=-1)
    excess = ((forward + v) ** 2).sum(-1) - 0.01 * ((forward**2).sum(-1) + (v**2).sum(-1)) - 0.5
    leaves = (to_x < -0.5) | (to_x > 69.5) | (to_y < -0.5) | (to_y > 49.5)
    clear = np.abs(excess) > 1e-3  # not decided by rounding
    assert clear.mean() > 0.99 and 0.2 < (excess > 0).mean() < 0.95
    assert np.array_equal(occlusion(forward, backward)[clear], ((excess > 0) | leaves)[clear])


def test_a_step_in_the_flow_is_a_motion_boundary_two_pixels_wide():
    flow = moving(0, 0)
    flow[:, 30:] = (1, 0)
    hole = motion_boundaries(cv2.split(flow))
    assert hole[:, 29:31].all() and not hole[:, :29].any() and not hole[:, 31:].any()


def test_a_fast_object_needs_a_steeper_step():
    # Central difference of a step of 2 px: |grad u|^2 = 1, against 0.01 * |w|^2 + 0.002.
    flow = moving(20, 0)
    flow[:, 30:] = (18, 0)
    assert not motion_boundaries(cv2.split(flow)).any()
    assert motion_boundaries(cv2.split(flow), slope=0.001)[:, 29:31].all()


def test_motion_boundaries_equal_the_formula_of_the_paper_for_a_random_flow():
    flow, _ = random_flows()
    u, v = cv2.split(np.pad(flow, ((1, 1), (1, 1), (0, 0)), mode="edge"))
    squared = [(one[1:-1, 2:] - one[1:-1, :-2]) ** 2 + (one[2:, 1:-1] - one[:-2, 1:-1]) ** 2 for one in (u, v)]
    excess = sum(squared) / 4 - 0.1 * (flow**2).sum(-1) - 0.002
    clear = np.abs(excess) > 1e-4  # not decided by rounding
    assert clear.mean() > 0.99 and 0.2 < (excess > 0).mean() < 0.8
    assert np.array_equal(motion_boundaries(cv2.split(flow), slope=0.1)[clear], (excess > 0)[clear])


def test_a_gradient_equal_to_the_bound_is_no_motion_boundary():
    flow = moving(0, 0)
    flow[:, 30:] = (1, 0)  # |grad u|^2 = 0.25
    assert not motion_boundaries(cv2.split(flow), slope=0, offset=0.25).any()
    assert motion_boundaries(cv2.split(flow), slope=0, offset=0.24).any()


def test_a_large_offset_per_pixel_suppresses_boundaries():
    flow = moving(0, 0)
    flow[:, 30:] = (1, 0)
    offset = np.full((40, 60), 0.002, np.float32)
    offset[:20] = 1
    hole = motion_boundaries(cv2.split(flow), offset=offset)
    assert not hole[:20].any() and hole[20:, 29:31].all()


def test_specks_are_removed_and_larger_components_keep_their_shape():
    hole = draw(
        "#.......",
        ".#...##.",
        "..#..##.",
        "........",
        "###....#",
    )
    expected = draw(
        "........",
        ".....##.",
        ".....##.",
        "........",
        "........",
    )
    assert np.array_equal(remove_specks(hole, 4), expected)
    assert np.array_equal(remove_specks(hole, 1), hole)
    hole[0, 0] = False
    assert remove_specks(hole, 3)[4, :3].all()  # three in a row are three pixels
    assert remove_specks(draw("#..", ".#.", "..#"), 3).sum() == 3  # pixels that touch at corners are one component


def test_an_empty_and_a_full_hole_do_not_change():
    assert not remove_specks(np.zeros((5, 5), bool), 3).any()
    assert remove_specks(np.ones((5, 5), bool), 3).all()


def test_the_variance_for_equal_frames_is_that_of_noise_of_one_grey_level():
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None] * 4, 64, axis=0).repeat(3, axis=2)
    # four grey levels per px: 1^2 / 4^2
    variance = flow_statistics(ramp, ramp, moving(0, 0, 64, 64)).variance
    assert variance[16:48, 16:48] == pytest.approx(1 / 16, rel=1e-3)


def test_texture_distinguishes_a_still_camera_from_a_pan():
    frame = texture(96, 128).astype(np.float32)
    frame[:, 64:] = 90  # the wall
    light = np.float32(np.linspace(0, 12, 128))[None, :, None]  # a shadow falls on it
    first, second = frame.astype(np.uint8), np.clip(frame + light, 0, 255).astype(np.uint8)
    drifting = moving(0, 0, 96, 128)
    drifting[:, 70:] = (9, -4)
    assert flow_statistics(first, second, drifting).is_still
    photo = texture(96, 136)
    pan = np.ascontiguousarray(photo[:, 8:]), np.ascontiguousarray(photo[:, :-8])
    assert not flow_statistics(*pan, moving(8, 0, 96, 128)).is_still
    # A dark scene with little contrast is still a pan.
    assert not flow_statistics(*(frame // 8 + 4 for frame in pan), moving(8, 0, 96, 128)).is_still


def test_noise_makes_the_flow_uncertain_where_there_is_no_texture():
    frame = texture(96, 128)
    frame[:, 64:] = 128
    rng = np.random.default_rng(0)
    noisy = [np.clip(frame + rng.normal(0, 3, frame.shape), 0, 255).astype(np.uint8) for _ in "ab"]
    variance = flow_statistics(*noisy, moving(0, 0, 96, 128)).variance
    assert np.median(variance[:, 80:]) > 20 * np.median(variance[:, :48])


def square_over_background():
    """Two frames of a textured square that moves 6 px to the right over a static background."""
    first = texture(128, 160)
    second, square = first.copy(), texture(48, 48, seed=1)
    first[40:88, 40:88] = square
    second[40:88, 46:94] = square
    return first, second


def test_a_pair_gives_the_covered_and_the_uncovered_pixels():
    config = replace(ExtractConfig(), motion_boundaries=False)
    occluded, disoccluded = holes_of_pair(*square_over_background(), config)
    assert occluded.shape == disoccluded.shape == (128, 160) and occluded.dtype == disoccluded.dtype == bool
    assert occluded[44:84, 88:94].mean() > 0.7 and occluded[44:84, 40:46].mean() < 0.2
    assert disoccluded[44:84, 40:46].mean() > 0.7 and disoccluded[44:84, 88:94].mean() < 0.2
    far = np.ones((128, 160), bool)
    far[25:103, 25:109] = False
    assert not occluded[far].any() and not disoccluded[far].any()


def test_swapping_the_frames_swaps_the_holes():
    first, second = square_over_background()
    there, back = holes_of_pair(first, second, ExtractConfig()), holes_of_pair(second, first, ExtractConfig())
    assert np.array_equal(there[0], back[1]) and np.array_equal(there[1], back[0])


def test_motion_boundaries_are_added_unless_switched_off():
    first, second = square_over_background()
    config = replace(ExtractConfig(), min_area=1)
    without = holes_of_pair(first, second, replace(config, motion_boundaries=False))[0]
    joined = holes_of_pair(first, second, config)[0]
    assert (joined | ~without).all() and joined.sum() > without.sum()
    assert joined[44:84, 38:42].any(axis=1).mean() > 0.8  # the side that covers nothing has a contour too


@pytest.mark.parametrize("settings", [{}, {"slope": 0.1, "offset": 2.0, "boundary_slope": 0.1, "boundary_offset": 0.2}])
def test_without_noise_the_holes_are_those_of_the_published_rules(monkeypatch, settings):
    flows, frame = random_flows(), np.zeros((50, 70, 3), np.uint8)
    monkeypatch.setattr(occlusion_module, "both", lambda name, first, second: flows)
    config = replace(ExtractConfig(), noise=0, min_area=5, **settings)
    for one, other, with_contours, without in zip(
        flows,
        flows[::-1],
        holes_of_pair(frame, frame, config),
        holes_of_pair(frame, frame, replace(config, motion_boundaries=False)),
        strict=True,
    ):
        occluded = occlusion(one, other, slope=config.slope, offset=config.offset)
        contours = motion_boundaries(cv2.split(one), slope=config.boundary_slope, offset=config.boundary_offset)
        assert np.array_equal(without, remove_specks(occluded, 5))
        assert np.array_equal(with_contours, remove_specks(occluded | contours, 5)) and (occluded & ~contours).any()


def test_without_noise_an_error_equal_to_the_bound_makes_no_hole(monkeypatch):
    flows, frame = (moving(0, 0.5), moving(0, 0)), np.zeros((40, 60, 3), np.uint8)
    monkeypatch.setattr(occlusion_module, "both", lambda name, first, second: flows)
    config = replace(ExtractConfig(), noise=0, slope=0)
    assert not any(hole.any() for hole in holes_of_pair(frame, frame, replace(config, offset=0.25)))
    assert all(hole.all() for hole in holes_of_pair(frame, frame, replace(config, offset=0.24)))


def test_noise_on_a_plain_wall_makes_far_fewer_holes_than_the_published_bounds():
    rng = np.random.default_rng(1)
    frame = texture(128, 160).astype(np.float32)
    frame[:, 100:] = 90  # the wall
    pair = [np.clip(frame + rng.normal(0, 2, frame.shape), 0, 255).astype(np.uint8) for _ in "ab"]
    published = holes_of_pair(*pair, replace(ExtractConfig(), noise=0))
    for hole, before in zip(holes_of_pair(*pair, ExtractConfig()), published, strict=True):
        assert hole.sum() < before.sum() / 2 and not hole[:, :90].any()


def test_noise_and_a_still_camera_give_no_holes():
    frame = texture(128, 160).astype(np.float32)
    rng = np.random.default_rng(2)
    pair = [np.clip(frame + rng.normal(0, 2, frame.shape), 0, 255).astype(np.uint8) for _ in "ab"]
    assert not any(hole.any() for hole in holes_of_pair(*pair, ExtractConfig()))


def test_a_wall_under_changing_light_gives_no_strip_at_the_border():
    frame = texture(128, 160).astype(np.float32)
    frame[:, :70] = 90 + cv2.resize(texture(4, 4)[..., 0].astype(np.float32) / 60, (70, 128))[..., None]
    light = np.float32(np.linspace(16, 0, 160))[None, :, None]
    pair = [frame.astype(np.uint8), np.clip(frame + light, 0, 255).astype(np.uint8)]
    published = holes_of_pair(*pair, replace(ExtractConfig(), noise=0))
    assert any(hole[:, :8].any() for hole in published)  # the flow does drift
    assert not any(hole.any() for hole in holes_of_pair(*pair, ExtractConfig()))


def test_a_dark_pan_keeps_the_columns_that_leave():
    photo = texture(128, 168)
    pan = [np.ascontiguousarray(part) // 8 + 4 for part in (photo[:, 8:], photo[:, :-8])]
    occluded, disoccluded = holes_of_pair(*pan, ExtractConfig())
    assert occluded[:, -7:].mean() > 0.95 and disoccluded[:, :7].mean() > 0.95
    assert not occluded[:, 20:-20].any() and not disoccluded[:, 20:-20].any()


def test_unequal_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        occlusion(moving(0, 0), moving(0, 0, 40, 61))
    with pytest.raises(ValueError, match="one shape"):
        holes_of_pair(texture(64, 64), texture(64, 66), ExtractConfig())


def test_an_object_in_front_of_a_plain_wall_gives_no_holes_along_the_border():
    def scene(y):
        wall = np.full((256, 256, 3), 90.0) + np.linspace(0, 10, 256)[None, :, None]
        wall[y : y + 150, 60:200] = films.texture(150, 140, 3)
        return np.clip(wall + rng.normal(0, 1.5, wall.shape), 0, 255).astype(np.uint8)

    rng = np.random.default_rng(0)
    rim = np.ones((256, 256), bool)
    rim[8:-8, 8:-8] = False
    for step in (6, 24):  # px that the object moves up; the wall is static
        for hole in holes_of_pair(scene(60), scene(60 - step), ExtractConfig()):
            assert hole[rim].mean() < 0.01


def hole_above_noise(forward, backward, *, variance=0, noise=0, is_still=False, change=0, changed=None, **settings):
    """The hole of constant variance, noise and change, without motion boundaries and removal of specks."""
    height, width = forward.shape[:2]
    changed = np.ones((height, width), bool) if changed is None else changed
    statistics = occlusion_module.FlowStatistics(np.full((height, width), variance, np.float32), noise, is_still)
    config = replace(ExtractConfig(), **{"motion_boundaries": False, "min_area": 1, **settings})
    small = np.full((height // 2, width // 2), change, np.float32)
    planes = cv2.split(forward), cv2.split(backward)
    return occlusion_module._hole_above_noise(*planes, statistics, small, changed, config)[0]


@pytest.mark.parametrize(("noise", "change", "counts"), [(3, 36, False), (3, 37, True), (0, 1, False), (0, 1.1, True)])
def test_at_the_edge_of_the_frame_a_hole_counts_only_where_the_frame_changed_by_twice_the_noise(noise, change, counts):
    hole = hole_above_noise(moving(0, 0), moving(3, 0), noise=noise, change=change)  # contradict each other everywhere
    assert hole[8:-8, 10:-10].all() and hole[10:-10, 8:-8].all()
    edges = hole[:8, 20:40], hole[-8:, 20:40], hole[15:25, :8], hole[15:25, -8:]
    assert all(edge.all() if counts else not edge.any() for edge in edges)


def test_where_the_flow_leaves_the_frame_a_hole_counts_only_where_the_frame_changed():
    pan = moving(20, 0), moving(-20, 0)
    assert not hole_above_noise(*pan, change=0).any()
    hole = hole_above_noise(*pan, change=9)
    assert hole[4:-4, 40:].all() and not hole[:, :40].any()


@pytest.mark.parametrize(("variance", "counts"), [(7, True), (8, False)])
def test_both_bounds_are_raised_by_a_fifth_of_the_variance(variance, counts):
    contradicting = moving(0, 0), moving(np.sqrt(2), 0)  # |w + v|^2 = 2, and 0.5 + 0.2 * 7 = 1.9
    assert hole_above_noise(*contradicting, variance=variance, slope=0, change=9).any() == counts
    forward, backward = moving(0, 0), moving(10, 0)  # |w + v|^2 = 100 or 106, half of the offset
    forward[:, 30:, 1] = 2 * np.sqrt(1.5)  # |grad v|^2 = 1.5, and 0.002 + 0.2 * 7 = 1.402
    settings = {"offset": 200, "slope": 0, "boundary_slope": 0, "motion_boundaries": True}
    contour = hole_above_noise(forward, backward, variance=variance, change=9, **settings)
    assert contour[10:30, 29:31].all() == contour[10:30].any() == counts


def test_above_noise_an_error_equal_to_the_bound_makes_no_hole():
    flows = moving(0, 0.5), moving(0, 0)  # |w + v|^2 = 0.25
    assert not hole_above_noise(*flows, slope=0, offset=0.25, change=9).any()
    assert hole_above_noise(*flows, slope=0, offset=0.24, change=9)[5:-5, 5:-5].all()


@pytest.mark.parametrize(("slope", "counts"), [(0.001, True), (0.01, False)])
def test_above_noise_a_fast_object_needs_a_steeper_step(slope, counts):
    forward, backward = moving(20, 0), moving(-10, 0)  # |w + v|^2 = 64 or 100, up to half of the offset
    forward[:, 30:] = (18, 0)  # |grad u|^2 = 1, against slope * |w|^2 = 0.4 or 4
    settings = {"offset": 200, "slope": 0, "boundary_slope": slope, "motion_boundaries": True}
    hole = hole_above_noise(forward, backward, change=9, **settings)
    assert hole[10:30, 29:31].all() == hole[10:30, :35].any() == counts


def test_with_a_still_camera_only_changed_pixels_are_holes():
    changed = np.zeros((40, 60), bool)
    changed[10:30, 20:40] = True
    hole = hole_above_noise(moving(0, 0), moving(3, 0), is_still=True, changed=changed, change=9)
    assert np.array_equal(hole, changed)


@pytest.mark.parametrize(("pixels", "counts"), [(63, False), (64, True)])
def test_a_still_camera_gives_no_hole_where_fewer_pixels_have_changed_than_a_hole_has(pixels, counts):
    changed = np.zeros((40, 60), bool)
    changed[10:18, 20:28] = np.arange(64).reshape(8, 8) < pixels
    hole = hole_above_noise(moving(0, 0), moving(3, 0), is_still=True, changed=changed, min_area=64)
    assert hole.dtype == bool and np.array_equal(hole, changed & counts)


def test_a_pixel_is_occluded_if_most_of_the_25_around_it_are():
    backward = moving(0, 0)
    backward[12:15, 12:15] = (3, 0)  # 9 of 25
    backward[24:28, 24:28] = (3, 0)  # up to 16 of 25
    hole = hole_above_noise(moving(0, 0), backward)
    assert hole[24:28, 24:28].any() and not hole[:20].any()


def step_of_one_pixel(error):
    """Flows that jump by 1 px at column 30, vertically, and miss the start by |w + v|^2 = error from column 32 on."""
    forward, backward = moving(0, 0), moving(0, 0)
    forward[:, 30:, 1], backward[:, 30:, 1] = 1, -1
    backward[:, 32:, 0] = np.sqrt(error)
    return forward, backward


@pytest.mark.parametrize(("share", "counts"), [(0.19, False), (0.21, True)])
def test_a_contour_counts_where_the_flows_miss_by_a_fifth_of_the_bound(share, counts):
    forward, backward = step_of_one_pixel(0)
    backward[..., 0] = np.sqrt(share * 0.5)  # the bound is 0.5 px^2 without a slope
    hole = hole_above_noise(forward, backward, slope=0, motion_boundaries=True, change=9)
    assert hole[10:30, 29:31].all() == hole[10:30].any() == counts


@pytest.mark.parametrize(("is_still", "columns"), [(True, [30]), (False, [])])
def test_with_a_still_camera_a_contour_may_lie_two_pixels_beside_the_error(is_still, columns):
    hole = hole_above_noise(*step_of_one_pixel(0.4 * 0.5), is_still=is_still, slope=0, motion_boundaries=True, change=9)
    assert np.flatnonzero(hole[20]).tolist() == columns


@pytest.mark.parametrize(
    ("side", "difference", "changed"),  # px; grey levels
    [
        (6, 3, False),  # its share in the mean of 30x30 px leaves 0.96 of a difference: 2.9
        (6, 4, True),  # 3.8
        (2, 20, False),  # the mean over 6x6 px leaves a ninth: 2.1
        (2, 40, True),  # 4.3
        (18, 10, True),  # 0.64 is left: 6.4
        (30, 10, False),  # fills the 30x30 px: light
    ],
)
def test_changed_pixels_differ_by_more_than_three_grey_levels_beside_light(side, difference, changed):
    first = np.full((96, 96, 3), 100, np.uint8)
    second, start = first.copy(), 48 - side // 2 // 2 * 2
    second[start : start + side, start : start + side, 1] += difference
    middle = start + side // 2
    assert occlusion_module._changed_pixels(first, second)[middle, middle] == changed
    assert not occlusion_module._changed_pixels(first, first + 30).any()  # a change of light


def test_the_variance_is_noise_over_the_mean_squared_gradient_of_15_pixels():
    small = np.zeros((40, 40), np.float32)
    small[:, 20:] = 64  # a gradient of 16 grey levels a px of the full size, in two columns
    planes = np.zeros((80, 80), np.float32), np.zeros((80, 80), np.float32)
    statistics = occlusion_module._flow_statistics(small, small, np.zeros_like(small), planes)
    assert statistics.noise == 0 and statistics.variance[40, 38:42] == pytest.approx(7 / (2 * 16**2))  # noise is 1
    assert statistics.variance[40, 10] > 1e5  # no gradient within 15 px


@pytest.mark.parametrize("axes", [(0, 1), (1, 0)])
def test_gradients_count_along_both_axes(axes):
    ramp = np.repeat(np.arange(40, dtype=np.float32)[None] * 16, 40, axis=0).transpose(axes)  # 8 a px of the full size
    noisy = ramp + 2 * (np.indices((40, 40)).sum(0) % 2 * 2 - 1).astype(np.float32)  # 2 above or below
    planes = np.zeros((80, 80), np.float32), np.zeros((80, 80), np.float32)
    statistics = occlusion_module._flow_statistics(ramp, noisy, np.zeros_like(ramp), planes)
    assert statistics.noise == pytest.approx(1.4826 * 2)  # the standard deviation of a normal distribution is that
    assert statistics.variance[40, 40] == pytest.approx((1.4826 * 2) ** 2 / 8**2, rel=1e-4)  # times its median


@pytest.mark.parametrize("shift", [(6, 0), (0, -4), (6, -4)])
def test_frames_are_compared_along_the_flow(shift):
    small = np.random.default_rng(0).uniform(0, 255, (60, 80)).astype(np.float32)
    other = np.roll(small, (shift[1] // 2, shift[0] // 2), (0, 1))
    planes = [np.full((120, 160), step, np.float32) for step in shift]
    statistics = occlusion_module._flow_statistics(small, other, small, planes)
    assert statistics.noise == 0 and statistics.variance.shape == (120, 160)


def test_frames_are_smoothed_at_half_the_size_as_scipy_does():
    grey = np.random.default_rng(0).integers(0, 256, (40, 64)).astype(np.uint8)
    half = downscale_local_mean(grey.astype(float), (2, 2))
    smooth = gaussian_filter(half, occlusion_module.NOISE_BLUR, mode="mirror")
    assert occlusion_module._grey_at_half_size(cv2.merge([grey] * 3)) == pytest.approx(smooth, abs=0.01)


def test_noise_is_the_standard_deviation_of_what_differs_along_the_flow():
    small = np.zeros((100, 100), np.float32)
    noisy = np.random.default_rng(0).normal(0, 3, small.shape).astype(np.float32)
    planes = np.zeros((200, 200), np.float32), np.zeros((200, 200), np.float32)
    assert occlusion_module._flow_statistics(small, noisy, small, planes).noise == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize(("in_place", "along", "is_still"), [(3.2, 2, 1), (3.4, 2, 0), (0.3, 0, 1), (0.31, 0, 0)])
def test_a_camera_is_still_if_frames_differ_in_place_as_little_as_along_the_flow(in_place, along, is_still):
    checkers = np.indices((60, 60)).sum(0) % 2 * -2 + 1  # of mean 0: no light
    difference = np.full((60, 60), in_place, np.float32)
    residual = (along * checkers).astype(np.float32)
    assert occlusion_module._is_still(difference, residual, np.ones((60, 60), np.float32)) == bool(is_still)


@pytest.mark.parametrize(("moving_share", "is_still"), [(0.11, True), (0.14, False)])
def test_only_the_best_textured_quarter_decides_whether_a_camera_is_still(moving_share, is_still):
    texture = np.random.default_rng(0).permutation(100 * 100).reshape(100, 100).astype(np.float32)
    difference = np.where(texture >= (1 - moving_share) * 100 * 100, 100, 0).astype(np.float32)
    assert occlusion_module._is_still(difference, np.zeros_like(texture), texture) == is_still


def test_dropped_pixels_are_the_columns_that_a_pan_moves_out_of_the_frame(monkeypatch):
    pan = np.zeros((64, 64, 2), np.float32)
    pan[..., 0] = 8  # exactly the last 8 columns leave
    torn = -pan
    torn[:, 24:40, 0] = -5  # and 16 columns, 16..31 of the first frame, contradict
    monkeypatch.setattr(occlusion_module, "both", lambda name, first, second: (pan, torn))
    frame = np.zeros((64, 64, 3), np.uint8)
    config = replace(ExtractConfig(), noise=0, motion_boundaries=False)
    kept, pixels = occlusion_module.holes_and_leaving(frame, frame, config)[0]
    assert np.flatnonzero(kept[30]).tolist() == [*range(16, 32), *range(56, 64)] and pixels == 8 * 64
    dropped, pixels = occlusion_module.holes_and_leaving(frame, frame, replace(config, leaving="drop"))[0]
    assert np.flatnonzero(dropped[30]).tolist() == [*range(16, 32)] and pixels == 8 * 64


def test_a_pan_has_no_hole_without_the_pixels_that_leave():
    photo = texture(128, 168)
    pan = [np.ascontiguousarray(part) for part in (photo[:, 8:], photo[:, :-8])]
    config = ExtractConfig(leaving="drop")
    for (hole, pixels), columns in zip(occlusion_module.holes_and_leaving(*pan, config), (8, 8), strict=True):
        assert not hole[:, 4:-4].any() and pixels == pytest.approx(columns * 128, rel=0.05)
