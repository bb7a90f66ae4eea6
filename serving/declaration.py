"""The gateway as a declaration: what Ray Serve is told to run, as data without a secret in it.

``cohobate serve config`` prints it for ``serve deploy`` and for ``serveConfigV2`` of a RayService; the platform on one
machine deploys the very same. Secrets never go into it, since Serve keeps it in Ray's control service, shows it to
whoever asks for its state and logs it: only their names do, and each node has the values in its own environment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from components.contracts.errors import ConfigError
from components.contracts.reference import Reference
from components.contracts.settings import Settings
from components.contracts.spec import Spec, load_spec

IMPORT_PATH = "serving.app:build"
"""What Serve calls with :class:`GatewayArgs` to get the application."""

LOGGING = {"log_level": "WARNING", "enable_access_log": False}
"""No line in a file for each request: metrics count them, and the stream has each answer."""

NOT_READ = (
    "actor", "admin_", "evidently_", "gateway_application", "gateway_port", "gateway_prefix", "gateway_proxy", "kfp_",
    "leader_", "ray_", "tracking_uri", "wandb_", "webhooks", "worker", "workload_max", "workload_signing",
)  # fmt: skip
"""How settings begin that no replica reads: a change of them is no reason to replace the replicas."""


class Workload(BaseModel):
    """A workload as the declaration names it: by the digest of a version that was applied, or by a spec file's path."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    digest: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Of the bundle that each node loads from the artifact root."""
    spec: str | None = None
    """Path of the spec file, where every node has it, with the code that it names, at the same one."""

    @model_validator(mode="after")
    def _is_in_one_place(self) -> Workload:
        if (self.digest is None) == (self.spec is None):
            raise ValueError("a workload is named by its digest, or by the path of its spec")
        return self

    @classmethod
    def of(cls, spec: Spec) -> Workload:
        """The workload of a spec, as it was loaded."""
        if spec.bundle is None:
            return cls(name=spec.name, spec=spec.source)
        return cls(name=spec.name, digest=spec.bundle)

    @property
    def source(self) -> str:
        """Where the spec is loaded from: ``workload:NAME@DIGEST``, or the path."""
        return str(Reference(self.name, self.digest)) if self.spec is None else self.spec


class GatewayArgs(BaseModel):
    """The arguments of :func:`serving.app.build`: everything that tells one gateway from another."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workloads: tuple[Workload, ...] = Field(min_length=1)
    replicas: int | None = Field(default=None, ge=1)
    """None: as many as the workload asks for that wants most (``serve.replicas``)."""
    prefix: str = "/"
    """What the routes are below: those of a workload are at ``<prefix>/<name>``."""
    apart: bool = False
    """Whether the application is of one workload, and its route prefix ``<prefix>/<name>``."""
    teacher: bool = True
    """Whether the teachers and experts run too that the workloads defer to."""
    proxy: Literal["haproxy", "ray"] = "haproxy"
    """What must answer on every node."""
    settings: dict[str, str] = {}
    """Settings by field, in force where the node's environment says nothing; no secret among them."""
    secrets: tuple[str, ...] = ()
    """Settings that each node must have in its environment, or the file of (``COHOBATE_<NAME>_FILE``)."""

    @model_validator(mode="after")
    def _of_one(self) -> GatewayArgs:
        if self.apart and len(self.workloads) != 1:
            raise ValueError("an application apart is of one workload")
        names = [w.name for w in self.workloads]
        if len(set(names)) != len(names):
            raise ValueError("each workload is named once")
        return self

    def route(self, workload: str) -> str:
        """Where a workload's routes begin."""
        return f"{self.prefix.rstrip('/')}/{workload}"

    @property
    def route_prefix(self) -> str:
        """The application's own in Serve."""
        return self.route(self.workloads[0].name) if self.apart else self.prefix

    def in_force(self) -> Settings:
        """The settings of this process, which Ray started on some node; what its environment lacks is put there.

        Raises:
            ConfigError: the node's environment lacks a secret.

        """
        settings = Settings.completed(self.settings)
        given = {*settings.withheld(), *settings.model_fields_set}
        for name in self.secrets:
            if name not in given and getattr(settings, f"{name}_file", None) is None:
                allowed = "each Ray node needs it in its environment: Serve's configuration holds no secret"
                raise ConfigError(f"COHOBATE_{name.upper()}", None, allowed)
        return settings


def load(workload: Workload, settings: Settings) -> Spec:
    """The spec of a workload, as it is loaded on this host.

    Raises:
        ArtifactError, ConfigError, UnavailableError: see :func:`components.contracts.spec.load_spec`.

    """
    return load_spec(workload.source, settings)


def declared(
    settings: Settings, workloads: Sequence[Workload], *, replicas: int | None = None, teacher: bool = True
) -> GatewayArgs:
    """The gateway of ``workloads`` with these settings."""
    public = {name: value for name, value in settings.public().items() if name != "home" and _is_read(name)}
    if not (settings.database_url and settings.artifact_root):  # else nothing lasts in a folder of this machine
        public["home"] = str(settings.home.resolve())
    return GatewayArgs(
        workloads=tuple(workloads),
        replicas=replicas,
        prefix=settings.gateway_prefix,
        teacher=teacher,
        proxy=settings.gateway_proxy,
        settings=public,
        secrets=tuple(name for name in settings.withheld() if _is_read(name)),
    )


def _is_read(name: str) -> bool:
    return not name.startswith(NOT_READ)


def apart(args: GatewayArgs) -> list[GatewayArgs]:
    """The same as an application for each workload.

    Raises:
        ConfigError: they would answer gRPC at one port, where each knows its own workload alone.

    """
    port = args.settings.get("gateway_grpc_port", "0")
    if len(args.workloads) > 1 and port != "0":
        raise ConfigError("COHOBATE_GATEWAY_GRPC_PORT", port, "applications apart cannot share a port: leave it 0")
    return [args.model_copy(update={"workloads": (w,), "apart": True}) for w in args.workloads]


def serve_config(
    settings: Settings, applications: Sequence[GatewayArgs], controller: Mapping[str, str]
) -> dict[str, Any]:
    """What ``serve deploy`` takes: applications, and where and how the proxies answer.

    ``controller`` is the environment that makes Serve's proxies what they are; Serve heeds it when it starts, and no
    longer on a cluster where it runs already.
    """
    name = settings.gateway_application
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": settings.gateway_host, "port": settings.gateway_port},
        "controller_options": {"runtime_env": {"env_vars": dict(controller)}},
        "applications": [
            {
                "name": f"{name}-{args.workloads[0].name}" if args.apart else name,
                "route_prefix": args.route_prefix,
                "import_path": IMPORT_PATH,
                "logging_config": dict(LOGGING),  # not of all: Serve may have applications of others
                "args": args.model_dump(mode="json", exclude_defaults=True),
            }
            for args in applications
        ],
    }
