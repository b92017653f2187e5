import hashlib
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from films import write_frames
from safetensors.torch import save_file

from maskgen.errors import BadInput
from maskgen.extraction import raft
from maskgen.extraction.flow import both, flow_named, packages
from maskgen.extraction.run import extract
from maskgen.settings import ExtractConfig


class Brightness(torch.nn.Module):
    """Stands for RAFT: dx is the level of the first picture, and dy that of the second, times a weight."""

    def __init__(self, large):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.rand(1))
        if large:
            self.mask_predictor = torch.nn.ModuleDict({"conv": torch.nn.Conv2d(2, 2, 1)})

    def forward(self, first, second, num_flow_updates):
        assert min(first.shape[2:]) >= 128 and not any(side % 8 for side in first.shape[2:])
        flow = self.factor * torch.cat((first[:, :1], second[:, :1]), 1)
        return [flow * 0] * (num_flow_updates - 1) + [flow]


@pytest.fixture
def torchvision(monkeypatch):
    """A stand-in for torchvision, which need not be installed."""
    optical_flow = ModuleType("torchvision.models.optical_flow")
    for name, large in (("raft_large", True), ("raft_small", False)):
        setattr(optical_flow, name, lambda weights, progress, large=large: Brightness(large))
    models = ModuleType("torchvision.models")
    models.optical_flow = optical_flow
    for name, module in (("torchvision", ModuleType("torchvision")), ("torchvision.models", models)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "torchvision.models.optical_flow", optical_flow)
    raft._network.cache_clear()
    yield optical_flow
    raft._network.cache_clear()


@pytest.fixture
def weights(tmp_path):
    """A file with the weights of the stand-in for raft_small: the factor 3."""
    path = tmp_path / "raft small.pth"
    torch.save({"factor": torch.tensor([3.0])}, path)
    return path


@pytest.mark.parametrize("size", [(64, 64), (100, 141), (128, 136)])
def test_frames_of_any_size_are_extended_scaled_and_cropped_back(torchvision, weights, size):
    first, second = np.zeros((*size, 3), np.uint8), np.full((*size, 3), 255, np.uint8)
    first[10, 20] = 255  # black is -1 and white 1
    forward, backward = both(f"raft:{weights}", first, second)
    assert forward.shape == (*size, 2) and forward.dtype == np.float32
    assert forward[10, 20].tolist() == [3, 3] and forward[11, 20].tolist() == [-3, 3]
    assert backward[10, 20].tolist() == [3, 3] and backward[11, 20].tolist() == [3, -3]


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_the_weights_decide_between_the_large_and_the_small_network(torchvision, tmp_path, ending):
    for large in (True, False):
        path = tmp_path / f"{large}{ending}"
        (save_file if ending == ".safetensors" else torch.save)(Brightness(large).state_dict(), path)
        network, _ = raft._network(raft.weights_file(f"raft:{path}"))
        assert hasattr(network, "mask_predictor") == large


def test_the_recipe_holds_the_name_and_checksum_of_the_weights_but_no_path(torchvision, weights, tmp_path):
    film = write_frames(tmp_path / "film", 3)
    config = ExtractConfig(train=2, test=0, size=64, flow=f"raft:{weights}", noise=0, max_ratio=1)
    recipe = extract(film, tmp_path / "raw", config, workers=1, say=lambda line: None)
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert recipe["settings"]["flow"] == f"raft:raft small.pth, sha256 {sha256}, on {device}"
    assert recipe["libraries"]["torch"] == torch.__version__


def test_the_packages_of_the_recipe():
    assert packages("raft:any.pth") == ["torch", "torchvision", "safetensors"]


def test_raft_without_a_file_is_refused():
    with pytest.raises(BadInput, match="expected raft:FILE with the weights of torchvision's raft_large or raft_small"):
        flow_named("raft:")
    with pytest.raises(BadInput, match=r"no optical flow called 'raft'.*raft:FILE"):
        flow_named("raft")


def test_a_missing_file_is_refused():
    with pytest.raises(BadInput, match=r"no such file: nowhere\.pth"):
        flow_named("raft:nowhere.pth")


@pytest.mark.parametrize("name", ["raft.pth", "raft.safetensors"])
def test_a_file_of_another_kind_is_refused(torchvision, tmp_path, name):
    (tmp_path / name).write_bytes(b"not weights")
    with pytest.raises(BadInput, match=r"cannot read .*raft_large or raft_small"):
        flow_named(f"raft:{tmp_path / name}")


@pytest.mark.parametrize("contents", [{"other": torch.zeros(1)}, [1, 2], {"factor": 3}])
def test_weights_of_another_network_are_refused(torchvision, tmp_path, contents):
    torch.save(contents, tmp_path / "other.pth")
    with pytest.raises(BadInput, match="does not hold the weights of torchvision's raft_large or raft_small"):
        flow_named(f"raft:{tmp_path / 'other.pth'}")


def test_a_file_that_would_run_code_is_refused(torchvision, tmp_path):
    torch.save({"factor": print}, tmp_path / "code.pth")
    with pytest.raises(BadInput, match="cannot read"):
        flow_named(f"raft:{tmp_path / 'code.pth'}")


def test_without_torchvision_the_message_says_what_to_install(monkeypatch, weights):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.delitem(sys.modules, "torchvision.models", raising=False)
    monkeypatch.delitem(sys.modules, "torchvision.models.optical_flow", raising=False)
    raft._network.cache_clear()
    with pytest.raises(BadInput, match=r"needs torchvision.*pip install torchvision"):
        flow_named(f"raft:{weights}")


def test_random_weights_of_torchvision_give_a_finite_flow_and_repeat(tmp_path):
    optical_flow = pytest.importorskip("torchvision.models.optical_flow", exc_type=Exception)
    torch.manual_seed(0)
    torch.save(optical_flow.raft_small(weights=None).state_dict(), tmp_path / "small.pth")
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 100, 3), np.uint8)
    found = [np.stack(both(f"raft:{tmp_path / 'small.pth'}", *frames)) for _ in range(2)]
    assert found[0].shape == (2, 64, 100, 2) and np.isfinite(found[0]).all() and np.array_equal(*found)
