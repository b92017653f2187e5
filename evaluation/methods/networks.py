"""The networks of pconv_model as methods: pconv and conv, and pconv+ and conv+ with all scales and the mirror image."""

from pathlib import Path

import torch

from maskgen.runtime import files
from maskgen.runtime.recipe import library_versions
from pconv_model.inpaint import Inpainter, shipped_weights


class Network:
    """A network as a method; `fill_all` takes several images through it together.

    weights: None takes those that ship. raw: return the network's own pixels everywhere. options: `mirror` and `scales`
    of `pconv_model.inpaint.Inpainter`. factor: above 1, enlarge by it; a network that was trained for that gives all
    pixels, as in `pconv_model.superres.superres`. Raises BadInput where the weights are missing, or are of another kind
    of network.
    """

    def __init__(
        self, net: str, weights: Path | None, *, raw: bool, threads: int, options: dict[str, bool], factor: int = 1
    ):
        torch.set_num_threads(threads)
        self.inpainter = Inpainter.load(weights, net, factor=factor, device=device(), **options)
        self.raw = raw or self.inpainter.net.config.factor > 1

    def __call__(self, pair, image, hole):
        return self.fill_all([(pair, image, hole)])[0]

    def fill_all(self, pairs):
        """The results for [(pair id, image, hole), ...]."""
        _, images, holes = zip(*pairs, strict=True)
        return list(self.inpainter.fill_all(images, holes, self.raw))


def identity(net: str, weights: Path | None, options: dict[str, bool], factor: int = 1) -> dict:
    """The hash of the weights, the options, PyTorch's version and the device, for recipe.json.

    Raises BadInput where the weights are missing.
    """
    weights = weights or shipped_weights(net, factor)
    return {"method": net, "weights": files.sha256(weights), **options, **library_versions("torch"), "device": device()}


def device() -> str:
    """Where networks run: "cuda" where PyTorch has a graphics card, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"
