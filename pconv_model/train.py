"""Training in the two phases of the paper, on one machine or several. A run that was stopped can be continued."""

import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from maskgen.errors import BadInput
from maskgen.runtime.files import remove_parts, sha256
from maskgen.runtime.lock import locked
from maskgen.runtime.memory import keep_memory
from maskgen.runtime.parallel import cores
from maskgen.runtime.recipe import library_versions
from pconv_model import checkpoints
from pconv_model.data import TrainingSamples, ValidationSamples, batches, sha256_of_photos, split
from pconv_model.device import processes
from pconv_model.extra_losses import windowed
from pconv_model.objective import PAPER, total_loss
from pconv_model.progress import TrainingLog, stop_signals
from pconv_model.schedule import learning_rate, stages
from pconv_model.settings import LossConfig, NetConfig, TrainConfig
from pconv_model.state import TrainingState
from pconv_model.superres import spread_means
from pconv_model.validation import Validator

NET, RUN = NetConfig(), TrainConfig()
CHECKPOINT = "checkpoint.pt"
SSIM_MIN = 11  # px, window of SSIM


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
    start: Path | None = None,
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

    folders, exclude: the photos, see pconv_model.data.split. sampler: [i] returns a hole, bool (h, h); None if
    config.factor is above 1. features: for the perceptual and style terms, such as pconv_model.features.load_vgg();
    None leaves these terms out. start: weights file to start from, trained up to config.first_step of this schedule;
    their history is kept, the optimiser is new, and `detail` layers are added if they have none. inputs: SHA-256 of
    what else decides the result, such as the masks, or the result of `describe_inputs`; stored with the settings and
    libraries, and compared when a run is continued. minutes: between checkpoints. workers: threads that prepare the
    samples. cache: bytes of memory for decoded photos.

    In `out`: checkpoint.pt, <kind>.safetensors, history.csv, samples/, tensorboard/. A run that was stopped is
    continued to the same weights as one that was not, on the same kind of machine; resume=False starts again. Under
    `torchrun` each process computes its part of every step. Raises BadInput for settings that do not fit each other.
    """
    keep_memory()
    with processes(device) as (rank, world, device), nullcontext() if rank else locked(out):
        if loss.ssim and min(config.size) < SSIM_MIN:
            raise BadInput(f"the SSIM term needs crops of {SSIM_MIN} px or more, got {min(config.size)}")
        if net.factor not in (1, config.factor):
            raise BadInput(f"factor is {net.factor} in [net] and {config.factor} in [train]: leave it out of [net]")
        net = replace(net, factor=config.factor)
        photos, held_out = split(folders, exclude=exclude, config=config)
        about = {"net": asdict(net), "train": asdict(config), "loss": asdict(loss), "photos": len(photos)}
        if rank == 0:
            described = "photos" in (inputs or {})
            about["inputs"] = inputs if described else describe_inputs(photos, held_out, start, inputs)
            about["machine"] = describe_machine(device)
        state = start_state(net, config, out, about, start=start, resume=resume, device=device, first=rank == 0)
        samples = TrainingSamples(photos, sampler, config, cache=cache)
        features = features.to(device) if features is not None else None
        validate = Validator(ValidationSamples(held_out, sampler, config.factor), out, config, features, device)
        workers = workers or max(1, min(4, cores() // world))
        schedule = stages(config)
        with stop_signals() as stopped, TrainingLog(out, state, schedule[-1].last, shown=rank == 0) as log:
            saved = time.monotonic()
            for stage in schedule:
                if state.step >= stage.last:
                    continue
                if stage.phase != state.phase:
                    state.begin_phase(stage.phase)
                state.net.train()
                model = torch.nn.parallel.DistributedDataParallel(state.net) if world > 1 else state.net
                first = max(stage.first, state.step)
                indices = _sample_indices(config, first, stage, rank, world)
                source = batches(samples, indices, stage.size, workers=workers)
                for _ in range(first, stage.last):
                    terms = _step(state, model, source, features, loss)
                    log.add_step(state, terms, stage.batch * config.accumulate * world)
                    ends = state.step == stage.last
                    if ends or state.step % log_every == 0:
                        log.write_losses(state, stage)
                    if rank == 0 and (ends or state.step % validate_every == 0):
                        log.write_validation(state, validate(state.best, state.step))
                    if rank == 0 and (ends or stopped or time.monotonic() - saved > 60 * minutes):
                        state.save(out / CHECKPOINT, about)
                        log.save(state)
                        saved = time.monotonic()
                    if stopped:
                        raise KeyboardInterrupt
        path = out / f"{net.kind}.safetensors"
        if rank == 0:
            log.save(state)  # again, as a run can be killed between the last checkpoint and its history
            checkpoints.save(path, state.best, history=state.history, half=True, about=about)
        return path


def describe_inputs(photos: list[Path], held_out: list[Path], start: Path | None, more: dict | None = None) -> dict:
    """SHA-256 of everything that a run learns from. more: those of other inputs, by name, such as the masks."""
    found = {"photos": sha256_of_photos(photos), "held_out": sha256_of_photos(held_out)}
    return found | ({"start": sha256(start)} if start else {}) | (more or {})


def describe_machine(device: str) -> dict:
    """Kind of device and versions of the libraries."""
    return {"device": torch.device(device).type, **library_versions("torch", "numpy", "pillow", "opencv")}


def start_state(
    net: NetConfig,
    config: TrainConfig,
    out: Path,
    about: dict,
    *,
    start: Path | None = None,
    resume: bool = True,
    device: str = "cpu",
    first: bool = True,
) -> TrainingState:
    """State of a run that continues from the checkpoint in `out`, from the weights `start`, or starts at random.

    first: whether this is the first of the processes, which prints what has changed since the checkpoint.
    """
    state = TrainingState(net, config, device)
    if config.first_step and start is None:
        raise BadInput(
            f"first_step = {config.first_step} needs weights that were trained up to there: name them with --start"
        )
    if resume and (out / CHECKPOINT).exists():
        changed = state.load(out / CHECKPOINT, about)
        if first:
            changes = f", with {'; '.join(changed)}" if changed else ""
            tqdm.write(f"continues from step {state.step}{changes}", sys.stderr)
    elif start:
        weights = checkpoints.load(start).state_dict()
        new = {key: value for key, value in state.net.state_dict().items() if key.startswith("detail.")}
        for each in {state.net, state.best}:
            checkpoints.load_weights(each, new | weights, start)
        state.step = config.first_step
        state.history = [row for row in checkpoints.read_header(start)["history"] if row["step"] <= state.step]
    if first:
        remove_parts(out)
    return state


def _step(state, model, source, features, loss):
    """One step of the optimiser. Returns the loss terms, averaged over the accumulated batches."""
    config, device = state.config, torch.device(state.device)
    for group in state.optimiser.param_groups:
        group["lr"] = learning_rate(config, state.step) * group.get("faster", 1)  # older checkpoints have one group
    before = [buffer.clone() for buffer in state.net.buffers()]  # of batch norm, restored if the step is skipped
    sums = {}
    for turn in range(config.accumulate):
        image, valid = (part.to(device, non_blocking=True) for part in next(source))
        known = spread_means(image, config.factor) if config.factor > 1 else image
        accumulates = model is not state.net and turn + 1 < config.accumulate
        with model.no_sync() if accumulates else nullcontext():
            with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                out = model(known, valid)
            if config.factor > 1:  # no pixel is given: the known ones are the means of their blocks
                valid = torch.zeros_like(valid)
            rng = np.random.default_rng([config.seed, 2, state.step, turn])
            gradient, terms = _loss_gradient(out.detach(), image, valid, features, loss, config, rng)
            out.backward(gradient / config.accumulate)
        for name, term in terms.items():
            sums[name] = sums.get(name, 0) + term / config.accumulate
    if torch.nn.utils.clip_grad_norm_(state.net.parameters(), config.clip).isfinite():
        state.optimiser.step()
    else:  # the step is skipped
        with torch.no_grad():
            for buffer, old in zip(state.net.buffers(), before, strict=True):
                buffer.copy_(old)
    state.optimiser.zero_grad()
    state.step += 1
    state.update_average()
    return sums


def _loss_gradient(out, truth, valid, features, loss, config, rng):
    """Gradient of the loss with respect to the output of the net, and the loss terms.

    On a CPU image by image: every term is a mean over the batch, so the result is the same, and the VGG features of one
    image fit into the cache, which halves their time and needs less memory.
    """
    out.requires_grad_()
    chunk = 1 if out.device.type == "cpu" and features is not None else len(out)
    sums = {}
    for part in zip(out.split(chunk), truth.split(chunk), valid.split(chunk), strict=True):
        extractor = features
        if features is not None and config.vgg_window:
            extractor = windowed(features, part[2], config.vgg_window, rng)
        with torch.autocast(out.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            terms = total_loss(*part, extractor, loss)
        share = len(part[0]) / len(out)
        (terms["total"] * share).backward()
        for name, term in terms.items():
            sums[name] = sums.get(name, 0) + term.detach() * share
    return out.grad, sums


def _sample_indices(config, first, stage, rank, world):
    """Indices of the samples in each batch of a process. No index occurs twice in a run."""
    for turn in range(first * config.accumulate, stage.last * config.accumulate):
        begin = (turn * world + rank) * max(config.batch)
        yield range(begin, begin + stage.batch)
