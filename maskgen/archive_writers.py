"""Archives of a mask set: zip, WebDataset and Parquet, with reproducible bytes; and the order of NVIDIA's archive."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from maskgen.categories import CATEGORIES
from maskgen.errors import BadInput, install_hint

if TYPE_CHECKING:
    import pandas as pd

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip can hold; a fixed one, for reproducible bytes


def nvidia_order(table: "pd.DataFrame") -> "pd.DataFrame":
    """The rows of a test set in one block for each class: for each ratio interval first free, then interior masks."""
    order = [f"{side}_{name.partition('_')[2]}" for name in CATEGORIES[:6] for side in ("free", "interior")]
    table = table.assign(place=table["category"].map(order.index)).sort_values("place", kind="stable")
    return table.drop(columns="place").reset_index(drop=True)


def zip_bytes(files: Iterable[tuple[str, bytes]]) -> bytes:
    """A zip of files that are compressed already. files: name and content of each."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files:
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, content)
    return data.getvalue()


def webdataset_shard(rows: "pd.DataFrame", read: Callable[[str], bytes]) -> bytes:
    """A tar with NAME.png and NAME.json of each mask. read: returns the PNG file of a row's `file_name`."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for row in rows.to_dict("records"):
            key = row["file_name"].removesuffix(".png").replace("/", "_").replace(".", "-")  # a dot would end the key
            row_json = json.dumps(row, ensure_ascii=False).encode()
            for name, content in ((f"{key}.png", read(row["file_name"])), (f"{key}.json", row_json)):
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(content), 0o644
                archive.addfile(entry, io.BytesIO(content))
    return data.getvalue()


def import_pyarrow(otherwise: str = "write another archive"):
    """The package pyarrow. Raises BadInput if it is missing. otherwise: what the user can do instead."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise BadInput(f"a Parquet archive needs pyarrow: {install_hint('publish')}, or {otherwise}") from None
    return pyarrow


def parquet_bytes(table: "pd.DataFrame", read: Callable[[str], bytes], arrow) -> bytes:
    """The index and the PNG files as one table, the image as Hugging Face stores it: {bytes, path}.

    read: as for `webdataset_shard`. arrow: the package, of `import_pyarrow`.
    """
    images = [{"bytes": read(name), "path": name} for name in table["file_name"]]
    image = arrow.array(images, arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())]))
    columns = {"image": image, **{name: arrow.array(table[name].tolist()) for name in table.columns}}
    features = {"image": {"_type": "Image"}} | {
        name: {"dtype": str(column.type).replace("double", "float64"), "_type": "Value"}
        for name, column in columns.items()
        if name != "image"
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    data = io.BytesIO()
    arrow.parquet.write_table(arrow.table(columns).replace_schema_metadata(metadata), data, row_group_size=1000)
    return data.getvalue()
