"""benchmarks/canonical.py, which measures a test set without maskgen's code, on sets with known answers."""

import csv
import io
import re
import zipfile

import numpy as np
import pytest
from PIL import Image
from rawmasks import streaks, write_raw

from benchmarks import canonical

SIDE = 512


def box(top, left, height, width):
    hole = np.zeros((SIDE, SIDE), bool)
    hole[top : top + height, left : left + width] = True
    return hole


def row_of(name, category, ratio, distance, components=1):
    values = (name, category, f"{ratio:.6f}", distance, components)
    return dict(zip(("file_name", "category", "hole_ratio", "border_distance", "components"), values, strict=True))


def write_set(path, masks, rows, suffix=".png", **options):
    """A folder, or a zip if the name says so, of masks by name, and their index."""
    files = {}
    for name, hole in masks.items():
        file = io.BytesIO()
        Image.fromarray(hole).save(file, "TIFF" if suffix == ".tif" else "PNG", **options)
        files[name + suffix] = file.getvalue()
    table = io.StringIO()
    writer = csv.DictWriter(table, rows[0].keys())
    writer.writeheader()
    writer.writerows(row | {"file_name": row["file_name"] + suffix} for row in rows)
    files["metadata.csv"] = table.getvalue().encode()
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        for name, data in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    return path


MASKS = {"a/0": box(100, 60, 256, 256), "a/1": box(0, 0, 128, 200), "b/2": box(50, 50, 412, 300)}
ROWS = [
    row_of("a/0", "interior_0.2-0.3", 0.25, 60),
    row_of("a/1", "free_0.01-0.1", 128 * 200 / SIDE**2, 0),
    row_of("b/2", "interior_0.4-0.5", 412 * 300 / SIDE**2, 50),
]


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", ["canonical.py", *map(str, arguments)])
    code = canonical.main()
    return code, capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "suffix", "options"), [("set", ".png", {}), ("set.zip", ".tif", {"compression": "group4"})]
)
def test_a_set_that_is_as_its_index_says_has_no_faults(tmp_path, monkeypatch, capsys, name, suffix, options):
    path = write_set(tmp_path / name, MASKS, ROWS, suffix, **options)
    code, text = run(monkeypatch, capsys, path)
    assert code == 0
    assert "3 masks" in text and "0 faults" in text
    assert len(re.findall(r"^(?:interior|free)_\S+ +1 ", text, re.MULTILINE)) == 3


def test_every_difference_from_the_index_is_a_fault(tmp_path, monkeypatch, capsys):
    rows = [ROWS[0] | {"hole_ratio": "0.251"}, ROWS[1] | {"category": "interior_0.01-0.1"}, row_of("c/3", "", 0, 0)]
    code, text = run(monkeypatch, capsys, write_set(tmp_path, MASKS, rows))
    assert code == 1
    assert "hole_ratio 0.001" in text and "4 faults" in text
    for fault in (
        "a/0.png: hole_ratio 0.251 in the index, measured 0.25",
        "a/1.png: interior_0.01-0.1 in the index, measured free_0.01-0.1",
        "b/2.png: not in the index",
        "c/3.png: in the index, but not in the set",
    ):
        assert fault in text


def test_grey_pixels_are_a_fault(tmp_path, monkeypatch, capsys):
    Image.fromarray(np.where(MASKS["a/0"], 254, 0).astype(np.uint8)).save(tmp_path / "grey.png")
    code, text = run(monkeypatch, capsys, tmp_path, "--sheets", tmp_path / "sheets")
    assert code == 1 and "grey.png: has grey pixels" in text


def test_a_path_without_masks_is_one_line(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="no masks in"):
        run(monkeypatch, capsys, tmp_path / "absent")


def test_maskgen_and_the_script_measure_the_same(tmp_path, monkeypatch, capsys):
    code, text = run(monkeypatch, capsys, write_raw(tmp_path, 8))
    assert code == 0 and "8 masks" in text and "0 faults" in text


def test_a_box_is_measured_by_hand():
    mask = canonical.measure("box", box(40, 100, 20, 30))
    assert mask[1:6] == ("", 600 / SIDE**2, 40, 1, 2 * 30 + 2 * 18)
    assert mask.near_edge == 0.5  # ten of its twenty rows lie above row 50
    assert mask.thumbnail.sum() * 16**2 == pytest.approx(600)


def test_the_image_edge_is_no_outline():
    assert canonical.measure("half", box(0, 0, 256, SIDE)).outline == SIDE


def test_pixels_that_touch_by_a_corner_are_one_component():
    assert canonical.measure("two", box(100, 100, 10, 10) | box(110, 110, 10, 10)).components == 1
    assert canonical.measure("two", box(100, 100, 10, 10) | box(111, 111, 10, 10)).components == 2


@pytest.mark.parametrize(
    ("ratio", "distance", "name"),
    [
        (0.01, 0, ""),
        (0.2, 49, "free_0.1-0.2"),
        (0.20001, 50, "interior_0.2-0.3"),
        (0.6, 0, "free_0.5-0.6"),
        (0.61, 0, ""),
    ],
)
def test_the_upper_edge_belongs_to_a_class(ratio, distance, name):
    assert canonical.category(ratio, distance) == name


BAR = box(0, 0, 20, SIDE)
WEDGE = np.arange(SIDE)[:, None] < np.linspace(0, 60, SIDE)
TREES = box(0, 100, 300, 8) | box(0, 300, 300, 20)  # they stand on the bar


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize(
    ("hole", "expected"),
    [
        (BAR, BAR),
        (WEDGE, WEDGE),
        (box(12, 200, 20, 200), box(12, 200, 20, 200)),  # near the edge
        (BAR | box(200, 200, 100, 100), BAR),
        (BAR | TREES, BAR & ~TREES),
        (box(0, 100, 60, 150), None),  # too thick for its length
        (box(0, 100, 20, 100), None),  # too short
        (box(60, 0, 20, SIDE), None),  # too far inside
        (box(0, 200, 300, 150), None),
        (np.zeros((SIDE, SIDE), bool), None),
    ],
    ids=["bar", "wedge", "near", "bar and box", "bar with trees", "thick", "short", "far", "block", "empty"],
)
def test_bars_along_any_edge(hole, expected, turns):
    expected = np.zeros_like(hole) if expected is None else expected
    assert np.array_equal(canonical.bars(np.rot90(hole, turns)), np.rot90(expected, turns))


def test_holes_that_are_streaks_are_no_bars():
    assert not any(canonical.measure("", streaks(seed)).in_bars > 0.5 for seed in range(10))


def test_the_nearest_mask_is_the_one_with_the_highest_correlation(monkeypatch):
    monkeypatch.setattr(canonical, "BLOCK", 3)
    masks = [canonical.measure(str(i), streaks(i, pieces=3 + i)) for i in range(8)]
    (of_all, correlation), (of_class, _) = canonical.nearest(masks)
    table = np.corrcoef([mask.thumbnail.ravel() for mask in masks]) - 2 * np.eye(8)
    assert not any(mask.category.startswith("interior") for mask in masks)
    assert np.array_equal(of_all, table.argmax(1))
    assert np.allclose(correlation, table.max(1), atol=1e-5)
    for mask, j in zip(masks, of_class, strict=True):
        rivals = [other for other in masks if other.category == mask.category and other is not mask]
        assert not rivals or masks[j].category == mask.category


def test_interior_masks_are_compared_without_the_rim():
    masks = [canonical.measure("", hole) for hole in (box(100, 100, 200, 200), box(120, 110, 200, 200))]
    inner = [mask.thumbnail[3:-3, 3:-3].ravel() for mask in masks]
    assert np.allclose(canonical.nearest(masks)[0][1], np.corrcoef(inner)[0, 1], atol=1e-5)


def test_a_copy_is_found(tmp_path, monkeypatch, capsys):
    for i in (0, 1, 2, 0):
        Image.fromarray(streaks(i)).save(tmp_path / f"{len(list(tmp_path.iterdir()))}.png")
    text = run(monkeypatch, capsys, tmp_path, "--sheets", tmp_path / "sheets")[1]
    assert "correlation 1.000, IoU 1.000: 0.png and 3.png" in text
    assert Image.open(tmp_path / "sheets/closest.png").width > 2 * 128


def test_overlap_is_intersection_over_union():
    a, b = (np.packbits(hole) for hole in (box(0, 0, 10, 10), box(0, 5, 10, 10)))
    assert canonical.overlap(a, b) == 50 / 150
