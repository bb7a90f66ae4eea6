"""Our verdict as metrics and tests of Evidently's, so that its reports show what the gate decided, and nothing else.

Importing this module imports Evidently (3 to 5 s), whose classes have no types. The metrics carry the verdict's numbers and measure nothing anew:
two measurements of one thing could differ.
"""

from __future__ import annotations

from typing import Any, ClassVar

from evidently.core.datasets import Dataset
from evidently.core.metric_types import (
    BoundTest,
    MetricCalculationBase,
    MetricTest,
    MetricTestResult,
    SingleValue,
    SingleValueCalculation,
    SingleValueMetric,
    SingleValueTest,
    TestStatus,
)
from evidently.core.report import Context

from drift.monitor import ColumnFinding, DriftVerdict

STATUS = {"drift": TestStatus.FAIL, "none": TestStatus.SUCCESS, "not_enough_data": TestStatus.SKIPPED}


class GateTest(MetricTest):  # type: ignore[misc]
    """Passes where the gate found no drift, and is skipped where there was not enough data."""

    class Config:
        """The name in reports."""

        type_alias: ClassVar[str] = "evidently:test:cohobate:Gate"

    outcome: str
    reason: str

    def to_test(self) -> SingleValueTest:
        """The test as Evidently runs it: it restates the gate's outcome."""

        def restate(context: Context, metric: MetricCalculationBase[SingleValue], value: SingleValue) -> Any:
            return MetricTestResult(
                id="cohobate_gate",
                name=value.display_name,
                description=self.reason,
                status=STATUS[self.outcome],
                metric_config=metric.to_metric_config(),
                test_config=self.dict(),
            )

        return restate


class ColumnDrift(SingleValueMetric):  # type: ignore[misc]
    """One column's effect, in its detector's unit."""

    class Config:
        """The name in reports."""

        type_alias: ClassVar[str] = "evidently:metric_v2:cohobate:ColumnDrift"

    column: str
    detector: str
    unit: str
    statistic: float
    threshold: float
    p_value: float
    q_value: float
    drifted: bool

    def get_bound_tests(self, context: Context) -> list[BoundTest[SingleValue]]:
        """The gate's own outcome."""
        said = (
            f"{self.detector} {self.statistic:.4g} ({self.unit}), threshold {self.threshold:.4g}, p {self.p_value:.3g}"
        )
        return [GateTest(outcome="drift" if self.drifted else "none", reason=said).bind_single(self.get_fingerprint())]


class ColumnDriftCalculation(SingleValueCalculation[ColumnDrift]):  # type: ignore[misc]
    """Shows the effect that the gate measured."""

    def calculate(self, context: Context, current_data: Dataset, reference_data: Dataset | None) -> Any:
        """The effect; none for the reference, which it is measured from."""
        return self.result(self.metric.statistic), None

    def display_name(self) -> str:
        """The heading."""
        return f"Calibrated drift of {self.metric.column} ({self.metric.detector})"


class JointDrift(SingleValueMetric):  # type: ignore[misc]
    """The number of columns that drifted, and the joint verdict."""

    class Config:
        """The name in reports."""

        type_alias: ClassVar[str] = "evidently:metric_v2:cohobate:JointDrift"

    outcome: str
    reason: str
    drifted: int
    method: str

    def get_bound_tests(self, context: Context) -> list[BoundTest[SingleValue]]:
        """The gate's own outcome."""
        return [GateTest(outcome=self.outcome, reason=self.reason).bind_single(self.get_fingerprint())]


class JointDriftCalculation(SingleValueCalculation[JointDrift]):  # type: ignore[misc]
    """Shows the number of columns that the gate named."""

    def calculate(self, context: Context, current_data: Dataset, reference_data: Dataset | None) -> Any:
        """The number of columns."""
        return self.result(self.metric.drifted), None

    def display_name(self) -> str:
        """The heading."""
        return f"Calibrated verdict: {self.metric.outcome}, drifted columns"


def metrics(verdict: DriftVerdict) -> list[SingleValueMetric]:
    """The joint verdict, then every column's finding."""
    joint = JointDrift(
        outcome=verdict.outcome, reason=verdict.reason, drifted=len(verdict.drifted), method=verdict.method
    )
    return [joint, *(_column(f) for f in verdict.findings)]


def _column(f: ColumnFinding) -> SingleValueMetric:
    return ColumnDrift(
        column=f.column, detector=f.detector, unit=f.unit, statistic=f.statistic, threshold=f.threshold,
        p_value=f.p_value, q_value=f.q_value, drifted=f.drifted,
    )  # fmt: skip


def named(name: str) -> Any:
    """A preset or a metric of whole datasets, by its class's name in ``evidently.presets`` or ``evidently.metrics``.

    Raises:
        ValueError: there is none, or it needs parameters.

    """
    import evidently.metrics
    import evidently.presets

    found = getattr(evidently.presets, name, None) or getattr(evidently.metrics, name, None)
    if found is None:
        raise ValueError(f"Evidently has no preset or metric {name!r}: see evidently.presets and evidently.metrics")
    try:
        return found()
    except (TypeError, ValueError) as error:
        raise ValueError(f"Evidently's {name} cannot be shown without parameters: {error}") from error
