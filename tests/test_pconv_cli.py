import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

import cli
from pconv_model import checkpoints
from pconv_model.inpaint import Inpainter
from pconv_model.unet import PConvUNet

ROOT = Path(__file__).parents[1]


class Files(list):
    """As the masks of a MaskSampler, which gives the bytes of each."""

    data = list.__getitem__


class Sampler:
    """Stands for maskgen's, which needs a folder of real masks."""

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
    return tmp_path


def call(*arguments):
    return CliRunner().invoke(cli.pconv, [str(a) for a in arguments])


TINY = (
    "--width",
    0.05,
    "--depth",
    2,
    "--size",
    "16,32",
    "--batch",
    "2",
    "--no-vgg",
    "--device",
    "cpu",
    "--hold-out",
    0,
)


def test_train_goes_on_where_it_was_and_says_where_the_weights_are(place):
    result = call("train", *TINY, "--phase1-steps", 2, "--phase2-steps", 1)
    assert result.exit_code == 0 and "runs/pconv/pconv.safetensors" in result.output
    result = call("train", *TINY, "--phase1-steps", 2, "--phase2-steps", 3)
    assert result.exit_code == 0 and "goes on from step 3, with phase2_steps 1 -> 3" in result.output
    assert checkpoints.read_header(place / "runs/pconv/pconv.safetensors")["history"][-1]["step"] == 5


def test_a_run_that_goes_on_tells_of_photos_masks_and_libraries_that_have_changed(place, monkeypatch):
    few = (*TINY, "--phase1-steps", 1, "--phase2-steps", 0)
    assert call("train", *few).exit_code == 0
    assert call("train", *few).stderr.splitlines()[0] == "goes on from step 1"
    shutil.copy("images/1.png", "images/0.png")
    shutil.copy("masks/one.png", "masks/raw/one.png")
    monkeypatch.setattr("cv2.__version__", "0.0.1")
    told = call("train", *few).stderr.splitlines()[0]
    assert told.startswith("goes on from step 1, with photos ") and told.endswith(" -> 0.0.1")
    changed = [change.split(" ")[0] for change in told.split("with ")[1].split("; ")]
    assert changed == ["photos", "held_out", "masks", "opencv"]


def test_weights_say_what_they_were_learnt_from(place):
    call("train", *TINY, "--phase1-steps", 1, "--phase2-steps", 0, "--start", "net.safetensors", "--favour", "0*=0.5")
    about = checkpoints.read_header(place / "runs/pconv/pconv.safetensors")["about"]
    photos = [hashlib.sha256(Path(f"images/{i}.png").read_bytes()).hexdigest() for i in range(4)]
    assert about["inputs"]["photos"] == hashlib.sha256("".join(photos).encode()).hexdigest()
    assert about["inputs"]["start"] == hashlib.sha256(Path("net.safetensors").read_bytes()).hexdigest()
    assert about["inputs"]["favour"] == [["0*", 0.5]] and "masks" in about["inputs"]
    assert about["machine"]["torch"] == torch.__version__ and about["machine"]["device"] == "cpu"


def test_a_checkpoint_older_than_a_setting_goes_on_without_a_word_about_it(place):
    assert call("train", *TINY, "--phase1-steps", 2, "--phase2-steps", 0).exit_code == 0
    path = place / "runs/pconv/checkpoint.pt"
    told = torch.load(path, weights_only=True)
    del told["about"]["train"]["factor"]
    torch.save(told, path)
    result = call("train", *TINY, "--phase1-steps", 2, "--phase2-steps", 0)
    assert result.exit_code == 0 and "goes on from step 2\n" in result.output


def test_training_options_reach_the_run(place):
    more = (
        "--phase1-steps",
        1,
        "--phase2-steps",
        0,
        "--kind",
        "conv",
        "--hole",
        3,
        "--lr",
        "1e-3,1e-4",
        "--favour",
        "[01].png=0.5",
    )
    assert call("train", *TINY, *more).exit_code == 0
    about = checkpoints.read_header(place / "runs/pconv/conv.safetensors")["about"]
    assert about["net"]["kind"] == "conv" and about["loss"]["hole"] == 3 and about["train"]["lr"] == [1e-3, 1e-4]
    assert about["train"]["size"] == [16, 32] and about["train"]["batch"] == [2]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("train", "--size", "big"), "128,256"),
        (("train", "--favour", "cats"), "PATTERN=FACTOR"),
        (("train", "--precision", "fp8", "--no-vgg"), "fp32, bf16"),
        (("train", "--masks", "nowhere", "--no-vgg"), "maskgen extract"),
        (("train", "--no-vgg", "--device", "tpu"), "no device 'tpu': expected"),
        (("train", "--no-vgg", "--device", "cuda:99"), "no device 'cuda:99': expected"),
        (("inpaint", "images", "masks/one.png", "--device", "meta"), "no device 'meta': expected"),
        (("train", "nowhere", "--no-vgg"), "no such folder"),
        (("inpaint", "images", "masks/one.png", "--weights", "none.safetensors"), "no such file"),
        (("convert", "images/0.png", "x.safetensors"), "plain values"),
        (("average", "net.safetensors", "--out", "x.safetensors"), "expected two files"),
        (("average", "net.safetensors", "none.safetensors", "--out", "x.safetensors"), "no such file: none"),
        (("export", "x.tflite", "--weights", "net.safetensors"), ".onnx or .pt2"),
    ],
)
def test_a_mistake_gives_one_line_and_exit_code_2(place, arguments, told):
    result = call(*arguments)
    assert result.exit_code == 2 and told in result.output and result.output.count("\n") == 1


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
        told = call(*command, out, "--weights", "net.safetensors", "--device", "cpu", *more)
        assert told.exit_code == 0, told.output
    assert seen == ["fp32", "bf16"]


@pytest.mark.parametrize(
    "command",
    [
        ("inpaint", "images/1.png", "masks/one.png", "out.png"),
        ("train", *TINY, "--fresh", "--phase1-steps", 1, "--phase2-steps", 0),
    ],
)
def test_bf16_on_a_processor_that_has_to_emulate_it_is_told(place, command, monkeypatch):
    for capability, precision, told in (("AVX2", "bf16", True), ("AVX2", "fp32", False), ("AVX512", "bf16", False)):
        monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda capability=capability: capability)
        done = call(*command, "--precision", precision, "--device", "cpu")
        assert done.exit_code == 0, done.output
        assert ("emulated" in done.stderr) == told


@pytest.mark.parametrize(
    ("option", "setting", "values"), [("--mirror", "mirror", [False, True]), ("--one-scale", "scales", [True, False])]
)
def test_an_option_reaches_the_inpainter(place, monkeypatch, option, setting, values):
    seen = record(monkeypatch, setting)
    for out, more in (("a", ()), ("b", (option,))):
        done = call("inpaint", "images/1.png", "masks/one.png", out, "--weights", "net.safetensors", *more)
        assert done.exit_code == 0, done.output
    assert seen == values


def test_superres_with_the_weights_that_ship_tells_that_they_have_not_learnt_it(place):
    result = call("superres", "images/1.png", "out", "--device", "cpu")
    assert result.exit_code == 0 and "have not learnt to enlarge" in result.stderr
    result = call("superres", "images/1.png", "other", "--weights", "net.safetensors", "--device", "cpu")
    assert result.exit_code == 0 and not result.stderr


def test_a_net_that_enlarges_is_trained_without_masks_and_used(place):
    trained = call("train", *TINY, "--masks", "none", "--factor", 2, "--phase1-steps", 1, "--phase2-steps", 0)
    assert trained.exit_code == 0, trained.output
    result = call("superres", "images/1.png", "out", "--factor", 2, "--weights", "runs/pconv/pconv.safetensors")
    assert result.exit_code == 0 and cv2.imread("out/1_x2.png").shape == (80, 100, 3)


def test_superres_writes_the_larger_image(place):
    result = call("superres", "images/1.png", "out", "--factor", 3, "--weights", "net.safetensors", "--device", "cpu")
    assert result.exit_code == 0 and cv2.imread("out/1_x3.png").shape == (120, 150, 3)


def test_convert_turns_a_training_checkpoint_into_half_precision_weights(place):
    call("train", *TINY, "--phase1-steps", 1, "--phase2-steps", 0)
    result = call("convert", "runs/pconv/checkpoint.pt", "new/half.safetensors", "--half")
    assert result.exit_code == 0 and "pconv, width 0.05, depth 2" in result.output
    header = checkpoints.read_header(place / "new/half.safetensors")
    assert header["history"][-1]["step"] == 1 and header["about"]["photos"] == 4


def test_average_writes_the_mean_of_two_files_and_keeps_what_they_say_of_themselves(place):
    for name, value in (("one", 1), ("four", 4)):
        net = PConvUNet(0.05, 2)
        net.encoder[0].conv.weight.data.fill_(value)
        checkpoints.save(place / f"{name}.safetensors", net, history=[{"step": value}], about={"photos": 9})
    result = call("average", "one.safetensors", "four.safetensors", "--out", "mean.safetensors", "--half")
    assert result.exit_code == 0 and result.output == "the mean of 2 nets, in mean.safetensors\n"
    assert checkpoints.load(place / "mean.safetensors").encoder[0].conv.weight.unique().item() == 2.5
    assert checkpoints.read_header(place / "mean.safetensors")["about"]["average"] == [
        {"file": "one.safetensors", "history": [{"step": 1}], "about": {"photos": 9}},
        {"file": "four.safetensors", "history": [{"step": 4}], "about": {"photos": 9}},
    ]


def test_average_tells_where_batch_norm_has_moved_between_the_nets(place):
    net = PConvUNet(0.05, 2)
    net.encoder[1].norm.running_mean += 1
    checkpoints.save(place / "moved.safetensors", net)
    result = call("average", "net.safetensors", "moved.safetensors", "--out", "mean.safetensors")
    assert result.exit_code == 0 and result.output.startswith("batch norm has moved")


def test_a_photo_that_is_cut_short_gives_one_line_and_no_word_of_the_decoder(tmp_path):
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


def test_export_says_what_goes_in_and_out(place):
    result = call("export", "net.pt2", "--weights", "net.safetensors")
    assert result.exit_code == 0 and "multiples of 4" in result.output and (place / "net.pt2").exists()


def test_search_prints_a_row_for_every_combination(place):
    more = ("--steps", 1, "--hole", "0,6", "--tv", "0.1,1", "--size", 16)
    result = call("search", *TINY, *more)
    assert result.exit_code == 0 and result.stdout.count("\n") == 5 and "val_l1" in result.stdout
    again = call("search", *TINY, *more)
    assert again.stdout == result.stdout and again.stderr == "runs/search is complete already\n"


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
