"""Call a method on pairs and check what it returns: a uint8 image, or a message that says what is wrong with it."""

import contextlib
from collections.abc import Callable

import numpy as np

from evaluation.methods.errors import Failed
from maskgen.errors import BadInput

OVERSHOOT = 255  # grey levels by which a result in 0..255 may leave its range, as with a filter that overshoots
DARK = 4  # a result whose highest grey level is at most this is most likely in 0..1 or -1..1


def fill_all(function: Callable, pairs: list[tuple]) -> list[np.ndarray | str]:
    """Results or error messages for [(pair id, image, hole), ...], in one call where the method has `fill_all`."""
    if len(pairs) > 1 and hasattr(function, "fill_all"):
        with contextlib.suppress(Exception):  # one by one below, which shows the pair that fails
            results = function.fill_all(pairs)
            return [check_result(result, image.shape) for result, (_, image, _) in zip(results, pairs, strict=True)]
    return [fill_one(function, *pair) for pair in pairs]


def fill_one(function: Callable, pair: str, image: np.ndarray, hole: np.ndarray) -> np.ndarray | str:
    """The checked result of a method for one pair, or an error message: an exception costs this pair only."""
    try:
        return check_result(function(pair, image, hole), image.shape)
    except (Failed, BadInput) as error:
        return f"{error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def check_result(result, shape: tuple[int, ...]) -> np.ndarray | str:
    """The result as a uint8 array of the shape, or a message that says why it cannot be used.

    Other integers and floats are taken as grey levels 0..255. A result in another range, such as floats in 0..1, is
    refused: it would be black or white.
    """
    result = np.asarray(result)
    if result.shape != shape:
        return f"the result is {_shape_text(result.shape)}, expected {_shape_text(shape)}"
    if result.dtype == np.uint8:
        return np.ascontiguousarray(result)
    if result.dtype.kind not in "iuf":
        return f"the result is of type {result.dtype}, expected uint8"
    if not np.isfinite(result).all():
        return "the result holds NaN or infinite values"
    low, high = result.min(), result.max()
    if low < -OVERSHOOT or high > 255 + OVERSHOOT or (0 < high <= DARK) or (low < 0 and high <= DARK):
        return (
            f"the result is {result.dtype} from {float(low):g} to {float(high):g}, "
            "expected uint8 or numbers from 0 to 255: scale it in the method"
        )
    return result.round().clip(0, 255).astype(np.uint8)


def _shape_text(shape):
    return " x ".join(map(str, shape)) or "a number"
