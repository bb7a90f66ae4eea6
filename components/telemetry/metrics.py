"""The Prometheus metrics of the workers, each set in a registry that the caller gives.

Names follow Prometheus's rules (base units, ``_total`` for counters) and Kafka's words (``records_lag``).
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from components.stream.contract import TopicPartition

BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Buckets of a batch's size, in inputs."""

TEACHER_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Buckets of a teacher's call: from a small model on this machine to a large one far away that is retried."""

COMMIT_SECONDS = (0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
"""Buckets of a commit: a transaction takes 15 to 30 ms on one Kafka broker, 200 ms where it waits for another."""

DELAY_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 60.0, 600.0, 3600.0)
"""Buckets of the time from an input's publication to its committed label."""

BreakerState = Literal["closed", "open", "half_open"]


class LabelerMetrics:
    """What a labeler counts. Every attribute is a metric with its ``workload`` label set already.

    Counters: ``consumed``, ``labelled``, ``duplicates``, ``quarantined``, ``offset_resets`` (``inc``), and by reason
    :meth:`dead`, :meth:`teacher_failed`, :meth:`decided` and :meth:`answered`. Histograms: ``batch_size``,
    ``teacher_seconds``, ``commit_seconds``, ``delay_seconds`` (``observe``; ``with teacher_seconds.time():``). Gauges:
    ``paused`` (``set(1)`` while nothing is consumed on purpose), and by :meth:`lag`, :meth:`breaker` and
    :meth:`budget_left`.
    """

    def __init__(self, workload: str, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        self.workload = workload
        self.consumed = self._counter("inputs", "Inputs consumed, whatever became of them.")
        self.labelled = self._counter("labels", "Labels committed.")
        self.duplicates = self._counter("duplicates", "Inputs whose content was labelled already.")
        self.quarantined = self._counter("quarantined_labels", "Labels set aside: the teacher is not to be trusted.")
        self.offset_resets = self._counter("offset_resets", "Times that a position was lost and read anew.")
        self._dead = Counter(
            "cohobate_dead_letters", "Inputs that cannot be labelled.", ["workload", "reason"], registry=self.registry
        )
        self._failures = Counter(
            "cohobate_teacher_failures", "Failed calls of the teacher.", ["workload", "reason"], registry=self.registry
        )
        self._decisions = Counter(
            "cohobate_label_decisions", "Inputs that may be labelled, by decision.", ["workload", "reason"],
            registry=self.registry,
        )  # fmt: skip
        self._answered = Counter(
            "cohobate_given_answers", "Answers that the teacher gave through the gateway, by what became of them.",
            ["workload", "outcome"], registry=self.registry,
        )  # fmt: skip
        self.batch_size = self._histogram("label_batch_size", "Inputs in one batch.", BATCH)
        self.teacher_seconds = self._histogram("teacher_seconds", "One call of the teacher.", TEACHER_SECONDS)
        self.commit_seconds = self._histogram("commit_seconds", "From sending to committed.", COMMIT_SECONDS)
        self.delay_seconds = self._histogram("label_delay_seconds", "Input published to labelled.", DELAY_SECONDS)
        self.paused = self._gauge("paused", "1 while nothing is consumed on purpose.")
        self._lag = Gauge(
            "cohobate_consumer_records_lag",
            "Records between the position and the end.",
            ["workload", "topic", "partition"],
            registry=self.registry,
        )
        self._assigned: set[TopicPartition] = set()
        self._breaker = Enum(
            "cohobate_teacher_breaker_state",
            "The teacher's circuit breaker.",
            ["workload"],
            states=["closed", "open", "half_open"],
            registry=self.registry,
        ).labels(workload)
        self._budget = Gauge(
            "cohobate_label_budget_left",
            "What the present window may still spend, but for what is kept for audits.",
            ["workload", "unit", "window"],
            registry=self.registry,
        )

    def _counter(self, name: str, what: str) -> Counter:
        return Counter(f"cohobate_{name}", what, ["workload"], registry=self.registry).labels(self.workload)

    def _gauge(self, name: str, what: str) -> Gauge:
        return Gauge(f"cohobate_{name}", what, ["workload"], registry=self.registry).labels(self.workload)

    def _histogram(self, name: str, what: str, buckets: tuple[float, ...]) -> Histogram:
        metric = Histogram(f"cohobate_{name}", what, ["workload"], registry=self.registry, buckets=buckets)
        return metric.labels(self.workload)

    def dead(self, reason: str, n: int = 1) -> None:
        """Count ``n`` dead letters of a reason."""
        self._dead.labels(self.workload, reason).inc(n)

    def teacher_failed(self, reason: str) -> None:
        """Count a failed call; ``reason`` is a stable code such as ``timeout``."""
        self._failures.labels(self.workload, reason).inc()

    def decided(self, reasons: Iterable[str]) -> None:
        """Count decisions about who is labelled; each reason is a stable code such as ``audit``."""
        for reason, n in Tally(reasons).items():
            self._decisions.labels(self.workload, reason).inc(n)

    def answered(self, outcomes: Iterable[str]) -> None:
        """Count answers that came with inputs; each outcome is a stable code such as ``taken``."""
        for outcome, n in Tally(outcomes).items():
            self._answered.labels(self.workload, outcome).inc(n)

    def lag(self, ends: Mapping[TopicPartition, int], positions: Mapping[TopicPartition, int]) -> None:
        """Set the lag of every partition of ``positions``, and forget those that are not ours any more."""
        for place in self._assigned - positions.keys():
            self._lag.remove(self.workload, place.topic, str(place.partition))
        self._assigned = set(positions)
        for place, at in positions.items():
            self._lag.labels(self.workload, place.topic, str(place.partition)).set(max(0, ends.get(place, at) - at))

    def breaker(self, state: BreakerState) -> None:
        """Set the state of the teacher's circuit breaker."""
        self._breaker.state(state)

    def budget_left(self, unit: str, window: str, left: float) -> None:
        """Set what a budget has left, in ``unit`` (``calls``, ``money``) for a ``window`` (``hour``, ``day``)."""
        self._budget.labels(self.workload, unit, window).set(left)


class GaugesOfStore(Collector):
    """The numbers that a workload's workers leave in the control database, read when Prometheus asks."""

    def __init__(self, workload: str, read: Callable[[], Mapping[str, Mapping[str, object]]]) -> None:
        self._workload, self._read = workload, read

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The metric's name, so that registering it reads nothing."""
        return [self._family()]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """One sample for each field that is a number."""
        family = self._family()
        for name, fields in self._read().items():
            for field, value in fields.items():
                if isinstance(value, int | float):
                    family.add_metric([self._workload, name, field], float(value))
        return [family]

    @staticmethod
    def _family() -> GaugeMetricFamily:
        what = "Last value that a worker reported: drift, entropy, quality, orders."
        return GaugeMetricFamily("cohobate_reported", what, labels=["workload", "report", "field"])


class LinkOfStore(Collector):
    """The address at which a person rolls a workload back by one click, so that an alert can carry it.

    ``cohobate_rollback_link_info`` is 1, with the address as its label ``url``; it has no sample where there is none.
    """

    def __init__(self, workload: str, read: Callable[[], str]) -> None:
        self._workload, self._read = workload, read

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The metric's name, so that registering it reads nothing."""
        return [self._family()]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The address as of now."""
        family, url = self._family(), self._read()
        if url:
            family.add_metric([self._workload, url], 1.0)
        return [family]

    @staticmethod
    def _family() -> GaugeMetricFamily:
        what = "Where a person rolls back by one click."
        return GaugeMetricFamily("cohobate_rollback_link_info", what, labels=["workload", "url"])
