"""Deploying on a Ray cluster, ours or another's: what is there is looked at first, and what is ours ends with us."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from components.contracts.errors import AccessError, ConfigError, UnavailableError
from components.contracts.ray_access import JOBS_API
from components.contracts.settings import is_loopback
from serving.declaration import LOGGING, GatewayArgs
from serving.ray_app import GATEWAY_REPLICA, application

log = logging.getLogger(__name__)

NODE_SECONDS = 10.0
"""How long a cluster may take to say which nodes it has."""

END_SECONDS = 15.0
"""How long the end of an application is waited for, within the time that a supervisor gives a process."""

STATUS_SECONDS = 1.0
"""How often Serve is asked for its replicas' states while it deploys."""


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
