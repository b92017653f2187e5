"""Draw the figure of the README: from two frames of a film to a filled photo.

    python docs/figures/overview.py demo/videos/bigbuckbunny.mp4 [--frame 40]

The film is Big Buck Bunny (c) Blender Foundation, CC-BY 3.0; the photo is scikit-image's astronaut (NASA, public
domain).
"""

from pathlib import Path

import click
import cv2
import matplotlib.figure
import numpy as np
from skimage import data

from evaluation.methods.classical import telea
from maskgen.augment import augment
from maskgen.categories import category, measure
from maskgen.extraction import video
from maskgen.extraction.occlusion import holes_of_pair
from maskgen.settings import AugmentConfig, ExtractConfig


@click.command()
@click.argument("film", type=click.Path(exists=True, path_type=Path))
@click.option("--frame", default=40, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(film, frame, seed):
    """Draw the figure beside this file."""
    reader = video.open_reader(film)
    whole = [reader.read(frame), reader.read(frame + 1)]
    square = video.crop_squares(whole[0].shape[1], whole[0].shape[0], 1)[0]
    first, second = (video.crop(picture, square, 512) for picture in whole)
    raw, _ = holes_of_pair(first, second, ExtractConfig())
    hole, _ = augment(raw, AugmentConfig(), np.random.default_rng(seed))
    photo = data.astronaut()
    measured = measure(hole)
    panels = [
        ("frame t", first),
        ("frame t + 1", second),
        ("raw mask: what t + 1 hides", raw),
        (f"test mask, {category(measured.hole_ratio, measured.border_distance)}", hole),
        ("photo with holes", np.where(hole[..., None], 255, photo)),
        ("filled by telea", telea(photo, hole)),
    ]
    figure = matplotlib.figure.Figure(figsize=(15, 2.8))
    axes = figure.subplots(1, len(panels))
    for axis, (title, picture) in zip(axes, panels, strict=True):
        axis.imshow(
            cv2.resize(picture.astype(np.uint8) * (255 if picture.dtype == bool else 1), (320, 320)), cmap="gray"
        )
        axis.set_title(title, fontsize=10)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.tight_layout()
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=80, metadata={"Software": None})


if __name__ == "__main__":
    main()
