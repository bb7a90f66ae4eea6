import math

import msgspec
import pytest

from components.contracts.records import Input, SoftLabel
from components.contracts.sampling import audited
from components.contracts.spec import Budget as Limits
from components.contracts.spec import Factory, Label, Policy, Serve, Spec
from components.query.budget import Budget
from components.query.selector import Selector
from drift.reweight import hajek
from tests.clock import Clock

KINDS = ("all", "random", "margin", "entropy", "committee")


@pytest.fixture
def clock():
    return Clock(1_700_006_400.0)


@pytest.fixture
def selector(store, clock):
    def make(kind="all", *, share=1.0, audit_share=0.0, gateway=0.0, seed=0, lacking=0, **limits):
        spec = Spec(
            name="files", teacher=Factory(factory="t:T"), features=Factory(factory="f:F"), seed=seed,
            serve=Serve(audit_share=gateway),
            label=Label(audit_share=audit_share, policy=Policy(kind=kind, share=share)),
        )  # fmt: skip
        limits = {"paced": False, "reserve": 0.0, **limits}
        return Selector(spec, Budget(Limits(**limits), "files", store, clock=clock), clock, Lacks(lacking))

    return make


class Lacks:
    """So many labels, but for those that were asked for."""

    def __init__(self, n):
        self.n = n

    def __call__(self):
        return self.n

    def asked(self, labels):
        self.n = max(0, self.n - labels)


def inputs(n, first=0):
    return [Input(workload="files", id=f"i{k}", key="k", time=1.0, payload=b"x") for k in range(first, first + n)]


def soft(p):
    return SoftLabel(task="classification", space="s", distribution={"a": p, "b": 1 - p})


def scores(n):
    """Sure of the first half, unsure of the second; a second student is of another mind about every fourth."""
    first = [soft(0.99 if k < n // 2 else 0.55) for k in range(n)]
    return [first, [soft(1 - s.distribution["a"]) if k % 4 == 0 else s for k, s in enumerate(first)]]


def labelled(choice):
    return [i for i, d in enumerate(choice.decisions) if d.label]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [0, 1])
def test_no_policy_touches_the_audit_slice(selector, kind, seed):
    one = selector(kind, share=0.3, audit_share=0.1, seed=seed)
    found = one.choose(inputs(500), scores(500)).decisions
    audits = [i for i, d in enumerate(found) if d.audit]
    assert audits == [k for k in range(500) if audited("files", f"i{k}", 0.1)]
    assert all(d.label and (d.policy, d.probability) == ("audit", 0.1) for d in found if d.audit)
    assert {d.policy for d in found if not d.audit} == {kind}


def test_all_without_a_limit_labels_everything_and_reserves_nothing(selector, store):
    one = selector()
    choice = one.choose(inputs(50))
    assert labelled(choice) == list(range(50)) and choice.reservation.calls == 0
    assert {(d.policy, d.probability, d.reason) for d in choice.decisions} == {("all", 1.0, "drawn")}
    one.settle(choice, 50)
    assert Budget(Limits(), "files", store).spending()["day"].calls == 0


def test_uncertain_inputs_are_preferred(selector):
    found = labelled(selector("margin", share=0.2).choose(inputs(400), scores(400)))
    assert len(found) == pytest.approx(80, abs=30)
    assert sum(i >= 200 for i in found) > 4 * sum(i < 200 for i in found)


def test_a_batch_of_its_own_is_held_against_what_came_before(selector):
    one = selector("margin", share=0.1)
    for first in range(0, 1_000, 10):
        one.choose(inputs(10, first), [[soft(0.99)] * 10])
    (sure,) = one.choose(inputs(1, 5_000), [[soft(0.99)]]).decisions
    (unsure,) = one.choose(inputs(1, 6_000), [[soft(0.5)]]).decisions
    assert sure.probability < 0.12 and unsure.probability > 0.9


def test_without_scores_it_draws_at_random_and_says_so(selector):
    one = selector("margin", share=0.5)
    assert {d.policy for d in one.choose(inputs(40)).decisions} == {"random"}
    assert set(one.counts) == {"drawn_without_student", "not_drawn_without_student"}


def test_who_waits_is_labelled_whatever_the_policy_draws(selector):
    one = selector("random", share=0.001, gateway=0.2)
    found = one.choose(inputs(100), waiting={"i3", "i4"}).decisions
    expected = {3, 4} | {k for k in range(100) if audited("files", f"i{k}", 0.2)}
    assert {i for i, d in enumerate(found) if d.reason == "priority"} == expected
    assert all(d.label and d.probability == 1.0 for d in found if d.reason == "priority")


# The budget


def test_an_exhausted_budget_skips_and_counts(selector, caplog):
    one = selector(per_hour=30)
    first, second = one.choose(inputs(20)), one.choose(inputs(20, 100))
    assert len(labelled(first)) == 20 and len(labelled(second)) <= 10
    third, fourth = one.choose(inputs(20, 200)), one.choose(inputs(20, 300))
    assert sum(len(labelled(c)) for c in (first, second, third, fourth)) <= 30
    assert one.budget.spending()["hour"].calls <= 30
    skipped = sum(d.reason == "exhausted" for c in (first, second, third, fourth) for d in c.decisions)
    assert one.counts["exhausted"] == skipped == one.budget.spending()["hour"].skipped > 0
    assert all(d.probability < 1 for d in second.decisions)
    assert caplog.text.count("budget is exhausted") <= 2


def test_where_nothing_is_left_nobody_had_a_chance(selector):
    one = selector(per_hour=10, audit_share=0.3)
    one.budget.reserve(10, 0)
    found = one.choose(inputs(50), waiting={"i2"}).decisions
    assert {(d.label, d.probability, d.reason) for d in found} == {(False, 0.0, "exhausted")}
    assert one.counts["exhausted"] == 50 == one.budget.spending()["hour"].skipped


def test_the_reserve_is_for_audits_and_for_those_who_wait(selector):
    one = selector(per_hour=100, reserve=0.2, audit_share=0.1)
    one.budget.reserve(0, 80)
    found = one.choose(inputs(100), waiting={"i2"}).decisions
    by_reason = {r: sum(d.reason == r and d.label for d in found) for r in ("audit", "priority", "drawn")}
    audits = sum(audited("files", f"i{k}", 0.1) for k in range(100))
    assert not audited("files", "i2", 0.1)
    assert by_reason == {"audit": audits, "priority": 1, "drawn": 0}


def test_the_audit_slice_is_the_last_to_be_cut(selector):
    one = selector(per_hour=100, audit_share=0.1)
    one.budget.reserve(0, 95)
    found = one.choose(inputs(100), waiting={"i2", "i3"}).decisions
    audits = sum(audited("files", f"i{k}", 0.1) for k in range(100))
    kept = [d for d in found if d.label]
    assert len(kept) == 5 and all(d.audit for d in kept)
    assert [d.probability for d in kept] == pytest.approx([0.1 * 5 / audits] * 5)


def test_an_audit_gets_through_when_deferrals_have_used_all_theirs(selector, clock):
    one = selector("random", share=0.5, per_hour=100, audits=0.2, audit_share=0.05, gateway=0.1)
    clock.now += 1_800
    storm = one.choose(inputs(200), waiting={f"i{k}" for k in range(200)})
    assert len(labelled(storm)) == 80, "audits among them"
    some = inputs(100, 1_000)
    slices = [{k for k in range(100) if audited("files", some[k].id, share)} for share in (0.05, 0.1)]
    found = one.choose(some, waiting={x.id for x in some})
    assert set(labelled(found)) == slices[1] and 0 < len(slices[0]) < len(slices[1]) <= 20
    assert {k for k, d in enumerate(found.decisions) if d.audit and d.label} == slices[0]
    assert {found.decisions[k].probability for k in slices[1] - slices[0]} == {1.0}
    assert found.reservation.calls == found.reservation.audits == len(slices[1])
    assert one.gauge()["budget_kept_hour"] == one.gauge()["budget_left_hour"] == 20 - len(slices[1])


def test_without_anything_kept_those_that_the_gateway_audits_are_as_those_that_wait(selector):
    one = selector("random", share=0.5, per_hour=40, gateway=0.5)
    found = one.choose(inputs(200), waiting={f"i{k}" for k in range(200)})
    waited = {d.probability for d in found.decisions if d.label}
    assert waited == {40 / 200} and found.reservation.audits == 0


def test_what_is_not_called_is_given_back(selector):
    one = selector(per_hour=100)
    choice = one.choose(inputs(40))
    one.settle(choice, 10)
    one.settle(choice, 10)
    assert one.budget.spending()["hour"].calls == 10


def test_the_gauge_has_decisions_by_reason_and_what_is_left(selector):
    one = selector(per_hour=100, reserve=0.0, paced=False)
    choice = one.choose(inputs(130))
    one.settle(choice, choice.reservation.calls)
    asked, gauge = choice.reservation.calls, one.gauge()
    assert 0 < asked <= 100 and gauge["budget_left_hour"] == 100 - asked
    assert sum(n for name, n in gauge.items() if name.startswith("chosen_")) == 130
    assert sum(gauge.get(f"chosen_{reason}", 0) for reason in ("audit", "drawn", "priority")) == asked
    assert gauge["budget_skipped_hour"] == 0, "what the policy did not draw is no refusal of the budget"
    assert "budget_left_day" not in gauge, "there is no limit"
    assert set(selector().gauge()) == set(), "nothing was chosen, and nothing limits it"


def test_paced_it_lasts_the_hour_and_stays_below_the_limit(selector, clock):
    one = selector(per_hour=300, paced=True)
    by_quarter = [0, 0, 0, 0]
    for second in range(0, 3_600, 6):
        by_quarter[second // 900] += len(labelled(one.choose(inputs(24, 4 * second))))
        clock.now += 6.0
    assert 290 <= sum(by_quarter) <= 300
    assert min(by_quarter) > 45


def test_slow_traffic_is_labelled_whole_though_it_is_paced(selector, clock):
    one = selector(per_hour=300, paced=True)
    one.choose(inputs(1))
    for k in range(1, 100):
        clock.now += 15.0
        assert labelled(one.choose(inputs(1, k))) == [0]


def test_estimates_stay_unbiased_when_the_budget_cuts(selector, clock):
    wrong = [float(k % 7 == 0 or (k >= 200 and k % 2 == 0)) for k in range(400)]
    means = []
    for seed in range(120):
        clock.now += 3_600
        one = selector("margin", share=0.5, seed=seed, per_hour=60)
        one.budget.reserve(0, 20)
        found = one.choose(inputs(400), scores(400)).decisions
        kept = [i for i, d in enumerate(found) if d.label]
        means.append(hajek([wrong[i] for i in kept], [found[i].probability for i in kept]).value)
    truth = sum(wrong) / 400
    error = math.sqrt(sum((m - truth) ** 2 for m in means) / len(means) / len(means))
    assert abs(sum(means) / len(means) - truth) < 3.5 * error


def test_decisions_are_records(selector):
    (decision,) = selector().choose(inputs(1)).decisions
    assert msgspec.json.decode(msgspec.json.encode(decision)) == {
        "label": True, "policy": "all", "probability": 1.0, "reason": "drawn", "audit": False,
    }  # fmt: skip


def test_after_an_alarm_the_new_regime_is_asked_about_first_and_estimates_stay_unbiased(selector, clock):
    """A quarter of the inputs is new, and the budget lets an eighth of all be labelled."""
    found, shares = [], []
    for seed in range(200):
        one = selector("all", seed=seed, per_hour=25)
        clock.now += 3_600
        choice = one.choose(inputs(200), first=range(0, 200, 4))
        mine = [i for i in labelled(choice) if i % 4 == 0]
        shares.append(len(mine) / max(1, len(labelled(choice))))
        assert one.counts["drawn_of_new_regime"] == len(mine)
        weights = {i: 1 / choice.decisions[i].probability for i in labelled(choice)}
        found.append([sum(w for i, w in weights.items() if (i % 4 == 0) is new) / 200 for new in (True, False)])
    assert sum(shares) / len(shares) > 0.8
    for counted, share in zip(zip(*found, strict=True), (0.25, 0.75), strict=True):
        mean = sum(counted) / len(counted)
        error = math.sqrt(sum((c - mean) ** 2 for c in counted)) / len(counted)
        assert abs(mean - share) < 4 * error


def test_of_the_audit_slice_and_of_those_who_wait_no_regime_takes_anything(selector):
    one = selector("margin", share=0.2, audit_share=0.2)
    before = one.choose(inputs(300), scores(300), waiting={"i7"}).decisions
    after = selector("margin", share=0.2, audit_share=0.2).choose(
        inputs(300), scores(300), waiting={"i7"}, first=range(0, 300, 2)
    )
    assert [d for d in before if d.reason in ("audit", "priority")] == [
        d for d in after.decisions if d.reason in ("audit", "priority")
    ]


def test_of_those_that_wait_the_neediest_are_asked_about_and_the_others_are_as_any(selector, clock):
    one = selector("random", share=0.05, per_hour=3_600, paced=True, pace_deferred=True)
    labelled_of = {"priority": 0, "drawn": 0}
    for second in range(40):
        some = inputs(20, 20 * second)
        choice = one.choose(some, scores(20), waiting={x.id for x in some})
        for k, decision in enumerate(choice.decisions):
            if decision.label:
                labelled_of[decision.reason] += 1
                assert decision.reason != "priority" or decision.probability == 1.0
                assert decision.reason != "drawn" or decision.probability <= 0.05
                assert decision.reason == "drawn" or k >= 10, "the student is sure of the first half"
        one.settle(choice, choice.reservation.calls)
        clock.now += 1.0
    assert one.counts["paced"] > 700 and labelled_of["priority"] > 20
    assert one.gauge()["budget_pace_share"] < 0.1 and one.gauge()["budget_pace_price"] > 0.4


def test_what_an_update_lacks_is_asked_about_whatever_the_pace(selector):
    one, some = selector("random", share=1e-9, per_hour=3_600, pace_deferred=True, lacking=7), inputs(20)
    choice = one.choose(some, scores(20), waiting={x.id for x in some})
    assert len(labelled(choice)) == 7 and min(labelled(choice)) >= 10
    assert one._lacking() == 0
    plain = selector("random", share=1e-9, per_hour=3_600, lacking=7).choose(inputs(20, 20), scores(20))
    assert labelled(plain) == [], "of inputs that wait for nobody it says nothing"


def test_room_is_kept_for_audits_and_for_what_the_policy_promises_every_input(selector, clock):
    one, plain = selector("random", share=0.5, audit_share=0.2, per_hour=3_600, pace_deferred=True), inputs(100)
    one.choose(plain)
    audits = sum(audited("files", x.id, 0.2) for x in plain)
    promised = audits + 0.5 * 0.2 * (100 - audits)
    before = one.budget.pacing()
    assert before == {"share": 1.0, "price": 0.0}, "nobody waits"
    one.budget.neediest({f"w{n}": 0.5 for n in range(100)})
    clock.now += 60.0
    seconds = 1.0 + 3_599.0 * (1 - math.exp(-60 / 3_600))
    kept = math.exp(-60 / 3_600)
    left = one.budget.spending()["hour"].left / (3_600 - 60)
    expected = (left - promised * kept / seconds) / (100 * kept / seconds)
    assert one.budget.pacing()["share"] == pytest.approx(max(0.0, expected), abs=1e-3)
