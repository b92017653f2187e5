import csv
import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
import unicodedata
import zipfile
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import cli
from maskgen.categories import CATEGORIES
from maskgen.errors import BadInput, InputWarning
from maskgen.maskset import encode, read_hole
from maskgen.publish import publish, publish_nvidia, run, texts
from maskgen.publish import sequences as publish_sequences
from maskgen.runtime import files
from maskgen.sequences.run import make_sequences
from maskgen.sequences.settings import SequenceConfig
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
    """Draw no pictures, which takes no time."""

    def sketch(folder, out):
        out.mkdir(exist_ok=True)
        (out / "sheet.png").write_bytes(b"a sheet")

    monkeypatch.setattr(run.plots, "draw_figures", sketch)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_all_documents_are_there(dist):
    names = "README.md LICENSE CITATION.cff croissant.json datasheet.md recipe.json checksums.sha256 preview/sheet.png"
    assert all((dist / name).stat().st_size > 100 for name in names.split())


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


def test_every_video_is_credited_and_a_missing_licence_gives_a_warning(masks, tmp_path, sketched):
    warnings = publish(masks, tmp_path / "a", PublishConfig(archives=()))
    assert "1 of 2 videos have no stated licence, such as clip1.mp4" in warnings[0]
    sources = tmp_path / "SOURCES.csv"
    sources.write_text("file,source,licence\nclip1.mp4,a river,CC0-1.0\n")
    config = PublishConfig(archives=(), url="https://masks.example/set")
    assert publish(masks, tmp_path / "a", config, credits=sources) == []
    for document in ("README.md", "LICENSE", "datasheet.md"):
        text = (tmp_path / "a" / document).read_text()
        assert "| clip0.mp4 | a lake | CC-BY-4.0 |" in text and "| clip1.mp4 | a river | CC0-1.0 |" in text


def test_the_citation_file_and_the_head_of_the_card_are_yaml(dist):
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
    assert all(row["image"]["path"] == row["file_name"] for row in table)


def test_the_parquet_tells_hugging_face_the_types_of_its_columns(dist):
    schema = pytest.importorskip("pyarrow.parquet").read_schema(dist / "archives" / "masks.parquet")
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"} and set(features) == set(schema.names)
    assert features["hole_ratio"] == {"dtype": "float64", "_type": "Value"}
    assert features["border_distance"]["dtype"] == "int64" and features["category"]["dtype"] == "string"


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
    metadata = json.loads((dist / "croissant.json").read_text())
    assert "http://mlcommons.org/croissant/RAI/1.0" in metadata["conformsTo"]
    fields = ("dataCollection", "dataBiases", "dataLimitations", "dataSocialImpact", "personalSensitiveInformation")
    assert all(metadata[f"rai:{field}"] for field in fields)


def test_croissant_lists_the_files_with_their_sizes_and_hashes(dist):
    metadata = json.loads((dist / "croissant.json").read_text())
    archive, index, masks_ = metadata["distribution"]
    for entry in (archive, index):
        data = (dist / entry["contentUrl"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(data).hexdigest() and entry["contentSize"] == f"{len(data)} B"
    assert masks_["containedIn"] == {"@id": "archive"}
    fields = [field["name"] for field in metadata["recordSet"][0]["field"]]
    assert fields == (dist / "test" / "metadata.csv").read_text().splitlines()[0].split(",")
    assert metadata["license"] == "https://creativecommons.org/licenses/by/4.0/legalcode"
    assert metadata["url"] == CONFIG.url and metadata["datePublished"] == CONFIG.date
    assert metadata["description"].startswith(
        "12 binary masks of 512 x 512 px, 8-bit grey PNG. White (255) is the hole"
    )
    assert metadata["isBasedOn"][0] == "clip0.mp4 (a lake, CC-BY-4.0)"


def test_archives_have_no_times_of_their_own(dist):
    with zipfile.ZipFile(dist / "archives" / "masks.zip") as archive:
        for entry in archive.infolist():
            assert (entry.date_time, entry.compress_type) == ((1980, 1, 1, 0, 0, 0), zipfile.ZIP_STORED)
            assert entry.external_attr >> 16 == 0o100644
    with tarfile.open(dist / "archives" / "webdataset" / "free_0.1-0.2.tar") as archive:
        entries = archive.getmembers()
    assert [entry.name for entry in entries] == ["free_0-1-0-2_00000.png", "free_0-1-0-2_00000.json"]
    assert {(entry.mtime, entry.mode) for entry in entries} == {(0, 0o644)}


INDEX = pd.DataFrame(
    {
        "file_name": ["a.png"] * 6,
        "category": ["interior_0.01-0.1", *["free_0.1-0.2"] * 3, *["interior_0.1-0.2"] * 2],
        "border_distance": [50, 0, 0, 7, 60, 60],
        "hole_ratio": [0.05, *[0.15] * 5],
    }
)


def test_the_documents_count_the_masks_of_each_class():
    text = texts.datasheet(INDEX, {}, [], CONFIG)
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith(("| hole ratio", "| ("))]
    assert rows[:3] == [["hole ratio", "interior", "free"], ["(0.01, 0.1]", "1", "0"], ["(0.1, 0.2]", "2", "3"]]
    assert text.count("\n| (") == 6 and "6 binary masks" in text and "2 of the 3 free masks touch the edge" in text


@pytest.mark.parametrize(
    ("number", "size"), [(6, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10_000, "10K<n<100K"), (12_000, "10K<n<100K")]
)
def test_the_card_has_hugging_faces_facts_about_a_set(tmp_path, number, size):
    yaml = pytest.importorskip("yaml")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "a.png").write_bytes(b"1234567")
    table = pd.concat([INDEX] * (number // 6 + 1))[:number]
    head = yaml.safe_load(texts.card(table, {}, [], CONFIG, tmp_path).split("---")[1])
    assert head["size_categories"] == [size]
    assert head["dataset_info"]["splits"] == [{"name": "test", "num_bytes": 7 * number, "num_examples": number}]
    assert head["dataset_info"]["features"] == [
        {"name": "image", "dtype": "image"},
        {"name": "category", "dtype": "string"},
        {"name": "border_distance", "dtype": "int64"},
        {"name": "hole_ratio", "dtype": "float64"},
    ]


def test_the_datasheet_lists_settings_and_shares_of_clipped_outline():
    recipe = {"settings": {"seed": 0, "kind": "a"}, "clipped": {"interior_0.1-0.2": {"mean": 0.1, "max": 0.3}}}
    text = texts.datasheet(INDEX, recipe, [], CONFIG)
    assert '* seed: `0`\n* kind: `"a"`\n' in text and "* interior_0.1-0.2: mean 0.1, highest 0.3\n" in text


def test_each_licence_has_its_own_address_and_an_unknown_one_has_none():
    text = texts.licence_text([], replace(CONFIG, licence="CC0-1.0"))
    assert text.startswith(f"{CONFIG.title}\nCopyright 2026 irregular-masks contributors\n")
    assert "licensed under CC0-1.0: https://creativecommons.org/publicdomain/zero/1.0/legalcode\n\nThey" in text
    assert "licensed under Lic\n\nThey" in texts.licence_text([], replace(CONFIG, licence="Lic"))


def test_the_citation_leaves_out_an_unknown_address():
    assert texts.bibtex(replace(CONFIG, url="", title="Holes")) == (
        "@misc{irregular_masks_testset,\n  title = {Holes},\n  author = {{irregular-masks contributors}},\n"
        "  year = {2026},\n  version = {1.0.0},\n}"
    )
    assert "\ndate-released: 2026-11-23\n" in texts.citation(CONFIG)
    assert texts.citation(CONFIG).endswith('license: "CC-BY-4.0"\nurl: "https://masks.example/set"\n')
    assert texts.citation(replace(CONFIG, url="")).endswith('license: "CC-BY-4.0"\n')


def test_nvidias_layout_is_flat_and_in_blocks(masks, tmp_path):
    publish_nvidia(masks, tmp_path / "n", CONFIG)
    with zipfile.ZipFile(tmp_path / "n" / "test_mask.zip") as archive:
        assert archive.namelist() == [f"mask/testing_mask_dataset/{i:05d}.png" for i in range(12)]
        rows = list(csv.DictReader((tmp_path / "n" / "index.csv").open()))
        assert [row["file_name"] for row in rows] == archive.namelist()
        for row in rows:
            assert archive.read(row["file_name"]) == (masks / "test" / row["original"]).read_bytes()
    assert [row["category"] for row in rows[:4]] == [
        "free_0.01-0.1",
        "interior_0.01-0.1",
        "free_0.1-0.2",
        "interior_0.1-0.2",
    ]


def test_other_folders_than_a_test_set_and_a_new_folder_are_refused(masks, tmp_path):
    with pytest.raises(BadInput, match="no recipe"):
        publish(tmp_path, tmp_path / "out", CONFIG)
    (tmp_path / "thesis.tex").write_text("dear")
    with pytest.raises(BadInput, match="not empty"):
        publish(masks, tmp_path, CONFIG)
    for out in (masks, masks / "dist"):
        with pytest.raises(BadInput, match="is the mask set, or is inside it"):
            publish(masks, out, CONFIG)
    with pytest.raises(BadInput, match="unknown archive 'rar'"):
        publish(masks, tmp_path / "out", PublishConfig(archives=("rar",)))


@pytest.mark.parametrize("date", ["today", "2026-13-01", "20261123", "", "23.11.2026"])
def test_an_invalid_date_is_refused(masks, tmp_path, date):
    with pytest.raises(BadInput, match="expected a date of publication such as 2026-11-23"):
        publish(masks, tmp_path / "out", PublishConfig(archives=(), date=date))


PLAIN = PublishConfig(url="https://masks.example/set", archives=("webdataset",))


@pytest.mark.parametrize("layout", [publish, publish_nvidia])
def test_publishing_again_has_nothing_to_do(masks, tmp_path, layout, sketched):
    said = []
    for _ in range(2):
        layout(masks, tmp_path / "dist", PLAIN, say=said.append)
    assert said == [f"{tmp_path / 'dist'} is already complete"]


def test_other_settings_rewrite_the_documents_as_in_a_new_folder(masks, tmp_path, sketched):
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


def test_another_version_of_a_library_rewrites_the_recipe(masks, tmp_path, monkeypatch, sketched):
    publish(masks, tmp_path / "dist", PLAIN)
    monkeypatch.setattr(run, "library_versions", lambda *names: {"matplotlib": "9.9"})
    publish(masks, tmp_path / "dist", PLAIN)
    assert json.loads((tmp_path / "dist" / "recipe.json").read_text())["libraries"]["matplotlib"] == "9.9"
    assert find_faults(tmp_path / "dist", workers=1) == (12, [])


@pytest.mark.parametrize("moment", ["write_whole", "_archives", "citation", "write_checksums"])
def test_the_same_command_finishes_an_interrupted_publication(masks, tmp_path, monkeypatch, moment, sketched):
    publish(masks, tmp_path / "whole", PLAIN)
    publish(masks, tmp_path / "again", PLAIN)
    for out, config in (("new", PLAIN), ("again", replace(PLAIN, title="Another")), ("again", PLAIN)):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(run, moment, interrupt)
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
    with pytest.raises(BadInput, match=r"00000.png is missing or differs from the index"):
        publish(other, tmp_path / "dist", PLAIN)
    index.write_text(index.read_text().replace(before, after))
    with pytest.raises(BadInput, match=r"created with other settings \(masks was"):
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
def test_a_licence_has_two_spellings_and_an_empty_cell_keeps_the_known_one(masks, tmp_path, table, licence):
    (tmp_path / "SOURCES.csv").write_text(table, encoding="utf-8")
    publish_nvidia(masks, tmp_path / "dist", PLAIN, credits=tmp_path / "SOURCES.csv")
    source = json.loads((tmp_path / "dist" / "recipe.json").read_text())["sources"][0]
    assert source["licence"] == licence and source["source"] == ("a pond" if "a pond" in table else "a lake")


def test_names_with_decomposed_accents_are_the_same_names(tmp_path):
    (tmp_path / "SOURCES.csv").write_text("file,licence\nété.mp4,CC0-1.0\n", encoding="utf-8")
    sources = [{"name": "lac", "file": unicodedata.normalize("NFD", "été.mp4")}]
    assert run._with_credits(sources, None)[1] == [
        "1 of 1 videos have no stated licence, such as lac: add them with --sources"
    ]
    credited, warnings = run._with_credits(sources, tmp_path / "SOURCES.csv")
    assert credited[0]["licence"] == "CC0-1.0" and warnings == [] and "licence" not in sources[0]


def test_credits_of_other_videos_only_give_a_warning(masks, tmp_path):
    (tmp_path / "SOURCES.csv").write_text("file,licence\nother.mp4,CC0\n")
    warnings = publish_nvidia(masks, tmp_path / "dist", PLAIN, credits=tmp_path / "SOURCES.csv")
    assert any("lists none of the 2 videos; its first row is other.mp4" in warning for warning in warnings)


def test_special_characters_in_a_title_are_escaped_in_yaml_json_and_bibtex(masks, tmp_path, sketched):
    yaml = pytest.importorskip("yaml")
    config = replace(PLAIN, archives=(), title='The "holes": 50 % & more_', name="my set", licence="Lic: v1")
    publish(masks, tmp_path / "dist", config)
    documents = {
        name: (tmp_path / "dist" / name).read_text() for name in ("README.md", "CITATION.cff", "croissant.json")
    }
    head = yaml.safe_load(documents["README.md"].split("---")[1])
    assert (head["pretty_name"], head["license_name"]) == (config.title, "Lic: v1")
    assert yaml.safe_load(documents["CITATION.cff"])["license"] == "Lic: v1"
    cited = json.loads(documents["croissant.json"])["citeAs"]
    assert cited.startswith("@misc{my_set,") and r"50 \% \& more\_" in cited


def test_nvidias_layout_takes_no_archives(masks, tmp_path):
    words = ["publish", str(masks), str(tmp_path / "dist"), "--layout", "nvidia", "--archives", "parquet"]
    done = CliRunner().invoke(cli.maskgen, words)
    assert done.exit_code == 2 and "--archives needs --layout imagefolder" in done.output


def test_a_correct_set_has_no_faults(masks, dist):
    assert find_faults(dist, workers=1) == (12, [])
    assert find_faults(masks, workers=1) == (12, [])


def test_system_files_are_no_faults_and_have_no_checksums(masks, copy):
    litter = ["Thumbs.db", "test/.ipynb_checkpoints/00000.png", "test/__MACOSX/._00000.png", "test/._a.png"]
    for name in litter:
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_bytes(b"no mask")
    with pytest.warns(InputWarning, match="3 hidden or system files are skipped"):
        assert find_faults(copy, workers=1) == (12, [])
    before = (copy / "checksums.sha256").read_bytes()
    files.write_checksums(copy)
    assert (copy / "checksums.sha256").read_bytes() == before


def test_masks_with_other_endings_and_in_linked_folders_are_found(copy, tmp_path):
    (tmp_path / "more").mkdir()
    shutil.copy(copy / "test" / "free_0.2-0.3" / "00000.png", tmp_path / "more" / "A.PNG")
    (tmp_path / "more" / "b.jpeg").write_bytes(b"")
    (copy / "test" / "linked").symlink_to(tmp_path / "more", target_is_directory=True)
    faults = find_faults(copy, workers=1)[1]
    for name in ("A.PNG", "b.jpeg"):
        assert f"test/linked/{name}: there, but not listed" in faults
        assert f"test/linked/{name}: there, but not in checksums.sha256" in faults


def test_an_index_may_start_with_a_byte_order_mark(copy):
    index = copy / "test" / "metadata.csv"
    index.write_bytes(b"\xef\xbb\xbf" + index.read_bytes())
    files.write_checksums(copy)
    assert find_faults(copy, workers=1) == (12, [])


def test_a_mask_in_another_form_is_a_fault(copy):
    path = copy / "test" / "free_0.1-0.2" / "00000.png"
    cv2.imwrite(str(path), cv2.imread(str(path)))  # the same pixels as RGB
    faults = "\n".join(find_faults(copy, workers=1)[1])
    assert "expected an 8-bit grey PNG" in faults and "other values" not in faults


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
    faults = "\n".join(find_faults(copy, workers=1)[1])
    assert f"test/{name}: hole_ratio is 0.001953" in faults and f"test/{name}: sha256 is" in faults
    assert f"test/{name}: differs from checksums.sha256" in faults
    assert f"test/{name}: lies in free_0.1-0.2, but measures as outside all classes" in faults


def test_missing_unlisted_and_repeated_masks_are_found(copy):
    (copy / "test" / "free_0.1-0.2" / "00000.png").unlink()
    shutil.copy(copy / "test" / "free_0.2-0.3" / "00000.png", copy / "test" / "free_0.2-0.3" / "00001.png")
    rewrite_index(copy, lambda rows: rows.append(rows[0]))
    faults = "\n".join(find_faults(copy, workers=1)[1])
    assert "test/free_0.1-0.2/00000.png: listed, but not there" in faults
    assert "test/free_0.2-0.3/00001.png: there, but not listed" in faults
    assert "test/interior_0.01-0.1/00000.png: listed twice" in faults
    assert "test/free_0.2-0.3/00001.png: there, but not in checksums.sha256" in faults


def test_grey_pixels_and_other_sizes_are_found(copy):
    grey = np.zeros((512, 512), np.uint8)
    grey[100:300, 100:300] = 200
    cv2.imwrite(str(copy / "test" / "free_0.1-0.2" / "00000.png"), grey)
    (copy / "test" / "free_0.2-0.3" / "00000.png").write_bytes(encode(np.eye(256, dtype=bool)))
    faults = "\n".join(find_faults(copy, workers=1)[1])
    assert "40000 pixels have other values" in faults and "different sizes: 256x256, 512x512" in faults


def test_a_wrong_row_of_the_index_is_found(copy):
    rewrite_index(copy, lambda rows: rows[3].update(border_distance="7", category="free_0.5-0.6"))
    faults = "\n".join(find_faults(copy, workers=1)[1])
    assert "the index says 7" in faults and "the index says free_0.5-0.6" in faults
    assert "free_0.5-0.6 has 2 masks in the index, the recipe says 1" in faults


def test_names_that_point_outside_the_set_are_not_followed(copy):
    rewrite_index(copy, lambda rows: rows[0].update(file_name="../../etc/passwd"))
    assert "../../etc/passwd: leads out of the mask set" in find_faults(copy, workers=1)[1]


# Sequences


@pytest.fixture(scope="module")
def sequences(tmp_path_factory):
    out = tmp_path_factory.mktemp("set") / "sequences"
    config = SequenceConfig(train=3, test=4, frames=5, size=(96, 64), modes=("stationary", "drifting"))
    make_sequences([], write_raw(out.parent / "raw", 8), out, config, workers=1, say=lambda line: None)
    return out


@pytest.fixture(scope="module")
def sequences_dist(sequences, tmp_path_factory):
    out = tmp_path_factory.mktemp("published") / "dist"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publish_sequences, "PART", 3)
        publish(sequences, out, CONFIG)
    return out


def test_published_sequences_keep_their_bytes_and_verify(sequences, sequences_dist):
    frames = {path: data for path, data in contents(sequences).items() if path.suffix == ".png"}
    assert len(frames) == 7 * 5 and frames.items() <= contents(sequences_dist).items()
    assert find_faults(sequences_dist, workers=1) == (7, [])
    subprocess.run(["sha256sum", "--check", "--quiet", "checksums.sha256"], cwd=sequences_dist, check=True)


def test_an_unpacked_archive_is_a_set_of_its_own(sequences, sequences_dist, tmp_path):
    archives = sorted((sequences_dist / "archives").iterdir())
    assert [path.name for path in archives] == ["test-00.zip", "test-01.zip", "train-00.zip"]
    found = {}
    for path in archives:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path / path.stem)
        assert find_faults(tmp_path / path.stem, workers=1)[1] == []
        found |= {name: data for name, data in contents(tmp_path / path.stem).items() if name.suffix == ".png"}
    assert found == {name: data for name, data in contents(sequences).items() if name.suffix == ".png"}


def test_the_card_of_sequences_counts_them_and_says_which_colour_is_the_hole(sequences_dist):
    card = (sequences_dist / "README.md").read_text()
    assert "7 sequences of 5 binary masks of 96x64 px" in card.replace("96 x 64", "96x64")
    assert "**White (255) is the hole**" in card and "Irregular mask sequences" in card
    cells = [
        int(cell) for line in card.splitlines() if line.startswith("| (") for cell in re.findall(r"\| (\d+)", line)
    ]
    assert len(cells) == 18 and sum(cells) == 7
    assert "* `archives/test-01.zip`: 1 of the sequences" in card


def test_sequences_that_are_published_again_stay_the_same(sequences, sequences_dist, monkeypatch):
    monkeypatch.setattr(publish_sequences, "PART", 3)
    before = contents(sequences_dist)
    publish(sequences, sequences_dist, replace(CONFIG, title="Another title"))
    assert "# Another title" in (sequences_dist / "README.md").read_text()
    publish(sequences, sequences_dist, CONFIG)
    assert contents(sequences_dist) == before


def test_changed_sequences_and_other_archives_are_refused(sequences, tmp_path):
    copy = shutil.copytree(sequences, tmp_path / "copy")
    next(copy.glob("test/*/00002.png")).write_bytes(encode(np.eye(96, dtype=bool)))
    with pytest.raises(BadInput, match=r"is incomplete or differs from the index: run `maskgen verify"):
        publish(copy, tmp_path / "out", CONFIG)
    done = CliRunner().invoke(cli.maskgen, ["publish", str(sequences), str(tmp_path / "x"), "--archives", "parquet"])
    assert done.exit_code == 2 and "sequences have zips only" in done.stderr
    done = CliRunner().invoke(cli.maskgen, ["publish", str(sequences), str(tmp_path / "x"), "--layout", "nvidia"])
    assert done.exit_code == 2 and "expected a test set of single masks" in done.stderr
