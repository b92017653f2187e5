"""Weights files of this package: safetensors with the config, history and version of a network in the header."""

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
    """Write a network as safetensors, with its config, training history and version in the header.

    path: its folder is created if needed. history: list of dicts, one per logged step. about: dict with other facts,
    such as the settings of the run. half: store kernels in float16, half the size; `load` converts them to float32.
    """
    from safetensors.torch import save as as_bytes

    kept = {name: value for name, value in net.state_dict().items() if not name.endswith("num_batches_tracked")}
    kept = {
        name: (value.half() if half and value.ndim == 4 else value).contiguous().cpu() for name, value in kept.items()
    }
    facts = {"config": asdict(net.config), "history": list(history), "about": about or {}}
    header = {"format": FORMAT, "version": __version__, **{key: json.dumps(value) for key, value in facts.items()}}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, _with_sorted_metadata(as_bytes(kept, header)))


def _with_sorted_metadata(file: bytes) -> bytes:
    """A safetensors file with its metadata sorted by name; the library writes them in random order."""
    end = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the library aligns tensors to 8 bytes
    return len(text).to_bytes(8, "little") + text + file[end:]


def read_header(path: Path) -> dict:
    """The header that `save` wrote: "config" (a NetConfig), "history", "about", "version".

    Raises BadInput for a file that is missing, damaged, or has another format.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
    except FileNotFoundError:
        raise BadInput(f"no such file: {path} (expected weights of `pconv train` or `pconv convert`)") from None
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{path} is not a safetensors file ({error}): use `pconv convert` for other formats") from None
    if header.get("format") != FORMAT:
        raise BadInput(f"{path} was not written by this package, its header lacks {FORMAT!r}: use `pconv convert`")
    try:
        facts = {key: json.loads(header[key]) for key in ("config", "history", "about")}
        version = header["version"]
    except (KeyError, ValueError) as error:
        raise BadInput(f"{path} has a damaged header ({error}): create the file again") from None
    if not isinstance(facts["history"], list) or not isinstance(facts["about"], dict):
        raise BadInput(f"{path} has a damaged header (types of history or about): create the file again")
    return {**facts, "config": net_config(facts["config"], path), "version": version}


def net_config(fields: dict, path: Path) -> NetConfig:
    """The NetConfig with the fields found in a file. Raises BadInput if they are not valid or absurdly large."""
    try:
        config = NetConfig(**{key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()})
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
        raise BadInput(f"{path} describes an unknown network: {error}") from None
    except (AttributeError, TypeError):
        sensible = False
    if not sensible:
        raise BadInput(f"{path} describes an unknown network: {str(fields)[:80]}")
    return config


def load(path: Path) -> UNet:
    """Read a file of `save`: the network in float32 and evaluation mode. Raises BadInput for any other file."""
    from safetensors.torch import load_file

    return net_from_state(read_header(path)["config"], load_file(path), path).eval()


def net_from_state(config: NetConfig, state: dict, path: Path) -> UNet:
    """A network with the weights of a state dict. Raises BadInput, before memory is allocated, if they do not fit."""
    with torch.device("meta"):  # takes no memory, whatever size a damaged file claims
        _check_fits(build(config), state, path)
    net = build(config)
    load_weights(net, state, path)
    return net


def load_weights(net: UNet, state: dict, name: Path) -> None:
    """Copy a state dict into a network. Raises BadInput for a tensor that is missing, unknown or of another shape."""
    _check_fits(net, state, name)
    kept = {key: value.float() for key, value in state.items() if not key.endswith("num_batches_tracked")}
    net.load_state_dict(kept, strict=False)


def _check_fits(net, state, name):
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise BadInput(f"{name} is not a dict of tensors")
    expected = {key: value for key, value in net.state_dict().items() if not key.endswith("num_batches_tracked")}
    found = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    for key in (*expected, *found):
        if key not in found or key not in expected or expected[key].shape != found[key].shape:
            shapes = [tuple(side[key].shape) if key in side else "nothing" for side in (expected, found)]
            raise BadInput(f"{name} does not fit the network: {key} should be {shapes[0]}, is {shapes[1]}")


def provenance(path: Path) -> dict:
    """The "history" and "about" of a weights file or training checkpoint of this package; {} for any other file."""
    if path.suffix.lower() == ".safetensors":
        header = read_header(path)
        return {"history": header["history"], "about": header["about"]}
    contents = torch_file(path) if path.suffix.lower() not in (".h5", ".hdf5") else None
    if not isinstance(contents, dict) or contents.get("format") != FORMAT:
        return {}
    return {key: contents[key] for key in ("history", "about") if key in contents}


def average(nets: Iterable[UNet]) -> UNet:
    """A network whose weights are the mean of those of several networks (Izmailov et al. 2018, arXiv:1803.05407).

    nets: at least one, consumed one at a time. They should come from one training run; the mean of independent networks
    is of no use. Running statistics of batch norm are averaged too, which is exact only if all networks have the same,
    as after `--freeze all`. Raises BadInput for networks of different configs.
    """
    nets = iter(nets)
    mean = deepcopy(next(nets))
    with torch.no_grad():
        for count, net in enumerate(nets, 2):
            first, other = asdict(mean.config), asdict(net.config)
            if first != other:
                changes = ", ".join(f"{key} {first[key]} and {other[key]}" for key in first if first[key] != other[key])
                raise BadInput(f"expected networks of one kind and size, got {changes}")
            for total, weight in zip(mean.state_dict().values(), net.state_dict().values(), strict=True):
                if total.is_floating_point():
                    total.lerp_(weight, 1 / count)
    return mean
