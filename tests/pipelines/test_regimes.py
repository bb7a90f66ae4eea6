from itertools import pairwise

import msgspec
import pytest

from components.contracts.records import SoftLabel
from components.control.intent import Intent, ModelRef
from components.control.store import rollout_of
from components.ledger.ledger import append
from components.student.runtime import Reply
from pipelines.regimes import MOST, RETURN, Regimes, former, returned

W = "tickets"


def ref(version, teacher="words@1"):
    return ModelRef(version=version, uri=f"file:///none/{version}", digest=version * 8, snapshot="s", teacher=teacher)


class Knows:
    """A student that knows some words, answers their length's parity rightly, and finds all others novel."""

    tells_novelty = True

    def __init__(self, *words):
        self.words, self.asked = words, 0

    def predict_decoded(self, decoded):
        return [said("right" if word in self.words else "wrong") for word in decoded]

    def reply_decoded(self, decoded):
        self.asked += len(decoded)
        answers = self.predict_decoded(decoded)
        return [Reply(a, 0.6 if w in self.words else 0.004) for a, w in zip(answers, decoded, strict=True)]


def said(name):
    return SoftLabel(task="classification", space="s@1", distribution={name: 1.0})


@pytest.fixture
def history(store, clock):
    """Rollouts that went by: each candidate took over from the champion before it, a thousand seconds apart."""

    def go_by(*versions, **last):
        for n, (champion, candidate) in enumerate(pairwise(versions)):
            state = {
                "champion": msgspec.to_builtins(ref(champion)), "candidate": msgspec.to_builtins(ref(candidate)),
                "phase": "promoted", "forced": False, "restored": False, "ended_at": clock.now,
            }  # fmt: skip
            clock.now += 1_000.0
            store.put_rollout(f"r{n}-{champion}-{candidate}", W, 0, False, state | last)
        revision, _ = store.intent(W)
        store.put_intent(W, revision, Intent(champion=ref(versions[-1])))

    return go_by


@pytest.fixture
def regimes(spec, store):
    def make(champion, **students):
        made = Regimes(spec, store, ref(champion), 300)
        assert made._students == {}, "their files are not there: they cannot return"
        made._students = {v.removeprefix("v"): s for v, s in students.items()}
        made._telling = list(made._students)
        policy = spec.monitor
        made.detector = type(made.detector)(
            tuple(made._students), run_length=policy.window / policy.alpha, min_effect=policy.min_effect, calibrated=300
        )
        return made

    return make


def orders(store):
    return [(o.verb, o.actor, o.args) for o in store.open_orders(W)]


def feed(regimes, champion, word, n, *, labels=False):
    """``n`` inputs, looked at until a return is ordered; how many it took, None if none was ordered."""
    for i in range(1, n + 1):
        ((answer, novelty),) = champion.reply_decoded([word])
        if labels:
            regimes.label(word, said("right"), answer)
        else:
            regimes.look([word], [novelty])
        if regimes.consider() is not None:
            return i
    return None


@pytest.mark.parametrize(("labels", "most"), [(False, 12), (True, 30)])
def test_a_regime_that_returns_is_given_to_its_old_champion_by_an_order(store, history, regimes, labels, most):
    history("1", "2")
    old, champion = Knows("ham"), Knows("spam")
    watch = regimes("2", v1=old)
    assert feed(watch, champion, "spam", 300, labels=labels) is None and orders(store) == []
    assert old.asked == 0, "of what the champion knows nobody else is asked"
    assert feed(watch, champion, "ham", 300, labels=labels) <= most
    assert orders(store) == [("start", "monitor", {"version": "1", "returns": True})]
    (order,) = store.open_orders(W)
    assert "the traffic has returned" in order.reason and "verdict on version 1 stands" in order.reason
    told = store.gauges(W)[RETURN].value
    assert (told["order"], told["version"], told["champion"]) == (order.id, "1", "2")


def test_labels_speak_against_one_that_only_finds_the_inputs_familiar(store, history, regimes):
    history("1", "2")
    old, champion = Knows("ham"), Knows("spam")
    watch = regimes("2", v1=old)
    for _ in range(8):  # whatever it answers, the teacher says something else
        watch.look(["ham"], [champion.reply_decoded(["ham"])[0][1]])
        watch.label("ham", said("another"), None)
    assert feed(watch, champion, "ham", 30) is None and orders(store) == []


def test_an_order_that_was_refused_is_not_given_again_until_something_has_changed(store, history, regimes):
    history("1", "2")
    watch = regimes("2", v1=Knows("ham"))
    assert feed(watch, Knows("spam"), "ham", 100) is not None
    (order,) = store.open_orders(W)
    store.finish_order(order.id, False, "refused by the gate")
    assert feed(watch, Knows("spam"), "ham", 500) is None and orders(store) == []


def test_traffic_that_goes_back_and_forth_switches_once_a_cool_down(spec, store, history, regimes, clock):
    history("1", "2")
    clock.now -= 1_000.0 - spec.trigger.cooldown_seconds + 1.0
    watch = regimes("2", v1=Knows("ham"))
    assert feed(watch, Knows("spam"), "ham", 100) is None, "the last switch is not long enough ago"
    clock.now += 2.0
    assert feed(watch, Knows("spam"), "ham", 1) == 1, "the evidence was there"
    assert feed(watch, Knows("spam"), "ham", 5) is None, "and begins anew"


@pytest.mark.parametrize("under_way", ["rollout", "candidate"])
def test_nothing_returns_while_a_rollout_is_under_way(store, history, regimes, under_way):
    history("1", "2")
    watch = regimes("2", v1=Knows("ham"))
    if under_way == "rollout":
        store.put_rollout("now", W, 0, True, {"candidate": msgspec.to_builtins(ref("3"))})
    else:
        revision, intent = store.intent(W)
        store.put_intent(W, revision, msgspec.structs.replace(intent, candidate=ref("3")))
    assert feed(watch, Knows("spam"), "ham", 100) is None and orders(store) == []


def test_who_rolled_back_knew_why(store, history, regimes, clock):
    history("1", "2", "3", "4")
    assert [r.version for r in former(store, W, ref("4"))] == ["1", "2", "3"]
    append(store, W, "ada", "rollback", {"from": "3", "to": "2"})
    assert [r.version for r in former(store, W, ref("4"))] == ["1", "2"]
    assert former(store, W, ref("4", teacher="words@2")) == []


@pytest.mark.parametrize("last", [{"forced": True}, {"restored": True, "phase": "rolled_back"}])
def test_what_was_forced_or_taken_back_does_not_return(store, history, last):
    history("1", "2", **last)
    assert [r.version for r in former(store, W, ref("5"))] == ["1"]


def test_few_are_kept_the_last_that_served_first(store, history):
    history("1", "2", "3", "4", "5", "1", "6", "7")
    assert [r.version for r in former(store, W, ref("7"))] == ["4", "5", "1", "6"] and MOST == 4


def test_alarms_of_the_time_before_ask_for_nothing_once_the_old_champion_is_back(store, history, regimes, clock):
    history("1", "2")
    store.raise_alarm(W, "drift", 5, {"champion": "1"})
    store.raise_alarm(W, "drift", 6, {"champion": "2"})
    watch = regimes("2", v1=Knows("ham"))
    feed(watch, Knows("spam"), "ham", 100)
    (order,) = store.open_orders(W)
    returned(store, W, ref("1"))
    assert len(store.open_alarms(W, "1")) == 1, "it has not taken over yet"
    clock.now += 10.0
    told = {"champion": msgspec.to_builtins(ref("2")), "candidate": msgspec.to_builtins(ref("1"))}
    state = {**told, "phase": "promoted", "forced": False, "restored": False, "ended_at": clock.now}
    store.put_rollout(rollout_of(order.id), W, 0, False, state)
    clock.now += 10.0
    store.raise_alarm(W, "entropy", 9, {"champion": "1"})
    for _ in range(2):
        returned(store, W, ref("1"))
        assert [a.kind for a in store.open_alarms(W, "1")] == ["entropy"], "that one is new"
    assert len(store.open_alarms(W, "2")) == 1
    assert rollout_of(order.id) in store.alarms(W)[0].detail["answered"]


def test_of_values_the_nearer_is_better(store, spec, history, regimes):
    history("1", "2")

    class Says(Knows):
        def predict_decoded(self, decoded):
            return [value(1.1) for _ in decoded]

    watch = regimes("2", v1=Says())
    for _ in range(40):
        watch.label("x", value(1.0), value(3.0))
    assert watch.detector.found().version == "1"


def value(v):
    return SoftLabel(task="regression", space="kg", value=v, scale=1.0)
