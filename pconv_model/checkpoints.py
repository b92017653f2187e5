"""Our own weights files: safetensors with the config, history and version of a net in the header."""

import json
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import torch

from maskgen import __version__
from maskgen.errors import BadInput
from maskgen.runtime.files import write_whole
from pconv_model.settings import NetConfig
from pconv_model.torch_files import torch_file
from pconv_model.unet import UNet, build

FORMAT = "pconv_model 1"


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
            and isinstance(config.depth, int)
            and isinstance(config.detail, int)
            and 0 <= config.detail <= 1024
            and len(config.mean) == len(config.std) == 3
            and 0 < config.width <= 16
            and 1 <= config.depth <= 16
        )
    except BadInput as error:
        raise BadInput(f"{path} describes no net that we know: {error}") from None
    except (AttributeError, TypeError):
        sensible = False
    if not sensible:
        raise BadInput(f"{path} describes no net that we know: {str(told)[:80]}")
    return config


def load(path: Path) -> UNet:
    """Read a net of ours, in float32 and ready for inference. Raises BadInput for any other file."""
    from safetensors.torch import load_file

    return filled(read_header(path)["config"], load_file(path), path).eval()


def filled(config, state, path):
    """A net of a config with the weights of a state dict, which have to fit: BadInput before any memory is taken."""
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
    if path.suffix.lower() == ".safetensors":
        header = read_header(path)
        return {"history": header["history"], "about": header["about"]}
    told = torch_file(path) if path.suffix.lower() not in (".h5", ".hdf5") else None
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        return {}
    return {key: told[key] for key in ("history", "about") if key in told}


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
