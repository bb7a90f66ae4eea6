"""The guards of a rollout. They may be asked after every observation. Pure.

Each guard keeps an e-value: evidence against "the candidate is no worse than the policy allows" in one respect, built
by :mod:`serving.rollout.comparison` (the sources are named there). The guards share **one budget**: the rollout's
evidence is the mean of their e-values, weighted by :data:`BUDGET`, and the candidate has to go when it reaches
``1 / alpha``. A mean of e-values is an e-value (V. Vovk and R. Wang, "E-values: calibration, combination and
applications", Annals of Statistics 49, 2021), so a candidate that is no worse than allowed in *any* respect is ever
rolled back with a chance of at most ``alpha``; a guard alone trips at ``1 / alpha`` over its share at the latest, as it
would by Bonferroni, and several that each see something trip together sooner.

Where a guard has a limit of its own and a comparison with the champion (errors, slow answers), its e-value is the
smaller one: the candidate is blamed only for what is above the limit *and* worse than the champion's at the same time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from components.contracts.spec import RolloutPolicy
from serving.rollout.comparison import Comparison, Limit, SampleRatio, Tally
from serving.rollout.evidence import Answered, Audited, Reply

BUDGET = {
    "errors": 4.0,
    "slow": 1.5,
    "slower": 3.0,
    "tail": 1.0,
    "disagreement": 4.0,
    "truth": 2.0,
    "agreement": 2.0,
    "slices": 4.0,
    "churn": 1.0,
    "less_sure": 0.5,
    "more_sure": 0.5,
    "more_entropy": 0.5,
    "less_entropy": 0.5,
}
"""Parts of the budget, of those guards that the policy has; what harms users directly has more."""

SLICES = 32
"""Slices with a comparison of their own, first come first; what belongs to none of them shares one. The *j*-th has a
part of the slices' budget in proportion to ``1 / j``, as the frequent ones come first."""

MARKS = (16, 64)
"""The champion's latencies after which its median and 90 % quantile are taken as marks; later ones are compared."""


class Marks(msgspec.Struct, frozen=True, kw_only=True):
    """The champion's first latencies (ms), and the marks taken of them; None before."""

    seen: tuple[float, ...] = ()
    median: float | None = None
    tail: float | None = None

    def after(self, latency_ms: float) -> Marks:
        """The marks after one more latency of the champion."""
        if len(self.seen) == MARKS[-1]:
            return self
        seen = (*self.seen, latency_ms)
        if len(seen) not in MARKS:
            return msgspec.structs.replace(self, seen=seen)
        ordered = sorted(seen)
        return Marks(seen=seen, median=ordered[len(seen) // 2], tail=ordered[math.ceil(0.9 * len(seen)) - 1])


class Guards(msgspec.Struct, frozen=True, kw_only=True):
    """The evidence so far. ``tests`` and ``limits`` by the guard's name; ``slices`` in the order of their coming.

    ``champion`` and ``candidate`` count audits against the teacher, and disagreements.
    """

    tests: dict[str, Comparison]
    limits: dict[str, Limit]
    slices: dict[str, Comparison] = {}
    marks: Marks = Marks()
    split: SampleRatio = SampleRatio()
    champion: Tally = Tally()
    candidate: Tally = Tally()


class Guard(NamedTuple):
    """One guard's part of the budget, its e-value, and what it says in words."""

    name: str
    share: float
    e_value: float
    says: Callable[[], str]


def guards_of(policy: RolloutPolicy) -> Guards:
    """Guards that have seen nothing."""
    tests = {
        "errors": policy.max_extra_errors,
        "slow": 0.0,
        "disagreement": policy.max_extra_disagreement,
        "truth": policy.max_extra_disagreement,
    }
    if policy.max_slowdown is not None:
        tests |= {"slower": 0.0, "tail": 0.0}
    if policy.max_confidence_shift is not None:
        tests |= dict.fromkeys(("less_sure", "more_sure"), policy.max_confidence_shift)
    if policy.max_entropy_shift is not None:
        tests |= dict.fromkeys(("more_entropy", "less_entropy"), policy.max_entropy_shift)
    limits = {"errors": policy.max_error_rate, "slow": policy.max_slow_share}
    if policy.min_agreement is not None:
        limits["agreement"] = 1.0 - policy.min_agreement
    if policy.max_churn is not None:
        limits["churn"] = policy.max_churn
    return Guards(
        tests={name: Comparison(margin=margin) for name, margin in tests.items()},
        limits={name: Limit(bound=bound) for name, bound in limits.items()},
    )


def answered(guards: Guards, policy: RolloutPolicy, seen: Answered) -> Guards:
    """The guards after one request: answered by one student, or by both."""
    tests, limits = dict(guards.tests), dict(guards.limits)
    champion, candidate = (seen.champion, seen.candidate) if seen.paired else seen.own
    timed = seen.own[1]
    if candidate is not None:
        limits["errors"] = limits["errors"].observe(_failed(candidate))
        if "churn" in limits and champion is not None:
            limits["churn"] = limits["churn"].observe(float(champion.label != candidate.label))
    if timed is not None:
        limits["slow"] = limits["slow"].observe(_above(timed, policy.slow_ms))
    for name, theirs, own in _answers(champion, candidate, policy):
        if name in tests:
            tests[name] = (_pairs if seen.paired else _separates)(tests[name], seen, theirs, own)
    for name, theirs, own in _latencies(seen, policy, guards.marks):
        tests[name] = (_pairs if seen.weight == 0.0 else _separates)(tests[name], seen, theirs, own)
    marks = guards.marks
    if seen.champion is not None and seen.given_to == "champion":
        marks = marks.after(seen.champion.latency_ms)
    split = guards.split
    if seen.weight and not seen.repeat:
        split = split.observe(seen.given_to, seen.weight)
    return msgspec.structs.replace(guards, tests=tests, limits=limits, marks=marks, split=split)


Outcome = tuple[str, float | None, float | None]


def _answers(champion: Reply | None, candidate: Reply | None, policy: RolloutPolicy) -> list[Outcome]:
    """What came of it, 1 at worst, for each test that looks at answers; None of a student that was not asked."""
    found: list[Outcome] = [("errors", _of(champion, _failed), _of(candidate, _failed))]
    if policy.max_confidence_shift is not None:
        found += _shifts(("more_sure", "less_sure"), _confidence(champion), _confidence(candidate))
    if policy.max_entropy_shift is not None:
        found += _shifts(("less_entropy", "more_entropy"), _order(champion), _order(candidate))
    return found


def _latencies(seen: Answered, policy: RolloutPolicy, marks: Marks) -> list[Outcome]:
    """Slow answers, and latencies against the champion's own quantiles; in shadow also which of the two was slower.

    A quantile that was taken before is a mark like any other, so that above it the arms are compared as for errors.
    In a canary the second answer of a pair is left out: it is made when the machine has time, and is another
    student's on most inputs, so that its latency is not comparable.
    """
    champion, candidate = seen.own

    def slow(reply: Reply) -> float:
        return _above(reply, policy.slow_ms)

    found: list[Outcome] = [("slow", _of(champion, slow), _of(candidate, slow))]
    if policy.max_slowdown is None:
        return found
    theirs = None if champion is None else champion.latency_ms
    own = None if candidate is None else candidate.latency_ms / policy.max_slowdown
    if seen.paired and theirs is not None and own is not None:
        found.append(("slower", float(theirs > own), float(own > theirs)))
    elif marks.median is not None:
        found.append(("slower", _over(theirs, marks.median), _over(own, marks.median)))
    if marks.tail is not None:
        found.append(("tail", _over(theirs, marks.tail), _over(own, marks.tail)))
    return found


def _shifts(names: tuple[str, str], champion: float | None, candidate: float | None) -> list[Outcome]:
    """A share that must not be higher, nor lower, than the champion's by more than the margin."""
    both = [None if s is None else min(max(s, 0.0), 1.0) for s in (champion, candidate)]
    less = [None if s is None else 1.0 - s for s in both]
    return [(names[0], both[0], both[1]), (names[1], less[0], less[1])]


def _of(reply: Reply | None, measure: Callable[[Reply], float]) -> float | None:
    return None if reply is None else measure(reply)


def _confidence(reply: Reply | None) -> float | None:
    return None if reply is None else reply.confidence


def _order(reply: Reply | None) -> float | None:
    """``exp(-entropy)``: 1 where a student is sure, ``1 / k`` where it hesitates between *k* classes."""
    return None if reply is None or reply.entropy is None else math.exp(-max(reply.entropy, 0.0))


def _failed(reply: Reply) -> float:
    return float(not reply.ok)


def _above(reply: Reply, limit: float) -> float:
    return float(reply.latency_ms > limit)


def _over(value: float | None, mark: float) -> float | None:
    return None if value is None else float(value > mark)


def _pairs(test: Comparison, _: Answered | Audited, champion: float | None, candidate: float | None) -> Comparison:
    return test if champion is None or candidate is None else test.paired(champion, candidate)


def _separates(
    test: Comparison, seen: Answered | Audited, champion: float | None, candidate: float | None
) -> Comparison:
    if not seen.weight:
        return test
    if candidate is not None:
        return test.separate("candidate", candidate, seen.weight)
    return test if champion is None else test.separate("champion", champion, seen.weight)


def audited(guards: Guards, policy: RolloutPolicy, seen: Audited) -> Guards:
    """The guards after one audit of both students, or of the one that answered."""
    champion = None if seen.champion is None else float(seen.champion)
    candidate = None if seen.candidate is None else float(seen.candidate)
    compare = _separates if champion is None or candidate is None else _pairs
    name = "truth" if seen.by == "truth" else "disagreement"
    tests = {**guards.tests, name: compare(guards.tests[name], seen, champion, candidate)}
    guards = msgspec.structs.replace(guards, tests=tests)
    if seen.by == "truth":
        return guards
    if seen.slice is not None:
        place = seen.slice if seen.slice in guards.slices or len(guards.slices) < SLICES else OTHER
        test = guards.slices.get(place) or Comparison(margin=policy.max_slice_disagreement)
        slices = {**guards.slices, place: compare(test, seen, champion, candidate)}
        guards = msgspec.structs.replace(guards, slices=slices)
    if candidate is not None and "agreement" in guards.limits:
        limits = {**guards.limits, "agreement": guards.limits["agreement"].observe(candidate)}
        guards = msgspec.structs.replace(guards, limits=limits)
    return msgspec.structs.replace(
        guards,
        champion=guards.champion if champion is None else guards.champion.add(champion),
        candidate=guards.candidate if candidate is None else guards.candidate.add(candidate),
    )


OTHER = "(other)"
"""The slice of what belongs to no slice that is followed."""


def slice_shares() -> tuple[float, ...]:
    """The parts of the slices' budget, one for each and one for all others; they sum to 1."""
    parts = [1.0 / (j + 1) for j in range(SLICES + 1)]
    return tuple(p / sum(parts) for p in parts)


_SLICE_SHARES = slice_shares()


def assess(guards: Guards, policy: RolloutPolicy) -> list[Guard]:
    """Every guard that the policy has, with its e-value. The shares sum to 1."""
    tests, limits = guards.tests, guards.limits
    found: list[tuple[str, float, Callable[[], str]]] = []
    for name in BUDGET:
        if name == "slices":
            found.append((name, _slices(guards.slices), lambda: _worst_slice(guards.slices, policy)))
        elif name in tests or name in limits:
            e_value = min(t.e_value for t in (tests.get(name), limits.get(name)) if t is not None)
            found.append((name, e_value, lambda name=name: _says(guards, policy, name)))  # type: ignore[misc]
    total = sum(BUDGET[name] for name, _, _ in found)
    return [Guard(name, BUDGET[name] / total, e, says) for name, e, says in found]


def _slices(slices: dict[str, Comparison]) -> float:
    """The weighted mean of the slices' e-values; those that have not come have 1."""
    known = list(zip(_SLICE_SHARES, slices.values(), strict=False))
    return 1.0 + sum(share * (test.e_value - 1.0) for share, test in known)


def tripped(guards: Guards, policy: RolloutPolicy) -> str | None:
    """Why the candidate has to go, with the numbers; None while the evidence is below the limit."""
    assessed = assess(guards, policy)
    evidence = sum(g.share * g.e_value for g in assessed)
    if evidence < 1.0 / policy.alpha:
        return None
    worst = max(assessed, key=lambda g: g.share * g.e_value)
    return (
        f"{worst.says()} (e-value {worst.e_value:.3g}; with all guards {evidence:.3g}, limit {1.0 / policy.alpha:.3g})"
    )


def _says(guards: Guards, policy: RolloutPolicy, name: str) -> str:
    """What one guard saw."""
    test, limit = guards.tests.get(name), guards.limits.get(name)
    own = (test or limit or Limit(bound=0.0)).candidate
    beside = f", of the champion's {test.champion}" if test is not None else ""
    extra = policy.max_extra_disagreement
    sentences: dict[str, str] = {
        "errors": f"errors: {own} answers of the candidate failed{beside}; {policy.max_error_rate:.3g} may",
        "slow": f"latency: {own} answers of the candidate took more than {policy.slow_ms:g} ms{beside}",
        "slower": f"latency: {own} answers of the candidate slower than the champion's median{beside}",
        "tail": f"latency: {own} answers of the candidate in the champion's slowest tenth{beside}",
        "disagreement": f"disagreement with the teacher: {own} of the candidate{beside}; {extra:.3g} more are allowed",
        "truth": f"wrong by the truth: {own} of the candidate{beside}; {extra:.3g} more are allowed",
        "agreement": f"disagreement with the teacher: {own}; it must agree on {policy.min_agreement or 0.0:.3g}",
        "churn": f"churn: {own} answers differ from the champion's; {policy.max_churn or 0.0:.3g} may",
    }
    return sentences.get(name, f"shift: {name.replace('_', ' ')} than the champion: sum {own}{beside}")


def _worst_slice(slices: dict[str, Comparison], policy: RolloutPolicy) -> str:
    if not slices:
        return "disagreement with the teacher in slices: none was audited yet"
    ranked = zip(_SLICE_SHARES, slices.items(), strict=False)
    _, (name, test) = max(ranked, key=lambda r: r[0] * r[1][1].e_value)
    return (
        f"disagreement with the teacher in slice {name!r}: {test.candidate} of the candidate, of the champion's "
        f"{test.champion}; {policy.max_slice_disagreement:.3g} more are allowed"
    )


def shown(guards: Guards, policy: RolloutPolicy, audits: bool) -> list[str]:
    """What is not yet shown to be within its limits, in words; empty when all is.

    Each is shown at level ``alpha``, and all must be: a candidate that is outside in one respect passes with a chance
    of at most ``alpha``, with no budget to share (R. L. Berger's intersection-union test, Technometrics 24, 1982).
    ``audits``: whether disagreement is measured at all.
    """
    tests, limits, alpha = guards.tests, guards.limits, policy.alpha
    within = {
        "errors": limits["errors"].shows(alpha) or tests["errors"].shows(alpha),
        "latency": limits["slow"].shows(alpha) or tests["slow"].shows(alpha),
    }
    if audits:
        within["agreement with the teacher"] = tests["disagreement"].shows(alpha)
        if "agreement" in limits:
            within["least agreement"] = limits["agreement"].shows(alpha)
    return [name for name, is_shown in within.items() if not is_shown]


def anew(guards: Guards) -> Guards:
    """The guards at a new step: what speaks against the candidate stays, what is in its favour is shown again."""
    return msgspec.structs.replace(
        guards,
        tests={name: t.anew() for name, t in guards.tests.items()},
        limits={name: t.anew() for name, t in guards.limits.items()},
    )


def mismatch(guards: Guards, policy: RolloutPolicy) -> str | None:
    """The alarm that keys are not split as configured, in words; None while there is no evidence of it."""
    split = guards.split
    if split.e_value < 1.0 / policy.srm_alpha:
        return None
    return (
        f"sample ratio: the candidate was given {split.arms.bad:g} of {split.arms.n} keys, {split.expected:.1f} were "
        f"expected (e-value {split.e_value:.3g}, limit {1.0 / policy.srm_alpha:.3g})"
    )
