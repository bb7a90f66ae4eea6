r"""Whether an update pays now: a pure decision, from the learning curve of a lineage and the traffic that is expected.

Everything is counted in answers that are wrong or deferred: of an input on which the student disagrees with the teacher
either the caller gets a wrong answer, or the teacher is called in its place. With

* ``e(n)``: the share of inputs on which a student disagrees that has learnt ``n`` labels of the present regime
  (:mod:`drift.learning_curve`), ``k`` those that the champion has learnt of it and ``f`` those that wait;
* ``r``: inputs that come for each label; ``T = r * horizon``: those that come until the next update at the latest;
* ``u``: inputs that come while an update is made;
* ``K``: what an update costs, in answers: its seconds times their price over the price of a teacher's call, where the
  spec declares both, else 0;

an update after ``m`` more labels gains

.. math:: G(m) = \max(0, T - m r - u) \; (e(k) - e(k + f + m))

answers, since until then the champion answers as it does. It starts now when ``G(0) > K`` and no wait up to the upper
bound gains more: ``G(0) >= G(m)``. After a change ``e(k)`` is large and each label that is waited for costs ``r e(k)``
answers, so that it starts early; where little is left to learn it waits till the upper bound is near.

The regimes of a lineage are parted by its alarms: of each champion the first. A point of a regime's curve is an
evaluation on held-out inputs of a window that ended in it. The champion's answers to labels that have come since count
as one more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from components.contracts.spec import Spec
from components.control.learning import Evaluated
from components.control.tables import WindowRow
from components.query.least import labels_for
from drift.learning_curve import Point, fit
from drift.paired import least_rows

WAITS = 24
"""Lengths of a wait that are weighed, evenly spread up to the upper bound."""

LEVEL = 0.8
"""Credibility of the interval that is told of what an update will leave."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """All that a decision rests on.

    ``learnt``: labels of the regime that the champion learnt; ``fresh``: those of the regime that wait; ``left``: how
    many more may come before the upper bound. ``points``: of the present regime; ``past``: of those before. ``ratio``:
    inputs a label; ``horizon``: labels until the next update at the latest; ``making``: inputs that come while an
    update is made; ``cost``: of an update, in answers.
    """

    learnt: float
    fresh: float
    left: float
    points: tuple[Point, ...]
    past: tuple[tuple[Point, ...], ...] = ()
    ratio: float = 1.0
    horizon: float
    making: float = 0.0
    cost: float = 0.0


class Payoff(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided, and by which numbers.

    ``now`` and ``after``: shares of inputs on which the champion disagrees, and the student of an update would, with
    the interval ``low`` to ``high`` of the latter; ``gain``, ``cost``: answers; ``wait``: labels that it is best to
    wait for, and ``waiting`` what an update then gains.
    """

    start: bool
    reason: str
    now: float
    after: float
    low: float
    high: float
    gain: float
    cost: float
    wait: int
    waiting: float


def assess(evidence: Evidence) -> Payoff:
    """Decide; equal evidence gives an equal decision."""
    curve = fit(evidence.points, evidence.past)
    now, reached = curve.error(evidence.learnt), evidence.learnt + evidence.fresh
    traffic = evidence.ratio * evidence.horizon

    def gain(more: int) -> float:
        served = max(0.0, traffic - more * evidence.ratio - evidence.making)
        return served * (now - curve.error(reached + more))

    most = math.floor(max(0.0, evidence.left))
    gains = {more: gain(more) for more in sorted({round(most * i / WAITS) for i in range(WAITS + 1)})}
    wait = max(gains, key=lambda more: (gains[more], -more))
    start = gains[0] > evidence.cost and wait == 0
    after = curve.error(reached)
    low, high = curve.interval(reached, LEVEL)
    said = (
        f"an update is to take wrong or deferred answers from {now:.1%} to {after:.1%} ({low:.1%} to {high:.1%}), "
        f"{gains[0]:.0f} of the next {traffic:.0f}"
    )
    if start:
        said += f", costs {evidence.cost:.0f}, and no wait gains more"
    elif wait:
        said += f"; after {wait} more labels {gains[wait]:.0f}"
    else:
        said += f", and costs {evidence.cost:.0f}"
    return Payoff(
        start=start, reason=said, now=now, after=after, low=low, high=high, gain=gains[0], cost=evidence.cost,
        wait=wait, waiting=gains[wait],
    )  # fmt: skip


def certifying_labels(spec: Spec) -> int:
    """So many new labels as mostly certify a limit of deferral for a student without a fault; 0: none is promised.

    A version that comes up without a limit has all of its answers deferred, until its audits have earned it one.
    """
    from components.snapshot.holdout import DEFERRAL_CONFIDENCE  # with what parts rows it takes a while to import

    promise = spec.serve.max_disagreement
    return labels_for(least_rows(promise, DEFERRAL_CONFIDENCE), spec) if promise else 0


def cost_of(spec: Spec, seconds: float) -> float:
    """What an update of so many seconds costs, in calls of the teacher; 0 where the spec names not both prices."""
    second, call = spec.limits.core_hour_price, spec.label.budget.cost
    return 0.0 if second is None or call is None else seconds / 3_600.0 * second / call


def points_of(
    evaluations: Sequence[Evaluated], windows: Sequence[WindowRow], alarms: Sequence[int]
) -> list[list[Point]]:
    """The points of each regime's curve, oldest regime first and the present one last.

    ``alarms``: the counts of labels at which regimes began, after the first, which began at nothing.
    """
    ends = _ends(windows)
    begins = [0, *sorted(set(alarms))]
    found: list[list[Point]] = [[] for _ in begins]
    for one in evaluations:
        end = ends.get(one.window)
        if end is None or one.rows <= 0:
            continue
        regime = max(i for i, begin in enumerate(begins) if begin < end or not i)
        found[regime].append(Point(labels=max(0, end - begins[regime]), wrong=one.wrong, rows=one.rows))
        before = ends.get(one.champion_window or "")
        if before is not None and one.champion_wrong is not None:
            learnt = max(0, before - begins[regime])
            found[regime].append(Point(labels=learnt, wrong=one.champion_wrong, rows=one.rows))
    return found


def learnt_of(window: str, windows: Sequence[WindowRow], alarms: Sequence[int]) -> int:
    """Labels of the present regime that a student learnt whose newest window this is."""
    return max(0, _ends(windows).get(window, 0) - max(alarms, default=0))


def _ends(windows: Sequence[WindowRow]) -> dict[str, int]:
    """The count of labels at which each window ended, by its digest."""
    ends: dict[str, int] = {}
    count = 0
    for window in sorted(windows, key=lambda w: w.number):
        count += window.frozen_of_traffic
        ends |= dict.fromkeys(window.digests, count)
    return ends


def replayed(detail: Mapping[str, Any]) -> Payoff:
    """The decision that a ledger's entry (``decide update``) rests on, made anew from its evidence."""
    return assess(msgspec.convert(detail["evidence"], Evidence))
