"""The gate: a pure function from measurements to a verdict. Missing evidence is never a pass.

A criterion with a ``confidence`` is judged by a bound. It passes when the bound keeps the limit, fails when the measure
is shown to break it, and is missing in between, with the number of labels that would decide. A comparison (loss against
the champion) that had so many labels and still is in between fails: an equally good model would have passed.

Many comparisons of one ``family`` (slices, older regimes) need no correction where all must pass, since each must pass
by itself (R. L. Berger, "Multiparameter hypothesis testing and acceptance sampling", Technometrics 24, 1982). That one
of them is *broken* is a claim about the worst of many, and is made by S. Holm's sequentially rejective procedure
(Scandinavian Journal of Statistics 6, 1979), so that all together call a model bad that is not with at most one level.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from drift.mean import Mean
from drift.measured import ErrorRise, Measured, PairedLoss, Side
from drift.ratio import RatioLoss

Measurement = float | None | Measured
Decision = Literal["promote", "hold", "reject"]
Outcome = Literal["pass", "fail", "missing"]

WORST_FIRST: tuple[Outcome, ...] = ("fail", "missing", "pass")
"""Order of the reasons: what decided stands first."""


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """What one measure must satisfy: ``at_least``, ``at_most`` or both (inclusive), in the measure's own unit.

    ``evidence``: the measure says how much evidence there is (rows, say), not how good the candidate is, so that a
    value beyond the limits means that evidence is missing (hold), not that the candidate failed (reject).

    ``confidence``: of the one-sided bound that must keep the limit, in (0.5, 1); None judges the estimate itself, as do
    measures that have no bound. ``family``: criteria of one name are tested together.

    Raises:
        ValueError: no limit is given, a limit is not finite, the limits exclude each other, or the confidence is out
            of range.

    """

    measure: str
    at_least: float | None = None
    at_most: float | None = None
    evidence: bool = False
    confidence: float | None = None
    family: str = ""

    def __post_init__(self) -> None:
        limits = [x for x in (self.at_least, self.at_most) if x is not None]
        if not limits:
            raise ValueError(f"criterion {self.measure!r} has no limit: give at_least or at_most")
        if not all(math.isfinite(x) for x in limits):
            raise ValueError(f"criterion {self.measure!r} has the limits {limits}: they must be finite numbers")
        if limits != sorted(limits):
            raise ValueError(f"criterion {self.measure!r} is at least {limits[0]} and at most {limits[1]}: swap them")
        if self.confidence is not None and not 0.5 < self.confidence < 1.0:
            raise ValueError(f"criterion {self.measure!r} has the confidence {self.confidence}: it must be in (0.5, 1)")

    @property
    def limit(self) -> str:
        """The limits as text, ``>= 0.8``, ``<= 20`` or ``>= 0.1 and <= 0.2``."""
        sides = ((">=", self.at_least), ("<=", self.at_most))
        return " and ".join(f"{sign} {_exact(x)}" for sign, x in sides if x is not None)

    @property
    def sides(self) -> tuple[tuple[float, Side], ...]:
        """Each limit with the side of the bound that has to keep it."""
        lower: list[tuple[float, Side]] = [] if self.at_least is None else [(self.at_least, "lower")]
        upper: list[tuple[float, Side]] = [] if self.at_most is None else [(self.at_most, "upper")]
        return (*lower, *upper)

    def met_by(self, value: float) -> bool:
        """Whether a value satisfies the limits; NaN never does."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What came of one criterion. ``value`` is None where there is no finite one; ``reason`` carries the numbers.

    ``bound``: what was compared with the limit, where the criterion demands one, at ``confidence``; ``n``: labels that
    it rests on; ``more``: about how many more would decide, None where it is decided or no number would.
    """

    measure: str
    value: float | None
    limit: str
    outcome: Outcome
    reason: str
    bound: float | None = None
    confidence: float | None = None
    n: int | None = None
    more: int | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Promote, hold (evidence is missing) or reject (a criterion failed), and why."""

    decision: Decision
    findings: tuple[Finding, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """One sentence a finding, what decided first."""
        demanded = self.decision != "hold" or any(f.outcome != "pass" for f in self.findings)
        nothing = () if demanded else ("nothing was demanded: a gate without criteria lets nothing through",)
        return nothing + tuple(f.reason for outcome in WORST_FIRST for f in self.findings if f.outcome == outcome)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON data, for records and reports."""
        findings = [asdict(f) for f in self.findings]
        return {"decision": self.decision, "findings": findings, "reasons": list(self.reasons)}


def assess(measurements: Mapping[str, Measurement], criteria: Sequence[Criterion]) -> Verdict:
    """Judge measurements: any failure rejects; else anything missing, or no criteria but of evidence, holds.

    A measure that is absent, None or NaN is missing, and so is an infinite one that would pass: an infinite accuracy
    is a division by zero, not a good model. An infinite one that fails (a latency without end) fails.

    >>> assess({"accuracy": 0.93}, [Criterion(measure="accuracy", at_least=0.9)]).decision
    'promote'
    >>> assess({}, [Criterion(measure="accuracy", at_least=0.9)]).reasons
    ('accuracy was not measured; it must be >= 0.9',)
    """
    broken = _broken(measurements, criteria)
    findings = tuple(
        _find(c, measurements.get(c.measure), broken=i in broken, of=sum(o.family == c.family for o in criteria))
        for i, c in enumerate(criteria)
    )
    outcomes = {f.outcome for f in findings}
    passed = outcomes == {"pass"} and not all(c.evidence for c in criteria)
    decision: Decision = "reject" if "fail" in outcomes else "promote" if passed else "hold"
    return Verdict(decision=decision, findings=findings)


def _broken(measurements: Mapping[str, Measurement], criteria: Sequence[Criterion]) -> set[int]:
    """Places of the criteria that are shown to be broken, by Holm's procedure within every family."""
    families: dict[str, list[tuple[float, float, int]]] = {}
    for i, c in enumerate(criteria):
        measure = measurements.get(c.measure)
        if c.confidence is None or measure is None or isinstance(measure, float | int):
            continue
        p = min(min(1.0, len(c.sides) * measure.breaks(limit, side)) for limit, side in c.sides)
        families.setdefault(c.family or f"#{i}", []).append((p, 1.0 - c.confidence, i))
    found: set[int] = set()
    for members in families.values():
        for rank, (p, alpha, i) in enumerate(sorted(members)):
            if p > alpha / (len(members) - rank):
                break
            found.add(i)
    return found


def _find(criterion: Criterion, measure: Measurement, *, broken: bool, of: int) -> Finding:
    if measure is None or isinstance(measure, float | int):
        return _find_value(criterion, measure, None)
    if criterion.confidence is None or math.isnan(measure.value):
        return _find_value(criterion, measure.value, measure.n)
    return _find_bound(criterion, measure, criterion.confidence, broken=broken, of=of if criterion.family else 1)


def _find_value(criterion: Criterion, value: float | None, n: int | None) -> Finding:
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
        n=n,
    )


def _find_bound(criterion: Criterion, measure: Measured, confidence: float, *, broken: bool, of: int) -> Finding:
    """Judge by the bound on the side of the limit, or, of two limits, by that which keeps its limit worse."""
    judged = [
        (_settle(measure, limit, side, confidence, broken=broken, of=of), side) for limit, side in criterion.sides
    ]
    (outcome, bound, more), side = min(judged, key=lambda j: WORST_FIRST.index(j[0][0]))
    at = "at least" if side == "lower" else "at most"
    sure = f"{at} {_number(bound, criterion)} with {_exact(round(100.0 * confidence, 4))} % confidence"
    reason = f"{criterion.measure} is {measure.value:.4g}, {sure} from {measure.n} labels; it must be {criterion.limit}"
    if outcome == "missing":
        reason += f": about {more} more labels would decide" if more else ": no number of labels is sure to decide"
    return Finding(
        measure=criterion.measure,
        value=measure.value if math.isfinite(measure.value) else None,
        limit=criterion.limit,
        outcome=outcome,
        reason=reason,
        bound=bound if math.isfinite(bound) else None,
        confidence=confidence,
        n=measure.n,
        more=more,
    )


def _settle(
    measure: Measured, limit: float, side: Side, confidence: float, *, broken: bool, of: int
) -> tuple[Outcome, float, int | None]:
    """The outcome, the bound, and how many more labels would decide."""
    bound = measure.bound(side, confidence)
    if bound <= limit if side == "upper" else bound >= limit:
        return "pass", bound, None
    if broken:
        return "fail", bound, None
    if isinstance(measure, PairedLoss | ErrorRise | RatioLoss) or (isinstance(measure, Mean) and measure.paired):
        enough = measure.needed(limit, side, confidence, of=of, now=True)
        if enough is not None and measure.n >= enough:
            return "fail", bound, None
    total = measure.needed(limit, side, confidence, of=of)
    return "missing", bound, None if total is None else max(1, total - measure.n)


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
