"""Training in the paper's two phases, on one machine or many, that can be killed at any moment and go on."""

import copy
import io
import signal
import sys
import threading
import time
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from maskgen.errors import BadInput
from maskgen.runtime.files import remove_parts, sha256, write_whole
from maskgen.runtime.memory import keep_memory
from maskgen.runtime.output import libraries, locked, opencv
from maskgen.runtime.parallel import cores
from pconv_model import checkpoints
from pconv_model.data import Fixed, Pairs, batches, sha256_of_photos, split
from pconv_model.device import processes
from pconv_model.extra_losses import windowed
from pconv_model.objective import PAPER, total_loss
from pconv_model.schedule import rate, stages
from pconv_model.settings import LossConfig, NetConfig, TrainConfig
from pconv_model.torch_files import torch_file
from pconv_model.unet import build
from pconv_model.validation import Judge

NET, RUN = NetConfig(), TrainConfig()
CHECKPOINT = "checkpoint.pt"
LEAST_SSIM = 11  # px, that SSIM's window asks for
FASTER = 10  # times the learning rate, for the small layers of `detail`


class Run:
    """What a checkpoint holds: the net, its running average, the optimiser, the step reached, the history."""

    def __init__(self, net_config: NetConfig, config: TrainConfig, device: str):
        torch.manual_seed(config.seed)
        self.config, self.device, self.step, self.history = config, device, 0, []
        self.sums, self.summed = {}, 0  # of the loss terms since the last row of the history, and over how many steps
        self.net = build(net_config).to(device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.net).eval().requires_grad_(False) if config.ema else None
        self.begin_phase(1)

    def begin_phase(self, phase):
        """A fresh optimiser; phase 2 freezes batch norms first."""
        self.phase = phase
        if phase == 2:
            self.net.freeze(self.config.freeze)
        learning = [(name.startswith("detail."), p) for name, p in self.net.named_parameters() if p.requires_grad]
        groups = [
            {"params": [p for own, p in learning if own == detail], "faster": FASTER if detail else 1}
            for detail in sorted({own for own, _ in learning})
        ]
        self.optimiser = torch.optim.Adam(groups, fused=True)

    @property
    def best(self):
        """The net that counts: the average where there is one."""
        return self.average if self.average is not None else self.net

    @torch.no_grad()
    def follow(self):
        """Move the average towards the net; faster in the first steps, when the average is worth little."""
        if self.average is None:
            return
        share = 1 - min(self.config.ema, (1 + self.step) / (10 + self.step))
        mine = [v for v in self.average.state_dict().values() if v.is_floating_point()]
        torch._foreach_lerp_(mine, [v for v in self.net.state_dict().values() if v.is_floating_point()], share)

    def save(self, path: Path, about: dict):
        """Write everything needed to go on, whole or not at all."""
        told = {"format": checkpoints.FORMAT, "step": self.step, "phase": self.phase, "history": self.history}
        told |= {"net": self.net.state_dict(), "optimiser": self.optimiser.state_dict(), "about": about}
        told |= {"sums": self.sums, "summed": self.summed}
        if self.average is not None:
            told["average"] = self.average.state_dict()
        data = io.BytesIO()
        torch.save(told, data)
        write_whole(path, data.getvalue())

    def load(self, path: Path, about: dict) -> list[str]:
        """Go on from a checkpoint. Returns which settings differ from those it was made with."""
        told = read_checkpoint(path)
        if told["about"]["net"] != about["net"] or (self.average is not None) != ("average" in told):
            was = {**told["about"]["net"], "ema": told["about"]["train"].get("ema")}
            raise BadInput(f"{path} holds another net ({was}): give its settings, or another --out")
        if told["phase"] == 2:
            self.begin_phase(2)
        try:
            self.net.load_state_dict(told["net"])
            for group in told["optimiser"]["param_groups"]:
                group["fused"] = True  # checkpoints of older versions say otherwise
            self.optimiser.load_state_dict(told["optimiser"])
            if self.average is not None:
                self.average.load_state_dict(told["average"])
        except Exception as error:  # torch raises whatever values without sense lead to
            raise BadInput(
                f"{path} is a damaged training checkpoint ({str(error).splitlines()[0]}): begin anew with --fresh"
            ) from None
        self.step, self.history = told["step"], told["history"]
        self.sums = {name: term.to(self.device) for name, term in told.get("sums", {}).items()}
        self.summed = told.get("summed", 0)
        before, now = (_flat(side) for side in (told["about"], about))
        before = asdict(TrainConfig()) | asdict(LossConfig()) | before  # a setting newer than the checkpoint was off
        changed = {key: value for key, value in now.items() if before.get(key, value) != value}
        return [f"{key} {_short(before[key])} -> {_short(value)}" for key, value in changed.items()]


def _flat(about):
    """All that a run says of itself, by name: its settings, inputs, libraries and device."""
    parts = (about.get(part, {}) for part in ("train", "loss", "inputs", "machine"))
    return {key: value for part in parts if isinstance(part, dict) for key, value in part.items()}


def _short(value):
    return value[:12] if isinstance(value, str) and len(value) == 64 else value  # a SHA-256


def read_checkpoint(path: Path) -> dict:
    """The dict of a training checkpoint; tensors and plain values only. Raises BadInput for any other file."""
    told = torch_file(path)
    if not isinstance(told, dict) or told.get("format") != checkpoints.FORMAT:
        raise BadInput(f"{path} is no training checkpoint of ours")
    parts = {"step": int, "phase": int, "history": list, "net": dict, "optimiser": dict, "about": dict}
    whole = all(isinstance(told.get(key), kind) for key, kind in parts.items())
    if not whole or not all(isinstance(told["about"].get(key), dict) for key in ("net", "train", "loss")):
        raise BadInput(f"{path} is a damaged training checkpoint: begin anew with --fresh, or name another --out")
    return told


def train(
    folders: list[Path],
    sampler,
    out: Path,
    *,
    net: NetConfig = NET,
    config: TrainConfig = RUN,
    loss: LossConfig = PAPER,
    features=None,
    exclude=frozenset(),
    favour=(),
    start: Path | None = None,
    at: int = 0,
    resume: bool = True,
    device: str | None = None,
    inputs: dict | None = None,
    minutes: float = 10,
    log_every: int = 50,
    validate_every: int = 2000,
    workers: int | None = None,
    cache: int = 4 * 2**30,
) -> Path:
    """Train a net and write it to `out`. Returns the path of the weights.

    folders, exclude, favour: the photos, see pconv_model.data. sampler: [i] gives a hole, bool (h, w); None where
    config.factor makes the holes. features: for
    the perceptual and style terms, such as pconv_model.features.load_vgg(); None leaves them out. start: weights of
    ours to begin with, which have reached the step `at` of this run: their history goes on, with a fresh optimiser, and
    `detail` is added where they have none. inputs: the SHA-256 of what else decides the result, such as the masks, or
    all that `inputs_of` gives; written down with the settings and libraries, and compared where a run goes on.
    minutes: between checkpoints. A run that was stopped goes on to the same weights as one that was not, on the same
    kind of machine; resume=False begins anew. Under `torchrun` every process takes its part of each step. In `out`:
    checkpoint.pt, <kind>.safetensors, history.csv, samples/, tensorboard/.
    """
    keep_memory()
    with processes(device) as (rank, world, device), nullcontext() if rank else locked(out):
        if loss.ssim and min(config.size) < LEAST_SSIM:
            raise BadInput(f"the SSIM term needs crops of {LEAST_SSIM} px or more, got {min(config.size)}")
        photos, held = split(folders, exclude=exclude, config=config)
        about = {"net": asdict(net), "train": asdict(config), "loss": asdict(loss), "photos": len(photos)}
        if rank == 0:
            about["inputs"] = inputs if "photos" in (inputs or {}) else inputs_of(photos, held, start, favour, inputs)
            about["machine"] = machine(device)
        run = _begin(net, config, out, about, start, at, resume, device, rank)
        pairs = Pairs(photos, sampler, config, favour=favour, cache=cache)
        features = features.to(device) if features is not None else None
        judge = Judge(Fixed(held, sampler, config.factor), out, config, features, device)
        workers = workers or max(1, min(4, cores() // world))
        todo = stages(config)
        with _until_stopped() as stopped, _Log(out, rank, run.step, todo[-1].last) as log:
            saved = time.monotonic()
            for stage in todo:
                if run.step >= stage.last:
                    continue
                if stage.phase != run.phase:
                    run.begin_phase(stage.phase)
                run.net.train()
                model = torch.nn.parallel.DistributedDataParallel(run.net) if world > 1 else run.net
                first = max(stage.first, run.step)
                source = batches(pairs, _numbers(config, first, stage, rank, world), stage.size, workers=workers)
                for _ in range(first, stage.last):
                    log.add(run, _step(run, model, source, features, loss), stage.batch * config.accumulate * world)
                    ends = run.step == stage.last
                    if ends or run.step % log_every == 0:
                        log.write(run, stage)
                    if rank == 0 and (ends or run.step % validate_every == 0):
                        log.judged(run, judge(run))
                    if rank == 0 and (ends or stopped or time.monotonic() - saved > 60 * minutes):
                        run.save(out / CHECKPOINT, about)
                        log.keep(run)
                        saved = time.monotonic()
                    if stopped:
                        raise KeyboardInterrupt
        path = out / f"{net.kind}.safetensors"
        if rank == 0:
            log.keep(run)  # a kill may have come between the last checkpoint and this
            checkpoints.save(path, run.best, history=run.history, half=True, about=about)
        return path


def inputs_of(photos: list[Path], held: list[Path], start: Path | None, favour, more: dict | None = None) -> dict:
    """What a run learns from, by content, for what it says of itself. more: by name, such as the masks."""
    found = {"photos": sha256_of_photos(photos), "held_out": sha256_of_photos(held)}
    found["favour"] = [list(pair) for pair in favour]
    return found | ({"start": sha256(start)} if start else {}) | (more or {})


def machine(device: str) -> dict:
    """What runs a net, for what a run says of itself: the kind of device and the libraries."""
    return {"device": torch.device(device).type, **libraries("torch", "numpy", "pillow"), **opencv()}


def _begin(net_config, config, out, about, start, at, resume, device, rank):
    """A run at its first step, or where the checkpoint in `out` left it."""
    run = Run(net_config, config, device)
    if at and start is None:
        raise BadInput(f"step {at} is what the weights of --start have reached: name them, or leave --at out")
    if resume and (out / CHECKPOINT).exists():
        changed = run.load(out / CHECKPOINT, about)
        if rank == 0:
            tqdm.write(
                f"goes on from step {run.step}" + (f", with {'; '.join(changed)}" if changed else ""), sys.stderr
            )
    elif start:
        state = checkpoints.load(start).state_dict()
        fresh = {key: value for key, value in run.net.state_dict().items() if key.startswith("detail.")}
        for each in {run.net, run.best}:
            checkpoints.load_weights(each, fresh | state, start)
        run.step = at
        run.history = [row for row in checkpoints.read_header(start)["history"] if row["step"] <= at]
    if rank == 0:
        remove_parts(out)
    return run


def _step(run, model, source, features, loss):
    """One step of the optimiser. Returns the loss terms, averaged over the accumulated batches."""
    config, device = run.config, torch.device(run.device)
    for group in run.optimiser.param_groups:
        group["lr"] = rate(config, run.step) * group.get("faster", 1)  # checkpoints of older versions know one group
    features = features if run.step >= config.vgg_from else None
    before = [buffer.clone() for buffer in run.net.buffers()]  # batch norm's statistics, should the step be left out
    sums = {}
    for turn in range(config.accumulate):
        image, valid = (part.to(device, non_blocking=True) for part in next(source))
        more = model is not run.net and turn + 1 < config.accumulate
        with model.no_sync() if more else nullcontext():
            with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                out = model(image, valid)
            rng = np.random.default_rng([config.seed, 2, run.step, turn])
            loss_of_out, terms = _gradient(out.detach(), image, valid, features, loss, config, rng)
            out.backward(loss_of_out / config.accumulate)
        for name, term in terms.items():
            sums[name] = sums.get(name, 0) + term / config.accumulate
    if torch.nn.utils.clip_grad_norm_(run.net.parameters(), config.clip).isfinite():
        run.optimiser.step()
    else:
        with torch.no_grad():
            for buffer, old in zip(run.net.buffers(), before, strict=True):
                buffer.copy_(old)
    run.optimiser.zero_grad()
    run.step += 1
    run.follow()
    return sums


def _gradient(out, truth, valid, features, loss, config, rng):
    """Gradient of the loss at the net's result, and the terms.

    On a CPU image by image: every term is a mean over the batch, so the sum is the same, and VGG's features of one
    image stay in the cache, which makes them twice as fast. (They also need a fraction of the memory.)
    """
    out.requires_grad_()
    piece = 1 if out.device.type == "cpu" and features is not None else len(out)
    sums = {}
    for some in zip(out.split(piece), truth.split(piece), valid.split(piece), strict=True):
        seeing = features
        if features is not None and config.vgg_window:
            seeing = windowed(features, some[2], config.vgg_window, rng)
        with torch.autocast(out.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            terms = total_loss(*some, seeing, loss)
        share = len(some[0]) / len(out)
        (terms["total"] * share).backward()
        for name, term in terms.items():
            sums[name] = sums.get(name, 0) + term.detach() * share
    return out.grad, sums


def _numbers(config, first, stage, rank, world):
    """Which samples each batch of a process takes: none twice in a run, whatever its sizes and batches."""
    for turn in range(first * config.accumulate, stage.last * config.accumulate):
        begin = (turn * world + rank) * max(config.batch)
        yield range(begin, begin + stage.batch)


class _Log:
    """Progress bar, history and TensorBoard of the first process; silent in the others."""

    def __init__(self, out, rank, step, total):
        self.out, self.shown = out, rank == 0
        self.bar = tqdm(total=total, initial=step, unit="step", disable=not self.shown)
        self.board = _tensorboard(out, step) if self.shown else None
        self._clear()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.bar.close()
        if self.board:
            self.board.close()

    def _clear(self):
        self.images, self.since = 0, time.monotonic()

    def add(self, run, terms, images):
        for name, term in terms.items():
            run.sums[name] = run.sums.get(name, 0) + term
        run.summed, self.images = run.summed + 1, self.images + images
        self.bar.update()

    def write(self, run, stage):
        """One row of means since the last."""
        means = {name: float(total) / run.summed for name, total in run.sums.items()}
        speed = self.images / (time.monotonic() - self.since)
        self.bar.set_postfix({**{name: f"{value:.3g}" for name, value in means.items()}, "images/s": f"{speed:.1f}"})
        told = {"step": run.step, "phase": stage.phase, "size": stage.size, "lr": rate(run.config, run.step - 1)}
        self._row(run, {**told, **means, "images_per_s": round(speed, 2)})
        run.sums, run.summed = {}, 0
        self._clear()

    def judged(self, run, row):
        """One row of the validation."""
        self._row(run, {"step": run.step, **row})
        self.since = time.monotonic()

    def _row(self, run, row):
        run.history.append(row)
        for name, value in row.items() if self.board else ():
            self.board.add_scalar(name.replace("val_", "validation/"), value, run.step)

    def keep(self, run):
        import pandas as pd

        write_whole(self.out / "history.csv", pd.DataFrame(run.history, dtype=object).to_csv(index=False).encode())


def _tensorboard(out, step):
    """A writer where TensorBoard is installed (the extra `train`), else None: history.csv tells the same."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(out / "tensorboard"), purge_step=step)


@contextmanager
def _until_stopped():
    """A list that fills on the first Ctrl-C or SIGTERM, so that the step ends and is saved; the second one kills."""
    stopped, before = [], {}

    def stop(number, frame):
        stopped.append(number)
        signal.signal(number, before[number])

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
