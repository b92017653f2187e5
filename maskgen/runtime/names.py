"""A very long list of file names in little memory."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

BLOCK = 10_000  # names that are looked up at a time


class Names(Sequence[str]):
    """Strings in one block of memory: a name takes its bytes and 8 more, where a list takes about 60 more.

    Processes that are forked share the block, as reading it changes nothing.
    """

    def __init__(self, names: Iterable[str]):
        data, ends = bytearray(), array("q", [0])
        for name in names:
            data += name.encode("utf-8", "surrogatepass")
            ends.append(len(data))
        self._data, self._ends = data, ends

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, i):
        """Name i, or a list of the names in a slice."""
        if isinstance(i, slice):
            return [self[k] for k in range(len(self))[i]]
        k = range(len(self))[i]
        return self._data[self._ends[k] : self._ends[k + 1]].decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        for begin, end in pairwise(self._ends):
            yield self._data[begin:end].decode("utf-8", "surrogatepass")

    def __eq__(self, other) -> bool:
        if not isinstance(other, Names | list | tuple):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Names({self[:3]!r}{f' and {len(self) - 3:,} more' if len(self) > 3 else ''})"

    def places(self, names: Iterable[str]) -> "np.ndarray":
        """The first place of each of the given names in this list, -1 for a name that is not there. int64 (N,)."""
        import numpy as np

        hashes, order = self._by_hash
        found, names = array("q"), iter(names)
        while block := list(islice(names, BLOCK)):
            block_hashes = np.fromiter(map(hash, block), np.int64, len(block))
            for name, digest, k in zip(block, block_hashes, np.searchsorted(hashes, block_hashes), strict=True):
                while k < len(hashes) and hashes[k] == digest and self[order[k]] != name:
                    k += 1  # another name with the same hash
                found.append(order[k] if k < len(hashes) and hashes[k] == digest else -1)
        return np.array(found, np.int64)

    def missing(self, names: Iterable[list[str]]) -> list[str]:
        """Those of some lists of names that are not in this list."""
        return [name for some in names for name, place in zip(some, self.places(some), strict=True) if place < 0]

    @cached_property
    def _by_hash(self):
        """The hashes of all names in ascending order, and the place of each; equal ones in the order of the list."""
        import numpy as np

        hashes = np.fromiter(map(hash, self), np.int64, len(self))
        order = np.argsort(hashes, kind="stable")
        return hashes[order], order
