import time

import httpx
import msgspec
import pytest

from components.contracts.errors import ConfigError
from components.contracts.settings import Settings
from components.contracts.spec import RolloutPolicy
from components.control.tokens import Tokens
from components.ledger.ledger import append, verify
from serving.admin.app import create_app
from serving.admin.wire import VERBS
from serving.rollout.state import as_dict
from serving.rollout.step import begin
from tests.serving.admin.conftest import SyncTransport, W, ref

GETS = (
    "/v1/me", "/v1/workloads", f"/v1/workloads/{W}", f"/v1/workloads/{W}/rollouts", f"/v1/workloads/{W}/rollout",
    f"/v1/workloads/{W}/versions", f"/v1/workloads/{W}/orders", "/v1/ledger", "/v1/ledger/head", "/v1/ledger/verify",
)  # fmt: skip


def path(verb):
    return f"/v1/workloads/{W}/rollout/{verb}"


@pytest.fixture
def rollout(control):
    state, _ = begin("rollout-a", W, ref("2"), ref("1"), RolloutPolicy(), time.time(), audit_share=0.1)
    control.put_rollout(state.id, W, 0, True, as_dict(state))
    return state


@pytest.mark.parametrize("url", GETS)
def test_nothing_is_shown_to_strangers_and_all_of_it_to_a_viewer(client, rollout, url, ledger):
    refused = client().get(url)
    assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["title"] == "unauthenticated"
    (entry,) = ledger()
    assert entry[1:3] == ("unauthenticated", "refused get") and entry[3]["client"] == "127.0.0.1"
    assert client("viewer").get(url).status_code == 200
    assert len(ledger()) == 1


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_needs_an_operator_and_is_recorded_with_who_and_why(client, rollout, answering, ledger, verb):
    body = {"reason": "looks odd", "wait_seconds": 60}
    assert client().post(path(verb), json=body).status_code == 401
    assert client("viewer").post(path(verb), json=body).status_code == 403
    done = client("operator").post(path(verb), json=body, headers={"Idempotency-Key": "K"})
    assert (done.status_code, done.json()) == (200, {"order": "K", "ok": True, "outcome": "done"})
    assert [(w, a, did) for w, a, did, _ in ledger()] == [
        (W, "unauthenticated", f"refused {verb}"),
        (W, "viewer-eve", f"refused {verb}"),
        (W, "operator-eve", f"ordered {verb}"),
    ]
    assert ledger()[1][3]["why"] == "viewer-eve has the role viewer; this needs operator"
    assert ledger()[2][3] | {"credential": ""} == {
        "order": "K", "reason": "looks odd", "args": {}, "via": "token", "role": "operator", "credential": "",
        "client": "127.0.0.1",
    }  # fmt: skip


@pytest.mark.parametrize("reason", [None, "", "   ", "x" * 501, 7])
def test_a_reason_is_required(client, rollout, control, ledger, reason):
    body = {} if reason is None else {"reason": reason}
    refused = client("operator").post(path("abort"), json=body)
    assert refused.status_code == 422 and "reason" in refused.json()["detail"]
    assert control.open_orders(W) == []
    assert ledger()[-1][:3] == (W, "operator-eve", "refused abort")


def test_an_order_that_was_placed_twice_is_one(client, rollout, control, answering, ledger):
    for _ in range(2):
        body = {"reason": "r", "wait_seconds": 60}
        done = client("operator").post(path("pause"), json=body, headers={"Idempotency-Key": "same"})
        assert done.json()["ok"] is True
    assert [e[2] for e in ledger()] == ["ordered pause"]
    other = client("operator").post(path("abort"), json={"reason": "r"}, headers={"Idempotency-Key": "same"})
    assert other.status_code == 422 and "taken by another order" in other.json()["detail"]


def test_a_verb_decided_on_an_old_state_is_refused_with_the_present_revision(client, control, rollout, ledger):
    operator = client("operator")
    seen = operator.get(f"/v1/workloads/{W}/rollout")
    assert (seen.headers["etag"], seen.json()["revision"]) == ('"rollout-a.1"', 1)
    moved = msgspec.structs.replace(rollout, actions=2)
    control.put_rollout(rollout.id, W, 1, True, as_dict(moved))
    for how in ({"headers": {"If-Match": seen.headers["etag"]}}, {"headers": {"If-Match": '"1"'}}):
        stale = operator.post(path("abort"), json={"reason": "r"}, **how)
        assert (stale.status_code, stale.json()["title"], stale.json()["revision"]) == (409, "stale_revision", 2)
    assert operator.post(path("abort"), json={"reason": "r", "revision": 1}).json()["revision"] == 2
    assert control.open_orders(W) == []
    assert ledger()[-1][2] == "refused abort" and ledger()[-1][3]["revision"] == 2
    other = operator.post(path("abort"), json={"reason": "r"}, headers={"If-Match": '"rollout-b.2"'})
    assert other.status_code == 409
    fine = operator.post(path("abort"), json={"reason": "r", "revision": 2, "wait_seconds": 0})
    assert fine.status_code == 202 and control.open_orders(W)[0].args == {"revision": 2}


def test_of_two_people_who_saw_the_same_only_one_acts(client, control, rollout):
    body = {"reason": "r", "revision": 1, "wait_seconds": 0}
    first, second = (client(r).post(path("abort"), json=body) for r in ("operator", "admin"))
    assert (first.status_code, second.status_code) == (202, 409)
    retried = client("admin").post(path("promote"), json={**body, "revision": second.json()["revision"]})
    assert retried.status_code == 409  # the first order still waits to change the rollout
    assert len(control.open_orders(W)) == 1


def test_what_the_controller_refuses_is_a_conflict_with_its_reason(client, rollout, answering, ledger):
    answering.ok, answering.outcome = False, "cannot resume while rollout-a is canary: legal now are pause"
    body = {"reason": "r", "wait_seconds": 60}
    refused = client("operator").post(path("resume"), json=body, headers={"Idempotency-Key": "K"})
    assert (refused.status_code, refused.json()["title"], refused.json()["order"]) == (409, "refused", "K")
    assert "legal now are pause" in refused.json()["detail"]


def test_without_a_controller_the_order_waits(client, rollout, control):
    done = client("operator").post(path("pause"), json={"reason": "r", "wait_seconds": 0.1})
    assert done.status_code == 202 and done.json()["ok"] is None
    (order,) = control.open_orders(W)
    assert client("viewer").get(f"/v1/orders/{order.id}").json()["actor"] == "operator-eve"


def test_to_force_needs_an_admin(client, rollout, answering, ledger):
    body = {"reason": "r", "version": "2", "forced": True, "wait_seconds": 60}
    assert client("operator").post(path("start"), json=body).status_code == 403
    assert ledger()[-1][1:3] == ("operator-eve", "refused start")
    assert client("admin").post(path("start"), json=body).status_code == 200
    assert ledger()[-1][3]["args"] == {"version": "2", "forced": True}


@pytest.mark.parametrize(
    ("verb", "body", "headers"),
    [
        ("abort", {"reason": "r", "to": "3"}, {}),
        ("pause", {"reason": "r", "version": "3"}, {}),
        ("pause", {"reason": "r", "rollout": "rollout-a"}, {}),
        ("pause", {"reason": "r", "revision": 1}, {"If-Match": '"rollout-a.2"'}),
        ("pause", {"reason": "r"}, {"If-Match": "1"}),
        ("pause", {"reason": "r"}, {"Idempotency-Key": "a b"}),
        ("pause", {"reason": "r", "anything": 1}, {}),
        ("explode", {"reason": "r"}, {}),
    ],
)
def test_what_makes_no_sense_is_refused_and_recorded(client, rollout, control, ledger, verb, body, headers):
    refused = client("admin").post(path(verb), json=body, headers=headers)
    assert refused.status_code == 422 and refused.headers["content-type"] == "application/problem+json"
    assert control.open_orders(W) == [] and ledger()[-1][2] == f"refused {verb}"


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 422), (b"[" * 60_000, 400), (b"\xff\xfe", 422), (b'{"reason": "' + b"x" * 70_000 + b'"}', 413),
        (b'{"reason": "r", "wait_seconds": NaN}', 422), (b'{"reason": "\\ud800"}', 422), (b"null", 422),
        (b'{"reason": "a\\u0000b"}', 422),
    ],
)  # fmt: skip
def test_a_body_that_is_broken_is_a_problem_not_a_failure(client, rollout, control, content, status):
    sent = client("operator").post(path("abort"), content=content, headers={"Content-Type": "application/json"})
    assert (sent.status_code, sent.headers["content-type"]) == (status, "application/problem+json")
    assert control.open_orders(W) == []


def test_unknown_things_are_not_found(client):
    for url in ("/v1/workloads/none", "/v1/workloads/none/rollout", "/v1/rollouts/none", "/v1/orders/none", "/v1/x"):
        answer = client("viewer").get(url)
        assert (answer.status_code, answer.json()["title"]) == (404, "not_found")
    assert client("operator").post("/v1/workloads/none/rollout/abort", json={"reason": "r"}).status_code == 404


def test_a_revoked_or_ended_token_is_refused_at_once(client, control, tokens):
    viewer = client("viewer")
    assert viewer.get("/v1/me").json()["actor"] == "viewer-eve"
    made = Tokens(control)
    made.revoke(tokens["viewer"].split("_")[1])
    assert viewer.get("/v1/me").status_code == 401
    _, short = made.create("brief", "viewer", "test", days=1.0)
    assert client(token=short).get("/v1/me").status_code == 200
    control.clock = lambda: time.time() + 86_401
    assert client(token=short).get("/v1/me").status_code == 401


def test_failed_logins_are_limited_and_lock_no_one_else_out(client, tokens, ledger):
    public = tokens["operator"].split("_")[1]
    guess = client(token=f"cohobate_{public}_{'A' * 43}", address="10.0.0.9")
    seen = [guess.get("/v1/me").status_code for _ in range(13)]
    assert seen == [401] * 10 + [429] * 3
    assert [e[2] for e in ledger()] == ["refused get"] * 11  # the limit itself is told once
    assert client("operator", address="10.0.0.9").get("/v1/me").status_code == 429  # guessed at from there
    assert client("operator", address="10.0.0.8").get("/v1/me").status_code == 200
    assert client("viewer", address="10.0.0.9").get("/v1/me").status_code == 200
    strangers = [client(address="10.0.0.7").get("/v1/me").status_code for _ in range(12)]
    assert strangers == [401] * 10 + [429] * 2
    assert client("viewer", address="10.0.0.7").get("/v1/me").status_code == 200


def test_secrets_are_not_kept(client, control, tokens):
    client("viewer").get("/v1/me")
    client(token=tokens["viewer"][:-1] + "#").get("/v1/me")
    dump = str([vars(r) for r in Tokens(control).list()])
    dump += client("admin").get("/v1/ledger").text
    for token in tokens.values():
        assert token.split("_", 2)[2] not in dump
    assert all(r.hash.startswith("$argon2id$") for r in Tokens(control).list())


def test_authentication_is_off_on_the_loopback_only(tmp_path, control, client):
    with pytest.raises(ConfigError, match="only where COHOBATE_ADMIN_HOST is the loopback"):
        create_app(Settings(home=tmp_path, admin_auth="off", admin_host="0.0.0.0"), store=control)  # noqa: S104
    app = create_app(Settings(home=tmp_path, admin_auth="off"), store=control)

    def ask(address, base):
        with httpx.Client(base_url=base, transport=SyncTransport(app, (address, 1))) as c:
            return c.get("/v1/me")

    assert ask("127.0.0.1", "http://127.0.0.1:8401").json()["actor"] == "anonymous"
    assert ask("10.0.0.1", "http://127.0.0.1:8401").status_code == 403
    assert ask("127.0.0.1", "http://rebound.example:8401").status_code == 403


def test_health_is_public_and_the_ledger_stands(client, rollout):
    assert client().get("/healthz").json() == {"status": "ok"}
    assert client().get("/readyz").json() == {"status": "ok"}
    client("viewer").post(path("abort"), json={"reason": "r"})
    viewer = client("viewer")
    assert viewer.get("/v1/ledger/verify").json()["ok"] is True
    head = viewer.get("/v1/ledger/head").json()
    assert viewer.get("/v1/ledger/verify", params={"anchor": head["hash"]}).json()["entries"] == head["seq"]
    bad = viewer.get("/v1/ledger/verify", params={"anchor": "0" * 63 + "1"}).json()
    assert bad["ok"] is False and "was cut off" in bad["detail"]


def test_the_ledger_comes_in_pages(client, control):
    for i in range(5):
        append(control, W, "ada", "tick", {"i": i})
    viewer, seen, after = client("viewer"), [], 0
    while after is not None:
        page = viewer.get("/v1/ledger", params={"limit": 2, "after": after}).json()
        seen += [e["seq"] for e in page["entries"]]
        after = page["next_after"]
    assert seen == [1, 2, 3, 4, 5] and verify(control) == 5
