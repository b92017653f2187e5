import hashlib
import platform
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from small_run import photo, plug_in

from evaluation.methods import METHODS, Failed, classical, load, parse, parse_all
from evaluation.methods.classical import PLAIN
from evaluation.methods.process import InProcess, WorkerProcess
from evaluation.methods.results import check_result
from maskgen.errors import BadInput, InputWarning
from maskgen.runtime.recipe import differences
from pconv_model import inpaint
from pconv_model.inpaint import Inpainter

TRUTH = photo(0)
HOLE = np.zeros(TRUTH.shape[:2], bool)
HOLE[20:34, 16:40] = True
IMAGE = np.where(HOLE[..., None], np.uint8(0), TRUTH)


def ask(method, *, pairs=(("00000", IMAGE, HOLE),), **how):
    """What one method makes of pairs, through a process of its own."""
    process = WorkerProcess(method, **how)
    try:
        return process.fill(list(pairs))
    finally:
        process.close()


@pytest.mark.parametrize("name", [name for name in METHODS if name != "bicubic"])
def test_a_method_fills_the_hole_and_keeps_the_rest(name):
    if name == "patchmatch":
        pytest.importorskip("patchmatch", reason="the extra patchmatch")
    result = METHODS[name](IMAGE, HOLE)
    assert result.shape == IMAGE.shape and result.dtype == np.uint8
    assert (result[~HOLE] == IMAGE[~HOLE]).all()
    assert np.abs(result[HOLE].astype(int) - TRUTH[HOLE]).mean() < np.abs(IMAGE[HOLE].astype(int) - TRUTH[HOLE]).mean()


@pytest.mark.parametrize(("name", "flag"), [("telea", cv2.INPAINT_TELEA), ("ns", cv2.INPAINT_NS)])
def test_telea_and_ns_are_those_of_opencv_with_radius_3(name, flag):
    assert (METHODS[name](IMAGE, HOLE) == cv2.inpaint(IMAGE, HOLE.view(np.uint8), 3, flag)).all()


def test_biharmonic_continues_a_slope():
    image = np.repeat(np.arange(10, 106, 3, np.uint8)[:, None], 3, 1)[None].repeat(32, 0)  # 3 levels a column
    hole = np.zeros((32, 32), bool)
    hole[10:14, 10:14] = hole[20:23, 5:9] = True
    given = np.where(hole[..., None], np.uint8(0), image)
    assert (METHODS["biharmonic"](given, hole) == image).all()


def test_the_mean_fill_is_the_mean_of_what_is_known():
    image = np.zeros((1, 3, 3), np.uint8)
    image[0] = [[10, 0, 7], [20, 0, 8], [99, 99, 99]]
    hole = np.array([[False, False, True]])
    assert classical.mean(image, hole)[0, 2].tolist() == [15, 0, 8]  # 7.5 rounds to even
    assert classical.grey(image, hole)[0, 2].tolist() == [128, 128, 128]
    assert classical.mean(image, ~np.zeros((1, 3), bool))[0, 0].tolist() == [128, 128, 128]


def test_bicubic_finds_the_small_image_in_the_lattice():
    small = photo(1, 8)
    image, hole = np.zeros((32, 32, 3), np.uint8), np.ones((32, 32), bool)
    image[2::4, 2::4], hole[2::4, 2::4] = small, False
    expected = cv2.resize(small, (32, 32), interpolation=cv2.INTER_CUBIC)
    assert (classical.bicubic(image, hole) == expected).all()
    with pytest.raises(Failed, match="evaluate superres"):
        classical.bicubic(IMAGE, HOLE)


def test_names_and_prefixes_are_parsed():
    assert parse("telea").label == "telea"
    assert parse("dir:out/lama").label == "lama"
    assert parse("onnx:nets/migan.onnx").label == "migan"
    command = parse("LaMa=cmd:python3 'my script.py' {image} {mask} {output} --x={a}")
    assert (command.label, command.kind) == ("LaMa", "cmd")
    assert parse("cmd:python3 run.py {image} {mask} {output}").label == "python3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tela", r"no method 'tela' \(did you mean telea\?\): expected one of mean"),
        ("Pconv", r"did you mean pconv or pconv\+ or conv\?"),
        ("lama", "no method 'lama': expected one of mean"),
        ("cmd:python3 {image} {output}", r"has no \{mask\}"),
        ("dir:", "names nothing after dir:"),
        (
            "cmd:python3 'fill.py {image} {mask} {output}",
            r"cmd:python3 .* cannot be split into words: No closing quotation",
        ),
        ("a/b=telea", "a method's label is a file name"),
        ("truth=telea", "no method can be called truth"),
    ],
)
def test_a_wrong_method_is_refused(text, message):
    with pytest.raises(BadInput, match=message):
        parse(text)


def test_two_methods_need_two_labels():
    with pytest.raises(BadInput, match="two methods are called telea"):
        parse_all(["telea", "telea=ns"])


def test_weights_find_their_network(tmp_path):
    file = tmp_path / "net.safetensors"
    file.write_bytes(b"weights")
    assert parse_all(["telea", "pconv"], [str(file)])[1].weights == str(file)
    assert parse_all(["conv", "pconv"], [f"conv={file}"])[0].weights == str(file)
    identity = parse_all(["pconv"], [str(file)])[0].identity()
    assert identity["weights"] == hashlib.sha256(b"weights").hexdigest()
    with pytest.raises(BadInput, match="expected one network among the methods, got conv and pconv"):
        parse_all(["conv", "pconv"], [str(file)])
    with pytest.raises(BadInput, match="no weights file"):
        parse_all(["pconv"], ["missing"])
    with pytest.raises(BadInput, match=r"no weights file conv=.*: expected a checkpoint of pconv, or NAME=FILE"):
        parse_all(["pconv"], [f"conv={file}"])  # no such network is asked for


def test_a_plus_runs_a_network_at_all_scales_and_on_the_mirror_image(tmp_path):
    (tmp_path / "net.safetensors").write_bytes(b"weights")
    both = parse_all(["pconv", "pconv+"], [f"pconv={tmp_path / 'net.safetensors'}"])
    assert [(m.label, m.weights) for m in both] == [(n, str(tmp_path / "net.safetensors")) for n in ("pconv", "pconv+")]
    shipped = parse_all(["pconv", "pconv+"])
    assert shipped[0].identity() != shipped[1].identity()
    image, hole = np.zeros((256, 256, 3), np.uint8), np.zeros((256, 256), bool)
    image[:] = np.linspace(40, 200, 256)[None, :, None]
    image[0, 0] = 30, 60, 90  # a colour
    hole[60:190, 70:180] = True
    alone, plus = (load(method)("0", image, hole) for method in shipped)
    assert (alone == Inpainter(scales=False)(image, hole)).all()
    assert (plus == Inpainter(mirror=True, scales=True)(image, hole)).all()
    assert (alone != plus)[hole].mean() > 0.5


def test_two_checkpoints_of_one_network_stand_side_by_side(tmp_path):
    for name in ("old", "new", "other"):
        (tmp_path / name).write_bytes(name.encode())
    asked = ["old=pconv", "new=pconv", "conv"]
    given = [f"{name}={tmp_path / name}" for name in ("old", "new")]
    assert [method.weights for method in parse_all(asked, given)] == [str(tmp_path / "old"), str(tmp_path / "new"), ""]
    both = parse_all(asked, [f"pconv={tmp_path / 'other'}", given[1]])  # a label is nearer than a network
    assert [method.weights for method in both] == [str(tmp_path / "other"), str(tmp_path / "new"), ""]
    with pytest.raises(BadInput, match="expected one network among the methods, got conv and new and old: write NAME="):
        parse_all(asked, [str(tmp_path / "old")])


def test_results_in_a_folder_are_found_by_pair(tmp_path):
    cv2.imwrite(str(tmp_path / "00007.png"), cv2.cvtColor(TRUTH, cv2.COLOR_RGB2BGR))
    function = load(parse(f"dir:{tmp_path}"))
    assert (function("00007", IMAGE, HOLE) == TRUTH).all()
    with pytest.raises(Failed, match=r"no 00008\.png among the results"):
        function("00008", IMAGE, HOLE)


def differs(before, after):
    """The names under which two identities differ, as a refusal would print them."""
    return [
        line.split(" was ")[0].removesuffix(" is new").removesuffix(" differs") for line in differences(before, after)
    ]


def test_a_changed_byte_in_the_weights_changes_the_identity(tmp_path, monkeypatch):
    before = parse("pconv").identity()
    data = bytearray((inpaint.WEIGHTS / "pconv.safetensors").read_bytes())
    assert before["weights"] == hashlib.sha256(data).hexdigest()
    data[-1] ^= 1
    (tmp_path / "pconv.safetensors").write_bytes(data)
    monkeypatch.setattr(inpaint, "WEIGHTS", tmp_path)
    assert differs(before, parse("pconv").identity()) == ["weights"]
    with pytest.raises(BadInput, match="no weights of 'conv' ship with this installation"):
        parse("conv").identity()


def test_the_options_of_a_network_are_part_of_its_identity(monkeypatch):
    before = parse("pconv").identity()
    assert differs(before, parse("pconv+").identity()) == ["mirror", "scales"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert before["device"] == "cpu" and differs(before, parse("pconv").identity()) == ["device"]
    monkeypatch.setattr("maskgen.runtime.recipe.version", lambda name: "0.0")
    assert differs(before, parse("pconv").identity()) == ["torch", "device"]


@pytest.mark.parametrize(
    ("name", "package"), [("telea", "opencv"), ("biharmonic", "scikit-image"), ("patchmatch", "pypatchmatch")]
)
def test_the_package_that_computes_a_method_is_part_of_its_identity(name, package, monkeypatch):
    before = parse(name).identity()
    monkeypatch.setattr("maskgen.runtime.recipe.version", lambda name: "0.0")
    monkeypatch.setattr(cv2, "__version__", "0.0")
    assert package in differs(before, parse(name).identity())


def test_a_replaced_result_changes_the_identity_of_a_folder(tmp_path):
    for name in ("00000.png", "00001.JPG", "notes.txt", ".00002.png"):
        (tmp_path / name).write_bytes(b"old")
    before = parse(f"dir:{tmp_path}").identity()
    for name in ("notes.txt", ".00002.png"):
        (tmp_path / name).write_bytes(b"new")
    assert parse(f"dir:{tmp_path}").identity() == before  # neither is a result
    (tmp_path / "00001.JPG").write_bytes(b"new")
    assert differs(before, parse(f"dir:{tmp_path}").identity()) == ["pictures"]
    (tmp_path / "00003.png").write_bytes(b"more")
    assert differs(before, parse(f"dir:{tmp_path}").identity()) == ["results", "pictures"]
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    (moved / "00003.png").unlink()
    (moved / "00001.JPG").write_bytes(b"old")
    assert parse(f"dir:{moved}").identity() == before  # wherever it lies


def test_two_results_of_one_pair_are_refused(tmp_path):
    for name in ("00000.png", "00000.jpg"):
        (tmp_path / name).write_bytes(b"x")
    for ask_for in (parse(f"dir:{tmp_path}").identity, lambda: load(parse(f"dir:{tmp_path}"))):
        with pytest.raises(BadInput, match=r"00000\.jpg and 00000\.png, two results of one pair: remove one of them"):
            ask_for()


def test_a_file_that_a_command_names_is_part_of_its_identity(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("fill me.py", "net.pth"):
        (tmp_path / name).write_text("old")
    method = parse("cmd:python3 'fill me.py' --weights=net.pth {image} {mask} {output}")
    before = method.identity()
    assert [name for name in before["files"] if name != "python3"] == ["fill me.py", "net.pth"]
    assert method.absolute().identity() == before
    for name in ("fill me.py", "net.pth"):
        (tmp_path / name).write_text("new")
        assert differs(before, method.identity()) == [f"files: {name}"]
        (tmp_path / name).write_text("old")
    assert differs(before, parse(f"{method.kind}:{method.argument} --fast").identity()) == ["command"]
    long = parse(f"cmd:python3 'fill me.py' {{image}} {{mask}} {{output}} '{'x' * 300}'")  # no file can be called so
    assert [name for name in long.identity()["files"] if name != "python3"] == ["fill me.py"]


def test_a_warning_says_that_a_plug_in_with_the_name_of_a_built_in_method_is_not_used(tmp_path, monkeypatch):
    plug_in(tmp_path, monkeypatch)
    points = tmp_path / "odd_methods-1.0.dist-info" / "entry_points.txt"
    points.write_text(points.read_text() + "telea = odd_methods:good\n")
    with pytest.warns(InputWarning, match="telea is a built-in method: the plug-in odd_methods:good is not used"):
        assert parse("telea").identity()["method"] == "telea"


def test_the_identity_of_a_plug_in_is_its_package_and_its_code(tmp_path, monkeypatch):
    plug_in(tmp_path, monkeypatch)
    before = parse("loud").identity()
    assert before["package"] == "odd-methods 1.0"
    with (tmp_path / "odd_methods.py").open("a") as file:
        file.write("# edited in place, as in an editable install\n")
    assert differs(before, parse("loud").identity()) == ["code"]
    about = tmp_path / "odd_methods-1.0.dist-info" / "METADATA"
    about.write_text(about.read_text().replace("Version: 1.0", "Version: 1.1\nRequires-Dist: numpy>=2"))
    assert differs(before, parse("loud").identity()) == ["package", "requires: numpy", "code"]


TURN = Image.Exif()
TURN[0x0112] = 6  # stored a quarter turn anticlockwise


@pytest.mark.parametrize(
    ("name", "stored", "seen", "how"),
    [
        ("00007.PNG", TRUTH, TRUTH, {}),
        ("00007.tif", TRUTH, TRUTH, {}),
        ("00007.WebP", TRUTH, TRUTH, {"lossless": True}),
        ("00007.png", TRUTH[..., 0], TRUTH[..., [0, 0, 0]], {}),
        ("00007.png", np.dstack([TRUTH, TRUTH[..., 0]]), TRUTH, {}),  # with alpha
        ("00007.png", TRUTH[..., 0].astype(np.uint16) * 257, TRUTH[..., [0, 0, 0]], {}),
        ("00007.png", np.rot90(TRUTH), TRUTH, {"exif": TURN}),
    ],
)
def test_a_result_file_may_have_any_form(name, stored, seen, how, tmp_path):
    folder = tmp_path / "résultats de LaMa (1)"
    folder.mkdir()
    (folder / "._00007.png").write_bytes(b"litter of a Mac")
    Image.fromarray(np.ascontiguousarray(stored)).save(folder / name, **how)
    method = parse(f"dir:{folder}")
    assert method.label == "résultats_de_LaMa_1"
    assert (load(method)("00007", IMAGE, HOLE) == seen).all()


def test_16_bits_and_an_orientation_are_read_as_they_are_meant(tmp_path):
    cv2.imwrite(str(tmp_path / "0.png"), cv2.cvtColor(TRUTH, cv2.COLOR_RGB2BGR).astype(np.uint16) * 257)
    Image.fromarray(np.rot90(TRUTH)).save(tmp_path / "1.jpg", exif=TURN, quality=98)
    read = load(parse(f"dir:{tmp_path}"))
    assert (read("0", IMAGE, HOLE) == TRUTH).all()
    assert np.abs(read("1", IMAGE, HOLE).astype(int) - TRUTH).mean() < 3


def test_a_result_that_is_no_picture_costs_its_pair_alone(tmp_path):
    for name in ("00000.png", "00001.png"):
        cv2.imwrite(str(tmp_path / name), cv2.cvtColor(TRUTH, cv2.COLOR_RGB2BGR))
    (tmp_path / "00001.png").write_bytes((tmp_path / "00000.png").read_bytes()[:500])
    pairs = [(name, IMAGE, HOLE) for name in ("00000", "00001", "00002")]
    whole, broken, missing = ask(parse(f"dir:{tmp_path}"), pairs=pairs)
    assert (whole == TRUTH).all()
    assert broken.startswith("00001.png is not an image that can be read")
    assert missing == "no 00002.png among the results"


def test_labels_made_of_folders_are_whole_and_usable():
    assert [parse(text).label for text in ("dir:lama-v1.0", "dir:lama-v1.1/", "dir:out/my results", "dir:.")] == [
        *("lama-v1.0", "lama-v1.1", "my_results"),
        Path.cwd().name,
    ]
    assert len(parse(f"dir:{'x' * 240}").label) <= 120
    with pytest.raises(BadInput, match="a method's label has 120 bytes at most"):
        parse(f"{'x' * 240}=telea")
    with pytest.raises(BadInput, match="two methods are called Telea"):  # one file on many a file system
        parse_all(["telea", "Telea=ns"])


PROGRAM = """
import sys, cv2
image, mask = cv2.imread(sys.argv[1]), cv2.imread(sys.argv[2], 0)
assert sys.argv[4] == '{"keep": 1}', sys.argv
image[mask == 255] = (1, 2, 3)
cv2.imwrite(sys.argv[3], image)
"""


def test_any_program_can_be_a_method(tmp_path):
    (tmp_path / "fill me.py").write_text(PROGRAM)
    line = f"""mine=cmd:{sys.executable} '{tmp_path}/fill me.py' {{image}} {{mask}} {{output}} '{{"keep": 1}}'"""
    (result,) = ask(parse(line))
    assert (result[~HOLE] == IMAGE[~HOLE]).all() and (result[HOLE] == (3, 2, 1)).all()  # written BGR, read RGB


def test_a_program_with_a_python_of_its_own_does_not_get_our_packages(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (tmp_path / "program.py").write_text("import os; raise SystemExit(f\"it is {os.environ.get('PYTHONPATH')}\")")
    (message,) = ask(parse(f"cmd:{sys.executable} {tmp_path}/program.py {{image}} {{mask}} {{output}}"))
    assert message.endswith("ended with code 1: it is None")


STARTED = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from evaluation.methods import parse
from evaluation.methods.process import WorkerProcess
process = WorkerProcess(parse("grey"))
print(process.fill([("0", np.zeros((2, 2, 3), np.uint8), np.eye(2, dtype=bool))])[0][..., 0].tolist())
process.close()
"""


@pytest.mark.parametrize("flags", [[], ["-I"]])
def test_a_process_of_a_method_starts_from_any_folder(flags, tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    here, code = tmp_path / "where I work", tmp_path / "our code: a copy"
    here.mkdir()
    for name in ("evaluation", "json", "pickle", "numpy"):  # files of the user's own
        (here / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    code.symlink_to(Path(__file__).parents[1])
    (tmp_path / "start.py").write_text(STARTED)
    command = [sys.executable, *flags, str(tmp_path / "start.py"), str(code)]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    assert done.stdout == "[[128, 0], [0, 128]]\n", done.stderr


def test_a_program_that_fails_or_writes_nothing_says_so(tmp_path):
    def message(code, timeout=60):
        (tmp_path / "program.py").write_text(code)
        line = f"cmd:{sys.executable} {tmp_path}/program.py {{image}} {{mask}} {{output}}"
        return ask(parse(line), timeout=timeout)[0]

    assert "ended with code 1: ZeroDivisionError: division by zero" in message("1 / 0")
    assert message("").endswith("ended with code 0 but wrote no output")
    assert message("import sys; sys.exit('cannot read ' + sys.argv[1])").endswith(
        "ended with code 1: cannot read image.png"
    )
    assert message("import sys; print('no model', file=sys.stderr)").endswith("wrote no output: no model")
    assert "is not an image that can be read" in message("import sys; open(sys.argv[3], 'w').write('no png')")
    assert message("import time; time.sleep(100)", timeout=1) == "no result within 1 s"


def test_a_program_must_take_its_three_files_and_exist():
    with pytest.raises(BadInput, match=r"has no \{output\}"):
        load(parse("cmd:cp {image} {mask}"))
    with pytest.raises(BadInput, match="no such program"):
        load(parse("cmd:not-there {image} {mask} {output}"))


def test_a_missing_package_says_how_it_is_installed(monkeypatch):
    monkeypatch.setattr(classical, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"patchmatch is not installed: pip install '\.\[patchmatch\]' in your clone"):
        load(parse("patchmatch"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("crash", "its process ended with code 3: out of luck"),
        ("killed", "its process was killed by SIGKILL"),
        ("hang", "no result within 1 s"),
        ("nothing", "the result is a number, expected 64 x 64 x 3"),
        ("small", "the result is 63 x 64 x 3, expected 64 x 64 x 3"),
        ("nan", "the result holds NaN or infinite values"),
        ("raises", "KeyError: 'no such weight'"),
    ],
)
def test_a_method_that_fails_gives_its_reason_and_can_be_called_again(name, message, tmp_path, monkeypatch):
    plug_in(tmp_path, monkeypatch)
    process = WorkerProcess(parse(name), timeout=1)
    assert process.fill([("00000", IMAGE, HOLE)]) == [message]
    assert process.fill([("00001", IMAGE, HOLE)]) == [message]  # a new process, the same fate
    process.close()


def test_a_method_runs_while_its_caller_does_something_else(tmp_path):
    (tmp_path / "wait.py").write_text(
        "import sys, os, shutil, time\nwhile not os.path.exists('go'): time.sleep(0.01)\n"
    )
    with (tmp_path / "wait.py").open("a") as file:
        file.write("shutil.copy(sys.argv[1], sys.argv[2])\n")
    wait = f"cmd:{sys.executable} {tmp_path / 'wait.py'} {{image}} {{output}} {{mask}}"
    process = WorkerProcess(replace(parse(wait), folder=str(tmp_path)), timeout=60)
    with process.filling([("0", IMAGE, HOLE)]) as results:
        (tmp_path / "go").touch()  # without this the program would never end
    assert (results[0] == IMAGE).all()
    with pytest.raises(KeyError), process.filling([("1", IMAGE, HOLE)]):
        raise KeyError
    assert process.process is None and (process.fill([("2", IMAGE, HOLE)])[0] == IMAGE).all()
    process.close()


@pytest.mark.parametrize("name", PLAIN)
def test_a_method_returns_the_same_in_this_process_as_in_its_own(name):
    method, images = parse(name), IMAGE.copy()
    with InProcess(load(method)).filling([("0", images, HOLE), ("1", images[:40], HOLE[:40])]) as results:
        pass
    first, second = ask(method, pairs=[("0", IMAGE, HOLE), ("1", IMAGE[:40], HOLE[:40])])
    if name == "bicubic":  # this is no problem of super-resolution
        assert results == [first, second] and "evaluate superres" in first
    else:
        assert (results[0] == first).all() and (results[1] == second).all() and (images == IMAGE).all()


def test_a_result_after_the_time_limit_is_an_error_in_this_process_too():
    with InProcess(load(parse("telea")), timeout=1e-6).filling([("0", IMAGE, HOLE)]) as results:
        pass
    assert results == ["no result within 1e-06 s"]


def test_a_result_that_was_in_time_counts_however_late_it_is_read(tmp_path, monkeypatch):
    plug_in(tmp_path, monkeypatch)
    process = WorkerProcess(parse("loud"), timeout=2)
    with process.filling([("0", IMAGE, HOLE)]) as results:
        time.sleep(2.2)
    assert (results[0] == 100).all()
    process.close()


def test_the_output_of_a_method_is_kept_apart_from_its_results(tmp_path, monkeypatch):
    plug_in(tmp_path, monkeypatch)
    (result,) = ask(parse("loud"))
    assert (result == 100).all()


def test_a_method_may_write_on_its_input(tmp_path, monkeypatch):
    plug_in(tmp_path, monkeypatch)
    image, hole = IMAGE.copy(), HOLE.copy()
    image.flags.writeable = hole.flags.writeable = False
    first, second = ask(parse("rude"), pairs=[("0", image, hole), ("1", image, hole)])
    assert (first == 100).all() and (second == 100).all()
    assert (image == IMAGE).all() and (hole == HOLE).all()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be message so")
def test_a_process_that_keeps_its_memory_does_not_fetch_it_again_and_again():
    count = "import numpy, resource; from maskgen.runtime.memory import keep_memory{}; faults = []\n"
    count += "for _ in range(4):\n"
    count += "    many = [numpy.zeros(6 << 20, numpy.uint8) + 1 for _ in range(9)]; del many\n"
    count += "    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)\n"
    count += "print(faults[-1] - faults[-2])"
    plain, kept = (
        int(subprocess.run([sys.executable, "-c", count.format(call)], capture_output=True, check=True).stdout)
        for call in ("", "; keep_memory()")
    )
    assert kept < plain / 10


def test_pairs_of_several_sizes_pass_through_one_process():
    process = WorkerProcess(parse("grey"))
    for size in ((8, 8), (64, 48), (16, 4), (64, 48)):
        hole = np.eye(*size, dtype=bool)
        (result,) = process.fill([("0", np.zeros((*size, 3), np.uint8), hole)])
        assert (result == 128 * hole[..., None]).all()
    process.close()


def test_a_pair_that_crashes_does_not_lose_the_rest_of_its_batch(tmp_path, monkeypatch):
    plug_in(tmp_path, monkeypatch)
    large = np.ones(HOLE.shape, bool)
    results = ask(parse("moody"), pairs=[("0", IMAGE, HOLE), ("1", IMAGE, large), ("2", IMAGE, HOLE)])
    assert results[1] == "its process ended with code 1"
    assert (results[0] == 100).all() and (results[2] == 100).all()


def result_of(*levels, kind=float):
    return np.array(levels, kind).reshape(1, 1, 3)


def test_floats_count_as_grey_levels():
    assert check_result(result_of(-5, 254.6, 300), (1, 1, 3)).tolist() == [[[0, 255, 255]]]
    assert check_result(result_of(-5, 254, 300, kind=int), (1, 1, 3)).tolist() == [[[0, 254, 255]]]
    assert check_result(result_of(0, 0, 0), (1, 1, 3)).tolist() == [[[0, 0, 0]]]  # black in every range


@pytest.mark.parametrize(
    ("levels", "kind", "message"),
    [
        ((0.02, 0.5, 1), "float32", "float32 from 0.02 to 1"),
        ((-0.03, 0.5, 1.04), "float64", "float64 from -0.03 to 1.04"),
        ((-1, 0, 0.5), "float16", "float16 from -1 to 0.5"),
        ((0, 1, 1), "int64", "int64 from 0 to 1"),
        ((0, 30000, 65535), "uint16", "uint16 from 0 to 65535"),
        ((-32768, 0, 32767), "int16", "int16 from -32768 to 32767"),
    ],
)
def test_a_result_in_another_range_is_refused_with_its_range(levels, kind, message):
    assert f"the result is {message}, expected uint8 or numbers from 0 to 255" in check_result(
        result_of(*levels, kind=kind), (1, 1, 3)
    )


def test_a_result_of_another_type_is_refused():
    for kind in ("U1", bool, complex, object):
        assert "of type" in check_result(np.zeros((1, 1, 3), kind), (1, 1, 3))


def test_a_method_that_answers_in_0_to_1_fails_with_the_range(tmp_path, monkeypatch):
    plug_in(tmp_path, monkeypatch)
    assert ask(parse("unit")) == [
        "the result is float64 from 0 to 1, expected uint8 or numbers from 0 to 255: scale it in the method"
    ]


@pytest.mark.parametrize("kind", ["floats", "valid", "bytes", "four channels"])
def test_an_onnx_model_fills_a_hole(kind, tmp_path):
    onnx = pytest.importorskip("onnx", reason="the extra onnx")
    pytest.importorskip("onnxruntime", reason="the extra onnx")
    from onnx import TensorProto as T
    from onnx import helper

    # output = image + mask x 0.2 (51 for bytes), or a slice of the four channels
    element = T.UINT8 if kind == "bytes" else T.FLOAT
    value = 51 if kind == "bytes" else 0.2
    step = helper.make_tensor("step", element, [1], [value])
    if kind == "four channels":
        inputs = [helper.make_tensor_value_info("x", element, [1, 4, "h", "w"])]
        cut = [helper.make_tensor("sizes", T.INT64, [2], [3, 1])]
        nodes = [helper.make_node("Split", ["x", "sizes"], ["image", "mask"], axis=1)]
    else:
        inputs = [
            helper.make_tensor_value_info("image", element, [1, 3, "h", "w"]),
            helper.make_tensor_value_info("valid" if kind == "valid" else "mask", element, [1, 1, "h", "w"]),
        ]
        cut, nodes = [], []
    if kind == "valid":
        one = helper.make_tensor("one", element, [1], [1.0])
        cut, nodes = [one], [helper.make_node("Sub", ["one", "valid"], ["mask"])]
    if kind == "bytes":
        nodes += [helper.make_node("Min", ["mask", "step"], ["part"])]
    else:
        nodes += [helper.make_node("Mul", ["mask", "step"], ["part"])]
    nodes += [helper.make_node("Add", ["image", "part"], ["y"])]
    output = [helper.make_tensor_value_info("y", element, [1, 3, "h", "w"])]
    graph = helper.make_graph(nodes, "fill", inputs, output, [step, *cut])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "fill.onnx")
    result = load(parse(f"onnx:{tmp_path}/fill.onnx"))("00000", IMAGE, HOLE)
    assert (result == np.where(HOLE[..., None], 51, IMAGE)).all()


def saved(path, *steps, sides=("h", "w"), constants=(), whole=(), image=(1, 3), mask=(1, 1), **how):
    """Save an ONNX model of (image, mask) whose nodes are (operation, inputs, output, attributes); the last makes y."""
    onnx = pytest.importorskip("onnx", reason="the extra onnx")
    pytest.importorskip("onnxruntime", reason="the extra onnx")
    from onnx import TensorProto as T
    from onnx import helper, numpy_helper

    takes = [
        helper.make_tensor_value_info(name, T.FLOAT, [*first, *sides])
        for name, first in (("image", image), ("mask", mask))
    ]
    nodes = [helper.make_node(kind, inputs, [output], **more) for kind, inputs, output, more in steps]
    output = [helper.make_tensor_value_info("y", T.FLOAT, [1, 3, "a", "b"])]
    arrays = [
        numpy_helper.from_array(np.array(value, kind), name)
        for kind, values in ((np.float32, constants), (np.int64, whole))
        for name, value in dict(values).items()
    ]
    graph = helper.make_graph(nodes, "fill", takes, output, arrays)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path, **how)
    return parse(f"onnx:{path}")


def strided(path, stride, *, joined=True):
    """A network of that stride: at other sizes it fails, or if it is not joined, answers in another size."""
    steps = [
        ("AveragePool", ["image"], "small", {"kernel_shape": [stride] * 2, "strides": [stride] * 2}),
        ("Resize", ["small", "", "scales"], "large" if joined else "y", {"mode": "nearest"}),
        ("Add", ["image", "large"], "sum", {}),
        ("Mul", ["sum", "half"], "y", {}),
    ]
    constants = {"scales": [1, 1, stride, stride], "half": [0.5]}
    return saved(path, *(steps if joined else steps[:2]), constants=constants)


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize(
    ("stride", "size", "message"),
    [
        (8, (100, 96), "100x96 px, but it works if height and width are multiples of 8: use --size 96x96"),
        (64, (500, 512), "500x512 px, but it works if height and width are multiples of 64: use --size 512x512"),
        (14, (512, 512), "512x512 px, but it works if height and width are multiples of 14: use --size 518x518"),
        (5, (64, 64), "64x64 px, but it works at 70x70: use --size 70x70"),
        (11, (64, 64), "64x64 px nor at the nearby sizes that were tried: the "),
    ],
)
def test_an_onnx_model_that_cannot_take_the_size_names_one_that_it_takes(stride, size, message, joined, tmp_path):
    method = strided(tmp_path / "net.onnx", stride, joined=joined)
    with pytest.raises(BadInput) as refused:
        WorkerProcess(method, size=size).start()
    assert f"net.onnx does not work at {message}" in str(refused.value) and "\n" not in str(refused.value)
    process = WorkerProcess(method, size=(2 * stride, stride))
    process.start()
    process.close()


def test_an_onnx_model_of_one_size_names_it(tmp_path):
    inside = ("Expand", ["image", "shape"], "y", {})  # the input may have any size, but only 256 x 256 can be expanded
    with pytest.raises(BadInput, match="does not work at 250x250 px, but it works at 256x256: use --size 256x256"):
        load(saved(tmp_path / "net.onnx", inside, whole={"shape": [1, 3, 256, 256]}), size=(250, 250))
    method = saved(tmp_path / "net.onnx", ("Identity", ["image"], "y", {}), sides=(256, 320))
    with pytest.raises(BadInput, match="takes images of 256x320 px only, not of 64x64: use --size 256x320"):
        load(method, size=(64, 64))
    load(method, size=(256, 320))


def test_a_pair_of_a_size_that_an_onnx_model_cannot_take_fails_in_one_line(tmp_path):
    (message,) = ask(strided(tmp_path / "net.onnx", 48))
    assert message.startswith("the model fails at 64 x 64 px: ") and "\n" not in message


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"image": (1, 4)}, r"the input image is 1 x 4 x h x w: expected image \(1, 3, H, W\) and mask"),
        ({"image": (8, 3), "mask": (8, 1)}, "the input image is 8 x 3 x h x w"),
        ({"image": (1, 1), "mask": (1, 3)}, "the input image is 1 x 1 x h x w"),
        ({"sides": (256, 256, 3)}, "the input image is 1 x 3 x 256 x 256 x 3"),
    ],
)
def test_an_onnx_model_of_other_inputs_is_refused(how, message, tmp_path):
    with pytest.raises(BadInput, match=message):
        load(saved(tmp_path / "net.onnx", ("Identity", ["image"], "y", {}), **how))


@pytest.mark.parametrize(
    ("scale", "shift", "message"), [(2, -1, "float32 from -1 to 1"), (255, 0, "float32 from 0 to 255"), (1, 0.02, "")]
)
def test_an_onnx_output_in_another_range_fails_with_the_range(scale, shift, message, tmp_path):
    steps = ("Mul", ["image", "scale"], "scaled", {}), ("Add", ["scaled", "shift"], "y", {})
    method = saved(tmp_path / "net.onnx", *steps, constants={"scale": [scale], "shift": [shift]})
    (result,) = ask(method)
    if message:
        way_out = "state its range with --range LOW,HIGH, or scale it inside the model's graph"
        assert result == f"the output is {message}, expected 0 to 1 (or uint8): {way_out}"
    else:  # 1.02 is the overshoot of a network that does not cut off
        assert np.abs(result - np.clip(IMAGE + 5.1, 0, 255)).max() <= 1


def test_weights_beside_an_onnx_model_are_part_of_its_identity(tmp_path):
    def weights(value):
        (tmp_path / "net.onnx.data").unlink(missing_ok=True)
        constants = {"scale": np.full((1, 3, 1, 1), value)}
        return saved(
            tmp_path / "net.onnx",
            ("Mul", ["image", "scale"], "y", {}),
            constants=constants,
            save_as_external_data=True,
            location="net.onnx.data",
            size_threshold=0,
        )

    before = weights(1).identity()
    assert (tmp_path / "net.onnx.data").is_file() and before["device"] == "cpu"
    model = (tmp_path / "net.onnx").read_bytes()
    assert differs(before, weights(0.5).identity()) == ["net.onnx.data"]
    assert (tmp_path / "net.onnx").read_bytes() == model
    for name in (b"../../net.dat", b"net\0onnx.data", b"n" * 13):  # of a damaged file, or one that is not to be trusted
        (tmp_path / "net.onnx").write_bytes(model.replace(b"net.onnx.data", name))
        assert set(parse(f"onnx:{tmp_path / 'net.onnx'}").identity()) == {"method", "model", "onnxruntime", "device"}


def test_a_broken_onnx_file_is_refused(tmp_path):
    pytest.importorskip("onnxruntime", reason="the extra onnx")
    (tmp_path / "no.onnx").write_bytes(b"no model")
    with pytest.raises(BadInput, match="is not an ONNX model"):
        load(parse(f"onnx:{tmp_path}/no.onnx"))
