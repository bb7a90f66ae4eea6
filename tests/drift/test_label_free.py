import numpy as np
import pytest

from drift.label_free import LEAST_ROWS, METHODS, Scores, foretell, isotonic, mean_confidence


def sample(n, seed, *, easy=0.5, overconfident=0.15):
    """A model that is too sure of itself by as much everywhere, on a mix of easy and hard inputs."""
    chance = np.random.default_rng(seed)
    p = np.where(chance.random(n) < easy, chance.uniform(0.9, 1.0, n), chance.uniform(0.5, 0.9, n))
    right = chance.random(n) < p - overconfident
    agrees = np.where(chance.random(n) < 0.95, right, ~right)
    return p, agrees, right


def scores(columns, truth=True):
    p, agrees, right = columns
    return Scores.of(p.tolist(), agrees.tolist(), right.tolist() if truth else ())


def test_foretells_more_truly_than_what_the_model_says_of_itself():
    source, columns = scores(sample(800, 0)), sample(800, 1, easy=0.1)
    target, truth = scores(columns, truth=False), columns[2].mean()
    found = foretell(source, target, seed=0)
    assert set(found) == set(METHODS)
    naive = abs(mean_confidence(target) - truth)
    assert naive > 0.12
    for name, f in found.items():
        assert name == "threshold" or abs(f.value - truth) < 0.07, name  # it is not made for another mix
        assert f.lower <= f.value <= f.upper and f.upper - f.lower < 0.2


def test_intervals_cover_where_the_assumption_holds():
    covered = 0
    for seed in range(30):
        columns = sample(200, 2 * seed + 1, easy=0.3)
        f = foretell(scores(sample(200, 2 * seed)), scores(columns, truth=False), seed=seed, resamples=60)["calibrated"]
        covered += f.lower - 0.03 <= columns[2].mean() <= f.upper + 0.03
    assert covered >= 27


def test_an_unknown_kind_of_input_is_seen_by_disagreement_alone():
    """The model is as sure as ever and always wrong; its teacher no longer agrees."""
    target = Scores.of([0.97] * 200, [False] * 200)
    found = foretell(scores(sample(400, 0)), target, seed=0)
    assert found["disagreement"].value < 0.15 < 0.7 < found["calibrated"].value


def test_too_few_rows_foretell_nothing_and_disagreement_needs_another_model():
    few = scores(sample(LEAST_ROWS - 1, 0))
    assert foretell(few, scores(sample(100, 1), truth=False), seed=0) == {}
    alone = Scores.of([0.5] * 50, (), [True] * 50)
    assert set(foretell(alone, Scores.of([0.5] * 50), seed=0)) == set(METHODS) - {"disagreement"}


def test_isotonic_steps_are_sklearn_s():
    from sklearn.isotonic import IsotonicRegression

    p, _, right = sample(300, 3)
    levels, heights = isotonic(p, right.astype(float))
    expected = IsotonicRegression().fit(p, right).predict(p)
    assert np.all(np.diff(heights) > 0)
    assert heights[np.argmin(np.abs(levels[:, None] - p[None]), axis=0)].mean() == pytest.approx(
        expected.mean(), abs=0.02
    )
    assert sorted(set(np.round(heights, 9))) == sorted(set(np.round(expected, 9)))


def test_what_cannot_be_said_is_refused():
    target = scores(sample(50, 0), truth=False)
    with pytest.raises(ValueError, match="truth must be known"):
        foretell(target, target, seed=0)
    with pytest.raises(ValueError, match="must be in"):
        foretell(scores(sample(50, 0)), target, seed=0, confidence=1.0)
    with pytest.raises(ValueError, match="one a row"):
        Scores.of([0.5], [True, False])
