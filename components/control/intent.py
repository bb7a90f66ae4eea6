"""The durable intent of a workload's routing, and a reference to a registered student."""

from __future__ import annotations

import msgspec


class ModelRef(msgspec.Struct, frozen=True, kw_only=True):
    """A registered student version and where its artifact lies. ``digest``: SHA-256 of the artifact's bytes.

    ``defer_below``: the confidence below which its answers are to be deferred, as its evaluation certified it for the
    spec's ``serve.max_disagreement``; None where that was not asked, or none could be certified.
    """

    version: str
    uri: str
    digest: str
    snapshot: str
    teacher: str
    defer_below: float | None = None


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """Who serves a workload.

    ``weight``: the candidate's share of requests, in [0, 1]; ``shadow``: the candidate answers beside the champion
    and is not served. ``lease_until`` (Unix seconds): after it a candidate's weight counts as zero, whatever it is.
    ``epoch``: fencing number of the controller that wrote it.
    """

    champion: ModelRef | None = None
    candidate: ModelRef | None = None
    previous: ModelRef | None = None
    weight: float = 0.0
    shadow: bool = False
    lease_until: float = 0.0
    epoch: int = 0

    def weight_at(self, now: float) -> float:
        """The candidate's share in force at ``now``: zero without a candidate or a live lease."""
        return self.weight if self.candidate is not None and now < self.lease_until else 0.0
