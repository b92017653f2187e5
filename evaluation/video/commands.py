"""The command `evaluate video`. Heavy imports are inside."""

import shlex

import click

from evaluation.options import MASKS, method_options, polarity_option, threshold_option
from evaluation.settings import FIRST
from evaluation.video.settings import METRICS, OUT, VIDEOS, VideoConfig
from maskgen.runtime.command import FOLDER, Command, cluster_option, print_stderr, seed_option, workers_option


class FrameSize(click.ParamType):
    """(height, width) in px, written as width and height, 432x240."""

    name = "WxH"

    def convert(self, value, param, ctx):
        if not isinstance(value, str):  # typed before `video`, where it is an option of `evaluate`: height and width
            self.fail("write it after `video`, where it is width x height", param, ctx)
        width, _, height = value.lower().partition("x")
        if not (width.isdecimal() and height.isdecimal() and 16 <= min(int(width), int(height)) <= 8192):
            self.fail(f"expected a width and a height in px such as 432x240, got {value!r}", param, ctx)
        return int(height), int(width)


@click.command(cls=Command)
@click.argument("videos", type=MASKS, default=VIDEOS)
@click.argument("masks", type=MASKS, required=False)
@method_options()
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    type=click.Choice(METRICS),
    metavar="METRIC",
    default=VideoConfig.metrics,
    help=f"{', '.join(METRICS)}; repeatable.",
)
@click.option(
    "--frames",
    type=click.IntRange(0),
    default=VideoConfig.frames,
    help="Number of masks of each sequence that are used, the first ones; 0 takes all.",
)
@click.option(
    "--per-class",
    type=click.IntRange(0),
    help=f"Mask sequences of each class, the first ones; 0 takes all. [default: all; {FIRST} of v1 without MASKS]",
)
@click.option("--size", type=FrameSize(), help="Width and height to which all is resized. [default: that of the masks]")
@polarity_option
@threshold_option
@seed_option
@click.option("--pictures/--no-pictures", default=False, help="Keep every result as a JPEG.")
@click.option("--retry", is_flag=True, help="Try sequences again that failed in an earlier run.")
@click.option("--export", type=FOLDER, help="Write the pairs as PNG files to this folder instead of scoring them.")
@workers_option
@cluster_option
@click.option("--out", "-o", type=FOLDER, default=OUT, help="Folder for scores, tables and pictures.")
def video(videos, masks, frames, per_class, size, seed, polarity, threshold, export, workers, cluster, out, **options):
    """Score inpainting methods on videos with moving masks.

    VIDEOS is a folder of folders of frames, or of video files [default: videos]. MASKS is a set that `maskgen
    sequences` made, a folder of folders of masks, or v1 [default: masks/sequences, else v1]. Masks belong to the video
    of the same name; if no names agree, the seed draws a video for each sequence. Methods fill one frame after the
    other; dir:FOLDER holds the results of a video inpainting program, in a folder for each sequence.
    """
    from evaluation.video.api import evaluate_video

    run, reading = {"workers": workers, "cluster": cluster}, {"polarity": polarity, "threshold": threshold}
    if export:
        from evaluation.video.export import export as write
        from evaluation.video.masks import default_masks, default_per_class
        from evaluation.video.pairing import pair_videos

        masks, count = masks or default_masks(), default_per_class(masks) if per_class is None else per_class
        config = VideoConfig(size=size, frames=frames, per_class=count, seed=seed)
        pairs = pair_videos(videos, masks, config, **reading, out=export)
        click.echo(pairs.description)
        write(pairs, export, config, **run, say=click.echo)
        folders = shlex.join([str(export / "frames"), str(export / "masks")])
        click.echo(f"{len(pairs.pairs):,} pairs in {export}; --method NAME=dir:FOLDER is for results, one folder each")
        click.echo(f"score them with: evaluate video {folders}")
        return 0
    what = {"frames": frames, "per_class": per_class, "size": size, "seed": seed, **reading}
    result = evaluate_video(videos=videos, masks=masks, out=out, verbose=True, **what, **run, **options)
    for line in result.failures:
        print_stderr(line)
    return int(result.all_failed)
