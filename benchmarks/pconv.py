"""Speed of the partial-convolution U-Net, compared with the plain U-Net and a naive form with a mask per channel.

    python benchmarks/pconv.py              # a 512x512 image and a training step: PConvUNet, ConvUNet, naive
    python benchmarks/pconv.py --settings   # ways to run a 512x512 image, time and peak memory (compiles: a minute)
    python benchmarks/pconv.py --ways       # time and PSNR of --one-scale and --mirror, with the shipped weights
    python benchmarks/pconv.py --bf16       # changes by bfloat16 in photos that the shipped net fills
    python benchmarks/pconv.py --grid --device cuda  # the three nets, float32, bf16 and bf16 compiled, batches 1 and 16

Two threads. Times are medians of rounds in which the candidates take turns, so that other load affects all of them.
Memory is the peak of a new process beyond what it uses after importing torch and building the net.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import skimage.data
import torch
import torch.nn.functional as F

from evaluation import masks
from maskgen import canonical, maskset
from maskgen.runtime import images
from maskgen.runtime.files import write_whole
from pconv_model import unet, upsampling
from pconv_model.device import usable
from pconv_model.inpaint import Inpainter
from pconv_model.unet import ConvUNet, PConvUNet

SETTINGS = {  # name: channels last, bf16, compiled
    "float32": (False, False, False),
    "float32, channels last": (True, False, False),
    "bf16": (False, True, False),
    "bf16, channels last": (True, True, False),
    "float32, channels last, compiled": (True, False, True),
    "bf16, channels last, compiled": (True, True, True),
}
PAPER_SECONDS = 0.23  # one 512x512 image, full width, on a V100 (section 3.2 of the paper)
WAYS = {  # name: settings of Inpainter
    "one scale": {"scales": False},
    "all scales": {},
    "one scale, mirrored": {"scales": False, "mirror": True},
    "all scales, mirrored": {"mirror": True},
}


@dataclass(frozen=True)
class Grid:
    """Sizes of `--grid`."""

    size: int = 512  # px, of the images that are filled
    width: float = 1.0
    depth: int = 8
    batches: tuple[int, ...] = (1, 16)
    step_size: int = 256  # px, of the crops of a training step
    step_width: float = 0.5
    step_batch: int = 64
    compiled: bool = True


TOY = Grid(size=64, width=0.1, depth=4, batches=(1, 2), step_size=32, step_width=0.1, step_batch=2, compiled=False)


class NaiveUNet(PConvUNet):
    """The net as most ports implement it: one mask channel per feature channel, counted by a convolution of ones."""

    def forward(self, image, valid):
        mask = valid.expand(-1, 3, -1, -1)
        x, skips = (image - self.mean) / self.std, []
        for block in self.encoder:
            skips.append((x, mask))
            x, mask = self._layer(block, x, mask)
        for block in self.decoder:
            skip, skip_mask = skips.pop()
            x = torch.cat([F.interpolate(x, scale_factor=2), skip], 1)
            mask = torch.cat([F.interpolate(mask, scale_factor=2), skip_mask], 1)
            x, mask = self._layer(block, x, mask)
        return x * self.std + self.mean

    def _layer(self, block, x, mask):
        conv = block.conv
        with torch.no_grad():
            seen = F.conv2d(mask, torch.ones_like(conv.weight), None, conv.stride, conv.padding)
            reached = (seen > 0.5).to(x.dtype)
            gain = conv.weight[0].numel() / seen.clamp(min=1) * reached
        y = F.conv2d(x * mask, conv.weight, None, conv.stride, conv.padding) * gain
        if conv.bias is not None:
            y = y + conv.bias.view(1, -1, 1, 1) * reached
        y = block.norm(y) if block.norm else y
        return (y if block.slope is None else F.leaky_relu(y, block.slope)), reached


NETS = {"conv": ConvUNet, "pconv": PConvUNet, "naive": NaiveUNet}
WRITTEN = ", decoder as written"  # suffix: features are upsampled and concatenated, kernels are not folded
NAMES = ("conv", "pconv", "naive", f"conv{WRITTEN}", f"pconv{WRITTEN}")
STEPS = {name: (name, True) for name in NAMES} | {"pconv, Adam not fused": ("pconv", False)}  # net, fused Adam


def named(name, width=1.0):
    """A net by its name."""
    return NETS[name.removesuffix(WRITTEN)](width).to(memory_format=torch.channels_last)


def as_named(name, call):
    """A function `call`, with or without folded kernels in the decoder."""
    way = upsampling.conv_reference if name.endswith(WRITTEN) else upsampling.conv_upsampled

    def with_way():
        unet.conv_upsampled = way
        call()

    return with_way


def scene(batch, size):
    """Images of noise and a mask of blocks, of which a third are holes."""
    torch.manual_seed(0)
    valid = F.interpolate((torch.rand(batch, 1, 16, 16) > 0.3).float(), scale_factor=size // 16)
    return torch.rand(batch, 3, size, size).to(memory_format=torch.channels_last), valid


def medians(candidates, rounds):
    """Median seconds of each function; they are called in turns."""
    times = {name: [] for name in candidates}
    for turn in range(rounds + 1):
        for name, call in candidates.items():
            start = time.perf_counter()
            call()
            if turn:  # the first round is a warm-up
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def inference(name):
    """A function that fills one 512x512 image with the full net. name: of NAMES."""
    net, (image, valid) = named(name).eval(), scene(1, 512)

    @torch.inference_mode()
    def call():
        net(image, valid)

    return as_named(name, call)


def training(name):
    """A function that does one step of Adam on L1: width 0.5, batch 2, 256x256. name: of STEPS."""
    which, fused = STEPS[name]
    net, (image, valid) = named(which, 0.5).train(), scene(2, 256)
    optimiser = torch.optim.Adam(net.parameters(), fused=fused)

    def call():
        (net(image, valid) - image).abs().mean().backward()
        optimiser.step()
        optimiser.zero_grad()

    return as_named(name, call)


def setting(name):
    """A function that fills one 512x512 image with the full PConvUNet in one of the SETTINGS."""
    last, half, compiled = SETTINGS[name]
    layout = torch.channels_last if last else torch.contiguous_format
    net, (image, valid) = PConvUNet().eval().to(memory_format=layout), scene(1, 512)
    image = image.to(memory_format=layout)
    net = torch.compile(net) if compiled else net

    @torch.no_grad()
    def call():
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            net(image, valid)

    return call


def shipped_pairs():
    """36 pairs of (photo, hole), 512x512: three photos under a mask of each class."""
    folder = Path(skimage.data.__file__).parent
    table = masks.find_masks(canonical.TESTSET).groupby("category", sort=False).head(1)
    holes = [maskset.decode(masks.read(canonical.TESTSET, name), name) for name in table["mask"]]
    photos = [resized_square(images.read(folder / name)) for name in ("astronaut.png", "coffee.png", "rocket.jpg")]
    return list(product(photos, holes))


def in_db(filled, photo):
    """PSNR of two arrays in [0, 255], in dB."""
    return -10 * np.log10(((filled.astype(int) - photo) ** 2).mean() / 255**2)


def show_ways(rounds):
    """Time and PSNR of the ways of filling, with the shipped weights."""
    pairs = shipped_pairs()
    ways = {name: Inpainter(device="cpu", **settings) for name, settings in WAYS.items()}
    photo, hole = pairs[9]  # interior, (0.3, 0.4]
    times = medians({name: partial(way, photo, hole) for name, way in ways.items()}, rounds)
    print(f"\nOne 512x512 image, and the PSNR of {len(pairs)}\n{'':24} {'s':>7} {'ratio':>6} {'dB':>6}")
    for name, way in ways.items():
        psnr = np.mean([in_db(way(photo, hole), photo) for photo, hole in pairs])
        print(f"{name:24} {times[name]:7.3f} {times[name] / times['one scale']:6.2f} {psnr:6.2f}")


def show_bf16():
    """Changes of filled pixels by bfloat16, in grey levels of 255, and of the PSNR."""
    inpainters = [Inpainter(device="cpu", precision=precision) for precision in ("fp32", "bf16")]
    moved, psnr = [], []
    for photo, hole in shipped_pairs():
        full, half = (inpainter(photo, hole).astype(int) for inpainter in inpainters)
        moved.append(abs(full - half)[hole].ravel())
        psnr.append([in_db(filled, photo) for filled in (full, half)])
    moved, psnr = np.concatenate(moved), np.array(psnr)
    print(f"\nbf16 compared with float32, {len(psnr)} pairs of 512x512, shipped weights, filled pixels only")
    print(f"grey levels: mean {moved.mean():.2f}, 99 % within {np.percentile(moved, 99):.0f}, at most {moved.max()}")
    print(f"PSNR: {psnr[:, 0].mean():.3f} dB becomes {psnr[:, 1].mean():.3f} dB")


def resized_square(photo):
    """The centred square of a photo, resized to 512x512."""
    side = min(photo.shape[:2])
    top, left = ((length - side) // 2 for length in photo.shape[:2])
    return cv2.resize(photo[top : top + side, left : left + side], (512, 512), interpolation=cv2.INTER_AREA)


def fill_call(net, image, valid, half):
    """A function that fills a batch with a net, in bf16 if `half`."""

    @torch.inference_mode()
    def call():
        with torch.autocast(image.device.type, torch.bfloat16, enabled=half):
            net(image, valid)

    return call


def step_call(net, image, valid, half):
    """A function that does one step of Adam on L1, in bf16 if `half`."""
    optimiser = torch.optim.Adam(net.parameters(), fused=True)

    def call():
        with torch.autocast(image.device.type, torch.bfloat16, enabled=half):
            out = net(image, valid)
        (out - image).abs().mean().backward()
        optimiser.step()
        optimiser.zero_grad()

    return call


def timed(call, device):
    """A function that calls and waits until the device has finished."""
    on_gpu = torch.device(device).type == "cuda"

    def wait():
        call()
        if on_gpu:
            torch.cuda.synchronize(device)

    return wait


def peak_of(call, device):
    """Peak MB that PyTorch allocates on a graphics card during a call; None on other devices."""
    if torch.device(device).type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    call()
    return torch.cuda.max_memory_allocated(device) / 2**20


def grid_rows(grid, device, rounds):
    """Yield rows of `--grid`, a list for each group of three nets that took turns."""
    fill, step = ("fill", grid.size, grid.width), ("step", grid.step_size, grid.step_width)
    tasks = [(*fill, batch, way) for batch in grid.batches for way in ((False, False), (True, False))]
    tasks += [(*step, grid.step_batch, way) for way in ((False, False), (True, False))]
    tasks += [(*fill, batch, (True, True)) for batch in grid.batches if grid.compiled]  # last, as compiling takes long
    for task, size, width, batch, (half, compiled) in tasks:
        image, valid = (x.to(device) for x in scene(batch, size))
        calls = {}
        for name, net in NETS.items():
            net = net(width, grid.depth).to(device, memory_format=torch.channels_last).train(task == "step")
            net = torch.compile(net) if compiled else net
            calls[name] = timed((step_call if task == "step" else fill_call)(net, image, valid, half), device)
        times, way = medians(calls, rounds), {"precision": "bf16" if half else "fp32", "compiled": compiled}
        yield [
            {"task": task, "net": name, "batch": batch, "size": size, "width": width, **way}
            | {"seconds": seconds, "ratio": seconds / times["conv"], "peak_mb": peak_of(calls[name], device)}
            for name, seconds in times.items()
        ]


def show_grid(grid, device, rounds, path):
    """Print the rows of `--grid`, and write them into a JSON file, as they are measured."""
    name = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}; the paper: {PAPER_SECONDS} s for one 512x512 image on a V100")
    print(f"{'':40} {'s a batch':>10} {'s an image':>11} {'ratio':>6} {'peak MB':>8}", flush=True)
    rows = []
    for group in grid_rows(grid, device, rounds):
        rows += group
        for row in group:
            way = f"{row['precision']}{', compiled' if row['compiled'] else ''}"
            title = f"{row['task']} {row['batch']} x {row['size']} px, {way}, {row['net']}"
            memory = "" if row["peak_mb"] is None else f"{row['peak_mb']:8.0f}"
            each = row["seconds"] / row["batch"]
            print(f"{title:40} {row['seconds']:10.5f} {each:11.5f} {row['ratio']:6.2f} {memory}", flush=True)
        if path:
            write_whole(path, json.dumps({"device": name, "torch": torch.__version__, "rows": rows}, indent=1).encode())


def peak(task, name):
    """Peak MB of a new process beyond importing and building."""
    command = [sys.executable, __file__, "--peak", task, name]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def show_peak(task, name):
    """Print the peak of this process, for `peak`."""
    call = {"inference": inference, "training": training, "setting": setting}[task](name)
    before = high_water()
    call()
    call()
    print(high_water() - before)


def high_water():
    """Peak memory of this process in MB, from Linux' /proc; getrusage includes that of the parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def table(title, times, task):
    """Print one table, with ratios to the times of the first row."""
    print(f"\n{title}\n{'':34} {'s':>7} {'ratio':>6} {'peak MB':>8}")
    first = next(iter(times.values()))
    for name, seconds in times.items():
        print(f"{name:34} {seconds:7.3f} {seconds / first:6.2f} {peak(task, name):8.0f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", action="store_true")
    parser.add_argument("--ways", action="store_true")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--grid", action="store_true")
    parser.add_argument("--device", help="of --grid, such as cuda; default: the fastest")
    parser.add_argument("--toy", action="store_true", help="--grid with small nets and images, as a test")
    parser.add_argument("--json", type=Path, help="file that gets the rows of --grid")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1 if options.toy else 2)
    if options.peak:
        show_peak(*options.peak)
    elif options.grid:
        show_grid(TOY if options.toy else Grid(), usable(options.device), options.rounds, options.json)
    elif options.ways:
        show_ways(options.rounds)
    elif options.bf16:
        show_bf16()
    elif options.settings:
        times = medians({name: setting(name) for name in SETTINGS}, options.rounds)
        table("One 512x512 image, PConvUNet(), by setting", times, "setting")
    else:
        times = medians({name: inference(name) for name in NAMES}, options.rounds)
        table("One 512x512 image, full width, float32, channels last", times, "inference")
        times = medians({name: training(name) for name in STEPS}, options.rounds)
        table("Training step, width 0.5, batch 2, 256x256, float32, channels last", times, "training")


if __name__ == "__main__":
    main()
