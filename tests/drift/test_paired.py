import numpy as np
import pytest
from scipy import stats

from drift.paired import EXACT_ROWS, PairedLoss, chance_of_as_little, least_rows, score, upper_bound


def loss(lost, won, n):
    return PairedLoss(lost=lost, won=won, n=n, effective=n)


def test_score_is_tango_s():
    """At no margin it is McNemar's; elsewhere the restricted estimate is the one that maximises the likelihood."""
    assert score(12, 5, 100, 0.0) == pytest.approx(7 / 17**0.5)
    lost, won, n, margin = 7, 3, 60, 0.1
    shares = np.linspace(1e-6, (1 - margin) / 2 - 1e-6, 200_001)
    same = (n - lost - won) * np.log1p(-2 * shares - margin)
    likelihood = lost * np.log(shares + margin) + won * np.log(shares) + same
    best = shares[np.argmax(likelihood)]
    expected = (lost - won - n * margin) / (n * (2 * best + margin * (1 - margin))) ** 0.5
    assert score(lost, won, n, margin) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("n", [5, 40, 120])
def test_without_a_difference_the_bound_is_the_rule_of_three_s(n):
    assert upper_bound(0, 0, n, 0.95) == pytest.approx(1.0 - 0.05 ** (1.0 / n), abs=1e-4)


def test_an_exact_p_value_is_the_largest_over_all_shares_of_won_rows():
    lost, won, n, margin = 1, 2, 20, 0.2
    z = score(lost, won, n, margin)
    worst = 0.0
    for share in np.linspace(0.0, 0.4, 9):
        total = 0.0
        for i in range(n + 1):
            for j in range(n + 1 - i):
                if score(i, j, n, margin) <= z + 1e-9:
                    total += stats.multinomial.pmf(
                        [i, j, n - i - j], n, [share + margin, share, 1 - 2 * share - margin]
                    )
        worst = max(worst, total)
    found = chance_of_as_little(lost, won, n, margin)
    assert worst - 1e-9 <= found <= worst + 0.01


@pytest.mark.parametrize(("n", "worse", "better"), [(30, 0.12, 0.02), (120, 0.1, 0.05), (600, 0.06, 0.02)])
def test_the_bound_is_broken_no_more_often_than_it_says(n, worse, better):
    """Exact ones by summing over what can happen at the margin, large samples by drawing."""
    chance = np.random.default_rng(0)
    draws = chance.multinomial(n, [worse, better, 1 - worse - better], size=1_500)
    truth = worse - better
    pairs, counts = np.unique(draws[:, :2], axis=0, return_counts=True)
    if n > EXACT_ROWS:
        broken = sum(c for (b, w), c in zip(pairs, counts, strict=True) if upper_bound(int(b), int(w), n, 0.9) < truth)
    else:
        broken = sum(
            c for (b, w), c in zip(pairs, counts, strict=True) if chance_of_as_little(int(b), int(w), n, truth) <= 0.1
        )  # fmt: skip
    assert broken / 1_500 <= 0.1 + 3 * (0.1 * 0.9 / 1_500) ** 0.5


def test_both_sides_and_both_ways_of_counting():
    made = PairedLoss.of([False] * 6 + [True] * 94, [True] * 4 + [False] * 4 + [True] * 92, [1.0] * 100)
    assert (made.lost, made.won, made.n, made.value) == (4, 2, 100, pytest.approx(0.02))
    assert made.bound("lower", 0.95) < 0.02 < made.bound("upper", 0.95) < 0.09
    assert made.bound("upper", 0.95) == -loss(2, 4, 100).bound("lower", 0.95)
    assert made.breaks(0.0, "upper") > 0.05 and loss(30, 2, 100).breaks(0.1, "upper") < 0.05
    assert loss(2, 30, 100).breaks(0.0, "lower") < 0.01
    assert loss(0, 0, 0).bound("upper", 0.9) == 1.0 and np.isnan(loss(0, 0, 0).value)


def test_uneven_weights_widen_the_bound():
    mine, theirs = [True] * 50 + [False] * 2, [True] * 49 + [False] + [True] * 2
    even = PairedLoss.of(mine, theirs, [1.0] * 52)
    uneven = PairedLoss.of(mine, theirs, [1.0] * 51 + [20.0])
    assert uneven.effective < even.effective == 52
    assert uneven.bound("upper", 0.95) > even.bound("upper", 0.95)


def test_repeated_looks_widen_it_and_want_equal_weights():
    mine = [i % 20 != 0 for i in range(300)]
    once, often = (PairedLoss.of(mine, [True] * 300, [1.0] * 300, repeated=r) for r in (False, True))
    assert once.value == often.value == pytest.approx(0.05)
    assert once.bound("upper", 0.95) < often.bound("upper", 0.95) < 0.25
    assert often.bound("lower", 0.95) <= 0.05 and often.breaks(0.9, "upper") == 1.0
    assert often.needed(0.2, "upper", 0.95) > 2 * once.needed(0.2, "upper", 0.95)
    with pytest.raises(ValueError, match="equal weight"):
        PairedLoss.of([True, True], [True, True], [1.0, 2.0], repeated=True)


def test_so_many_labels_as_it_says_decide():
    """An equally good model passes with at least the stated chance at the stated number."""
    chance, margin, share = np.random.default_rng(1), 0.03, 0.1
    first = loss(3, 3, 60)
    n = first.needed(margin, "upper", 0.95)
    assert 60 < n < 3_000
    draws = chance.multinomial(n, [share / 2, share / 2, 1 - share], size=500)
    passed = [upper_bound(int(b), int(w), n, 0.95) <= margin for b, w, _ in draws]
    assert np.mean(passed) >= 0.9
    worse = chance.multinomial(n, [share / 2 + margin, share / 2, 1 - share - margin], size=500)
    assert np.mean([upper_bound(int(b), int(w), n, 0.95) <= margin for b, w, _ in worse]) <= 0.08


def test_no_number_of_labels_shows_that_nothing_was_lost():
    assert loss(3, 3, 60).needed(0.0, "upper", 0.95) is None
    assert loss(0, 0, 0).needed(0.1, "upper", 0.95) is None
    assert loss(3, 3, 60).needed(1e-6, "upper", 0.95) is None


@pytest.mark.parametrize(("limit", "confidence"), [(0.02, 0.8), (0.05, 0.95), (0.1, 0.9)])
def test_fewer_rows_than_the_least_show_nothing_even_without_a_loss(limit, confidence):
    n = least_rows(limit, confidence)
    bounds = [PairedLoss.of([True] * m, [True] * m, [1.0] * m).bound("upper", confidence) for m in (n - 1, n)]
    assert bounds[0] > limit >= bounds[1] - 1e-9
    assert least_rows(0.0, 0.9) > 1_000_000 and least_rows(1.0, 0.9) == 1
