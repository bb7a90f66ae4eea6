"""How many labels of a new regime the next update lacks: what the pace of a budget does not hold back."""

from __future__ import annotations

from components.contracts.spec import Spec
from components.control.alarm_kinds import UNKNOWN
from components.control.store import ControlStore
from components.query.least import least_labels

MONITOR = "monitor"
"""The gauge in which the monitor counts labels, by which alarms are dated."""

REFRESH_SECONDS = 1.0
"""How often the alarms are looked at; labels that are asked for are counted here until the monitor has counted on."""

SILENT_SECONDS = 60.0
"""A monitor that has said nothing for so long counts no labels, and none is asked for beside the pace: it says every
ten seconds how far it is."""


class Lacking:
    """Counts the labels that are to come until an update starts for a regime that the champion does not know.

    ``trigger.alarm_labels`` start one at the latest, or more where its student could not be judged by so few, from the
    first open alarm on that tells of such a regime (:data:`~components.control.alarm_kinds.UNKNOWN`). Where the traffic
    is only another, what the champion answers may be right, and the labels come at their pace.

    Every process counts by itself what it asks for, until the monitor has seen labels since.
    """

    def __init__(self, spec: Spec, store: ControlStore) -> None:
        self._spec, self._store = spec, store
        self._wanted = max(spec.trigger.alarm_labels, least_labels(spec))
        self._at, self._left, self._open = float("-inf"), 0, False
        self._seen: tuple[int, int] | None = None
        """The alarm, and what the monitor had counted, when :attr:`_left` was counted."""

    def __call__(self) -> int:
        """How many are lacking; 0 where no such alarm is open, or nobody counts the labels that come."""
        now = self._store.clock()
        if not 0.0 <= now - self._at < REFRESH_SECONDS:
            self._at = now
            self._look(now)
        return self._left if self._open else 0

    def asked(self, labels: int) -> None:
        """So many are asked for now."""
        self._left = max(0, self._left - labels)

    def _look(self, now: float) -> None:
        name = self._spec.name
        champion = self._store.intent(name)[1].champion
        found = self._store.open_alarms(name, champion.version) if champion is not None else []
        alarms = [alarm for alarm in found if alarm.kind in UNKNOWN]
        monitor = self._store.gauges(name).get(MONITOR) if alarms else None
        self._open = monitor is not None and now - monitor.at < SILENT_SECONDS
        if monitor is None or not self._open:
            return
        seen = alarms[0].id, int(monitor.value.get("index", 0))
        if seen != self._seen:
            came = max(0, seen[1] - alarms[0].input_index)
            self._seen, self._left = seen, max(0, self._wanted - came)
