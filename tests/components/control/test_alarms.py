import pytest

from components.contracts.errors import ConfigError, NotFoundError
from components.control.alarms import acknowledge, acknowledged, silence, silenced
from components.ledger.ledger import entries, verify
from components.notify.outbox import collect, notices
from components.notify.webhooks import Webhook


@pytest.fixture
def alarm(store):
    store.raise_alarm("files", "drift", 7, {"champion": "1"})
    return store.alarms("files")[0].id


def test_the_first_who_has_seen_an_alarm_stands_and_is_recorded_once(store, alarm):
    acknowledge(store, "files", alarm, "ada", " looking ")
    acknowledge(store, "files", alarm, "eve", "me too")
    with store.session() as s:
        (found,) = acknowledged(s, [alarm, 99]).values()
    assert (found.actor, found.note) == ("ada", "looking")
    (entry,) = entries(store)
    assert (entry.actor, entry.action) == ("ada", "acknowledge alarm") and verify(store) == 1


@pytest.mark.parametrize(("workload", "number"), [("mail", 0), ("files", 1)])
def test_an_alarm_of_another_workload_is_not_there(store, alarm, workload, number):
    with pytest.raises(NotFoundError):
        acknowledge(store, workload, alarm + number, "ada", "r")
    assert entries(store) == []


@pytest.mark.parametrize(
    ("kind", "hours", "note"),
    [("drift", -1.0, "r"), ("drift", 169.0, "r"), ("drift", float("nan"), "r"), ("", 1.0, "r"), ("drift", 1.0, " "),
     ("drift", 1.0, "x" * 501)],
)  # fmt: skip
def test_a_silence_that_makes_no_sense_is_refused(store, kind, hours, note):
    with pytest.raises(ConfigError):
        silence(store, "files", kind, hours, "ada", note)


def test_a_silence_ends_by_itself_or_by_somebody(store, clock_of):
    silence(store, "files", "drift", 2.0, "ada", "known")
    assert set(clock_of(store, 0)) == {("files", "drift")} and clock_of(store, 7_201) == {}
    silence(store, "files", "drift", 0.0, "eve", "over")
    assert clock_of(store, 0) == {}


@pytest.fixture
def clock_of():
    def look(store, later):
        with store.session() as s:
            return silenced(s, store.clock() + later)

    return look


def test_nobody_is_told_of_what_is_silenced(store):
    hook = Webhook(name="chat", url="https://chat.example", format="slack")
    collect(store, [hook])
    silence(store, "files", "drift", 1.0, "ada", "known")
    store.raise_alarm("files", "drift", 1, {})
    store.raise_alarm("files", "entropy", 1, {})
    store.raise_alarm("mail", "drift", 1, {})
    collect(store, [hook])
    assert sorted((n.workload, n.content["data"]["kind"]) for n in notices(store) if n.event == "drift.alarm") == [
        ("files", "entropy"), ("mail", "drift"),
    ]  # fmt: skip
    silence(store, "files", "drift", 0.0, "ada", "over")
    collect(store, [hook])
    assert len([n for n in notices(store) if n.event == "drift.alarm"]) == 3
