"""The device on which a network runs, and the processes of distributed training."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed

from maskgen.errors import BadInput


def best_device() -> str:
    """The first of "cuda", "mps" and "cpu" that is available."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def usable(device: str | None) -> str:
    """The given device, or the best one for None. Raises BadInput if PyTorch does not find it."""
    device = device or best_device()
    try:
        asked = torch.device(device)
    except RuntimeError:  # not the name of a device
        asked = torch.device("meta")
    available = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (asked.index or 0) >= available.get(asked.type, 0):
        found = ", ".join(f"{number} {kind}" for kind, number in available.items() if number)
        raise BadInput(f"no device {device!r}: expected one such as cpu, cuda, cuda:1 or mps; PyTorch finds {found}")
    return device


@contextmanager
def processes(device: str | None) -> Iterator[tuple[int, int, str]]:
    """Context with the rank, the number of processes and the device of this process, in a group under `torchrun`."""
    world, device = int(os.environ.get("WORLD_SIZE", 1)), usable(device)
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
