"""What edges ask a gateway."""

import base64
import json

import msgspec
import pytest
from sqlalchemy import text

from components.contracts.errors import UnavailableError
from components.contracts.records import Input, decode
from components.contracts.sampling import audited
from components.contracts.storage import put_bytes
from components.control.intent import Guard
from serving.gateway.app import create_app
from serving.gateway.edge import HEADER, Edges, bundle_uri

PREDICTION = {
    "request_id": "r", "model_version": "1", "digest": "d", "arm": "champion", "label": "pos", "confidence": 0.9,
    "latency_ms": 1.5,
}  # fmt: skip


@pytest.fixture
def running(running, store, clock, tmp_path):
    store.clock = clock
    running.edges = Edges(running.gateway, store, tmp_path.as_uri())
    running.app = create_app(running.gateway, edges=running.edges)
    return running


def record(clock, x=3, **fields):
    payload = base64.b64encode(json.dumps({"x": x}).encode()).decode()
    return {"id": "a", "key": "k", "time": clock.now, "payload": payload, "prediction": PREDICTION, **fields}


def send(running, *records):
    return running.call("POST", "/v1/edge/records", json={"records": list(records)})


def on_the_stream(running, *topics):
    records = running.broker.consumer(topics or ["signs.inputs", "signs.inputs.urgent"]).poll(1_000, 0)
    return [(decode(Input, r.value), json.loads(r.headers[HEADER])) for r in records]


def decision(running):
    answer = running.call("GET", "/v1/edge/decision")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_who_serves_is_what_the_control_database_says(running, store, model, clock):
    assert decision(running) == {
        "workload": "signs", "revision": 0, "champion": None, "candidate": None, "weight": 0.0, "lease_seconds": 0.0,
        "guard_below": None, "consent": {"required": False, "allowed": []},
    }  # fmt: skip
    one, two = model("1"), model("2")
    intent = msgspec.structs.replace(
        store.intent("signs")[1], champion=one, candidate=two, weight=0.25, lease_until=clock.now + 8,
        guard=Guard(digest=one.digest, defer_below=0.95),
    )  # fmt: skip
    revision = store.put_intent("signs", 0, intent)
    told = decision(running)
    assert told["champion"] == {"version": "1", "digest": one.digest} and told["revision"] == revision
    assert told["candidate"] == {"version": "2", "digest": two.digest} and told["weight"] == 0.25
    assert told["lease_seconds"] == 8.0 and told["guard_below"] == 0.95
    clock.now += 9
    assert (told := decision(running))["candidate"] is None and told["weight"] == told["lease_seconds"] == 0.0


@pytest.mark.parametrize("fields", [{"shadow": True}, {"weight": 0.0}])
def test_a_candidate_that_answers_nobody_is_not_named(running, store, model, clock, fields):
    intent = {"champion": model("1"), "candidate": model("2"), "weight": 0.5, "lease_until": clock.now + 8, **fields}
    store.put_intent("signs", 0, msgspec.structs.replace(store.intent("signs")[1], **intent))
    assert decision(running)["candidate"] is None and decision(running)["weight"] == 0.0


def test_a_guard_is_of_the_champion_that_it_is_of(running, store, model):
    guard = Guard(digest="another", defer_below=0.95)
    store.put_intent("signs", 0, msgspec.structs.replace(store.intent("signs")[1], champion=model("1"), guard=guard))
    assert decision(running)["guard_below"] is None


def test_a_bundle_is_found_by_the_digest_of_its_version(running, tmp_path):
    digest = "a" * 64
    put_bytes(bundle_uri(tmp_path.as_uri(), "signs", digest), b"packed")
    found = running.call("GET", f"/v1/edge/bundles/{digest}")
    assert (found.status_code, found.content, found.headers["content-type"]) == (200, b"packed", "application/x-tar")


@pytest.mark.parametrize("digest", ["b" * 64, "..%2f..%2fcontrol.db", "A" * 64, "a" * 63])
def test_what_is_no_bundle_is_not_found(running, digest):
    answer = running.call("GET", f"/v1/edge/bundles/{digest}")
    assert answer.status_code == 404 and answer.json()["title"] in ("no_bundle", "not_found")


def test_inputs_go_to_the_stream_with_what_the_edge_answered(running, clock):
    done = send(running, record(clock, consent="training"), record(clock, id="b", key=""))
    assert done.status_code == 200 and [r["accepted"] for r in done.json()["records"]] == [True, True]
    (one, said), (two, _) = on_the_stream(running)
    assert (one.id, one.key, one.time, one.consent, one.payload) == ("a", "k", clock.now, "training", b'{"x": 3}')
    assert said == {**PREDICTION, "novelty": None, "defer": False} and (two.id, two.key) == ("b", "b")
    assert running.published() == []  # no evidence for a rollout


def test_what_is_audited_or_deferred_goes_ahead_as_from_the_gateway(running, spec, clock):
    share = msgspec.structs.replace(spec.serve, audit_share=0.5)
    running.gateway.spec = msgspec.structs.replace(spec, serve=share)
    ids = [f"i{n}" for n in range(40)]
    for name in ids:
        send(running, record(clock, id=name))
    send(running, record(clock, id="d", prediction={**PREDICTION, "defer": True}))
    urgent = {i.id for i, _ in on_the_stream(running, "signs.inputs.urgent")}
    assert urgent == {"d", *(name for name in ids if audited("signs", name, 0.5))} and len(urgent) < 40


def test_each_is_refused_by_itself_as_the_gateway_would_refuse_it(running, spec, clock):
    terms = msgspec.structs.replace(spec.consent, allowed=("training",), required=True, otherwise="answer")
    running.gateway.spec = msgspec.structs.replace(spec, consent=terms)
    good = record(clock, id="good", consent="training")
    bad = [
        {**good, "payload": "***"}, {**good, "payload": base64.b64encode(b"{").decode()}, {**good, "consent": None},
        {**good, "consent": "research"}, {**good, "time": clock.now + 1e6},
        {**good, "payload": base64.b64encode(b'{"x": ' + b"1" * 300 + b"}").decode()},
    ]  # fmt: skip
    refused = []
    for one in bad:
        first, second = send(running, one, good).json()["records"]
        assert not first["accepted"] and second["accepted"]
        refused.append(first["error"]["title"])
    assert refused == [
        "undecodable", "undecodable", "consent_missing", "consent_refused", "future_time", "oversize",
    ]  # fmt: skip
    assert {i.id for i, _ in on_the_stream(running)} == {"good"}


@pytest.mark.parametrize(
    ("body", "status"), [(b"{", 400), (b"{}", 422), (b'{"records": []}', 422), (b'{"records": [{"id": "a"}]}', 422)]
)
def test_what_is_no_record_is_refused(running, body, status):
    assert running.call("POST", "/v1/edge/records", content=body).status_code == status


def test_more_than_a_batch_is_refused(running, clock):
    answer = send(running, *[record(clock)] * 5)
    assert answer.status_code == 413 and "at most 4" in answer.json()["detail"]


def test_none_counts_as_taken_that_the_stream_did_not_confirm(running, clock):
    def away():
        raise UnavailableError("Kafka", "here", "away")

    running.edges._stream._broker = away
    answer = send(running, record(clock))
    assert (answer.status_code, answer.json()["title"]) == (503, "not_confirmed") and answer.headers["retry-after"]


def test_without_the_control_database_nobody_is_told_who_serves(running, store):
    with store.transaction() as s:
        s.execute(text("DROP TABLE routing"))
    assert running.call("GET", "/v1/edge/decision").status_code == 503


def test_the_schema_describes_it(running):
    paths = running.call("GET", "/openapi.json").json()["paths"]
    served = {route.path for route in running.app.routes.routes if "edge" in route.path}
    assert len(served) == 3 and served <= set(paths)
