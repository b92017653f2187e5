"""Fill the holes of photos of any size and kind with a trained net."""

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from maskgen.checks import expect, one_of
from maskgen.errors import BadInput, warn
from maskgen.maskset import check_polarity, read_hole
from maskgen.runtime import images
from maskgen.runtime.recipe import library_versions
from pconv_model import checkpoints
from pconv_model.photos import Job, each, folder_of, pairs, places, run
from pconv_model.settings import BROAD, DEEP, KINDS, OVERLAP, PRECISIONS, SHALLOW, SMALLEST, TILE
from pconv_model.unet import UNet

WEIGHTS = Path(__file__).parent / "weights"


def load(
    weights: Path | None = None,
    kind: str = "pconv",
    device: str = "cpu",
    precision: str = "fp32",
    mirror: bool = False,
    scales: bool = True,
) -> UNet:
    """A net ready for `inpaint`. weights: a file of ours; None takes the one that ships for this kind.

    precision: "fp32", or "bf16", which runs the convolutions in bfloat16: faster where the processor has it, and
    most filled pixels change by a grey level or so. mirror: a result is the mean of the image's own and of its mirror
    image's, turned back (one of the seven ways of Timofte et al. 2016, "Seven ways to improve example-based single
    image super resolution"), in twice the time. scales: colours deep in holes come from the image at half its size, and
    so on; False is the net's own answer, as in the paper. Raises BadInput where there is no such file, or where it
    holds another kind of net.
    """
    expect("precision", precision, one_of(PRECISIONS))
    expect("kind", kind, one_of(KINDS))
    path = weights or WEIGHTS / f"{kind}.safetensors"
    if weights is None and not path.is_file():
        raise BadInput(
            f"no weights of {kind!r} are shipped here: train them with `pconv train` and pass --weights FILE"
        )
    model = checkpoints.load(path)
    if model.config.kind != kind:
        raise BadInput(f"{path} holds a net of kind {model.config.kind!r}, expected {kind!r}")
    model.precision, model.mirror, model.scales = precision, mirror, scales
    return model.to(device, memory_format=torch.channels_last)


def inpaint(model: UNet, image: np.ndarray, hole: np.ndarray, raw: bool = False, *, tile: int = TILE) -> np.ndarray:
    """Fill the holes of one image. Returns an array of the image's own shape and dtype.

    image: uint8 or uint16, grey (H, W) or (H, W, 1), RGB (H, W, 3), or with alpha (H, W, 4); any height and width.
    hole: bool (H, W). raw: the net's answer everywhere; otherwise known pixels return untouched. Filled pixels
    become opaque, and grey where every known pixel is (R = G = B): the mean of the net's three channels. What is
    stored in the holes never matters. tile: px, multiple of the net's stride; an image larger than that is done in
    overlapping tiles.
    """
    return next(inpaint_batch(model, [image], [hole], raw, tile=tile))


def inpaint_batch(model: UNet, images, holes, raw: bool = False, *, batch: int = 8, tile: int = TILE) -> Iterator:
    """Yield the filled images in order. images, holes: iterables of the same length, as for `inpaint`.

    Up to `batch` neighbours of one size go through the net together, those larger than a tile one by one. Which
    neighbours an image has may change its rounding.
    """
    tile = max(tile // model.stride, 1) * model.stride
    waiting = []
    for image, hole in zip(images, holes, strict=True):
        _check(image, hole)
        if waiting and (len(waiting) == batch or hole.shape != waiting[0][1].shape):
            yield from _fill(model, waiting, raw, tile)
            waiting = []
        waiting.append((image, hole))
        if max(hole.shape) > tile:  # its arrays take the memory of many that are smaller
            yield from _fill(model, waiting, raw, tile)
            waiting = []
    if waiting:
        yield from _fill(model, waiting, raw, tile)


def _check(image, hole):
    if image.dtype not in (np.uint8, np.uint16):
        raise BadInput(f"images are uint8 or uint16, got {image.dtype}")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)) or not image.size:
        raise BadInput(f"images are grey, RGB or RGB with alpha, got an array of shape {image.shape}")
    if hole.dtype != bool or hole.ndim != 2:
        raise BadInput(f"a hole is bool (H, W), got {hole.dtype} of shape {hole.shape}")
    _check_sizes(image, hole, "the image", "the mask")


def _check_sizes(image, hole, photo, mask):
    if hole.shape == image.shape[:2]:
        return
    (height, width), (rows, columns) = image.shape[:2], hole.shape
    turned = (rows, columns) == (width, height)
    way = "turn it, photos are taken as they are shown" if turned else "make a mask as large as the photo"
    raise BadInput(f"{mask} has {columns}x{rows} px and {photo} {width}x{height}: {way}")


def _fill(model, pairs, raw, tile):
    colours = [_as_rgb(image) for image, _ in pairs]
    holes = [hole for _, hole in pairs]
    filled = _at_all_scales(model, colours, holes, tile, raw) if raw or any(hole.any() for hole in holes) else colours
    for (image, hole), result in zip(pairs, filled, strict=True):
        yield _as_stored(result, image, np.ones_like(hole) if raw else hole, hole)


def _as_rgb(image):
    """RGB of any image we take, uint8 or uint16 (H, W, 3)."""
    planes = image.reshape(*image.shape[:2], -1)
    return np.repeat(planes, 3, 2) if planes.shape[2] == 1 else planes[..., :3]


def _as_stored(result, image, answered, hole):
    """The image with the net's float result (H, W, 3) where it answered, in the image's own shape and dtype."""
    top = np.iinfo(image.dtype).max
    done = image.copy()
    planes = done.reshape(*done.shape[:2], -1)  # a view, also for (H, W)
    if result.dtype != image.dtype:
        found = result[answered]
        if _without_colour(planes, hole):
            found = found.mean(1, keepdims=True)
        planes[answered, :3] = np.rint(found.clip(0, 1) * top).astype(image.dtype)
    if planes.shape[2] == 4:
        planes[hole, 3] = top
    return done


def _without_colour(planes, hole):
    """Whether every known pixel of (H, W, C) is grey, as in a photo without colour that is stored as RGB."""
    red = planes[..., 0]
    return all(((plane == red) | hole).all() for plane in np.moveaxis(planes[..., 1:3], 2, 0))


@torch.inference_mode()
def _run(model, colours, holes):
    """The net on images of one size, padded to its stride as holes. Returns float32 (H, W, 3) each, in about [0, 1]."""
    device = model.mean.device
    height, width = holes[0].shape
    down, right = -height % model.stride, -width % model.stride
    pad = torch.nn.functional.pad
    image = torch.from_numpy(np.stack([c.astype(np.float32) / np.iinfo(c.dtype).max for c in colours]))
    image = pad(image.permute(0, 3, 1, 2), (0, right, 0, down)).to(device, memory_format=torch.channels_last)
    valid = pad(torch.from_numpy(~np.stack(holes)).float()[:, None], (0, right, 0, down)).to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=model.precision == "bf16"):
        result = model(image, valid)
        if model.mirror:
            result = (result + model(image.flip(3), valid.flip(3)).flip(3)) / 2
    result = result[..., :height, :width]
    return list(result.permute(0, 2, 3, 1).float().cpu().numpy())


def _at_all_scales(model, colours, holes, tile, raw=False):
    """The net on images of one size, helped by itself on the same at half the size, and so on.

    What lies deeper in a hole than the net sees comes from there; with `scales` so do the broad colours of all that
    lies deep, since a hole half as wide is filled better. Returns float32 (H, W, 3) each, in about [0, 1].
    """
    if max(holes[0].shape) <= tile:
        results = _run(model, colours, holes)
        lost = [(hole & ~_reached(model, hole)).astype(np.float32) for hole in holes]
    else:
        tiled = [_in_tiles(model, colour, hole, tile, raw) for colour, hole in zip(colours, holes, strict=True)]
        results, lost = zip(*tiled, strict=True)
    parts = [_around(hole) for hole in holes]
    helps = model.scales and max(holes[0].shape) >= 2 * SMALLEST
    deep = [helps * _depth(hole[part]) for hole, part in zip(holes, parts, strict=True)]
    asked = [i for i, hole in enumerate(holes) if not hole.all() and (lost[i].any() or deep[i].any())]
    if asked:
        halves = [_halved(colours[i], holes[i]) for i in asked]
        answers = _at_all_scales(model, [colour for colour, _ in halves], [hole for _, hole in halves], tile)
        for i, half, answer in zip(asked, halves, answers, strict=True):
            coarse = _sample(_known_kept(answer, *half), parts[i], holes[i].shape)
            _help(*(array[parts[i]] for array in (results[i], holes[i], lost[i])), deep[i], coarse)
    return results


def _known_kept(result, colour, hole):
    """The net's result in the hole, the image elsewhere, in [0, 1]."""
    return np.where(hole[..., None], result, colour / np.float32(np.iinfo(colour.dtype).max))


def _help(fine, hole, lost, deep, coarse):
    """Give a result, in place, what a coarser one knows better: all that is lost, and broad colours where it is deep.

    fine, coarse: float32 (H, W, 3), the second is used up. hole: bool (H, W). lost, deep: float32 (H, W), 0 to 1.
    """
    gap = np.subtract(coarse, fine, out=coarse)
    fine += lost[..., None] * gap
    if deep.any():
        gap *= 1 - lost[..., None]
        fine += deep[..., None] * _broad(gap, hole)


def _around(hole):
    """The part of an image with all of its hole and the nearest known pixels."""
    left, top, width, height = cv2.boundingRect(hole.view(np.uint8))
    return np.s_[max(top - 1, 0) : top + height + 1, max(left - 1, 0) : left + width + 1]


def _depth(hole):
    """How deep each pixel lies in the hole, float32: 0 up to SHALLOW px from known ones, 1 from DEEP px on."""
    if hole.all():
        return np.zeros(hole.shape, np.float32)
    distance = cv2.distanceTransform(hole.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    return ((distance - SHALLOW) / (DEEP - SHALLOW)).clip(0, 1)


def _broad(values, hole):
    """Values (H, W, 3) of the hole without their fine detail: a mean around each pixel, of the hole alone."""
    blur = partial(cv2.GaussianBlur, ksize=(0, 0), sigmaX=BROAD, borderType=cv2.BORDER_CONSTANT)
    inside = hole.astype(np.float32)
    means = blur(values * inside[..., None])
    means /= blur(inside).clip(1e-6)[..., None]
    return means


def _in_tiles(model, colour, hole, tile, raw):
    """The net on an image larger than a tile: tiles fade into each other, so that no seam shows.

    Returns the result, with the mean colour where no tile sees known pixels, and what share of each pixel's tiles that
    is, float32 (H, W).
    """
    height, width = hole.shape
    total = np.zeros((height, width, 3), np.float32)
    weight, seen = np.zeros((2, height, width), np.float32)
    for top, rows in _spans(height, tile):
        for left, columns in _spans(width, tile):
            part = np.s_[top : top + tile, left : left + tile]
            if not raw and not hole[part].any():
                continue
            result = _run(model, [colour[part]], [hole[part]])[0]
            fade = rows[:, None] * columns
            weight[part] += fade
            fade = np.where(hole[part] & ~_reached(model, hole[part]), 0, fade)
            seen[part] += fade
            total[part] += result * fade[..., None]
    np.divide(total, seen[..., None], out=total, where=seen[..., None] > 0)
    total[seen == 0] = model.mean.cpu().numpy().reshape(3)
    return total, 1 - np.divide(seen, weight, out=np.ones_like(seen), where=weight > 0)


def _spans(length, tile):
    """Where tiles begin along one side, and their weights: 1 inside, falling over the overlap, 1 at the image edge."""
    step = tile - min(OVERLAP, tile // 4)
    count = max(1, -(-(length - tile) // step) + 1)
    starts = [round(i * (length - tile) / (count - 1)) if count > 1 else 0 for i in range(count)]
    for i, start in enumerate(starts):
        weights = np.ones(min(tile, length), np.float32)
        if i:
            shared = starts[i - 1] + tile - start
            weights[:shared] = (np.arange(shared) + 0.5) / shared
        if i + 1 < count:
            shared = start + tile - starts[i + 1]
            weights[-shared:] *= (np.arange(shared)[::-1] + 0.5) / shared
        yield start, weights


def _reached(model, hole):
    down, right = (-side % model.stride for side in hole.shape)
    valid = np.pad(~hole, ((0, down), (0, right))).astype(np.float32)
    valid = torch.from_numpy(valid)[None, None].to(model.mean.device)
    plane = model.reached(valid)
    if model.mirror:  # where both of the averaged results come from known pixels
        plane = plane * model.reached(valid.flip(3)).flip(3)
    return plane[0, 0, : hole.shape[0], : hole.shape[1]].cpu().numpy() > 0


def _halved(colour, hole):
    """Image and hole at half the size; each pixel is the mean of the known pixels it covers."""
    size = [max(1, side // 2) for side in hole.shape[::-1]]
    seen = cv2.resize((~hole).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    clean = np.where(hole[..., None], 0, colour).astype(np.float32)
    small = cv2.resize(clean, size, interpolation=cv2.INTER_AREA) / np.maximum(seen, 1e-6)[..., None]
    return np.rint(small).astype(colour.dtype), seen <= 0


def _sample(coarse, part, shape):
    """A part of the coarse result, at full size."""
    rows = np.arange(shape[0])[part[0]].astype(np.float32)
    columns = np.arange(shape[1])[part[1]].astype(np.float32)
    y = (rows + 0.5) * coarse.shape[0] / shape[0] - 0.5
    x = (columns + 0.5) * coarse.shape[1] / shape[1] - 0.5
    grid = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    return cv2.remap(coarse, *grid, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def inpaint_files(
    model: UNet,
    photos: Path,
    masks: Path,
    out: Path,
    *,
    raw: bool = False,
    polarity: str = "hole-white",
    threshold: int | None = None,
    tile: int = TILE,
    say=print,
) -> int:
    """Fill a photo, or every photo below a folder, into PNG files below `out`. Returns how many were written.

    photos and masks: a file or a folder each, see `pconv_model.photos.pairs`. out: an output folder, to which photos
    may be added later, or the name of one PNG file. polarity, threshold: as in `maskgen.maskset.read_hole`. raw, tile:
    as in `inpaint`. say: is called with a line for the user. Raises BadInput for what the user can mend, and where no
    mask has a hole, before any result is made.
    """
    check_polarity(masks if masks.is_dir() else masks.parent, polarity)
    read = partial(read_hole, polarity=polarity, threshold=threshold)
    found = pairs(photos, masks, out)
    results = places([photo for photo, _ in found], photos, out, ".png")
    jobs = [
        Job(photo.relative_to(folder_of(photos)).as_posix(), {"image": photo, "mask": mask}, result)
        for (photo, mask), result in zip(found, results, strict=True)
    ]

    def check(todo):
        empty = []

        def look(job):
            image, hole = images.read(job.inputs["image"]), read(job.inputs["mask"])
            _check_sizes(image, hole, job.inputs["image"], job.inputs["mask"])
            if not hole.any():
                empty.append(job.inputs["mask"])

        each(todo, "pair", look, leave=False)
        if empty and not raw:
            some = (
                f"{empty[0]} has" if len(jobs) == 1 else f"{len(empty)} of {len(jobs)} masks, such as {empty[0]}, have"
            )
            line = f"{some} no hole ({polarity.removeprefix('hole-')} is a hole)"
            if len(empty) == len(jobs):
                raise BadInput(f"{line}: nothing would be filled")
            warn(f"{line}: their photos come back unchanged")

    def make(job):
        image, metadata = images.read_with_metadata(job.inputs["image"])
        images.write(job.results[0], inpaint(model, image, read(job.inputs["mask"]), raw, tile=tile), metadata)

    how = identity(model, raw=raw, polarity=polarity, threshold=threshold, tile=tile)
    return run(jobs, out, {"made_by": "pconv inpaint", **how}, check, make, say)


def identity(model: UNet, **settings) -> dict:
    """What decides a result besides photo and mask, for a recipe: settings, the net, and what runs it."""
    digest = hashlib.sha256(repr(model.config).encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return {
        "settings": {"precision": model.precision, "mirror": model.mirror, "scales": model.scales, **settings},
        "net": {"kind": model.config.kind, "weights": digest.hexdigest()},
        "device": model.mean.device.type,
        "libraries": library_versions("torch", "numpy", "pillow", "opencv"),
    }
