"""A workload of vectors over every protocol: natively, by Open Inference, in Parquet, and by OpenAI's own client."""

import base64
import io
import json
import math
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.contracts.records import vector_of
from components.contracts.spec import load_spec
from components.contracts.storage import digest_of, put_bytes
from components.control.intent import ModelRef
from components.stream.memory import MemoryBroker
from serving.gateway import chat, embeddings, oip
from serving.gateway.wire import RequestError
from tests.servers import answering
from tests.serving.running import Running
from tests.students import encoder

SPEC = """
name: notes
task: embedding
teacher: {factory: "t:T"}
payload: {decoder: text, max_bytes: 1000}
features: {factory: "components.student.text:TextNgrams", options: {buckets: 1024}}
serve: {replicas: 1, audit_share: 1.0, max_batch: 4, buffer_records: 1000, request_seconds: 100}
"""


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "notes.yaml").write_text(SPEC)
    return load_spec(tmp_path / "notes.yaml")


@pytest.fixture
def running(spec, store, clock, tmp_path):
    broker = MemoryBroker()
    broker.ensure_topics(spec.topics)
    _, data = encoder(4)
    put_bytes(uri := (tmp_path / "1.onnx").as_uri(), data)
    made = Running(spec, store, broker, clock)
    made.serve(ModelRef(version="1", uri=uri, digest=digest_of(data), snapshot="s" * 64, teacher="t@1"))
    return made


@pytest.fixture
def client(running):
    import openai

    with answering(running.app) as (host, port), openai.OpenAI(
        base_url=f"http://{host}:{port}/v1", api_key="none", max_retries=0
    ) as made:  # fmt: skip
        yield made


def ask(running, *texts, **more):
    items = [{"id": f"i{n}", "text": text} for n, text in enumerate(texts)]
    return running.call("POST", "/v1/predict", json={"inputs": items, **more}).json()["predictions"]


def test_an_answer_is_a_unit_vector_with_its_scale_and_its_text_as_the_label(running):
    one, other = ask(running, "lost parcel", "great shop")
    vector, scale = one["soft_label"]["vector"], one["soft_label"]["scale"]
    assert math.hypot(*vector) == pytest.approx(1.0, abs=1e-5) and vector != other["soft_label"]["vector"]
    assert one["confidence"] == pytest.approx(1.0 / (1.0 + scale))
    assert vector_of(one["label"]) == pytest.approx(vector, abs=1e-3)


def test_an_answer_that_expects_a_large_distance_is_deferred(running, monkeypatch):
    sure = ask(running, "lost parcel")[0]
    limit = sure["confidence"] + 0.01
    monkeypatch.setattr(running.gateway, "_in_force", lambda loaded: (limit, False))
    assert sure["defer"] is False and ask(running, "lost parcel")[0]["defer"] is True


def test_open_inference_has_the_vector_and_the_scale(running):
    told = running.call("GET", "/v2/models/notes").json()
    shapes = {t["name"]: (t["datatype"], t["shape"]) for t in told["outputs"]}
    assert shapes["vector"] == ("FP32", [-1, 4]) and shapes["scale"] == ("FP64", [-1])
    assert "probabilities" not in shapes and told["parameters"]["task"] == "embedding"
    tensor = {"name": "payload", "shape": [2], "datatype": "BYTES", "data": ["lost parcel", "great shop"]}
    found = running.call("POST", "/v2/models/notes/infer", json={"inputs": [tensor]}).json()
    out = {o["name"]: o for o in found["outputs"]}
    native = [a["soft_label"]["vector"] for a in ask(running, "lost parcel", "great shop")]
    assert out["vector"]["shape"] == [2, 4] and out["vector"]["data"] == pytest.approx(
        [v for vector in native for v in vector]
    )
    binary = running.call(
        "POST", "/v2/models/notes/infer",
        json={"inputs": [tensor], "outputs": [{"name": "vector", "parameters": {"binary_data": True}}]},
    )  # fmt: skip
    length = int(binary.headers[oip.LENGTH_HEADER])
    assert struct.unpack("<8f", binary.content[length:]) == pytest.approx([v for vector in native for v in vector])


def test_a_refused_input_has_a_vector_of_zeros_among_the_others(running):
    tensor = {"name": "payload", "shape": [2], "datatype": "BYTES", "data": ["lost parcel", "x" * 2000]}
    found = running.call("POST", "/v2/models/notes/infer", json={"inputs": [tensor]}).json()
    out = {o["name"]: o["data"] for o in found["outputs"]}
    assert out["vector"][4:] == [0.0] * 4 and out["error"][0] == "" and "oversize" in out["error"][1]


def test_parquet_has_a_column_of_vectors(running):
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": ["lost parcel", "great shop"]}), sink)
    kind = "application/vnd.apache.parquet"
    done = running.call("POST", "/v1/batch", content=sink.getvalue(), headers={"content-type": kind})
    table = pq.read_table(io.BytesIO(done.content))
    native = [a["soft_label"] for a in ask(running, "lost parcel", "great shop")]
    assert np.array(table["vector"].to_pylist()) == pytest.approx(np.array([n["vector"] for n in native]))
    assert [dict(row)["scale"] for row in table["soft_label"].to_pylist()] == [n["scale"] for n in native]


def test_there_is_no_truth_of_an_embedding(running):
    for truth in ({"label": "a"}, {"value": 1.0}):
        refused = running.call("POST", "/v1/truth", json={"id": "i0", "source": "desk", **truth})
        assert refused.status_code == 422 and "nothing is the truth of an embedding" in refused.json()["detail"]
    assert not [r for p, log in running.broker.logs.items() if p.topic == "notes.truth" for r in log]


def test_no_chat_says_a_vector(running):
    body = {"model": "notes", "messages": [{"role": "user", "content": "lost parcel"}]}
    refused = running.call("POST", "/v1/chat/completions", json=body)
    assert refused.status_code == 422 and "/v1/embeddings" in refused.json()["detail"]
    with pytest.raises(RequestError):
        chat.read(running.spec, json.dumps(body).encode())


def test_openais_client_gets_the_vectors_in_order(client, running):
    native = [a["soft_label"] for a in ask(running, "lost parcel", "great shop")]
    found = client.embeddings.create(model="notes", input=["lost parcel", "great shop"], user="alice")
    assert [one.index for one in found.data] == [0, 1] and found.model == "notes@1" and found.usage.total_tokens == 0
    for one, own in zip(found.data, native, strict=True):
        assert one.embedding == pytest.approx(own["vector"], abs=1e-6)
    told = found.model_extra["cohobate"]
    assert [a["soft_label"] for a in told] == [{"scale": own["scale"]} for own in native]
    alone = client.embeddings.create(model="notes@1", input="lost parcel", encoding_format="float", dimensions=4)
    assert alone.data[0].embedding == pytest.approx(native[0]["vector"])


def test_a_vector_in_base64_is_float32(running):
    body = {"model": "notes", "input": "lost parcel", "encoding_format": "base64"}
    found = running.call("POST", "/v1/embeddings", json=body).json()["data"][0]["embedding"]
    native = ask(running, "lost parcel")[0]["soft_label"]["vector"]
    assert struct.unpack("<4f", base64.b64decode(found)) == pytest.approx(native)


@pytest.mark.parametrize(
    ("more", "status", "told"),
    [
        ({"model": "other"}, 404, "the model is 'notes'"),
        ({"model": "notes@9"}, 404, "no_version"),
        ({"input": [[1, 2]]}, 422, "reads no tokens"),
        ({"input": []}, 422, "give a text"),
        ({"input": ["a"] * 5}, 413, "at most 4 texts"),
        ({"dimensions": 3}, 422, "have 4 numbers"),
        ({"input": ["fine", "x" * 2000]}, 413, "oversize"),
    ],
)
def test_what_a_student_cannot_do_is_refused_by_name(running, more, status, told):
    refused = running.call("POST", "/v1/embeddings", json={"model": "notes", "input": "a", **more})
    assert refused.status_code == status and told in refused.text
    assert refused.json()["error"]["message"]


def test_a_workload_of_classes_gives_no_embeddings(tmp_path):
    (tmp_path / "other.yaml").write_text(SPEC.replace("task: embedding\n", ""))
    with pytest.raises(RequestError, match="notes is a classification"):
        embeddings.read(load_spec(tmp_path / "other.yaml"), b'{"model": "notes", "input": "a"}', None)
