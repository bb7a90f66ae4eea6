from io import StringIO

import pytest
from rich.console import Console

from components.contracts.records import SoftLabel, content_hash
from infra.demo.report import alarms, changes, phases, recovery, render
from infra.demo.traffic import Answered
from infra.workloads.source import Item
from tests.stores import migrated


class Says:
    """A student that always says the same."""

    def __init__(self, label):
        self.label = label

    def predict(self, payloads):
        return [SoftLabel(task="classification", space="s", distribution={self.label: 1.0}) for _ in payloads]


def item(n, truth):
    return Item(id=f"i{n}", key="k", payload=f"p{n}".encode(), truth=truth)


def answers():
    """Ten inputs of one kind, and ten of another: two wrong, then three deferred, then right."""
    found = []
    for n in range(20):
        old, after = n < 10, n - 10
        label = "a" if old or after < 2 else "b"
        found.append(
            Answered(
                index=n, phase="one" if old else "two", item=item(n, "a" if old else "b"), label=label,
                version="1" if after < 5 else "2", arm="champion", deferred=2 <= after < 5, at=100.0 + n,
            )
        )  # fmt: skip
    return found


def told():
    rows = answers()
    teacher = {content_hash(a.item.payload): a.item.truth for a in rows}
    return phases(rows, Says("a"), {"1": Says("a"), "2": Says("b")}, teacher, [content_hash(b"p0")])


def test_what_a_user_got_is_told_apart_from_what_the_student_says():
    one, two = told()
    assert one["given"]["accuracy"] == 1.0 and (one["deferred"], one["wrong_undeferred"]) == (0, 0)
    assert one["teacher_calls"] == 9, "one was labelled before"
    assert two["given"]["accuracy"] == 0.8 and two["given"]["agreement"] == 0.8
    assert (two["deferred"], two["wrong_undeferred"]) == (3, 2)
    assert two["continual"]["accuracy"] == 0.5, "the deferred ones it would have had wrong"
    assert two["static"]["accuracy"] == 0.0 and two["teacher"]["accuracy"] == 1.0
    assert two["versions"] == {"1": 5, "2": 5}


def test_a_request_that_failed_is_no_wrong_answer():
    rows = [Answered(index=0, phase="one", item=item(0, "a"), label=None, version=None, arm=None)]
    (one,) = phases(rows, Says("a"), {}, {}, [])
    assert one["wrong_undeferred"] == 0 and one["given"]["accuracy"] == 0.0


def test_inputs_and_seconds_are_counted_from_the_change():
    happened = {"alarm": [50.0, 112.5, 113.0], "candidate": [114.0], "promotion": []}
    (change,) = recovery(answers(), happened)
    assert (change["phase"], change["index"]) == ("two", 10)
    assert change["alarm"] == {"inputs": 3, "seconds": 2.5}
    assert change["candidate"] == {"inputs": 5, "seconds": 4.0} and change["promotion"] is None


def test_what_happened_after_the_next_change_is_not_the_first_one_s():
    third = [
        Answered(index=n, phase="three", item=item(n, "c"), label="c", version="2", arm="champion", at=100.0 + n)
        for n in range(20, 25)
    ]
    two, three = recovery([*answers(), *third], {"alarm": [121.0]})
    assert two["alarm"] is None and three["alarm"] == {"inputs": 2, "seconds": pytest.approx(1.0)}


def test_an_alarm_is_the_change_s_that_came_before_it_in_time(tmp_path):
    store = migrated(f"sqlite:///{tmp_path}/c.db", lambda: 112.0)
    store.raise_alarm("files", "novelty", 7, {"read_from": "predictions"})
    assert alarms(store, "files", [(n, answers()[n].at) for n in changes(answers())]) == [
        {"kind": "novelty", "input_index": 7, "read_from": "predictions", "true_change_index": 10}
    ]
    (found,) = alarms(store, "files", [(10, 113.0)])
    store.close()
    assert found["true_change_index"] is None


def test_the_tables_show_it():
    text = StringIO()
    report = {
        "workload": "files", "phases": told(),
        "recovery": recovery(answers(), {"alarm": [112.5], "candidate": [], "promotion": []}), "rollouts": [],
        "cost": {"cpu_ratio": 0.1, "size_ratio": 0.1}, "alarms": [], "rollback_seconds": None, "requests": 20,
        "failed_requests": 0, "wall_seconds": 1.0,
    }  # fmt: skip
    render(report, Console(file=text, width=200))
    assert "3 inputs, 2.5 s" in text.getvalue() and "wrong, not deferred" in text.getvalue()
