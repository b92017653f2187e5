"""Which steps of a training run have which size, batch, phase and learning rate."""

import math
from dataclasses import dataclass
from itertools import pairwise

from maskgen.errors import BadInput
from pconv_model.settings import TrainConfig

LEAST_VGG = 8  # px, that three poolings ask for


@dataclass(frozen=True)
class Stage:
    """Steps first ... last - 1, all of one size, batch and phase."""

    first: int
    last: int
    size: int
    batch: int
    phase: int


def stages(config: TrainConfig) -> list[Stage]:
    """The run cut where its size or phase changes. Raises BadInput where the settings do not fit each other."""
    sizes, one = config.size, config.phase1_steps
    batch = config.batch * len(sizes) if len(config.batch) == 1 else config.batch
    switch = config.switch or tuple(one * i // len(sizes) for i in range(1, len(sizes)))
    if len(batch) != len(sizes) or len(switch) != len(sizes) - 1:
        raise BadInput(
            f"{len(sizes)} sizes need one batch each (or one for all), got {len(batch)}, and {len(switch)} switches"
        )
    edges = [0, *switch, one]
    if min(*sizes, *batch) < 1:
        raise BadInput(f"sizes and batches are positive, got {', '.join(map(str, (*sizes, *batch)))}")
    if sorted(edges) != edges or config.phase2_steps < 0:
        raise BadInput(f"steps are not negative and switches rise within the {one} of phase 1, got {edges}")
    cut = [Stage(*span, size, b, 1) for span, size, b in zip(pairwise(edges), sizes, batch, strict=True)]
    cut.append(Stage(one, one + config.phase2_steps, sizes[-1], batch[-1], 2))
    if config.vgg_window and config.vgg_window < LEAST_VGG:
        raise BadInput(f"VGG's features need a window of {LEAST_VGG} px or more, 0 for all, got {config.vgg_window}")
    if one + config.phase2_steps < 1:
        raise BadInput("a run has at least one step, got 0 in both phases")
    return [stage for stage in cut if stage.last > stage.first]


def rate(config: TrainConfig, step: int) -> float:
    """The learning rate of a step."""
    phase = int(step >= config.phase1_steps)
    rates = config.lr[0], config.lr[-1]
    if config.decay == "constant":
        return rates[phase]
    length = config.phase2_steps if phase else config.phase1_steps
    high, low = (rates[1], 0.0) if phase else rates
    return low + (high - low) * (1 + math.cos(math.pi * (step - phase * config.phase1_steps) / length)) / 2
