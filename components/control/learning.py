"""What the evaluations of a workload measured of its learning curve: the points that a later update is foreseen by.

Kept in one gauge, the newest ones, so that whoever decides about an update needs no artefact of an earlier one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from components.control.looks import KEPT
from components.control.store import ControlStore

GAUGE = "learning"

MOST = 100
"""Evaluations that are kept, the newest."""


class Evaluated(msgspec.Struct, frozen=True, kw_only=True):
    """One evaluation of a student, on ``rows`` held-out inputs of its newest window.

    ``window``, ``champion_window``: digests of the newest windows that it, and the champion beside it, learnt from;
    ``wrong``, ``champion_wrong``: on how many of the rows each of them disagrees with the teacher (weighted). The last
    two are None where there was no champion.
    """

    window: str
    digest: str
    rows: float
    wrong: float
    champion_window: str | None = None
    champion_wrong: float | None = None


def add(store: ControlStore, workload: str, found: Evaluated) -> None:
    """Keep an evaluation; of the same student on the same window the last one."""
    row = store.gauges(workload).get(GAUGE)
    before = evaluated({GAUGE: row.value} if row else {})
    others = [e for e in before if (e.window, e.digest) != (found.window, found.digest)]
    kept = [*others, found][-MOST:]
    store.put_gauge(workload, GAUGE, {"evaluations": len(kept), KEPT: msgspec.to_builtins(kept)})


def evaluated(gauges: Mapping[str, Mapping[str, Any]]) -> list[Evaluated]:
    """The evaluations, oldest first, from a workload's gauges by their names."""
    return msgspec.convert(gauges.get(GAUGE, {}).get(KEPT, []), list[Evaluated])
