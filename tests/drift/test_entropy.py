import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift.entropy import Summary, mutual_information, shannon, summarise


def test_known_entropies_in_nats() -> None:
    assert shannon([1.0, 0.0, 0.0]) == 0.0
    assert shannon([0.25] * 4) == pytest.approx(math.log(4))
    assert shannon([[0.5, 0.5], [0.9, 0.1]]) == pytest.approx([math.log(2), 0.3250829733914482])


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=30).filter(lambda w: sum(w) > 1e-3))
def test_entropy_is_between_zero_and_that_of_the_uniform(weights: list[float]) -> None:
    p = np.asarray(weights) / sum(weights)
    assert -1e-12 <= float(shannon(p)) <= math.log(len(p)) + 1e-9
    assert float(shannon(p[::-1])) == pytest.approx(float(shannon(p)), abs=1e-12)


@pytest.mark.parametrize("wrong", [[0.5, 0.6], [1.5, -0.5], [math.nan, 1.0], [0.2], []])
def test_what_is_no_distribution_is_refused(wrong: list[float]) -> None:
    with pytest.raises(ValueError, match="sum to one"):
        shannon(wrong)


def test_a_summary_has_the_moments_and_deciles_of_the_window() -> None:
    found = summarise([float(i) for i in range(11)])
    assert found == Summary(n=11, mean=5.0, deviation=pytest.approx(math.sqrt(10)), low=1.0, median=5.0, high=9.0)
    assert found is not None
    assert set(found.as_dict()) == {"n", "mean", "deviation", "low", "median", "high"}


def test_an_empty_window_has_no_summary_and_a_broken_one_is_refused() -> None:
    assert summarise([]) is None
    with pytest.raises(ValueError, match="1 of 2 entropies"):
        summarise([0.5, math.nan])


def test_mutual_information_tells_the_unknown_from_the_hard() -> None:
    hard = np.full((3, 1, 4), 0.25)
    unknown = np.eye(4)[:3].reshape(3, 1, 4)
    assert mutual_information(hard) == pytest.approx([0.0], abs=1e-12)
    assert mutual_information(unknown) == pytest.approx([np.log(3)])
    chance = np.random.default_rng(0).dirichlet(np.ones(5), size=(3, 50))
    found = mutual_information(chance)
    assert ((found >= 0) & (found <= np.log(3))).all()
    with pytest.raises(ValueError, match="sum to one"):
        mutual_information([[[0.5, 0.6]], [[0.5, 0.5]]])
