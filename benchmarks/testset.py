"""Time of a test set by class, and its properties: clipping, brushes, layers, use of raw masks.

python benchmarks/testset.py masks/raw --per-category 50
"""

import argparse
import csv
import tempfile
import time
from pathlib import Path

import numpy as np

from maskgen.categories import CATEGORIES
from maskgen.maskset import split_of
from maskgen.runtime import parallel
from maskgen.settings import FillConfig
from maskgen.testset import make_testset
from maskgen.testset.one_mask import are_scarce, list_raw_masks, make_mask
from maskgen.testset.tasks import mask_tasks


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "raw", type=Path, nargs="?", default=Path("demo/masks/raw"), help="raw masks; make demo makes some"
    )
    parser.add_argument("--per-category", type=int, default=50)
    parser.add_argument("--workers", type=int, default=parallel.cores())
    options = parser.parse_args()
    config = FillConfig(per_category=options.per_category)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        recipe = make_testset(options.raw, Path(folder) / "set", config, workers=options.workers)
        spent = time.perf_counter() - begin
        with (Path(folder) / "set" / "test" / "metadata.csv").open() as file:
            rows = list(csv.DictReader(file))
    print(f"{len(rows)} masks, {options.workers} workers: {spent:.1f} s, {1e3 * spent / len(rows):.1f} ms a mask")
    for key in ("raw_masks_used", "masks_that_use_one_raw_mask", "masks_begun_by_one_raw_mask"):
        print(f"{key.replace('_', ' ')}: {recipe[key]}")
    part = split_of(options.raw, "test")
    names, digest = list_raw_masks(part)
    source, tasks = (str(part.resolve()), digest), mask_tasks(config, len(names))
    scarce = are_scarce(tasks, source, config)
    print(f"missing masks: {recipe['missing'] or 'none'}; raw masks are {'' if scarce else 'not '}too few or too small")
    print(f"{'class':<20}{'cpu ms':>8}{'layers':>8}{'brush px':>10}{'clipped':>9}{'highest':>9}")
    for c, name in enumerate(CATEGORIES):
        begin = time.process_time()
        chosen = [task for task in tasks if task.category == c][:20]
        for task in chosen:
            make_mask(task, source, config, scarce=scarce)
        each = 1e3 * (time.process_time() - begin) / len(chosen)
        of_class = [row for row in rows if row["category"] == name]
        if not of_class:
            continue
        layers, brush, cut = (
            np.array([float(row[column]) for row in of_class]) for column in ("layers", "dilation", "clipped")
        )
        print(f"{name:<20}{each:8.1f}{layers.mean():8.1f}{brush.mean():10.1f}{cut.mean():9.3f}{cut.max():9.3f}")


if __name__ == "__main__":
    main()
