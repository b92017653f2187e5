import pickle
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from maskgen import MaskDataset
from maskgen.canonical import RAW
from maskgen.categories import CATEGORIES, measure
from maskgen.errors import BadInput
from maskgen.maskset import describe, encode, read_index, write_index
from tests.rawmasks import draw, write_raw

SIDE = 160  # px


def square(first, last, side=SIDE):
    """A square hole from pixel `first` to `last` in both axes."""
    hole = np.zeros((side, side), bool)
    hole[first : last + 1, first : last + 1] = True
    return hole


HOLES = {"a/0.png": square(50, 109), "a/1.png": square(49, 109), "b/0.png": square(0, 15), "b/1.png": square(60, 99)}


@pytest.fixture
def folder(tmp_path):
    """A mask set of four squares: two keep 50 px from the edge."""
    rows = []
    for name, hole in HOLES.items():
        path = tmp_path / "set" / "test" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(hole))
        rows.append({**describe(hole, name, encode(hole)), "source": "drawn"})
    write_index(tmp_path / "set" / "test", rows)
    return tmp_path / "set"


def names(dataset):
    return [row["file_name"] for _, row in dataset]


def test_each_mask_comes_with_its_row(folder):
    dataset = MaskDataset(folder)
    assert len(dataset) == 4 and names(dataset) == list(HOLES)
    for (hole, row), expected in zip(dataset, HOLES.values(), strict=True):
        assert hole.dtype == bool and np.array_equal(hole, expected)
        size = measure(expected)
        assert row["hole_ratio"] == pytest.approx(size.hole_ratio, abs=1e-6) and row["source"] == "drawn"
        assert (row["border_distance"], row["components"]) == (size.border_distance, 1)


def test_indices_are_those_of_a_list(folder):
    dataset = MaskDataset(folder)
    assert dataset[-1][1] == dataset[np.int64(3)][1] == list(dataset)[3][1]
    for i in (4, -5):
        with pytest.raises(IndexError):
            dataset[i]
    with pytest.raises(TypeError):
        dataset["a/0.png"]


def test_changing_a_row_does_not_change_the_data_set(folder):
    dataset = MaskDataset(folder)
    dataset[0][1]["source"] = "changed"
    assert dataset[0][1]["source"] == "drawn"


def test_interior_masks_keep_50_px_and_free_ones_are_the_others(folder):
    assert names(MaskDataset(folder, border="interior")) == ["a/0.png", "b/1.png"]
    assert names(MaskDataset(folder, border="free")) == ["a/1.png", "b/0.png"]


def test_a_ratio_range_includes_its_upper_end_only(folder):
    exact = 16**2 / SIDE**2  # of b/0.png: 0.01; 40**2 / 160**2 is 0.0625
    assert names(MaskDataset(folder, ratio=(exact, 0.0625))) == ["b/1.png"]
    assert names(MaskDataset(folder, ratio=(0, exact))) == ["b/0.png"]
    assert names(MaskDataset(folder, ratio=(0.05, 0.5), border="free")) == ["a/1.png"]


def test_zips_and_tars_of_a_set_are_read_as_the_folder(folder, tmp_path):
    for kind in ("zip", "tar"):
        for base in (folder, folder / "test"):  # the index lies in test/, or at the top
            archive = shutil.make_archive(str(tmp_path / f"{base.name}-packed"), kind, base)
            packed = MaskDataset(archive, border="interior")
            assert names(packed) == ["a/0.png", "b/1.png"] and np.array_equal(packed[1][0], HOLES["b/1.png"])


def test_v1_is_the_packaged_test_set_of_the_twelve_classes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = MaskDataset("v1", ratio=(0.2, 0.4), border="interior")
    assert {row["category"] for _, row in dataset} == {"interior_0.2-0.3", "interior_0.3-0.4"}
    assert {row["category"] for row in MaskDataset().rows} == set(CATEGORIES)
    hole, row = dataset[0]
    assert hole.shape == (512, 512) and hole.mean() == pytest.approx(row["hole_ratio"], abs=1e-6)
    assert measure(hole).border_distance == row["border_distance"] >= 50


def test_a_set_named_v1_in_the_working_folder_comes_first_with_a_warning(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    folder.rename("v1")
    with pytest.warns(match="v1 is read from the working folder"):
        assert len(MaskDataset("v1")) == 4
    assert len(MaskDataset("./v1")) == 4


def test_the_packaged_files_are_read_by_the_functions_for_mask_sets():
    table = read_index(RAW)
    assert len(table) == len(MaskDataset(RAW)) and table["hole_ratio"].between(0, 1).all()


def test_the_train_part_is_used_where_there_is_no_other(tmp_path):
    write_raw(tmp_path, 4, "train")
    assert len(MaskDataset(tmp_path)) == 4
    write_raw(tmp_path, 6, "test")
    assert len(MaskDataset(tmp_path)) == 6 and len(MaskDataset(tmp_path / "train")) == 4
    assert len(MaskDataset(shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path))) == 6


def test_workers_of_a_data_loader_give_the_masks_of_one_process(folder):
    torch = pytest.importorskip("torch")
    dataset = MaskDataset(folder)
    holes, rows = next(iter(torch.utils.data.DataLoader(dataset, batch_size=4, num_workers=2)))
    assert holes.dtype == torch.bool and np.array_equal(holes.numpy(), list(HOLES.values()))
    assert rows["file_name"] == list(HOLES) and rows["border_distance"].tolist() == [50, 49, 0, 60]


def test_a_pickled_data_set_of_a_zip_opens_it_again():
    dataset = MaskDataset("v1", border="free")
    copy = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(copy[3][0], dataset[3][0]) and list(copy.rows) == list(dataset.rows)


def test_data_sets_import_neither_torch_nor_pandas():
    code = "import sys, maskgen; maskgen.MaskDataset()[0]; print({'torch', 'pandas', 'matplotlib'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"ratio": (0.4, 0.2)}, "ratio is two numbers, the smaller one first, 0 to 1, or None"),
        ({"ratio": 0.2}, "ratio is two numbers"),
        ({"border": "inside"}, "border is one of interior, free, or None, got 'inside'"),
        ({"ratio": (0.5, 0.6)}, r"none of the 4 masks in .* has a hole ratio in \(0.5, 0.6\]"),
        ({"ratio": (0.0, 0.011), "border": "interior"}, "and the border 'interior'"),
    ],
)
def test_wrong_wishes_are_refused(folder, wrong, words):
    with pytest.raises(BadInput, match=words):
        MaskDataset(folder, **wrong)


def test_masks_without_an_index_are_refused_with_the_command_that_makes_one(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "0.png").write_bytes(encode(draw("#.", "..")))
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        archive.writestr("0.png", encode(draw("#.", "..")))
    for path in (tmp_path / "mine", tmp_path / "mine.zip"):
        with pytest.raises(BadInput, match=r"`maskgen bin .* --out masks/mine` makes one"):
            MaskDataset(path)


def test_damaged_sets_are_refused(folder):
    index = folder / "test" / "metadata.csv"
    whole = index.read_text()
    for wrong, words in (
        (whole.replace("a/1.png", "../1.png"), "lists the mask '../1.png', which is missing"),
        (whole.replace(",50,", ",fifty,"), "not numbers"),
        (whole.replace("border_distance", "distance"), "lacks one of the columns"),
        (whole.splitlines()[0] + "\n", "none of the 0 masks"),
    ):
        index.write_text(wrong)
        with pytest.raises(BadInput, match=words):
            MaskDataset(folder)
    with pytest.raises(BadInput, match="no such file or folder"):
        MaskDataset(folder / "nothing")
