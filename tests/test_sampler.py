import itertools
import pickle
import subprocess
import sys
import textwrap
import zipfile

import cv2
import numpy as np
import pytest

from maskgen import canonical
from maskgen.errors import BadInput
from maskgen.maskset import encode
from maskgen.sampler import MaskSampler
from tests.rawmasks import streaks, write_raw


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_raw(tmp_path_factory.mktemp("raw"), 24, "train")


def test_an_index_always_gives_the_same_mask(raw):
    sampler = MaskSampler(raw, seed=3)
    first = [sampler[i].copy() for i in range(12)]
    assert all((MaskSampler(raw, seed=3)[i] == first[i]).all() for i in reversed(range(12)))
    assert not all((MaskSampler(raw, seed=4)[i] == first[i]).all() for i in range(12))


def test_indices_never_end_and_ratios_stay_in_their_range(raw):
    sampler = MaskSampler(raw, 256, ratio=(0.02, 0.4))
    for i in (0, 23, 24, 10**9):
        assert sampler[i].shape == (256, 256) and sampler[i].dtype == bool and 0.02 <= sampler[i].mean() <= 0.4
    with pytest.raises(IndexError):
        sampler[-1]


def test_uniform_ratios_are_uniform(raw):
    sampler = MaskSampler(raw, 128, uniform=True)
    ratios = np.sort([sampler[i].mean() for i in range(120)])
    # Kolmogorov and Smirnov: 1.63 / sqrt(n) is the 1 % limit for the distance from the uniform distribution.
    assert np.abs((ratios - 0.01) / 0.59 - np.arange(1, 121) / 120).max() < 1.63 / 120**0.5


def test_uniform_masks_have_the_ratio_that_their_generator_draws_first(raw):
    sampler = MaskSampler(raw, 128, ratio=(0.1, 0.5), seed=7, uniform=True)
    for i in range(10):
        ratio = np.random.default_rng([7, i]).uniform(0.1, 0.5)
        assert np.count_nonzero(sampler[i]) == round(ratio * 128 * 128)


@pytest.mark.parametrize(("preset", "low", "high"), [("nvidia", 9, 49), ("nvidia-old", 5, 47)])
def test_masks_are_made_with_the_brushes_of_the_preset_from_all_raw_masks(raw, preset, low, high):
    sampler = MaskSampler(raw, 64, preset=preset)
    columns = [sampler.sample(i)[1] for i in range(200)]
    brushes = [row["dilation"] for row in columns]
    assert low <= min(brushes) < low + 4 and high - 4 < max(brushes) <= high
    assert {row["raw"] for row in columns} == set(sampler.raw.names)
    assert {row["flip"] for row in columns} == {0, 1} and all(1 <= float(row["zoom"]) <= 1.5 for row in columns)


def test_iteration_begins_at_index_0(raw):
    sampler = MaskSampler(raw, 64)
    masks = list(itertools.islice(sampler, 3))
    assert all((mask == sampler[i]).all() for i, mask in enumerate(masks)) and len(sampler) == 24


def test_only_the_train_part_is_drawn_from(tmp_path):
    write_raw(tmp_path, 4, "test")
    write_raw(tmp_path, 6, "train")
    assert len(MaskSampler(tmp_path)) == 6


def test_nvidias_train_archive_needs_no_conversion(tmp_path):
    grey = np.where(streaks(1, 600), 100, 200).astype(np.uint8)  # white is valid; 100 is below 0.6, 200 above
    grey[:300][grey[:300] == 200] = 160
    path = tmp_path / "irregular_mask.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("irregular_mask/disocclusion_img_mask/00001.png", cv2.imencode(".png", grey)[1].tobytes())
    sampler = MaskSampler(path, polarity="hole-black", threshold=153)
    assert (sampler.raw[0] == streaks(1, 600)).all()
    assert sampler[0].shape == (512, 512) and 0.01 <= sampler[0].mean() <= 0.6


def test_the_cache_returns_what_was_read(raw):
    sampler = MaskSampler(raw)
    assert (sampler.raw[5] == sampler.raw[5]).all() and 5 in sampler.raw.packed
    assert (sampler.raw[5] == MaskSampler(raw).raw[5]).all()


def test_a_pickled_sampler_has_an_empty_cache(raw):
    sampler = MaskSampler(raw)
    mask = sampler[0]
    copy = pickle.loads(pickle.dumps(sampler))
    assert not copy.raw.packed and (copy[0] == mask).all()


def test_workers_of_a_data_loader_give_the_masks_of_one_process(raw):
    torch = pytest.importorskip("torch")

    class Holes(torch.utils.data.Dataset):
        def __init__(self, sampler):
            self.sampler = sampler

        def __len__(self):
            return 16

        def __getitem__(self, i):
            return torch.from_numpy(self.sampler[i])

    sampler = MaskSampler(raw, 64)
    loaded = torch.cat(list(torch.utils.data.DataLoader(Holes(sampler), batch_size=4, num_workers=2)))
    assert all((loaded[i].numpy() == sampler[i]).all() for i in range(16))


def test_without_masks_the_packaged_raw_masks_are_drawn_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert all((MaskSampler(seed=1)[i] == MaskSampler(canonical.RAW, seed=1)[i]).all() for i in range(3))
    assert (MaskSampler("v1")[5] == MaskSampler()[5]).all() and len(MaskSampler()) == len(MaskSampler(canonical.RAW))


def test_each_epoch_has_masks_of_its_own_and_ends(raw):
    sampler = MaskSampler(raw, 64)
    epochs = [list(sampler.epoch(number)) for number in range(3)]
    assert [len(masks) for masks in epochs] == [len(sampler.epoch(1))] * 3 == [24] * 3
    assert len({mask.tobytes() for masks in epochs for mask in masks}) == 72
    assert (epochs[2][5] == sampler[5 + 2 * 24]).all() and (sampler.epoch(2)[-1] == epochs[2][23]).all()
    assert (pickle.loads(pickle.dumps(sampler.epoch(2)))[5] == epochs[2][5]).all()
    for i in (24, -25):
        with pytest.raises(IndexError):
            sampler.epoch(0)[i]
    with pytest.raises(BadInput, match="epoch is a whole number, 0 or more, got -1"):
        sampler.epoch(-1)


def test_a_data_loader_takes_an_epoch(raw):
    torch = pytest.importorskip("torch")
    epoch = MaskSampler(raw, 64).epoch(3)
    loaded = list(torch.utils.data.DataLoader(epoch, batch_size=12, num_workers=2))
    assert (torch.cat(loaded).numpy() == list(epoch)).all() and loaded[0].dtype == torch.bool


def test_the_recipe_in_the_docstring_gives_other_masks_in_each_epoch_with_persistent_workers(raw):
    torch = pytest.importorskip("torch")
    code = textwrap.dedent(MaskSampler.__doc__.partition("at the start:")[2]).replace(
        "        ...", "        got += hole"
    )
    code = code.replace("MaskSampler(size=256)", "MaskSampler(raw, size=64)").replace("range(100)", "range(3)")
    names = {"torch": torch, "DataLoader": torch.utils.data.DataLoader, "MaskSampler": MaskSampler, "raw": raw}
    names |= {"images": list(range(16)), "got": []}
    exec(code, names)
    sampler = MaskSampler(raw, 64)
    assert {hole.numpy().tobytes() for hole in names["got"]} == {sampler[i].tobytes() for i in range(48)}


def test_the_sampler_imports_neither_torch_nor_pandas():
    code = "import sys, maskgen.sampler; print({'torch', 'pandas', 'matplotlib'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"preset": "nvidea"}, "preset is one of nvidia, nvidia-old, got 'nvidea'"),
        ({"ratio": (0.6, 0.1)}, "lowest < highest"),
        ({"ratio": (0.1, float("nan"))}, "lowest < highest"),
        ({"ratio": 0.3}, "lowest < highest"),
        ({"size": 4}, "size is a whole number, 16 to 4096, got 4"),
        ({"size": 64.5}, "size is a whole number"),
        ({"seed": -1}, "seed is a whole number, 0 or more, got -1"),
        ({"uniform": "yes"}, "uniform is True or False"),
        ({"polarity": "black"}, "polarity is one of hole-white, hole-black"),
        ({"polarity": "hole-black"}, r"has an index.*leave --polarity hole-black out"),
        ({"threshold": 0}, "threshold is a whole number, 1 to 255, or None, got 0"),
    ],
)
def test_wrong_settings_are_refused(raw, wrong, words):
    with pytest.raises(BadInput, match=words):
        MaskSampler(raw, **wrong)


def test_any_two_values_make_a_mask(tmp_path):
    for i, (low, high) in enumerate(((0, 1), (0, 255), (7, 9))):
        path = tmp_path / f"{i}.png"
        cv2.imwrite(str(path), np.where(streaks(i), high, low).astype(np.uint8))
    sampler = MaskSampler(tmp_path)
    assert all((sampler.raw[i] == streaks(i)).all() for i in range(3)) and 0.01 <= sampler[0].mean() <= 0.6


def test_grey_masks_need_a_threshold(tmp_path):
    grey = cv2.GaussianBlur(streaks(1).astype(np.uint8) * 255, (0, 0), 2)
    cv2.imwrite(str(tmp_path / "0.png"), grey)
    with pytest.raises(BadInput, match="--threshold 128"):
        MaskSampler(tmp_path)[0]
    assert (MaskSampler(tmp_path, threshold=100).raw[0] == (grey >= 100)).all()


@pytest.mark.parametrize("uniform", [False, True])
def test_raw_masks_of_the_other_polarity_are_refused(tmp_path, uniform):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(encode(~streaks(i)))
    with pytest.raises(BadInput, match=r"with polarity hole-white, holes fill 9\d% .*so try polarity hole-black"):
        MaskSampler(tmp_path, 64, uniform=uniform)[0]
    assert MaskSampler(tmp_path, 64, uniform=uniform, polarity="hole-black")[0].mean() <= 0.6


@pytest.mark.parametrize(("side", "ratio"), [(24, (0.55, 0.6)), (380, (0.01, 0.03))], ids=["specks", "blots"])
def test_few_raw_masks_reach_every_wanted_ratio(tmp_path, side, ratio):
    for i in range(20):
        hole = np.zeros((512, 512), bool)
        hole[50 : 50 + side, 4 * i : 4 * i + side] = True
        (tmp_path / f"{i}.png").write_bytes(encode(hole))
    sampler = MaskSampler(tmp_path, 128, ratio=ratio, uniform=True)
    masks = [sampler[i] for i in range(4)]
    assert all(ratio[0] - 1e-4 <= mask.mean() <= ratio[1] + 1e-4 for mask in masks)
    assert (masks[3] == MaskSampler(tmp_path, 128, ratio=ratio, uniform=True)[3]).all()


def test_raw_masks_that_cannot_reach_the_range_are_refused(tmp_path):
    hole = np.zeros((512, 512), bool)
    hole[256, 256] = True
    (tmp_path / "dot.png").write_bytes(encode(hole))
    with pytest.raises(BadInput, match=r"0\.5 to 0\.6"):
        MaskSampler(tmp_path, ratio=(0.5, 0.6))[0]
