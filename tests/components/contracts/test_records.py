import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.contracts.errors import RecordError
from components.contracts.records import (
    Answer,
    DeadLetter,
    Input,
    Label,
    Prediction,
    SoftLabel,
    Truth,
    content_hash,
    decode,
    encode,
    label_key,
)

INPUT = Input(workload="files", id="i1", key="k", time=1.5, payload=b"\x00ab")
SOFT = SoftLabel(task="classification", space="s@1", distribution={"a": 0.75, "b": 0.25})
LABEL = Label(key="lk", teacher="t@1", soft=SOFT, input=INPUT, labelled_at=2.0)
TRUTH = Truth(workload="files", input_id="i1", time=1.5, known_at=3.0, source="extension", label="a")
PREDICTION = Prediction(
    workload="files",
    request_id="r1",
    input_id="i1",
    key="k",
    time=1.5,
    content=content_hash(b"\x00ab"),
    answer=Answer(arm="champion", version="3", ok=True, latency_ms=1.5, label="a", confidence=0.75, entropy=0.56),
)
DEAD = DeadLetter(
    workload="files", reason="invalid", detail="d", error="E", topic="files.inputs", partition=0, offset=7,
    key=None, value=b"x", headers={"h": b"v"}, at=4.0,
)  # fmt: skip
RECORDS = [INPUT, LABEL, TRUTH, PREDICTION, DEAD]


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: type(r).__name__)
def test_a_record_comes_back_as_it_was(record):
    assert decode(type(record), encode(record)) == record


def test_a_reader_ignores_fields_that_it_does_not_know():
    plain = msgspec.msgpack.decode(encode(INPUT))
    assert decode(Input, msgspec.msgpack.encode({**plain, "colour": "red"})) == INPUT


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "undecodable"),
        (b"\xff\xfe not msgpack", "undecodable"),
        (b'{"schema": 1}', "undecodable"),
        (msgspec.msgpack.encode([1, 2]), "undecodable"),
        (msgspec.msgpack.encode({"id": "no schema"}), "undecodable"),
        (msgspec.msgpack.encode({"schema": 2}), "unknown_schema"),
        (msgspec.msgpack.encode({"schema": 1}), "invalid"),
        (msgspec.msgpack.encode({**msgspec.to_builtins(INPUT, builtin_types=(bytes,)), "id": ""}), "invalid"),
        (
            msgspec.msgpack.encode({**msgspec.to_builtins(INPUT, builtin_types=(bytes,)), "time": math.nan}),
            "not_finite",
        ),
        (msgspec.msgpack.encode({**msgspec.to_builtins(INPUT, builtin_types=(bytes,)), "time": -1.0}), "invalid"),
        (encode(INPUT)[:-1], "undecodable"),
        (msgspec.msgpack.encode({"schema": 1, "id": b"\xff"}), "invalid"),
    ],
)
def test_poison_is_refused_with_a_stable_reason(data, reason):
    with pytest.raises(RecordError) as caught:
        decode(Input, data)
    assert caught.value.reason == reason


@pytest.mark.parametrize("kind", [Input, Label, Truth, Prediction, DeadLetter])
def test_a_tombstone_is_refused_as_empty_by_every_reader(kind):
    with pytest.raises(RecordError, match="tombstone") as caught:
        decode(kind, None)
    assert caught.value.reason == "empty"


@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=20).filter(lambda x: sum(x) > 0.01))
def test_soft_labels_keep_the_argmax_and_sum_to_one(weights):
    total = math.fsum(weights)
    probabilities = [w / total for w in weights]
    classes = tuple(f"c{i:02d}" for i in range(len(weights)))
    soft = SoftLabel.of("s@1", classes, probabilities)
    assert math.fsum(soft.distribution.values()) == pytest.approx(1.0, abs=1e-12)
    assert soft.label == classes[probabilities.index(max(probabilities))]
    assert 0.0 <= soft.entropy <= math.log(len(weights)) + 1e-9
    assert soft.confidence == pytest.approx(max(probabilities), abs=1e-4)


def test_classes_below_the_floor_are_left_out():
    assert SoftLabel.of("s@1", ("a", "b"), [1 - 1e-9, 1e-9]).distribution == {"a": 1.0}


@pytest.mark.parametrize("probabilities", [[0.5, 0.4], [math.nan, 1.0], [0.9, 0.2], [math.inf, 0.0]])
def test_what_is_no_distribution_is_refused(probabilities):
    with pytest.raises(ValueError, match="sum to one"):
        SoftLabel.of("s@1", ("a", "b"), probabilities)


def test_probabilities_and_classes_are_as_many():
    with pytest.raises(ValueError, match="3 probabilities for 2 classes"):
        SoftLabel.of("s@1", ("a", "b"), [0.5, 0.3, 0.2])


@pytest.mark.parametrize("distribution", [{}, {"a": 0.5}, {"a": 1.5, "b": -0.5}])
def test_a_distribution_is_checked_on_construction(distribution):
    with pytest.raises(ValueError, match="soft label"):
        SoftLabel(task="classification", space="s@1", distribution=distribution)


def test_equal_probabilities_go_to_the_first_by_name():
    assert SoftLabel(task="classification", space="s", distribution={"b": 0.5, "a": 0.5}).label == "a"


def test_a_uniform_distribution_has_the_entropy_of_its_size():
    soft = SoftLabel(task="classification", space="s", distribution=dict.fromkeys("abcd", 0.25))
    assert soft.entropy == pytest.approx(math.log(4))
    sure = SoftLabel(task="classification", space="s", distribution={"a": 1.0})
    assert (sure.entropy, str(sure.entropy)) == (0.0, "0.0")


def test_regression_has_a_value_and_a_scale():
    soft = SoftLabel(task="regression", space="kWh", value=3.5, scale=1.0)
    assert soft.label == "3.5"
    assert soft.confidence == 0.5
    assert soft.entropy == pytest.approx(0.5 * math.log(2 * math.pi * math.e))


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_the_entropy_of_an_extreme_scale_is_finite(scale):
    soft = SoftLabel(task="regression", space="kWh", value=0.0, scale=scale)
    assert soft.entropy == pytest.approx(0.5 * math.log(2 * math.pi * math.e) + math.log(scale))


@pytest.mark.parametrize(
    ("value", "scale", "says"),
    [(None, 1.0, "finite value"), (math.nan, 1.0, "finite value"), (1.0, None, "scale"), (1.0, 0.0, "scale")],
)
def test_an_incomplete_regression_label_is_refused(value, scale, says):
    with pytest.raises(ValueError, match=says):
        SoftLabel(task="regression", space="kWh", value=value, scale=scale)


@pytest.mark.parametrize("given_", [{}, {"label": "a", "value": 1.0}])
def test_a_truth_has_either_a_label_or_a_value(given_):
    with pytest.raises(ValueError, match="either a label or a value"):
        Truth(workload="files", input_id="i", time=1.0, known_at=2.0, source="s", **given_)


def test_a_label_key_depends_on_id_content_teacher_and_space_and_on_nothing_else():
    def key(teacher="t@1", space="s@1", **changes):
        entry = Input(**{"workload": "w", "id": "i", "key": "k", "time": 1.0, "payload": b"abc", **changes})
        return label_key(entry, teacher, space)

    assert key() == key(key="other", time=2.0, consent="yes")
    assert len({key(), key(id="j"), key(payload=b"abd"), key(teacher="t@2"), key(space="s@2")}) == 5
    assert key() == "f0a28ca5a863ed543f567d387ec5baf4cbf01944b9c0f8260466befc4699bf28"


@pytest.mark.parametrize("when", [math.nan, math.inf, -1.0, 1e12])
def test_times_that_no_clock_shows_are_refused(when):
    with pytest.raises(ValueError, match="Unix seconds"):
        Input(workload="files", id="i", key="k", time=when, payload=b"")
    with pytest.raises(ValueError, match="Unix seconds"):
        Label(key="k", teacher="t@1", soft=SOFT, input=INPUT, labelled_at=when)
    with pytest.raises(ValueError, match="Unix seconds"):
        Truth(workload="files", input_id="i", time=1.0, known_at=when, source="s", label="a")


def test_a_truth_value_is_finite():
    with pytest.raises(ValueError, match="finite"):
        Truth(workload="files", input_id="i", time=1.0, known_at=1.0, source="s", value=math.nan)
