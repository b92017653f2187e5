"""Protocols: which canonical test mask lies over which image of a public data set, once and for all.

A pairing is frozen in `data/protocols/<name>-v1.csv.gz`, with the columns `image`, the file name in the data set, and
`mask`, the mask's name in version 1 of the test set. The names of the images are known by rule, so no image was needed.
"""

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evaluation.settings import PROTOCOLS
from maskgen.categories import CATEGORIES
from maskgen.checks import expect, one_of
from maskgen.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd

VERSION = "v1"  # of the pairings, and of the masks
SEED = 0
PER_CLASS = 1000  # masks of a class in the test set
FOLDER = Path(__file__).parent / "data" / "protocols"
# The order in which the classes take their turns: interior and free alternate, and free is three sizes further. So an
# image whose masks come from neighbouring turns has as many interior as free ones, and small as well as large ones.
TURNS = [CATEGORIES[turn // 2 if turn % 2 == 0 else 6 + (turn // 2 + 3) % 6] for turn in range(12)]


@dataclass(frozen=True)
class Protocol:
    """One data set: how its images are named, how many are used, and at which sizes."""

    name: str
    data: str  # the data set, for messages
    file_name: str  # of an image, by its number
    stem: str  # pattern of the names that are recognised, without ending and in any case; group 1 is the number
    numbers: range | tuple[int, ...]  # of the images that may be drawn
    images: int  # images drawn
    sizes: tuple[int, ...]  # px, side of the square that images are cut to; the first is the default
    smallest: int | None  # px; if the longer sides of all images are below it, they are a reduced copy; None: the size
    sha256: str  # of the CSV, unpacked
    per_class: int = PER_CLASS  # masks of a class, the first ones of the test set
    ships: bool = False  # True if its images come with the package

    @property
    def expected(self) -> str:
        """The names of the images, for messages."""
        first, last = (self.file_name.format(self.numbers[at]) for at in (0, -1))
        return f"{first} to {last}"


PHOTOS = (  # numbers of the reference photos
    *(33162, 53435, 146083, 159741, 162520, 208560, 225284, 258947, 333963, 631292),
    *(792079, 844297, 951408, 1001682, 1025469, 1029604, 1044329, 1080721, 1130683, 1147124),
    *(1173777, 1287145, 1292115, 1370704, 1420710, 1459534, 1531677, 1546166, 1570264, 1583339),
    *(1933873, 1938351, 2127969, 2272939, 2387876, 2444429, 2599868, 2811087, 2866385, 2908983),
    *(3311574, 3363331, 3396657, 3571065, 3653963, 3680501, 3705529, 3779828, 4210863, 4405455),
    *(4672246, 5398956, 5617414, 6096399, 7062197, 7062219, 7078290, 7078476, 7263002, 7266811),
)
_ALL = (
    Protocol(
        name="places2",
        data="Places2, validation, the large images (val_large)",
        file_name="Places365_val_{:08d}.jpg",
        stem=r"Places365_val_(\d{8})",
        numbers=range(1, 36501),
        images=12000,  # as many as in section 4.3 of the paper
        sizes=(512, 256),
        smallest=512,  # the data set's images have 512 px or more on both sides
        sha256="a997addf582e5617b61568eb5f14db2a35f8eb9b1509c5b6fb1aec649087bfa7",
    ),
    Protocol(
        name="imagenet",
        data="ImageNet (ILSVRC2012), validation",
        file_name="ILSVRC2012_val_{:08d}.JPEG",
        stem=r"ILSVRC2012_val_(\d{8})(?:_n\d{8})?",  # some copies add the class
        numbers=range(1, 50001),
        images=12000,
        sizes=(512, 256),
        smallest=257,
        sha256="463070ea977a740343a5407d387cf7add0eacb5f522ebb81bdfaf7c5550798f9",
    ),
    Protocol(
        name="celebahq",
        data="CelebA-HQ",
        file_name="{}.jpg",
        stem=r"(?:imgHQ)?(\d{1,5})",  # six digits are a number of CelebA, which counts other images
        numbers=range(30000),
        images=3000,  # as many as the paper holds out, section 4.2
        sizes=(512, 256),
        smallest=None,
        sha256="ef602e2b6fb29ca3fc9ec26a46d97a12f48f669892f2862cc0cde1197a96b584",
    ),
    Protocol(
        name="paris",
        data="Paris StreetView, the test images (paris_eval_gt)",
        file_name="{:03d}_im.png",
        stem=r"(\d{3})_im",
        numbers=range(1, 101),
        images=100,
        sizes=(256,),  # the images have 227 x 227 px
        smallest=0,
        sha256="b238abf708e96d0da89b91b5ef3ac29bb4297be3424f992e33f52f25bc2abb1f",
    ),
    Protocol(
        name="reference",
        data="the 60 photos that come with this package",
        file_name="{}.jpg",
        stem=r"(\d+)",
        numbers=PHOTOS,
        images=60,
        sizes=(512,),
        smallest=512,
        sha256="b28532829276de9fc58823d80144adda551dd3f0c55213fe8d2257a1c23672d9",
        per_class=100,
        ships=True,
    ),
)
ALL = dict(zip(PROTOCOLS, _ALL, strict=True))  # the place of a protocol is part of its seed


def find(name: str) -> Protocol:
    """The protocol of that name. Raises BadInput for an unknown name."""
    expect("protocol", name, one_of(ALL))
    return ALL[name]


def read_protocol(name: str) -> "pd.DataFrame":
    """The pairs of a protocol as a DataFrame, one row for each mask of the canonical test set.

    name: "places2", "imagenet", "celebahq", "paris" or "reference". Columns: `image`, the file name in the data set;
    `mask`, such as `free_0.1-0.2/00007`; and `category`, the mask's class. The first n rows of each class are what
    `per_class=n` takes. Raises BadInput for an unknown name.

    Examples
    --------
    >>> from evaluation import read_protocol
    >>> held_out = set(read_protocol("celebahq")["image"])  # not for training, if results are to be comparable
    >>> len(held_out), "12345.jpg" in held_out
    (3000, False)
    """
    import pandas as pd

    table = pd.DataFrame(read(find(name)), columns=["image", "mask"])
    return table.assign(category=table["mask"].str.split("/").str[0])


@cache
def read(protocol: Protocol) -> tuple[tuple[str, str], ...]:
    """The frozen pairing: (image, mask) for every mask. Raises BadInput if the file in the package has changed."""
    path = FOLDER / _file_name(protocol)
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error):
        data = b""
    if hashlib.sha256(data).hexdigest() != protocol.sha256:
        raise BadInput(f"{path} is missing or has changed: install irregular-masks again")
    return tuple((image, mask) for image, mask in (line.split(",") for line in data.decode().splitlines()[1:]))


def draw(protocol: Protocol) -> list[tuple[str, str]]:
    """Draw a pairing anew: (image, mask) for every mask of the test set, class after class.

    The drawn images stand in a circle in random order, and every class walks around it from a start of its own; the
    starts are evenly spaced. So a class uses no image again before it has used all, and among the first n masks of
    every class, for any n, the numbers of uses of two images differ by one at most.
    """
    rng = np.random.default_rng([SEED, list(ALL).index(protocol.name)])
    circle = rng.permutation(len(protocol.numbers))[: protocol.images]
    rows = []
    for category in CATEGORIES:
        start = TURNS.index(category) * protocol.images // len(TURNS)
        for i in range(protocol.per_class):
            number = protocol.numbers[int(circle[(start + i) % protocol.images])]
            rows.append((protocol.file_name.format(number), f"{category}/{i:05d}"))
    return rows


def as_csv(rows: list[tuple[str, str]]) -> bytes:
    """The bytes of a pairing's CSV."""
    return "".join(f"{image},{mask}\n" for image, mask in [("image", "mask"), *rows]).encode()


def freeze(folder: Path = FOLDER) -> None:
    """Write the CSV files of all protocols, as they are in the package."""
    for protocol in ALL.values():
        (folder / _file_name(protocol)).write_bytes(gzip.compress(as_csv(draw(protocol)), mtime=0))


def _file_name(protocol):
    return f"{protocol.name}-{VERSION}.csv.gz"


def is_whole(record: dict) -> bool:
    """True if a run scored all pairs of a protocol. record: `settings.protocol` of its recipe."""
    return record["pairs"] == record["of"]


def extent(record: dict) -> str:
    """Which part of a protocol a run scored: "all 12,000 pairs", or "11,997 of 12,000 pairs" and why."""
    if is_whole(record):
        return f"all {record['of']:,} pairs"
    reasons = [f"the first {_count(record['per_class'], 'mask')} of each class"] if "per_class" in record else []
    if record["missing_images"]:
        total = record["images"] + record["missing_images"]
        reasons.append(f"{record['missing_images']:,} of {_count(total, 'image')} missing")
    return f"{record['pairs']:,} of {record['of']:,} pairs" + f" ({'; '.join(reasons)})" * bool(reasons)


def _count(number, noun):
    """The number and its noun; "mask" for one."""
    return noun if number == 1 else f"{number:,} {noun}s"


def caption(record: dict) -> str:
    """A protocol as results name it: name, version, hash, size, and which part was scored."""
    name = f"{record['name']}, {record['version']} (sha256 {record['sha256'][:8]})"
    return f"protocol {name}, {record['size'][0]} px, {extent(record)}"


def last_line(record: dict, *, raw: bool) -> str:
    """The last line of output of a run: how to cite its numbers, or that they are not those of the whole protocol."""
    if not is_whole(record):
        return f"partial run: {caption(record)}; its numbers are not those of the whole protocol"
    cite = f"{record['version']}/{record['name']}, {'raw' if raw else 'composited'}, {record['size'][0]} px"
    return f"complete run: {caption(record)}; cite its numbers as {cite}"
