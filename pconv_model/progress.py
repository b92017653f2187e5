"""Progress of a training run: bar, history, TensorBoard, and the signals that stop it."""

import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from maskgen.runtime.files import write_whole
from pconv_model.schedule import Stage, learning_rate
from pconv_model.state import TrainingState


class TrainingLog:
    """Progress bar, history and TensorBoard of the first process; the other processes show nothing."""

    def __init__(self, out: Path, state: TrainingState, total: int, *, shown: bool):
        """total: steps of the whole run."""
        self.out = out
        self.bar = tqdm(total=total, initial=state.step, unit="step", disable=not shown)
        self.board = _tensorboard(out, state.step) if shown else None
        self._restart_clock()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.bar.close()
        if self.board:
            self.board.close()

    def _restart_clock(self):
        self.images, self.since = 0, time.monotonic()

    def add_step(self, state: TrainingState, terms: dict, images: int) -> None:
        """Count a step. terms: its loss terms. images: how many it trained on."""
        for name, term in terms.items():
            state.sums[name] = state.sums.get(name, 0) + term
        state.count, self.images = state.count + 1, self.images + images
        self.bar.update()

    def write_losses(self, state: TrainingState, stage: Stage) -> None:
        """Add a row with the mean loss terms since the last such row."""
        means = {name: float(total) / state.count for name, total in state.sums.items()}
        speed = self.images / (time.monotonic() - self.since)
        self.bar.set_postfix({**{name: f"{value:.3g}" for name, value in means.items()}, "images/s": f"{speed:.1f}"})
        row = {"step": state.step, "phase": stage.phase, "size": stage.size}
        row["lr"] = learning_rate(state.config, state.step - 1)
        self._add_row(state, {**row, **means, "images_per_s": round(speed, 2)})
        state.sums, state.count = {}, 0
        self._restart_clock()

    def write_validation(self, state: TrainingState, scores: dict) -> None:
        """Add a row with the validation scores."""
        self._add_row(state, {"step": state.step, **scores})
        self.since = time.monotonic()

    def _add_row(self, state, row):
        state.history.append(row)
        for name, value in row.items() if self.board else ():
            self.board.add_scalar(name.replace("val_", "validation/"), value, state.step)

    def save(self, state: TrainingState) -> None:
        """Write history.csv."""
        import pandas as pd

        write_whole(self.out / "history.csv", pd.DataFrame(state.history, dtype=object).to_csv(index=False).encode())


def _tensorboard(out, step):
    """A SummaryWriter if TensorBoard is installed (the extra `train`), else None."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(out / "tensorboard"), purge_step=step)


@contextmanager
def stop_signals():
    """Yield a list that gets an entry on the first Ctrl-C or SIGTERM, so that the step can end; the second kills."""
    received, before = [], {}

    def stop(number, frame):
        received.append(number)
        signal.signal(number, before[number])

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
