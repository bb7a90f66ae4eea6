"""How many labels of a new regime the next update lacks: what the pace of a budget does not hold back."""

from __future__ import annotations

from components.contracts.spec import Spec
from components.control.alarm_kinds import UNKNOWN
from components.control.store import ControlStore
from components.query.least import least_labels

MONITOR = "monitor"
"""The gauge in which the monitor counts labels, by which alarms are dated."""

TRIGGER = "trigger"
"""The gauge in which the trigger says how many ``labels`` came after the last window, while an update waits for more of
them, and to what ``index`` the monitor had counted then."""

REFRESH_SECONDS = 1.0
"""How often the alarms are looked at; labels that are asked for are counted here until the monitor has counted on."""

SILENT_SECONDS = 60.0
"""A monitor that has said nothing for so long counts no labels, and none is asked for beside the pace: it says every
ten seconds how far it is."""


class Lacking:
    """Counts the labels that are to come until an update starts for a regime that the champion does not know.

    As the trigger starts one: with ``trigger.alarm_labels`` since the first open alarm and so many in all as its
    student can be judged by, of those that no window has taken. None is lacking while it waits for something else. Nor
    is one where no open alarm tells of such a regime (:data:`~components.control.alarm_kinds.UNKNOWN`): where the
    traffic is only another, what the champion answers may be right, and the labels come at their pace.

    Every process counts by itself what it asks for, until the monitor has seen labels since.
    """

    def __init__(self, spec: Spec, store: ControlStore) -> None:
        self._spec, self._store = spec, store
        self._least = least_labels(spec)
        self._at, self._left, self._open = float("-inf"), 0, False
        self._seen: tuple[int, int, int] | None = None
        """The alarm, the labels after the last window and those after both, when :attr:`_left` was counted."""

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
        unknown = any(alarm.kind in UNKNOWN for alarm in found)
        gauges = self._store.gauges(name) if unknown else {}
        monitor, trigger = gauges.get(MONITOR), gauges.get(TRIGGER)
        self._open = False
        if monitor is None or now - monitor.at >= SILENT_SECONDS or trigger is None or "labels" not in trigger.value:
            return
        self._open = True
        index = int(monitor.value.get("index", 0))
        counted, at = int(trigger.value["labels"]), int(trigger.value["index"])
        labels = counted + max(0, index - at)
        fresh = min(max(0, index - found[0].input_index), labels)
        if (seen := (found[0].id, labels, fresh)) != self._seen:
            self._seen, self._left = seen, max(0, self._spec.trigger.alarm_labels - fresh, self._least - labels)
