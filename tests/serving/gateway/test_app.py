import asyncio
import base64
import dataclasses
import re
import time
from pathlib import Path

import httpx
import msgspec
import pytest

from components.contracts.errors import RecordError
from components.contracts.records import Input, SoftLabel
from components.contracts.sampling import AUDIT, bucket
from components.contracts.spec import Admission, Consent, load_spec
from components.control.intent import EVERY_ANSWER, Guard, Intent
from components.student.runtime import Reply as StudentReply
from serving.gateway import wire
from serving.gateway.reply import Reply
from serving.replica.loaded_versions import Loaded, Routing
from tests.clock import Time
from tests.serving.running import Running
from tests.waiting import wait_for


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


def test_a_champion_that_does_not_load_is_said_to_be_why_nobody_answers(running, model):
    ref = model("1")
    Path(ref.uri.removeprefix("file://")).write_bytes(b"spoilt")
    running.versions.store.put_intent("signs", 0, Intent(champion=ref))
    running.versions.follow()
    wait_for(lambda: running.versions.failed)
    answer = running.call("GET", "/readyz")
    assert (answer.status_code, answer.json()["title"]) == (503, "no_champion")
    assert answer.json()["detail"] == "version 1 does not load: 'cohobate status' says why"


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


def test_the_terms_of_consent_go_with_the_input(running, model):
    running.serve(model("1"))
    for item in ({"json": {"x": 1}, "consent": "training"}, {"json": {"x": 1}}):
        assert running.call("POST", "/v1/predict", json=item).status_code == 200
    assert [entry.consent for entry in running.published(Input)] == ["training", None]


def consenting(spec, **terms):
    return msgspec.structs.replace(spec, consent=Consent(**terms))


@pytest.mark.parametrize(("consent", "title"), [(None, "consent_missing"), ("sale", "consent_refused")])
def test_an_input_without_the_consent_that_is_required_is_refused(spec, store, broker, clock, model, consent, title):
    running = Running(consenting(spec, required=True, allowed=("training",)), store, broker, clock)
    running.serve(model("1"))
    answer = running.call("POST", "/v1/predict", json={"json": {"x": 1}, "consent": consent})
    assert (answer.status_code, answer.json()["title"]) == (422, title)
    assert running.call("POST", "/v1/predict", json={"json": {"x": 2}, "consent": "training"}).status_code == 200
    assert [entry.payload for entry in running.published(Input)] == [b'{"x": 2}']
    assert f'cohobate_refused_total{{reason="{title}",workload="signs"}} 1.0' in running.call("GET", "/metrics").text


def test_where_the_spec_says_so_it_is_answered_and_nothing_of_it_leaves_the_replica(spec, store, broker, clock, model):
    """Not to the stream, not to the teacher, not to a trial of an artifact; and no candidate is judged by it."""
    asked = []

    async def ask(entry, student, urgency, need, version=""):
        asked.append(entry)

    running = Running(consenting(spec, required=True, otherwise="answer"), store, broker, clock, ask)
    running.serve(model("1"), model("2"), weight=1.0)
    for shadow in (False, True):
        running.serve(model("1"), model("2"), weight=1.0, shadow=shadow)
        (answer,) = running.predict(0.01, allow_defer=True).json()["predictions"]
        assert answer["arm"] == "champion" and answer["defer"] and answer["degraded"] and answer["label"] == "pos"
        assert "terms of consent" in answer["defer_reason"]
    assert running.published(Input) == [] and running.published() == [] and asked == []
    assert running.versions.sample is None
    text = running.call("GET", "/metrics").text
    assert 'cohobate_withheld_total{reason="consent_missing",workload="signs"} 2.0' in text


def test_event_times_are_bounded_as_the_spec_says(spec, store, broker, clock, model):
    limits = Admission(max_future_seconds=10.0, max_age_seconds=100.0)
    running = Running(msgspec.structs.replace(spec, admission=limits), store, broker, clock)
    running.serve(model("1"))
    for seconds, title in ((11, "future_time"), (-101, "ancient_time"), (9, None), (-99, None)):
        answer = running.call("POST", "/v1/predict", json={"json": {"x": 1}, "time": clock.now + seconds})
        assert answer.json().get("title") == title
        assert answer.status_code == (422 if title else 200)


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
    [
        {},
        {"inputs": []},
        {"json": 1, "text": "x"},
        {"inputs": [{"jsn": 1}]},
        {"inputs": [{"json": 1, "time": -1}]},
        {"inputs": [{"json": 1}], "json": 1},
        {"json": 1, "payload": None},
        [],
    ],
)
def test_a_malformed_request_is_a_problem(running, model, body):
    running.serve(model("1"))
    answer = running.call("POST", "/v1/predict", json=body)
    assert answer.status_code == 422 and answer.json()["title"] == "invalid_request"


@pytest.mark.parametrize(
    ("content", "status", "title"),
    [
        (b"", 400, "not_json"),
        (b"{", 400, "not_json"),
        (b"\xff\xfe{", 400, "not_json"),
        ('{"json": {"x": 1}}'.encode("utf-16"), 400, "not_json"),
        (b'{"text": "\xff"}', 400, "not_json"),
        (b'{"json": NaN}', 400, "not_json"),
        (b'{"json": ' + b"[" * 65 + b"]" * 65 + b"}", 422, "too_deep"),
        (b'{"json": ' + b'{"a":' * 500 + b"1" + b"}" * 500 + b"}", 422, "too_deep"),
        (b'{"json": ' + b"[" * 2_000 + b"]" * 2_000 + b"}", 422, "too_deep"),
        (b'{"inputs": [{"json": 1}, {"json": ' + b"[" * 70 + b"]" * 70 + b"}]}", 422, "too_deep"),
    ],
)
def test_what_is_no_json_or_too_deep_is_the_callers_fault(running, model, content, status, title):
    running.serve(model("1"))
    answer = running.call("POST", "/v1/predict", content=content)
    assert (answer.status_code, answer.json()["title"]) == (status, title)
    assert answer.headers["content-type"] == "application/problem+json"


def test_json_of_the_greatest_depth_is_read(running, model):
    running.serve(model("1"))
    deep = b"[" * 63 + b"1" + b"]" * 63
    answer = running.call("POST", "/v1/predict", content=b'{"json": ' + deep + b"}")
    assert answer.json()["title"] == "invalid"


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nowhere", 404), ("DELETE", "/v1/predict", 405), ("POST", "/healthz", 405)]
)
def test_wrong_paths_and_methods_are_problems_too(running, method, path, status):
    answer = running.call(method, path)
    assert (answer.status_code, answer.json()["status"]) == (status, status)
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_compressed_body_is_refused(running, model):
    running.serve(model("1"))
    answer = running.call("POST", "/v1/predict", content=b"x", headers={"content-encoding": "gzip"})
    assert (answer.status_code, answer.json()["title"]) == (415, "compressed")


def limited(spec, **serve):
    return msgspec.structs.replace(spec, serve=msgspec.structs.replace(spec.serve, **serve))


def test_a_body_that_does_not_come_in_time_is_given_up(spec, store, broker, clock, model):
    running = Running(limited(spec, request_seconds=0.05), store, broker, clock)
    running.serve(model("1"))
    sent = []

    async def run(first):
        async def receive():
            return first.pop() if first else await asyncio.sleep(60)

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/v1/predict", "raw_path": b"/v1/predict", "query_string": b"",
            "headers": [(b"content-length", b"30")], "http_version": "1.1", "scheme": "http", "root_path": "",
            "server": ("gateway", 80), "client": ("c", 1),
        }  # fmt: skip
        await running.app(scope, receive, send)

    for first in ([], [{"type": "http.request", "body": b"{", "more_body": True}]):
        asyncio.run(run(first))
        assert (sent[-2]["status"], b"too_slow" in sent[-1]["body"]) == (408, True)
    assert running.gateway.pressure.under_way == 0


def test_overload_sheds_the_least_urgent_first_and_says_when_to_come_back(spec, store, broker, clock, model):
    waiting, let = [], asyncio.Event()

    async def ask(entry, student, urgency, need, version=""):
        waiting.append(1)
        await let.wait()
        return Reply(None, "asked")

    patient = msgspec.structs.replace(spec.serve.deferral, timeout_seconds=3_600.0)
    running = Running(limited(spec, max_under_way=4, deferral=patient), store, broker, clock, ask)
    running.serve(model("1"))

    async def run():
        transport = httpx.ASGITransport(app=running.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:

            async def one(urgency, x=3.0, **more):
                headers = {"priority": urgency} if urgency else {}
                return await client.post("/v1/predict", json={"json": {"x": x}, **more}, headers=headers)

            slow = [asyncio.create_task(one("u=0", 0.0, allow_defer=True)) for _ in range(2)]
            while len(waiting) < 2:
                await asyncio.sleep(0.01)
            half = [await one(u) for u in ("u=7", "u=3", "u=0", "")] + [await one("", priority=7)]
            slow += [asyncio.create_task(one("u=0", 0.0, allow_defer=True)) for _ in range(2)]
            while len(waiting) < 4:
                await asyncio.sleep(0.01)
            full = [await one(u) for u in ("u=7", "u=0")]
            let.set()
            done = await asyncio.gather(*slow)
            return half, full, done, await one("u=7")

    half, full, done, after = asyncio.run(run())
    assert [a.status_code for a in half] == [429, 200, 200, 200, 429]
    assert [a.status_code for a in full] == [503, 503]
    assert [a.json()["title"] for a in (half[0], full[0])] == ["shed", "overloaded"]
    assert all(int(a.headers["retry-after"]) > 0 for a in (half[0], *full))
    assert [a.status_code for a in (*done, after)] == [200] * 5
    assert 'cohobate_shed{replica="r1",urgency="7",workload="signs"} 3.0' in running.call("GET", "/metrics").text


def test_a_batch_that_takes_too_long_is_answered_in_part(spec, store, broker, clock, model, monkeypatch):
    time = Time()
    monkeypatch.setattr("serving.gateway.answering.time", time)

    class Slow:
        card = None

        def reply_decoded(self, payloads):
            time.sleep(0.06)
            return [StudentReply(SoftLabel(task="classification", space="s", distribution={"neg": 1.0}), None)]

    running = Running(limited(spec, request_seconds=0.1), store, broker, clock)
    running.serve(model("1"))
    routing = running.versions.routing
    running.versions.routing = Routing(
        workload="signs", revision=1, intent=routing.intent, champion=Loaded(routing.champion.ref, Slow())
    )
    answers = running.predict(1.0, 2.0, 3.0, 4.0).json()["predictions"]
    assert [a["label"] for a in answers[:2]] == ["neg", "neg"]
    assert [a["error"]["title"] for a in answers[2:]] == ["timeout", "timeout"]


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
    assert prediction.turn == "candidate"
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


def asked_by_keys(running, n):
    """Ask ``n`` keys; the answers' arms by input id."""
    answers = [
        running.call("POST", "/v1/predict", json={"id": f"i{k}", "key": f"k{k}", "json": {"x": 3}}) for k in range(n)
    ]
    return {a.json()["id"]: a.json()["arm"] for a in answers}


def test_in_a_canary_both_answer_and_one_is_served(running, model):
    running.serve(model("1"), model("2", classes=("pos", "neg")), weight=0.5)
    served = asked_by_keys(running, 20)
    assert set(served.values()) == {"champion", "candidate"}
    for prediction in running.published():
        assert prediction.turn == prediction.answer.arm == served[prediction.input_id]
        both = {a.arm: (a.version, a.label, a.ok) for a in (prediction.answer, prediction.shadow)}
        assert both == {"champion": ("1", "pos", True), "candidate": ("2", "neg", True)}


@pytest.mark.parametrize("pairs", [0.0, 0.05, 0.4])
def test_pairs_are_the_audited_inputs_and_more_or_some_of_them(running, model, pairs):
    running.serve(model("1"), model("2"), weight=0.5, pairs=pairs)
    asked_by_keys(running, 60)
    found = [(p.shadow is not None, bucket("signs", AUDIT, p.input_id)) for p in running.published()]
    assert len(found) == 60 and all(paired == (place < pairs) for paired, place in found)
    assert any(paired for paired, _ in found) == (pairs > 0)


@pytest.mark.parametrize("bad", ["champion", "candidate"])
def test_a_student_that_fails_on_an_input_of_the_others_costs_no_answer_and_is_evidence(running, model, bad):
    rows = {"champion": {}, "candidate": {}, bad: {"rows": 1}}
    weight = 1.0 if bad == "champion" else 1e-9
    running.serve(model("1", **rows["champion"]), model("2", **rows["candidate"]), weight=weight)
    assert asked_by_keys(running, 1) == {"i0": "candidate" if bad == "champion" else "champion"}
    (prediction,) = running.published()
    assert (prediction.shadow.arm, prediction.shadow.ok, prediction.turn) == (bad, False, prediction.answer.arm)


def test_a_champion_that_finds_the_candidates_input_unusable_is_a_failure_of_its_own(running, model):
    class Refusing:
        def reply_decoded(self, payloads):
            raise RecordError("bad_feature", "no number")

    running.serve(model("1"), model("2"), weight=1.0)
    routing = running.versions.routing
    running.versions.routing = dataclasses.replace(routing, champion=Loaded(routing.champion.ref, Refusing()))
    assert asked_by_keys(running, 1) == {"i0": "candidate"}
    (prediction,) = running.published()
    assert not prediction.shadow.ok and "bad_feature" in prediction.shadow.error


def test_a_slow_shadow_does_not_slow_the_answer(running, model):
    asked = []

    class Slow:
        def reply_decoded(self, payloads):
            asked.append(payloads)
            time.sleep(0.01)
            return [StudentReply(SoftLabel(task="classification", space="s", distribution={"neg": 1.0}), None)]

    running.serve(model("1"), model("2"), shadow=True)
    routing = running.versions.routing
    candidate = Loaded(routing.candidate.ref, Slow())
    running.versions.routing = Routing(
        workload="signs", revision=1, intent=routing.intent, champion=routing.champion, candidate=candidate
    )
    running.predict(1.0)
    running.predict(1.0)
    assert asked == [], "it is asked when the answer has gone"
    assert [p.shadow.latency_ms >= 10 for p in running.published()] == [True, True] and len(asked) == 2


NOVEL = tuple(n / 10 for n in range(1, 20))
"""Scores of 19 inputs, of which x has 1 + |x|: one beyond them all has the p-value 0.05."""


def test_an_input_that_is_unlike_what_the_version_knows_is_deferred_however_sure_the_answer(
    spec, store, broker, clock, model
):
    running = Running(limited(spec, novelty=0.05), store, broker, clock)
    running.serve(model("1", novelty=(NOVEL,)))
    usual, novel = running.predict(0.25, 3.0).json()["predictions"]
    assert (usual["novelty"], usual["defer"]) == (0.4, False)
    assert novel["defer"] and novel["novelty"] == 0.05 and novel["confidence"] > 0.99
    assert novel["defer_reason"] == "the input is unlike what the version knows: novelty 0.050 is not above 0.05"
    assert [p.answer.novelty for p in running.published()] == [0.4, 0.05]
    assert 'cohobate_novel_total{workload="signs"} 1.0' in running.call("GET", "/metrics").text
    assert running.call("GET", "/v1/model").json()["champion"]["novelty"] == 0.05


def test_novelty_and_doubt_are_told_together(spec, store, broker, clock, model):
    running = Running(limited(spec, novelty=0.6), store, broker, clock)
    running.serve(model("1", novelty=(NOVEL,)))
    (answer,) = running.predict(0.05).json()["predictions"]
    assert answer["defer_reason"].startswith("confidence ") and "; the input is unlike" in answer["defer_reason"]


def test_a_version_that_tells_no_novelty_is_served_as_before(spec, store, broker, clock, model):
    running = Running(limited(spec, novelty=0.05), store, broker, clock)
    running.serve(model("1"))
    (answer,) = running.predict(1e6).json()["predictions"]
    assert (answer["defer"], answer["novelty"]) == (False, None)
    assert [p.answer.novelty for p in running.published()] == [None]
    assert running.call("GET", "/v1/model").json()["champion"]["novelty"] is None


def guarded(spec, store, broker, clock, model, ask=None, digest=None, below=0.95):
    """A champion that promised 25 %, of whose answers those below ``below`` are deferred while its lease is live."""
    spec = limited(spec, defer_below=0.0, max_disagreement=0.25)
    running = Running(spec, store, broker, clock, ask)
    champion = msgspec.structs.replace(model("1"), defer_below=0.6)
    running.serve(champion, guard=Guard(digest=digest or champion.digest, defer_below=below))
    return running


def test_a_guarded_champion_defers_more_and_everything_once_nobody_watches(spec, store, broker, clock, model):
    running = guarded(spec, store, broker, clock, model)
    low, some, sure = running.predict(0.01, 0.25, 3.0).json()["predictions"]
    assert low["defer"] and some["defer"] and not sure["defer"]
    assert "is guarded" in some["defer_reason"] and "below 0.95" in some["defer_reason"]
    assert running.call("GET", "/v1/model").json()["champion"]["defer_below"] == 0.95
    clock.now += 10
    (sure,) = running.predict(3.0).json()["predictions"]
    assert sure["defer"] and "every answer is deferred" in sure["defer_reason"]


def test_a_champion_without_a_certified_limit_answers_by_what_it_earned(spec, store, broker, clock, model):
    running = Running(limited(spec, defer_below=0.0, max_disagreement=0.25), store, broker, clock)
    champion = model("1")
    assert champion.defer_below is None
    running.serve(champion, guard=Guard(digest=champion.digest, defer_below=0.95))
    some, sure = running.predict(0.25, 3.0).json()["predictions"]
    assert some["defer"] and not sure["defer"] and "is guarded" not in some["defer_reason"]
    assert running.call("GET", "/v1/model").json()["champion"]["defer_below"] == 0.95
    clock.now += 10
    assert running.predict(3.0).json()["predictions"][0]["defer"], "nobody watches any more"


def test_a_guard_is_of_one_version(spec, store, broker, clock, model):
    running = guarded(spec, store, broker, clock, model, digest="0" * 64)
    assert [a["defer"] for a in running.predict(0.01, 0.25).json()["predictions"]] == [True, False]


def test_where_the_budget_ends_the_least_sure_and_the_most_novel_were_asked(spec, store, broker, clock, model):
    asked = []

    async def ask(entry, student, urgency, need, version=""):
        asked.append(entry.id)
        return Reply(None, "nobody is left")

    running = guarded(spec, store, broker, clock, model, ask, below=EVERY_ANSWER)
    answers = running.predict(3.0, 0.01, 0.25, allow_defer=True).json()["predictions"]
    assert asked == ["i1", "i2", "i0"] and all(a["degraded"] for a in answers)
    running.serve(model("2", novelty=(NOVEL,)), guard=None)
    running.gateway.spec = limited(running.gateway.spec, novelty=0.9, defer_below=1.0, max_disagreement=None)
    asked.clear()
    running.predict(0.01, 3.0, allow_defer=True)
    assert asked == ["i1", "i0"], "the sure answer is to an input that is like nothing known"


def test_without_a_limit_novelty_is_told_and_defers_nothing(running, model):
    running.serve(model("1", novelty=(NOVEL,)))
    (answer,) = running.predict(3.0).json()["predictions"]
    assert (answer["defer"], answer["novelty"]) == (False, 0.05)


def test_an_unsure_answer_says_defer(running, model):
    running.serve(model("1"))
    unsure, sure = running.predict(0.01, 3.0).json()["predictions"]
    assert unsure["defer"] and "below 0.7" in unsure["defer_reason"] and unsure["answered_by"] == "student"
    assert not sure["defer"] and sure["defer_reason"] is None
    assert [p.deferred for p in running.published()] == [True, False]


def test_a_deferred_answer_comes_from_the_teacher_where_allowed(spec, store, broker, clock, model):
    asked = []

    async def ask(entry, student, urgency, need, version=""):
        asked.append(entry.payload)
        return Reply(SoftLabel(task="classification", space="signs@1", distribution={"pos": 1.0}))

    running = Running(spec, store, broker, clock, ask)
    running.serve(model("1"))
    unsure, sure = running.predict(0.01, 3.0, allow_defer=True).json()["predictions"]
    assert (unsure["answered_by"], unsure["confidence"], unsure["defer"]) == ("teacher", 1.0, True)
    assert sure["answered_by"] == "student" and len(asked) == 1
    assert running.predict(0.01).json()["predictions"][0]["answered_by"] == "student"
    assert [p.answer.confidence < 0.7 for p in running.published()] == [False, True, True]  # when all have answered


@pytest.mark.parametrize("trouble", ["none", "raises", "hangs"])
def test_without_a_teacher_the_students_answer_stands(spec, store, broker, clock, model, trouble):
    async def ask(entry, student, urgency, need, version=""):
        if trouble == "raises":
            raise ConnectionError("away")
        await asyncio.sleep(60)

    quick = msgspec.structs.replace(spec.serve.deferral, timeout_seconds=0.05)
    spec = msgspec.structs.replace(spec, serve=msgspec.structs.replace(spec.serve, deferral=quick))
    running = Running(spec, store, broker, clock, None if trouble == "none" else ask)
    running.serve(model("1"))
    (answer,) = running.predict(0.01, allow_defer=True).json()["predictions"]
    assert answer["answered_by"] == "student" and answer["label"] in ("pos", "neg") and answer["defer"]
    assert answer["degraded"] and answer["defer_reason"].count("; ") == 1
    assert "cohobate_degraded_total{" in running.call("GET", "/metrics").text


def test_health_model_and_metrics(running, model, store, clock):
    intent = Intent(champion=model("1"), candidate=model("2"), weight=0.25, lease_until=clock.now + 10)
    store.put_intent("signs", 0, intent)
    assert running.call("GET", "/healthz").status_code == 503
    running.telemetry.start()
    running.versions.start()
    assert running.call("GET", "/healthz").json() == {"status": "ok"}
    wait_for(lambda: running.versions.routing.champion and running.versions.routing.candidate)
    assert running.call("GET", "/readyz").json() == {"status": "ready"}
    running.versions.stop()
    running.telemetry.stop()
    running.predict(1.0)
    told = running.call("GET", "/v1/model").json()
    assert (told["champion"]["version"], told["candidate"]["version"], told["weight"]) == ("1", "2", 0.25)
    assert told["champion"]["classes"] == ["neg", "pos"] and told["champion"]["defer_below"] == 0.7
    assert told["cold_start"]["first_answer_seconds"] > 0
    text = running.call("GET", "/metrics").text
    assert 'cohobate_candidate_weight{replica="r1",workload="signs"} 0.25' in text
    assert "cohobate_answers_total{" in text and "cohobate_telemetry_dropped{" in text


def test_the_schema_describes_every_answer(running):
    schema = running.call("GET", "/openapi.json").json()
    paths = schema["paths"]
    served = {route.path for route in running.app.routes.routes if not route.path.startswith("/v2/models")}
    assert served - {"/openapi.json"} <= set(paths)
    post = paths["/v1/predict"]["post"]
    assert {"200", "408", "413", "422", "429", "503"} <= set(post["responses"])
    assert {"Batch", "Single", "Answered", "Answers", "Model", "Problem", "InferRequest"} <= set(
        schema["components"]["schemas"]
    )


def test_the_limit_of_a_version_is_the_one_that_was_certified(spec, store, broker, clock, model):
    running = Running(limited(spec, defer_below=0.0, max_disagreement=0.05), store, broker, clock)
    running.serve(msgspec.structs.replace(model("1"), defer_below=0.9))
    unsure, sure = running.predict(0.2, 3.0).json()["predictions"]
    assert unsure["defer"] and "below 0.9" in unsure["defer_reason"] and not sure["defer"]
    running.serve(model("2"))
    (answer,) = running.predict(3.0).json()["predictions"]
    assert answer["defer"] and "no limit of confidence could be certified" in answer["defer_reason"]


DOCS, CLIENTS = ((Path(__file__).parents[3] / "docs" / name).read_text() for name in ("gateway.md", "clients.md"))
BODIES = [
    body for body in re.findall(r"```json\n(.*?)```", DOCS + CLIENTS, flags=re.DOTALL) if "mcpServers" not in body
]


@pytest.mark.parametrize("body", BODIES)
def test_the_requests_in_the_docs_are_read(body):
    assert wire.read_later(body.encode())[0].items


def test_the_deferral_in_the_docs_is_a_spec(spec, tmp_path):
    (section,) = re.findall(r"```yaml\n(.*?)```", DOCS, flags=re.DOTALL)
    lines = [line for line in (tmp_path / "signs.yaml").read_text().splitlines() if not line.startswith("serve:")]
    (tmp_path / "docs.yaml").write_text("\n".join([*lines, section]))
    serve = load_spec(tmp_path / "docs.yaml").serve
    assert serve.deferral.to == ("expert", "teacher", "review") and serve.defers
