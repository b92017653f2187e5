import csv
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from evaluation.pairs import reduced, sparse
from maskgen.errors import BadInput
from pconv_model import checkpoints, data, schedule, train
from pconv_model.search import search
from pconv_model.settings import LossConfig, NetConfig, TrainConfig
from pconv_model.unet import PConvUNet

NET = NetConfig(width=0.05, depth=3)
RUN = TrainConfig(phase1_steps=6, phase2_steps=3, size=(16, 32), batch=(4, 2), hold_out=0.25, validation=2)


class Boxes:
    """Hole i: one box, drawn from i."""

    def __getitem__(self, i):
        hole, rng = np.zeros((64, 64), bool), np.random.default_rng(i)
        top, left = rng.integers(0, 40, 2)
        hole[top : top + 24, left : left + 24] = True
        return hole


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Eight photos of 60 to 90 px, in two folders of a tree."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(8):
        path = folder / f"lot{i % 2}" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        small = rng.integers(0, 255, (6, 9, 3), np.uint8)
        cv2.imwrite(str(path), cv2.resize(small, (90, 60), interpolation=cv2.INTER_CUBIC))
    return folder


def weights(path):
    return checkpoints.load(path).state_dict()


def same(a, b):
    return a.keys() == b.keys() and all(value.equal(b[key]) for key, value in a.items())


def run(photos, out, config=RUN, **how):
    return train.train(
        [photos], Boxes(), out, net=NET, config=config, device="cpu", validate_every=4, log_every=2, **how
    )


@pytest.fixture(scope="module")
def finished(photos, tmp_path_factory):
    return run(photos, tmp_path_factory.mktemp("finished"))


def test_a_run_leaves_weights_checkpoint_history_and_samples(finished):
    out = finished.parent
    assert finished.name == "pconv.safetensors" and (out / "checkpoint.pt").exists()
    rows = list(csv.DictReader((out / "history.csv").open()))
    assert [row["phase"] for row in rows if row["total"]] == ["1", "1", "1", "1", "2", "2"]
    assert [row["size"] for row in rows if row["total"]] == ["16", "16", "32", "32", "32", "32"]
    assert [row["step"] for row in rows if row["val_l1"]] == ["3", "4", "6", "8", "9"]
    assert checkpoints.read_header(finished)["history"][-1]["step"] == 9
    grid = cv2.imread(str(out / "samples" / "0000009.jpg"))
    assert grid.shape == (4 * 32, 2 * 32, 3)  # masked, result, composite, truth of two photos


class Stop(Exception):
    """The end of a run that was killed."""


@pytest.mark.parametrize("last", [2, 4, 7])  # in the first size, in the second, in phase 2
def test_a_killed_run_goes_on_to_the_same_weights_as_one_that_was_not(photos, tmp_path, finished, monkeypatch, last):
    real = train._step

    def step(run, *rest):
        if run.step == last:
            raise Stop
        return real(run, *rest)

    monkeypatch.setattr(train, "_step", step)
    with pytest.raises(Stop):
        run(photos, tmp_path, minutes=0)  # a checkpoint at every step
    monkeypatch.setattr(train, "_step", real)
    assert train.read_checkpoint(tmp_path / "checkpoint.pt")["step"] == last
    assert same(weights(run(photos, tmp_path)), weights(finished))
    assert history(tmp_path) == history(finished.parent)


def history(out):
    """All that history.csv tells but the speed."""
    return [{**row, "images_per_s": ""} for row in csv.DictReader((out / "history.csv").open())]


def test_a_kill_between_the_last_checkpoint_and_its_history_loses_no_row(photos, tmp_path, finished):
    (tmp_path / "checkpoint.pt").write_bytes((finished.parent / "checkpoint.pt").read_bytes())
    run(photos, tmp_path)
    assert (tmp_path / "history.csv").read_bytes() == (finished.parent / "history.csv").read_bytes()


def test_the_number_of_threads_changes_nothing(photos, tmp_path, finished):
    assert same(weights(run(photos, tmp_path, workers=3, cache=0)), weights(finished))


def test_weights_of_a_known_step_go_on_from_there_with_their_history(photos, tmp_path, finished):
    path = run(photos, tmp_path, start=finished, at=7)
    history, before = (checkpoints.read_header(p)["history"] for p in (path, finished))
    kept = [row for row in before if row["step"] <= 7]
    assert history[: len(kept)] == kept
    assert [row["step"] for row in history[len(kept) :]] == [8, 8, 9, 9]  # the loss and the validation of each
    state, old = weights(path), weights(finished)
    norms = [key for key in state if ".norm." in key and key.startswith("encoder")]
    assert norms and all(state[key].equal(old[key]) for key in norms)  # phase 2, its encoder's batch norm is frozen


def test_another_seed_and_a_fresh_run_begin_anew(photos, tmp_path, finished):
    first = weights(run(photos, tmp_path, replace(RUN, seed=1)))
    assert not same(first, weights(finished))
    assert same(weights(run(photos, tmp_path, RUN, resume=False)), weights(finished))


def test_accumulated_batches_are_one_step_of_their_mean_gradient(photos):
    config = replace(RUN, accumulate=2, ema=0.0, clip=1e9)
    it = train.Run(NetConfig(width=0.05, depth=1), config, "cpu")
    image, valid = torch.rand(4, 3, 16, 16), (torch.rand(4, 1, 16, 16) < 0.7).float()
    start = [p.clone() for p in it.net.parameters()]
    it.optimiser = torch.optim.SGD(it.net.parameters())
    train._step(it, it.net, iter([(image[:2], valid[:2]), (image[2:], valid[2:])]), None, LossConfig())
    once = train.Run(NetConfig(width=0.05, depth=1), config, "cpu")
    grads = torch.autograd.grad(
        sum(
            train.total_loss(once.net(image[s], valid[s]), image[s], valid[s])["total"] / 2
            for s in (slice(2), slice(2, 4))
        ),
        list(once.net.parameters()),
    )
    for before, after, grad in zip(start, it.net.parameters(), grads, strict=True):
        torch.testing.assert_close(after, before - 2e-4 * grad)


def test_the_loss_taken_image_by_image_is_that_of_the_batch():
    def pool(image):
        return [torch.nn.functional.avg_pool2d(image, 2)]

    torch.manual_seed(0)
    config = LossConfig(near=3)
    out, truth, valid = torch.rand(3, 3, 8, 8), torch.rand(3, 3, 8, 8), (torch.rand(3, 1, 8, 8) < 0.6).float()
    gradient, terms = train._gradient(out.clone(), truth, valid, pool, config, RUN, None)
    out.requires_grad_()
    wanted = train.total_loss(out, truth, valid, pool, config)
    wanted["total"].backward()
    torch.testing.assert_close(gradient, out.grad)
    torch.testing.assert_close(terms, {name: term.detach() for name, term in wanted.items()})
    for side, alike in ((8, True), (4, False)):  # a window as large as the image is all of it, a smaller one is not
        windows, rng = replace(RUN, vgg_window=side), np.random.default_rng(0)
        seen, _ = train._gradient(out.detach().clone(), truth, valid, pool, config, windows, rng)
        assert torch.allclose(seen, gradient) == alike


def test_a_step_whose_gradient_is_not_finite_leaves_the_net_as_it_was():
    it = train.Run(NET, RUN, "cpu")
    it.net.train()
    before = {key: value.clone() for key, value in it.net.state_dict().items()}
    image, valid = torch.rand(2, 3, 16, 16), torch.ones(2, 1, 16, 16)
    image[0, 0, 3, 3] = float("inf")
    train._step(it, it.net, iter([(image, valid)]), None, LossConfig())
    assert same(before, it.net.state_dict()) and it.step == 1


def test_phase_two_freezes_the_encoders_batch_norm_and_phase_one_does_not(photos, tmp_path, finished):
    state = train.read_checkpoint(finished.parent / "checkpoint.pt")["net"]
    run(photos, tmp_path, replace(RUN, phase2_steps=0))
    phase1 = train.read_checkpoint(tmp_path / "checkpoint.pt")["net"]
    norms = {key for key in state if ".norm." in key}
    assert all(state[k].equal(phase1[k]) for k in norms if k.startswith("encoder"))
    assert not any(state[k].equal(phase1[k]) for k in norms if k.startswith("decoder"))


def test_rates_are_the_papers_or_fall_along_a_cosine():
    assert [train.rate(RUN, s) for s in (0, 5, 6, 8)] == [2e-4, 2e-4, 5e-5, 5e-5]
    config = replace(RUN, decay="cosine")
    assert [train.rate(config, s) for s in (0, 3, 6)] == pytest.approx([2e-4, (2e-4 + 5e-5) / 2, 5e-5])
    assert train.rate(replace(config, phase2_steps=4), 8) == pytest.approx(2.5e-5)


def test_stages_are_equal_parts_of_phase_one_unless_told():
    cut = [(s.first, s.last, s.size, s.batch, s.phase) for s in train.stages(RUN)]
    assert cut == [(0, 3, 16, 4, 1), (3, 6, 32, 2, 1), (6, 9, 32, 2, 2)]
    assert [s.last for s in train.stages(replace(RUN, switch=(5,), phase2_steps=0))] == [5, 6]
    with pytest.raises(BadInput, match="2 sizes"):
        train.stages(replace(RUN, batch=(1, 2, 3)))
    with pytest.raises(BadInput, match="rise"):
        train.stages(replace(RUN, switch=(7,)))
    with pytest.raises(BadInput, match="8 px or more, 0 for all, got 5"):
        train.stages(replace(RUN, vgg_window=5))


def test_the_average_follows_the_weights():
    it = train.Run(NET, replace(RUN, ema=0.9), "cpu")
    it.step = 1000
    for net, value in ((it.average, 1.0), (it.net, 2.0)):
        net.encoder[0].conv.weight.data.fill_(value)
    it.follow()
    assert it.average.encoder[0].conv.weight.unique().item() == pytest.approx(1.1)


def test_a_run_can_begin_with_the_weights_of_another(photos, tmp_path, finished):
    it = train._begin(NET, RUN, tmp_path, {}, finished, 0, True, "cpu", 0)
    assert same(it.net.state_dict(), it.average.state_dict())
    assert it.net.encoder[0].conv.weight.equal(weights(finished)["encoder.0.conv.weight"])
    with pytest.raises(BadInput, match="does not fit"):
        train._begin(replace(NET, width=0.1), RUN, tmp_path, {}, finished, 0, True, "cpu", 0)


@pytest.mark.parametrize(("part", "still"), [("encoder", {"encoder"}), ("all", {"encoder", "decoder"})])
def test_phase_2_leaves_the_batch_norm_of_the_encoder_or_of_both_as_it_was(photos, tmp_path, finished, part, still):
    config = replace(
        RUN, phase1_steps=0, phase2_steps=2, switch=(), size=RUN.size[:1], batch=RUN.batch[:1], freeze=part
    )
    before, after = weights(finished), weights(run(photos, tmp_path, config=config, start=finished))
    equal = {name: after[name].equal(value) for name, value in before.items() if ".norm." in name}
    halves = {name.split(".")[0] for name in equal}
    assert {half for half in halves if all(equal[name] for name in equal if name.startswith(half))} == still
    assert not after["decoder.0.conv.weight"].equal(before["decoder.0.conv.weight"])


def test_a_net_with_detail_can_begin_with_weights_that_have_none(photos, tmp_path, finished):
    it = train._begin(replace(NET, detail=4), RUN, tmp_path, {}, finished, 0, True, "cpu", 0)
    assert it.net.encoder[0].conv.weight.equal(weights(finished)["encoder.0.conv.weight"])
    assert same(it.net.state_dict(), it.average.state_dict()) and not it.net.detail.last.weight.any()
    train._step(
        it, it.net, iter([(torch.rand(2, 3, 16, 16), (torch.rand(2, 1, 16, 16) > 0.3).float())]), None, LossConfig()
    )
    rates = [group["lr"] for group in it.optimiser.param_groups]
    assert it.net.detail.last.weight.any() and rates == [RUN.lr[0], 10 * RUN.lr[0]]


def test_a_checkpoint_of_the_unfused_adam_goes_on_with_the_fused_one_to_the_same_weights(tmp_path):
    pairs = [(torch.rand(2, 3, 16, 16), (torch.rand(2, 1, 16, 16) > 0.3).float()) for _ in range(3)]
    about = {"net": {}, "train": {}, "loss": {}}
    plain = train.Run(NET, RUN, "cpu")
    plain.optimiser = torch.optim.Adam(plain.net.parameters(), fused=False)
    train._step(plain, plain.net, iter(pairs[:1]), None, LossConfig())
    plain.save(tmp_path / "checkpoint.pt", about)
    fused = train.Run(NET, RUN, "cpu")
    assert fused.load(tmp_path / "checkpoint.pt", about) == []
    for pair in pairs[1:]:
        for it in (plain, fused):
            train._step(it, it.net, iter([pair]), None, LossConfig())
    assert fused.optimiser.param_groups[0]["fused"] and not plain.optimiser.param_groups[0]["fused"]
    torch.testing.assert_close(fused.net.state_dict(), plain.net.state_dict(), atol=1e-6, rtol=1e-4)


def test_a_checkpoint_of_another_net_is_refused(photos, finished):
    with pytest.raises(BadInput, match="another net"):
        train.train([photos], Boxes(), finished.parent, net=replace(NET, depth=2), config=RUN, device="cpu")


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_imagenet_and_places2_come_with_their_own_split(tmp_path):
    imagenet = touch(tmp_path / "i", "train/n01/a.JPEG", "train/n02/b.JPEG", "val/c.JPEG", "test/d.JPEG")
    kept, held = data.split([imagenet])
    assert [p.name for p in kept] == ["a.JPEG", "b.JPEG"] and [p.name for p in held] == ["c.JPEG"]
    places = touch(
        tmp_path / "p", "data_large/a/abbey/1.jpg", "data_large/z/zoo/2.jpg", "val_large/3.jpg", "test_large/4.jpg"
    )
    kept, held = data.split([places])
    assert [p.name for p in kept] == ["1.jpg", "2.jpg"] and [p.name for p in held] == ["3.jpg"]


def test_celeba_hq_is_split_27000_to_3000_by_the_seed(tmp_path, monkeypatch):
    faces = [tmp_path / f"{i}.jpg" for i in range(30000)]
    monkeypatch.setattr(data.images, "find", lambda folder: faces)
    kept, held = data.split([tmp_path], config=TrainConfig(validation=3000))
    again = data.split([tmp_path], config=TrainConfig(validation=3000))
    other = data.split([tmp_path], config=TrainConfig(validation=3000, seed=1))
    assert (len(kept), len(held)) == (27000, 3000) and set(kept) | set(held) == set(faces)
    assert again == (kept, held) != other


def test_a_list_holds_photos_out_by_name_or_path(tmp_path):
    folder = touch(tmp_path / "x", "a/1.jpg", "b/1.jpg", "b/2.jpg", "c.jpg")
    (tmp_path / "list.txt").write_text("b/1.jpg\nc.jpg\n\n")
    kept, held = data.split([folder], exclude=data.read_names(tmp_path / "list.txt"))
    assert [p.relative_to(folder).as_posix() for p in held] == ["b/1.jpg", "c.jpg"] and len(kept) == 2


def test_a_narrow_lot_of_photos_can_be_weighed_down():
    paths = [Path("x/wide_1.jpg"), Path("x/wide_2.jpg"), Path("x/clothing_1.jpg"), Path("x/clothing_2.jpg")]
    assert data.odds(paths, [("clothing*", 0.5)]).tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 6, 1 / 6])
    with pytest.raises(BadInput, match="cats"):
        data.odds(paths, [("cats*", 0.5)])


def test_a_sample_is_a_crop_of_a_photo_flipped_or_not_and_always_the_same(photos, tmp_path):
    ramp = np.repeat(np.arange(0, 240, 4, dtype=np.uint8)[None, :, None], 60, 0).repeat(3, 2)
    cv2.imwrite(str(tmp_path / "ramp.png"), ramp)
    config = replace(RUN, size=(20,), scale=(0.5, 0.5), colour=0.0)
    pairs = data.Pairs([tmp_path / "ramp.png"], Boxes(), config)
    seen = set()
    for i in range(20):
        image, hole = pairs(i, 20)
        slope = np.diff(image[0, :, 0].astype(int))
        seen.add((int(np.sign(slope[10])), int(image[0].min()) // 40))
        assert image.shape == (20, 20, 3) and hole.shape == (20, 20) and 0 < hole.mean() < 1
        assert np.abs(np.abs(slope) - 6).max() <= 2  # 30 px made 20: 1.5 steps of 4
        again = data.Pairs([tmp_path / "ramp.png"], Boxes(), config, cache=0)(i, 20)
        assert (again[0] == image).all() and (again[1] == hole).all()
    assert {sign for sign, _ in seen} == {-1, 1} and len(seen) > 4  # both ways round, from many places
    upright = data.Pairs([tmp_path / "ramp.png"], Boxes(), replace(config, flip=False))
    assert all(np.diff(upright(i, 20)[0][0, :, 0].astype(int))[10] > 0 for i in range(20))


def test_a_window_of_a_mask_is_a_square_of_it_that_holds_hole_and_surroundings():
    hole = np.zeros((100, 100), bool)
    hole[40:60, 40:60] = True
    rng = np.random.default_rng(0)
    parts = [data.window(hole, (0.3, 0.6), rng) for _ in range(50)]
    assert all(part.shape[0] == part.shape[1] and 30 <= part.shape[0] <= 60 for part in parts)
    assert all(0 < part.sum() <= 400 and part.mean() < 0.8 for part in parts)
    assert len({part.sum() for part in parts}) > 10


def test_a_scale_of_one_takes_the_whole_mask_and_draws_nothing():
    hole, rng = np.eye(8, dtype=bool), np.random.default_rng(0)
    assert data.window(hole, (1.0, 1.0), rng) is hole
    assert rng.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize(
    "wrong", [{"lr": ()}, {"lr": (1, 2, 3)}, {"size": ()}, {"batch": (0,)}, {"colour": -0.5}, {"seed": -1}]
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(wrong):
    with pytest.raises(BadInput, match=f"^{next(iter(wrong))} is "):
        TrainConfig(**wrong)


def test_one_learning_rate_is_that_of_both_phases():
    config = TrainConfig(phase1_steps=2, phase2_steps=2, lr=(0.5,))
    assert [schedule.rate(config, step) for step in range(4)] == [0.5] * 4


@pytest.mark.parametrize("name", ["scale", "mask_scale"])
@pytest.mark.parametrize("wrong", [(0.5, 1.5), (0.8, 0.4), (0.0, 1.0), (0.5,), (0.2, 0.3, 0.4)])
def test_a_share_that_is_none_is_refused(photos, tmp_path, name, wrong):
    with pytest.raises(
        BadInput, match=rf"{name.replace('_', '-')} is two shares.*got {','.join(f'{w:g}' for w in wrong)}$"
    ):
        run(photos, tmp_path, replace(RUN, **{name: wrong}))


def test_a_step_that_no_weights_have_reached_is_refused(photos, tmp_path):
    with pytest.raises(BadInput, match=r"step 7 .* --start"):
        run(photos, tmp_path, at=7)


def test_crops_too_small_for_the_ssim_term_are_refused(photos, tmp_path):
    with pytest.raises(BadInput, match="11 px or more, got 10"):
        run(photos, tmp_path, replace(RUN, size=(10, 32)), loss=LossConfig(ssim=1))


def test_a_mask_without_a_hole_stays_whole():
    empty = np.zeros((10, 10), bool)
    assert data.window(empty, (0.5, 0.5), np.random.default_rng(0)) is empty


def test_colours_change_mildly_and_grey_stays_grey():
    grey = np.full((4, 4, 3), 100, np.uint8)
    shades = [data.recolour(grey, 0.1, np.random.default_rng(i)) for i in range(50)]
    assert all((s == s[..., :1]).all() for s in shades)
    values = {int(s[0, 0, 0]) for s in shades}
    assert len(values) > 10 and min(values) >= 90 and max(values) <= 110


def test_a_share_of_the_crops_is_grey_and_the_others_are_as_without_it(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "colours.png"), colours)
    some, none = (data.Pairs([tmp_path / "colours.png"], Boxes(), replace(RUN, grey=share)) for share in (0.3, 0.0))
    both = [(some(i, 20)[0], none(i, 20)[0]) for i in range(60)]
    grey = [bool((crop == crop[..., :1]).all()) for crop, _ in both]
    assert 8 <= sum(grey) <= 28
    assert all((crop == other).all() for (crop, other), is_grey in zip(both, grey, strict=True) if not is_grey)
    with pytest.raises(BadInput, match=r"grey .* got 1\.5"):
        data.Pairs([], Boxes(), replace(RUN, grey=1.5))


def test_a_lattice_keeps_the_mean_of_each_block_and_lets_the_rest_be_learnt():
    image = np.zeros((2, 4, 3), np.uint8)
    image[:, :2], image[0, 2:], image[1, 2:] = 10, 40, 60
    answer, hole = data.lattice(image, 2)
    assert hole.tolist() == [[True] * 4, [True, False, True, False]]  # (x, y) goes to (2x + 1, 2y + 1)
    assert answer[~hole].tolist() == [[10] * 3, [50] * 3] and (answer[hole] == image[hole]).all()


def test_a_net_learns_to_enlarge_what_the_benchmark_asks_it_to_enlarge(photos, tmp_path):
    config = replace(RUN, factor=4)
    answer, hole = data.Pairs([photos / "lot0" / "0.png"], None, config)(0, 32)
    image, wanted = sparse(reduced(answer, 4), 4)
    assert (hole == wanted).all() and (answer[~hole] != 0).any()
    known = np.abs(image[~hole].astype(int) - answer[~hole])  # of blocks in which one pixel is already the mean
    assert known.max() <= 255 / 16
    path = train.train([photos], None, tmp_path, net=NET, config=config, device="cpu", validate_every=4, log_every=2)
    assert path.exists() and (tmp_path / "samples" / "0000009.jpg").exists()


def test_sizes_that_the_factor_does_not_divide_are_refused(photos, tmp_path):
    with pytest.raises(BadInput, match="sizes are multiples of the factor, which is 1 or more, got 16, 30 and 4"):
        run(photos, tmp_path, replace(RUN, factor=4, size=(16, 30)))


def test_a_broken_photo_is_named(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"no photo")
    with pytest.raises(BadInput, match=r"x\.jpg"):
        data.read_rgb(tmp_path / "x.jpg", 10)


def test_without_a_masks_folder_the_way_to_make_one_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "maskgen.sampler", type(sys)("maskgen.sampler"))
    sys.modules["maskgen.sampler"].MaskSampler = None
    with pytest.raises(BadInput, match="maskgen extract"):
        data.mask_sampler(tmp_path / "none", RUN)


def test_a_search_tries_every_weight_and_sorts_by_what_no_weight_touches(photos, tmp_path):
    tried = [LossConfig(perceptual=0, style=0, hole=hole) for hole in (0.0, 6.0)]
    how = {"net": NET, "device": "cpu", "config": replace(RUN, size=(16,), batch=(4,), validation=2)}
    table = search([photos], Boxes(), tmp_path, tried, **how)
    assert sorted(table["hole"]) == [0.0, 6.0] and table["val_l1"].is_monotonic_increasing
    assert table["val_l1"].nunique() == 2 and (tmp_path / "table.csv").exists()


SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = {paths!r}
import torch
from test_train import NET, RUN, Boxes
from pconv_model import train
torch.set_num_threads(1)
train.train([Path({photos!r})], Boxes(), Path({out!r}), net=NET, config=RUN, device="cpu", **{how!r})
"""


def start(tmp_path, photos, *launcher, **how):
    here = Path(__file__).parent
    paths = [str(here.parent), str(here)]
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(paths=paths, photos=str(photos), out=str(tmp_path / "out"), how=how))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *launcher, str(script)], env=environment, stderr=subprocess.PIPE, text=True
    )


def test_two_processes_under_torchrun_train_one_net(photos, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    process = start(tmp_path, photos, *launcher)
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 0, error
    header = checkpoints.read_header(tmp_path / "out" / "pconv.safetensors")
    assert header["history"][-1]["step"] == 9


def test_a_terminated_run_saves_the_step_it_has_reached(photos, tmp_path, monkeypatch):
    real = train._step

    def step(it, *rest):
        if it.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(it, *rest)

    monkeypatch.setattr(train, "_step", step)
    with pytest.raises(KeyboardInterrupt):
        run(photos, tmp_path)
    assert train.read_checkpoint(tmp_path / "checkpoint.pt")["step"] == 3


def test_a_few_steps_learn_something(photos, tmp_path):
    config = TrainConfig(phase1_steps=60, phase2_steps=0, size=(16,), batch=(8,), lr=(5e-3, 1e-3), hold_out=0, ema=0)
    torch.manual_seed(0)
    path = train.train([photos], Boxes(), tmp_path, net=NET, config=config, device="cpu", log_every=10)
    losses = [row["total"] for row in checkpoints.read_header(path)["history"] if "total" in row]
    assert losses[-1] < 0.6 * losses[0] and isinstance(checkpoints.load(path), PConvUNet)
