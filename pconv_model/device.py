"""Where a net runs: on which device, and in which of several processes."""

import os
from contextlib import contextmanager

import torch
from torch import distributed

from maskgen.errors import BadInput


def best_device() -> str:
    """ "cuda", "mps" or "cpu", the first that is there."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def usable(device: str | None) -> str:
    """The device that is asked for, or the best there is. Raises BadInput for one that PyTorch has not got here."""
    device = device or best_device()
    try:
        asked = torch.device(device)
    except RuntimeError:  # no device at all
        asked = torch.device("meta")
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (asked.index or 0) >= there.get(asked.type, 0):
        found = ", ".join(f"{number} {kind}" for kind, number in there.items() if number)
        raise BadInput(f"no device {device!r} here: expected such as cpu, cuda, cuda:1, mps; PyTorch finds {found}")
    return device


@contextmanager
def processes(device):
    """(rank, processes, device) of this process; joined with the others where `torchrun` started it."""
    world, device = int(os.environ.get("WORLD_SIZE", 1)), usable(device)  # which touches none
    if world == 1:
        yield 0, 1, device
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield distributed.get_rank(), world, device
    finally:
        distributed.destroy_process_group()
