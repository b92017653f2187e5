"""State of a training run: net, averaged weights, optimiser, step and history, saved in a training checkpoint."""

import copy
import io
from dataclasses import asdict
from pathlib import Path

import torch

from maskgen.errors import BadInput
from maskgen.runtime.files import write_whole
from pconv_model import checkpoints
from pconv_model.settings import LossConfig, NetConfig, TrainConfig
from pconv_model.torch_files import torch_file
from pconv_model.unet import build

DETAIL_RATE = 10  # times the learning rate, for the `detail` layers
RENAMED = {"even": "balance", "even_vgg": "balance_vgg", "favour": "photo_weights"}  # in checkpoints of older versions
REMOVED = {"vgg_from": 0}  # settings of older versions and their defaults


class TrainingState:
    """Everything that a training checkpoint holds."""

    def __init__(self, net_config: NetConfig, config: TrainConfig, device: str):
        torch.manual_seed(config.seed)
        self.config, self.device, self.step, self.history = config, device, 0, []
        self.sums, self.count = {}, 0  # sums of the loss terms since the last row of the history, and their steps
        self.net = build(net_config).to(device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.net).eval().requires_grad_(False) if config.ema else None
        self.begin_phase(1)

    def begin_phase(self, phase: int) -> None:
        """Start with a new optimiser; phase 2 freezes batch norms first."""
        self.phase = phase
        if phase == 2:
            self.net.freeze(self.config.freeze)
        trained = [(name.startswith("detail."), p) for name, p in self.net.named_parameters() if p.requires_grad]
        groups = [
            {"params": [p for in_detail, p in trained if in_detail == detail], "faster": DETAIL_RATE if detail else 1}
            for detail in sorted({in_detail for in_detail, _ in trained})
        ]
        self.optimiser = torch.optim.Adam(groups, fused=True)

    @property
    def best(self):
        """The net to validate and save: the averaged one if there is one."""
        return self.average if self.average is not None else self.net

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the averaged weights towards those of the net, by a larger share in the first steps."""
        if self.average is None:
            return
        share = 1 - min(self.config.ema, (1 + self.step) / (10 + self.step))
        average = [v for v in self.average.state_dict().values() if v.is_floating_point()]
        torch._foreach_lerp_(average, [v for v in self.net.state_dict().values() if v.is_floating_point()], share)

    def save(self, path: Path, about: dict) -> None:
        """Write a checkpoint, whole or not at all. about: settings, inputs and libraries of the run."""
        state = {"format": checkpoints.FORMAT, "step": self.step, "phase": self.phase, "history": self.history}
        state |= {"net": self.net.state_dict(), "optimiser": self.optimiser.state_dict(), "about": about}
        state |= {"sums": self.sums, "summed": self.count}
        if self.average is not None:
            state["average"] = self.average.state_dict()
        data = io.BytesIO()
        torch.save(state, data)
        write_whole(path, data.getvalue())

    def load(self, path: Path, about: dict) -> list[str]:
        """Continue from a checkpoint. Returns the settings that have changed since, as "name old -> new".

        Raises BadInput for a checkpoint of another net, a damaged one, and one that used a setting that was removed.
        """
        state = read_checkpoint(path)
        # Older checkpoints lack newer fields.
        old, new = (asdict(NetConfig()) | each["net"] for each in (state["about"], about))
        if old != new or (self.average is not None) != ("average" in state):
            was = {**state["about"]["net"], "ema": state["about"]["train"].get("ema")}
            raise BadInput(f"{path} holds another net ({was}): use its settings, or another --out")
        changed = changed_settings(path, state["about"], about)
        if state["phase"] == 2:
            self.begin_phase(2)
        try:
            self.net.load_state_dict(state["net"])
            for group in state["optimiser"]["param_groups"]:
                group["fused"] = True  # False in checkpoints of older versions
            self.optimiser.load_state_dict(state["optimiser"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
        except Exception as error:  # torch raises many types for damaged values
            line = str(error).splitlines()[0]
            raise BadInput(f"{path} is a damaged training checkpoint ({line}): start again with --fresh") from None
        self.step, self.history = state["step"], state["history"]
        self.sums = {name: term.to(self.device) for name, term in state.get("sums", {}).items()}
        self.count = state.get("summed", 0)
        return changed


def read_checkpoint(path: Path) -> dict:
    """The dict of a training checkpoint; tensors and plain values only. Raises BadInput for any other file."""
    state = torch_file(path)
    if not isinstance(state, dict) or state.get("format") != checkpoints.FORMAT:
        raise BadInput(f"{path} is not a training checkpoint of `pconv train`")
    parts = {"step": int, "phase": int, "history": list, "net": dict, "optimiser": dict, "about": dict}
    whole = all(isinstance(state.get(key), kind) for key, kind in parts.items())
    if not whole or not all(isinstance(state["about"].get(key), dict) for key in ("net", "train", "loss")):
        raise BadInput(f"{path} is a damaged training checkpoint: start again with --fresh, or name another --out")
    return state


def changed_settings(path: Path, old: dict, new: dict) -> list[str]:
    """Settings, inputs and libraries that differ between a checkpoint and the run that continues it.

    Settings that the checkpoint lacks had their defaults. Raises BadInput for a removed setting that was in use.
    """
    before = asdict(TrainConfig()) | asdict(LossConfig()) | _flatten(old)
    for name, default in REMOVED.items():
        if before.get(name, default) != default:
            raise BadInput(
                f"{path} was trained with {name} = {before[name]}, which this version lacks: start again with --fresh"
            )
    pairs = ((key, before.get(key, value), value) for key, value in _flatten(new).items())
    return [f"{key} {_short(was)} -> {_short(value)}" for key, was, value in pairs if was != value]


def _flatten(about):
    """Name to value of all settings, inputs and libraries, by their present names, with tuples for lists."""
    parts = (about.get(part, {}) for part in ("train", "loss", "inputs", "machine"))
    items = (item for part in parts if isinstance(part, dict) for item in part.items())
    return {RENAMED.get(key, key): _tuples(value) for key, value in items}


def _tuples(value):
    return tuple(map(_tuples, value)) if isinstance(value, tuple | list) else value


def _short(value):
    return value[:12] if isinstance(value, str) and len(value) == 64 else value  # a SHA-256
