"""An Apache Kafka of the run's own, which can be killed and started again without waiting for it."""

import math
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import psutil

from tests.java import ENVIRONMENT
from tests.ports import free_ports

VARIABLE = "COHOBATE_TEST_KAFKA"

START_SECONDS = 150.0
"""How long a start may take: 3 to 5 s on a quiet machine, a minute on one with a load of eight per core."""


def missing() -> str | None:
    """Why no Kafka can be started here; None where one can."""
    where = os.environ.get(VARIABLE, "")
    if not (Path(where) / "kafka").is_file():
        return f"{VARIABLE} names no folder with the script 'kafka': the run kills its broker and needs one of its own"
    if shutil.which("java") is None:
        return f"{VARIABLE} names a folder, but there is no java to run Kafka with (openjdk-17-jre-headless)"
    return None


class ApacheKafka:
    """One broker on a free port of the loopback, with its data in ``folder``.

    Nothing here but :meth:`wait` waits for a start: :meth:`tend`, called now and then, notices when ``up`` is true.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_ports(2)[0]  # the controller listens on the next one
        self.address = f"127.0.0.1:{self.port}"
        self.up = False
        self._script = Path(os.environ[VARIABLE]) / "kafka"
        self._starting: subprocess.Popen[bytes] | None = None
        self._start_at = math.inf
        self._late_at = math.inf

    def start(self) -> None:
        """Begin to start the broker."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._start_at, self._late_at = math.inf, time.monotonic() + START_SECONDS
        with (self.folder / "script.log").open("ab") as out:
            self._starting = subprocess.Popen(
                [self._script, "start", self.folder, str(self.port)],
                env={**ENVIRONMENT, "KAFKA_HEAP": "320m", **os.environ},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def crash(self, seconds: float) -> None:
        """kill -9, and a new start after ``seconds``."""
        self._kill()
        self._start_at = time.monotonic() + seconds

    def tend(self) -> None:
        """Start the broker when it is due, and notice that it answers.

        Raises:
            RuntimeError: it ended instead, or did not answer in :data:`START_SECONDS`.

        """
        if time.monotonic() >= self._start_at:
            self.start()
        if self.up or self._starting is None or self._starting.poll() is None:
            return
        # The script gives up after half a minute, and leaves the broker to come up in its own time.
        self.up = self._starting.returncode == 0 or self._listens()
        dead = self._pid is None or not psutil.pid_exists(self._pid)
        if not self.up and (dead or time.monotonic() > self._late_at):
            raise RuntimeError(f"Kafka did not start: see {self.folder / 'script.log'}")

    def wait(self) -> None:
        """Wait until the broker answers."""
        while not self.up:
            self.tend()
            time.sleep(0.05)

    def close(self) -> None:
        """End the broker, however far it came."""
        if self._starting is not None and self._starting.poll() is None:
            self._starting.wait(START_SECONDS)
        if self._pid is not None:
            self._kill()

    def _kill(self) -> None:
        subprocess.run([self._script, "kill", self.folder], check=True, timeout=START_SECONDS)
        self.up, self._starting = False, None

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    @property
    def _pid(self) -> int | None:
        path = self.folder / "pid"
        text = path.read_text().strip() if path.is_file() else ""
        return int(text) if text else None
