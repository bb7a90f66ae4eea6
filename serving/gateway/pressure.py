"""Overload: how many requests a replica takes at once, and who is turned away first.

The requests under way are bounded, since each holds memory and makes the others wait. The bound is graded by urgency
(RFC 9218): less urgent requests are turned away while there is still room for the more urgent ones, so that what is
shed first is what matters least (B. Beyer et al., "Site Reliability Engineering", 2016, ch. 21: criticality).
"""

from __future__ import annotations

import math

from serving.gateway.wire import PRIORITY, RequestError

LEAST_SHARE = 0.5
"""The share of the bound that the least urgent requests may fill; the others' shares lie evenly up to all of it."""

RETRY_AFTER = {"Retry-After": "1"}
"""Seconds: a replica answers thousands of requests in one, so a full one is empty by then if the load went."""


def room(urgency: int, most: int) -> int:
    """How many requests may be under way when one of ``urgency`` (0 to 7, 0 is the most urgent) still gets in.

    Urgency 0 to 3 may fill all of ``most``, 7 half of it.

    >>> [room(urgency, 64) for urgency in (0, 3, 5, 7)]
    [64, 64, 48, 32]
    """
    if urgency <= PRIORITY:
        return most
    return max(1, math.floor(most * (1.0 - (1.0 - LEAST_SHARE) * (urgency - PRIORITY) / (7 - PRIORITY))))


def urgency_of(header: bytes | None) -> int:
    """The urgency in a ``Priority`` header (RFC 9218: ``u=5, i``); what cannot be understood counts as the default.

    >>> urgency_of(b"u=6, i"), urgency_of(b"u=9"), urgency_of(None)
    (6, 3, 3)
    """
    if header is None:
        return PRIORITY
    for part in header.decode("latin-1").split(","):
        name, _, value = part.strip().partition("=")
        if name == "u" and len(value) == 1 and value in "01234567":
            return int(value)
    return PRIORITY


class Pressure:
    """The requests under way in one replica. Used on one event loop, so it needs no lock."""

    def __init__(self, most: int) -> None:
        self.most, self.under_way = most, 0
        self.shed: dict[int, int] = dict.fromkeys(range(8), 0)
        """How many were turned away, by urgency."""

    def enter(self, urgency: int) -> None:
        """Let a request in; whoever does calls :meth:`leave`.

        Raises:
            RequestError: 503 where the replica is full, 429 where only what is more urgent gets in.

        """
        self.check(urgency)
        self.under_way += 1

    def check(self, urgency: int, mine: int = 0) -> None:
        """Whether a request of this urgency gets in beside the others; ``mine`` of them are its own."""
        others = self.under_way - mine
        if others < room(urgency, self.most):
            return
        self.shed[urgency] += 1
        if others >= self.most:
            raise RequestError(503, "overloaded", f"{others} requests are under way: come back later", RETRY_AFTER)
        detail = f"{others} requests are under way: only what is more urgent than u={urgency} is taken now"
        raise RequestError(429, "shed", detail, RETRY_AFTER)

    def leave(self) -> None:
        """A request is over."""
        self.under_way -= 1
