"""The command `maskgen`: options in, one function call out. Heavy imports wait inside."""

from dataclasses import replace
from pathlib import Path

import click

from maskgen import __version__
from maskgen.runtime.command import (
    CONTEXT,
    FILE,
    FOLDER,
    Numbers,
    Tool,
    cluster_option,
    print_stderr,
    seed_option,
    workers_option,
)
from maskgen.settings import (
    BORDER,
    EDGES,
    PRESETS,
    RAW,
    SHAPES,
    SIZE,
    TESTSET,
    AugmentConfig,
    ExtractConfig,
    FillConfig,
    PublishConfig,
)

PAPER = ",".join(f"{edge:g}" for edge in EDGES)
polarity_option = click.option(
    "--polarity",
    type=click.Choice(["hole-white", "hole-black", "auto"]),
    default="auto",
    help="What white means; auto decides by evidence, or refuses.",
)
preset_option = click.option("--preset", type=click.Choice(list(PRESETS)), default="nvidia", help="Brushes and turns.")


@click.group(cls=Tool, context_settings=CONTEXT)
@click.version_option(__version__)
def maskgen():
    """Make irregular masks from video, augment them, sort them into classes, publish them."""


@maskgen.command()
@click.argument("videos", nargs=-1, type=click.Path(path_type=Path))
@click.option("--out", "-o", default=RAW, type=FOLDER, help="The mask set to write.")
@click.option("--train", default=ExtractConfig.train, help="Masks for training.")
@click.option("--test", default=ExtractConfig.test, help="Masks for testing, from other videos.")
@click.option("--size", default=ExtractConfig.size, help="Side of a mask in px; a frame's short side becomes this.")
@click.option("--crops", default=ExtractConfig.crops, help="Squares along the long side of a wide frame.")
@click.option("--gap", "gaps", type=Numbers(int), default="1", help="Frames between the two of a pair, as 1 or 1,2,4.")
@click.option("--flow", default=ExtractConfig.flow, help="dis, dis-medium, dis-fast, farneback, tvl1 or a plug-in's.")
@click.option("--slope", default=ExtractConfig.slope, help="Occluded: |w+v|^2 > slope * (|w|^2 + |v|^2) + offset.")
@click.option("--offset", default=ExtractConfig.offset, help="The same, in px^2.")
@click.option("--motion-boundaries/--no-motion-boundaries", default=True, help="Join in where the flow jumps.")
@click.option(
    "--boundary-slope", default=ExtractConfig.boundary_slope, help="Jump: |grad w|^2 > slope * |w|^2 + offset."
)
@click.option("--boundary-offset", default=ExtractConfig.boundary_offset, help="The same.")
@click.option(
    "--noise", default=ExtractConfig.noise, help="How far noise in the frames raises both offsets; 0: as published."
)
@click.option("--min-area", default=ExtractConfig.min_area, help="Specks of fewer pixels are removed.")
@click.option("--min-ratio", default=ExtractConfig.min_ratio, help="Masks with less of the image in holes are dropped.")
@click.option("--max-ratio", default=ExtractConfig.max_ratio, help="Masks with more of it in holes are dropped.")
@click.option("--strict", is_flag=True, help="Stop at the first bad video instead of passing it over.")
@seed_option
@workers_option
@cluster_option
def extract(videos, out, workers, cluster, strict, **settings):
    """Make raw masks from VIDEOS: files, folders of frames, or folders of those. [default: videos/]

    Two frames of a film show parts that the other cannot see. Those parts, found by optical flow, are the masks.
    The command can be stopped at any time; the same command goes on where it stopped.
    """
    from maskgen.extraction.run import extract, passed_over_in, summary

    videos = videos or (Path("videos"),)
    config = ExtractConfig(**settings)
    recipe = extract(videos, out, config, workers=workers, cluster=cluster, strict=strict, say=print_stderr)
    lines = summary(recipe)
    if any(recipe["counts"]["masks"].values()):
        click.echo("\n".join([*lines, f"look at them: maskgen show {out}"]))
        return 0
    click.echo("\n".join(lines))
    print_stderr(f"maskgen: not one mask came of these videos, so {out} was not written: {passed_over_in(recipe)}")
    return 1


@maskgen.command()
@click.argument("raw", type=click.Path(path_type=Path), default=RAW)
@click.argument("out", type=FOLDER, default="masks/augmented")
@click.option("--count", type=click.IntRange(1), default=1000, help="Masks to make.")
@preset_option
@click.option("--size", type=click.IntRange(16, 4096), default=SIZE, help="Side in pixels.")
@click.option("--shape", type=click.Choice(SHAPES), default=AugmentConfig.shape, help="The brush.")
@click.option("--rotate", type=click.FloatRange(0, 180), default=AugmentConfig.rotate, help="Degrees, either way.")
@click.option(
    "--min-ratio", type=click.FloatRange(0, 1, min_open=True), default=AugmentConfig.min_ratio, help="Smallest hole."
)
@click.option(
    "--max-ratio", type=click.FloatRange(0, 1, max_open=True), default=AugmentConfig.max_ratio, help="Largest hole."
)
@click.option("--uniform", is_flag=True, help="All hole ratios alike often, by growing each hole to one.")
@click.option("--polarity", type=click.Choice(["hole-white", "hole-black"]), default="hole-white", help="Of RAW.")
@click.option(
    "--threshold",
    type=click.IntRange(1, 255),
    help="Grey levels from it upwards are white; NVIDIA's archive takes 153. [default: RAW has two values]",
)
@seed_option
@workers_option
@cluster_option
def augment(raw, out, count, workers, cluster, shape, rotate, min_ratio, max_ratio, polarity, threshold, **told):
    """Make random training masks OUT from raw masks RAW (their train part), or from NVIDIA's train archive."""
    from maskgen.sampler import MaskSampler
    from maskgen.training_set import augment_folder

    sampler = MaskSampler(raw, ratio=(min_ratio, max_ratio), polarity=polarity, threshold=threshold, **told)
    sampler.config = replace(sampler.config, shape=shape, rotate=rotate)
    made = augment_folder(sampler, out, count, workers=workers, cluster=cluster, say=print_stderr)
    click.echo(f"{made} masks in {out}")


@maskgen.command()
@click.argument("raw", type=FOLDER, default=RAW)
@click.argument("out", type=FOLDER, default=TESTSET)
@click.option("--per-category", type=click.IntRange(1), default=FillConfig.per_category, help="Masks of each class.")
@preset_option
@seed_option
@workers_option
@cluster_option
def testset(raw, out, per_category, preset, seed, workers, cluster):
    """Make the test set OUT, twelve classes by hole ratio and border, from the raw masks RAW (their test part).

    A class that the raw masks cannot fill is left short, which a line says; recipe.json has the numbers. The command
    can be stopped at any time; the same command goes on where it stopped.
    """
    from maskgen.testset import make_testset

    config = FillConfig(per_category=per_category, preset=preset, seed=seed)
    recipe = make_testset(raw, out, config, workers=workers, cluster=cluster, say=print_stderr)
    counts = {name: count for name, count in recipe["counts"].items() if count}
    free = sum(count for name, count in counts.items() if name.startswith("free"))
    click.echo(
        f"{sum(counts.values())} masks of {len(counts)} classes in {out}; "
        f"{recipe['free_touching_the_edge']} of the {free} free ones touch the image edge"
    )


@maskgen.command("bin")
@click.argument("masks", type=click.Path(path_type=Path), required=False)
@click.option("--ratios", is_flag=False, flag_value=PAPER, default=PAPER, help="Edges of the hole ratio: 0.1,0.3,0.5.")
@click.option("--border", type=click.IntRange(1), default=BORDER, help="Pixels that interior masks keep from the edge.")
@polarity_option
@click.option(
    "--threshold",
    type=click.IntRange(1, 255),
    help="Grey levels from it upwards are white. [default: 153 with --layout nvidia, else masks must have two values]",
)
@click.option(
    "--resize", type=click.IntRange(16, 8192), help="Side in pixels, by nearest neighbour; measured after it."
)
@click.option("--layout", type=click.Choice(["any", "nvidia"]), default="any", help="nvidia: one of their archives.")
@click.option("--index", type=FILE, help="Write the index to this CSV file; with --out a copy of its index.")
@click.option("--out", "-o", type=FOLDER, help="Write a sorted mask set to this folder.")
@workers_option
@cluster_option
def bin_(masks, ratios, border, polarity, threshold, resize, layout, index, out, workers, cluster):
    """Sort MASKS, a folder, zip or tar, into classes; print how many each has. [default: masks/testset or masks/raw]

    With --out the command can be stopped at any time; the same command goes on where it stopped.
    """
    from maskgen import sort
    from maskgen.maskset import write_table

    masks = masks or (Path(TESTSET) if Path(TESTSET).is_dir() else Path(RAW))
    rules = sort.Rules(polarity, threshold, resize, sort.parse_edges(ratios), border)
    found, rules, why = sort.open_masks(masks, rules, layout)
    if index:
        sort.prepare_index(index, out, rules)
    if why:
        print_stderr(f"polarity: {why}")
    rows = sort.measure_masks(found, rules, out, workers=workers, cluster=cluster, say=print_stderr)
    if index:
        write_table(index, rows)
    click.echo(sort.grid(rows, rules.edges))
    if layout == "nvidia":
        click.echo(sort.blocks(rows))


@maskgen.command()
@click.argument("masks", type=FOLDER, default=TESTSET)
@click.argument("out", type=FOLDER, default="dist")
@click.option(
    "--layout", type=click.Choice(["imagefolder", "nvidia"]), default="imagefolder", help="nvidia: one flat zip."
)
@click.option("--archives", help=f"Beside the zip: webdataset, parquet. [default: {','.join(PublishConfig.archives)}]")
@click.option("--sources", type=FILE, help="SOURCES.csv with each video's licence.")
@click.option("--name", default=PublishConfig.name, help="Short name of the set.")
@click.option("--title", default=PublishConfig.title, help="Its title.")
@click.option("--creator", default=PublishConfig.creator, help="Who publishes it.")
@click.option("--url", default=PublishConfig.url, help="Where it will be found.")
@click.option("--licence", default=PublishConfig.licence, help="SPDX name of the masks' licence.")
@click.option("--date", default=PublishConfig.date, help="Of publication, YYYY-MM-DD.")
def publish(masks, out, layout, archives, sources, **told):
    """Write the test set MASKS to OUT for a host of data sets: folder, archives, card, Croissant, checksums.

    The same command with other texts writes them anew; another test set needs another folder.
    """
    from maskgen import publish as press
    from maskgen.errors import BadInput

    if archives is not None:
        if layout == "nvidia":
            raise BadInput("--archives belongs to the layout imagefolder: nvidia is one zip")
        told["archives"] = tuple(filter(None, archives.split(",")))
    write = press.publish if layout == "imagefolder" else press.publish_nvidia
    for warning in write(masks, out, PublishConfig(**told), credits=sources, say=print_stderr):
        print_stderr(f"warning: {warning}")
    how = f"maskgen verify {out}" if layout == "imagefolder" else "sha256sum -c checksums.sha256"
    click.echo(f"{masks} is published in {out}; `{how}` checks it")


@maskgen.command()
@click.argument("masks", type=FOLDER, default=TESTSET)
@workers_option
@cluster_option
def verify(masks, workers, cluster):
    """Measure every mask of MASKS again and list what is not as the index says. Exit code 1 for any fault."""
    from maskgen.verify import find_faults

    number, faults = find_faults(masks, workers=workers, cluster=cluster)
    for fault in faults:
        click.echo(fault)
    click.echo(f"{number} masks, {len(faults) or 'no'} fault{'s' * (len(faults) != 1)}", err=bool(faults))
    return 1 if faults else 0


@maskgen.command()
@click.argument("masks", type=FOLDER, default=TESTSET)
@click.option("--out", "-o", type=FOLDER, help="Folder for the pictures. [default: MASKS-figures]")
@click.option("--columns", type=click.IntRange(1, 50), default=10, help="Masks side by side on the contact sheet.")
def show(masks, out, columns):
    """Draw MASKS: a contact sheet, histograms of ratio and border distance, a map of where holes lie.

    White is the hole, as in the files. The sheet shows masks of each class, and of raw masks, which have none, those
    with the largest holes of each video.
    """
    from maskgen.errors import BadInput
    from maskgen.plots import draw_figures

    place = masks if masks.name not in ("", "..") else masks.resolve()
    out = out or place.with_name(f"{place.name}-figures")
    if out.resolve().is_relative_to(masks.resolve()):
        raise BadInput(f"{out} lies in {masks}: pictures among masks would be taken for masks, name another folder")
    for path in draw_figures(masks, out, columns):
        click.echo(path)
