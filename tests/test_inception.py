"""FID and KID by torch-fidelity, its weights from a file, and the cache of features."""

import importlib.util
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation import metrics
from evaluation.metrics import feature_cache, inception
from maskgen.errors import BadInput, InputWarning

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)


# Not among the other packages: torchmetrics cannot be imported beside a torch-fidelity without torchvision.
BESIDE = Path(sys.prefix, "torch-fidelity")


@pytest.fixture(scope="module")
def fidelity():
    """torch-fidelity. Where no torchvision fits torch, empty modules stand for it: Inception and FID do not use it."""
    with pytest.MonkeyPatch.context() as patch:
        if BESIDE.is_dir():
            patch.syspath_prepend(BESIDE)
        if not importlib.util.find_spec("torch_fidelity"):
            pytest.skip(f"pip install --no-deps --target {BESIDE} torch-fidelity")
        try:
            import torchvision  # noqa: F401
        except (ImportError, RuntimeError):
            for name in names_of("torchvision"):
                patch.delitem(sys.modules, name)
            stand_in_for_torchvision(patch)
        import torch_fidelity

        yield torch_fidelity
    for name in names_of("torch_fidelity"):
        del sys.modules[name]


def names_of(package):
    """The modules of a package that are loaded."""
    return [name for name in sys.modules if name.split(".")[0] == package]


def stand_in_for_torchvision(patch):
    """Empty modules under the names that torch-fidelity imports."""
    names = ("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.transforms.functional")
    modules = {name: types.ModuleType(name) for name in names}
    for name, module in modules.items():
        patch.setitem(sys.modules, name, module)
    modules["torchvision.transforms"].functional = modules["torchvision.transforms.functional"]
    for name in ("CIFAR10", "CIFAR100", "STL10"):
        setattr(modules["torchvision.datasets"], name, object)


@pytest.fixture(scope="module")
def network(fidelity):
    """Inception v3 with random weights."""
    with pytest.MonkeyPatch.context() as patch:
        module = sys.modules["torch_fidelity.feature_extractor_inceptionv3"]
        patch.setattr(module, "load_state_dict_from_url", lambda *url, **options: {})
        patch.setattr(torch.nn.Module, "load_state_dict", lambda self, state: None)
        torch.manual_seed(0)
        return fidelity.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], verbose=False)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No network of an earlier test, and no variables of the user."""
    for variable in (inception.VARIABLE, feature_cache.VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    inception._network.cache_clear()
    inception._identity.cache_clear()
    yield
    inception._network.cache_clear()
    inception._identity.cache_clear()


def save(state, path, monkeypatch):
    """Save weights, and name their file in the environment."""
    torch.save(state, path)
    monkeypatch.setenv(inception.VARIABLE, str(path))


def test_the_weights_are_read_from_the_file(network, tmp_path, monkeypatch):
    save(network.state_dict(), tmp_path / "random.pth", monkeypatch)
    with pytest.warns(InputWarning, match=r"random.pth is not the file behind published FIDs"):
        found = inception.features(IMAGE)
    with torch.inference_mode():
        expected = network(torch.from_numpy(IMAGE.transpose(2, 0, 1)[None].copy()))[0][0]
    assert found.shape == (2048,) and found.std() > 0
    np.testing.assert_array_equal(found, expected)


def test_a_file_without_batch_counters_is_read_as_well(network, tmp_path, monkeypatch):
    state = {name: value for name, value in network.state_dict().items() if "num_batches_tracked" not in name}
    save(state, tmp_path / "old.pth", monkeypatch)
    with pytest.warns(InputWarning):
        metrics.check(["fid"])


@pytest.mark.parametrize(
    ("state", "complaint"),
    [
        ({"fc.weight": torch.zeros(1)}, "has other layers than FID's Inception v3"),
        ([1, 2], "has other layers than FID's Inception v3"),
        (torch.nn.Linear(1, 1), "is not a file of weights alone"),
    ],
)
def test_other_weights_are_refused_in_one_line(fidelity, state, complaint, tmp_path, monkeypatch):
    save(state, tmp_path / "other.pth", monkeypatch)
    with pytest.raises(BadInput, match=complaint) as error:
        metrics.check(["fid"])
    assert "\n" not in str(error.value) and "weights-inception-2015-12-05-6726825d.pth" in str(error.value)


def test_a_missing_or_broken_file_is_named(fidelity, tmp_path, monkeypatch):
    monkeypatch.setenv(inception.VARIABLE, str(tmp_path / "none.pth"))
    with pytest.raises(BadInput, match=r"cannot be read \(.*none.pth"):
        metrics.check(["kid"])
    (tmp_path / "none.pth").write_bytes(b"no weights")
    with pytest.raises(BadInput, match="is not a file of weights alone"):
        metrics.check(["kid"])


def test_fid_of_two_shifted_clouds_is_the_squared_shift(fidelity):
    cloud = np.random.default_rng(0).normal(size=(50, 4))
    assert inception.fid(cloud + [3, 0, 0, 4], cloud) == pytest.approx(25, rel=1e-6)
    assert np.isnan(inception.fid(cloud[:1], cloud[:1])) and np.isnan(inception.kid(cloud[:1], cloud[:1]))


def test_kid_is_the_unbiased_distance_of_the_cubic_kernel(fidelity):
    x, y = np.random.default_rng(0).normal(size=(2, 30, 4))
    y = y + 1

    def kernel(a, b):
        return (a @ b.T / 4 + 1) ** 3

    def within(a):
        values = kernel(a, a)
        return (values.sum() - np.trace(values)) / (30 * 29)

    expected = within(x) + within(y) - 2 * kernel(x, y).mean()
    assert inception.kid(x, y) == pytest.approx(1000 * expected, rel=1e-6)


# The cache


def mean_colour(image):
    """Three features."""
    return image.mean((0, 1)).astype(np.float32)


def counted(calls):
    """`mean_colour` that notes its calls."""
    return lambda image: calls.append(1) or mean_colour(image)


def test_features_are_computed_once_for_all_runs(tmp_path, monkeypatch):
    monkeypatch.setenv(feature_cache.VARIABLE, str(tmp_path / "new" / "cache"))
    calls = []
    for _ in range(2):
        found = feature_cache.cached(counted(calls), IMAGE, lambda: "a")
        np.testing.assert_array_equal(found, mean_colour(IMAGE))
        assert found.dtype == np.float32
    assert len(calls) == 1
    assert len(list(tmp_path.glob("new/cache/??/*.safetensors"))) == 1


def test_another_image_shape_or_network_has_features_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv(feature_cache.VARIABLE, str(tmp_path))
    calls = []
    feature_cache.cached(counted(calls), IMAGE, lambda: "a")
    feature_cache.cached(counted(calls), IMAGE, lambda: "b")
    feature_cache.cached(counted(calls), IMAGE.reshape(50, 40, 3), lambda: "a")
    feature_cache.cached(counted(calls), 255 - IMAGE, lambda: "a")
    assert len(calls) == 4


@pytest.mark.parametrize("damage", [b"", b"no array", None])
def test_a_damaged_file_is_replaced(damage, tmp_path, monkeypatch):
    monkeypatch.setenv(feature_cache.VARIABLE, str(tmp_path))
    feature_cache.cached(mean_colour, IMAGE, lambda: "a")
    (file,) = tmp_path.glob("??/*.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[:-5] if damage is None else damage)
    np.testing.assert_array_equal(feature_cache.cached(mean_colour, IMAGE, lambda: "a"), mean_colour(IMAGE))
    assert file.read_bytes() == whole


def test_a_folder_that_cannot_be_made_is_refused_and_a_full_disk_is_not(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(feature_cache.VARIABLE, str(tmp_path / "file"))
    with pytest.raises(BadInput, match=r"^INCEPTION_CACHE is .*file, which cannot be a folder"):
        feature_cache.cached(mean_colour, IMAGE, lambda: "a")
    monkeypatch.setenv(feature_cache.VARIABLE, str(tmp_path / "cache"))

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(feature_cache.files, "write_whole", full)
    with pytest.warns(InputWarning, match=r"not kept in .*cache \(No space left on device\)"):
        found = feature_cache.cached(mean_colour, IMAGE, lambda: "a")
    np.testing.assert_array_equal(found, mean_colour(IMAGE))


def test_runs_at_the_same_time_share_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(feature_cache.VARIABLE, str(tmp_path))
    barrier = threading.Barrier(4)

    def fill(_):
        barrier.wait()
        images = [np.full((8, 8, 3), i, np.uint8) for i in range(50)]
        return [feature_cache.cached(mean_colour, image, lambda: "a")[0] for image in images]

    with ThreadPoolExecutor(4) as runs:
        assert list(runs.map(fill, range(4))) == [list(range(50))] * 4
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 50  # and no temporary ones


def test_the_features_of_other_weights_are_not_mixed_up(monkeypatch, tmp_path):
    identities = []
    for weights in (b"a", b"b"):
        (tmp_path / "weights").write_bytes(weights)
        monkeypatch.setenv(inception.VARIABLE, str(tmp_path / "weights"))
        inception._identity.cache_clear()
        identities.append(inception._identity())
    assert identities[0] != identities[1]
