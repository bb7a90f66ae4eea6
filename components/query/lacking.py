"""How many labels of a new regime the next update lacks: what the pace of a budget does not hold back."""

from __future__ import annotations

from components.contracts.spec import Spec
from components.control.alarm_kinds import UNKNOWN
from components.control.store import ControlStore

MONITOR = "monitor"
"""The gauge in which the monitor counts labels, by which alarms are dated."""

REFRESH_SECONDS = 1.0
"""How often the alarms are looked at; labels that are asked for in between are counted here."""


class Lacking:
    """Counts the labels that are to come until an update starts for a regime that the champion does not know.

    ``trigger.alarm_labels`` start one at the latest, from the first open alarm on that tells of such a regime
    (:data:`~components.control.alarm_kinds.UNKNOWN`). Where the traffic is only another, what the champion answers may
    be right, and the labels come at their pace.
    """

    def __init__(self, spec: Spec, store: ControlStore) -> None:
        self._spec, self._store = spec, store
        self._at, self._left = float("-inf"), 0

    def __call__(self) -> int:
        """How many are lacking; 0 where no such alarm is open."""
        now = self._store.clock()
        if not 0.0 <= now - self._at < REFRESH_SECONDS:
            self._at, self._left = now, self._counted()
        return self._left

    def asked(self, labels: int) -> None:
        """So many are asked for now."""
        self._left = max(0, self._left - labels)

    def _counted(self) -> int:
        name = self._spec.name
        champion = self._store.intent(name)[1].champion
        found = self._store.open_alarms(name, champion.version) if champion is not None else []
        alarms = [alarm for alarm in found if alarm.kind in UNKNOWN]
        if not alarms:
            return 0
        monitor = self._store.gauges(name).get(MONITOR)
        seen = int(monitor.value.get("index", 0)) if monitor is not None else 0
        return max(0, self._spec.trigger.alarm_labels - max(0, seen - alarms[0].input_index))
