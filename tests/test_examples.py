"""The programs in `examples/`, served to a run with a toy model."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_run import folders, score

EXAMPLES = Path(__file__).parents[1] / "examples"
NETWORK = """
import torch

class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.level = torch.nn.Parameter(torch.zeros(1))

    def forward(self, image, hole):
        print("words on stdout")
        return image * (1 - hole) + self.level * hole
"""
DIFFUSERS = """
# Stands for the library: a pipeline that fills with a grey level drawn from the pair's generator.
import torch
from types import SimpleNamespace
from PIL import Image

class AutoPipelineForInpainting:
    @classmethod
    def from_pretrained(cls, name):
        assert name == "my/model", name
        return cls()

    def to(self, device):
        print("Loading pipeline components...")
        return self

    def __call__(self, prompt, *, image, mask_image, generator, width, height):
        assert image.mode == "RGB" and mask_image.mode == "L" and width % 8 == height % 8 == 0
        level = int(torch.randint(100, 200, (1,), generator=generator))
        return SimpleNamespace(images=[Image.new("RGB", (width, height), (level,) * 3)])
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Scores an example with files beside it on four pairs; returns the scores."""
    folders(tmp_path)
    for path in EXAMPLES.glob("*.py"):
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def score_with(line, files, methods=(), out="out"):
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        return score(tmp_path, [f"served=serve:{sys.executable} {line}", *methods], out=out)

    return score_with


def test_a_torch_network_is_served(run, tmp_path):
    torch.save({"level": torch.full((1,), 128 / 255)}, tmp_path / "weights.pth")
    scores = run("serve_torch.py weights.pth", {"network.py": NETWORK}, ["grey"])
    served, grey = (scores[scores["method"] == name]["psnr"].to_numpy() for name in ("served", "grey"))
    assert (served == grey).all() and np.isfinite(served).all()


def test_a_diffusion_pipeline_is_served_and_repeats_its_results(run):
    first = run("serve_diffusers.py my/model", {"diffusers.py": DIFFUSERS})
    assert (first["error"] == "").all() and first["psnr"].nunique() == 4
    second = run("serve_diffusers.py my/model", {}, out="again")
    assert second.equals(first)


@pytest.mark.parametrize("name", ["serve_torch.py", "serve_diffusers.py"])
def test_an_example_is_short(name):
    assert len((EXAMPLES / name).read_text().splitlines()) <= 25
