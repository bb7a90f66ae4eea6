"""The pipelines' step that freezes a window."""

from __future__ import annotations

import logging
import time

from components.contracts.settings import Settings
from components.contracts.spec import load_spec
from components.control.store import ControlStore
from components.control.tables import WindowRow
from components.process import short_lived
from components.steps import NOTHING

__all__ = ["sign", "take_snapshot"]

log = logging.getLogger(__name__)


@short_lived
def take_snapshot(spec_path: str, fresh: bool = False) -> tuple[int, str]:
    """The window that a student is to be made of; returns its rows and digest, 0 and :data:`NOTHING` without one.

    That is the newest one where an earlier update failed after it had frozen it: what has come since waits for the
    next window. Else what is new is frozen. A ``fresh`` student learns from all windows anyway, so for one what is new
    goes first. Where the settings name a key, the window that is frozen here is signed; one that an earlier update has
    frozen keeps the signature that it has.

    Raises:
        ConfigError: the policy asks for signatures, and there is no key whose signatures count.

    """
    from components.ledger import signatures
    from components.snapshot.students import take_again, without_student
    from components.snapshot.window import freeze
    from components.stream import open_broker

    spec, settings = load_spec(spec_path), Settings()
    signatures.wanted(settings)
    store = ControlStore.open(settings.control_url)
    left = without_student(spec, store)
    window = left if left is not None and not fresh and take_again(spec, store, left) else None
    if window is None:
        window = (
            freeze(
                spec, open_broker(settings), store, settings.artifacts, now=time.time(),
                vouch=lambda window: sign(settings, store, window),
            )
            or left
        )  # fmt: skip
    if window is not None and left is not None and window.digest == left.digest:
        log.info("%s: window %d has no student yet: it is taken again", spec.name, window.number)
    store.close()
    return (window.rows, window.digest) if window else (0, NOTHING)


def sign(settings: Settings, store: ControlStore, window: WindowRow) -> None:
    """Sign a snapshot, where the settings name a key. Raises as :func:`components.ledger.signatures.sign` does."""
    from components.ledger import signatures

    said = {
        "workload": window.workload, "number": window.number, "rows": window.rows, "frozen_at": window.created_at,
        "teacher": window.manifest.get("teacher"),
    }  # fmt: skip
    name = f"{window.digest}.parquet"
    signatures.sign(settings, store, window.uri, {name: window.digest}, signatures.SNAPSHOT, said)
