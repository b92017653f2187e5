"""The web app that asks people: Flask, plain pages, one SQLite file.

A rater is known by a link that cannot be guessed and by nothing else. No part of an address is ever used as a path:
pictures are found by the rater's own trial number.
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
from evaluation.study.store import SIDES, Store, Taken
from maskgen.errors import BadInput

COOKIE = "visit"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",  # the address of a page is the key to it
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "X-Robots-Tag": "noindex, nofollow",
    "Cache-Control": "no-store",
}
LINK = r"[A-Za-z0-9_-]{32}"
COMPLETE = "https://app.prolific.com/submissions/complete?cc="


class Buckets:
    """Requests per key that are let through: `burst` at once, then `rate` a second."""

    def __init__(self, burst: int, rate: float, clock: Callable[[], float] = time.monotonic):
        self.burst, self.rate, self.clock = burst, rate, clock
        self.lock, self.levels = threading.Lock(), {}

    def take(self, key: str) -> bool:
        """Whether one more request of this key may pass."""
        now = self.clock()
        with self.lock:
            if len(self.levels) > 10_000:  # forget who has been quiet for long enough to be full again
                full = self.burst / self.rate
                self.levels = {k: level for k, level in self.levels.items() if now - level[1] < full}
            level, then = self.levels.get(key, (self.burst, now))
            level = min(self.burst, level + (now - then) * self.rate)
            self.levels[key] = level - (level >= 1), now
        return level >= 1


def create_app(
    store: Store, config: ServeConfig, *, closed: bool = False, clock: Callable[[], float] = time.monotonic
) -> Flask:
    """The app of one study.

    closed: only links that were made by `export` may take part. clock: seconds, by which requests are limited.
    """
    app = Flask(__name__)
    app.config.update(MAX_CONTENT_LENGTH=config.body, MAX_FORM_PARTS=10)
    app.json.sort_keys = False
    per_rater = Buckets(config.burst, config.rate, clock)
    joins = Buckets(config.join_burst, config.join_rate, clock)
    misses = Buckets(config.miss_burst, config.miss_rate, clock)

    def cookie():
        found = request.cookies.get(COOKIE, "")
        return found if re.fullmatch(LINK, found) else ""

    def page(name, **told):
        """A page that carries the CSRF token of this browser's cookie."""
        visit = cookie() or secrets.token_urlsafe(24)
        told = {"title": store.settings["title"], "csrf": store.signed("csrf", visit), **told}
        answer = Response(render_template(name, **told))
        if visit != cookie():
            answer.set_cookie(COOKIE, visit, httponly=True, samesite="Strict", secure=request.is_secure)
        return answer

    def check_csrf():
        came = request.headers.get("X-Study-Token") or request.form.get("csrf", "")
        same = hmac.compare_digest(came.encode(), store.signed("csrf", cookie()).encode())
        if not cookie() or not same or request.headers.get("Sec-Fetch-Site") == "cross-site":
            abort(403, "This page is too old. Please load it again.")

    def known(link):
        """The rater of a link, or a refusal that tells nothing."""
        rater = store.rater(link) if re.fullmatch(LINK, link) else None
        if rater is None:
            if not misses.take(request.remote_addr):
                abort(429)
            abort(404)
        if not per_rater.take(link):
            abort(429)
        return rater

    def consent_text():
        per = store.settings["per_rater"] + store.settings["catches"]
        limited = "limited" in store.settings["parts"]
        return {
            "trials": per,
            "minutes": max(1, round(per * 6 / 60)),
            "limited": limited,
            "own": store.settings["consent"],
            "contact": store.settings["contact"],
        }

    def person():
        came = request.values.get("PROLIFIC_PID", "")
        return came if re.fullmatch(r"[A-Za-z0-9]{1,64}", came) else ""

    def upcoming(rater):
        answered, total = store.progress(rater["rater"])
        ahead = [
            {"n": row["position"], "practice": row["kind"] == "practice", "exposure": row["exposure"]}
            for row in store.ahead(rater["rater"])
        ]
        return {"answered": answered, "total": total, "ahead": ahead}

    @app.after_request
    def harden(answer):
        for name, value in HEADERS.items():
            answer.headers.setdefault(name, value)
        if request.is_secure:
            answer.headers["Strict-Transport-Security"] = "max-age=31536000"
        if answer.status_code == 429:
            answer.headers["Retry-After"] = "2"
        return answer

    @app.errorhandler(HTTPException)
    def failed(error):
        words = {404: "There is no such page. Is the link complete?", 429: "Too many requests. Please wait a moment."}
        said = words.get(error.code, error.description)
        if request.path.endswith(("/answer", "/state")):
            return jsonify(error=said), error.code
        return Response(render_template("message.html", title="Sorry", said=said)), error.code

    @app.get("/")
    def welcome():
        if closed:
            return page("message.html", said="Please use the personal link that you were given.")
        return page("consent.html", action=url_for("join"), **consent_text())

    @app.post("/join")
    def join():
        check_csrf()
        if closed:
            abort(403, "Please use the personal link that you were given.")
        if request.form.get("consent") != "yes":
            abort(400, "Please tick the box if you want to take part.")
        if not joins.take(request.remote_addr):
            abort(429)
        link = store.invite()
        return begun(store.rater(link), link)

    def begun(rater, link):
        try:
            dealt = store.begin(rater["rater"], person())
        except Taken:
            abort(403, "You have begun already. Please use the link that you got first.")
        if not dealt:
            return page("message.html", said="All answers are in already. Thank you for your help!")
        return redirect(url_for("session", link=link), 303)

    @app.get("/r/<link>")
    def session(link):
        rater = known(link)
        if rater["joined"] is None:
            return page("consent.html", action=url_for("consent", link=link), person=person(), **consent_text())
        if not store.ahead(rater["rater"], 1):
            return redirect(url_for("thanks", link=link), 303)
        return page("session.html", base=url_for("session", link=link), limited="limited" in store.settings["parts"])

    @app.post("/r/<link>/consent")
    def consent(link):
        rater = known(link)
        check_csrf()
        if request.form.get("consent") != "yes":
            abort(400, "Please tick the box if you want to take part.")
        return begun(rater, link)

    @app.get("/r/<link>/state")
    def state(link):
        return jsonify(upcoming(known(link)))

    @app.get("/r/<link>/<int:n>/<any(left, right):side>")
    def picture(link, n, side):
        for row in store.ahead(known(link)["rater"]):  # not further, so that nobody can study what comes later
            if row["position"] == n:
                return Response(store.picture(row[side]).read_bytes(), mimetype="image/jpeg")
        return abort(404)

    @app.post("/r/<link>/answer")
    def answer(link):
        rater = known(link)
        check_csrf()
        came = request.get_json()
        told = _checked(came)
        said = store.answer(rater["rater"], **told)
        if said is None:
            abort(404)
        return jsonify(said=said, **upcoming(rater))

    @app.get("/r/<link>/thanks")
    def thanks(link):
        rater = known(link)
        if rater["joined"] is None or store.ahead(rater["rater"], 1):
            return redirect(url_for("session", link=link), 303)
        code = store.settings.get("completion", "") if rater["source"] == "prolific" else ""
        return page("thanks.html", code=code, complete=COMPLETE, answered=store.progress(rater["rater"])[0])

    def admin_only(token):
        if not hmac.compare_digest(token.encode(), store.admin.encode()):
            if not misses.take(request.remote_addr):
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


def _checked(came) -> dict:
    """An answer from the network, or 400: every field of the right type and within sense."""
    try:
        side = came["side"]
        numbers = {name: float(came[name]) for name in ("shown_ms", "answer_ms", "width")}
        position, views = came["n"], came["views"]
    except (TypeError, KeyError, ValueError):
        abort(400, "This is no answer.")
    whole = all(type(number) is int for number in (position, views))
    if side not in SIDES or not whole or not (0 <= position < 10**6 and 1 <= views < 10**6):
        abort(400, "This is no answer.")
    if not all(0 <= number < 1e9 for number in numbers.values()):  # refuses NaN, too
        abort(400, "This is no answer.")
    return {"position": position, "side": side, "views": views, **numbers}


def is_public(host: str) -> bool:
    """Whether other machines can reach a server that listens there."""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


def serve(folder: Path, config: ServeConfig, *, closed: bool, proxy: str, say: Callable[[str], None]) -> None:
    """Serve a study until Ctrl-C. proxy: address whose X-Forwarded-For and -Proto are believed, or empty.

    say: called with every line that the user should read.
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
            max_request_body_size=config.body * 4,  # Flask refuses from config.body on, with words
            max_request_header_size=config.header,
            connection_limit=1000,
            channel_timeout=60,
            clear_untrusted_proxy_headers=True,
            **trusted,
        )
    except OSError as error:
        raise BadInput(
            f"cannot listen on {config.host}:{config.port}: {error.strerror or error}; choose --port"
        ) from None
    where = f"http://{config.host}:{server.effective_port}"
    if is_public(config.host) and not proxy:
        say(f"WARNING: {config.host} can be reached from other machines, and nothing is encrypted: personal links and")
        say("answers can be read on the way. Put a server with HTTPS before this one, and give its address as --proxy.")
    say(f"raters:  {where}/" + ("  (closed: personal links only)" if closed else ""))
    say(f"admin:   {where}/admin/{store.admin}")
    say("Ctrl-C stops; every answer is on the disk, and the same command goes on.")
    server.run()
