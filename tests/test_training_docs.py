"""The recipes of docs/training.md: each block that begins with a file name is run as that file."""

import importlib
import importlib.util
import random
import re
import sys
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from rawmasks import streaks
from test_docs import BLOCK, FILE, ROOT

from maskgen import MaskSampler, SequenceSampler

PAGE = (ROOT / "docs/training.md").read_text(encoding="utf-8")
BLOCKS = [match["code"] for match in BLOCK.finditer(PAGE)]
FILES = {code.splitlines()[0].removeprefix("# "): code for code in BLOCKS if FILE.match(code)}
PHOTOS = 5


def needs(package):
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"needs {package}")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with photos and the files of the page, from which Python imports."""
    (tmp_path / "photos").mkdir()
    for i in range(PHOTOS):
        photo = Image.fromarray(np.roll(skimage.data.astronaut()[::2, ::2], 40 * i, axis=1))
        photo.save(tmp_path / f"photos/{i}.jpg")
    for name, code in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [*FILES, "saicinpainting/training/data", "saicinpainting/training", "saicinpainting"]:
        sys.modules.pop(name.removesuffix(".py").replace("/", "."), None)


def losses(script, epochs, capsys):
    """What a script prints of its losses, by epoch."""
    importlib.import_module(script).main(epochs)
    return dict(re.findall(r"epoch (\d+): loss (\S+)", capsys.readouterr().out))


def test_every_block_compiles():
    for code in BLOCKS:
        compile(code, "docs/training.md", "exec")


def test_a_photo_has_the_mask_of_its_index_in_each_epoch(folder):
    from inpainting_data import Epochs, Inpainting
    from torch.utils.data import DataLoader

    data, seen = Inpainting("photos", size=64), []
    order = Epochs(data, num_replicas=1, rank=0)
    loader = DataLoader(data, sampler=order, num_workers=2, persistent_workers=True)
    for epoch in range(2):
        order.set_epoch(epoch)
        indices, batches = list(order), list(loader)
        assert sorted(indices) == list(range(epoch * PHOTOS, (epoch + 1) * PHOTOS))
        for i, (image, hole) in zip(indices, batches, strict=True):
            assert np.array_equal(hole[0, 0], MaskSampler(size=64)[i])
            assert np.array_equal(image[0], data[i % PHOTOS][0])
        seen += [crc32(hole.numpy()) for _, hole in batches]
    assert len(set(seen)) == 2 * PHOTOS


def test_two_processes_share_the_indices_of_an_epoch(folder):
    from inpainting_data import Epochs, Inpainting

    data, drawn = Inpainting("photos"), []
    for rank in range(2):
        order = Epochs(data, num_replicas=2, rank=rank)
        order.set_epoch(3)
        drawn += list(order)
    assert set(drawn) == set(range(3 * PHOTOS, 4 * PHOTOS))


@pytest.mark.parametrize(
    "script",
    [
        "train_torch",
        pytest.param("train_lightning", marks=needs("lightning")),
        pytest.param("train_accelerate", marks=needs("accelerate")),
        pytest.param("train_webdataset", marks=needs("webdataset")),
    ],
)
def test_a_resumed_training_is_as_an_uninterrupted_one(folder, capsys, monkeypatch, script):
    if script == "train_webdataset":
        write_shards(folder)
    epochs = epochs_of_the_sampler(monkeypatch)
    whole = losses(script, 2, capsys)
    assert list(whole) == ["0", "1"]
    assert script == "train_webdataset" or set(epochs) == {0, 1}
    for state in ("last.pt", "states", "checkpoints"):
        if (folder / state).exists():
            (folder / state).rename(folder / f"{state}.whole")
    assert list(losses(script, 1, capsys)) == ["0"]
    assert losses(script, 2, capsys) == {"1": whole["1"]}


def epochs_of_the_sampler(monkeypatch):
    """A list to which `Epochs` adds its epoch whenever its indices are drawn."""
    from inpainting_data import Epochs

    epochs, indices = [], Epochs.__iter__
    monkeypatch.setattr(Epochs, "__iter__", lambda order: epochs.append(order.epoch) or indices(order))
    return epochs


def write_shards(folder):
    import webdataset

    (folder / "shards").mkdir()
    for shard in range(2):
        with webdataset.TarWriter(str(folder / "shards" / f"{shard}.tar")) as tar:
            for photo in sorted((folder / "photos").glob("*.jpg"))[shard::2]:
                tar.write({"__key__": photo.stem, "jpg": photo.read_bytes()})


@needs("webdataset")
def test_the_key_of_a_sample_gives_its_mask_in_each_epoch(folder):
    from train_webdataset import SIZE, loader_of

    write_shards(folder)
    shards, masks = [str(path) for path in sorted((folder / "shards").glob("*.tar"))], MaskSampler(size=SIZE)

    def holes(epoch):
        return {crc32(hole.numpy()) for _, batch in loader_of(shards, masks, epoch) for hole in batch}

    assert holes(1) == holes(1) and len(holes(0) | holes(1)) == 2 * PHOTOS


def ratio_of(mask):
    """Share of white pixels of a picture, which has black and white ones only."""
    values = np.asarray(mask)
    assert set(np.unique(values)) == {0, 255}
    return (values == 255).mean()


def with_the_changes(marker):
    """The code of a block of changes that contains a text, as it is after them."""
    (block,) = [
        block for block in re.findall(r"^```diff\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL) if marker in block
    ]
    return "".join(line[1:] or "\n" for line in block.splitlines(keepends=True))


def test_the_function_of_diffusers_scripts_with_its_changes():
    names = {"random": random, "Image": Image}
    exec(with_the_changes("mask_full_image") + "    return mask\n", names)
    random.seed(0)
    masks = [names["random_mask"](size, 1, False) for size in ((320, 200), (320, 200), (64, 64))]
    assert [mask.size for mask in masks] == [(320, 200), (320, 200), (64, 64)]
    assert all(0 < ratio_of(mask) < 0.7 for mask in masks) and masks[0] != masks[1]
    random.seed(0)
    assert names["random_mask"]((320, 200), 1, False) == masks[0]
    assert names["random_mask"]((320, 200), 1, True).getextrema() == (0, 0)  # the script goes on as before


@pytest.mark.parametrize("name", ["irregular", "irregular_files"])
def test_a_mask_generator_of_lama(folder, name):
    write_masks(folder / "masks/train")
    names = {}
    changed = with_the_changes("import IrregularMasks as cl").replace("data.irregular ", f"data.{name} ")
    exec(
        f"def get_mask_generator(kind, kwargs):\n    if kind is None:\n        pass\n{changed}    return cl(**kwargs)",
        names,
    )
    generator = names["get_mask_generator"]("irregular", {"folder": "masks/train"} if "files" in name else {})
    torch.manual_seed(0)
    masks = [generator(np.zeros((3, 40, 60), np.float32), iter_i=0) for _ in range(8)]
    assert {mask.shape for mask in masks} == {(1, 40, 60)} and {mask.dtype for mask in masks} == {np.dtype(np.float32)}
    assert all(set(np.unique(mask)) == {0, 1} for mask in masks)
    assert len({crc32(mask) for mask in masks}) > 1
    torch.manual_seed(0)
    assert np.array_equal(generator(np.zeros((3, 40, 60), np.float32)), masks[0])


class AsInLama(torch.utils.data.Dataset):
    """Calls a mask generator as LaMa's data set does: iter_i starts at 0 in each worker."""

    def __init__(self, generator):
        self.generator, self.iter_i = generator, 0

    def __len__(self):
        return 4

    def __getitem__(self, item):
        self.iter_i += 1
        return self.generator(np.zeros((3, 64, 64)), iter_i=self.iter_i - 1)


def test_workers_of_lama_draw_other_masks(folder):
    from saicinpainting.training.data.irregular import IrregularMasks

    loader = torch.utils.data.DataLoader(AsInLama(IrregularMasks()), num_workers=2)
    assert len({crc32(batch.numpy()) for _ in range(2) for batch in loader}) == 8


def write_masks(folder):
    folder.mkdir(parents=True)
    for seed in range(3):
        Image.fromarray(streaks(seed, side=64)).convert("L").save(folder / f"{seed}.png")


def test_the_end_of_kohyas_mask_generator(folder):
    write_masks(folder / "masks/train")
    from mask_generator_end import random_mask

    mask = random_mask(96, 32)
    assert (mask.size, mask.mode) == ((96, 32), "L") and 0 < ratio_of(mask) < 1


def test_loss_masks_have_the_names_and_sizes_of_the_photos(folder):
    from loss_masks import write_loss_masks

    write_loss_masks("photos", "loss_masks")
    masks = {path.stem: Image.open(path) for path in Path("loss_masks").iterdir()}
    assert sorted(masks) == sorted(path.stem for path in Path("photos").iterdir())
    assert all(mask.size == (256, 256) and 0 < ratio_of(mask) < 0.7 for mask in masks.values())


@needs("diffusers")
def test_a_training_step_and_a_pipeline_of_diffusers(folder):
    from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionInpaintPipeline, UNet2DConditionModel
    from diffusion_loss import diffusion_loss
    from fill import fill_at_random
    from inpainting_data import Inpainting

    from maskgen import random_mask

    blocks = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
    size = {"block_out_channels": (32,), "layers_per_block": 1}
    unet = UNet2DConditionModel(in_channels=9, out_channels=4, cross_attention_dim=8, sample_size=32, **blocks, **size)
    vae = AutoencoderKL(
        latent_channels=4,
        sample_size=64,
        block_out_channels=(32, 32),
        **{
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
        },
    )
    image, hole = torch.utils.data.default_collate([Inpainting("photos", size=64)[i] for i in range(2)])
    loss = diffusion_loss(unet, vae, DDPMScheduler(), torch.zeros(2, 3, 8), image, hole)
    loss.backward()
    assert loss.item() > 0 and unet.conv_in.weight.grad[:, 4].abs().sum() > 0  # channel 4 is the hole

    pipeline = StableDiffusionInpaintPipeline(
        vae,
        None,
        None,
        unet,
        DDPMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    photo = Image.open("photos/0.jpg").resize((96, 64))
    text = {"prompt_embeds": torch.zeros(1, 3, 8), "guidance_scale": 1.0}
    filled = fill_at_random(pipeline, photo, 7, num_inference_steps=2, width=96, height=64, **text)
    assert filled.size == photo.size
    mask = random_mask(*photo.size, seed=7)
    assert pipeline.mask_processor.preprocess(mask).mean().item() == pytest.approx(ratio_of(mask))  # 1 is filled


# Video inpainting


def stacked(masks):
    """A list of PIL masks as the data sets of STTN and its successors stack them: float (T, 1, H, W) in 0..1."""
    assert all(mask.mode == "L" for mask in masks)
    return torch.from_numpy(np.stack([np.array(mask) for mask in masks])).float()[:, None] / 255


def test_the_stand_in_of_the_random_shapes_returns_masks_of_any_length_and_size(folder):
    module = importlib.import_module("moving_masks")
    for length, height, width in ((12, 240, 432), (5, 64, 96), (31, 128, 128)):
        masks = stacked(module.create_random_shape_with_random_motion(length, imageHeight=height, imageWidth=width))
        assert masks.shape == (length, 1, height, width) and masks.unique().tolist() == [0, 1]
    assert stacked(module.create_random_shape_with_random_motion(3)).shape == (3, 1, 240, 432)


def test_the_seed_of_a_worker_decides_which_masks_it_draws(folder):
    module, drawn = importlib.import_module("moving_masks"), []
    for seed in (1, 1, 2):
        random.seed(seed)
        drawn.append(stacked(module.create_random_shape_with_random_motion(4, 64, 96)))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_sequences_from_files_run_back_and_forth(folder):
    frames = np.arange(48)[None, None] < 8 * (np.arange(4) + 1)[:, None, None]  # 8, 16, 24 and 32 columns of 48
    frames = np.broadcast_to(frames, (4, 32, 48))
    path = folder / "masks/sequences/train/a"
    path.mkdir(parents=True)
    for t, hole in enumerate(frames):
        Image.fromarray(hole.astype(np.uint8) * 255).save(path / f"{t:05d}.png")
    module = importlib.import_module("sequences_from_files")
    masks = stacked(module.create_random_shape_with_random_motion(9, imageHeight=64, imageWidth=96))
    assert masks.shape == (9, 1, 64, 96)
    assert masks.sum((1, 2, 3)).div(64 * 2 * 8).tolist() == [1, 2, 3, 4, 3, 2, 1, 2, 3]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_moving_masks_are_the_same_for_any_number_of_workers(folder, workers):
    data = importlib.import_module("video_inpainting_data").MovingMasks(5, frames=4, size=(64, 96), seed=3)
    alone = SequenceSampler(frames=4, size=(64, 96), seed=3)
    loader = torch.utils.data.DataLoader(data, batch_size=2, num_workers=workers)
    batches = torch.cat(list(loader))
    assert batches.shape == (5, 4, 1, 64, 96)
    assert torch.equal(batches[:, :, 0].bool(), torch.from_numpy(np.stack([alone[i] for i in range(5)])))
