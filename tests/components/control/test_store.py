import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from components.contracts.errors import NotFoundError
from components.control.intent import Intent, ModelRef
from components.control.store import StaleRevisionError
from components.control.tables import WindowRow

pytestmark = pytest.mark.usefixtures("clocked")


def model(version):
    return ModelRef(version=version, uri="file:///m", digest="d" * 64, snapshot="s" * 64, teacher="t@1")


def window(digest, number, workload="files"):
    return WindowRow(
        digest=digest, workload=workload, number=number, uri="file:///w", rows=3, created_at=1.0, manifest={"n": number}
    )


# Routing


def test_a_workload_without_a_row_has_the_empty_intent(store):
    assert store.intent("files") == (0, Intent())


def test_an_intent_comes_back_as_it_was_written(store):
    intent = Intent(champion=model("3"), candidate=model("4"), weight=0.25, lease_until=9.5, epoch=2)
    assert store.put_intent("files", 0, intent) == 1
    assert store.intent("files") == (1, intent)
    assert store.intent("mail") == (0, Intent())


@pytest.mark.parametrize("expected", [0, 2])
def test_a_stale_revision_is_refused_and_changes_nothing(store, expected):
    store.put_intent("files", 0, Intent(weight=0.1))
    with pytest.raises(StaleRevisionError) as caught:
        store.put_intent("files", expected, Intent(weight=0.9))
    assert (caught.value.expected, caught.value.found) == (expected, 1)
    assert store.intent("files")[1].weight == 0.1


RACER = """
import json, sys
from components.control.intent import Intent
from components.control.store import ControlStore, StaleRevisionError

store, won = ControlStore(sys.argv[1]), []
for expected in range(int(sys.argv[2])):
    while store.intent("files")[0] < expected:
        pass
    try:
        store.put_intent("files", expected, Intent(epoch=expected))
        won.append(expected)
    except StaleRevisionError:
        pass
print(json.dumps(won))
"""


def test_of_processes_that_expect_one_revision_exactly_one_succeeds(store):
    rounds, root = 25, Path(__file__).parents[3]
    command = [sys.executable, "-c", RACER, store.url, str(rounds)]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root, text=True) for _ in range(3)]
    outputs = [racer.communicate(timeout=240)[0] for racer in racers]
    wins = [won for output in outputs for won in json.loads(output)]
    assert sorted(wins) == list(range(rounds))
    assert store.intent("files")[0] == rounds


def test_a_lease_is_renewed_only_by_its_epoch(store):
    store.put_intent("files", 0, Intent(candidate=model("4"), weight=0.1, lease_until=10.0, epoch=7))
    store.renew_lease("files", 6, 99.0)
    assert store.intent("files")[1].lease_until == 10.0
    store.renew_lease("files", 7, 99.0)
    revision, intent = store.intent("files")
    assert (revision, intent.lease_until) == (1, 99.0)
    store.renew_lease("unknown", 7, 99.0)
    assert store.intent("unknown") == (0, Intent())


def test_weight_needs_a_candidate_and_a_live_lease():
    leased = Intent(candidate=model("4"), weight=0.25, lease_until=10.0)
    assert leased.weight_at(9.99) == 0.25
    assert leased.weight_at(10.0) == 0.0
    assert Intent(weight=0.25, lease_until=10.0).weight_at(5.0) == 0.0


def test_acknowledgements_are_of_living_replicas_of_the_workload(store, clock):
    store.acknowledge("files", "a", 1, {"loaded": True})
    store.acknowledge("mail", "m", 1, {})
    clock.now += 4
    store.acknowledge("files", "b", 2, {})
    assert [(a.replica, a.revision) for a in store.acknowledgements("files")] == [("a", 1), ("b", 2)]
    clock.now += 2
    assert [a.replica for a in store.acknowledgements("files")] == ["b"]
    store.acknowledge("files", "a", 3, {})
    assert [(a.replica, a.revision) for a in store.acknowledgements("files")] == [("a", 3), ("b", 2)]
    store.forget_replica("files", "a")
    assert [a.replica for a in store.acknowledgements("files")] == ["b"]


# Orders


def test_the_same_key_places_one_order(store):
    first = store.order("files", "rollback", "ada", "bad", {"to": "previous"}, key="k")
    again = store.order("files", "rollback", "ada", "bad", {"to": "previous"}, key="k")
    other = store.order("files", "pause", "ada", "look")
    assert first == again == "k"
    assert [o.id for o in store.open_orders("files")] == ["k", other]
    assert store.open_orders("mail") == []


def test_many_threads_with_one_key_place_one_order_and_seqs_differ(store):
    threads = [
        threading.Thread(target=store.order, args=("files", "pause", f"p{i}", "r"), kwargs={"key": "k" * (i % 2)})
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    orders = store.open_orders("files")
    assert len(orders) == 5
    assert [o.seq for o in orders] == [1, 2, 3, 4, 5]


def test_a_finished_order_is_no_longer_open(store, clock):
    order = store.order("files", "promote", "ada", "ready")
    clock.now += 3
    store.finish_order(order, True, "version 4 is champion")
    assert store.open_orders("files") == []
    row = store.get_order(order)
    assert (row.ok, row.outcome, row.done_at) == (True, "version 4 is champion", clock.now)


def test_an_order_that_does_not_exist(store):
    with pytest.raises(NotFoundError, match="no order 'x'"):
        store.get_order("x")
    with pytest.raises(NotFoundError, match="no order 'x'"):
        store.finish_order("x", True, "")


def test_awaiting_an_order(store):
    order = store.order("files", "promote", "ada", "ready")
    assert store.await_order(order, timeout=0.05, poll=0.01).done_at is None
    other = threading.Timer(0.1, store.finish_order, (order, False, "no candidate"))
    other.start()
    assert store.await_order(order, timeout=180, poll=0.01).ok is False
    other.join()


# Rollouts, windows, runs, alarms, gauges


def test_rollouts_are_written_only_by_who_has_seen_the_last_revision(store):
    assert store.put_rollout("r1", "files", 0, True, {"step": 0}) == 1
    assert store.put_rollout("r1", "files", 1, True, {"step": 1}) == 2
    for stale in (0, 1, 3):
        with pytest.raises(StaleRevisionError):
            store.put_rollout("r1", "files", stale, True, {"step": 9})
    active = store.active_rollout("files")
    assert active is not None
    assert active.state == {"step": 1}
    store.put_rollout("r1", "files", 2, False, {"step": 2})
    assert store.active_rollout("files") is None
    assert [r.id for r in store.rollouts("files")] == ["r1"]
    assert store.rollouts("mail") == []


def test_windows_are_recorded_once_and_by_number(store):
    store.add_window(window("b" * 64, 1))
    store.add_window(window("a" * 64, 2))
    store.add_window(window("a" * 64, 2))
    store.add_window(window("a" * 64, 1, workload="mail"))
    assert [(w.number, w.digest[0], w.manifest) for w in store.windows("files")] == [
        (1, "b", {"n": 1}),
        (2, "a", {"n": 2}),
    ]
    assert [w.number for w in store.windows("mail")] == [1]


def test_two_windows_cannot_have_one_number(store):
    store.add_window(window("b" * 64, 1))
    with pytest.raises(StaleRevisionError, match="windows of files"):
        store.add_window(window("c" * 64, 1))
    assert len(store.windows("files")) == 1


def test_runs(store, clock):
    run = store.start_run("files", "continual", "600 labels", "trigger")
    clock.now += 5
    other = store.start_run("files", "rollback", "bad", "ada")
    store.finish_run(run, "succeeded", {"version": "4"})
    assert [(r.id, r.status, r.detail) for r in store.runs("files")] == [
        (run, "succeeded", {"version": "4"}),
        (other, "running", {}),
    ]
    assert run.startswith("continual-")


def test_alarms_since(store, clock):
    store.raise_alarm("files", "drift", 150, {"column": "size"})
    clock.now += 10
    store.raise_alarm("files", "entropy", 300, {})
    store.raise_alarm("mail", "drift", 1, {})
    assert [(a.kind, a.input_index) for a in store.alarms("files")] == [("drift", 150), ("entropy", 300)]
    assert [a.kind for a in store.alarms("files", since=clock.now)] == ["entropy"]


def test_gauges_keep_the_last_value(store, clock):
    store.put_gauge("files", "lag", {"records": 5})
    clock.now += 1
    store.put_gauge("files", "lag", {"records": 2})
    store.put_gauge("mail", "lag", {"records": 9})
    gauges = store.gauges("files")
    assert {n: (g.value, g.at) for n, g in gauges.items()} == {"lag": ({"records": 2}, clock.now)}


def test_workloads_are_those_of_any_table(store):
    store.put_intent("files", 0, Intent())
    store.add_window(window("b" * 64, 1, workload="mail"))
    store.put_gauge("sensors", "lag", {})
    assert store.workloads() == ["files", "mail", "sensors"]


def test_rollouts_are_found_by_a_text_in_their_state(store):
    for name, orders in (("r1", ['ä"b']), ("r2", ["a%"]), ("r3", ["ab"])):
        store.put_rollout(name, "files", 0, False, {"orders": orders})
    assert [r.id for r in store.rollouts_naming("files", 'ä"b')] == ["r1"]
    assert [r.id for r in store.rollouts_naming("files", "a%")] == ["r2"]
    assert store.rollouts_naming("files", "nowhere") == store.rollouts_naming("mail", "ab") == []
