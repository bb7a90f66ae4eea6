"""Which of the inputs whose callers wait the teacher is asked about, so that a budget lasts: those that need it most.

A budget that is spent on the first deferred inputs of its period has none left when the traffic changes, neither to
answer what the student does not know yet nor to teach it. So every call has a price, and an input is asked about if it
needs the answer more than that. The price is the one at which what is left of the budget would just have paid for the
inputs of the time before, if they had come in the time that is left: the dual price of an online linear program,
learnt from the requests that were seen and solved anew at each with what is left then (S. Agrawal, Z. Wang & Y. Ye, "A
dynamic near-optimal algorithm for online linear programming", Operations Research 62(4), 2014); for one budget and
small requests it is the threshold of the online knapsack (Y. Zhou, D. Chakrabarty & R. Lukose, "Budget constrained
bidding in keyword auctions and online knapsack problems", WINE 2008). Where the budget reaches for all, it is zero.

What was seen is forgotten exponentially, over the length of the budget's period: the traffic that is expected in the
rest of a period is the mean of one period back. So a change after a quiet time is answered in full at first, from what
the quiet time has saved, and the longer it goes on, the nearer its calls come to an even pace.

After an alarm an update waits for labels of the new regime, and until it has them every answer stays as wrong as it is.
So as many as the update lacks (:mod:`components.query.lacking`) are asked about whatever the price is, the neediest
first; what they cost is left the less for those that come after.

Before all others come the labels that every input was promised whatever is known of it: audits, and the uniform part of
the policy. No deferred input stands in for them, and no update can be judged without.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from components.contracts.sampling import bucket

BINS = 100
"""Needs that are told apart. Of those in the bin of the price as many are asked about as are paid for, by a hash."""


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What was wanted lately, each second of it counted the less the longer ago it was.

    ``at``: Unix seconds of the last count; ``seconds``: how many are counted in; ``needs``: inputs whose callers wait,
    by their need; ``promised``: calls for labels that every input has the same chance of. Both are counts, and divided
    by ``seconds`` they are rates.
    """

    at: float
    seconds: float
    needs: tuple[float, ...] = (0.0,) * BINS
    promised: float = 0.0


def need(confidence: float | None, novelty: float | None, alpha: float | None) -> float:
    """How much an input needs the teacher's answer, in [0, 1]: one less what speaks for the student's own.

    That is its confidence; of an input with a p-value of ``novelty`` below ``alpha``, the level at which it counts as
    novel, only the part that the one is of the other. None: not known, which takes nothing away.
    """
    trust = min(1.0, max(0.0, 1.0 if confidence is None else confidence))
    if novelty is not None and alpha is not None:
        trust *= min(1.0, novelty / alpha)
    return 1.0 - trust


def counted(
    demand: Demand | None,
    now: float,
    memory: float,
    first: float,
    *,
    needs: Sequence[float] = (),
    promised: float = 0.0,
) -> Demand:
    """The demand with what came ``now``, Unix seconds, of which a time ``memory`` seconds ago counts 1/e.

    ``first``: how many seconds the first inputs are taken to have gathered, since nobody saw when they began.
    """
    before = Demand(at=now, seconds=min(first, memory)) if demand is None else demand
    kept = math.exp(-max(0.0, now - before.at) / memory)
    found = [n * kept for n in before.needs]
    for one in needs:
        found[_bin(one)] += 1.0
    return Demand(
        at=max(now, before.at), seconds=memory - (memory - before.seconds) * kept, needs=tuple(found),
        promised=before.promised * kept + promised,
    )  # fmt: skip


def affordable(demand: Demand, left: float, seconds_left: float, kept: float = 0.0) -> float:
    """The share, in [0, 1], of such a demand that ``left`` calls pay for in ``seconds_left`` beside what is promised.

    ``seconds_left``: above 0. ``kept``: how many of them are for audits alone, which are among what is promised.

    >>> affordable(Demand(at=0.0, seconds=10.0, needs=(40.0,)), left=200.0, seconds_left=100.0)
    0.5
    """
    wanted = sum(demand.needs) / demand.seconds
    if not (math.isfinite(left) and wanted > 0.0):
        return 1.0
    free = left / seconds_left - max(demand.promised / demand.seconds, kept / seconds_left)
    return min(1.0, max(0.0, free / wanted))


def granted(demand: Demand, share: float, wanted: Mapping[str, float], workload: str) -> list[str]:
    """Which of the inputs, needs by id, are among the neediest ``share`` of the demand, the neediest first."""
    first = sorted(wanted, key=lambda i: -wanted[i])
    if share >= 1.0:
        return first
    price, part = _price(demand, share)
    return [
        i for i in first if _bin(wanted[i]) > price or (_bin(wanted[i]) == price and bucket(workload, "pace", i) < part)
    ]


def price(demand: Demand, share: float) -> float:
    """The need, in [0, 1], below which no input is asked about."""
    return 0.0 if share >= 1.0 else _price(demand, share)[0] / BINS


def _price(demand: Demand, share: float) -> tuple[int, float]:
    """The bin in which the neediest ``share`` of the demand ends, and the part of that bin that is in it."""
    room = share * sum(demand.needs)
    for place in range(BINS - 1, -1, -1):
        if (here := demand.needs[place]) > room:
            return place, room / here
        room -= here
    return 0, 1.0


def _bin(of: float) -> int:
    return min(BINS - 1, max(0, int(of * BINS)))
