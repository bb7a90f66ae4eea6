"""How long a student takes for one input, beside the champion in the same run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.student.runtime import Student

WARM_UP = 20
"""Calls that are not counted: the first ones allocate."""

CALLS = 300
"""Calls that are counted: the 99th percentile rests on the slowest three."""


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Milliseconds of single-input calls, decoding included. ``ratio``: p99 to the champion's; None without one."""

    p50: float
    p95: float
    p99: float
    mean: float
    ratio: float | None = None


def latency(student: Student, payloads: Sequence[bytes], champion: Student | None = None) -> Latency | None:
    """Time the student on single inputs; None without inputs.

    With a champion the calls alternate, in turns of order, on the same inputs: whatever else the machine does meets
    both alike.
    """
    if not payloads:
        return None
    both = [student] if champion is None else [student, champion]
    taken: list[list[float]] = [[] for _ in both]
    for i in range(WARM_UP + CALLS):
        order = range(len(both)) if i % 2 else reversed(range(len(both)))
        for k in order:
            begin = time.perf_counter()
            both[k].predict([payloads[i % len(payloads)]])
            taken[k].append((time.perf_counter() - begin) * 1e3)
    p50, p95, p99 = _percentiles(taken[0])
    ratio = float(p99 / _percentiles(taken[1])[2]) if champion is not None else None
    mean = float(np.mean(taken[0][WARM_UP:]))
    return Latency(p50=float(p50), p95=float(p95), p99=float(p99), mean=mean, ratio=ratio)


def _percentiles(taken: Sequence[float]) -> npt.NDArray[np.float64]:
    return np.percentile(taken[WARM_UP:], [50, 95, 99])
