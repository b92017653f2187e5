"""Size, batch, phase and learning rate of each step of a training run."""

import math
from dataclasses import dataclass
from itertools import pairwise

from maskgen.errors import BadInput
from pconv_model.settings import TrainConfig


@dataclass(frozen=True)
class Stage:
    """Steps first to last - 1, which have the same crop size (px), batch and phase."""

    first: int
    last: int
    size: int
    batch: int
    phase: int


def stages(config: TrainConfig) -> list[Stage]:
    """The stages of a run, in order. Raises BadInput where sizes, batches and steps do not fit each other."""
    sizes, steps = config.size, config.phase1_steps
    batch = config.batch * len(sizes) if len(config.batch) == 1 else config.batch
    switch = config.switch or tuple(steps * i // len(sizes) for i in range(1, len(sizes)))
    if len(batch) != len(sizes) or len(switch) != len(sizes) - 1:
        raise BadInput(
            f"{len(sizes)} sizes need {len(sizes)} batches (or one for all) and {len(sizes) - 1} switches, "
            f"got {len(batch)} and {len(switch)}"
        )
    edges = [0, *switch, steps]
    if sorted(edges) != edges:
        raise BadInput(f"switches rise from 0 to the {steps} steps of phase 1, got {', '.join(map(str, switch))}")
    if steps + config.phase2_steps < 1:
        raise BadInput("a run needs at least one step, got 0 in both phases")
    phase1 = [Stage(*span, size, b, 1) for span, size, b in zip(pairwise(edges), sizes, batch, strict=True)]
    phase2 = Stage(steps, steps + config.phase2_steps, sizes[-1], batch[-1], 2)
    return [stage for stage in (*phase1, phase2) if stage.last > stage.first]


def learning_rate(config: TrainConfig, step: int) -> float:
    """The learning rate of a step."""
    in_phase2 = step >= config.phase1_steps
    first, second = config.lr[0], config.lr[-1]
    if config.decay == "constant":
        return second if in_phase2 else first
    if in_phase2:
        return _cosine(second, 0.0, step - config.phase1_steps, config.phase2_steps)
    return _cosine(first, second, step, config.phase1_steps)


def _cosine(high, low, step, length):
    return low + (high - low) * (1 + math.cos(math.pi * step / length)) / 2
