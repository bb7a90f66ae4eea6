import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf

from drift.novelty import Nearness, conformal_p, excess, shrunk_covariance


def clouds(seed, n=300, classes=4, d=6):
    chance = np.random.default_rng(seed)
    kinds = chance.integers(classes, size=n)
    centres = 8.0 * np.random.default_rng(99).normal(size=(classes, d))
    turn = np.random.default_rng(7).normal(size=(d, d))
    return centres[kinds] + chance.normal(size=(n, d)) @ turn, kinds


def test_the_covariance_is_ledoit_and_wolf_s():
    points = np.random.default_rng(0).normal(size=(40, 25)) * np.arange(1, 26)
    points -= points.mean(axis=0)
    assert shrunk_covariance(points) == pytest.approx(ledoit_wolf(points, assume_centered=True)[0])


def test_a_distance_is_mahalanobis_to_the_nearest_class():
    points, kinds = clouds(0)
    known = Nearness.fit(points, kinds)
    means = np.array([points[kinds == k].mean(axis=0) for k in range(4)])
    inverse = np.linalg.inv(shrunk_covariance(points - means[kinds]))
    apart = points[:20, None] - means
    expected = np.einsum("nkd,de,nke->nk", apart, inverse, apart).min(axis=1)
    assert known.distances(points[:20]) == pytest.approx(expected)


def test_classes_may_have_any_numbers_and_a_single_point():
    points, kinds = clouds(1)
    one = Nearness.fit([*points, points[0] + 100], [*(10 * kinds - 7), 1_000])
    assert one.distances([points[0] + 100]) == pytest.approx([0.0], abs=1e-6)


@pytest.mark.parametrize("points", [[], [[1.0, 2.0]], [[1.0, 2.0]] * 5])
def test_nothing_is_known_of_points_that_do_not_differ(points):
    assert Nearness.fit(points, [0] * len(points)) is None


def test_a_direction_without_spread_gives_a_finite_distance():
    points = np.zeros((50, 3))
    points[:, 0] = np.random.default_rng(0).normal(size=50)
    assert np.isfinite(Nearness.fit(points, [0] * 50).distances([[0.0, 1.0, 0.0]])).all()


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="2 classes for 1 points"):
        Nearness.fit([[1.0]], [0, 1])


@pytest.mark.parametrize("alpha", [0.05, 0.2])
@pytest.mark.parametrize("known", [39, 200])
def test_of_points_like_the_known_ones_a_share_of_alpha_is_at_or_below_it(known, alpha):
    """Exact for any number of known points: over 200 fits with fresh points, within four standard errors."""
    found = []
    for seed in range(200):
        points, kinds = clouds(seed, 160 + known + 1)
        fitted = Nearness.fit(points[:160], kinds[:160])
        scores = fitted.distances(points[160:])
        found.append(conformal_p(scores[-1], [sorted(scores[:-1])]) <= alpha)
    expected = np.floor(alpha * (known + 1)) / (known + 1)
    assert abs(np.mean(found) - expected) < 4 * np.sqrt(alpha * (1 - alpha) / 200)


def test_points_of_a_new_class_are_below_it():
    points, kinds = clouds(0, 600)
    fitted = Nearness.fit(points[:400], kinds[:400])
    known = sorted(fitted.distances(points[400:]))
    assert all(conformal_p(score, [known]) <= 0.05 for score in fitted.distances(clouds(5)[0] + 60.0))


def test_of_several_groups_an_input_need_only_be_like_one():
    low, high = [1.0] * 19, [5.0] * 39
    assert [conformal_p(score, [low, high]) for score in (3.0, 9.0)] == [1.0, 0.05]


def test_what_is_no_number_is_like_nothing():
    assert [conformal_p(score, [[1.0, 2.0, 3.0]]) for score in (np.nan, np.inf)] == [0.25, 0.25]


def test_without_known_scores_there_is_no_p_value():
    with pytest.raises(ValueError, match="known scores"):
        conformal_p(1.0, [])


def test_the_chance_of_so_many_is_the_binomial_s_tail():
    from scipy.stats import binom

    assert excess(12, 90, 0.1) == pytest.approx(binom.sf(11, 90, 0.1))
    assert excess(90, 90, 0.1) == pytest.approx(0.1**90)
