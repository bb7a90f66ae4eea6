"""The gate: a pure function from measurements to a verdict. Missing evidence is never a pass."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Decision = Literal["promote", "hold", "reject"]
Outcome = Literal["pass", "fail", "missing"]


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """What one measure must satisfy: ``at_least``, ``at_most`` or both, in the measure's own unit.

    ``evidence``: the measure says how much evidence there is (rows, say), not how good it is, so that a value beyond
    the limits means that evidence is missing (hold), not that the candidate failed (reject).

    Raises:
        ValueError: neither limit is given.
    """

    measure: str
    at_least: float | None = None
    at_most: float | None = None
    evidence: bool = False

    def __post_init__(self) -> None:
        if self.at_least is None and self.at_most is None:
            raise ValueError(f"criterion {self.measure!r} has no limit: give at_least or at_most")

    @property
    def limit(self) -> str:
        """The limits as text, ``>= 0.8`` or ``<= 20``."""
        low = [] if self.at_least is None else [f">= {self.at_least:g}"]
        return " and ".join([*low, *([] if self.at_most is None else [f"<= {self.at_most:g}"])])

    def met_by(self, value: float) -> bool:
        """Whether a value satisfies the limits."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What came of one criterion, with its numbers."""

    measure: str
    value: float | None
    limit: str
    outcome: Outcome
    reason: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Promote, hold (evidence is missing) or reject (a criterion failed), and why."""

    decision: Decision
    findings: tuple[Finding, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """One sentence a finding, what decided first."""
        order = {"fail": 0, "missing": 1, "pass": 2}
        return tuple(f.reason for f in sorted(self.findings, key=lambda f: order[f.outcome]))

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for records and reports."""
        return {**asdict(self), "findings": [asdict(f) for f in self.findings], "reasons": list(self.reasons)}


def assess(measurements: Mapping[str, float | None], criteria: Sequence[Criterion]) -> Verdict:
    """Judge measurements: any failure rejects; else anything missing (or no criteria at all) holds; else promote.

    A measure that is absent, None or NaN is missing.

    >>> assess({"accuracy": 0.93}, [Criterion(measure="accuracy", at_least=0.9)]).decision
    'promote'
    >>> assess({}, [Criterion(measure="accuracy", at_least=0.9)]).reasons
    ('accuracy was not measured; it must be >= 0.9',)
    """
    findings = tuple(_find(c, measurements.get(c.measure)) for c in criteria)
    outcomes = {f.outcome for f in findings}
    decision: Decision = "promote" if outcomes == {"pass"} else "hold"
    return Verdict(decision="reject" if "fail" in outcomes else decision, findings=findings)


def _find(criterion: Criterion, value: float | None) -> Finding:
    if value is None or math.isnan(value):
        reason = f"{criterion.measure} was not measured; it must be {criterion.limit}"
        return Finding(measure=criterion.measure, value=None, limit=criterion.limit, outcome="missing", reason=reason)
    met = criterion.met_by(value)
    reason = f"{criterion.measure} is {value:.4g}; it must be {criterion.limit}"
    outcome: Outcome = "pass" if met else "missing" if criterion.evidence else "fail"
    return Finding(measure=criterion.measure, value=value, limit=criterion.limit, outcome=outcome, reason=reason)
