"""The console in a real browser, over an admin API that serves a controller, replicas and traffic of this process."""

import contextlib
import threading
import time

import argon2
import numpy as np
import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect
from sqlalchemy import delete, select
from sqlalchemy.exc import OperationalError

from components.contracts.records import Input, label_key
from components.contracts.settings import Settings
from components.contracts.storage import put_bytes
from components.control import looks, tokens
from components.control.looks import Distance
from components.control.tables import LeaderRow, ReviewRow, RunRow, SessionRow
from components.control.tokens import Tokens
from components.review import reviews
from components.teachers.contract import Deferred, Question
from drift.evidently_report import write
from infra.console_pipelines import LocalPipelines
from serving.admin.app import create_app
from serving.admin.console import live
from serving.admin.server import served
from tests.clock import Clock
from tests.ports import free_port
from tests.serving.conftest import broker, model, registry, signs, spec  # noqa: F401 - fixtures
from tests.serving.control.test_controller import Platform

pytestmark = pytest.mark.integration

W = "signs"
PATIENCE = 60_000
"""Milliseconds that a page may take on a busy machine; it is not waited for longer than needed."""

expect.set_options(timeout=PATIENCE)


@pytest.fixture
def clock():
    return Clock(time.time())


class Running:
    """A platform whose orders are carried out as they come, behind an admin API with a browser in front of it."""

    def __init__(self, platform, settings, chromium):
        self.platform, self.store, self.settings, self.chromium = platform, platform.store, settings, chromium
        self.lock, self.stop = threading.Lock(), threading.Event()
        self.opened, self.requests, self.dialogs = contextlib.ExitStack(), [], []
        self.tokens = {r: Tokens(self.store).create(f"{r}-eve", r, "test")[1] for r in ("viewer", "operator", "admin")}
        with self.store.transaction() as s:
            s.add(LeaderRow(name=f"controller/{W}", holder="me", beats=1, at=self.store.clock() + 1e6))
        self.thread = threading.Thread(target=self._work)
        self.thread.start()
        self.serve()

    def serve(self):
        self.server = contextlib.ExitStack()
        self.app = create_app(
            self.settings, store=self.store, registry=self.platform.registry, pipelines=LocalPipelines(self.settings),
            broker=lambda: self.platform.broker,
        )  # fmt: skip
        self.base = self.server.enter_context(served(self.app, self.settings))

    def _work(self):
        while not self.stop.wait(0.01):
            with self.lock, contextlib.suppress(OperationalError):
                if self.store.open_orders(W):
                    self.platform.tick(0.0)

    def do(self, what):
        with self.lock:
            return what(self.platform)

    def visit(self, role="operator", page=f"/w/{W}", **options):
        """A page of somebody with a browser of their own, signed in."""
        context = self.chromium.new_context(base_url=self.base, **options)
        context.set_default_timeout(PATIENCE)
        self.opened.callback(context.close)
        context.on("request", lambda request: self.requests.append(request.url))
        tab = context.new_page()
        tab.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        tab.on("pageerror", lambda error: self.dialogs.append(str(error)))
        tab.on("console", lambda said: self.dialogs.append(said.text) if "Content Security" in said.text else None)
        tab.goto(f"/console{page}")
        tab.get_by_label("Token", exact=True).fill(self.tokens[role])
        tab.get_by_role("button", name="Sign in").click()
        expect(tab.get_by_role("button", name="Sign out")).to_be_visible()
        return tab

    def close(self):
        self.opened.close()
        self.server.close()
        self.stop.set()
        self.thread.join()


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch):
    """Argon2id at its least cost: three tokens and each sign-in would be most of a test's time."""
    monkeypatch.setattr(tokens, "HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
def running(spec, store, broker, registry, clock, model, signs, tmp_path, chromium):  # noqa: F811
    settings = Settings(
        home=tmp_path, admin_port=free_port(), admin_oidc_issuer="https://id.example", admin_oidc_client_id="console",
        admin_oidc_audience="cohobate", admin_oidc_jwks_url="https://id.example/jwks",
    )  # fmt: skip
    platform = Platform(spec, store, broker, registry, clock, model, signs, f"file://{tmp_path}/artifacts")
    platform.crown("1")
    made = Running(platform, settings, chromium)
    yield made
    made.close()
    assert all(url.startswith(f"{made.base}/console") for url in made.requests), "a request left the origin"
    assert made.dialogs == []


def start(running, version="2"):
    running.do(lambda p: p.registry.set_alias(W, "candidate", p.model(version).version))
    running.do(lambda p: p.tick())


def canary(running):
    start(running)
    running.do(lambda p: p.go(lambda: p.state["phase"] == "canary"))


def state(tab):
    return tab.locator("#summary .state")


def ready(tab):
    """Wait until the page's scripts work: what is pressed before is a plain link."""
    expect(tab.locator("html[data-ready]")).to_have_count(1)


def press(tab, verb, reason):
    ready(tab)
    tab.get_by_role("link", name=verb, exact=True).click()
    dialog = tab.get_by_role("dialog")
    expect(dialog).to_be_visible()
    dialog.get_by_label("Reason").fill(reason)
    dialog.get_by_role("button", name=verb).click()


def test_somebody_signs_in_watches_a_canary_advance_and_takes_it_back(running):
    tab = running.visit(page="/")
    row = tab.locator(f"#row-{W}")
    expect(row).to_contain_text("serving")
    start(running)
    expect(row).to_contain_text("shadow")
    row.get_by_role("link", name=W).click()
    for phase, step in (("shadow", "shadow"), ("canary 20 %", "20 %"), ("canary 50 %", "50 %")):
        expect(state(tab)).to_have_text(phase)
        expect(tab.locator("[aria-current=step] b")).to_have_text(step)
        if phase != "canary 50 %":
            before = running.platform.state["step"]
            running.do(lambda p, before=before: p.go(lambda: p.state["step"] > before))
    expect(tab.locator("#charts svg")).to_have_count(4)
    expect(tab.locator("#verbs a").first).to_have_text("Roll back")
    ready(tab)
    tab.get_by_role("link", name="Roll back", exact=True).click()
    dialog = tab.get_by_role("dialog")
    expect(dialog).to_contain_text("The candidate v2 is taken back at once")
    expect(dialog.get_by_label("Reason")).to_be_focused()
    tab.keyboard.type("bad answers, ticket 123")
    tab.keyboard.press("Enter")
    order = tab.locator("#order")
    expect(order).to_contain_text("rollback: done")
    expect(order).to_contain_text("operator-eve")
    expect(order.get_by_role("row", name="r1")).to_contain_text("ms")
    expect(order).to_contain_text("bad answers, ticket 123")
    expect(state(tab)).to_have_text("rolled back")
    assert running.platform.intent.candidate is None
    tab.get_by_role("link", name="Overview").click()
    expect(tab.locator(f"#row-{W}")).to_contain_text("rolled back")


def test_what_was_decided_is_shown_when_it_is_and_not_when_pages_are_made_anew(running, monkeypatch):
    monkeypatch.setattr(live, "SECONDS", 3_600.0)
    canary(running)
    acting, watching = running.visit(), running.visit("viewer")
    expect(state(watching)).to_have_text("canary 20 %")
    press(acting, "Roll back", "bad answers")
    expect(state(watching)).to_have_text("rolled back")


def test_of_two_people_at_once_the_second_is_told_and_sees_the_new_state(running):
    canary(running)
    first, second = running.visit("operator"), running.visit("admin")
    ready(second)
    second.get_by_role("link", name="Pause").click()
    second.get_by_role("dialog").get_by_label("Reason").fill("let me look")
    press(first, "Roll back", "bad answers")
    expect(first.locator("#order")).to_contain_text("rollback: done")
    expect(state(second)).to_have_text("rolled back")
    with second.expect_response(lambda r: r.request.method == "POST") as answer:
        second.get_by_role("dialog").get_by_role("button", name="Pause").click()
    assert answer.value.status == 409
    expect(second.get_by_role("alert").first).to_contain_text("decided since you looked")
    expect(second.locator("main")).to_contain_text("This is how it is now: rolled back, bad answers")
    expect(second.get_by_label("Reason")).to_have_value("let me look")


def test_a_viewer_sees_everything_and_no_buttons(running):
    canary(running)
    tab = running.visit("viewer")
    expect(state(tab)).to_have_text("canary 20 %")
    expect(tab.locator("#verbs a")).to_have_count(0)
    assert tab.get_by_role("button").all_inner_texts() == ["Sign out"]
    tab.get_by_role("button", name="Sign out").click()
    expect(tab.get_by_role("heading", name="Sign in")).to_be_visible()


def test_an_open_page_says_that_its_session_has_ended(running, monkeypatch):
    monkeypatch.setattr(live, "CHECK_SECONDS", 0.1)
    tab = running.visit()
    expect(state(tab)).to_have_text("serving")
    with running.store.transaction() as s:
        s.execute(delete(SessionRow))
    expect(tab.locator("#connection")).to_contain_text("Your session has ended")
    tab.get_by_role("link", name="Sign in again").click()
    tab.get_by_label("Token", exact=True).fill(running.tokens["operator"])
    tab.get_by_role("button", name="Sign in").click()
    expect(state(tab)).to_have_text("serving")


def away(*_):
    """A session of a control database that does not answer."""
    raise OperationalError("SELECT", {}, Exception("gone"))


def test_an_open_page_says_that_the_database_is_away_and_that_it_is_back(running, monkeypatch):
    tab = running.visit()
    expect(state(tab)).to_have_text("serving")
    with monkeypatch.context() as patch:
        patch.setattr(running.store, "session", away)
        expect(tab.locator("#connection")).to_contain_text("The control database does not answer")
    expect(tab.locator("#connection")).to_be_hidden()
    start(running)
    expect(state(tab)).to_have_text("shadow")


def test_a_page_that_connects_while_the_database_is_away_says_so(running, monkeypatch):
    tab = running.visit()
    tab.route("**/console/events/**", lambda route: route.abort())
    tab.reload()
    expect(tab.locator("#connection")).to_contain_text("The connection is lost")
    with monkeypatch.context() as patch:
        patch.setattr(running.store, "session", away)
        expect(tab.locator("#connection")).to_contain_text("The control database does not answer")
    tab.unroute("**/console/events/**")
    expect(tab.locator("#connection")).to_be_hidden()


def test_an_open_page_goes_on_when_the_admin_api_was_restarted(running):
    tab = running.visit()
    expect(state(tab)).to_have_text("serving")
    running.server.close()
    expect(tab.locator("#connection")).to_contain_text("The connection is lost")
    running.serve()
    expect(tab.locator("#connection")).to_be_hidden()
    canary(running)
    expect(state(tab)).to_have_text("canary 20 %")
    press(tab, "Roll back", "after the restart")
    expect(tab.locator("#order")).to_contain_text("rollback: done")


def test_markup_in_names_and_reasons_is_shown_and_not_run(running):
    canary(running)
    markup = "<img src=x onerror=alert(1)>"
    running.store.raise_alarm(W, "drift", 1, {"drifted": [markup], "champion": "1"})
    tab = running.visit()
    expect(tab.locator("#watch")).to_contain_text(markup)
    press(tab, "Pause", markup)
    expect(tab.locator("#order")).to_contain_text(markup)
    expect(tab.locator("#summary")).to_contain_text(markup)
    assert tab.locator("img").count() == 0


def test_a_runs_log_grows_on_the_page_until_it_has_ended(running):
    with running.store.transaction() as s:
        s.add(RunRow(id=f"{W}-1", workload=W, pipeline="continual", reason="r", actor="eve", status="running",
                     started_at=running.store.clock(), detail={}))  # fmt: skip
    log = running.settings.home / "logs" / f"{W}-1-continual.log"
    log.parent.mkdir()
    log.write_text("snapshot\n")
    tab = running.visit(page=f"/w/{W}/runs/{W}-1")
    shown = tab.locator("pre.log")
    expect(shown).to_contain_text("snapshot")
    log.write_text("snapshot\ndistilling\n")
    expect(shown).to_contain_text("distilling")
    running.store.finish_run(f"{W}-1", "succeeded", {})
    expect(tab.locator("#run")).to_contain_text("continual: succeeded")
    assert tab.locator("[hx-trigger]").count() == 0


def ask(running, *texts):
    for number, text in enumerate(texts):
        entry = Input(workload=W, id=f"i{number}", key="k", time=1.0, payload=text.encode())
        question = Question(label_key(entry, "sign@1", "signs@1"), entry, Deferred("unsure"))
        running.platform.clock.now += 1
        reviews.ask(running.store, W, "sign@1", "signs@1", ("neg", "pos"), [question])


def test_questions_are_answered_with_the_keyboard_alone(running):
    ask(running, "first", "second")
    tab = running.visit(page="/inbox")
    tab.get_by_role("region", name="Questions").get_by_role("link", name=W).focus()
    tab.keyboard.press("Enter")
    for text, key in (("first", "2"), ("second", "1")):
        expect(tab.locator("pre")).to_have_text(text)
        ready(tab)
        tab.keyboard.press(key)
    expect(tab.locator("main")).to_contain_text("None waits")
    with running.store.session() as s:
        rows = s.scalars(select(ReviewRow).order_by(ReviewRow.asked_at)).all()
    assert [max(row.answer["distribution"], key=row.answer["distribution"].get) for row in rows] == ["pos", "neg"]
    assert {row.annotator for row in rows} == {"operator-eve"}


def reported(running):
    """Version 1 has the reports of its window."""
    info = running.platform.registry.info(W, "1")
    folder = f"{running.settings.artifacts}/{W}/reports/{info.ref.digest}-{info.snapshots[0][:12]}"
    chance = np.random.default_rng(0)
    before, now = (pd.DataFrame({"size": chance.normal(shift, 1.0, 100)}) for shift in (0.0, 1.0))
    report = write(before, now, running.settings.home / "reports", "drift", None)
    put_bytes(f"{folder}/drift.html", report.html.read_bytes())


def test_the_drift_report_unpacks_itself_in_the_console(running):
    reported(running)
    tab = running.visit(page=f"/w/{W}/versions/1/drift")
    report = tab.frame_locator("iframe")
    expect(report.get_by_text("Dataset Drift is detected")).to_be_visible()
    report.get_by_text("size", exact=True).first.click()
    assert report.locator(".material-icons").count() == 0
    running.dialogs[:] = [said for said in running.dialogs if "frame-ancestors" not in said]


LOOKS = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "has_touch": True},
}


@pytest.mark.parametrize("look", LOOKS)
def test_no_page_has_an_accessibility_violation_that_axe_finds(running, look):
    canary(running)
    running.store.raise_alarm(W, "drift", 1, {"drifted": ["size"], "champion": "1"})
    ask(running, "what is it?")
    running.store.put_gauge(W, "drift", {"outcome": "drift", "column": "size", "statistic": 0.3, "threshold": 0.1})
    for index in range(3):
        running.platform.clock.now += 1
        near = [Distance(column=f"c{i}", value=0.1 * i * index, threshold=0.4, drifted=i == 5) for i in range(6)]
        looks.add(running.store, W, index, {"drift": near})
    tab = running.visit(page="/", **LOOKS[look])
    for page in pages(running):
        tab.goto(f"/console{page}")
        expect(tab.locator("h1")).to_be_visible()
        found = Axe().run(tab, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]})
        assert found.violations_count == 0, f"{page}: {found.generate_report()}"
        wide = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{page} is wider than the screen by {wide} px"
        rows = tab.locator("table:not(.workloads) tbody tr")
        tall = rows.evaluate_all("found => Math.max(0, ...found.map((row) => row.offsetHeight))")
        assert tall < 300, f"{page} has a row of {tall} px: a column is squeezed"
    tab.goto(f"/console/w/{W}")
    ready(tab)
    tab.get_by_role("link", name="Roll back", exact=True).click()
    expect(tab.get_by_role("dialog")).to_be_visible()
    found = Axe().run(tab, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]})
    assert found.violations_count == 0, found.generate_report()


def pages(running):
    of_workload = (
        "",
        "/order/rollback",
        "/versions",
        "/versions/1",
        "/compare?a=1&b=2",
        "/runs",
        "/questions",
        "/letters",
    )
    return [
        "/",
        "/none",
        "/sign-in",
        "/runs",
        "/inbox",
        "/ledger",
        "/ledger/verify",
        "/savings",
        *(f"/w/{W}{page}" for page in of_workload),
    ]
