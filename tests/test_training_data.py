import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from evaluation.pairs import reduced, sparse
from maskgen.errors import BadInput
from pconv_model import data
from pconv_model.settings import TrainConfig
from pconv_model.superres import spread_means

PLAIN = TrainConfig(size=(20,), scale=(1, 1), colour=0.0, flip=False)


class Squares:
    """Hole i: a square of 24 px at a place drawn from i."""

    def __getitem__(self, i):
        hole, rng = np.zeros((64, 64), bool), np.random.default_rng(i)
        top, left = rng.integers(0, 40, 2)
        hole[top : top + 24, left : left + 24] = True
        return hole


def make_files(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names(paths):
    return [path.name for path in paths]


def write_ramp(folder):
    """A photo of 90x60 px whose columns get brighter by 2 levels each."""
    ramp = np.repeat(np.arange(0, 180, 2, dtype=np.uint8)[None, :, None], 60, 0).repeat(3, 2)
    cv2.imwrite(str(folder / "ramp.png"), ramp)
    return folder / "ramp.png"


def write_noise(folder, side=40):
    path = folder / "noise.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))
    return path


def test_imagenet_and_places2_have_their_own_split(tmp_path):
    imagenet = make_files(tmp_path / "i", "train/n01/a.JPEG", "train/n02/b.JPEG", "val/c.JPEG", "test/d.JPEG")
    kept, held_out = data.split([imagenet])
    assert names(kept) == ["a.JPEG", "b.JPEG"] and names(held_out) == ["c.JPEG"]
    places = make_files(
        tmp_path / "p", "data_large/a/abbey/1.jpg", "data_large/z/zoo/2.jpg", "val_large/3.jpg", "test_large/4.jpg"
    )
    kept, held_out = data.split([places])
    assert names(kept) == ["1.jpg", "2.jpg"] and names(held_out) == ["3.jpg"]


def test_celeba_hq_is_split_27000_to_3000_by_the_seed(tmp_path, monkeypatch):
    faces = [tmp_path / f"{i}.jpg" for i in range(30000)]
    monkeypatch.setattr(data.images, "find", lambda folder: faces)
    kept, held_out = data.split([tmp_path], config=TrainConfig(validation=3000))
    again = data.split([tmp_path], config=TrainConfig(validation=3000))
    other = data.split([tmp_path], config=TrainConfig(validation=3000, seed=1))
    assert (len(kept), len(held_out)) == (27000, 3000) and set(kept) | set(held_out) == set(faces)
    assert again == (kept, held_out) != other
    assert len(data.split([tmp_path], config=TrainConfig(validation=5))[1]) == 5


def test_a_list_holds_photos_out_by_name_or_path(tmp_path):
    folder = make_files(tmp_path / "x", "a/1.jpg", "b/1.jpg", "b/2.jpg", "val/c.jpg")
    (tmp_path / "list.txt").write_text("b/1.jpg\nc.jpg\n\n")
    kept, held_out = data.split([folder], exclude=data.read_names(tmp_path / "list.txt"))
    assert [p.relative_to(folder).as_posix() for p in held_out] == ["b/1.jpg", "val/c.jpg"]
    assert [p.relative_to(folder).as_posix() for p in kept] == ["a/1.jpg", "b/2.jpg"]


def test_a_fraction_of_0_validates_on_the_training_photos_and_a_fraction_of_1_is_refused(tmp_path):
    folder = make_files(tmp_path / "x", "1.jpg", "2.jpg", "3.jpg")
    kept, held_out = data.split([folder], config=TrainConfig(hold_out=0))
    assert kept == held_out and len(kept) == 3
    with pytest.raises(BadInput, match="no photo is left to train on, of 3 found"):
        data.split([folder], config=TrainConfig(hold_out=1))


def test_photos_are_drawn_by_their_weights():
    paths = [Path("x/wide_1.jpg"), Path("x/wide_2.jpg"), Path("x/clothing_1.jpg"), Path("x/clothing_2.jpg")]
    assert data.draw_probabilities(paths, [("clothing*", 0.5)]).tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 6, 1 / 6])
    both = data.draw_probabilities(paths, [("clothing*", 0.5), ("*_2.jpg", 4)])  # 1, 4, 0.5, 2
    assert both.tolist() == pytest.approx([1 / 7.5, 4 / 7.5, 0.5 / 7.5, 2 / 7.5])
    with pytest.raises(BadInput, match=r"pattern 'cats\*' matches none of 4 photos"):
        data.draw_probabilities(paths, [("cats*", 0.5)])
    with pytest.raises(BadInput, match="gives every photo the weight 0"):
        data.draw_probabilities(paths, [("*", 0)])


def test_a_photo_of_weight_0_is_never_in_a_sample(tmp_path):
    for name, level in (("black", 0), ("white", 255)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((40, 40, 3), level, np.uint8))
    photos = [tmp_path / "black.png", tmp_path / "white.png"]
    drawn = data.TrainingSamples(photos, Squares(), replace(PLAIN, photo_weights=(("black*", 0),)))
    assert all(drawn(i, 20)[0].min() == 255 for i in range(20))
    both = data.TrainingSamples(photos, Squares(), PLAIN)
    assert {int(both(i, 20)[0].min()) for i in range(20)} == {0, 255}


def test_a_sample_is_a_crop_of_a_photo_mirrored_or_not_and_always_the_same(tmp_path):
    ramp = write_ramp(tmp_path)
    config = replace(PLAIN, scale=(0.5, 0.5), flip=True)
    samples = data.TrainingSamples([ramp], Squares(), config)
    seen = set()
    for i in range(20):
        image, hole = samples(i, 20)
        slope = np.diff(image[0, :, 0].astype(int))
        seen.add((int(np.sign(slope[10])), int(image[0].min()) // 40))
        assert image.shape == (20, 20, 3) and hole.shape == (20, 20) and 0 < hole.mean() < 1
        assert np.abs(np.abs(slope) - 3).max() <= 1  # 30 px reduced to 20: 1.5 steps of 2
        again = data.TrainingSamples([ramp], Squares(), config, cache=0)(i, 20)
        assert (again[0] == image).all() and (again[1] == hole).all()
    assert {sign for sign, _ in seen} == {-1, 1} and len(seen) > 4  # both ways round, from many places
    upright = data.TrainingSamples([ramp], Squares(), replace(config, flip=False))
    assert all(np.diff(upright(i, 20)[0][0, :, 0].astype(int))[10] > 0 for i in range(20))


def test_crops_have_the_asked_scale_and_are_not_enlarged_where_the_photo_is_large_enough(tmp_path):
    ramp = write_ramp(tmp_path)  # the short side is 60 px, a step of 2 levels a pixel

    def slopes(size, scale):
        samples = data.TrainingSamples([ramp], Squares(), replace(PLAIN, size=(size,), scale=scale))
        return [float(np.diff(samples(i, size)[0][0, :, 0].astype(int)[2:-2]).mean()) for i in range(30)]

    small = slopes(20, (0.5, 1))  # crops of 30 to 60 px: 3 to 6 levels a pixel
    assert 2.9 < min(small) < 3.5 and 5.5 < max(small) < 6.1
    large = slopes(40, (0.1, 1))  # crops of 40 to 60 px, and not from 6 px up: 2 to 3 levels
    assert 1.9 < min(large) < 2.2 and 2.8 < max(large) < 3.1


def test_no_two_samples_are_alike_and_other_seeds_draw_others(tmp_path):
    noise = write_noise(tmp_path, 60)
    config = replace(PLAIN, scale=(0.5, 1))
    images = [
        data.TrainingSamples([noise], Squares(), replace(config, seed=s))(i, 20)[0] for s in (0, 1) for i in (0, 1)
    ]
    assert len({image.tobytes() for image in images}) == 4


def test_photos_beyond_the_cache_are_decoded_each_time(tmp_path, monkeypatch):
    noise, reads = write_noise(tmp_path, 40), []
    real = data.read_rgb
    monkeypatch.setattr(data, "read_rgb", lambda path, short: reads.append(short) or real(path, short))
    for cache, count in ((40 * 40 * 3, 1), (40 * 40 * 3 - 1, 3)):
        samples = data.TrainingSamples([noise], Squares(), PLAIN, cache=cache)
        reads.clear()
        for i in range(3):
            samples(i, 20)
        assert reads == [40] * count  # px, twice the crop


def test_validation_samples_are_centred_squares_under_masks_that_training_never_uses(tmp_path):
    asked = []

    class Recorded(Squares):
        def __getitem__(self, i):
            asked.append(i)
            return super().__getitem__(i)

    image, hole = data.ValidationSamples([write_ramp(tmp_path)], Recorded())(0, 60)
    assert image[0, :, 0].tolist() == list(range(30, 150, 2))  # columns 15 to 74 of 90
    assert asked == [10**9] and hole.shape == (60, 60) and (hole == data.resize_hole(Squares()[10**9], 60)).all()


def test_a_window_of_a_mask_is_a_square_that_holds_hole_and_surroundings():
    hole = np.zeros((100, 100), bool)
    hole[40:60, 40:60] = True
    rng = np.random.default_rng(0)
    parts = [data.random_window(hole, (0.3, 0.6), rng) for _ in range(50)]
    assert all(part.shape[0] == part.shape[1] and 30 <= part.shape[0] <= 60 for part in parts)
    assert all(0.003 < part.mean() < 0.8 for part in parts)
    assert len({part.sum() for part in parts}) > 10


def test_a_window_may_not_be_almost_all_hole():
    hole = np.ones((100, 100), bool)
    hole[:, :21] = False  # 0.79; windows further right hold more
    parts = [data.random_window(hole, (0.5, 0.5), np.random.default_rng(i)) for i in range(20)]
    assert all(part.mean() < 0.8 for part in parts)


def test_a_window_that_holds_almost_no_hole_is_not_used():
    hole = np.zeros((100, 100), bool)
    hole[50, 50] = True  # 1 of 2500 pixels of a window, below 0.003
    assert all(data.random_window(hole, (0.5, 0.5), np.random.default_rng(i)) is hole for i in range(20))


def test_a_scale_of_one_takes_the_whole_mask_and_draws_nothing():
    hole, rng = np.eye(8, dtype=bool), np.random.default_rng(0)
    assert data.random_window(hole, (1.0, 1.0), rng) is hole
    assert rng.random() == np.random.default_rng(0).random()


def test_a_mask_without_a_hole_stays_whole():
    empty = np.zeros((10, 10), bool)
    assert data.random_window(empty, (0.5, 0.5), np.random.default_rng(0)) is empty


def test_colours_change_mildly_and_grey_stays_grey():
    grey = np.full((4, 4, 3), 100, np.uint8)
    shades = [data.jitter_colour(grey, 0.1, np.random.default_rng(i)) for i in range(50)]
    assert all((s == s[..., :1]).all() for s in shades)
    values = {int(s[0, 0, 0]) for s in shades}
    assert len(values) > 10 and min(values) >= 90 and max(values) <= 110


class Draws:
    """A generator whose uniform draws are given."""

    def __init__(self, *values):
        self.values = values

    def uniform(self, low, high, count):
        return np.array(self.values)


def test_brightness_contrast_and_saturation_by_pencil():
    image = np.array(
        [[[40, 80, 120], [40, 80, 120]], [[120, 160, 200], [120, 160, 200]]], np.uint8
    )  # means 80, 120, 160
    brighter = data.jitter_colour(image, 1, Draws(0.1, 0, 0))
    assert brighter[0, 0].tolist() == [44, 88, 132]
    contrast = data.jitter_colour(image, 1, Draws(0, -0.5, 0))  # halfway to the mean of each channel
    assert contrast[0, 0].tolist() == [60, 100, 140] and contrast[1, 0].tolist() == [100, 140, 180]
    saturation = data.jitter_colour(image, 1, Draws(0, 0, -0.5))  # halfway to the grey of each pixel
    assert saturation[0, 0].tolist() == [60, 80, 100] and saturation[1, 0].tolist() == [140, 160, 180]


def test_a_fraction_of_the_crops_is_grey_and_the_others_are_as_without_it(tmp_path):
    noise = write_noise(tmp_path)
    some, none = (data.TrainingSamples([noise], Squares(), replace(PLAIN, grey=share)) for share in (0.3, 0.0))
    both = [(some(i, 20)[0], none(i, 20)[0]) for i in range(60)]
    grey = [bool((crop == crop[..., :1]).all()) for crop, _ in both]
    assert 8 <= sum(grey) <= 28
    assert all((crop == other).all() for (crop, other), is_grey in zip(both, grey, strict=True) if not is_grey)


def test_a_net_that_enlarges_sees_the_mean_of_each_block():
    image = np.zeros((2, 4, 3), np.uint8)
    image[:, :2], image[0, 2:], image[1, 2:] = 10, 40, 60
    target, hole = data.superres_sample(image, 2)
    assert hole.tolist() == [[True] * 4, [True, False, True, False]]  # (x, y) goes to (2x + 1, 2y + 1)
    assert (target == image).all()
    seen = spread_means(torch.from_numpy(image / 255).movedim(2, 0)[None], 2)[0, 0] * 255
    assert seen.round().tolist() == [[0] * 4, [0, 10, 0, 50]]


def test_super_resolution_is_trained_on_what_the_benchmark_asks_for(tmp_path):
    config = replace(PLAIN, size=(32,), factor=4)
    target, hole = data.TrainingSamples([write_ramp(tmp_path)], None, config)(0, 32)
    image, wanted = sparse(reduced(target, 4), 4)
    assert (hole == wanted).all() and image[~hole].any()
    seen = spread_means(torch.from_numpy(target).movedim(2, 0)[None] / 255, 4)[0].movedim(0, 2) * 255
    assert np.abs(image - seen.numpy()).max() <= 1  # halves may be rounded either way
    assert (data.ValidationSamples([tmp_path / "ramp.png"], None, 4)(0, 32)[1] == wanted).all()


def test_a_hole_is_resized_to_a_hole():
    hole = np.array([[True, False], [False, False]])
    assert data.resize_hole(hole, 4).tolist() == [[True, True, False, False]] * 2 + [[False] * 4] * 2
    assert data.resize_hole(hole, 2) is hole


def test_batches_are_images_in_0_to_1_and_planes_of_valid_pixels_in_the_order_of_their_indices():
    def sample(i, size):
        return np.full((size, size, 3), i, np.uint8), np.eye(size, dtype=bool)

    made = list(data.batches(sample, [range(0, 2), range(51, 52), [255]], 4, workers=2))
    assert [tuple(image.shape) for image, _ in made] == [(2, 3, 4, 4), (1, 3, 4, 4), (1, 3, 4, 4)]
    assert [round(float(level), 4) for image, _ in made for level in image[:, 0, 0, 0]] == [0, 0.0039, 0.2, 1]
    assert all((valid == 1 - torch.eye(4)).all() and valid.shape[1] == 1 for _, valid in made)


def test_a_square_is_reduced_by_means_of_areas_and_enlarged_by_bicubic_interpolation():
    image = np.repeat(np.array([0, 100, 200, 60], np.uint8)[None, :, None], 4, 0).repeat(3, 2)
    assert data.resize_square(image, 2)[0, :, 0].tolist() == [50, 130]
    edge = np.repeat(np.array([50, 50, 150, 150], np.uint8)[None, :, None], 4, 0).repeat(3, 2)
    row = data.resize_square(edge, 16)[0, :, 0]
    assert row.min() < 50 and row.max() > 150  # bicubic interpolation overshoots at edges, linear does not


def test_a_photo_is_reduced_to_its_short_side_and_never_enlarged(tmp_path):
    write_ramp(tmp_path)  # 90 x 60
    assert data.read_rgb(tmp_path / "ramp.png", 20).shape == (20, 30, 3)
    assert data.read_rgb(tmp_path / "ramp.png", 100).shape == (60, 90, 3)


def test_a_broken_photo_is_named(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"no photo")
    with pytest.raises(BadInput, match=r"x\.jpg"):
        data.read_rgb(tmp_path / "x.jpg", 10)


def test_a_list_that_is_not_text_is_named(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match=r"list\.txt cannot be read as a list of names"):
        data.read_names(tmp_path / "list.txt")


def test_a_missing_folder_of_masks_is_refused_with_the_command_that_makes_one(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "maskgen.sampler", type(sys)("maskgen.sampler"))
    sys.modules["maskgen.sampler"].MaskSampler = None
    with pytest.raises(BadInput, match="maskgen extract"):
        data.mask_sampler(tmp_path / "none", TrainConfig())
    assert data.mask_sampler(tmp_path / "none", TrainConfig(factor=2, size=(32,))) is None


def test_training_masks_have_the_ratios_and_the_seed_of_the_settings(tmp_path, monkeypatch):
    asked = []
    module = type(sys)("maskgen.sampler")
    module.MaskSampler = lambda masks, **settings: asked.append((masks, settings))
    monkeypatch.setitem(sys.modules, "maskgen.sampler", module)
    data.mask_sampler(tmp_path, TrainConfig(ratio=(0.1, 0.3), uniform=True, seed=5))
    settings = {"size": 512, "preset": "nvidia", "ratio": (0.1, 0.3), "seed": 5, "uniform": True}
    assert asked == [(tmp_path, settings)]
