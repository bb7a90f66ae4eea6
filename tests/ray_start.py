"""Clusters of Ray start one after the other, whatever else runs beside.

Ray gives a node 30 s to start, with no setting for it, of which one on a quiet machine needs 5: several that start at
once on a machine with few cores take that from each other. The lock ends with the process that holds it.
"""

import contextlib
import tempfile
from pathlib import Path

from filelock import FileLock


@contextlib.contextmanager
def alone():
    """No other test starts a cluster while the block runs: hold it until this one's has started, and no longer."""
    with FileLock(Path(tempfile.gettempdir()) / "cohobate-test-ray.lock"):
        yield
