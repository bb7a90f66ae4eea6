"""The overview's rows: read for many workloads by the questions that one takes, and true at every look."""

import time

import pytest
from sqlalchemy import event

from components.contracts.settings import Settings
from components.control.store import ControlStore
from components.control.tables import AckRow, LeaderRow, RoutingRow
from serving.admin.console.overview import Agreement, Rows
from serving.admin.console.traffic import Traffic
from serving.control.facts import FEW, read_facts

REF = {"version": "1", "uri": "file:///v1", "digest": "d" * 64, "snapshot": "s" * 64, "teacher": "t@1"}


@pytest.fixture
def store(tmp_path):
    made = ControlStore(f"sqlite:///{tmp_path}/control.db")
    made.migrate()
    yield made
    made.close()


def rows_of(store, tmp_path):
    return Rows(store, Settings(home=tmp_path), Traffic(tmp_path, store))


def add(store, count):
    """So many workloads that serve; returns their names."""
    names, now = [f"w{n:02d}" for n in range(count)], time.time()
    for number, name in enumerate(names):
        with store.transaction() as s:
            s.merge(RoutingRow(workload=name, revision=1, intent={"champion": REF}))
            s.merge(AckRow(workload=name, replica="r", revision=1, at=now + 60, detail={}))
            s.merge(LeaderRow(name=f"controller/{name}", holder="h", beats=1, at=now + 60))
        for labeler in ("labeler", "labeler-2"):
            store.put_gauge(name, labeler, {"lag": number})
        store.put_gauge(name, "agreement", {"share": 0.9, "lower": 0.8})
        store.raise_alarm(name, "drift", 1, {"champion": "0", "answered": "updated"})
        store.raise_alarm(name, "drift", 2, {"champion": "1"})
    return names


def test_rows_of_many_say_what_each_alone_says(store, tmp_path):
    names, rows = add(store, FEW + 3), rows_of(store, tmp_path)
    found = {row.workload: row for row in rows.read()}
    assert sorted(found) == names
    for number, name in enumerate(names):
        (alone,) = rows_of(store, tmp_path).read([name])
        assert found[name].condition == alone.condition and alone.condition.state == "serving"
        assert found[name].lag == alone.lag == 2 * number
        assert found[name].agreement == alone.agreement == Agreement(value=0.9, lower=0.8)
        assert found[name].alarms == alone.alarms == 1
    store.put_gauge(names[0], "labeler", {"last": "waits"})
    store.put_gauge(names[0], "labeler-2", {"lag": None})
    (row,) = rows.read(names[:1])
    assert row.lag is None, "no labeler says"


def test_what_is_kept_between_two_looks_is_never_what_was(store, tmp_path):
    names, rows = add(store, FEW + 3), rows_of(store, tmp_path)

    def alarms():
        return {row.workload: row.alarms for row in rows.read()}

    assert alarms() == dict.fromkeys(names, 1)
    store.answer_alarms(names[0], "1", time.time() + 60, "updated")
    assert alarms() == dict.fromkeys(names, 1) | {names[0]: 0}
    store.raise_alarm(names[0], "novelty", 3, {"champion": "1"})
    store.raise_alarm(names[1], "novelty", 3, {"champion": "0"})
    assert alarms() == dict.fromkeys(names, 1)
    for name in names:
        told = read_facts(store, name, time.time(), leader_term=5.0)
        assert [row.facts.alarms for row in rows.read([name])] == [told.alarms]


def test_a_silent_worker_is_seen_among_many(store, tmp_path):
    names = add(store, FEW + 3)
    ahead = time.time() + 200.0
    store.clock = lambda: ahead
    for name in names:
        store.acknowledge(name, "r", 1, {})
        with store.transaction() as s:
            s.merge(LeaderRow(name=f"controller/{name}", holder="h", beats=1, at=ahead))
    store.clock = lambda: ahead - 190.0
    store.put_gauge(names[3], "monitor", {})
    store.clock = lambda: ahead
    found = {row.workload: row.condition for row in rows_of(store, tmp_path).read()}
    assert [name for name in names if found[name].state == "stale"] == [names[3]]
    assert found[names[3]].why == "not heard: monitor"


def test_many_workloads_take_no_more_questions_than_one(store, tmp_path):
    asked = []
    event.listen(store.engine, "before_cursor_execute", lambda *told: asked.append(told[2]))

    def questions(count):
        add(store, count)
        store.answer_alarms("w00", "1", time.time() + 60, "updated")
        rows = rows_of(store, tmp_path)
        rows.read()
        asked.clear()
        rows.read()
        return len(asked)

    assert questions(1) > 0
    one = questions(2)
    assert questions(FEW + 3) == one


def test_alarms_that_were_answered_are_not_read_again(store, tmp_path):
    names = add(store, 3)
    for name in names:
        store.answer_alarms(name, "1", time.time() + 60, "updated")
    rows, asked = rows_of(store, tmp_path), []
    rows.read()
    event.listen(store.engine, "before_cursor_execute", lambda *told: asked.append(told[2]))
    rows.read()
    assert asked and not [query for query in asked if "alarms.detail" in query]


def test_a_look_that_failed_half_way_hides_no_alarm_from_the_next(store, tmp_path):
    names, rows = add(store, 3), rows_of(store, tmp_path)
    away = []

    def fail(connection, cursor, statement, *_):
        if "alarms.kind" in statement and not away:
            away.append(statement)
            raise ConnectionError("away")

    event.listen(store.engine, "before_cursor_execute", fail)
    with pytest.raises(ConnectionError):
        rows.read()
    assert [row.alarms for row in rows.read()] == [1] * len(names) and len(away) == 1
