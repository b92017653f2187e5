"""Networks on disk: our own safetensors, the formats of others, ONNX and torch.export."""

import json
from dataclasses import asdict
from pathlib import Path

from maskgen import __version__
from maskgen.errors import BadInput
from maskgen.maskset import write_whole
from pconv_model.settings import NetConfig
from pconv_model.unet import UNet, build

FORMAT = "pconv_model 1"


def save(path: Path, net: UNet, *, history=(), half=False, about=None) -> None:
    """Write a net as safetensors with its config, training history and version in the header.

    history: list of dicts, one per logged step. about: dict of whatever else should be known, such as the settings
    of the run. half: float16 kernels, half the size; reading turns them back into float32.
    """
    from safetensors.torch import save as as_bytes

    kept = {name: value for name, value in net.state_dict().items() if not name.endswith("num_batches_tracked")}
    kept = {
        name: (value.half() if half and value.ndim == 4 else value).contiguous().cpu() for name, value in kept.items()
    }
    told = {"config": asdict(net.config), "history": list(history), "about": about or {}}
    header = {"format": FORMAT, "version": __version__, **{key: json.dumps(value) for key, value in told.items()}}
    write_whole(path, as_bytes(kept, header))


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
    config = {key: tuple(v) if isinstance(v, list) else v for key, v in json.loads(header["config"]).items()}
    told = {key: json.loads(header[key]) for key in ("history", "about")}
    return {"config": NetConfig(**config), "version": header["version"], **told}


def load(path: Path) -> UNet:
    """Read a net of ours, in float32 and ready for inference. Raises BadInput for any other file."""
    from safetensors.torch import load_file

    net = build(read_header(path)["config"])
    load_weights(net, load_file(path), path)
    return net.eval()


def load_weights(net: UNet, state: dict, name) -> None:
    """Copy a state dict into a net, by name; BadInput names the first tensor that is missing, unknown or misshapen."""
    mine = {key: value for key, value in net.state_dict().items() if not key.endswith("num_batches_tracked")}
    theirs = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    for key in (*mine, *theirs):
        if key not in theirs or key not in mine or mine[key].shape != theirs[key].shape:
            shapes = [tuple(side[key].shape) if key in side else "nothing" for side in (mine, theirs)]
            raise BadInput(f"{name} does not fit the net: {key} should be {shapes[0]} and is {shapes[1]}")
    net.load_state_dict({key: value.float() for key, value in theirs.items()}, strict=False)
