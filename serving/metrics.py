"""The Prometheus metrics of a gateway replica. Behind a load balancer a scrape sees one: its label says which."""

from __future__ import annotations

import sys

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from serving.slots import Slots
from serving.telemetry import Telemetry

SECONDS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Buckets of a student's answer: from a small table's 50 µs to what is slow by any measure."""


class Metrics:
    """One registry of its own, so that several gateways may live in one process."""

    def __init__(self, slots: Slots, telemetry: Telemetry) -> None:
        self._slots = slots
        self.registry = CollectorRegistry()
        arms = ["workload", "arm", "version"]
        self.requests = Counter("cohobate_answers", "Answers served.", arms, registry=self.registry)
        self.failures = Counter("cohobate_student_failures", "Failures of a student.", arms, registry=self.registry)
        self.refused = Counter("cohobate_refused", "Inputs refused.", ["workload", "reason"], registry=self.registry)
        self.deferred = Counter("cohobate_deferred", "Answers to defer.", ["workload"], registry=self.registry)
        self.seconds = Histogram(
            "cohobate_student_seconds", "A student's answer.", arms, registry=self.registry, buckets=SECONDS
        )
        names = {"workload": slots.spec.name, "replica": slots.replica}
        for name, what, value in (
            (
                "cohobate_telemetry_dropped",
                "Records lost to a full buffer or a dead broker.",
                lambda: telemetry.dropped,
            ),
            ("cohobate_telemetry_waiting", "Records that wait to be published.", lambda: telemetry.waiting),
            ("cohobate_routing_revision", "The intent in force.", lambda: slots.routing.revision),
            ("cohobate_candidate_weight", "The candidate's share in force.", self._weight),
            ("cohobate_torch_imported", "1 where torch was imported, which a gateway must not.", _torch),
        ):
            gauge = Gauge(name, what, list(names), registry=self.registry)
            gauge.labels(**names).set_function(value)

    def _weight(self) -> float:
        return self._slots.routing.intent.weight_at(self._slots.clock())

    def text(self) -> bytes:
        """The metrics in Prometheus's text format."""
        return generate_latest(self.registry)


def _torch() -> float:
    return float("torch" in sys.modules)
