import cv2
import numpy as np
import pytest
from test_occlusion import texture

from maskgen.extraction import occlusion
from maskgen.extraction.change import WHOLE, changed_share, changing_part
from maskgen.settings import ExtractConfig


def still_scene(object_at, size=48, height=400, width=600):
    """A frame of a photo in front of which a square lies at (x, y). uint8 (H, W, 3)."""
    frame, (x, y) = texture(height, width, seed=1), object_at
    frame[y : y + size, x : x + size] = texture(size, size, seed=2)
    return frame


@pytest.fixture
def shapes(monkeypatch):
    """The shapes of the frames of which a flow was computed."""
    found, both = [], occlusion.both

    def recorded(name, first, second):
        found.append(first.shape)
        return both(name, first, second)

    monkeypatch.setattr(occlusion, "both", recorded)
    return found


def test_a_pixel_has_changed_if_its_grey_level_differs_by_more_than_five():
    still = np.full((64, 64, 3), 100, np.uint8)
    assert changed_share(still, still + 5) == 0 and changed_share(still, still + 6) == 1
    half = still.copy()
    half[:, :32] += 10  # the mean over 5 half-size px next to the edge is 6 of 10, one further 4 of 10
    assert changed_share(still, half) == 0.5


def test_with_a_still_camera_the_part_that_changes_is_a_box_around_the_object_in_both_frames():
    rows, columns = changing_part(still_scene((200, 120)), still_scene((240, 120)))
    # 16 px beyond the object; the squares in which changes are counted add up to 20 px.
    assert 120 - 36 <= rows.start <= 120 - 16 and 168 + 16 <= rows.stop <= 168 + 36
    assert 200 - 36 <= columns.start <= 200 - 16 and 288 + 16 <= columns.stop <= 288 + 36
    assert rows.start % 2 == columns.start % 2 == 0


def test_a_box_at_the_edge_of_the_frame_ends_there_and_is_no_smaller_than_128_px():
    rows, columns = changing_part(still_scene((570, 370), 20), still_scene((572, 372), 20))
    assert rows.stop is None and columns.stop is None
    assert len(range(400)[rows]) == len(range(600)[columns]) == 128


def test_a_moving_camera_changes_the_whole_frame():
    photo = texture(400, 610, seed=1)
    assert changing_part(photo[:, :600], photo[:, 10:]) == WHOLE


@pytest.mark.parametrize(("shift", "is_still"), [(0.1, True), (0.8, False)])
def test_corners_of_low_contrast_show_a_slow_camera_too(shift, is_still):
    photo = texture(400, 600, seed=1).astype(np.float32)
    moved = cv2.warpAffine(photo, np.float32([[1, 0, shift], [0, 1, 0]]), (600, 400), borderMode=cv2.BORDER_REFLECT)
    first, second = (np.rint(100 + (one - 128) / 4).astype(np.uint8) for one in (photo, moved))
    first[100:148, 200:248], second[100:148, 210:258] = texture(48, 48), texture(48, 48)
    assert (changing_part(first, second) != WHOLE) == is_still


@pytest.mark.parametrize("outside", ["a plain wall", "straight edges"])
def test_what_looks_the_same_when_it_moves_does_not_show_that_the_camera_stands_still(outside):
    frame = np.full((400, 600, 3), 128, np.uint8)
    if outside == "straight edges":
        frame[::20] = 255
    first, second = frame.copy(), frame.copy()
    first[100:148, 200:248], second[100:148, 210:258] = texture(48, 48), texture(48, 48)
    assert changing_part(first, second) == WHOLE


def test_frames_that_are_equal_or_differ_all_over_have_no_part_that_changes():
    frame = still_scene((200, 120))
    assert changing_part(frame, frame) == WHOLE
    assert changing_part(frame, cv2.convertScaleAbs(frame, beta=20)) == WHOLE


def test_the_flow_is_computed_only_where_something_changes_and_the_holes_are_beside_the_object(shapes):
    pair = still_scene((200, 120), 120), still_scene((210, 120), 120)
    occluded, disoccluded = occlusion.holes_of_pair(*pair, ExtractConfig(motion_boundaries=False))
    (height, width, _), *others = shapes
    assert not others and 152 <= height <= 192 and 162 <= width <= 202
    for hole, columns in ((occluded, slice(320, 330)), (disoccluded, slice(200, 210))):
        truth = np.zeros((400, 600), bool)
        truth[120:240, columns] = True
        assert 2 * np.count_nonzero(hole & truth) > 0.7 * (hole.sum() + truth.sum())


def test_the_published_rules_look_at_the_whole_frame(shapes):
    occlusion.holes_of_pair(still_scene((200, 120)), still_scene((220, 120)), ExtractConfig(noise=0))
    assert shapes == [(400, 600, 3)]
