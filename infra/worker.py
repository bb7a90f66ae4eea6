"""One worker of the local stack: ``python -m infra.worker ROLE SPEC [SPEC...]``.

Roles: ``labeler``, ``controller``, ``monitor`` and ``trigger`` serve one workload. ``gateway`` and ``admin`` (the
admin API and the notices) serve all of them, and so do ``controllers`` (the controllers and what ``admin`` does) and
``monitors`` (monitors and triggers): one process instead of several for each workload, as a machine of its own runs
them. The controllers are apart from the monitors, whose decoders are the users' and whose statistics take long: a
rollback waits for neither. A labeler has a process of its own, since a teacher may do anything.
Every role ends cleanly on SIGTERM, and by itself when the supervisor that started it dies.

``SPEC`` is ``workload:NAME`` (the registry's version in force when the worker starts), ``workload:NAME@DIGEST``, or the
path of a spec file.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client import CollectorRegistry
from sqlalchemy.exc import SQLAlchemyError

from components.contracts.errors import CohobateError, UnavailableError
from components.contracts.settings import Settings
from components.contracts.spec import Spec, load_spec
from components.control.links import rollback_link
from components.control.store import ControlStore
from components.control.workloads import pinned
from components.process import long_lived, without
from components.telemetry import tracing
from components.telemetry.endpoint import Health, exposed
from components.telemetry.metrics import GaugesOfStore, LinkOfStore
from infra.processes import die_with_parent
from infra.state import read_state
from infra.together import Task, run_together

if TYPE_CHECKING:
    from pipelines.forked import Warm

log = logging.getLogger("cohobate")


SWITCH_SECONDS = 0.0005
"""How long a task waits for another one's thread that computes: a tenth of Python's default."""

REPORT_SECONDS = 1.0
"""How often a labeler reports its counts where they change; a change of its state at once, or so much later where
nothing changed before."""

SAME_SECONDS = 10.0
"""How old its report may be where nothing changed."""


class Watch(NamedTuple):
    """What a role says of itself while it works: see :mod:`components.telemetry`."""

    registry: CollectorRegistry
    health: Health


@contextlib.contextmanager
def watched(role: str, spec: Spec, settings: Settings) -> Iterator[Watch]:
    """Answer Prometheus and health checks while the block runs."""
    watch = Watch(CollectorRegistry(), Health())
    with exposed(settings, role, spec.name, watch.registry, watch.health) as address:
        log.info("%s of %s: metrics at %s", role, spec.name, address or "nowhere")
        try:
            yield watch
        finally:
            watch.health.not_ready("stopping")


def label(spec: Spec, settings: Settings, stop: threading.Event, watch: Watch) -> None:
    """Run a labeler beside others of its workload, and report its counts, lag and state as a gauge of its name.

    Positions that the broker lost raise an alarm of the kind ``lost_positions``.
    """
    from components.control.leases import Leases
    from components.label.assembly import assemble
    from components.stream import open_broker
    from components.telemetry.metrics import LabelerMetrics

    store, name = _control(settings.control_url), settings.worker or "labeler"
    leases = Leases(store, spec.name, settings.worker)
    metrics = LabelerMetrics(spec.name, watch.registry)
    labeler = assemble(spec, settings, store, open_broker(settings), leases=leases, metrics=metrics)
    long_lived()
    reported: dict[str, Any] = {}
    said: dict[str, Any] = {}
    seen: dict[str, Any] = {}
    at, looked, still, lost = 0.0, 0.0, False, 0

    def report() -> None:
        nonlocal reported, said, seen, at, looked, still, lost
        watch.health.beat()
        if still and time.monotonic() - looked < REPORT_SECONDS:
            return
        value = labeler.gauge()
        seen, still, looked = value, value == seen, time.monotonic()
        if value["ready"]:
            watch.health.ready()
        else:
            watch.health.not_ready(str(value["paused"]) or "joining")
        state = {name: value[name] for name in ("paused", "ready", "shares")}
        old = time.monotonic() - at
        if state == reported and (old < REPORT_SECONDS or (value == said and old < SAME_SECONDS)):
            return
        reported, said, at = state, value, time.monotonic()
        with contextlib.suppress(SQLAlchemyError):  # a gauge that is late stops no labelling
            store.put_gauge(spec.name, name, value)
            if int(value["lost_positions"]) > lost:
                store.raise_alarm(spec.name, "lost_positions", 0, {"worker": name, **value})
                lost = int(value["lost_positions"])

    labeler.run(stop, on_batch=report)


IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
"""Of MLflow's client in a controller, unless the environment says otherwise. It would ask a server that is away for
minutes (7 times, 120 s each), and a rollback would wait behind it; the controller asks again by itself."""


def control(spec: Spec, settings: Settings, stop: threading.Event, watch: Watch) -> None:
    """Run a rollout controller: it leads the workload, or stands by while another one does."""
    from components.registry.registry import Registry
    from components.stream import open_broker
    from serving.control.controller import Controller
    from serving.control.leader import lead
    from serving.replica.admission import Admission

    os.environ.update({name: os.environ.get(name, value) for name, value in IMPATIENT.items()})
    store, registry = _control(settings.control_url), Registry(settings)
    trial = Admission(spec, store, settings.artifact_policy)
    registry.open(spec.name)
    long_lived()
    watch.health.ready()
    lead(
        store,
        spec.name,
        lambda: Controller(
            spec, store, registry, open_broker(settings), settings.artifacts, trial=trial, vouch=trial.vouch
        ),
        term=settings.leader_seconds,
        stop=stop,
        on_tick=watch.health.beat,
        stalled=lambda: watch.health.stalled is not None,
    )


def monitor(spec: Spec, settings: Settings, stop: threading.Event, watch: Watch) -> None:
    """Run the drift and entropy monitors; its metrics include what all workers of the workload reported, and its state.

    So whoever watches the controllers is another process than they are.
    """
    from components.stream import open_broker
    from pipelines.monitor import Monitor
    from serving.control.facts import read_facts
    from serving.control.metrics import FactsOfStore

    store = _control(settings.control_url)
    watch.registry.register(GaugesOfStore(spec.name, lambda: {n: g.value for n, g in store.gauges(spec.name).items()}))
    watch.registry.register(
        FactsOfStore(
            spec.name, lambda: read_facts(store, spec.name, store.clock(), leader_term=settings.leader_seconds)
        )
    )
    watch.registry.register(LinkOfStore(spec.name, lambda: rollback_link(store, spec.name)))
    worker = Monitor(spec, store, open_broker(settings))
    watch.health.ready()
    worker.run(stop)


def trigger(spec: Spec, settings: Settings, stop: threading.Event, watch: Watch) -> None:
    """Run the trigger, which starts ``continual`` when it pays."""
    from components.forget.retention import Sweeper
    from components.stream import open_broker
    from components.stream.kafka import KafkaBroker
    from pipelines.trigger import Trigger

    store = _control(settings.control_url)
    sweeper = Sweeper(settings, store, KafkaBroker(settings) if settings.bootstrap_servers else None)
    if settings.updates == "kfp":
        from pipelines.installation import completed
        from pipelines.updates import KubeflowUpdates

        remote = KubeflowUpdates(spec.name, store, completed(settings))
        remote.check(spec.source)
        watch.health.ready()
        Trigger(spec, store, open_broker(settings), remote=remote, sweeper=sweeper).run(stop)
        return
    warm = _warm(settings.home.resolve())
    worker = Trigger(spec, store, open_broker(settings), warm=warm, sweeper=sweeper)
    watch.health.ready()
    try:
        worker.run(stop)
    finally:
        if stop.is_set():  # else this trigger is started anew, and others go on with it
            warm.stop()


STREAM_SECONDS = 0.1
"""How often it is looked whether the stream is there."""

NODE_IS_LATE = "timed out during startup"
"""What Ray says when its node took longer than the 30 s that it gives it, which cannot be set."""

TRY_AGAIN = 75
"""Exit code of a worker that another try may help (EX_TEMPFAIL of sysexits.h): so far, of a Ray that was late."""


class RayIsLateError(UnavailableError):
    """The machine is too busy for Ray to start in the time that it has for that."""


def serve(specs: Sequence[Spec], settings: Settings, stop: threading.Event) -> None:
    """Start Ray (or join the cluster that the settings name) and serve every workload's gateway until stopped.

    On a Ray of our own everything ends with us; on another's our applications alone.
    """
    from components.contracts.ray_access import access, last_line
    from serving.declaration import Workload, declared, serve_config
    from serving.ray_environment import QUIET, RAY_ENDS_SECONDS, end_orphans, environment
    from serving.ray_light import SETUP, import_serve

    shared = bool(settings.ray_address)
    os.environ.update(access(settings, os.environ))
    controller = environment(settings, haproxy=settings.gateway_proxy == "haproxy" if shared else None)
    log.info("importing Ray")
    if not shared:
        os.environ.update(controller | QUIET)
        end_orphans(settings.gateway_port, RAY_ENDS_SECONDS)
    import_serve()
    import ray

    from serving.ray_cluster import deployed, require_node

    args = declared(settings, [Workload.of(spec) for spec in specs])
    config = serve_config(settings, [args], controller if shared else {})
    log.info("joining or starting a Ray cluster")
    try:
        if shared:
            require_node(settings.ray_address)
            ray.init(address=settings.ray_address, log_to_driver=False)
        else:
            with _without_surplus():
                ray.init(
                    address="local",  # else it joins whatever cluster was started here last, if only by its name
                    num_cpus=max(2, os.cpu_count() or 2),
                    object_store_memory=128 * 1024 * 1024,
                    include_dashboard=False,
                    log_to_driver=False,
                    configure_logging=False,
                    _node_ip_address="127.0.0.1",
                    runtime_env={"worker_process_setup_hook": SETUP},
                )
    except ConnectionError as error:  # of a Ray client
        remedy = f"no client server takes us in ({last_line(error)}): see COHOBATE_RAY_ADDRESS"
        raise UnavailableError("Ray", settings.ray_address, remedy) from error
    except Exception as error:  # Ray raises no class of its own for it
        if NODE_IS_LATE not in str(error):
            raise
        raise RayIsLateError("Ray", "this machine", f"{NODE_IS_LATE}; Ray gives it 30 s and no more") from error
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)  # Ray's own handlers abort the process where that takes longer than 3 s
    try:
        await_stream(settings, stop)
        with deployed(config, shared=shared):
            end_on_signals(stop)
            stop.wait()
    finally:
        ray.shutdown()


def _leave(*_: object) -> None:
    """End what goes on, and clean up."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    raise SystemExit(0)


def await_stream(settings: Settings, stop: threading.Event) -> None:
    """Wait until the supervisor that started this process has the control database and the topics ready.

    Who was started otherwise waits for nothing.
    """
    while not stop.is_set():
        state = read_state(settings)
        if state is None or state.pid != os.getppid() or state.stream:
            return
        stop.wait(STREAM_SECONDS)


SURPLUS = ("api_server", "monitor", "log_monitor")
"""Processes of a Ray's head that serve nobody here: the API server, which is started without a dashboard too, the
autoscaler of a cluster that has one machine, and the one that sends logs to a driver that does not want them."""


@contextlib.contextmanager
def _without_surplus() -> Iterator[None]:
    """Have a Ray that is started in the block start none of what it has no setting for.

    That is 240 MB, and 3 s of processor time on the way to the first answer: it waits for its API server's address.
    What is not found there is started.
    """
    from ray._private.node import Node

    kept = {}
    for name in (f"start_{one}" for one in SURPLUS):
        if not hasattr(Node, name):
            log.warning("this version of Ray has no %s: it starts all that it has", name)
            continue
        kept[name] = getattr(Node, name)
        setattr(Node, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for name, method in kept.items():
            setattr(Node, name, method)


def administer(settings: Settings, stop: threading.Event) -> None:
    """Serve the admin API, and send notices, until stopped."""
    from components.notify.notifier import Notifier
    from components.notify.webhooks import webhooks_of
    from infra.console_pipelines import LocalPipelines
    from serving.admin.app import create_app
    from serving.admin.server import served

    store = _control(settings.control_url)
    notifier = Notifier(store, webhooks_of(settings))
    with LocalPipelines(settings) as pipelines:
        app = create_app(settings, store=store, pipelines=pipelines)
        counting = threading.Thread(target=app.state.traffic.run, args=(stop,), name="traffic", daemon=True)
        counting.start()
        with served(app, settings) as url:
            log.info("admin API at %s, console at %s/console", url, url)
            notifier.run(stop)
        counting.join()


@functools.cache
def _warm(home: Path) -> Warm:
    """The fork server, which all triggers of a process share."""
    from pipelines.forked import Warm

    return Warm(home)


@functools.cache
def _control(url: str) -> ControlStore:
    """The control database, which all tasks of a process share."""
    return ControlStore.open(url)


WORKLOAD_ROLES: dict[str, Callable[[Spec, Settings, threading.Event, Watch], None]] = {
    "labeler": label,
    "controller": control,
    "monitor": monitor,
    "trigger": trigger,
}
"""The roles that every workload has: each in a process of its own, or together with others."""

TOGETHER = {"controllers": ("controller",), "monitors": ("monitor", "trigger")}
"""Roles of a platform that stand for roles of all its workloads."""

PLATFORM_ROLES = ("gateway", "admin", *TOGETHER)
"""The roles that a platform has one process of."""


def work(role: str, spec: Spec, settings: Settings, stop: threading.Event) -> None:
    """One role of one workload, until stopped."""
    with watched(role, spec, settings) as watch:
        WORKLOAD_ROLES[role](spec, settings, stop, watch)


def work_together(role: str, specs: Sequence[Spec], settings: Settings, stop: threading.Event) -> None:
    """The roles that ``role`` stands for, of all workloads, in this process, until stopped."""
    sys.setswitchinterval(SWITCH_SECONDS)
    tasks: dict[str, Task] = {
        f"{spec.name}-{part}": functools.partial(work, part, spec, settings)
        for part in TOGETHER[role]
        for spec in specs
    }
    if role == "controllers":
        from components.registry.registry import Registry

        with without("pandas", "scipy"):  # MLflow takes them where they are there, for models and data sets
            Registry(settings).open(specs[0].name)
        if settings.admin_host:
            tasks["admin"] = functools.partial(administer, settings)
    run_together(tasks, stop)


def end_on_signals(stop: threading.Event) -> None:
    """Set ``stop`` on SIGTERM and SIGINT."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())


def main(argv: Sequence[str]) -> int:
    """Run one role until SIGTERM. Exit codes: 0 ended as asked, 1 failed, 2 wrong arguments."""
    roles = (*WORKLOAD_ROLES, *PLATFORM_ROLES)
    if not argv or argv[0] not in roles or (len(argv) < 2 and argv[0] != "admin"):
        sys.stderr.write(f"usage: python -m infra.worker {'|'.join(roles)} SPEC...\n")
        return 2
    die_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for chatty in ("alembic", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # hundreds of lines an outage; what matters is raised
    stop = threading.Event()
    end_on_signals(stop)
    role, settings = argv[0], Settings()
    specs = [load_spec(pinned(given, settings), settings) for given in argv[1:]]
    tracing.configure(os.environ, f"cohobate-{role}")
    try:
        if role == "gateway":
            serve(specs, settings, stop)
        elif role == "admin":
            administer(settings, stop)
        elif role in TOGETHER:
            work_together(role, specs, settings, stop)
        else:
            work(role, specs[0], settings, stop)
    except RayIsLateError as error:
        log.warning("%s", error)
        return TRY_AGAIN
    except CohobateError:
        log.exception("%s stopped", role)
        return 1
    finally:
        tracing.shutdown()
        _control(settings.control_url).close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
