"""How many labels of a new regime the next update lacks."""

import msgspec
import pytest

from components.contracts.spec import Factory, Spec, Trigger
from components.control.intent import Intent, ModelRef
from components.query.lacking import REFRESH_SECONDS, SILENT_SECONDS, Lacking
from components.query.least import least_labels
from tests.clock import Clock

SPEC = Spec(
    name="files", teacher=Factory(factory="t:T"), features=Factory(factory="f:F"),
    trigger=Trigger(alarm_labels=60, least_labels=40),
)  # fmt: skip


def crown(store):
    champion = ModelRef(version="2", uri="u", digest="d", snapshot="s", teacher="t")
    store.put_intent("files", 0, Intent(champion=champion))


def waits(store, labels, index):
    """The trigger waits for labels, of which so many came after the last window."""
    store.put_gauge("files", "trigger", {"last": "a reason", "labels": labels, "index": index})


def test_none_without_an_alarm_about_the_champion_and_else_what_it_starts_with_less_what_came(store):
    clock = store.clock = Clock(1_700_006_400.0)
    lacking = Lacking(SPEC, store)

    def later():
        clock.now += REFRESH_SECONDS
        return lacking()

    assert lacking() == 0, "nothing serves"
    crown(store)
    store.raise_alarm("files", "drift", 10, {"champion": "1"})
    waits(store, labels=90, index=100)
    drifted = store.clock()
    store.raise_alarm("files", "drift", 90, {"champion": "2"})
    store.put_gauge("files", "monitor", {"index": 100})
    assert later() == 0, "of another champion, and that the traffic is another"
    store.answer_alarms("files", "2", drifted, "a reason")
    store.raise_alarm("files", "novelty", 100, {"champion": "2"})
    store.raise_alarm("files", "guarded", 140, {"champion": "2"})
    counts = []
    for index in (100, 145, 160, 300):
        store.put_gauge("files", "monitor", {"index": index})
        counts.append(later())
    assert counts == [60, 15, 0, 0]
    store.put_gauge("files", "monitor", {"index": 100})
    assert later() == 60
    lacking.asked(50)
    assert lacking() == 10, "until the monitor has seen them"
    lacking.asked(50)
    assert lacking() == later() == 0, "nor does time bring any"
    store.put_gauge("files", "monitor", {"index": 101})
    assert later() == 59
    store.answer_alarms("files", "2", store.clock() + 1.0, "a reason")
    assert later() == 0


def test_as_many_are_lacking_as_its_student_can_be_judged_by(store):
    crown(store)
    store.raise_alarm("files", "novelty", 100, {"champion": "2"})
    store.put_gauge("files", "monitor", {"index": 110})
    spec = msgspec.structs.replace(SPEC, trigger=Trigger(alarm_labels=60))
    waits(store, labels=10, index=110)
    assert least_labels(spec) > 70 and Lacking(spec, store)() == least_labels(spec) - 10
    waits(store, labels=500, index=110)
    assert Lacking(spec, store)() == 50, "those from before the alarm can judge it, too"


def test_what_a_window_has_taken_is_lacking_anew(store):
    crown(store)
    store.raise_alarm("files", "guarded", 80, {"champion": "2"})
    store.put_gauge("files", "monitor", {"index": 150})
    waits(store, labels=90, index=140)
    assert Lacking(SPEC, store)() == 0, "70 came after the alarm"
    waits(store, labels=15, index=140)
    assert Lacking(SPEC, store)() == 35, "15, and ten since"


def test_as_many_are_lacking_as_the_trigger_waits_for_with_its_first_alarm(store):
    crown(store)
    store.raise_alarm("files", "drift", 60, {"champion": "2"})
    store.raise_alarm("files", "novelty", 100, {"champion": "2"})
    store.put_gauge("files", "monitor", {"index": 110})
    waits(store, labels=110, index=110)
    assert Lacking(SPEC, store)() == 10


@pytest.mark.parametrize("said", [None, {"last": "a run is under way"}])
def test_none_is_asked_for_while_no_update_waits_for_labels(store, said):
    crown(store)
    store.raise_alarm("files", "novelty", 100, {"champion": "2"})
    store.put_gauge("files", "monitor", {"index": 100})
    if said is not None:
        store.put_gauge("files", "trigger", said)
    lacking = Lacking(SPEC, store)
    assert lacking() == 0
    waits(store, labels=90, index=100)
    assert Lacking(SPEC, store)() == 60


def test_none_is_asked_for_beside_the_pace_while_nobody_counts_what_comes(store):
    clock = store.clock = Clock(1_700_006_400.0)
    crown(store)
    store.raise_alarm("files", "novelty", 100, {"champion": "2"})
    waits(store, labels=90, index=100)
    lacking = Lacking(SPEC, store)
    assert lacking() == 0, "no monitor has begun"
    store.put_gauge("files", "monitor", {"index": 100})
    clock.now += REFRESH_SECONDS
    assert lacking() == 60
    lacking.asked(20)
    clock.now += SILENT_SECONDS
    assert lacking() == 0, "it died"
    store.put_gauge("files", "monitor", {"index": 100})
    clock.now += REFRESH_SECONDS
    assert lacking() == 40, "it goes on, and what was asked for is on its way"
