import pickle
from argparse import Namespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from maskgen.errors import BadInput
from pconv_model import checkpoints, foreign
from pconv_model.export import export
from pconv_model.layer import PartialConv2d
from pconv_model.settings import NetConfig, TrainConfig
from pconv_model.state import TrainingState
from pconv_model.unet import ConvUNet, PConvUNet

CHANNELS = [4, 8, 16, 32, 32, 32, 32, 32]  # a sixteenth of the paper's
KERNELS = [7, 5, 5, 3, 3, 3, 3, 3]


def scene(size=128):
    """An image in [0, 1] and a mask of large and small holes, 1 for valid, as (1, 3, H, W) and (1, 1, H, W)."""
    g = torch.Generator().manual_seed(5)
    valid = F.interpolate((torch.rand(1, 1, 8, 8, generator=g) < 0.6).float(), scale_factor=size // 8)
    return torch.rand(1, 3, size, size, generator=g), valid * (torch.rand(1, 1, size, size, generator=g) < 0.9)


class Foreign:
    """A U-Net of another repository, with random weights: a list of rows, encoder first, in its own layout."""

    def __init__(self, depth, biases, seed=0):
        self.depth, rng = depth, np.random.default_rng(seed)
        ins = [3, *CHANNELS[: depth - 1]]
        shapes = [(CHANNELS[i], ins[i], KERNELS[i]) for i in range(depth)]
        shapes += [(ins[i], CHANNELS[i] + ins[i], 3) for i in reversed(range(depth))]
        self.rows = []
        for i, (out, into, k) in enumerate(shapes):
            ends = i in (0, 2 * depth - 1)
            small = 0.03 if i == 2 * depth - 1 else 1  # an image about as bright as images are
            row = {"weight": rng.normal(0, small * (2 / into / k / k) ** 0.5, (out, into, k, k))}
            row["bias"] = rng.normal(0, 0.3, out) if biases == "all" or i in biases else None
            if not ends:
                row["bn"] = [
                    rng.uniform(0.5, 1.5, out),
                    rng.normal(0, 0.3, out),
                    rng.normal(0, 0.3, out),
                    rng.uniform(0.5, 2, out),
                ]
            self.rows.append({k: self._tensors(v) for k, v in row.items()})

    def _tensors(self, v):
        if isinstance(v, list):
            return [torch.tensor(x, dtype=torch.float32) for x in v]
        return None if v is None else torch.tensor(v, dtype=torch.float32)

    def run(self, x, mask, layer, join, eps=1e-5, last_leaky=False):
        """The forward pass with a mask channel for every feature channel, as they all do it."""
        skips = []
        for i, row in enumerate(self.rows):
            encoding = i < self.depth
            if encoding:
                skips.append((x, mask))
            else:
                up, up_mask = (F.interpolate(t, scale_factor=2, mode="nearest") for t in (x, mask))
                skip, skip_mask = skips.pop()
                x, mask = join(up, skip), join(up_mask, skip_mask)
            x, mask = layer(x, mask, row["weight"], row["bias"], 2 if encoding else 1)
            if "bn" in row:
                gamma, beta, mean, var = row["bn"]
                x = F.batch_norm(x, mean, var, gamma, beta, False, 0.0, eps)
            if encoding:
                x = F.relu(x)
            elif "bn" in row or last_leaky:
                x = F.leaky_relu(x, 0.2)
        return x


def up_first(up, skip):
    return torch.cat([up, skip], 1)


def skip_first(up, skip):
    return torch.cat([skip, up], 1)


def sums(mask, weight, stride):
    return F.conv2d(mask, torch.ones_like(weight), stride=stride, padding=weight.shape[-1] // 2)


def naoto_layer(x, mask, weight, bias, stride):
    output = F.conv2d(x * mask, weight, bias, stride, weight.shape[-1] // 2)
    shift = 0 if bias is None else bias.view(1, -1, 1, 1)
    total = sums(mask, weight, stride)
    empty = total == 0
    return ((output - shift) / total.masked_fill(empty, 1.0) + shift).masked_fill(empty, 0.0), (~empty).float()


def keras_layer(x, mask, weight, bias, stride):
    total = sums(mask, weight, stride)
    new = total.clamp(0, 1)
    ratio = weight.shape[-1] ** 2 / (total + 1e-8) * new
    output = F.conv2d(x * mask, weight, None, stride, weight.shape[-1] // 2)
    return output * ratio + bias.view(1, -1, 1, 1), new  # the bias is not masked


def nvidia_layer(x, mask, weight, bias, stride):
    window = weight[0].numel()
    total = sums(mask, weight, stride)
    new = total.clamp(0, 1)
    ratio = window / (total + 1e-8) * new
    raw = F.conv2d(x * mask, weight, bias, stride, weight.shape[-1] // 2)
    if bias is None:
        return raw * ratio, new
    return ((raw - bias.view(1, -1, 1, 1)) * ratio + bias.view(1, -1, 1, 1)) * new, new


def bn_entries(prefix, values):
    names = ("weight", "bias", "running_mean", "running_var")
    return {
        **{f"{prefix}.{n}": v for n, v in zip(names, values, strict=True)},
        f"{prefix}.num_batches_tracked": torch.tensor(7),
    }


def three(mask):
    return mask.expand(-1, 3, -1, -1)


def check(path, image, valid, wanted, form):
    net = foreign.read(path)  # the form is found by looking
    assert foreign.detect(path) == form and net.config.depth in (7, 8)
    with torch.no_grad():
        assert wanted.std() > 0.05 and (net(image, valid) - wanted).abs().max() <= 1e-4


def test_naoto0804s_checkpoint_gives_the_same_image(tmp_path):
    theirs = Foreign(7, biases=(13,))
    for row in theirs.rows:  # trained with 1 / sum(M), weights are larger by about the window
        row["weight"] *= row["weight"][0].numel() * 0.8
    state = {}
    for name, row in zip(
        [f"enc_{i}" for i in range(1, 8)] + [f"dec_{i}" for i in range(7, 0, -1)], theirs.rows, strict=True
    ):
        state[f"{name}.conv.input_conv.weight"] = row["weight"]
        state[f"{name}.conv.mask_conv.weight"] = torch.ones_like(row["weight"])
        if row["bias"] is not None:
            state[f"{name}.conv.input_conv.bias"] = row["bias"]
        if "bn" in row:
            state |= bn_entries(f"{name}.bn", row["bn"])
    torch.save({"n_iter": 1000000, "model": state, "optimizer": {}}, tmp_path / "1000000.pth")
    image, valid = scene()
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    wanted = theirs.run((image - mean) / std, three(valid), naoto_layer, up_first) * std + mean
    check(tmp_path / "1000000.pth", image, valid, wanted, "naoto0804")


def test_mmagics_checkpoint_gives_the_same_image_in_rgb(tmp_path):
    theirs, state = Foreign(7, biases=(0, 13)), {}
    names = [f"encoder.enc{i}" for i in range(1, 8)] + [f"decoder.dec{i}" for i in range(7, 0, -1)]
    for name, row in zip(names, theirs.rows, strict=True):
        state[f"generator.{name}.conv.weight"] = row["weight"]
        state[f"generator.{name}.conv.weight_mask_updater"] = torch.ones_like(row["weight"])
        if row["bias"] is not None:
            state[f"generator.{name}.conv.bias"] = row["bias"]
        if "bn" in row:
            state |= bn_entries(f"generator.{name}.bn", row["bn"])
    state["loss_percep.vgg.vgg_layers.0.weight"] = torch.rand(64, 3, 3, 3)
    hub = {"runtime_info": {"args": Namespace(resume=True), "seed": np.int64(3)}}  # as a training checkpoint has it
    torch.save({"meta": {"iter": 5}, "state_dict": state, "message_hub": hub}, tmp_path / "stage2.pth")
    assert checkpoints.provenance(tmp_path / "stage2.pth") == {}
    image, valid = scene()
    bgr = theirs.run(image.flip(1) * 2 - 1, three(valid), nvidia_layer, up_first)
    check(tmp_path / "stage2.pth", image, valid, (bgr.flip(1) + 1) / 2, "mmagic")


def test_pconv_keras_weights_give_the_same_image(tmp_path):
    h5py = pytest.importorskip("h5py")
    theirs, rng = Foreign(8, biases="all"), np.random.default_rng(1)
    for row in theirs.rows:  # the window is counted without channels, so trained weights are larger by about these
        row["weight"] *= row["weight"].shape[1] * 0.8
    head = (
        torch.tensor(rng.normal(0, 8, (3, 3, 1, 1)), dtype=torch.float32),
        torch.tensor(rng.normal(0, 0.1, 3), dtype=torch.float32),
    )
    with h5py.File(tmp_path / "pconv_imagenet.h5", "w") as file:
        file.attrs["backend"] = "tensorflow"

        def put(layer, weights):
            for name, value in weights.items():
                file[f"{layer}/{layer}/{name}:0"] = value.numpy()

        for i, row in enumerate(theirs.rows):  # the counters of a net that load() has rebuilt
            put(f"p_conv2d_{i + 17}", {"img_kernel": row["weight"].permute(2, 3, 1, 0), "bias": row["bias"]})
            if "bn" in row:
                names = ("gamma", "beta", "moving_mean", "moving_variance")
                layer = f"EncBN{i}" if i < 8 else f"batch_normalization_{i}"
                put(layer, dict(zip(names, row["bn"], strict=True)))
        put("outputs_img", {"kernel": head[0].permute(2, 3, 1, 0), "bias": head[1]})
    image, valid = scene(256)
    # their decoder kernels expect the skip first; Foreign draws (up, skip) shapes, which have the same total
    features = theirs.run(image, three(valid), keras_layer, skip_first, eps=1e-3, last_leaky=True)
    check(tmp_path / "pconv_imagenet.h5", image, valid, torch.sigmoid(F.conv2d(features, *head)), "keras")


def test_a_state_dict_of_nvidias_layers_is_read_in_order_with_any_names(tmp_path):
    theirs, state = Foreign(7, biases="all"), {}
    for i, row in enumerate(theirs.rows):
        state |= {f"module.down_or_up{i}.c.weight": row["weight"], f"module.down_or_up{i}.c.bias": row["bias"]}
        if "bn" in row:
            state |= bn_entries(f"module.down_or_up{i}.n", row["bn"])
    torch.save(state, tmp_path / "net.pth")
    image, valid = scene()
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    wanted = theirs.run((image - mean) / std, three(valid), nvidia_layer, up_first) * std + mean
    check(tmp_path / "net.pth", image, valid, wanted, "nvidia")


def test_weights_of_nvidias_layer_load_into_ours():
    torch.manual_seed(0)
    weight, bias = torch.randn(4, 3, 3, 3), torch.randn(4)
    layer = PartialConv2d(3, 4, 3, 2, 1)
    layer.load_state_dict({"weight": weight, "bias": bias})
    x, valid = torch.rand(1, 3, 9, 9), (torch.rand(1, 1, 9, 9) < 0.2).float()
    torch.testing.assert_close(layer(x, valid)[0], nvidia_layer(x, three(valid), weight, bias, 2)[0])


def test_our_format_keeps_weights_config_and_history(tmp_path):
    net = ConvUNet(0.1, 3, fill="mean").eval()
    history = [{"step": 1, "total": 0.5}]
    checkpoints.save(tmp_path / "net.safetensors", net, history=history, about={"photos": 8})
    again = foreign.read(tmp_path / "net.safetensors")
    image, valid = scene(32)
    assert again(image, valid).equal(net(image, valid)) and again.config == net.config
    header = checkpoints.read_header(tmp_path / "net.safetensors")
    assert header["history"] == history and header["about"] == {"photos": 8}


def test_a_network_saved_twice_gives_the_same_bytes(tmp_path):
    net = PConvUNet(0.05, 2)
    for name in range(6):
        checkpoints.save(tmp_path / str(name), net, history=[{"step": 1}], about={"photos": "Müller"})
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1
    assert checkpoints.read_header(tmp_path / "0")["about"] == {"photos": "Müller"}


def test_half_precision_halves_the_file_and_hardly_changes_the_result(tmp_path):
    net = PConvUNet(0.25, 4).eval()
    for name in ("full", "half"):
        checkpoints.save(tmp_path / name, net, half=name == "half")
    assert (tmp_path / "half").stat().st_size < 0.55 * (tmp_path / "full").stat().st_size
    image, valid = scene(32)
    assert (checkpoints.load(tmp_path / "half")(image, valid) - net(image, valid)).abs().max() < 0.02


def test_a_training_checkpoint_gives_its_averaged_net(tmp_path):
    run = TrainingState(NetConfig(width=0.05, depth=2), TrainConfig(), "cpu")
    run.average.encoder[0].conv.weight.data.fill_(0.25)
    run.save(tmp_path / "checkpoint.pt", {"net": vars(run.net.config), "train": {}, "loss": {}})
    assert foreign.read(tmp_path / "checkpoint.pt").encoder[0].conv.weight.unique().item() == 0.25


def filled(value):
    net = PConvUNet(0.05, 2)
    for number in net.state_dict().values():
        number.fill_(value)
    return net


def test_the_average_of_nets_is_the_mean_of_every_weight_and_statistic():
    mean = checkpoints.average(filled(value) for value in (1, 2, 6))
    for name, number in mean.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(number, torch.full_like(number, 3))


def test_the_average_of_weights_is_that_of_torch():
    nets = [PConvUNet(0.1, 3) for _ in range(4)]
    theirs = torch.optim.swa_utils.AveragedModel(nets[0], use_buffers=True)
    for net in nets:
        theirs.update_parameters(net)
    theirs = theirs.module.state_dict()
    for name, number in checkpoints.average(nets).state_dict().items():
        torch.testing.assert_close(number, theirs[name])


def test_nets_of_different_kinds_or_sizes_have_no_average():
    others = {"depth 2 and 3": PConvUNet(0.05, 3), "width 0.05 and 0.1": PConvUNet(0.1, 2), "conv": ConvUNet(0.05, 2)}
    for message, other in others.items():
        with pytest.raises(BadInput, match=f"one kind and size.* {message}"):
            checkpoints.average([filled(1), other])


def test_other_files_are_refused_in_one_line(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"no")
    (tmp_path / "b.pth").write_bytes(b"no")
    torch.save({"model": {"x": torch.ones(1)}}, tmp_path / "c.pth")
    torch.save({"enc_1.conv.input_conv.weight": torch.ones(4, 3, 7, 7)}, tmp_path / "d.pth")
    for name in ("a.safetensors", "b.pth", "c.pth", "d.pth", "missing.pth", "missing.safetensors"):
        with pytest.raises(BadInput, match=name.replace(".", r"\.")):
            foreign.read(tmp_path / name)


class Evil:
    """Pickles as a call of print, which stands for os.system."""

    def __reduce__(self):
        return (print, ("owned",))


def test_code_inside_a_checkpoint_is_never_run(tmp_path, capsys):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"state_dict": Evil()}))
    torch.save({"state_dict": Evil()}, tmp_path / "evil2.pth")
    torch.save({"state_dict": Evil()}, tmp_path / "evil3.pth", _use_new_zipfile_serialization=False)
    for name in ("evil.pth", "evil2.pth", "evil3.pth"):
        with pytest.raises(BadInput, match=name) as refused:
            foreign.read(tmp_path / name, "mmagic")
        assert "weights_only" not in str(refused.value)  # torch advises to switch it off
    assert "owned" not in capsys.readouterr().out


def exported(tmp_path, name):
    net = PConvUNet(0.05, 2, detail=3).eval()
    torch.nn.init.normal_(net.detail.last.weight)
    export(net, tmp_path / name)
    image, valid = torch.rand(1, 3, 20, 28), (torch.rand(1, 1, 20, 28) < 0.4).float()
    return tmp_path / name, image, valid, net(image, valid).detach()


def test_torch_export_takes_other_sizes(tmp_path):
    path, image, valid, wanted = exported(tmp_path, "net.pt2")
    torch.testing.assert_close(torch.export.load(path).module()(image, valid), wanted)


def test_onnx_gives_the_same_image_at_other_sizes(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path, image, valid, wanted = exported(tmp_path, "net.onnx")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(None, {"image": image.numpy(), "valid": valid.numpy()})[0]
    assert np.abs(found - wanted.numpy()).max() <= 1e-4


def test_the_net_compiles_in_one_graph():
    net, (image, valid) = PConvUNet(0.05, 2, detail=3), scene(16)
    torch.nn.init.normal_(net.detail.last.weight)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(image, valid), net(image, valid))
