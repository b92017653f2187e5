"""The user study: drawing of trials, their assignment, the web app, the report, and crowd platforms."""

import collections
import csv
import itertools
import json
import math
import re
import shutil
import sqlite3
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from study_run import Visitor, free_port, results, start, stop

import cli
from evaluation.study import make as drawing
from evaluation.study import report
from evaluation.study.settings import PARTS, ServeConfig, StudyConfig, StudyReportConfig
from maskgen.errors import BadInput

pytest.importorskip("flask", reason="needs the extra `study`")
from evaluation.study import crowd, server, store
from evaluation.study.store import AlreadyTakesPart, Store

SMALL = StudyConfig(per_class=2, answers=4, per_rater=12, catches=4, exposures=(250, 1000))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return results(tmp_path_factory.mktemp("run"))


@pytest.fixture
def study(run, tmp_path):
    drawing.make([run], tmp_path / "study", SMALL)
    return tmp_path / "study"


def run_command(*words):
    return CliRunner().invoke(cli.evaluate, ["study", *map(str, words)])


def sql(study, query):
    db = sqlite3.connect(study / "study.sqlite")
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


# ---- drawing ----


def test_each_class_and_comparison_gets_its_images(study):
    counts = collections.Counter(sql(study, "SELECT kind, category, a, b, exposure FROM trials"))
    classes, methods = ("free_0.1-0.2", "free_0.2-0.3"), ("telea", "ns", "mean")
    for category in classes:
        for a, b in itertools.combinations(methods, 2):
            assert counts["unlimited", category, a, b, 0] == 2
        for method, exposure in itertools.product(methods, (250, 1000)):
            assert counts["limited", category, method, "truth", exposure] == 2
    assert sum(n for (kind, *_), n in counts.items() if kind in PARTS) == 2 * 2 * 3 + 2 * 2 * 3 * 2


def test_the_defaults_are_those_of_the_paper():
    assert (StudyConfig().per_class, StudyConfig().answers, StudyConfig().exposures) == (300, 10, (250, 1000, 4000))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"parts": ("unlimited", "nonsense")},
            "parts: expected some of unlimited, limited, got unlimited, nonsense",
        ),
        ({"parts": ()}, "parts: expected some of unlimited, limited, got none"),
        ({"parts": ("limited", "limited")}, "parts: expected each value once, got limited, limited"),
        ({"exposures": (250, 1000, 250)}, "exposures: expected each value once, got 250, 1000, 250"),
        ({"exposures": (20,)}, "exposures: expected 50 to 60000 ms, got 20"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(BadInput, match=message):
        StudyConfig(**change)


def test_an_unknown_platform_is_refused(study):
    with pytest.raises(BadInput, match="platform: expected one of mturk, prolific, got 'turk'"):
        crowd.export(study, "turk", "https://example.org", places=1, code="")
    with pytest.raises(BadInput, match="platform: expected one of mturk, prolific, got 'turk'"):
        crowd.read(study, study / "trials.csv", "turk")


def test_the_seed_decides_which_trials_are_drawn(run, study, tmp_path):
    drawing.make([run], tmp_path / "again", SMALL)
    drawing.make([run], tmp_path / "other", replace(SMALL, seed=1))
    drawn = [(tmp_path / name / "trials.csv").read_bytes() for name in ("study", "again", "other")]
    assert drawn[0] == drawn[1] != drawn[2]


def test_an_existing_study_is_not_overwritten(run, study):
    before = (study / "study.sqlite").read_bytes()
    drawing.make([run], study, SMALL)
    assert (study / "study.sqlite").read_bytes() == before
    with pytest.raises(BadInput, match=r"was created with other settings \(seed was 0, is 1"):
        drawing.make([run], study, replace(SMALL, seed=1))


def test_the_error_for_a_study_with_other_settings_gives_the_number_of_answers(run, study):
    store = Store(study)
    rater = all_raters(store)[0]
    position = store.ahead(rater)[0]["position"]
    store.answer(rater, position, "left", 250, 900, 300, 1)
    with pytest.raises(BadInput, match=r"seed was 0, is 1; it holds 1 answers of raters\): choose another folder"):
        drawing.make([run], study, replace(SMALL, seed=1))


def test_making_a_complete_study_again_says_so(run, tmp_path):
    words = ("make", run, tmp_path / "study", "--per-class", 1)
    first, second = run_command(*words), run_command(*words)
    assert first.exit_code == second.exit_code == 0
    assert second.output.splitlines()[0] == f"{tmp_path / 'study'} is already complete"
    assert second.output.splitlines()[1:] == first.output.splitlines()[-2:]


def edit(path, change):
    """Change a JSON file in place."""
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def swap(folder, one, other):
    """Exchange two result pictures."""
    first, second = (sorted((folder / "pictures" / "telea").rglob("*.jpg"))[i] for i in (one, other))
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: swap(root, 0, 1), "results: pictures: telea was [0-9a-f]{12}, is"),
        (
            lambda root: edit(root / "recipe.json", lambda r: r["methods"]["ns"].update(opencv="4.0")),
            "ns: opencv was .*, is 4.0",
        ),
        (lambda root: edit(root / "recipe.json", lambda r: r.update(version="0.0")), "results: version was .*, is 0.0"),
    ],
)
def test_a_study_of_changed_results_is_refused_and_the_change_named(change, message, run, study, tmp_path):
    shutil.copytree(run, tmp_path / "results")
    drawing.make([tmp_path / "results"], study, SMALL)  # a copy is the same
    change(tmp_path / "results")
    with pytest.raises(BadInput, match=rf"was created with other settings \(.*{message}"):
        drawing.make([tmp_path / "results"], study, SMALL)


def test_another_version_of_opencv_is_refused(run, study, monkeypatch):
    monkeypatch.setattr(cv2, "__version__", "0.0")
    with pytest.raises(BadInput, match=r"opencv was .*, is 0\.0"):
        drawing.make([run], study, SMALL)


def test_a_study_that_failed_leaves_no_files(run, tmp_path):
    elsewhere = tmp_path / "photos"
    shutil.copytree(run.parent / "photos", elsewhere)
    for path in elsewhere.iterdir():
        path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(BadInput, match=r"is not the photo of the results.*name their folder with --images"):
        drawing.make([run], tmp_path / "study", SMALL, elsewhere)
    assert not (tmp_path / "study").exists()
    drawing.make([run], tmp_path / "study", replace(SMALL, seed=1))


def test_a_full_disk_leaves_no_partial_database(run, tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(store, "write_whole", full)
    with pytest.raises(OSError, match="No space left"):
        drawing.make([run], tmp_path / "study", SMALL)
    assert not list((tmp_path / "study").rglob("study.sqlite*"))


def test_an_interrupted_study_is_resumed_to_the_same_bytes(run, study, tmp_path, monkeypatch):
    def stop_here(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped, pytest.raises(KeyboardInterrupt):
        stopped.setattr(drawing.store, "create", stop_here)
        drawing.make([run], tmp_path / "again", SMALL)
    assert not (tmp_path / "again" / "recipe.json").exists()
    with pytest.raises(BadInput, match="seed was 0, is 1"):
        drawing.make([run], tmp_path / "again", replace(SMALL, seed=1))
    drawing.make([run], tmp_path / "again", SMALL)
    for path in (path for path in study.rglob("*") if path.is_file() and path.suffix in (".jpg", ".csv", ".json")):
        if path.name != "secret.json":
            assert (tmp_path / "again" / path.relative_to(study)).read_bytes() == path.read_bytes()
    assert not (tmp_path / "again" / ".progress").exists()


def test_results_with_another_polarity_are_different_pairs(run, tmp_path):
    other = results(run.parent, names=("grey",), out="inverted")
    edit(other / "recipe.json", lambda recipe: recipe["settings"].update(polarity="hole-black"))
    with pytest.raises(BadInput, match="have no pair in common"):
        drawing.make([run, other], tmp_path / "study", replace(SMALL, parts=("unlimited",), reference="grey"))


def test_two_result_folders_with_the_same_name_get_different_names(run, tmp_path):
    for name, label in (("a", "telea"), ("b", "ns")):
        shutil.copytree(run, tmp_path / name / "results")
        scores = tmp_path / name / "results" / "scores.csv"
        lines = scores.read_text().splitlines(keepends=True)
        scores.write_text("".join([lines[0], *[line for line in lines if line.startswith(f"{label},")]]))
    drawing.make([tmp_path / "a" / "results", tmp_path / "b" / "results"], tmp_path / "study", SMALL)
    recipe = json.loads((tmp_path / "study" / "recipe.json").read_text())
    assert [source["name"] for source in recipe["sources"]] == ["results", "results-2"]
    assert recipe["methods"] == ["telea", "ns"]


def test_methods_of_two_runs_on_the_same_pairs_are_compared(run, tmp_path):
    other = results(run.parent, names=("grey",), out="other")
    drawing.make([run, other], tmp_path / "study", replace(SMALL, parts=("unlimited",), reference="grey"))
    matches = set(sql(tmp_path / "study", "SELECT a, b FROM trials WHERE kind = 'unlimited'"))
    assert matches == {("telea", "grey"), ("ns", "grey"), ("mean", "grey")}


def test_results_without_pictures_are_refused_in_one_line(run, tmp_path):
    shutil.copytree(run, tmp_path / "bare")
    shutil.rmtree(tmp_path / "bare" / "pictures" / "ns")
    done = run_command("make", tmp_path / "bare", tmp_path / "study")
    assert done.exit_code == 2 and "needs the pictures of ns" in done.output and done.output.count("\n") == 1
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("scores.csv", "ns,00001", "ns,1e999"),
        ("scores.csv", "telea,", "nobody,"),
        ("recipe.json", '"telea"', '"nobody"'),
        ("recipe.json", '"pairs_sha256"', '"lost"'),
        ("recipe.json", '"raw"', '"lost"'),
        ("recipe.json", '"size": [', '"size": 64, "lost": ['),
        ("recipe.json", '"size": [', '"size": [64, "lost"], "old": ['),
        ("recipe.json", '"size": [', '"size": [64], "old": ['),
        ("recipe.json", '"factor": 0', '"factor": []'),
    ],
)
def test_damaged_results_are_refused_in_one_line(run, tmp_path, name, old, new):
    shutil.copytree(run, tmp_path / "spoilt")
    whole = (tmp_path / "spoilt" / name).read_text()
    assert old in whole
    (tmp_path / "spoilt" / name).write_text(whole.replace(old, new))
    done = run_command("make", tmp_path / "spoilt", tmp_path / "study")
    assert done.exit_code == 2 and "holds no finished results" in done.output and done.output.count("\n") == 1


# ---- assignment of trials ----


def all_raters(store):
    """Add raters until all trials are assigned. Returns the raters' numbers."""
    numbers = []
    while True:
        rater = store.rater(store.invite())["rater"]
        if not store.begin(rater):
            return numbers
        numbers.append(rater)


def test_each_trial_is_assigned_as_often_as_wanted_half_of_the_times_with_sides_exchanged(study):
    all_raters(Store(study))
    rows = sql(
        study,
        "SELECT count(*), sum(flipped) FROM dealt JOIN trials USING (trial) WHERE open = 0 "
        "AND kind IN ('unlimited', 'limited') GROUP BY trial",
    )
    assert rows == [(4, 2)] * 36


def test_a_session_is_practice_and_then_both_parts_with_catch_trials(study):
    rater = all_raters(Store(study))[0]
    rows = sql(study, f"SELECT kind, part FROM dealt JOIN trials USING (trial) WHERE rater = {rater} ORDER BY position")
    kinds, parts = [kind for kind, _ in rows], [part for _, part in rows]
    assert kinds[:4] == ["practice"] * 4 and parts[:4] == ["unlimited"] * 2 + ["limited"] * 2
    assert parts[4:] == ["unlimited"] * 8 + ["limited"] * 8
    assert collections.Counter(kinds[4:]) == {"unlimited": 6, "limited": 6, "catch": 4}


def test_a_rater_sees_each_photo_once_before_any_is_repeated(study):
    rater = all_raters(Store(study))[0]
    rows = sql(study, f"SELECT kind, image FROM dealt JOIN trials USING (trial) WHERE rater = {rater}")
    for part in PARTS:
        photos = collections.Counter(image for kind, image in rows if kind == part)
        assert max(photos.values()) - 1 <= 6 // len(photos)


def test_the_open_trials_of_a_silent_rater_are_reassigned(run, tmp_path):
    drawing.make([run], tmp_path / "study", replace(SMALL, hold=0.0))
    store = Store(tmp_path / "study")
    first = store.rater(store.invite())["rater"]
    store.begin(first)
    wanted = sum(row[0] for row in sql(tmp_path / "study", "SELECT open FROM trials"))
    store.begin(store.rater(store.invite())["rater"])
    assert (
        sum(row[0] for row in sql(tmp_path / "study", "SELECT open FROM trials")) == wanted
    )  # 12 released, 12 assigned


def test_only_the_first_answer_counts_and_a_trial_of_another_rater_is_refused(study):
    store = Store(study)
    rater = store.rater(store.invite())["rater"]
    store.begin(rater)
    assert store.answer(rater, 4, "left", 0, 900, 300, 1) == "kept"
    assert store.answer(rater, 4, "right", 0, 900, 300, 1) == "kept"
    assert store.answer(rater, 400, "left", 0, 900, 300, 1) is None
    assert sql(study, "SELECT position, side FROM answers") == [(4, "left")]


@pytest.mark.parametrize(
    ("off", "views", "flagged"), [(0.1, 1, 0), (0.11, 1, 1), (-0.1, 1, 0), (-0.11, 1, 1), (0, 2, 1)]
)
def test_an_exposure_more_than_a_tenth_off_or_seen_twice_is_flagged(study, off, views, flagged):
    store = Store(study)
    rater = store.rater(store.invite())["rater"]
    store.begin(rater)
    position, exposure = sql(study, "SELECT position, exposure FROM dealt JOIN trials USING (trial) WHERE exposure")[0]
    store.answer(rater, position, "left", round(exposure * (1 + off)), 900, 300, views)
    assert sql(study, "SELECT flagged FROM answers") == [(flagged,)]


def test_each_rater_gets_a_share_of_each_class_and_exposure(run, tmp_path):
    drawing.make([run], tmp_path / "study", replace(SMALL, per_class=4, per_rater=36))
    rater = all_raters(Store(tmp_path / "study"))[0]
    rows = sql(tmp_path / "study", f"SELECT part, category, exposure FROM dealt JOIN trials USING (trial) "
                                   f"WHERE rater = {rater} AND kind IN ('unlimited', 'limited')")  # fmt: skip
    counts = collections.Counter(rows)  # 18 of each part: 9 of a class, or 4.5 of a class and exposure
    assert all(abs(count - (9 if part == "unlimited" else 4.5)) <= 2.5 for (part, _, _), count in counts.items())
    assert len(counts) == 2 + 4


def test_one_person_cannot_use_two_links(study):
    store = Store(study)
    one, two = (store.rater(store.invite("prolific"))["rater"] for _ in range(2))
    store.begin(one, "5f00aa")
    with pytest.raises(AlreadyTakesPart):
        store.begin(two, "5f00aa")
    assert sql(study, f"SELECT count(*) FROM dealt WHERE rater = {two}") == [(0,)]


# ---- the web app ----


class Client:
    """Flask's test client as a browser."""

    def __init__(self, study, config=ServeConfig(), **options):  # noqa: B008 - frozen
        self.http = server.create_app(Store(study), config, **options).test_client()
        self.csrf = self.link = ""
        self.responses = []

    def get(self, path):
        response = self.http.get(path)
        self.responses.append(response)
        text = response.text if response.mimetype != "image/jpeg" else ""
        found = re.search(r'csrf(?:="|" value=")(\w{64})"', text)
        self.csrf = found[1] if found else self.csrf
        return response

    def join(self):
        self.get("/")
        self.link = self.http.post("/join", data={"csrf": self.csrf, "consent": "yes"}).location
        self.get(self.link)
        return self

    def answer(self, **fields):
        data = {"n": 0, "side": "left", "shown_ms": 0, "answer_ms": 900, "width": 300, "views": 1, **fields}
        response = self.http.post(f"{self.link}/answer", json=data, headers={"X-Study-Token": self.csrf})
        self.responses.append(response)
        return response


def test_nothing_sent_to_a_rater_names_a_method_or_a_file_or_the_true_picture(study):
    client = Client(study).join()
    state = client.get(f"{client.link}/state").json
    while state["ahead"]:
        trial = state["ahead"][0]
        for side in ("left", "right"):
            client.get(f"{client.link}/{trial['n']}/{side}")
        state = client.answer(n=trial["n"], shown_ms=trial["exposure"]).json
    client.get(f"{client.link}/thanks")
    pictures = {name for row in sql(study, "SELECT a_picture, b_picture FROM trials") for name in row}
    secret = ["telea", "mean.", "secretname", "truth", "spoilt", "catch", "free_0", ".jpg", ".png", *pictures]
    for response in client.responses:
        for text in (str(response.headers), "" if response.mimetype == "image/jpeg" else response.text):
            assert not [word for word in secret if word in text.lower()]
    assert {tuple(trial) for trial in state["ahead"]} <= {("n", "practice", "exposure")}


def test_the_static_files_name_no_method_either(study):
    client = Client(study)
    for name in ("study.js", "study.css"):
        text = client.get(f"/static/{name}").text
        assert not re.search(r"telea|truth|catch trial|spoilt", text)


def test_a_request_without_the_csrf_token_of_its_page_is_refused(study):
    client, other = Client(study).join(), Client(study)
    other.get("/")
    stolen, other.link = client.csrf, client.link
    assert other.answer().status_code == 200  # the link identifies the rater
    other.csrf = stolen  # a token is valid only for its own cookie
    assert other.answer(n=1).status_code == 403
    client.csrf = ""
    assert client.answer().status_code == 403
    assert client.http.post("/join", data={"consent": "yes"}).status_code == 403
    headers = {"X-Study-Token": stolen, "Sec-Fetch-Site": "cross-site"}
    assert client.http.post(f"{client.link}/answer", json={}, headers=headers).status_code == 403


@pytest.mark.parametrize(
    "wrong",
    [
        {"side": "up"},
        {"n": -1},
        {"n": True},
        {"n": "0"},
        {"views": 0},
        {"answer_ms": "NaN"},
        {"shown_ms": -1},
        {"width": []},
    ],
)
def test_an_invalid_answer_is_refused_and_not_stored(study, wrong):
    client = Client(study).join()
    assert client.answer(**wrong).status_code == 400
    assert sql(study, "SELECT count(*) FROM answers") == [(0,)]


def test_large_and_frequent_requests_are_refused(study):
    client = Client(study, clock=lambda: 0.0).join()  # independent of the speed of the machine
    assert client.answer(more="x" * 5000).status_code == 413
    client.answer(side="left", n=0)
    codes = [client.get(f"{client.link}/state").status_code for _ in range(120)]
    assert codes[0] == 200 and codes[-1] == 429 and client.responses[-1].headers["Retry-After"] == "2"
    guesses = [client.get(f"/r/{'A' * 31}{i % 10}").status_code for i in range(40)]
    assert guesses[0] == 404 and guesses[-1] == 429


def test_a_rate_limit_recovers_with_time():
    now = [0.0]
    limit = server.RateLimit(2, 0.5, lambda: now[0])
    assert [limit.admits("a") for _ in range(3)] == [True, True, False]
    assert limit.admits("b")
    now[0] = 2.0
    assert [limit.admits("a") for _ in range(2)] == [True, False]


@pytest.mark.parametrize(
    "path",
    [
        "/0/../../study.sqlite",
        "/0/left/../../../secret.json",
        "/0/up",
        "/-1/left",
        "/9/left",
        "/0/%2e%2e%2fsecret.json",
    ],
)
def test_no_url_leads_to_other_files_or_to_later_pictures(study, path):
    client = Client(study).join()
    assert client.get(client.link + path).status_code == 404


def test_static_files_are_only_those_of_their_folder(study):
    for path in ("/static/../store.py", "/static/%2e%2e/store.py", "/static/..%2fstore.py"):
        assert Client(study).get(path).status_code == 404


def test_each_page_has_the_security_headers(study):
    client = Client(study).join()
    for path in ("/", client.link, f"{client.link}/state", f"{client.link}/0/left", "/nothing", "/static/study.css"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "no-referrer"
    cookie = Client(study).get("/").headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie


def test_the_admin_page_needs_its_token_and_shows_counts(study):
    client = Client(study).join()
    client.answer(n=0)
    token = json.loads((study / "secret.json").read_text())["admin"]
    assert (
        client.get("/admin/").status_code
        == client.get(f"/admin/{token[:-1]}{'y' if token.endswith('x') else 'x'}").status_code
        == 404
    )
    assert client.get(f"/admin/{token}").status_code == 200
    counts = client.get(f"/admin/{token}/state").json
    assert (counts["raters"], counts["active"], counts["finished"]) == (1, 1, 0)
    assert counts["parts"]["unlimited"] == {"answers": 0, "wanted": 48}  # the only answer was practice


def test_links_cannot_be_guessed_or_read_from_the_database(study):
    client = Client(study).join()
    link = client.link.rsplit("/", 1)[1]
    assert len(link) == 32  # 24 random bytes
    assert link.encode() not in (study / "study.sqlite").read_bytes()
    assert (study / "secret.json").stat().st_mode & 0o077 == 0


def test_a_closed_study_admits_only_personal_links(study):
    client = Client(study, closed=True)
    assert "personal link" in client.get("/").text
    assert client.http.post("/join", data={"consent": "yes"}).status_code == 403
    link = Store(study).invite()
    assert client.get(f"/r/{link}").status_code == 200


@pytest.mark.parametrize(
    ("host", "public"),
    [
        ("127.0.0.1", False),
        ("::1", False),
        ("localhost", False),
        ("0.0.0.0", True),
        ("192.168.1.5", True),
        ("::", True),
    ],
)
def test_public_addresses_are_recognized(host, public):
    assert server.is_public(host) == public


def test_serving_to_the_network_prints_a_warning(study):
    port = free_port()
    process = start(study, port, "--host", "0.0.0.0")
    process.kill()
    stderr = process.communicate()[1].decode()
    assert "WARNING" in stderr and "without encryption" in stderr and "--proxy" in stderr


# ---- statistics ----


def test_the_wilson_interval_equals_that_of_scipy():
    from scipy.stats import binomtest

    for wins, n in ((0, 10), (8, 10), (10, 10), (137, 300)):
        low, high = report.wilson(wins, n)
        expected = binomtest(wins, n).proportion_ci(method="wilson")
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert tuple(map(float, report.wilson(0, 0))) == (0, 1)


def answers(*rows):
    """A table of answers from (a, b, won) with counts: `("x", "y", True, 7)`."""
    repeated = [(a, b, won) for a, b, won, count in rows for _ in range(count)]
    table = pd.DataFrame(repeated, columns=["a", "b", "won"])
    return table.assign(pair=[str(i) for i in range(len(table))], trial=range(len(table)))


def test_the_strengths_of_two_methods_differ_by_the_log_odds():
    table = report.bradley_terry(answers(("x", "y", True, 30), ("x", "y", False, 10)), StudyReportConfig())
    assert list(table["method"]) == ["x", "y"]
    difference = table["strength"][0] - table["strength"][1]
    assert difference == pytest.approx(math.log(30.5 / 10.5))
    # Each strength is half the difference, whose variance is 1/30.5 + 1/10.5.
    half = 1.959964 * math.sqrt(1 / 30.5 + 1 / 10.5) / 2
    assert table["high"][0] - table["strength"][0] == pytest.approx(half, rel=1e-3)
    assert table["beats_average"][0] == pytest.approx(1 / (1 + math.sqrt(10.5 / 30.5)))


def test_the_intervals_of_the_ranking_have_the_stated_coverage():
    rng, inside = np.random.default_rng(5), []
    true = pd.Series({"x": 0.8, "y": 0.0, "z": -0.8})
    for _ in range(150):
        tables = []
        for a, b in itertools.combinations(true.index, 2):
            wins = rng.binomial(60, 1 / (1 + math.exp(true[b] - true[a])))
            tables.append(answers((a, b, True, wins), (a, b, False, 60 - wins)))
        table = report.bradley_terry(pd.concat(tables).assign(pair=range(180)), StudyReportConfig())
        centre = table["method"].map(true)
        inside += ((table["low"] <= centre) & (centre <= table["high"])).tolist()
    assert 0.92 <= np.mean(inside) <= 0.99  # 95 % of 450, give or take three standard errors of 150 studies


def test_a_method_that_never_lost_has_a_finite_strength():
    table = report.bradley_terry(answers(("x", "y", True, 20)), StudyReportConfig())
    assert np.isfinite(table[["strength", "low", "high"]]).all(axis=None)


def test_agreement_equals_krippendorffs_alpha_by_hand():
    # Trial 1: a a b, trial 2: b b, trial 3: only a, which does not count. Coincidences over n - 1: trial 1 gives
    # aa 1, ab 1, ba 1; trial 2 gives bb 2. Do = 2/5; of 5 values 2 are a and 3 are b, so De = 2 * 2 * 3 / (5 * 4).
    table = pd.DataFrame({"trial": [1, 1, 1, 2, 2, 3], "won": [True, True, False, False, False, True]})
    found = report.agreement(table)
    assert found["trials"] == 2
    assert found["alpha"] == pytest.approx(1 - (2 / 5) / (12 / 20))
    assert found["pairwise"] == pytest.approx(2 / 4)  # of 3 + 1 pairs of raters, 1 + 1 agree


def rows_of(rater, kind, side, won, count):
    row = {"rater": rater, "source": "web", "excluded": "", "kind": kind, "side": side, "won": won, "answer_ms": 1000}
    return [{**row, "flagged": 0}] * count


def test_careless_raters_are_excluded_by_the_stated_rule():
    rows = [
        *rows_of(1, "catch", "left", True, 8), *rows_of(1, "catch", "right", False, 2),  # 80 %: included
        *rows_of(2, "catch", "left", True, 7), *rows_of(2, "catch", "right", False, 3),
        *rows_of(3, "unlimited", "left", True, 19), *rows_of(3, "unlimited", "right", True, 1),
        *rows_of(4, "unlimited", "left", True, 18), *rows_of(4, "unlimited", "right", True, 2),
        *rows_of(5, "catch", "left", False, 2),  # too few to judge
    ]  # fmt: skip
    table = report.raters(pd.DataFrame(rows), StudyReportConfig())
    assert table["left_out"].tolist() == ["", "7 of 10 catch trials right", "one side in 95% of the trials", "", ""]


# ---- whole studies ----

STRENGTH = {"telea": 0.9, "ns": 0.1, "mean": -1.0}  # log odds, mean 0
FOOLED = {250: 0.45, 1000: 0.3}  # share of trials in which a result is taken for the truth, by exposure


def test_the_report_finds_the_preferences_of_simulated_raters(run, tmp_path):
    study, port = tmp_path / "study", free_port()
    config = StudyConfig(per_class=4, answers=12, per_rater=36, catches=8, exposures=(250, 1000))
    drawing.make([run], study, config)
    process = start(study, port)
    try:
        visitors, kept = [], {}
        while True:
            visitor = Visitor(port)
            try:
                visitor.join()
            except AssertionError:
                break  # all trials are assigned
            number = len(visitors) + 1
            visitors.append(visitor)
            careless, rng = number % 6 == 0, np.random.default_rng([4, number])
            trials = {
                row[0]: row[1:]
                for row in sql(
                    study,
                    "SELECT position, kind, a, b, exposure, flipped FROM dealt "
                    f"JOIN trials USING (trial) WHERE rater = {number}",
                )
            }
            for n, (kind, a, b, exposure, flipped) in trials.items():
                if number == 3 and n == 20:  # kill -9 in the middle of a session; the raters continue
                    stop(process)
                    process = start(study, port)
                    visitor.connection.close()
                chance = {
                    "unlimited": lambda a=a, b=b: 1 / (1 + math.exp(STRENGTH[b] - STRENGTH[a])),
                    "limited": lambda exposure=exposure: FOOLED[exposure],
                }.get(kind, lambda: 1.0)()
                wins = rng.random() < (0.5 if careless else chance)
                side = "left" if wins != bool(flipped) else "right"
                assert visitor.answer(n, side, exposure)[0] == 200
                kept[number, n] = side
            assert visitor.state()["ahead"] == []
    finally:
        stop(process)
    stored = sql(study, "SELECT rater, position, side FROM answers")
    assert {(rater, n): side for rater, n, side in stored} == kept
    wanted = sql(study, "SELECT count(*) FROM trials WHERE kind IN ('unlimited', 'limited')")[0][0] * 12
    assert wanted == 4 * 2 * 3 * 12 + 4 * 2 * 3 * 2 * 12
    kinds = sql(study, "SELECT kind FROM answers JOIN dealt USING (rater, position) JOIN trials USING (trial)")
    assert sum(kind in PARTS for (kind,) in kinds) == wanted
    done = run_command("report", study)
    assert done.exit_code == 0, done.output
    who = pd.read_csv(study / "report" / "raters.csv", keep_default_na=False)
    left_out = set(who["rater"][who["left_out"] != ""])
    assert left_out == {number for number in range(1, len(visitors) + 1) if number % 6 == 0}
    inside = []  # one in twenty of the 95 % intervals may miss
    for row in pd.read_csv(study / "report" / "preferences.csv").itertuples():
        inside.append(row.low <= 1 / (1 + math.exp(STRENGTH[row.other] - STRENGTH[row.method])) <= row.high)
    for row in pd.read_csv(study / "report" / "exposures.csv").itertuples():
        inside.append(row.low <= FOOLED[row.exposure] <= row.high)
    ranking = pd.read_csv(study / "report" / "ranking.csv")
    for row in ranking.itertuples():
        inside.append(row.low <= STRENGTH[row.method] <= row.high)  # of mean 0, as in the report
    assert len(inside) == 3 * 4 + 6 * 4 + 3 * 2 and sum(inside) >= 0.85 * len(inside)
    assert list(ranking["method"]) == ["telea", "ns", "mean"] * 2
    recompute(study)


def recompute(study):
    """Recompute each number of the report from the SQLite file in plain Python."""
    rows = sql(study, "SELECT rater, source, kind, category, a, b, exposure, choice, side, answer_ms, flagged, "
                      "d.trial, t.pair FROM answers n JOIN dealt d USING (rater, position) JOIN trials t USING (trial) "
                      "JOIN raters USING (rater) WHERE kind != 'practice'")  # fmt: skip
    out, people = set(), collections.defaultdict(list)
    for row in rows:
        people[row[0]].append(row)
    with (study / "report" / "raters.csv").open() as file:
        for found in csv.DictReader(file):
            mine = people.pop(int(found["rater"]))
            catches = [row[7] == "a" for row in mine if row[2] == "catch"]
            left = sum(row[8] == "left" for row in mine) / len(mine)
            times = sorted(row[9] for row in mine)
            median = (times[len(times) // 2] + times[~(len(times) // 2)]) / 2 / 1000
            assert [int(found[name]) for name in ("answers", "catches", "catches_right", "flagged")] == [
                len(mine) - len(catches),
                len(catches),
                sum(catches),
                sum(row[10] for row in mine),
            ]
            assert float(found["left"]) == pytest.approx(left, abs=5e-4)
            assert float(found["seconds"]) == pytest.approx(median, abs=5e-3)
            careless = (len(catches) >= 3 and sum(catches) < 0.8 * len(catches)) or (
                len(mine) >= 20 and max(left, 1 - left) >= 0.95
            )
            assert bool(found["left_out"]) == careless
            out |= {int(found["rater"])} if careless else set()
    assert not people
    rows = [row for row in rows if row[0] not in out and not row[10]]
    for name, kind, keys in (
        ("preferences", "unlimited", ("method", "other")),
        ("exposures", "limited", ("method", "exposure")),
    ):
        with (study / "report" / f"{name}.csv").open() as file:
            table = list(csv.DictReader(file))
        groups = collections.defaultdict(list)
        for row in rows:
            if row[2] == kind:
                key = (row[4], row[5]) if kind == "unlimited" else (row[4], str(row[6]))
                border = row[3].split("_")[0]
                for cell in ((border, row[3]), (border, "all"), ("all", "all")):
                    groups[(*key, *cell)].append(row[7] == "a")
        assert len(table) == len(groups)
        for found in table:
            won = groups[(*(found[key] for key in keys), found["border"], found["category"])]
            n, p, z = len(won), sum(won) / len(won), 1.959963984540054
            middle, half = p + z * z / 2 / n, z * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n)
            assert (int(found["n"]), int(found["wins"])) == (n, sum(won))
            numbers = [float(found[name]) for name in ("rate", "low", "high")]
            bounds = [(middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)]
            assert numbers == pytest.approx([p, max(0, bounds[0]), min(1, bounds[1])], abs=1e-9)
    with (study / "report" / "ranking.csv").open() as file:
        for border, group in itertools.groupby(csv.DictReader(file), lambda row: row["border"]):
            recompute_ranking(
                list(group), [r for r in rows if r[2] == "unlimited" and border in ("all", r[3].split("_")[0])]
            )
    with (study / "report" / "agreement.csv").open() as file:
        for found in csv.DictReader(file):
            part = found["part"].split()
            mine = [r for r in rows if r[2] == part[0] and (part[0] == "unlimited" or str(r[6]) == part[1])]
            trials = collections.defaultdict(list)
            for row in mine:
                trials[row[11]].append(row[7])
            trials = [chosen for chosen in trials.values() if len(chosen) > 1]
            pairs = [one == two for chosen in trials for one, two in itertools.combinations(chosen, 2)]
            observed = sum(
                sum(one != two for one, two in itertools.permutations(chosen, 2)) / (len(chosen) - 1)
                for chosen in trials
            )
            values = [choice for chosen in trials for choice in chosen]
            expected = sum(one != two for one, two in itertools.permutations(values, 2)) / (len(values) - 1)
            assert (int(found["answers"]), int(found["trials"])) == (len(mine), len(trials))
            assert float(found["pairwise"]) == pytest.approx(sum(pairs) / len(pairs))
            assert float(found["alpha"]) == pytest.approx(1 - observed / expected)


def recompute_ranking(ranking, rows):
    """Bradley-Terry by the iteration of Hunter (2004), and its intervals by numeric differences of the likelihood."""
    from scipy.optimize import approx_fprime

    names = [row["method"] for row in ranking]
    matches = {(row[4], row[5]) for row in rows}
    wins = collections.Counter((row[4], row[5]) if row[7] == "a" else (row[5], row[4]) for row in rows)
    wins.update({match: 0.5 for pair in matches for match in (pair, pair[::-1])})
    power = dict.fromkeys(names, 1.0)
    for _ in range(2000):
        power = {i: sum(wins[i, j] for j in names) / sum((wins[i, j] + wins[j, i]) / (power[i] + power[j])
                                                        for j in names if j != i) for i in names}  # fmt: skip
    centre = sum(map(math.log, power.values())) / len(names)
    strengths = np.array([math.log(power[name]) - centre for name in names])
    assert [float(row["strength"]) for row in ranking] == pytest.approx(strengths, abs=1e-6)
    assert [float(row["beats_average"]) for row in ranking] == pytest.approx(1 / (1 + np.exp(-strengths)), abs=1e-6)
    assert [int(row["n"]) for row in ranking] == [sum(name in (row[4], row[5]) for row in rows) for name in names]

    def slope(s, some):
        """Gradient of the log likelihood of some matches {(winner, loser): times}."""
        gradient = np.zeros(len(names))
        for (winner, loser), times in some.items():
            i, j = names.index(winner), names.index(loser)
            missed = times / (1 + math.exp(s[i] - s[j]))
            gradient[i] += missed
            gradient[j] -= missed
        return gradient

    hessian = np.array([approx_fprime(strengths, lambda s, i=i: slope(s, wins)[i], 1e-6) for i in range(len(names))])
    inverse = np.linalg.pinv(-(hessian + hessian.T) / 2, rcond=1e-5)
    meat = np.zeros_like(inverse)
    for pair in {row[12] for row in rows}:
        mine = collections.Counter((r[4], r[5]) if r[7] == "a" else (r[5], r[4]) for r in rows if r[12] == pair)
        meat += np.outer(slope(strengths, mine), slope(strengths, mine))
    variance = np.maximum(np.diag(inverse), np.diag(inverse @ meat @ inverse))
    assert [(float(row["high"]) - float(row["low"])) / 2 for row in ranking] == pytest.approx(
        1.959964 * np.sqrt(variance), rel=1e-3
    )


# ---- crowd platforms ----


def test_mturk_files_ask_each_trial_as_often_as_wanted_with_sides_exchanged(study):
    assert run_command("export", study, "--platform", "mturk", "--url", "https://pictures.example.org/x").exit_code == 0
    rows = sql(study, "SELECT assignments, flipped, trial FROM hits JOIN hit_trials USING (hit) "
                      "JOIN trials USING (trial) WHERE kind IN ('unlimited', 'limited')")  # fmt: skip
    asked = collections.Counter()
    for assignments, flipped, trial in rows:
        asked[trial, flipped] += assignments
    assert set(asked.values()) == {2} and len(asked) == 36 * 2  # 4 answers, two each way
    layout = (study / "mturk" / "layout.html").read_text()
    assert set(re.findall(r"https?://[^\s\"'`]+", layout)) == {"https://www.mturk.com/mturk/externalSubmit"}
    assert not re.search(r"<link|src=\"|@import", layout)  # self-contained
    for path in (study / "mturk").glob("*.csv"):
        for row in csv.DictReader(path.open()):
            trials = json.loads(row["trials"])
            assert not re.search("telea|ns\\b|mean|truth|catch|spoilt", row["trials"])
            for trial in trials:
                name = trial["left"].removeprefix("https://pictures.example.org/x/")
                assert (study / "mturk" / "pictures" / name).is_file()


def mturk_results(study, path, worker="A1WORKER"):
    """Write the results of MTurk for one worker and one HIT; the worker always chooses picture a."""
    (hit,) = sql(study, "SELECT hit FROM hits ORDER BY hit LIMIT 1")[0]
    answers = []
    for n, flipped, exposure in sql(study, "SELECT position, flipped, exposure FROM hit_trials "
                                           f"JOIN trials USING (trial) WHERE hit = '{hit}'"):  # fmt: skip
        side = "right" if flipped else "left"
        answers.append({"n": n, "side": side, "shown_ms": exposure, "answer_ms": 800.5, "width": 300, "views": 1})
    columns = ["HITId", "AssignmentId", "WorkerId", "AssignmentStatus", "Input.hit", "Answer.hit", "Answer.answers"]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, ["H", "S", worker, "Submitted", hit, hit, json.dumps(answers)]])
    return len(answers)


def test_mturk_results_are_imported_once_without_the_names_of_workers(study, tmp_path):
    crowd.export(study, "mturk", "https://pictures.example.org", places=1, code="")
    count = mturk_results(study, tmp_path / "batch.csv")
    assert (
        f"answers: {count}, known before: 0"
        in run_command("import", tmp_path / "batch.csv", study, "--platform", "mturk").output
    )
    assert (
        f"answers: 0, known before: {count}"
        in run_command("import", tmp_path / "batch.csv", study, "--platform", "mturk").output
    )
    assert {choice for (choice,) in sql(study, "SELECT choice FROM answers")} == {"a"}
    Store(study).db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert b"A1WORKER" not in (study / "study.sqlite").read_bytes()


@pytest.mark.parametrize(
    "wrong", ['[{"n": 9999}]', "{", '[{"n":0,"side":"up","shown_ms":0,"answer_ms":1,"width":1,"views":1}]']
)
def test_invalid_mturk_results_are_counted_and_left_out(study, tmp_path, wrong):
    crowd.export(study, "mturk", "https://pictures.example.org", places=1, code="")
    mturk_results(study, tmp_path / "batch.csv")
    rows = list(csv.reader((tmp_path / "batch.csv").open()))
    rows[1][-1] = wrong
    with (tmp_path / "batch.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    assert crowd.read(study, tmp_path / "batch.csv", "mturk") == {
        "answers": 0, "known_before": 0, "rejected": 0, "unreadable": 1}  # fmt: skip


def test_prolific_links_work_once_for_each_person_and_returned_submissions_are_excluded(study, tmp_path):
    run_command(
        "export", study, "--platform", "prolific", "--url", "https://study.example.org", "--places", 2, "--code", "C0DE"
    )
    (path,) = (study / "prolific").glob("taskflow_*.csv")
    rows = list(csv.reader(path.open()))
    assert [row[1] for row in rows] == ["1", "1"]
    links = [row[0].removeprefix("https://study.example.org") for row in rows]
    assert all(link.endswith("?PROLIFIC_PID={{%PROLIFIC_PID%}}") for link in links)
    client = Client(study, closed=True)
    for link, code in zip(links, (303, 403), strict=True):
        client.get(link.replace("{{%PROLIFIC_PID%}}", "5f00aa"))
        form = {"csrf": client.csrf, "consent": "yes", "PROLIFIC_PID": "5f00aa"}
        assert client.http.post(link.split("?")[0] + "/consent", data=form).status_code == code
    client.link = links[0].split("?")[0]
    client.get(client.link)
    state = client.get(f"{client.link}/state").json
    while state["ahead"]:
        state = client.answer(n=state["ahead"][0]["n"], shown_ms=state["ahead"][0]["exposure"]).json
    assert "C0DE" in client.get(f"{client.link}/thanks").text
    (tmp_path / "export.csv").write_text("Submission id,Participant id,Status\ns1,5f00aa,RETURNED\ns2,other,APPROVED\n")
    output = run_command("import", tmp_path / "export.csv", study, "--platform", "prolific").output
    assert output == "matched: 1, left out: 1, unknown: 1\n"
    assert report.raters(report.read(study), StudyReportConfig())["left_out"].tolist() == ["returned on Prolific"]


@pytest.mark.parametrize("words", [["report"], ["serve"], ["import", "done.csv"]])
def test_a_damaged_database_gives_a_one_line_error(study, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "done.csv").write_text("Participant id,Status\nA,APPROVED\n")
    whole = (study / "study.sqlite").read_bytes()
    (study / "study.sqlite").write_bytes(whole[:100] + bytes(len(whole) - 100))  # only the header is intact
    platform = ["--platform", "prolific"] if words[0] == "import" else []
    done = run_command(*words, study, *platform)
    assert done.exit_code == 2 and "is not a study database" in done.output and done.output.count("\n") == 1


def test_a_consent_file_that_is_not_text_gives_a_one_line_error(run, tmp_path):
    (tmp_path / "consent.txt").write_bytes(b"\xff\xfe\x00")
    done = run_command("make", run, tmp_path / "study", "--consent", tmp_path / "consent.txt")
    assert done.exit_code == 2 and "cannot read the consent text" in done.output
    assert done.output.count("\n") == 1 and not (tmp_path / "study").exists()


def test_missing_answers_or_a_missing_study_give_a_one_line_error(study, tmp_path):
    for words, message in ((["report", study], "has no answers yet"), (["report", tmp_path], "no study.sqlite"),
                        (["serve", tmp_path], "no study.sqlite")):  # fmt: skip
        done = run_command(*words)
        assert done.exit_code == 2 and message in done.output and done.output.count("\n") == 1
