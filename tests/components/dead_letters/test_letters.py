import msgspec
import pytest

from components.contracts.admission import LETTER_BYTES, dead_letter
from components.contracts.errors import NotFoundError, RecordError
from components.contracts.records import DeadLetter, Input, encode
from components.dead_letters.letters import Filter, Letter, original, read_letters, record_at
from components.stream.contract import Record, TopicPartition
from components.stream.memory import MemoryBroker

NOW = 1_700_000_000.0
INPUTS = TopicPartition("w.inputs", 0)


@pytest.fixture
def broker():
    broker = MemoryBroker()
    broker.ensure_topics(["w.inputs", "w.inputs.dlq"])
    return broker


def refuse(broker, value, *, reason="invalid", cause=None, at=NOW, headers=None, twice=False):
    """Put a record on the inputs and its letter on the dead letters, as a labeler would."""
    broker.producer().send("w.inputs", "k", value, headers)
    error = RecordError(reason, "why")
    error.__cause__ = cause
    letter = dead_letter(broker.logs[INPUTS][-1], error, "w", at)
    for _ in range(1 + twice):
        broker.producer().send("w.inputs.dlq", letter.key, encode(letter))
    return letter


def entry(id_):
    return encode(Input(workload="w", id=id_, key="k", time=NOW, payload=b"x"))


def test_letters_are_read_in_order_and_named_after_their_records(broker):
    refuse(broker, entry("a"))
    refuse(broker, b"bad", twice=True)
    first, second = read_letters(broker, "w")
    assert (first.name, second.name) == ("w.inputs-0@0", "w.inputs-0@1")
    assert (first.input_id, second.input_id) == ("a", None)
    assert (second.partition, second.offset) == (0, 1), "the first of two letters about one record"


def test_what_is_no_letter_is_passed_over(broker, caplog):
    broker.producer().send("w.inputs.dlq", None, b"graffiti")
    refuse(broker, b"bad")
    broker.producer().send("w.inputs.dlq", None, None)
    assert [x.name for x in read_letters(broker, "w")] == ["w.inputs-0@0"]
    assert "w.inputs.dlq-0@0 is no dead letter" in caplog.text


def test_a_workload_without_letters_is_named(broker):
    with pytest.raises(NotFoundError, match=r"v\.inputs\.dlq"):
        list(read_letters(broker, "v"))


@pytest.mark.parametrize(
    ("wanted", "offsets"),
    [
        (Filter(), [0, 1, 2]),
        (Filter(names=frozenset({"w.inputs-0@1", "w.inputs-0@9"})), [1]),
        (Filter(reasons=frozenset({"oversize", "empty"})), [1, 2]),
        (Filter(errors=frozenset({"KeyError"})), [1]),
        (Filter(topic="w.inputs", partition=0), [0, 1, 2]),
        (Filter(topic="w.labels"), []),
        (Filter(partition=1), []),
        (Filter(first_offset=1), [1, 2]),
        (Filter(first_offset=1, last_offset=1), [1]),
        (Filter(last_offset=0), [0]),
        (Filter(since=NOW + 1), [1, 2]),
        (Filter(until=NOW + 1), [0, 1]),
        (Filter(input_id="b"), [1]),
        (Filter(input_id="b", reasons=frozenset({"invalid"})), []),
    ],
)
def test_filters(broker, wanted, offsets):
    refuse(broker, entry("a"), reason="invalid", at=NOW)
    refuse(broker, entry("b"), reason="oversize", cause=KeyError("x"), at=NOW + 1)
    refuse(broker, b"", reason="empty", at=NOW + 2)
    assert [x.dead.offset for x in read_letters(broker, "w", wanted)] == offsets


def test_an_id_is_found_where_the_rest_is_poison():
    fields = {"schema": 1, "id": "half", "time": "yesterday", "deep": {"x": [1]}}
    record = Record("w.inputs", 0, 0, None, msgspec.msgpack.encode(fields), {}, NOW)
    assert Letter(dead_letter(record, RecordError("invalid", "d"), "w", NOW), 0, 0).input_id == "half"


def the_letter(broker):
    return next(read_letters(broker, "w"))


def test_a_whole_letter_is_the_record(broker):
    refuse(broker, b"bad", headers={"h": b"1"})
    broker.logs[INPUTS].clear()
    found = original(the_letter(broker), broker)
    assert (found.topic, found.key, found.value, found.headers) == ("w.inputs", b"k", b"bad", {"h": b"1"})


@pytest.mark.parametrize("value", [None, b""])
def test_the_letter_of_a_tombstone_is_a_tombstone_again(broker, value):
    refuse(broker, value, reason="empty")
    assert original(the_letter(broker), broker).value == value


HUGE = b"\xc1" * (LETTER_BYTES + 5)


def test_a_cut_letter_is_read_again_from_its_place(broker):
    refuse(broker, HUGE, headers={"h": b"1"})
    letter = the_letter(broker)
    assert letter.cut and len(letter.dead.value) == LETTER_BYTES
    found = original(letter, broker)
    assert (found.value, found.headers) == (HUGE, {"h": b"1"})


def test_a_cut_letter_of_the_first_version_is_read_again_too(broker):
    letter = refuse(broker, HUGE)
    old = {f: getattr(letter, f) for f in DeadLetter.__struct_fields__ if f not in ("attempts", "digest", "cut")}
    first = Letter(DeadLetter(**old), 0, 0)
    assert first.cut and original(first, broker).value == HUGE
    broker.logs[INPUTS][0] = broker.logs[INPUTS][0]._replace(key=b"other")
    with pytest.raises(NotFoundError):
        original(first, broker)


@pytest.mark.parametrize("loss", ["gone", "replaced", "empty"])
def test_a_cut_letter_whose_record_is_gone_says_what_to_do(broker, loss):
    refuse(broker, HUGE)
    if loss == "gone":
        broker.logs[INPUTS].clear()
    else:
        value = HUGE[:-1] + b"?" if loss == "replaced" else None
        broker.logs[INPUTS][0] = broker.logs[INPUTS][0]._replace(value=value)
    with pytest.raises(NotFoundError, match=r"w\.inputs-0@0.*first 786432 bytes.*then drop the letter"):
        original(the_letter(broker), broker)


def test_a_key_tells_records_apart_that_lay_at_one_place(broker):
    refuse(broker, b"one")
    broker.logs[INPUTS].clear()
    refuse(broker, b"two")
    one, two = read_letters(broker, "w")
    assert one.name == two.name and one.key != two.key


def test_a_record_at_an_offset(broker):
    refuse(broker, b"zero")
    refuse(broker, b"one")
    assert record_at(broker, INPUTS, 1).value == b"one"
    assert record_at(broker, INPUTS, 2) is None and record_at(broker, INPUTS, 9) is None
