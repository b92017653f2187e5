import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pconv_model.layer import PartialConv2d


def by_hand(layer, x, planes):
    """The formula of the paper, window by window, in float64."""
    (kh, kw), (sy, sx), (py, px), (dy, dx) = layer.kernel_size, layer.stride, layer.padding, layer.dilation
    full = torch.cat([p.expand(-1, c, -1, -1) for p, c in zip(planes.split(1, 1), layer.branches, strict=True)], 1)
    x, full = (F.pad(t.double(), (px, px, py, py)) for t in (torch.where(full > 0, x, 0), full))
    height = (x.shape[2] - dy * (kh - 1) - 1) // sy + 1
    width = (x.shape[3] - dx * (kw - 1) - 1) // sx + 1
    y = torch.zeros(x.shape[0], layer.out_channels, height, width, dtype=torch.float64)
    reached = torch.zeros(x.shape[0], 1, height, width)
    for b in range(x.shape[0]):
        for i in range(height):
            for j in range(width):
                part = slice(i * sy, i * sy + dy * (kh - 1) + 1, dy), slice(j * sx, j * sx + dx * (kw - 1) + 1, dx)
                window, seen = x[b, :, part[0], part[1]], full[b, :, part[0], part[1]]
                if seen.sum() > 0:
                    gain = (seen.numel() if layer.scaling == "v2" else 1) / seen.sum()
                    y[b, :, i, j] = (layer.weight.double() * window).sum((1, 2, 3)) * gain + layer.bias.double()
                    reached[b, 0, i, j] = 1
    return y, reached


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=60, deadline=None)
@given(
    branches=st.lists(st.integers(1, 3), min_size=1, max_size=2),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=pairs,
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=pairs,
    scaling=st.sampled_from(["v2", "v1"]),
    kept=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_the_layer_is_the_formula_of_the_paper_window_by_window(
    branches, kernel, stride, padding, dilation, scaling, kept, seed
):
    torch.manual_seed(seed)
    layer = PartialConv2d(
        sum(branches), 2, kernel, stride, padding, dilation, branches=branches, scaling=scaling
    ).requires_grad_(False)
    assert (layer.kernel_size, layer.stride, layer.padding, layer.dilation) == (kernel, stride, padding, dilation)
    height, width = (d * (k - 1) + 1 + 3 for k, d in zip(kernel, dilation, strict=True))
    x, planes = (
        torch.rand(2, sum(branches), height, width),
        (torch.rand(2, len(branches), height, width) < kept).float(),
    )
    (y, reached), (wanted, wanted_reached) = layer(x, planes), by_hand(layer, x, planes)
    assert (y - wanted).abs().max() <= 1e-5 and reached.equal(wanted_reached)


def test_the_layer_is_the_naive_form_with_a_mask_channel_for_every_feature_channel():
    torch.manual_seed(0)
    layer = PartialConv2d(7, 5, 3, 2, 1, branches=(4, 3)).requires_grad_(False)
    x, planes = torch.rand(2, 7, 20, 20), (torch.rand(2, 2, 20, 20) < 0.3).float()
    full = torch.cat([planes[:, :1].expand(-1, 4, -1, -1), planes[:, 1:].expand(-1, 3, -1, -1)], 1)
    seen = F.conv2d(full, torch.ones(1, 7, 3, 3), stride=2, padding=1)
    wanted = F.conv2d(x * full, layer.weight, stride=2, padding=1) * 63 / seen.clamp(min=1) + layer.bias.view(
        1, -1, 1, 1
    )
    torch.testing.assert_close(layer(x, planes)[0], wanted * (seen > 0), atol=1e-5, rtol=0)


def test_without_holes_it_is_a_plain_convolution():
    layer, x = PartialConv2d(3, 4, 3), torch.rand(1, 3, 9, 9)
    torch.testing.assert_close(layer(x, torch.ones(1, 1, 9, 9))[0], F.conv2d(x, layer.weight, layer.bias))


def test_what_lies_outside_the_image_is_a_hole():
    layer = PartialConv2d(1, 1, 3, padding=1, bias=False)
    layer.weight.data.fill_(1)
    y, reached = layer(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3))
    assert y.flatten().tolist() == pytest.approx([9.0] * 9)  # at the corner 4 * 9/4, at the edge 6 * 9/6
    assert reached.min() == 1


def test_v1_divides_by_the_number_of_valid_inputs():
    layer = PartialConv2d(2, 1, 2, bias=False, scaling="v1")
    layer.weight.data.fill_(3)
    y, _ = layer(torch.full((1, 2, 2, 2), 5.0), torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]]))
    assert y.item() == 15  # 2 inputs of 5 * 3 each, over 2 valid inputs


def test_a_window_of_holes_gives_zero_and_not_the_bias():
    layer = PartialConv2d(1, 1, 1)
    layer.bias.data.fill_(7)
    y, reached = layer(torch.ones(1, 1, 1, 2), torch.tensor([[[[0.0, 1.0]]]]))
    assert y[0, 0, 0, 0] == 0 and reached.flatten().tolist() == [0, 1] and y[0, 0, 0, 1] == layer.weight.item() + 7


def test_what_is_stored_in_a_hole_never_matters():
    layer, valid = PartialConv2d(3, 4, 3, padding=1, branches=(2, 1)), (torch.rand(1, 2, 8, 8) < 0.5).float()
    x = torch.rand(1, 3, 8, 8)
    dirty = x.clone()
    dirty[:, :2][(valid[:, :1] == 0).expand(-1, 2, -1, -1)] = float("nan")
    dirty[:, 2:][valid[:, 1:] == 0] = float("inf")
    assert layer(x, valid)[0].equal(layer(dirty, valid)[0])


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    layer = PartialConv2d(3, 2, 3, 2, 1, branches=(2, 1)).double()
    planes = (torch.rand(1, 2, 5, 6) < 0.4).double()
    x = torch.rand(1, 3, 5, 6, dtype=torch.float64, requires_grad=True)

    def output(x, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x, planes))[0]

    assert torch.autograd.gradcheck(output, (x, layer.weight, layer.bias))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_valid_pixels_are_counted_exactly_in_half_precision(dtype):
    layer = PartialConv2d(512, 1, 3, padding=1, bias=False).to(dtype)
    layer.weight.data.fill_(1 / 512)
    valid = torch.ones(1, 1, 5, 5)
    valid[..., 2, 2] = 0
    y, _ = layer(torch.ones(1, 512, 5, 5, dtype=dtype), valid.to(dtype))
    assert y.dtype == dtype and y.isfinite().all()
    torch.testing.assert_close(
        y.float(), torch.full((1, 1, 5, 5), 9.0), atol=0.1, rtol=0
    )  # 4096 valid inputs, gain 9/8


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_gives_finite_results_that_differ_by_rounding(dtype):
    torch.manual_seed(0)
    layer, x = PartialConv2d(300, 2, 5, padding=2), torch.randn(1, 300, 12, 12)
    valid = (torch.rand(1, 1, 12, 12) < 0.05).float()
    with torch.autocast("cpu", dtype):
        y, reached = layer(x, valid)
    wanted, wanted_reached = layer(x, valid)
    assert y.isfinite().all() and reached.equal(wanted_reached)
    torch.testing.assert_close(y.float(), wanted, atol=0.05, rtol=0.05)


def test_branches_that_do_not_add_up_are_refused():
    with pytest.raises(ValueError, match="add up"):
        PartialConv2d(5, 1, 3, branches=(2, 2))
    with pytest.raises(ValueError, match="v1"):
        PartialConv2d(5, 1, 3, scaling="v3")
