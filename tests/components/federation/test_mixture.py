"""The arithmetic: what each rule gives, what a site that lacks classes says, and how far a byzantine one moves it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize

from components.federation.mixture import RULES, distances, fill, mix, sharpened

ALL = sorted(RULES)


def asked(*sites, answered=None, knows=None, weights=None, rule="mean"):
    """The mixture of sites' answers to inputs, each a list of distributions."""
    answers = np.array(sites, dtype=float)
    answered = np.ones(answers.shape[:2], dtype=bool) if answered is None else np.array(answered)
    knows = np.ones((len(sites), answers.shape[2]), dtype=bool) if knows is None else np.array(knows)
    weights = np.ones(len(sites)) if weights is None else np.array(weights, dtype=float)
    return mix(answers, answered, knows, weights, rule)


def test_the_mean_is_weighted_and_the_weights_are_what_it_is_made_of():
    found = asked([[1.0, 0.0]], [[0.5, 0.5]], weights=[1, 3])
    assert found.shares_NC.tolist() == [[0.625, 0.375]] and found.weights_SN.tolist() == [[0.25], [0.75]]


def test_the_mean_of_logarithms_is_that_of_logits():
    logits = np.array([[2.0, -1.0, 0.5], [0.0, 1.0, 0.2]])
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    mean = np.exp(logits.mean(axis=0))
    found = asked([shares[0]], [shares[1]], rule="log_mean")
    assert found.shares_NC[0] == pytest.approx(mean / mean.sum())


def test_the_geometric_median_has_the_least_sum_of_distances():
    sites = np.random.default_rng(0).dirichlet(np.ones(3), size=5)
    found = asked(*[[row] for row in sites], rule="geometric_median")

    def far(p):
        return np.linalg.norm(sites - p, axis=1).sum()

    best = minimize(far, sites.mean(axis=0), method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-12})
    assert far(found.shares_NC[0]) == pytest.approx(best.fun, abs=1e-4)
    assert found.weights_SN[:, 0] @ sites == pytest.approx(found.shares_NC[0]), (
        "it is a mixture of the recorded weights"
    )


@pytest.mark.parametrize("lie", [[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
def test_one_byzantine_of_five_does_not_move_the_median_and_moves_the_mean(lie):
    honest = [[[0.9, 0.1]], [[0.88, 0.12]], [[0.92, 0.08]], [[0.9, 0.1]]]
    median = asked(*honest, [lie], rule="geometric_median").shares_NC[0, 0]
    mean = asked(*honest, [lie]).shares_NC[0, 0]
    assert abs(median - 0.9) < 0.005 < abs(mean - 0.9)


def test_a_site_that_did_not_answer_has_no_weight_and_the_others_have_it():
    found = asked([[0.2, 0.8]], [[0.6, 0.4]], [[1.0, 0.0]], answered=[[True], [True], [False]], weights=[1, 1, 8])
    assert found.weights_SN[:, 0].tolist() == [0.5, 0.5, 0.0]
    assert found.shares_NC[0] == pytest.approx([0.4, 0.6])


@pytest.mark.parametrize("rule", ALL)
def test_what_nobody_answers_is_zero(rule):
    found = asked([[0.2, 0.8]], [[0.6, 0.4]], answered=[[False], [False]], rule=rule)
    assert found.shares_NC.tolist() == [[0.0, 0.0]] and found.weights_SN.tolist() == [[0.0], [0.0]]


def test_a_site_says_nothing_of_a_class_that_it_does_not_know():
    """Two that know three classes say 0.6 and 0.4 for the third; one knows the first two alone."""
    knows = np.array([[True, True, True], [True, True, True], [True, True, False]])
    answers = np.array([[[0.2, 0.2, 0.6]], [[0.3, 0.3, 0.4]], [[0.8, 0.2, 0.0]]])
    (row,) = fill(answers, np.ones((3, 1)), knows, "mean")[2]
    assert row == pytest.approx([0.4, 0.1, 0.5]), "it shares what the others leave as it would share the whole"
    found = asked(*answers, knows=knows)
    assert found.shares_NC[0] == pytest.approx([0.3, 0.2, 0.5])


def test_a_class_that_one_site_knows_is_its_word():
    found = asked([[0.1, 0.9]], [[1.0, 0.0]], knows=[[True, True], [True, False]])
    assert found.shares_NC[0] == pytest.approx([0.1, 0.9])


def test_a_class_that_nobody_knows_has_no_share():
    found = asked([[0.3, 0.7, 0.0]], [[0.5, 0.5, 0.0]], knows=[[True, True, False]] * 2)
    assert found.shares_NC[0] == pytest.approx([0.4, 0.6, 0.0])


def test_classes_that_others_know_may_have_more_than_all():
    """Two sites each know one class that the third does not, and both are sure of it."""
    answers = np.array([[[0.1, 0.9, 0.0]], [[0.1, 0.0, 0.9]], [[1.0, 0.0, 0.0]]])
    knows = np.array([[True, True, False], [True, False, True], [True, False, False]])
    filled = fill(answers, np.ones((3, 1)), knows, "mean")
    assert filled.sum(axis=2) == pytest.approx(np.ones((3, 1))) and filled.min() >= 0


@given(st.data())
def test_every_rule_gives_distributions_and_weights(data):
    sites, inputs, classes = (data.draw(st.integers(1, n)) for n in (5, 4, 4))
    chance = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    knows = chance.random((sites, classes)) < 0.7
    knows[np.arange(sites), chance.integers(classes, size=sites)] = True
    answers = chance.dirichlet(np.full(classes, 0.3), size=(sites, inputs)) * knows[:, None, :]
    answers[..., 0] += (answers.sum(axis=2) == 0) * knows[:, None, 0]
    empty = answers.sum(axis=2) == 0
    answers /= np.where(empty, 1.0, answers.sum(axis=2))[:, :, None]
    answered = (chance.random((sites, inputs)) < 0.8) & ~empty
    weights = chance.uniform(0.1, 5.0, size=sites)
    for rule in ALL:
        found = mix(answers, answered, knows, weights, rule)
        some = answered.any(axis=0)
        assert found.shares_NC.sum(axis=1) == pytest.approx(some.astype(float)) and found.shares_NC.min() >= 0
        assert found.weights_SN.sum(axis=0) == pytest.approx(some.astype(float))
        assert not found.weights_SN[~answered].any()


def test_distances_tell_the_one_that_answers_otherwise():
    honest = [[[0.9, 0.1], [0.2, 0.8]], [[0.8, 0.2], [0.1, 0.9]], [[0.9, 0.1], [0.1, 0.9]]]
    answers = np.array([*honest, [[0.1, 0.9], [0.9, 0.1]]])
    found = distances(answers, np.ones((4, 2), dtype=bool), np.ones((4, 2), dtype=bool), np.ones(4))
    assert found[3] > 0.7 and found[:3].max() < 0.11


def test_a_site_without_answers_has_no_distance():
    answered = np.array([[True], [True], [False]])
    answers = np.array([[[0.9, 0.1]], [[0.9, 0.1]], [[0.0, 0.0]]])
    found = distances(answers, answered, np.ones((3, 2), dtype=bool), np.ones(3))
    assert np.isnan(found[2]) and found[:2].tolist() == [0.0, 0.0]


def claimed(*answers, knows):
    """The mixture's share of the last class by the median, and the distances, of sites that weigh the same."""
    answers, knows = np.array(answers, dtype=float)[:, None, :], np.array(knows, dtype=bool)
    answered, weights = np.ones(answers.shape[:2], dtype=bool), np.ones(len(answers))
    shares = mix(answers, answered, knows, weights, "geometric_median").shares_NC
    return shares[0, -1], distances(answers, answered, knows, weights)


def test_who_contradicts_a_liar_about_a_class_is_not_the_one_that_is_far_away():
    """East knows the last class and is honest about it, west lies; two others do not know it."""
    _, found = claimed([1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 1], knows=[[1, 1, 1], [1, 1, 0], [1, 1, 0], [1, 1, 1]])
    assert found[3] > 0.45 and found[:3].max() < 0.2


def test_what_a_site_was_not_asked_for_is_no_part_of_its_distance():
    """West alone knows the last class: the others agree with each other, and are not far from one another for it."""
    _, found = claimed([1, 0, 0], [0, 1, 0], [1, 0, 0], [0.1, 0, 0.9], knows=[[1, 1, 0]] * 3 + [[1, 1, 1]])
    assert found[1] > 0.9 and found[[0, 2, 3]].max() < 0.01


def test_one_liar_of_three_that_know_a_class_does_not_move_it_by_the_median():
    knows = [[1, 1, 0]] * 8 + [[1, 1, 1]] * 3
    share, found = claimed(*[[1, 0, 0]] * 10, [0, 0, 1], knows=knows)
    assert share < 0.01 and found[10] > 0.9 > found[:10].max() + 0.8


def test_a_mixture_is_sharpened_to_what_it_is_surest_of_and_stays_a_distribution():
    shares = np.array([[0.5, 0.25, 0.25], [0.0, 0.0, 0.0], [0.4, 0.6, 0.0]])
    assert sharpened(shares, 1.0) is shares
    assert sharpened(shares, 0.5) == pytest.approx(np.array([[2 / 3, 1 / 6, 1 / 6], [0, 0, 0], [4 / 13, 9 / 13, 0]]))
    assert sharpened(shares, 0.001)[0] == pytest.approx([1.0, 0.0, 0.0])


@given(arrays(np.float64, (3, 4), elements=st.floats(1e-6, 1)), st.floats(0.05, 1))
def test_sharpening_keeps_the_order_and_takes_entropy_out(raw, temperature):
    shares = raw / raw.sum(axis=1, keepdims=True)
    found = sharpened(shares, temperature)
    assert found.sum(axis=1) == pytest.approx(1.0)
    for before, after in zip(shares, found, strict=True):
        order = np.argsort(before)
        assert (np.diff(after[order]) >= 0).all()
    assert (found.max(axis=1) >= shares.max(axis=1) - 1e-12).all()
