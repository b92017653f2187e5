import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from unittest.mock import ANY

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

import cli
from pconv_model import checkpoints
from pconv_model.inpaint import Inpainter
from pconv_model.settings import LossConfig, NetConfig, TrainConfig
from pconv_model.unet import PConvUNet

ROOT = Path(__file__).parents[1]


class Files(list):
    """The masks of a MaskSampler: data(i) are the bytes of one."""

    data = list.__getitem__


class Sampler:
    """Replaces maskgen's, which needs a folder of real masks."""

    def __init__(self, masks, size, preset, ratio, seed, uniform):
        assert (size, preset, ratio, uniform) == (512, "nvidia", (0.01, 0.6), False)
        self.raw = Files(path.read_bytes() for path in masks.glob("*.png"))

    def __getitem__(self, i):
        hole = np.zeros((512, 512), bool)
        hole[100 + i % 50 : 300, 100:300] = True
        return hole


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with photos, masks and weights."""
    monkeypatch.chdir(tmp_path)
    module = type(sys)("maskgen.sampler")
    module.MaskSampler = Sampler
    monkeypatch.setitem(sys.modules, "maskgen.sampler", module)
    rng = np.random.default_rng(0)
    for folder in ("images", "masks/raw"):
        (tmp_path / folder).mkdir(parents=True)
    for i in range(4):
        cv2.imwrite(f"images/{i}.png", rng.integers(0, 255, (40, 50, 3), np.uint8))
    hole = np.zeros((40, 50), np.uint8)
    hole[10:20, 10:20] = 255
    cv2.imwrite("masks/one.png", hole)
    checkpoints.save(tmp_path / "net.safetensors", PConvUNet(0.05, 2))
    write_config(tmp_path / "tiny.toml")
    return tmp_path


def call(*arguments):
    return CliRunner().invoke(cli.pconv, [str(a) for a in arguments])


def write_config(path, *lines):
    """A settings file for a tiny net; further lines belong to [train]."""
    net, run = "[net]\nwidth = 0.05\ndepth = 2\n", "[train]\nsize = [16, 32]\nbatch = [2]\nhold_out = 0\n"
    path.write_text(net + run + "\n".join(lines))


TINY = ("--config", "tiny.toml", "--no-vgg", "--device", "cpu")


def test_train_continues_where_it_was_stopped_and_prints_the_path_of_the_weights(place):
    result = call("train", *TINY, "--phase1-steps", 2, "--phase2-steps", 1)
    assert result.exit_code == 0 and "runs/pconv/pconv.safetensors" in result.output
    result = call("train", *TINY, "--phase1-steps", 2, "--phase2-steps", 3)
    assert result.exit_code == 0 and "continues from step 3, with phase2_steps 1 -> 3" in result.output
    assert checkpoints.read_header(place / "runs/pconv/pconv.safetensors")["history"][-1]["step"] == 5


def test_a_continued_run_lists_photos_masks_and_libraries_that_have_changed(place, monkeypatch):
    few = (*TINY, "--phase1-steps", 1, "--phase2-steps", 0)
    assert call("train", *few).exit_code == 0
    assert call("train", *few).stderr.splitlines()[0] == "continues from step 1"
    shutil.copy("images/1.png", "images/0.png")
    shutil.copy("masks/one.png", "masks/raw/one.png")
    monkeypatch.setattr("cv2.__version__", "0.0.1")
    message = call("train", *few).stderr.splitlines()[0]
    assert message.startswith("continues from step 1, with photos ") and message.endswith(" -> 0.0.1")
    changed = [change.split(" ")[0] for change in message.split("with ")[1].split("; ")]
    assert changed == ["photos", "held_out", "masks", "opencv"]


def test_weights_record_what_they_were_trained_on(place):
    call("train", *TINY, "--phase1-steps", 1, "--phase2-steps", 0, "--start", "net.safetensors")
    about = checkpoints.read_header(place / "runs/pconv/pconv.safetensors")["about"]
    photos = [hashlib.sha256(Path(f"images/{i}.png").read_bytes()).hexdigest() for i in range(4)]
    assert about["inputs"]["photos"] == hashlib.sha256("".join(photos).encode()).hexdigest()
    assert about["inputs"]["start"] == hashlib.sha256(Path("net.safetensors").read_bytes()).hexdigest()
    assert "masks" in about["inputs"] and "vgg" not in about["inputs"]
    assert about["machine"]["torch"] == torch.__version__ and about["machine"]["device"] == "cpu"


def test_a_setting_newer_than_the_checkpoint_is_not_listed_as_a_change(place):
    assert call("train", *TINY, "--phase1-steps", 2, "--phase2-steps", 0).exit_code == 0
    path = place / "runs/pconv/checkpoint.pt"
    message = torch.load(path, weights_only=True)
    del message["about"]["train"]["factor"]
    torch.save(message, path)
    result = call("train", *TINY, "--phase1-steps", 2, "--phase2-steps", 0)
    assert result.exit_code == 0 and "continues from step 2\n" in result.output


def test_settings_come_from_the_file_and_options_take_precedence(place):
    write_config(place / "tiny.toml", "seed = 3", "grey = 0.5", 'photo_weights = [["0*", 0.5]]', "[loss]", "near = 2")
    more = ("--phase1-steps", 1, "--phase2-steps", 0, "--kind", "conv", "--hole", 3, "--lr", "1e-3,1e-4", "--seed", 0)
    assert call("train", *TINY, *more).exit_code == 0
    about = checkpoints.read_header(place / "runs/pconv/conv.safetensors")["about"]
    assert about["net"] == asdict(NetConfig(kind="conv", width=0.05, depth=2)) | {"mean": ANY, "std": ANY}
    assert about["loss"] == asdict(LossConfig(near=2, hole=3))
    expected = TrainConfig(
        phase1_steps=1, phase2_steps=0, lr=(1e-3, 1e-4), size=(16, 32), batch=(2,), hold_out=0, grey=0.5, seed=0
    )
    expected = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(expected).items()}
    assert about["train"] == expected | {"photo_weights": [["0*", 0.5]]}


def test_vgg_is_read_only_where_a_term_needs_it(place):
    none = ("--config", "tiny.toml", "--device", "cpu", "--vgg", "images/0.png", "--phase1-steps", 1)
    without = call("train", *none, "--phase2-steps", 0, "--perceptual", 0, "--style", 0)
    assert without.exit_code == 0, without.output
    refused = call("train", *none, "--perceptual", 0)
    assert refused.exit_code == 2 and "images/0.png" in refused.output


def test_train_shows_the_options_of_the_paper_and_of_the_machine():
    options = {name for command in ("train", "search") for p in cli.pconv.commands[command].params for name in p.opts}
    experimental = {"ssim", "near", "checkerboard", "smooth", "balance", "vgg-window", "mask-scale", "grey", "freeze"}
    assert not options & {f"--{name}" for name in experimental}
    assert {"--config", "--size", "--lr", "--style", "--device", "--workers", "-j", "-o"} <= options
    assert len(cli.pconv.commands["train"].params) <= 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--size", "big"), "128,256"),
        (("train", "--config", "leg7"), "did you mean leg07?"),
        (("search", "--config", "images/0.png"), "images/0.png is not a TOML file"),
        (("search", "--no-vgg", "--hole", ","), "at least one candidate"),
        (("train", "--precision", "fp8", "--no-vgg"), "fp32, bf16"),
        (("train", "--masks", "nowhere", "--no-vgg"), "maskgen extract"),
        (("train", "--no-vgg", "--device", "tpu"), "no device 'tpu': expected"),
        (("train", "--no-vgg", "--device", "cuda:99"), "no device 'cuda:99': expected"),
        (("inpaint", "images", "masks/one.png", "--device", "meta"), "no device 'meta': expected"),
        (("train", "nowhere", "--no-vgg"), "no such folder"),
        (("inpaint", "images", "masks/one.png", "--weights", "none.safetensors"), "no such file"),
        (("convert", "images/0.png", "x.safetensors"), "plain values"),
        (("average", "net.safetensors", "--out", "x.safetensors"), "expected two or more weights files"),
        (("average", "net.safetensors", "none.safetensors", "--out", "x.safetensors"), "no such file: none"),
        (("export", "x.tflite", "--weights", "net.safetensors"), ".onnx or .pt2"),
    ],
)
def test_a_mistake_gives_one_line_and_exit_code_2(place, arguments, message):
    result = call(*arguments)
    assert result.exit_code == 2 and message in result.output and result.output.count("\n") == 1


def test_inpaint_fills_a_folder_with_one_mask(place):
    result = call("inpaint", "images", "masks/one.png", "out", "--weights", "net.safetensors", "--device", "cpu")
    assert result.exit_code == 0 and "4 images in out" in result.output
    before, after = cv2.imread("images/2.png"), cv2.imread("out/2.png")
    assert (before[20:] == after[20:]).all() and (before[10:20, 10:20] != after[10:20, 10:20]).any()


def record(monkeypatch, setting):
    """A list that grows by a setting of the inpainter each time that this runs its network."""
    run, seen = Inpainter._predict, []
    monkeypatch.setattr(Inpainter, "_predict", lambda self, *x: seen.append(getattr(self, setting)) or run(self, *x))
    return seen


@pytest.mark.parametrize("command", [("inpaint", "images/1.png", "masks/one.png"), ("superres", "images/1.png")])
def test_the_precision_reaches_the_inpainter_and_fp32_is_the_default(place, command, monkeypatch):
    seen = record(monkeypatch, "precision")
    for out, more in (("a", ()), ("b", ("--precision", "bf16"))):
        message = call(*command, out, "--weights", "net.safetensors", "--device", "cpu", *more)
        assert message.exit_code == 0, message.output
    assert seen == ["fp32", "bf16"]


@pytest.mark.parametrize(
    "command",
    [
        ("inpaint", "images/1.png", "masks/one.png", "out.png"),
        ("train", *TINY, "--fresh", "--phase1-steps", 1, "--phase2-steps", 0),
    ],
)
def test_emulated_bf16_gives_a_warning(place, command, monkeypatch):
    for capability, precision, message in (("AVX2", "bf16", True), ("AVX2", "fp32", False), ("AVX512", "bf16", False)):
        monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda capability=capability: capability)
        done = call(*command, "--precision", precision, "--device", "cpu")
        assert done.exit_code == 0, done.output
        assert ("emulates" in done.stderr) == message


@pytest.mark.parametrize(
    ("option", "setting", "values"), [("--mirror", "mirror", [False, True]), ("--one-scale", "scales", [True, False])]
)
def test_an_option_reaches_the_inpainter(place, monkeypatch, option, setting, values):
    seen = record(monkeypatch, setting)
    for out, more in (("a", ()), ("b", (option,))):
        done = call("inpaint", "images/1.png", "masks/one.png", out, "--weights", "net.safetensors", *more)
        assert done.exit_code == 0, done.output
    assert seen == values


def test_superres_warns_of_weights_that_were_trained_to_fill_holes(place):
    result = call("superres", "images/1.png", "out", "--weights", "net.safetensors", "--device", "cpu")
    assert result.exit_code == 0 and "net.safetensors was trained to fill holes" in result.stderr
    assert "pconv train --factor 4" in result.stderr and result.stderr.count("\n") == 1


def test_a_super_resolution_net_is_trained_without_masks_and_used(place):
    trained = call("train", *TINY, "--masks", "none", "--factor", 2, "--phase1-steps", 1, "--phase2-steps", 0)
    assert trained.exit_code == 0, trained.output
    result = call("superres", "images/1.png", "out", "--factor", 2, "--weights", "runs/pconv/pconv.safetensors")
    assert result.exit_code == 0 and cv2.imread("out/1_x2.png").shape == (80, 100, 3) and not result.stderr
    other = call("superres", "images/1.png", "out", "--factor", 3, "--weights", "runs/pconv/pconv.safetensors")
    assert other.exit_code == 2 and "enlarges images 2 times, expected a network that enlarges 3 times" in other.stderr


def test_superres_writes_the_larger_image(place):
    result = call("superres", "images/1.png", "out", "--factor", 3, "--weights", "net.safetensors", "--device", "cpu")
    assert result.exit_code == 0 and cv2.imread("out/1_x3.png").shape == (120, 150, 3)


def test_convert_turns_a_training_checkpoint_into_half_precision_weights(place):
    call("train", *TINY, "--phase1-steps", 1, "--phase2-steps", 0)
    result = call("convert", "runs/pconv/checkpoint.pt", "new/half.safetensors", "--half")
    assert result.exit_code == 0 and "pconv, width 0.05, depth 2" in result.output
    header = checkpoints.read_header(place / "new/half.safetensors")
    assert header["history"][-1]["step"] == 1 and header["about"]["photos"] == 4


def test_average_writes_the_mean_of_two_files_and_keeps_their_records(place):
    for name, value in (("one", 1), ("four", 4)):
        net = PConvUNet(0.05, 2)
        net.encoder[0].conv.weight.data.fill_(value)
        checkpoints.save(place / f"{name}.safetensors", net, history=[{"step": value}], about={"photos": 9})
    result = call("average", "one.safetensors", "four.safetensors", "--out", "mean.safetensors", "--half")
    assert result.exit_code == 0 and result.output == "mean of 2 nets in mean.safetensors\n"
    assert checkpoints.load(place / "mean.safetensors").encoder[0].conv.weight.unique().item() == 2.5
    assert checkpoints.read_header(place / "mean.safetensors")["about"]["average"] == [
        {"file": "one.safetensors", "history": [{"step": 1}], "about": {"photos": 9}},
        {"file": "four.safetensors", "history": [{"step": 4}], "about": {"photos": 9}},
    ]


def test_average_warns_where_batch_norm_differs_between_the_nets(place):
    net = PConvUNet(0.05, 2)
    net.encoder[1].norm.running_mean += 1
    checkpoints.save(place / "moved.safetensors", net)
    result = call("average", "net.safetensors", "moved.safetensors", "--out", "mean.safetensors")
    assert result.exit_code == 0 and result.output.startswith("batch norm differs")


def test_a_truncated_photo_gives_one_line_and_no_message_of_the_decoder(tmp_path):
    whole = cv2.imencode(".png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))[1].tobytes()
    (tmp_path / "photo.png").write_bytes(whole[: len(whole) // 2])
    cv2.imwrite(str(tmp_path / "mask.png"), np.zeros((64, 64), np.uint8))
    checkpoints.save(tmp_path / "net.safetensors", PConvUNet(width=0.05, depth=2))
    words = ["-c", "import cli; cli.pconv()", "inpaint", "photo.png", "mask.png", "--weights", "net.safetensors"]
    done = subprocess.run(  # a process of its own, since the decoder writes past Python
        [sys.executable, *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (
        done.returncode == 2
        and done.stderr.count("\n") == 1
        and "photo.png is not an image that can be read" in done.stderr
    )


def test_export_prints_the_inputs_and_the_output(place):
    result = call("export", "net.pt2", "--weights", "net.safetensors")
    assert result.exit_code == 0 and "multiples of 4" in result.output and (place / "net.pt2").exists()


def test_search_takes_the_other_loss_settings_from_the_file(place):
    write_config(place / "tiny.toml", "[loss]", "style = 7", "near = 2")
    assert call("search", *TINY, "--steps", 1, "--size", 16, "--hole", 3).exit_code == 0
    (path,) = Path("runs/search").glob("*/pconv.safetensors")
    about = checkpoints.read_header(path)["about"]
    assert about["loss"] == asdict(LossConfig(style=7, near=2, hole=3)) and about["train"]["phase1_steps"] == 1
    assert path.parent.name == "valid1_hole3_perceptual0.05_style7_tv0.1"


def test_search_prints_a_row_for_every_combination(place):
    more = ("--steps", 1, "--hole", "0,6", "--tv", "0.1,1", "--size", 16)
    result = call("search", *TINY, *more)
    assert result.exit_code == 0 and result.stdout.count("\n") == 5 and "val_l1" in result.stdout
    again = call("search", *TINY, *more)
    assert again.stdout == result.stdout and again.stderr == "runs/search is already complete\n"


def test_a_finished_search_takes_more_candidates_and_refuses_other_photos(place):
    few = ("--steps", 1, "--size", 16)
    assert call("search", *TINY, *few, "--hole", "6").exit_code == 0
    first = {path: path.read_bytes() for path in Path("runs/search").glob("*/pconv.safetensors")}
    result = call("search", *TINY, *few, "--hole", "6,3")
    assert result.exit_code == 0 and result.stdout.count("\n") == 3
    assert len(list(Path("runs/search").glob("*/pconv.safetensors"))) == 2
    assert all(path.read_bytes() == whole for path, whole in first.items())
    shutil.copy("images/1.png", "images/0.png")
    refused = call("search", *TINY, *few, "--hole", "6,3")
    assert refused.exit_code == 2 and "inputs: photos was " in refused.stderr


STUB = """#!/usr/bin/env bash
# Stands for pconv and python: writes down its arguments and makes the weights that it should write.
echo "$(basename "$0") $*" >> log
while [ $# -gt 0 ]; do if [ "$1" = --out ]; then out=$2; fi; shift; done
case "${out-}" in "") ;; *.safetensors) ;; *) out=$out/conv.safetensors ;; esac
if [ -n "${out-}" ]; then mkdir -p "$(dirname "$out")"; touch "$out"; fi
"""


def train_weights(folder, *words):
    """Run scripts/train-weights in a folder, with the stub. Returns the commands that it has run there so far."""
    (folder / "bin").mkdir(exist_ok=True)
    for name in ("pconv", "python"):
        (folder / "bin" / name).write_text(STUB)
        (folder / "bin" / name).chmod(0o755)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    run = ["bash", str(ROOT / "scripts" / "train-weights"), *words]
    subprocess.run(run, cwd=folder, env={**os.environ, "PATH": path}, check=True)
    return (folder / "log").read_text().splitlines()


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_the_script_trains_the_weights_that_enlarge_with_their_recipe(tmp_path):
    call = train_weights(tmp_path, "x4", "photos", "out")[0].split()
    assert call[:3] == ["pconv", "train", "photos"]
    options = dict(zip(call[3::2], call[4::2], strict=True))
    assert options["--config"] == "x4" and options["--out"] == "out" and Path(options["--exclude"]).is_file()


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_the_script_for_the_shipped_weights_runs_the_twelve_legs_and_both_means_once(tmp_path):
    for legs in (["3"], []):  # three legs, then the rest
        calls = train_weights(tmp_path, "conv", "photos", "masks", "out", *legs)
    trained = [call.split() for call in calls if call.startswith("pconv train")]
    assert [words[words.index("--config") + 1] for words in trained] == [f"leg{leg:02d}" for leg in range(1, 13)]
    starts = [words[words.index("--start") + 1] if "--start" in words else None for words in trained]
    assert starts == [None, *(f"out/{leg}/conv.safetensors" for leg in range(1, 11)), "out/mean/conv.safetensors"]
    assert trained[0][2] == "photos" and trained[-1][2:4] == ["photos", "out/gradients"]
    assert [call for call in calls if "average" in call] == [
        "pconv average out/10/conv.safetensors out/11/conv.safetensors --out out/mean/conv.safetensors --half",
        "pconv average out/mean/conv.safetensors out/12/conv.safetensors --out out/conv.safetensors --half",
    ]
