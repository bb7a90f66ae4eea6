"""A gateway whose student tags texts: what it answers, and the truths that it takes."""

import io
import json

import msgspec
import pyarrow.parquet as pq
import pytest

from components.contracts.records import Input, Span, Truth, decode
from components.contracts.spec import load_spec
from components.contracts.spec.masking import Masking
from components.contracts.storage import digest_of, put_bytes
from components.control.intent import ModelRef
from components.stream.memory import MemoryBroker
from components.student.runtime import Student
from serving.gateway import chat, oip
from serving.gateway.bodies import RequestError
from serving.gateway.openapi import document
from serving.gateway.wire import Answered
from tests.serving.running import Running
from tests.spans import artifact

SPEC = """
name: signs
task: tagging
teacher: {factory: "teacher.py:Teacher"}
payload: {decoder: text, max_bytes: 2000}
features: {factory: "components.student.tagging:TaggedWords", options: {buckets: 512}}
student: {network: {factory: "components.distill.networks.tagger:Tagger", options: {dim: 8, layers: 1}}}
serve: {replicas: 1, defer_below: 0.01, audit_share: 1.0, max_batch: 4, request_seconds: 100}
"""

TEXT = "Ada Lovelace, of London & Co — 東京"


@pytest.fixture(scope="module")
def data():
    return artifact(workload="signs", space="signs@1", teacher="sign@1")


@pytest.fixture
def spec(tmp_path):
    return tags_spec(tmp_path)


def tags_spec(folder):
    (folder / "teacher.py").write_text("class Teacher:\n    pass\n")
    (folder / "tags.yaml").write_text(SPEC)
    return load_spec(folder / "tags.yaml")


@pytest.fixture
def running(spec, store, clock, data, tmp_path):
    return serving(spec, store, clock, data, tmp_path)


def serving(spec, store, clock, data, tmp_path):
    broker = MemoryBroker()
    broker.ensure_topics(spec.topics)
    uri = (tmp_path / "v1.onnx").as_uri()
    put_bytes(uri, data)
    made = Running(spec, store, broker, clock)
    made.serve(ModelRef(version="1", uri=uri, digest=digest_of(data), snapshot="s" * 64, teacher="sign@1"))
    return made


def test_an_answer_has_its_spans_and_the_tags_of_its_tokens(running, data):
    (soft,) = Student.load(data).predict([TEXT.encode()])
    answer = running.call("POST", "/v1/predict", json={"text": TEXT}).json()
    assert answer["label"] == soft.label and answer["confidence"] == pytest.approx(soft.confidence)
    assert answer["spans"] == list(msgspec.to_builtins(soft.spans)) != [] and answer["soft_label"] == {}
    assert [(TEXT[t["start"] : t["end"]]) for t in answer["tokens"]] == [
        "Ada", "Lovelace", ",", "of", "London", "&", "Co", "—", "東", "京",
    ]  # fmt: skip
    assert all(sum(t["distribution"].values()) == pytest.approx(1.0) for t in answer["tokens"])
    (prediction,) = running.published()
    assert prediction.answer.label == soft.label and prediction.answer.entropy == pytest.approx(soft.entropy)


def test_spans_are_those_of_the_text_as_it_was_sent_though_it_is_masked(spec, store, clock, data, tmp_path):
    masking = Masking(entities=("EMAIL", "ZIP_CODE"))
    running = serving(msgspec.structs.replace(spec, masking=masking), store, clock, data, tmp_path)
    text = "Ada, ada@example.com, 90210 London"
    kept = "Ada, [EMAIL________], [ZIP] London"
    answer = running.call("POST", "/v1/predict", json={"text": text}).json()
    (soft,) = Student.load(data).predict([kept.encode()])
    assert answer["label"] == soft.label and answer["spans"] == list(msgspec.to_builtins(soft.spans))
    words = [text[t["start"] : t["end"]] for t in answer["tokens"]]
    assert words[0] == "Ada" and words[-1] == "London" and "da@example.co" in words
    (entry,) = running.published(Input)
    assert entry.payload == kept.encode()


def test_what_is_unsure_of_all_its_tags_together_is_deferred(running):
    short, long = running.predict_texts("x", TEXT * 10)
    assert short["confidence"] > long["confidence"] and long["defer"]
    assert "is below 0.01" in long["defer_reason"]


def test_a_text_without_a_word_has_no_span(running):
    (answer,) = running.predict_texts(" \n ")
    assert (answer["spans"], answer["tokens"], answer["label"], answer["confidence"]) == ([], [], "[]", 1.0)


def test_answers_of_other_tasks_are_as_they_were():
    fields = msgspec.to_builtins(Answered(id="a", request_id="r", label="pos"))
    assert not {"spans", "tokens"} & fields.keys()


def taken(running):
    return [decode(Truth, r.value) for r in running.broker.consumer(["signs.truth"]).poll(1_000, 0)]


def truth(running, **more):
    return running.call("POST", "/v1/truth", json={"id": "a", "source": "desk", **more})


def test_a_truth_is_its_spans_and_none_is_one_too(running, clock):
    assert truth(
        running, spans=[{"start": 18, "end": 24, "label": "LOC"}, {"start": 0, "end": 12, "label": "PER"}]
    ).json()["accepted"]
    assert truth(running, spans=[]).json()["accepted"]
    first, none = taken(running)
    assert first.spans == (Span(start=0, end=12, label="PER"), Span(start=18, end=24, label="LOC")) and none.spans == ()
    assert first.said == '[[0, 12, "PER"], [18, 24, "LOC"]]' and none.said == "[]"


@pytest.mark.parametrize(
    ("more", "title"),
    [
        ({"label": "PER"}, "other_task"),
        ({"value": 1.0}, "other_task"),
        ({}, "invalid"),
        ({"spans": [], "label": "a"}, "invalid"),
        ({"spans": [{"start": 0, "end": 4, "label": "A"}, {"start": 3, "end": 5, "label": "B"}]}, "not_spans"),
        ({"spans": [{"start": 4, "end": 4, "label": "A"}]}, "invalid_request"),
        ({"spans": "[]"}, "invalid_request"),
    ],
)
def test_what_is_no_truth_of_spans_is_refused(running, more, title):
    answer = truth(running, **more)
    assert answer.status_code == 422 and answer.json()["title"] == title, answer.text
    assert taken(running) == []


def test_the_open_inference_form_gives_spans_and_tokens_as_json(running, data):
    (soft,) = Student.load(data).predict([TEXT.encode()])
    found = running.call("GET", "/v2/models/signs").json()
    assert found["parameters"]["task"] == "tagging" and "B-PER" in found["parameters"]["classes"]
    assert [(o["name"], o["datatype"]) for o in found["outputs"]][:3] == [
        ("label", "BYTES"), ("confidence", "FP64"), ("tokens", "BYTES"),
    ]  # fmt: skip
    asked = {"inputs": [{"name": "payload", "datatype": "BYTES", "shape": [2], "data": [TEXT, "x"]}]}
    answer = running.call("POST", "/v2/models/signs/infer", json=asked).json()
    by_name = {o["name"]: o["data"] for o in answer["outputs"]}
    assert by_name["label"][0] == soft.label and len(json.loads(by_name["tokens"][0])) == len(soft.tokens)
    assert json.loads(by_name["tokens"][1])[0]["start"] == 0
    assert "probabilities" not in oip.outputs(running.spec, ("O",))


def test_a_chat_says_the_spans_and_has_no_log_probabilities(running, data):
    (soft,) = Student.load(data).predict([TEXT.encode()])
    asked = {"model": "signs", "messages": [{"role": "user", "content": TEXT}]}
    answer = running.call("POST", "/v1/chat/completions", json=asked).json()
    assert answer["choices"][0]["message"]["content"] == soft.label
    assert answer["cohobate"]["spans"] == list(msgspec.to_builtins(soft.spans))
    with pytest.raises(RequestError, match=r"logprobs: spans have no.*cohobate\.tokens"):
        chat.read(running.spec, json.dumps({**asked, "logprobs": True}).encode())


def test_a_file_s_answers_hold_them_as_json(running):
    lines = b'{"text": "Ada"}\n{"text": ""}\n'
    told = running.call("POST", "/v1/batch", content=lines, headers={"content-type": "application/x-ndjson"})
    first, second = (json.loads(line) for line in told.content.splitlines())
    assert [t["start"] for t in first["tokens"]] == [0] and second["error"]["title"] == "empty"
    headers = {"content-type": "application/x-ndjson", "accept": "application/vnd.apache.parquet"}
    table = pq.read_table(io.BytesIO(running.call("POST", "/v1/batch", content=lines, headers=headers).content))
    assert table.column_names[-3:] == ["error_detail", "spans", "tokens"]
    row, refused = table.to_pylist()
    assert json.loads(row["tokens"]) == first["tokens"] and refused["tokens"] is None


def test_the_document_of_the_gateway_names_them(spec):
    schemas = document(spec)["components"]["schemas"]
    assert {"spans", "tokens"} <= schemas["Answered"]["properties"].keys()
    assert {"required": ["spans"]} in schemas["TruthItem"]["allOf"][1]["oneOf"] and "Span" in schemas
