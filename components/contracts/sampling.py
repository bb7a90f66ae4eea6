"""Uniform choices that anyone can recompute: the hash of an id as a number in [0, 1). Pure.

A bucket is the first 53 bits of BLAKE2b over workload, salt and key, as a fraction: uniform, the same in every
process, and independent between salts.
"""

from __future__ import annotations

from hashlib import blake2b

BITS = 53
"""Bits of a double's mantissa: with more, the largest bucket would round to one."""

AUDIT = "audit"
"""The salt of audits. The gateway's audited requests and the labeler's audit slice share it: of the two samples the
smaller lies within the larger, so that one call of the teacher serves both."""


def bucket(workload: str, salt: str, key: str) -> float:
    """The place of ``key`` in [0, 1) under ``salt`` (a rollout's candidate digest, or a purpose)."""
    digest = blake2b(f"{workload}\0{salt}\0{key}".encode(errors="surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest) >> (64 - BITS)) / float(1 << BITS)


def audit_place(workload: str, input_id: str) -> float:
    """The place of an input in [0, 1) by which it is audited: it is in every sample of a larger share."""
    return bucket(workload, AUDIT, input_id)


def audited(workload: str, input_id: str, share: float) -> bool:
    """Whether an input is in the audited sample of ``share``; anyone can recompute it from the input's id."""
    return audit_place(workload, input_id) < share
