import numpy as np
import pytest

from drift.quality import expected_calibration_error
from drift.reliability import debiased_ece, reliability


def sample(n, seed, gap=0.0):
    chance = np.random.default_rng(seed)
    p = chance.uniform(0.5 + gap, 1.0, n)
    return p, chance.random(n) < p - gap


@pytest.mark.parametrize("n", [100, 400])
def test_a_calibrated_model_has_almost_no_error_once_chance_is_taken_off(n):
    plain, debiased = [], []
    for seed in range(200):
        p, right = sample(n, seed)
        plain.append(expected_calibration_error(p.tolist(), right.tolist()))
        debiased.append(debiased_ece(reliability(p.tolist(), right.tolist())))
    assert np.mean(debiased) < 0.5 * np.mean(plain)


def test_a_real_gap_stays():
    found = [debiased_ece(reliability(*(x.tolist() for x in sample(500, s, gap=0.15)))) for s in range(50)]
    assert np.mean(found) == pytest.approx(0.15, abs=0.015)


def test_bins_have_equal_weight_and_equal_confidences_are_together():
    curve = reliability([0.1] * 50 + [0.9] * 50, [False] * 50 + [True] * 40 + [False] * 10, bins=10)
    assert [(round(b.confidence, 3), b.accuracy, b.share) for b in curve] == [(0.1, 0.0, 0.5), (0.9, 0.8, 0.5)]
    weighted = reliability([0.2, 0.8], [True, False], [3.0, 1.0], bins=2)
    assert [b.share for b in weighted] == [0.75, 0.25] and weighted[0].size == 1.0


def test_of_nothing_nothing_is_known():
    assert reliability([], []) == () and debiased_ece(()) is None


@pytest.mark.parametrize("bad", [([0.5], [], 5), ([0.5], [True], 0), ([1.5], [True], 5)])
def test_what_is_no_confidence_is_refused(bad):
    with pytest.raises(ValueError, match=r"confidence|bins"):
        reliability(bad[0], bad[1], bins=bad[2])
