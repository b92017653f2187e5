"""The command `maskgen`: options in, one function call out. Slow imports are inside the functions."""

from dataclasses import replace
from pathlib import Path

import click

from maskgen import __version__
from maskgen.runtime.command import (
    CONTEXT,
    FILE,
    FOLDER,
    Numbers,
    PathType,
    Tool,
    cluster_option,
    print_stderr,
    seed_option,
    workers_option,
)
from maskgen.sequences.commands import sequences
from maskgen.settings import (
    BORDER,
    EDGES,
    GET,
    LEAVING,
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
    help="Which pixels are holes; auto looks at the masks, and stops if they leave doubt.",
)
preset_option = click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    default="nvidia",
    help="Augmentation: dilation of 9 to 49 px (nvidia) or 5 to 47 px (nvidia-old), rotation, crop.",
)


@click.group(cls=Tool, context_settings=CONTEXT)
@click.version_option(__version__)
def maskgen():
    """Make irregular inpainting masks from video: extract, augment, sort into classes, publish.

    \b
    maskgen get testset        masks/testset: 12,000 test masks, as they come with this package
    maskgen extract videos/    videos -> masks/raw
    maskgen testset            masks/raw -> masks/testset, 12 classes
    maskgen augment            masks/raw -> masks/augmented, for training
    maskgen show               masks/testset -> masks/testset-figures
    maskgen sequences          masks that move, for video -> masks/sequences
    """


maskgen.add_command(sequences)


@maskgen.command()
@click.argument("videos", nargs=-1, type=click.Path(path_type=Path))
@click.option("--out", "-o", default=RAW, type=FOLDER, help="Folder of the mask set.")
@click.option("--train", default=ExtractConfig.train, help="Number of training masks.")
@click.option("--test", default=ExtractConfig.test, help="Number of test masks, from other videos.")
@click.option("--size", default=ExtractConfig.size, help="Side of a mask in px; frames are scaled to this short side.")
@click.option("--crops", default=ExtractConfig.crops, help="Square crops along the long side of a wide frame.")
@click.option(
    "--gap", "gaps", type=Numbers(int), default="1", help="Distance of the two frames of a pair; several as 1,2,4."
)
@click.option(
    "--flow",
    default=ExtractConfig.flow,
    help="Optical flow: dis, dis-medium, dis-fast, farneback, tvl1, raft:FILE, or a plug-in.",
)
@click.option(
    "--slope",
    default=ExtractConfig.slope,
    help="A pixel is occluded if |w+v|^2 > slope * (|w|^2 + |v|^2) + offset, w and v being the flow there and back.",
)
@click.option("--offset", default=ExtractConfig.offset, help="See --slope; in px^2.")
@click.option(
    "--leaving",
    type=click.Choice(LEAVING),
    default=ExtractConfig.leaving,
    help="Pixels that leave the frame, as where the camera pans: keep them in the holes, as published, or drop them.",
)
@click.option("--motion-boundaries/--no-motion-boundaries", default=True, help="Add motion boundaries to the holes.")
@click.option(
    "--boundary-slope",
    default=ExtractConfig.boundary_slope,
    help="A pixel is a motion boundary if |grad w|^2 > slope * |w|^2 + offset.",
)
@click.option("--boundary-offset", default=ExtractConfig.boundary_offset, help="See --boundary-slope.")
@click.option(
    "--noise",
    default=ExtractConfig.noise,
    help="How much noise in the frames raises both offsets; 0: not at all, as published.",
)
@click.option("--min-area", default=ExtractConfig.min_area, help="Components of fewer pixels are removed.")
@click.option("--min-ratio", default=ExtractConfig.min_ratio, help="Masks with a smaller hole ratio are dropped.")
@click.option("--max-ratio", default=ExtractConfig.max_ratio, help="Masks with a larger hole ratio are dropped.")
@click.option(
    "--max-share",
    default=ExtractConfig.max_share,
    help="Largest share of the training or test masks from one video or group.",
)
@click.option("--strict", is_flag=True, help="Stop at the first unreadable video instead of skipping it.")
@seed_option
@workers_option
@cluster_option
def extract(videos, out, workers, cluster, strict, **settings):
    """Make raw masks from videos.

    VIDEOS are video files, folders of frames, or folders of both [default: videos/]. Each of two frames of a video
    shows parts of the scene that are occluded in the other. Optical flow finds these parts; they are the holes.

    A file SOURCES.csv beside the videos may name the origin, licence, split and group of each; docs/extract.md
    describes it.

    Writes masks as PNG files (255: hole) with an index, for training and testing, to --out. The command can be stopped
    at any time; run it again to continue.
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
    print_stderr(f"maskgen: no mask was found in these videos, so {out} was not written: {passed_over_in(recipe)}")
    return 1


@maskgen.command()
@click.argument("raw", type=click.Path(path_type=Path), required=False)
@click.argument("out", type=FOLDER, default="masks/augmented")
@click.option("--count", type=click.IntRange(1), default=1000, help="Number of masks.")
@preset_option
@click.option("--size", type=click.IntRange(16, 4096), default=SIZE, help="Side of a mask in px.")
@click.option("--shape", type=click.Choice(SHAPES), default=AugmentConfig.shape, help="Shape of the dilation brush.")
@click.option(
    "--rotate", type=click.FloatRange(0, 180), default=AugmentConfig.rotate, help="Largest rotation in degrees."
)
@click.option(
    "--min-ratio",
    type=click.FloatRange(0, 1, min_open=True),
    default=AugmentConfig.min_ratio,
    help="Smallest hole ratio.",
)
@click.option(
    "--max-ratio",
    type=click.FloatRange(0, 1, max_open=True),
    default=AugmentConfig.max_ratio,
    help="Largest hole ratio.",
)
@click.option("--uniform", is_flag=True, help="Draw hole ratios uniformly, and dilate each hole to its ratio.")
@click.option(
    "--polarity",
    type=click.Choice(["hole-white", "hole-black"]),
    default="hole-white",
    help="Which pixels of RAW are holes.",
)
@click.option(
    "--threshold",
    type=click.IntRange(1, 255),
    help="Grey level from which pixels are white, 153 for NVIDIA's archive. [default: masks have two values]",
)
@seed_option
@workers_option
@cluster_option
def augment(raw, out, count, workers, cluster, shape, rotate, min_ratio, max_ratio, polarity, threshold, **options):
    """Make random training masks from raw masks.

    RAW is a mask set, of which the train part is used, a folder or archive of other masks, NVIDIA's train archive, or
    v1 for the raw masks that come with the package [default: masks/raw, otherwise v1]. A raw mask is dilated, moved,
    rotated and cropped at random.

    Writes masks and an index to OUT [default: masks/augmented]. The command can be stopped at any time; run it again to
    continue, or with a larger --count to add masks.
    """
    from maskgen.sampler import MaskSampler
    from maskgen.training_set import augment_folder

    raw = raw or (Path(RAW) if Path(RAW).exists() else None)
    sampler = MaskSampler(raw, ratio=(min_ratio, max_ratio), polarity=polarity, threshold=threshold, **options)
    sampler.config = replace(sampler.config, shape=shape, rotate=rotate)
    made = augment_folder(sampler, out, count, workers=workers, cluster=cluster, say=print_stderr)
    click.echo(f"{made} masks in {out}")


@maskgen.command()
@click.argument("raw", type=FOLDER, default=RAW)
@click.argument("out", type=FOLDER, default=TESTSET)
@click.option(
    "--per-category", type=click.IntRange(1), default=FillConfig.per_category, help="Number of masks per class."
)
@preset_option
@seed_option
@workers_option
@cluster_option
def testset(raw, out, per_category, preset, seed, workers, cluster):
    """Make the paper's test set of 12 classes from raw masks.

    RAW is a mask set, of which the test part is used [default: masks/raw]. There are six classes by hole ratio of
    interior masks, which keep 50 px from the image edge, and six of free masks, which need not.

    Writes masks and an index to OUT [default: masks/testset]. If the raw masks cannot fill a class, it has fewer masks,
    and a line says so. The command can be stopped at any time; run it again to continue.
    """
    from maskgen.testset import make_testset

    config = FillConfig(per_category=per_category, preset=preset, seed=seed)
    recipe = make_testset(raw, out, config, workers=workers, cluster=cluster, say=print_stderr)
    counts = {name: count for name, count in recipe["counts"].items() if count}
    free = sum(count for name, count in counts.items() if name.startswith("free"))
    click.echo(
        f"{sum(counts.values())} masks in {len(counts)} classes in {out}; "
        f"{recipe['free_touching_the_edge']} of the {free} free ones touch the image edge"
    )


@maskgen.command("bin")
@click.argument("masks", type=click.Path(path_type=Path), required=False)
@click.option("--ratios", is_flag=False, flag_value=PAPER, default=PAPER, help="Class edges of the hole ratio.")
@click.option(
    "--border",
    type=click.IntRange(1),
    default=BORDER,
    help="Distance from the image edge in px that makes a mask interior.",
)
@polarity_option
@click.option(
    "--threshold",
    type=click.IntRange(1, 255),
    help="Grey level from which pixels are white. [default: 153 for --layout nvidia; others have two values]",
)
@click.option(
    "--resize",
    type=click.IntRange(16, 8192),
    help="Scale masks to this side in px, by nearest neighbour, before measuring.",
)
@click.option("--layout", type=click.Choice(["any", "nvidia"]), default="any", help="nvidia: one of NVIDIA's archives.")
@click.option("--index", type=FILE, help="Write the index to this CSV file.")
@click.option("--out", "-o", type=FOLDER, help="Write the masks, sorted into classes, to this folder.")
@workers_option
@cluster_option
def bin_(masks, ratios, border, polarity, threshold, resize, layout, index, out, workers, cluster):
    """Sort masks into classes by hole ratio and border, and count them.

    MASKS is a folder, zip or tar [default: masks/testset, otherwise masks/raw]. Of every mask the hole ratio, the
    distance of its hole from the image edge and the number of components are measured.

    Prints a table of the classes; --index and --out write the result. A command with --out can be stopped at any time;
    run it again to continue.
    """
    from maskgen import sort
    from maskgen.index import write_table

    masks = masks or (Path(TESTSET) if Path(TESTSET).is_dir() else Path(RAW))
    config = sort.SortConfig(polarity, threshold, resize, sort.parse_edges(ratios), border)
    found, config, reason = sort.open_masks(masks, config, layout)
    if index:
        sort.prepare_index(index, out, config)
    if reason:
        print_stderr(f"polarity: {reason}")
    rows = sort.measure_masks(found, config, out, workers=workers, cluster=cluster, say=print_stderr)
    if index:
        write_table(index, rows)
    click.echo(sort.count_table(rows, config.edges))
    if layout == "nvidia":
        click.echo(sort.classes_by_block(rows))


@maskgen.command()
@click.argument("what", type=click.Choice(list(GET)), default="testset")
@click.argument("out", type=FOLDER, required=False)
@workers_option
def get(what, out, workers):
    """Write the canonical masks, which come with the package, to a folder.

    WHAT is one of these [default: testset]:

    \b
    testset       12,000 test masks, 1,000 in each of 12 classes, as PNG files
    raw           8,000 raw masks of other videos, for `maskgen augment` and training
    nvidia-order  the test masks as 00000.png to 11999.png, in the order of NVIDIA's archive
    webdataset    the test masks as a tar for each class
    parquet       the test masks as one table for Hugging Face's `datasets`
    sequences     900 test sequences for video, 50 in each of 18 classes, as folders of PNG files

    White (255) is the hole. There is an index, metadata.csv or sequences.csv, with the class, the hole ratio and the
    source of each mask, and CREDITS.md. Each mask is compared with the hash of its pixels. OUT is the folder
    [default: masks/WHAT]. The command can be stopped at any time; run it again to continue.

    Training code needs no files: see MaskSampler and MaskDataset in the Python API.
    """
    from maskgen.unpack import get_masks

    out = out or Path(GET[what])
    number = get_masks(what, out, workers=workers, say=print_stderr)
    click.echo(f"{number} {what if what == 'sequences' else 'masks'} in {out}, all with the pixels of v1")


@maskgen.command()
@click.argument("masks", type=FOLDER, default=TESTSET)
@click.argument("out", type=FOLDER, default="dist")
@click.option(
    "--layout",
    type=click.Choice(["imagefolder", "nvidia"]),
    default="imagefolder",
    help="imagefolder of Hugging Face, or one flat zip as NVIDIA's.",
)
@click.option("--archives", help=f"In addition to the zip. [default: {','.join(PublishConfig.archives)}]")
@click.option("--sources", type=FILE, help="CSV file with the columns file, source, licence of each video.")
@click.option("--name", default=PublishConfig.name, help="Short name of the set.")
@click.option("--title", default=PublishConfig.title, help="Title of the set.")
@click.option("--creator", default=PublishConfig.creator, help="Name of the publisher.")
@click.option("--url", default=PublishConfig.url, show_default=False, help="Address of the published set.")
@click.option("--licence", default=PublishConfig.licence, help="Licence of the masks, as an SPDX name.")
@click.option("--date", default=PublishConfig.date, help="Date of publication, YYYY-MM-DD.")
def publish(masks, out, layout, archives, sources, **texts):
    """Prepare a test set for Hugging Face, Zenodo and other hosts.

    Writes the masks of MASKS [default: masks/testset], archives of them, a data card, a datasheet, Croissant metadata
    and checksums to OUT [default: dist]. Run the command again to change the texts; another test set needs another
    folder. Of mask sequences it writes the folders of frames, zips, a card and checksums.
    """
    from maskgen import publish as publishing
    from maskgen.errors import BadInput
    from maskgen.sequences.reader import holds_sequences

    if archives is not None:
        if layout == "nvidia" or holds_sequences(masks):
            kind = "nvidia is one zip" if layout == "nvidia" else "sequences have zips only"
            raise BadInput(f"--archives needs --layout imagefolder of single masks: {kind}")
        texts["archives"] = tuple(filter(None, archives.split(",")))
    write = publishing.publish if layout == "imagefolder" else publishing.publish_nvidia
    for warning in write(masks, out, PublishConfig(**texts), credits=sources, say=print_stderr):
        print_stderr(f"warning: {warning}")
    how = f"maskgen verify {out}" if layout == "imagefolder" else "sha256sum -c checksums.sha256"
    click.echo(f"{masks} is published in {out}; `{how}` checks it")


@maskgen.command()
@click.argument("masks", type=PathType(path_type=Path), default=TESTSET)
@workers_option
@cluster_option
def verify(masks, workers, cluster):
    """Check a mask set against its index and checksums.

    Measures every mask of MASKS [default: masks/testset] again, and lists all differences. Exit code 1 if there are
    any. MASKS may be mask sequences, or a zip or tar with an index; v1 is the packaged test set, v1-sequences are the
    packaged sequences.
    """
    from maskgen.canonical import masks_path
    from maskgen.sequences.reader import holds_sequences
    from maskgen.verify import find_faults

    number, faults = find_faults(masks, workers=workers, cluster=cluster)
    for fault in faults:
        click.echo(fault)
    what = "mask sequences" if holds_sequences(masks_path(masks)) else "masks"
    click.echo(f"{number} {what}, {len(faults) or 'no'} fault{'s' * (len(faults) != 1)}", err=bool(faults))
    return 1 if faults else 0


@maskgen.command()
@click.argument("masks", type=PathType(path_type=Path), default=TESTSET)
@click.option("--out", "-o", type=FOLDER, help="Folder of the figures. [default: MASKS-figures]")
@click.option("--columns", type=click.IntRange(1, 50), default=10, help="Masks per row, or frames of a strip.")
def show(masks, out, columns):
    """Draw a contact sheet, histograms and a heat map of a mask set.

    The contact sheet shows masks of each class of MASKS [default: masks/testset]; of raw masks, which have no classes,
    the largest holes of each video. Holes are white. The heat map shows where holes lie. Writes PNG files to --out.

    Of mask sequences (v1-sequences: those of the package) it draws strips of frames, and an animated preview.
    """
    from maskgen.canonical import masks_path
    from maskgen.errors import BadInput
    from maskgen.sequences.reader import holds_sequences

    place, masks = masks if masks.name not in ("", "..") else masks.resolve(), masks_path(masks)
    if holds_sequences(masks):
        from maskgen.sequences.plots import draw_figures
    elif masks.is_file():
        raise BadInput(f"{masks} is a file: expected the folder of a mask set, or a packed file of mask sequences")
    else:
        from maskgen.plots import draw_figures

    out = out or place.with_name(f"{place.name.removesuffix('.zip')}-figures")
    if out.resolve().is_relative_to(masks.resolve()):
        raise BadInput(f"{out} is inside {masks}, where figures would be read as masks: choose another folder")
    for path in draw_figures(masks, out, columns):
        click.echo(path)
