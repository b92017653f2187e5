"""Which pairs are offered, examined and compared: the plan of an extraction, without any video."""

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from maskgen.errors import BadInput
from maskgen.extraction import run, schedule, task, video
from maskgen.extraction.merging import Accepted, file_name_of
from maskgen.settings import ExtractConfig

SMALL = ExtractConfig(train=6, test=4, size=64, min_area=4)


def test_masks_are_asked_first_of_the_sources_that_have_given_least():
    assert schedule.distribute(4, given=[0, 0, 6], capacities=[9, 9, 9]) == [2, 2, 0]
    assert schedule.distribute(9, given=[0, 0, 0], capacities=[2, 9, 9]) == [2, 4, 3]
    assert schedule.distribute(9, given=[0, 0], capacities=[1, 2]) == [1, 2]


def examined(wanted, masks_of):
    """Which of the pairs 0, 1, ... a task for `wanted` masks examines, if pair i gives masks_of[i] masks."""
    piece = task.Task(Path(), tuple((i, 1, 0) for i in range(len(masks_of))), wanted, (), (0, 0), SMALL, Path())
    selector, chosen = task._PairSelector(piece), []
    for i, masks in enumerate(masks_of):
        if selector.is_needed():
            chosen.append(i)
            selector.add_result(masks)
    return chosen


def test_a_task_spreads_the_examined_pairs_and_continues_where_nothing_moves():
    assert examined(4, [2] * 16) == [0, 8]
    assert examined(4, [1] * 16) == [0, 4, 8, 12]
    assert examined(4, [0] * 10 + [1] * 6) == [*range(14)]  # none from the first ten: the next pairs make up for it
    assert examined(4, [0] * 16) == [*range(16)]


def test_an_open_pair_counts_as_two_masks_before_the_first_result():
    some_task = task.Task(Path(), tuple((i, 1, 0) for i in range(16)), 4, (), (0, 0), SMALL, Path())
    selector = task._PairSelector(some_task)
    assert [i for i in range(16) if selector.is_needed()] == [0, 8]


@pytest.mark.parametrize(("pixels", "reason"), [(7, "near-empty"), (8, None), (2048, None), (2049, "near-full")])
def test_near_empty_and_near_full_masks_are_passed_over(pixels, reason):
    hole = np.arange(64 * 64).reshape(64, 64) < pixels
    result = task._hole_or_reason(hole, replace(SMALL, min_ratio=8 / 4096, max_ratio=0.5))
    assert result is hole if reason is None else result == reason


def test_an_examined_pair_is_not_offered_again():
    film = video.Source(Path("film.mp4"), "film", 20, 640, 480, "0" * 64, 20)
    segment = schedule.Segment(film, "train", 0, film.frames, replace(SMALL, gaps=(1, 2), crops=2))

    def offered():
        return segment.pairs(segment.offer(1000, np.random.default_rng(0)))

    all_of_them = offered()
    assert list(all_of_them) == [(f, g, s) for f in range(20) for g in (1, 2) for s in (0, 1) if f + g < 20]
    segment.mark_examined(all_of_them[::3])
    assert offered() == tuple(pair for i, pair in enumerate(all_of_them) if i % 3)
    segment.mark_examined(all_of_them[1::3])
    assert offered() == all_of_them[2::3] and segment.remaining == len(all_of_them[2::3])
    assert segment.examined == len(all_of_them) - segment.remaining


def test_a_segment_of_a_film_offers_its_own_pairs_only():
    film = video.Source(Path("film.mp4"), "film", 900, 640, 480, "0" * 64, 900)
    segment = schedule.Segment(film, "test", 600, 700, replace(SMALL, gaps=(4, 1)))
    segment.mark_examined([(650, 1, 0), (600, 4, 0)])
    offered = segment.pairs(segment.offer(1000, np.random.default_rng(0)))
    own_pairs = [(f, g, 0) for f in range(600, 700) for g in (4, 1) if f + g < 700]
    assert list(offered) == [pair for pair in own_pairs if pair not in ((650, 1, 0), (600, 4, 0))]


def test_a_stratified_sample_is_spread_over_the_whole_range():
    chosen = schedule.stratified_sample(10, 100, np.random.default_rng(0))
    assert [i // 10 for i in chosen] == list(range(10))
    assert schedule.stratified_sample(7, 7, np.random.default_rng(0)).tolist() == list(range(7))


FILM = video.Source(Path("film.mp4"), "film", 1000, 640, 480, "0" * 64, 1000)


def test_four_pairs_are_offered_for_each_that_is_expected_to_be_needed():
    segment = schedule.Segment(FILM, "train", 0, 1000, SMALL)
    assert len(segment.offer(10, np.random.default_rng(0))) == 40
    segment.examined, segment.accepted = 9, 4  # half a mask from each pair
    assert len(segment.offer(10, np.random.default_rng(0))) == 80
    segment.examined, segment.accepted = 9, 19  # no more than two masks from each pair
    assert segment.masks_per_pair == 2 and len(segment.offer(10, np.random.default_rng(0))) == 40


def test_a_segment_is_expected_to_give_one_mask_a_pair_and_then_a_fifth_more_than_before():
    segment = schedule.Segment(FILM, "train", 0, 1000, replace(SMALL, train=10_000))

    def asked_for():
        [request] = schedule.plan_round([segment], {"train": 10_000, "test": 0}, 0)
        return request.wanted

    assert asked_for() == 999  # pairs
    segment.examined, segment.accepted = 9, 4
    assert asked_for() == 600  # 1.2 * 0.5 * 999
    segment.examined, segment.accepted = 9, 19
    assert asked_for() == 2 * 999


def test_a_single_source_is_cut_with_a_second_between_the_segments():
    lines = []
    train, test = schedule.assign_splits([FILM], replace(SMALL, train=60, test=40, gaps=(1, 3)), lines.append)
    assert (train.start, train.stop, test.start, test.stop) == (0, 584, 611, 1000)  # 24 + 3 frames; 0.6 * 973
    assert "its frames 0 to 583 are for training, 611 to 999 for testing" in lines[0]


def test_of_a_short_single_source_at_most_a_quarter_is_left_out():
    film = replace(FILM, frames=40)
    train, test = schedule.assign_splits([film], replace(SMALL, train=60, test=40), lambda line: None)
    assert (train.start, train.stop, test.start, test.stop) == (0, 18, 28, 40)  # 10 frames; 0.6 * 30


def test_the_seed_decides_among_films_of_similar_length_and_long_films_come_first():
    def assigned(lengths, seed):
        films = [replace(FILM, name=str(i), frames=length) for i, length in enumerate(lengths)]
        return tuple(one.split for one in schedule.assign_splits(films, replace(SMALL, train=4, test=4, seed=seed)))

    assert len({assigned([100] * 4, seed) for seed in range(20)}) > 1
    assert {assigned([100, 100, 100, 1000], seed) for seed in range(20)} == {("test", "test", "test", "train")}


def test_rounds_and_segments_of_one_film_draw_different_pairs():
    config = replace(SMALL, train=10, test=10)
    segments = [schedule.Segment(FILM, "train", 0, 500, config), schedule.Segment(FILM, "test", 500, 1000, config)]
    first, second = (schedule.plan_round(segments, {"train": 10, "test": 10}, number) for number in (0, 1))
    drawn = [tuple(one.codes - one.segment.start) for one in (*first, *second)]
    assert len(set(drawn)) == 4


def test_sources_are_assigned_so_that_each_split_gets_its_share_of_the_frames():
    films = [video.Source(Path(f"{i}.mp4"), str(i), 100, 640, 480, f"{i:064x}", 100) for i in range(20)]
    segments = schedule.assign_splits(films, replace(SMALL, train=75, test=25))
    assert Counter(segment.split for segment in segments) == {"train": 15, "test": 5}


def films_of(*rows):
    """Films of 100 frames each, from (name, split, group)."""
    return [replace(FILM, name=name, frames=100, split=split, group=group) for name, split, group in rows]


def test_a_film_goes_to_the_split_that_it_is_assigned_to_and_the_others_even_the_shares_out():
    films = films_of(("a", "test", ""), ("b", "", ""), ("c", "", ""), ("d", "test", ""))
    for seed in range(9):
        segments = schedule.assign_splits(films, replace(SMALL, train=50, test=50, seed=seed))
        assert [one.split for one in segments] == ["test", "train", "train", "test"]


def test_a_film_for_a_split_that_is_not_wanted_is_left_out():
    films = films_of(("a", "test", ""), ("b", "train", ""), ("c", "", ""))
    assert [one.source.name for one in schedule.assign_splits(films, replace(SMALL, test=0))] == ["b", "c"]
    assert [one.source.name for one in schedule.assign_splits(films, replace(SMALL, train=0))] == ["a", "c"]


def test_the_films_of_a_group_go_to_one_split():
    films = films_of(("a", "", "room"), ("b", "", "park"), ("c", "", "room"), ("d", "test", "park"))
    for seed in range(9):
        a, b, c, d = (one.split for one in schedule.assign_splits(films, replace(SMALL, train=50, test=50, seed=seed)))
        assert (a, b, c, d) == ("train", "test", "train", "test")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "test", "room"), ("b", "train", "room")], "b is for train, but others of its group room are for test"),
        ([("a", "test", ""), ("b", "test", "")], "assigns no video to train: assign one, or .* --train 0"),
        ([("a", "train", "")], "assigns no video to test"),
    ],
)
def test_splits_that_cannot_be_kept_are_refused(rows, message):
    with pytest.raises(BadInput, match=message):
        schedule.assign_splits(films_of(*rows), SMALL)


def test_no_group_is_asked_for_more_than_the_largest_share():
    films = films_of(("a", "", ""), ("b", "", "room"), ("c", "", "room"), ("d", "", ""))
    segments = schedule.assign_splits(films, replace(SMALL, train=200, test=0, max_share=0.35))
    segments[1].accepted = 45
    requests = schedule.plan_round(segments, {"train": 170, "test": 0}, 0)
    assert [(one.segment.source.name, one.wanted) for one in requests] == [("a", 70), ("c", 25), ("d", 70)]  # b gave 45


def test_a_group_is_asked_for_as_many_masks_as_one_film():
    films = films_of(("a", "", ""), ("b", "", "room"), ("c", "", "room"), ("d", "", "room"))
    segments = schedule.assign_splits(films, replace(SMALL, train=120, test=0))
    requests = schedule.plan_round(segments, {"train": 120, "test": 0}, 0)
    assert [(one.segment.source.name, one.wanted) for one in requests] == [("a", 60), ("b", 20), ("c", 20), ("d", 20)]


@pytest.mark.parametrize(
    ("wanted", "offered", "sizes"),
    [
        (480, 1920, [30] * 16),  # 16 tasks
        (960, 3840, [48] * 20),  # of 48 masks at most
        (40, 160, [8] * 5),  # and 8 at least
        (2, 384, [2]),  # and 384 pairs at most
        (2, 385, [1, 1]),
    ],
)
def test_requests_are_cut_into_tasks_of_some_seconds(wanted, offered, sizes):
    pieces = run._pieces([schedule.Request(None, wanted, np.arange(offered))])
    assert [piece.wanted for piece in pieces] == sizes
    assert np.concatenate([piece.codes for piece in pieces]).tolist() == list(range(offered))


def test_the_longest_tasks_come_first():
    requests = [schedule.Request(i, wanted, np.arange(4 * wanted)) for i, wanted in enumerate((3, 8, 5))]
    assert [(piece.segment, piece.wanted) for piece in run._pieces(requests)] == [(1, 8), (2, 5), (0, 3)]


def test_a_long_film_gets_folders_of_at_most_ten_thousand_files():
    film = video.Source(Path("film.mp4"), "film", 300_000, 640, 480, "0" * 64, 300_000)
    segment = schedule.Segment(film, "train", 0, film.frames, replace(SMALL, gaps=(1, 2)))
    names = [
        file_name_of(task.Candidate(i, gap, 0, kind), segment) for i in range(6000) for gap in (1, 2) for kind in "ab"
    ]
    assert len(set(names)) == len(names)
    assert max(Counter(name.rsplit("/", 1)[0] for name in names).values()) <= 10_000


def candidate(frame, occupied, gap=1):
    """A candidate mask that occupies the first cells of 4096."""
    cells = np.packbits(np.arange(4096) < occupied).tobytes()
    row = {"sha256": hashlib.sha256(bytes([frame, gap])).hexdigest()}
    return task.Candidate(frame, gap, 0, "occluded", row=row, cells=cells)


def has_alike(folder, accepted, new):
    segment = object()
    with Accepted(folder) as known:
        for one in accepted:
            known.add(one, segment)
        return known.has_alike(new, segment)


@pytest.mark.parametrize(("occupied", "is_duplicate"), [(90, False), (91, True), (111, True), (112, False)])
def test_masks_are_near_duplicates_if_over_nine_tenths_of_their_cells_are_the_same(tmp_path, occupied, is_duplicate):
    accepted = [candidate(3, 100)]  # 111 cells: 100 of 111 are the same
    assert has_alike(tmp_path, accepted, candidate(7, occupied)) == is_duplicate


@pytest.mark.parametrize("accepted_first", [(1, 2, 3, 5, 6, 7), (7, 3, 5, 1, 6, 2)])
@pytest.mark.parametrize(
    ("position", "is_duplicate"), [(0, False), (1, True), (2, True), (3, True), (4, True), (5, False)]
)
def test_a_mask_is_compared_with_the_two_before_and_the_two_after_it(tmp_path, position, is_duplicate, accepted_first):
    alike = (1, 2, 3, 5, 6, 7)[position]
    accepted = [candidate(frame, 500 if frame == alike else 0) for frame in accepted_first]
    assert has_alike(tmp_path, accepted, candidate(4, 500)) == is_duplicate


@pytest.mark.parametrize("gaps", [(1, 2, 3), (3, 1, 2), (2, 3, 1)])
def test_of_three_masks_of_one_frame_those_that_occupy_least_are_compared(tmp_path, gaps):
    accepted = [candidate(4, 300 * gap, gap) for gap in gaps]  # fewer cells are lower bytes
    found = [has_alike(tmp_path, accepted, candidate(4, 300 * gap, 9)) for gap in (1, 2, 3)]
    assert found == [True, True, False]


def test_a_mask_with_the_bytes_of_one_far_away_is_a_duplicate(tmp_path):
    accepted = [candidate(frame, 0) for frame in range(9)]
    new = candidate(90, 500)
    assert not has_alike(tmp_path, accepted, new)
    assert has_alike(tmp_path, accepted, replace(new, row=accepted[0].row))


def test_a_cell_is_occupied_if_it_holds_one_hole_pixel():
    hole = np.zeros((512, 512), bool)
    hole[8, 16] = True  # cells are 8x8 px
    cells = np.unpackbits(task.occupied_cells(hole)).reshape(64, 64)
    assert cells.sum() == 1 and cells[1, 2] == 1
