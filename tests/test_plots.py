import itertools

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from skimage.transform import downscale_local_mean

import cli
from maskgen import plots
from maskgen.maskset import describe, encode, write_index
from maskgen.plots import (
    BACKGROUND,
    CELL,
    COLOURS,
    GAP,
    LABEL,
    contact_sheet,
    draw_figures,
    heatmap,
    histograms,
    read_parts,
)


def bar(ratio, shape=(64, 64)):
    """A hole that fills the left part of a mask."""
    hole = np.zeros(shape, bool)
    hole[:, : round(ratio * shape[1])] = True
    return hole


def write(folder, holes):
    """Masks by file name with their index; the folder above each file is its video."""
    rows = []
    for name, hole in holes.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encode(hole))
        rows.append({**describe(hole, name, encode(hole)), "source": name.split("/")[0]})
    write_index(folder, rows)
    return folder


def picture(data):
    """The pixels of PNG bytes, RGB."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


def block(side, top, left):
    """A square hole in a mask of 512 px."""
    hole = np.zeros((512, 512), bool)
    hole[top : top + side, left : left + side] = True
    return hole


@pytest.fixture
def drawn(monkeypatch):
    """A function that draws a sheet and returns its picture and, with their places, the texts on it."""

    def draw(folder, columns=10):
        seen = []
        with monkeypatch.context() as patch:
            patch.setattr(plots, "draw_texts", lambda picture, texts: seen.append((picture.copy(), texts)) or picture)
            contact_sheet(folder, read_parts(folder), columns)
        return seen[0]

    return draw


def test_holes_are_white_on_the_sheet_as_in_the_files(tmp_path, drawn):
    picture, _ = drawn(write(tmp_path, {"film/0.png": bar(0.5), "film/1.png": bar(0.25)}))
    cell = picture[-CELL - GAP : -GAP, GAP:][:, :CELL]
    assert (cell[:, : CELL // 2] == 255).all() and (cell[:, CELL // 2 :] == 0).all()


def test_the_file_of_a_sheet_shows_the_masks_below_the_title(tmp_path):
    holes = {"film/0.png": block(300, 0, 0), "film/1.png": block(200, 256, 256)}
    write(tmp_path, holes)
    shown = picture(contact_sheet(tmp_path, read_parts(tmp_path)))[..., 0]
    title, masks = shown[: GAP + LABEL + GAP], shown[GAP + LABEL + GAP + LABEL :]
    assert (title[GAP : GAP + LABEL] < BACKGROUND - 100).any()  # black letters
    for i, hole in enumerate(holes.values()):  # the larger hole first
        left = GAP + i * (CELL + GAP)
        cell = masks[:CELL, left : left + CELL]
        nearest = hole[np.ix_(*[np.round((np.arange(CELL) + 0.5) * 512 / CELL - 0.5).astype(int)] * 2)]
        assert ((cell >= 128) == nearest).mean() > 0.98 and set(np.unique(cell[::8, ::8])) >= {0, 255}


def bars(shown, colour):
    """Left, right, top and bottom px of what has a colour, but for its patch in the legend, which is above."""
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    y, x = np.nonzero((np.abs(shown.astype(int) - rgb).max(2) < 20) & (np.arange(len(shown))[:, None] > 60))
    return x.min(), x.max(), y.min(), y.max()


def test_histograms_show_interior_and_free_masks_in_their_colours_and_to_scale(tmp_path):
    sides = {"interior": (150, 50), "free": (300, 0)}  # px, side and border distance; ratios 0.086 and 0.343
    holes = {
        f"{kind}/{i}.png": block(*sides[kind], sides[kind][1])
        for kind, n in (("interior", 9), ("free", 3))
        for i in range(n)
    }
    table = read_parts(write(tmp_path, holes))
    shown = picture(histograms(table))
    ratio, distance = np.array_split(shown, 2, axis=1)
    for half, first, last in ((ratio, "interior", "free"), (distance, "free", "interior")):  # from left to right
        edges = {kind: bars(half, COLOURS[kind]) for kind in COLOURS}
        assert edges[first][1] < edges[last][0]
        heights = {kind: bottom - top for kind, (_, _, top, bottom) in edges.items()}
        assert heights["interior"] == pytest.approx(3 * heights["free"], rel=0.05)
        assert abs(edges["interior"][3] - edges["free"][3]) <= 1  # they stand on one line, with zero at the bottom


def test_histograms_count_as_numpy_does(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    holes = {f"film/{i}.png": block(int(rng.integers(60, 380)), int(rng.integers(0, 110)), 60) for i in range(40)}
    table, figures = read_parts(write(tmp_path, holes)), []
    monkeypatch.setattr(plots, "_png", figures.append)
    histograms(table)
    interior = table["border_distance"] >= 50
    for axes, column in zip(figures[0].axes, ("hole_ratio", "border_distance"), strict=True):
        low, high = axes.get_ylim()
        assert low == 0 and high > 0
        for (container, _), chosen in zip(
            zip(axes.containers, COLOURS, strict=True), (interior, ~interior), strict=True
        ):
            edges = [bar.get_x() for bar in container] + [container[-1].get_x() + container[-1].get_width()]
            counts, _ = np.histogram(table[column][chosen], edges)
            assert [round(bar.get_height()) for bar in container] == counts.tolist() and counts.sum() == chosen.sum()
    texts = [text.get_text() for text in figures[0].axes[0].get_legend().get_texts()]
    assert texts == [f"interior, {interior.sum()}", f"free, {(~interior).sum()}"]
    lines = [[round(line.get_xdata()[0], 4) for line in axes.lines] for axes in figures[0].axes]
    assert lines == [[0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [50]]


def test_a_heatmap_is_the_share_of_masks_with_a_hole_at_each_place(tmp_path, monkeypatch):
    free, interior = [block(100, 0, 16 * i) for i in range(3)], [block(128, 50, 300)]
    holes = {f"{kind}/{i}.png": hole for kind, kinds in (("f", free), ("i", interior)) for i, hole in enumerate(kinds)}
    figures, encode_figure = [], plots._png
    monkeypatch.setattr(plots, "_png", lambda figure: figures.append(figure) or encode_figure(figure))
    shown = picture(heatmap(tmp_path, read_parts(write(tmp_path, holes))))
    maps = [axes for axes in figures[0].axes if axes.get_title()]
    assert [axes.get_title() for axes in maps] == [
        "interior: share of 1 mask with a hole here",
        "free: share of 3 masks with a hole here",
    ]
    for axes, kind in zip(maps, (interior, free), strict=True):
        share = axes.images[0].get_array()
        assert np.allclose(share, downscale_local_mean(np.mean(kind, axis=0), (4, 4)), atol=0.5 / 255 + 1e-6)
        assert axes.get_ylim() == (1, 0) and axes.get_xlim() == (0, 1)  # as in an image: row 0 at the top
    rows = shown.astype(int).sum(2)[:, shown.shape[1] // 2 : int(shown.shape[1] * 0.9)]  # the map of the free masks
    dark = rows < 60  # magma begins near black
    assert dark[shown.shape[0] // 2 :].sum() > dark[: shown.shape[0] // 2].sum()  # their holes are in the upper half


def test_both_parts_are_drawn_with_the_largest_holes_of_each_video_first(tmp_path, drawn):
    small_first = [0.05 * i for i in range(1, 7)]
    for part, films in (("train", "ab"), ("test", "c")):
        holes = {f"{film}/{i}.png": bar(ratio) for film in films for i, ratio in enumerate(small_first)}
        write(tmp_path / part, holes)
    picture, texts = drawn(tmp_path, columns=1)
    assert [text for text, _, _ in texts] == [
        "12 of 18 masks, largest holes first in each video; white is the hole",
        *("a (train)", "b (train)", "c (test)"),  # where there is room, also how many of how many
    ]
    column = picture[:, GAP : GAP + CELL]
    for _, _, top in texts[1:]:
        begins = [top + LABEL + k * (CELL + GAP) for k in range(4)]
        shares = [(column[begin : begin + CELL] == 255).mean() for begin in begins]
        assert shares == pytest.approx([0.3, 0.25, 0.2, 0.15], abs=0.02)


def test_each_label_says_how_many_of_how_many(tmp_path, drawn):
    holes = {f"film/{i:03d}.png": bar(0.1) for i in range(200)} | {"clip/0.png": bar(0.3), "clip/1.png": bar(0.2)}
    _, texts = drawn(write(tmp_path, holes))
    assert [text for text, _, _ in texts] == [
        "62 of 202 masks, largest holes first in each video; white is the hole",
        "film, 60 of 200",
        "clip, 2 of 2",
    ]


def test_a_sorted_set_has_a_row_for_each_class_it_has(tmp_path, drawn):
    names = ["free_0.1-0.2", "interior_0.2-0.3", "interior_0.01-0.1", "outside"]
    ratios = {"free_0.1-0.2": 0.15, "interior_0.2-0.3": 0.25, "interior_0.01-0.1": 0.05, "outside": 0.8}
    rows = []
    for name in names:
        for i in range(3):
            hole = np.zeros((512, 512), bool)
            begin, side = (0, 512) if name[0] in "fo" else (60, 390)
            hole[begin : begin + side, begin : begin + round(ratios[name] * 512**2 / side)] = True
            path = tmp_path / name / f"{i:05d}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(encode(hole))
            rows.append({**describe(hole, f"{name}/{i:05d}.png", encode(hole)), "source": f"{name}{i}"})
    write_index(tmp_path, rows)
    _, texts = drawn(tmp_path)
    assert [text for text, _, _ in texts] == [
        "12 of 12 masks, spread evenly over each class; white is the hole",
        *("interior 0.01-0.1, 3 of 3", "interior 0.2-0.3, 3 of 3", "free 0.1-0.2, 3 of 3", "outside, 3 of 3"),
    ]


@pytest.mark.parametrize("videos", [1, 3, 13, 60, 130])
def test_no_sheet_is_half_empty_and_no_label_runs_into_the_next(tmp_path, drawn, videos):
    names = [f"a film with quite a long name {i:03d}/{k}.png" for i in range(videos) for k in range(12)]
    picture, texts = drawn(write(tmp_path, dict.fromkeys(names, bar(0.2, (16, 16)))))
    assert (picture != BACKGROUND).mean() > 0.5
    places = [(top, left, left + plots._text_width(text)) for text, left, top in texts]
    for (top, _, right), (next_top, left, _) in itertools.pairwise(places):
        assert right <= picture.shape[1] and (next_top > top or left > right)
    assert len({text for text, _, _ in texts}) == len(texts)  # names that differ at their end stay apart


def test_masks_that_are_not_square_leave_no_gaps(tmp_path, drawn):
    picture, _ = drawn(write(tmp_path, {f"film/{i}.png": bar(0.5, (32, 128)) for i in range(20)}))
    below_the_label = picture[2 * (GAP + LABEL) :]
    assert (below_the_label != BACKGROUND).mean() > 0.7


def test_a_title_is_whole_above_a_single_mask(tmp_path, drawn):
    picture, texts = drawn(write(tmp_path, {"film/0.png": bar(0.5)}))
    title, left, _ = texts[0]
    assert title.startswith("1 of 1 masks") and left + plots._text_width(title) <= picture.shape[1]


def test_labels_of_any_letters_are_drawn_without_a_warning(tmp_path, recwarn):
    write(tmp_path, {f"$x$ 東京 ß/{i}.png": bar(0.1) for i in range(2)})
    draw_figures(tmp_path, tmp_path.parent / "figures")
    assert not recwarn.list


def test_the_same_set_gives_the_same_pictures(tmp_path):
    write(tmp_path / "set", {f"film/{i}.png": bar(0.1 * i) for i in range(1, 6)})
    one, other = (draw_figures(tmp_path / "set", tmp_path / name) for name in ("one", "other"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]
    text_and_masks = cv2.imread(str(one[0]), cv2.IMREAD_UNCHANGED)
    assert text_and_masks.ndim == 2 and (text_and_masks[:20] < 100).any()  # the title is written


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("nowhere", "no such folder: nowhere"),
        ("empty", "no metadata.csv in empty"),
        ("none", "none lists no masks"),
        ("foreign", "has no column category"),
        ("set --out set/pictures", "set/pictures is inside set"),
        ("set/film", "no metadata.csv in set/film"),
        ("torn", "cannot read torn/film/0.png"),
    ],
)
def test_show_refuses_what_it_cannot_draw_in_one_line(tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "set", {"film/0.png": bar(0.1)})
    write(tmp_path / "torn", {"film/0.png": bar(0.1)})
    (tmp_path / "torn/film/0.png").unlink()
    for name in ("empty", "none", "foreign"):
        (tmp_path / name).mkdir()
    write_index(tmp_path / "none", [])
    (tmp_path / "foreign" / "metadata.csv").write_text("file_name,text\na.png,a cat\n")
    run = CliRunner().invoke(cli.maskgen, ["show", *words.split()])
    assert run.exit_code == 2 and says in run.output and run.output.count("\n") == 1
    assert not list(tmp_path.glob("*-figures"))


def test_show_draws_the_folder_it_is_run_in_beside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(write(tmp_path / "set", {"film/0.png": bar(0.1)}))
    run = CliRunner().invoke(cli.maskgen, ["show", "."])
    assert run.exit_code == 0 and (tmp_path / "set-figures" / "sheet.png").exists()
