import pytest

from components.contracts.errors import UnavailableError
from components.snapshot import reading
from components.snapshot.reading import read_new


def values(result):
    return [r.value for r in result.records]


def fill(tape, topic, *values):
    for value in values:
        tape.put(topic, value)


def test_everything_is_read_in_order_with_the_places_after_it(tape):
    tape.ensure_topics(["t", "u"], partitions=2)
    fill(tape, "t", *(b"%d" % i for i in range(20)))
    tape.put("t", b"p1", partition=1)
    tape.put("u", b"other")
    result = read_new(tape, ["t", "u"], {})
    assert values(result) == [b"%d" % i for i in range(20)] + [b"p1", b"other"]
    assert result.positions == {"t:0": 20, "t:1": 1, "u:0": 1, "u:1": 0}
    assert {p: a[0] for p, a in result.anchors.items()} == {"t:0": 19, "t:1": 0, "u:0": 0}
    assert [r.value for r in result.of("u")] == [b"other"]
    assert result.replaced == ()


def test_the_next_reading_goes_on_after_the_last(tape):
    fill(tape, "t", b"a", b"b")
    first = read_new(tape, ["t"], {})
    assert values(read_new(tape, ["t"], first.anchors)) == []
    fill(tape, "t", b"c")
    second = read_new(tape, ["t"], first.anchors)
    assert values(second) == [b"c"]
    assert second.anchors["t:0"][0] == 2
    assert read_new(tape, ["t"], second.anchors).anchors == second.anchors


def test_a_partition_that_is_new_is_read_from_its_start(tape):
    fill(tape, "t", b"a")
    first = read_new(tape, ["t"], {})
    tape.ensure_topics(["t"], partitions=2)
    tape.put("t", b"b", partition=1)
    assert values(read_new(tape, ["t"], first.anchors)) == [b"b"]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 10])
def test_a_broker_that_lost_its_memory_is_read_anew(tape, count):
    fill(tape, "t", b"a", b"b", b"c")
    first = read_new(tape, ["t"], {})
    tape.logs.clear()
    tape.ensure_topics(["t"])
    fill(tape, "t", *(b"new %d" % i for i in range(count)))
    second = read_new(tape, ["t"], first.anchors)
    assert values(second) == [b"new %d" % i for i in range(count)]
    assert second.replaced == ("t:0",)
    assert ("t:0" in second.anchors) == (count > 0)


def test_records_that_retention_took_are_not_missed(tape):
    fill(tape, "t", b"a", b"b")
    first = read_new(tape, ["t"], {})
    fill(tape, "t", b"c", b"d", b"e")
    tape.expire("t", before=3)
    second = read_new(tape, ["t"], first.anchors)
    assert (values(second), second.replaced) == ([b"d", b"e"], ())


def test_records_written_while_reading_are_left_for_the_next_time(tape):
    fill(tape, "t", b"a", b"b")

    class Busy(type(tape)):
        def consumer(self, *args, **kwargs):
            reader = super().consumer(*args, **kwargs)
            poll = reader.poll

            def busy(*a, **k):
                self.put("t", b"later")
                return poll(*a, **k)

            reader.poll = busy
            return reader

    busy = Busy()
    busy.logs = tape.logs
    first = read_new(busy, ["t"], {})
    assert (values(first), first.positions) == ([b"a", b"b"], {"t:0": 2})
    assert values(read_new(tape, ["t"], first.anchors))[0] == b"later"


def test_a_stream_that_gives_nothing_of_what_it_holds_is_unavailable(tape, monkeypatch):
    class Silent(type(tape)):
        def consumer(self, *args, **kwargs):
            reader = super().consumer(*args, **kwargs)
            reader.poll = lambda **_: []
            return reader

    monkeypatch.setattr(reading, "IDLE_SECONDS", 0.05)
    silent = Silent()
    fill(silent, "t", b"a")
    with pytest.raises(UnavailableError, match="t:0"):
        read_new(silent, ["t"], {})
