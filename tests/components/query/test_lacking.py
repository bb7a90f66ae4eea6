"""How many labels of a new regime the next update lacks."""

import msgspec

from components.contracts.spec import Factory, Spec, Trigger
from components.control.intent import Intent, ModelRef
from components.query.lacking import REFRESH_SECONDS, SILENT_SECONDS, Lacking
from components.query.least import least_labels
from tests.clock import Clock

SPEC = Spec(
    name="files", teacher=Factory(factory="t:T"), features=Factory(factory="f:F"),
    trigger=Trigger(alarm_labels=60, least_labels=40),
)  # fmt: skip


def test_none_without_an_alarm_about_the_champion_and_else_what_it_starts_with_less_what_came(store):
    clock = store.clock = Clock(1_700_006_400.0)
    lacking = Lacking(SPEC, store)

    def later():
        clock.now += REFRESH_SECONDS
        return lacking()

    assert lacking() == 0, "nothing serves"
    champion = ModelRef(version="2", uri="u", digest="d", snapshot="s", teacher="t")
    store.put_intent("files", 0, Intent(champion=champion))
    store.raise_alarm("files", "drift", 10, {"champion": "1"})
    store.raise_alarm("files", "drift", 90, {"champion": "2"})
    assert later() == 0, "of another champion, and that the traffic is another"
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
    champion = ModelRef(version="2", uri="u", digest="d", snapshot="s", teacher="t")
    store.put_intent("files", 0, Intent(champion=champion))
    store.raise_alarm("files", "novelty", 100, {"champion": "2"})
    store.put_gauge("files", "monitor", {"index": 110})
    spec = msgspec.structs.replace(SPEC, trigger=Trigger(alarm_labels=60))
    assert least_labels(spec) > 60 and Lacking(spec, store)() == least_labels(spec) - 10


def test_none_is_asked_for_beside_the_pace_while_nobody_counts_what_comes(store):
    clock = store.clock = Clock(1_700_006_400.0)
    champion = ModelRef(version="2", uri="u", digest="d", snapshot="s", teacher="t")
    store.put_intent("files", 0, Intent(champion=champion))
    store.raise_alarm("files", "novelty", 100, {"champion": "2"})
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
