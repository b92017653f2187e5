import csv
import hashlib
import io
import json
import shutil
import subprocess
import zipfile
from dataclasses import replace

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

import cli
from maskgen.categories import CATEGORIES
from maskgen.errors import BadInput, InputWarning
from maskgen.maskset import encode, read_hole
from maskgen.publish import publish, publish_nvidia
from maskgen.publish import run as press
from maskgen.runtime import files
from maskgen.settings import FillConfig, PublishConfig
from maskgen.testset import make_testset
from maskgen.verify import find_faults
from tests.rawmasks import write_raw

CONFIG = PublishConfig(url="https://masks.example/set")


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    make_testset(write_raw(folder / "raw"), folder / "testset", FillConfig(per_category=1), workers=1)
    return folder / "testset"


@pytest.fixture(scope="module")
def dist(masks, tmp_path_factory):
    pytest.importorskip("pyarrow")
    out = tmp_path_factory.mktemp("published") / "dist"
    publish(masks, out, CONFIG)
    return out


@pytest.fixture
def copy(dist, tmp_path):
    return shutil.copytree(dist, tmp_path / "copy")


@pytest.fixture
def sketched(monkeypatch):
    """Pictures that take no time."""

    def sketch(folder, out):
        out.mkdir(exist_ok=True)
        (out / "sheet.png").write_bytes(b"a sheet")

    monkeypatch.setattr(press.plots, "draw_figures", sketch)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_all_papers_are_there(dist):
    papers = "README.md LICENSE CITATION.cff croissant.json datasheet.md recipe.json checksums.sha256 preview/sheet.png"
    assert all((dist / name).stat().st_size > 100 for name in papers.split())


def test_publishing_again_or_elsewhere_gives_the_same_bytes(masks, dist, tmp_path):
    before = contents(dist)
    publish(masks, dist, CONFIG)
    assert contents(dist) == before
    publish(masks, tmp_path / "elsewhere", CONFIG)
    assert contents(tmp_path / "elsewhere") == before


def test_sha256sum_accepts_the_checksums(dist):
    tool = shutil.which("sha256sum")
    if tool is None:
        pytest.skip("no sha256sum here")
    assert subprocess.run([tool, "-c", "--quiet", "checksums.sha256"], cwd=dist).returncode == 0


def test_every_video_is_credited_and_a_silent_one_warned_of(masks, tmp_path, sketched):
    warnings = publish(masks, tmp_path / "a", PublishConfig(archives=()))
    assert "1 of 2 videos have no stated licence, such as clip1.mp4" in warnings[0]
    sources = tmp_path / "SOURCES.csv"
    sources.write_text("file,source,licence\nclip1.mp4,a river,CC0-1.0\n")
    config = PublishConfig(archives=(), url="https://masks.example/set")
    assert publish(masks, tmp_path / "a", config, credits=sources) == []
    for paper in ("README.md", "LICENSE", "datasheet.md"):
        text = (tmp_path / "a" / paper).read_text()
        assert "| clip0.mp4 | a lake | CC-BY-4.0 |" in text and "| clip1.mp4 | a river | CC0-1.0 |" in text


def test_the_citation_file_and_the_cards_head_are_yaml(dist):
    yaml = pytest.importorskip("yaml")
    assert yaml.safe_load((dist / "CITATION.cff").read_text())["type"] == "dataset"
    head = yaml.safe_load((dist / "README.md").read_text().split("---")[1])
    assert head["license"] == "cc-by-4.0" and head["dataset_info"]["splits"][0]["num_examples"] == 12


def test_hugging_face_loads_the_folder_offline(dist, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(dist), split="test", drop_labels=True, cache_dir=str(tmp_path)
    )
    assert sorted(loaded["category"]) == sorted(CATEGORIES)
    for row in loaded:
        hole = np.array(row["image"]) == 255
        assert hole.mean() == pytest.approx(row["hole_ratio"], abs=1e-6)


def test_the_parquet_holds_the_files(dist):
    table = pytest.importorskip("pyarrow.parquet").read_table(dist / "archives" / "masks.parquet").to_pylist()
    assert len(table) == 12
    assert all(hashlib.sha256(row["image"]["bytes"]).hexdigest() == row["sha256"] for row in table)


def test_webdataset_loads_the_tars(dist):
    webdataset = pytest.importorskip("webdataset")
    tars = sorted(map(str, (dist / "archives" / "webdataset").glob("*.tar")))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False, empty_check=False).decode("l8"))
    assert sorted(sample["json"]["category"] for sample in samples) == sorted(CATEGORIES)
    assert all(
        (sample["png"] == 255).mean() == pytest.approx(sample["json"]["hole_ratio"], abs=1e-6) for sample in samples
    )


def test_the_zip_holds_the_index_and_the_masks(dist):
    with zipfile.ZipFile(dist / "archives" / "masks.zip") as archive:
        rows = list(csv.DictReader(io.TextIOWrapper(archive.open("masks/metadata.csv"))))
        assert all(
            hashlib.sha256(archive.read(f"masks/{row['file_name']}")).hexdigest() == row["sha256"] for row in rows
        )
    assert len(rows) == 12


def test_mlcroissant_finds_no_fault_and_reads_the_records(dist):
    mlcroissant = pytest.importorskip("mlcroissant")
    loaded = mlcroissant.Dataset(jsonld=str(dist / "croissant.json"))
    assert not loaded.metadata.ctx.issues.errors and not loaded.metadata.ctx.issues.warnings
    rows = list(loaded.records("masks"))
    assert len(rows) == 12 and 0 < rows[0]["masks/hole_ratio"] <= 0.6


def test_croissant_has_the_responsible_ai_part(dist):
    told = json.loads((dist / "croissant.json").read_text())
    assert "http://mlcommons.org/croissant/RAI/1.0" in told["conformsTo"]
    fields = ("dataCollection", "dataBiases", "dataLimitations", "dataSocialImpact", "personalSensitiveInformation")
    assert all(told[f"rai:{field}"] for field in fields)


def test_nvidias_layout_is_flat_and_in_blocks(masks, tmp_path):
    publish_nvidia(masks, tmp_path / "n", CONFIG)
    with zipfile.ZipFile(tmp_path / "n" / "test_mask.zip") as archive:
        assert archive.namelist() == [f"mask/testing_mask_dataset/{i:05d}.png" for i in range(12)]
        second = cv2.imdecode(np.frombuffer(archive.read(archive.namelist()[1]), np.uint8), 0)
    assert (second == 255).sum() == read_hole(masks / "test" / "interior_0.01-0.1" / "00000.png").sum()
    rows = list(csv.DictReader((tmp_path / "n" / "index.csv").open()))
    assert [row["category"] for row in rows[:4]] == [
        "free_0.01-0.1",
        "interior_0.01-0.1",
        "free_0.1-0.2",
        "interior_0.1-0.2",
    ]


def test_what_is_no_test_set_or_no_free_folder_is_refused(masks, tmp_path):
    with pytest.raises(BadInput, match="no recipe"):
        publish(tmp_path, tmp_path / "out", CONFIG)
    (tmp_path / "thesis.tex").write_text("dear")
    with pytest.raises(BadInput, match="not empty"):
        publish(masks, tmp_path, CONFIG)
    for out in (masks, masks / "dist"):
        with pytest.raises(BadInput, match="itself, or lies in it"):
            publish(masks, out, CONFIG)
    with pytest.raises(BadInput, match="no archive 'rar'"):
        publish(masks, tmp_path / "out", PublishConfig(archives=("rar",)))


@pytest.mark.parametrize("date", ["today", "2026-13-01", "20261123", "", "23.11.2026"])
def test_a_date_that_is_none_is_refused(masks, tmp_path, date):
    with pytest.raises(BadInput, match="a day such as 2026-11-23"):
        publish(masks, tmp_path / "out", PublishConfig(archives=(), date=date))


PLAIN = PublishConfig(url="https://masks.example/set", archives=("webdataset",))


@pytest.mark.parametrize("layout", [publish, publish_nvidia])
def test_the_same_command_again_has_nothing_to_do(masks, tmp_path, layout, sketched):
    said = []
    for _ in range(2):
        layout(masks, tmp_path / "dist", PLAIN, say=said.append)
    assert said == [f"{tmp_path / 'dist'} is complete already"]


def test_other_papers_are_written_anew_as_if_published_for_the_first_time(masks, tmp_path, sketched):
    credits = tmp_path / "SOURCES.csv"
    credits.write_text("file,license\nclip1.mp4,CC0-1.0\n")
    first = {"config": PLAIN}
    others = [
        {"config": replace(PLAIN, title='"Quoted": & more')},
        {"config": replace(PLAIN, archives=())},
        {"config": PLAIN, "credits": credits},
    ]
    for i, other in enumerate(others):
        publish(masks, tmp_path / f"fresh{i}", **other)
        publish(masks, tmp_path / f"again{i}", **first)
        publish(masks, tmp_path / f"again{i}", **other)
        assert contents(tmp_path / f"again{i}") == contents(tmp_path / f"fresh{i}")


def test_another_version_of_a_library_that_draws_is_no_reason_to_refuse(masks, tmp_path, monkeypatch, sketched):
    publish(masks, tmp_path / "dist", PLAIN)
    monkeypatch.setattr(press, "library_versions", lambda *names: {"matplotlib": "9.9"})
    publish(masks, tmp_path / "dist", PLAIN)
    assert json.loads((tmp_path / "dist" / "recipe.json").read_text())["libraries"]["matplotlib"] == "9.9"
    assert find_faults(tmp_path / "dist", workers=1) == (12, [])


@pytest.mark.parametrize("moment", ["write_whole", "_archives", "citation", "write_checksums"])
def test_an_interrupted_publication_is_finished_by_the_next(masks, tmp_path, monkeypatch, moment, sketched):
    publish(masks, tmp_path / "whole", PLAIN)
    publish(masks, tmp_path / "again", PLAIN)
    for out, config in (("new", PLAIN), ("again", replace(PLAIN, title="Another")), ("again", PLAIN)):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(press, moment, interrupt)
            publish(masks, tmp_path / out, config)
    for out in ("new", "again"):
        publish(masks, tmp_path / out, PLAIN)
        assert contents(tmp_path / out) == contents(tmp_path / "whole")


def interrupt(*_):
    raise KeyboardInterrupt


def test_another_set_or_layout_is_refused_by_name(masks, tmp_path, sketched):
    other = shutil.copytree(masks, tmp_path / "other")
    path = other / "test" / "free_0.1-0.2" / "00000.png"
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_bytes(encode(read_hole(path)[::-1]))
    after = hashlib.sha256(path.read_bytes()).hexdigest()
    index = other / "test" / "metadata.csv"
    publish(masks, tmp_path / "dist", PLAIN)
    published = contents(tmp_path / "dist")
    with pytest.raises(BadInput, match=r"00000.png is missing, or not the mask that the index lists"):
        publish(other, tmp_path / "dist", PLAIN)
    index.write_text(index.read_text().replace(before, after))
    with pytest.raises(BadInput, match=r"begun with other settings \(masks was"):
        publish(other, tmp_path / "dist", PLAIN)
    with pytest.raises(BadInput, match="layout was imagefolder, is nvidia"):
        publish_nvidia(masks, tmp_path / "dist", PLAIN)
    assert contents(tmp_path / "dist") == published


def test_an_unfinished_set_is_not_published(masks, tmp_path):
    (shutil.copytree(masks, tmp_path / "set") / ".progress").mkdir()
    with pytest.raises(BadInput, match="is unfinished"):
        publish(tmp_path / "set", tmp_path / "dist", PLAIN)
    assert "the set is unfinished" in "\n".join(find_faults(tmp_path / "set", workers=1)[1])


@pytest.mark.parametrize(
    ("table", "licence"),
    [
        ("file,source,licence\nclip0.mp4,a pond,CC0-1.0\n", "CC0-1.0"),
        ("\ufefffile,license\nclip0.mp4,CC0-1.0\n", "CC0-1.0"),
        ("file,source,licence\nclip0.mp4,,\n", "CC-BY-4.0"),  # unknown there, known to the recipe
        ("file,source,license,licence\nclip0.mp4,,,\n", "CC-BY-4.0"),
    ],
)
def test_a_licence_is_read_in_both_spellings_and_erased_by_none(masks, tmp_path, table, licence):
    (tmp_path / "SOURCES.csv").write_text(table, encoding="utf-8")
    publish_nvidia(masks, tmp_path / "dist", PLAIN, credits=tmp_path / "SOURCES.csv")
    source = json.loads((tmp_path / "dist" / "recipe.json").read_text())["sources"][0]
    assert source["licence"] == licence and source["source"] == ("a pond" if "a pond" in table else "a lake")


def test_credits_of_other_videos_are_warned_of(masks, tmp_path):
    (tmp_path / "SOURCES.csv").write_text("file,licence\nother.mp4,CC0\n")
    warnings = publish_nvidia(masks, tmp_path / "dist", PLAIN, credits=tmp_path / "SOURCES.csv")
    assert any("names none of the 2 videos, only such as other.mp4" in warning for warning in warnings)


def test_titles_with_any_letters_stay_yaml_json_and_bibtex(masks, tmp_path, sketched):
    yaml = pytest.importorskip("yaml")
    config = replace(PLAIN, archives=(), title='The "holes": 50 % & more_', name="my set", licence="Lic: v1")
    publish(masks, tmp_path / "dist", config)
    papers = {name: (tmp_path / "dist" / name).read_text() for name in ("README.md", "CITATION.cff", "croissant.json")}
    head = yaml.safe_load(papers["README.md"].split("---")[1])
    assert (head["pretty_name"], head["license_name"]) == (config.title, "Lic: v1")
    assert yaml.safe_load(papers["CITATION.cff"])["license"] == "Lic: v1"
    cited = json.loads(papers["croissant.json"])["citeAs"]
    assert cited.startswith("@misc{my_set,") and r"50 \% \& more\_" in cited


def test_archives_belong_to_one_layout(masks, tmp_path):
    words = ["publish", str(masks), str(tmp_path / "dist"), "--layout", "nvidia", "--archives", "parquet"]
    run = CliRunner().invoke(cli.maskgen, words)
    assert run.exit_code == 2 and "--archives belongs to the layout imagefolder" in run.output


def test_a_sound_set_has_no_faults(masks, dist):
    assert find_faults(dist, workers=1) == (12, [])
    assert find_faults(masks, workers=1) == (12, [])


def test_litter_in_a_set_is_no_fault_and_in_no_checksums(masks, copy):
    litter = ["Thumbs.db", "test/.ipynb_checkpoints/00000.png", "test/__MACOSX/._00000.png", "test/._a.png"]
    for name in litter:
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_bytes(b"no mask")
    with pytest.warns(InputWarning, match="3 hidden or system files are skipped"):
        assert find_faults(copy, workers=1) == (12, [])
    before = (copy / "checksums.sha256").read_bytes()
    files.write_checksums(copy)
    assert (copy / "checksums.sha256").read_bytes() == before


def test_masks_of_other_endings_and_in_linked_folders_are_seen(copy, tmp_path):
    (tmp_path / "more").mkdir()
    shutil.copy(copy / "test" / "free_0.2-0.3" / "00000.png", tmp_path / "more" / "A.PNG")
    (tmp_path / "more" / "b.jpeg").write_bytes(b"")
    (copy / "test" / "linked").symlink_to(tmp_path / "more", target_is_directory=True)
    told = find_faults(copy, workers=1)[1]
    for name in ("A.PNG", "b.jpeg"):
        assert f"test/linked/{name}: there, but not listed" in told
        assert f"test/linked/{name}: there, but not in checksums.sha256" in told


def test_an_index_may_begin_with_a_byte_order_mark(copy):
    index = copy / "test" / "metadata.csv"
    index.write_bytes(b"\xef\xbb\xbf" + index.read_bytes())
    files.write_checksums(copy)
    assert find_faults(copy, workers=1) == (12, [])


def test_a_mask_in_another_form_is_a_fault(copy):
    path = copy / "test" / "free_0.1-0.2" / "00000.png"
    cv2.imwrite(str(path), cv2.imread(str(path)))  # the same pixels as RGB
    told = "\n".join(find_faults(copy, workers=1)[1])
    assert "expected an 8-bit grey PNG" in told and "other values" not in told


def rewrite_index(folder, change):
    path = folder / "test" / "metadata.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows = change(rows) or rows
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)


def test_a_changed_mask_is_found_by_hash_ratio_and_class(copy):
    name = "free_0.1-0.2/00000.png"
    (copy / "test" / name).write_bytes(encode(np.eye(512, dtype=bool)))
    faults = find_faults(copy, workers=1)[1]
    told = "\n".join(faults)
    assert f"test/{name}: hole_ratio is 0.001953" in told and f"test/{name}: sha256 is" in told
    assert f"test/{name}: differs from checksums.sha256" in told
    assert f"test/{name}: lies in free_0.1-0.2, but measures as outside all classes" in told


def test_missing_extra_and_doubled_masks_are_found(copy):
    (copy / "test" / "free_0.1-0.2" / "00000.png").unlink()
    shutil.copy(copy / "test" / "free_0.2-0.3" / "00000.png", copy / "test" / "free_0.2-0.3" / "00001.png")
    rewrite_index(copy, lambda rows: rows.append(rows[0]))
    told = "\n".join(find_faults(copy, workers=1)[1])
    assert "test/free_0.1-0.2/00000.png: listed, but not there" in told
    assert "test/free_0.2-0.3/00001.png: there, but not listed" in told
    assert "test/interior_0.01-0.1/00000.png: listed twice" in told
    assert "test/free_0.2-0.3/00001.png: there, but not in checksums.sha256" in told


def test_grey_pixels_and_other_sizes_are_found(copy):
    grey = np.zeros((512, 512), np.uint8)
    grey[100:300, 100:300] = 200
    cv2.imwrite(str(copy / "test" / "free_0.1-0.2" / "00000.png"), grey)
    (copy / "test" / "free_0.2-0.3" / "00000.png").write_bytes(encode(np.eye(256, dtype=bool)))
    told = "\n".join(find_faults(copy, workers=1)[1])
    assert "40000 pixels have other values" in told and "different sizes: 256x256, 512x512" in told


def test_a_wrong_row_of_the_index_is_found(copy):
    rewrite_index(copy, lambda rows: rows[3].update(border_distance="7", category="free_0.5-0.6"))
    told = "\n".join(find_faults(copy, workers=1)[1])
    assert "the index says 7" in told and "the index says free_0.5-0.6" in told
    assert "free_0.5-0.6 has 2 masks in the index, the recipe says 1" in told


def test_names_that_lead_out_of_the_set_are_not_followed(copy):
    rewrite_index(copy, lambda rows: rows[0].update(file_name="../../etc/passwd"))
    assert "../../etc/passwd: leads out of the mask set" in find_faults(copy, workers=1)[1]
