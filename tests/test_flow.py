from types import SimpleNamespace

import cv2
import numpy as np
import pytest

import maskgen.extraction.flow as flow_module
from maskgen.errors import BadInput
from maskgen.extraction.consistency import consistency_error, sample_flow
from maskgen.extraction.flow import FLOWS, both, flow_named, packages

QUICK = sorted(set(FLOWS) - {"tvl1"})


def texture(height, width, seed=0):
    """A smooth random photo, uint8 (H, W, 3)."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return np.clip(128 + 50 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def shifted_pair(dx, dy, height=96, width=128):
    """Two windows of one texture: what is at x in the first is at x + (dx, dy) in the second."""
    photo = texture(height + 32, width + 32)
    return (
        photo[16 : 16 + height, 16 : 16 + width].copy(),
        photo[16 - dy : 16 - dy + height, 16 - dx : 16 - dx + width].copy(),
    )


@pytest.mark.parametrize("name", sorted(FLOWS))
def test_every_flow_points_from_the_first_frame_to_the_second(name):
    flow = flow_named(name)(*shifted_pair(4, -2))
    assert flow.shape == (96, 128, 2) and flow.dtype == np.float32
    assert np.median(flow[16:-16, 16:-16], axis=(0, 1)) == pytest.approx((4, -2), abs=0.2)


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("size", [(64, 64), (64, 101), (97, 75)])
def test_frames_of_any_size_from_64_pixels_work(name, size):
    first, second = shifted_pair(2, 1, *size)
    assert [flow.shape for flow in both(name, first, second)] == [(*size, 2)] * 2


@pytest.mark.parametrize("name", QUICK)
def test_the_flow_has_the_same_bytes_for_any_number_of_threads(name):
    first, second = shifted_pair(5, 3, 150, 170)
    second[40:90, 50:100] = texture(50, 50, seed=1)
    before = cv2.getNumThreads()
    try:
        found = []
        for threads in (1, 2, 5, 5):
            cv2.setNumThreads(threads)
            found.append(np.stack(both(name, first, second)).tobytes())
    finally:
        cv2.setNumThreads(before)
    assert len(set(found)) == 1


@pytest.mark.parametrize("name", QUICK)
def test_both_flows_at_once_are_those_of_two_calls(name):
    first, second = shifted_pair(3, 0)
    second[30:60, 40:70] = texture(30, 30, seed=1)
    forward, backward = both(name, first, second)
    assert np.array_equal(forward, FLOWS[name](first, second)) and np.array_equal(backward, FLOWS[name](second, first))


@pytest.mark.parametrize("name", QUICK)
def test_flat_frames_do_not_move(name):
    flat = np.full((64, 80, 3), 77, np.uint8)
    assert not np.stack(both(name, flat, flat)).any()


def test_a_flow_is_sampled_bilinearly_to_the_last_digits():
    flow = np.random.default_rng(3).normal(0, 5, (9, 11, 2)).astype(np.float32)
    u, v = np.full((9, 11), 0.3, np.float32), np.full((9, 11), 0.4, np.float32)
    dx, dy, _ = sample_flow(cv2.split(flow), u, v)
    # between the four pixels around (2.3, 4.4), weights by hand
    corners = 0.42 * flow[4, 2] + 0.18 * flow[4, 3] + 0.28 * flow[5, 2] + 0.12 * flow[5, 3]
    assert (dx[4, 2], dy[4, 2]) == pytest.approx(tuple(corners), abs=1e-5)


def test_the_consistency_error_is_that_of_the_paper():
    forward, backward = np.zeros((8, 8, 2), np.float32), np.zeros((8, 8, 2), np.float32)
    forward[...], backward[...] = (1, 0), (0, 2)
    # |w + v|^2 = 1 + 4, |w|^2 + |v|^2 = 1 + 4
    error, leaves = consistency_error(cv2.split(forward), cv2.split(backward), slope=0.01, offset=0.5)
    assert error[4, 4] == pytest.approx(5 / 0.55)
    assert leaves[:, 7].all() and not leaves[:, :7].any()


def test_the_error_for_an_unknown_flow_names_the_known_ones():
    with pytest.raises(BadInput, match=r"'raft'.*dis, dis-medium, dis-fast, farneback, tvl1"):
        flow_named("raft")


def test_another_package_can_add_a_flow(monkeypatch):
    def still(first, second):
        return np.zeros((*first.shape[:2], 2), np.float32)

    def entry_points(group, name="still"):
        plug_in = SimpleNamespace(name="still", load=lambda: still, dist=SimpleNamespace(name="still-flow"))
        return [plug_in] if (group, name) == ("maskgen.flows", "still") else []

    monkeypatch.setattr(flow_module, "entry_points", entry_points)
    assert flow_named("still") is still
    assert not np.stack(both("still", *shifted_pair(3, 0))).any()
    assert packages("still") == ["still-flow"] and packages("dis") == [] and "scikit-image" in packages("tvl1")
    with pytest.raises(BadInput, match="tvl1, still"):
        flow_named("moving")


def test_frames_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        both("dis", np.zeros((64, 64, 3), np.uint8), np.zeros((64, 65, 3), np.uint8))
