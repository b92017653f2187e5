"""Read tensors and plain values from files of `torch.save`, without running any code that they name."""

import io
import math
import pickle
import pickletools
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch

from maskgen.errors import BadInput, warn

ADVICE = "in the program that wrote it, save the weights only: torch.save(net.state_dict(), 'weights.pth')"
STORAGES = {  # names of storage classes, which stand for dtypes
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}


def torch_file(path: Path):
    """The contents of a `.pth`: tensors, and plain values such as dicts, lists, text and numbers.

    Other classes and functions, which training checkpoints of mmengine or Lightning name, are neither imported nor
    called: their objects are replaced by instances of `Placeholder`, with a warning. Raises BadInput for a damaged file
    or one of another kind.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # about pickle protocols that torch may refuse
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise BadInput(f"no such file: {path} (expected a checkpoint)") from None
    except Exception as error:  # torch raises errors of many types for damaged files
        if "TorchScript" in str(error):
            raise BadInput(f"{path} is a TorchScript archive, which contains code: {ADVICE}") from None
    try:
        contents, unknown = _read(path)
    except Exception:  # as above
        raise BadInput(f"{path} cannot be read as tensors and plain values: it is damaged or of another kind") from None
    if isinstance(contents, Placeholder) and not contents:
        raise BadInput(f"{path} holds an object ({unknown[0][:80]!r}) instead of tensors and plain values: {ADVICE}")
    if unknown:
        warn(f"{path} names classes or functions, such as {unknown[0][:80]!r}: only tensors and plain values are read")
    return contents


class Placeholder(dict):
    """Replaces an object of an unknown class. It keeps dict items, and ignores state, arguments and list items."""

    __hash__, __eq__ = object.__hash__, object.__eq__

    def __init__(self, *args, **named):
        super().__init__()

    def __setstate__(self, state):
        pass

    def append(self, item):
        """Ignore the item of a list or set."""

    add = extend = append


class _Function:
    """A function that a pickle can call but not modify."""

    __slots__ = ("function",)

    def __init__(self, function):
        self.function = function

    def __call__(self, *args):
        return self.function(*args)

    def __setstate__(self, state):
        raise pickle.UnpicklingError("functions have no state")


class _Unpickler(pickle.Unpickler):
    """Resolves names within this module only. Allocates storages by key; their bytes are read afterwards."""

    def __init__(self, data: bytes, max_bytes: int):
        """max_bytes: upper limit of the memory of all tensors, the size of the file."""
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self.storages, self.unknown, self.bytes_left = {}, {}, max_bytes

    def find_class(self, module, name):
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        known = {
            "collections.OrderedDict": OrderedDict,
            "torch._utils._rebuild_parameter": _parameter,
            "torch._utils._rebuild_tensor": _tensor,
            "torch._utils._rebuild_tensor_v2": _tensor,
        }
        full = f"{module}.{name}"
        if full in known:
            return _Function(known[full])
        self.unknown[full] = None
        return type("Placeholder", (Placeholder,), {})  # a class per name: a pickle may modify the one it is given

    def persistent_load(self, pid):
        kind, dtype, key, _, numbers = pid[:5]
        if kind != "storage" or not isinstance(key, str) or any(part is not None for part in pid[5:]):
            raise pickle.UnpicklingError("not a storage")
        if key not in self.storages:
            self.bytes_left -= numbers * dtype.itemsize
            if numbers < 0 or self.bytes_left < 0:
                raise pickle.UnpicklingError("tensors that claim more than the file holds")
            self.storages[key] = torch.empty(numbers, dtype=dtype)
        return self.storages[key]


def _tensor(storage, offset, size, stride, *_):
    if not isinstance(storage, torch.Tensor) or math.prod(size) > storage.numel():
        raise pickle.UnpicklingError("not a tensor")
    return storage.as_strided(size, stride, offset)  # raises if it would exceed the storage


def _parameter(tensor, *_):
    return tensor


def _read(path):
    """The contents of a file of torch.save, and the names of the unknown classes and functions in it."""
    size = path.stat().st_size
    if not zipfile.is_zipfile(path):
        return _read_legacy(path, size)
    with zipfile.ZipFile(path) as archive:
        (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1)
        if sum(entry.file_size for entry in archive.infolist()) > size:  # torch does not compress
            raise pickle.UnpicklingError("entries that claim more than the file holds")
        reader = _Unpickler(_next_pickle(io.BytesIO(archive.read(pickled)), size), size)
        contents, folder = reader.load(), pickled.partition("/")[0]
        if f"{folder}/byteorder" in archive.namelist() and archive.read(f"{folder}/byteorder") != b"little":
            raise pickle.UnpicklingError("not little-endian")
        for key, storage in reader.storages.items():
            _fill(storage, archive.read(f"{folder}/data/{key}"))
    return contents, list(reader.unknown)


def _read_legacy(path, size):
    """As `_read`, for the format before torch 1.6: five pickles, then the storages, in the order of the last pickle."""
    with path.open("rb") as file:
        *_, pickled, listed = (_next_pickle(file, size) for _ in range(5))
        reader = _Unpickler(pickled, size)
        contents, keys = reader.load(), _Unpickler(listed, size).load()
        if sorted(keys) != sorted(reader.storages):
            raise pickle.UnpicklingError("missing storages")
        for key in keys:
            storage = reader.storages[key]
            if int.from_bytes(file.read(8), "little") != storage.numel():
                raise pickle.UnpicklingError("a storage of another size")
            _fill(storage, file.read(storage.nbytes))
    return contents, list(reader.unknown)


def _next_pickle(file, size):
    """The bytes of the pickle at the current position. Raises for extension codes and memo indices beyond `size`."""
    start = file.tell()
    for op, value, _ in pickletools.genops(file):
        if op.name.startswith("EXT") or ("PUT" in op.name and value is not None and value > size):
            raise pickle.UnpicklingError(op.name)
    end = file.tell()
    file.seek(start)
    return file.read(end - start)


def _fill(storage, data):
    if len(data) != storage.nbytes:
        raise pickle.UnpicklingError("a storage of another size")
    if data:
        storage.view(torch.uint8).copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
