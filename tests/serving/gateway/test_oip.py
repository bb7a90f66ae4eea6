"""The Open Inference Protocol with Triton's own client, over a real socket."""

import json
import struct
from types import SimpleNamespace

import numpy as np
import pytest

from components.contracts.records import Input
from serving.gateway import oip
from serving.gateway.wire import RequestError
from tests.servers import answering
from tests.serving.running import Running

client_of = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed (extra dev)")


@pytest.fixture
def running(spec, store, broker, clock, model):
    made = Running(spec, store, broker, clock)
    made.serve(model("1"), model("2"), weight=0.5)
    return made


@pytest.fixture
def client(running):
    with answering(running.app) as (_, port):
        made = client_of.InferenceServerClient(f"127.0.0.1:{port}")
        yield made
        made.close()


def tensor(name, values, binary):
    made = client_of.InferInput(name, [len(values)], "BYTES")
    made.set_data_from_numpy(np.array(values, dtype=np.object_), binary_data=binary)
    return made


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client_is_answered(client, running, binary):
    inputs = [
        tensor("payload", [b'{"x": 3}', b'{"x": -3}', b"{"], binary),
        tensor("key", [b"alice", b"bob", b"eve"], not binary),
        tensor("id", [b"a", b"b", b"c"], binary),
        tensor("consent", [b"training", b"", b""], binary),
    ]
    names = ("label", "confidence", "probabilities", "defer", "error", "version", "arm")
    outputs = [client_of.InferRequestedOutput(name, binary_data=binary) for name in names]
    answer = client.infer("signs", inputs, outputs=outputs, request_id="r", priority=1)
    text = lambda name: [v.decode() if isinstance(v, bytes) else v for v in answer.as_numpy(name)]  # noqa: E731
    assert text("label") == ["pos", "neg", ""]
    assert answer.as_numpy("probabilities").shape == (3, 2) and answer.as_numpy("probabilities")[0, 1] > 0.9
    assert answer.as_numpy("confidence")[0] == pytest.approx(answer.as_numpy("probabilities")[0, 1])
    assert answer.as_numpy("defer").tolist() == [False, False, False]
    assert text("error")[:2] == ["", ""] and text("error")[2].startswith("undecodable")
    assert answer.get_response()["id"] == "r" and set(text("arm")[:2]) <= {"champion", "candidate"}
    assert [(i.id, i.consent) for i in running.published(Input)] == [("a", "training"), ("b", None)]


def test_without_named_outputs_all_come(client):
    answer = client.infer("signs", [tensor("payload", [b'{"x": 3}'], True)])
    assert answer.as_numpy("label")[0] == b"pos" and answer.as_numpy("probabilities") is not None


def test_health_and_metadata(client, running):
    assert client.is_server_ready() and client.is_model_ready("signs") and client.is_model_ready("signs", "2")
    assert not client.is_server_live()  # no thread of this replica was started
    assert not client.is_model_ready("other") and not client.is_model_ready("signs", "9")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    told = client.get_model_metadata("signs")
    assert told["versions"] == ["1", "2"] and told["parameters"]["classes"] == "neg,pos"
    assert json.loads(told["parameters"]["classes_json"]) == ["neg", "pos"]
    shapes = {o["name"]: o["shape"] for o in told["outputs"]}
    assert shapes["probabilities"] == [-1, 2] and shapes["label"] == [-1]


def test_a_version_that_is_asked_for_answers_and_is_no_evidence(client, running):
    arms = {"champion": [], "candidate": []}  # which one a key falls to hangs on the students' digests
    for n in range(64):
        arms[running.versions.routing.choose(f"k{n}", running.clock()).arm].append(b"k%d" % n)
    keys = [*arms["champion"][:2], *arms["candidate"][:2]]
    payloads = tensor("payload", [b'{"x": 3}'] * 4, True)
    answer = client.infer("signs", [payloads, tensor("key", keys, True)], model_version="2")
    assert set(answer.as_numpy("version")) == {b"2"} and answer.get_response()["model_version"] == "2"
    # Also not where the split would have chosen the same: the others are missing, and the sample ratio would tell.
    assert running.published() == []
    assert [i.key for i in running.published(Input)] == [k.decode() for k in keys]


def test_errors_are_told_as_tritons_client_reads_them(client):
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException, match="undecodable") as caught:
        client.infer("signs", [tensor("payload", [b"{"], True)])
    assert caught.value.status() == "422"
    with pytest.raises(InferenceServerException, match="no model 'other'"):
        client.infer("other", [tensor("payload", [b"{}"], True)])
    with pytest.raises(InferenceServerException, match="version '7' is not loaded"):
        client.infer("signs", [tensor("payload", [b"{}"], True)], model_version="7")
    with pytest.raises(InferenceServerException, match="at most 4 inputs"):
        client.infer("signs", [tensor("payload", [b"{}"] * 5, True)])


def body(inputs, tail=b"", **more):
    head = json.dumps({"inputs": inputs, **more}).encode()
    return head + tail, str(len(head))


PAYLOAD = {"name": "payload", "shape": [1], "datatype": "BYTES"}
ONE = struct.pack("<I", 2) + b"{}"


@pytest.mark.parametrize(
    ("inputs", "tail", "why"),
    [
        ([], b"", "length >= 1"),
        ([{**PAYLOAD, "name": "other", "data": ["x"]}], b"", "not one of"),
        ([{**PAYLOAD, "datatype": "FP32", "data": [1.0]}], b"", "BYTES"),
        ([{**PAYLOAD, "data": [1]}], b"", "no strings"),
        ([{**PAYLOAD, "shape": [2], "data": ["x"]}], b"", "shape"),
        ([{**PAYLOAD, "shape": [-1], "data": ["x"]}], b"", ">= 0"),
        ([{**PAYLOAD, "shape": [1, 1, 1], "data": ["x"]}], b"", "shape"),
        ([{**PAYLOAD, "data": ["x"]}, {**PAYLOAD, "data": ["x"]}], b"", "twice"),
        ([{**PAYLOAD, "shape": [0], "data": []}], b"", "at least one"),
        ([{**PAYLOAD, "parameters": {"binary_data_size": 7}}], ONE, "bytes are left"),
        ([{**PAYLOAD, "parameters": {"binary_data_size": 5}}], ONE, "cut within"),
        ([{**PAYLOAD, "parameters": {"binary_data_size": True}}], ONE, "bytes are left"),
        ([{**PAYLOAD, "parameters": {"binary_data_size": 6}}], ONE + b"x", "belong to none"),
        ([{**PAYLOAD, "data": ["x"]}, {**PAYLOAD, "name": "key", "data": ["k" * 300]}], b"", "256"),
    ],
)
def test_what_is_malformed_is_a_400(inputs, tail, why):
    with pytest.raises(RequestError, match=why) as caught:
        oip.read(*body(inputs, tail))
    assert caught.value.problem.status == 400


@pytest.mark.parametrize("length", ["x", "-1", "9999", "²"])
def test_a_wrong_length_of_the_json_is_a_400(length):
    with pytest.raises(RequestError, match="must be a number"):
        oip.read(b"{}", length)


def test_a_class_with_a_comma_in_its_name_is_one_class(spec):
    names = ("pay, overdue", 'say "no"', "plain")
    loaded = SimpleNamespace(
        student=SimpleNamespace(card=SimpleNamespace(classes=names, dimension=0, space="s@1")),
        ref=SimpleNamespace(version="1"),
    )
    told = oip.metadata(spec, SimpleNamespace(champion=loaded, candidate=None)).parameters
    assert tuple(json.loads(told["classes_json"])) == names and told["classes"] == 'pay, overdue,say "no",plain'
