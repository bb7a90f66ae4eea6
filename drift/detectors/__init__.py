"""Detectors of change, one file each, behind the contract of :mod:`drift.detectors.contract`."""

from drift.detectors import (
    anderson_darling,
    chi_squared,
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
        maximum_mean_discrepancy, domain_classifier,
    )
}  # fmt: skip
"""All detectors by name."""

DEFAULTS: dict[Kind, tuple[str, ...]] = {
    "numeric": ("kolmogorov_smirnov", "anderson_darling", "wasserstein"),
    "categorical": ("jensen_shannon", "chi_squared"),
    "vectors": ("domain_classifier",),
}
"""The detectors of a column that names none: they see different changes, and judged together cost little power."""

__all__ = ["DEFAULTS", "DETECTORS", "Counts", "Detector", "Fitted", "Gaps", "Kind"]
