"""A workload of a user's own: the spec and the Python file beside it (``tests/workloads/regression``)."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from components.contracts.records import DeadLetter, Input, Label, decode, encode
from components.contracts.spec import build, load_spec
from components.label.labeler import Labeler
from components.stream.contract import TopicPartition
from components.stream.memory import MemoryBroker

SPEC = Path(__file__).parents[2] / "workloads" / "regression.yaml"


@pytest.fixture
def labelled():
    """Readings through the labeler: labels and dead letters."""
    spec, broker = load_spec(SPEC), MemoryBroker()
    broker.ensure_topics(spec.topics)
    producer = broker.producer()
    for n, payload in enumerate([b"[10.0, 1.0, 0.0]", b"[10.0, 1.0, 40.0]", b"[1, 2]", b'{"now": 3}', b"[NaN, 0, 0]"]):
        record = Input(workload=spec.name, id=f"r{n}", key="station", time=1_700_000_000.0, payload=payload)
        producer.send(spec.topic("inputs"), record.key, encode(record))
    assert Labeler(spec, build(spec.teacher, spec.source), broker).step(0.0) == 5
    kinds = {Label: "labels", DeadLetter: "inputs.dlq"}
    return [[decode(k, r.value) for r in broker.logs[TopicPartition(f"heat.{t}", 0)]] for k, t in kinds.items()]


def test_a_regression_teacher_gives_values_with_scales(labelled):
    calm, windy = (label.soft for label in labelled[0])
    assert (calm.value, calm.scale) == (12.0, 0.5)
    assert windy.value == pytest.approx(10 + 2 * math.exp(-1)) and windy.scale == pytest.approx(2.5)
    assert calm.space == "celsius" and calm.confidence > windy.confidence and calm.entropy < windy.entropy


def test_its_own_decoder_makes_dead_letters(labelled):
    assert [(x.reason, json.loads(decode(Input, x.value).payload.replace(b"NaN", b"0"))) for x in labelled[1]] == [
        ("bad_reading", [1, 2]),
        ("bad_reading", {"now": 3}),
        ("bad_reading", [0, 0, 0]),
    ]


def test_its_own_featuriser_fits_the_contract():
    spec = load_spec(SPEC)
    features = build(spec.features, spec.source)
    ids, weights = features.encode([(12.0, 2.0, 5.0)])
    assert ids.shape == weights.shape and ids.max() < features.buckets
    assert np.allclose(weights[0, :3], [0.0, 1.0, -1.0])
    assert features.describe((12.0, 2.0, 5.0)) == {"now": 12.0, "trend": 2.0, "wind": 5.0}
