"""Which photos and masks a run takes, what it says of them, and pairs that go to another program and come back."""

import json
import shlex
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image
from small_run import SIDE, folders, photo, score

from evaluation import benchmark, experiments, metrics
from evaluation.commands import evaluate
from evaluation.listed import open_pairs, read_pairs
from evaluation.methods import parse_all
from evaluation.pairing import find_images, find_masks, make_pairs
from evaluation.pairs import Sources, load_pair
from evaluation.settings import BenchmarkConfig
from maskgen import maskset
from maskgen.errors import BadInput, InputWarning
from maskgen.runtime.output import PROGRESS

CONFIG = BenchmarkConfig(size=(SIDE, SIDE), metrics=("l1_image", "psnr"))
QUICK = "--metric psnr --workers 1 --no-pictures --method grey".split()


def typed(*words):
    return CliRunner().invoke(evaluate, [str(word) for word in words])


def every_file(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- photos and masks as they come ----


def test_photos_are_read_upright_in_eight_bits_and_three_channels_however_they_are_stored(tmp_path):
    _, masks = folders(tmp_path, ratios=(0.05,))
    seen = np.zeros((SIDE, SIDE, 3), np.uint8)
    seen[: SIDE // 2] = 200, 100, 50  # upright, the upper half is coloured
    upside_down = Image.fromarray(seen[::-1].copy())
    exif = Image.Exif()
    exif[0x0112] = 3  # turn it by 180 degrees
    sixteen = cv2.cvtColor(seen.astype(np.uint16) * 257, cv2.COLOR_RGB2BGR)
    stored = {
        "turned.jpg": lambda path: upside_down.save(path, exif=exif, quality=95, subsampling=0),
        "sixteen.png": lambda path: cv2.imwrite(str(path), sixteen),
        "palette.png": lambda path: Image.fromarray(seen).convert("P", palette=Image.Palette.ADAPTIVE).save(path),
        "alpha.PNG": lambda path: Image.fromarray(np.dstack([seen, seen[..., 0]])).save(path),
        "ink.tif": lambda path: Image.fromarray(seen).convert("CMYK").save(path),
    }
    (tmp_path / "odd").mkdir()
    for name, save in stored.items():
        save(tmp_path / "odd" / name)
    pairs = make_pairs(tmp_path / "odd", masks, CONFIG)
    assert {pair.image for pair in pairs} <= set(stored) and set(find_images(tmp_path / "odd")) == set(stored)
    for name in stored:
        pair = replace(pairs[0], image=name, image_sha256="")
        truth = load_pair(pair, Sources(tmp_path / "odd", masks), CONFIG)[0]
        assert np.abs(truth.astype(int) - seen).max() <= 6, name  # JPEG


def test_files_of_an_operating_system_are_skipped_and_links_are_followed(tmp_path):
    images, masks = folders(tmp_path)
    (images / "__MACOSX").mkdir()
    for name in ("__MACOSX/._photo0.png", "._photo1.png", ".photo2.png"):
        (images / name).write_bytes(b"\0\5\x16\7")
    (images / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    cv2.imwrite(str(tmp_path / "elsewhere" / "LAST.JPG"), photo(5))
    with pytest.warns(InputWarning, match="3 hidden or system files are skipped"):
        found = find_images(images)
    assert found == ["more/LAST.JPG", "photo0.png", "photo1.png", "photo2.png"]
    (masks / "0.png").rename(masks / "0.PNG")
    assert len(find_masks(masks)) == 4


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".bmp", ".tif"])
def test_a_truncated_photo_is_refused_before_a_run_and_nothing_is_written(tmp_path, ending):
    images, masks = folders(tmp_path, images=1)
    data = cv2.imencode(ending, photo(1))[1].tobytes()
    (images / f"broken{ending}").write_bytes(data[: len(data) // 2])
    done = typed(*QUICK, "--size", SIDE, "--images", images, "--masks", masks, "--out", tmp_path / "out")
    assert done.exit_code == 2 and f"broken{ending} is not an image that can be read" in done.stderr
    assert not (tmp_path / "out").exists()


def test_soft_masks_need_a_threshold_and_it_decides_the_result(tmp_path):
    images, masks = folders(tmp_path)
    grey = np.full((SIDE, SIDE), 20, np.uint8)
    grey[:10], grey[10:20] = 200, 100
    for path in masks.iterdir():
        cv2.imwrite(str(path), grey)
    with pytest.raises(BadInput, match=r"holds 3 values \(20, 100, 200\).*--threshold 128"):
        find_masks(masks)
    assert find_masks(masks, threshold=128)["hole_ratio"].tolist() == [10 / SIDE] * 4
    words = [*QUICK, "--size", SIDE, "--images", images, "--masks", masks, "--out", tmp_path / "out", "--threshold"]
    assert typed(*words, 90).exit_code == 0
    assert pd.read_csv(tmp_path / "out" / "scores.csv")["hole_ratio"].tolist() == [20 / SIDE] * 4
    done = typed(*words, 128)
    assert done.exit_code == 2 and "threshold was 90, is 128" in done.stderr


def test_options_that_contradict_the_index_of_a_mask_set_are_refused():
    for words in (("--polarity", "hole-black"), ("--threshold", 9)):
        done = typed("--masks", "v1", *words)
        assert done.exit_code == 2 and words[0] in done.stderr and "has an index" in done.stderr


def test_a_mask_that_covers_the_whole_image_gives_a_warning(tmp_path):
    _, masks = folders(tmp_path)
    cv2.imwrite(str(masks / "0.png"), np.full((SIDE, SIDE), 255, np.uint8))
    with pytest.warns(InputWarning, match=r"0\.png covers the whole image"):
        find_masks(masks)


def test_masks_and_results_below_the_photos_are_no_photos(tmp_path, monkeypatch):
    images, masks = folders(tmp_path)
    monkeypatch.chdir(images)
    masks.rename(images / "masks")
    words = [*QUICK, "--pictures", "--size", SIDE, "--images", ".", "--masks", "masks"]
    for name in ("first", "again"):
        done = typed(*words)
        assert done.exit_code == 0 and done.stdout.startswith("masks: 4 of masks; photos: 3 of ."), name
    assert "results is already complete" in done.stdout


def test_a_hole_that_vanishes_at_the_size_gives_a_warning(tmp_path):
    _, masks = folders(tmp_path)
    hole = np.zeros((SIDE, SIDE), bool)
    hole[1, 1] = True
    (masks / "0.png").write_bytes(maskset.encode(hole))
    with pytest.warns(InputWarning, match="1 masks have no hole left at 16 x 16 px, as of 00003"):
        score(tmp_path, ["grey"], config=replace(CONFIG, size=(16, 16)))


# ---- the first line of output ----


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--masks masks", "masks: 4 of masks; photos: 3 of images"),
        ("--masks masks --per-class 1", "masks: 2 of masks; photos: 2 of images"),
        ("pairs --masks masks", "masks: 4 of masks; photos: 3 of images"),
        ("dilation 0 5 --count 2 --masks masks", "masks: 2 of masks, widened by 0, 5 px; photos: 2 of images"),
        ("holes --per-class 1 --kind box --size 512", "masks: 12 drawn box holes; photos: 3 of images"),
        ("superres", "masks: none; photos: 3 of images"),
        (
            "--per-class 1",
            "masks: 12 of v1, which come with this package, as there is no masks/testset; photos: 3 of images",
        ),
    ],
)
def test_the_first_line_says_which_masks_and_photos_are_used(words, line, tmp_path, monkeypatch):
    folders(tmp_path)
    monkeypatch.chdir(tmp_path)
    name = words.split()[0] if words[0] != "-" else ""
    more = [] if name == "pairs" else QUICK
    done = typed(
        *([name] if name else []), "--size", SIDE, "--images", "images", *more, *words.removeprefix(name).split()
    )
    assert done.exit_code == 0 and done.stdout.splitlines()[0] == line


def test_the_test_set_in_the_working_folder_is_named_and_never_passed_over(tmp_path, monkeypatch):
    images, masks = folders(tmp_path)
    monkeypatch.chdir(tmp_path)
    masks.rename(tmp_path / "testset")
    (tmp_path / "masks").mkdir()
    (tmp_path / "testset").rename(tmp_path / "masks" / "testset")
    done = typed(*QUICK, "--size", SIDE, "--images", images)
    assert done.stdout.startswith("masks: 4 of masks/testset; photos: 3 of ")
    shutil.rmtree("masks/testset")
    (tmp_path / "masks/testset").mkdir()
    done = typed(*QUICK, "--size", SIDE, "--images", images, "--out", "other")
    assert done.exit_code == 2 and "no mask in masks/testset" in done.stderr and not (tmp_path / "other").exists()


@pytest.mark.parametrize("words", ["", "--masks masks/testset", "--masks masks/testset/test", "pairs", "dilation"])
def test_an_unfinished_test_set_is_refused(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    part = tmp_path / "masks/testset/test"
    folders(part, images=1)
    (part.parent / PROGRESS).mkdir()
    (part.parent / PROGRESS / "recipe.json").write_text('{"made_by": "maskgen testset"}')
    done = typed(*words.split())
    assert done.exit_code == 2 and not (tmp_path / "results").exists() and not (tmp_path / "pairs").exists()
    assert "masks/testset is unfinished: finish it first with the same `maskgen testset` command" in done.output
    assert len(done.output.splitlines()) == 1
    shutil.rmtree(part.parent / PROGRESS)
    (part / "made.jsonl").touch()  # as an earlier version left it
    assert "masks/testset is unfinished" in typed(*words.removesuffix("/test").split()).output


# ---- pairs for another program ----


def hint_of(done):
    """The command that `evaluate pairs` advises, as a shell takes it apart."""
    (line,) = [line for line in done.stdout.splitlines() if "evaluate --pairs" in line]
    return shlex.split(line[line.index("evaluate --pairs") :])[1:]


@pytest.mark.parametrize("layout", ["folders", "lama"])
@pytest.mark.parametrize("white", ["hole", "valid"])
@pytest.mark.parametrize("polarity", ["hole-white", "hole-black"])
def test_the_hint_of_pairs_works_as_it_is_printed_from_any_folder(tmp_path, monkeypatch, layout, white, polarity):
    images, masks = folders(tmp_path)
    if polarity == "hole-black":
        for path in masks.iterdir():
            path.write_bytes(maskset.encode(~maskset.read_hole(path)))
    direct = score(tmp_path, ["telea"], polarity=polarity, config=replace(CONFIG, size=(48, 80)))
    out = tmp_path / "my pairs"
    words = ["--layout", layout, "--white", white, "--size", "48x80", "--polarity", polarity]
    done = typed("pairs", "--images", images, "--masks", masks, *words, "--out", out)
    assert done.exit_code == 0, done.output
    for folder in (images, masks):  # nothing but what was written is needed
        shutil.rmtree(folder)
    (tmp_path / "elsewhere" / "masks" / "testset").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for pair in read_pairs(out / "pairs.csv"):
        image = cv2.imread(str(out / (f"images/{pair.pair}.png" if layout == "folders" else f"{pair.pair}.png")))
        hole = maskset.read_hole(out / pair.mask, polarity="hole-white" if white == "hole" else "hole-black")
        assert (image[hole] == 0).all() and np.count_nonzero(hole) / hole.size == pytest.approx(
            pair.hole_ratio, abs=1e-6
        )
        cv2.imwrite(str(theirs / f"{pair.pair}.png"), cv2.inpaint(image, hole.astype(np.uint8), 3, cv2.INPAINT_TELEA))
    asked = ["--method", "telea", "--method", f"x=dir:{theirs}", *"--metric l1_image --metric psnr --workers 1".split()]
    done = typed(*hint_of(done), *asked)
    assert done.exit_code == 0 and done.stdout.startswith(f"masks: 4 of {out}; photos: 3 of {out}")
    scores = pd.read_csv("results/scores.csv", dtype={"pair": str})
    for method in ("telea", "x"):
        rows = scores[scores["method"] == method].reset_index(drop=True)
        assert rows["psnr"].tolist() == direct["psnr"].tolist()
        assert sorted(rows["image"].value_counts()) == sorted(direct["image"].value_counts())  # photos, not pairs
    table = pd.read_csv(out / "pairs.csv")
    assert set(table["source_image"]) == {f"photo{i}.png" for i in range(3)} and "0.png" in set(table["source_mask"])


def test_pairs_of_a_results_folder_are_used_again_wherever_its_images_are(tmp_path, monkeypatch):
    images, masks = folders(tmp_path)
    monkeypatch.chdir(tmp_path)
    first = typed(*QUICK, "--size", SIDE, "--images", "images", "--masks", "masks", "--out", "first")
    assert first.exit_code == 0
    table = pd.read_csv("first/pairs.csv", dtype=str).assign(note="of somebody else")
    table.to_csv("first/pairs.csv", index=False)
    images.rename("photos")
    done = typed(*QUICK, "--pairs", "first/pairs.csv", "--out", "other")
    assert done.exit_code == 2 and "which is not in" in done.stderr and "give its folder with --images" in done.stderr
    assert typed(*QUICK, "--pairs", "first/pairs.csv", "--images", "photos", "--out", "same").exit_code == 0
    masks.rename("holes")
    done = typed(*QUICK, "--pairs", "first", "--images", "photos", "--out", "other")
    assert done.exit_code == 2 and "give its folder with --masks" in done.stderr
    words = ["--images", "photos", "--masks", "holes", "--size", SIDE]
    assert typed(*QUICK, "--pairs", "first/pairs.csv", *words, "--out", "again").exit_code == 0
    scores = [(tmp_path / name / "scores.csv").read_bytes() for name in ("first", "same", "again")]
    assert scores[0] == scores[1] == scores[2]
    shutil.move("photos", "images"), shutil.move("holes", "masks")
    assert typed(*QUICK, "--pairs", "first", "--out", "last").exit_code == 0  # where the recipe says


def test_pairs_of_drawn_holes_are_found_with_their_masks(tmp_path):
    images, masks = folders(tmp_path)
    words = ["--size", SIDE, "--images", images, "--out", tmp_path / "grown"]
    assert typed("dilation", 0, 5, "--count", 2, "--masks", masks, *words, *QUICK).exit_code == 0
    found = open_pairs(tmp_path / "grown", images=images)
    pairs, sources, size = found.pairs, found.sources, found.size
    assert size == (SIDE, SIDE) and sources.masks == tmp_path / "grown" and len(pairs) == 4
    assert load_pair(pairs[2], sources, CONFIG)[2].any()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("nowhere.csv", "no such file: nowhere.csv (expected a pairs.csv"),
        ("nothing", "no such file: nothing/pairs.csv (expected a pairs.csv"),
        ("pairs --per-class 1", "pairs (--pairs) names them: leave one of the two out"),
        ("pairs --polarity hole-black", "pairs/recipe.json says hole-white, leave out the option"),
        ("pairs --images nowhere", "no such folder: nowhere"),
        ("enlarged", "lists a pair without a mask, and no recipe.json beside it"),
        ("half", "half is unfinished: finish it first with the same `evaluate pairs` command"),
    ],
)
def test_pairs_that_cannot_be_used_give_one_line(words, message, tmp_path, monkeypatch):
    images, masks = folders(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nothing").mkdir()
    sources = Sources(images, masks)
    experiments.export(make_pairs(images, masks, CONFIG), sources, tmp_path / "pairs", CONFIG)
    shutil.copytree("pairs", "half")
    (tmp_path / "half" / "pairs.csv").unlink()
    (tmp_path / "half" / PROGRESS).mkdir()
    (tmp_path / "half" / "recipe.json").rename(tmp_path / "half" / PROGRESS / "recipe.json")
    larger = replace(CONFIG, factor=4, raw=True)
    pairs = experiments.enlarged_pairs(images, larger, out=tmp_path / "out").pairs
    benchmark.run(parse_all(["bicubic"]), pairs, sources, tmp_path / "enlarged", larger, workers=1)
    (tmp_path / "enlarged" / "recipe.json").unlink()
    done = typed("--pairs", *words.split())
    assert done.exit_code == 2 and message in done.output and len(done.output.splitlines()) == 1


def test_exported_pairs_go_on_where_a_run_was_stopped_and_are_complete_once(tmp_path, monkeypatch):
    images, masks = folders(tmp_path)
    pairs, sources = make_pairs(images, masks, CONFIG), Sources(images, masks)
    experiments.export(pairs, sources, tmp_path / "whole", CONFIG)
    load, left = experiments.load_pair, [2]

    def stopped(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return load(*arguments)

    monkeypatch.setattr(experiments, "load_pair", stopped)
    with pytest.raises(KeyboardInterrupt):
        experiments.export(pairs, sources, tmp_path / "out", CONFIG)
    left[0] = 2  # the others are there
    experiments.export(pairs, sources, tmp_path / "out", CONFIG)
    assert every_file(tmp_path / "out") == every_file(tmp_path / "whole")
    said = []
    experiments.export(pairs, sources, tmp_path / "out", CONFIG, say=said.append)
    assert said == [f"{tmp_path / 'out'} is already complete"]
    for change in ({"white": "valid"}, {"layout": "lama"}):
        with pytest.raises(BadInput, match=f"{next(iter(change))} was"):
            experiments.export(pairs, sources, tmp_path / "out", CONFIG, **change)
    with pytest.raises(BadInput, match="threshold was null, is 9"):
        experiments.export(pairs, replace(sources, threshold=9), tmp_path / "out", CONFIG)
    assert every_file(tmp_path / "out") == every_file(tmp_path / "whole")


# ---- options before the name of a command ----

VALUES = {"--size": "64", "--per-class": "3", "--seed": "7", "--method": "mean", "--metric": "psnr"}
VALUES |= {"--timeout": "9", "--by": "psnr", "--workers": "1", "--polarity": "hole-black", "--threshold": "9"}
VALUES |= {"--protocol": "paris"}
FLAGS = [option.opts[0] for option in evaluate.params if getattr(option, "is_flag", False)]
GIVEN = [option.opts[0] for option in evaluate.params if option.name not in ("version", "help", "cluster")]


@pytest.mark.parametrize("name", sorted(evaluate.commands))
@pytest.mark.parametrize("option", GIVEN)
def test_an_option_before_a_command_holds_for_it_or_is_refused(name, option):
    command = evaluate.commands[name]
    known = {opt for param in command.params for opt in param.opts}
    done = typed(option, *([] if option in FLAGS else [VALUES.get(option, "x")]), name, "--help")
    if option in known:
        assert done.exit_code == 0
    else:
        assert done.exit_code == 2 and option in done.output and len(done.output.splitlines()) == 1


def test_options_before_a_command_decide_what_it_does(tmp_path):
    images, _ = folders(tmp_path)
    before = ["--method", "mean", "--size", SIDE, "--metric", "psnr", "--images", images, "--out", tmp_path / "out"]
    done = typed(*before, "--workers", 1, "--per-class", 9, "--no-pictures", "holes", "--per-class", 1)
    assert done.exit_code == 0, done.output
    recipe = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert list(recipe["methods"]) == ["mean"] and recipe["settings"]["metrics"] == ["psnr"]
    assert recipe["settings"]["size"] == [SIDE, SIDE] and recipe["settings"]["per_class"] == 1  # the nearer one
    assert not (tmp_path / "out" / "pictures").exists()


# ---- metrics and the size ----


@pytest.mark.parametrize("name", ["", "dilation", "holes", "superres"])
@pytest.mark.parametrize(("metric", "smallest"), [("lpips", 31), ("ms_ssim", 176)])
def test_a_metric_that_does_not_work_at_the_size_is_refused_before_a_run(name, metric, smallest, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = typed(*([name] if name else []), "--metric", metric, "--size", 16)
    assert done.exit_code == 2 and f"use --size {smallest}" in done.output and len(done.output.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_distance_of_sets_needs_two_pairs_of_a_class(tmp_path, monkeypatch):
    folders(tmp_path)
    monkeypatch.setitem(metrics.VECTORS, "inception", lambda image: image[-1, -1].astype(float))
    bare = replace(metrics.SETS["fid"], function=lambda results, truths: 0.0, needs=(), weights=None)
    for table in (metrics.SETS, metrics.ALL):
        monkeypatch.setitem(table, "fid", bare)
    config = replace(CONFIG, metrics=("fid",))
    (tmp_path / "masks" / "0.png").unlink()
    with pytest.warns(InputWarning, match=r"it is left out for free_0\.01-0\.1"):
        score(tmp_path, ["mean"], config=config)
    with pytest.raises(BadInput, match="fid needs two pairs of a class, no class has more than one"):
        score(tmp_path, ["mean"], config=replace(config, per_class=1))
