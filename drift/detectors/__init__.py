"""Detectors of change, one file each, behind the contract of :mod:`drift.detectors.contract`."""

from drift.detectors import (
    anderson_darling,
    chi_squared,
    correlation,
    domain_classifier,
    energy,
    g_test,
    jensen_shannon,
    kolmogorov_smirnov,
    maximum_mean_discrepancy,
    missing_share,
    population_stability,
    wasserstein,
)
from drift.detectors.contract import Counts, Detector, Fitted, Gaps, Kind

DETECTORS: dict[str, Detector] = {
    module.DETECTOR.name: module.DETECTOR
    for module in (
        kolmogorov_smirnov, wasserstein, energy, anderson_darling, missing_share,
        jensen_shannon, chi_squared, g_test, population_stability,
        maximum_mean_discrepancy, domain_classifier, correlation,
    )
}  # fmt: skip
"""All detectors by name."""

DEFAULTS: dict[Kind, tuple[str, ...]] = {
    "numeric": ("anderson_darling", "wasserstein"),
    "categorical": ("chi_squared",),
    "vectors": ("domain_classifier",),
}
"""The detectors of a column that names none. Ranks and distances see different changes of numbers: alone, each misses
what the other sees (scale and far tails, or shifts of heavy-tailed values), and judged together they cost little."""

__all__ = ["DEFAULTS", "DETECTORS", "Counts", "Detector", "Fitted", "Gaps", "Kind"]
