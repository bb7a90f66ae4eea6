"""What is shown of several workloads is what is known of each."""

import pytest

from components.control import several
from components.control.intent import Intent, ModelRef
from components.control.looks import shown
from components.control.tables import WindowRow

NAMES = ("files", "mail", "signs")


pytestmark = pytest.mark.usefixtures("clocked")


def work(store, clock, name, n):
    """What a workload leaves that is the ``n``-th."""
    model = ModelRef(version=str(n), uri="file:///m", digest="d" * 64, snapshot="s" * 64, teacher="t@1")
    for revision in range(n):
        store.put_intent(name, revision, Intent(champion=model))
    for number in range(1, n + 1):
        store.add_window(
            WindowRow(
                digest=f"{name}-{number}", workload=name, number=number, uri="file:///w", rows=10 * number,
                created_at=1.0, manifest={"n": number},
            )
        )  # fmt: skip
    for number in range(2 * n):
        clock.now += 1.0
        store.start_run(name, "continual", f"run {number}", "trigger")
        store.raise_alarm(name, "drift", number, {})
    store.put_gauge(name, "labeler", {"lag": n})
    store.put_gauge(name, "looks", {"drift": []})
    store.acknowledge(name, "r1", n, {})
    clock.now += 10.0
    store.acknowledge(name, "r2", n, {})


def test_several_are_shown_as_each_of_them_is(store, clock):
    for n, name in enumerate(NAMES[:2], 1):
        work(store, clock, name, n)
    found = several.shown(store, NAMES, 3)
    assert list(found) == list(NAMES)
    for name, seen in found.items():
        windows = store.windows(name)
        assert (seen.revision, seen.intent) == store.intent(name)
        assert [a.replica for a in seen.replicas] == [a.replica for a in store.acknowledgements(name)]
        assert seen.windows.windows == len(windows) and seen.windows.rows == sum(w.rows for w in windows)
        assert seen.windows.newest == (windows[-1].manifest if windows else {})
        assert [run.id for run in seen.runs] == [run.id for run in store.last_runs(name, 3)]
        assert [alarm.id for alarm in seen.alarms] == [alarm.id for alarm in store.last_alarms(name, 3)]
        assert {n: g.value for n, g in seen.gauges.items()} == {
            n: g.value for n, g in shown(store.gauges(name)).items()
        }
    assert [len(found[name].runs) for name in NAMES] == [2, 3, 0]
    assert found["mail"].windows == (2, 30, {"n": 2}) and found["files"].gauges.keys() == {"labeler"}
