"""Which inputs the teacher labels: policies as pure functions from what the student says to a draw of known chance.

Every input has a chance greater than zero, and its label carries it, so that a mean over labels can be turned into one
over all inputs (:mod:`drift.reweight`): importance weighted active learning (Beygelzimer, Dasgupta & Langford, ICML
2009). The draw is Poisson sampling: input by input, independently, by a hash of its id, so that a labeler that died and
reads a batch again draws alike. The measures of uncertainty are those of Settles, "Active learning literature survey"
(University of Wisconsin-Madison, 2009), and, for a committee, the vote entropy of Dagan & Engelson (ICML 1995).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import combinations
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from components.contracts.records import SoftLabel
from components.contracts.sampling import bucket
from components.contracts.spec import Policy
from components.contracts.vectors import distance
from components.student.runtime import Reply

Scores = Sequence[Sequence[SoftLabel]] | Sequence[Sequence[Reply]] | Sequence[Sequence[float]]
"""Soft labels of the same inputs by one or more students, the champion first; with their novelty for ``novelty``. For
``coverage`` one sequence: how rare it is to be as far from all that is labelled."""

Floats = npt.NDArray[np.float64]

LEAST_P = 1e-3
"""Least p-value of novelty that is told apart: students' calibration is no finer."""

TINY = 1e-9
"""What an input without any doubt counts as, where all others have a chance of one already."""

Reason = Literal[
    "drawn",
    "not_drawn",
    "drawn_without_student",
    "not_drawn_without_student",
    "drawn_of_new_regime",
    "not_drawn_of_new_regime",
    "audit",
    "priority",
    "answered",
    "synthetic",
    "exhausted",
]
"""Why an input is labelled or skipped. ``priority``: its caller waits; ``answered``: its caller has the teacher's
answer already, which becomes the label without a call; ``exhausted``: there was no budget left;
``..._of_new_regime``: an alarm is open, and the input is of what it tells of, which is asked about first;
``..._without_student``: the policy needs answers of a student (``committee``: of two) and had none, and drew at random.
"""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Whether an input is labelled (else it is skipped), and all that its label has to say of how it was chosen.

    ``policy`` is the one that was in force (``random`` where another had no student to ask); ``probability`` in (0, 1]
    was the input's chance of being labelled, 0 only where there was no budget at all; ``audit``: of the audit slice.
    """

    label: bool
    policy: str
    probability: float
    reason: Reason
    audit: bool = False


def decide(
    policy: Policy,
    ids: Sequence[str],
    scores: Scores | None,
    remaining: float,
    seed: int,
    *,
    typical: float | None = None,
    first: Collection[int] = (),
) -> list[Decision]:
    """Draw among inputs, given students' ``scores`` of them, if there are any, and the labels that ``remaining`` buys.

    The expected count of labels is at most ``remaining`` (> 0). ``typical`` is the mean uncertainty of the traffic, in
    the policy's own measure, against which that of an input is held; None: that of these inputs. ``first``: places of
    the inputs that are asked about first.

    Raises:
        ValueError: ``remaining`` is not positive, or a student has not one soft label for each input.

    """
    if not remaining > 0:
        raise ValueError(f"{remaining} labels remain: with none there is nothing to draw")
    if not ids:
        return []
    doubts = uncertainty(policy, scores, len(ids))
    blind = policy.kind in UNCERTAINTY and doubts is None
    chances = probabilities(policy, len(ids), doubts, remaining, typical, first)
    name = "random" if blind else policy.kind
    decisions = []
    for place, (input_id, chance) in enumerate(zip(ids, chances.tolist(), strict=True)):
        drawn = chance >= 1.0 or bucket("", f"label {seed}", input_id) < chance
        reason: Reason = "drawn" if drawn else "not_drawn"
        if blind:
            reason = "drawn_without_student" if drawn else "not_drawn_without_student"
        if place in first:
            reason = "drawn_of_new_regime" if drawn else "not_drawn_of_new_regime"
        decisions.append(Decision(label=drawn, policy=name, probability=chance, reason=reason))
    return decisions


def uncertainty(policy: Policy, scores: Scores | None, n: int) -> Floats | None:
    """How unsure the students are of each of ``n`` inputs, by the policy's measure (>= 0); None: it does not know.

    Raises:
        ValueError: a student has not one soft label for each input.

    """
    measure = UNCERTAINTY.get(policy.kind)
    if measure is None or not scores:
        return None
    if any(len(member) != n for member in scores):
        raise ValueError(f"{[len(m) for m in scores]} soft labels for {n} inputs")
    return measure(scores)


def probabilities(
    policy: Policy,
    n: int,
    doubts: Floats | None,
    remaining: float,
    typical: float | None = None,
    first: Collection[int] = (),
) -> Floats:
    """The chance of each of ``n`` (>= 1) inputs, in (0, 1]; their sum is at most ``remaining``.

    ``share * (floor + (1 - floor) * doubt / typical)``: a defensive mixture (Hesterberg, Technometrics 1995) of a
    uniform draw and one in proportion to the doubt. Where that is above one, or the sum above what remains, the chances
    of the others are scaled.

    Where there are inputs to ask about ``first``, each keeps the uniform part, ``share * floor`` scaled alike, and all
    that goes beyond it goes to them before the others get any. The sum stays what it is. Of a policy without a measure
    only what the budget takes away is taken from the others: each is promised its ``share``.
    """
    share = 1.0 if policy.kind == "all" else policy.share
    wanted = np.full(n, share)
    if doubts is not None:
        typical = float(doubts.mean()) if typical is None else typical
        if typical > 0:
            wanted = share * (policy.floor + (1 - policy.floor) * doubts / typical)
    total = min(float(wanted.sum()), float(n), remaining)
    if not 0 < len(first) < n or (doubts is None and total >= float(wanted.sum())):
        return _capped(wanted, np.ones(n), total)
    chances = np.full(n, min(1.0, share * policy.floor * total / float(wanted.sum())))
    ahead = np.zeros(n, dtype=bool)
    ahead[list(first)] = True
    beyond = wanted - share * policy.floor + TINY
    for group in (ahead, ~ahead):
        left = min(max(0.0, total - float(chances.sum())), float((1.0 - chances[group]).sum()))
        chances[group] += _capped(beyond[group], 1.0 - chances[group], left)
    found: Floats = np.minimum(chances, 1.0)
    return found


def _capped(wanted: Floats, caps: Floats, total: float) -> Floats:
    """Numbers in proportion to ``wanted`` (> 0), each at most its cap, that sum to ``total``, at most the caps' sum."""
    chances, free = caps.copy(), np.ones(len(wanted), dtype=bool)
    while free.any():
        left = max(0.0, total - float(caps[~free].sum()))
        chances[free] = wanted[free] * (left / float(wanted[free].sum()))
        over = free & (chances > caps)
        if not over.any():
            break
        chances[over], free = caps[over], free & ~over
    return chances


def least_chance(policy: Policy, seen: Sequence[float] = ()) -> float:
    """The least chance that the policy gives while it has a budget, or the least of those ``seen`` if that is more."""
    planned = {"all": 1.0, "random": policy.share}.get(policy.kind, policy.share * policy.floor)
    return max(planned, min(seen, default=0.0))


def representative(least: float, workload: str, input_id: str, probability: float, audit: bool) -> bool:
    """Whether a label belongs to a uniform sample of the traffic: for statistics that know no weights.

    Of the audit slice all labels do. Of the others one that had the chance p is kept with the chance ``least`` / p, so
    that together each input was kept with ``least`` (those that a spent budget gave less than that apart).
    """
    return audit or bucket(workload, "representative", input_id) < least / probability


def margin(scores: Scores) -> Floats:
    """One less the lead of the champion's best class over its second, in [0, 1]; of a number or a vector its scale.

    Of multilabel one less the least lead of having a class over not having it.
    Of a text that is tagged it is that of the token where it is largest (D. Marcheggiani & T. Artières, EMNLP 2014).
    """
    return np.array([_margin(_soft(s)) for s in scores[0]])


def _soft(said: SoftLabel | Reply | float) -> SoftLabel:
    if isinstance(said, float):
        raise TypeError("a number is no answer of a student")
    return said.soft if isinstance(said, Reply) else said


def rarity(scores: Scores) -> Floats:
    """How rare it is to be as far from all that is labelled as each input is (:mod:`components.query.coverage`)."""
    return np.array(scores[0], dtype=np.float64)


def _margin(soft: SoftLabel) -> float:
    if soft.task in ("regression", "embedding"):
        return float(soft.scale or 0.0)
    if soft.task == "multilabel":
        return 1.0 - min((abs(2.0 * p - 1.0) for p in soft.distribution.values()), default=1.0)
    if soft.task == "tagging":
        return max((_lead_lacking(token.distribution) for token in soft.tokens), default=0.0)
    return _lead_lacking(soft.distribution)


def _lead_lacking(distribution: Mapping[str, float]) -> float:
    best, second = ([*sorted(distribution.values(), reverse=True), 0.0, 0.0])[:2]
    return max(0.0, 1.0 - (best - second))


def entropy(scores: Scores) -> Floats:
    """Entropy of the champion's soft label in nats; of a number or a vector its scale: theirs has no zero."""
    scaled = ("regression", "embedding")
    softs = [_soft(s) for s in scores[0]]
    return np.array([float(s.scale or 0.0) if s.task in scaled else s.entropy for s in softs])


def surprise(scores: Scores) -> Floats | None:
    """The margin, and the negative logarithm of the p-value of novelty, which is 1 on the mean where nothing is new.

    In nats; a p-value counts as :data:`LEAST_P` at least. None where the champion tells of no novelty.
    """
    told = [said.novelty if isinstance(said, Reply) else None for said in scores[0]]
    if any(p is None for p in told):
        return None
    found: Floats = margin(scores) - np.log([max(p or 0.0, LEAST_P) for p in told])
    return found


def vote_entropy(scores: Scores) -> Floats | None:
    """Entropy in nats of the members' votes for their best classes; for regression the deviation of their values.

    For embedding it is the mean cosine distance of two of them.
    None for fewer than two members: one alone is always of one mind.
    """
    if len(scores) < 2:
        return None
    return np.array([_votes([_soft(s) for s in answers]) for answers in zip(*scores, strict=True)])


def _votes(answers: Sequence[SoftLabel]) -> float:
    if answers[0].task == "regression":
        return float(np.std([float(a.value or 0.0) for a in answers]))
    if answers[0].task == "embedding":
        return float(np.mean([distance(a.vector, b.vector) for a, b in combinations(answers, 2)]))
    shares = [count / len(answers) for count in Counter(a.label for a in answers).values()]
    return -math.fsum(p * math.log(p) for p in shares) + 0.0


UNCERTAINTY: Mapping[str, Callable[[Scores], Floats | None]] = {
    "margin": margin, "entropy": entropy, "committee": vote_entropy, "novelty": surprise, "coverage": rarity,
}  # fmt: skip
"""The measures of the policies that ask students, or what is labelled."""
