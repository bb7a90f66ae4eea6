"""The guards of a rollout. They may be asked after every observation: each is an anytime-valid test. Pure.

The policy's ``alpha`` is divided evenly (Bonferroni) over five statements, any of which may be wrong: that errors are
too many, that slow answers are too many, that the candidate disagrees with the teacher too often in shadow, the same
in the canary, and the bound that the last one needs.

*In shadow* both students answer the same inputs, so each audit gives ``x = (1 + candidate - champion) / 2`` (each 1
where it disagrees with the teacher), whose mean is at most ``(1 + max_extra_disagreement) / 2`` for a candidate that
is no worse than allowed. *In the canary* the arms see different inputs. The candidate's disagreements are tested
against ``u + max_extra_disagreement``, where *u* is an upper limit of the champion's rate: the exact binomial one
(Clopper and Pearson 1934) over all of the champion's audits so far, taken anew at 16, 32, 64, ... audits, the *k*-th
time at level ``alpha / 5 / (k (k + 1))``, which sums to ``alpha / 5``. The limit is fixed before the observations
that it judges, so that capital may go on from one limit to the next. Until the first limit the bound is 1, which
nothing refutes. What is assumed: within a rollout the champion's rate does not change.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec

from components.contracts.spec import RolloutPolicy
from drift.betting import EProcess

PARTS = 5
"""Statements that share ``alpha``."""

FIRST_LOOK = 16
"""Audits of the champion at which the first limit of its rate is taken."""

LEAST_BOUND = 1e-6
"""An allowance of zero is tested as this one: a single breach refutes it, and capitals stay finite numbers."""


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """Audits of one student, and in how many it disagreed with the teacher."""

    n: int = 0
    bad: int = 0

    def add(self, bad: bool) -> Tally:
        """The tally after one more audit."""
        return Tally(n=self.n + 1, bad=self.bad + bad)


class Guards(msgspec.Struct, frozen=True, kw_only=True):
    """The evidence so far. ``looks``: how often the limit of the champion's rate has been taken."""

    errors: EProcess
    slowness: EProcess
    paired: EProcess
    separate: EProcess
    champion: Tally = Tally()
    candidate: Tally = Tally()
    looks: int = 0


def guards_of(policy: RolloutPolicy) -> Guards:
    """Guards that have seen nothing."""
    return Guards(
        errors=EProcess(bound=max(policy.max_error_rate, LEAST_BOUND)),
        slowness=EProcess(bound=max(policy.max_slow_share, LEAST_BOUND)),
        paired=EProcess(bound=(1.0 + policy.max_extra_disagreement) / 2.0),
        separate=EProcess(bound=1.0),
    )


def answered(guards: Guards, policy: RolloutPolicy, ok: bool, latency_ms: float) -> Guards:
    """The guards after one answer (or failure) of the candidate, served or not."""
    return msgspec.structs.replace(
        guards,
        errors=guards.errors.observe(float(not ok)),
        slowness=guards.slowness.observe(float(latency_ms > policy.slow_ms)),
    )


def audited(guards: Guards, policy: RolloutPolicy, champion: bool | None, candidate: bool | None) -> Guards:
    """The guards after one audit: of both students, or of the one that answered."""
    if candidate is not None:
        if champion is None:
            guards = msgspec.structs.replace(guards, separate=guards.separate.observe(float(candidate)))
        else:
            x = (1.0 + candidate - champion) / 2.0
            guards = msgspec.structs.replace(guards, paired=guards.paired.observe(x))
        guards = msgspec.structs.replace(guards, candidate=guards.candidate.add(candidate))
    if champion is not None:
        guards = _look(msgspec.structs.replace(guards, champion=guards.champion.add(champion)), policy)
    return guards


def _look(guards: Guards, policy: RolloutPolicy) -> Guards:
    if guards.champion.n < FIRST_LOOK << guards.looks:
        return guards
    k = guards.looks + 1
    limit = upper_limit(guards.champion, policy.alpha / PARTS / (k * (k + 1)))
    bound = min(1.0, limit + policy.max_extra_disagreement)
    return msgspec.structs.replace(guards, looks=k, separate=replace(guards.separate, bound=bound))


def upper_limit(tally: Tally, alpha: float) -> float:
    """The exact one-sided upper limit of a rate at level ``alpha`` (Clopper and Pearson 1934); 1 where all are bad."""
    from scipy.special import betaincinv

    if tally.bad >= tally.n:
        return 1.0
    return float(betaincinv(tally.bad + 1, tally.n - tally.bad, 1.0 - alpha))


def tripped(guards: Guards, policy: RolloutPolicy) -> str | None:
    """Why the candidate has to go, with the numbers; None while no guard objects."""
    alpha = policy.alpha / PARTS
    names = (
        (guards.errors, "errors", "of its answers failed"),
        (guards.slowness, "slowness", f"of its answers took more than {policy.slow_ms:g} ms"),
    )
    for process, name, what in names:
        if process.rejects(alpha):
            return (
                f"{name}: {process.total:.0f} of {process.n} {what}, more than {process.bound:.3g} "
                f"(e-value {process.e_value:.3g}, limit {1 / alpha:.3g})"
            )
    for process, where in ((guards.paired, "beside the champion"), (guards.separate, "in the canary")):
        if process.rejects(alpha):
            return (
                f"disagreement with the teacher {where}: {_share(guards.candidate)}, the champion "
                f"{_share(guards.champion)}, {policy.max_extra_disagreement:.3g} more is allowed "
                f"(e-value {process.e_value:.3g}, limit {1 / alpha:.3g})"
            )
    return None


def _share(tally: Tally) -> str:
    return f"{tally.bad} of {tally.n}"
