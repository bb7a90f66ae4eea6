"""The Prometheus metrics of a gateway replica. Behind a load balancer a scrape sees one: its label says which."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from serving.gateway.pressure import Pressure
from serving.gateway.telemetry import REASONS, Telemetry
from serving.replica.coldstart import ColdStart
from serving.replica.loaded_versions import LoadedVersions

SECONDS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Buckets of a student's answer: from a small table's 50 µs to what is slow by any measure."""


class ArmMetrics(NamedTuple):
    """The metrics of one version in one arm."""

    requests: Counter
    failures: Counter
    seconds: Histogram


class Metrics:
    """One registry of its own, so that several gateways may live in one process."""

    def __init__(
        self, versions: LoadedVersions, telemetry: Telemetry, pressure: Pressure, cold_start: ColdStart
    ) -> None:
        self._versions, self._workload = versions, versions.spec.name
        self.registry = CollectorRegistry()
        arms = ["workload", "arm", "version"]
        self._requests = Counter("cohobate_answers", "Answers served.", arms, registry=self.registry)
        self._failures = Counter("cohobate_student_failures", "Failures of a student.", arms, registry=self.registry)
        self._seconds = Histogram(
            "cohobate_student_seconds", "A student's answer.", arms, registry=self.registry, buckets=SECONDS
        )
        self._refused = Counter("cohobate_refused", "Inputs refused.", ["workload", "reason"], registry=self.registry)
        self._withheld = Counter(
            "cohobate_withheld", "Inputs answered but not published: their terms of consent do not allow it.",
            ["workload", "reason"], registry=self.registry,
        )  # fmt: skip
        self._asked = Counter(
            "cohobate_deferral_questions", "Questions to those that the student defers to.",
            ["workload", "to", "outcome"], registry=self.registry,
        )  # fmt: skip
        self._defaulted = Counter(
            "cohobate_entity_defaults", "Features of entities that fell to their defaults.",
            ["workload", "feature", "reason"], registry=self.registry,
        )  # fmt: skip
        self._masked = Counter(
            "cohobate_masked", "Pieces of personal data that were found in inputs and masked.", ["workload", "kind"],
            registry=self.registry,
        )  # fmt: skip
        one = ["workload"]
        self.deferred = Counter("cohobate_deferred", "Answers to defer.", one, registry=self.registry).labels(
            self._workload
        )
        self.degraded = Counter(
            "cohobate_degraded", "Deferred answers that nobody else gave.", one, registry=self.registry
        ).labels(self._workload)
        self.neighbours = Counter(
            "cohobate_neighbour_answers", "Degraded answers that are the teacher's of the nearest input.", one,
            registry=self.registry,
        ).labels(self._workload)  # fmt: skip
        self.novel = Counter(
            "cohobate_novel", "Answers to defer for the novelty of their input.", one, registry=self.registry
        ).labels(self._workload)
        self._arms: dict[tuple[str, str], ArmMetrics] = {}
        self._gauges: dict[str, Gauge] = {}
        for name, what, value in (
            ("cohobate_telemetry_waiting", "Records that wait to be published.", lambda: telemetry.waiting),
            (
                "cohobate_unpaired",
                "Inputs for which there was no time to ask both students.",
                lambda: telemetry.unpaired,
            ),
            ("cohobate_routing_revision", "The intent in force.", lambda: versions.routing.revision),
            ("cohobate_candidate_weight", "The candidate's share in force.", self._weight),
            ("cohobate_requests_under_way", "Requests under way.", lambda: pressure.under_way),
            ("cohobate_torch_imported", "1 where torch was imported, which a gateway must not.", _torch),
            (
                "cohobate_ready_seconds",
                "From the process's start to a loaded champion.",
                lambda: _or_nan(cold_start.ready_seconds),
            ),
            (
                "cohobate_first_answer_seconds",
                "From the process's start to the first answer.",
                lambda: _or_nan(cold_start.first_answer_seconds),
            ),
        ):
            self._gauge(name, what, {}, value)
        for reason in REASONS:
            what = "Records lost, and why."
            self._gauge("cohobate_telemetry_dropped", what, {"reason": reason}, _count(telemetry.drops, reason))
        for urgency in pressure.shed:
            what = "Requests turned away, by urgency (0 is the most urgent)."
            self._gauge("cohobate_shed", what, {"urgency": str(urgency)}, _count(pressure.shed, urgency))

    def _gauge(self, name: str, what: str, labels: dict[str, str], value: Callable[[], float]) -> None:
        names = {"workload": self._workload, "replica": self._versions.replica, **labels}
        gauge = self._gauges.get(name)
        if gauge is None:
            gauge = self._gauges[name] = Gauge(name, what, list(names), registry=self.registry)
        gauge.labels(**names).set_function(value)

    def arm(self, arm: str, version: str) -> ArmMetrics:
        """The metrics of a version in an arm."""
        found = self._arms.get((arm, version))
        if found is None:
            names = (self._workload, arm, version)
            found = ArmMetrics(
                self._requests.labels(*names), self._failures.labels(*names), self._seconds.labels(*names)
            )
            self._arms[arm, version] = found
        return found

    def refused(self, reason: str) -> None:
        """Count an input that was refused."""
        self._refused.labels(self._workload, reason).inc()

    def withheld(self, reason: str) -> None:
        """Count an input that was answered and of which nothing was published."""
        self._withheld.labels(self._workload, reason).inc()

    def defaulted(self, features: Mapping[str, str]) -> None:
        """Count features of an entity that fell to their defaults, by name with the reason."""
        for feature, reason in features.items():
            self._defaulted.labels(self._workload, feature, reason).inc()

    def masked(self, found: Mapping[str, int]) -> None:
        """Count what was found in an input and masked, by kind."""
        for kind, count in found.items():
            self._masked.labels(self._workload, kind).inc(count)

    def asked(self, to: str, outcome: str) -> None:
        """Count a question to one that the student defers to."""
        self._asked.labels(self._workload, to, outcome).inc()

    def _weight(self) -> float:
        return self._versions.routing.intent.weight_at(self._versions.clock())

    def text(self) -> bytes:
        """The metrics in Prometheus's text format."""
        return generate_latest(self.registry)


def _count(counts: dict[Any, int], name: object) -> Callable[[], float]:
    return lambda: counts[name]


def _or_nan(seconds: float | None) -> float:
    return math.nan if seconds is None else seconds


def _torch() -> float:
    return float("torch" in sys.modules)
