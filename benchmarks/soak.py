"""Memory over time: extracts masks from a film and scores methods on them, again and again, in one process.

    python benchmarks/soak.py [--minutes 6] [--out docs/figures/soak.png]

Records the resident memory of this process and all that it has started every second. Prints the slopes after warm-up
and draws the curve. Leaves nothing behind but the figure.
"""

import shutil
import tempfile
import threading
import time
from pathlib import Path

import click
import matplotlib
import numpy as np
import psutil
from extract import film

from evaluation import benchmark, pairing, report
from evaluation.methods import parse_all
from evaluation.pairs import Sources
from evaluation.settings import BenchmarkConfig, ReportConfig
from maskgen.extraction.run import extract
from maskgen.settings import ExtractConfig

WARM_UP = 0.2  # fraction of the time that the slopes exclude: imports, caches and the allocator's pools
MB = 1024**2


class Watch(threading.Thread):
    """Samples, once a second until `stop` is set: (s, MB of the tree, MB of this process, its open files)."""

    def __init__(self):
        super().__init__(daemon=True)
        self.samples, self.begin, self.stop = [], time.monotonic(), threading.Event()

    def run(self):
        me = psutil.Process()
        while not self.stop.wait(1):
            mine = me.memory_info().rss
            others = sum(_resident(child) for child in me.children(recursive=True))
            self.samples.append((time.monotonic() - self.begin, (mine + others) / MB, mine / MB, me.num_fds()))


def _resident(process):
    try:
        return process.memory_info().rss
    except psutil.Error:  # it has ended
        return 0


def once(videos, folder, number, workers):
    """One extraction and one benchmark; `number` is the seed."""
    config = ExtractConfig(train=40, test=40, size=256, min_area=8, seed=number)
    extract(videos, folder / "raw", config, workers=workers, say=lambda line: None)
    config = BenchmarkConfig(metrics=("l1_image", "psnr", "ssim"), size=(256, 256), per_class=12, seed=number)
    masks = folder / "raw" / "test"
    pairs = pairing.make_pairs(None, masks, config)
    sources = Sources(pairing.image_folder(None), masks)
    methods = parse_all(("telea", "ns", "mean"), ())
    scores = benchmark.run(methods, pairs, sources, folder / "results", config, workers=workers)
    report.write(folder / "results", scores, pairs, sources, config, ReportConfig(by="psnr"))


def slope(seconds, values):
    """MB per hour, by least squares."""
    return np.polyfit(seconds / 3600, values, 1)[0]


def draw(path, samples, kept, ends):
    """Draw memory over time, with the fitted line."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 3.6), layout="constrained")
    minutes = samples[:, 0] / 60
    for column, name, colour in ((1, "with all it started", "#4477aa"), (2, "this process", "#cc6677")):
        axes.plot(minutes, samples[:, column], color=colour, linewidth=0.8, label=name)
        line = np.polyfit(minutes[kept], samples[kept, column], 1)
        axes.plot(minutes[kept], np.polyval(line, minutes[kept]), color="black", linewidth=1, linestyle="--")
    axes.set(xlabel="minutes", ylabel="resident memory, MB", ylim=(0, None), xlim=(0, None))
    axes.set_title(f"{ends} times extract and evaluate in one process", loc="left", fontsize=10)
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


@click.command()
@click.option("--minutes", default=6.0, show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default="docs/figures/soak.png", show_default=True)
def main(minutes, workers, out):
    watch, ends = Watch(), 0
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        videos = [film(folder / "film.mp4", 200)]
        watch.start()
        while time.monotonic() - watch.begin < 60 * minutes:
            once(videos, folder / "run", ends, workers)
            shutil.rmtree(folder / "run")
            ends += 1
        watch.stop.set()
        watch.join()
    samples = np.array(watch.samples)
    kept = samples[:, 0] > WARM_UP * samples[-1, 0]
    draw(out, samples, kept, ends)
    print("| what | measured |\n|---|---|")
    print(f"| minutes | {samples[-1, 0] / 60:.1f} |")
    print(f"| extractions and benchmarks | {ends} each |")
    for column, name in ((1, "process and all it started"), (2, "process alone")):
        kept_values = samples[kept, column]
        print(f"| {name}: MB an hour after warm-up | {slope(samples[kept, 0], kept_values):+.1f} |")
        print(f"| {name}: median, highest MB | {np.median(kept_values):.0f}, {kept_values.max():.0f} |")
    print(f"| open files, first and last tenth | {_tenths(samples[:, 3])} |")
    print(f"\n{workers} worker; the curve is in {out}")


def _tenths(values):
    tenth = max(1, len(values) // 10)
    return f"{np.median(values[:tenth]):.0f}, {np.median(values[-tenth:]):.0f}"


if __name__ == "__main__":
    main()
