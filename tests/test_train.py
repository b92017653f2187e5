import copy
import csv
import itertools
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from maskgen.errors import BadInput
from maskgen.runtime import images
from pconv_model import checkpoints, data, train
from pconv_model.objective import total_loss
from pconv_model.schedule import stages
from pconv_model.search import search
from pconv_model.settings import LossConfig, NetConfig, TrainConfig
from pconv_model.state import TrainingState, changed_settings, read_checkpoint
from pconv_model.unet import PConvUNet
from pconv_model.validation import Validator

NET = NetConfig(width=0.05, depth=3)
RUN = TrainConfig(phase1_steps=6, phase2_steps=3, size=(16, 32), batch=(4, 2), hold_out=0.25, validation=2)


class Squares:
    """Hole i: a square of 24 px at a place drawn from i."""

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


def run(photos, out, config=RUN, **options):
    return train.train(
        [photos], Squares(), out, net=NET, config=config, device="cpu", validate_every=4, log_every=2, **options
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
    """Ends a run as a kill would."""


@pytest.mark.parametrize("last", [2, 4, 7])  # in the first size, in the second, in phase 2
def test_a_killed_run_is_continued_to_the_same_weights_as_one_that_was_not(
    photos, tmp_path, finished, monkeypatch, last
):
    real = train._step

    def step(run, *rest):
        if run.step == last:
            raise Stop
        return real(run, *rest)

    monkeypatch.setattr(train, "_step", step)
    with pytest.raises(Stop):
        run(photos, tmp_path, minutes=0)  # a checkpoint at every step
    monkeypatch.setattr(train, "_step", real)
    assert read_checkpoint(tmp_path / "checkpoint.pt")["step"] == last
    assert same(weights(run(photos, tmp_path)), weights(finished))
    assert history(tmp_path) == history(finished.parent)


def history(out):
    """The rows of history.csv, without the speed."""
    return [{**row, "images_per_s": ""} for row in csv.DictReader((out / "history.csv").open())]


def test_a_kill_between_the_last_checkpoint_and_its_history_loses_no_row(photos, tmp_path, finished):
    (tmp_path / "checkpoint.pt").write_bytes((finished.parent / "checkpoint.pt").read_bytes())
    run(photos, tmp_path)
    assert (tmp_path / "history.csv").read_bytes() == (finished.parent / "history.csv").read_bytes()


def test_the_number_of_threads_changes_nothing(photos, tmp_path, finished):
    assert same(weights(run(photos, tmp_path, workers=3, cache=0)), weights(finished))


def test_weights_of_a_known_step_are_trained_on_from_there_with_their_history(photos, tmp_path, finished):
    path = run(photos, tmp_path, replace(RUN, first_step=7), start=finished)
    history, before = (checkpoints.read_header(p)["history"] for p in (path, finished))
    kept = [row for row in before if row["step"] <= 7]
    assert history[: len(kept)] == kept
    assert [row["step"] for row in history[len(kept) :]] == [8, 8, 9, 9]  # the loss and the validation of each
    state, old = weights(path), weights(finished)
    norms = [key for key in state if ".norm." in key and key.startswith("encoder")]
    assert norms and all(state[key].equal(old[key]) for key in norms)  # phase 2, its encoder's batch norm is frozen


def test_an_array_of_photos_trains_like_the_same_photos_in_files(photos, tmp_path, finished):
    paths = sorted(photos.rglob("*.png"))
    np.save(tmp_path / "photos.npy", [images.read_rgb(path) for path in paths])
    path = run(tmp_path / "photos.npy", tmp_path / "out")
    assert same(weights(path), weights(finished))
    inputs = read_checkpoint(tmp_path / "out" / "checkpoint.pt")["about"]["inputs"]
    np.save(tmp_path / "photos.npy", [images.read_rgb(path) // 2 for path in paths])
    kept, _ = data.split([tmp_path / "photos.npy"], config=RUN)
    assert inputs["photos"] != data.sha256_of_photos(kept)


def test_a_run_that_reaches_its_time_limit_has_weights_and_can_be_continued(photos, tmp_path, finished):
    path = run(photos, tmp_path, time_limit=1e-6)  # reached within the first step
    assert read_checkpoint(tmp_path / "checkpoint.pt")["step"] == 1 and not same(weights(path), weights(finished))
    assert {row["step"] for row in checkpoints.read_header(path)["history"]} == {1}
    assert same(weights(run(photos, tmp_path, time_limit=60)), weights(finished))


def test_another_seed_changes_the_weights_and_a_fresh_run_starts_again(photos, tmp_path, finished):
    first = weights(run(photos, tmp_path, replace(RUN, seed=1)))
    assert not same(first, weights(finished))
    assert same(weights(run(photos, tmp_path, RUN, resume=False)), weights(finished))


def test_a_step_of_accumulated_batches_follows_their_mean_gradient(photos):
    config = replace(RUN, accumulate=2, ema=0.0, clip=1e9)
    it = TrainingState(NetConfig(width=0.05, depth=1), config, "cpu")
    image, valid = torch.rand(4, 3, 16, 16), (torch.rand(4, 1, 16, 16) < 0.7).float()
    start = [p.clone() for p in it.net.parameters()]
    it.optimiser = torch.optim.SGD(it.net.parameters())
    terms = train._step(it, it.net, iter([(image[:2], valid[:2]), (image[2:], valid[2:])]), None, LossConfig())
    once = TrainingState(NetConfig(width=0.05, depth=1), config, "cpu")
    halves = [(image[s], valid[s]) for s in (slice(2), slice(2, 4))]
    mean = sum(total_loss(once.net(*half), *half)["total"] for half in halves) / 2
    grads = torch.autograd.grad(mean, list(once.net.parameters()))
    assert terms["total"].item() == pytest.approx(mean.item())
    for before, after, grad in zip(start, it.net.parameters(), grads, strict=True):
        torch.testing.assert_close(after, before - 2e-4 * grad)


def test_the_loss_computed_image_by_image_is_that_of_the_batch():
    def pool(image):
        return [torch.nn.functional.avg_pool2d(image, 2)]

    torch.manual_seed(0)
    config = LossConfig(near=3)
    out, truth, valid = torch.rand(3, 3, 16, 16), torch.rand(3, 3, 16, 16), (torch.rand(3, 1, 16, 16) < 0.6).float()
    gradient, terms = train._loss_gradient(out.clone(), truth, valid, pool, config, RUN, None)
    out.requires_grad_()
    wanted = total_loss(out, truth, valid, pool, config)
    wanted["total"].backward()
    torch.testing.assert_close(gradient, out.grad)
    torch.testing.assert_close(terms, {name: term.detach() for name, term in wanted.items()})
    for side, alike in ((16, True), (8, False)):  # a window as large as the image changes nothing
        windows, rng = replace(RUN, vgg_window=side), np.random.default_rng(0)
        seen, _ = train._loss_gradient(out.detach().clone(), truth, valid, pool, config, windows, rng)
        assert torch.allclose(seen, gradient) == alike


def test_a_step_whose_gradient_is_not_finite_leaves_the_net_as_it_was():
    it = TrainingState(NET, RUN, "cpu")
    it.net.train()
    before = {key: value.clone() for key, value in it.net.state_dict().items()}
    image, valid = torch.rand(2, 3, 16, 16), torch.ones(2, 1, 16, 16)
    image[0, 0, 3, 3] = float("inf")
    train._step(it, it.net, iter([(image, valid)]), None, LossConfig())
    assert same(before, it.net.state_dict()) and it.step == 1


def test_phase_2_freezes_batch_norm_of_the_encoder_and_phase_1_does_not(photos, tmp_path, finished):
    state = read_checkpoint(finished.parent / "checkpoint.pt")["net"]
    run(photos, tmp_path, replace(RUN, phase2_steps=0))
    phase1 = read_checkpoint(tmp_path / "checkpoint.pt")["net"]
    norms = {key for key in state if ".norm." in key}
    assert all(state[k].equal(phase1[k]) for k in norms if k.startswith("encoder"))
    assert not any(state[k].equal(phase1[k]) for k in norms if k.startswith("decoder"))


def test_the_average_moves_towards_the_weights():
    it = TrainingState(NET, replace(RUN, ema=0.9), "cpu")
    it.step = 1000
    for net, value in ((it.average, 1.0), (it.net, 2.0)):
        net.encoder[0].conv.weight.data.fill_(value)
    it.update_average()
    assert it.average.encoder[0].conv.weight.unique().item() == pytest.approx(1.1)


def test_a_run_can_start_from_the_weights_of_another(photos, tmp_path, finished):
    it = train.start_state(NET, RUN, tmp_path, {}, start=finished)
    assert same(it.net.state_dict(), it.average.state_dict())
    assert it.net.encoder[0].conv.weight.equal(weights(finished)["encoder.0.conv.weight"])
    with pytest.raises(BadInput, match="does not fit"):
        train.start_state(replace(NET, width=0.1), RUN, tmp_path, {}, start=finished)


@pytest.mark.parametrize(("part", "still"), [("encoder", {"encoder"}), ("all", {"encoder", "decoder"})])
def test_phase_2_freezes_the_batch_norm_of_the_encoder_or_all_of_it(photos, tmp_path, finished, part, still):
    config = replace(
        RUN, phase1_steps=0, phase2_steps=2, switch=(), size=RUN.size[:1], batch=RUN.batch[:1], freeze=part
    )
    before, after = weights(finished), weights(run(photos, tmp_path, config=config, start=finished))
    equal = {name: after[name].equal(value) for name, value in before.items() if ".norm." in name}
    halves = {name.split(".")[0] for name in equal}
    assert {half for half in halves if all(equal[name] for name in equal if name.startswith(half))} == still
    assert not after["decoder.0.conv.weight"].equal(before["decoder.0.conv.weight"])


def test_detail_layers_are_added_to_weights_without_them(photos, tmp_path, finished):
    it = train.start_state(replace(NET, detail=4), RUN, tmp_path, {}, start=finished)
    assert it.net.encoder[0].conv.weight.equal(weights(finished)["encoder.0.conv.weight"])
    assert same(it.net.state_dict(), it.average.state_dict()) and not it.net.detail.last.weight.any()
    train._step(
        it, it.net, iter([(torch.rand(2, 3, 16, 16), (torch.rand(2, 1, 16, 16) > 0.3).float())]), None, LossConfig()
    )
    rates = [group["lr"] for group in it.optimiser.param_groups]
    assert it.net.detail.last.weight.any() and rates == [RUN.lr[0], 10 * RUN.lr[0]]


def test_a_checkpoint_of_the_unfused_adam_is_continued_by_the_fused_one_to_the_same_weights(tmp_path):
    pairs = [(torch.rand(2, 3, 16, 16), (torch.rand(2, 1, 16, 16) > 0.3).float()) for _ in range(3)]
    about = {"net": {}, "train": {}, "loss": {}}
    plain = TrainingState(NET, RUN, "cpu")
    plain.optimiser = torch.optim.Adam(plain.net.parameters(), fused=False)
    train._step(plain, plain.net, iter(pairs[:1]), None, LossConfig())
    plain.save(tmp_path / "checkpoint.pt", about)
    fused = TrainingState(NET, RUN, "cpu")
    assert fused.load(tmp_path / "checkpoint.pt", about) == []
    for pair in pairs[1:]:
        for it in (plain, fused):
            train._step(it, it.net, iter([pair]), None, LossConfig())
    assert fused.optimiser.param_groups[0]["fused"] and not plain.optimiser.param_groups[0]["fused"]
    torch.testing.assert_close(fused.net.state_dict(), plain.net.state_dict(), atol=1e-6, rtol=1e-4)


ABOUT = {"net": {}, "train": asdict(RUN), "loss": asdict(LossConfig(balance=0.8)), "inputs": {"photos": "a" * 64}}


def test_settings_of_an_older_version_are_read_by_their_present_names():
    old = copy.deepcopy(ABOUT)
    old["train"] |= {"vgg_from": 0}
    del old["train"]["first_step"], old["train"]["photo_weights"]
    old["loss"] |= {"even": old["loss"].pop("balance"), "even_vgg": old["loss"].pop("balance_vgg")}
    old["inputs"]["favour"] = [["clothing*", 0.3]]
    new = copy.deepcopy(ABOUT)
    new["train"]["photo_weights"] = (("clothing*", 0.3),)
    assert changed_settings(Path("x"), old, new) == []
    new["loss"]["balance"], new["train"]["first_step"] = 0.5, 4
    assert changed_settings(Path("x"), old, new) == ["first_step 0 -> 4", "balance 0.8 -> 0.5"]


def test_a_checkpoint_that_used_a_removed_setting_is_refused():
    old = {**ABOUT, "train": ABOUT["train"] | {"vgg_from": 60000}}
    with pytest.raises(BadInput, match=r"^x was trained with vgg_from = 60000, which this version lacks.*--fresh$"):
        changed_settings(Path("x"), old, ABOUT)


def test_changes_of_settings_inputs_and_libraries_are_listed_with_short_hashes():
    old = {**ABOUT, "machine": {"torch": "1.0"}}
    new = {**ABOUT, "inputs": {"photos": "b" * 64}, "machine": {"torch": "2.0", "numpy": "2.0"}}
    assert changed_settings(Path("x"), old, new) == [f"photos {'a' * 12} -> {'b' * 12}", "torch 1.0 -> 2.0"]


def test_checkpoints_are_written_after_some_minutes_and_at_the_end(photos, tmp_path, monkeypatch):
    clock, saved, real = itertools.count(0, 30), [], TrainingState.save  # s; every look at the clock takes 30
    monkeypatch.setattr(train, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(TrainingState, "save", lambda self, *rest: saved.append(self.step) or real(self, *rest))
    run(photos, tmp_path, replace(RUN, phase1_steps=8, phase2_steps=0, size=(16,), batch=(2,)), minutes=1)
    assert saved == [3, 6, 8]


def test_the_averaged_net_is_validated(photos, tmp_path, monkeypatch):
    trained = []  # whether the validated net has gradients, which the average has not
    score = lambda self, net, step: trained.append(next(net.parameters()).requires_grad) or {"val_l1": 0.0}  # noqa: E731
    monkeypatch.setattr(train.Validator, "__call__", score)
    run(photos, tmp_path, replace(RUN, phase1_steps=1, phase2_steps=0, size=(16,), batch=(2,)))
    assert trained == [False]


def test_the_window_that_vgg_sees_is_drawn_anew_for_every_image_and_step(monkeypatch):
    drawn = []
    monkeypatch.setattr(train, "windowed", lambda features, *rest: drawn.append(rest[-1].random()) or features)
    it = TrainingState(NET, replace(RUN, accumulate=2, vgg_window=8), "cpu")
    pair = torch.rand(2, 3, 16, 16), (torch.rand(2, 1, 16, 16) < 0.7).float()
    for _ in range(2):
        train._step(it, it.net, iter([pair, pair]), lambda image: [image], LossConfig())
    assert len(drawn) == len(set(drawn)) == 2 * 2 * 2  # steps, batches and images


def test_the_samples_of_a_run_are_all_different():
    config = replace(RUN, accumulate=2)
    taken = [
        number
        for rank in (0, 1)
        for stage in stages(config)
        for batch in train._sample_indices(config, stage.first, stage, rank, 2)
        for number in batch
    ]
    # 3 steps of batch 4 and 6 of batch 2, two batches a step, two processes
    assert len(taken) == len(set(taken)) == (3 * 4 + 6 * 2) * 2 * 2


def test_a_continued_run_takes_the_samples_that_were_left():
    stage = stages(RUN)[0]
    whole = list(train._sample_indices(RUN, stage.first, stage, 0, 1))
    assert list(train._sample_indices(RUN, 2, stage, 0, 1)) == whole[2:] and len(whole) == 3


def test_the_average_moves_faster_in_the_first_steps():
    state = TrainingState(NET, replace(RUN, ema=0.999), "cpu")
    state.step = 5
    for net, value in ((state.average, 0.0), (state.net, 1.0)):
        net.encoder[0].conv.weight.data.fill_(value)
    state.update_average()
    assert state.average.encoder[0].conv.weight.unique().item() == pytest.approx(1 - 6 / 15)  # (1 + step) / (10 + step)


def test_a_large_gradient_is_clipped_to_its_norm():
    state = TrainingState(NetConfig(width=0.05, depth=1), replace(RUN, clip=0.01, lr=(1.0,), ema=0.0), "cpu")
    before = [p.clone() for p in state.net.parameters()]
    state.optimiser = torch.optim.SGD(state.net.parameters())
    image, valid = torch.rand(2, 3, 16, 16), (torch.rand(2, 1, 16, 16) < 0.7).float()
    train._step(state, state.net, iter([(image, valid)]), None, LossConfig())
    moved = torch.cat([(after - old).flatten() for after, old in zip(state.net.parameters(), before, strict=True)])
    assert moved.norm().item() == pytest.approx(0.01, rel=1e-3)  # the learning rate is 1


def test_without_an_average_the_weights_themselves_are_saved(photos, tmp_path):
    path = run(photos, tmp_path, replace(RUN, ema=0.0))
    state = read_checkpoint(tmp_path / "checkpoint.pt")
    assert "average" not in state
    saved = weights(path)["encoder.0.conv.weight"]
    assert saved.equal(state["net"]["encoder.0.conv.weight"].half().float())


def test_validation_scores_are_means_over_the_composites(photos, tmp_path):
    class Grey(torch.nn.Module):
        def forward(self, image, valid):
            return torch.full_like(image, 0.5)

    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((64, 64, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "white.png"), np.full((64, 64, 3), 255, np.uint8))
    samples = data.ValidationSamples([tmp_path / "black.png", tmp_path / "white.png"], Squares())
    net = Grey().train()
    scores = Validator(samples, tmp_path, replace(RUN, size=(64,)), None, "cpu")(net, 7)
    share = 24 * 24 / 64**2  # of the pixels are hole, and off by 0.5
    assert scores == pytest.approx({"val_l1": 100 * share / 2, "val_psnr": -10 * np.log10(share / 4)}, rel=1e-5)
    grid = cv2.imread(str(tmp_path / "samples" / "0000007.jpg"))
    assert grid.shape == (4 * 64, 2 * 64, 3) and net.training
    middle = [int(grid[64 * row + 2, 2].mean()) for row in range(4)]  # a known corner of the black photo
    assert middle == pytest.approx([0, 128, 0, 0], abs=8)
    assert int(grid[2, 66].mean()) == pytest.approx(255, abs=8)  # and of the white one


def test_a_checkpoint_of_another_net_is_refused(photos, finished):
    with pytest.raises(BadInput, match="another net"):
        train.train([photos], Squares(), finished.parent, net=replace(NET, depth=2), config=RUN, device="cpu")


def test_a_first_step_without_weights_to_start_from_is_refused(photos, tmp_path):
    with pytest.raises(BadInput, match=r"first_step = 7 needs weights.*--start"):
        run(photos, tmp_path, replace(RUN, first_step=7))


def test_crops_too_small_for_the_ssim_term_are_refused(photos, tmp_path):
    with pytest.raises(BadInput, match="11 px or more, got 10"):
        run(photos, tmp_path, replace(RUN, size=(10, 32)), loss=LossConfig(ssim=1))


def test_super_resolution_is_trained_without_masks(photos, tmp_path):
    path = train.train([photos], None, tmp_path, net=NET, config=replace(RUN, factor=4), device="cpu")
    assert path.exists() and (tmp_path / "samples" / "0000009.jpg").exists()


def test_a_search_trains_every_candidate_and_sorts_them_by_their_validation_scores(photos, tmp_path):
    tried = [LossConfig(perceptual=0, style=0, hole=hole) for hole in (0.0, 6.0)]
    options = {"net": NET, "device": "cpu", "config": replace(RUN, size=(16,), batch=(4,), validation=2)}
    table = search([photos], Squares(), tmp_path, tried, **options)
    assert sorted(table["hole"]) == [0.0, 6.0] and table["val_l1"].is_monotonic_increasing
    assert table["val_l1"].nunique() == 2 and (tmp_path / "table.csv").exists()


SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = {paths!r}
import torch
from test_train import NET, RUN, Squares
from pconv_model import train
torch.set_num_threads(1)
train.train([Path({photos!r})], Squares(), Path({out!r}), net=NET, config=RUN, device="cpu", **{options!r})
"""


def start(tmp_path, photos, *launcher, **options):
    here = Path(__file__).parent
    paths = [str(here.parent), str(here)]
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(paths=paths, photos=str(photos), out=str(tmp_path / "out"), options=options))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *launcher, str(script)], env=environment, stderr=subprocess.PIPE, text=True
    )


def test_two_processes_under_torchrun_train_one_net(photos, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    process = start(tmp_path, photos, *launcher, time_limit=60)  # on which the processes agree in every step
    error = process.communicate(timeout=120)[1]
    if "terminate called without an active exception" in error:  # Gloo's threads, now and then, when a process ends
        process = start(tmp_path, photos, *launcher)
        error = process.communicate(timeout=120)[1]
    assert process.returncode == 0, error
    header = checkpoints.read_header(tmp_path / "out" / "pconv.safetensors")
    assert header["history"][-1]["step"] == 9


def test_a_terminated_run_saves_its_step(photos, tmp_path, monkeypatch):
    real = train._step

    def step(it, *rest):
        if it.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(it, *rest)

    monkeypatch.setattr(train, "_step", step)
    with pytest.raises(KeyboardInterrupt):
        run(photos, tmp_path)
    assert read_checkpoint(tmp_path / "checkpoint.pt")["step"] == 3


def test_a_few_steps_learn_something(photos, tmp_path):
    config = TrainConfig(phase1_steps=60, phase2_steps=0, size=(16,), batch=(8,), lr=(5e-3, 1e-3), hold_out=0, ema=0)
    torch.manual_seed(0)
    path = train.train([photos], Squares(), tmp_path, net=NET, config=config, device="cpu", log_every=10)
    losses = [row["total"] for row in checkpoints.read_header(path)["history"] if "total" in row]
    assert losses[-1] < 0.6 * losses[0] and isinstance(checkpoints.load(path), PConvUNet)
