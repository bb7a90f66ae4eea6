"""How far each column was from the reference, look by look: what a workload's monitor saw of its last windows.

Kept in one gauge, so that a restart of the monitor or of whoever shows it loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from components.control.store import ControlStore
from components.control.tables import GaugeRow

GAUGE = "looks"

MOST_LOOKS = 60
"""Looks of a kind that are kept, the newest."""

MOST_COLUMNS = 24
"""Columns of a look that are kept: those that drifted, and then the first ones."""


KEPT = "kept"
"""The member of a gauge that its writer goes on from: long, and for nobody else."""


def shown(gauges: Mapping[str, GaugeRow]) -> dict[str, GaugeRow]:
    """The gauges without what is drawn elsewhere: the looks."""
    return {name: row for name, row in gauges.items() if name != GAUGE}


def said(value: Mapping[str, Any]) -> dict[str, Any]:
    """A gauge's value without what its writer goes on from."""
    return {name: member for name, member in value.items() if name != KEPT}


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """One look at one window. ``at``: Unix seconds; ``columns``: each one's distance and its threshold."""

    at: float
    index: int
    columns: dict[str, tuple[float, float]]


class Distance(msgspec.Struct, frozen=True, kw_only=True):
    """A column's distance from the reference, and the threshold from which it drifts."""

    column: str
    value: float
    threshold: float
    drifted: bool


def add(store: ControlStore, workload: str, index: int, found: Mapping[str, Iterable[Distance]]) -> None:
    """Keep one look at the window that ends at input ``index``, by the monitor's kinds."""
    row = store.gauges(workload).get(GAUGE)
    kept: dict[str, Any] = dict(row.value) if row is not None else {}
    for kind, distances in found.items():
        shown = sorted(distances, key=lambda d: not d.drifted)[:MOST_COLUMNS]
        if shown:
            columns = {d.column: (_short(d.value), _short(d.threshold)) for d in shown}
            look = Look(at=store.clock(), index=index, columns=columns)
            kept[kind] = [*kept.get(kind, ()), msgspec.to_builtins(look)][-MOST_LOOKS:]
    store.put_gauge(workload, GAUGE, kept)


def looks(gauges: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Look]]:
    """The looks by kind, oldest first, from a workload's gauges by their names."""
    kept = gauges.get(GAUGE, {})
    return {kind: msgspec.convert(kept[kind], list[Look]) for kind in kept if isinstance(kept[kind], list)}


def _short(value: float) -> float:
    return float(f"{value:.5g}")
