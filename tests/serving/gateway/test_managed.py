"""What SageMaker and Vertex AI ask their containers."""

import base64
import json

import pytest

from components.contracts.records import Input
from tests.serving.running import Running


def invoke(running, content, kind="application/json"):
    return running.call("POST", "/invocations", content=content, headers={"content-type": kind})


def test_a_container_says_when_it_is_ready(running, spec, store, broker, clock):
    assert running.call("GET", "/ping").status_code == 200
    assert Running(spec, store, broker, clock).call("GET", "/ping").status_code == 503


def test_instances_are_answered_by_predictions_in_order(running):
    instances = [{"x": 3}, '{"x": -3}', {"b64": base64.b64encode(b'{"x": 2}').decode()}, "{"]
    body = {"instances": instances, "parameters": {"ids": ["a", None, "c", None], "keys": ["k", None, None, None]}}
    answer = invoke(running, json.dumps(body))
    found = answer.json()["predictions"]
    assert [p["label"] for p in found] == ["pos", "neg", "pos", None] and found[3]["error"]["title"] == "undecodable"
    assert [(e.id, e.key) for e in running.published(Input)][0::2] == [("a", "k"), ("c", "c")]


def test_a_native_request_is_taken_too(running):
    one = invoke(running, json.dumps({"json": {"x": 3}, "id": "a"}))
    many = invoke(running, json.dumps({"inputs": [{"json": {"x": 3}}, {"json": {"x": -3}}]}))
    assert one.json()["label"] == "pos" and [p["label"] for p in many.json()["predictions"]] == ["pos", "neg"]
    payload = invoke(running, json.dumps({"json": {"x": 3, "instances": 1}}))
    assert payload.json()["label"] == "pos", "a payload may have a field of this name"


def test_a_batch_transform_gets_a_line_for_a_line(running):
    lines = b'{"json": {"x": 3}}\n\n{"text": "{"}\n{"json": {"x": -3}}\n'
    answer = invoke(running, lines, "application/jsonlines; charset=utf-8")
    assert answer.headers["content-type"] == "application/jsonlines"
    found = [json.loads(line) for line in answer.text.splitlines()]
    assert [p["label"] for p in found] == ["pos", None, "neg"]


@pytest.mark.parametrize("kind", ["text/plain", "application/octet-stream", "image/png"])
def test_any_other_body_is_the_payload(running, kind):
    assert invoke(running, b'{"x": 3}', kind).json()["label"] == "pos"
    assert invoke(running, b"{", kind).status_code == 422


@pytest.mark.parametrize(
    ("content", "kind", "status", "names"),
    [
        (b"{", "application/json", 400, "not JSON"),
        (b'{"instances": []}', "application/json", 422, "instances"),
        (b'{"instances": [1, 2], "parameters": {"ids": ["a"]}}', "application/json", 422, "1 elements for 2 instances"),
        (b'{"instances": [1], "parameters": {"id": "a"}}', "application/json", 422, "`id`"),
        (b'{"instances": [{"b64": "***"}]}', "application/json", 422, r"instances[0].b64"),
        (b'{"instances": [1, 2, 3, 4, 5]}', "application/json", 413, "at most 4"),
        (b"\n", "application/jsonlines", 422, "no line"),
        (b'{"json": 1}\n{"jsn": 1}\n', "application/jsonlines", 422, "line 2"),
        (b'{"inputs": [{"json": 1}]}\n', "application/jsonlines", 422, "line 1: a line is one input"),
        (b'{"instances": [' + b"[" * 99 + b"]" * 99 + b"]}", "application/json", 422, "nested"),
    ],
)
def test_bad_requests_say_what_is_wrong(running, content, kind, status, names):
    answer = invoke(running, content, kind)
    assert answer.status_code == status and names in answer.json()["detail"]
