"""The console of a platform that ``cohobate up`` started, in a real browser: the gateway, the controller and all else.

People sign in at an OpenID Connect provider of this process, which the browser is sent to and comes back from.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import httpx
import msgspec
import psutil
import pytest
from playwright.sync_api import expect

from components.contracts.settings import Settings
from components.contracts.spec import load_spec
from components.contracts.storage import digest_of, put_bytes
from components.control.order_client import LocalOrderClient
from components.control.store import ControlStore
from components.control.tokens import Tokens
from components.registry.registry import Registry
from components.student.runtime import Student
from serving.admin.server import Address
from tests.oidc_provider import provider, settings_of
from tests.ports import free_port, free_ports
from tests.serving.conftest import TEACHER_FILE, artifact
from tests.stores import registering

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]

W = "signs"
SPEC = """
name: signs
teacher: {factory: "teacher.py:SignTeacher"}
payload: {decoder: json, max_bytes: 200}
features: {factory: "components.student.table:TableColumns", options: {columns: [{name: x}]}}
rollout:
  steps:
    - {weight: 0.2, min_requests: 30, min_candidate: 3}
    - {weight: 0.5, min_requests: 1000000}
  slow_ms: 600000
  patience_seconds: 86400
serve: {replicas: 1, audit_share: 0.0}
"""
PATIENCE = 120_000
"""Milliseconds that a page may take on a busy machine; it is not waited for longer than needed."""

expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def issuer():
    with provider() as made:
        yield made


@pytest.fixture(scope="module")
def platform(tmp_path_factory, issuer):
    """A platform with two versions registered, of which the first is champion."""
    folder = tmp_path_factory.mktemp("console")
    (folder / "teacher.py").write_text(TEACHER_FILE)
    (folder / "signs.yaml").write_text(SPEC)
    settings = Settings(
        home=folder / "home", gateway_port=free_ports(6)[0], broker_port=free_port(), admin_port=free_port(),
        **settings_of(issuer),
    )  # fmt: skip
    registering(settings)
    spec, store, registry = load_spec(folder / "signs.yaml"), ControlStore(settings.control_url), Registry(settings)
    store.migrate()
    for version in ("1", "2"):
        data = artifact(space=f"signs@{version}")
        put_bytes(uri := (folder / f"v{version}.onnx").as_uri(), data)
        registry.register(
            spec, uri, digest_of(data), Student.load(data).card, verdict={"decision": "promote"}, metrics={}, params={}
        )
    registry.set_alias(W, "candidate", "1")
    env = {**os.environ, **settings.environment(), "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-m", "infra.cli"]
    subprocess.run([*command, "up", "--spec", spec.source], env=env, check=True, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: store.intent(W)[1].champion is not None, "a champion")
        token = Tokens(store).create("grace", "admin", "test")[1]
        yield SimpleNamespace(settings=settings, store=store, token=token, issuer=issuer)
    finally:
        subprocess.run([*command, "down"], env=env, check=True, stdout=subprocess.DEVNULL)
        store.close()


def wait_for(condition, what, seconds=300.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def ask(platform, count):
    """So many answers of the gateway, each for a key of its own."""
    url = f"http://127.0.0.1:{platform.settings.gateway_port}/{W}/v1/predict"
    with httpx.Client(timeout=60.0) as client:
        for number in range(count):
            body = {"key": f"k{time.monotonic_ns()}-{number}", "json": {"x": 1.0}}
            assert client.post(url, json=body).status_code == 200


@pytest.fixture
def visit(platform, chromium):
    """``visit(page)``: a page of a browser of its own, which stands at the sign-in."""
    base, requests, errors = f"http://127.0.0.1:{platform.settings.admin_port}", [], []
    with contextlib.ExitStack() as opened:

        def go(page=f"/w/{W}"):
            context = chromium.new_context(base_url=base)
            context.set_default_timeout(PATIENCE)
            opened.callback(context.close)
            context.on("request", lambda request: requests.append(request.url))
            tab = context.new_page()
            tab.on("pageerror", lambda error: errors.append(str(error)))
            tab.on("console", lambda said: errors.append(said.text) if "Content Security" in said.text else None)
            tab.goto(f"/console{page}")
            return tab

        yield go
    assert errors == []
    assert all(url.startswith((f"{base}/console", f"{platform.issuer.url}/")) for url in requests), requests


def at_the_provider(tab, who="ada"):
    tab.get_by_role("link", name="Sign in at").click()
    expect(tab.get_by_role("heading", name="Provider")).to_be_visible()
    tab.get_by_role("button", name=who).click()


def with_token(tab, platform):
    tab.get_by_label("Token", exact=True).fill(platform.token)
    tab.get_by_role("button", name="Sign in").click()
    expect(tab.get_by_role("button", name="Sign out")).to_be_visible()


def state(tab):
    return tab.locator("#summary .state")


def press(tab, verb, reason):
    expect(tab.locator("html[data-ready]")).to_have_count(1)
    tab.get_by_role("link", name=verb, exact=True).click()
    dialog = tab.get_by_role("dialog")
    dialog.get_by_label("Reason").fill(reason)
    dialog.get_by_role("button", name=verb).click()


SHOWN = """
word => new Promise((resolve) => {
  const look = () => {
    const found = document.querySelector("#summary .state");
    if (found && found.textContent.trim() === word) resolve(Date.now() / 1000);
    else requestAnimationFrame(look);
  };
  look();
})
"""


LOST = """
() => { window.lost = new Promise((resolve) => {
  const told = document.querySelector("#connection");
  const look = () => { if (told.textContent.includes("The connection is lost")) resolve(true); };
  new MutationObserver(look).observe(told, { childList: true, characterData: true, subtree: true, attributes: true });
  look();
}); }
"""


def test_a_canary_is_watched_taken_back_by_one_of_two_and_the_page_outlives_the_admin_api(
    platform, visit, record_property
):
    ada, grace = visit(), visit()
    at_the_provider(ada)
    expect(ada.locator("header")).to_contain_text("ada (operator)")
    expect(state(ada)).to_have_text("serving")
    with_token(grace, platform)

    # A canary begins and advances before their eyes.
    ada.goto(f"/console/w/{W}/versions/2")
    press(ada, "Start a rollout", "it is better")
    for tab in (ada, grace):
        expect(state(tab)).to_have_text("canary 20 %")
    while ada.locator("[aria-current=step] b").inner_text() == "20 %":
        ask(platform, 20)
    for tab in (ada, grace):
        expect(state(tab)).to_have_text("canary 50 %")
    expect(ada.locator("#charts svg").first).to_be_visible()

    # Both decide at once: the second is told, and sees the new state.
    expect(grace.locator("html[data-ready]")).to_have_count(1)
    grace.get_by_role("link", name="Pause", exact=True).click()
    grace.get_by_role("dialog").get_by_label("Reason").fill("let me look")
    grace.evaluate(f"() => {{ window.shown = ({SHOWN})('rolled back'); }}")
    press(ada, "Roll back", "bad answers")
    expect(ada.locator("#order")).to_contain_text("rollback: done")
    expect(ada.locator("#order")).to_contain_text("ada")
    expect(state(ada)).to_have_text("rolled back")
    shown = grace.evaluate("window.shown")
    (row,) = [o for o in LocalOrderClient(platform.store, "test").orders(W) if o["verb"] == "rollback"]
    record_property("seconds_from_acknowledged_to_shown", shown - row["done_at"])
    assert row["ok"] and platform.store.intent(W)[1].candidate is None
    with grace.expect_response(lambda r: r.request.method == "POST") as answer:
        grace.get_by_role("dialog").get_by_role("button", name="Pause").click()
    assert answer.value.status == 409
    expect(grace.get_by_role("alert").first).to_contain_text("decided since you looked")
    expect(grace.locator("main")).to_contain_text("This is how it is now: rolled back, bad answers")

    # The admin API dies and is started again: the page goes on, signed in as before.
    address = msgspec.json.decode((platform.settings.home / "admin.json").read_bytes(), type=Address)
    ada.evaluate(LOST)  # it may be back before this process looks
    psutil.Process(address.pid).send_signal(signal.SIGKILL)
    assert ada.evaluate("window.lost")
    expect(ada.locator("#connection")).to_be_hidden()
    expect(state(ada)).to_have_text("rolled back")
    ada.goto(f"/console/w/{W}/versions/2")
    press(ada, "Start a rollout", "it was not the student")
    expect(state(ada)).to_have_text("canary 20 %")
    press(ada, "Abort", "enough for today")
    expect(ada.locator("#order")).to_contain_text("abort: done")
    ada.get_by_role("button", name="Sign out").click()
    ada.get_by_role("link", name="sign out there too").click()
    expect(ada.get_by_role("heading", name="Signed out of the provider")).to_be_visible()


def test_a_sign_in_at_the_provider_that_fails_says_why(platform, visit, monkeypatch):
    tab, problem = visit("/"), None
    cases = (
        ({"code_seconds": 0.0}, "invalid_grant"), ({"claims": {"nonce": "another"}}, "not valid here"),
        ({"claims": {"aud": "others"}}, "not valid here"), ({"down": True}, "does not answer"),
    )  # fmt: skip
    for changes, says in cases:
        tab.get_by_role("link", name="Sign in at").click()
        expect(tab.get_by_role("heading", name="Provider")).to_be_visible()
        with monkeypatch.context() as patch:
            changed = {k: v for k, v in changes.items() if k != "down"}
            for name, value in changed.items():
                patch.setattr(platform.issuer, name, value)
            if changes.get("down"):
                patch.setattr(platform.issuer, "token", lambda *_: (503, {}))
            tab.get_by_role("button", name="ada").click()
            problem = tab.get_by_role("alert")
            expect(problem).to_contain_text(says)
    tab.get_by_role("link", name="Sign in at").click()
    tab.get_by_role("button", name="nobody").click()
    expect(problem).to_contain_text("access_denied: <b>she said no</b>")
    tab.goto("/console/sign-in/oidc/callback?code=x&state=forged")
    expect(problem).to_contain_text("not to a sign-in that this browser began")
    at_the_provider(tab)
    expect(tab.get_by_role("heading", name="Workloads")).to_be_visible()
