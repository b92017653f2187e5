"""Networks in files: TorchScript, `torch.export` and ONNX, and how they take images and masks."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from small_run import SIDE, folders, photo

from evaluation import commands
from evaluation.api import evaluate
from evaluation.methods import Failed, classical, load, parse, parse_all
from evaluation.methods.conventions import Conventions
from evaluation.methods.model_file import Input, Model
from evaluation.methods.process import WorkerProcess
from maskgen import maskset
from maskgen.errors import BadInput

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
IMAGE, HOLE = photo(0), np.zeros((SIDE, SIDE), bool)
HOLE[20:34, 16:40] = True
IMAGE[HOLE] = 0


class Seen:
    """A network that returns its image and keeps what it has got."""

    path = "net"

    def __init__(self, *kinds, name="mask"):
        channels = {1: (4,), 2: (3, 1)}[len(kinds)]
        names = ("image", name)
        self.inputs = [
            Input(n, k, k.__name__, (1, c, None, None)) for n, k, c in zip(names, kinds, channels, strict=False)
        ]

    def run(self, arrays):
        self.got = arrays
        return arrays[0][:, :3]


def pixels(*colours):
    return np.array([colours], np.uint8)


@pytest.mark.parametrize(
    ("conventions", "image", "mask"),
    [
        (Conventions(), [[0, 0.2], [0, 0.4], [0, 1]], [1, 0]),
        (Conventions(range=(-1, 1)), [[-1, -0.6], [-1, -0.2], [-1, 1]], [1, 0]),
        (Conventions(range=(0, 255)), [[0, 51], [0, 102], [0, 255]], [1, 0]),
        (Conventions(white="valid"), [[0, 0.2], [0, 0.4], [0, 1]], [0, 1]),
        (Conventions(bgr=True), [[0, 1], [0, 0.4], [0, 0.2]], [1, 0]),
        (Conventions((-2, 0), "valid", True), [[-2, 0], [-2, -1.2], [-2, -1.6]], [0, 1]),
    ],
)
@pytest.mark.parametrize("count", [2, 1], ids=["two inputs", "four channels"])
def test_image_and_mask_come_as_the_conventions_say(count, conventions, image, mask):
    network = Seen(*[np.float32] * count)
    given, hole = pixels((0, 0, 0), (51, 102, 255)), np.array([[True, False]])
    result = Model(network, conventions)("0", given, hole)
    got = np.concatenate(network.got, 1)
    assert got.dtype == np.float32 and got[0, :, 0] == pytest.approx(np.array([*image, mask]), abs=1e-6)
    assert (result == given).all()  # the output is read by the same conventions


def test_bytes_have_no_range():
    network = Seen(np.uint8, np.uint8)
    given, hole = pixels((0, 0, 0), (51, 102, 255)), np.array([[True, False]])
    assert (Model(network, Conventions(white="valid", bgr=True))("0", given, hole) == given).all()
    assert np.concatenate(network.got, 1)[0, :, 0].tolist() == [[0, 255], [0, 102], [0, 51], [0, 255]]
    with pytest.raises(BadInput, match="net: the input image is uint8: leave --range out, it is of floats"):
        Model(network, Conventions(range=(-1, 1)))


@pytest.mark.parametrize(("white", "expected"), [("", 0), ("hole", 1), ("valid", 0)])
def test_an_input_called_valid_gets_valid_pixels_unless_an_option_says_otherwise(white, expected):
    network = Seen(np.float32, np.float32, name="valid_pixels")
    Model(network, Conventions(white=white))("0", IMAGE, HOLE)
    assert network.got[1][0, 0, 25, 20] == expected


def test_an_output_of_another_range_names_the_option():
    network = SimpleNamespace(**vars(Seen(np.float32, np.float32)), path="net", run=lambda arrays: arrays[0] * 2 - 1)
    with pytest.raises(
        Exception, match=r"float32 from -1 to 1, expected 0 to 1 \(or uint8\): state its range with --range"
    ):
        Model(network, Conventions())("0", IMAGE, HOLE)


class MeanFill(torch.nn.Module):
    """Fills with the mean of what is known; white is valid, values are in -1..1, sides multiples of `stride`."""

    def __init__(self, stride=1):
        super().__init__()
        self.stride = stride

    def forward(self, image, valid):
        small = image[:, :, :: self.stride, :: self.stride].repeat_interleave(self.stride, 2)
        small = small.repeat_interleave(self.stride, 3) - image  # fails at other sizes
        mean = (image * valid).sum((2, 3), keepdim=True) / valid.sum((2, 3), keepdim=True)
        return image * valid + (mean + 0 * small) * (1 - valid)


def saved(kind, path, net=None, sides=None):
    """Save a network of (image, valid) and return what --method needs. sides: "any", or None for 64 x 64 only."""
    net = (net or MeanFill()).eval()
    example = torch.rand(1, 3, 64, 64), torch.ones(1, 1, 64, 64)
    if kind == "torchscript":
        torch.jit.script(net).save(path)
    else:
        step = net.stride if sides else 1
        free = {2: step * torch.export.Dim("h"), 3: step * torch.export.Dim("w")} if sides else None
        shapes = free and {"image": free, "valid": free}
        torch.export.save(torch.export.export(net, example, dynamic_shapes=shapes), path)
    return f"net={kind}:{path}"


def ask(method, pairs=(("0", IMAGE, HOLE),), **how):
    process = WorkerProcess(method, **how)
    try:
        return process.fill(list(pairs))
    finally:
        process.close()


KINDS = {"torchscript": "net.pt", "exported": "net.pt2"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_in_a_file_fills_a_hole(kind, tmp_path):
    spec = saved(kind, tmp_path / KINDS[kind], sides="any")
    (method,) = parse_all([spec], range="-1,1")
    assert method.serial and method.label == "net" and parse(spec.partition("=")[2]).label == "net"
    wide = np.tile(IMAGE, (1, 2, 1)), np.tile(HOLE, (1, 2))
    for result, (image, hole) in zip(
        ask(method, [("0", IMAGE, HOLE), ("1", *wide)]), [(IMAGE, HOLE), wide], strict=True
    ):
        assert np.abs(result.astype(int) - classical.mean(image, hole)).max() <= 1
    identity = method.identity()
    assert identity["method"] == kind and identity["range"] == [-1, 1] and identity["torch"] == torch.__version__
    before = parse(spec).identity()
    assert "range" not in before
    (tmp_path / KINDS[kind]).write_bytes((tmp_path / KINDS[kind]).read_bytes() + b"0")
    assert parse(spec).identity()["model"] != before["model"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_cannot_take_the_size_names_one_that_it_takes(kind, tmp_path):
    spec = saved(kind, tmp_path / KINDS[kind], MeanFill(8), sides="any")
    with pytest.raises(
        BadInput, match="does not work at 60x100 px, but it works if height and width are multiples of 8"
    ):
        load(parse(spec), size=(60, 100))
    load(parse(spec), size=(64, 96))
    odd = IMAGE[:60], HOLE[:60]
    model = load(parse_all([spec], range="-1,1")[0])
    for _ in range(2):  # the second time without a search
        with pytest.raises(
            Exception, match=r"fails at 60 x 64 px: .*; it works if height and width are multiples of 8$"
        ):
            model("0", *odd)


def test_a_program_that_was_exported_for_one_size_names_it(tmp_path):
    spec = saved("exported", tmp_path / "net.pt2")
    with pytest.raises(BadInput, match="takes images of 64x64 px only, not of 96x128: use --size 64x64"):
        load(parse(spec), size=(96, 128))
    with pytest.raises(Failed, match="it works at 64x64 only"):
        load(parse(spec))("0", IMAGE[:32], HOLE[:32])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("torchscript:missing.pt", "no file missing.pt: expected torchscript:FILE"),
        ("exported:missing.pt2", "no file missing.pt2: expected exported:FILE"),
        ("onnx:missing.onnx", "no file missing.onnx: expected onnx:FILE"),
    ],
)
def test_a_missing_file_is_refused(spec, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput) as refused:
        parse(spec).identity()
    assert str(refused.value) == message


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_another_kind_is_refused(kind, tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "weights.pth")
    (tmp_path / "empty").write_bytes(b"")
    for name in ("weights.pth", "empty"):
        with pytest.raises(
            BadInput, match=f"{name} is not a file that torch.(jit|export).save has written: "
        ) as refused:
            WorkerProcess(parse(f"{kind}:{tmp_path / name}")).start()
        assert "\n" not in str(refused.value)


class Three(torch.nn.Module):
    def forward(self, image, mask, scale: float):
        return image * mask * scale


class Wide(torch.nn.Module):
    def forward(self, image):
        return image


def test_a_network_of_other_inputs_is_refused(tmp_path):
    torch.jit.script(Three()).save(tmp_path / "three.pt")
    with pytest.raises(BadInput, match="has 3 inputs: expected image"):
        load(parse(f"torchscript:{tmp_path / 'three.pt'}"))
    torch.export.save(torch.export.export(Wide(), (torch.rand(1, 3, 8, 8),)), tmp_path / "wide.pt2")
    with pytest.raises(BadInput, match="the input image is 1 x 3 x 8 x 8: expected image"):
        load(parse(f"exported:{tmp_path / 'wide.pt2'}"))


def test_two_networks_of_different_conventions_stand_in_one_run(tmp_path):
    folders(tmp_path)
    spec = saved("torchscript", tmp_path / "net.pt")
    methods = {"one": spec.partition("=")[2], "two": f"torchscript:{tmp_path / 'net.pt'}", "mean": "mean"}
    options = {"images": tmp_path / "images", "masks": tmp_path / "masks", "size": SIDE, "workers": 1}
    result = evaluate(methods, **options, range={"one": (-1, 1), "two": (0, 255)}, white={"two": "valid"}, bgr=["two"])
    means = result.scores.groupby("method")["psnr"].mean()
    assert means["one"] == pytest.approx(means["mean"], abs=0.1) and means["two"] == pytest.approx(
        means["mean"], abs=0.1
    )


LABELS = ["onnx:a.onnx", "exported:b.pt2", "telea"]


def conventions_of(**options):
    return [method.conventions for method in parse_all(LABELS, **options)]


def test_an_option_holds_for_all_networks_in_files_or_for_the_one_that_it_names():
    plain = Conventions()
    assert conventions_of() == [plain, plain, plain]
    assert conventions_of(range=["-1,1"]) == [Conventions((-1, 1))] * 2 + [plain]
    assert conventions_of(range=["b=-1,1"]) == [plain, Conventions((-1, 1)), plain]
    assert conventions_of(range=["b=0,255", "-1,1"])[:2] == [Conventions((-1, 1)), Conventions((0, 255))]
    assert conventions_of(bgr=["a"], white=["b=valid"]) == [Conventions(bgr=True), Conventions(white="valid"), plain]
    assert conventions_of(bgr=True, white="valid")[:2] == [Conventions(white="valid", bgr=True)] * 2
    assert conventions_of(range={"a": (-1, 1)}) == conventions_of(range=["a=-1,1"])
    assert conventions_of(range=(-1, 1)) == conventions_of(range="-1,1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"range": ["1,-1"]}, "--range 1,-1: expected the values of black and white as LOW,HIGH, such as -1,1"),
        ({"range": ["0"]}, "--range 0: expected the values"),
        ({"range": ["a=0,nan"]}, "--range 0,nan: expected the values"),
        ({"white": ["black"]}, "--white black: expected hole or valid"),
        ({"white": ["telea=valid"]}, "--white telea=valid: no network in a file is called telea, expected a or b"),
        ({"bgr": ["c"]}, "--bgr c: no network in a file is called c, expected a or b"),
    ],
)
def test_a_wrong_option_is_refused(options, message):
    with pytest.raises(BadInput, match=message):
        conventions_of(**options)


def test_an_option_without_a_network_in_a_file_is_refused():
    with pytest.raises(BadInput, match="--range -1,1 is for networks in files: expected a method onnx:FILE or torch"):
        parse_all(["telea"], range=["-1,1"])
    with pytest.raises(BadInput, match="--bgr is for networks in files"):
        parse_all(["telea"], bgr=True)


def test_the_command_takes_the_options(tmp_path):
    images, masks = folders(tmp_path)
    common = ["--images", str(images), "--masks", str(masks), "--size", "64"]
    spec = saved("torchscript", tmp_path / "net.pt")
    line = [*common, "-m", spec, "--range", "net=-1,1", "--bgr", "--white", "valid", "--metric", "psnr", "-j", "1"]
    done = CliRunner().invoke(commands.evaluate, [*line, "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    recorded = maskset.read_recipe(tmp_path / "out")["methods"]["net"]
    assert (recorded["range"], recorded["white"], recorded["bgr"]) == ([-1, 1], "valid", True)
    done = CliRunner().invoke(commands.evaluate, ["-m", "telea", "--bgr", "-o", str(tmp_path / "none")])
    assert done.exit_code == 2 and "--bgr is for networks in files" in done.output


def test_an_option_of_a_run_and_of_a_command_may_stand_before_the_command(tmp_path):
    images, masks = folders(tmp_path)
    common = ["--images", str(images), "--masks", str(masks), "--size", "64", "-o", str(tmp_path / "pairs")]
    done = CliRunner().invoke(commands.evaluate, ["--white", "valid", "pairs", *common])
    assert done.exit_code == 0, done.output
    assert cv2.imread(str(tmp_path / "pairs/masks/00000.png"), 0).mean() > 128
