"""The pipelines' step that freezes a window."""

from __future__ import annotations

import time

from components.contracts.settings import Settings
from components.contracts.spec import load_spec
from components.control.store import ControlStore
from components.process import short_lived
from components.steps import NOTHING

__all__ = ["take_snapshot"]


@short_lived
def take_snapshot(spec_path: str) -> tuple[int, str]:
    """Freeze what is new; returns the window's rows and digest, 0 and :data:`NOTHING` when nothing is new."""
    from components.snapshot.window import freeze
    from components.stream import open_broker

    spec, settings = load_spec(spec_path), Settings()
    store = ControlStore(settings.control_url)
    window = freeze(spec, open_broker(settings), store, settings.artifacts, now=time.time())
    store.close()
    return (window.rows, window.digest) if window else (0, NOTHING)
