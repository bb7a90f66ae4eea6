"""The bounded store of what is not sent yet."""

import contextlib

import pytest

from serving.edge.records import Records


@pytest.fixture
def opened(tmp_path):
    with contextlib.ExitStack() as stack:

        def make(most=1000):
            return stack.enter_context(contextlib.closing(Records(tmp_path, most)))

        yield make


def test_records_come_back_in_order_and_survive_the_process(opened):
    first = opened()
    for n in range(3):
        assert first.put({"n": n, "text": "ä\ud800"})
    first.close()
    again = opened()
    assert [k.body["n"] for k in again.first(10)] == [0, 1, 2] and again.first(10)[0].body["text"] == "ä\ud800"
    assert [k.body["n"] for k in again.first(2)] == [0, 1]
    again.sent(again.first(2)[-1].seq, refused=1)
    assert [k.body["n"] for k in again.first(10)] == [2]
    counts = again.counts()
    assert (counts["waiting"], counts["sent"], counts["refused"], counts["dropped"]) == (1, 1, 1, 0)


@pytest.mark.parametrize("page", [0, 1])  # the file's head, and a page of what is in it
def test_a_store_that_cannot_be_read_is_put_aside(opened, tmp_path, page):
    first = opened(most=100_000)
    for n in range(20):
        first.put({"n": n, "text": "x" * 400})
    first.close()
    path = tmp_path / "records.db"
    data = path.read_bytes()
    path.write_bytes(data[: 4096 * page] + b"?" * 4096 + data[4096 * (page + 1) :])
    again = opened()
    assert "records.db.spoilt" in again.problem and again.first(10) == []
    assert (tmp_path / "records.db.spoilt").stat().st_size == len(data)
    assert again.put({"n": 1}) and again.counts()["waiting"] == 1
    again.close()
    assert opened().problem == "" and opened().counts()["waiting"] == 1


def test_the_oldest_go_where_there_is_no_room_and_are_counted(opened):
    records = opened(most=300)
    for n in range(20):
        assert records.put({"n": n, "pad": "x" * 40})
    counts = records.counts()
    left = [k.body["n"] for k in records.first(99)]
    assert counts["bytes"] <= 300 and left == list(range(20 - len(left), 20)) and 3 <= len(left) <= 5
    assert counts["dropped"] == 20 - len(left) and counts["waiting"] == len(left)


def test_one_that_is_larger_than_all_the_room_drops_no_other(opened):
    records = opened(most=100)
    assert records.put({"n": 1}) and not records.put({"pad": "x" * 200})
    assert records.counts()["dropped"] == 1 and [k.body for k in records.first(9)] == [{"n": 1}]


def test_the_bound_holds_after_a_restart_with_less_room(opened):
    first = opened(most=1000)
    for n in range(10):
        first.put({"n": n, "pad": "x" * 40})
    first.close()
    less = opened(most=200)
    less.put({"n": 10})
    assert less.counts()["bytes"] <= 200 and less.first(99)[-1].body == {"n": 10}
