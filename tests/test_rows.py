"""Tables and lists of names that are longer than memory: the same as if they were read as a whole."""

import csv
import io
import os
import pickle
import re
import warnings

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maskgen.errors import BadInput
from maskgen.index import open_index, read_index, write_table
from maskgen.runtime import files
from maskgen.runtime.journal import RowLog
from maskgen.runtime.names import Names
from maskgen.runtime.rows import Rows, RowSorter, write_rows

CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
TABLES = st.lists(st.lists(CELLS | st.sampled_from(['"', "a,b", "two\r\nlines", "\r", "\n"]), max_size=4), max_size=40)
ANY_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


@given(TABLES, st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
@ANY_FOLDER
def test_rows_are_those_of_a_reader_of_the_whole_file(tmp_path, table, end, marked):
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end).writerows([["a", "b", "c"], *table])
    (tmp_path / "t.csv").write_bytes(text.getvalue().encode("utf-8-sig" if marked else "utf-8"))
    whole = list(csv.DictReader(io.StringIO(text.getvalue(), newline=""), restval=""))
    for row in whole:
        row.pop(None, None)  # cells beyond the last column
    rows = Rows(tmp_path / "t.csv")
    assert len(rows) == len(whole) and list(rows) == whole
    assert [rows[i] for i in range(len(rows))] == whole and rows[-3:] == whole[-3:]


def test_rows_need_half_a_byte_each_and_can_be_pickled(tmp_path):
    write_rows(tmp_path / "t.csv", ({"n": i} for i in range(1000)), ["n"])
    rows = pickle.loads(pickle.dumps(Rows(tmp_path / "t.csv", {"n": int})))
    assert rows[999] == {"n": 999} and rows[-1000] == {"n": 0} and rows[500:502] == [{"n": 500}, {"n": 501}]
    assert len(pickle.dumps(rows)) < 1000
    with pytest.raises(IndexError):
        rows[1000]


def test_a_file_that_is_no_table_is_refused_before_its_first_row(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"a,b\n" + b"1,2\n" * 50 + b"\xff,3\n")
    with pytest.raises(BadInput, match=r"t\.csv is not a table that can be read"):
        Rows(tmp_path / "t.csv")
    with pytest.raises(BadInput, match=r"missing\.csv is not a table that can be read"):
        Rows(tmp_path / "missing.csv")


def test_an_index_has_the_bytes_that_pandas_writes(tmp_path):
    made = {"frame": 12, "dilation": 8.5, "small": 1e-7, "note": 'a "b", c\nd', "empty": "", "none": None}
    rows = [{"file_name": f"{i}.png", "category": "", "hole_ratio": "0.100000", **made, "sha256": "0"} for i in "ab"]
    columns = ["file_name", "category", "hole_ratio", "border_distance", "components", *made, "sha256"]
    write_table(tmp_path / "t.csv", iter(rows))
    assert (tmp_path / "t.csv").read_text() == pd.DataFrame(rows, columns=columns).to_csv(index=False)
    write_table(tmp_path / "none.csv", [])
    assert (tmp_path / "none.csv").read_text() == "file_name,category,hole_ratio,border_distance,components,sha256\n"


def test_a_table_whose_rows_fail_is_not_written(tmp_path):
    with pytest.raises(ZeroDivisionError):
        write_rows(tmp_path / "t.csv", ({"n": 1 // (3 - i)} for i in range(9)), ["n"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("cell", ["a/../../b", "1.5", "nan", "", "-0.5", "x"])
def test_an_index_that_is_read_row_by_row_has_the_checks_of_one_that_is_read_as_a_whole(tmp_path, cell):
    name, ratio = (cell, "0.5") if "/" in cell else ("a.png", cell)
    (tmp_path / "metadata.csv").write_text(f"file_name,hole_ratio\n0.png,0.1\n{name},{ratio}\n")
    said = []
    for read in (open_index, read_index):
        with pytest.raises(BadInput) as error:
            read(tmp_path)
        said.append(str(error.value))
    assert said[0] == said[1]


def test_rows_are_sorted_with_few_of_them_in_memory(tmp_path):
    numbers = [i * 37 % 100 for i in range(100)]
    with RowSorter(lambda row: row["n"] // 2, tmp_path, at_once=7) as rows:
        for i, n in enumerate(numbers):
            rows.add({"n": n, "i": i})
        expected = sorted(({"n": n, "i": i} for i, n in enumerate(numbers)), key=lambda row: row["n"] // 2)
        assert len(rows) == 100 and list(rows) == expected and list(rows) == expected
    assert not list(tmp_path.iterdir())


def test_a_log_continues_after_the_last_row_that_is_wanted(tmp_path):
    path = tmp_path / "log.jsonl"
    with RowLog(path, lambda row: "n" in row) as log:
        assert list(log.resume(lambda row: True)) == []
        for n in range(5):
            log.add({"n": n})
    with path.open("ab") as file:
        file.write(b'{"n": 5')  # killed while it wrote
    with RowLog(path, lambda row: "n" in row) as log:
        assert [row["n"] for row in log.resume(lambda row: row["n"] < 3)] == [0, 1, 2]
        log.add({"n": "x"})
        assert len(log) == 4 and [row["n"] for row in log] == [0, 1, 2, "x"]
    assert len(path.read_bytes().splitlines()) == 4


NAMES = st.lists(st.text(max_size=6), max_size=30)


@given(NAMES, NAMES)
def test_names_are_a_list_that_tells_the_places_of_others(own, others):
    names = Names(own)
    assert names == own and list(names) == own and [names[i] for i in range(-len(own), 0)] == own
    assert names[1:5] == own[1:5] and len(names) == len(own)
    assert names.places(others).tolist() == [own.index(name) if name in own else -1 for name in others]
    assert names.missing([others[:3], others[3:]]) == [name for name in others if name not in own]


def test_names_with_one_hash_are_told_apart(monkeypatch):
    monkeypatch.setattr("maskgen.runtime.names.hash", lambda name: 7, raising=False)
    assert Names(["a", "b", "c", "b"]).places(["c", "b", "d", "a"]).tolist() == [2, 1, -1, 0]


def test_names_need_their_bytes_and_eight_more():
    names = [f"a-video/{i:06d}_disoccluded.png" for i in range(1000)]
    assert len(pickle.dumps(Names(names))) < 1000 * (len(names[0]) + 9) < sum(map(len, names)) * 1.4


def old_natural(path):
    """The definition of natural order: texts and numbers by turns, numbers by value, then the whole name."""
    parts = re.split(r"([0-9]+)", path)
    parts[1::2] = [int(part) for part in parts[1::2]]
    return parts, path


@given(st.lists(st.text(st.sampled_from("ab/-.019 é"), max_size=8)))
def test_natural_order_compares_texts_and_numbers_by_turns(names):
    assert sorted(names, key=files.natural) == sorted(names, key=old_natural)


PARTS = st.sampled_from(["1", "01", "2", "10", "a", "a-b", "a1", "A", "a b"])


@given(st.lists(st.tuples(PARTS, PARTS, PARTS), max_size=12))
@ANY_FOLDER
def test_names_below_a_folder_are_in_the_order_of_their_whole_paths(tmp_path_factory, paths):
    top = tmp_path_factory.mktemp("top")
    for parts in paths:
        for depth in range(3):
            (top / "/".join(parts[:depth])).mkdir(parents=True, exist_ok=True)
            (top / "/".join([*parts[:depth], f"{parts[2]}.png"])).touch()
    found = [path.relative_to(top).as_posix() for path in files.find(top, (".png",))]
    assert files.find_names(top, (".png",)) == found
    assert found == sorted((p.relative_to(top).as_posix() for p in top.rglob("*.png")), key=files.natural)
    files.write_checksums(top)
    lines = (top / files.CHECKSUMS).read_text().splitlines()
    assert [line[66:] for line in lines] == [p.relative_to(top).as_posix() for p in sorted(top.rglob("*.png"))]


def test_one_warning_counts_the_litter_among_very_many_names(tmp_path):
    for name in ("1.png", "._1.png", "a/2.png", "a/._2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert files.find_names(tmp_path, (".png",)) == ["1.png", "a/2.png"]
    assert len(said) == 1 and "2 hidden or system files" in str(said[0].message)


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_a_name_that_is_not_utf_8_is_kept(tmp_path):
    (tmp_path / os.fsdecode(b"\xff.png")).touch()
    assert list(files.find_names(tmp_path, (".png",))) == [os.fsdecode(b"\xff.png")]
