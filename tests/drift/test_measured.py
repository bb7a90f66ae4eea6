import math

import numpy as np
import pytest

from drift.gate import Criterion, assess
from drift.measured import ErrorLevel, ErrorRise, PairedLoss, Share
from drift.quality import proportion


def share(hits, n, **more):
    return Share(hits=(True,) * hits + (False,) * (n - hits), weights=(1.0,) * n, **more)


def test_a_share_has_clopper_and_pearson_s_bounds():
    exact = proportion(45, 50, 0.9)
    assert share(45, 50).value == 0.9
    assert (share(45, 50).bound("lower", 0.95), share(45, 50).bound("upper", 0.95)) == (exact.lower, exact.upper)
    assert share(0, 0).bound("lower", 0.9) == 0.0 and share(0, 0).bound("upper", 0.9) == 1.0


def test_the_p_value_and_the_bound_say_the_same():
    for limit in (0.8, 0.95, 0.99):
        p = share(45, 50).breaks(limit, "lower")
        assert (p <= 0.05) == (share(45, 50).bound("upper", 0.95) < limit)
        assert p == 1.0 or share(45, 50).bound("upper", 1.0 - p) == pytest.approx(limit, abs=1e-6)


def test_labels_that_would_decide_a_share():
    n = share(45, 50).needed(0.85, "lower", 0.95)
    assert share(round(0.9 * n), n).bound("lower", 0.95) >= 0.849 > share(45, 50).bound("lower", 0.95)
    below = share(40, 50).needed(0.85, "lower", 0.95)
    assert share(round(0.8 * below), below).bound("upper", 0.95) <= 0.851
    assert share(45, 50).needed(0.9, "lower", 0.95) is None
    assert share(45, 50, anytime=True).needed(0.85, "lower", 0.95) > 2 * n


def test_a_share_that_is_looked_at_repeatedly():
    hits = tuple(i % 10 != 0 for i in range(50))
    often = Share(hits=hits, weights=(1.0,) * 50, anytime=True)
    assert 0.6 < often.bound("lower", 0.95) < share(45, 50).bound("lower", 0.95)
    with pytest.raises(ValueError, match="equal weight"):
        Share(hits=(True, True), weights=(1.0, 2.0), anytime=True)
    with pytest.raises(ValueError, match="weights for"):
        Share(hits=(True,), weights=())


def test_error_levels_cover_what_they_say():
    chance, inside = np.random.default_rng(0), 0
    for _ in range(400):
        made = ErrorLevel(errors=tuple(np.abs(chance.normal(size=80))), weights=(1.0,) * 80)
        inside += made.bound("upper", 0.95) >= 1.0
    assert inside / 400 >= 0.91
    made = ErrorLevel(errors=(1.0, 3.0), weights=(3.0, 1.0), power=1)
    assert made.value == 1.5 and made.bound("lower", 0.9) < 1.5 < made.bound("upper", 0.9)
    assert made.breaks(0.1, "upper") < made.breaks(2.0, "upper")
    assert made.needed(1.5, "upper", 0.95) is None and made.needed(3.0, "upper", 0.95) >= 2


def test_a_rise_of_errors_is_paired():
    chance = np.random.default_rng(0)
    hard = np.abs(chance.normal(size=300)) * 10.0
    a, b = tuple(hard * chance.uniform(0.95, 1.05, 300)), tuple(hard * chance.uniform(0.95, 1.05, 300))
    made = ErrorRise(candidate=a, champion=b, weights=(1.0,) * 300)
    assert abs(made.value) < 0.02 and -0.02 < made.bound("lower", 0.95) < made.bound("upper", 0.95) < 0.02
    assert made.breaks(0.0, "upper") > 0.05 and made.needed(0.02, "upper", 0.95) < 300
    worse = ErrorRise(candidate=tuple(1.3 * x for x in a), champion=b, weights=(1.0,) * 300)
    assert worse.value == pytest.approx(0.3, abs=0.02) and worse.breaks(0.1, "upper") < 1e-6
    assert worse.bound("lower", 0.95) > 0.25
    alone = ErrorRise(candidate=(1.0,), champion=(1.0,), weights=(1.0,))
    assert alone.bound("upper", 0.95) == math.inf and alone.needed(0.1, "upper", 0.95) is None


def criterion(limit, **more):
    return Criterion(measure="loss", at_most=limit, confidence=0.95, **more)


def loss(lost, won, n):
    return PairedLoss(lost=lost, won=won, n=n, effective=n)


@pytest.mark.parametrize(
    ("measure", "decision"),
    [
        (loss(0, 0, 200), "promote"),
        (loss(0, 0, 40), "hold"),
        (loss(60, 45, 900), "hold"),
        (loss(30, 2, 100), "reject"),
        (loss(110, 45, 3_000), "reject"),
    ],
)
def test_the_gate_passes_fails_or_asks_for_more_labels(measure, decision):
    verdict = assess({"loss": measure}, [criterion(0.02)])
    (finding,) = verdict.findings
    assert verdict.decision == decision and (finding.more is not None) == (decision == "hold")
    assert "with 95 % confidence" in finding.reason and finding.n == measure.n


def test_a_comparison_that_had_its_labels_and_is_not_decided_is_a_failure():
    """At 3,000 labels with 120 differing rows an equally good student would have passed."""
    made = loss(75, 45, 3_000)
    assert made.breaks(0.012, "upper") > 0.05 and made.bound("upper", 0.95) > 0.012
    assert made.needed(0.012, "upper", 0.95, now=True) <= 3_000
    assert assess({"loss": made}, [criterion(0.012)]).decision == "reject"


def test_shown_to_be_broken_is_shared_out_over_a_family():
    """Each of ten slices is broken by itself at 5 %, and none of them once all ten are looked at."""
    made = loss(10, 1, 60)
    alone = assess({"loss": made}, [criterion(0.05)])
    assert 0.005 < made.breaks(0.05, "upper") < 0.05 and alone.decision == "reject"
    names = [f"slice[{i}]" for i in range(10)]
    family = [Criterion(measure=n, at_most=0.05, confidence=0.95, family="slice") for n in names]
    assert {f.outcome for f in assess(dict.fromkeys(names, made), family).findings} == {"missing"}
    worst = assess(dict.fromkeys(names, made) | {"slice[3]": loss(20, 0, 60)}, family)
    assert [f.measure for f in worst.findings if f.outcome == "fail"] == ["slice[3]"]


def test_without_a_confidence_the_estimate_is_judged():
    assert assess({"loss": loss(0, 0, 40)}, [Criterion(measure="loss", at_most=0.02)]).decision == "promote"
    assert assess({"loss": loss(0, 0, 0)}, [criterion(0.02)]).decision == "hold"
    with pytest.raises(ValueError, match="it must be in"):
        Criterion(measure="loss", at_most=0.1, confidence=0.4)
