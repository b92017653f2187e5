import pytest
import torch

from pconv_model import upsampling
from pconv_model.unet import ConvUNet, PConvUNet


def parts(low, skip, channels=7, dtype=torch.float64):
    """low, skip and weight, drawn at random."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 5, *low), (2, 3, *skip), (channels, 8, 3, 3))
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize(
    ("low", "skip"), [((16, 20), (32, 40)), ((2, 3), (4, 6)), ((16, 16), (31, 32)), ((1, 1), (1, 1))]
)
def test_folded_kernels_equal_the_convolution_of_upsampled_features(low, skip, monkeypatch):
    monkeypatch.setattr(upsampling, "MIN_PIXELS", 0)
    both = [way(*parts(low, skip)) for way in (upsampling.conv_upsampled, upsampling.conv_reference)]
    torch.testing.assert_close(*both, rtol=0, atol=1e-12)


def test_gradients_equal_those_of_the_reference():
    assert torch.autograd.gradcheck(
        upsampling._Interleave.apply, torch.randn(1, 8, 3, 4, dtype=torch.float64).requires_grad_()
    )
    both = []
    for way in (upsampling.conv_upsampled, upsampling.conv_reference):
        tensors = parts((16, 20), (32, 40))
        result = way(*tensors)
        both.append(torch.autograd.grad(result, tensors, torch.arange(result.numel()).view_as(result).double() / 1e4))
    for folded, reference in zip(*both, strict=True):
        torch.testing.assert_close(folded, reference, rtol=0, atol=1e-9)


def test_a_folded_kernel_by_pencil():
    kernel = torch.arange(1.0, 10).view(1, 1, 3, 3)  # rows 1 2 3, 4 5 6, 7 8 9
    even_even = upsampling.fold_kernel(kernel)[0, 0]  # small pixels i - 1 and i, of which the second counts twice
    assert even_even.tolist() == [[1, 2 + 3], [4 + 7, 5 + 6 + 8 + 9]]


@pytest.mark.parametrize("net", [PConvUNet, ConvUNet])
def test_networks_give_the_same_result_with_and_without_folded_kernels(net, monkeypatch):
    torch.manual_seed(0)
    unet = net(0.1, 4).eval()
    image, valid = torch.rand(1, 3, 64, 96), (torch.rand(1, 1, 64, 96) > 0.4).float()
    with torch.no_grad():
        before = unet(image, valid)
        monkeypatch.setattr("pconv_model.unet.conv_upsampled", upsampling.conv_reference)
        torch.testing.assert_close(before, unet(image, valid), rtol=1e-4, atol=1e-5)
