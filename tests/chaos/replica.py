"""A gateway's replica, as far as one call answers and labels: it asks the teacher behind the gateway, and publishes.

``python -m tests.chaos.replica SPEC``: questions go to :class:`serving.teacher.TeacherService`, and each input to the
stream by :class:`serving.gateway.telemetry.Telemetry`, with the teacher's answer where there was one, until it is
killed. What a replica that is killed had not published nobody has heard of; what it had is an input like any other.
"""

import asyncio
import math
import os
import random
import signal
import sys
import time
from pathlib import Path

from components.contracts.records import Answer, Input, Prediction, content_hash
from components.contracts.settings import Settings
from components.contracts.spec import load_spec
from components.stream import open_broker
from infra.processes import Child, die_with_parent
from serving.gateway.telemetry import Served, Telemetry
from serving.teacher import TeacherService
from tests.chaos.feed import ENTITIES

PREFIX = "g"
"""Ids of a replica's inputs begin with it."""

RATE = 20.0
"""Inputs a second."""

TIMEOUT_SECONDS = 2.0

LIFE_SECONDS = (2.0, 10.0)
"""How long a replica lives, from the teacher's first answer to its kill: its start takes what the machine takes."""


def text_of(id_: str) -> str:
    """The payload of a replica's input."""
    return f"text of {id_}"


def is_own(id_: str) -> bool:
    """Whether an input is a replica's."""
    return id_.startswith(PREFIX)


def _answered(steer: Path, pid: int) -> Path:
    """The file that a replica leaves once the teacher has answered it."""
    return steer / f"answered-{pid}"


async def _one(service: TeacherService, telemetry: Telemetry, id_: str, dice: random.Random) -> None:
    payload = text_of(id_).encode()
    workload = telemetry.spec.name
    entry = Input(
        workload=workload, id=id_, key=f"entity-{dice.randrange(ENTITIES)}", time=time.time(), payload=payload
    )
    headers = {"id": id_.encode()}
    try:
        headers |= (await asyncio.wait_for(service.label(id_, payload), TIMEOUT_SECONDS)).headers
        if headers.keys() != {"id"}:
            _answered(Path(os.environ["CHAOS_STEER"]), os.getpid()).touch()
    except Exception as error:  # it is published as ever, and the labeler asks
        print(f"{id_}: {type(error).__name__}: {error}", flush=True)
    student = Answer(arm="champion", version="1", ok=True, latency_ms=1.0, label="red", confidence=0.4)
    told = Prediction(
        workload=workload, request_id=id_, input_id=id_, key=entry.key, time=entry.time, content=content_hash(payload),
        answer=student, deferred=True,
    )  # fmt: skip
    telemetry.put(Served(entry, told, None, headers))


async def _run(service: TeacherService, telemetry: Telemetry) -> None:
    over, own, dice = asyncio.Event(), os.urandom(4).hex(), random.Random(os.getpid())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    asked, number = set(), 0
    while not over.is_set():
        task = asyncio.create_task(_one(service, telemetry, f"{PREFIX}{own}-{number}", dice))
        asked.add(task)
        task.add_done_callback(asked.discard)
        number += 1
        await asyncio.sleep(1 / RATE)
    await asyncio.gather(*asked)


class Replicas:
    """One replica after another, each killed after a while that ``seed`` decides."""

    def __init__(self, spec: Path, env: dict[str, str], logs: Path, seed: int) -> None:
        self.child = Child("replica", [sys.executable, "-m", "tests.chaos.replica", str(spec)], env, logs)
        self.kills = 0
        self._steer = Path(env["CHAOS_STEER"])
        self._dice = random.Random(f"replicas {seed}")
        self._until = math.inf

    @property
    def answered(self) -> bool:
        """Whether the teacher has answered the one that lives."""
        return self.child.pid is not None and _answered(self._steer, self.child.pid).exists()

    def tend(self) -> None:
        """Start one where there is none, and kill the one whose time has come."""
        if self.child.pid is None:
            self.kills += self.child.process is not None and self.child.process.returncode == -signal.SIGKILL
            self.child.start()
            self._until = math.inf
        elif self._until == math.inf and self.answered:
            self._until = time.monotonic() + self._dice.uniform(*LIFE_SECONDS)
        elif time.monotonic() > self._until:
            os.kill(self.child.pid, signal.SIGKILL)

    def spare(self) -> None:
        """Let the one that lives go on, or start one."""
        self._until = math.inf
        if self.child.pid is None:
            self.tend()

    def end(self) -> None:
        """Let the last one publish what it has, and end."""
        self.child.stop()


def main(argv: list[str]) -> int:
    die_with_parent()
    spec, settings = load_spec(argv[0]), Settings()
    telemetry = Telemetry(spec, lambda: open_broker(settings))
    telemetry.start()
    asyncio.run(_run(TeacherService(spec.source, settings=settings), telemetry))
    telemetry.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
