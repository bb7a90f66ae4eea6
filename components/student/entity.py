"""What is known of an input's entity, as a student takes it: values by name, and the array made of them.

Values are derived here alone, from what Feast's stores hold, so that an answer and a training row of the same knowledge
are fed the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from components.contracts.spec import Entity, EntityFeature
from components.contracts.spec.features import RECENT

ENTITY = "entity"
"""The array of what is known of entities: (B, K) of K numbers and values of categories."""

CLIP = 8.0
"""Scales at which a number is cut off, as in a table."""

Values = dict[str, float | str]


class Event(msgspec.Struct, frozen=True, array_like=True):
    """A labelled input of an entity: its time, what the teacher said of it, since when that is known (seconds).

    ``id``: the beginning of the label's key.
    """

    time: float
    label: str
    known_at: float
    id: str


_events = msgspec.json.Decoder(tuple[Event, ...])


def events_of(text: str | None) -> tuple[Event, ...]:
    """The events in a feature :data:`~components.contracts.spec.features.RECENT`, oldest first; of none, none."""
    return _events.decode(text) if text else ()


def text_of(events: Sequence[Event]) -> str:
    """The feature that :func:`events_of` reads."""
    return msgspec.json.encode(events).decode()


def values(entity: Entity, raw: Mapping[str, Any], at: float) -> Values:
    """The value of every feature for an input at ``at`` (Unix seconds), by name.

    ``raw``: what Feast holds, by ``view:feature``; None or nothing where it knows nothing, which is the default's case,
    as is a value of another type.
    """
    before = tuple(e for e in events_of(raw.get(RECENT)) if e.time < at)
    return {
        f.name: _typed(f, raw.get(f.source) if f.of == "view" else OWN[f.of](f, before, at)) for f in entity.features
    }


def _typed(feature: EntityFeature, found: Any) -> float | str:
    if found is None:
        return feature.default
    if feature.type == "category":
        return str(found)
    try:
        number = float(found)
    except (TypeError, ValueError, OverflowError):
        return feature.default
    return number if math.isfinite(number) else feature.default


def _count(feature: EntityFeature, before: Sequence[Event], at: float) -> float | None:
    return float(sum(at - e.time <= (feature.seconds or 0.0) for e in before)) if before else None


def _since(_: EntityFeature, before: Sequence[Event], at: float) -> float | None:
    return at - before[-1].time if before else None


def _last(_: EntityFeature, before: Sequence[Event], at: float) -> str | None:
    return next((e.label for e in reversed(before) if e.known_at <= at), None)


def _share(feature: EntityFeature, before: Sequence[Event], at: float) -> float | None:
    known = [e.label == feature.label for e in before if e.known_at <= at]
    return sum(known) / len(known) if known else None


OWN: dict[str, Callable[[EntityFeature, Sequence[Event], float], float | str | None]] = {
    "count": _count, "since_last": _since, "last_label": _last, "label_share": _share,
}  # fmt: skip


class EntityColumns:
    """The array of entities' values: numbers scaled, then a one for each category's value, and one for unseen ones."""

    def __init__(self, features: Sequence[EntityFeature]) -> None:
        self._features = features
        self._defaults: Values = {f.name: f.default for f in features}
        self.width = sum(1 if f.type == "number" else len(f.values) + 1 for f in features)

    def encode(self, rows: Sequence[Mapping[str, float | str]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """(B, K) of values by name; what a row lacks, or has of another type, has its default."""
        cells = [[cell for f in self._features for cell in self._cells(f, row)] for row in rows]
        return np.array(cells, dtype=np.float32).reshape(len(rows), self.width)

    def _cells(self, feature: EntityFeature, row: Mapping[str, float | str]) -> list[float]:
        value = _typed(feature, row.get(feature.name))
        if feature.type == "category":
            known = [float(value == v) for v in feature.values]
            return [*known, float(not any(known))]
        number = float(value)
        if feature.log:
            number = math.copysign(math.log1p(abs(number)), number)
        return [min(max((number - feature.mean) / feature.scale, -CLIP), CLIP)]
