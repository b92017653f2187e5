"""How a network in a file takes images and masks, and the options that say so: `--range`, `--white` and `--bgr`."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

from maskgen.errors import BadInput

KINDS = ("onnx", "torchscript", "exported")  # of methods that these options apply to
WHITE = ("hole", "valid")
Option = Mapping[str, Any] | Iterable[Any] | bool  # as `read` describes it


@dataclass(frozen=True)
class Conventions:
    """What a network in a file expects. Its output has the range and the channels of its image."""

    range: tuple[float, float] = (0.0, 1.0)  # floats of a black and of a white pixel
    white: str = ""  # what 1 means in the mask, one of WHITE; empty: valid for an input of that name, else hole
    bgr: bool = False  # blue comes first

    def recorded(self) -> dict:
        """What differs from the defaults, for recipe.json."""
        found = {"range": list(self.range)} if self.range != Conventions.range else {}
        return found | ({"white": self.white} if self.white else {}) | ({"bgr": True} if self.bgr else {})


def read(labels: list[str], range: Option, white: Option, bgr: Option) -> dict[str, Conventions]:
    """The conventions of each network in a file, by label.

    labels: of these methods. range, white, bgr: one value for all of them, such as (-1, 1), "valid" and True; or a dict
    of label -> value; or texts as the command takes them, `VALUE` or `LABEL=VALUE`, for bgr "" or a label. Raises
    BadInput for values that are not valid, and for labels of other methods.
    """
    found = dict.fromkeys(labels, Conventions())
    for name, values in (("range", range), ("white", white), ("bgr", bgr)):
        option = f"--{name}"
        given = [_label_and_value(option, text, labels) for text in _texts(values)]
        for label, value in sorted(given, key=lambda item: item[0] != ""):  # a label is nearer than all
            for each in [label] if label else labels:
                found[each] = replace(found[each], **{name: _value(option, value)})
    return found


def _texts(values):
    """Values as the command takes them."""
    if isinstance(values, bool):  # of bgr
        return [""] if values else []
    if isinstance(values, Mapping):
        return [f"{label}={text}" for label, value in values.items() for text in _texts(value)]
    if isinstance(values, str):
        return [values]
    numbers = [isinstance(value, Real) for value in values]
    return [",".join(map(str, values))] if numbers and all(numbers) else list(values)


def _label_and_value(option, text, labels):
    """The label, "" for all methods, and the value."""
    if not labels:
        files = " or ".join(f"{kind}:FILE" for kind in KINDS)
        raise BadInput(f"{option} {text}".rstrip() + f" is for networks in files: expected a method {files}")
    label, equals, value = text.partition("=")
    if option == "--bgr":
        label, equals = label, label  # a label without a value
    if not equals:
        return "", text
    if label not in labels:
        raise BadInput(f"{option} {text}: no network in a file is called {label}, expected {' or '.join(labels)}")
    return label, value


def _value(option, text):
    if option == "--bgr":
        return True
    if option == "--white":
        if text not in WHITE:
            raise BadInput(f"--white {text}: expected hole or valid, what 1 means in the mask of the network")
        return text
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = math.nan
    if not (low < high and math.isfinite(low) and math.isfinite(high)):
        raise BadInput(f"--range {text}: expected the values of black and white as LOW,HIGH, such as -1,1")
    return low, high
