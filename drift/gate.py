"""The gate: a pure function from measurements to a verdict. Missing evidence is never a pass."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Decision = Literal["promote", "hold", "reject"]
Outcome = Literal["pass", "fail", "missing"]

WORST_FIRST: tuple[Outcome, ...] = ("fail", "missing", "pass")
"""Order of the reasons: what decided stands first."""


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """What one measure must satisfy: ``at_least``, ``at_most`` or both (inclusive), in the measure's own unit.

    ``evidence``: the measure says how much evidence there is (rows, say), not how good the candidate is, so that a
    value beyond the limits means that evidence is missing (hold), not that the candidate failed (reject).

    Raises:
        ValueError: no limit is given, a limit is not finite, or the limits exclude each other.

    """

    measure: str
    at_least: float | None = None
    at_most: float | None = None
    evidence: bool = False

    def __post_init__(self) -> None:
        limits = [x for x in (self.at_least, self.at_most) if x is not None]
        if not limits:
            raise ValueError(f"criterion {self.measure!r} has no limit: give at_least or at_most")
        if not all(math.isfinite(x) for x in limits):
            raise ValueError(f"criterion {self.measure!r} has the limits {limits}: they must be finite numbers")
        if limits != sorted(limits):
            raise ValueError(f"criterion {self.measure!r} is at least {limits[0]} and at most {limits[1]}: swap them")

    @property
    def limit(self) -> str:
        """The limits as text, ``>= 0.8``, ``<= 20`` or ``>= 0.1 and <= 0.2``."""
        sides = ((">=", self.at_least), ("<=", self.at_most))
        return " and ".join(f"{sign} {_exact(x)}" for sign, x in sides if x is not None)

    def met_by(self, value: float) -> bool:
        """Whether a value satisfies the limits; NaN never does."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What came of one criterion. ``value`` is None where there is no finite one; ``reason`` carries the numbers."""

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
        if not self.findings:
            return ("nothing was demanded: a gate without criteria lets nothing through",)
        return tuple(f.reason for outcome in WORST_FIRST for f in self.findings if f.outcome == outcome)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON data, for records and reports."""
        findings = [asdict(f) for f in self.findings]
        return {"decision": self.decision, "findings": findings, "reasons": list(self.reasons)}


def assess(measurements: Mapping[str, float | None], criteria: Sequence[Criterion]) -> Verdict:
    """Judge measurements: any failure rejects; else anything missing, or no criteria at all, holds; else promote.

    A measure that is absent, None or NaN is missing, and so is an infinite one that would pass: an infinite accuracy
    is a division by zero, not a good model. An infinite one that fails (a latency without end) fails.

    >>> assess({"accuracy": 0.93}, [Criterion(measure="accuracy", at_least=0.9)]).decision
    'promote'
    >>> assess({}, [Criterion(measure="accuracy", at_least=0.9)]).reasons
    ('accuracy was not measured; it must be >= 0.9',)
    """
    findings = tuple(_find(c, measurements.get(c.measure)) for c in criteria)
    outcomes = {f.outcome for f in findings}
    decision: Decision = "reject" if "fail" in outcomes else "promote" if outcomes == {"pass"} else "hold"
    return Verdict(decision=decision, findings=findings)


def _find(criterion: Criterion, value: float | None) -> Finding:
    if value is None or math.isnan(value):
        said, outcome = "was not measured", _outcome(criterion, math.nan)
    else:
        said, outcome = f"is {_number(value, criterion)}", _outcome(criterion, value)
    return Finding(
        measure=criterion.measure,
        value=value if value is not None and math.isfinite(value) else None,
        limit=criterion.limit,
        outcome=outcome,
        reason=f"{criterion.measure} {said}; it must be {criterion.limit}",
    )


def _outcome(criterion: Criterion, value: float) -> Outcome:
    if math.isnan(value):
        return "missing"
    if criterion.met_by(value):
        return "pass" if math.isfinite(value) else "missing"
    return "missing" if criterion.evidence else "fail"


def _number(value: float, criterion: Criterion) -> str:
    """Four digits, or all of them where rounding would hide on which side of the limit the value is."""
    short = f"{value:.4g}" if abs(value) < 1e4 else _exact(value)
    return short if criterion.met_by(float(short)) == criterion.met_by(value) else _exact(value)


def _exact(value: float) -> str:
    value = float(value)
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else repr(value)
