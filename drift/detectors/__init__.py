"""Detectors of change, one file each, behind the contract of :mod:`drift.detectors.contract`."""

from collections.abc import Mapping, Sequence

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

Detectors = Mapping[str, Sequence[str]]
"""Names of detectors by column, or by kind for all of its columns."""


def checked(detectors: Detectors) -> Detectors:
    """A copy of a choice of detectors.

    Raises:
        ValueError: a name is unknown, a kind is given a detector of another kind, or none.

    """
    for owner, names in detectors.items():
        if not names:
            raise ValueError(f"{owner!r} needs at least one detector, or none named to have the defaults")
        for name in names:
            if name not in DETECTORS:
                raise ValueError(f"detector {name!r} of {owner!r} is unknown: there are {', '.join(DETECTORS)}")
            if owner in DEFAULTS and DETECTORS[name].kind != owner:
                raise ValueError(f"detector {name!r} is for {DETECTORS[name].kind} columns, not for {owner} ones")
    return {owner: tuple(names) for owner, names in detectors.items()}


__all__ = ["DEFAULTS", "DETECTORS", "Counts", "Detector", "Detectors", "Fitted", "Gaps", "Kind", "checked"]
