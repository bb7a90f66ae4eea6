import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.contracts.records import SoftLabel, Token
from components.contracts.spec import Probe as Section
from components.teacher_watch.probes import (
    PASS,
    Comparison,
    Probe,
    between,
    distance,
    power,
    size_for,
    strange,
    strange_bound,
)

CLASSES = ("a", "b", "c")


def soft(*probabilities, space="s@1"):
    return SoftLabel.of(space, CLASSES, list(probabilities))


def number(value, scale=1.0):
    return SoftLabel(task="regression", space="kWh", value=value, scale=scale)


def probe(content, *answers):
    return Probe(content=content, answers=answers)


def test_the_default_size_follows_from_the_power():
    assert size_for(0.05, 1e-4) == Section().size == 180
    assert size_for(0.05, 1e-3) == 135
    assert power(135, 0.05) > 0.999 > power(134, 0.05)
    assert power(0, 0.05) == 0.0 and power(1, 1.0) == 1.0


@given(st.lists(st.floats(0.001, 1), min_size=3, max_size=3), st.lists(st.floats(0.001, 1), min_size=3, max_size=3))
def test_a_distance_is_symmetric_zero_to_itself_and_at_most_one(p, q):
    a, b = soft(*(x / sum(p) for x in p)), soft(*(x / sum(q) for x in q))
    assert distance(a, a) == 0.0
    assert distance(a, b) == pytest.approx(distance(b, a)) and 0.0 <= distance(a, b) <= 1.0


def test_distances():
    assert distance(soft(1, 0, 0), soft(0, 1, 0)) == 1.0
    assert distance(soft(0.5, 0.5, 0), soft(0.4, 0.6, 0)) == pytest.approx(0.1)
    assert distance(soft(1, 0, 0), soft(1, 0, 0, space="s@2")) == 1.0
    assert distance(number(1.0), number(1.5)) == 0.5
    assert distance(number(1.0, 2.0), number(1.5, 1.0)) == 0.5
    assert distance(number(1.0), number(99.0)) == 1.0
    assert distance(number(1.0), soft(1, 0, 0)) == 1.0


def test_a_deterministic_teacher_may_move_by_rounding_and_no_more():
    watch = Comparison([probe("x", *[soft(0.5, 0.5, 0)] * 3)], tolerance=1e-3, alpha=1e-4)
    assert not watch.noisy
    assert not watch.observe("x", soft(0.5005, 0.4995, 0)) and watch.calm
    assert watch.observe("x", soft(0.502, 0.498, 0)) and not watch.calm
    assert watch.evidence() == {
        "probes": 1, "noisy": False, "moved": 1, "largest": pytest.approx(0.002), "worst": "x"
    }  # fmt: skip
    assert not watch.observe("x", soft(0.5, 0.5, 0)), "it is back"


def test_one_moved_probe_stays_moved_while_others_are_asked():
    watch = Comparison([probe("x", soft(1, 0, 0)), probe("y", soft(1, 0, 0))], tolerance=1e-3, alpha=1e-4)
    assert watch.observe("x", soft(0, 1, 0))
    assert watch.observe("y", soft(1, 0, 0)) and set(watch.moved) == {"x"}
    watch.renew([probe("y", soft(1, 0, 0)), probe("z", soft(0, 0, 1))])
    assert watch.calm and not watch.observe("z", soft(0, 0, 1))


def sampled(rng, weights):
    """A teacher with a temperature: one class drawn, all the mass on it."""
    drawn = rng.choices(range(3), weights)[0]
    return soft(*(float(i == drawn) for i in range(3)))


def jittered(rng, weights):
    """A teacher whose probabilities move by some percent from call to call."""
    moved = [w * rng.uniform(0.95, 1.05) for w in weights]
    return soft(*(w / sum(moved) for w in moved))


def noisy_run(seed, answer, changed, asked):
    """After how many probes the change is found; None: not at all."""
    rng = random.Random(seed)
    weights = {f"p{i}": [rng.uniform(0.5, 0.95), 0.05, 0.05] for i in range(40)}
    probes = [probe(c, *(answer(rng, w) for _ in range(20))) for c, w in weights.items()]
    watch = Comparison(probes, tolerance=2e-3, alpha=1e-3, seed=seed)
    assert watch.noisy
    for content in list(weights)[: round(changed * len(weights))]:
        weights[content] = [0.05, 0.05, 0.9]
    for n in range(asked):
        content = rng.choice(list(weights))
        if watch.observe(content, answer(rng, weights[content])):
            return n + 1
    return None


@pytest.mark.parametrize("answer", [jittered, sampled])
def test_a_noisy_teacher_that_does_not_change_is_left_alone(answer):
    assert [noisy_run(seed, answer, 0.0, 1000) for seed in range(25)] == [None] * 25


@pytest.mark.parametrize(("answer", "changed", "within"), [(jittered, 0.25, 80), (jittered, 0.1, 600)])
def test_a_noisy_teacher_that_changes_is_found(answer, changed, within):
    found = [noisy_run(seed, answer, changed, 3000) for seed in range(11)]
    assert all(found) and sorted(found)[5] <= within


@pytest.mark.parametrize("answer", [jittered, sampled])
def test_answers_are_strange_as_often_as_the_theory_says(answer):
    rng, shares = random.Random(1), []
    for _ in range(200):
        known = [answer(rng, [0.7, 0.2, 0.1]) for _ in range(9)]
        draws = [(answer(rng, [0.7, 0.2, 0.1]), rng.random()) for _ in range(10)]
        shares.append(sum(strange(drawn, known, u, between(known)) for drawn, u in draws) / 10)
    assert sum(shares) / len(shares) == pytest.approx(1 / 10, abs=0.03)
    assert sum(shares) / len(shares) < strange_bound(200, 9, 1e-4)


def test_a_noisy_set_is_asked_with_replacement_and_a_deterministic_one_in_order():
    still = Comparison([probe(c, soft(1, 0, 0)) for c in "abc"], tolerance=1e-3, alpha=1e-3)
    assert still.round() == ["a", "b", "c"]
    noisy = Comparison([probe(str(n), soft(1, 0, 0), soft(0, 1, 0)) for n in range(50)], tolerance=1e-3, alpha=1e-3)
    assert len(noisy.round()) == 50 and len(set(noisy.round())) < 50


def test_a_run_of_a_pass_is_of_different_probes_from_one_round_into_the_next():
    answer = SoftLabel.of("s", ("a", "b"), [0.5, 0.5])
    watch = Comparison([Probe(content=f"{n * 7 % 100:02d}", answers=(answer,)) for n in range(100)],
                       tolerance=0.0, alpha=0.01)  # fmt: skip
    asked = watch.round() + watch.round()
    assert all(len(set(asked[n : n + PASS])) == PASS for n in range(100))
    assert watch.round() != list(watch.probes), "old and new ones are mixed"


def test_sets_are_as_far_apart_as_the_class_that_moved_most():
    one, other = (SoftLabel.multilabel("s@1", "abc", row) for row in ([0.9, 0.2, 0.0], [0.8, 0.6, 0.0]))
    assert distance(one, other) == pytest.approx(0.4) and distance(one, one) == 0.0
    empty = SoftLabel.multilabel("s@1", "abc", [0.0, 0.0, 0.0])
    assert distance(empty, empty) == 0.0 and distance(empty, soft(0.2, 0.3, 0.5)) == 1.0


def test_of_texts_that_are_tagged_the_token_that_is_farthest_counts():
    def tagged(*parts):
        tokens = tuple(Token(start=s, end=s + 1, distribution={"B-X": p, "O": 1 - p}) for s, p in parts)
        return SoftLabel(task="tagging", space="s@1", tokens=tokens)

    one = tagged((0, 0.9), (2, 0.5))
    assert distance(one, one) == 0.0 and distance(tagged(), tagged()) == 0.0
    assert distance(one, tagged((0, 0.8), (2, 0.1))) == pytest.approx(0.4)
    assert distance(one, tagged((0, 0.9))) == distance(one, tagged((0, 0.9), (3, 0.5))) == 1.0
