import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.contracts.records import SoftLabel, Token
from components.contracts.sampling import bucket
from components.contracts.spec import Policy
from components.query.policies import (
    decide,
    entropy,
    least_chance,
    margin,
    probabilities,
    representative,
    vote_entropy,
)
from components.student.runtime import Reply
from drift.quality import weighted_proportion
from drift.reweight import hajek

KINDS = ("all", "random", "margin", "entropy", "committee", "novelty", "coverage")


def soft(*shares):
    return SoftLabel(task="classification", space="s", distribution=dict(zip("abcd", shares, strict=False)))


def value(v, scale):
    return SoftLabel(task="regression", space="u", value=v, scale=scale)


def answers(seed, n):
    """What two students say: sure of most inputs, unsure of some, not always of one mind, and some inputs are novel."""
    chance = np.random.default_rng(seed)
    sharp = chance.dirichlet([8.0, 0.3, 0.3], size=n)
    dull = np.where(chance.random((n, 1)) < 0.2, chance.dirichlet([1.0, 1.0, 1.0], size=n), sharp)
    novel = np.where(chance.random(n) < 0.1, 0.002, chance.random(n)).tolist()
    return [[Reply(soft(*row), p) for row, p in zip(m.tolist(), novel, strict=True)] for m in (sharp, dull)]


IDS = [f"i{k}" for k in range(60)]
SCORES = answers(0, len(IDS))
CROWD = [f"c{k}" for k in range(1_200)]
CROWD_SCORES = answers(1, len(CROWD))
WRONG = (np.random.default_rng(3).random(len(CROWD)) < margin(CROWD_SCORES)).astype(float)


def told(kind, scores):
    """What a policy of this kind is told of inputs: for coverage distances, here as far as the student is unsure."""
    return [margin(scores).tolist()] if kind == "coverage" else scores


@pytest.fixture
def scores(request, kind):
    return told(kind, SCORES) if request.param else None


# What every policy has to keep


@pytest.mark.parametrize("scores", [True, False], ids=["scores", "blind"], indirect=True)
@pytest.mark.parametrize("remaining", [7.5, math.inf])
@pytest.mark.parametrize("kind", KINDS)
class TestEveryPolicy:
    def policy(self, kind):
        return Policy(kind=kind, share=0.3, floor=0.2)

    def test_draws_the_same_for_a_seed_whatever_the_order(self, kind, remaining, scores):
        policy = self.policy(kind)
        first = decide(policy, IDS, scores, remaining, 5)
        assert decide(policy, IDS, scores, remaining, 5) == first
        turned = [m[::-1] for m in scores] if scores else None
        again = decide(policy, IDS[::-1], turned, remaining, 5)[::-1]
        assert [d.label for d in again] == [d.label for d in first]
        if kind != "all":
            assert [d.label for d in decide(policy, IDS, scores, remaining, 6)] != [d.label for d in first]

    def test_every_input_has_a_chance_and_their_sum_is_what_may_be_spent(self, kind, remaining, scores):
        chances = [d.probability for d in decide(self.policy(kind), IDS, scores, remaining, 1)]
        assert all(0 < p <= 1 for p in chances)
        share = 1.0 if kind == "all" else 0.3
        assert sum(chances) == pytest.approx(min(remaining, share * len(IDS)))
        assert min(chances) >= 0.2 * min(remaining, share * len(IDS)) / len(IDS) - 1e-12

    def test_what_is_recorded_is_how_often_it_happens(self, kind, remaining, scores):
        rounds = 1_500
        drawn = np.zeros(len(IDS))
        for seed in range(rounds):
            found = decide(self.policy(kind), IDS, scores, remaining, seed)
            drawn += [d.label for d in found]
        expected = np.array([d.probability for d in found])
        spread = np.sqrt(np.maximum(expected * (1 - expected), 1e-12) / rounds)
        assert (np.abs(drawn / rounds - expected) <= 4.5 * spread + 1e-9).all()

    def test_reweighted_the_labels_tell_the_mean_of_all_inputs(self, kind, remaining, scores):
        # Skewed: what the student is unsure of is wrong far more often, so that plain means over labels are off.
        rounds, target = 60, WRONG.mean()
        found = decide(self.policy(kind), CROWD, told(kind, CROWD_SCORES) if scores else None, remaining * 20, 0)
        chances = [d.probability for d in found]
        means, covered = [], 0
        for seed in range(rounds):
            kept = [i for i, name in enumerate(CROWD) if bucket("", f"label {seed}", name) < chances[i]]
            if seed == 0:
                assert kept == [i for i, d in enumerate(found) if d.label]
            weights = [1 / chances[i] for i in kept]
            share = weighted_proportion([WRONG[i] > 0 for i in kept], weights)
            assert share.value == pytest.approx(hajek(WRONG[kept], [chances[i] for i in kept]).value)
            means.append(share.value)
            covered += share.lower <= target <= share.upper
        assert np.mean(means) == pytest.approx(target, abs=4 * np.std(means) / math.sqrt(rounds) + 1e-3)
        assert covered >= 53


def test_plain_means_over_uncertain_labels_are_off_and_reweighted_ones_are_not():
    scores = answers(7, 3_000)
    ids, doubts = [f"j{k}" for k in range(3_000)], margin(scores)
    wrong = (np.random.default_rng(3).random(3_000) < doubts).astype(float)
    plain, found = [], []
    for seed in range(60):
        decisions = decide(Policy(kind="margin", share=0.1), ids, scores, math.inf, seed)
        kept = [i for i, d in enumerate(decisions) if d.label]
        plain.append(np.mean(wrong[kept]))
        found.append(hajek(wrong[kept], [decisions[i].probability for i in kept]))
    assert np.mean(plain) > 1.5 * wrong.mean()
    assert np.mean([e.value for e in found]) == pytest.approx(wrong.mean(), rel=0.03)
    assert sum(e.lower <= wrong.mean() <= e.upper for e in found) >= 52


# What each is


def test_a_new_kind_of_inputs_is_labelled_first():
    """A hundred usual inputs and a hundred novel ones, of which the student is as sure as of the others."""
    chance = np.random.default_rng(0)
    scores = [[Reply(soft(0.9, 0.1), p) for p in [*chance.random(100).tolist(), *[0.004] * 100]]]
    ids = [f"n{k}" for k in range(200)]
    policy = Policy(kind="novelty", share=0.1, floor=0.2)
    chances = [d.probability for d in decide(policy, ids, scores, math.inf, 0, typical=1.2)]
    assert np.mean(chances[100:]) > 3.5 * np.mean(chances[:100]) and min(chances) >= 0.02
    scarce = [d.probability for d in decide(policy, ids, scores, 4.0, 0)]
    assert sum(scarce[100:]) > 3.0, "and so goes what a budget has left"
    nothing_told = [[Reply(soft(0.9, 0.1), None)] * 200]
    assert {d.policy for d in decide(policy, ids, nothing_told, math.inf, 0)} == {"random"}
    assert {d.policy for d in decide(policy, ids, [[soft(1.0)] * 200], math.inf, 0)} == {"random"}


def test_the_less_sure_the_likelier():
    scores = [[soft(1.0), soft(0.9, 0.1), soft(0.6, 0.4), soft(0.5, 0.5)]]
    for kind in ("margin", "entropy"):
        chances = [d.probability for d in decide(Policy(kind=kind, share=0.4), list("wxyz"), scores, math.inf, 0)]
        assert chances == sorted(chances) and chances[0] == pytest.approx(0.4 * 0.2)


def test_measures_of_uncertainty():
    assert margin([[soft(0.7, 0.2, 0.1), soft(1.0), value(3.0, 0.5)]]).tolist() == pytest.approx([0.5, 0.0, 0.5])
    assert entropy([[soft(0.5, 0.5), soft(1.0), value(3.0, 2.0)]]).tolist() == pytest.approx([math.log(2), 0.0, 2.0])
    votes = vote_entropy([[soft(0.9, 0.1), soft(0.9, 0.1)], [soft(0.6, 0.4), soft(0.2, 0.8)]])
    assert votes is not None and votes.tolist() == pytest.approx([0.0, math.log(2)])
    values = vote_entropy([[value(1.0, 9.0)], [value(3.0, 9.0)]])
    assert values is not None and values.tolist() == [1.0]


def test_a_committee_of_one_draws_at_random_and_says_so():
    assert vote_entropy(SCORES[:1]) is None
    found = decide(Policy(kind="committee", share=0.5), IDS, SCORES[:1], math.inf, 0)
    assert {d.policy for d in found} == {"random"} and {d.probability for d in found} == {0.5}
    assert {d.reason for d in found} == {"drawn_without_student", "not_drawn_without_student"}


def test_without_a_student_uncertainty_falls_back_and_says_so():
    (one,) = decide(Policy(kind="margin"), ["x"], None, math.inf, 0)
    assert (one.policy, one.reason, one.label) == ("random", "drawn_without_student", True)
    (other,) = decide(Policy(kind="random"), ["x"], None, math.inf, 0)
    assert (other.policy, other.reason) == ("random", "drawn")


def test_sure_of_everything_is_a_uniform_draw():
    found = decide(Policy(kind="entropy", share=0.25), IDS, [[soft(1.0)] * len(IDS)], math.inf, 0)
    assert {d.probability for d in found} == {0.25}


def test_a_lone_input_is_held_against_the_traffic():
    def chance(doubtful, typical):
        label = soft(0.5, 0.5) if doubtful else soft(0.99, 0.01)
        (one,) = decide(Policy(kind="margin", share=0.2), ["x"], [[label]], math.inf, 0, typical=typical)
        return one.probability

    assert chance(True, None) == chance(False, None) == pytest.approx(0.2)
    assert chance(True, 0.25) == pytest.approx(0.2 * (0.2 + 0.8 * 4)) and chance(False, 0.25) < 0.06


@given(
    st.lists(st.floats(0, 50), min_size=1, max_size=40),
    st.floats(0.01, 1.0),
    st.floats(0.01, 1.0),
    st.floats(1e-3, 100),
    st.one_of(st.none(), st.floats(1e-3, 50)),
    st.sets(st.integers(0, 39)),
    st.booleans(),
)
def test_chances_are_chances_and_keep_the_budget(doubts, share, floor, remaining, typical, first, blind):
    policy, n = Policy(kind="random" if blind else "margin", share=share, floor=floor), len(doubts)
    known = None if blind else np.array(doubts)
    found = probabilities(policy, n, known, remaining, typical)
    assert ((found > 0) & (found <= 1)).all()
    assert found.sum() <= remaining * (1 + 1e-9)
    first = {i for i in first if i < n}
    ahead = probabilities(policy, n, known, remaining, typical, first)
    assert ((ahead > 0) & (ahead <= 1 + 1e-12)).all()
    assert ahead.sum() == pytest.approx(found.sum())
    if 0 < len(first) < n:
        mine, others = (np.isin(np.arange(n), list(first), invert=other) for other in (False, True))
        assert ahead[mine].sum() >= found[mine].sum() * (1 - 1e-6)
        least = share * floor * min(1.0, ahead.sum() / (share * n))
        assert blind is False or ahead[others].min() >= least * (1 - 1e-6)


def test_after_an_alarm_the_budget_goes_to_the_new_regime_first():
    """20 of 100 inputs are of the new regime; the student is as unsure of them as of the others."""
    first = set(range(0, 100, 5))
    ids, doubtful = [f"r{k}" for k in range(100)], [[soft(0.6, 0.4)] * 100]

    def chances(kind, remaining, **policy):
        found = decide(Policy(kind=kind, **policy), ids, doubtful, remaining, 0, first=first)
        mine = [d for i, d in enumerate(found) if i in first]
        assert {d.reason for d in mine} <= {"drawn_of_new_regime", "not_drawn_of_new_regime"}
        assert all("regime" not in d.reason for i, d in enumerate(found) if i not in first)
        others = [d.probability for i, d in enumerate(found) if i not in first]
        assert len({d.probability for d in mine}) == len(set(others)) == 1
        return mine[0].probability, others[0]

    assert chances("margin", math.inf, share=0.1, floor=0.2) == pytest.approx((0.42, 0.02))
    assert chances("margin", math.inf, share=0.5, floor=0.2) == pytest.approx((1.0, 0.375)), "what is left is theirs"
    assert chances("all", 10.0, floor=0.2) == pytest.approx((0.42, 0.02)), "of a budget that is not enough"
    assert chances("all", math.inf) == (1.0, 1.0)
    assert chances("random", math.inf, share=0.3) == (0.3, 0.3), "each is promised its share"
    none = decide(Policy(kind="margin", share=0.1), ids, doubtful, math.inf, 0)
    assert {round(d.probability, 12) for d in none} == {0.1}


def test_a_representative_part_is_kept_evenly():
    policy = Policy(kind="margin", share=0.4, floor=0.25)
    least = least_chance(policy)
    assert least == pytest.approx(0.1)
    assert (least_chance(policy, [0.5, 0.3]), least_chance(Policy()), least_chance(Policy(), [0.2])) == (0.3, 1.0, 1.0)
    kept = {p: sum(representative(least, "w", f"i{k}", p, False) for k in range(4_000)) for p in (0.1, 0.2, 1.0)}
    assert kept[0.1] == 4_000
    assert (kept[0.2] * 0.2 / 400, kept[1.0] / 400) == pytest.approx((1.0, 1.0), abs=0.2)
    assert all(representative(least, "w", f"i{k}", 1.0, True) for k in range(100))


def test_impossible_draws_are_refused():
    assert decide(Policy(), [], None, 1.0, 0) == []
    with pytest.raises(ValueError, match="nothing to draw"):
        decide(Policy(), ["x"], None, 0.0, 0)
    with pytest.raises(ValueError, match=r"\[1\] soft labels for 2 inputs"):
        decide(Policy(kind="margin"), ["x", "y"], [[soft(1.0)]], 1.0, 0)


def test_a_set_is_as_unsure_as_its_least_sure_class():
    softs = [SoftLabel.multilabel("s", "ab", row) for row in ([0.99, 0.5], [0.9, 0.1], [0.0, 0.0])]
    assert margin([softs]).tolist() == pytest.approx([1.0, 0.2, 0.0])
    assert entropy([softs]).tolist() == pytest.approx([s.entropy for s in softs])
    assert vote_entropy([softs[:2], softs[1:]]).tolist() == pytest.approx([math.log(2), math.log(2)])


def test_a_text_that_is_tagged_is_as_unsure_as_its_least_certain_token():
    def tagged(*shares):
        tokens = tuple(Token(start=i, end=i + 1, distribution={"B-X": p, "O": 1 - p}) for i, p in enumerate(shares))
        return SoftLabel(task="tagging", space="s", tokens=tokens)

    scores = [[tagged(0.9, 0.6), tagged(1.0, 0.9), tagged()], [tagged(0.9, 0.4), tagged(0.8, 0.9), tagged()]]
    assert margin(scores).tolist() == pytest.approx([0.8, 0.2, 0.0])
    assert entropy(scores)[2] == 0.0 < entropy(scores)[1] < entropy(scores)[0]
    assert vote_entropy(scores).tolist() == pytest.approx([math.log(2), 0.0, 0.0])
