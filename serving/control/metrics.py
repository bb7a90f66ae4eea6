"""The condition of a workload as Prometheus metrics, read from the control database when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from serving.rollout.condition import STATES, Facts, condition, leads

METRICS = {
    "cohobate_state": ("1 for the state that the workload is in, 0 for the others.", ("state",)),
    "cohobate_replicas_live": ("Gateway replicas that were heard within 5 s.", ()),
    "cohobate_controller_leads": ("1 while a controller leads the workload.", ()),
    "cohobate_champion_age_seconds": ("Since the decision by which the champion serves.", ()),
    "cohobate_teacher_trusted": ("1 while the teacher answers its probes as before, 0 while it does not.", ()),
    "cohobate_guarded": ("1 while the champion defers more than its own limit says, since it broke its promise.", ()),
    "cohobate_report_age_seconds": ("Age of a worker's last report.", ("report",)),
    "cohobate_alarm_open": ("1 for each kind of alarm of which something is still to be done.", ("kind",)),
    "cohobate_masking_columns_absent": ("Columns of masking.columns that no label of the newest window had.", ()),
    "cohobate_last_run_failed": ("1 where the last pipeline run failed.", ()),
}
"""What each metric means, and its labels besides ``workload``. What is not known has no sample."""


class FactsOfStore(Collector):
    """The metrics of one workload. Whoever serves them is another process than those that they are about."""

    def __init__(self, workload: str, read: Callable[[], Facts]) -> None:
        self._workload, self._read = workload, read

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The metrics' names, so that registering them reads nothing."""
        return _families().values()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The samples as of now."""
        families = _families()
        for name, labels, value in _samples(self._read()):
            families[name].add_metric([self._workload, *labels], value)
        return families.values()


def _families() -> dict[str, GaugeMetricFamily]:
    return {
        name: GaugeMetricFamily(name, what, labels=["workload", *labels]) for name, (what, labels) in METRICS.items()
    }


def _samples(facts: Facts) -> Iterator[tuple[str, tuple[str, ...], float]]:
    state = condition(facts).state
    for known in STATES:
        yield "cohobate_state", (known,), float(known == state)
    yield "cohobate_replicas_live", (), float(facts.replicas)
    yield "cohobate_controller_leads", (), float(leads(facts))
    yield "cohobate_guarded", (), float(facts.guard is not None)
    if facts.crowned is not None:
        yield "cohobate_champion_age_seconds", (), max(0.0, facts.now - facts.crowned.at)
    if facts.teacher is not None:
        yield "cohobate_teacher_trusted", (), float(facts.teacher == "trusted")
    for report, age in facts.reports.items():
        yield "cohobate_report_age_seconds", (report,), age
    for kind in sorted({alarm.kind for alarm in facts.open_alarms}):
        yield "cohobate_alarm_open", (kind,), 1.0
    if facts.columns_absent is not None:
        yield "cohobate_masking_columns_absent", (), float(len(facts.columns_absent))
    if facts.run is not None:
        yield "cohobate_last_run_failed", (), float(facts.run.status in ("failed", "abandoned"))
