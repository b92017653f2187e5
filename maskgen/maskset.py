"""The mask set on disk: 8-bit PNG files with 255 for a hole, an index, a recipe."""

import hashlib
import json
import os
import re
from pathlib import Path

import cv2
import numpy as np

from maskgen import __version__
from maskgen.categories import category, measure
from maskgen.errors import BadInput

INDEX = "metadata.csv"
RECIPE = "recipe.json"
POLARITIES = ("hole-white", "hole-black")
COLUMNS = (
    "file_name",
    "category",
    "hole_ratio",
    "border_distance",
    "components",
)  # what every index begins with


def natural(path: Path | str) -> list:
    """Sort key that puts frame 9 before frame 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", str(path))]


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that other programs see whole or not at all, also through a kill or a full disk.

    Raises OSError where the disk refuses, after removing what it had begun.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # not .png: nothing may pick up a half-written mask
    try:
        part.write_bytes(data)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def encode(hole: np.ndarray) -> bytes:
    """The one form in which masks are written: 8-bit grey PNG, 255 for a hole, else 0. bool (H, W)."""
    # Run lengths of differences to the row above: as small as the strongest compression, at a thirtieth of its time.
    how = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]
    return cv2.imencode(".png", hole.astype(np.uint8) * 255, how)[1].tobytes()


def read_hole(path: Path, *, polarity: str = "hole-white", threshold: int = 128) -> np.ndarray:
    """Read a mask file as bool (H, W), True where pixels are missing.

    polarity: what white means, "hole-white" or "hole-black". threshold: grey levels from it upwards count as
    white. Raises BadInput for a file that is no image.
    """
    if polarity not in POLARITIES:
        raise BadInput(f"polarity is one of {', '.join(POLARITIES)}, got {polarity!r}")
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None
    grey = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if data.size else None
    if grey is None:
        raise BadInput(f"{path} is not an image that can be read: expected a mask as PNG, remove it or make it anew")
    white = grey >= threshold
    return white if polarity == "hole-white" else ~white


def find_masks(folder: Path) -> list[Path]:
    """Every PNG below a folder in natural order; BadInput where there is none."""
    if not folder.is_dir():
        raise BadInput(f"no such folder: {folder} (expected a folder of mask PNGs)")
    found = sorted((path for path in folder.rglob("*.png") if path.is_file()), key=natural)
    if not found:
        raise BadInput(f"no PNG in {folder}: expected masks, made for example by `maskgen extract videos/`")
    return found


def describe(hole: np.ndarray, file_name: str, data: bytes) -> dict:
    """The measured part of an index row. hole: bool (H, W); data: the PNG's bytes, of which the row keeps the hash."""
    size = measure(hole)
    return {
        "file_name": file_name,
        "category": category(size.hole_ratio, size.border_distance),
        "hole_ratio": f"{size.hole_ratio:.6f}",
        "border_distance": size.border_distance,
        "components": size.components,
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def write_index(folder: Path, rows: list[dict]) -> None:
    """Write `metadata.csv`: the measured columns first, `sha256` last, between them what the rows tell."""
    import pandas as pd

    told = [key for key in (rows[0] if rows else {}) if key not in (*COLUMNS, "sha256")]
    table = pd.DataFrame(rows, columns=[*COLUMNS, *told, "sha256"])
    write_whole(folder / INDEX, table.to_csv(index=False, lineterminator="\n").encode())


def read_index(folder: Path):
    """Read a `metadata.csv` as a DataFrame. Raises BadInput where it is missing or has no `file_name`."""
    import pandas as pd

    path = folder / INDEX
    try:
        table = pd.read_csv(path, keep_default_na=False)
    except FileNotFoundError:
        raise BadInput(
            f"no {INDEX} in {folder}: expected a mask set, `maskgen bin {folder}` measures any folder"
        ) from None
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is not a table that can be read: {error}") from None
    if "file_name" not in table:
        raise BadInput(f"{path} has no column file_name: expected the index of a mask set")
    return table


def write_recipe(folder: Path, recipe: dict) -> None:
    """Write `recipe.json`: the code's version, then what the caller tells of settings, sources and counts."""
    text = json.dumps({"version": __version__, **recipe}, indent=2, ensure_ascii=False)
    write_whole(folder / RECIPE, (text + "\n").encode())


def read_recipe(folder: Path) -> dict:
    """Read `recipe.json`. Raises BadInput where it is missing or no JSON object."""
    path = folder / RECIPE
    try:
        recipe = json.loads(path.read_text())
    except FileNotFoundError:
        raise BadInput(f"no {RECIPE} in {folder}: expected a finished mask set") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from None
    if not isinstance(recipe, dict):
        raise BadInput(f"{path} holds no JSON object: expected what `maskgen` wrote")
    return recipe
