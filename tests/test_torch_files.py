"""Checkpoints with other objects than tensors: the tensors are read, and no code of the objects is run."""

import argparse
import collections
import contextlib
import copyreg
import datetime
import os
import pathlib
import pickle
import subprocess
import sys
import types
import zipfile

import numpy as np
import pytest
import torch

from maskgen.errors import BadInput, InputWarning
from pconv_model.torch_files import torch_file

FORMS = ({}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4})  # of torch.save; the second is old
pytestmark = pytest.mark.filterwarnings("ignore::maskgen.errors.InputWarning")


class HistoryBuffer:
    """As in mmengine.logging.history_buffer: arrays, and its own functions by name."""

    def __init__(self):
        self._log_history, self._count_history = np.array([0.5, 0.25]), np.array([1, 1])
        self._statistics_methods = collections.OrderedDict(min=HistoryBuffer.min)

    def min(self):
        """Of the last values."""

    def __setstate__(self, state):
        raise AssertionError("the class in the file is not to be used")


class Settings(dict):
    """A dict with another class, as Lightning's AttributeDict and easydict."""


@pytest.fixture
def mmengine(monkeypatch):
    """Gives HistoryBuffer to a module mmengine while a file is written; the reader has no such module."""
    monkeypatch.setattr(HistoryBuffer, "__module__", "mmengine.logging.history_buffer")
    monkeypatch.setattr(HistoryBuffer.min, "__module__", "mmengine.logging.history_buffer")
    with monkeypatch.context() as patch:
        for name in ("mmengine", "mmengine.logging", "mmengine.logging.history_buffer"):
            patch.setitem(sys.modules, name, types.ModuleType(name))
        sys.modules["mmengine.logging.history_buffer"].HistoryBuffer = HistoryBuffer
        yield {
            "meta": {"epoch": 3, "seed": np.int64(7), "cfg": "model = dict()"},
            "message_hub": {"log_scalars": collections.OrderedDict(loss=HistoryBuffer()), "resumed_keys": {"loss"}},
        }


@pytest.mark.parametrize("form", FORMS)
def test_a_training_checkpoint_of_mmengine_gives_its_tensors_and_plain_values(tmp_path, mmengine, form):
    whole = torch.arange(12.0).reshape(3, 4)
    kept = {"a": whole.T, "b": whole[1:], "c": torch.ones(2, dtype=torch.int64), "half": torch.ones(3).bfloat16()}
    torch.save({"state_dict": collections.OrderedDict(kept), **mmengine}, tmp_path / "iter_10.pth", **form)
    for name in ("mmengine", "mmengine.logging", "mmengine.logging.history_buffer"):
        del sys.modules[name]
    with pytest.warns(InputWarning, match=r"iter_10\.pth names classes or functions"):
        found = torch_file(tmp_path / "iter_10.pth")
    assert found["state_dict"].keys() == kept.keys()
    assert all(found["state_dict"][name].equal(tensor) for name, tensor in kept.items())
    assert found["meta"]["epoch"] == 3 and found["meta"]["cfg"] == "model = dict()"
    assert "mmengine" not in sys.modules


OBJECTS = {
    "Namespace": argparse.Namespace(lr=0.1, sizes=[1, 2]),
    "defaultdict": collections.defaultdict(list, {"a": [1]}),
    "numpy scalar": np.float64(0.5),
    "numpy array": np.ones((2, 2)),
    "path": pathlib.PurePosixPath("/a/b"),
    "date": datetime.datetime(2020, 6, 19),
    "dict of another class": Settings(a=1),
    "named tuple": collections.namedtuple("Size", "w h")(1, 2),
    "device": torch.device("cpu"),
    "size": torch.Size([2]),
    "bytes": b"\x00\xff",
    "set": {1, 2},
}
sys.modules[__name__].Size = type(OBJECTS["named tuple"])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", OBJECTS)
def test_tensors_are_read_beside_other_objects(tmp_path, kind, form):
    torch.save({"w": torch.arange(3), "more": OBJECTS[kind], "last": [OBJECTS[kind], 5]}, tmp_path / "x.pth", **form)
    found = torch_file(tmp_path / "x.pth")
    assert found["w"].tolist() == [0, 1, 2] and found["last"][1] == 5


def test_tensors_in_a_dict_of_another_class_are_read(tmp_path):
    torch.save(Settings(w=torch.ones(2)), tmp_path / "x.pth")
    assert torch_file(tmp_path / "x.pth")["w"].tolist() == [1, 1]


def checkpoint(path, pickled):
    """A file as torch.save writes it, around any pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/data/0", np.arange(4, dtype=np.float32).tobytes())
    return path


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def text(word):
    return b"X" + len(word).to_bytes(4, "little") + word.encode()


COMMAND = "open('owned', 'w').close()"
EXTENSION = 0x6F
HOSTILE = {  # each makes a file `owned` where plain pickle reads it
    "REDUCE": pickle.dumps(Call(exec, COMMAND), 2),
    "os.system": pickle.dumps(Call(os.system, "touch owned"), 2),
    "STACK_GLOBAL": pickle.dumps(Call(exec, COMMAND), 4),
    "INST": b"(" + text(COMMAND) + b"ibuiltins\nexec\n.",
    "OBJ": b"(cbuiltins\nexec\n" + text(COMMAND) + b"o.",
    "getattr": pickle.dumps(Call(getattr, Call(__import__, "os"), "system"), 2)[:-1] + text("touch owned") + b"\x85R.",
    "BUILD": b"cargparse\nNamespace\n)\x81}" + text("__setstate__") + b"cbuiltins\nexec\nsb" + text(COMMAND) + b"b.",
    "a pickle in a pickle": pickle.dumps(Call(pickle.loads, pickle.dumps(Call(exec, COMMAND))), 2),
    "a program": pickle.dumps(Call(subprocess.call, ["touch", "owned"]), 2),
    "EXT": b"\x80\x02\x82" + bytes([EXTENSION]) + text(COMMAND) + b"\x85R.",
    "import": b"\x80\x02cmakes_owned\nanything\n.",
}


@pytest.fixture
def extension():
    """A number for exec in pickle's registry, with the function in its cache."""
    copyreg.add_extension("builtins", "exec", EXTENSION)
    pickle.loads(b"\x80\x02\x82" + bytes([EXTENSION]) + b".")
    yield
    copyreg.remove_extension("builtins", "exec", EXTENSION)


@pytest.fixture
def danger(tmp_path, monkeypatch, extension):
    """The working folder, with a module that does harm where it is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "makes_owned.py").write_text(f"{COMMAND}\nanything = 1\n")
    yield tmp_path
    sys.modules.pop("makes_owned", None)


@pytest.mark.parametrize("way", HOSTILE)
def test_these_pickles_are_dangerous(danger, way):
    with contextlib.suppress(Exception):
        pickle.loads(HOSTILE[way])
    assert (danger / "owned").exists()


@pytest.mark.parametrize("way", HOSTILE)
@pytest.mark.parametrize("around", ["zip", "old", "beside tensors"])
def test_nothing_in_a_checkpoint_is_run(danger, way, around):
    path, pickled = danger / "x.pth", HOSTILE[way]
    if around == "old":
        torch.save({}, path, _use_new_zipfile_serialization=False)
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b"\x80\x02}q\x00.", pickled, 1))
        assert path.read_bytes() != whole
    elif around == "zip":
        checkpoint(path, pickled)
    else:
        protocol = pickled[:2] if pickled[:1] == b"\x80" else b""
        checkpoint(path, protocol + b"}" + text("more") + pickled.removeprefix(protocol)[:-1] + b"s.")
    with contextlib.suppress(BadInput):
        torch_file(path)
    assert not (danger / "owned").exists() and "makes_owned" not in sys.modules


def number(value):
    return b"\x8a\x08" + value.to_bytes(8, "little", signed=True)


def storage(numbers):
    """What stands for a storage of float32 in a pickle: its persistent id."""
    return b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(numbers) + b"tQ"


def tensor(numbers, offset, size, stride):
    """A pickle of one tensor, and beside it an object of a class that torch does not know."""
    shape = b"".join(b"(" + b"".join(map(number, numbers)) + b"t" for numbers in (size, stride))
    made = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage(numbers) + number(offset) + shape + b"\x89}tR"
    return b"\x80\x02}" + text("other") + b"cargparse\nNamespace\n)\x81s" + text("w") + made + b"s."


def test_a_tensor_is_read_with_its_offset_size_and_stride(tmp_path):
    assert torch_file(checkpoint(tmp_path / "x.pth", tensor(4, 1, (3,), (1,))))["w"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "described",
    [
        (10**12, 0, (4,), (1,)),  # more than the file holds
        (-4, 0, (4,), (1,)),
        (4, 1, (4,), (1,)),  # one behind its end
        (4, 0, (2,), (10**9,)),
        (4, 3, (2,), (-1,)),
        (4, 0, (10**12,), (0,)),  # a number that repeats without end
        (4, 0, (2**62, 4), (1, 1)),
        (3, 0, (3,), (1,)),  # another size than in the file
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(tmp_path, described):
    with pytest.raises(BadInput, match="damaged"):
        torch_file(checkpoint(tmp_path / "x.pth", tensor(*described)))


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02cargparse\nNamespace\n)\x81r\xff\xff\xff\x7f.",  # the memo of 17 GB
        b"\x80\x02(" + text("module") + b"NNNNtQ.",
        b"\x80\x02K\x05cargparse\nNamespace\n",
        b"",
    ],
)
def test_an_invalid_pickle_is_refused(tmp_path, pickled):
    with pytest.raises(BadInput, match=r"x\.pth cannot be read"):
        torch_file(checkpoint(tmp_path / "x.pth", pickled))


def test_a_zip_with_a_second_pickle_is_refused(tmp_path):
    path = checkpoint(tmp_path / "x.pth", pickle.dumps(Call(exec, COMMAND), 2))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/data.pkl", pickle.dumps({"w": 1}, 2))
    with pytest.raises(BadInput, match="damaged"):
        torch_file(path)


def test_a_zip_bomb_takes_no_memory(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", HOSTILE["REDUCE"])
        archive.writestr("archive/data/0", bytes(2**24))
    with pytest.raises(BadInput, match="damaged"):
        torch_file(tmp_path / "x.pth")


def test_a_pickled_network_is_refused_with_advice(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "net.pth")
    with pytest.raises(BadInput, match=r"net\.pth holds an object .*Linear.*: .*torch\.save\(net\.state_dict\(\)"):
        torch_file(tmp_path / "net.pth")


def test_torchscript_is_refused_with_advice(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "net.pt")
    with pytest.raises(BadInput, match=r"TorchScript .*torch\.save\(net\.state_dict\(\)"):
        torch_file(tmp_path / "net.pt")
