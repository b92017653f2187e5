"""Files and folders: which are found, how they are named, and that they are written whole."""

import csv
import errno
import hashlib
import os
import subprocess
import sys
import unicodedata
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskgen.errors import BadInput, InputWarning
from maskgen.runtime import files

ROOT = Path(__file__).parents[1]


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.fsencode(name))


def found(folder, *endings, **how):
    return [path.relative_to(folder).as_posix() for path in files.find(folder, endings or (".png",), **how)]


@pytest.fixture
def quiet():
    """A test in which a warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.usefixtures("quiet")
def test_files_are_found_in_natural_order_whatever_the_case_of_their_ending(tmp_path):
    touch(tmp_path, "10.PNG", "9.png", "b/1.Png", "b/01.Png", "a.jpg", "a.JPEG", "a.png.txt", "png")
    assert found(tmp_path) == ["9.png", "10.PNG", "b/01.Png", "b/1.Png"]
    assert found(tmp_path, ".jpg", ".jpeg") == ["a.JPEG", "a.jpg"]
    assert found(tmp_path, exclude=tmp_path / "b") == ["9.png", "10.PNG"]
    assert found(tmp_path / "nowhere") == []


def test_files_of_all_folders_are_in_one_natural_order(tmp_path):
    touch(tmp_path, "2.png", "1/9.png", "10/0.png", "b.png", "a/0.png")
    assert found(tmp_path) == ["1/9.png", "2.png", "10/0.png", "a/0.png", "b.png"]


def test_natural_order_compares_numbers_of_any_length_and_only_ascii_digits():
    names = ["a2", "a10", "a" + "9" * 5000, "a٣", "x1٣", "x1a"]
    turned = names[::-1]
    assert sorted(turned, key=files.natural) == ["a2", "a10", "a" + "9" * 5000, "a٣", "x1a", "x1٣"]


@given(st.lists(st.text(), unique=True))
def test_natural_order_does_not_depend_on_the_initial_order(names):
    turned = names[::-1]
    assert sorted(names, key=files.natural) == sorted(turned, key=files.natural)


def test_links_are_followed_but_not_in_loops(tmp_path):
    touch(tmp_path / "top", "a/1.png")
    touch(tmp_path / "other", "2.png")
    for link, target in (("b", tmp_path / "other"), ("a/up", tmp_path / "top"), ("a/self", "."), ("3.png", "a/1.png")):
        (tmp_path / "top" / link).symlink_to(target)
    (tmp_path / "other" / "back").symlink_to(tmp_path / "top")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found(tmp_path / "top") == ["3.png", "a/1.png", "b/2.png"]


def test_a_broken_link_is_skipped_with_a_warning(tmp_path):
    touch(tmp_path, "1.png")
    (tmp_path / "2.png").symlink_to("gone.png")
    (tmp_path / "3.png").symlink_to("3.png")
    (tmp_path / ".4.png").symlink_to("gone.png")
    with pytest.warns(InputWarning) as said:
        assert found(tmp_path) == ["1.png"]
    assert [str(one.message) for one in said] == [f"{tmp_path}/{i}.png is skipped: the link is broken" for i in (2, 3)]


def test_a_device_is_not_a_file(tmp_path):
    os.mkfifo(tmp_path / "1.png")
    assert found(tmp_path) == []


FOREIGN = """
import os, pathlib, sys, warnings
from maskgen.runtime import files
if os.geteuid() == 0:
    os.setuid(65534)  # root may read everything
warnings.showwarning = lambda message, *rest: print(message)
print(len(files.find(pathlib.Path(sys.argv[1]), (".png",))))
"""


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs a system with users")
def test_an_unreadable_folder_is_skipped_with_a_warning(tmp_path):
    touch(tmp_path, "a/1.png", "b/2.png")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and folder != Path("/"):
            folder.chmod(0o755)
    (tmp_path / "a").chmod(0)
    done = subprocess.run([sys.executable, "-c", FOREIGN, tmp_path], cwd=ROOT, capture_output=True, text=True)
    (tmp_path / "a").chmod(0o755)
    assert done.stdout == f"{tmp_path}/a is skipped: Permission denied\n1\n", done.stderr


def test_litter_is_skipped_with_one_warning(tmp_path):
    touch(tmp_path, "1.png", "._1.png", "__MACOSX/._1.png", ".ipynb_checkpoints/1-checkpoint.png", "a/Thumbs.db")
    touch(tmp_path, ".git/0.png", "a/desktop.ini", "a/$RECYCLE.BIN/1.png")
    with pytest.warns(InputWarning, match="4 hidden or system files are skipped, such as ._1.png") as said:
        assert found(tmp_path) == ["1.png"]
    assert len(said) == 1


@pytest.mark.parametrize(
    ("name", "litter"),
    [("./a.png", False), ("../a.png", False), (".a.png", True), ("a/.b/c.png", True), ("a\\THUMBS.DB", True)],
)
def test_hidden_and_system_files_are_litter_and_the_folder_itself_is_not(name, litter):
    assert files.is_litter(name) == litter


@pytest.mark.usefixtures("quiet")
def test_litter_with_another_ending_gives_no_warning(tmp_path):
    touch(tmp_path, "1.png", ".DS_Store", "Thumbs.db", ".git/config", "a/@eaDir/1.jpg")
    assert found(tmp_path) == ["1.png"]


def test_a_hidden_folder_is_read_if_it_is_given(tmp_path):
    touch(tmp_path, ".cache/1.png")
    assert found(tmp_path / ".cache") == ["1.png"]


LABELS = st.text(st.characters(codec=None), max_size=300) | st.sampled_from(sorted(files.SPLITS | files.DEVICES))


@given(LABELS)
def test_a_safe_name_is_safe_everywhere(label):
    name = files.safe_name(label)
    assert name and len(name.encode()) <= files.LONGEST == 120
    assert all(c.isalnum() or c in "._-" for c in name)
    assert name[0] not in "._" and name[-1] != "." and name.split(".")[0].lower() not in files.DEVICES
    assert unicodedata.is_normalized("NFC", name) and files.safe_name(name) == name
    assert files.leads_inside(name)


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("validation", "validationx"),
        ("test_01", "testx_01"),
        ("my-train", "my-trainx"),
        ("a.val.b 3dev", "a.valx.b_3devx"),
        ("Test latest trainer", "Test_latest_trainer"),
        ("CON", "CON_"),
        ("nul.mp4", "nul_.mp4"),
        ("com1.a.b", "com1_.a.b"),
        ("lpt²", "lpt²_"),
        ("console", "console"),
        ("../../etc/passwd", "etc_passwd"),
        (" . ", "video"),
        ("", "video"),
        ("a\x00b\nc", "a_b_c"),
        ("cafe\u0301", "café"),
        (os.fsdecode(b"gr\xfcn"), "gr_n"),
    ],
)
def test_safe_name_of_a_label(label, name):
    assert files.safe_name(label) == name


def test_shortening_a_name_does_not_create_the_name_of_a_split():
    names = {files.safe_name("a" * length + "_trainer" + "b" * 99) for length in range(90, 120)}
    assert all("_train-" not in name and len(name) <= 120 for name in names)


@given(st.lists(LABELS | st.sampled_from(["A", "a", "é", "É", "e\u0301", "ß", "ss", "a-2", "x" * 200, "X" * 200])))
def test_safe_names_are_unique_also_where_case_is_ignored(labels):
    names = files.safe_names(labels)
    assert len({name.casefold() for name in names}) == len(labels)
    assert names == files.safe_names(labels)


def test_hugging_face_loads_folders_of_any_safe_name_as_one_split(tmp_path):
    data_files = pytest.importorskip("datasets.data_files")
    labels = [*files.SPLITS, "my-train", "test_01", "a val", "2 dev", "x.eval.y"]
    for name in files.safe_names(labels):
        touch(tmp_path, f"train/{name}/000000_occluded.png")
    patterns = data_files.get_data_patterns(str(tmp_path))
    assert list(patterns) == ["train"]
    assert len(data_files.DataFilesDict.from_patterns(patterns, base_path=str(tmp_path))["train"]) == len(labels)


@given(st.text(st.characters(codec=None)), st.integers(20, 200))
def test_a_shortened_name_fits_and_is_valid_unicode(name, longest):
    short = files.shortened(name, longest)
    assert len(short.encode(errors="surrogatepass")) <= longest
    if short != name:
        short.encode()  # no half character
        assert short[-9:] == f"-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:8]}"


def test_shortened_names_that_differ_at_their_ends_stay_different():
    names = ["ü" * 100 + str(i) for i in range(1000)]
    short = {files.shortened(name) for name in names}
    assert len(short) == 1000 and all(len(name.encode()) <= 120 for name in short)


@pytest.mark.parametrize(
    "name",
    [
        "0.png",
        "a/b/0.png",
        "..0.png",
        "a..b/0.png",
        "a/./0.png",
        "ünicode/0.png",
        ".hidden",
        os.fsdecode(b"\xff"),
    ],
)
def test_a_path_that_stays_inside_its_folder(name):
    assert files.leads_inside(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "/", "a/", "./", "/etc/passwd", "../0.png", "a/../../0.png", "a/..", "a\0.png"),
        *("\\a", "..\\0.png", "a\\..\\..\\0.png", "C:0.png", "c:\\0.png", "\\\\host\\share", "0.png:stream"),
        *(".. /0.png", "a/.../0.png", ". ./0.png"),  # which Windows takes for ..
    ],
)
def test_a_path_that_leads_out_of_its_folder(name):
    assert not files.leads_inside(name)


@given(st.text(st.sampled_from("./\\ab: ")))
def test_what_leads_inside_resolves_inside(name):
    if files.leads_inside(name):
        for way in (name, name.replace("\\", "/")):
            inside = os.path.normpath(f"/top/{way}")
            assert inside.startswith("/top/") and inside != "/top/"


def test_a_file_with_the_longest_possible_name_is_written(tmp_path):
    path = tmp_path / ("ü" * 125 + "a.png")  # 255 bytes
    files.write_whole(path, b"1")
    files.write_whole(path, b"22")
    assert path.read_bytes() == b"22" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "number"), [("a" * 256, errno.ENAMETOOLONG), ("missing/0.png", errno.ENOENT), ("folder", errno.EISDIR)]
)
def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path, name, number):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError) as error:
        files.write_whole(tmp_path / name, b"1")
    assert error.value.errno == number and error.value.filename == str(tmp_path / name)
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


FULL = """
import pathlib, resource, signal, sys
from maskgen.runtime import files
path = pathlib.Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # as a disk with 1000 bytes left
try:
    files.write_whole(path, bytes(5000))
except OSError as error:
    print([file.name for file in path.parent.iterdir()], path.read_bytes())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of a process")
def test_a_full_disk_leaves_the_old_file(tmp_path):
    (tmp_path / "0.png").write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path / "0.png"], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "['0.png'] b'old'\n", done.stderr


def test_only_temporary_files_of_a_killed_run_are_removed(tmp_path):
    mine = ["0.png.0123456789ab.part", "a/1.png.ffffffffffff.part"]
    touch(tmp_path, *mine, "film.part", "0.png.0123456789AB.part", "0.png.0123456789abc.part")
    files.remove_parts(tmp_path)
    assert {path.name for path in tmp_path.rglob("*.part")} == {
        "film.part",
        "0.png.0123456789AB.part",
        "0.png.0123456789abc.part",
    }


def test_checksums_have_the_format_of_sha256sum_and_skip_litter(tmp_path):
    touch(tmp_path, "b.png", "a/ü.png", ".progress/recipe.json", "a/.ipynb_checkpoints/0.png", ".lock", "Thumbs.db")
    files.write_checksums(tmp_path)
    files.write_checksums(tmp_path)
    lines = (tmp_path / files.CHECKSUMS).read_bytes().splitlines()
    assert [line[66:] for line in lines] == ["a/ü.png".encode(), b"b.png"]
    assert lines[1][:66].decode() == f"{hashlib.sha256(b'b.png').hexdigest()}  "
    assert files.sha256_of_files(tmp_path, ["b.png"]) == files.sha256_of_files(tmp_path, ["b.png"])
    touch(tmp_path, os.fsdecode(b"gr\xfcn.png"))
    assert files.sha256_of_files(tmp_path, [os.fsdecode(b"gr\xfcn.png")])


def test_the_hash_of_files_depends_on_order_names_and_bytes(tmp_path):
    touch(tmp_path, "a", "b")
    touch(tmp_path / "other", "a")
    (tmp_path / "other" / "b").write_text("B")
    hashes = {files.sha256_of_files(tmp_path, names) for names in (["a", "b"], ["b", "a"], ["a"], [])}
    assert len(hashes | {files.sha256_of_files(tmp_path / "other", ["a", "b"])}) == 5


def test_hashing_a_folder_or_a_missing_file_is_an_error(tmp_path):
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(BadInput, match=f"cannot read {path}"):
            files.sha256(path)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_table_is_read_with_a_byte_order_mark_and_any_line_ends(tmp_path, mark, end):
    lines = ["file,licence,note", "a.mp4,CC0-1.0", 'b.mp4,,"two, words",more', ""]
    (tmp_path / "t.csv").write_bytes(mark + end.join(lines).encode())
    assert files.read_rows(tmp_path / "t.csv") == [
        {"file": "a.mp4", "licence": "CC0-1.0", "note": ""},
        {"file": "b.mp4", "licence": "", "note": "two, words"},
    ]


def test_an_end_of_line_inside_a_cell_is_kept(tmp_path):
    (tmp_path / "t.csv").write_bytes(b'a,b\r\n"two\r\nlines",1\r\n')
    assert files.read_rows(tmp_path / "t.csv") == [{"a": "two\r\nlines", "b": "1"}]


@pytest.mark.parametrize(
    "data", ["ü,b\n1,2\n".encode("utf-16"), b"a,b\nx\xb9,2\n", b'a,b\n"' + b"x" * 200_000 + b'",2\n']
)
def test_a_file_that_is_no_table_is_refused(tmp_path, data, request):
    before = csv.field_size_limit(1 << 17)  # Python's own limit, which some libraries raise when they are imported
    request.addfinalizer(lambda: csv.field_size_limit(before))
    (tmp_path / "t.csv").write_bytes(data)
    for path in (tmp_path / "t.csv", tmp_path, tmp_path / "nothing.csv"):
        with pytest.raises(BadInput, match=f"{path} is not a table that can be read"):
            files.read_rows(path)
