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

from maskgen.errors import BadInput, install_hint

VARIABLE = "INCEPTION_WEIGHTS"


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
    import torch

    fidelity, file = _fidelity(), weights_file() and str(weights_file())
    try:
        if file:
            torch.load(
                file, map_location="cpu", weights_only=True
            )  # raises for a pickle with code, which torch-fidelity would run
        with contextlib.redirect_stdout(io.StringIO()):
            return fidelity.FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048"], feature_extractor_weights_path=file, verbose=False
            )
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise BadInput(
            f"Inception's weights cannot be loaded ({str(error).splitlines()[0]}): set {VARIABLE} to the path of "
            "torch-fidelity's file pt_inception-2015-12-05-6726825d.pth"
        ) from None


def features(image: np.ndarray) -> np.ndarray:
    """The 2048 features of Inception v3's last pooling, as FID's authors computed them. uint8 (H, W, 3)."""
    import torch

    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)[None]))
    with torch.inference_mode():
        return _network()(planes)[0][0].numpy()
