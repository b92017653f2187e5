"""Variables of a TensorFlow checkpoint (`NAME.index` and `NAME.data-00000-of-00001`), without TensorFlow.

The index is a table of LevelDB ("table_format" in its documentation) whose values are Protocol Buffers,
BundleEntryProto of TensorFlow's `tensor_bundle.proto`. TensorFlow writes it uncompressed.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from maskgen.errors import BadInput

MAGIC = 0xDB4775248B80FB57
FOOTER, TRAILER = 48, 5  # bytes: at the end of the file, and behind every block
FLOAT = 1  # DT_FLOAT
DTYPE, SHAPE, SHARD, OFFSET, SIZE, SLICES = 1, 2, 3, 4, 5, 7  # fields of BundleEntryProto


def data_file(index: Path) -> Path:
    """The data file of an index. Raises BadInput where it is missing."""
    path = index.with_suffix(".data-00000-of-00001")
    if not path.is_file():
        raise BadInput(f"{index} has no data file: expected {path.name} beside it")
    return path


def read(index: Path, prefix: str = "") -> dict[str, np.ndarray]:
    """The float32 variables whose names start with prefix. Raises BadInput for a damaged file or another kind."""
    data = data_file(index)
    try:
        numbers = np.memmap(data, np.uint8, "r") if data.stat().st_size else np.empty(0, np.uint8)
        return dict(_variables(index.read_bytes(), numbers, prefix))
    except OSError as error:
        raise BadInput(f"cannot read {index}: {error.strerror}") from None
    except (ValueError, TypeError, IndexError, struct.error, OverflowError) as error:
        raise BadInput(f"{index} cannot be read as a TensorFlow checkpoint: {error}") from None


def _variables(table, numbers, prefix) -> Iterator:
    for key, value in _entries(table):
        name, fields = key.decode(errors="replace"), dict(_fields(value))
        if not name.startswith(prefix) or not name or fields.get(DTYPE) != FLOAT or SLICES in fields:
            continue
        if fields.get(SHARD, 0):
            raise ValueError(f"{name} is in another data file")
        shape = [dict(_fields(side)).get(1, 0) for number, side in _fields(fields.get(SHAPE, b"")) if number == 2]
        begin = fields.get(OFFSET, 0)
        end = begin + fields.get(SIZE, 0)
        if end > len(numbers):
            raise ValueError(f"{name} leads out of the data file")
        yield name, numbers[begin:end].view("<f4").reshape(shape).copy()


def _entries(table) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a LevelDB table in order."""
    if len(table) < FOOTER or struct.unpack("<Q", table[-8:])[0] != MAGIC:
        raise ValueError("it does not end as one")
    _, _, at = _handle(table, len(table) - FOOTER)  # of the meta index
    offset, size, _ = _handle(table, at)
    for _, handle in _block(table, offset, size):
        yield from _block(table, *_handle(handle, 0)[:2])


def _handle(data, at):
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return offset, size, at


def _block(table, offset, size) -> Iterator[tuple[bytes, bytes]]:
    block = table[offset : offset + size]
    if len(table) < offset + size + TRAILER or len(block) < 4:
        raise ValueError("a block leads out of the file")
    if table[offset + size]:
        raise ValueError("it is compressed")
    restarts = struct.unpack("<I", block[-4:])[0]
    at, end, key = 0, len(block) - 4 * (restarts + 1), b""
    while at < end:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + own]
        yield key, block[at + own : at + own + length]
        at += own + length


def _fields(message) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of every field of a Protocol Buffers message."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag & 7 == 0:
            value, at = _varint(message, at)
        elif tag & 7 == 2:
            length, at = _varint(message, at)
            value, at = message[at : at + length], at + length
        elif tag & 7 in (1, 5):
            size = 8 if tag & 7 == 1 else 4
            value, at = message[at : at + size], at + size
        else:
            raise ValueError("a message that makes no sense")
        yield tag >> 3, value


def _varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
