"""Metrics of sets of images: FID and KID by torch-fidelity, on the features of its Inception v3.

torch-fidelity imports torchvision, and downloads the network's weights unless the environment variable
`INCEPTION_WEIGHTS` names the file.
"""

import contextlib
import io
import os
import pickle
from functools import cache
from pathlib import Path

import numpy as np

from evaluation.metrics import feature_cache
from maskgen.errors import BadInput, install_hint, warn
from maskgen.runtime import files
from maskgen.runtime.recipe import library_versions

VARIABLE = "INCEPTION_WEIGHTS"
# One file under two names, which state how its SHA-256 begins.
SHA256 = "6726825d"
PUBLISHED = (
    f"weights-inception-2015-12-05-{SHA256}.pth of torch-fidelity, or pt_inception-2015-12-05-{SHA256}.pth of "
    "pytorch-fid"
)


def fid(results: np.ndarray, truths: np.ndarray) -> float:
    """Fréchet Inception Distance (Heusel et al. 2017) of two sets of features, float (N, D); nan for N < 2.

    It falls with N: compare values of equal N only.
    """
    import torch

    _fidelity()
    from torch_fidelity import metric_fid

    if len(results) < 2:
        return np.nan
    sides = [
        metric_fid.fid_features_to_statistics(torch.from_numpy(np.array(side, np.float64)))
        for side in (results, truths)
    ]
    return float(metric_fid.fid_statistics_to_metric(*sides, False)[metric_fid.KEY_METRIC_FID])


def kid(results: np.ndarray, truths: np.ndarray) -> float:
    """Kernel Inception Distance (Bińkowski et al. 2018) of two sets of features, float (N, D); nan for N < 2.

    1000 times the unbiased squared MMD with the cubic kernel over all pairs, without subsets.
    """
    import torch

    _fidelity()
    from torch_fidelity import metric_kid

    if len(results) < 2:
        return np.nan
    sides = [torch.from_numpy(np.array(side, np.float64)) for side in (results, truths)]
    found = metric_kid.kid_features_to_metric(*sides, kid_subsets=1, kid_subset_size=len(results), verbose=False)
    return 1000 * float(found[metric_kid.KEY_METRIC_KID_MEAN])


def _fidelity():
    try:
        import torch_fidelity
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that does not fit torch
        raise BadInput(
            f"FID and KID need torch-fidelity and a torchvision that fits your torch ({error}): "
            f"{install_hint('inception')}"
        ) from None
    return torch_fidelity


def weights_file() -> Path | None:
    """The file that the environment variable names, or None: torch-fidelity downloads its own."""
    return Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None


@cache
def _network():
    """The network. Raises BadInput where its weights cannot be read, and warns of weights that are not FID's."""
    import torch

    fidelity, file = _fidelity(), weights_file()
    hint = f"set {VARIABLE} to the path of {PUBLISHED}"
    try:
        if file:  # raises for a pickle with code, which torch-fidelity would run
            torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise BadInput(f"{file} is not a file of weights alone: {hint}") from None
    except (OSError, RuntimeError, EOFError) as error:
        raise BadInput(f"Inception's weights cannot be read ({str(error).splitlines()[0]}): {hint}") from None
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            network = fidelity.FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048"], feature_extractor_weights_path=file and str(file), verbose=False
            )
    except OSError as error:
        raise BadInput(f"Inception's weights cannot be downloaded ({error}): {hint}") from None
    except (RuntimeError, TypeError):
        raise BadInput(f"{file} has other layers than FID's Inception v3: {hint}") from None
    if file and not files.sha256(file).startswith(SHA256):
        warn(f"{file} is not the file behind published FIDs: compare its FID and KID among themselves only")
    return network


@cache
def _identity():
    """All that decides the features of an image, besides the image."""
    import torch

    file = weights_file()
    weights = files.sha256(file) if file else "torch-fidelity's own"
    versions = library_versions("torch-fidelity", "torch")
    return f"inception-v3-compat 2048, {versions}, {torch.backends.cpu.get_cpu_capability()}, weights {weights}"


def features(image: np.ndarray) -> np.ndarray:
    """The 2048 features of Inception v3's last pooling, as FID's authors computed them. uint8 (H, W, 3), any size.

    The network resizes the image to 299 x 299, whatever its shape, by bilinear interpolation without antialiasing, as
    TensorFlow 1 did. See `feature_cache` for keeping features on disk.
    """
    return feature_cache.cached(_features, image, _identity)


def _features(image):
    import torch

    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)[None]))
    with torch.inference_mode():
        return _network()(planes)[0][0].numpy()
