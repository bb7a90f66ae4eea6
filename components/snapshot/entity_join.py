"""What a window's rows are told of their entities, and how far that is from what answers were told."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from components.contracts.records import Label
from components.contracts.spec import Entity, Spec
from components.control.store import ControlStore
from components.snapshot.entity_store import EntityStore
from components.student.entity import Values, values

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

SAME = 1e-6
"""Relative difference up to which numbers are the same: they may have been through other types on their way."""

GAUGE = "entity_skew"
"""The gauge of the newest window's skew."""


@dataclass(frozen=True, kw_only=True)
class Joined:
    """What a window's rows are told.

    ``known``: values by the label's key. ``served``: rows that were answered with such values, and ``skew`` the share
    of them, by feature, for which the answer was told another one than is joined. ``recent``: what is to be published.
    """

    known: dict[str, Values] = field(default_factory=dict)
    served: int = 0
    skew: dict[str, float] = field(default_factory=dict)
    recent: pa.Table | None = None

    @property
    def manifest(self) -> dict[str, Any]:
        """What the window's manifest has of it; nothing where no features are named."""
        return {"entity_served": self.served, "entity_skew": self.skew} if self.known else {}


def joined(store: EntityStore | None, number: int, labels: Sequence[Label], now: float) -> Joined:
    """Join a window's labels, point in time: what was known of each one's entity when its input came.

    What an answer was told, where one was given, is what the row has: the student learns from what it is asked with.

    Raises:
        ConfigError: Feast does not have the features that the spec names.

    """
    if store is None:
        return Joined()
    store.check()
    recent = store.remember(number, labels, now)
    asked = [(label.input.key, label.input.time) for label in labels]
    history = [values(store.entity, row, at) for row, (_, at) in zip(store.history(asked), asked, strict=True)]
    served = [_told(store.entity, label) for label in labels]
    pairs = [(told, found) for told, found in zip(served, history, strict=True) if told is not None]
    return Joined(
        known={x.key: found if told is None else told for x, told, found in zip(labels, served, history, strict=True)},
        served=len(pairs),
        skew=_skew(store.entity, pairs),
        recent=recent,
    )


def _told(entity: Entity, label: Label) -> Values | None:
    """What an answer was told, where it was told of these very features."""
    told = label.input.entity
    if told is None or any(isinstance(told.get(f.name), str) != (f.type == "category") for f in entity.features):
        return None
    return {f.name: told[f.name] for f in entity.features} if told.keys() >= {f.name for f in entity.features} else None


def _skew(entity: Entity, pairs: Sequence[tuple[Values, Values]]) -> dict[str, float]:
    return {
        f.name: sum(_differ(told[f.name], found[f.name]) for told, found in pairs) / len(pairs)
        for f in entity.features
        if pairs
    }


def _differ(one: float | str, other: float | str) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return one != other
    return not math.isclose(one, other, rel_tol=SAME, abs_tol=SAME)


def report(spec: Spec, store: ControlStore, manifest: Mapping[str, Any]) -> None:
    """Say how far answers and training are apart, where features of the entity are named and were served."""
    entity = spec.features.entity
    if entity is None or not manifest.get("entity_served"):
        return
    skew: dict[str, float] = manifest["entity_skew"]
    worst = max(skew, key=lambda name: skew[name])
    most = entity.max_skew
    over = most is not None and skew[worst] > most
    gauge = {"rows": manifest["entity_served"], "worst": worst, "share": skew[worst], "limit": most, "over": over}
    store.put_gauge(spec.name, GAUGE, gauge)
    if over:
        log.warning("%s: features.entity.%s was served otherwise than it is joined in %.1f %% of %d rows, more than "
                    "max_skew allows", spec.name, worst, 100 * skew[worst], manifest["entity_served"])  # fmt: skip
