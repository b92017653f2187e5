"""Results made elsewhere: matched by name, each image at its own size; lists that are written by hand."""

import json
import shlex
import unicodedata

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from small_run import photo

from evaluation import evaluate, match_folders
from evaluation.commands import evaluate as command
from evaluation.listed import names_of_pairs
from evaluation.names import core_of, role_of
from maskgen.errors import BadInput, InputWarning

SIZES = ((512, 680), (680, 512), (40, 56), (57, 33), (48, 48), (64, 40))  # height and width; two as in Places2
QUICK = "--workers 1 --no-pictures --metric psnr".split()


def typed(*words):
    return CliRunner().invoke(command, [str(word) for word in words])


def picture(path, array, **how):
    """Write RGB or grey pixels to a file of any name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **how)


def hole_of(size, share=0.15):
    """A bar on the left side, bool (H, W)."""
    hole = np.zeros(size, bool)
    hole[:, : max(1, round(share * size[1]))] = True
    return hole


def triples(root, names, form=("truth/{}.png", "masks/{}.png", "x/{}.png"), sizes=SIZES, share=0.15):
    """Write an image, its mask and a result for each name. Returns the arrays of each."""
    made = {}
    for i, (name, size) in enumerate(zip(names, sizes, strict=False)):
        truth = cv2.resize(photo(i), size[::-1])
        hole = hole_of(size, share)
        result = cv2.inpaint(truth, hole.astype(np.uint8), 3, cv2.INPAINT_TELEA)
        for place, array in zip(form, (truth, hole.astype(np.uint8) * 255, result), strict=True):
            picture(root / place.format(name), array)
        made[name] = truth, hole, result
    return made


def scores_of(folder):
    return pd.read_csv(folder / "scores.csv", keep_default_na=False, dtype={"pair": str})


# ---- scores ----


def test_scores_of_images_of_several_sizes_are_those_of_scikit_image_on_the_composited_files(tmp_path):
    made = triples(tmp_path, ["a", "b", "c", "d"])
    words = ["--truth", tmp_path / "truth", "--masks", tmp_path / "masks", "--method", f"x=dir:{tmp_path / 'x'}"]
    assert typed("folders", *words, "--workers", 1, "--out", tmp_path / "out").exit_code == 0
    rows = scores_of(tmp_path / "out").set_index("pair")
    assert sorted(rows.index) == ["a", "b", "c", "d"]
    for name, (truth, hole, result) in made.items():
        composited = np.where(hole[..., None], result, truth)
        l1 = 100 * np.abs(composited.astype(float) - truth).mean() / 255
        window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        ssim = structural_similarity(truth, composited, data_range=255, channel_axis=2, **window)
        psnr = peak_signal_noise_ratio(truth, composited, data_range=255)
        row = rows.loc[name, ["l1_image", "psnr", "ssim"]].astype(float)
        assert row.tolist() == pytest.approx([l1, psnr, ssim], abs=1e-9)
        assert float(rows.loc[name, "hole_ratio"]) == pytest.approx(hole.mean(), abs=1e-6)
    assert json.loads((tmp_path / "out" / "recipe.json").read_text())["settings"]["size"] == "native"


def test_every_kind_of_result_file_is_scored_or_fails_alone(tmp_path):
    names = ["jpeg", "grey", "alpha", "small", "broken", "none"]
    made = triples(tmp_path, names, sizes=[(48, 64)] * 6)
    x = tmp_path / "x"
    for name in names:
        (x / f"{name}.png").unlink()
    picture(x / "jpeg.jpg", made["jpeg"][2], quality=95, subsampling=0)
    picture(x / "grey.png", made["grey"][2][..., 0])
    picture(x / "alpha.png", np.dstack([made["alpha"][2], made["alpha"][2][..., 0]]))
    picture(x / "small.png", made["small"][2][:32, :32])
    (x / "broken.png").write_bytes(b"\x89PNG\r\n")
    words = ["--truth", tmp_path / "truth", "--masks", tmp_path / "masks", "--method", f"x=dir:{x}"]
    done = typed("folders", *words, *QUICK, "--out", tmp_path / "out")
    assert done.exit_code == 0 and "x: 1 of 6 pairs have no result: none" in done.stderr
    rows = scores_of(tmp_path / "out").set_index("pair")
    truth, hole, result = made["alpha"]
    composited = np.where(hole[..., None], result, truth)
    assert float(rows.loc["alpha", "psnr"]) == pytest.approx(peak_signal_noise_ratio(truth, composited, data_range=255))
    truth, hole, result = made["grey"]
    composited = np.where(hole[..., None], result[..., :1], truth)
    assert float(rows.loc["grey", "psnr"]) == pytest.approx(peak_signal_noise_ratio(truth, composited, data_range=255))
    assert float(rows.loc["jpeg", "psnr"]) > 10 and not rows.loc["jpeg", "error"]
    assert rows.loc["small", "error"] == "small.png is 32 x 32 px, expected 48 x 64 as the true image (height x width)"
    assert "not an image" in rows.loc["broken", "error"] and "called after none" in rows.loc["none", "error"]


def test_a_photo_that_its_exif_turns_is_compared_upright(tmp_path):
    truth, hole = cv2.resize(photo(1), (40, 64)), hole_of((64, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees clockwise to see it upright
    picture(tmp_path / "truth/a.png", np.rot90(truth).copy(), exif=exif)
    picture(tmp_path / "masks/a.png", hole.astype(np.uint8) * 255)
    picture(tmp_path / "x/a.png", truth)
    pairs = match_folders(tmp_path / "truth", tmp_path / "masks")
    found = evaluate({"x": f"dir:{tmp_path / 'x'}"}, pairs=pairs, metrics=["l1_image"], workers=1).scores
    assert found["l1_image"].tolist() == [0] and found["error"].tolist() == [""]


def test_masks_outside_all_classes_are_a_class_of_their_own_and_count_in_all(tmp_path):
    sizes = [(64, 64)] * 3
    triples(tmp_path, ["most"], sizes=sizes, share=0.7)
    triples(tmp_path, ["some"], sizes=sizes, share=0.15)
    triples(tmp_path, ["few"], sizes=sizes, share=0)
    mask = np.zeros((64, 64), np.uint8)
    mask[5, 5] = 255
    picture(tmp_path / "masks/few.png", mask)
    words = ["--truth", tmp_path / "truth", "--masks", tmp_path / "masks", "--method", f"x=dir:{tmp_path / 'x'}"]
    done = typed("folders", *words, *QUICK, "--metric", "l1_image", "--out", tmp_path / "out")
    assert done.exit_code == 0 and "other: masks outside all classes" in done.stdout
    rows = scores_of(tmp_path / "out")
    assert dict(zip(rows["pair"], rows["category"], strict=True)) == {
        "some": "free_0.1-0.2",
        "most": "other",
        "few": "other",
    }
    table = pd.read_csv(tmp_path / "out" / "table.csv").set_index(["metric", "category"])
    assert table.loc[("l1_image", "all"), "n"] == 3
    assert table.loc[("l1_image", "all"), "mean"] == pytest.approx(rows["l1_image"].astype(float).mean())


def test_a_pair_whose_mask_has_no_hole_is_left_out_and_named(tmp_path):
    triples(tmp_path, ["a", "b"])
    picture(tmp_path / "masks/b.png", np.zeros(SIZES[1], np.uint8))
    with pytest.warns(InputWarning, match=r"1 of 2 pairs are left out, as their masks have no hole: b\.png"):
        assert len(match_folders(tmp_path / "truth", tmp_path / "masks").pairs) == 1
    picture(tmp_path / "masks/a.png", np.zeros(SIZES[0], np.uint8))
    with pytest.raises(BadInput, match=r"no mask in .* has a hole, read as hole-white.*--polarity hole-black"):
        match_folders(tmp_path / "truth", tmp_path / "masks")


# ---- names ----

PLACES = [  # forms of the names of an image, its mask and its result
    ("truth/{}.png", "masks/{}.png", "x/{}.png"),
    ("truth/{}.jpg", "masks/{}.png", "x/{}.bmp"),
    ("truth/sub/{}.png", "masks/sub/{}.png", "x/{}.png"),  # as a program that writes all into one folder
    ("truth/{}.png", "truth/masks/{}.png", "truth/out/{}.png"),
    ("all/case{}_raw.png", "all/case{}_mask.png", "all/case{}_out.png"),  # generative_inpainting
    ("all/{}_input.png", "all/{}_mask.png", "all/{}_output.png"),
    ("all/{}.png", "all/{}_mask001.png", "x/{}_mask001.png"),  # LaMa
    ("truth/gt_{}.png", "masks/mask_{}.png", "x/{}-inpainted.png"),
    ("truth/{}.png", "masks/{}.png", "x/{}_mat_512.png"),
    ("truth/img_{}.png", "masks/img_{}_mask.png", "x/img_{} completed.png"),
]


@pytest.mark.parametrize("form", PLACES)
@pytest.mark.parametrize("names", [["0001", "0002", "0011"], ["ein See", "Käse (2)", "Käse"]])
def test_triples_are_found_by_the_names_that_people_and_programs_give(tmp_path, form, names):
    triples(tmp_path, names, form, sizes=[(24, 24)] * 3)
    truth, masks, x = (tmp_path / place.partition("/")[0] for place in form)
    if "truth/masks" in form[1]:
        masks, x = tmp_path / "truth/masks", tmp_path / "truth/out"
    done = typed("folders", "--truth", truth, "--masks", masks, "-m", f"x=dir:{x}", *QUICK, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    pairs = pd.read_csv(tmp_path / "out" / "pairs.csv")
    expected = {tuple(place.format(name).rpartition("/")[2] for place in form[:2]) for name in names}
    ends = {tuple(str(name).rpartition("/")[2] for name in row) for row in pairs[["image", "mask"]].to_numpy()}
    assert ends == expected
    rows = scores_of(tmp_path / "out")
    assert not rows["error"].any() and len(rows) == 3 and not done.stderr.count("warning")


def test_names_in_other_unicode_forms_are_the_same(tmp_path):
    triples(tmp_path, [unicodedata.normalize("NFC", "Käse")])
    for kind in ("masks", "x"):
        (file,) = (tmp_path / kind).iterdir()
        file.rename(file.with_name(unicodedata.normalize("NFD", file.name)))
    pairs = match_folders(tmp_path / "truth", tmp_path / "masks")
    result = evaluate({"x": f"dir:{tmp_path / 'x'}"}, pairs=pairs, metrics=["psnr"], workers=1)
    assert result.scores["error"].tolist() == [""] and result.scores["pair"].tolist() == ["Käse"]


@pytest.mark.parametrize("as_file", [True, False])
def test_one_mask_serves_all_images(tmp_path, as_file):
    triples(tmp_path, ["a", "b", "c"], sizes=[(30, 40)] * 3)
    for name in ("b", "c"):
        (tmp_path / f"masks/{name}.png").unlink()
    mask = (tmp_path / "masks/a.png").rename(tmp_path / "masks/centre.png")
    pairs = match_folders(tmp_path / "truth", mask if as_file else mask.parent)
    assert [(pair.image, pair.mask) for pair in pairs.pairs] == [(f"{name}.png", "centre.png") for name in "abc"]
    result = evaluate({"x": f"dir:{tmp_path / 'x'}"}, pairs=pairs, metrics=["psnr"], workers=1)
    assert result.scores["error"].tolist() == ["", "", ""]


def test_an_image_may_have_several_masks_whose_names_the_results_have(tmp_path):
    truth = cv2.resize(photo(2), (40, 30))
    picture(tmp_path / "all/dog.png", truth)
    for i, share in enumerate((0.1, 0.3)):
        hole = hole_of((30, 40), share)
        picture(tmp_path / f"all/dog_mask00{i}.png", hole.astype(np.uint8) * 255)
        picture(tmp_path / f"x/dog_mask00{i}.png", np.where(hole[..., None], 0, truth).astype(np.uint8))
    pairs = match_folders(tmp_path / "all", tmp_path / "all")
    rows = evaluate({"x": f"dir:{tmp_path / 'x'}"}, pairs=pairs, metrics=["l1_hole"], workers=1).scores
    assert rows["pair"].tolist() == ["dog-dog_mask000", "dog-dog_mask001"]
    means = [100 * truth[hole_of((30, 40), share)].mean() / 255 for share in (0.1, 0.3)]
    assert rows["l1_hole"].tolist() == pytest.approx(means)


def test_a_mask_of_another_size_is_resized_with_a_warning_and_measured_so(tmp_path):
    triples(tmp_path, ["a"], sizes=[(60, 80)])
    picture(tmp_path / "masks/a.png", hole_of((30, 40), 0.25).astype(np.uint8) * 255)
    with pytest.warns(InputWarning, match=r"1 masks are resized .* a\.png \(30 x 40 px\) of a\.png \(60 x 80 px\)"):
        (pair,) = match_folders(tmp_path / "truth", tmp_path / "masks").pairs
    assert pair.hole_ratio == 0.25


def test_images_and_masks_without_a_partner_are_counted_and_named(tmp_path):
    triples(tmp_path, ["a", "b", "c"])
    (tmp_path / "masks/a.png").rename(tmp_path / "masks/z.png")
    with pytest.warns(InputWarning) as seen:
        pairs = match_folders(tmp_path / "truth", tmp_path / "masks").pairs
    assert sorted(pair.pair for pair in pairs) == ["b", "c"]
    texts = [str(warning.message) for warning in seen]
    assert texts == [
        f"1 of 3 images have no mask in {tmp_path / 'masks'}: a.png",
        "1 of 3 masks belong to no image: z.png",
    ]


@pytest.mark.parametrize(
    ("form", "words", "parts"),
    [
        (
            ("t/photo-{}.png", "m/m{}x.png", "x/{}.png"),
            "--truth t --masks m -m x=dir:x",
            (
                "none of the 3 masks in m",
                "m01x.png",
                "photo-01",
                "'m/m{}x.png' and 't/photo-{}' for the images, 3 would",
            ),
        ),
        (
            ("t/{}.png", "m/{}.png", "x/mat{}v2.png"),
            "--truth t --masks m -m x=dir:x",
            ("none of the 3 results in x belongs to a pair", "mat01v2.png", "with 'x/mat{}v2.png', 3 would match"),
        ),
        (
            ("t/case{}_raw.png", "t/case{}_mask.png", "x/{}.png"),
            "--truth t --masks t -m x=dir:x",
            ("none of the 3 results in x", "'x/{}.png' and 't/case{}_raw' for the images, 3 would match"),
        ),
        (
            ("t/{}_gt.png", "m/{}.png", "t/{}_input.png"),
            "--truth t --masks m -m x=dir:x",
            ("t holds 01_gt.png and 01_input.png, two true images of one name", "--truth 't/{}_gt.png'"),
        ),
        (
            ("t/{}.jpg", "t/{}.png", "x/{}.png"),
            "--truth t --masks t -m x=dir:x",
            ("t holds 01.jpg and 01.png, two files of one name", "'t/{}.png'"),
        ),
        (("t/{}.png", "m/{}.png", "x/{}.png"), "--truth t --masks m", ("no results are named",)),
        (("t/{}.png", "m/{}.png", "x/{}.png"), "--truth t --masks m -m x=dir:y", ("no such folder: y",)),
        (("t/{}.png", "m/{}.png", "x/{}.png"), "--truth u --masks m -m x=dir:x", ("no such folder: u",)),
        (("t/{}.png", "m/{}.png", "x/{}.png"), "--truth t --masks m/{}_{}.png -m x=dir:x", ("expected {} once",)),
        (("t/{}.png", "m/{}.png", "x/{}.png"), "--truth t --masks m/{}_y -m x=dir:x", ("no mask in m is called {}_y",)),
    ],
)
def test_names_that_do_not_match_give_one_line_that_helps(tmp_path, monkeypatch, form, words, parts):
    monkeypatch.chdir(tmp_path)
    triples(tmp_path, ["01", "02", "03"], form, sizes=[(24, 24)] * 3)
    (tmp_path / "x").mkdir(exist_ok=True)
    done = typed("folders", *shlex.split(words), *QUICK)
    assert done.exit_code == 2 and len(done.stderr.splitlines()) == 1
    for part in parts:
        assert part in done.stderr


def test_the_form_of_the_names_can_be_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    triples(tmp_path, ["01", "02"], ("all/photo-{}.png", "all/m{}x.png", "all/{}.v2.png"), sizes=[(24, 24)] * 2)
    words = ["--truth", "all/photo-{}", "--masks", "all/m{}x.png", "-m", "x=dir:all/{}.v2.png"]
    done = typed("folders", *words, *QUICK, "--out", "out")
    assert done.exit_code == 0 and not scores_of(tmp_path / "out")["error"].any(), done.output


def test_the_pairs_of_a_results_folder_are_scored_again_with_results_of_the_same_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    triples(tmp_path, ["01", "02"], ("all/{}_real.png", "all/{}_mask.png", "all/{}_out.png"), sizes=[(24, 30)] * 2)
    words = ["--truth", "all/{}_real.png", "--masks", "all/{}_mask.png", "-m", "x=dir:all/{}_out.png", *QUICK]
    assert typed("folders", *words, "--out", "first").exit_code == 0
    done = typed("--pairs", "first", "-m", "x=dir:all/{}_out.png", *QUICK, "--out", "second")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "second/scores.csv").read_bytes() == (tmp_path / "first/scores.csv").read_bytes()


def test_two_results_of_one_pair_are_refused_unless_a_word_or_a_form_says_which(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    triples(tmp_path, ["01", "02"], ("t/{}.png", "m/{}.png", "x/{}_mat.png"), sizes=[(24, 24)] * 2)
    triples(tmp_path, ["01", "02"], ("t/{}.png", "m/{}.png", "x/{}_lama.png"), sizes=[(24, 24)] * 2)
    words = ["--truth", "t", "--masks", "m", *QUICK]
    done = typed("folders", *words, "-m", "x=dir:x")
    assert done.exit_code == 2 and "x holds 01_lama.png and 01_mat.png, two results of one pair" in done.stderr
    assert typed("folders", *words, "-m", "x=dir:x/{}_mat.png").exit_code == 0
    triples(tmp_path, ["01", "02"], ("t/{}.png", "m/{}.png", "x/{}_output.png"), sizes=[(24, 24)] * 2)
    assert typed("folders", *words, "-m", "x=dir:x", "--out", "named").exit_code == 0
    methods = json.loads((tmp_path / "named" / "recipe.json").read_text())["methods"]
    assert methods["x"]["results"] == 2


@pytest.mark.parametrize(
    ("key", "role", "core"),
    [
        ("a/0001_mask", "mask", "a/0001"),
        ("image_mask001", "mask", "image"),
        ("gt-7", "truth", "7"),
        ("night out", "result", "night"),
        ("mask", "", "mask"),
        ("outlook_3", "", "outlook_3"),
        ("0001", "", "0001"),
    ],
)
def test_a_word_at_an_end_of_a_name_says_what_the_file_is(key, role, core):
    assert (role_of(key), core_of(key)) == (role, core)


def test_names_of_pairs_are_file_names_and_differ_also_without_regard_to_case():
    rows = [("a/x.png", "1.png"), ("b/x.png", "1.png"), ("My Cat?.png", "1.png"), ("my cat!.png", "1.png")]
    assert names_of_pairs(rows) == ["a_x", "b_x", "My_Cat_", "my_cat_-2"]
    assert names_of_pairs([("x.png", "m/1.png"), ("x.png", "m/2.png")]) == ["x-1", "x-2"]


# ---- lists that are written by hand ----


def list_in(path, rows, head="image,mask"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([head, *(",".join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8-sig")


@pytest.mark.parametrize("where", ["beside", "below", "absolute", "options"])
def test_a_list_of_two_columns_is_enough_and_gives_the_scores_of_the_folders(tmp_path, monkeypatch, where):
    monkeypatch.chdir(tmp_path)
    names = ["a", "b b", "c"]
    triples(tmp_path, names)
    words = ["-m", "x=dir:x", *QUICK]
    assert typed("folders", "--truth", "truth", "--masks", "masks", *words, "--out", "first").exit_code == 0
    start = {"beside": "", "below": "../", "absolute": f"{tmp_path}/"}.get(where, "")
    if where == "options":
        rows, words = (
            [(f"{name}.png", f"{name}.png") for name in names],
            [*words, "--images", "truth", "--masks", "masks"],
        )
    else:
        rows = [(f"{start}truth/{name}.png", f"{start}masks/{name}.png") for name in names]
    place = tmp_path / ("lists/my pairs.csv" if where != "beside" else "pairs.csv")
    list_in(place, rows, "image, mask" if where == "below" else "image,mask")
    done = typed("--pairs", place if where != "beside" else ".", *words, "--out", "second")
    assert done.exit_code == 0, done.output
    first, second = (scores_of(tmp_path / name).drop(columns="image") for name in ("first", "second"))
    assert first.equals(second)


def test_a_list_may_name_pairs_and_classes_and_a_size_may_be_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    triples(tmp_path, ["a", "b"])
    rows = [("truth/a.png", "masks/a.png", "first", "easy"), ("truth/b.png", "masks/b.png", "second", "hard")]
    list_in(tmp_path / "pairs.csv", rows, "image,mask,pair,category")
    result = evaluate(["mean"], pairs="pairs.csv", size=32, metrics=["psnr"], workers=1, out="out")
    assert result.scores["pair"].tolist() == ["first", "second"]
    assert result.scores["category"].tolist() == ["easy", "hard"]
    recipe = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert recipe["settings"]["size"] == [32, 32]
    assert set(result.table["category"]) == {"easy", "hard", "all"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("truth/a.png,masks/a.png\n", "has no image: expected a first line `image,mask`"),
        ("image;mask\ntruth/a.png;masks/a.png\n", "has no image: expected a first line `image,mask`"),
        ("image,mask\n", "has no row: expected a first line `image,mask`, then pairs"),
        ("image,mask\ntruth/a.png,masks/no.png\n", "masks/no.png, which is not beside it"),
        ("image,mask\nno.png,masks/a.png\n", "no.png, which is not beside it, nor in the working folder"),
        ("image,mask\n/no/a.png,masks/a.png\n", "no such file: /no/a.png"),
        ("image,mask\ntruth/a.png,\n", "a pair without a mask"),
        ("image,mask,pair\ntruth/a.png,masks/a.png,../../x\n", "is not a pair as evaluate writes it"),
    ],
)
def test_a_list_that_cannot_be_used_gives_one_line(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    triples(tmp_path, ["a"], sizes=[(24, 24)])
    (tmp_path / "list.csv").write_text(text)
    done = typed("--pairs", "list.csv", "-m", "grey", *QUICK)
    assert done.exit_code == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1


# ---- native size in all commands ----


def test_every_command_keeps_images_at_their_own_size(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    triples(tmp_path, ["a", "b"], sizes=[(200, 120), (130, 240)])
    words = ["--images", "truth", "--size", "native", *QUICK, "--pictures", "--pages"]
    commands = {
        "": ["--masks", "masks", "-m", "grey"],
        "dilation": ["0", "9", "--masks", "masks", "-m", "grey"],
        "holes": ["--per-class", "1", "-m", "grey"],
        "superres": ["-m", "bicubic", "--factor", "3"],
    }
    for name, more in commands.items():
        out = tmp_path / f"out{name}"
        done = typed(*([name] if name else []), *words, *more, "--out", out)
        assert done.exit_code == 0, done.output
        assert not scores_of(out)["error"].any() and (out / "grid.jpg").is_file()
        assert "each image at its own size" in (out / "report.html").read_text()
        sizes = {cv2.imread(str(path)).shape[:2] for path in (out / "pictures").rglob("*.jpg")}
        # Super-resolution drops the rows and columns that are no multiple of the factor.
        assert sizes == ({(198, 120), (129, 240)} if name == "superres" else {(200, 120), (130, 240)})


def test_pairs_for_another_program_keep_their_own_size_and_are_scored_at_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = triples(tmp_path, ["a", "b"], sizes=[(40, 60), (50, 30)])
    assert typed("pairs", "--images", "truth", "--masks", "masks", "--size", "native").exit_code == 0
    written = {cv2.imread(str(path)).shape[:2] for path in (tmp_path / "pairs/images").iterdir()}
    assert written == {truth.shape[:2] for truth, _, _ in made.values()}
    for path in (tmp_path / "pairs/images").iterdir():  # the other program leaves the hole black
        picture(tmp_path / f"done/{path.stem}_mask001.png", cv2.imread(str(path))[..., ::-1].copy())
    done = typed("--pairs", "pairs", "-m", "x=dir:done", *QUICK, "--raw")
    assert done.exit_code == 0, done.output
    rows = scores_of(tmp_path / "results").set_index("pair")
    for pair in rows.index:
        truth, image = (cv2.imread(f"pairs/{kind}/{pair}.png") for kind in ("truth", "images"))
        assert float(rows.loc[pair, "psnr"]) == pytest.approx(peak_signal_noise_ratio(truth, image, data_range=255))


def test_a_metric_that_cannot_score_small_images_says_how_many_it_leaves_out(tmp_path):
    triples(tmp_path, ["a", "b"], sizes=[(24, 24), (180, 180)])
    pairs = match_folders(tmp_path / "truth", tmp_path / "masks")
    with pytest.warns(InputWarning, match="ms_ssim needs at least 176 px a side: 1 pairs are left out, as a"):
        scores = evaluate(["grey"], pairs=pairs, metrics=["ms_ssim"], workers=1).scores
    assert scores.set_index("pair")["ms_ssim"].notna().to_dict() == {"a": False, "b": True}


def test_native_arrays_and_wrong_arguments(tmp_path):
    images = [photo(0), photo(1)[:40]]
    holes = [hole_of(image.shape[:2]) for image in images]
    scores = evaluate(["grey"], images, holes, size="native", metrics=["l1_hole"]).scores
    expected = [
        100 * np.abs(128 - image[hole].astype(int)).mean() / 255 for image, hole in zip(images, holes, strict=True)
    ]
    assert scores["l1_hole"].tolist() == pytest.approx(expected)
    with pytest.raises(BadInput, match="size is height and width in px, or 'native', got 'own'"):
        evaluate(["grey"], images, holes, size="own")
    triples(tmp_path, ["a"], sizes=[(24, 24)])
    pairs = match_folders(tmp_path / "truth", tmp_path / "masks")
    with pytest.raises(BadInput, match="leave images, masks, polarity, threshold and size out"):
        evaluate(["grey"], pairs=pairs, size=24)


# ---- super-resolution by other programs ----


@pytest.mark.parametrize("size", ["native", "64"])
def test_small_images_go_out_and_enlarged_ones_come_back_with_the_scores_of_superres(tmp_path, monkeypatch, size):
    monkeypatch.chdir(tmp_path)
    triples(tmp_path, ["a", "b"], sizes=[(66, 97), (80, 64)])
    done = typed("pairs", "--factor", 4, "--images", "truth", "--size", size, "--out", "small")
    assert done.exit_code == 0, done.output
    for path in (tmp_path / "small/images").iterdir():
        small = cv2.imread(str(path))
        whole = cv2.imread(f"small/truth/{path.name}")
        assert whole.shape[0] == 4 * small.shape[0] and whole.shape[1] == 4 * small.shape[1]
        blocks = whole.reshape(small.shape[0], 4, small.shape[1], 4, 3).mean((1, 3))
        assert np.abs(blocks - small).max() <= 0.5  # the mean of every 4 x 4 block, rounded
        (tmp_path / "large").mkdir(exist_ok=True)
        cv2.imwrite(f"large/{path.name}", cv2.resize(small, whole.shape[1::-1], interpolation=cv2.INTER_CUBIC))
    words = [*QUICK, "-m", "bicubic"]
    done = typed("--pairs", "small", *words, "-m", "x=dir:large", "--out", "first")
    assert done.exit_code == 0 and done.stdout.startswith("masks: none; photos: 2 of small")
    assert typed("superres", "--images", "truth", "--size", size, *words, "--out", "second").exit_code == 0
    rows, direct = scores_of(tmp_path / "first"), scores_of(tmp_path / "second")
    for method in ("x", "bicubic"):
        assert rows[rows["method"] == method]["psnr"].tolist() == direct["psnr"].tolist()
    done = typed("pairs", "--factor", 4, "--masks", "masks", "--images", "truth", "--out", "other")
    assert done.exit_code == 2 and "--factor writes small images without masks: leave --masks out" in done.stderr
