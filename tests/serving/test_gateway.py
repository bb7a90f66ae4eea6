import asyncio
import base64
import time

import httpx
import msgspec
import pytest

from components.contracts.records import Input, Prediction, SoftLabel, decode
from serving.gateway import Gateway, create_app
from serving.slots import Loaded, Routing, Slots
from serving.telemetry import Telemetry


class Running:
    """A gateway without a server, its routing set by hand."""

    def __init__(self, spec, store, broker, clock, ask=None):
        self.spec, self.broker, self.clock = spec, broker, clock
        self.slots = Slots(spec, store, "r1", clock)
        self.telemetry = Telemetry(spec, lambda: broker)
        self.gateway = Gateway(spec, self.slots, self.telemetry, ask, clock)
        self.app = create_app(self.gateway)

    def serve(self, champion, candidate=None, **intent):
        load = self.load
        intent = {"lease_until": self.clock.at + 10, **intent}
        routing = Routing(workload="signs", revision=1, champion=load(champion), candidate=load(candidate))
        full = msgspec.structs.replace(routing.intent, champion=champion, candidate=candidate, **intent)
        self.slots.routing = Routing(
            workload="signs", revision=1, intent=full, champion=routing.champion, candidate=routing.candidate
        )

    @staticmethod
    def load(ref):
        from components.contracts.storage import get_bytes
        from components.student.runtime import Student

        return Loaded(ref, Student.load(get_bytes(ref.uri, ref.digest))) if ref else None

    def call(self, method, path, **options):
        async def run():
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
                return await client.request(method, path, **options)

        return asyncio.run(run())

    def predict(self, *xs, **options):
        inputs = [{"id": f"i{n}", "json": {"x": x}} for n, x in enumerate(xs)]
        return self.call("POST", "/v1/predict", json={"inputs": inputs, **options})

    def published(self, kind=Prediction):
        while self.telemetry.drain(self.broker.producer(), timeout=0.0):
            pass
        topics = ["signs.inputs", "signs.inputs.urgent"] if kind is Input else ["signs.predictions"]
        return [decode(kind, r.value) for r in self.broker.consumer(topics).poll(1_000, 0)]


@pytest.fixture
def running(spec, store, broker, clock):
    return Running(spec, store, broker, clock)


def test_before_a_champion_there_is_a_problem_with_a_time_to_come_back(running):
    for method, path in (("POST", "/v1/predict"), ("GET", "/readyz")):
        answer = running.call(method, path, json={"json": {"x": 1}} if method == "POST" else None)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["title"] == "no_champion"


def test_a_batch_is_answered_in_order_with_lineage(running, model):
    running.serve(model("1"))
    first, second = running.predict(3.0, -3.0).json()["predictions"]
    assert (first["label"], second["label"]) == ("pos", "neg")
    assert first["id"] == "i0" and first["arm"] == "champion" and first["answered_by"] == "student"
    assert (first["model_version"], first["snapshot"], first["teacher"]) == ("1", "s" * 64, "sign@1")
    assert first["confidence"] == pytest.approx(max(first["soft_label"].values()))
    assert first["request_id"] != second["request_id"] and first["error"] is None


@pytest.mark.parametrize(
    "form", [{"payload": base64.b64encode(b'{"x": 2}').decode()}, {"text": '{"x": 2}'}, {"json": {"x": 2}}]
)
def test_a_single_input_in_every_form(running, model, form):
    running.serve(model("1"))
    answer = running.call("POST", "/v1/predict", json={"id": "a", **form})
    assert answer.status_code == 200 and answer.json()["label"] == "pos"


@pytest.mark.parametrize(
    ("item", "status", "title"),
    [
        ({"payload": "not base64!"}, 422, "undecodable"),
        ({"text": "not json"}, 422, "undecodable"),
        ({"text": ""}, 422, "empty"),
        ({"json": {"x": "y" * 300}}, 413, "oversize"),
        ({"json": {"x": "word"}}, 422, "invalid"),
        ({"json": {"x": 1}, "time": 9e9}, 422, "future_time"),
    ],
)
def test_a_bad_input_has_its_own_error_and_the_others_their_answer(running, model, item, status, title):
    running.serve(model("1"))
    answer = running.call("POST", "/v1/predict", json={"inputs": [item, {"json": {"x": 1}}]})
    bad, good = answer.json()["predictions"]
    assert answer.status_code == 200 and good["label"] == "pos"
    assert (bad["error"]["status"], bad["error"]["title"], bad["label"]) == (status, title, None)
    alone = running.call("POST", "/v1/predict", json=item)
    assert alone.status_code == status and alone.json()["title"] == title
    assert len(running.published()) == 1


@pytest.mark.parametrize(
    "body",
    [{}, {"inputs": []}, {"json": 1, "text": "x"}, {"inputs": [{"jsn": 1}]}, {"inputs": [{"json": 1, "time": -1}]}, []],
)
def test_a_malformed_request_is_a_problem(running, model, body):
    running.serve(model("1"))
    answer = running.call("POST", "/v1/predict", json=body)
    assert answer.status_code == 422 and answer.json()["title"] == "invalid_request"


def test_limits_of_a_request(running, model):
    running.serve(model("1"))
    assert running.predict(*[1.0] * 4).status_code == 200
    answer = running.predict(*[1.0] * 5)
    assert answer.status_code == 413 and answer.json()["title"] == "too_many_inputs"
    answer = running.call("POST", "/v1/predict", content=b" " * 10_000)
    assert answer.status_code == 413 and answer.json()["title"] == "too_large"

    async def chunks():
        for _ in range(10):
            yield b" " * 1_000

    assert running.call("POST", "/v1/predict", content=chunks()).status_code == 413


def test_what_was_served_is_published(running, model, signs):
    running.serve(model("1"))
    running.call("POST", "/v1/predict", json={"id": "a", "key": "alice", "time": 5.0, "json": {"x": 0.5}})
    (prediction,) = running.published()
    (entry,) = running.published(Input)
    assert (entry.id, entry.key, entry.time, entry.payload) == ("a", "alice", 5.0, signs.payload(0.5))
    assert (prediction.input_id, prediction.key, prediction.audited) == ("a", "alice", True)
    assert prediction.answer.ok and prediction.answer.version == "1" and prediction.shadow is None


def test_the_candidate_answers_its_keys_and_says_so(running, model):
    running.serve(model("1"), model("2"), weight=0.5)
    answers = [a for n in range(25) for a in running.predict(1.0, 2.0, 3.0, 4.0).json()["predictions"]][:4]
    arms = {a["id"]: (a["arm"], a["model_version"]) for a in answers}
    assert set(arms.values()) <= {("champion", "1"), ("candidate", "2")}
    keys = [running.call("POST", "/v1/predict", json={"key": f"k{n}", "json": {"x": 1}}).json() for n in range(60)]
    assert 15 < sum(a["arm"] == "candidate" for a in keys) < 45


def test_a_candidate_that_fails_is_answered_for_and_reported(running, model):
    running.serve(model("1"), model("2", rows=1), weight=1.0)
    (answer,) = running.predict(3.0).json()["predictions"]
    assert (answer["label"], answer["arm"], answer["model_version"]) == ("pos", "champion", "1")
    (prediction,) = running.published()
    assert prediction.answer.arm == "champion" and prediction.answer.ok
    assert (prediction.shadow.arm, prediction.shadow.version, prediction.shadow.ok) == ("candidate", "2", False)
    assert "cohobate_student_failures_total" in running.call("GET", "/metrics").text


def test_an_input_that_no_student_can_use_is_no_evidence_against_the_candidate(running, model):
    running.serve(model("1"), model("2"), weight=1.0)
    answer = running.call("POST", "/v1/predict", json={"json": {"x": "word"}})
    assert answer.status_code == 422
    assert running.published() == []


def test_a_champion_that_fails_alone_is_a_500(running, model):
    running.serve(model("1", rows=1))
    answer = running.call("POST", "/v1/predict", json={"json": {"x": 1}})
    assert answer.status_code == 500 and answer.json()["title"] == "student_failed"


def test_in_shadow_the_answer_is_the_champions_and_the_candidate_is_recorded(running, model):
    running.serve(model("1"), model("2", classes=("pos", "neg")), shadow=True)
    (answer,) = running.predict(3.0).json()["predictions"]
    assert (answer["label"], answer["arm"]) == ("pos", "champion")
    (prediction,) = running.published()
    assert prediction.shadow.ok and prediction.shadow.label == "neg" and prediction.shadow.version == "2"


def test_a_slow_shadow_does_not_slow_the_answer(running, model):
    class Slow:
        def predict_decoded(self, payloads):
            time.sleep(0.3)
            return [SoftLabel(task="classification", space="s", distribution={"neg": 1.0})]

    running.serve(model("1"), model("2"), shadow=True)
    routing = running.slots.routing
    candidate = Loaded(routing.candidate.ref, Slow())
    running.slots.routing = Routing(
        workload="signs", revision=1, intent=routing.intent, champion=routing.champion, candidate=candidate
    )
    running.predict(1.0)
    started = time.monotonic()
    running.predict(1.0)
    assert time.monotonic() - started < 0.25
    assert [p.shadow.latency_ms > 250 for p in running.published()] == [True, True]


def test_an_unsure_answer_says_defer(running, model):
    running.serve(model("1"))
    unsure, sure = running.predict(0.01, 3.0).json()["predictions"]
    assert unsure["defer"] and "below 0.7" in unsure["defer_reason"] and unsure["answered_by"] == "student"
    assert not sure["defer"] and sure["defer_reason"] is None
    assert [p.deferred for p in running.published()] == [True, False]


def test_a_deferred_answer_comes_from_the_teacher_where_allowed(spec, store, broker, clock, model):
    asked = []

    async def ask(payload):
        asked.append(payload)
        return SoftLabel(task="classification", space="signs@1", distribution={"pos": 1.0})

    running = Running(spec, store, broker, clock, ask)
    running.serve(model("1"))
    unsure, sure = running.predict(0.01, 3.0, allow_defer=True).json()["predictions"]
    assert (unsure["answered_by"], unsure["confidence"], unsure["defer"]) == ("teacher", 1.0, True)
    assert sure["answered_by"] == "student" and len(asked) == 1
    assert running.predict(0.01).json()["predictions"][0]["answered_by"] == "student"
    assert [p.answer.confidence < 0.7 for p in running.published()] == [True, False, True]


@pytest.mark.parametrize("trouble", ["none", "raises", "hangs", "empty"])
def test_without_a_teacher_the_students_answer_stands(spec, store, broker, clock, model, monkeypatch, trouble):
    async def ask(payload):
        if trouble == "raises":
            raise ConnectionError("away")
        if trouble == "hangs":
            await asyncio.sleep(60)

    monkeypatch.setattr("serving.answering.TEACHER_SECONDS", 0.05)
    running = Running(spec, store, broker, clock, None if trouble == "none" else ask)
    running.serve(model("1"))
    (answer,) = running.predict(0.01, allow_defer=True).json()["predictions"]
    assert answer["answered_by"] == "student" and answer["label"] in ("pos", "neg") and answer["defer"]
    assert "teacher" in answer["defer_reason"]


def test_health_model_and_metrics(running, model):
    running.serve(model("1"), model("2"), weight=0.25)
    assert running.call("GET", "/healthz").status_code == 503
    running.telemetry.start()
    running.slots.start()
    assert running.call("GET", "/healthz").json() == {"status": "ok"}
    running.serve(model("1"), model("2"), weight=0.25)
    assert running.call("GET", "/readyz").json() == {"status": "ready"}
    running.slots.stop()
    running.telemetry.stop()
    running.serve(model("1"), model("2"), weight=0.25)
    running.predict(1.0)
    told = running.call("GET", "/v1/model").json()
    assert (told["champion"]["version"], told["candidate"]["version"], told["weight"]) == ("1", "2", 0.25)
    assert told["champion"]["classes"] == ["neg", "pos"]
    text = running.call("GET", "/metrics").text
    assert 'cohobate_candidate_weight{replica="r1",workload="signs"} 0.25' in text
    assert "cohobate_answers_total{" in text and "cohobate_telemetry_dropped{" in text


def test_the_schema_describes_every_answer(running):
    schema = running.call("GET", "/openapi.json").json()
    paths = schema["paths"]
    assert {"/v1/predict", "/v1/model", "/healthz", "/readyz", "/metrics"} <= set(paths)
    post = paths["/v1/predict"]["post"]
    assert {"200", "413", "422", "503"} <= set(post["responses"])
    assert {"Batch", "Single", "Answered", "Answers", "Model"} <= set(schema["components"]["schemas"])
