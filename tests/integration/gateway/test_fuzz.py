"""What strangers send: bodies made from the OpenAPI document, broken ones, and clients that are slow or rude.

No answer may be a 5xx, except 503 where that is documented."""

import json
import os
import socket
import subprocess
import sys

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.contracts.spec.serve import Asynchronous
from serving.gateway.app import create_app
from serving.gateway.asynchronous import Later
from serving.gateway.edge import Edges
from tests.servers import answering
from tests.serving.running import Running
from tests.waiting import wait_for


@pytest.fixture
def running(spec, store, broker, clock, model, tmp_path):
    """A gateway with all that a replica serves."""
    serve = msgspec.structs.replace(spec.serve, asynchronous=Asynchronous())
    made = Running(msgspec.structs.replace(spec, serve=serve), store, broker, clock)
    later = Later(made.gateway, store, serve.asynchronous, None)
    made.app = create_app(made.gateway, later=later, edges=Edges(made.gateway, store, tmp_path.as_uri()))
    made.serve(model("1"), model("2"), weight=0.5)
    made.parts = (store, broker, clock)
    return made


@pytest.fixture
def address(running):
    with answering(running.app) as at:
        yield at


@pytest.mark.integration
def test_schemathesis_finds_no_answer_that_is_not_documented(address, tmp_path):
    pytest.importorskip("schemathesis", reason="schemathesis is not installed (extra dev)")
    host, port = address
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"http://{host}:{port}/openapi.json",
        "--checks", checks, "--max-examples", "25", "--seed", "1", "--no-color", "--phases", "examples,fuzzing",
        "--exclude-path-regex", "healthz|live|batch",
    ]  # fmt: skip
    code = "import sys; from schemathesis.cli import schemathesis; sys.argv[0] = 'schemathesis'; schemathesis()"
    command[1:3] = ["-c", code]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=400,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
ITEM = st.fixed_dictionaries(
    {}, optional={"id": JSON, "key": st.text(), "time": JSON, "json": JSON, "text": st.text(), "payload": st.text()}
)
TENSOR = st.fixed_dictionaries(
    {"name": st.sampled_from(["payload", "key", "id", "consent", "x"]), "shape": st.lists(st.integers(), max_size=3)},
    optional={
        "datatype": st.sampled_from(["BYTES", "FP32"]), "data": st.lists(st.text() | JSON, max_size=3),
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": JSON}),
    },
)  # fmt: skip
TRUTH = st.fixed_dictionaries(
    {"source": st.text(max_size=5)},
    optional={"id": JSON, "request_id": JSON, "label": JSON, "value": JSON, "time": JSON, "known_at": JSON},
)
BODIES = st.one_of(
    TRUTH.map(json.dumps).map(str.encode),
    st.fixed_dictionaries({"truths": st.lists(TRUTH, max_size=3)}).map(json.dumps).map(str.encode),
    st.binary(max_size=300),
    JSON.map(json.dumps).map(str.encode),
    ITEM.map(json.dumps).map(str.encode),
    st.fixed_dictionaries({"inputs": st.lists(ITEM | TENSOR, max_size=3)}).map(json.dumps).map(str.encode),
    st.fixed_dictionaries({"inputs": st.lists(TENSOR, max_size=3)}).map(json.dumps).map(lambda t: t.encode("utf-16")),
)


MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "system"])},
    optional={"content": st.text() | st.lists(st.dictionaries(st.sampled_from(["type", "text", "image_url"]), JSON))},
)
CHAT = st.fixed_dictionaries(
    {"model": st.sampled_from(["signs", "signs@2", "signs@9"]), "messages": st.lists(MESSAGE, max_size=2)},
    optional={"n": JSON, "stream": st.booleans(), "logprobs": st.booleans(), "metadata": JSON, "user": JSON},
)
INSTANCES = st.fixed_dictionaries(
    {"instances": st.lists(JSON | st.fixed_dictionaries({"b64": JSON}), max_size=3)},
    optional={"parameters": st.fixed_dictionaries({}, optional={"ids": JSON, "priority": JSON})},
)
OTHERS = (CHAT | INSTANCES).map(json.dumps).map(str.encode)
KINDS = ("application/json", "application/jsonlines", "text/csv", "application/vnd.apache.parquet", "")


@pytest.mark.parametrize("path", ["/invocations", "/v1/batch", "/v1/chat/completions"])
def test_no_body_of_any_type_makes_other_protocols_fail(running, path):
    @settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
    @given(body=OTHERS | BODIES, kind=st.sampled_from(KINDS))
    def check(body, kind):
        answer = running.call("POST", path, content=body, headers={"content-type": kind})
        assert answer.status_code < 500, answer.text
        if answer.status_code != 200:
            assert answer.headers["content-type"] == "application/problem+json" and answer.json()["title"]

    check()


@pytest.mark.parametrize("path", ["/v1/predict", "/v2/models/signs/infer", "/v1/truth"])
def test_no_body_makes_the_gateway_fail(running, path):
    @settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
    @given(body=BODIES, length=st.none() | st.integers(-2, 400).map(str))
    def check(body, length):
        headers = {} if length is None else {"Inference-Header-Content-Length": length}
        answer = running.call("POST", path, content=body, headers=headers)
        assert answer.status_code < 500, answer.text
        if answer.status_code != 200:
            assert answer.headers["content-type"] == "application/problem+json" and answer.json()["title"]

    check()


def rude(address, data):
    """Send bytes over a socket and read what comes."""
    with socket.create_connection(address, timeout=90) as s:
        s.sendall(data)
        got = b""
        while chunk := s.recv(4096):
            got += chunk
            if b"\r\n\r\n" in got and b"}" in got.partition(b"\r\n\r\n")[2]:
                break
        return got


def test_slow_and_rude_clients_cost_themselves_only(running, address):
    assert running.gateway.spec.serve.request_seconds > 90.0, "a slow one has its place all the while"
    head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n"
    slow = [socket.create_connection(address) for _ in range(20)]
    for s in slow:
        s.sendall(head + b'{"json": ')
    url = f"http://{address[0]}:{address[1]}/v1/predict"
    with httpx.Client(timeout=90) as client:
        assert [client.post(url, json={"json": {"x": 3}}).status_code for _ in range(30)] == [200] * 30
        for s in slow[:10]:
            s.close()  # in the middle of their bodies
        for data in (b"\x00" * 64 + b"\r\n\r\n}", b"GET / HTTP/9.9\r\n\r\n}", head.replace(b"500", b"-5") + b"}"):
            answer = rude(address, data)
            assert b" 400 " in answer.partition(b"\r\n")[0], answer
        assert client.post(url, json={"json": {"x": 3}}).status_code == 200
    for s in slow[10:]:
        s.close()
    wait_for(lambda: running.gateway.pressure.under_way == 0)


def test_a_client_that_is_too_slow_is_told_so(running):
    serve = msgspec.structs.replace(running.spec.serve, request_seconds=0.05)
    hasty = Running(msgspec.structs.replace(running.spec, serve=serve), *running.parts)
    hasty.versions.routing = running.versions.routing
    with answering(hasty.app) as address:
        assert b" 408 " in rude(address, b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{")
    wait_for(lambda: hasty.gateway.pressure.under_way == 0)
