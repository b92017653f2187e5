"""Crowd platforms: export of HIT files for Mechanical Turk and links for Prolific, import of their results."""

import csv
import io
import json
import re
import time
from pathlib import Path

import numpy as np
from flask import Flask, render_template
from tqdm import tqdm

from evaluation.study.settings import PARTS, PLATFORMS, TOLERANCE
from evaluation.study.store import DATABASE, SIDES, Store, checked_database
from maskgen.errors import BadInput
from maskgen.runtime.files import write_whole

REFUSED = ("REJECTED", "RETURNED", "TIMED-OUT")  # status of Prolific submissions whose answers do not count


def export(folder: Path, platform: str, url: str, *, places: int, code: str) -> list[Path]:
    """Write the files for a platform to `folder/platform` and return their paths.

    mturk: url is the address to which the folder `pictures` will be uploaded. prolific: url is the address of the
    served study, places the number of personal links, and code the completion code, shown at the end. Raises BadInput
    for an invalid address or platform.
    """
    _check_platform(platform)
    if not re.fullmatch(r"https?://[^\s\"'<>?#]+", url):
        raise BadInput(f"--url: expected a web address such as https://study.example.org/pictures, got {url!r}")
    store, out = Store(folder), folder / platform
    out.mkdir(exist_ok=True)
    return _mturk(store, out, url.rstrip("/")) if platform == "mturk" else _prolific(store, out, url, places, code)


def _check_platform(platform):
    if platform not in PLATFORMS:
        raise BadInput(f"platform: expected one of {', '.join(PLATFORMS)}, got {platform!r}")


def _mturk(store, out, url):
    _assign_hits(store)
    public_names = {}
    rows = []
    for hit in store.db.execute("SELECT hit, assignments FROM hits ORDER BY hit").fetchall():
        trials = []
        for row in store.db.execute(
            "SELECT position, kind, exposure, flipped, a_picture, b_picture FROM hit_trials JOIN trials USING (trial) "
            "WHERE hit = ? ORDER BY position",
            (hit["hit"],),
        ):
            pictures = [row["a_picture"], row["b_picture"]]
            for name in pictures:
                public_names.setdefault(name, f"{store.signed('picture', name)[:32]}.jpg")
            left, right = (f"{url}/{public_names[name]}" for name in (pictures[::-1] if row["flipped"] else pictures))
            trial = {"n": row["position"], "practice": row["kind"] == "practice", "exposure": row["exposure"]}
            trials.append({**trial, "left": left, "right": right})
        rows.append((hit["assignments"], hit["hit"], json.dumps(trials, separators=(",", ":"))))
    (out / "pictures").mkdir(exist_ok=True)
    for name, new in tqdm(public_names.items(), desc="pictures", unit="picture", disable=None):
        write_whole(out / "pictures" / new, store.picture(name).read_bytes())
    made = []
    for assignments in sorted({row[0] for row in rows}):
        made.append(out / f"hits_{assignments}_assignments.csv")
        write_whole(made[-1], _csv(("hit", "trials"), [row[1:] for row in rows if row[0] == assignments]))
    static = Path(__file__).parent / "static"
    made.append(out / "layout.html")
    inlined = {"style": (static / "study.css").read_text(), "script": (static / "study.js").read_text()}
    write_whole(made[-1], _page("mturk.html", title=store.settings["title"], **inlined))
    return [*made, out / "pictures"]


def _assign_hits(store):
    """Assign all unassigned trials to HITs, each in two versions with the sides exchanged."""
    settings = store.settings
    with store.change() as db:
        rows = [
            row["trial"]
            for part in settings["parts"]
            for row in db.execute(
                "SELECT trial FROM trials WHERE kind = ? AND dealt = 0 AND open > 0 ORDER BY rank", (part,)
            )
        ]
        if not rows and not db.execute("SELECT 1 FROM hits").fetchone():
            raise BadInput("all trials are assigned to raters of the web app: make a separate study for MTurk")
        part_of = dict(db.execute("SELECT trial, part FROM trials").fetchall())
        extra = {
            (kind, part): [
                row["trial"]
                for row in db.execute(
                    "SELECT trial FROM trials WHERE kind = ? AND part = ? ORDER BY trial", (kind, part)
                )
            ]
            for kind in ("practice", "catch")
            for part in PARTS
        }
        first = db.execute("SELECT count(*) FROM hits").fetchone()[0]
        count = max(1, -(-len(rows) // settings["per_rater"])) if rows else 0
        for k in range(count):
            rng = np.random.default_rng([settings["seed"], 5, first + k])
            block = rows[k::count]  # each HIT has trials of each part
            order = []
            for part in settings["parts"]:
                order += extra["practice", part] if any(part_of[trial] == part for trial in block) else []
            for part in settings["parts"]:
                mine = [trial for trial in block if part_of[trial] == part]
                share = round(settings["catches"] * len(mine) / settings["per_rater"] + 0.49) if mine else 0
                order += rng.permutation([*mine, *rng.permutation(extra["catch", part])[:share].tolist()]).tolist()
            flips = rng.integers(2, size=len(order))
            for version, assignments in enumerate((-(-settings["answers"] // 2), settings["answers"] // 2)):
                name = store.signed("hit", str(first + k), str(version))[:16]
                if not assignments:
                    continue
                db.execute("INSERT INTO hits VALUES (?, ?)", (name, assignments))
                hit_trials = [
                    (name, position, int(trial), int(flip ^ version))
                    for position, (trial, flip) in enumerate(zip(order, flips, strict=True))
                ]
                db.executemany("INSERT INTO hit_trials VALUES (?, ?, ?, ?)", hit_trials)
            db.executemany(
                "UPDATE trials SET open = 0, dealt = ? WHERE trial = ?",
                [(settings["answers"], trial) for trial in block],
            )


def _prolific(store, out, url, places, code):
    links = [
        f"{url.rstrip('/')}/r/{store.invite('prolific')}?PROLIFIC_PID={{{{%PROLIFIC_PID%}}}}" for _ in range(places)
    ]
    with store.change() as db:
        db.execute("INSERT OR REPLACE INTO study VALUES ('completion', ?)", (json.dumps(code),))
    path = out / f"taskflow_{time.strftime('%Y%m%d-%H%M%S')}.csv"  # links cannot be recovered: never overwrite them
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows((link, 1) for link in links)
    write_whole(path, buffer.getvalue().encode())
    path.chmod(0o600)
    trials = store.settings["per_rater"] + store.settings["catches"]
    values = {"trials": trials, "minutes": max(1, round(trials / 10)), "contact": store.settings["contact"]}
    write_whole(out / "description.html", _page("prolific.html", title=store.settings["title"], **values))
    return [path, out / "description.html"]


def _page(name, **values):
    """Render a template without a server, as bytes."""
    with Flask(__package__ + ".crowd").app_context():
        return render_template(name, **values).encode()


def _csv(head, rows):
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([head, *rows])
    return buffer.getvalue().encode()


def read(folder: Path, file: Path, platform: str) -> dict[str, int]:
    """Import the file of results of a platform. Returns counts. Importing it again adds only what is new.

    Raises BadInput for a file that is not CSV, lacks a column or belongs to another study.
    """
    _check_platform(platform)
    store = Store(folder)
    try:
        csv.field_size_limit(2**24)
        with file.open(newline="", encoding="utf-8-sig") as lines:
            rows = list(csv.DictReader(lines, restval=""))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{file} cannot be read as CSV: {error}") from None
    wanted = {
        "mturk": ("WorkerId", "AssignmentStatus", "Answer.hit", "Answer.answers"),
        "prolific": ("Participant id", "Status"),
    }[platform]
    missing = [name for name in wanted if not rows or name not in rows[0]]
    if missing:
        raise BadInput(f"{file} has no column {missing[0]}: expected the results downloaded from {platform}")
    with checked_database(folder / DATABASE):
        return _from_mturk(store, rows, file) if platform == "mturk" else _from_prolific(store, rows)


def _from_mturk(store, rows, file):
    counts = {"answers": 0, "known_before": 0, "rejected": 0, "unreadable": 0}
    with store.change() as db:
        for row in rows:
            hit = row["Answer.hit"]
            assigned = {
                found["position"]: found
                for found in db.execute(
                    "SELECT position, trial, flipped, kind, exposure FROM hit_trials "
                    "JOIN trials USING (trial) WHERE hit = ?",
                    (hit,),
                )
            }
            if row["AssignmentStatus"] == "Rejected":
                counts["rejected"] += 1
                continue
            if not assigned:
                raise BadInput(f"{file} has the HIT {hit!r}, which is not part of this study: nothing was imported")
            answers = _parsed(row["Answer.answers"], assigned)
            if answers is None:
                counts["unreadable"] += 1
                continue
            rater = _rater_of(store, db, "mturk", row["WorkerId"])
            for answer in answers:
                new = _add_answer(db, rater, assigned[answer["n"]], answer)
                counts["answers" if new else "known_before"] += 1
    return counts


def _parsed(text, assigned):
    """The answers in the result of a HIT, or None if it is invalid, as after tampering."""
    try:
        answers = json.loads(text)
        for answer in answers:
            numbers = [float(answer[name]) for name in ("shown_ms", "answer_ms", "width")]
            whole = type(answer["views"]) is int and 1 <= answer["views"] < 10**6
            if answer["n"] not in assigned or answer["side"] not in SIDES or not whole:
                return None
            if not all(0 <= number < 1e9 for number in numbers):
                return None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return answers


def _rater_of(store, db, source, name):
    """The rater number of a person on a platform, whose name is stored only as a keyed hash."""
    person, now = store.signed("person", name), time.time()
    db.execute(
        "INSERT OR IGNORE INTO raters (source, person, joined, seen, released) VALUES (?, ?, ?, ?, 1)",
        (source, person, now, now),
    )
    return db.execute("SELECT rater FROM raters WHERE source = ? AND person = ?", (source, person)).fetchone()[0]


def _add_answer(db, rater, trial, answer):
    """Store one answer of a HIT; False if this rater has answered the trial before."""
    position = db.execute("SELECT count(*) FROM dealt WHERE rater = ?", (rater,)).fetchone()[0]
    row = (rater, position, trial["trial"], trial["flipped"])
    if not db.execute("INSERT OR IGNORE INTO dealt VALUES (?, ?, ?, ?)", row).rowcount:
        return False
    exposure, shown = trial["exposure"], float(answer["shown_ms"])
    off = exposure and (abs(shown - exposure) > TOLERANCE * exposure or answer["views"] > 1)
    choice = "a" if (answer["side"] == "left") != bool(trial["flipped"]) else "b"
    times = (shown if exposure else None, float(answer["answer_ms"]), float(answer["width"]), answer["views"])
    row = (rater, position, answer["side"], choice, *times, int(bool(off)), time.time())
    db.execute("INSERT INTO answers VALUES (?,?,?,?,?,?,?,?,?,?)", row)
    return True


def _from_prolific(store, rows):
    counts = {"matched": 0, "left_out": 0, "unknown": 0}
    with store.change() as db:
        for row in rows:
            person = store.signed("person", row["Participant id"])
            refused = row["Status"].upper().replace(" ", "-").replace("_", "-") in REFUSED
            why = f"{row['Status'].lower()} on Prolific" if refused else ""
            found = db.execute("UPDATE raters SET excluded = ? WHERE source = 'prolific' AND person = ?", (why, person))
            counts["matched" if found.rowcount else "unknown"] += 1
            counts["left_out"] += bool(found.rowcount and refused)
    return counts
