import cv2
import numpy as np
import pytest

from maskgen import random_mask
from maskgen.augment.any_shape import augment_to_shape, with_area
from maskgen.errors import BadInput
from maskgen.settings import AugmentConfig
from tests.rawmasks import draw

STILL = AugmentConfig(brush=(9, 9), rotate=0, shift=0, zoom=(1, 1), flip=False)


def levels(picture):
    return np.asarray(picture)


@pytest.mark.parametrize("size", [(1024, 768), (64, 64), (8, 8), (3000, 40), (33, 2000), (4096, 2160), (7, 16)])
def test_any_size_has_two_values_and_a_ratio_in_the_range(size):
    for seed in range(3):
        mask = random_mask(*size, seed=seed, ratio=(0.1, 0.5))
        assert mask.mode == "L" and mask.size == size
        assert set(np.unique(levels(mask))) == {0, 255} and 0.1 <= (levels(mask) == 255).mean() <= 0.5


@pytest.mark.parametrize("ratio", [(0.01, 0.02), (0.25, 0.2501), (0.9, 0.95)])
def test_a_narrow_range_of_ratios_is_kept(ratio):
    for seed in range(4):
        assert ratio[0] <= (levels(random_mask(200, 120, seed=seed, ratio=ratio)) == 255).mean() <= ratio[1]


def test_a_seed_always_gives_the_same_mask_and_none_gives_others():
    assert random_mask(96, 64, seed=7) == random_mask(96, 64, seed=7) != random_mask(96, 64, seed=8)
    assert len({random_mask(96, 64).tobytes() for _ in range(5)}) == 5


@pytest.mark.parametrize(("scale", "shape"), [(1, (512, 512)), (2, (1024, 1024)), (4, (2048, 2048))])
def test_brushes_scale_with_the_size(scale, shape):
    dot = np.zeros((512, 512), bool)
    dot[256, 256] = True
    hole = augment_to_shape(dot, shape, STILL, np.random.default_rng(0))
    _, _, width, height = cv2.boundingRect(hole.view(np.uint8))
    assert width == height == pytest.approx(9 * scale, abs=1)


def test_a_panorama_has_the_brush_of_a_square_of_its_area():
    dots = np.zeros((512, 512), bool)
    dots[:, 256] = dots[256] = True  # a cross: one of its arms is seen wherever the part lies
    hole = augment_to_shape(dots, (512, 2048), STILL, np.random.default_rng(0))
    # 9 px of 512, times sqrt(512 * 2048) / 512, which is 18 px
    upright = np.diff(np.flatnonzero(np.diff(np.pad(hole.all(0), 1).astype(int))))
    assert upright == pytest.approx(18, abs=4)  # a raw brush has a whole number of px, here 4 or 5 times 4


def test_an_enlarged_outline_has_no_steps():
    disc = cv2.circle(np.zeros((512, 512), np.uint8), (256, 256), 40, 1, -1).astype(bool)
    hole = augment_to_shape(
        disc, (4096, 4096), AugmentConfig(brush=(1, 1), zoom=(1, 1), shift=0), np.random.default_rng(1)
    )
    (outline,), _ = cv2.findContours(hole.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    radius = np.linalg.norm(outline[:, 0] - outline[:, 0].mean(0), axis=1)
    assert np.ptp(radius) < 3 * 8 / 2  # nearest neighbour has steps of 8 px in each axis


def test_a_hole_grows_by_its_nearest_pixels_and_shrinks_from_its_outline():
    hole = draw(".....", ".....", "..#..", ".....", ".....")
    grown = with_area(hole, 5, np.random.default_rng(0))
    assert np.array_equal(grown, draw(".....", "..#..", ".###.", "..#..", "....."))
    assert np.array_equal(with_area(grown, 1, np.random.default_rng(0)), hole)


@pytest.mark.parametrize("hole", [np.zeros((20, 30), bool), np.ones((20, 30), bool)])
def test_a_hole_that_is_empty_or_full_becomes_a_round_one(hole):
    made = with_area(hole, 100, np.random.default_rng(0))
    assert np.count_nonzero(made) == 100 and cv2.connectedComponents(made.view(np.uint8))[0] == 2


def test_workers_draw_different_masks():
    torch = pytest.importorskip("torch")

    class Masks(torch.utils.data.Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, i):
            return levels(random_mask(48, 32)).copy()

    loaded = torch.cat(list(torch.utils.data.DataLoader(Masks(), batch_size=2, num_workers=2)))
    assert len({mask.numpy().tobytes() for mask in loaded}) == 8


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"width": 0}, "width is a whole number, 1 to 16384, got 0"),
        ({"height": 64.5}, "height is a whole number"),
        ({"seed": -1}, "seed is a whole number, 0 or more, or None, got -1"),
        ({"ratio": (0.5, 0.1)}, "lowest < highest"),
        ({"width": 2, "height": 2, "ratio": (0.3, 0.4)}, "no hole in 2x2 px has a ratio from 0.3 to 0.4"),
    ],
)
def test_wrong_settings_are_refused(wrong, words):
    with pytest.raises(BadInput, match=words):
        random_mask(**{"width": 64, "height": 64, **wrong})
