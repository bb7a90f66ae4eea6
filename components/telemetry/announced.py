"""Which workers of a home answer Prometheus, and where: read from the files that they write while they live."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path


def announced(home: Path) -> dict[str, str]:
    """The addresses of the workers of a home by ``<workload>-<role>-<pid>``; files of killed workers are removed."""
    found = {}
    for path in sorted((home / "metrics").glob("*.json")):
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, IndexError):
            entry = json.loads(path.read_text())[0]
            if _runs(int(entry["labels"]["pid"])):
                found[path.stem] = entry["targets"][0]
            else:
                path.unlink(missing_ok=True)
    return found


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
