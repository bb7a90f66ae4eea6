"""How many labels of a new regime the next update lacks: what the pace of a budget does not hold back."""

from __future__ import annotations

from components.contracts.spec import Spec
from components.control.store import ControlStore

MONITOR = "monitor"
"""The gauge in which the monitor counts labels, by which alarms are dated."""


def lacking(store: ControlStore, spec: Spec) -> int:
    """Labels that are to come until an alarm about the champion starts an update; 0 where no alarm is open.

    ``trigger.alarm_labels`` start one at the latest, counted as the trigger counts them: from the first open alarm on.
    """
    intent = store.intent(spec.name)[1]
    alarms = store.open_alarms(spec.name, intent.champion.version) if intent.champion is not None else []
    if not alarms:
        return 0
    monitor = store.gauges(spec.name).get(MONITOR)
    seen = int(monitor.value.get("index", 0)) if monitor is not None else 0
    return max(0, spec.trigger.alarm_labels - max(0, seen - alarms[0].input_index))
