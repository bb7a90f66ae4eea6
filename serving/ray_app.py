"""The gateway as an application of Ray Serve.

It holds the gateways of all workloads, the routes of each below ``/<workload>``: a replica with Ray's own
libraries takes 130 MB, and what a workload adds to it a few.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from components.contracts.records import Input, SoftLabel
from components.contracts.settings import Settings
from components.contracts.spec import DeferTo, Spec
from serving.declaration import LOGGING, GatewayArgs, load

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from components.control.store import ControlStore
    from serving.gateway.answering import Gateway
    from serving.gateway.app import Beside, Front
    from serving.gateway.cascade import Ask
    from serving.gateway.entity import EntityReader
    from serving.gateway.reply import Reply
    from serving.replica.loaded_versions import LoadedVersions

log = logging.getLogger(__name__)

GATEWAY_REPLICA = "GatewayReplica"
"""Name of the deployment that answers, in each of our applications."""

CHAMPION_SECONDS = 120.0
"""How long a replica that starts waits for the students that it is to serve; each takes about two seconds."""

ON_DEMAND = {"min_replicas": 0, "initial_replicas": 0, "upscale_delay_s": 0.0, "downscale_delay_s": 600.0}
"""Of a teacher or expert behind the gateway: it has a process from the first question on, until none came for so long.
Most are never asked."""

BATCHES = 4
"""Batches of questions that one process of a teacher takes at once: those that wait are sorted by urgency there."""

REPLICA_CPUS = 0.1
"""What a replica reserves: a student's answer takes well under a millisecond, and small machines run many replicas."""

SWITCH_SECONDS = 0.0005
"""How long the event loop waits for a thread that computes (telemetry): a tenth of Python's default."""

REPLICA_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serving.gateway.shortcut:middlewares",
}
"""Of a gateway's replica alone. Its code never blocks, so it runs on the HTTP server's own event loop: a thread of its
own would cost two changes of thread for each request, and the shortcut answers on the server's loop anyway."""

SPARE = 64
"""Requests that Ray lets through beyond those that a replica takes: it is the replica that sheds, by urgency."""


class Service(NamedTuple):
    """Somebody who is asked behind the gateway of a workload."""

    workload: str
    to: DeferTo


def application(args: GatewayArgs) -> Any:
    """The application that ``args`` declare, for Serve to run.

    Replicas as many as the workload asks for that wants most, which take as many requests as all of them do.

    Raises:
        ConfigError: a workload cannot be loaded here, or a secret is missing.

    """
    from ray import serve

    from serving.teacher import DeclaredTeacher

    settings = args.in_force()
    specs = [load(one, settings) for one in args.workloads]
    actor = {"num_cpus": REPLICA_CPUS, "runtime_env": {"env_vars": {"OMP_NUM_THREADS": "1"}}}
    replica = {"num_cpus": REPLICA_CPUS, "runtime_env": {"env_vars": REPLICA_ENVIRONMENT}}
    services = [
        Service(spec.name, to)
        for spec in specs if args.teacher and spec.serve.defers
        for to in spec.serve.deferral.to if to != "review"
    ]  # fmt: skip

    @serve.deployment(
        name=GATEWAY_REPLICA,
        num_replicas=args.replicas or max(spec.serve.replicas for spec in specs),
        ray_actor_options=replica,
        max_ongoing_requests=sum(spec.serve.max_under_way for spec in specs) + SPARE,
        logging_config=LOGGING,
    )
    @serve.ingress(_builder(args, services))
    class GatewayReplica:
        """One replica of the gateway."""

        def __init__(self, *handles: Any) -> None:
            keep_handles(dict(zip(services, handles, strict=True)))

    gateway: Any = GatewayReplica
    declared = {one.name: one for one in args.workloads}
    by_name = {spec.name: spec for spec in specs}

    def service(s: Service) -> Any:
        """Its questions come in batches: one more process is for more than a batch of them under way."""
        spec = by_name[s.workload]
        scaling = {
            **ON_DEMAND, "max_replicas": spec.serve.deferral.replicas, "target_ongoing_requests": spec.label.batch
        }  # fmt: skip
        return serve.deployment(
            DeclaredTeacher, name=f"{s.to}-of-{s.workload}", autoscaling_config=scaling, ray_actor_options=actor,
            max_ongoing_requests=BATCHES * spec.label.batch,
        ).bind(declared[s.workload], s.to == "expert", args)  # fmt: skip

    return gateway.bind(*(service(s) for s in services))


def _builder(args: GatewayArgs, services: Sequence[Service]) -> Callable[[], ASGIApp]:
    """A function that builds the application in the replica's own process, with that process's settings."""

    def replica_app() -> ASGIApp:
        from components.control.store import ControlStore
        from components.process import long_lived
        from components.telemetry import tracing
        from serving.gateway.app import side_by_side

        sys.setswitchinterval(SWITCH_SECONDS)
        tracing.configure(os.environ, "cohobate-gateway")
        settings = args.in_force()
        store = ControlStore.open(settings.control_url)
        fronts, versions, gateways = {}, [], []
        for one in args.workloads:
            asks = {s.to: _asker(s) for s in services if s.workload == one.name}
            made = _workload_app(load(one, settings), settings, store, asks, args.route(one.name))
            fronts[one.name] = made.front
            versions.append(made.versions)
            gateways.append(made.gateway)
        _await_champions(versions)
        long_lived()
        return side_by_side(fronts, apart=args.apart, beside=_grpc(settings, gateways))

    return replica_app


def _await_champions(all_versions: Sequence[LoadedVersions]) -> None:
    """Wait until the replica can answer what it is asked: Serve sends it requests as soon as it was built.

    Without this a replica that takes the place of another answers that it has no champion, for as long as one takes to
    be tried and loaded. One that cannot be loaded is not waited for, nor one that takes too long.
    """
    deadline = time.monotonic() + CHAMPION_SECONDS
    for versions in all_versions:
        while not versions.settled:
            if time.monotonic() > deadline:
                log.warning("%s: its champion is still being loaded", versions.spec.name)
                break
            time.sleep(0.02)


class Part(NamedTuple):
    """One workload's part of a replica."""

    front: Front
    versions: LoadedVersions
    gateway: Gateway


def _grpc(settings: Settings, gateways: Sequence[Gateway]) -> Beside | None:
    """The server of the Open Inference Protocol over gRPC, where there is to be one."""
    if not settings.gateway_grpc_port:
        return None
    from serving.gateway.oip_grpc import served

    return partial(served, gateways, settings.gateway_host, settings.gateway_grpc_port)


def _workload_app(spec: Spec, settings: Settings, store: ControlStore, asks: Mapping[DeferTo, Ask], route: str) -> Part:
    """One workload's part of a replica, whose routes begin with ``route``."""
    from components.stream import open_broker
    from components.telemetry import tracing
    from components.telemetry.endpoint import Health, exposed
    from serving.gateway import shortcut
    from serving.gateway.app import PREDICT, Gateway, create_app
    from serving.gateway.asynchronous import Later
    from serving.gateway.cascade import people
    from serving.gateway.edge import Edges
    from serving.gateway.telemetry import Telemetry
    from serving.replica.admission import Admission
    from serving.replica.loaded_versions import LoadedVersions

    versions = LoadedVersions(spec, store, trial=Admission(spec, store, settings.artifact_policy))
    telemetry = Telemetry(spec, lambda: open_broker(settings))
    if "review" in spec.serve.deferral.to:
        asks = {**asks, "review": people(store, versions)}
    entities = _entities(spec, settings)
    gateway, opened = Gateway(spec, versions, telemetry, asks, entities=entities), contextlib.ExitStack()

    def stop() -> None:
        shortcut.forget(f"{route}{PREDICT}")
        versions.stop()
        telemetry.stop()
        if entities is not None:
            entities.stop()
        tracing.shutdown()
        opened.close()

    versions.follow()
    versions.start()
    telemetry.start()
    health = Health()
    health.ready()
    own_port = settings.model_copy(update={"metrics_port": 0})  # several replicas may share a node
    opened.enter_context(exposed(own_port, "gateway", spec.name, gateway.metrics.registry, health))
    asynchronous = spec.serve.asynchronous
    later = Later(gateway, store, asynchronous, settings.secret("callback_secret")) if asynchronous else None
    app = create_app(gateway, on_stop=stop, later=later, edges=Edges(gateway, store, settings.artifacts))
    shortcut.answer(f"{route}{PREDICT}", app.predict)
    return Part(app, versions, gateway)


def _entities(spec: Spec, settings: Settings) -> EntityReader | None:
    """What tells the gateway of entities; Feast is imported for workloads alone that name features of them."""
    if spec.features.entity is None:
        return None
    from components.snapshot.entity_store import entity_store
    from serving.gateway.entity import EntityReader

    store = entity_store(spec, settings.artifacts)
    if store is None:
        return None
    reader = EntityReader(store)
    reader.start()
    return reader


_HANDLES: dict[Service, Any] = {}
"""Handles of those that are asked, in the replica's process: known only once the application was built."""


def keep_handles(handles: Mapping[Service, Any]) -> None:
    """Keep handles in this process: a class that Ray pickles has a copy of its module's dictionaries."""
    _HANDLES.update(handles)


def _asker(service: Service) -> Ask:
    async def ask(entry: Input, student: SoftLabel, urgency: int, need: float, version: str) -> Reply:
        asked = _HANDLES[service].label.remote(entry.id, entry.payload, urgency, need, student.label, version)
        reply: Reply = await asked
        return reply

    return ask
