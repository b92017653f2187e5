"""The study on disk: `study.sqlite` with trials, raters and answers, and `secret.json`, which must not be published.

An answer is acknowledged after it is committed and flushed to the disk (SQLite's write-ahead log), so a killed server
loses none. Personal links are stored as hashes only, so the database can be published.
"""

import hashlib
import hmac
import json
import secrets
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from evaluation.study.settings import PARTS, TOLERANCE
from maskgen.errors import BadInput
from maskgen.runtime.files import write_whole

DATABASE, SECRET, PICTURES = "study.sqlite", "secret.json", "pictures"
SIDES = ("left", "right")
SCHEMA = """
CREATE TABLE study (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE trials (
    trial INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,            -- unlimited, limited, catch or practice
    part TEXT NOT NULL,            -- unlimited or limited: how it is shown
    category TEXT NOT NULL,
    pair TEXT NOT NULL,
    image TEXT NOT NULL,           -- SHA-256 of the photo; a rater should not see one twice in a part
    hole_ratio REAL NOT NULL,
    a TEXT NOT NULL,               -- a method; in catch and practice trials `truth`, the right answer
    b TEXT NOT NULL,               -- a method, `truth`, or `spoilt`
    a_picture TEXT NOT NULL,
    b_picture TEXT NOT NULL,
    exposure INTEGER NOT NULL,     -- ms, 0 without limit
    open INTEGER NOT NULL,         -- answers not assigned to any rater yet
    dealt INTEGER NOT NULL,        -- raters to whom it was assigned, which decides the sides
    rank INTEGER NOT NULL          -- random order in which trials are assigned
);
CREATE INDEX to_deal ON trials (kind, open DESC, rank);
CREATE TABLE raters (
    rater INTEGER PRIMARY KEY,
    link TEXT UNIQUE,              -- SHA-256 of the secret part of the personal link
    source TEXT NOT NULL,          -- web, mturk or prolific
    person TEXT,                   -- keyed hash of the person's name on the platform
    joined REAL,                   -- s since 1970, when consent was given
    seen REAL,                     -- the same, last answer
    released INTEGER NOT NULL DEFAULT 0,
    excluded TEXT NOT NULL DEFAULT '',
    UNIQUE (source, person)
);
CREATE TABLE dealt (
    rater INTEGER NOT NULL REFERENCES raters,
    position INTEGER NOT NULL,
    trial INTEGER NOT NULL REFERENCES trials,
    flipped INTEGER NOT NULL,      -- 1: b is on the left
    PRIMARY KEY (rater, position),
    UNIQUE (rater, trial)
) WITHOUT ROWID;
CREATE TABLE answers (
    rater INTEGER NOT NULL,
    position INTEGER NOT NULL,
    side TEXT NOT NULL,            -- left or right
    choice TEXT NOT NULL,          -- a or b
    shown_ms REAL,                 -- measured by the page's clock; limited trials only
    answer_ms REAL NOT NULL,       -- from the first frame to the answer
    width REAL NOT NULL,           -- of one picture on the screen, CSS px
    views INTEGER NOT NULL,        -- times the pictures were shown, more than 1 after a reload
    flagged INTEGER NOT NULL,      -- 1: exposure more than 10 % off, or shown twice
    at REAL NOT NULL,
    PRIMARY KEY (rater, position),
    FOREIGN KEY (rater, position) REFERENCES dealt
) WITHOUT ROWID;
CREATE TABLE hits (hit TEXT PRIMARY KEY, assignments INTEGER NOT NULL);
CREATE TABLE hit_trials (hit TEXT NOT NULL, position INTEGER NOT NULL, trial INTEGER NOT NULL, flipped INTEGER NOT NULL,
    PRIMARY KEY (hit, position)) WITHOUT ROWID;
"""
TRIAL = ("kind", "part", "category", "pair", "image", "hole_ratio", "a", "b", "a_picture", "b_picture", "exposure")


def create(folder: Path, trials: list[dict], settings: dict) -> None:
    """Write the database of a new study, completely or not at all, and its secrets if there are none."""
    with closing(sqlite3.connect(":memory:")) as db:  # so that write_whole handles a full disk
        db.executescript(SCHEMA)
        db.executemany("INSERT INTO study VALUES (?, ?)", [(key, json.dumps(value)) for key, value in settings.items()])
        columns = (*TRIAL, "open", "rank")
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        rows = [(i, *(trial[name] for name in columns)) for i, trial in enumerate(trials, 1)]
        db.executemany(f"INSERT INTO trials (trial, {names}, dealt) VALUES (?, {marks}, 0)", rows)
        db.commit()
        data = db.serialize()
    if not (folder / SECRET).exists():
        secret = {"key": secrets.token_hex(32), "admin": secrets.token_urlsafe(24)}
        write_whole(folder / SECRET, (json.dumps(secret) + "\n").encode())
        (folder / SECRET).chmod(0o600)
    write_whole(folder / DATABASE, data)


@contextmanager
def checked_database(path: Path) -> Iterator[None]:
    """Raise BadInput if SQLite finds the database damaged."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise BadInput(f"{path} is not a study database ({error}): make a new study or restore a backup") from None


def answers_note(folder: Path) -> list[str]:
    """A note on the number of answers, so that nobody deletes them by mistake; empty if there are none."""
    if not (folder / DATABASE).is_file():
        return []
    with checked_database(folder / DATABASE), closing(sqlite3.connect(folder / DATABASE, timeout=30)) as db:
        count = db.execute("SELECT count(*) FROM answers").fetchone()[0]
    return [f"it holds {count:,} answers of raters"] if count else []


class AlreadyTakesPart(Exception):
    """This person takes part already, with another link."""


class Store:
    """The database of one study. Each thread has its own connection, and each change is one transaction."""

    def __init__(self, folder: Path):
        self.folder = folder
        if not (folder / DATABASE).is_file():
            raise BadInput(f"no {DATABASE} in {folder}: make a study with `evaluate study make RESULTS {folder}`")
        try:
            secret = json.loads((folder / SECRET).read_text())
            self.key, self.admin = bytes.fromhex(secret["key"]), secret["admin"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{folder / SECRET} cannot be read ({error}): restore the file of `study make`") from None
        self.local = threading.local()
        with checked_database(folder / DATABASE):
            self.settings = {key: json.loads(value) for key, value in self.db.execute("SELECT key, value FROM study")}

    @property
    def db(self) -> sqlite3.Connection:
        """This thread's connection."""
        if not hasattr(self.local, "db"):
            db = sqlite3.connect(self.folder / DATABASE, timeout=30, isolation_level=None)
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")  # acknowledged answers survive a power cut
            db.execute("PRAGMA foreign_keys = ON")
            self.local.db = db
        return self.local.db

    def close(self) -> None:
        """Close this thread's connection."""
        self.db.close()
        del self.local.db

    @contextmanager
    def change(self):
        """One write transaction; waits until no other one is open."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield self.db
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def signed(self, *words: str) -> str:
        """HMAC-SHA256 of the words with the key of this study, as hexadecimal digits."""
        return hmac.new(self.key, "\0".join(words).encode(), hashlib.sha256).hexdigest()

    # ---- raters ----

    def invite(self, source: str = "web") -> str:
        """Add a rater who has not started, and return the secret part of the personal link, 192 random bits."""
        token = secrets.token_urlsafe(24)
        with self.change() as db:
            db.execute("INSERT INTO raters (link, source) VALUES (?, ?)", (_digest(token), source))
        return token

    def rater(self, token: str) -> sqlite3.Row | None:
        """The rater of a personal link, None if there is none."""
        return self.db.execute("SELECT * FROM raters WHERE link = ?", (_digest(token),)).fetchone()

    def begin(self, rater: int, person: str = "") -> int:
        """Record the consent and assign trials. Returns their number, 0 if all trials are assigned already.

        Does nothing for a rater who has started. Raises AlreadyTakesPart if the person has started with another link.
        """
        with self.change() as db:
            if db.execute("SELECT 1 FROM dealt WHERE rater = ?", (rater,)).fetchone():
                return self.length(rater)
            self._release(db)
            trials = self._choose_trials(db, rater)
            if trials:
                now = time.time()
                try:
                    row = (now, now, self.signed("person", person) if person else None, rater)
                    db.execute("UPDATE raters SET joined = ?, seen = ?, person = ? WHERE rater = ?", row)
                except sqlite3.IntegrityError:
                    raise AlreadyTakesPart from None
                self._assign(db, rater, trials)
        return len(trials)

    def _release(self, db):
        """Release the unanswered trials of raters who have been silent for too long."""
        silent = time.time() - self.settings["hold"] * 3600
        for (rater,) in db.execute("SELECT rater FROM raters WHERE released = 0 AND seen < ?", (silent,)).fetchall():
            db.execute(
                "UPDATE trials SET open = open + 1 WHERE kind IN ('unlimited', 'limited') "
                "AND trial IN (SELECT trial FROM dealt LEFT JOIN answers "
                "USING (rater, position) WHERE rater = ? AND side IS NULL)",
                (rater,),
            )
            db.execute("UPDATE raters SET released = 1 WHERE rater = ?", (rater,))

    def _choose_trials(self, db, rater):
        """The trials of one rater in order: practice, then each part with its catch trials mixed in."""
        rng = np.random.default_rng([self.settings["seed"], 2, rater])
        wanted, parts, seen = self.settings["per_rater"], self.settings["parts"], {part: Counter() for part in PARTS}
        chosen = {part: self._choose_from_part(db, part, -(-wanted // len(parts)), seen[part]) for part in parts}
        total = sum(len(trials) for trials in chosen.values())
        for part in parts:  # if one part has too few trials left, the other one fills up
            if total < wanted:
                more = self._choose_from_part(db, part, wanted - total + len(chosen[part]), seen[part])
                total += len(more) - len(chosen[part])
                chosen[part] = more
        if not total:
            return []
        order = []
        for part in parts:
            rows = db.execute("SELECT trial FROM trials WHERE kind = 'practice' AND part = ? ORDER BY trial", (part,))
            order += [row[0] for row in rows]
        for i, part in enumerate(parts):
            rows = db.execute("SELECT trial FROM trials WHERE kind = 'catch' AND part = ? ORDER BY trial", (part,))
            catches = [row[0] for row in rows]
            count = self.settings["catches"] // len(parts) + (i < self.settings["catches"] % len(parts))
            count = min(round(count * len(chosen[part]) * len(parts) / wanted + 0.49), len(catches))
            mixed = [*chosen[part], *rng.permutation(catches)[:count].tolist()] if chosen[part] else []
            order += rng.permutation(mixed).tolist() if mixed else []
        return [int(trial) for trial in order]

    def _choose_from_part(self, db, part, count, seen):
        """Up to `count` open trials, those with most missing answers first, with different photos if possible.

        seen: how often each photo is chosen; it is cleared and filled again.
        """
        seen.clear()
        rows = db.execute(
            "SELECT trial, image FROM trials WHERE kind = ? AND open > 0 ORDER BY open DESC, rank LIMIT ?",
            (part, 8 * count),
        ).fetchall()
        chosen, rounds = [], 0
        while rows and len(chosen) < count:
            postponed = []
            for row in rows:
                if len(chosen) < count and seen[row["image"]] <= rounds:
                    seen[row["image"]] += 1
                    chosen.append(row["trial"])
                else:
                    postponed.append(row)
            rows, rounds = postponed, rounds + 1
        return chosen

    def _assign(self, db, rater, trials):
        """Record the trials of a rater. Every second rater of a trial sees it with the sides exchanged."""
        rows = [
            (
                rater,
                position,
                *db.execute("SELECT trial, (dealt + rank) % 2 FROM trials WHERE trial = ?", (trial,)).fetchone(),
            )
            for position, trial in enumerate(trials)
        ]
        db.executemany("INSERT INTO dealt VALUES (?, ?, ?, ?)", rows)
        db.execute(
            "UPDATE trials SET dealt = dealt + 1, open = open - (kind IN ('unlimited', 'limited')) "
            "WHERE trial IN (SELECT trial FROM dealt WHERE rater = ?)",
            (rater,),
        )

    # ---- trials and answers ----

    def length(self, rater: int) -> int:
        """Number of trials of a rater, including practice."""
        return self.db.execute("SELECT count(*) FROM dealt WHERE rater = ?", (rater,)).fetchone()[0]

    def ahead(self, rater: int, count: int = 3) -> list[sqlite3.Row]:
        """The next unanswered trials of a rater: position, kind, exposure, names of the left and right picture."""
        return self.db.execute(
            "SELECT position, kind, exposure, CASE flipped WHEN 0 THEN a_picture ELSE b_picture END AS left, "
            "CASE flipped WHEN 0 THEN b_picture ELSE a_picture END AS right "
            "FROM dealt JOIN trials USING (trial) LEFT JOIN answers USING (rater, position) "
            "WHERE rater = ? AND side IS NULL ORDER BY position LIMIT ?",
            (rater, count),
        ).fetchall()

    def progress(self, rater: int) -> tuple[int, int]:
        """Numbers of answered and of all trials of a rater, without practice."""
        return tuple(
            self.db.execute(
                "SELECT count(side), count(*) FROM dealt JOIN trials USING (trial) "
                "LEFT JOIN answers USING (rater, position) WHERE rater = ? AND kind != 'practice'",
                (rater,),
            ).fetchone()
        )

    def answer(
        self, rater: int, position: int, side: str, shown_ms: float, answer_ms: float, width: float, views: int
    ) -> str | None:
        """Store an answer; it is on the disk when this returns. Only the first answer to a trial is stored.

        width: CSS px. Returns "practice right", "practice wrong" or "kept"; None if the rater has no such trial.
        """
        with self.change() as db:
            row = db.execute(
                "SELECT trial, flipped, kind, exposure, released FROM dealt JOIN trials USING (trial) "
                "JOIN raters USING (rater) WHERE rater = ? AND position = ?",
                (rater, position),
            ).fetchone()
            if row is None:
                return None
            choice = "a" if (side == "left") != bool(row["flipped"]) else "b"
            off = row["exposure"] and abs(shown_ms - row["exposure"]) > TOLERANCE * row["exposure"]
            answer = (rater, position, side, choice, shown_ms if row["exposure"] else None, answer_ms, width, views)
            flagged = int(bool(off) or (bool(row["exposure"]) and views > 1))
            now = time.time()
            new = db.execute(
                "INSERT OR IGNORE INTO answers VALUES (?,?,?,?,?,?,?,?,?,?)", (*answer, flagged, now)
            ).rowcount
            if new:
                db.execute("UPDATE raters SET seen = ? WHERE rater = ?", (now, rater))
                if row["released"] and row["kind"] in PARTS:
                    db.execute("UPDATE trials SET open = open - 1 WHERE trial = ?", (row["trial"],))
        if row["kind"] == "practice":
            return "practice right" if choice == "a" else "practice wrong"
        return "kept"

    def picture(self, name: str) -> Path:
        """The path of a picture. name: as in the database, never from a request."""
        return self.folder / PICTURES / name[:2] / f"{name}.jpg"

    def counts(self) -> dict:
        """The counts for the admin page."""
        one = lambda query, *values: self.db.execute(query, values).fetchone()[0]  # noqa: E731
        now = time.time()
        joined = (
            "SELECT rater, max(seen) AS seen, count(side) = count(*) AS through FROM raters JOIN dealt USING (rater) "
        )
        joined += "LEFT JOIN answers USING (rater, position) GROUP BY rater"
        given = "FROM answers JOIN dealt USING (rater, position) JOIN trials USING (trial)"
        parts = {}
        for part in self.settings["parts"]:
            parts[part] = {
                "answers": one(f"SELECT count(*) {given} WHERE kind = ?", part),
                "wanted": one("SELECT count(*) FROM trials WHERE kind = ?", part) * self.settings["answers"],
            }
        return {
            "raters": one(f"SELECT count(*) FROM ({joined})"),
            "active": one(f"SELECT count(*) FROM ({joined}) WHERE NOT through AND seen > ?", now - 300),
            "finished": one(f"SELECT count(*) FROM ({joined}) WHERE through"),
            "parts": parts,
            "catches": one(f"SELECT count(*) {given} WHERE kind = 'catch'"),
            "catches_right": one(f"SELECT count(*) {given} WHERE kind = 'catch' AND choice = 'a'"),
            "flagged": one(f"SELECT count(*) {given} WHERE flagged AND kind != 'practice'"),
            "last_minute": one("SELECT count(*) FROM answers WHERE at > ?", now - 60),
            "classes": [
                dict(row)
                for row in self.db.execute(
                    f"SELECT category, count(*) AS answers {given} WHERE kind IN ('unlimited', 'limited') "
                    "GROUP BY category ORDER BY min(trial)"
                )
            ],
        }


def _digest(token):
    return hashlib.sha256(token.encode()).hexdigest()
