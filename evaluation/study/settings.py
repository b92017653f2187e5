"""Every setting of the user study and its default, in one place that imports nothing heavy."""

from dataclasses import dataclass

from maskgen.errors import BadInput

STUDY = "study"
PARTS = ("unlimited", "limited")
PLATFORMS = ("mturk", "prolific")


@dataclass(frozen=True)
class StudyConfig:
    """What is asked. The paper's numbers (section 4.3) where it has them."""

    per_class: int = 300  # images of each class and method, or pair of methods
    answers: int = 10  # of different people for each trial
    parts: tuple[str, ...] = PARTS  # two results without a limit of time; a result against the truth, shown shortly
    exposures: tuple[int, ...] = (250, 1000, 4000)  # ms for which a limited trial is shown
    reference: str = ""  # only pairs of methods with this one; empty takes every pair of methods
    per_rater: int = 64  # trials that one rater answers, half of each part
    catches: int = 8  # trials with an obvious answer among them
    hold: float = 2.0  # hours after which the open trials of a silent rater go to others
    title: str = "Which picture looks more real?"
    contact: str = ""  # whom raters may ask
    consent: str = ""  # text of your own above the consent box; empty takes the one of the package
    seed: int = 0  # draws trials, their order and their sides

    def __post_init__(self):
        if not self.parts or set(self.parts) - set(PARTS):
            raise BadInput(f"the parts of a study are {' and '.join(PARTS)}, got {', '.join(self.parts) or 'none'}")
        for name, values in (("part", self.parts), ("exposure", self.exposures)):
            if len(set(values)) < len(values):
                raise BadInput(f"a study has each {name} once, got {', '.join(map(str, values))}")
        if not self.exposures or min(self.exposures) < 50 or max(self.exposures) > 60000:
            raise BadInput(f"exposures are 50 to 60000 ms, got {','.join(map(str, self.exposures)) or 'none'}")


@dataclass(frozen=True)
class ServeConfig:
    """How the web app is protected. A bucket holds `burst` requests and refills at `rate` a second."""

    host: str = "127.0.0.1"
    port: int = 8008
    threads: int = 8
    burst: int = 90  # of one rater; a trial takes three requests
    rate: float = 15.0
    join_burst: int = 60  # new raters of one address: a class room behind one address may begin together
    join_rate: float = 0.5
    miss_burst: int = 30  # wrong links of one address
    miss_rate: float = 0.2
    body: int = 4096  # bytes of a request's body; an answer has 150
    header: int = 16384  # bytes of its head


@dataclass(frozen=True)
class StudyReportConfig:
    """How answers become figure 8, and whose answers are left out."""

    confidence: float = 0.95  # of every interval
    catch_right: float = 0.8  # a rater with a smaller share of catch trials right is left out ...
    catch_least: int = 3  # ... once this many were answered
    same_side: float = 0.95  # a rater who chose one side this often is left out ...
    side_least: int = 20  # ... once this many trials were answered


TOLERANCE = 0.1  # share by which an exposure may be off before it is flagged
