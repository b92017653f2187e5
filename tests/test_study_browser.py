"""The pages of the study in a real browser the size of a phone: keyboard, a killed server, exact exposures."""

import csv
import json
import shutil
import sqlite3
import tempfile
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest
from study_run import free_port, results, start, stop

from evaluation.study import make as drawing
from evaluation.study.settings import StudyConfig

pytest.importorskip("flask", reason="needs the extra `study`")
pytest.importorskip("selenium", reason="needs selenium")
from evaluation.study import crowd

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs Chromium and its driver on PATH")
EXPOSURES = (250, 1000)

# An independent observer: reads the computed style in each frame and records how long pictures were visible.
OBSERVER = """
window.spans = [];
let since = null;
const look = now => {
  const visible = getComputedStyle(document.querySelector('#left canvas')).visibility === 'visible';
  if (visible && since === null) since = now;
  if (!visible && since !== null) { window.spans.push(now - since); since = null; }
  requestAnimationFrame(look);
};
requestAnimationFrame(look);
"""


@pytest.fixture
def phone():
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = BROWSER
        for word in (
            *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"),
            *("disable-background-networking", "disable-component-update", f"user-data-dir={profile}"),
        ):
            options.add_argument(f"--{word}")
        size = {"deviceMetrics": {"width": 390, "height": 844, "pixelRatio": 2, "touch": True}}
        options.add_experimental_option("mobileEmulation", size)
        browser = webdriver.Chrome(options=options, service=Service(DRIVER))
        yield browser
        browser.quit()


def test_a_session_by_keyboard_survives_a_killed_server(phone, tmp_path):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    study, port = tmp_path / "study", free_port()
    drawing.make([results(tmp_path)], study, StudyConfig(per_rater=6, catches=2, answers=1, exposures=EXPOSURES))
    server = start(study, port)

    def press(key):
        ActionChains(phone).send_keys(key).perform()

    def visible(name):
        return phone.execute_script(
            f"const e = document.getElementById('{name}'); return !!e && e.offsetParent !== null"
        )

    def step():
        """Do what the page asks for next, by keyboard."""
        if visible("go") or visible("show"):
            press(Keys.SPACE)
        elif visible("choose-left") and phone.execute_script("return !document.getElementById('choose-left').disabled"):
            press(Keys.ARROW_LEFT if len(spans) % 2 else Keys.ARROW_RIGHT)
        time.sleep(0.1)

    def count():
        db = sqlite3.connect(study / "study.sqlite")
        found = db.execute("SELECT count(*) FROM answers").fetchone()[0]
        db.close()
        return found

    spans = []
    try:
        phone.get(f"http://127.0.0.1:{port}/")
        for _ in range(3):  # by keyboard: move to the box, tick it, move to the button
            press(Keys.TAB)
            if phone.switch_to.active_element.get_attribute("name") == "consent":
                break
        press(Keys.SPACE)
        press(Keys.TAB)
        press(Keys.ENTER)
        opened = time.monotonic() + 10
        while not phone.find_elements(By.ID, "stage") and time.monotonic() < opened:
            time.sleep(0.1)
        phone.execute_script(OBSERVER)
        fits = "return document.documentElement.scrollHeight <= innerHeight && scrollX + scrollY === 0"
        deadline, killed = time.monotonic() + 90, False
        while "/thanks" not in phone.current_url and time.monotonic() < deadline:
            if not killed and count() >= 7:
                stop(server)  # kill -9; the next answer has to wait in the page
                killed = True
                waiting = time.monotonic() + 10
                while "No connection" not in phone.find_element(By.ID, "note").text and time.monotonic() < waiting:
                    step()
                kept = phone.execute_script("return Object.keys(localStorage).filter(key => key.startsWith('answer'))")
                assert len(kept) == 1
                phone.execute_script("localStorage.setItem('spans', JSON.stringify(window.spans))")
                server = start(study, port)
                phone.refresh()  # resume from the personal link, with the waiting answer
                spans += json.loads(phone.execute_script("return localStorage.getItem('spans')"))
                phone.execute_script(OBSERVER)
            if visible("stage"):
                assert phone.execute_script(fits)
                more = phone.execute_script("return window.spans || []")
            step()
        assert killed and "/thanks" in phone.current_url
        assert "8 answers" in phone.page_source  # practice is not counted
    finally:
        stop(server)
    db = sqlite3.connect(study / "study.sqlite")
    rows = db.execute(
        "SELECT exposure, shown_ms, flagged, views FROM answers JOIN dealt USING (rater, position) "
        "JOIN trials USING (trial) ORDER BY position"
    ).fetchall()
    db.close()
    assert len(rows) == 4 + 6 + 2
    shown = [(exposure, ms) for exposure, ms, _, _ in rows if exposure]
    assert len(shown) == 2 + 3 + 1
    assert all(abs(ms - exposure) <= 30 for exposure, ms in shown)
    assert not any(flagged for _, _, flagged, _ in rows)
    seen = sorted(span for span in spans + more if any(abs(span - exposure) < 200 for exposure in EXPOSURES))
    for exposure, ms in shown:  # the observer saw each of them for as long as the page says
        assert min(abs(span - ms) for span in seen) <= 20
        assert min(abs(span - exposure) for span in seen) <= 30


def test_the_layout_for_mturk_submits_what_import_reads(phone, tmp_path):
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.common.by import By

    study, submitted = tmp_path / "study", []
    drawing.make([results(tmp_path)], study, StudyConfig(per_rater=4, catches=1, answers=2, exposures=(250,)))

    class Host(BaseHTTPRequestHandler):
        """The platform and, on another port, the host of the pictures."""

        def do_GET(self):
            name = self.path.split("?")[0].lstrip("/")
            data = page if name == "hit" else (study / "mturk" / "pictures" / name).read_bytes()
            self.send_response(200)
            self.send_header("Content-Type", "text/html" if name == "hit" else "image/jpeg")
            self.end_headers()
            self.wfile.write(data)

        def do_POST(self):
            submitted.append(parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *words):
            pass

    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Host) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        platform, pictures = (f"http://127.0.0.1:{server.server_port}" for server in servers)
        crowd.export(study, "mturk", pictures, places=1, code="")
        row = next(csv.DictReader(next((study / "mturk").glob("hits_*.csv")).open()))
        page = (study / "mturk" / "layout.html").read_text()
        page = page.replace("${hit}", row["hit"]).replace("${trials}", row["trials"]).encode()
        phone.get(f"{platform}/hit?assignmentId=ASSIGNED&turkSubmitTo={platform}")
        deadline = time.monotonic() + 60
        while not submitted and time.monotonic() < deadline:
            for name in ("go", "show", "left"):
                with suppress(WebDriverException):  # the page may change before the click
                    found = phone.find_elements(By.ID, name)
                    if found and found[0].is_displayed() and found[0].is_enabled():
                        found[0].click()
            time.sleep(0.1)
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
    (form,) = submitted
    assert form["assignmentId"] == ["ASSIGNED"]
    columns = ["WorkerId", "AssignmentStatus", "Answer.hit", "Answer.answers"]
    with (tmp_path / "batch.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, ["A1", "Submitted", form["hit"][0], form["answers"][0]]])
    counts = crowd.read(study, tmp_path / "batch.csv", "mturk")
    assert counts["answers"] == len(json.loads(row["trials"])) and not counts["unreadable"]
    db = sqlite3.connect(study / "study.sqlite")
    assert {side for (side,) in db.execute("SELECT side FROM answers")} == {"left"}
    assert db.execute("SELECT max(abs(shown_ms - 250)) FROM answers JOIN dealt USING (rater, position) "
                      "JOIN trials USING (trial) WHERE exposure").fetchone()[0] <= 30  # fmt: skip
    db.close()
