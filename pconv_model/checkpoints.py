"""Networks on disk: our own safetensors, the formats of others, ONNX and torch.export."""

import json
import logging
import pickle
import re
import warnings
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from maskgen import __version__
from maskgen.errors import BadInput
from maskgen.runtime.files import write_whole
from pconv_model.settings import NetConfig
from pconv_model.unet import UNet, build

FORMAT = "pconv_model 1"
MAX_WEIGHTS = 2**28  # numbers in one layer of a file, 1 GB; a damaged one may claim anything


def save(path: Path, net: UNet, *, history=(), half=False, about=None) -> None:
    """Write a net as safetensors with its config, training history and version in the header.

    path: its folder is made. history: list of dicts, one per logged step. about: dict of whatever else should be
    known, such as the settings of the run. half: float16 kernels, half the size; reading turns them back into float32.
    """
    from safetensors.torch import save as as_bytes

    kept = {name: value for name, value in net.state_dict().items() if not name.endswith("num_batches_tracked")}
    kept = {
        name: (value.half() if half and value.ndim == 4 else value).contiguous().cpu() for name, value in kept.items()
    }
    told = {"config": asdict(net.config), "history": list(history), "about": about or {}}
    header = {"format": FORMAT, "version": __version__, **{key: json.dumps(value) for key, value in told.items()}}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, _in_order(as_bytes(kept, header)))


def _in_order(file: bytes) -> bytes:
    """A safetensors file with its metadata by name; the library leaves their order to chance."""
    end = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8, as the library has it
    return len(text).to_bytes(8, "little") + text + file[end:]


def read_header(path: Path) -> dict:
    """What `save` wrote beside the weights: "config" (NetConfig), "history", "about", "version"."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
    except FileNotFoundError:
        raise BadInput(
            f"no such file: {path} (expected weights as `pconv train` or `pconv convert` write them)"
        ) from None
    except (OSError, SafetensorError) as error:
        raise BadInput(
            f"{path} is no safetensors file ({error}): `pconv convert` reads the formats of others"
        ) from None
    if header.get("format") != FORMAT:
        raise BadInput(f"{path} is no net of ours, its header lacks {FORMAT!r}: make it with `pconv convert`")
    try:
        told = {key: json.loads(header[key]) for key in ("config", "history", "about")}
        version = header["version"]
    except (KeyError, ValueError) as error:
        raise BadInput(f"{path} has a damaged header ({error}): make it anew") from None
    if not isinstance(told["history"], list) or not isinstance(told["about"], dict):
        raise BadInput(f"{path} has a damaged header: its history is no list or its about no dict; make it anew")
    return {**told, "config": net_config(told["config"], path), "version": version}


def net_config(told, path) -> NetConfig:
    """The NetConfig that a file describes with a dict. Raises BadInput for what is none, or no net of sensible size."""
    try:
        config = NetConfig(**{key: tuple(v) if isinstance(v, list) else v for key, v in told.items()})
        sensible = (
            all(isinstance(number, int | float) for number in (config.width, config.eps, *config.mean, *config.std))
            and all(isinstance(text, str) for text in (config.kind, config.bias, config.fill, config.head))
            and isinstance(config.depth, int)
            and isinstance(config.detail, int)
            and 0 <= config.detail <= 1024
            and len(config.mean) == len(config.std) == 3
            and 0 < config.width <= 16
            and 1 <= config.depth <= 16
        )
    except (AttributeError, TypeError):
        sensible = False
    if not sensible:
        raise BadInput(f"{path} describes no net that we know: {str(told)[:80]}")
    return config


def load(path: Path) -> UNet:
    """Read a net of ours, in float32 and ready for inference. Raises BadInput for any other file."""
    from safetensors.torch import load_file

    return _filled(read_header(path)["config"], load_file(path), path).eval()


def _filled(config, state, path):
    """A net of a config with the weights of a state dict, which has to fit before anything is made."""
    with torch.device("meta"):  # costs no memory, whatever size a damaged file claims
        _check_fits(build(config), state, path)
    net = build(config)
    load_weights(net, state, path)
    return net


def load_weights(net: UNet, state: dict, name) -> None:
    """Copy a state dict into a net, by name; BadInput names the first tensor that is missing, unknown or misshapen."""
    _check_fits(net, state, name)
    kept = {key: value.float() for key, value in state.items() if not key.endswith("num_batches_tracked")}
    net.load_state_dict(kept, strict=False)


def _check_fits(net, state, name):
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise BadInput(f"{name} holds no tensors by name")
    mine = {key: value for key, value in net.state_dict().items() if not key.endswith("num_batches_tracked")}
    theirs = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    for key in (*mine, *theirs):
        if key not in theirs or key not in mine or mine[key].shape != theirs[key].shape:
            shapes = [tuple(side[key].shape) if key in side else "nothing" for side in (mine, theirs)]
            raise BadInput(f"{name} does not fit the net: {key} should be {shapes[0]} and is {shapes[1]}")


def past(path: Path) -> dict:
    """The "history" and "about" that `save` takes, from a file of ours or a training checkpoint; {} from any other."""
    if path.suffix == ".safetensors":
        header = read_header(path)
        return {"history": header["history"], "about": header["about"]}
    told = {} if path.suffix in (".h5", ".hdf5") else torch_file(path)
    return {key: told[key] for key in ("history", "about") if isinstance(told, dict) and key in told}


def average(nets: Iterable[UNet]) -> UNet:
    """One net whose every weight is the mean of those of several, each with the same say.

    nets: at least one, taken one at a time, such as the last legs of one training; nets of different beginnings have no
    useful mean (Izmailov et al. 2018, arXiv:1803.05407). Batch norm's running statistics are averaged too: exact only
    where all nets have the same, as after `--freeze all`. Raises BadInput for nets of different configs.
    """
    nets = iter(nets)
    mean = deepcopy(next(nets))
    with torch.no_grad():
        for count, net in enumerate(nets, 2):
            ours, theirs = asdict(mean.config), asdict(net.config)
            if ours != theirs:
                apart = ", ".join(f"{key} {ours[key]} and {theirs[key]}" for key in ours if ours[key] != theirs[key])
                raise BadInput(f"only nets of one kind and size have a mean, these have {apart}")
            for kept, other in zip(mean.state_dict().values(), net.state_dict().values(), strict=True):
                if kept.is_floating_point():
                    kept.lerp_(other, 1 / count)
    return mean


def read(path: Path, form: str | None = None) -> UNet:
    """A net from any file we know. form: a name in READERS, None looks at the file. Ready for inference.

    Raises BadInput for an unknown form, and for a file that is not what its form says.
    """
    form = form or detect(path)
    if form not in READERS:
        raise BadInput(f"form is one of {', '.join(READERS)}, got {form!r}")
    return READERS[form](path).eval()


def detect(path: Path) -> str:
    """Which of READERS a file has, by its suffix and the names inside."""
    if path.suffix in (".h5", ".hdf5"):
        return "keras"
    if path.suffix == ".safetensors":
        return "ours"
    names = " ".join(map(str, _tensors(path)))
    if "input_conv" in names:
        return "naoto0804"
    return "mmagic" if "generator.encoder" in names else "training" if "encoder.0.conv" in names else "nvidia"


def read_training(path: Path) -> UNet:
    """The averaged net in a checkpoint of `pconv train`, or its net where no average was kept."""
    told = torch_file(path)
    try:
        config, state = told["about"]["net"], told.get("average", told["net"])
    except (KeyError, TypeError, AttributeError):
        raise BadInput(f"{path} is no checkpoint of `pconv train`") from None
    return _filled(net_config(config, path), state, path)


def read_naoto0804(path: Path) -> UNet:
    """`.pth` of naoto0804/pytorch-inpainting-with-partial-conv. Its layer divides by sum(M) alone, the paper's v1."""
    state, depth = _named(path, r"enc_(\d+)\.conv\.input_conv\.weight")
    names = [f"enc_{i + 1}" for i in range(depth)] + [f"dec_{i}" for i in range(depth, 0, -1)]
    convs = [_conv(state, f"{name}.conv.input_conv", path) for name in names]
    convs = [(weight / weight[0].numel(), bias) for weight, bias in convs]
    return _assemble(convs, [_norm(state, f"{name}.bn", path) for name in names[1:-1]], path)


def read_mmagic(path: Path) -> UNet:
    """`.pth` of mmagic or mmediting. Its layer is ours; its images are BGR in [-1, 1]."""
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
    """A state dict of a U-Net of NVIDIA's own layer, whatever the names, in the order of Table 2. The layer is ours.

    Images are taken to be RGB with ImageNet's normalisation, as in NVIDIA's repository.
    """
    state = _tensors(path)
    convs = [key.removesuffix(".weight") for key, value in state.items() if key.endswith(".weight") and value.ndim == 4]
    norms = [key.removesuffix(".running_mean") for key in state if key.endswith(".running_mean")]
    return _assemble([_conv(state, key, path) for key in convs], [_norm(state, key, path) for key in norms], path)


def read_keras(path: Path) -> UNet:
    """`.h5` of MathiasGruber/PConv-Keras, weights only. Needs h5py, the extra `h5`.

    Its layer counts the window over kh*kw and the valid inputs over the channels too; kernels are HWIO; the skip comes
    first in a concatenation; batch norm has Keras' epsilon; a leaky ReLU, a 1x1 convolution and a sigmoid end the
    net; images are RGB in [0, 1]. Its encoder used batch statistics unless built with train_bn=False; ours uses
    the stored ones.
    """
    layers = _h5_layers(path)
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
        raise BadInput(f"{path} is no weights file of PConv-Keras: it lacks {error}") from None
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
    """A net from its convolutions (weight, bias or None) and batch norms, both in the order of Table 2."""
    if len(convs) < 2 or len(convs) % 2 or len(norms) != len(convs) - 2:
        raise BadInput(
            f"{path} holds {len(convs)} convolutions and {len(norms)} batch norms: no U-Net of the paper's form"
        )
    config = {"bias": "all" if any(bias is not None for _, bias in convs[1:-1]) else "ends"} | config
    if any(weight.ndim != 4 for weight, _ in convs):
        raise BadInput(f"{path} holds kernels that are not of four dimensions: no U-Net of the paper's form")
    config = net_config({"width": len(convs[0][0]) / 64, "depth": len(convs) // 2, **config}, path)
    with torch.device("meta"):
        wanted = build(config).state_dict()
    names = [f"{side}.{i}" for side in ("encoder", "decoder") for i in range(len(convs) // 2)]
    state = dict(more or {})
    for name, (weight, bias) in zip(names, convs, strict=True):
        state[f"{name}.conv.weight"] = weight
        if f"{name}.conv.bias" in wanted:
            state[f"{name}.conv.bias"] = torch.zeros(len(weight)) if bias is None else bias
    for name, values in zip(names[1:-1], norms, strict=True):
        for part, value in zip(("weight", "bias", "running_mean", "running_var"), values, strict=True):
            state[f"{name}.norm.{part}"] = value
    return _filled(config, state, path)


def torch_file(path: Path):
    """What a `.pth` holds: tensors and plain values; code in it is never run."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise BadInput(f"no such file: {path} (expected a checkpoint)") from None
    except Exception as error:  # torch raises whatever bytes without sense lead to
        why = str(error).partition("\n")[0] or type(error).__name__
        if isinstance(error, pickle.UnpicklingError):  # torch's own words advise to run what is inside
            why = "it is damaged, something else, or holds code, which is never run"
        raise BadInput(f"{path} is no checkpoint of tensors and plain values alone: {why}") from None


def _tensors(path):
    """The tensors of a `.pth`, out of whatever dict they are in, without DataParallel's prefix."""
    found = torch_file(path)
    for key in ("state_dict", "model", "net"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict):
        raise BadInput(f"{path} holds no state dict")
    return {str(k).removeprefix("module."): v for k, v in found.items() if isinstance(v, torch.Tensor)}


def _named(path, pattern):
    """The tensors of a file and the depth of the net, by the names of its encoder."""
    state = _tensors(path)
    depth = sum(re.fullmatch(pattern, name) is not None for name in state)
    if not depth:
        raise BadInput(
            f"{path} has no tensor named like {pattern}: choose its form with --from, one of {', '.join(READERS)}"
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
    """The counter at the end of a Keras name; none comes first."""
    return int((re.search(r"(\d+)$", name.removeprefix("p_conv2d")) or [0, 0])[1])


def _h5_layers(path):
    """{layer: {weight: tensor}} of a Keras weights file."""
    try:
        import h5py
    except ImportError:
        raise BadInput("a Keras file needs h5py: pip install 'irregular-masks[h5]'") from None
    layers = {}
    try:
        with h5py.File(path, "r") as file:
            for layer, group in file.items():
                found = {}

                def take(name, item, found=found):
                    if isinstance(item, h5py.Dataset) and item.size > MAX_WEIGHTS:
                        raise BadInput(f"{path} claims {item.size:,} numbers in {name}: expected weights of a net")
                    if isinstance(item, h5py.Dataset):
                        found[name.rpartition("/")[2].partition(":")[0]] = torch.from_numpy(
                            np.asarray(item, np.float32)
                        )

                group.visititems(take)
                layers[str(layer)] = found  # bytes, where a name is damaged
    except BadInput:
        raise
    except Exception as error:  # h5py raises whatever bytes without sense lead to
        raise BadInput(f"{path} is no HDF5 file of Keras weights: {error}") from None
    return layers


def export(net: UNet, path: Path) -> None:
    """Write a net for other programs: `.onnx` (the extra `onnx`), or `.pt2` of torch.export.

    Inputs `image` (1, 3, H, W) in [0, 1] and `valid` (1, 1, H, W), output `filled`; any H and W that are multiples of
    the net's stride.
    """
    if path.suffix not in (".onnx", ".pt2"):
        raise BadInput(f"expected a name that ends in .onnx or .pt2, got {path}")
    net = net.eval()
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    side = {
        2: net.stride * torch.export.Dim("rows", min=1, max=64),
        3: net.stride * torch.export.Dim("columns", min=1, max=64),
    }
    inputs = torch.rand(1, 3, 2 * net.stride, 3 * net.stride), torch.ones(1, 1, 2 * net.stride, 3 * net.stride)
    program = torch.export.export(net, inputs, dynamic_shapes=(side, side))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.stem}.part{path.suffix}")  # the exporters look at the suffix
    try:
        if path.suffix == ".pt2":
            with warnings.catch_warnings(action="ignore"):  # torch tells of weights on several devices, ours are on one
                torch.export.save(program, part)
        else:
            _onnx(program, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _onnx(program, path):
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise BadInput("an ONNX file needs onnx and onnxscript: pip install 'irregular-masks[onnx]'") from None
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells of torchvision, which nobody needs here
    names = {"input_names": ["image", "valid"], "output_names": ["filled"]}
    torch.onnx.export(program, (), path, dynamo=True, external_data=False, verbose=False, **names)
