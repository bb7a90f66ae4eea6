"""Signing in and out, sessions, roles, forged forms, and the headers of every answer."""

import re
import time

import pytest
from sqlalchemy.exc import OperationalError

from components.contracts.settings import Settings
from components.control.tables import SessionRow
from components.control.tokens import Tokens
from serving.admin.app import create_app
from serving.admin.console.web import CONTENT_SECURITY
from tests.serving.admin.conftest import SyncTransport, W
from tests.serving.admin.console.conftest import BASE, Person

PAGES = ("/console/", f"/console/w/{W}")


def cookie(person):
    return person.cookies["cohobate_console"]


@pytest.mark.parametrize("page", PAGES)
def test_strangers_are_sent_to_the_sign_in_and_back_after_it(person, tokens, page):
    stranger = person()
    sent = stranger.get(page, follow_redirects=False)
    assert (sent.status_code, sent.headers["location"]) == (303, f"/console/sign-in?next={page}")
    fields = stranger.form(sent.headers["location"])
    done = stranger.post("/console/sign-in", data={**fields, "token": tokens["viewer"]}, follow_redirects=False)
    assert (done.status_code, done.headers["location"]) == (303, page)
    assert stranger.get(page).status_code == 200


def test_the_console_is_found_without_a_slash(person):
    assert person("viewer").get("/console").url.path == "/console/"


@pytest.mark.parametrize(
    "place", ["https://evil.example/", "//evil.example", "/v1/me", "/console/../v1", "\\\\evil", ""]
)
def test_the_sign_in_goes_on_to_pages_of_the_console_alone(person, tokens, place):
    done = person().post("/console/sign-in", data={"next": place, "token": tokens["viewer"]}, follow_redirects=False)
    assert done.headers["location"] == "/console/"


def test_the_cookie_is_kept_from_scripts_and_other_sites_and_the_secret_is_nowhere(person, tokens, control):
    for base, secure in ((BASE, False), ("https://console.example", True)):
        sent = person(base=base).post("/console/sign-in", data={"token": tokens["viewer"]}, follow_redirects=False)
        parts = {part.strip().lower() for part in sent.headers["set-cookie"].split(";")[1:]}
        assert {"httponly", "samesite=strict", "path=/console"} <= parts and ("secure" in parts) is secure
        secret = re.search(r"cohobate_console=([^;]+)", sent.headers["set-cookie"])[1]
        with control.session() as s:
            assert secret not in str([vars(row) for row in s.query(SessionRow)])


def test_a_wrong_token_is_told_recorded_and_limited(person, ledger):
    stranger = person(address="10.0.0.9")
    seen = [stranger.post("/console/sign-in", data={"token": "guess"}).status_code for _ in range(12)]
    assert seen == [401] * 10 + [429] * 2
    assert "is no token of this platform" in stranger.post("/console/sign-in", data={"token": "guess"}).text
    assert {(e[1], e[2]) for e in ledger()} == {("unauthenticated", "refused post")}


def test_signing_in_and_out_is_recorded_and_out_is_out(person, ledger):
    viewer = person("viewer")
    secret, csrf = cookie(viewer), viewer.csrf()
    assert viewer.post("/console/sign-out", data={"csrf": csrf}).url.path == "/console/sign-in"
    viewer.cookies.set("cohobate_console", secret)
    assert viewer.get("/console/", follow_redirects=False).status_code == 303
    assert [e[1:3] for e in ledger()] == [("viewer-eve", "sign in"), ("viewer-eve", "sign out")]


def test_a_session_ends_after_a_night_and_with_its_token(person, control, tokens):
    operator, viewer = person("operator"), person("viewer")
    Tokens(control).revoke(tokens["viewer"].split("_")[1])
    assert viewer.get("/console/", follow_redirects=False).status_code == 303
    _, short = Tokens(control).create("brief", "viewer", "test", days=0.25)
    brief = person(token=short)
    now = time.time()
    control.clock = lambda: now + 0.25 * 86_400 + 1
    assert brief.get("/console/", follow_redirects=False).status_code == 303
    assert operator.get("/console/").status_code == 200
    control.clock = lambda: now + 12 * 3_600 + 1
    assert operator.get("/console/", follow_redirects=False).status_code == 303


def test_a_session_outlives_a_restart_of_the_admin_api(person, settings, control):
    operator = person("operator")
    anew = Person(base_url=BASE, transport=SyncTransport(create_app(settings, store=control)), cookies=operator.cookies)
    with anew:
        assert anew.get("/console/").status_code == 200


def test_scripts_whose_session_has_ended_are_told_so(person):
    stranger = person()
    for page, headers in (
        ("/console/session", {}), ("/console/events/overview", {"Accept": "text/event-stream"}),
        (f"/console/w/{W}/order/pause", {"HX-Request": "true"}),
    ):  # fmt: skip
        assert stranger.get(page, headers=headers).status_code == 401


def test_the_cookie_opens_no_api_and_a_token_no_page(person, client):
    operator = person("operator")
    assert operator.get("/v1/me").status_code == 401
    assert client("operator").get("/console/", follow_redirects=False).status_code == 303


def test_a_form_from_elsewhere_orders_nothing(person, control, ledger):
    operator = person("operator")
    page = f"/console/w/{W}/order/rollback"
    good = {**operator.form(page), "reason": "r"}
    stranger = person("admin").csrf()
    for fields, headers in (
        ({"csrf": ""}, {}), ({"csrf": "0" * 64}, {}), ({"csrf": stranger}, {}),
        ({}, {"Origin": "https://evil.example"}), ({}, {"Sec-Fetch-Site": "cross-site"}), ({}, {"Origin": "null"}),
        ({}, {"Sec-Fetch-Site": "same-site"}),
    ):  # fmt: skip
        assert operator.post(page, data={**good, **fields}, headers=headers).status_code == 403
    assert operator.post(page, json=good).status_code == 422
    assert operator.get(page, params=good).status_code == 200
    assert control.open_orders(W) == []
    assert [e[2] for e in ledger() if e[2].startswith("refused")] == ["refused rollback"] * 8
    for headers in ({}, {"Origin": BASE}, {"Sec-Fetch-Site": "same-origin"}):
        assert operator.post(page, data={**good, "key": str(headers)[:9].strip("{}' :") or "k"}, headers=headers)
    assert len(control.open_orders(W)) == 1


def test_another_sites_page_signs_nobody_in(person, tokens):
    sent = person().post(
        "/console/sign-in", data={"token": tokens["viewer"]}, headers={"Origin": "https://evil.example"}
    )
    assert sent.status_code == 403 and "set-cookie" not in sent.headers


def test_every_answer_shuts_others_out(person, client):
    operator = person("operator")
    answers = [operator.get(p) for p in (*PAGES, "/console/none", "/console/sign-in", "/console/static/console.js")]
    answers.append(operator.get(f"/console/w/{W}/order/nothing"))
    answers.append(person().get("/console/", follow_redirects=False))
    for answer in answers:
        assert answer.headers["content-security-policy"] == CONTENT_SECURITY
        assert "unsafe" not in CONTENT_SECURITY and "frame-ancestors 'none'" in CONTENT_SECURITY
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
    for page in PAGES:
        assert operator.get(page).headers["cache-control"] == "no-store"


def test_pages_hold_nothing_inline_and_nothing_from_elsewhere(person):
    for page in (*PAGES, f"/console/w/{W}/order/rollback"):
        text = person("operator").get(page).text
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", text)
        for url in re.findall(r'(?:src|href|action|hx-get)="([^"]*)"', text):
            assert url.startswith(("/console", "#")), url


def test_while_the_database_is_away_a_page_says_so(person, control, monkeypatch, client):
    operator = person("operator")

    def away(*_):
        raise OperationalError("SELECT", {}, Exception("gone"))

    monkeypatch.setattr(control, "session", away)
    for page in PAGES:
        answer = operator.get(page)
        assert answer.status_code == 503 and "the control database does not answer" in answer.text
    assert client("operator").get("/v1/me").status_code == 503
    assert operator.post("/console/sign-in", data={"token": "cohobate_" + "0" * 12 + "_" + "A" * 43}).status_code == 503


def test_where_authentication_is_off_this_machine_alone_gets_in(tmp_path, control):
    app = create_app(Settings(home=tmp_path, admin_auth="off"), store=control)

    def ask(address, base=BASE):
        with Person(base_url=base, transport=SyncTransport(app, (address, 1)), follow_redirects=True) as one:
            done = one.post("/console/sign-in", data={"token": ""})
            return done.status_code, one.get("/console/").text

    status, text = ask("127.0.0.1")
    assert status == 200 and "anonymous (admin)" in text
    assert ask("10.0.0.1")[0] == 403 and ask("127.0.0.1", "http://rebound.example")[0] == 403


def test_a_session_of_when_authentication_was_off_is_none_when_it_is_on(tmp_path, control, person):
    app = create_app(Settings(home=tmp_path, admin_auth="off"), store=control)
    with Person(base_url=BASE, transport=SyncTransport(app)) as one:
        one.post("/console/sign-in", data={"token": ""})
        secret = cookie(one)
    stranger = person()
    stranger.cookies.set("cohobate_console", secret)
    assert stranger.get("/console/", follow_redirects=False).status_code == 303
