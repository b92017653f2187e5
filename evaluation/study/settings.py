"""All settings of the user study with their defaults. Imports no heavy modules."""

from dataclasses import dataclass

from maskgen.errors import BadInput

STUDY = "study"
PARTS = ("unlimited", "limited")
PLATFORMS = ("mturk", "prolific")


@dataclass(frozen=True)
class StudyConfig:
    """The trials of a study. Defaults are those of the paper (section 4.3), where it gives them."""

    per_class: int = 300  # images of each class and method, or pair of methods
    answers: int = 10  # raters for each trial
    parts: tuple[str, ...] = PARTS  # two results without a time limit; a result against the truth, shown briefly
    exposures: tuple[int, ...] = (250, 1000, 4000)  # ms for which a limited trial is shown
    reference: str = ""  # compare only with this method; empty: all pairs of methods
    per_rater: int = 64  # trials for each rater, half of each part
    catches: int = 8  # additional trials with an obvious answer
    hold: float = 2.0  # hours after which the open trials of a silent rater go to others
    title: str = "Which picture looks more real?"
    contact: str = ""  # for questions of raters
    consent: str = ""  # text above the consent box; empty: the built-in text
    seed: int = 0  # draws trials, their order and their sides

    def __post_init__(self):
        if not self.parts or set(self.parts) - set(PARTS):
            raise BadInput(f"parts: expected some of {', '.join(PARTS)}, got {', '.join(self.parts) or 'none'}")
        for name, values in (("parts", self.parts), ("exposures", self.exposures)):
            if len(set(values)) < len(values):
                raise BadInput(f"{name}: expected each value once, got {', '.join(map(str, values))}")
        if not self.exposures or min(self.exposures) < 50 or max(self.exposures) > 60000:
            raise BadInput(f"exposures: expected 50 to 60000 ms, got {','.join(map(str, self.exposures)) or 'none'}")


@dataclass(frozen=True)
class ServeConfig:
    """Address and rate limits of the web app: `burst` requests at once, then `rate` requests per second."""

    host: str = "127.0.0.1"
    port: int = 8008
    threads: int = 8
    burst: int = 90  # of one rater; a trial takes three requests
    rate: float = 15.0
    join_burst: int = 60  # new raters from one address: a class room may start at the same time
    join_rate: float = 0.5
    miss_burst: int = 30  # wrong links from one address
    miss_rate: float = 0.2
    body: int = 4096  # bytes of a request body at most; an answer has 150
    header: int = 16384  # bytes of the request headers at most


@dataclass(frozen=True)
class StudyReportConfig:
    """The intervals of the report, and which raters are excluded."""

    confidence: float = 0.95  # of every interval
    catch_right: float = 0.8  # a rater with a smaller share of right catch trials is excluded ...
    catch_least: int = 3  # ... after at least this many catch trials
    same_side: float = 0.95  # a rater who chose one side this often is excluded ...
    side_least: int = 20  # ... after at least this many trials


TOLERANCE = 0.1  # relative deviation of an exposure above which the answer is flagged
