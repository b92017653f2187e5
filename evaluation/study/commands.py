"""The commands `evaluate study`: options in, one function call out. Heavy modules are imported inside."""

import click

from evaluation.study.settings import PARTS, PLATFORMS, STUDY, ServeConfig, StudyConfig
from maskgen.errors import BadInput, install_hint
from maskgen.runtime.command import FILE, FOLDER, Numbers, Tool, print_stderr, seed_option


@click.group(cls=Tool)
def study():
    """Ask people which result looks more real, as in section 4.3 and figure 8 of the paper."""


study_argument = click.argument("study", metavar="[STUDY]", type=FOLDER, default=STUDY)
platform_option = click.option("--platform", type=click.Choice(PLATFORMS), required=True, help="The crowd platform.")


@study.command("make")
@click.argument("results", nargs=-1, required=True, type=FOLDER)
@click.argument("out", metavar="STUDY", type=FOLDER)
@click.option("--images", type=FOLDER, help="Folder of the photos. [default: as in the results]")
@click.option("--per-class", type=click.IntRange(1), default=StudyConfig.per_class, help="Images per class and method.")
@click.option("--answers", type=click.IntRange(1), default=StudyConfig.answers, help="Raters for each trial.")
@click.option(
    "--part", "parts", multiple=True, type=click.Choice(PARTS), default=PARTS, help="Part to ask; repeatable."
)
@click.option("--exposures", type=Numbers(int), default="250,1000,4000", help="Display times of limited trials in ms.")
@click.option(
    "--reference",
    default="",
    show_default=False,
    metavar="METHOD",
    help="Compare only with this method. [default: all pairs of methods]",
)
@click.option("--per-rater", type=click.IntRange(1, 1000), default=StudyConfig.per_rater, help="Trials for each rater.")
@click.option(
    "--catches",
    type=click.IntRange(0, 100),
    default=StudyConfig.catches,
    help="Obvious trials to add.",
)
@click.option(
    "--hold",
    type=click.FloatRange(0),
    default=StudyConfig.hold,
    help="Hours before trials are reassigned.",
)
@click.option("--title", default=StudyConfig.title, help="Heading of the pages.")
@click.option("--contact", default="", show_default=False, metavar="TEXT", help="Contact for questions of raters.")
@click.option("--consent", type=FILE, help="Text file to show above the consent box. [default: a built-in text]")
@seed_option
def make_study(results, out, images, consent, **settings):
    """Make a study in the folder STUDY from one or more result folders RESULTS of evaluate."""
    from evaluation.study.make import make

    try:
        text = consent.read_text().strip() if consent else ""
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read the consent text {consent}: {error}") from None
    counts = make(list(results), out, StudyConfig(consent=text, **settings), images, click.echo)
    trials = " and ".join(f"{counts[part]} {part}" for part in PARTS if part in counts)
    click.echo(f"{trials} trials of {counts['pairs']} pairs, {counts['answers_wanted']} answers wanted, in {out}")
    click.echo(f"next: evaluate study serve {out}")


@study.command()
@study_argument
@click.option("--host", default=ServeConfig.host, help="Address to listen on; 0.0.0.0 for all networks.")
@click.option("--port", type=click.IntRange(0, 65535), default=ServeConfig.port, help="Port; 0 for any free one.")
@click.option("--closed", is_flag=True, help="Admit only personal links made by export.")
@click.option(
    "--proxy",
    default="",
    show_default=False,
    metavar="ADDRESS",
    help="Address of the HTTPS proxy before this server.",
)
def serve(study, host, port, closed, proxy):
    """Serve the web app for raters. Answers are stored in STUDY/study.sqlite."""
    needs("flask", "study")
    from evaluation.study.server import serve as run

    run(study, ServeConfig(host=host, port=port), closed=closed, proxy=proxy, say=print_stderr)


@study.command("export")
@study_argument
@platform_option
@click.option("--url", required=True, help="mturk: URL of the uploaded pictures; prolific: URL of the served study.")
@click.option("--places", type=click.IntRange(1, 100_000), default=50, help="prolific: number of personal links.")
@click.option("--code", default="", show_default=False, help="prolific: completion code, shown at the end.")
def export_study(study, platform, url, places, code):
    """Write the files for a crowd platform to STUDY/PLATFORM."""
    needs("flask", "study")
    from evaluation.study.crowd import export

    for path in export(study, platform, url, places=places, code=code):
        click.echo(path)


@study.command("import")
@click.argument("file", type=FILE)
@study_argument
@platform_option
def import_study(file, study, platform):
    """Import FILE, the results downloaded from a crowd platform."""
    needs("flask", "study")
    from evaluation.study.crowd import read

    counts = read(study, file, platform)
    click.echo(", ".join(f"{name.replace('_', ' ')}: {count}" for name, count in counts.items()))


@study.command("report")
@study_argument
def report_study(study):
    """Report the answers: rates with intervals, figure 8, a ranking, agreement, excluded raters."""
    from evaluation.study.report import write
    from evaluation.study.settings import StudyReportConfig

    click.echo(write(study, StudyReportConfig()))
    click.echo(f"tables and figure8.png are in {study / 'report'}")


def needs(module, extra):
    """Raise BadInput with the extra to install if a module is missing."""
    from importlib.util import find_spec

    if not find_spec(module):
        raise BadInput(f"this needs {module}: {install_hint(extra)}")
