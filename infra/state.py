"""What a running platform says of itself: ``<home>/platform.json``."""

from __future__ import annotations

import msgspec
import psutil

from components.contracts.settings import Settings


class PlatformState(msgspec.Struct, frozen=True, kw_only=True):
    """What ``platform.json`` says of a running platform."""

    pid: int
    started_at: float
    gateway: str
    kafka: str
    specs: tuple[str, ...]
    ready: bool
    stream: bool = False
    """Whether the workloads' topics are there, so that records may be sent."""
    children: dict[str, int | None] = {}
    embedded_broker: bool = True
    error: str | None = None

    @property
    def alive(self) -> bool:
        """Whether the supervisor's process still runs."""
        try:
            return psutil.Process(self.pid).create_time() <= self.started_at + 5.0
        except psutil.NoSuchProcess:
            return False


def read_state(settings: Settings) -> PlatformState | None:
    """The state of the platform of this home; None where none was ever started."""
    try:
        return msgspec.json.decode((settings.home / "platform.json").read_bytes(), type=PlatformState)
    except FileNotFoundError:
        return None
