"""A workload of sets of classes through every form that the gateway is asked in."""

import json

import msgspec
import pytest

from components.contracts.records import Truth, decode
from serving.gateway.oip import metadata
from tests.serving.running import Running


@pytest.fixture
def running(spec, store, broker, clock, model):
    sets = msgspec.structs.replace(spec, task="multilabel")
    made = Running(sets, store, broker, clock)
    made.serve(model("1", task="multilabel"))
    return made


def test_the_answer_is_the_set_and_each_class_has_its_chance(running):
    one, none, both = running.predict(3, -3, 0).json()["predictions"]
    assert [one["label"], none["label"], both["label"]] == ['["pos"]', '["neg"]', '["neg", "pos"]']
    assert both["soft_label"] == {"neg": 0.5, "pos": 0.5} and both["confidence"] == 0.25
    assert one["soft_label"]["pos"] > 0.99 and one["defer"] is False
    said = running.published()
    assert [p.answer.label for p in said] == ['["pos"]', '["neg"]', '["neg", "pos"]']
    assert said[2].answer.entropy == pytest.approx(2 * 0.693147, abs=1e-5)


def test_a_set_that_is_not_sure_enough_is_deferred(running):
    (answer,) = running.predict(0, allow_defer=True).json()["predictions"]
    assert answer["defer"] and "confidence 0.250 is below 0.7" in answer["defer_reason"]


@pytest.mark.parametrize("labels", [["pos", "neg"], []])
def test_a_truth_is_a_set_too(running, labels):
    done = running.call("POST", "/v1/truth", json={"id": "a", "labels": labels, "source": "desk"})
    assert done.json()["accepted"], done.text
    (record,) = running.broker.consumer(["signs.truth"]).poll(10, 0)
    assert decode(Truth, record.value).said == json.dumps(sorted(labels))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"label": "pos"}, "other_task"),
        ({"value": 1.0}, "other_task"),
        ({"labels": ["pos"], "label": "pos"}, "invalid"),
        ({}, "invalid"),
    ],
)
def test_another_truth_is_refused(running, body, reason):
    done = running.call("POST", "/v1/truth", json={"id": "a", "source": "desk", **body})
    assert done.status_code == 422 and done.json()["title"] == reason, done.text
    assert running.broker.consumer(["signs.truth"]).poll(10, 0) == []


def test_a_classification_takes_no_set(spec, store, broker, clock):
    done = Running(spec, store, broker, clock).call(
        "POST", "/v1/truth", json={"id": "a", "labels": ["pos"], "source": "desk"}
    )
    assert done.status_code == 422 and done.json()["title"] == "other_task"


def test_open_inference_has_the_set_and_the_chances(running):
    said = metadata(running.spec, running.versions.routing)
    assert said.parameters["task"] == "multilabel" and json.loads(said.parameters["classes_json"]) == ["neg", "pos"]
    assert [t.shape for t in said.outputs if t.name == "probabilities"] == [[-1, 2]]
    asked = {"inputs": [{"name": "payload", "shape": [1], "datatype": "BYTES", "data": ['{"x": 0}']}]}
    answer = running.call("POST", "/v2/models/signs/infer", json=asked).json()
    outputs = {o["name"]: o["data"] for o in answer["outputs"]}
    assert outputs["label"] == ['["neg", "pos"]'] and outputs["probabilities"] == [0.5, 0.5]


def test_a_chat_says_the_set_and_has_no_log_probability_of_it(running):
    asked = {"model": "signs", "messages": [{"role": "user", "content": '{"x": 0}'}]}
    said = running.call("POST", "/v1/chat/completions", json=asked).json()
    assert said["choices"][0]["message"]["content"] == '["neg", "pos"]'
    assert said["cohobate"]["soft_label"] == {"neg": 0.5, "pos": 0.5}
    refused = running.call("POST", "/v1/chat/completions", json={**asked, "logprobs": True})
    assert refused.status_code == 422 and "a set is not one token" in refused.text
