"""Whether the embedded broker has its records back: a file beside their copy, written by whoever starts the broker.

A broker that was started anew is there for its clients before its records and the groups' positions are. What it says
meanwhile of where a partition ends, or of where a group stands, is not so: who believed it would read from the earliest
record what it has read. And a producer that it made meanwhile might get the id of one that was connected before, which
would then be refused for good.
"""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from components.contracts.errors import UnavailableError
from components.contracts.settings import Settings

Found = TypeVar("Found")

Restored = Callable[[], str]
"""Names the start of the broker whose records are all there; empty while they are being given back."""

CONNECT_SECONDS = 1.0
"""How long this machine may take to say whether anything listens."""

NOT_KEPT = "not kept"
"""What is said of a broker that begins without records, or that is not ours to restore."""


def always() -> str:
    """Of a broker that is not ours to restore."""
    return NOT_KEPT


def require(restored: Restored, address: str) -> str:
    """The name of the broker's start.

    Raises:
        UnavailableError: it is being given its records back, or ended before it had them.

    """
    if now := restored():
        return now
    host, _, port = address.rpartition(":")
    try:  # no client of Kafka's: it might be given another's id
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        remedy = f"is the broker up? it has not its records back, which 'cohobate up' gives it ({error})"
        raise UnavailableError("embedded broker", address, remedy) from error
    raise UnavailableError("embedded broker", address, "it is being given its records back: in a moment")


def of_whole(restored: Restored, address: str, ask: Callable[[], Found]) -> Found:
    """What a broker answers that had all its records before and after.

    Raises:
        UnavailableError: it is being given them back, or was started anew meanwhile.

    """
    before = require(restored, address)
    found = ask()
    if require(restored, address) != before:
        raise UnavailableError("embedded broker", address, "it was started anew meanwhile: ask again")
    return found


def copy_of(settings: Settings) -> Path:
    """Where the embedded broker's records are kept."""
    return settings.home / "broker"


def note(keep: Path, *, restored: bool) -> None:
    """Tell the clients of the broker whose copy lies at ``keep``."""
    keep.mkdir(parents=True, exist_ok=True)
    new = _file(keep).with_suffix(".tmp")
    new.write_text(uuid.uuid4().hex if restored else "")
    new.replace(_file(keep))


def restored_of(settings: Settings) -> Restored:
    """For the broker that the settings name."""
    if settings.bootstrap_servers:
        return always
    return lambda: read(copy_of(settings))


def read(keep: Path) -> str:
    """What was noted last."""
    try:
        return _file(keep).read_text()
    except FileNotFoundError:
        return NOT_KEPT


def _file(keep: Path) -> Path:
    return keep / "restored"
