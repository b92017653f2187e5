"""Files of `torch.save`: the tensors and plain values of any of them; no code that they name is ever run."""

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

ALONE = "where it was made, save the weights alone: torch.save(net.state_dict(), 'weights.pth')"
STORAGES = {  # classes by which a file names the type of its numbers
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

    Classes and functions that it names besides, as the training checkpoints of mmengine or Lightning do, are neither
    imported nor called: `Inert` objects stand for what they would have made, and a warning tells of them. Raises
    BadInput for a file of another kind or a damaged one.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of newer pickles, which it may refuse
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise BadInput(f"no such file: {path} (expected a checkpoint)") from None
    except Exception as error:  # torch raises whatever bytes without sense lead to
        if "TorchScript" in str(error):
            raise BadInput(f"{path} is a TorchScript archive, which is code: {ALONE}") from None
    try:
        told, unknown = _read(path)
    except Exception:  # as above
        raise BadInput(f"{path} cannot be read as tensors and plain values: it is damaged or something else") from None
    if isinstance(told, Inert) and not told:
        raise BadInput(f"{path} holds an object ({unknown[0][:80]!r}) instead of tensors and plain values: {ALONE}")
    if unknown:
        warn(f"{path} names classes or functions, such as {unknown[0][:80]!r}: those are left out, tensors are read")
    return told


class Inert(dict):
    """Stands for an object of an unknown class: it keeps items, as a dict does, and ignores all else it is given."""

    __hash__, __eq__ = object.__hash__, object.__eq__

    def __init__(self, *args, **named):
        super().__init__()

    def __setstate__(self, state):
        pass

    def append(self, item):
        """Ignore an item of a list or set."""

    add = extend = append


class _Function:
    """One of our functions in the hands of a pickle, which can call it and change nothing about it."""

    __slots__ = ("function",)

    def __init__(self, function):
        self.function = function

    def __call__(self, *args):
        return self.function(*args)

    def __setstate__(self, state):
        raise pickle.UnpicklingError("functions have no state")


class _Unpickler(pickle.Unpickler):
    """Resolves no name outside this module. Tensors are empty until their storages, by their keys, are filled."""

    def __init__(self, data: bytes, most: int):
        """most: bytes that all tensors take at most, the size of the file."""
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self.storages, self.unknown, self.room = {}, {}, most

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
        return type("Inert", (Inert,), {})  # one for each name, so that a pickle cannot change it for the next

    def persistent_load(self, pid):
        kind, dtype, key, _, numbers = pid[:5]
        if kind != "storage" or not isinstance(key, str) or any(part is not None for part in pid[5:]):
            raise pickle.UnpicklingError("no storage")
        if key not in self.storages:
            self.room -= numbers * dtype.itemsize
            if numbers < 0 or self.room < 0:
                raise pickle.UnpicklingError("tensors that claim more than the file holds")
            self.storages[key] = torch.empty(numbers, dtype=dtype)
        return self.storages[key]


def _tensor(storage, offset, size, stride, *_):
    if not isinstance(storage, torch.Tensor) or math.prod(size) > storage.numel():
        raise pickle.UnpicklingError("no tensor")
    return storage.as_strided(size, stride, offset)  # which refuses what leads out of the storage


def _parameter(tensor, *_):
    return tensor


def _read(path):
    """What a file of torch.save holds, and the names in it that stand for nothing here."""
    most = path.stat().st_size
    if not zipfile.is_zipfile(path):
        return _read_stream(path, most)
    with zipfile.ZipFile(path) as archive:
        (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1)
        if sum(entry.file_size for entry in archive.infolist()) > most:  # torch packs nothing
            raise pickle.UnpicklingError("entries that claim more than the file holds")
        reader = _Unpickler(_whole_pickle(io.BytesIO(archive.read(pickled)), most), most)
        told, folder = reader.load(), pickled.partition("/")[0]
        if f"{folder}/byteorder" in archive.namelist() and archive.read(f"{folder}/byteorder") != b"little":
            raise pickle.UnpicklingError("numbers in another order of bytes")
        for key, storage in reader.storages.items():
            _fill(storage, archive.read(f"{folder}/data/{key}"))
    return told, list(reader.unknown)


def _read_stream(path, most):
    """The same of torch's form before version 1.6: five pickles, then the storages, which the last pickle lists."""
    with path.open("rb") as file:
        *_, pickled, listed = (_whole_pickle(file, most) for _ in range(5))
        reader = _Unpickler(pickled, most)
        told, keys = reader.load(), _Unpickler(listed, most).load()
        if sorted(keys) != sorted(reader.storages):
            raise pickle.UnpicklingError("storages that are missing")
        for key in keys:
            storage = reader.storages[key]
            if int.from_bytes(file.read(8), "little") != storage.numel():
                raise pickle.UnpicklingError("a storage of another size")
            _fill(storage, file.read(storage.nbytes))
    return told, list(reader.unknown)


def _whole_pickle(file, most):
    """The bytes of the pickle that begins here. Raises for one that asks for objects by number or for absurd memory."""
    begin = file.tell()
    for op, value, _ in pickletools.genops(file):
        if op.name.startswith("EXT") or ("PUT" in op.name and value is not None and value > most):
            raise pickle.UnpicklingError(op.name)
    end = file.tell()
    file.seek(begin)
    return file.read(end - begin)


def _fill(storage, data):
    if len(data) != storage.nbytes:
        raise pickle.UnpicklingError("a storage of another size")
    if data:
        storage.view(torch.uint8).copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
