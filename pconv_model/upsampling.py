"""The decoder's convolution of doubled features and a skip, without doubling and without concatenating."""

import torch
import torch.nn.functional as F

WORTH = 256  # pixels of the small image from which on folded kernels pay for being folded


def conv_joined(low, skip, weight):
    """What a 3x3 convolution, padding 1, makes of `low` doubled by nearest neighbour and `skip`, concatenated.

    low: (B, C1, h, w). skip: (B, C2, H, W), H either 2 h or 2 h - 1, W likewise. weight: (C', C1 + C2, 3, 3). Returns
    (B, C', H, W), equal to `conv_plain` but for rounding. The doubled part takes 16 instead of 36 multiplications a
    pixel and channel, since each window of it sees 2x2 pixels of `low` and not 3x3.
    """
    even = skip.shape[-2] == 2 * low.shape[-2] and skip.shape[-1] == 2 * low.shape[-1]
    if not even or low.shape[-2] * low.shape[-1] < WORTH or torch.compiler.is_compiling():
        return conv_plain(low, skip, weight)
    parts = weight.split((low.shape[1], skip.shape[1]), 1)
    return _Interleave.apply(F.conv2d(low, folded(parts[0]), padding=1)).add_(F.conv2d(skip, parts[1], padding=1))


def conv_plain(low, skip, weight):
    """The same as it is written in Table 2."""
    return F.conv2d(torch.cat([double(low, skip), skip], 1), weight, padding=1)


def double(x, skip):
    """x at twice its size, cut to the skip's, which is one smaller where a layer halved an odd side."""
    return F.interpolate(x, scale_factor=2, mode="nearest")[..., : skip.shape[-2], : skip.shape[-1]]


def folded(weight):
    """3x3 kernels for a doubled image as 2x2 kernels for the small one, of its even and odd rows and columns each.

    (C', C, 3, 3) -> (4 C', C, 2, 2): rows even, columns even; even, odd; odd, even; odd, odd. An even row of the
    doubled image has the rows i - 1, i, i of the small one in its window, an odd row i, i, i + 1.
    """
    first, middle, last = weight.unbind(2)
    rows = [torch.stack(pair, 2) for pair in ((first, middle + last), (first + middle, last))]  # (C', C, 2, 3)
    kernels = []
    for row in rows:
        first, middle, last = row.unbind(3)
        kernels += [torch.stack(pair, 3) for pair in ((first, middle + last), (first + middle, last))]
    return torch.cat(kernels).contiguous(memory_format=torch.channels_last)


class _Interleave(torch.autograd.Function):
    """(B, 4 C, h + 1, w + 1), the four kinds of pixels, to (B, C, 2 h, 2 w). One pass over memory either way."""

    @staticmethod
    def forward(context, kinds):
        batch, channels, height, width = kinds.shape
        shape = (batch, channels // 4, 2 * height - 2, 2 * width - 2)
        image = torch.empty(shape, dtype=kinds.dtype, device=kinds.device, memory_format=torch.channels_last)
        for part, place in zip(_parts(kinds), _places(image), strict=True):
            place.copy_(part)
        return image

    @staticmethod
    def backward(context, gradient):
        batch, channels, height, width = gradient.shape
        shape = (batch, 4 * channels, height // 2 + 1, width // 2 + 1)
        kinds = torch.zeros(shape, dtype=gradient.dtype, device=gradient.device).contiguous(
            memory_format=torch.channels_last
        )
        for part, place in zip(_parts(kinds), _places(gradient), strict=True):
            part.copy_(place)
        return kinds


def _parts(kinds):
    """Of each kind the pixels that are in the image: a window that looks back, or ahead, has one too many."""
    even_even, even_odd, odd_even, odd_odd = kinds.chunk(4, 1)
    return even_even[..., :-1, :-1], even_odd[..., :-1, 1:], odd_even[..., 1:, :-1], odd_odd[..., 1:, 1:]


def _places(image):
    return [image[..., row::2, column::2] for row in (0, 1) for column in (0, 1)]
