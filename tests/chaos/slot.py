"""A place for one labeler: started with the kill that it is meant to die of, watched, started again."""

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from infra.processes import Child
from tests.chaos.schedule import Kill

LIMIT_SECONDS = 45.0
"""A labeler that did not come to its failpoint, or to work, in this time is killed by its process id."""

WORK_SECONDS = 20.0
"""The same for a labeler that works: it may never pass its failpoint often enough, such as one of its opening."""

DRAIN_SECONDS = 30.0
"""How long a labeler may take to end after SIGTERM."""

RESTART_SECONDS = 0.3

End = Literal["killed", "late", "ended", "exited", "stuck"]


class Slot:
    """One place. ``wanted``: a labeler shall run here. ``env`` is what every labeler gets."""

    def __init__(self, number: int, spec: Path, env: Mapping[str, str], logs: Path, steer: Path) -> None:
        argv = [sys.executable, "-m", "infra.worker", "labeler", str(spec)]
        self.child = Child(f"labeler-{number}", argv, env, logs)
        self.wanted = False
        self.kill: Kill | None = None
        self._env, self._steer = {**env, "COHOBATE_WORKER": self.child.name}, steer
        self._started = self._patient_since = self._worked = self._ending = 0.0
        self._restart_at = self._thaw_at = 0.0
        self._shot: End | None = None
        self.code = 0

    @property
    def running(self) -> bool:
        return self.child.pid is not None

    @property
    def startable(self) -> bool:
        return self.wanted and self.child.process is None and time.monotonic() >= self._restart_at

    @property
    def busy(self) -> bool:
        """It runs, does its work, and is neither frozen nor ending."""
        return self.running and bool(self._worked) and not self._thaw_at and not self._ending

    def start(self, kill: Kill | None) -> None:
        """Start a labeler that shall die of ``kill``; None: one that shall live."""
        self.kill, self._shot = kill, None
        armed = {"COHOBATE_FAILPOINT": f"{kill.failpoint}:{kill.passes}"} if kill and kill.failpoint else {}
        self.child.env = self._env | armed
        self.child.start()
        self._started = self._patient_since = time.monotonic()
        self._worked = self._ending = self._thaw_at = 0.0

    def recycle(self) -> None:
        """Ask the labeler to end, so that another one starts here."""
        if self.running and not self._ending:
            self.thaw()
            self._end(time.monotonic())

    def excuse(self) -> None:
        """Give the labeler its whole time again: what it needs was not there."""
        self._patient_since = time.monotonic()

    def freeze(self, seconds: float) -> None:
        """Let the labeler stand still for so long."""
        if self.child.pid is not None:
            os.kill(self.child.pid, signal.SIGSTOP)
            self._thaw_at = time.monotonic() + seconds

    def thaw(self) -> None:
        """Let a frozen labeler go on."""
        if self.child.pid is not None and self._thaw_at:
            os.kill(self.child.pid, signal.SIGCONT)
            self.excuse()
        self._thaw_at = 0.0

    def tend(self) -> End | None:
        """Do what is due here; returns how the labeler ended when it just did.

        ``killed``: as meant. ``late``: it had not come to where it was meant to die, and was killed all the same.
        ``ended``: on SIGTERM, with 0. ``stuck``: it did not end on SIGTERM, and was killed. ``exited``: by itself.
        """
        if self.child.process is None:
            return None
        if (code := self.child.process.poll()) is not None:
            return self._buried(code)
        now = time.monotonic()
        if self._thaw_at:
            if now < self._thaw_at and self.wanted:
                return None
            self.thaw()
        if not self._worked and (self._steer / f"work-{self.child.pid}").exists():
            self._worked = self._patient_since = now
        if not self.wanted or self._ending:
            self._end(now)
        elif (shot := self._due(now)) is not None:
            self._shoot(shot)
        return None

    def _end(self, now: float) -> None:
        if not self._ending:
            self._ending = now
            os.kill(self._pid, signal.SIGTERM)
        elif now - self._ending > DRAIN_SECONDS:
            self._shoot("stuck")

    def _due(self, now: float) -> End | None:
        if self.kill is None:
            return None
        if self.kill.how == "start" and now - self._started >= self.kill.after:
            return "killed"
        if self.kill.how == "work" and self._worked and now - self._worked >= self.kill.after:
            return "killed"
        patience = WORK_SECONDS if self._worked else LIMIT_SECONDS
        return "late" if now - self._patient_since > patience else None

    @property
    def _pid(self) -> int:
        assert self.child.process is not None
        return self.child.process.pid

    def _shoot(self, shot: End) -> None:
        self._shot = self._shot or shot
        os.kill(self._pid, signal.SIGKILL)

    def _buried(self, code: int) -> End:
        (self._steer / f"work-{self._pid}").unlink(missing_ok=True)
        self.child.process = None
        self._restart_at = time.monotonic() + RESTART_SECONDS
        if code == -signal.SIGKILL:
            return self._shot or "killed"
        self.code = code
        # A labeler that has only begun to start has no handler yet, and SIGTERM itself ends it.
        return "ended" if self._ending and code in (0, -signal.SIGTERM) else "exited"

    def last_words(self) -> str:
        """The last line of the log of this place's labelers."""
        with self.child.log.open("rb") as log:
            log.seek(max(0, self.child.log.stat().st_size - 2_000))
            lines = log.read().decode(errors="replace").split("\n")
        return next((line.strip()[:160] for line in reversed(lines) if line.strip()), "(nothing)")
