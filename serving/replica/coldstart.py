"""How long a replica took from the start of its process to being ready, and to its first answer."""

from __future__ import annotations

import time

import psutil


class ColdStart:
    """Seconds since this process started; None for what has not come yet. Ray may start processes ahead of use."""

    def __init__(self) -> None:
        self.ready_seconds: float | None = None
        self.first_answer_seconds: float | None = None

    def ready(self) -> None:
        """A champion is loaded; only the first call counts."""
        if self.ready_seconds is None:
            self.ready_seconds = _age()

    def answered(self) -> None:
        """An input was answered; only the first call counts."""
        if self.first_answer_seconds is None:
            self.first_answer_seconds = _age()


def _age() -> float:
    return time.time() - psutil.Process().create_time()
