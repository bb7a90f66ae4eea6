"""Several long-running tasks in one process: each in a thread of its own, and started again when it fails."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from infra.processes import HEALTHY_SECONDS, RESTART_SECONDS

log = logging.getLogger(__name__)

Task = Callable[[threading.Event], None]
"""Works until the event is set."""


def run_together(tasks: Mapping[str, Task], stop: threading.Event) -> None:
    """Run tasks, by name, until ``stop`` is set and all have ended.

    One that fails is logged and started again after the same waits as a process that died
    (:class:`infra.processes.Child`); the others do not notice.
    """
    threads = [
        threading.Thread(target=_keep, args=(name, task, stop), name=name, daemon=True) for name, task in tasks.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _keep(name: str, task: Task, stop: threading.Event) -> None:
    failures = 0
    while not stop.is_set():
        began = time.monotonic()
        try:
            task(stop)
            return
        except Exception:
            failures = 1 if time.monotonic() - began > HEALTHY_SECONDS else failures + 1
            wait = RESTART_SECONDS[min(failures - 1, len(RESTART_SECONDS) - 1)]
            log.exception("%s failed; starting it again in %.0f s", name, wait)
            stop.wait(wait)
