"""Personal data is masked at every door of the gateway, before anything is published, kept or answered."""

import asyncio
import base64
import json

import httpx
import msgspec
import pytest
from sqlalchemy import select

from components.contracts.records import Input, Prediction, content_hash
from components.contracts.spec import Factory, Masking
from components.contracts.spec.serve import Asynchronous
from components.control.tables import RequestRow
from serving.gateway.app import create_app
from serving.gateway.asynchronous import Later
from serving.gateway.edge import Edges
from tests.serving.running import Running

GIVEN = {"x": 3, "note": "write to ada@example.com"}
KEPT = b'{"x": 3, "note": "write to [EMAIL]"}'
TEXT = json.dumps(GIVEN)
PACKED = base64.b64encode(TEXT.encode()).decode()
PREDICTION = {
    "request_id": "r", "model_version": "1", "digest": "d", "arm": "champion", "label": "pos", "confidence": 0.9,
    "latency_ms": 1.5,
}  # fmt: skip

DOORS = {
    "/v1/predict": ({"json": GIVEN}, "application/json"),
    "/v1/predict text": ({"inputs": [{"text": TEXT}]}, "application/json"),
    "/v1/predict payload": ({"payload": PACKED}, "application/json"),
    "/v1/batch": ({"json": GIVEN}, "application/x-ndjson"),
    "/invocations": ({"instances": [GIVEN]}, "application/json"),
    "/v1/chat/completions": (
        {"model": "signs", "messages": [{"role": "user", "content": TEXT}]}, "application/json",
    ),
    "/v2/models/signs/infer": (
        {"inputs": [{"name": "payload", "shape": [1], "datatype": "BYTES", "data": [TEXT]}]}, "application/json",
    ),
    "/v1/edge/records": (
        {"records": [{"id": "a", "key": "k", "time": 1.0, "payload": PACKED, "prediction": PREDICTION}]},
        "application/json",
    ),
}  # fmt: skip


@pytest.fixture
def masking(spec):
    serve = msgspec.structs.replace(spec.serve, asynchronous=Asynchronous())
    return msgspec.structs.replace(spec, serve=serve, masking=Masking(entities=("EMAIL",)))


@pytest.fixture
def masked(masking, store, broker, clock, model, tmp_path):
    store.clock = clock
    running = Running(masking, store, broker, clock)
    running.edges = Edges(running.gateway, store, tmp_path.as_uri())
    running.later = Later(running.gateway, store, masking.serve.asynchronous)
    running.app = create_app(running.gateway, later=running.later, edges=running.edges)
    running.serve(model("1"))
    return running


def everything(broker):
    return b"".join(bytes(r.value or b"") for log in broker.logs.values() for r in log)


@pytest.mark.parametrize("door", DOORS)
def test_what_is_published_is_masked_whichever_way_it_came_in(masked, broker, clock, door):
    body, kind = DOORS[door]
    if "records" in body:
        body = {"records": [body["records"][0] | {"time": clock.now}]}
    answer = masked.call("POST", door.split()[0], content=json.dumps(body) + "\n", headers={"content-type": kind})
    assert answer.status_code == 200, answer.text
    assert [entry.payload for entry in masked.published(Input)] == [KEPT]
    assert b"example.com" not in everything(broker)
    assert 'cohobate_masked_total{kind="EMAIL",workload="signs"} 1.0' in masked.call("GET", "/metrics").text


def test_the_prediction_is_of_the_masked_content_and_the_sample_that_is_kept_too(masked):
    first, second = (
        masked.call("POST", "/v1/predict", json={"id": i, "json": GIVEN | {"note": f"write to {i}@example.com"}}).json()
        for i in ("ada", "grace")
    )
    assert first["soft_label"] == second["soft_label"]
    assert {p.content for p in masked.published(Prediction)} == {content_hash(KEPT)}
    assert bytes(masked.versions.sample) == KEPT


@pytest.mark.parametrize("body", [{"json": GIVEN}, {"inputs": [{"id": "a", "text": TEXT}, {"payload": PACKED}]}])
def test_a_request_that_waits_for_its_answer_waits_masked_and_is_the_same_when_it_is_sent_again(masked, store, body):
    async def run():
        transport = httpx.ASGITransport(app=masked.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            sent = [await client.post("/v1/requests", json=body, headers={"Idempotency-Key": "k"}) for _ in range(2)]
            with store.session() as s:
                kept = s.scalars(select(RequestRow)).one().content
            async with masked.later.running():
                while (told := (await client.get(sent[0].headers["location"])).json())["status"] == "accepted":
                    await asyncio.sleep(0.005)
        return sent, kept, told

    sent, kept, told = asyncio.run(run())
    assert [a.status_code for a in sent] == [202, 202] and sent[0].json() == sent[1].json()
    assert b"example.com" not in kept and PACKED.encode() not in kept
    assert {p["label"] for p in told["predictions"]} == {"pos"}
    assert {entry.payload for entry in masked.published(Input)} == {KEPT}


def own(masking, tmp_path, body):
    """A spec whose finder is the body of a function of a text."""
    (tmp_path / "finder.py").write_text(f"def find(text):\n    {body}\n\n\ndef made():\n    return find\n")
    return msgspec.structs.replace(
        masking, source=str(tmp_path / "spec.yaml"),
        masking=Masking(entities=("NAME",), finder=Factory(factory="finder.py:made")),
    )  # fmt: skip


def nothing_is_kept(running, store, broker):
    with store.session() as s:
        return running.published(Input) == [] and everything(broker) == b"" and not s.scalars(select(RequestRow)).all()


@pytest.mark.parametrize("door", ["/v1/predict", "/v1/requests"])
def test_an_input_that_could_not_be_searched_is_refused_and_nothing_is_kept_of_it(
    masking, store, broker, clock, model, tmp_path, door
):
    spec = own(masking, tmp_path, "return [('NAME', 0, 1)]")
    running = Running(spec, store, broker, clock)
    running.app = create_app(running.gateway, later=Later(running.gateway, store, spec.serve.asynchronous))
    running.serve(model("1"))
    answer = running.call("POST", door, json={"json": GIVEN})
    assert (answer.status_code, answer.json()["title"]) == (422, "mask_failed")
    assert "example" not in answer.text and nothing_is_kept(running, store, broker)


@pytest.mark.parametrize(
    "door", ["/v1/predict", "/v1/requests", "/v1/chat/completions", "/v2/models/signs/infer", "/v1/edge/records"]
)
def test_while_the_finder_fails_who_asks_is_told_to_come_back_and_nothing_is_kept(
    masking, store, broker, clock, model, tmp_path, door
):
    spec = own(masking, tmp_path, "raise ValueError(text)")
    running = Running(spec, store, broker, clock)
    edges = Edges(running.gateway, store, tmp_path.as_uri())
    running.app = create_app(running.gateway, later=Later(running.gateway, store, spec.serve.asynchronous), edges=edges)
    running.serve(model("1"))
    body = DOORS[door][0] if door in DOORS else {"json": GIVEN}
    if "records" in body:
        body = {"records": [body["records"][0] | {"time": clock.now}]}
    answer = running.call("POST", door, json=body)
    assert (answer.status_code, answer.json()["title"]) == (503, "mask_unavailable"), answer.text
    assert answer.headers["Retry-After"] == "5"
    assert answer.json()["detail"].endswith("personal data could not be looked for: the search raised ValueError")
    assert "example" not in answer.text and nothing_is_kept(running, store, broker)


def test_without_masking_nothing_is_counted(running, model):
    running.serve(model("1"))
    assert running.call("POST", "/v1/predict", json={"json": GIVEN}).status_code == 200
    assert [entry.payload for entry in running.published(Input)] == [TEXT.encode()]
    assert "cohobate_masked_total{" not in running.call("GET", "/metrics").text


ALONE = "if 'poison' in text: raise ValueError(text)\n    return []"
"""Fails on one text alone."""


def test_an_input_that_the_finder_alone_fails_on_is_refused_and_the_others_are_answered(
    masking, store, broker, clock, model, tmp_path
):
    running = Running(own(masking, tmp_path, ALONE), store, broker, clock)
    running.serve(model("1"))
    body = {"inputs": [{"json": {"x": 3, "note": note}} for note in ("poison", "good")]}
    first, second = running.call("POST", "/v1/predict", json=body).json()["predictions"]
    assert (first["error"]["status"], first["error"]["title"]) == (422, "mask_failed")
    assert "poison" not in json.dumps(first) and second["label"] == "pos"


def test_an_edge_is_told_which_record_the_finder_alone_fails_on(masking, store, broker, clock, model, tmp_path):
    running = Running(own(masking, tmp_path, ALONE), store, broker, clock)
    running.app = create_app(running.gateway, edges=Edges(running.gateway, store, tmp_path.as_uri()))
    running.serve(model("1"))
    (record,) = DOORS["/v1/edge/records"][0]["records"]
    sent = [
        record
        | {
            "id": name,
            "time": clock.now,
            "payload": base64.b64encode(b'{"x": 3, "note": "%s"}' % name.encode()).decode(),
        }
        for name in ("poison", "good")
    ]
    answer = running.call("POST", "/v1/edge/records", json={"records": sent})
    assert answer.status_code == 200, answer.text
    first, second = answer.json()["records"]
    assert (first["accepted"], first["error"]["title"], second["accepted"]) == (False, "mask_failed", True)


def test_a_finder_that_takes_its_time_holds_up_nobody_else(masking, store, broker, clock, model, tmp_path):
    (tmp_path / "waiting.py").write_text(
        "import pathlib\nimport time\n\n\ndef wait():\n    while not pathlib.Path(__file__).with_name('go').exists():\n"
        "        time.sleep(0.01)\n"
    )
    wait = "import waiting\n    waiting.wait()\n    return []"
    spec = own(masking, tmp_path, wait)
    spec = msgspec.structs.replace(spec, masking=msgspec.structs.replace(spec.masking, finder_seconds=60.0))
    running = Running(spec, store, broker, clock)
    running.app = create_app(running.gateway)
    running.serve(model("1"))

    async def run():
        transport = httpx.ASGITransport(app=running.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            asked = asyncio.create_task(client.post("/v1/predict", json={"json": GIVEN}))
            other = await client.get("/metrics")
            while not (running.gateway.pressure.under_way or asked.done()):
                await asyncio.sleep(0)
            early = asked.done()
            (tmp_path / "go").touch()
            return other.status_code, early, (await asked).json()

    status, early, answer = asyncio.run(run())
    assert (status, early, answer["label"]) == (200, False, "pos")


def test_a_request_that_was_accepted_waits_for_a_finder_that_went_away(masking, store, broker, clock, model, tmp_path):
    body = (
        "import pathlib\n    if pathlib.Path(__file__).with_name('away').exists(): raise OSError(text)\n    return []"
    )
    spec = own(masking, tmp_path, body)
    store.clock = clock
    running = Running(spec, store, broker, clock)
    later = Later(running.gateway, store, spec.serve.asynchronous)
    running.app = create_app(running.gateway, later=later)
    running.serve(model("1"))
    accepted = running.call("POST", "/v1/requests", json={"json": GIVEN})
    assert accepted.status_code == 202, accepted.text

    def answered():
        with store.session() as s:
            row = s.scalars(select(RequestRow)).one()
            s.expunge(row)
        asyncio.run(later._answer(row))
        return running.call("GET", accepted.headers["location"]).json()

    (tmp_path / "away").touch()
    assert answered()["status"] == "accepted"
    (tmp_path / "away").unlink()
    told = answered()
    assert (told["status"], told["predictions"][0].get("error")) == ("answered", None), told
