import io
import struct
import tarfile
import zipfile
import zlib

import cv2
import numpy as np
import pytest

from maskgen.errors import BadInput
from maskgen.maskset import Masks, encode, read_hole
from tests.rawmasks import draw

HOLE = draw("#...", "..#.", "...#")


def make_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def make_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def png_header(width, height):
    """A small PNG file that claims any size."""
    chunks = b""
    for kind, data in (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(1000))),
        (b"IEND", b""),
    ):
        chunks += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_masks_are_written_as_8_bit_grey_png():
    grey = cv2.imdecode(np.frombuffer(encode(HOLE), np.uint8), cv2.IMREAD_UNCHANGED)
    assert grey.dtype == np.uint8 and (grey == np.where(HOLE, 255, 0)).all()


@pytest.mark.parametrize("mode", ["zip", "w", "w:gz", "w:xz"])
def test_archives_are_read_in_natural_order(tmp_path, mode):
    files = {f"masks/{i}.png": encode(np.roll(HOLE, i)) for i in (10, 9, 1)} | {"masks/readme.txt": b"hello"}
    path = make_zip(tmp_path / "a", files) if mode == "zip" else make_tar(tmp_path / "a", files, mode)
    masks = Masks(path)
    assert masks.names == ["masks/1.png", "masks/9.png", "masks/10.png"]
    assert (masks[2] == np.roll(HOLE, 10)).all()


@pytest.mark.parametrize("name", ["../../evil.png", "/etc/evil.png", "a/../../evil.png", "C:/evil.png", "..\\evil.png"])
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_names_that_lead_out_of_an_archive_are_refused(tmp_path, name, make):
    with pytest.raises(BadInput, match="leads out of the archive"):
        Masks(make(tmp_path / "archive", {"ok.png": encode(HOLE), name: encode(HOLE)}))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        entry = tarfile.TarInfo("a.png")
        entry.type, entry.linkname = kind, "/etc/passwd"
        archive.addfile(entry)
    with pytest.raises(BadInput, match="link or device"):
        Masks(tmp_path / "a.tar")


def test_a_link_in_a_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        entry = zipfile.ZipInfo("a.png")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(BadInput, match="link or device"):
        Masks(tmp_path / "a.zip")


def test_a_huge_png_is_refused_before_it_is_unpacked(tmp_path):
    (tmp_path / "huge.png").write_bytes(png_header(100_000, 100_000))
    with pytest.raises(BadInput, match="claims 100000x100000 px"):
        read_hole(tmp_path / "huge.png")
    masks = Masks(make_zip(tmp_path / "a.zip", {"huge.png": png_header(100_000, 100_000)}))
    with pytest.raises(BadInput, match="claims 100000x100000 px"):
        masks[0]


def test_a_zip_bomb_is_refused(tmp_path):
    path = make_zip(tmp_path / "bomb.zip", {"a.png": bytes(33 * 1024 * 1024)})
    assert path.stat().st_size < 100_000
    with pytest.raises(BadInput, match="bytes at most"):
        Masks(path)


def test_a_zip_with_false_sizes_is_refused(tmp_path):
    path = make_zip(tmp_path / "liar.zip", {"a.png": bytes(33 * 1024 * 1024)})
    true, false = struct.pack("<I", 33 * 1024 * 1024), struct.pack("<I", 1000)
    path.write_bytes(path.read_bytes().replace(true, false))
    with pytest.raises(BadInput):
        Masks(path)[0]


def test_damaged_files_are_refused(tmp_path):
    whole = make_zip(tmp_path / "a.zip", {"a.png": encode(HOLE)}).read_bytes()
    (tmp_path / "b.zip").write_bytes(whole[:60] + b"\0\0\0\0" + whole[64:])
    (tmp_path / "c.zip").write_bytes(b"no archive at all")
    for name, words in (("b.zip", "cannot be unpacked|not an image|damaged"), ("c.zip", "neither a folder nor")):
        with pytest.raises(BadInput, match=words):
            Masks(tmp_path / name)[0]
    (tmp_path / "d.png").write_bytes(encode(HOLE)[:30])
    with pytest.raises(BadInput, match="not an image"):
        read_hole(tmp_path / "d.png")


def test_an_archive_without_masks_and_a_missing_one_are_refused(tmp_path):
    with pytest.raises(BadInput, match="no mask"):
        Masks(make_zip(tmp_path / "a.zip", {"a.txt": b"hello"}))
    with pytest.raises(BadInput, match="no such file or folder"):
        Masks(tmp_path / "nowhere.zip")
