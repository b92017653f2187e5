"""GL and GntIpt against forward passes written once more, from the tables of their papers, on random weights."""

from functools import partial

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rival_nets import GL_LAYERS, HOLE, IMAGE, as_planes, random_state, save, with_random_weights
from small_run import photo

from evaluation.methods import load, parse_all
from evaluation.methods.errors import Failed
from evaluation.methods.process import WorkerProcess
from evaluation.methods.rivals import inference
from evaluation.methods.rivals.gl import GL, blend
from evaluation.methods.rivals.gntipt import GntIpt, contextual_attention, nearest
from maskgen.errors import BadInput
from maskgen.runtime import files


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
    fill = partial(inference.fill, with_random_weights(GntIpt(dialect)))
    assert fill(photo(1, 96), LINES).std() > 1
    assert fill(IMAGE, np.ones_like(HOLE)).std() > 1


@pytest.mark.parametrize(("net", "dialect"), [(GL, "mmagic"), (GntIpt, "mmagic"), (GntIpt, "tensorflow")])
@pytest.mark.parametrize("size", [(1, 1), (3, 90), (62, 85)])
def test_images_of_any_size_come_back_at_their_size(net, dialect, size):
    image, hole = photo(2, 96)[: size[0], : size[1]], np.zeros(size, bool)
    hole[: size[0] // 2] = True
    assert inference.fill(with_random_weights(net(dialect)), image, hole).shape == (*size, 3)


def test_the_padding_is_a_mirror_below_and_at_the_right():
    image, hole = inference.padded(
        np.arange(15, dtype=np.uint8).reshape(1, 5, 3), np.array([[True, False] * 2 + [True]]), 4, 4
    )
    assert image.shape == (4, 8, 3)
    assert (image[:, 5:] == image[:, 4:1:-1]).all() and (image == image[:1]).all()
    assert hole.tolist() == [[True, False, True, False, True, True, False, True]] * 4


def test_what_is_stored_in_the_hole_never_matters():
    other = IMAGE.copy()
    other[HOLE] = 200
    for net in (GL(), GL("torch7"), GntIpt(), GntIpt("tensorflow")):
        fill = partial(inference.fill, with_random_weights(net))
        assert (fill(IMAGE, HOLE) == fill(other, HOLE)).all()


def test_an_image_too_large_for_the_attention_is_one_failure():
    with pytest.raises(Failed, match=r"takes images of up to 1,048,576 px, got 1024x1032"):
        GntIpt().answer(torch.zeros(1, 3, 1024, 1032), torch.zeros(1, 1, 1024, 1032))


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


def test_gl_plain_and_blended_are_two_methods_with_one_file(tmp_path):
    save(random_state(GL()), tmp_path / "gl.pth")
    plain, blended = parse_all(["gl", "gl+post"], [f"gl={tmp_path / 'gl.pth'}"])
    first, second = plain.identity(), blended.identity()
    assert first["weights"] == second["weights"] == files.sha256(tmp_path / "gl.pth")
    assert {name for name in first if first[name] != second[name]} == {"post"}
    assert plain.serial and not plain.always_starts
    image = np.where(HOLE[..., None], np.uint8(0), IMAGE)
    answer = load(plain)("00000", image, HOLE)
    assert (answer[~HOLE] != image[~HOLE]).any()  # its own everywhere, for --raw
    composite = np.where(HOLE[..., None], answer, image)
    assert (load(blended)("00000", image, HOLE) == blend(composite, HOLE)).all()


def test_networks_without_weights_are_refused_before_any_work():
    for name in ("gl", "gl+post", "gntipt"):
        with pytest.raises(BadInput, match=rf"needs weights: --weights {name.split('+')[0]}=FILE"):
            parse_all([name])[0].identity()


def test_a_rival_works_in_a_process_of_its_own(tmp_path):
    save(random_state(GntIpt()), tmp_path / "net.pth")
    hand = WorkerProcess(parse_all(["gntipt"], [str(tmp_path / "net.pth")])[0])
    try:
        results = hand.fill([(name, IMAGE, HOLE) for name in ("00000", "00001")])
    finally:
        hand.close()
    assert results[0].shape == IMAGE.shape and (results[0] == results[1]).all()
    (tmp_path / "net.pth").write_bytes(b"none")
    with pytest.raises(BadInput, match=r"net.pth"):
        WorkerProcess(parse_all(["gl"], [str(tmp_path / "net.pth")])[0]).start()
