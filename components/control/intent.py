"""The durable intent of a workload's routing, and a reference to a registered student."""

from __future__ import annotations

import msgspec

EVERY_ANSWER = 1.01
"""A limit of confidence that none reaches: every answer is deferred."""


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

    @property
    def own_limit(self) -> float:
        """``defer_below``; where there is none, one that no confidence reaches."""
        return EVERY_ANSWER if self.defer_below is None else self.defer_below


class Guard(msgspec.Struct, frozen=True, kw_only=True):
    """That a champion defers more than its own limit says (:mod:`serving.rollout.certificate`).

    It is of the champion with this ``digest`` and of no other. Answers of a confidence below ``defer_below`` are
    deferred while the intent's lease is live, and every answer once it is over: nobody watches then what is given.
    """

    digest: str
    defer_below: float

    def limit_at(self, now: float, lease_until: float) -> float:
        """The limit in force at ``now``; above 1 it is one that no confidence reaches."""
        return self.defer_below if now < lease_until else EVERY_ANSWER


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """Who serves a workload.

    ``weight``: the candidate's share of requests, in [0, 1]; ``shadow``: the candidate answers beside the champion
    and is not served. ``lease_until`` (Unix seconds): after it a candidate's weight counts as zero, whatever it is.
    ``epoch``: fencing number of the controller that wrote it. ``guard``: where the champion does not keep its promise.
    """

    champion: ModelRef | None = None
    candidate: ModelRef | None = None
    previous: ModelRef | None = None
    weight: float = 0.0
    shadow: bool = False
    lease_until: float = 0.0
    epoch: int = 0
    guard: Guard | None = None

    def weight_at(self, now: float) -> float:
        """The candidate's share in force at ``now``: zero without a candidate or a live lease."""
        return self.weight if self.candidate is not None and now < self.lease_until else 0.0
