"""The whole platform on one machine: broker, gateway, controllers with the admin API, monitors, and labelers.

Gateway, controllers and monitors are one process each, however many workloads there are; each labeler is one.

The supervisor (``python -m infra.stack``) starts them in the order of :meth:`Stack.start`, restarts what dies, and
takes everything down on SIGTERM. ``cohobate up`` runs it in the background; its state is ``<home>/platform.json``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil

from components.contracts.errors import CohobateError, ConfigError, UnavailableError
from components.contracts.reference import parse
from components.contracts.settings import Settings, reached
from components.contracts.spec import Spec, load_spec
from components.control.store import ControlStore
from components.stream.restored import copy_of
from infra import changes
from infra.migrate import migrate
from infra.processes import Child, die_with_parent, last_line, progress_marks, stop_all
from infra.specs import prepared, record
from infra.state import PlatformState as PlatformState
from infra.state import read_state as read_state
from infra.worker import TOGETHER, TRY_AGAIN
from serving.ray_environment import RAY_ENDS_SECONDS, end_orphans

log = logging.getLogger("cohobate")

QUIET_SECONDS = 180.0
"""How long nothing may move while the gateway is on its way up before that is given up. Ray and Serve need 12 to 20 s
on two cores; on a busy machine one step of it, such as an import, can take a minute without a sign."""

TRIES = 5
"""How often a worker is started anew that says that it may help: on a busy machine Ray does not start in its 30 s."""

LOOK_SECONDS = 0.5
"""How often it is looked for progress."""

STOP_SECONDS = 180.0
"""How long a supervisor may take to end before it is killed: its workers' time, and then that of the broker's copy."""

Progress = Callable[[str], None]


class Stack:
    """The processes of one platform. Use as a context manager, or ``start`` and ``stop``."""

    def __init__(self, settings: Settings, specs: Sequence[Spec], progress: Progress = log.info) -> None:
        names = [s.name for s in specs]
        if not specs or len(set(names)) != len(names):
            raise ConfigError("specs", names, "need at least one workload, each with a name of its own")
        self.settings, self.specs, self.progress = settings, list(specs), progress
        self.children: list[Child] = []
        self._broker: Any = None
        self._started_at = time.time()

    def start(self) -> None:
        """Start everything, in this order, and return when the gateway answers.

        1. Check that the ports are free.
        2. Start the gateway, which takes longest: its Ray comes up beside the next steps, and it deploys after them.
        3. Bring the control database to its newest schema, after a backup of it, and register the workloads there.
        4. Start the embedded broker, with the records that it had, unless the settings name a Kafka.
        5. Create the workloads' topics.
        6. Start the workers.
        7. Wait until every workload's gateway is alive, for as long as something moves.

        Raises:
            UnavailableError: a port is taken, a process died, or something did not come up.
        """
        from components.stream import open_broker

        settings = self.settings
        logs = settings.home / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        # Step 1
        if not settings.ray_address:  # else Serve may answer there for others, and goes on
            end_orphans(settings.gateway_port)
            _require_free(settings.gateway_port, "gateway", "COHOBATE_GATEWAY_PORT", reached(settings.gateway_host))
        if settings.admin_host and settings.admin_port:
            _require_free(settings.admin_port, "admin API", "COHOBATE_ADMIN_PORT")
        if not settings.bootstrap_servers:
            _require_free(settings.broker_port, "embedded broker", "COHOBATE_BROKER_PORT")
        # Step 2
        env = {**settings.environment(), "PYTHONUNBUFFERED": "1", "RAY_USAGE_STATS_ENABLED": "0"}
        worker = [sys.executable, "-m", "infra.worker"]
        gateway = Child("gateway", [*worker, "gateway", *(s.source for s in self.specs)], env, logs)
        self.children.append(gateway)
        gateway.start()
        # Step 3
        self.progress("control database")
        migrate(settings.control_url, None)
        self._register()
        # Step 4
        if not settings.bootstrap_servers:
            from infra.broker import EmbeddedBroker

            self.progress("embedded broker (Kafka protocol) and its records of before")
            self._broker = EmbeddedBroker(settings.broker_port, logs / "broker.log", copy_of(settings))
            self._broker.start()
        # Step 5
        self.progress(f"topics on {settings.kafka}")
        broker = open_broker(settings)
        for spec in self.specs:
            broker.ensure_topics(spec.topics, partitions=spec.partitions)
        self.write_state(ready=False, stream=True)
        # Step 6
        one_thread = {**env, "OMP_NUM_THREADS": "1"}
        for role in TOGETHER:
            self.children.append(Child(role, [*worker, role, *(s.source for s in self.specs)], one_thread, logs))
        for spec in self.specs:
            for name in _labelers(spec):
                own = {**one_thread, "COHOBATE_WORKER": name}
                self.children.append(Child(f"{spec.name}-{name}", [*worker, "labeler", spec.source], own, logs))
        for child in self.children[1:]:
            child.start()
        # Step 7
        self.progress("Ray Serve gateway")
        self._await_gateway()
        self.write_state(ready=True, stream=True)

    def _register(self) -> None:
        """Make what was prepared the versions in force."""
        with contextlib.closing(ControlStore.open(self.settings.control_url)) as store:
            for spec in self.specs:
                if parse(spec.source) is not None:
                    record(store, self.settings, spec, "the platform was started with it")

    def _await_gateway(self) -> None:
        """Wait while there is progress: a line in a log, a process that begins or ends, a workload that answers.

        Raises:
            UnavailableError: a process died (its reason is its log's last line), or nothing moved for too long.
        """
        waiting = [f"{self.settings.gateway}/{s.name}/healthz" for s in self.specs]
        seen, moved, said = progress_marks(self.children), time.monotonic(), ""
        looked = moved
        with httpx.Client(timeout=2.0, trust_env=False) as client:
            while waiting:
                self._require_alive()
                with contextlib.suppress(httpx.TransportError):
                    if client.get(waiting[0]).status_code == httpx.codes.OK:
                        waiting.pop(0)
                        moved = time.monotonic()
                        continue
                time.sleep(0.2)
                if time.monotonic() - looked < LOOK_SECONDS:
                    continue
                looked = time.monotonic()
                if (now := progress_marks(self.children)) != seen:
                    seen, moved = now, looked
                log_file = self.children[0].log
                if (doing := self.children[0].said) != said:
                    said = doing
                    self.progress(f"Ray Serve gateway: {doing}")
                if looked - moved > QUIET_SECONDS:
                    remedy = f"nothing moved for {QUIET_SECONDS:.0f} s; last it said: {doing} (its log: {log_file})"
                    raise UnavailableError("gateway", waiting[0], remedy)

    def _require_alive(self) -> None:
        for child in self.children:
            ended = child.ended
            if ended == TRY_AGAIN and child.restarts < TRIES:
                child.tend()
            elif ended is not None:
                remedy = f"it ended with {ended}: {child.said or 'it said nothing'} (its log: {child.log})"
                raise UnavailableError(child.name, "this machine", remedy)

    def tend(self) -> None:
        """Restart what died."""
        if self._broker is not None:
            self._broker.tend()
        for child in self.children:
            child.tend()

    def restart(self, workload: str, roles: Sequence[str], source: str) -> None:
        """End the processes that do a workload's work of these roles cleanly, and start them with the spec ``source``.

        One that does the work of all workloads is started anew for all of them. The others get it when they are
        started anew.
        """
        before = {spec.source for spec in self.specs if spec.name == workload}
        self.specs = [load_spec(source, self.settings) if s.name == workload else s for s in self.specs]
        for child in self.children:
            child.argv = [source if argument in before else argument for argument in child.argv]
            parts = TOGETHER.get(child.name) or (child.name.removeprefix(f"{workload}-").rstrip("-0123456789"),)
            if not set(parts).isdisjoint(roles):
                log.info("%s: starting it anew with the changed spec", child.name)
                child.stop()
                child.start()
        self.write_state(ready=True, stream=True)

    def write_state(self, ready: bool, *, stream: bool = False, error: str | None = None) -> None:
        """Write ``platform.json``."""
        state = PlatformState(
            pid=os.getpid(),
            started_at=self._started_at,
            gateway=self.settings.gateway,
            kafka=self.settings.kafka,
            specs=tuple(s.source for s in self.specs),
            ready=ready,
            stream=stream,
            children={c.name: c.pid for c in self.children},
            embedded_broker=not self.settings.bootstrap_servers,
            error=error,
        )
        path = self.settings.home / "platform.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".tmp").write_bytes(msgspec.json.format(msgspec.json.encode(state)))
        path.with_suffix(".tmp").replace(path)

    def stop(self) -> None:
        """Stop the workers, then the broker, which keeps its records."""
        stop_all(self.children)
        if self._broker is not None:
            self._broker.stop()
        if self.children and not self.settings.ray_address:
            end_orphans(self.settings.gateway_port, RAY_ENDS_SECONDS)

    def __enter__(self) -> Stack:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _labelers(spec: Spec) -> Iterator[str]:
    """The names of a workload's labelers, which are the same after a restart."""
    yield "labeler"
    for number in range(2, spec.label.workers + 1):
        yield f"labeler-{number}"


def _require_free(port: int, what: str, setting: str, host: str = "127.0.0.1") -> None:
    try:
        socket.create_connection((host, port), timeout=5.0).close()
    except OSError:
        return
    raise UnavailableError(what, f"{host}:{port}", f"the port is taken; free it or set {setting}")


def up(
    settings: Settings,
    specs: Sequence[str],
    progress: Progress,
    *,
    bound: bool = False,
    on_stream: Callable[[], None] = lambda: None,
) -> PlatformState:
    """Start the supervisor in the background and wait until the platform is ready.

    With ``bound`` the platform ends when the calling process does, however that ends. ``on_stream`` is called once
    the topics are there, while the gateway is still on its way up.

    Raises:
        UnavailableError: a platform of this home runs already, or it did not come up.
    """
    state = read_state(settings)
    if state is not None and state.alive:
        raise UnavailableError("platform", str(settings.home), "it runs already: 'cohobate down' stops it")
    (settings.home / "platform.json").unlink(missing_ok=True)
    specs = [prepared(settings, spec).source for spec in specs]
    logs = settings.home / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / "supervisor.log").open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "infra.stack", *(["--bound"] if bound else []), *specs],
            env={**os.environ, **settings.environment()},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        return _await_ready(settings, process, progress, logs / "supervisor.log", on_stream)
    except BaseException:
        _end(process.pid)
        raise


def _await_ready(
    settings: Settings,
    process: subprocess.Popen[bytes],
    progress: Progress,
    log_file: Path,
    on_stream: Callable[[], None],
) -> PlatformState:
    said, streaming = "", False
    while True:  # the supervisor knows when to give up
        state = read_state(settings)
        if state is not None and state.pid == process.pid:
            if state.stream and not streaming:
                streaming = True
                on_stream()
            if state.ready:
                return state
            if state.error:
                raise UnavailableError("platform", str(settings.home), state.error)
        if process.poll() is not None:
            remedy = f"its supervisor ended: {last_line(log_file)} (its log: {log_file})"
            raise UnavailableError("platform", str(settings.home), remedy)
        stage = _last_stage(log_file)
        if stage and stage != said:
            progress(said := stage)
        time.sleep(0.1)


STAGE = "starting: "


def _last_stage(log_file: Path) -> str:
    lines = [line for line in log_file.read_text(errors="replace").splitlines() if STAGE in line]
    return lines[-1].split(STAGE, 1)[1] if lines else ""


def down(settings: Settings) -> bool:
    """Stop the platform of this home; returns whether one ran."""
    state = read_state(settings)
    if state is None or not state.alive:
        return False
    _end(state.pid)
    return True


def _end(pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except psutil.TimeoutExpired:
            process.kill()


def wipe(settings: Settings) -> None:
    """Delete everything that the platform of this home wrote.

    Raises:
        UnavailableError: it still runs.
    """
    state = read_state(settings)
    if state is not None and state.alive:
        raise UnavailableError("platform", str(settings.home), "it runs: 'cohobate down' first")
    shutil.rmtree(settings.home, ignore_errors=True)


def main(argv: Sequence[str]) -> int:
    """The supervisor: start the stack, restart what dies, take everything down on SIGTERM or SIGINT.

    ``--bound`` as the first argument ends it with the process that started it.
    """
    specs = [a for a in argv if a != "--bound"]
    if len(specs) < len(argv):
        die_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("kafka").setLevel(logging.WARNING)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _raise_interrupt)
    stack = Stack(Settings(), [load_spec(s) for s in specs], lambda stage: log.info("%s%s", STAGE, stage))
    stack.write_state(ready=False)
    changes.done(stack.settings)  # asked of a platform that ended before it could
    try:
        with stack:
            log.info("ready: %s", stack.settings.gateway)
            while True:
                time.sleep(0.5)
                before = [c.pid for c in stack.children]
                if asked := changes.requested(stack.settings):
                    stack.restart(asked.workload, asked.roles, asked.spec)
                    changes.done(stack.settings)
                stack.tend()
                if before != [c.pid for c in stack.children]:
                    stack.write_state(ready=True, stream=True)
    except CohobateError as error:
        stack.write_state(ready=False, error=str(error))
        log.error("%s", error)
        return 1
    except KeyboardInterrupt:
        log.info("stopped")
    return 0


def _raise_interrupt(*_: object) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
