"""Invalid settings raise an error of one line with the value and what is allowed."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest

from maskgen import settings
from maskgen.augment.dilation import dilate, distance_levels
from maskgen.augment.placement import random_placement
from maskgen.errors import BadInput
from maskgen.settings import AugmentConfig, ExtractConfig, FillConfig

WRONG = [
    (AugmentConfig, "shape", "nonsense", "one of square, disc"),
    (AugmentConfig, "shape", None, "one of square, disc"),
    (AugmentConfig, "brush", (0, 49), "two whole numbers, the smaller one first, 1 to 512"),
    (AugmentConfig, "brush", (0, -3), "two whole numbers"),
    (AugmentConfig, "brush", (49, 9), "the smaller one first"),
    (AugmentConfig, "brush", (9.5, 49), "two whole numbers"),
    (AugmentConfig, "brush", 9, "two whole numbers"),
    (AugmentConfig, "brush", (9, 20, 49), "two whole numbers"),
    (AugmentConfig, "rotate", math.nan, "a number, 0 to 180"),
    (AugmentConfig, "rotate", -1, "a number, 0 to 180"),
    (AugmentConfig, "rotate", "much", "a number, 0 to 180"),
    (AugmentConfig, "shift", math.inf, "a number, 0 to 1"),
    (AugmentConfig, "shift", 1.5, "a number, 0 to 1"),
    (AugmentConfig, "zoom", (2, 1), "two numbers, the smaller one first, above 0 and 16 at most"),
    (AugmentConfig, "zoom", (0, 1), "above 0"),
    (AugmentConfig, "zoom", (1, math.nan), "two numbers"),
    (AugmentConfig, "flip", 1, "True or False"),
    (AugmentConfig, "min_ratio", 0, r"\(lowest, highest\) with 0 < lowest < highest < 1"),
    (AugmentConfig, "min_ratio", 0.7, "lowest < highest"),
    (AugmentConfig, "max_ratio", math.nan, "lowest < highest"),
    (AugmentConfig, "attempts", 0, "a whole number, 1 or more"),
    (FillConfig, "per_category", 0, "a whole number, 1 or more"),
    (FillConfig, "per_category", True, "a whole number, 1 or more"),
    (FillConfig, "size", 100, "a whole number, 448 to 4096"),
    (FillConfig, "preset", "nvidea", "one of nvidia, nvidia-old"),
    (FillConfig, "seed", -1, "a whole number, 0 or more"),
    (FillConfig, "seed", 0.5, "a whole number, 0 or more"),
    (FillConfig, "layers", 0, "a whole number, 1 or more"),
    (FillConfig, "shrink", 0, "a number, above 0 and 1 at most"),
    (FillConfig, "alike", 1.1, "a number, above 0 and 1 at most"),
    (ExtractConfig, "slope", -0.1, "a number, 0 or more"),
    (ExtractConfig, "offset", math.nan, "a number, 0 or more"),
    (ExtractConfig, "boundary_slope", "steep", "a number, 0 or more"),
    (ExtractConfig, "boundary_offset", -1, "a number, 0 or more"),
    (ExtractConfig, "noise", math.inf, "a number, 0 or more"),
    (ExtractConfig, "min_area", -1, "a whole number, 0 or more"),
    (ExtractConfig, "seed", -1, "a whole number, 0 or more"),
]


@pytest.mark.parametrize(("kind", "name", "value", "allowed"), WRONG)
def test_an_invalid_setting_is_refused(kind, name, value, allowed):
    with pytest.raises(BadInput, match=allowed) as refused:
        replace(kind(), **{name: value})
    assert f"got {value!r}" in str(refused.value) or "ratio" in name


@pytest.mark.parametrize("kind", [AugmentConfig, FillConfig])
def test_every_setting_has_a_rule(kind):
    assert {name for checked, name, *_ in WRONG if checked is kind} == {field.name for field in fields(kind)}


def test_settings_from_json_and_numpy_numbers_are_accepted():
    assert AugmentConfig(brush=[9, 49], zoom=[1, 1.5], rotate=np.float32(30), attempts=np.int64(3)).attempts == 3


@pytest.mark.parametrize("shape", ["nonsense", "Square", ""])
def test_an_unknown_brush_shape_is_refused_by_functions_too(shape):
    hole = np.eye(64, dtype=bool)
    with pytest.raises(BadInput, match=f"shape is one of square, disc, got '{shape}'"):
        dilate(hole, 5, shape)
    placement = random_placement(hole.shape, settings.PRESETS["nvidia"], np.random.default_rng(0))
    with pytest.raises(BadInput, match="shape is one of square, disc"):
        distance_levels(hole, placement, 64, shape, 5)
