import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from pconv_model import extra_losses, losses
from pconv_model.objective import total_loss
from pconv_model.settings import LossConfig


def plane(*rows):
    """valid (1, 1, H, W) from text: '#' is missing, '.' is kept."""
    return torch.tensor([[[[float(c == ".") for c in row] for row in rows]]])


def test_a_balanced_hole_term_gives_images_with_small_holes_more_weight():
    valid = torch.cat([plane("#...", "....", "...."), plane("####", "##..", "....")])  # ratios 1/12 and 1/2
    out, truth = torch.ones(2, 3, 3, 4), torch.zeros(2, 3, 3, 4)
    assert extra_losses.balance_weights(valid, 1).flatten().tolist() == pytest.approx([0.3 * 12, 0.3 * 2])
    terms = total_loss(out, truth, valid, config=LossConfig(balance=1, span=1))
    assert terms["hole"].item() == pytest.approx(0.3)  # for any ratio: as an image with a hole ratio of 0.3
    half = total_loss(out, truth, valid, config=LossConfig(balance=0.5, span=1))
    assert half["hole"].item() == pytest.approx(((0.3 / 12) ** 0.5 + (0.3 / 2) ** 0.5) / 2)


@pytest.mark.parametrize("brightness", [1, 0.02])  # in dark images the constants of SSIM matter
def test_the_ssim_term_is_one_minus_the_ssim_of_scikit_image(brightness):
    rng = np.random.default_rng(0)
    truth = rng.random((2, 40, 33, 3), "f4") * brightness
    comp = np.clip(truth + rng.normal(0, 0.1, truth.shape) * brightness, 0, 1).astype("f4")
    how = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1, "channel_axis": 2}
    wanted = [1 - structural_similarity(*pair, **how) for pair in zip(comp, truth, strict=True)]
    both = [torch.from_numpy(images).permute(0, 3, 1, 2) for images in (comp, truth)]
    assert extra_losses.ssim_loss(*both).tolist() == pytest.approx(wanted, abs=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert extra_losses.ssim_loss(both[0].bfloat16().float(), both[1]).tolist() == pytest.approx(wanted, abs=1e-3)


def test_the_ssim_term_is_of_the_composite_balanced_and_left_out_at_0():
    out, truth, valid = torch.rand(1, 3, 16, 20), torch.rand(1, 3, 16, 20), torch.ones(1, 1, 16, 20)
    valid[..., 4:12, 4:14] = 0  # a quarter
    lone = extra_losses.ssim_loss(losses.composite(out, truth, valid), truth).item()
    terms = total_loss(out, truth, valid, config=LossConfig(ssim=2, balance=1))
    assert terms["ssim"].item() == pytest.approx(lone * 0.3 / 0.25)
    unbalanced = total_loss(out, truth, valid, config=LossConfig(ssim=2))
    assert unbalanced["ssim"].item() == pytest.approx(lone)
    plain = total_loss(out, truth, valid, config=LossConfig(balance=1))
    assert "ssim" not in plain and terms["total"].item() == pytest.approx(plain["total"].item() + 2 * lone * 1.2)


def test_the_near_term_halves_from_ring_to_ring_by_pencil():
    valid, truth = torch.ones(1, 1, 9, 9), torch.zeros(1, 3, 9, 9)
    valid[..., 2:7, 2:7] = 0
    out = torch.full((1, 3, 9, 9), 50.0)  # known pixels do not count
    out[..., 2:7, 2:7], out[..., 3:6, 3:6], out[..., 4, 4] = 1, 2, 4  # rings of 16, 8 and 1 px
    wanted = (1 + 2 / 2 + 4 / 4) / sum(0.5**ring for ring in range(8))
    assert extra_losses.near_loss(out, truth, valid).item() == pytest.approx(wanted)
    other = extra_losses.near_loss(out, truth, torch.ones_like(valid)), extra_losses.near_loss(2 * out, truth, valid)
    assert [term.item() for term in other] == pytest.approx([0, 2 * wanted])
    errors = [wanted, extra_losses.near_loss(out, out + 5, valid).item()]
    assert errors[1] == pytest.approx(5 * (1 + 1 / 2 + 1 / 4) / sum(0.5**ring for ring in range(8)))
    # of two images, the one with another hole: the mean of the two
    batch = torch.cat([out, out + 5]), torch.cat([truth, out]), torch.cat([valid, valid.roll(1, 2)])
    alone = extra_losses.near_loss(out + 5, out, valid.roll(1, 2)).item()
    assert extra_losses.near_loss(*batch).item() == pytest.approx((wanted + alone) / 2)
    terms = total_loss(out, truth, valid, config=LossConfig(near=10))
    plain = total_loss(out, truth, valid)
    assert "near" not in plain and terms["total"].item() == pytest.approx(plain["total"].item() + 10 * 2 * wanted)


def test_the_checkerboard_loss_of_stairs_and_of_a_slope_by_pencil():
    x = torch.arange(17.0)
    stairs, slope = ((step * 4 / 255).expand(2, 3, 17, 17) for step in (x // 8, x))  # 4 grey levels each 8 px, or each
    hole = torch.zeros(2, 1, 17, 17)
    # across: one place of eight differs by 4 levels, so the mean is 0.5, from which one deviates by 3.5 and seven by
    # 0.5, 0.875 in the mean, and half a level is added to what that is divided by; down, nothing differs
    wanted = 0.875 / (0.5 + 0.5) / 2
    assert extra_losses.checkerboard_loss(stairs, hole).item() == pytest.approx(wanted, rel=1e-4)
    assert extra_losses.checkerboard_loss(stairs.transpose(2, 3), hole).item() == pytest.approx(wanted, rel=1e-4)
    assert extra_losses.checkerboard_loss(slope, hole).item() == pytest.approx(0, abs=1e-4)
    assert extra_losses.checkerboard_loss(stairs, 1 - hole) == 0
    wall = torch.where(x > 2, 1.0, stairs)  # a steep step in the known part
    assert extra_losses.checkerboard_loss(wall, (x < 5).float().expand(2, 1, 17, 17)) == 0


def test_in_the_checkerboard_loss_steps_above_8_levels_count_as_8_and_those_at_the_edge_of_the_hole_do_not_count():
    x = torch.arange(17.0)
    stairs, wall = ((levels / 255).expand(1, 3, 17, 17) for levels in (x // 8 * 40, (x > 4) * 40.0))
    # one position of eight has steps of 8 levels: the mean is 1, the deviation (7 + 7 * 1) / 8
    wanted = (14 / 8) / (1 + 0.5) / 2
    assert extra_losses.checkerboard_loss(stairs, torch.zeros(1, 1, 17, 17)).item() == pytest.approx(wanted, rel=1e-4)
    assert extra_losses.checkerboard_loss(wall, (x < 5).float().expand(1, 1, 17, 17)) == 0


def test_the_checkerboard_term_is_weighted_and_left_out_at_0():
    stairs, hole = (torch.arange(17.0) // 8 * 4 / 255).expand(1, 3, 17, 17), torch.zeros(1, 1, 17, 17)
    plain = total_loss(stairs, torch.zeros_like(stairs), hole)
    terms = total_loss(stairs, torch.zeros_like(stairs), hole, config=LossConfig(checkerboard=3))
    assert "checkerboard" not in plain and terms["total"] - plain["total"] == pytest.approx(3 * 0.4375, rel=1e-4)


def test_noise_in_a_flat_sky_counts_a_hundred_times_as_much_as_on_a_slope_of_nine_levels():
    x = torch.arange(17.0)
    sky, slope, grain = (levels.expand(2, 3, 17, 17) / 255 for levels in (0 * x, 9 * x, x % 2 * 3))
    hole = torch.zeros(2, 1, 17, 17)
    # across, 16 steps in a row of 17 pixels are wrong by 3 levels, down none is
    wanted = 3 * 16 / 17 / 2
    assert extra_losses.smooth_loss(grain, sky, hole).item() == pytest.approx(wanted)
    assert extra_losses.smooth_loss(grain.mT, sky, hole).item() == pytest.approx(wanted)
    assert extra_losses.smooth_loss(slope + grain, slope, hole).item() == pytest.approx(wanted / (1 + 9) ** 2, rel=1e-4)
    assert extra_losses.smooth_loss(grain + 0.5, grain, hole) == pytest.approx(0, abs=1e-5)  # a shift is no grain
    assert extra_losses.smooth_loss(sky, sky, 1 - hole) == 0


def test_the_smooth_loss_of_a_seam_around_the_hole_by_pencil():
    hole, sky = torch.ones(1, 1, 9, 9), torch.zeros(1, 3, 9, 9)
    hole[..., 4, 4] = 0
    comp = sky.clone()
    comp[..., 4, 4] = 5 / 255
    # left and right, up and down
    assert extra_losses.smooth_loss(comp, sky, hole).item() == pytest.approx((5 + 5) * 2 / 2)
    plain = total_loss(comp, sky, hole)
    terms = total_loss(comp, sky, hole, config=LossConfig(smooth=3))
    assert "smooth" not in plain and (terms["total"] - plain["total"]).item() == pytest.approx(3 * 10)


def test_in_the_smooth_loss_an_edge_of_the_photo_within_5_px_hides_an_error():
    truth, valid = torch.zeros(1, 3, 31, 31), torch.ones(1, 1, 31, 31)
    truth[..., 14:] = 10 / 255  # one step of ten levels in each row
    valid[..., 15, 9] = 0
    comp = truth.clone()
    comp[..., 15, 9] += 5 / 255
    around = 10 * 11 / 11**2  # the mean step across in 11x11 px; 0 down
    wanted = (5 + 5) * (1 / (1 + around) ** 2 + 1) / 2
    assert extra_losses.smooth_loss(comp, truth, valid).item() == pytest.approx(wanted, rel=1e-4)


def test_a_window_for_vgg_lies_around_a_hole_pixel_and_inside_the_image():
    def eyes(image):  # returns its input
        return image

    place = torch.arange(48.0).view(1, 1, 6, 8)
    lone = plane("........", "........", "........", "......#.", "........", "........")
    of_window = extra_losses.windowed(eyes, lone, 4, np.random.default_rng(0))
    assert of_window(place)[0, 0].tolist() == [[12, 13, 14, 15], [20, 21, 22, 23], [28, 29, 30, 31], [36, 37, 38, 39]]
    middle = extra_losses.windowed(eyes, torch.ones(1, 1, 6, 8), 2, np.random.default_rng(0))  # without a hole
    assert middle(place)[0, 0].tolist() == [[19, 20], [27, 28]]
    whole = extra_losses.windowed(eyes, lone, 9, np.random.default_rng(0))
    assert whole(place).equal(place)
    two = torch.cat([lone, lone.flip(2, 3)])  # each image has a square of its own, the same in a second batch
    seen = extra_losses.windowed(eyes, two, 4, np.random.default_rng(0))(place.expand(4, 1, 6, 8))
    assert seen[:, 0, 0, 0].tolist() == [12, 0, 12, 0]
    many = torch.zeros(1, 1, 40, 40)
    places = torch.arange(1600.0).view(1, 1, 40, 40)
    squares = [extra_losses.windowed(eyes, many, 10, np.random.default_rng(i))(places) for i in range(9)]
    assert len({square[0, 0, 0, 0].item() for square in squares}) > 5  # drawn


def test_the_vgg_terms_of_the_composite_can_be_balanced():
    def eyes(image):
        return [image]

    truth = torch.zeros(2, 1, 2, 10)
    valid = torch.cat([plane("...#......", ".........#"), plane("#######...", "#####.....")])  # ratios 0.1 and 0.6
    terms = total_loss(torch.ones(2, 1, 2, 10), truth, valid, eyes, LossConfig(balance_vgg=1))
    # of out: 1 and 1; of the composite: 0.1 * 3 and 0.6 / 2, and the same for Gram matrices of 0.1 and 0.6
    assert terms["perceptual"].item() == pytest.approx(1 + (0.1 * 3 + 0.6 * 0.5) / 2)
    assert terms["style"].item() == pytest.approx(1 + (0.1 * 3 + 0.6 * 0.5) / 2)


@pytest.mark.parametrize("name", ["checkerboard", "smooth"])
def test_known_pixels_of_the_result_do_not_change_the_terms_of_the_composite(name):
    generator = torch.Generator().manual_seed(0)
    out, truth = torch.rand(2, 2, 3, 24, 24, generator=generator)
    valid = torch.ones(2, 1, 24, 24)
    valid[..., 4:20, 6:22] = 0
    other = torch.where(valid > 0, 1 - out, out)
    terms = [total_loss(x, truth, valid, config=LossConfig(**{name: 1}))[name].item() for x in (out, other)]
    assert terms[0] == terms[1] > 0
