"""Files of weights of GL and GntIpt, as mmagic, Lua Torch and TensorFlow write them."""

import base64
import struct

import numpy as np
import pytest
import torch
from rival_nets import GL_LAYERS, random_state, save

from evaluation.methods import parse_all
from evaluation.methods.rivals import tf_checkpoint, weights
from evaluation.methods.rivals.gl import GL
from evaluation.methods.rivals.gntipt import GntIpt
from maskgen.errors import BadInput


@pytest.mark.parametrize(("net", "count"), [("gl", 6_069_155), ("gntipt", 3_601_542)])
def test_files_of_mmagic_are_read(net, count, tmp_path):
    kind, read = {"gl": (GL, weights.read_gl), "gntipt": (GntIpt, weights.read_gntipt)}[net]
    state = random_state(kind())
    others = {"stage2.contextual_attention_neck.contextual_attention.fuse_kernel": torch.eye(3)[None, None]}
    save(state | (others if net == "gntipt" else {}), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    found = torch.load(tmp_path / "old.pth")
    found["state_dict"]["disc.conv.weight"] = torch.zeros(3)  # the discriminator's
    torch.save(found, tmp_path / "new.pth")
    for name in ("old.pth", "new.pth"):
        model = read(tmp_path / name)
        assert sum(parameter.numel() for parameter in model.parameters()) == count
        assert all((value == state[key]).all() for key, value in model.state_dict().items())
        assert model.dialect == "mmagic" and not model.training


def test_a_wrong_checkpoint_is_refused_with_its_keys(tmp_path):
    state = random_state(GL())
    save(state, tmp_path / "gl.pth")
    with pytest.raises(
        BadInput, match=r"gl.pth is not .* mmagic's deepfillv1: missing stage1.encoder.enc1.conv.weight, "
    ):
        weights.read_gntipt(tmp_path / "gl.pth")
    with pytest.raises(BadInput, match=r"and 81 more; unexpected encoder.enc1.conv.weight, .* and \d+ more$"):
        weights.read_gntipt(tmp_path / "gl.pth")
    state["encoder.enc1.conv.weight"] = torch.zeros(64, 4, 3, 3)
    del state["decoder.dec7.conv.bias"]
    save(state, tmp_path / "other.pth")
    message = r"missing decoder.dec7.conv.bias; misshapen encoder.enc1.conv.weight of shape \(64, 4, 3, 3\) instead of "
    with pytest.raises(BadInput, match=message):
        weights.read_gl(tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(BadInput, match=r"missing encoder.enc1"):
        weights.read_gl(tmp_path / "list.pth")
    (tmp_path / "text.pth").write_bytes(b"no checkpoint")
    with pytest.raises(BadInput, match=r"text.pth"):
        weights.read_gl(tmp_path / "text.pth")


class LuaWriter:
    """Writes what `torch.save` of Torch 7 writes, as its documentation describes it."""

    def __init__(self):
        self.data, self.index = bytearray(), 0

    def int(self, *values):
        self.data += struct.pack(f"<{len(values)}i", *values)

    def text(self, text):
        self.int(len(text))
        self.data += text.encode()

    def head(self, kind, name):
        self.index += 1
        self.int(kind, self.index)
        if name:
            self.text("V 1")
            self.text(name)

    def value(self, value):
        if isinstance(value, float):
            self.int(1)
            self.data += struct.pack("<d", value)
        elif isinstance(value, str):
            self.int(2)
            self.text(value)
        elif isinstance(value, dict):
            self.head(3, "")
            self.int(len(value))
            for pair in value.items():
                for part in pair:
                    self.value(part)
        elif isinstance(value, tuple):
            self.head(4, value[0])
            self.value(value[1])
        else:
            self.head(4, "torch.FloatTensor")
            self.int(value.ndim)
            steps = [step // 4 for step in value.strides]
            self.data += struct.pack(f"<{2 * value.ndim + 1}q", *value.shape, *steps, 1)
            self.head(4, "torch.FloatStorage")
            self.data += struct.pack("<q", value.size) + value.tobytes()


def as_torch7(state, mean, flat=False):
    """A `.t7` file of GL: a Sequential of two Sequentials."""
    layers = []
    for name in [*(row[0] for row in GL_LAYERS), "decoder.dec7"]:
        weight = state[f"{name}.conv.weight"].numpy()
        kind = "nn.SpatialConvolution" if weight.shape[2] != 4 else "nn.SpatialFullConvolution"
        weight = weight.reshape(len(weight), -1) if flat else weight
        layers.append(
            (kind, {"weight": weight, "bias": state[f"{name}.conv.bias"].numpy(), "gradInput": np.zeros(0, np.float32)})
        )
        if f"{name}.bn.weight" in state:
            parts = ("weight", "bias", "running_mean", "running_var")
            norm = {part: state[f"{name}.bn.{part}"].numpy() for part in parts}
            layers += [("nn.SpatialBatchNormalization", {"eps": 1e-5, **norm}), ("nn.ReLU", {"inplace": "true"})]
    halves = [
        ("nn.Sequential", {"modules": {float(i): layer for i, layer in enumerate(part, 1)}})
        for part in (layers[:9], [*layers[9:], ("nn.Sigmoid", {})])
    ]
    writer = LuaWriter()
    model = ("nn.Sequential", {"modules": {float(i): half for i, half in enumerate(halves, 1)}})
    writer.value({"model": model, "mean": mean})
    return bytes(writer.data)


@pytest.mark.parametrize("flat", [False, True])
def test_a_file_of_lua_torch_is_read(flat, tmp_path):
    state = random_state(GL("torch7"))
    mean = {1.0: 0.45, 2.0: 0.44, 3.0: 0.4} if flat else np.float32([0.45, 0.44, 0.4])
    (tmp_path / "net.t7").write_bytes(as_torch7(state, mean, flat))
    net = weights.read_gl(tmp_path / "net.t7")
    assert net.dialect == "torch7" and not net.training
    assert all((value == state[key]).all() for key, value in net.state_dict().items() if "num_batches" not in key)
    torch.testing.assert_close(net.mean.flatten(), torch.tensor([0.45, 0.44, 0.4]))


def test_other_or_damaged_files_of_lua_torch_are_one_line(tmp_path):
    path, writer = tmp_path / "net.t7", LuaWriter()
    conv = ("nn.SpatialConvolution", {"weight": np.zeros((64, 4, 5, 5), np.float32), "bias": np.zeros(5, np.float32)})
    writer.value({"model": ("nn.Sequential", {"modules": {1.0: conv}}), "mean": np.float32([0.45, 0.44, 0.4])})
    data, sides = bytes(writer.data), struct.pack("<4q", 64, 4, 5, 5)
    other = LuaWriter()
    other.value({"model": 1.0})
    cases = {
        data: r"encoder.enc1.conv.bias of shape \(64,\) is of shape \(5,\)",
        bytes(other.data): "expected a table of model and mean",
        b"4\n1\n3\nV 1\n": "cannot be read as a binary file of Torch 7",  # its ASCII form
        data[: len(data) // 2]: "cannot be read as a binary file of Torch 7",
        data.replace(sides, struct.pack("<4q", 64, 4, 5, 2**40)): "leads out of its storage",
        data.replace(sides, struct.pack("<4q", 64, 4, 5, -5)): "leads out of its storage",
        data.replace(struct.pack("<q", 6400), struct.pack("<q", 2**40)): "cannot be read as a binary file",
    }
    assert len(cases) == 7
    for case, message in cases.items():
        path.write_bytes(case)
        with pytest.raises(BadInput, match=message):
            weights.read_gl(path)


# Written by TensorFlow 2.21 (tf.compat.v1.train.Saver): inpaint_net/conv1/kernel (1, 2, 1, 3), inpaint_net/conv1/bias
# (2), discriminator/bias (1), all float32, and global_step, int64.
INDEX = (
    "000IE0U81b0RR#YWNC9_a%pX8Zeet9axY?OVRHxp5(E+g2mvSrHG!qtD*y`(XKZg`VQgP>bY*Y|2@(Jx1SkkKDFc`X02UExZg62~ZggL6WppoNZ*F!"
    "mFJft7a|i(v1QG%W0w4@12sOp8AyN_s9cyKBZe?r;0TK`r0tf*T0tf;U0tf*T0tf>j6et)qdh7M8000000RR910OpEVXaE2J00961006-9p|Ah}18M"
    "-E0RR9100961005>Z7MP_02(keW00000000000000000000000000000000000000000039}fQuw`N81"
)
NUMBERS = "004kL00000000000000#004l$004kL0000$002Nh004kM005vs006*1"


def tiny_checkpoint(folder):
    (folder / "snap-0.data-00000-of-00001").write_bytes(base64.b85decode(NUMBERS))
    (folder / "snap-0.index").write_bytes(base64.b85decode(INDEX))
    return folder / "snap-0.index"


def test_a_checkpoint_of_tensorflow_is_read_without_it(tmp_path):
    found = tf_checkpoint.read(tiny_checkpoint(tmp_path))
    assert sorted(found) == ["discriminator/bias", "inpaint_net/conv1/bias", "inpaint_net/conv1/kernel"]
    assert found["inpaint_net/conv1/kernel"].tolist() == [[[[1, 2, 3]], [[4, 5, 6]]]]
    assert found["inpaint_net/conv1/bias"].tolist() == [0.5, -1] and found["discriminator/bias"].tolist() == [1]
    assert list(tf_checkpoint.read(tmp_path / "snap-0.index", "disc")) == ["discriminator/bias"]


def test_other_or_damaged_checkpoints_of_tensorflow_are_one_line(tmp_path):
    index = tiny_checkpoint(tmp_path)
    with pytest.raises(BadInput, match=r"snap-0.data-00000-of-00001"):
        weights.read_gntipt(tmp_path / "snap-0.data-00000-of-00001")
    with pytest.raises(
        BadInput, match=r"missing stage1.encoder.enc2.conv.weight, .* 79 more; misshapen stage1.encoder.enc1"
    ):
        weights.read_gntipt(index)
    data = index.read_bytes()
    for i in range(0, len(data), 3):  # whatever it leads to
        index.write_bytes(data[:i] + bytes([data[i] ^ 0x5A]) + data[i + 1 :])
        try:
            tf_checkpoint.read(index)
        except BadInput as error:
            assert "cannot be read as a TensorFlow checkpoint" in str(error)
    index.write_bytes(data)
    (tmp_path / "snap-0.data-00000-of-00001").write_bytes(b"1234")
    with pytest.raises(BadInput, match="leads out of the data file"):
        tf_checkpoint.read(index)
    (tmp_path / "snap-0.data-00000-of-00001").unlink()
    with pytest.raises(BadInput, match=r"expected snap-0.data-00000-of-00001 beside it"):
        tf_checkpoint.read(index)


def test_tensorflows_names_become_ours(tmp_path, monkeypatch):
    state = random_state(GntIpt("tensorflow"))
    rows = {  # some of every kind, from the graph of generative_inpainting v1.0.0
        "conv1": "stage1.encoder.enc1",
        "conv4_downsample": "stage1.encoder.enc4",
        "conv7_atrous": "stage1.dilation_neck.dilation_convs.0",
        "conv13_upsample/conv13_upsample_conv": "stage1.decoder.dec3",
        "xconv3": "stage2.encoder_conv.enc3",
        "xconv10_atrous": "stage2.dilation_neck.dilation_convs.3",
        "pmconv4_downsample": "stage2.encoder_attention.enc4",
        "pmconv9": "stage2.contextual_attention_neck.conv1",
        "pmconv10": "stage2.contextual_attention_neck.conv2",
        "allconv15_upsample/allconv15_upsample_conv": "stage2.decoder.dec5",
        "allconv17": "stage2.decoder.dec7",
    }
    assert rows.items() <= weights.TENSORFLOW.items()
    found = {"inpaint_net/conv1/kernel/Adam": np.zeros(3)}
    for theirs, ours in weights.TENSORFLOW.items():
        found[f"inpaint_net/{theirs}/kernel"] = state[f"{ours}.conv.weight"].numpy().transpose(2, 3, 1, 0)
        found[f"inpaint_net/{theirs}/bias"] = state[f"{ours}.conv.bias"].numpy()
    monkeypatch.setattr(tf_checkpoint, "read", lambda path, prefix: found)
    net = weights.read_gntipt(tmp_path / "snap-0.index")
    assert net.dialect == "tensorflow"
    assert all((value == state[key]).all() for key, value in net.state_dict().items())
    found["inpaint_net/conv1/gate"] = np.zeros(3)
    with pytest.raises(BadInput, match=r"unexpected inpaint_net/conv1/gate$"):
        weights.read_gntipt(tmp_path / "snap-0.index")


def test_both_files_of_a_tensorflow_checkpoint_make_the_method(tmp_path):
    (method,) = parse_all(["gntipt"], [str(tiny_checkpoint(tmp_path))])
    before = method.identity()
    (tmp_path / "snap-0.data-00000-of-00001").write_bytes(base64.b85decode(NUMBERS)[:-1] + b"\1")
    assert {name for name, value in method.identity().items() if value != before[name]} == {"numbers"}
