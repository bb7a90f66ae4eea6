"""Who answers a request: a sticky split by the request's key. Pure.

The candidate answers the keys whose bucket (:mod:`components.contracts.sampling`) is below its weight, so a key that
it has keeps it while the weight rises.
"""

from __future__ import annotations

from components.contracts.sampling import bucket


def to_candidate(workload: str, salt: str, key: str, weight: float) -> bool:
    """Whether the candidate answers ``key`` at ``weight``, its share of keys in [0, 1]."""
    return weight > 0.0 and bucket(workload, salt, key) < weight
