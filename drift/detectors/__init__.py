"""Detectors of change, one file each, behind the contract of :mod:`drift.detectors.contract`."""

from collections.abc import Mapping, Sequence

from drift.detectors import (
    anderson_darling,
    chi_squared,
    clipped_wasserstein,
    correlation,
    domain_classifier,
    energy,
    extremes,
    g_test,
    jensen_shannon,
    kolmogorov_smirnov,
    maximum_mean_discrepancy,
    missing_share,
    population_stability,
    rank_location,
    rank_spread,
    unseen_share,
    wasserstein,
)
from drift.detectors.contract import Counts, Detector, Fitted, Gaps, Kind

DETECTORS: dict[str, Detector] = {
    module.DETECTOR.name: module.DETECTOR
    for module in (
        kolmogorov_smirnov, wasserstein, energy, anderson_darling, missing_share,
        rank_location, rank_spread, extremes, clipped_wasserstein,
        jensen_shannon, chi_squared, g_test, population_stability, unseen_share,
        maximum_mean_discrepancy, domain_classifier, correlation,
    )
}  # fmt: skip
"""All detectors by name."""

DEFAULTS: dict[Kind, tuple[str, ...]] = {
    "numeric": ("rank_location", "clipped_wasserstein", "rank_spread", "extremes"),
    "categorical": ("chi_squared", "unseen_share"),
    "vectors": ("domain_classifier",),
}
"""The detectors of a column that names none. Each misses what the others see (shifts, of heavy-tailed values too, the
shape of the bulk, spread, a few far rows; mixes and new categories), and judged together they cost each other little:
the narrow ones have a handicap."""

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
