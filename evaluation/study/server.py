"""The web app for raters: Flask, plain pages, one SQLite file.

A rater is identified only by a link that cannot be guessed. No part of a URL is ever used as a path: pictures are found
by the rater's own trial number.
"""

import hmac
import ipaddress
import re
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

from flask import Flask, Response, abort, jsonify, redirect, render_template, request, url_for
from werkzeug.exceptions import HTTPException

from evaluation.study.settings import ServeConfig
from evaluation.study.store import SIDES, AlreadyTakesPart, Store
from maskgen.errors import BadInput

COOKIE = "visit"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",  # the URL of a page is the key to it
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "X-Robots-Tag": "noindex, nofollow",
    "Cache-Control": "no-store",
}
LINK = r"[A-Za-z0-9_-]{32}"
COMPLETE = "https://app.prolific.com/submissions/complete?cc="


class RateLimit:
    """Token bucket: admits `burst` requests of each key at once, then `rate` requests per second."""

    def __init__(self, burst: int, rate: float, clock: Callable[[], float] = time.monotonic):
        self.burst, self.rate, self.clock = burst, rate, clock
        self.lock, self.levels = threading.Lock(), {}

    def admits(self, key: str) -> bool:
        """Count one more request of this key; True if it is admitted."""
        now = self.clock()
        with self.lock:
            if len(self.levels) > 10_000:  # forget the keys whose buckets are full again
                full = self.burst / self.rate
                self.levels = {k: level for k, level in self.levels.items() if now - level[1] < full}
            level, then = self.levels.get(key, (self.burst, now))
            level = min(self.burst, level + (now - then) * self.rate)
            self.levels[key] = level - (level >= 1), now
        return level >= 1


def create_app(
    store: Store, config: ServeConfig, *, closed: bool = False, clock: Callable[[], float] = time.monotonic
) -> Flask:
    """The Flask app of one study.

    closed: admit only links made by `export`. clock: seconds, for the rate limits.
    """
    app = Flask(__name__)
    app.config.update(MAX_CONTENT_LENGTH=config.body, MAX_FORM_PARTS=10)
    app.json.sort_keys = False
    per_rater = RateLimit(config.burst, config.rate, clock)
    joins = RateLimit(config.join_burst, config.join_rate, clock)
    wrong_links = RateLimit(config.miss_burst, config.miss_rate, clock)

    def cookie():
        found = request.cookies.get(COOKIE, "")
        return found if re.fullmatch(LINK, found) else ""

    def page(name, **values):
        """A page with the CSRF token that belongs to the cookie of this browser."""
        visit = cookie() or secrets.token_urlsafe(24)
        values = {"title": store.settings["title"], "csrf": store.signed("csrf", visit), **values}
        response = Response(render_template(name, **values))
        if visit != cookie():
            response.set_cookie(COOKIE, visit, httponly=True, samesite="Strict", secure=request.is_secure)
        return response

    def check_csrf():
        token = request.headers.get("X-Study-Token") or request.form.get("csrf", "")
        same = hmac.compare_digest(token.encode(), store.signed("csrf", cookie()).encode())
        if not cookie() or not same or request.headers.get("Sec-Fetch-Site") == "cross-site":
            abort(403, "This page has expired. Please reload it.")

    def rater_of(link):
        """The rater of a link, or an error that reveals nothing."""
        rater = store.rater(link) if re.fullmatch(LINK, link) else None
        if rater is None:
            if not wrong_links.admits(request.remote_addr):
                abort(429)
            abort(404)
        if not per_rater.admits(link):
            abort(429)
        return rater

    def consent_values():
        trials = store.settings["per_rater"] + store.settings["catches"]
        limited = "limited" in store.settings["parts"]
        return {
            "trials": trials,
            "minutes": max(1, round(trials * 6 / 60)),
            "limited": limited,
            "own": store.settings["consent"],
            "contact": store.settings["contact"],
        }

    def person():
        name = request.values.get("PROLIFIC_PID", "")
        return name if re.fullmatch(r"[A-Za-z0-9]{1,64}", name) else ""

    def state_of(rater):
        answered, total = store.progress(rater["rater"])
        ahead = [
            {"n": row["position"], "practice": row["kind"] == "practice", "exposure": row["exposure"]}
            for row in store.ahead(rater["rater"])
        ]
        return {"answered": answered, "total": total, "ahead": ahead}

    @app.after_request
    def add_headers(response):
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if request.is_secure:
            response.headers["Strict-Transport-Security"] = "max-age=31536000"
        if response.status_code == 429:
            response.headers["Retry-After"] = "2"
        return response

    @app.errorhandler(HTTPException)
    def error_page(error):
        texts = {404: "Page not found. Is the link complete?", 429: "Too many requests. Please wait a moment."}
        text = texts.get(error.code, error.description)
        if request.path.endswith(("/answer", "/state")):
            return jsonify(error=text), error.code
        return Response(render_template("message.html", title="Error", text=text)), error.code

    @app.get("/")
    def welcome():
        if closed:
            return page("message.html", text="Please use your personal link.")
        return page("consent.html", action=url_for("join"), **consent_values())

    @app.post("/join")
    def join():
        check_csrf()
        if closed:
            abort(403, "Please use your personal link.")
        if request.form.get("consent") != "yes":
            abort(400, "Please tick the box if you want to take part.")
        if not joins.admits(request.remote_addr):
            abort(429)
        link = store.invite()
        return start_session(store.rater(link), link)

    def start_session(rater, link):
        try:
            trials = store.begin(rater["rater"], person())
        except AlreadyTakesPart:
            abort(403, "You have already started. Please use your first link.")
        if not trials:
            return page("message.html", text="The study is complete already. Thank you for your help!")
        return redirect(url_for("session", link=link), 303)

    @app.get("/r/<link>")
    def session(link):
        rater = rater_of(link)
        if rater["joined"] is None:
            return page("consent.html", action=url_for("consent", link=link), person=person(), **consent_values())
        if not store.ahead(rater["rater"], 1):
            return redirect(url_for("thanks", link=link), 303)
        return page("session.html", base=url_for("session", link=link), limited="limited" in store.settings["parts"])

    @app.post("/r/<link>/consent")
    def consent(link):
        rater = rater_of(link)
        check_csrf()
        if request.form.get("consent") != "yes":
            abort(400, "Please tick the box if you want to take part.")
        return start_session(rater, link)

    @app.get("/r/<link>/state")
    def state(link):
        return jsonify(state_of(rater_of(link)))

    @app.get("/r/<link>/<int:n>/<any(left, right):side>")
    def picture(link, n, side):
        for row in store.ahead(rater_of(link)["rater"]):  # only these, so that nobody can look at later trials
            if row["position"] == n:
                return Response(store.picture(row[side]).read_bytes(), mimetype="image/jpeg")
        return abort(404)

    @app.post("/r/<link>/answer")
    def answer(link):
        rater = rater_of(link)
        check_csrf()
        result = store.answer(rater["rater"], **_checked_answer(request.get_json()))
        if result is None:
            abort(404)
        return jsonify(result=result, **state_of(rater))

    @app.get("/r/<link>/thanks")
    def thanks(link):
        rater = rater_of(link)
        if rater["joined"] is None or store.ahead(rater["rater"], 1):
            return redirect(url_for("session", link=link), 303)
        code = store.settings.get("completion", "") if rater["source"] == "prolific" else ""
        return page("thanks.html", code=code, complete=COMPLETE, answered=store.progress(rater["rater"])[0])

    def admin_only(token):
        if not hmac.compare_digest(token.encode(), store.admin.encode()):
            if not wrong_links.admits(request.remote_addr):
                abort(429)
            abort(404)

    @app.get("/admin/<token>")
    def admin(token):
        admin_only(token)
        return page("admin.html", counts=store.counts())

    @app.get("/admin/<token>/state")
    def admin_state(token):
        admin_only(token)
        return jsonify(store.counts())

    return app


def _checked_answer(data) -> dict:
    """The arguments of `Store.answer` from the JSON of a request, or error 400 if a field is invalid."""
    try:
        side = data["side"]
        numbers = {name: float(data[name]) for name in ("shown_ms", "answer_ms", "width")}
        position, views = data["n"], data["views"]
    except (TypeError, KeyError, ValueError):
        abort(400, "Invalid answer.")
    whole = all(type(number) is int for number in (position, views))
    if side not in SIDES or not whole or not (0 <= position < 10**6 and 1 <= views < 10**6):
        abort(400, "Invalid answer.")
    if not all(0 <= number < 1e9 for number in numbers.values()):  # also refuses NaN
        abort(400, "Invalid answer.")
    return {"position": position, "side": side, "views": views, **numbers}


def is_public(host: str) -> bool:
    """True if other machines can reach a server that listens on this address."""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


def serve(folder: Path, config: ServeConfig, *, closed: bool, proxy: str, say: Callable[[str], None]) -> None:
    """Serve a study until Ctrl-C.

    proxy: address whose X-Forwarded-For and X-Forwarded-Proto are trusted, or empty. say: called with lines for the
    user. Raises BadInput if the port cannot be used.
    """
    from waitress.server import create_server

    store = Store(folder)
    app = create_app(store, config, closed=closed)
    trusted = {"trusted_proxy": proxy, "trusted_proxy_headers": "x-forwarded-for x-forwarded-proto"} if proxy else {}
    try:
        server = create_server(
            app,
            host=config.host,
            port=config.port,
            threads=config.threads,
            ident=None,
            max_request_body_size=config.body * 4,  # Flask refuses more than config.body with a message
            max_request_header_size=config.header,
            connection_limit=1000,
            channel_timeout=60,
            clear_untrusted_proxy_headers=True,
            **trusted,
        )
    except OSError as error:
        raise BadInput(
            f"cannot listen on {config.host}:{config.port}: {error.strerror or error}; choose another --port"
        ) from None
    address = f"http://{config.host}:{server.effective_port}"
    if is_public(config.host) and not proxy:
        say(f"WARNING: {config.host} can be reached from other machines without encryption: others can read links and")
        say("answers. Put an HTTPS proxy in front of this server, and give its address as --proxy.")
    say(f"raters:  {address}/" + ("  (closed: personal links only)" if closed else ""))
    say(f"admin:   {address}/admin/{store.admin}")
    say("Ctrl-C stops the server; no answer is lost, and the same command resumes.")
    server.run()
