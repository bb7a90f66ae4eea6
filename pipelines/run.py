"""One local run in a process of its own: ``python -m pipelines.run PIPELINE SPEC REASON [NAME=VALUE...]``.

The trigger uses it, and so does the console.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from components.contracts.errors import CohobateError
from components.contracts.settings import Settings
from pipelines.local import run_local


def main(argv: Sequence[str]) -> int:
    """Run a pipeline; SIGTERM ends it with its components and records it as failed."""
    name, spec, reason, *texts = argv
    given = {key: value for key, _, value in (text.partition("=") for text in texts)}
    signal.signal(signal.SIGTERM, _end)
    try:
        done = run_local(name, spec, given, reason=reason, settings=Settings())
    except CohobateError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if done.outcome is not None:
        sys.stderr.write(f"{done.run}: {done.outcome.text}\n")
    return 0


def _end(*_: object) -> None:
    import psutil

    for child in psutil.Process(os.getpid()).children(recursive=True):
        child.terminate()
    raise SystemExit(143)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
