import contextlib
import hashlib
import io
import json

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.contracts.errors import RecordError
from components.contracts.records import DeadLetter, Input, Label, Prediction, Truth, decode, encode
from components.snapshot.table import snapshot_schema, soft_of
from components.student.card import read_card
from tests.components.contracts.golden import FOLDER, NEWEST, SOFT, entry, index, plain

KINDS = {kind.__name__: kind for kind in (Input, Label, Truth, Prediction, DeadLetter)}
PINNED = index()
BYTES = [(KINDS[e["record"]], (FOLDER / e["file"]).read_bytes()) for e in PINNED]


def within(pinned, found):
    """Whether every value of ``pinned`` stands in ``found``, which may have fields that were added later."""
    if isinstance(pinned, dict) and isinstance(found, dict):
        return all(name in found and within(value, found[name]) for name, value in pinned.items())
    return pinned == found


@pytest.mark.parametrize("pinned", PINNED, ids=lambda e: f"{e['record']}-{e['version']}")
def test_every_version_that_was_ever_written_is_read_as_it_was_meant(pinned):
    data = (FOLDER / pinned["file"]).read_bytes()
    assert hashlib.sha256(data).hexdigest() == pinned["sha256"], "a pinned file is never changed"
    assert within(pinned["reads_as"], plain(decode(KINDS[pinned["record"]], data)))


@pytest.mark.parametrize("name", NEWEST)
def test_what_is_written_now_is_a_pinned_version(name):
    version, record = NEWEST[name]
    newest = [e for e in PINNED if e["record"] == name][-1]
    remedy = "a record changed: read the rules in components/contracts/records.py, then pin its new minor version"
    assert entry(name, version, encode(record), plain(record)) == newest, remedy
    assert decode(type(record), encode(record)) == record


@pytest.mark.parametrize("name", NEWEST)
def test_a_new_version_only_adds_fields_that_may_be_absent(name):
    first, *later = [e["reads_as"] for e in PINNED if e["record"] == name]
    optional = {f.encode_name for f in msgspec.structs.fields(KINDS[name]) if not f.required}
    for version in later:
        assert first.keys() <= version.keys() and version.keys() - first.keys() <= optional
    assert {f.encode_name for f in msgspec.structs.fields(KINDS[name])} == set(plain(NEWEST[name][1]))


def test_fields_that_came_later_say_what_their_absence_meant():
    label = decode(Label, (FOLDER / "label-1.0.msgpack").read_bytes())
    assert (label.policy, label.probability, label.audit, label.annotator) == ("all", 1.0, False, None)
    assert label.input.consent is None and label.input.entity is None
    assert decode(Prediction, (FOLDER / "prediction-1.0.msgpack").read_bytes()).turn is None
    assert decode(Prediction, (FOLDER / "prediction-1.1.msgpack").read_bytes()).answer.novelty is None
    assert decode(Prediction, (FOLDER / "prediction-1.2.msgpack").read_bytes()).defaulted == {}
    letter = decode(DeadLetter, (FOLDER / "deadletter-1.0.msgpack").read_bytes())
    assert (letter.attempts, letter.digest, letter.cut, letter.tombstone) == (1, None, False, False)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("major", [0, 2, 99, -1, 2**62])
def test_an_unknown_major_version_is_refused_and_unknown_fields_are_not(kind, major):
    data = next(d for k, d in BYTES if k is kind)
    fields = msgspec.msgpack.decode(data)
    with pytest.raises(RecordError) as caught:
        decode(kind, msgspec.msgpack.encode({**fields, "schema": major}))
    assert caught.value.reason == "unknown_schema"
    assert decode(kind, msgspec.msgpack.encode({**fields, "colour": ["red", {"deep": 1}]})) == decode(kind, data)


def test_an_input_of_an_unknown_version_inside_a_label_is_refused():
    fields = msgspec.msgpack.decode((FOLDER / "label-1.1.msgpack").read_bytes())
    fields["input"]["schema"] = 2
    with pytest.raises(RecordError, match="an input of schema 2, not 1"):
        decode(Label, msgspec.msgpack.encode(fields))


@given(st.sampled_from(BYTES), st.data())
def test_damaged_bytes_give_a_record_or_a_record_error(pinned, data):
    kind, good = pinned
    damaged = bytearray(good[: data.draw(st.integers(0, len(good)))])
    for place in data.draw(st.lists(st.integers(0, max(len(damaged) - 1, 0)), max_size=4 if damaged else 0)):
        damaged[place] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(RecordError):
        assert isinstance(decode(kind, bytes(damaged)), kind)


@given(st.sampled_from(list(KINDS.values())), st.binary(max_size=300))
def test_any_bytes_give_a_record_or_a_record_error(kind, data):
    with contextlib.suppress(RecordError):
        assert isinstance(decode(kind, data), kind)


MAP = b"\x82\xa6schema\x01\xa1x"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (MAP + b"\x91" * 100_000, "undecodable"),
        (encode(NEWEST["Input"][1]).replace(b"files", b"fil\xffs"), "undecodable"),
        (MAP + b"\xc1", "undecodable"),
        (MAP + b"\xdd\xff\xff\xff\xff", "undecodable"),
    ],
    ids=["nested without end", "text that is not UTF-8", "a byte that means nothing", "a length that is not there"],
)
def test_bytes_that_break_the_parser_are_poison_and_no_crash(data, reason):
    with pytest.raises(RecordError) as caught:
        decode(Input, data)
    assert caught.value.reason == reason


@pytest.mark.parametrize("distribution", [{"a": 1e308, "b": 1e308}, {"a": float("inf"), "b": float("-inf")}])
def test_a_distribution_that_overflows_is_poison_and_no_crash(distribution):
    fields = msgspec.msgpack.decode(encode(msgspec.structs.replace(NEWEST["Label"][1], soft=SOFT)))
    fields["soft"]["distribution"] = distribution
    with pytest.raises(RecordError, match="invalid"):
        decode(Label, msgspec.msgpack.encode(fields))


def test_a_snapshot_of_the_first_version_is_read_and_columns_are_only_added():
    pinned = json.loads((FOLDER / "snapshot-1.0.json").read_text())
    assert pinned["columns"].items() <= {f.name: str(f.type) for f in snapshot_schema()}.items()
    table = pq.read_table(io.BytesIO((FOLDER / "snapshot-1.0.parquet").read_bytes()))
    (row,) = table.to_pylist()
    assert {**row, "payload": row["payload"].hex()} == pinned["row"]
    assert soft_of(row["soft"]) == SOFT


def test_a_students_card_of_the_first_version_is_read():
    data = (FOLDER / "card-1.0.json").read_bytes()
    card = read_card(data)
    gone = {"buckets", "dim", "hidden"}
    assert within({k: v for k, v in json.loads(data).items() if k not in gone}, plain(card))
    assert card.network.options == {"dim": 8, "hidden": 16} and card.inputs["ids"].below == 1024
    assert card.classes == ("a", "b") and card.payload.max_bytes == 100 and card.features.options == {"head": 512}
