"""One conformance suite over every detector, and each against an independent implementation."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from drift.detectors import DEFAULTS, DETECTORS, Detector, checked
from drift.detectors.anderson_darling import DETECTOR as ANDERSON_DARLING
from drift.detectors.contract import MOST_POINTS, counts_of, gaps_of, normal_shift
from drift.detectors.domain_classifier import FOLDS, RIDGE, SEED
from drift.detectors.g_test import statistics as g_statistics
from drift.detectors.rank_location import chosen, student, wilcoxon
from drift.detectors.rank_spread import widening
from drift.detectors.scores import normal

SAMPLE = st.lists(st.integers(0, 6), min_size=2, max_size=40)
conform = pytest.mark.parametrize("detector", DETECTORS.values(), ids=DETECTORS.keys())


def array(detector: Detector, values: list[int]) -> Any:
    if detector.kind == "vectors":
        return np.array([[v, (v * v) % 5] for v in values], dtype=np.float64)
    return np.array(values, dtype=np.int64 if detector.kind == "categorical" else np.float64)


def effect(name: str, a: Any, b: Any) -> float:
    return DETECTORS[name].fit(np.asarray(a)).effect(np.asarray(b))


@conform
@settings(max_examples=30, deadline=None)
@given(a=SAMPLE, b=SAMPLE)
def test_an_effect_is_in_its_stated_range(detector: Detector, a: list[int], b: list[int]) -> None:
    assert 0.0 <= detector.fit(array(detector, a)).effect(array(detector, b)) <= detector.upper + 1e-9


@conform
@given(a=SAMPLE, copies=st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_equal_samples_have_no_effect(detector: Detector, a: list[int], copies: int) -> None:
    if detector.name == "population_stability" and copies > 1:
        return  # its prior weighs more on the side of fewer rows
    if detector.name == "domain_classifier":
        return  # its folds are not equal samples
    assert detector.fit(array(detector, a)).effect(array(detector, a * copies)) == pytest.approx(0.0, abs=2e-3)


@conform
def test_many_splits_at_once_are_the_same_as_one_by_one(detector: Detector) -> None:
    chance = np.random.default_rng(2)
    pooled = array(detector, chance.integers(0, 5, size=60).tolist())
    splits = chance.permuted(np.broadcast_to(np.arange(60) >= 40, (25, 60)), axis=1)
    measure = detector.prepare(pooled)
    assert measure(splits) == pytest.approx([measure(s[np.newaxis])[0] for s in splits], abs=1e-6)


@conform
def test_the_least_effect_rises_with_the_distance_from_none(detector: Detector) -> None:
    least = [detector.least(d) for d in (0.0, 0.05, 0.1, 0.3)]
    assert least == sorted(least)
    assert least[0] == pytest.approx(0.0, abs=1e-6)
    assert least[1] > 0.0
    assert least[-1] <= detector.upper


@pytest.mark.parametrize(
    "name",
    [
        "kolmogorov_smirnov", "wasserstein", "energy", "anderson_darling", "rank_location", "clipped_wasserstein",
        "domain_classifier",
    ],
)  # fmt: skip
def test_the_least_effect_is_that_of_the_normal_shift_of_this_distance(name: str) -> None:
    chance, shift = np.random.default_rng(0), normal_shift(0.2)
    a, b = chance.normal(size=20_000), chance.normal(shift, 1.0, size=20_000)
    if DETECTORS[name].kind == "vectors":
        a, b = a[:, np.newaxis], b[:, np.newaxis]
    assert effect(name, a, b) == pytest.approx(DETECTORS[name].least(0.2), rel=0.12)


@pytest.mark.parametrize("name", ["jensen_shannon", "chi_squared", "g_test", "population_stability"])
def test_the_least_effect_is_that_of_the_mix_of_this_distance(name: str) -> None:
    a, b = np.repeat([0, 1], [5_000, 5_000]), np.repeat([0, 1], [5_700, 4_300])
    distance = effect("jensen_shannon", a, b)
    assert effect(name, a, b) == pytest.approx(DETECTORS[name].least(distance), rel=0.02)


@given(SAMPLE, SAMPLE)
@settings(deadline=None)
def test_numeric_detectors_are_those_of_scipy_with_ties(a: list[int], b: list[int]) -> None:
    scale = float(np.std(a + b)) or 1.0
    x, y = np.array(a, dtype=float), np.array(b, dtype=float)
    assert effect("kolmogorov_smirnov", x, y) == pytest.approx(stats.ks_2samp(a, b, method="asymp").statistic)
    assert effect("wasserstein", x, y) == pytest.approx(stats.wasserstein_distance(a, b) / scale)
    apart = 2.0 * float(np.abs(x[:, np.newaxis] - y).mean())
    expected = stats.energy_distance(a, b) ** 2 / apart if apart else 0.0
    assert effect("energy", x, y) == pytest.approx(expected, abs=1e-9)


def test_anderson_darling_orders_splits_as_scipy_does() -> None:
    chance = np.random.default_rng(4)
    pooled = chance.normal(size=60)
    splits = chance.permuted(np.broadcast_to(np.arange(60) >= 40, (30, 60)), axis=1)
    ours = ANDERSON_DARLING.prepare(pooled)(splits)
    theirs = [
        stats.anderson_ksamp(
            [pooled[~s], pooled[s]], variant="right", method=stats.PermutationMethod(n_resamples=1)
        ).statistic
        for s in splits
    ]
    assert np.argsort(ours).tolist() == np.argsort(theirs).tolist()
    assert effect("anderson_darling", np.arange(500.0), np.arange(1000.0, 1500.0)) == pytest.approx(1.0, abs=0.01)


@given(SAMPLE, SAMPLE)
@settings(deadline=None)
def test_categorical_detectors_are_those_of_scipy(a: list[int], b: list[int]) -> None:
    p, q = np.bincount(a, minlength=7), np.bincount(b, minlength=7)
    same = bool((p * len(b) == q * len(a)).all())
    assert effect("jensen_shannon", a, b) == pytest.approx(
        0.0 if same else float(jensenshannon(p, q, base=2)), abs=1e-7
    )
    table = np.stack([p, q])[:, p + q > 0]
    n, m = len(a), len(b)
    chi = stats.chi2_contingency(table, correction=False).statistic if table.shape[1] > 1 else 0.0
    assert effect("chi_squared", a, b) == pytest.approx(math.sqrt(chi * (n + m) / (4 * n * m)), abs=1e-7)
    current = np.arange(n + m) >= n
    g = float(g_statistics(counts_of(np.array(a + b))(current[np.newaxis]))[0])
    expected = (
        stats.chi2_contingency(table, correction=False, lambda_="log-likelihood").statistic if table.shape[1] > 1 else 0
    )
    assert g == pytest.approx(float(expected), abs=1e-7)


def test_the_least_spread_and_the_least_end_are_those_of_the_change_of_this_distance() -> None:
    chance = np.random.default_rng(0)
    a = chance.normal(size=20_000)
    wider = widening(0.1) * chance.normal(size=20_000)
    assert stats.ks_2samp(a, wider).statistic == pytest.approx(0.1, abs=0.015)
    assert effect("rank_spread", a, wider) == pytest.approx(DETECTORS["rank_spread"].least(0.1), rel=0.12)
    moved = np.where(chance.random(20_000) < 0.1, 9.0 + chance.random(20_000), chance.normal(size=20_000))
    for b in (moved, -moved):
        assert effect("extremes", a, b) == pytest.approx(DETECTORS["extremes"].least(0.1), rel=0.12)
    share = DETECTORS["unseen_share"].least(0.2)
    old, new = np.zeros(10_000, dtype=np.int64), (np.arange(10_000) < share * 10_000).astype(np.int64)
    assert effect("jensen_shannon", old, new) == pytest.approx(0.2, abs=0.002)
    assert effect("unseen_share", old, new) == pytest.approx(share, abs=1e-4)


@pytest.mark.parametrize(
    ("draw", "scores"),
    [
        (lambda c: c.normal(size=4_000), normal),
        (lambda c: c.uniform(size=4_000), normal),
        (lambda c: c.logistic(size=4_000), wilcoxon),
        (lambda c: c.lognormal(size=4_000), wilcoxon),
        (lambda c: -c.lognormal(size=4_000), wilcoxon),
        (lambda c: c.standard_t(2, size=4_000), student),
        (lambda c: np.where(c.random(4_000) < 0.9, 0.0, c.normal(size=4_000)), wilcoxon),
        (lambda c: np.where(c.random(4_000) < 0.1, np.inf, c.normal(size=4_000)), wilcoxon),
        (lambda c: np.full(4_000, np.nan), wilcoxon),
    ],
)
def test_the_scores_of_location_suit_the_tail_and_are_the_same_for_every_split(draw: Any, scores: Any) -> None:
    chance = np.random.default_rng(0)
    sides = gaps_of(draw(chance))
    for _ in range(3):
        assert chosen(sides(chance.random((1, 4_000)) < 0.3)) is scores


def test_rank_tests_are_those_of_wilcoxon_and_klotz() -> None:
    chance = np.random.default_rng(2)
    a, b = chance.logistic(size=300), chance.logistic(0.4, 1.3, size=200)
    assert chosen(gaps_of(np.append(a, b))(np.arange(500)[np.newaxis] >= 300)) is wilcoxon
    z = abs(float(stats.ranksums(a, b).statistic))
    assert effect("rank_location", a, b) * math.sqrt(300 * 200 / 501) == pytest.approx(z, rel=2e-3)
    scores = stats.norm.ppf((stats.rankdata(np.append(a, b)) - 0.5) / 500) ** 2
    expected = abs(scores[300:].mean() - scores[:300].mean()) / scores.std()
    assert effect("rank_spread", a, b) == pytest.approx(expected, rel=0.01)


def test_ranks_alone_decide_and_far_values_do_not() -> None:
    chance = np.random.default_rng(3)
    a, b = chance.standard_t(2, size=400), chance.standard_t(2, size=300) + 0.3
    b[0] = 100.0 + np.abs(a).max()
    far = np.append(1e12, b[1:])
    for name in ("rank_spread", "extremes", "clipped_wasserstein"):
        assert effect(name, a, far) == pytest.approx(effect(name, a, b), rel=1e-6), name
    assert effect("wasserstein", a, far) != pytest.approx(effect("wasserstein", a, b), rel=0.1)


def test_more_rows_at_either_end_count_and_fewer_do_not() -> None:
    chance = np.random.default_rng(4)
    a, b = chance.normal(size=1_000), chance.normal(size=300)
    b[:9] = (6.0, 7.0, 8.0, 6.5, 7.5, 8.5, 6.1, 7.1, 8.1)
    up, down, back = effect("extremes", a, b), effect("extremes", -a, -b), effect("extremes", b, a)
    assert up == pytest.approx(down, rel=0.05)
    assert up > 3 * back


def test_rows_of_a_category_that_the_reference_lacks_are_counted() -> None:
    assert effect("unseen_share", [0, 0, 1, 1], [0, 2, 3, 1]) == 0.5
    assert effect("unseen_share", [0, 0, 1, 2], [0, 0]) == 0.0


def test_population_stability_of_an_unseen_category_is_finite_and_falls_with_what_did_not_show_it() -> None:
    assert effect("population_stability", [0, 0, 1], [0, 1, 1]) == pytest.approx(math.log(2.5 / 1.5) / 2)
    few, many = (effect("population_stability", [0] * n, [0] * 90 + [1] * 10) for n in (100, 10_000))
    assert 0.0 < few < many < 1.0


def test_missing_values_are_their_own_detector_and_leave_the_others_alone() -> None:
    nan = math.nan
    assert effect("missing_share", [1.0, 2.0, nan, nan], [1.0, 2.0]) == 0.5
    for name in (n for n, d in DETECTORS.items() if d.kind == "numeric" and n != "missing_share"):
        assert effect(name, [1.0, 2.0, nan, nan], [1.0, 2.0]) == pytest.approx(0.0)
        assert effect(name, [nan, nan], [1.0, nan]) == effect(name, [nan], [nan]) == 0.0


def test_many_distinct_values_are_compared_at_a_bounded_number_of_points() -> None:
    chance = np.random.default_rng(0)
    a, b = chance.normal(size=4_000), chance.normal(0.2, 1.0, size=3_000)
    current = np.arange(7_000) >= 4_000
    assert len(gaps_of(np.append(a, b))(current[np.newaxis]).points) == MOST_POINTS
    exact = stats.ks_2samp(a, b).statistic
    assert effect("kolmogorov_smirnov", a, b) == pytest.approx(exact, abs=2 / MOST_POINTS)


def test_the_mean_discrepancy_is_that_of_the_kernel() -> None:
    chance = np.random.default_rng(1)
    a, b = chance.normal(size=(300, 3)), chance.normal(0.7, 1.0, size=(200, 3))
    from drift.detectors.maximum_mean_discrepancy import median_distance

    x = np.concatenate([a, b])
    kernel = np.exp(-((x[:, np.newaxis] - x) ** 2).sum(axis=2) / (2 * median_distance(x) ** 2))
    weights = np.append(np.full(300, -1 / 300), np.full(200, 1 / 200))
    assert effect("maximum_mean_discrepancy", a, b) == pytest.approx(math.sqrt(weights @ kernel @ weights), rel=0.15)


def test_the_domain_classifier_is_ridge_regression_fitted_across_folds() -> None:
    chance = np.random.default_rng(1)
    a, b = chance.normal(size=(120, 4)), chance.normal(0.5, 1.0, size=(80, 4))
    x = np.concatenate([a, b])
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    y = np.arange(200) >= 120
    fold = np.random.default_rng([SEED, 200]).permutation(200) % FOLDS
    areas = []
    for f in range(FOLDS):
        model = Ridge(alpha=RIDGE * (fold != f).sum()).fit(x[fold != f], y[fold != f])
        areas.append(roc_auc_score(y[fold == f], model.predict(x[fold == f])))
    assert effect("domain_classifier", a, b) == pytest.approx(2 * np.mean(areas) - 1)


def test_the_correlation_detector_is_that_of_numpy() -> None:
    chance = np.random.default_rng(1)
    a = chance.normal(size=(300, 3))
    b = chance.normal(size=(200, 3))
    b[:, 2] = 0.8 * b[:, 0] + 0.6 * b[:, 2] + 5.0
    expected = np.abs(np.corrcoef(a.T) - np.corrcoef(b.T)).max() / 2
    assert effect("correlation", a, b) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"x": ("nonsense",)}, "'nonsense' of 'x' is unknown"),
        ({"numeric": ("chi_squared",)}, "is for categorical columns, not for numeric"),
        ({"x": ()}, "needs at least one"),
    ],
)
def test_impossible_choices_of_detectors_are_refused(choice: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked(choice)
    assert all(DETECTORS[n].kind == kind for kind, names in DEFAULTS.items() for n in names)
