"""Networks that enlarge: their interpolation, their training, tiles and mirror, and the weights for each factor."""

from dataclasses import asdict, replace

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import cli
from evaluation.methods import load, parse
from evaluation.pairs import sparse
from maskgen.errors import BadInput
from pconv_model import checkpoints, inpaint, superres
from pconv_model.inpaint import Inpainter
from pconv_model.interpolation import interpolate
from pconv_model.settings import NetConfig, TrainConfig
from pconv_model.state import TrainingState
from pconv_model.tiles import tile_weights
from pconv_model.train import train
from pconv_model.unet import build


def net(factor=4, *, kind="pconv", seed=0, last=0.05, depth=2):
    """A small network that enlarges, with random weights also in its last layer, which starts at zero otherwise."""
    torch.manual_seed(seed)
    net = build(NetConfig(kind=kind, width=0.1, depth=depth, blocks=1, factor=factor)).eval()
    torch.nn.init.normal_(net.decoder[-1].conv.weight, std=last)
    return net


def photo(height, width, channels=3, dtype=np.uint8):
    """A smooth picture of random colours."""
    coarse = np.random.default_rng(0).random((height // 4 + 2, width // 4 + 2, channels))
    large = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR).reshape(height, width, channels)
    return (large * np.iinfo(dtype).max).astype(dtype)


def planes(small, factor):
    """The image and the plane of valid pixels that a network sees."""
    large, hole = superres.spread(small, factor)
    return torch.from_numpy(large).float().movedim(2, 0)[None], torch.from_numpy(~hole).float()[None, None]


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_the_interpolation_is_bicubic_also_at_the_edge(factor):
    small = photo(9, 12)
    ours = interpolate(*planes(small, factor), factor)[0].movedim(0, 2).numpy()
    size = (12 * factor, 9 * factor)
    bands = [Image.fromarray(small[..., i].astype(np.float32)) for i in range(3)]
    pillow = np.stack([np.asarray(band.resize(size, Image.Resampling.BICUBIC)) for band in bands], 2)
    assert np.abs(ours - pillow).max() < 0.01


@pytest.mark.parametrize("kind", ["pconv", "conv"])
def test_a_new_net_gives_the_interpolation_and_has_no_batch_norm(kind):
    new = build(NetConfig(kind=kind, width=0.1, depth=2, blocks=2, factor=4)).eval()
    image, valid = planes(photo(8, 12), 4)
    with torch.no_grad():
        out = new(image / 255, valid)
    assert torch.allclose(out, interpolate(image / 255, valid, 4), atol=1e-5)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in new.modules())


def test_residual_blocks_spread_the_mask_as_output_valid_says():
    valid = torch.zeros(1, 1, 64, 64)
    valid[..., 20, 20] = 1
    without, with_two = (build(NetConfig(width=0.1, depth=2, blocks=blocks)).eval() for blocks in (0, 2))
    seen = with_two.output_valid(valid)
    assert without.output_valid(valid).sum() < seen.sum() < 64 * 64
    with torch.no_grad():
        out = with_two(torch.rand(1, 3, 64, 64), valid)
    assert torch.allclose(out[..., seen[0, 0] == 0], with_two.mean.view(1, 3, 1))  # nothing is known there


def test_every_pixel_is_the_nets_own_as_a_known_one_is_the_mean_of_its_block():
    small = photo(9, 7)
    large = superres.superres(Inpainter(net(last=0.5), device="cpu"), small, 4)
    assert large.shape == (36, 28, 3) and (large[2::4, 2::4] != small).mean() > 0.5


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_with_the_mirror_a_mirrored_image_gives_the_mirrored_result(factor):
    # If the factor is even, a known pixel lies right of the centre of its block, and has to in the mirror too.
    inpainter, small = Inpainter(net(factor, last=0.3), device="cpu", mirror=True), photo(12, 16)
    there = superres.superres(inpainter, small, factor).astype(int)
    back = superres.superres(inpainter, np.ascontiguousarray(small[:, ::-1]), factor)[:, ::-1]
    assert np.abs(there - back).max() <= 1
    plain = superres.superres(replace(inpainter, mirror=False), small, factor)
    assert np.abs(there - plain).max() > 1


@pytest.mark.parametrize("unit", [3, 4])
def test_tiles_start_at_whole_blocks(unit):
    length, tile = 360 * unit, 129 * unit
    starts = [start for start, _ in tile_weights(length, tile, unit)]
    assert len(starts) > 2 and all(start % unit == 0 for start in starts) and starts[-1] + tile == length


@pytest.mark.parametrize("factor", [3, 4])
def test_an_image_in_tiles_is_enlarged_as_a_whole_one(factor):
    small, inpainter = photo(28, 100), Inpainter(net(factor), device="cpu")
    whole = superres.superres(inpainter, small, factor).astype(int)
    tiled = superres.superres(replace(inpainter, tile=240), small, factor)
    assert (whole.shape[1] + 239) // 240 > 1
    assert np.abs(whole - tiled).mean() < 0.1  # only pixels near the edge of a tile see less


@pytest.mark.parametrize(("channels", "dtype"), [(1, np.uint8), (3, np.uint16), (4, np.uint8)])
def test_grey_images_16_bits_and_alpha_stay_what_they_are(channels, dtype):
    small = photo(9, 7, channels, dtype)
    large = superres.superres(Inpainter(net(), device="cpu"), small, 4)
    assert large.dtype == dtype and large.shape == (36, 28, channels)
    if channels == 4:
        assert (large[..., 3] == superres.bicubic(small[..., 3], 4)).all()


def test_a_factor_for_which_a_net_was_not_trained_is_refused():
    with pytest.raises(BadInput, match="the network enlarges 4 times, got a factor of 2"):
        superres.superres(Inpainter(net(4), device="cpu"), photo(8, 8), 2)


# ---- training ----


def test_the_factor_of_the_training_becomes_that_of_the_net(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), photo(64, 64))
    config = TrainConfig(phase1_steps=1, phase2_steps=0, size=(32,), batch=(2,), factor=4, validation=1, hold_out=0)
    small = NetConfig(width=0.05, depth=2, blocks=1)
    weights = train([tmp_path], None, tmp_path / "out", net=small, config=config, device="cpu")
    header = checkpoints.read_header(weights)
    assert header["config"] == replace(small, factor=4)
    first = header["history"][0]
    assert first["valid"] == 0 < first["hole"]  # every pixel is to be found, also those that the net is shown
    with pytest.raises(BadInput, match=r"factor is 4 in \[net\] and 1 in \[train\]"):
        wrong = replace(small, factor=4)
        train([tmp_path], None, tmp_path / "other", net=wrong, config=replace(config, factor=1), device="cpu")


def test_a_checkpoint_from_before_blocks_and_factor_is_continued(tmp_path):
    config, small = TrainConfig(), NetConfig(width=0.05, depth=2)
    about = {"net": asdict(small), "train": {}, "loss": {}}
    before = {name: value for name, value in about["net"].items() if name not in ("blocks", "factor")}
    TrainingState(small, config, "cpu").save(tmp_path / "checkpoint.pt", {**about, "net": before})
    assert TrainingState(small, config, "cpu").load(tmp_path / "checkpoint.pt", about) == []


# ---- the weights for each factor ----


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with photos, and an installation whose weights enlarge 4 times or fill holes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(inpaint, "WEIGHTS", tmp_path / "weights")
    checkpoints.save(tmp_path / "weights" / "pconv-x4.safetensors", net(4))
    checkpoints.save(tmp_path / "weights" / "pconv.safetensors", build(NetConfig(width=0.05, depth=2)))
    (tmp_path / "photos").mkdir()
    cv2.imwrite("photos/a.png", photo(48, 64))
    return tmp_path


def call(command, *words):
    return CliRunner().invoke(command, list(map(str, words)))


def test_superres_takes_the_weights_of_its_factor(place):
    done = call(cli.pconv, "superres", "photos", "out", "--device", "cpu")
    assert done.exit_code == 0 and not done.stderr, done.output
    own = superres.superres(Inpainter(net(4), device="cpu"), cv2.imread("photos/a.png")[..., ::-1], 4)
    assert np.abs(cv2.imread("out/a_x4.png")[..., ::-1].astype(int) - own).max() <= 1


@pytest.mark.parametrize("words", [("--factor", 3), ("--kind", "conv")])
def test_where_no_weights_enlarge_so_far_those_that_there_are_are_named(place, words):
    done = call(cli.pconv, "superres", "photos", "out", *words)
    assert done.exit_code == 2 and done.output.count("\n") == 1 and not (place / "out").exists()
    assert "for a factor of" in done.output and "pconv-x4.safetensors" in done.output
    assert "`pconv train --factor" in done.output


def test_weights_that_enlarge_are_refused_for_filling_holes(place):
    cv2.imwrite("mask.png", np.eye(64, dtype=np.uint8)[:48] * 255)
    done = call(cli.pconv, "inpaint", "photos/a.png", "mask.png", "out", "--weights", "weights/pconv-x4.safetensors")
    assert done.exit_code == 2 and "enlarges images 4 times, expected one that fills holes" in done.output


def test_evaluate_superres_takes_the_weights_of_its_factor(place):
    words = ("--images", "photos", "--size", 48, "--metric", "psnr", "--method", "pconv", "--workers", 1)
    given = call(cli.evaluate, "superres", *words, "--weights", "weights/pconv-x4.safetensors", "--out", "out")
    assert given.exit_code == 0, given.output
    done = call(cli.evaluate, "superres", *words, "--out", "out")
    assert done.exit_code == 0 and "already complete" in done.output  # the same weights, by their contents
    refused = call(cli.evaluate, "superres", *words, "--factor", 2, "--out", "other")
    assert refused.exit_code == 2 and "pconv-x4.safetensors" in refused.stderr and not (place / "other").exists()
    own = load(replace(parse("pconv"), factor=4))("a", *sparse(small := photo(12, 16), 4))
    assert (own == superres.superres(Inpainter(net(4), device="cpu"), small, 4)).all()
