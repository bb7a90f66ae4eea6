import numpy as np
import pytest
from scipy.stats import binom

from drift.calibration import BLOCK, calibrate, least_resamples, splits


def test_the_true_split_comes_first_and_sizes_are_kept() -> None:
    blocks = list(splits(30, 12, 50, seed=1))
    dealt = np.concatenate(blocks)
    assert dealt.shape == (51, 42)
    assert dealt[0].tolist() == [False] * 30 + [True] * 12
    assert (dealt.sum(axis=1) == 12).all()
    assert len({row.tobytes() for row in dealt}) == 51


def test_every_row_is_as_likely_to_be_in_the_window() -> None:
    dealt = np.concatenate(list(splits(30, 10, 4_000, seed=4)))[1:]
    assert np.abs(dealt.mean(axis=0) - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 4_000)


def test_large_samples_come_in_blocks_of_bounded_size() -> None:
    blocks = list(splits(6_000, 4_000, 450, seed=0))
    assert [len(b) for b in blocks] == [1, 200, 200, 50]
    assert max(b.size for b in blocks) <= BLOCK


def test_equal_seeds_deal_equally() -> None:
    one, same, other = (np.concatenate(list(splits(9, 9, 5, seed=s))) for s in (3, 3, 4))
    assert (one == same).all()
    assert (one != other).any()


def test_p_values_are_ranks_with_the_true_split_counted() -> None:
    resampled = np.arange(99, dtype=np.float64)
    for true, p in ((200.0, 0.01), (97.5, 0.02), (50.0, 0.50), (-1.0, 1.0)):
        found = calibrate(np.append(true, resampled)[:, np.newaxis], 0.05)
        assert found.p_values[0] == pytest.approx(p)
        assert found.limits[0] == pytest.approx(94.0)


def test_columns_are_judged_together() -> None:
    chance = np.random.default_rng(0)
    statistics = chance.normal(size=(1_000, 20))
    statistics[0] = 2.3
    alone, together = calibrate(statistics[:, :1], 0.05), calibrate(statistics, 0.05)
    assert alone.p_values[0] < 0.05 < together.p_values[0]
    assert alone.limits[0] < together.limits[0]


def test_columns_of_different_scales_weigh_the_same() -> None:
    chance = np.random.default_rng(1)
    statistics = chance.normal(size=(1_000, 2)) * [1.0, 1e-3]
    statistics[0] = [0.0, 5e-3]
    assert calibrate(statistics, 0.05).p_values[1] < 0.01


def test_a_handicap_leaves_the_other_columns_the_level() -> None:
    chance = np.random.default_rng(2)
    statistics = chance.normal(size=(2_000, 3))
    statistics[0] = [2.1, 2.1, 0.0]
    same, favoured = calibrate(statistics, 0.05), calibrate(statistics, 0.05, handicaps=[0.0, 1.0, 1.0])
    assert favoured.p_values[0] <= 0.05 < same.p_values[0] < favoured.p_values[1]
    assert favoured.limits[0] < same.limits[0] < favoured.limits[1]
    alarms = sum(
        calibrate(chance.normal(size=(40, 3)), 0.2, handicaps=[0.0, 1.0, 1.0]).p_values.min() <= 0.2 for _ in range(400)
    )
    assert binom.ppf(0.001, 400, 0.2) <= alarms <= binom.ppf(0.999, 400, 0.2)


def test_constant_columns_never_stand_out() -> None:
    statistics = np.zeros((100, 2))
    statistics[:, 1] = np.random.default_rng(0).random(100)
    assert calibrate(statistics, 0.05).p_values[0] > 0.5
    assert calibrate(np.zeros((100, 2)), 0.05).p_values.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("alpha", "least"), [(0.5, 1), (0.05, 19), (0.01, 99), (0.003, 333)])
def test_the_least_resamples_reach_alpha_and_one_fewer_does_not(alpha: float, least: int) -> None:
    assert least_resamples(alpha) == least
    statistics = np.append(9.0, np.linspace(0, 1, least))[:, np.newaxis]
    assert calibrate(statistics, alpha).p_values[0] <= alpha
    with pytest.raises(ValueError, match=f"at least {least} are needed"):
        calibrate(statistics[:-1], alpha)
