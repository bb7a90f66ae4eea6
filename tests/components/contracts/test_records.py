import json
import math

import msgspec
import numpy as np
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
    Token,
    Truth,
    content_hash,
    decode,
    encode,
    label_key,
    vector_of,
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


def test_names_of_numpy_are_plain_in_a_soft_label():
    names = tuple(np.array(["a", "b"]))
    for soft in (SoftLabel.of("s@1", names, [0.9, 0.1]), SoftLabel.multilabel("s@1", names, [0.9, 0.1])):
        assert msgspec.json.decode(msgspec.json.encode(soft), type=SoftLabel) == soft


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


@pytest.mark.parametrize(
    "given_", [{}, {"label": "a", "value": 1.0}, {"label": "a", "labels": ("a",)}, {"labels": (), "spans": ()}]
)
def test_a_truth_is_one_of_a_label_a_value_labels_and_spans(given_):
    with pytest.raises(ValueError, match="one of a label, a value, labels and spans"):
        Truth(workload="files", input_id="i", time=1.0, known_at=2.0, source="s", **given_)


def tagged(*tags, **given_):
    tokens = tuple(Token(start=4 * i, end=4 * i + 3, distribution={t: 1.0}) for i, t in enumerate(tags))
    return SoftLabel(task="tagging", space="s@1", tokens=tokens, **given_)


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        (("O", "O"), []),
        (("B-PER", "I-PER", "O", "B-LOC"), [(0, 7, "PER"), (12, 15, "LOC")]),
        (("B-PER", "B-PER"), [(0, 3, "PER"), (4, 7, "PER")]),
        (("I-PER", "I-LOC", "O", "I-LOC"), [(0, 3, "PER"), (4, 7, "LOC"), (12, 15, "LOC")]),
        (("PER", "PER", "LOC"), [(0, 7, "PER"), (8, 11, "LOC")]),
    ],
)
def test_spans_are_read_from_tags_as_conlleval_reads_them(tags, spans):
    found = tagged(*tags)
    assert [(s.start, s.end, s.label) for s in found.spans] == spans
    assert json.loads(found.label) == [list(s) for s in spans]
    truth = Truth(workload="w", input_id="i", time=1.0, known_at=2.0, source="s", spans=found.spans[::-1])
    assert truth.said == found.label and truth.task == "tagging"


def test_of_tags_the_product_is_sure_and_the_mean_is_entropy():
    sure, unsure = (Token(start=s, end=s + 1, distribution=d) for s, d in ((0, {"O": 1.0}), (1, {"O": 0.5, "X": 0.5})))
    soft = SoftLabel(task="tagging", space="s@1", tokens=(sure, unsure))
    assert soft.confidence == 0.5 and soft.entropy == pytest.approx(math.log(2) / 2)
    empty = SoftLabel(task="tagging", space="s@1")
    assert (empty.label, empty.confidence, empty.entropy) == ("[]", 1.0, 0.0)
    with pytest.raises(ValueError, match="in the order of the text"):
        SoftLabel(task="tagging", space="s@1", tokens=(unsure, sure))
    with pytest.raises(ValueError, match="at least one character"):
        Token(start=3, end=3, distribution={"O": 1.0})
    with pytest.raises(ValueError, match="a token's probabilities"):
        Token(start=3, end=4, distribution={"O": 0.5})


def test_classes_of_a_set_have_probabilities_of_their_own():
    soft = SoftLabel(task="multilabel", space="s@1", distribution={"b": 0.75, "a": 0.5, "c, d": 0.25})
    assert soft.label == '["a", "b"]' and soft.confidence == pytest.approx(0.75 * 0.5 * 0.75)
    assert soft.entropy == pytest.approx(math.log(2) + 2 * (-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))
    truth = Truth(workload="w", input_id="i", time=1.0, known_at=2.0, source="s", labels=("b", "a", "b"))
    assert truth.said == soft.label and truth.task == "multilabel"
    assert SoftLabel(task="multilabel", space="s@1").label == "[]"
    with pytest.raises(ValueError, match="in \\[0, 1\\] each"):
        SoftLabel(task="multilabel", space="s@1", distribution={"a": 1.01})


@pytest.mark.parametrize("text", ["lost", "?", "YQ==", "\u00e9"])
def test_a_text_that_is_no_vector_is_refused_with_what_one_is(text):
    with pytest.raises(ValueError, match="a vector must be float16 in base64"):
        vector_of(text)


def test_of_an_embedding_the_direction_counts():
    soft = SoftLabel(task="embedding", space="s@1", vector=(3.0, 0.0, -4.0), scale=0.25)
    assert vector_of(soft.label) == pytest.approx((0.6, 0.0, -0.8), abs=1e-3)
    assert soft.label == SoftLabel(task="embedding", space="s@1", vector=(6.0, 0.0, -8.0), scale=1.0).label
    assert soft.confidence == 0.8
    for vector, scale in (
        ((), 1.0),
        ((0.0, 0.0), 1.0),
        ((math.nan,), 1.0),
        ((1e200, 1e308, 1e308), 0.0),
        ((1.0,), None),
    ):
        with pytest.raises(ValueError, match="needs a"):
            SoftLabel(task="embedding", space="s@1", vector=vector, scale=scale)


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
