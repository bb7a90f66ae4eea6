"""What a running platform says of itself: ``<home>/platform.json``."""

from __future__ import annotations

import msgspec
import psutil

from components.contracts.errors import UnavailableError
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
    def workloads(self) -> tuple[str, ...]:
        """The names of its workloads."""
        from components.contracts.reference import parse

        return tuple(found.workload for source in self.specs if (found := parse(source)) is not None)

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


class _Admin(msgspec.Struct):
    """What the admin API says of itself: ``admin.json``."""

    url: str
    pid: int


def console_url(settings: Settings) -> str:
    """Where the console answers: at the admin API that the settings name, or at this home's.

    Raises:
        UnavailableError: none runs here, and the settings name none.

    """
    if settings.admin_url:
        return f"{settings.admin_url.rstrip('/')}/console/"
    try:
        admin = msgspec.json.decode((settings.home / "admin.json").read_bytes(), type=_Admin)
        alive = psutil.pid_exists(admin.pid)
    except FileNotFoundError:
        alive = False
    if not alive:
        remedy = "start the platform with 'cohobate up', or set COHOBATE_ADMIN_URL"
        raise UnavailableError("console", str(settings.home), remedy)
    return f"{admin.url}/console/"
