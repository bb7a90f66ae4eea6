"""Files of inputs in one request."""

import asyncio
import io
import json
from datetime import UTC, datetime

import httpx
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.contracts.records import Input
from serving.gateway import batch
from serving.gateway.batch import PARQUET
from tests.serving.running import Running

LINES = "application/x-ndjson"


def post(running, content, kind, **headers):
    return running.call("POST", "/v1/batch", content=content, headers={"content-type": kind, **headers})


def lines(*xs):
    return b"".join(json.dumps({"id": f"i{n}", "json": {"x": x}}).encode() + b"\n" for n, x in enumerate(xs))


def parquet(**columns):
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def table(answer):
    return pq.read_table(io.BytesIO(answer.content)).to_pylist()


def test_more_lines_than_a_batch_are_answered_in_order(running):
    xs = [3.0 if n % 3 else -3.0 for n in range(11)]
    answer = post(running, lines(*xs[:5]) + b'{"json": 1, "text": "two"}\n\n' + lines(*xs[5:]), LINES)
    found = [json.loads(line) for line in answer.text.splitlines()]
    assert len(found) == 12 and found[5]["error"]["title"] == "invalid_request"
    assert "line 6" in found[5]["error"]["detail"]
    assert [p["label"] for n, p in enumerate(found) if n != 5] == ["pos" if x > 0 else "neg" for x in xs]
    assert answer.headers["content-type"] == LINES and len(running.published(Input)) == 11


def test_parquet_is_answered_by_parquet(running):
    at = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    data = parquet(
        text=['{"x": 3}', "{", None, '{"x": -3}', '{"x": 3}'], id=list("abcde"), time=pa.array([at] * 5), other=[0] * 5
    )
    found = table(post(running, data, PARQUET))
    assert [row["label"] for row in found] == ["pos", None, None, "neg", "pos"]
    assert [row["error"] for row in found] == [None, "undecodable", "invalid_request", None, None]
    assert "row 3" in found[2]["error_detail"] and found[2]["error_status"] == 422
    assert dict(found[0]["soft_label"])["pos"] > 0.9 and found[0]["defer"] is False
    assert [(e.id, e.time) for e in running.published(Input)] == [(n, at.timestamp()) for n in "ade"]


def test_the_columns_are_those_of_the_first_gateways_for_a_task_without_more(running):
    found = pq.read_table(io.BytesIO(post(running, parquet(text=['{"x": 3}']), PARQUET).content))
    assert found.column_names == [
        "id", "request_id", "label", "confidence", "soft_label", "model_version", "snapshot", "teacher", "arm", "defer",
        "defer_reason", "degraded", "answered_by", "novelty", "error", "error_status", "error_detail",
    ]  # fmt: skip


@pytest.mark.parametrize("column", [{"payload": [b'{"x": 3}']}, {"json": [{"x": 3.0}]}])
def test_every_form_of_a_payload(running, column):
    assert table(post(running, parquet(**column), PARQUET))[0]["label"] == "pos"
    other = post(running, parquet(**column), PARQUET, accept=LINES)
    assert json.loads(other.text)["label"] == "pos"


@pytest.mark.parametrize(
    ("content", "kind", "status", "names"),
    [
        (b"x", "text/csv", 415, "text/csv"),
        (b"", LINES, 422, "no input"),
        (b"no parquet at all", PARQUET, 400, "not Parquet"),
        (parquet(id=["a"]), PARQUET, 422, "exactly one of payload, text, json"),
        (parquet(text=["a"], payload=[b"a"]), PARQUET, 422, "payload, text"),
    ],
)
def test_what_is_no_file_of_inputs_is_refused(running, content, kind, status, names):
    answer = post(running, content, kind)
    assert answer.status_code == status and names in answer.json()["detail"]


def test_a_file_is_bounded(spec, store, broker, clock, model):
    small = msgspec.structs.replace(spec, serve=msgspec.structs.replace(spec.serve, file_bytes=64))
    running = Running(small, store, broker, clock)
    running.serve(model("1"))
    assert post(running, lines(*range(9)), LINES).status_code == 413


def waiting(spec, seconds):
    return msgspec.structs.replace(spec, serve=msgspec.structs.replace(spec.serve, request_seconds=seconds))


def test_it_waits_for_room_and_live_requests_go_first(spec, store, broker, clock, model):
    running = Running(waiting(spec, 60.0), store, broker, clock)
    running.serve(model("1"))
    pressure = running.gateway.pressure
    pressure.under_way = pressure.most

    async def run():
        transport = httpx.ASGITransport(app=running.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            asked = asyncio.create_task(
                client.post("/v1/batch", content=lines(3.0, -3.0), headers={"content-type": LINES})
            )
            while not pressure.shed[6]:
                await asyncio.sleep(0.01)
            pressure.under_way = 0
            return await asked

    answer = asyncio.run(run())
    assert [json.loads(line)["label"] for line in answer.text.splitlines()] == ["pos", "neg"]


def test_what_finds_no_room_is_refused_in_its_place(spec, store, broker, clock, model, monkeypatch):
    running = Running(waiting(spec, 60.0), store, broker, clock)
    running.serve(model("1"))
    pressure = running.gateway.pressure
    leave, slept = pressure.leave, asyncio.sleep

    async def at_once(seconds):
        """The time of who waits for room is over at once, and that of nobody else."""
        if seconds == batch.LOOK_SECONDS:
            loop = asyncio.get_running_loop()
            monkeypatch.setattr(loop, "time", lambda now=loop.time: now() + 60.0)
        await slept(0)

    monkeypatch.setattr(batch.asyncio, "sleep", at_once)

    def fill():
        leave()
        pressure.under_way = pressure.most

    monkeypatch.setattr(pressure, "leave", fill)
    found = [json.loads(line) for line in post(running, lines(*[3.0] * 6), LINES).text.splitlines()]
    assert [p["label"] for p in found] == ["pos"] * 4 + [None] * 2
    assert {p["error"]["title"] for p in found[4:]} == {"overloaded"}
    assert post(running, lines(3.0), LINES).status_code == 503, "before any answer went out it is the status"


def test_without_a_champion_the_status_says_so(spec, store, broker, clock):
    assert post(Running(spec, store, broker, clock), lines(1.0), LINES).status_code == 503


def test_it_waits_while_the_stream_is_slow(spec, store, broker, clock, model, monkeypatch):
    """What is published of a file must not push out what live requests publish."""
    small = waiting(spec, 60.0)
    small = msgspec.structs.replace(small, serve=msgspec.structs.replace(small.serve, buffer_records=6))
    running = Running(small, store, broker, clock)
    running.serve(model("1"))

    slept = asyncio.sleep

    async def drained(seconds):
        if seconds == batch.LOOK_SECONDS:
            running.telemetry.drain(broker.producer(), timeout=0.0)
        await slept(0)

    monkeypatch.setattr(batch.asyncio, "sleep", drained)
    answer = post(running, lines(*[3.0] * 20), LINES)
    assert len(answer.text.splitlines()) == 20 and running.telemetry.dropped == 0
    assert len(running.published(Input)) == 20
