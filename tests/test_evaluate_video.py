"""`evaluate video`: pairs, scores of frames, the warping error, results of other programs, bad input."""

import json
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from films import frame, texture, write_video
from PIL import Image
from skimage.metrics import structural_similarity

from evaluation import evaluate_video
from evaluation.commands import evaluate as command
from evaluation.methods import parse
from evaluation.video import scoring
from evaluation.video.masks import FolderMasks
from evaluation.video.metrics import ssim_65
from evaluation.video.pairing import pair_videos
from evaluation.video.results import with_frames
from evaluation.video.run import mean_of_frames
from evaluation.video.settings import METRICS, VideoConfig
from evaluation.video.tables import summary
from evaluation.video.warping import displaced, motion, warp_error
from maskgen import maskset
from maskgen.errors import BadInput, InputWarning

SHAPE = (48, 64)
QUICK = {"metrics": ["psnr"], "workers": 1}


def typed(*words):
    return CliRunner().invoke(command, ["video", *map(str, words)])


def picture(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def film(folder, count=5, *, first=0, ending="png", shape=SHAPE, step=2):
    """Write frames 00000.png ... of a square that slides over a texture. Returns them, uint8 (T, H, W, 3)."""
    frames = np.stack([frame(first + t, height=shape[0], width=shape[1], step=step) for t in range(count)])
    for t, one in enumerate(frames):
        picture(folder / f"{t:05d}.{ending}", one)
    return frames


def bar(width, shape=SHAPE):
    """A hole that covers the left columns, bool (H, W)."""
    hole = np.zeros(shape, bool)
    hole[:, :width] = True
    return hole


def masks(folder, widths=(16,) * 5, shape=SHAPE):
    """Write a mask sequence: bars of these widths. Returns the holes, bool (T, H, W)."""
    holes = np.stack([bar(width, shape) for width in widths])
    folder.mkdir(parents=True, exist_ok=True)
    for t, hole in enumerate(holes):
        (folder / f"{t:05d}.png").write_bytes(maskset.encode(hole))
    return holes


def grey(image, hole):
    return np.full_like(image, 100)


def psnr_of(truth, hole, level=100):
    """By hand: of a frame whose hole is filled with a grey level."""
    composited = np.where(hole[..., None], level, truth.astype(float))
    return 10 * np.log10(255**2 / np.mean((composited - truth) ** 2))


# ---- the warping error ----


def test_frames_that_move_by_a_known_flow_have_no_warping_error():
    wide = texture(48, 80, seed=1)
    first, second = wide[:, 5:69], wide[:, :64]  # what is at x is at x + 5 in the next frame
    visible = np.ones(SHAPE, bool)
    visible[:, -5:] = False  # it leaves the frame
    flow = np.full((*SHAPE, 2), (5, 0), np.float32)
    assert warp_error(first, second, displaced(flow, visible)) == 0


def test_the_warping_error_is_the_mean_square_over_visible_pixels_and_channels_times_1000():
    first, second = np.full((*SHAPE, 3), 100, np.uint8), np.full((*SHAPE, 3), 100, np.uint8)
    second[:, :16] = (110, 100, 100)  # one channel of a quarter of the pixels, by 10 grey levels
    still = np.zeros((*SHAPE, 2), np.float32)
    everywhere = displaced(still, np.ones(SHAPE, bool))
    assert warp_error(first, second, everywhere) == pytest.approx(1000 * (10 / 255) ** 2 / 3 / 4, rel=1e-6)
    assert warp_error(first, second, displaced(still, bar(16))) == pytest.approx(1000 * (10 / 255) ** 2 / 3, rel=1e-6)
    assert warp_error(first, second, displaced(still, ~bar(16))) == 0
    assert np.isnan(warp_error(first, second, displaced(still, np.zeros(SHAPE, bool))))


def test_the_flow_of_the_true_frames_finds_their_shift_and_what_leaves():
    wide = texture(96, 140, seed=2)
    first, second = wide[:, 4:132], wide[:, :128]
    moves = motion(first, second)
    inside = moves.visible[8:-8, 8:-16]
    shift = moves.x - np.arange(128)
    assert inside.mean() > 0.9 and not moves.visible[:, -3:].any()
    assert np.abs(shift[moves.visible] - 4).max() < 1
    assert warp_error(first, second, moves) < 0.3  # of a texture whose grey levels vary by 1000 * 0.02


def test_flicker_is_in_the_warping_error_of_a_result_and_not_in_that_of_the_truth(tmp_path):
    still = texture(*SHAPE, seed=3) // 2
    for t in range(4):
        picture(tmp_path / f"frames/a/{t:05d}.png", still)
        picture(tmp_path / f"x/a/{t:05d}.png", still + np.uint8(20 * (t % 2)))
    masks(tmp_path / "masks/a", (32,) * 4)
    result = evaluate_video(
        {"x": f"dir:{tmp_path / 'x'}"}, tmp_path / "frames", tmp_path / "masks", metrics=["warp_error"], workers=1
    )
    scores = result.scores.set_index("method")["warp_error"]
    assert scores["truth"] == 0
    assert scores["x"] == pytest.approx(1000 * (20 / 255) ** 2 / 2, rel=1e-6)  # in half of the frame
    table = result.table.set_index("method")
    assert not table["best"]["truth"] and table["best"]["x"]


# ---- scores ----


def test_scores_are_means_of_composited_frames_by_hand(tmp_path):
    frames = {name: film(tmp_path / f"frames/{name}", first=first) for name, first in (("a", 0), ("b", 3))}
    holes = {"a": masks(tmp_path / "masks/a", (8, 8, 10, 12, 12)), "b": masks(tmp_path / "masks/b", (30,) * 5)}
    result = evaluate_video(
        {"grey": grey}, tmp_path / "frames", tmp_path / "masks", metrics=["psnr", "ssim"], workers=1
    )
    by_frame = result.frame_scores.set_index(["sequence", "frame"])
    rows = result.scores.set_index("sequence")
    for name, truths in frames.items():
        expected = [psnr_of(truth, hole) for truth, hole in zip(truths, holes[name], strict=True)]
        assert by_frame.loc[name, "psnr"].tolist() == pytest.approx(expected, rel=1e-9)
        assert rows.loc[name, "psnr"] == pytest.approx(np.mean(expected), rel=1e-9)
        assert rows.loc[name, "hole_ratio"] == pytest.approx(holes[name].mean(), abs=1e-6)
        composited = np.where(holes[name][0][..., None], np.uint8(100), truths[0])
        how = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        ssim = structural_similarity(composited, truths[0], data_range=255, channel_axis=2, **how)
        assert by_frame.loc[(name, 0), "ssim"] == pytest.approx(ssim)
    assert rows["category"].to_dict() == {"a": "0.1-0.2_fast", "b": "0.4-0.5_still"}
    table = result.table.set_index(["metric", "category"])
    assert table.loc[("psnr", "all_all"), "mean"] == pytest.approx(rows["psnr"].mean())
    assert table.loc[("psnr", "0.4-0.5_still"), "mean"] == pytest.approx(rows.loc["b", "psnr"])


def test_a_frame_without_a_hole_is_not_filled_and_counts_only_in_the_warping_error(tmp_path):
    film(tmp_path / "frames/a")
    masks(tmp_path / "masks/a", (16, 0, 16, 16, 0))
    seen = []

    def noted(image, hole):
        seen.append(hole.any())
        return image

    names = ["psnr", "ssim", "warp_error"]
    result = evaluate_video({"x": noted}, tmp_path / "frames", tmp_path / "masks", metrics=names, workers=1)
    rows = result.frame_scores[result.frame_scores["method"] == "x"]
    assert len(seen) == 3 and all(seen)
    assert rows["psnr"].isna().tolist() == rows["ssim"].isna().tolist() == [False, True, False, False, True]
    assert rows["warp_error"].isna().tolist() == [False] * 4 + [True]


def test_means_leave_out_what_is_infinite_unless_all_is():
    assert mean_of_frames([30, np.inf, np.nan, 20]) == 25
    assert (
        mean_of_frames([np.inf, np.nan]) == np.inf
        and np.isnan(mean_of_frames([np.nan]))
        and np.isnan(mean_of_frames([]))
    )


def test_ssim_65_of_constant_images_is_the_luminance_term():
    one, other = (np.full((70, 80, 3), level, np.uint8) for level in (50, 200))
    c = (0.01 * 255) ** 2
    assert ssim_65(one, other, None) == pytest.approx((2 * 50 * 200 + c) / (50**2 + 200**2 + c))


def test_the_table_has_every_hole_ratio_and_motion_and_their_margins():
    rows = [
        ("x", "a", "v", "0.1-0.2_still", 10.0, ""),
        ("x", "b", "w", "0.1-0.2_fast", 20.0, ""),
        ("x", "c", "v", "0.3-0.4_fast", 60.0, ""),
        ("x", "d", "w", "0.3-0.4_fast", np.nan, "failed"),
        ("y", "a", "v", "0.1-0.2_still", 11.0, ""),
        ("y", "b", "w", "0.1-0.2_fast", np.inf, ""),
        ("y", "c", "v", "0.3-0.4_fast", 50.0, ""),
        ("y", "d", "w", "0.3-0.4_fast", 40.0, ""),
    ]
    scores = pd.DataFrame(rows, columns=["method", "sequence", "video", "category", "psnr", "error"])
    table = summary(scores, ("psnr",), seed=0).set_index(["category", "method"])
    expected = {
        "0.1-0.2_still": 10,
        "all_still": 10,
        "0.1-0.2_fast": 20,
        "0.3-0.4_fast": 60,
        "all_fast": 40,
        "0.1-0.2_all": 15,
        "0.3-0.4_all": 60,
        "all_all": 30,
    }
    assert table.xs("x", level="method")["mean"].to_dict() == expected
    assert table.loc[("all_fast", "x"), ["n", "failed"]].tolist() == [2, 1]
    assert table.loc[("0.1-0.2_fast", "y"), ["n", "identical"]].tolist() == [0, 1]
    assert table["best"].loc[[("0.1-0.2_still", "y"), ("0.3-0.4_fast", "x")]].all()
    assert not table["best"].loc[[("0.1-0.2_still", "x"), ("0.3-0.4_fast", "y")]].any()


def test_the_option_lists_the_metrics_that_exist():
    from evaluation.video.metrics import ALL

    assert sorted(METRICS) == sorted(ALL)


# ---- one pass over a video ----


def test_the_flow_of_a_pair_of_frames_is_computed_once_for_all_methods(tmp_path, monkeypatch):
    film(tmp_path / "frames/a")
    masks(tmp_path / "masks/a")
    calls = []
    monkeypatch.setattr(scoring, "motion", lambda *frames: calls.append(1) or motion(*frames))
    evaluate_video(["telea", "ns", "mean"], tmp_path / "frames", tmp_path / "masks", metrics=["warp_error"], workers=1)
    assert len(calls) == 4


def test_memory_does_not_grow_with_the_length_of_a_video(tmp_path):
    peaks = []
    for count in (6, 6, 24):  # the first run imports what it needs
        film(tmp_path / f"{count}/frames/a", count, shape=(96, 128))
        masks(tmp_path / f"{count}/masks/a", (16,) * count, (96, 128))
        tracemalloc.start()
        where = tmp_path / f"{count}/frames", tmp_path / f"{count}/masks"
        evaluate_video({"mean": "mean", "mine": grey}, *where, metrics=["psnr", "warp_error"], workers=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] - peaks[1] < 4 * 96 * 128 * 3  # fewer than four frames, of 18 more


# ---- pairs ----


def test_the_layout_of_davis_is_paired_by_name(tmp_path):
    for name in ("bear", "cows"):
        film(tmp_path / f"DAVIS/JPEGImages/480p/{name}", ending="jpg", shape=(96, 128))
        folder = tmp_path / f"DAVIS/Annotations/480p/{name}"
        folder.mkdir(parents=True)
        for t in range(5):
            objects = Image.fromarray(bar(16).astype(np.uint8) * (1 + t % 2))  # palette indices of two objects
            objects.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
            objects.save(folder / f"{t:05d}.png")
    pairs = pair_videos(tmp_path / "DAVIS/JPEGImages", tmp_path / "DAVIS/Annotations/480p", VideoConfig())
    assert [(pair.sequence, pair.video, pair.start, pair.frames) for pair in pairs.pairs] == [
        ("bear", "480p/bear", 0, 5),
        ("cows", "480p/cows", 0, 5),
    ]
    assert pairs.pairs[0].size == SHAPE and "paired by name; 64x48 px" in pairs.description  # frames are shrunk
    assert pairs.pairs[0].hole_ratio == 0.25
    larger = pair_videos(
        tmp_path / "DAVIS/JPEGImages", tmp_path / "DAVIS/Annotations", VideoConfig(size=(96, 128), frames=3)
    )
    assert larger.pairs[0].size == (96, 128) and larger.pairs[0].frames == 3
    whole = pair_videos(tmp_path / "DAVIS", tmp_path / "DAVIS/Annotations", VideoConfig())
    assert [pair.video for pair in whole.pairs] == ["JPEGImages/480p/bear", "JPEGImages/480p/cows"]


def test_a_frame_is_shrunk_by_the_mean_of_its_pixels_without_cropping(tmp_path):
    frames = film(tmp_path / "frames/a", shape=(96, 128))
    masks(tmp_path / "masks/a")
    pairs = pair_videos(tmp_path / "frames", tmp_path / "masks", VideoConfig())
    (first, *_) = pairs.clips["a"].read(0, 5, SHAPE)
    expected = frames[0].reshape(48, 2, 64, 2, 3).mean((1, 3))
    assert np.abs(first - expected).max() <= 0.5


def test_other_names_are_drawn_so_that_every_class_gets_videos_in_turn(tmp_path):
    for i in range(3):
        film(tmp_path / f"frames/clip{i}", 9, first=i)
    film(tmp_path / "frames/short", 4)
    for i in range(6):
        masks(tmp_path / f"masks/still_{i}", (10,) * 5)
        masks(tmp_path / f"masks/moving_{i}", (2, 8, 14, 20, 26))
    where = tmp_path / "frames", tmp_path / "masks"
    with pytest.warns(InputWarning, match="1 of 4 videos have fewer than 5 frames and are left out: short"):
        pairs = pair_videos(*where, VideoConfig()).pairs
        again, other = pair_videos(*where, VideoConfig()).pairs, pair_videos(*where, VideoConfig(seed=1)).pairs
    uses = pd.DataFrame(map(vars, pairs)).groupby(["category", "video"]).size()
    assert len(uses) == 6 and (uses == 2).all()
    assert all(0 <= pair.start <= 4 for pair in pairs) and len({pair.start for pair in pairs}) > 2
    assert pairs == again and pairs != other


def test_a_single_mask_holds_for_all_frames_and_a_single_video_needs_no_name(tmp_path):
    film(tmp_path / "my film")
    masks(tmp_path / "der Schaden", (16,))
    pairs = pair_videos(tmp_path / "my film", tmp_path / "der Schaden", VideoConfig()).pairs
    assert [(pair.video, pair.sequence, pair.frames) for pair in pairs] == [("my film", "der Schaden", 5)]
    assert pairs[0].speed == 0 and pairs[0].category == "0.2-0.3_still"
    masks(tmp_path / "kurz", (16,) * 3)
    pairs = pair_videos(tmp_path / "my film", tmp_path / "kurz", VideoConfig()).pairs
    assert pairs[0].frames == 3 and pairs[0].start <= 2


def test_of_a_set_the_test_part_is_taken_with_the_classes_of_its_index(tmp_path):
    from maskgen import SequenceConfig, make_sequences

    config = SequenceConfig(train=1, test=2, frames=3, size=(64, 64), modes=("drifting",))
    make_sequences([], None, tmp_path / "set", config, workers=1, say=lambda line: None)
    found = FolderMasks(tmp_path / "set")
    assert found.names == ["drifting_00000", "drifting_00001"]
    index = pd.read_csv(tmp_path / "set/sequences.csv").set_index("sequence")
    sha256 = found.sha256("drifting_00000")
    row = index.loc["test/drifting_00000"]
    assert sha256 == row["sha256"]
    measured = found.measured("drifting_00000", 3, sha256)
    assert (measured.category, measured.hole_ratio, measured.speed) == (
        row["category"],
        row["hole_ratio"],
        row["speed"],
    )
    by_pixels = found.measured("drifting_00000", 3, "another")
    assert by_pixels.category == measured.category and by_pixels.speed == pytest.approx(measured.speed, abs=1e-3)
    with pytest.raises(BadInput, match=r"sequences\.csv says .* white is a hole: leave --polarity hole-black out"):
        FolderMasks(tmp_path / "set/test", "hole-black")


def test_black_holes_and_video_files(tmp_path):
    write_video(tmp_path / "films/a.mkv", 5, height=96, width=128)
    for t in range(5):
        picture(tmp_path / f"masks/a/{t}.png", np.where(bar(32, (96, 128)), 0, 255).astype(np.uint8))
    pairs = pair_videos(tmp_path / "films", tmp_path / "masks", VideoConfig(), polarity="hole-black")
    assert pairs.pairs[0].hole_ratio == 0.25 and pairs.pairs[0].video == "a"
    result = evaluate_video(["mean"], tmp_path / "films", tmp_path / "masks", polarity="hole-black", **QUICK)
    assert result.failures == [] and result.scores["psnr"].between(5, 60).all()


def test_the_first_sequences_of_each_class_are_taken(tmp_path):
    film(tmp_path / "frames/clip", 9)
    for name in ("m1", "m2", "m10"):
        masks(tmp_path / f"masks/{name}", (10,) * 5)
    masks(tmp_path / "masks/m3", (30,) * 5)
    pairs = pair_videos(tmp_path / "frames", tmp_path / "masks", VideoConfig(per_class=2)).pairs
    assert [pair.sequence for pair in pairs] == ["m1", "m2", "m3"]


def test_without_masks_the_set_in_the_working_folder_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    film(tmp_path / "videos/clip", 9)
    masks(tmp_path / "masks/sequences/m1", (10,) * 5)
    masks(tmp_path / "masks/sequences/m2", (30,) * 5)
    done = typed("-m", "mean", "--metric", "psnr", "-j", 1)
    assert done.exit_code == 0 and "masks: 2 sequences of masks/sequences; videos: 1 of videos" in done.stdout
    assert len(evaluate_video(["mean"], **QUICK).scores) == 2 and (tmp_path / "results-video/table.md").is_file()


def test_sequences_of_an_archive_are_those_of_the_folder(tmp_path):
    pytest.importorskip("maskgen.sequences.reader")
    film(tmp_path / "frames/clip")
    masks(tmp_path / "masks/a", (10, 20, 10, 10, 10))
    masks(tmp_path / "masks/b", (30,) * 5)
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "masks")
    config = VideoConfig(frames=4)
    of_folder, of_zip = (pair_videos(tmp_path / "frames", tmp_path / name, config) for name in ("masks", "packed.zip"))
    assert [replace(pair, mask_sha256="") for pair in of_zip.pairs] == [
        replace(pair, mask_sha256="") for pair in of_folder.pairs
    ]
    where = tmp_path / "frames", tmp_path / "packed.zip"
    assert evaluate_video(["mean"], *where, frames=4, **QUICK).failures == []
    with pytest.raises(BadInput, match="white is a hole, and masks have two values: leave --threshold out"):
        pair_videos(*where, config, threshold=128)


# ---- results of another program ----

PLACES = ["{}/{:05d}.png", "{}/frames/{:04d}.png", "480p/{}/{}.png", "{}_result/frame {}.jpg", "out/{}/x/{:03d}.bmp"]


@pytest.mark.parametrize("place", PLACES)
def test_results_are_found_by_the_names_that_programs_give(tmp_path, place):
    for name in ("bear", "drift-turn"):
        frames = film(tmp_path / f"frames/{name}", 12)
        masks(tmp_path / f"masks/{name}", (16,) * 12)
        for t, one in enumerate(frames):
            picture(tmp_path / "x" / place.format(name, t + 1), one)
    pairs = pair_videos(tmp_path / "frames", tmp_path / "masks", VideoConfig())
    method, faults = with_frames(parse(f"x=dir:{tmp_path / 'x'}"), pairs)
    assert not faults and len(method.results) == 24
    assert method.results["drift-turn/00009"] == place.format("drift-turn", 10)  # in natural order


def test_what_is_wrong_with_results_costs_their_sequence_only(tmp_path):
    for name in ("fine", "few", "small", "none", "broken"):
        frames = film(tmp_path / f"frames/{name}")
        masks(tmp_path / f"masks/{name}")
        for t, one in enumerate(frames):
            if name == "none" or (name == "few" and t == 2):
                continue
            deep = one.astype(np.uint16) * 257
            path = tmp_path / f"x/{name}/{t:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), deep[:40, :, ::-1] if name == "small" and t == 3 else deep[..., ::-1])  # 16 bits
    (tmp_path / "x/broken/00001.png").write_bytes(b"\x89PNG\r\n")
    with pytest.warns(InputWarning):
        result = evaluate_video({"x": f"dir:{tmp_path / 'x'}"}, tmp_path / "frames", tmp_path / "masks", **QUICK)
    errors = result.scores.set_index("sequence")["error"]
    assert errors["fine"] == "" and np.isinf(result.scores.set_index("sequence")["psnr"]["fine"])
    assert errors["few"] == "few has 4 frames, expected 5"
    assert errors["small"].startswith("frame 3: small/00003.png is 40 x 64 px, expected 48 x 64")
    assert errors["none"] == "no folder of results is called after none"
    assert "broken/00001.png is not an image" in errors["broken"]
    assert not result.all_failed and "x: 4 sequences failed and are in no mean" in repr(result)


# ---- runs ----


def two_pairs(root):
    for name in ("a", "b", "c"):
        film(root / f"frames/{name}", first=ord(name))
        masks(root / f"masks/{name}", (8, 10, 12, 14, 16))
    return root / "frames", root / "masks"


def every_file(folder):
    """The bytes of all files; of journals their rows, whose order is that of the work."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): sorted(path.read_bytes().splitlines())
        if path.suffix == ".jsonl"
        else path.read_bytes()
        for path in paths
    }


def test_the_bytes_depend_neither_on_workers_nor_on_interruptions_nor_on_when_a_method_was_added(tmp_path):
    where = two_pairs(tmp_path)
    words = [*where, "-m", "telea", "-m", "mean", "--pictures"]
    assert typed(*words, "-j", 2, "--out", tmp_path / "two").exit_code == 0
    assert typed(*where, "-m", "telea", "--pictures", "-j", 1, "--out", tmp_path / "later").exit_code == 0
    assert typed(*words, "-j", 1, "--out", tmp_path / "later").exit_code == 0
    expected = every_file(tmp_path / "two")
    assert every_file(tmp_path / "later") == expected and "pictures/telea/b/00004.jpg" in expected
    # As a kill leaves it: unfinished, and a journal that ends in the middle of a line.
    out = tmp_path / "two"
    (out / ".progress").mkdir()
    (out / "recipe.json").rename(out / ".progress/recipe.json")
    journal = out / "journal/telea.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    assert typed(*words, "-j", 1, "--out", out).exit_code == 0
    assert every_file(out) == expected
    done = typed(*words, "-j", 1, "--out", out)
    assert done.exit_code == 0 and "is already complete" in done.stdout


def test_the_recipe_refuses_other_settings_and_says_what_differs(tmp_path):
    frames, holes = two_pairs(tmp_path)
    assert typed(frames, holes, "-m", "mean", "-j", 1, "--out", tmp_path / "out").exit_code == 0
    done = typed(frames, holes, "-m", "mean", "--frames", 3, "-j", 1, "--out", tmp_path / "out")
    assert done.exit_code == 2 and "frames was 0, is 3" in done.stderr
    masks(holes / "b", (20,) * 5)
    done = typed(frames, holes, "-m", "mean", "-j", 1, "--out", tmp_path / "out")
    assert done.exit_code == 2 and "pairs: b: category was" in done.stderr
    recipe = json.loads((tmp_path / "out/recipe.json").read_text())
    assert recipe["made_by"] == "evaluate video" and recipe["settings"]["flow"] == "dis"


def test_a_function_runs_in_this_process_and_an_exception_costs_its_sequence(tmp_path):
    where = two_pairs(tmp_path)

    def moody(image, hole):
        if image[:, 30:].mean() > 0 and hole.mean() > 0.2:
            raise ValueError("too large")
        return image

    with pytest.warns(InputWarning, match="moody: all sequences failed, the first, a: frame 3: ValueError: too large"):
        result = evaluate_video({"moody": moody, "grey": grey}, *where, **QUICK)
    assert result.all_failed and result.scores["error"].tolist()[3:] == ["", "", ""]
    assert not (Path(result.folder) / ".progress").exists()


def test_exported_pairs_have_the_scores_of_the_pairs(tmp_path):
    film(tmp_path / "frames/long", 20, shape=(96, 128))
    for name in ("m_0", "m_1"):
        masks(tmp_path / f"masks/{name}", (8, 10, 12, 14, 16))
    where = tmp_path / "frames", tmp_path / "masks"
    done = typed(*where, "--export", tmp_path / "pairs", "-j", 1)
    assert (
        done.exit_code == 0 and f"evaluate video {tmp_path / 'pairs/frames'} {tmp_path / 'pairs/masks'}" in done.stdout
    )
    direct = evaluate_video(["telea"], *where, workers=1).scores
    exported = evaluate_video(["telea"], tmp_path / "pairs/frames", tmp_path / "pairs/masks", workers=1).scores
    pd.testing.assert_frame_equal(direct.drop(columns="video"), exported.drop(columns="video"))
    assert exported["video"].tolist() == exported["sequence"].tolist()
    assert "is already complete" in typed(*where, "--export", tmp_path / "pairs", "-j", 1).stdout


# ---- bad input ----


def spoil(root, how):
    """Spoil one thing in a folder with frames, masks and results. Returns more words for the command line."""
    if how == "number":
        (root / "masks/a/00004.png").unlink()
    elif how == "mask size":
        masks(root / "other", (16,), (40, 64))
        (root / "other/00000.png").replace(root / "masks/a/00002.png")
    elif how == "grey mask":
        picture(root / "masks/a/00002.png", texture(*SHAPE, 1)[..., 0])
    elif how == "frame size":
        picture(root / "frames/a/00002.png", texture(40, 64, 1))
    elif how == "broken frame":
        path = root / "frames/a/00002.png"
        path.write_bytes(path.read_bytes()[:200])
    elif how == "no masks":
        return [root / "frames", root / "empty"]
    elif how == "no hole":
        for name in "ab":
            masks(root / f"masks/{name}", (0,) * 5)
    elif how == "one frame":
        for t in range(1, 5):
            (root / f"frames/a/{t:05d}.png").unlink()
            (root / f"masks/a/{t:05d}.png").unlink()
    elif how == "still masks":
        (root / "masks/metadata.csv").write_text("file_name,hole_ratio\n")
    elif how == "no video":
        return [root / "empty", root / "masks"]
    elif how == "film":
        (root / "frames/c.mp4").write_text("no film")
        for name in "ab":
            (root / f"frames/{name}").rename(root / f"frames/{name}{name}")
        return [root / "frames/c.mp4", root / "masks"]
    elif how == "film results":
        write_video(root / "x/a.mkv")
        return [root / "frames", root / "masks", "-m", f"x=dir:{root / 'x'}"]
    elif how == "results":
        picture(root / "x/other/0.png", texture(*SHAPE, 1))
        picture(root / "x/more/0.png", texture(*SHAPE, 1))
        return [root / "frames", root / "masks", "-m", f"x=dir:{root / 'x'}"]
    elif how == "size":
        return [root / "frames", root / "masks", "--size", "large"]
    elif how == "metric":
        return [root / "frames", root / "masks", "--metric", "ssim_65"]
    elif how == "too long":
        for name in "ab":
            (root / f"masks/{name}").rename(root / f"masks/m{name}")
            masks(root / f"masks/m{name}", (16,) * 9)
    return [root / "frames", root / "masks"]


SAYS = {
    "number": "a has 5 frames and 4 masks in",
    "mask size": "00002.png is 64x40 px, expected 64x48 as the first mask there",
    "grey mask": "00002.png holds",
    "frame size": "frame 2 is 64x40 px, expected 64x48 as the first one",
    "broken frame": "00002.png is not an image that can be read",
    "no masks": "empty: expected mask sequences, <sequence>/00000.png, as `maskgen sequences` writes them",
    "no hole": "has a hole, read as hole-white: expected masks with one, or --polarity hole-black",
    "one frame": "a has one frame: expected two or more",
    "still masks": "metadata.csv says: expected mask sequences",
    "no video": "no video in",
    "film": "c.mp4 is not a video that can be opened",
    "film results": "it holds a.mkv: expected a folder of frames for each sequence",
    "results": "they are called more, other, expected names such as a, b",
    "size": "expected a width and a height in px such as 432x240, got 'large'",
    "metric": "ssim_65 needs at least 65 px, the frames are 64x48",
    "too long": "no video in {}/frames has 9 frames, as the masks: give longer ones, or --frames 5",
}


@pytest.mark.parametrize("how", SAYS)
def test_bad_input_gives_one_line_and_leaves_nothing(how, tmp_path):
    (tmp_path / "empty").mkdir()
    for name in "ab":
        film(tmp_path / f"frames/{name}")
        masks(tmp_path / f"masks/{name}")
    done = typed(*spoil(tmp_path, how), "-j", 1, "--out", tmp_path / "out")
    lines = [line for line in done.stderr.splitlines() if line.strip() and "%|" not in line]
    assert done.exit_code == 2 and len(lines) == 1, done.output
    assert SAYS[how].format(tmp_path) in lines[0] and not (tmp_path / "out/scores.csv").exists()


def test_a_size_before_the_command_is_refused_since_it_would_be_height_and_width():
    done = CliRunner().invoke(command, ["--size", "240x432", "video"])
    assert done.exit_code == 2 and "write it after `video`, where it is width x height" in done.output
