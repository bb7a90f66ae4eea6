import json

import jsonschema
import msgspec
import pytest

from components.contracts.errors import UnavailableError
from components.contracts.records import Truth, decode
from serving.client import calls
from serving.gateway.openapi import document
from serving.gateway.truths import input_of, request_id
from serving.gateway.wire import TruthItem
from tests.serving.running import Running


@pytest.fixture
def running(spec, store, broker, clock):
    return Running(spec, store, broker, clock)


def taken(running):
    return [decode(Truth, r.value) for r in running.broker.consumer(["signs.truth"]).poll(1_000, 0)]


def post(running, **body):
    return running.call("POST", "/v1/truth", json=body)


def test_a_truth_goes_to_the_stream_and_is_named(running, clock):
    answer = post(running, id="a", label="pos", source="desk", time=clock.now - 60, known_at=clock.now - 5)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"id": "a", "accepted": True, "error": None}
    assert taken(running) == [
        Truth(workload="signs", input_id="a", time=clock.now - 60, known_at=clock.now - 5, source="desk", label="pos")
    ]


@pytest.mark.parametrize(
    ("task", "truth"),
    [
        ("classification", {"label": "pos"}),
        ("regression", {"value": 0.5}),
        ("multilabel", {"labels": ["pos"]}),
        ("multilabel", {"labels": []}),
        ("tagging", {"spans": [{"start": 0, "end": 3, "label": "PERSON"}]}),
        ("tagging", {"spans": []}),
    ],
)
def test_a_truth_of_every_task_is_described_and_kept_in_its_own_field_alone(
    spec, store, broker, clock, task, truth
):  # fmt: skip
    running = Running(msgspec.structs.replace(spec, task=task), store, broker, clock)
    body = {"id": "a", "source": "desk", **truth}
    schema = {"$ref": "#/components/schemas/TruthItem", "components": document(running.spec)["components"]}
    described = jsonschema.Draft202012Validator(schema)
    assert described.is_valid(body)
    assert not described.is_valid({**body, "label": "pos", "value": 0.5})
    assert post(running, **body).status_code == 200
    (record,) = broker.consumer(["signs.truth"]).poll(1_000, 0)
    kept = msgspec.msgpack.decode(record.value)
    fields = ("labels", "spans")
    assert {name for name in fields if name in kept} == {name for name in fields if name in truth}
    assert {"label", "value"} <= kept.keys(), "records of the first tasks are as they were"


def test_a_client_names_no_field_that_an_older_gateway_refuses():
    item = TruthItem(source="desk", id="a", label="pos", known_at=5.0)
    body = json.loads(calls.truth(item).body)
    assert body == {"source": "desk", "id": "a", "label": "pos", "known_at": 5.0}


def test_what_is_left_out_of_times_is_now(running, clock):
    now = clock.now
    post(running, id="a", label="pos", source="desk")
    (truth,) = taken(running)
    assert truth.time == truth.known_at == now


def test_it_needs_no_champion(running):
    assert running.call("GET", "/readyz").status_code == 503
    assert post(running, id="a", label="pos", source="desk").status_code == 200


def test_an_answer_s_request_id_names_its_input(running, model):
    running.serve(model("1"))
    given = running.call("POST", "/v1/predict", json={"id": "mine-0123-x", "json": {"x": 1}}).json()
    made = running.call("POST", "/v1/predict", json={"json": {"x": 1}}).json()
    assert given["id"] == "mine-0123-x" and made["id"] == made["request_id"]
    for answer in (given, made):
        done = post(running, request_id=answer["request_id"], label="pos", source="desk")
        assert done.json()["id"] == answer["id"]
    assert [t.input_id for t in taken(running)] == [given["id"], made["id"]]


@pytest.mark.parametrize("name", ["a", "-", "a-b", "x" * 256, "two\nlines", "0" * 32])
def test_every_id_is_found_again_in_its_request_s(name):
    assert input_of(request_id("0123456789abcdef" * 2, name)) == name


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"label": None, "value": 1.0}, "other_task"),
        ({"source": "stranger"}, "unknown_source"),
        ({"label": None}, "invalid"),
        ({"value": 1.0}, "invalid"),
        ({"id": None}, "invalid"),
        ({"request_id": "0" * 32}, "invalid"),
        ({"id": None, "request_id": "made up"}, "unknown_request"),
        ({"known_at": "later"}, "future_time"),
    ],
)
def test_what_no_window_takes_is_refused_with_its_reason_and_in_a_batch_alone(
    spec, store, broker, clock, change, reason
):
    running = Running(msgspec.structs.replace(spec, truth_sources=("desk",)), store, broker, clock)
    good = {"id": "a", "label": "pos", "source": "desk"}
    bad = {**good, **change}
    if bad.get("known_at"):
        bad["known_at"] = clock.now + 2 * spec.admission.max_future_seconds
    alone = post(running, **bad)
    assert (alone.status_code, alone.json()["title"]) == (422, reason), alone.text
    assert broker.partitions("signs.truth") == [] or taken(running) == []
    both = post(running, truths=[bad, good])
    assert both.status_code == 200
    first, second = both.json()["truths"]
    assert first["accepted"] is False and first["error"]["title"] == reason
    assert second == {"id": "a", "accepted": True, "error": None}
    assert [t.input_id for t in taken(running)] == ["a"]


@pytest.mark.parametrize(
    ("body", "status", "title"),
    [
        (b"{", 400, "not_json"),
        (b"[]", 422, "invalid_request"),
        (b'{"truths": []}', 422, "invalid_request"),
        (b'{"id": "a", "label": "pos"}', 422, "invalid_request"),
        (b'{"id": "a", "label": "pos", "source": "s", "lable": 1}', 422, "invalid_request"),
        (b'{"truths": [{"id": "a", "label": "pos", "source": "s"}], "id": "b"}', 422, "invalid_request"),
        (
            b'{"truths": [' + b",".join([b'{"id": "a", "label": "pos", "source": "s"}'] * 5) + b"]}",
            413,
            "too_many_truths",
        ),
    ],
)
def test_a_body_that_is_none_is_a_problem(running, body, status, title):
    answer = running.call("POST", "/v1/truth", content=body)
    assert (answer.status_code, answer.json()["title"]) == (status, title)
    assert answer.headers["content-type"] == "application/problem+json"


class Deaf:
    """A broker that takes everything and confirms nothing, or does not answer at all, until it is mended."""

    def __init__(self, broker, at):
        self.broker, self.at, self.mended = broker, at, False

    def ensure_topics(self, topics, partitions=1):
        if self.at == "connect":
            raise UnavailableError("Kafka", "here", "is it up?")
        self.broker.ensure_topics(topics, partitions)

    def producer(self):
        return self

    def send(self, topic, key, value, headers=None):
        if self.mended:
            self.broker.producer().send(topic, key, value)

    def flush(self, timeout=30.0):
        if not self.mended:
            raise UnavailableError("Kafka", "here", "1 records were not confirmed")

    def close(self):
        pass


@pytest.mark.parametrize("at", ["connect", "flush"])
def test_nothing_is_acknowledged_that_the_stream_has_not_confirmed(spec, store, broker, clock, at):
    deaf = Deaf(broker, at)
    running = Running(spec, store, deaf, clock)
    body = {"truths": [{"id": "a", "label": "pos", "source": "desk", "known_at": clock.now}]}
    refused = post(running, **body)
    assert (refused.status_code, refused.json()["title"]) == (503, "not_confirmed")
    assert int(refused.headers["retry-after"]) > 0
    deaf.at, deaf.mended = "", True
    assert post(running, **body).json()["truths"] == [{"id": "a", "accepted": True, "error": None}]
    running.broker = broker
    assert [t.input_id for t in taken(running)] == ["a"]


def test_the_same_again_is_the_same_record_so_that_it_changes_nothing(running, clock):
    body = {"id": "a", "label": "pos", "source": "desk", "time": clock.now, "known_at": clock.now}
    assert post(running, **body).json() == post(running, **body).json()
    first, again = taken(running)
    assert first == again


def test_truths_that_wait_for_the_stream_take_no_room_from_predictions(running, model):
    running.serve(model("1"))
    assert running.gateway.pressure.under_way == 0
    seen = []
    producer = running.broker.producer()

    class Watching:
        def __getattr__(self, name):
            return getattr(producer, name)

        def flush(self, timeout=30.0):
            seen.append(running.gateway.pressure.under_way)

    running.gateway.truths._stream._producer = Watching()
    running.broker.ensure_topics(["signs.truth"])
    assert post(running, id="a", label="pos", source="desk").status_code == 200
    assert seen == [0]
