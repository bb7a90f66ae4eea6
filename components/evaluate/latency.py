"""How long a student takes for one input."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from components.student.runtime import Student

WARM_UP = 20
"""Calls that are not counted: the first ones allocate."""

CALLS = 300
"""Calls that are counted: the 99th percentile rests on the slowest three."""


def latency_ms(student: Student, payloads: Sequence[bytes]) -> tuple[float, float] | None:
    """Median and 99th percentile of single-input calls in milliseconds, decoding included; None without inputs."""
    if not payloads:
        return None
    taken = []
    for i in range(WARM_UP + CALLS):
        begin = time.perf_counter()
        student.predict([payloads[i % len(payloads)]])
        taken.append((time.perf_counter() - begin) * 1e3)
    p50, p99 = np.percentile(taken[WARM_UP:], [50, 99])
    return float(p50), float(p99)
