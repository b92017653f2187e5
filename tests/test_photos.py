"""`pconv inpaint` and `pconv superres` on files: formats, folders, refusals, and runs that are continued."""

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, ImageCms, ImageOps
from skimage.data import astronaut

import cli
from maskgen.errors import BadInput
from maskgen.runtime import images
from pconv_model import checkpoints, data, inpaint
from pconv_model.inpaint import Inpainter
from pconv_model.photos import pair_by_path
from pconv_model.settings import NetConfig
from pconv_model.unet import ConvUNet, PConvUNet, build

ROOT = Path(__file__).parents[1]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with three photos, a mask of each, and small nets that stand for those that ship."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(inpaint, "WEIGHTS", tmp_path / "weights")
    torch.manual_seed(0)
    for kind, net in (("pconv", PConvUNet(0.05, 2)), ("conv", ConvUNet(0.05, 2))):
        checkpoints.save(tmp_path / "weights" / f"{kind}.safetensors", net)
        for factor in (2, 3, 4):
            enlarging = build(NetConfig(kind=kind, width=0.05, depth=2, factor=factor))
            checkpoints.save(tmp_path / "weights" / f"{kind}-x{factor}.safetensors", enlarging)
    for i in range(3):
        images.write(Path(f"photos/{i}.png"), picture(seed=i))
        write_mask(f"masks/{i}.png", top=5 + i)
    return tmp_path


def picture(height=40, width=48, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def write_mask(path, height=40, width=48, top=5):
    hole = np.zeros((height, width), np.uint8)
    hole[top : top + 12, 6:20] = 255
    images.write(Path(path), hole)


def call(*words):
    return CliRunner().invoke(cli.pconv, [str(word) for word in words])


def run(*words):
    """The lines of a command that must succeed."""
    done = call(*words)
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()


def refusal(*words):
    """The one line of a command that must be refused."""
    done = call(*words)
    lines = [line for line in done.output.split("\r")[-1].splitlines() if line.strip()]
    assert done.exit_code == 2 and len(lines) == 1, done.output
    return lines[0]


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


INPAINT, SUPERRES = ("inpaint", "photos", "masks", "out"), ("superres", "photos", "out", "--factor", 2)


def change_a_byte(*paths):
    for path in map(Path, paths):
        whole = bytearray(path.read_bytes())
        whole[-1] ^= 1
        path.write_bytes(whole)


def another_version(package, monkeypatch):
    real = metadata.version
    monkeypatch.setattr("maskgen.runtime.recipe.version", lambda name: "0.0.1" if name == package else real(name))


CHANGES = {  # what is changed between two runs, and the words that name it
    "the weights that ship": (lambda patch: change_a_byte(*Path("weights").iterdir()), (), "net: weights was "),
    "other weights": (None, ("--weights", "other.safetensors"), "net: weights was "),
    "the kind": (None, ("--kind", "conv"), "net: kind was pconv, is conv"),
    "the precision": (None, ("--precision", "bf16"), "precision was fp32, is bf16"),
    "the tile": (None, ("--tile", 16), "tile was 512, is 16"),
    "a photo": (lambda patch: images.write(Path("photos/1.png"), picture(seed=9)), (), "inputs: 1.png: image was "),
    "PyTorch": (lambda patch: another_version("torch", patch), (), "libraries: torch was "),
    "numpy": (lambda patch: another_version("numpy", patch), (), "libraries: numpy was "),
    "OpenCV": (lambda patch: patch.setattr("cv2.__version__", "0.0.1"), (), "libraries: opencv was "),
}
OF_INPAINT = {
    "a mask": (lambda patch: write_mask("masks/1.png", top=20), (), "inputs: 1.png: mask was "),
    "mirroring": (None, ("--mirror",), "mirror was false, is true"),
    "scales": (None, ("--one-scale",), "scales was true, is false"),
    "raw": (None, ("--raw",), "raw was false, is true"),
    "polarity": (None, ("--polarity", "hole-black"), "polarity was hole-white, is hole-black"),
    "the threshold": (None, ("--threshold", 100), "threshold was null, is 100"),
}
OF_SUPERRES = {"the factor": (None, ("--factor", 3), "factor was 2, is 3")}
ONE_THING = [(INPAINT, what) for what in (CHANGES | OF_INPAINT)] + [
    (SUPERRES, what) for what in (CHANGES | OF_SUPERRES)
]


@pytest.mark.parametrize(("command", "what"), ONE_THING)
def test_a_folder_of_another_run_is_refused_and_the_difference_named(place, monkeypatch, command, what):
    change, words, message = (CHANGES | OF_INPAINT | OF_SUPERRES)[what]
    torch.manual_seed(1)
    checkpoints.save(place / "other.safetensors", PConvUNet(0.05, 2))
    run(*command)
    before = contents(place / "out")
    if change:
        change(monkeypatch)
    line = refusal(*command, *words)
    assert line.startswith(f"pconv: out was created with other settings ({message}")
    assert line.count("; ") == (what in ("the kind", "the factor"))  # whose weights are others too
    assert contents(place / "out") == before


def test_the_kind_of_device_is_part_of_the_recipe(place):
    inpainter = Inpainter(device="cpu")
    assert inpainter.identity()["device"] == "cpu"
    inpainter.net.mean = inpainter.net.mean.to("meta")
    assert inpainter.identity()["device"] == "meta"


@pytest.mark.parametrize("command", [INPAINT, SUPERRES])
def test_a_second_run_has_nothing_to_do_and_says_so(place, command):
    assert run(*command) == ["3 images in out"]
    before = contents(place / "out")
    assert run(*command) == ["out is already complete"] and contents(place / "out") == before
    assert set(json.loads(before["recipe.json"])["inputs"]) == {"0.png", "1.png", "2.png"}


@pytest.mark.parametrize("command", [INPAINT, SUPERRES])
def test_photos_may_be_added_to_a_finished_folder(place, command):
    run(*command)
    before = contents(place / "out")
    images.write(Path("photos/more/3.png"), picture(seed=3))
    write_mask("masks/more/3.png")
    assert run(*command) == ["1 images in out"] and run(*command) == ["out is already complete"]
    after = contents(place / "out")
    assert all(after[name] == before[name] for name in before if name != "recipe.json")
    shutil.rmtree("out")
    run(*command)
    assert contents(place / "out") == after  # as if all had been there from the beginning


def test_a_result_that_was_removed_is_made_again(place):
    run(*INPAINT)
    before = contents(place / "out")
    Path("out/1.png").unlink()
    assert run(*INPAINT) == ["1 images in out"] and contents(place / "out") == before


def test_the_result_of_a_photo_does_not_depend_on_others(place):
    run(*INPAINT)
    run("inpaint", "photos/1.png", "masks/1.png", "alone")
    assert Path("alone/1.png").read_bytes() == Path("out/1.png").read_bytes()


KILLED = """
import os, signal, pathlib
from maskgen.runtime import files, images
from pconv_model import inpaint
import cli
from maskgen.errors import BadInput
inpaint.WEIGHTS = pathlib.Path("weights").absolute()
real, written = files.write_whole, []
def write_whole(path, data):
    if path.suffix == ".png":
        if len(written) == 2:
            path.with_name(path.name + ".0123456789ab.part").write_bytes(data[:9])
            os.kill(os.getpid(), signal.SIGKILL)
        written.append(path)
    real(path, data)
images.write_whole = write_whole
cli.pconv()
"""


@pytest.mark.parametrize("command", [INPAINT, SUPERRES])
def test_a_killed_run_can_be_continued_to_the_same_bytes(place, command):
    words = [sys.executable, "-c", KILLED, *map(str, command)]
    killed = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
    assert killed.returncode == -9 and not Path("out/recipe.json").exists() and list(Path("out").rglob("*.part"))
    assert "created with other settings (tile" in refusal(*command, "--tile", 16)
    assert run(*command) == ["1 images in out" if command is INPAINT else "2 images in out"]
    resumed = contents(place / "out")
    shutil.rmtree("out")
    run(*command)
    assert contents(place / "out") == resumed


def test_a_folder_with_other_files_is_not_touched(place):
    Path("out").mkdir()
    Path("out/letter.txt").write_text("dear")
    assert "was not made by `pconv inpaint`" in refusal(*INPAINT)
    run("superres", "photos", "large")
    assert "made by pconv superres" in refusal("inpaint", "photos", "masks", "large")


# What may be in a photo.


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(place, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(astronaut()[:48:, :64]).save("phone.jpg", exif=exif)
    shown = np.asarray(ImageOps.exif_transpose(Image.open("phone.jpg")))
    images.write(Path("upright.png"), shown)
    write_mask("mask.png", *shown.shape[:2])
    for photo in ("phone.jpg", "upright.png"):
        run("inpaint", photo, "mask.png", f"{photo}-filled.png")
        run("superres", photo, f"{photo}-large.png", "--factor", 2)
    for result in ("filled", "large", "large_bicubic"):
        assert (images.read(Path(f"phone.jpg-{result}.png")) == images.read(Path(f"upright.png-{result}.png"))).all()
    assert (data.read_rgb(Path("phone.jpg"), 999) == shown).all()  # in training too


@pytest.mark.parametrize("command", [("inpaint", "photo.jpg", "mask.png", "out"), ("superres", "photo.jpg", "out")])
def test_profile_resolution_and_exif_of_a_photo_are_kept_and_its_orientation_reset(place, command):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "A camera"
    Image.fromarray(picture(48, 40)).save("photo.jpg", exif=exif, dpi=(300, 300), icc_profile=SRGB)
    write_mask("mask.png")
    run(*command)
    (result,) = (path for path in Path("out").glob("*.png") if "bicubic" not in path.name)
    with Image.open(result) as found:
        assert found.info["icc_profile"] == SRGB and found.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert found.getexif()[0x010F] == "A camera" and found.getexif().get(0x0112, 1) == 1


def grey_alpha():
    return np.dstack([picture()[..., 0], picture()[..., 1]])


PHOTOS = {  # name: what Pillow or OpenCV writes, and shape and type of the result
    "grey.png": (lambda path: Image.fromarray(picture()[..., 0]).save(path), (40, 48), np.uint8),
    "palette.png": (lambda path: Image.fromarray(picture()).quantize(64).save(path), (40, 48, 3), np.uint8),
    "cmyk.jpg": (lambda path: Image.fromarray(picture()).convert("CMYK").save(path), (40, 48, 3), np.uint8),
    "greyalpha.png": (lambda path: Image.fromarray(grey_alpha()).save(path), (40, 48, 4), np.uint8),
    "deep.png": (lambda path: cv2.imwrite(path, picture().astype(np.uint16) * 257), (40, 48, 3), np.uint16),
    "float.tif": (lambda path: cv2.imwrite(path, picture().astype(np.float32) / 255), (40, 48, 3), np.uint16),
    "web.webp": (lambda path: Image.fromarray(picture()).save(path), (40, 48, 3), np.uint8),
    "UPPER.TIFF": (lambda path: Image.fromarray(picture()).save(path), (40, 48, 3), np.uint8),
}


@pytest.mark.parametrize("name", PHOTOS)
def test_photos_of_any_format_keep_their_known_pixels(place, name):
    write, shape, dtype = PHOTOS[name]
    write(name)
    run("inpaint", name, "masks/0.png", "out")
    before, after = images.read(Path(name)), images.read(Path("out", Path(name).stem + ".png"))
    hole = images.read(Path("masks/0.png")) > 0
    assert after.shape == shape and after.dtype == dtype
    assert (after[~hole] == before[~hole]).all() and (after[hole] != before[hole]).any()


def test_training_finds_the_same_photos(place):
    for name, (write, _, _) in PHOTOS.items():
        write(f"photos/{name}")
    Path("photos/._UPPER.TIFF").write_bytes(b"of a Mac")
    Path("photos/again").symlink_to(place / "photos")
    kept, _ = data.split([Path("photos")])
    assert {path.name for path in kept} <= {*PHOTOS, "0.png", "1.png", "2.png"}
    assert all(data.read_rgb(path, 32).shape == (32, 38, 3) for path in kept)


# Which mask belongs to which photo, and where results go.


def test_photos_and_masks_of_one_name_in_several_folders_are_paired_by_their_paths(place):
    for folder, top in (("a", 2), ("b", 25)):
        images.write(Path(f"sets/{folder}/0.png"), picture(seed=top))
        write_mask(f"holes/{folder}/0.png", top=top)
    run("inpaint", "sets", "holes", "out")
    for folder in ("a", "b"):
        before, after = (images.read(Path(top, folder, "0.png")) for top in ("sets", "out"))
        hole = images.read(Path("holes", folder, "0.png")) > 0
        assert (before[~hole] == after[~hole]).all() and (before[hole] != after[hole]).any()
    shutil.move("holes/a/0.png", "holes/0.png")
    assert "sets/a/0.png could belong to the mask" in refusal("inpaint", "sets", "holes", "other")


def test_a_photo_without_a_mask_is_named_before_anything_is_written(place):
    Path("masks/1.png").unlink()
    assert "no mask for photos/1.png in masks" in refusal(*INPAINT)
    assert not Path("out").exists()


@pytest.mark.parametrize("command", [INPAINT, SUPERRES])
def test_a_name_of_250_bytes_and_one_with_spaces_and_umlauts_work(place, command):
    for name in ("n" * 246, "m" * 246, "Größe 1 " + "ü" * 119):
        shutil.copy("photos/0.png", f"photos/{name}.png")
        shutil.copy("masks/0.png", f"masks/{name}.png")
    assert run(*command) == ["6 images in out"] and run(*command) == ["out is already complete"]


def test_two_photos_of_one_stem_are_refused(place):
    shutil.copy("photos/0.png", "photos/0.bmp")
    assert "2 photos in photos would be written to out/0" in refusal("inpaint", "photos", "masks/0.png", "out")


def test_results_and_masks_below_the_folder_of_photos_are_not_taken_for_photos(place):
    assert run("inpaint", "photos", "masks", "photos/out") == ["3 images in photos/out"]
    assert run("inpaint", "photos", "masks", "photos/out") == ["photos/out is already complete"]
    shutil.move("masks", "photos/masks")
    assert run("inpaint", "photos", "photos/masks", "photos/out") == ["photos/out is already complete"]


def test_system_files_are_skipped_links_followed_and_suffixes_of_any_case_accepted(place):
    shutil.move("photos/0.png", "photos/0.PNG")
    shutil.move("masks/0.png", "masks/0.Png")
    Path("photos/._1.png").write_bytes(b"of a Mac")
    Path("elsewhere").mkdir()
    shutil.move("photos/2.png", "elsewhere/2.png")
    Path("photos/linked").symlink_to(place / "elsewhere")
    assert run(*INPAINT) == ["3 images in out"] and Path("out/linked/2.png").exists()


def test_the_result_of_one_photo_can_be_a_file_which_is_overwritten(place):
    for kind in ("pconv", "conv"):
        assert run("inpaint", "photos/0.png", "masks/0.png", "new/x.png", "--kind", kind) == ["result in new/x.png"]
    run("inpaint", "photos/0.png", "masks/0.png", "folder", "--kind", "conv")
    assert Path("new/x.png").read_bytes() == Path("folder/0.png").read_bytes()
    assert [path.name for path in Path("new").iterdir()] == ["x.png"]
    run("superres", "photos/0.png", "new/y.png", "--factor", 2)
    assert {path.name for path in Path("new").iterdir()} == {"x.png", "y.png", "y_bicubic.png"}


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("x.jpg", "results are lossless PNG files: expected a folder or a name.png, got x.jpg"),
        ("photos/0.png", "photos/0.png is the photo itself"),
        ("notes.txt", "notes.txt is a file: expected a folder"),
    ],
)
def test_a_file_that_cannot_be_a_result_is_refused(place, out, message):
    Path("notes.txt").write_text("kept")
    before = contents(place)
    assert message in refusal("inpaint", "photos/0.png", "masks/0.png", out) and contents(place) == before


def test_results_of_a_folder_go_to_a_folder(place):
    assert "photos is a folder of photos" in refusal("inpaint", "photos", "masks", "x.png")


# What may be in a mask.


def alpha_mask(hole):
    return Image.fromarray(np.dstack([np.zeros((*hole.shape, 3), np.uint8), hole]))


def palette_mask(hole):
    mask = Image.fromarray((hole > 0).astype(np.uint8), "P")
    mask.putpalette([0, 0, 0, 128, 0, 0])
    return mask


MASKS = {
    "rgba.png": alpha_mask,
    "la.png": lambda hole: alpha_mask(hole).convert("LA"),
    "ones.png": lambda hole: Image.fromarray((hole > 0).astype(np.uint8)),
    "palette.png": palette_mask,
    "bits.tif": lambda hole: Image.fromarray(hole).convert("1"),
}


@pytest.mark.parametrize("name", MASKS)
def test_any_mask_of_two_values_fills_the_same_pixels(place, name):
    MASKS[name](images.read(Path("masks/0.png"))).save(name)
    run("inpaint", "photos/0.png", "masks/0.png", "a.png")
    run("inpaint", "photos/0.png", name, "b.png")
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()


def test_a_mask_of_grey_levels_needs_a_threshold(place):
    soft = cv2.GaussianBlur(images.read(Path("masks/0.png")), (9, 9), 0)
    images.write(Path("soft.jpg"), soft)
    assert "--threshold 128" in refusal("inpaint", "photos/0.png", "soft.jpg", "out")
    assert not Path("out").exists()
    run("inpaint", "photos/0.png", "soft.jpg", "out", "--threshold", 100)
    hole = images.read(Path("soft.jpg")) >= 100
    before, after = images.read(Path("photos/0.png")), images.read(Path("out/0.png"))
    assert (after[~hole] == before[~hole]).all() and (after[hole] != before[hole]).any()


def test_a_run_in_which_no_mask_has_a_hole_is_refused(place):
    empty = np.zeros((40, 48), np.uint8)
    images.write(Path("empty.png"), empty)
    assert "empty.png has no hole (white marks holes)" in refusal("inpaint", "photos/0.png", "empty.png", "out")
    for i in range(3):
        images.write(Path(f"masks/{i}.png"), empty)
    line = refusal(*INPAINT)
    assert "3 of 3 masks, such as masks/0.png, have no hole (white marks holes): nothing would be filled" in line
    assert not Path("out").exists()
    images.write(Path("white.png"), empty + 255)
    black = ("--polarity", "hole-black")
    assert "white.png has no hole (black marks holes)" in refusal("inpaint", "photos/0.png", "white.png", "out", *black)


def test_a_mask_without_a_hole_among_others_gives_a_warning_and_its_photo_unchanged(place):
    images.write(Path("masks/1.png"), np.zeros((40, 48), np.uint8))
    message = [line for line in call(*INPAINT).stderr.splitlines() if "have no hole" in line]
    assert message == [
        "pconv: warning: 1 of 3 masks, such as masks/1.png, have no hole (white marks holes): "
        "their photos are copied unchanged"
    ]
    assert (images.read(Path("out/1.png")) == images.read(Path("photos/1.png"))).all()


def test_a_mask_that_covers_the_whole_photo_gives_a_warning(place):
    images.write(Path("masks/1.png"), np.full((40, 48), 255, np.uint8))
    message = [line for line in call(*INPAINT).stderr.splitlines() if "covers the whole image" in line]
    assert len(message) == 1 and message[0].startswith("pconv: warning: masks/1.png covers")


@pytest.mark.parametrize("masks", ["set", "set/test", "set/test/0.png"])
def test_the_polarity_in_an_index_counts_and_another_is_refused(place, masks):
    shutil.copytree("masks", "set/test")
    Path("set/test/metadata.csv").write_text("file_name,hole_ratio\n0.png,0.1\n")
    photos = "photos/0.png" if masks.endswith("png") else "photos"
    assert "has an index" in refusal("inpaint", photos, masks, "out", "--polarity", "hole-black")


def test_a_mask_of_another_size_is_refused_with_both_sizes(place):
    write_mask("masks/1.png", 40, 50)
    assert refusal(*INPAINT) == ("pconv: masks/1.png is 50x40 px, photos/1.png is 48x40: resize one to fit the other")
    write_mask("masks/1.png", 48, 40)
    assert refusal(*INPAINT).endswith("48x40: rotate it, EXIF orientation is applied to photos")
    assert not Path("out").exists()


@pytest.mark.parametrize("broken", ["photos/2.png", "masks/2.png"])
def test_a_damaged_file_is_named_before_anything_is_written(place, broken):
    whole = Path(broken).read_bytes()
    Path(broken).write_bytes(whole[: len(whole) // 2])
    assert broken in refusal(*INPAINT) and not Path("out").exists()
    Path(broken).write_bytes(whole)
    assert run(*INPAINT) == ["3 images in out"]


# Memory.


def test_photos_larger_than_a_tile_are_filled_one_by_one_and_smaller_ones_together(place, monkeypatch):
    real, groups = Inpainter._fill, []

    def fill(inpainter, group, raw):
        groups.append([hole.shape for _, hole in group])
        return real(inpainter, group, raw)

    monkeypatch.setattr(Inpainter, "_fill", fill)
    sizes = [(40, 48)] * 3 + [(40, 65)] * 2 + [(40, 48)] * 2
    read = []

    def photos():
        for size in sizes:
            read.append(size)
            yield np.zeros((*size, 3), np.uint8)

    holes = (np.zeros(size, bool) for size in sizes)
    filled = Inpainter(batch=2, tile=64).fill_all(photos(), holes)
    done = [len(read) for _ in filled]
    assert groups == [[(40, 48)] * 2, [(40, 48)], [(40, 65)], [(40, 65)], [(40, 48)] * 2]
    assert done[3] == 4 and done[4] == 5  # a large one is done before the next is read


def paired(photos, masks):
    """The mask that pair_by_path finds for each photo, as names."""
    found = pair_by_path(*(part for names in (photos, masks) for part in (list(map(Path, names)), Path())))
    return {photo.as_posix(): mask.as_posix() for photo, mask in found}


def test_the_same_name_in_two_folders_is_paired_within_its_folder():
    assert paired(["a/0.jpg", "b/0.jpg"], ["b/0.png", "a/0.png"]) == {"a/0.jpg": "a/0.png", "b/0.jpg": "b/0.png"}


def test_a_bare_name_decides_where_it_is_unique():
    assert paired(["x/0.jpg", "1.jpg"], ["0.png", "deep/1.png"]) == {"x/0.jpg": "0.png", "1.jpg": "deep/1.png"}


@pytest.mark.parametrize(
    ("photos", "masks"),
    [
        (["0.jpg"], ["a/0.png", "b/0.png"]),  # two masks of that name
        (["a/0.jpg", "b/0.jpg"], ["0.png"]),  # two photos of that name
        (["0.jpg"], ["0.png", "0.tif"]),  # two masks at that place
    ],
)
def test_doubt_is_refused(photos, masks):
    with pytest.raises(BadInput, match=r"could belong to the mask .*: name it"):
        paired(photos, masks)


def test_a_photo_without_a_mask_is_named():
    with pytest.raises(BadInput, match=r"no mask for a/7\.jpg in .*expected a/7\.png"):
        paired(["a/7.jpg"], ["a/8.png"])
