"""Random weights, files and images for the tests of the networks of others."""

import numpy as np
import torch
from small_run import photo

IMAGE = photo(0, 80)[:72]
HOLE = np.zeros(IMAGE.shape[:2], bool)
HOLE[20:50, 30:60] = True


def random_state(net, seed=0):
    """Weights of a size that keeps signals alive, and statistics of batch norm that are not 0 and 1."""
    chance = torch.Generator().manual_seed(seed)
    state = {}
    for name, value in net.state_dict().items():
        noise = torch.randn(value.shape, generator=chance)
        if name.endswith("running_var"):
            state[name] = 1 + noise.abs()
        elif value.ndim == 4:
            state[name] = 1.1 * noise / value[0].numel() ** 0.5
        elif name.endswith("num_batches_tracked"):
            state[name] = value
        else:
            state[name] = 0.1 * noise + (1 if "bn" in name and name.endswith("weight") else 0)
    return state


def with_random_weights(net):
    net.load_state_dict(random_state(net))
    return net.eval()


def as_planes(image, hole):
    """RGB in 0..255 and the hole, float (1, 3, H, W) and (1, 1, H, W)."""
    return torch.from_numpy(image).permute(2, 0, 1)[None].float(), torch.from_numpy(hole)[None, None].float()


def save(state, path, **how):
    torch.save({"meta": {"epoch": 1}, "state_dict": {f"generator.{k}": v for k, v in state.items()}}, path, **how)


GL_LAYERS = (  # name, kernel, stride, dilation; "up" is a transposed convolution
    *(("encoder.enc1", 5, 1, 1), ("encoder.enc2", 3, 2, 1), ("encoder.enc3", 3, 1, 1), ("encoder.enc4", 3, 2, 1)),
    *(("encoder.enc5", 3, 1, 1), ("encoder.enc6", 3, 1, 1)),
    *((f"dilation_neck.dilation_convs.{i}", 3, 1, 2 ** (i + 1)) for i in range(4)),
    *(("decoder.dec1", 3, 1, 1), ("decoder.dec2", 3, 1, 1), ("decoder.dec3", 4, "up", 1), ("decoder.dec4", 3, 1, 1)),
    *(("decoder.dec5", 4, "up", 1), ("decoder.dec6", 3, 1, 1)),
)
