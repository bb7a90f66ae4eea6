"""Who answers a request: a sticky split by the request's key, and the choice of what is audited. Both are pure.

A key's bucket is the first 53 bits of BLAKE2b over workload, salt and key, as a fraction: uniform, the same in every
replica, and independent between salts. The candidate answers the keys below its weight, so a key that it has keeps
it while the weight rises.
"""

from __future__ import annotations

from hashlib import blake2b

BITS = 53
"""Bits of a double's mantissa: with more, the largest bucket would round to one."""


def bucket(workload: str, salt: str, key: str) -> float:
    """The place of ``key`` in [0, 1) under ``salt`` (a rollout's candidate digest, or a purpose)."""
    digest = blake2b(f"{workload}\0{salt}\0{key}".encode(errors="surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest) >> (64 - BITS)) / float(1 << BITS)


def to_candidate(workload: str, salt: str, key: str, weight: float) -> bool:
    """Whether the candidate answers ``key`` at ``weight``, its share of keys in [0, 1]."""
    return weight > 0.0 and bucket(workload, salt, key) < weight


def audited(workload: str, input_id: str, share: float) -> bool:
    """Whether an input is in the audited sample of ``share``; anyone can recompute it from the input's id."""
    return bucket(workload, "audit", input_id) < share
