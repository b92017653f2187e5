"""Files of Lua Torch 7 (`.t7`, binary): tables, numbers, text and tensors; no code in them is run.

The format is described in torch7's documentation, "Serialization". No maintained package on PyPI reads it.
"""

import math
import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from maskgen.errors import BadInput

NIL, NUMBER, STRING, TABLE, TORCH, BOOLEAN = range(6)
FUNCTIONS = (7, 8)
TYPES = {"Byte": "u1", "Char": "i1", "Short": "<i2", "Int": "<i4", "Long": "<i8", "Float": "<f4", "Double": "<f8"}
TYPES |= {"Cuda": "<f4", "CudaDouble": "<f8"}


class Table(dict):
    """A Lua table, hashable because it can be a key of another table."""

    __hash__, __eq__ = object.__hash__, object.__eq__


@dataclass(eq=False)
class Object:
    """An object of a Lua class."""

    kind: str  # such as "nn.SpatialConvolution"
    fields: dict = field(default_factory=dict)


def read(path: Path):
    """The content of a `.t7` file: `Table` for tables, `Object` for objects, numpy arrays for tensors.

    Raises BadInput for a damaged file and for other files.
    """
    try:
        return _Reader(path.read_bytes()).value()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError, struct.error, OverflowError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read as a binary file of Torch 7: {error}") from None


class _Reader:
    def __init__(self, data):
        self.data, self.at, self.known = data, 0, {}

    def numbers(self, form):
        found = struct.unpack_from(f"<{form}", self.data, self.at)
        self.at += struct.calcsize(f"<{form}")
        return found

    def bytes(self):
        (length,) = self.numbers("i")
        if not 0 <= length <= len(self.data) - self.at:
            raise ValueError("a text that is longer than the file")
        self.at += length
        return self.data[self.at - length : self.at]

    def value(self):
        (kind,) = self.numbers("i")
        if kind == NIL:
            return None
        if kind == NUMBER:
            return self.numbers("d")[0]
        if kind == STRING:
            return self.bytes().decode("utf-8", "replace")
        if kind == BOOLEAN:
            return self.numbers("i")[0] == 1
        if kind not in (TABLE, TORCH, *FUNCTIONS):
            raise ValueError(f"unknown type {kind}")
        (index,) = self.numbers("i")
        if index not in self.known:
            self._remember(index, kind)
        return self.known[index]

    def _remember(self, index, kind):
        """Read an object that can be referenced again, also from within itself."""
        if kind == TABLE:
            table = self.known[index] = Table()
            for _ in range(*self.numbers("i")):
                key = self.value()
                table[key] = self.value()
        elif kind == TORCH:
            self._object(index)
        else:
            self.known[index] = None
            self.bytes()
            self.value()

    def _object(self, index):
        name = self.bytes().decode()
        if name.startswith("V "):  # a version comes first, except in very old files
            name = self.bytes().decode()
        package, _, kind = name.partition(".")
        if package == "torch" and kind.endswith("Storage"):
            dtype = np.dtype(TYPES[kind.removesuffix("Storage")])
            (length,) = self.numbers("q")
            self.known[index] = np.frombuffer(self.data, dtype, length, self.at) if length else np.empty(0, dtype)
            self.at += self.known[index].nbytes
        elif package == "torch" and kind.endswith("Tensor"):
            (axes,) = self.numbers("i")
            shape, steps = self.numbers(f"{axes}q"), self.numbers(f"{axes}q")
            (first,) = self.numbers("q")
            self.known[index] = _view(self.value(), shape, steps, first - 1)
        else:
            made = self.known[index] = Object(name)
            made.fields = self.value()


def _view(storage, shape, steps, first):
    """A tensor as a view of its storage. Raises ValueError where it does not fit inside."""
    if storage is None or not shape or 0 in shape:
        return np.empty(0, np.float32)
    last = first + sum((side - 1) * step for side, step in zip(shape, steps, strict=True))
    inside = min(first, *shape, *steps) >= 0 and last < len(storage)
    if not inside or math.prod(shape) > len(storage):
        raise ValueError("a tensor that leads out of its storage")
    strides = [step * storage.itemsize for step in steps]
    return np.lib.stride_tricks.as_strided(storage[first:], shape, strides, writeable=False)
