import cv2
import numpy as np
import pandas as pd
import pytest

from maskgen.categories import CATEGORIES
from maskgen.plots import CELL, GAP, sheet

LABEL = 120  # px, for the name of a class


@pytest.fixture
def folder(tmp_path):
    cv2.imwrite(str(tmp_path / "mask.png"), np.zeros((64, 64), np.uint8))
    return tmp_path


def drawn(folder, categories):
    table = pd.DataFrame({"file_name": "mask.png", "category": categories})
    return cv2.imdecode(np.frombuffer(sheet(folder, table), np.uint8), cv2.IMREAD_GRAYSCALE)


@pytest.mark.parametrize(("masks", "rows", "columns"), [(3, 1, 3), (13, 2, 7), (500, 12, 10)])
def test_a_contact_sheet_is_as_wide_as_its_fullest_row(folder, masks, rows, columns):
    picture = drawn(folder, ["other"] * masks)
    assert picture.shape == (rows * (CELL + GAP) + GAP, columns * (CELL + GAP) + GAP)
    assert (picture[GAP : GAP + CELL, GAP : GAP + CELL] == 255).all()  # an empty mask is white


def test_a_sheet_of_all_classes_has_a_named_row_for_each_and_no_empty_half(folder):
    picture = drawn(folder, [name for name in CATEGORIES for _ in range(2)])
    assert picture.shape == (12 * (CELL + GAP) + GAP, LABEL + 2 * (CELL + GAP) + GAP)
    assert picture[:, :LABEL].min() < 100  # the names
