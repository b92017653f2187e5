"""Raw masks for tests: thin wandering lines, like occlusions."""

import json

import cv2
import numpy as np

from maskgen.maskset import describe, encode, write_index


def draw(*rows):
    """A hole from text: '#' is missing, '.' is kept."""
    return np.array([[c == "#" for c in row] for row in rows])


def streaks(seed, side=512, pieces=6):
    """A few wandering lines, 3 px wide. bool (side, side)."""
    rng = np.random.default_rng(seed)
    hole = np.zeros((side, side), np.uint8)
    for _ in range(pieces):
        steps = rng.normal(0, 18, (12, 2)).cumsum(0) + rng.uniform(0.1, 0.9, 2) * side
        cv2.polylines(hole, [steps.astype(np.int32)], False, 1, 3)
    return hole.astype(bool)


def write_raw(folder, count=40, split="test"):
    """Write a raw mask set as `maskgen extract` does, with masks of two videos. Returns its folder."""
    rows = []
    for i in range(count):
        hole = streaks(i, pieces=2 + i % 12)
        name, data = f"clip{i % 2}/{i:06d}_occluded.png", encode(hole)
        path = folder / split / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        columns = {"source": f"clip{i % 2}.mp4", "frame": i, "gap": 1, "crop": 0, "kind": "occluded"}
        rows.append({**describe(hole, name, data), **columns})
    write_index(folder / split, rows)
    sources = [
        {"name": "clip0.mp4", "sha256": "0" * 64, "split": split, "source": "a lake", "licence": "CC-BY-4.0"},
        {"name": "clip1.mp4", "sha256": "1" * 64, "split": split},
    ]
    recipe = {"settings": {"flow": "dis"}, "sources": sources, "counts": {split: count}}
    (folder / "recipe.json").write_text(json.dumps(recipe))
    return folder
