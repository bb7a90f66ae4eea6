"""The newest labelled inputs of each entity, as rows of a Feast source: what the platform's own features are read from.

A row says what had happened by the time of an input, so that a join at that time sees nothing later. A label that comes
late is in every row from its input's time on: those are written once more, and ``created`` says which is the newer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from components.contracts.records import Label
from components.contracts.spec.features import MOST_RECENT
from components.snapshot.table import MICROSECONDS
from components.student.entity import Event, events_of, text_of

if TYPE_CHECKING:
    import pyarrow as pa


def recent_schema() -> pa.Schema:
    """The columns of the source."""
    import pyarrow as pa

    stamp = pa.timestamp("us", tz="UTC")
    return pa.schema([("key", pa.string()), ("recent", pa.string()), ("event_time", stamp), ("created", stamp)])


def recent_table(labels: Sequence[Label], before: Mapping[str, str | None], now: float) -> pa.Table:
    """What a window adds to the source; ``before``: what it says of each key so far.

    The last row of a key is the newest. Labels that are among what was known already add nothing.
    """
    import pyarrow as pa

    came: dict[str, list[Event]] = defaultdict(list)
    for label in labels:
        event = Event(time=label.input.time, label=label.soft.label, known_at=label.labelled_at, id=label.key[:16])
        came[label.input.key].append(event)
    rows = []
    for key, events in sorted(came.items()):
        known = {e.id: e for e in (*events_of(before.get(key)), *events)}
        ordered = sorted(known.values(), key=lambda e: (e.time, e.id))
        since = min(e.time for e in events)
        for i, event in enumerate(ordered, start=1):
            if event.time >= since and (i == len(ordered) or ordered[i].time > event.time):
                rows.append({
                    "key": key, "recent": text_of(ordered[max(0, i - MOST_RECENT) : i]),
                    "event_time": int(event.time * MICROSECONDS), "created": int(now * MICROSECONDS),
                })  # fmt: skip
    return pa.Table.from_pylist(rows, schema=recent_schema())
