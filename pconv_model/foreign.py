"""Read weights of other implementations, and of training checkpoints. READERS has one function per format."""

import re
from pathlib import Path

import numpy as np
import torch

from maskgen.checks import expect, one_of
from maskgen.errors import BadInput, install_hint
from pconv_model.checkpoints import load, net_config, net_from_state
from pconv_model.torch_files import ADVICE, torch_file
from pconv_model.unet import UNet, build

MAX_WEIGHTS = 2**28  # in one layer, 1 GB; a damaged file may claim any number


def read(path: Path, form: str | None = None) -> UNet:
    """Read a network, in evaluation mode. form: a name in READERS; None detects it from the file.

    Raises BadInput for an unknown form, and for a file of another form.
    """
    form = form or detect(path)
    expect("form", form, one_of(READERS))
    return READERS[form](path).eval()


def detect(path: Path) -> str:
    """The name in READERS for a file, from its suffix and the names of its tensors."""
    if path.suffix.lower() in (".h5", ".hdf5"):
        return "keras"
    if path.suffix.lower() == ".safetensors":
        return "ours"
    names = " ".join(map(str, _tensors(path)))
    if "input_conv" in names:
        return "naoto0804"
    return "mmagic" if "generator.encoder" in names else "training" if "encoder.0.conv" in names else "nvidia"


def read_training(path: Path) -> UNet:
    """The averaged network of a checkpoint of `pconv train`, or the trained one if there is no average."""
    checkpoint = torch_file(path)
    try:
        config, state = checkpoint["about"]["net"], checkpoint.get("average", checkpoint["net"])
    except (KeyError, TypeError, AttributeError):
        raise BadInput(f"{path} is not a checkpoint of `pconv train`") from None
    return net_from_state(net_config(config, path), state, path)


def read_naoto0804(path: Path) -> UNet:
    """`.pth` of naoto0804/pytorch-inpainting-with-partial-conv.

    Its layer uses 1 / sum(M), as in the paper's first version. Ours also multiplies by sum(1), so kernels are divided
    by that.
    """
    state, depth = _named(path, r"enc_(\d+)\.conv\.input_conv\.weight")
    names = [f"enc_{i + 1}" for i in range(depth)] + [f"dec_{i}" for i in range(depth, 0, -1)]
    convs = [_conv(state, f"{name}.conv.input_conv", path) for name in names]
    convs = [(weight / weight[0].numel(), bias) for weight, bias in convs]
    return _assemble(convs, [_norm(state, f"{name}.bn", path) for name in names[1:-1]], path)


def read_mmagic(path: Path) -> UNet:
    """`.pth` of mmagic or mmediting. It has the same layer as ours; its images are BGR in [-1, 1]."""
    state, depth = _named(path, r"generator\.encoder\.enc(\d+)\.conv\.weight")
    names = [f"generator.encoder.enc{i + 1}" for i in range(depth)]
    names += [f"generator.decoder.dec{i}" for i in range(depth, 0, -1)]
    convs = [_conv(state, f"{name}.conv", path) for name in names]
    first, (last, bias) = convs[0], convs[-1]
    convs[0] = (first[0].flip(1), first[1])
    skip = last[:, -3:].flip(1)
    convs[-1] = (torch.cat([last[:, :-3], skip], 1).flip(0), None if bias is None else bias.flip(0))
    norms = [_norm(state, f"{name}.bn", path) for name in names[1:-1]]
    return _assemble(convs, norms, path, mean=(0.5,) * 3, std=(0.5,) * 3)


def read_nvidia(path: Path) -> UNet:
    """State dict of a U-Net with NVIDIA's layer, which is the same as ours. Tensors are in the order of Table 2.

    Names do not matter. Images are assumed to be RGB with ImageNet's normalisation, as in NVIDIA's repository.
    """
    state = _tensors(path)
    convs = [key.removesuffix(".weight") for key, value in state.items() if key.endswith(".weight") and value.ndim == 4]
    norms = [key.removesuffix(".running_mean") for key in state if key.endswith(".running_mean")]
    return _assemble([_conv(state, key, path) for key in convs], [_norm(state, key, path) for key in norms], path)


def read_keras(path: Path) -> UNet:
    """`.h5` of MathiasGruber/PConv-Keras, weights only. Needs h5py, the extra `h5`.

    Differences that are converted: its layer counts kh*kw for the window, but valid inputs over all channels; kernels
    are HWIO; the skip comes first in a concatenation; batch norm has Keras' epsilon; the network ends with a leaky
    ReLU, a 1x1 convolution and a sigmoid; images are RGB in [0, 1]. Its encoder uses batch statistics for prediction
    unless built with train_bn=False; ours uses the stored ones.
    """
    layers = h5_layers(path)
    convs, norms = [], []
    numbered = sorted((name for name in layers if name.startswith("p_conv2d")), key=_suffix)
    encoder = sorted((name for name in layers if name.startswith("EncBN")), key=_suffix)
    decoder = sorted((name for name in layers if name.startswith("batch_normalization")), key=_suffix)
    try:
        for i, name in enumerate(numbered):
            weight = _oihw(layers[name]["img_kernel"])
            if i >= len(numbered) // 2:  # (skip, up) -> (up, skip)
                skip = convs[len(numbered) - 2 - i][0].shape[0] if i < len(numbered) - 1 else 3
                weight = torch.cat([weight[:, skip:], weight[:, :skip]], 1)
            convs.append((weight / weight.shape[1], layers[name]["bias"]))
        for name in (*encoder, *decoder):
            norms.append([layers[name][part] for part in ("gamma", "beta", "moving_mean", "moving_variance")])
        head = {"head.weight": _oihw(layers["outputs_img"]["kernel"]), "head.bias": layers["outputs_img"]["bias"]}
    except KeyError as error:
        raise BadInput(f"{path} is not a weights file of PConv-Keras: it lacks {error}") from None
    extra = {"bias": "all", "eps": 1e-3, "mean": (0.0,) * 3, "std": (1.0,) * 3, "head": "sigmoid"}
    return _assemble(convs, norms, path, head, **extra)


READERS = {
    "ours": load,
    "training": read_training,
    "naoto0804": read_naoto0804,
    "mmagic": read_mmagic,
    "keras": read_keras,
    "nvidia": read_nvidia,
}


def _assemble(convs, norms, path, more=None, **config):
    """A network from its convolutions (weight, bias or None) and batch norms, both in the order of Table 2."""
    if len(convs) < 2 or len(convs) % 2 or len(norms) != len(convs) - 2:
        raise BadInput(
            f"{path} has {len(convs)} convolutions and {len(norms)} batch norms: not a U-Net as in the paper"
        )
    config = {"bias": "all" if any(bias is not None for _, bias in convs[1:-1]) else "ends"} | config
    if any(weight.ndim != 4 for weight, _ in convs):
        raise BadInput(f"{path} has kernels that are not four-dimensional: not a U-Net as in the paper")
    config = net_config({"width": len(convs[0][0]) / 64, "depth": len(convs) // 2, **config}, path)
    with torch.device("meta"):
        expected = build(config).state_dict()
    names = [f"{side}.{i}" for side in ("encoder", "decoder") for i in range(len(convs) // 2)]
    state = dict(more or {})
    for name, (weight, bias) in zip(names, convs, strict=True):
        state[f"{name}.conv.weight"] = weight
        if f"{name}.conv.bias" in expected:
            state[f"{name}.conv.bias"] = torch.zeros(len(weight)) if bias is None else bias
    for name, values in zip(names[1:-1], norms, strict=True):
        for part, value in zip(("weight", "bias", "running_mean", "running_var"), values, strict=True):
            state[f"{name}.norm.{part}"] = value
    return net_from_state(config, state, path)


def _tensors(path):
    """The tensors of a `.pth` by name, from nested dicts too, without DataParallel's prefix."""
    found = torch_file(path)
    for key in ("state_dict", "model", "net"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    found = found if isinstance(found, dict) else {}
    tensors = {str(k).removeprefix("module."): v for k, v in found.items() if isinstance(v, torch.Tensor)}
    if not tensors:
        raise BadInput(f"{path} has no dict of tensors: {ADVICE}")
    return tensors


def _named(path, pattern):
    """The tensors of a file, and the depth of the network: how many names match the pattern of an encoder layer."""
    state = _tensors(path)
    depth = sum(re.fullmatch(pattern, name) is not None for name in state)
    if not depth:
        raise BadInput(
            f"{path} has no tensor with a name like {pattern}: name its format with --from, one of {', '.join(READERS)}"
        )
    return state, depth


def _conv(state, name, path):
    if f"{name}.weight" not in state:
        raise BadInput(f"{path} lacks {name}.weight")
    return state[f"{name}.weight"].float(), state.get(f"{name}.bias")


def _norm(state, name, path):
    parts = [f"{name}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
    missing = [part for part in parts if part not in state]
    if missing:
        raise BadInput(f"{path} lacks {missing[0]}")
    return [state[part] for part in parts]


def _oihw(kernel):
    return kernel.permute(3, 2, 0, 1)


def _suffix(name):
    """The number at the end of a Keras name, 0 if there is none."""
    return int((re.search(r"(\d+)$", name.removeprefix("p_conv2d")) or [0, 0])[1])


def h5_layers(path: Path) -> dict[str, dict[str, torch.Tensor]]:
    """{layer: {weight: tensor}} of a Keras weights file. Raises BadInput for any other file, and if h5py is missing."""
    try:
        import h5py
    except ImportError:
        raise BadInput(f"reading a Keras file needs h5py: {install_hint('h5')}") from None
    layers = {}
    try:
        with h5py.File(path, "r") as file:
            for layer, group in file.items():
                found = {}

                def take(name, item, found=found):
                    if isinstance(item, h5py.Dataset) and item.size > MAX_WEIGHTS:
                        raise BadInput(f"{path} claims {item.size:,} numbers in {name}: expected weights of a network")
                    if isinstance(item, h5py.Dataset):
                        found[name.rpartition("/")[2].partition(":")[0]] = torch.from_numpy(
                            np.asarray(item, np.float32)
                        )

                group.visititems(take)
                layers[str(layer)] = found  # h5py returns damaged names as bytes
    except BadInput:
        raise
    except Exception as error:  # h5py raises errors of many types for damaged files
        raise BadInput(f"{path} is not an HDF5 file of Keras weights: {error}") from None
    return layers
