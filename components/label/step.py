"""The pipelines' step that labels a history."""

from __future__ import annotations

from contextlib import closing

from components.contracts.settings import Settings
from components.contracts.spec import load_spec
from components.control.store import ControlStore
from components.process import short_lived

__all__ = ["label_history"]


@short_lived
def label_history(spec_path: str, history_uri: str) -> int:
    """Put a history on the workload's topics and label it; returns how many inputs it holds."""
    from components.label.assembly import assemble
    from components.label.history import label_history as label
    from components.label.history_file import read_history
    from components.stream import open_broker

    spec, settings = load_spec(spec_path), Settings()
    broker = open_broker(settings)
    with closing(ControlStore.open(settings.control_url)) as store:
        counts = label(
            spec,
            broker,
            store,
            read_history(history_uri, spec),
            make=lambda: assemble(spec, settings, store, broker),
        )
    return counts["inputs"]
