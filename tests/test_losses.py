import pytest
import torch
from scipy.ndimage import maximum_filter

from pconv_model import losses
from pconv_model.objective import total_loss
from pconv_model.settings import LossConfig


def plane(*rows):
    """valid (1, 1, H, W) from text: '#' is missing, '.' is kept."""
    return torch.tensor([[[[float(c == ".") for c in row] for row in rows]]])


def test_valid_and_hole_are_averaged_over_the_whole_image():
    out, truth, valid = torch.ones(1, 3, 2, 2), torch.zeros(1, 3, 2, 2), plane("#.", "..")
    assert losses.valid_loss(out, truth, valid) == 3 / 4 and losses.hole_loss(out, truth, valid) == 1 / 4
    assert losses.valid_loss(out, 3 * out, valid) == 2 * 3 / 4 and losses.hole_loss(out, 3 * out, valid) == 2 / 4


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
    a, b = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]]), torch.tensor([[[[0.0, 2.0]], [[0.0, 4.0]]]])
    # C*H*W times the Gram matrices: 5 3 3 9 and 4 8 8 16
    assert losses.style_loss([a], [b]).item() == pytest.approx((1 + 5 + 5 + 7) / 4 / 4)


def test_gram_does_not_overflow_in_half_precision():
    feature = torch.full((1, 2, 64, 64), 300.0, dtype=torch.float16)  # sums of squares far above 65504
    with torch.autocast("cpu", torch.float16):
        assert losses.gram(feature).flatten().tolist() == pytest.approx([300.0**2 / 2] * 4, rel=1e-3)


def test_tv_looks_at_pairs_inside_the_hole_dilated_by_one_pixel():
    comp = torch.tensor([[[[7.0, 0.0, 1.0, 3.0, 9.0]]]])
    assert losses.tv_loss(comp, plane("..#..")) == (1 + 2) / 5  # region: the middle three, two pairs, five pixels
    assert losses.tv_loss(comp, plane(".....")) == 0
    assert losses.tv_loss(comp.transpose(2, 3), plane(".", ".", "#", ".", ".")) == 3 / 5


def test_dilation_is_the_maximum_filter_of_scipy():
    plane = (torch.rand(2, 1, 12, 17, generator=torch.Generator().manual_seed(0)) < 0.2).float()
    wanted = maximum_filter(plane.numpy(), (1, 1, 3, 3), mode="constant")
    assert losses.dilate(plane).equal(torch.from_numpy(wanted))


def test_total_is_the_weighted_sum_of_the_paper():
    def eyes(image):  # a "VGG" of one layer, the image itself
        return [image]

    truth, valid = torch.zeros(1, 1, 2, 2), plane("#.", "..")
    terms = total_loss(torch.ones(1, 1, 2, 2), truth, valid, eyes)
    # on [-1, 1] differences are 2; comp is 1 in one of four pixels; its region is the whole image, two pairs differ
    assert {k: v.item() for k, v in terms.items() if k != "total"} == pytest.approx(
        {"valid": 1.5, "hole": 0.5, "tv": 2 * 2 / 4, "perceptual": 1 + 1 / 4, "style": 4 / 4 + 1 / 4}
    )
    assert terms["total"].item() == pytest.approx(1 * 1.5 + 6 * 0.5 + 0.1 * 1 + 0.05 * 1.25 + 120 * 1.25)


@pytest.mark.parametrize("weights", [{"perceptual": 1, "style": 0}, {"perceptual": 0, "style": 1}])
def test_vgg_is_used_if_one_of_its_two_terms_has_a_weight(weights):
    truth, valid = torch.zeros(1, 1, 2, 2), plane("#.", "..")
    terms = total_loss(torch.ones(1, 1, 2, 2), truth, valid, lambda image: [image], LossConfig(**weights))
    assert terms["perceptual"].item() == terms["style"].item() == 1.25  # as above
    plain = total_loss(torch.ones(1, 1, 2, 2), truth, valid)
    assert terms["total"].item() == pytest.approx(plain["total"].item() + 1.25)


def test_without_features_the_total_has_no_perceptual_and_no_style():
    x = torch.rand(1, 3, 4, 4)
    assert set(total_loss(x, x, plane("....", "....", "....", "...."))) == {"total", "valid", "hole", "tv"}
    assert LossConfig() == LossConfig(1, 6, 0.05, 120, 0.1)
