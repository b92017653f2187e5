"""The canonical masks, which come with the package: a test set, raw training masks, and a test set of sequences.

Each part is a zip with an index and a recipe: of bilevel TIFF files, or of NumPy arrays, one for each sequence. A
version never changes; better masks become another version beside it. Imports nothing heavy.
"""

from pathlib import Path

from maskgen.checks import expect, one_of
from maskgen.errors import warn

VERSIONS = ("v1",)
PARTS = ("testset", "raw", "sequences")


def path_of(version: str, part: str = "testset") -> Path:
    """The zip file of a part of the canonical masks. BadInput for an unknown version or part."""
    expect("version", version, one_of(VERSIONS))
    expect("part", part, one_of(PARTS))
    return Path(__file__).parent / "data" / version / f"{part}.zip"


TESTSET = path_of("v1")
RAW = path_of("v1", "raw")
SEQUENCES = path_of("v1", "sequences")


def masks_path(path: Path | str) -> Path:
    """A path from the user, in which `v1` stands for the test set of that version, `v1-sequences` for its sequences.

    A file or folder of that name in the working folder comes first, with an `InputWarning`.
    """
    version, _, part = str(path).partition("-")
    if version not in VERSIONS or part not in ("", "sequences"):
        return Path(path)
    if Path(path).exists():
        warn(
            f"{path} is read from the working folder; the masks of that name that come with the package are used "
            "where there is no such file or folder"
        )
        return Path(path)
    return path_of(version, part or "testset")


def raw_path(masks: Path | str | None) -> Path:
    """Where raw masks are: those of the package for None and for the name of a version, such as "v1"."""
    if masks is None:
        return RAW
    if str(masks) in VERSIONS and not Path(masks).exists():
        return path_of(str(masks), "raw")
    return Path(masks)


def sequences_path(masks: Path | str | None) -> Path:
    """Where mask sequences are: those of the package for None and for a version, as "v1" or "v1-sequences"."""
    if masks is None:
        return SEQUENCES
    if str(masks) in VERSIONS and not Path(masks).exists():
        return path_of(str(masks), "sequences")
    return masks_path(masks)
