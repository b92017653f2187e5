"""What a device computes, compared with float64 on the CPU. `pytest tests/test_device.py --device cuda` tests CUDA."""

import copy

import cv2
import numpy as np
import pytest
import torch

from evaluation.methods import networks, parse_all, registry
from pconv_model import checkpoints, train
from pconv_model.extra_losses import windowed
from pconv_model.features import VGG16Features
from pconv_model.inpaint import Inpainter, shipped_weights
from pconv_model.layer import PartialConv2d
from pconv_model.objective import total_loss
from pconv_model.settings import LossConfig, NetConfig, TrainConfig
from pconv_model.unet import build

ALL_TERMS = LossConfig(ssim=1, near=1, checkerboard=1, smooth=1, balance=0.5, balance_vgg=0.5)


@pytest.fixture(autouse=True)
def full_float32():
    """Without TF32, whose 10 bits would hide errors."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def scene(size, batch=2):
    """Images and valid pixels with blocks of holes."""
    torch.manual_seed(0)
    valid = torch.nn.functional.interpolate((torch.rand(batch, 1, 8, 8) < 0.7).float(), scale_factor=size // 8)
    return torch.rand(batch, 3, size, size), valid


def assert_near(found, exact, tolerance=1e-4):
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.cpu().double(), exact, rtol=tolerance, atol=tolerance)


def test_layer(device):
    torch.manual_seed(0)
    layer, x = PartialConv2d(600, 8, 3, padding=1, branches=(256, 344)), torch.rand(2, 600, 12, 12)
    valid = (torch.rand(2, 2, 12, 12) < 0.3).float()
    valid[:, :, :5, :5] = 0
    exact, reached = copy.deepcopy(layer).double()(x.double(), valid.double())
    x = torch.where(
        torch.cat([valid[:, :1].expand(-1, 256, -1, -1), valid[:, 1:].expand(-1, 344, -1, -1)], 1) > 0, x, np.nan
    )
    y, new_valid = layer.to(device)(x.to(device), valid.to(device))
    assert_near(y.detach(), exact.detach())
    assert new_valid.cpu().equal(reached.float()) and 0 < new_valid.mean() < 1


@pytest.mark.parametrize("kind", ["pconv", "conv"])
def test_net(device, kind):
    torch.manual_seed(0)
    net, (image, valid) = build(NetConfig(kind=kind, width=0.1, depth=4, detail=4)), scene(64)
    torch.nn.init.normal_(net.detail.last.weight, std=0.1)
    results = []
    for each, dtype, place in ((copy.deepcopy(net), torch.float64, "cpu"), (net, torch.float32, device)):
        each.to(place, dtype, memory_format=torch.channels_last)
        out = each(image.to(place, dtype), valid.to(place, dtype))
        out.square().mean().backward()
        results.append((out.detach(), [p.grad for p in each.parameters()]))
    (exact, exact_slopes), (out, slopes) = results
    assert_near(out, exact, 1e-3)
    error = sum((a.cpu() - b).square().sum() for a, b in zip(slopes, exact_slopes, strict=True))
    assert error.sqrt() < 1e-3 * sum(b.square().sum() for b in exact_slopes).sqrt()


@pytest.mark.parametrize("half", [False, True])
def test_losses(device, half):
    torch.manual_seed(0)
    (truth, valid), out, vgg = scene(64), torch.rand(2, 3, 64, 64), VGG16Features()
    found = []
    for place, dtype in (("cpu", torch.float64), (device, torch.float32)):
        planes, there = [x.to(place, dtype) for x in (out, truth, valid)], copy.deepcopy(vgg).to(place, dtype)
        windows = windowed(there, planes[2], 32, np.random.default_rng(0))
        with torch.autocast(torch.device(place).type, torch.bfloat16, enabled=half and place is device):
            found.append(total_loss(*planes, windows, ALL_TERMS))
    exact, found = found
    assert found.keys() == exact.keys() and len(found) == 10
    for name, term in found.items():
        assert_near(term.detach(), exact[name].detach(), 0.05 if half else 1e-3)


class Square:
    """Every hole is the same square."""

    def __getitem__(self, i):
        hole = np.zeros((32, 32), bool)
        hole[8:24, 8:24] = True
        return hole


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training(device, precision, tmp_path):
    rng = np.random.default_rng(0)
    photos = [cv2.resize(rng.integers(0, 255, (4, 4, 3), np.uint8), (40, 40), interpolation=2) for _ in range(8)]
    np.save(tmp_path / "photos.npy", photos)
    steps = {"phase1_steps": 30, "phase2_steps": 10, "lr": (5e-3, 1e-3), "ema": 0.9}
    config = TrainConfig(**steps, precision=precision, size=(32,), batch=(8,), hold_out=0, validation=2)
    options = {"net": NetConfig(width=0.05, depth=2), "config": config}
    run = [tmp_path / "photos.npy"], Square(), tmp_path / "out"
    train.train(*run, device=device, time_limit=1e-6, **options)  # stopped after a step, and continued
    path = train.train(*run, device=device, log_every=10, **options)
    losses = [row["total"] for row in checkpoints.read_header(path)["history"] if "total" in row]
    assert len(losses) == 5 and losses[-1] < 0.7 * losses[1]


def filled_in_float64(net, image, hole):
    """A network's result in [0, 255], (H, W, 3)."""
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].double() / 255, torch.from_numpy(~hole)[None, None].double()
    with torch.no_grad():
        return copy.deepcopy(net).double()(*planes)[0].permute(1, 2, 0).clamp(0, 1).numpy() * 255


def test_inference(device):
    torch.manual_seed(0)
    net, rng = build(NetConfig(width=0.1, depth=4)).eval(), np.random.default_rng(0)
    net.decoder[-1].conv.weight.data *= 0.1
    image, hole = rng.integers(0, 255, (64, 64, 3), np.uint8), np.zeros((64, 64), bool)
    hole[10:50, 20:60] = True
    exact = filled_in_float64(net, image, hole)
    filled = Inpainter(net, device=device, scales=False)(image, hole)
    assert np.abs(filled - exact)[hole].max() < 0.6 and (filled[~hole] == image[~hole]).all()
    rough = Inpainter(net, device=device, scales=False, precision="bf16")(image, hole)
    assert 0 < np.abs(rough - exact)[hole].mean() < 4
    turned = filled_in_float64(net, image[:, ::-1].copy(), hole[:, ::-1].copy())[:, ::-1]
    inside = hole & (np.minimum(exact, turned).min(2) > 0) & (np.maximum(exact, turned).max(2) < 255)  # not clipped
    both = Inpainter(net, device=device, scales=False, mirror=True)(image, hole)
    assert inside.any() and np.abs(both - (exact + turned) / 2)[inside].max() < 0.6


def test_evaluation(device, monkeypatch):
    monkeypatch.setattr(networks, "device", lambda: device)
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 255, (8, 8, 3), np.uint8), (256, 256), interpolation=cv2.INTER_CUBIC)
    hole = np.zeros((256, 256), bool)
    hole[100:140, 60:200] = True
    (method,) = parse_all(("pconv",), ())
    fill = registry.load(method, threads=1, size=256)
    exact = filled_in_float64(checkpoints.load(shipped_weights()).eval(), image, hole)
    assert np.abs(fill("a pair", image, hole) - exact)[hole].max() < 0.6
