"""The convolution of a decoder layer: nearest-neighbour upsampling, concatenation with a skip, and a 3x3 kernel.

As written in Table 2, the features are enlarged to twice their size, concatenated with the skip, and convolved; see
`conv_reference`. In the enlarged features, each 3x3 window holds only 2x2 different pixels. So the same sums can be
computed on the small features with 2x2 kernels, whose weights are sums of the original ones: 16 multiplications
instead of 36. There are four such kernels, one for each position of the output pixel in its 2x2 block (even or odd row,
even or odd column). `conv_upsampled` does that; the result differs only by rounding.
"""

import torch
import torch.nn.functional as F

MIN_PIXELS = 256  # of the small features; below, folding the kernels costs more than it saves


def conv_upsampled(low: torch.Tensor, skip: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A 3x3 convolution, padding 1, of `low` enlarged to twice its size and concatenated with `skip`.

    low: (B, C1, h, w). skip: (B, C2, H, W), where H is 2 h or 2 h - 1, and W likewise. weight: (C', C1 + C2, 3, 3).
    Returns (B, C', H, W), as `conv_reference` but for rounding.
    """
    even = skip.shape[-2] == 2 * low.shape[-2] and skip.shape[-1] == 2 * low.shape[-1]
    if not even or low.shape[-2] * low.shape[-1] < MIN_PIXELS or torch.compiler.is_compiling():
        return conv_reference(low, skip, weight)
    low_weight, skip_weight = weight.split((low.shape[1], skip.shape[1]), 1)
    from_low = _Interleave.apply(F.conv2d(low, fold_kernel(low_weight), padding=1))
    return from_low.add_(F.conv2d(skip, skip_weight, padding=1))


def conv_reference(low: torch.Tensor, skip: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The same as it is written in Table 2. Also used for odd sizes, small features and exported networks."""
    return F.conv2d(torch.cat([upsample(low, skip), skip], 1), weight, padding=1)


def upsample(x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
    """x enlarged to twice its size by nearest neighbour, cropped to the size of the skip.

    The skip is one pixel smaller where the encoder halved an odd side.
    """
    return F.interpolate(x, scale_factor=2, mode="nearest")[..., : skip.shape[-2], : skip.shape[-1]]


def fold_kernel(weight: torch.Tensor) -> torch.Tensor:
    """2x2 kernels for small features, from 3x3 kernels for the enlarged ones. (C', C, 3, 3) -> (4 C', C, 2, 2).

    In this order: kernels for output pixels in even rows and even columns; even, odd; odd, even; odd, odd. The window
    of an even row 2 i holds the small rows i - 1, i, i; that of the odd row 2 i + 1 holds i, i, i + 1. The same is true
    of columns.
    """
    first, middle, last = weight.unbind(2)
    rows = [torch.stack(pair, 2) for pair in ((first, middle + last), (first + middle, last))]  # (C', C, 2, 3)
    kernels = []
    for row in rows:
        first, middle, last = row.unbind(3)
        kernels += [torch.stack(pair, 3) for pair in ((first, middle + last), (first + middle, last))]
    return torch.cat(kernels).contiguous(memory_format=torch.channels_last)


class _Interleave(torch.autograd.Function):
    """Merge the results of the four kernels into one image: (B, 4 C, h + 1, w + 1) -> (B, C, 2 h, 2 w).

    It is `F.pixel_shuffle` for results that are one row and one column too large: the kernels for even rows need
    padding at the top only, those for odd rows at the bottom only. One pass over memory forward, and one backward.
    """

    @staticmethod
    def forward(context, results):
        batch, channels, height, width = results.shape
        shape = (batch, channels // 4, 2 * height - 2, 2 * width - 2)
        image = torch.empty(shape, dtype=results.dtype, device=results.device, memory_format=torch.channels_last)
        for part, pixels in zip(_cropped(results), _by_position(image), strict=True):
            pixels.copy_(part)
        return image

    @staticmethod
    def backward(context, gradient):
        batch, channels, height, width = gradient.shape
        shape = (batch, 4 * channels, height // 2 + 1, width // 2 + 1)
        results = torch.zeros(shape, dtype=gradient.dtype, device=gradient.device).contiguous(
            memory_format=torch.channels_last
        )
        for part, pixels in zip(_cropped(results), _by_position(gradient), strict=True):
            part.copy_(pixels)
        return results


def _cropped(results):
    """Views of the four results, (B, C, h, w) each, without the row and column that lie outside the image."""
    even_even, even_odd, odd_even, odd_odd = results.chunk(4, 1)
    return even_even[..., :-1, :-1], even_odd[..., :-1, 1:], odd_even[..., 1:, :-1], odd_odd[..., 1:, 1:]


def _by_position(image):
    """Views of an image, (B, C, h, w) each: its pixels in even or odd rows and columns, ordered as in `fold_kernel`."""
    return [image[..., row::2, column::2] for row in (0, 1) for column in (0, 1)]
