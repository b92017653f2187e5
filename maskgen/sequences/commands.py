"""The command `maskgen sequences`."""

from pathlib import Path

import click

from maskgen.runtime.command import (
    FOLDER,
    Command,
    Numbers,
    cluster_option,
    print_stderr,
    seed_option,
    workers_option,
)
from maskgen.sequences.settings import FROM_VIDEO, MODES, SEQUENCES, SequenceConfig
from maskgen.settings import RAW


class Size(click.ParamType):
    """(width, height) in px, written `432x240`; `512` is a square."""

    name = "WxH"

    def convert(self, value, param, ctx):
        if not isinstance(value, str):
            return value
        try:
            width, _, height = value.lower().partition("x")
            return int(width), int(height or width)
        except ValueError:
            self.fail(f"expected a width and a height such as 432x240, got {value!r}", param, ctx)


class Modes(click.ParamType):
    """A tuple of modes, written `drifting,tracked`."""

    name = "modes"

    def convert(self, value, param, ctx):
        return tuple(filter(None, value.split(","))) if isinstance(value, str) else value


@click.command(cls=Command)
@click.argument("videos", nargs=-1, type=click.Path(path_type=Path))
@click.option("--out", "-o", default=SEQUENCES, type=FOLDER, help="Folder of the sequences.")
@click.option("--frames", default=SequenceConfig.frames, help="Frames of each sequence.")
@click.option("--train", default=SequenceConfig.train, help="Number of sequences for training.")
@click.option("--test", default=SequenceConfig.test, help="Number for testing, from other videos and raw masks.")
@click.option("--size", type=Size(), default="432x240", help="Width and height in px.")
@click.option("--modes", type=Modes(), default=",".join(MODES), help="What is made, in equal shares.")
@click.option(
    "--from",
    "raw",
    type=click.Path(path_type=Path),
    help=f"Raw masks: a mask set, a folder or an archive. [default: {RAW}, otherwise those that come with the package]",
)
@click.option(
    "--speed",
    type=Numbers(float),
    default="0.5,8",
    help="Lowest and highest speed of drifting masks, px a frame at 432x240.",
)
@click.option("--strict", is_flag=True, help="Stop at the first unreadable video instead of skipping it.")
@seed_option
@workers_option
@cluster_option
def sequences(videos, out, raw, workers, cluster, strict, **settings):
    """Make masks that move, for video inpainting.

    VIDEOS are video files, folders of frames, or folders of both [default: videos/]. A stationary mask stays where it
    is, a drifting one moves along a random path, a tracked one sticks to what a video shows, and occlusion masks are
    what consecutive frames of a video hide from each other. The first two need no video.

    Writes a folder of PNG files (255: hole) for each sequence, with an index, to --out. The command can be stopped at
    any time; run it again to continue.
    """
    from maskgen.errors import BadInput
    from maskgen.sequences.run import make_sequences, summary

    config = SequenceConfig(**settings)
    if set(config.modes) & set(FROM_VIDEO):
        if not videos and not Path("videos").exists():
            raise BadInput(
                f"no folder videos here, and no VIDEOS given: {' and '.join(FROM_VIDEO)} masks need some; "
                "for masks without video, use --modes stationary,drifting"
            )
    elif videos:
        print_stderr(f"maskgen: {' and '.join(config.modes)} masks need no video: {videos[0]} is not used")
    raw = raw or (Path(RAW) if Path(RAW).is_dir() else None)
    videos = videos or (Path("videos"),)
    recipe = make_sequences(videos, raw, out, config, workers=workers, cluster=cluster, strict=strict, say=print_stderr)
    click.echo("\n".join([*summary(recipe), f"look at them: maskgen show {out}"]))
