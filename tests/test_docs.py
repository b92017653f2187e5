"""README and documentation: links, the site's navigation, and examples that run."""

import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import skimage.data
import yaml
from films import write_video
from rawmasks import streaks, write_raw

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS]
PAGES.append(ROOT / "pconv_model/weights/README.md")
LINK = re.compile(r"\]\(([^)\s]+)\)")
BLOCK = re.compile(r"(?:<!-- not run: (?P<why>[^>]+) -->\n)?^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# [\w/]+\.py\n")  # first line of a block that is a file of its own: tests/test_training_docs.py


def name(page):
    return str(page.relative_to(ROOT))


def without_code(text):
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))


def anchors(page):
    """The anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).lower() for title in titles]
    return {re.sub(r"[^\w\- ]", "", title).strip().replace(" ", "-") for title in plain}


def targets(page):
    """(file, anchor) of every relative link of a page."""
    for link in LINK.findall(without_code(page.read_text(encoding="utf-8"))):
        if not re.match(r"\w+:", link):
            path, _, anchor = link.partition("#")
            yield (page.parent / path).resolve() if path else page, anchor


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_to_a_file_and_a_heading(page):
    missing = [
        (str(path), anchor)
        for path, anchor in targets(page)
        if not path.is_file() or (anchor and anchor not in anchors(path))
    ]
    assert not missing


def test_every_page_is_two_clicks_from_the_readme():
    reached = {ROOT / "README.md"}
    for _ in range(2):
        reached |= {path for page in reached if page.suffix == ".md" for path, _ in targets(page)}
    assert not set(PAGES) - reached


def pages_of(nav):
    for entry in nav:
        for value in entry.values():
            if isinstance(value, str):
                yield value
            else:
                yield from pages_of(value)


def test_the_navigation_of_the_site_lists_every_page():
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    outside = {"changelog.md", "contributing.md", "weights.md"}  # scripts/docs_hooks.py adds these
    assert sorted(pages_of(config["nav"])) == sorted({page.name for page in DOCS} | outside)


def test_the_api_page_lists_every_public_name():
    import evaluation
    import maskgen
    import pconv_model

    listed = re.findall(r"^::: (\w+\.\w+)$", (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    packages = (maskgen, pconv_model, evaluation)
    assert sorted(listed) == sorted(f"{each.__name__}.{name}" for each in packages for name in each.__all__)


def examples(page):
    """The blocks of a page that are run together, as one script."""
    blocks = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [block["code"] for block in blocks if not block["why"] and not FILE.match(block["code"])]


EXAMPLES = [page for page in [ROOT / "README.md", *DOCS] if examples(page)]


@pytest.mark.parametrize("page", EXAMPLES, ids=name)
def test_the_examples_of_a_page_run(page, tmp_path):
    for seed in (0, 5):
        write_video(tmp_path / f"videos/film{seed}.avi", 8, seed=seed)
    (tmp_path / "photos").mkdir()
    for photo in ("astronaut", "coffee"):
        picture = getattr(skimage.data, photo)()[:256, :256, ::-1]
        cv2.imwrite(str(tmp_path / f"photos/{photo}.jpg"), picture)
    if page.name != "README.md":  # which makes its own
        for split in ("train", "test"):
            write_raw(tmp_path / "masks/raw", 4, split)
        with zipfile.ZipFile(tmp_path / "irregular_mask.zip", "w") as archive:  # as NVIDIA's: white is valid
            archive.writestr("irregular_mask/00000.png", cv2.imencode(".png", 255 - 255 * streaks(0).astype("u1"))[1])
    (tmp_path / "example.py").write_text("\n".join(examples(page)), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-W", "error::DeprecationWarning", "example.py"]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]


def test_every_path_in_the_contributing_guide_exists():
    named = re.findall(
        r"`((?:maskgen|pconv_model|evaluation|benchmarks|docs|\.github)/[\w./-]*)`", PAGES[1].read_text()
    )
    assert len(named) > 5 and not [path for path in named if not (ROOT / path).exists()]


METHODS_PAGE = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
FILE_OF_COMMANDS = re.compile(
    r"^<!-- not run: the file (\S+) of the commands below -->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
TYPED = dict(re.findall(r"^<!-- typed by a test: (\S+) -->\n```sh\n(.*?)^```$", METHODS_PAGE, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("door", TYPED)
def test_the_commands_of_the_methods_page_run_word_for_word(door, tmp_path):
    here, programs = tmp_path / "here", tmp_path / "programs"
    here.mkdir()
    programs.mkdir()
    cli = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import cli; cli.evaluate(prog_name='evaluate')"
    for name, line in {"python": [], "evaluate": ["-c", cli]}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, *line])} "$@"\n')
        (programs / name).chmod(0o755)
    for name, code in FILE_OF_COMMANDS.findall(METHODS_PAGE):
        (here / name).write_text(code, encoding="utf-8")
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    line = ["sh", "-ec", TYPED[door]]
    done = subprocess.run(line, cwd=here, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    scores = pd.read_csv(here / "results/scores.csv")
    asked = TYPED[door].count("-m ")
    assert scores["method"].nunique() == asked and len(scores) == 12 * asked and scores["error"].isna().all()


def test_every_door_is_typed():
    assert sorted(TYPED) == ["cmd", "files", "py", "serve"]


def test_the_recipe_for_texture_gives_the_mean_of_network_and_patchmatch_in_the_hole(monkeypatch):
    page = (ROOT / "docs/pconv.md").read_text(encoding="utf-8")
    code = next(block["code"] for block in BLOCK.finditer(page) if "def textured" in block["code"])
    black = lambda image, hole: np.where(hole[..., None], 0, image).astype(np.uint8)  # noqa: E731
    monkeypatch.setattr("evaluation.methods.classical.patchmatch", black)
    recipe = {}
    exec(code, recipe)
    recipe["inpainter"] = lambda image, hole: np.where(hole[..., None], 201, image).astype(np.uint8)
    image, hole = np.full((8, 8, 3), 50, np.uint8), np.zeros((8, 8), bool)
    hole[2:4, 2:6] = True
    filled = recipe["textured"](image, hole)
    assert (filled[hole] == 100).all() and (filled[~hole] == 50).all()  # 100.5 is rounded to even
