"""Two runs on one folder, and what a kill leaves of a lock."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner
from films import write_video

import cli
from maskgen.errors import BadInput
from maskgen.runtime.output import LOCK, OutputFolder, alone, locked, occupied

ROOT = Path(__file__).parents[1]
HOLD = "import sys, time, pathlib; from maskgen.runtime.output import locked\n"
HOLD += "with locked(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"


@pytest.fixture
def at_work(tmp_path):
    """A folder in which another process is at work, and that process."""
    other = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "out"], cwd=ROOT, stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"held\n"
    yield tmp_path / "out", other
    other.kill()
    other.wait()
    other.stdout.close()


def test_a_second_run_is_refused_at_once(at_work):
    folder, _ = at_work
    with pytest.raises(BadInput, match=f"another run is at work in {folder}"), locked(folder):
        pass


def test_the_lock_that_a_killed_run_left_is_no_obstacle(at_work):
    folder, other = at_work
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (folder / LOCK).exists()
    with locked(folder):
        assert (folder / LOCK).exists()
    assert not (folder / LOCK).exists()


def test_a_lock_leaves_nothing_behind_and_makes_no_folder_that_stays_empty(tmp_path):
    with locked(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir() and not occupied(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())
    with locked(tmp_path / "a"):
        (tmp_path / "a" / "made.txt").write_text("kept")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["made.txt"]


def test_a_function_may_call_another_on_the_folder_it_holds_but_no_thread_may_join_in(tmp_path):
    refused = []

    @alone("out")
    def inner(out):
        assert (out / LOCK).exists()

    def elsewhere(out):
        try:
            inner(out)
        except BadInput as error:
            refused.append(str(error))

    @alone("out")
    def outer(number, out=None):
        inner(out=out)
        assert (out / LOCK).exists()  # the inner one did not free it
        thread = threading.Thread(target=elsewhere, args=(out,))
        thread.start()
        thread.join()
        return number

    assert outer(3, tmp_path) == 3 and len(refused) == 1
    assert outer.__name__ == "outer" and not list(tmp_path.iterdir())


def test_notes_of_a_recipe_are_kept_up_to_date_and_not_compared(tmp_path):
    def recipe(licence, seed=0):
        return {"made_by": "a test", "seed": seed, "sources": [{"name": "film", "sha256": "1", "licence": licence}]}

    with OutputFolder(tmp_path, recipe("MIT"), notes=("licence",)) as folder:
        folder.finish(count=1)
    with OutputFolder(tmp_path, recipe("CC0"), notes=("licence",)) as folder:
        assert folder.complete and folder.finish(count=1)["sources"][0]["licence"] == "CC0"
    with (
        pytest.raises(BadInput, match="seed was 0, is 1"),
        OutputFolder(tmp_path, recipe("CC0", 1), notes=("licence",)),
    ):
        pass
    with pytest.raises(BadInput, match="film: licence was CC0, is MIT"), OutputFolder(tmp_path, recipe("MIT")):
        pass


def test_a_run_that_came_to_nothing_leaves_the_folder_to_another(tmp_path):
    with OutputFolder(tmp_path / "out", {"made_by": "a test", "seed": 0}) as folder:
        (folder.progress / "tried.txt").write_text("nothing came of it")
        folder.discard()
    with OutputFolder(tmp_path / "out", {"made_by": "a test", "seed": 1}) as folder:
        assert not folder.complete


def test_without_a_folder_nothing_is_held():
    assert alone("out")(lambda out=None: out)() is None


COMMANDS = {
    "extract": (cli.maskgen, "extract film.avi --out out --train 2 --test 2 --size 64"),
    "testset": (cli.maskgen, "testset raw out"),
    "augment": (cli.maskgen, "augment masks out --count 2"),
    "bin": (cli.maskgen, "bin masks --polarity hole-white --out out"),
    "publish": (cli.maskgen, "publish raw out"),
    "evaluate": (cli.evaluate, "--images photos --masks masks --size 64 --out out"),
    "pairs": (cli.evaluate, "pairs --images photos --masks masks --size 64 --out out"),
    "dilation": (cli.evaluate, "dilation --images photos --masks masks --size 64 --out out"),
    "holes": (cli.evaluate, "holes --images photos --size 512 --out out"),
    "superres": (cli.evaluate, "superres --images photos --size 64 --out out"),
    "train": (cli.pconv, "train photos --masks masks --out out --no-vgg --phase1-steps 1 --size 16 --batch 1"),
    "search": (cli.pconv, "search photos --masks masks --out out --no-vgg --steps 1 --size 16 --batch 1"),
    "inpaint": (cli.pconv, "inpaint photos masks out --weights tiny.safetensors"),
    "enlarge": (cli.pconv, "superres photos out --weights tiny.safetensors"),
}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A folder with a little of whatever the commands take, and a run of another process at work in `out`."""
    from rawmasks import write_raw
    from small_run import folders

    from pconv_model import checkpoints
    from pconv_model.settings import NetConfig
    from pconv_model.unet import build

    root = tmp_path_factory.mktemp("workshop")
    images, masks = folders(root)
    images.rename(root / "photos")
    for photo, mask in zip(sorted((root / "photos").iterdir()), sorted(masks.iterdir()), strict=False):
        photo.rename(photo.with_name(mask.name))
    write_raw(root / "raw", 4)
    write_video(root / "film.avi", 12)
    checkpoints.save(root / "tiny.safetensors", build(NetConfig(width=0.05, depth=3)))
    other = subprocess.Popen([sys.executable, "-c", HOLD, root / "out"], cwd=ROOT, stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"held\n"
    yield root
    other.kill()
    other.wait()
    other.stdout.close()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_on_a_folder_of_another_run_ends_with_one_line(name, workshop, monkeypatch):
    monkeypatch.chdir(workshop)
    tool, words = COMMANDS[name]
    done = CliRunner().invoke(tool, words.split())
    assert done.exit_code == 2 and "another run is at work in" in done.output
    assert len([line for line in done.output.splitlines() if line.strip()]) == 1
    assert [path.name for path in (workshop / "out").iterdir()] == [LOCK]
