"""Where things are: the one place that reads the environment. Every setting is ``COHOBATE_<NAME>``."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from components.contracts.chatter import LogLevel
from components.contracts.errors import ConfigError

IMAGE = "cohobate:0.1.0"
"""The image that pipelines' components run in, unless another is named when they are compiled."""


SECRET_OF_A_QUERY = re.compile(r"([?&]\w*(?:password|passwd|secret|token)=)[^&\s]+", re.IGNORECASE)
"""A parameter of a URL that holds a secret, such as PostgreSQL's ``?password=``."""


def mask(text: str) -> str:
    """``text`` with the passwords of its URLs replaced by three stars.

    >>> mask("postgresql://me:hush@db:5432/control")
    'postgresql://me:***@db:5432/control'
    >>> mask("postgresql://db/control?user=me&password=hush&sslmode=require")
    'postgresql://db/control?user=me&password=***&sslmode=require'
    """
    return SECRET_OF_A_QUERY.sub(r"\1***", re.sub(r"(\w+://[^\s/:@]*:)[^\s/]+@", r"\1***@", text))


def is_loopback(address: str) -> bool:
    """Whether an address or host name, with or without a port, is of this machine only.

    >>> [is_loopback(a) for a in ("127.0.0.1", "localhost:8401", "[::1]:8401", "10.0.0.1", "", "localhost.evil")]
    [True, True, True, False, False, False]
    """
    host = address[1:].partition("]")[0] if address.startswith("[") else address
    host = host.partition(":")[0] if host.count(":") == 1 else host
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def reached(host: str) -> str:
    """Where this machine reaches what listens at ``host``.

    >>> [reached(host) for host in ("0.0.0.0", "::", "10.0.0.1")]
    ['127.0.0.1', '::1', '10.0.0.1']
    """
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (it is looked up)


def _has_secret(text: str) -> bool:
    """Whether there is a secret in an address: what :func:`mask` hides, or a user of HTTP, which is a token often.

    >>> [_has_secret(u) for u in ("postgresql://me@db/control", "postgresql://me:hush@db/control", "https://t0k@host")]
    [False, True, True]
    """
    return mask(text) != text or re.match(r"https?://[^/\s]*@", text) is not None


HAPROXY_PORTS = (2, 3, 4)
"""How far above the gateway's port those of Serve's proxy behind HAProxy, of its metrics and of its statistics are."""


class Settings(BaseSettings):
    """Addresses and credentials of the platform; the defaults are the embedded platform on the loopback.

    ``home`` holds everything that the embedded platform writes. A URL left empty is derived from ``home``.
    """

    model_config = SettingsConfigDict(env_prefix="COHOBATE_", frozen=True, extra="forbid", hide_input_in_errors=True)
    # A validation error would otherwise print everything that was read from the environment, secrets included.

    home: Path = Path(".cohobate")
    cache: Path = Field(default_factory=lambda: Path.home() / ".cache" / "cohobate")
    """Folder for data that is fetched once and used by every home."""
    bootstrap_servers: str = ""
    """``host:port`` (comma separated) of a Kafka; empty: the embedded broker's address."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = None
    sasl_username: str | None = None
    """User of PLAIN and SCRAM."""
    sasl_password: SecretStr | None = None
    sasl_password_file: Path | None = None
    sasl_oauth_token: SecretStr | None = None
    """A token for OAUTHBEARER that outlives the process; for one that is renewed use the file or the endpoint."""
    sasl_oauth_token_file: Path | None = None
    """File of a token that something else renews (a Kubernetes projected token); read whenever one is needed."""
    sasl_oauth_token_url: str = ""
    """OIDC token endpoint (https) from which a token is fetched by client credentials and renewed before it expires."""
    sasl_oauth_client_id: str | None = None
    sasl_oauth_client_secret: SecretStr | None = None
    sasl_oauth_client_secret_file: Path | None = None
    sasl_oauth_scope: str | None = None
    """Scopes to ask for, separated by spaces."""
    ssl_cafile: Path | None = None
    """Certificates (PEM) of the authorities to trust; none: those of the system."""
    ssl_certfile: Path | None = None
    """Our own certificate (PEM, with its chain) where the broker asks for one."""
    ssl_keyfile: Path | None = None
    """Its key; none: it is in ``ssl_certfile``."""
    ssl_password: SecretStr | None = None
    """Password of an encrypted ``ssl_keyfile``."""
    ssl_password_file: Path | None = None
    ssl_check_hostname: bool = True
    """Whether the broker's certificate must name the host that we connect to."""
    database_url: str = ""
    """SQLAlchemy URL of the control database; empty: SQLite under ``home``."""
    tracking_uri: str = ""
    """MLflow tracking URI; empty: SQLite under ``home``."""
    wandb_project: str = ""
    """Project of Weights & Biases that judged candidates go to, if they do; empty: ``cohobate-<workload>``."""
    wandb_examples: int = Field(default=0, ge=0)
    """Held out inputs that a run there shows with the answers. They leave the platform: see that consent allows it."""
    artifact_root: str = ""
    """fsspec URI under which snapshots, students and reports are kept; empty: a folder under ``home``."""
    feast_online: SecretStr | None = None
    """Feast's configuration of the online store, a JSON object with its ``type`` (``postgres``, ``redis``, ``sqlite``):
    needed where ``artifact_root`` is not on this machine. None: SQLite beside Feast's registry."""
    feast_online_file: Path | None = None
    evidently_workspace: str = ""
    """Folder or URI of the workspace that Evidently's UI shows (``cohobate gate ui``); empty: beside the artifacts
    where those are not on this machine, else under ``home``."""
    gateway_host: str = "127.0.0.1"
    """Address at which each node's proxy answers; ``0.0.0.0``: all of it, as a cluster of several nodes needs."""
    gateway_port: int = 8400
    gateway_grpc_port: int = Field(default=0, ge=0, le=65535)
    """Port at which each replica answers the Open Inference Protocol over gRPC, at ``gateway_host``; 0: none does. All
    replicas of a node share it, and so would those of another platform on the same machine: give it another."""
    gateway_prefix: str = "/"
    """What the gateway's routes are below, on a Serve that has other applications too."""
    gateway_application: str = "gateway"
    """Name of its application in Ray Serve; two platforms on one cluster need two."""
    gateway_proxy: Literal["haproxy", "ray"] = "haproxy"
    """``ray``: on a cluster whose Serve has no HAProxy, go on with its own proxy, which answers about a tenth."""
    litert_python: str = ""
    """Python with the packages of the extra ``litert``, which converts students for it; empty: this one."""
    broker_port: int = 19392
    ray_address: str = ""
    """Address of a Ray cluster; empty: one is started on this machine. For training also that of its Jobs API
    (``http://…``)."""
    ray_token: SecretStr | None = None
    """Token of a Ray cluster that asks for one; none: what Ray's own variables say. The Ray that is started here gets
    one of its own, in ``<home>/ray-token``."""
    ray_token_file: Path | None = None
    updates: Literal["local", "kfp"] = "local"
    """Where the updates run that the trigger decides on: beside it, or on the Kubeflow that ``kfp_host`` names."""
    kfp_host: str = ""
    """URL of the Kubeflow Pipelines API."""
    kfp_token: SecretStr | None = None
    """Bearer token for it; its audience must be ``pipelines.kubeflow.org``."""
    kfp_token_file: Path | None = None
    """File of such a token that something else renews (a Kubernetes projected token); read for every request."""
    kfp_cafile: Path | None = None
    """Certificates (PEM) of the authorities to trust there; none: those of the system."""
    kfp_namespace: str = ""
    """Namespace (the profile) of a multi-user Kubeflow in which all is made; one for single users has none."""
    kfp_service_account: str = ""
    """Service account of the steps' pods; empty: the server's own setting."""
    kfp_ui: str = ""
    """Address of its web UI as a person opens it, with the dashboard's prefix if any: ``https://…/_/pipeline/``."""
    kfp_spec: str = ""
    """Where the steps' image has a workload's spec file; ``{workload}`` stands for the workload's name."""
    kfp_image: str = ""
    """Container image of the steps; empty: the one of this version."""
    kfp_installation: Path | None = None
    """YAML file that describes what the cluster gives the steps: secrets, volumes, resources, time limits; none:
    nothing."""
    kfp_env: str = ""
    """Environment that every step declares: a JSON object of names and values. None of them is kept secret there."""
    kfp_silent_seconds: float = Field(default=900.0, ge=60.0)
    """How long a run there may show no sign of life before the next update may begin: none of its steps is at work
    while a pod waits for its node, its GPU or its image."""
    kfp_timezone: str = "UTC"
    """Time zone in which the server reads cron expressions (its CRON_SCHEDULE_TIMEZONE)."""
    worker: str = ""
    """Name of a worker among those of its workload, the same after a restart: a labeler that comes back under its name
    goes on at once, another waits until the old one's leases have run out. Empty: host and process."""
    label_signing_key: SecretStr | None = None
    """Private Ed25519 key in base64 with which the labeler signs labels; its public half is ``label.signed_by``."""
    label_signing_key_file: Path | None = None
    workload_signing_key: SecretStr | None = None
    """Private Ed25519 key in base64 with which bundles of workloads are signed when they are applied."""
    workload_signing_key_file: Path | None = None
    workload_signed_by: str = ""
    """Its public half: a process that has it loads no bundle that is not signed with it. Empty: none is asked for."""
    artifact_signing_key: str = ""
    """What students, snapshots and evidence are signed with: a private key in a PEM file, or the URI of a key that a
    KMS keeps (``awskms:…``, ``gcpkms:…``, ``hsm:…``). Empty: they are not signed."""
    artifact_signing_public_key: Path | None = None
    """Public key (PEM) of a signing key that a URI names."""
    artifact_policy: Literal["any", "signed"] = "any"
    """``signed``: nothing is learnt from, registered, rolled out or loaded that no key of ``cohobate keys`` signed."""
    licence_policy: Literal["forbidden", "undeclared"] = "forbidden"
    """What is not trained on: outputs and data whose terms forbid it, as the spec declares them; ``undeclared``: those
    too of which it does not say that they allow it."""
    workload_max_bytes: int = Field(default=256 * 1024 * 1024, ge=1024)
    """How large a spec with the user's code and data may be, in bytes: every process on every host fetches it."""
    log_level: LogLevel = "INFO"
    """DEBUG: what libraries and Kubeflow say of their own doings is in the logs too (connections, inputs as JSON)."""
    actor: str = "local"
    """Who acts, as the ledger records it, where no identity is given."""

    admin_host: str = "127.0.0.1"
    """Address at which the admin API answers; empty: this platform serves none."""
    admin_port: int = Field(default=8401, ge=0, le=65535)
    """Its port; 0: any free one, named in ``<home>/admin.json``."""
    admin_auth: Literal["on", "off"] = "on"
    """``off`` lets everybody on this machine do everything; refused unless the API answers on the loopback only."""
    admin_oidc_issuer: str = ""
    """Issuer (``iss``) whose tokens the admin API takes beside its own; empty: none."""
    admin_oidc_audience: str = ""
    """Audience (``aud``) that such a token must name."""
    admin_oidc_jwks_url: str = ""
    """Where the issuer's public keys are (https, or http on the loopback); empty: where its discovery document says."""
    admin_oidc_client_id: str = ""
    """The console as a client of the issuer, so that people sign in at its own page; empty: they do not."""
    admin_oidc_client_secret: SecretStr | None = None
    """Its secret; a public client (PKCE alone) has none."""
    admin_oidc_client_secret_file: Path | None = None
    admin_oidc_scope: str = "openid profile email"
    """What the console asks the issuer for; ``openid`` must be among it."""
    admin_oidc_role_claim: str = "roles"
    """Claim with the role, a text or a list of them; a dot goes into a nested one: ``realm_access.roles``."""
    admin_oidc_role_prefix: str = ""
    """What precedes ``viewer``, ``operator`` and ``admin`` there, as in ``cohobate-admin``."""
    admin_oidc_actor_claim: str = "sub"
    """Claim that names the caller in the ledger."""
    admin_url: str = ""
    """Admin API that verbs of the command line and of the pipelines go to; empty: they go to the control database."""
    admin_token: SecretStr | None = None
    """Bearer token for it."""
    admin_token_file: Path | None = None
    leader_seconds: float = Field(default=5.0, ge=0.5, le=300.0)
    """How long a controller that is silent keeps its lead; then another one takes over."""
    webhooks: SecretStr | None = None
    """Who is notified: a JSON list of ``{"name", "url", "format": "slack"|"cloudevents", "events": [...]}``."""
    webhooks_file: Path | None = None
    callback_secret: SecretStr | None = None
    """Key (base64, 24 bytes at least) with which the gateway signs what it sends to callbacks."""
    callback_secret_file: Path | None = None

    metrics_host: str = "127.0.0.1"
    """Address at which each worker answers ``/metrics``, ``/healthz`` and ``/readyz``; empty: none does."""
    metrics_port: int = 0
    """Its port; 0: any free one, named in ``<home>/metrics``. A fixed one is for a worker with a host of its own;
    replicas of the gateway take a free one in any case."""

    @property
    def gateway(self) -> str:
        """Base URL at which this machine reaches its gateway; a workload's routes are below ``/<workload>``.

        >>> Settings(gateway_host="::", gateway_port=8400, gateway_prefix="/models").gateway
        'http://[::1]:8400/models'
        """
        host = reached(self.gateway_host)
        at = f"[{host}]" if ":" in host else host
        return f"http://{at}:{self.gateway_port}{self.gateway_prefix.rstrip('/')}"

    @field_validator("gateway_prefix")
    @classmethod
    def _is_a_path(cls, value: str) -> str:
        if not re.fullmatch(r"/|(/[\w.~-]+)+", value):
            raise ValueError("must be / or a path such as /models, without a slash at its end")
        return value

    @field_validator("gateway_grpc_port")
    @classmethod
    def _is_not_haproxys(cls, value: int, info: ValidationInfo) -> int:
        """Both would listen there without an error, and HAProxy would get the connections: it allows sharing a port."""
        taken = [info.data.get("gateway_port", 0) + above for above in (0, *HAPROXY_PORTS)]
        if value and value in taken:
            raise ValueError(f"must be another port: {taken} are those of the gateway and of its HAProxy")
        return value

    @property
    def haproxy_ports(self) -> tuple[int, int, int]:
        """Where Serve's own proxy answers while HAProxy has no replica; HAProxy's metrics and statistics."""
        behind, metrics, statistics = (self.gateway_port + above for above in HAPROXY_PORTS)
        return behind, metrics, statistics

    @field_validator("gateway_port", "gateway_grpc_port", "broker_port", "admin_port", "metrics_port", mode="before")
    @classmethod
    def _not_of_a_service(cls, value: Any, info: ValidationInfo) -> Any:
        """The default, where Kubernetes put a Service of that name into the environment.

        For a Service ``cohobate-gateway`` the kubelet sets ``COHOBATE_GATEWAY_PORT=tcp://…`` in every pod of its
        namespace (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables).
        """
        of_a_service = isinstance(value, str) and value.startswith(("tcp://", "udp://", "sctp://"))
        return cls.model_fields[str(info.field_name)].default if of_a_service else value

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """The fields as ``repr`` shows them: no password of a URL."""
        for name, value in super().__repr_args__():
            yield name, mask(value) if isinstance(value, str) else value

    def secret(self, name: str) -> str | None:
        """The secret of this name: the setting itself, or the text of the file that ``<name>_file`` names.

        Raises:
            ConfigError: both are given, or the file cannot be read or is empty.

        """
        given: SecretStr | None = getattr(self, name)
        path: Path | None = getattr(self, f"{name}_file")
        if path is None:
            return given.get_secret_value() if given is not None else None
        field = f"COHOBATE_{name.upper()}_FILE"
        if given is not None:
            raise ConfigError(field, str(path), f"COHOBATE_{name.upper()} is set too: keep one of the two")
        try:
            found = path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(field, str(path), f"must be a readable text file ({type(error).__name__})") from error
        if not found:
            raise ConfigError(field, str(path), "the file is empty: write the secret into it")
        return found

    @property
    def kafka(self) -> str:
        """The bootstrap servers in force."""
        return self.bootstrap_servers or f"127.0.0.1:{self.broker_port}"

    @property
    def control_url(self) -> str:
        """The control database's URL in force."""
        return self.database_url or f"sqlite:///{self.home.resolve() / 'control.db'}"

    @property
    def mlflow_uri(self) -> str:
        """The MLflow tracking URI in force."""
        return self.tracking_uri or f"sqlite:///{self.home.resolve() / 'mlflow.db'}"

    @property
    def artifacts(self) -> str:
        """The artifact root in force, without a slash at its end."""
        return self.artifact_root.rstrip("/") or f"file://{self.home.resolve() / 'artifacts'}"

    @property
    def evidently(self) -> str:
        """The folder or URI of the Evidently workspace in force."""
        if self.evidently_workspace:
            return self.evidently_workspace
        remote = not self.artifacts.startswith("file://")
        return f"{self.artifacts}/evidently" if remote else str(self.home.resolve() / "evidently")

    @classmethod
    def completed(cls, values: Mapping[str, str]) -> Settings:
        """The settings of this process, once its environment has those of ``values`` (by field) that it lacked.

        So whatever it starts, and whatever reads them there, has the same.
        """
        for name, value in values.items():
            os.environ.setdefault(f"COHOBATE_{name.upper()}", value)
        return cls()

    def withheld(self) -> tuple[str, ...]:
        """The fields whose values :meth:`public` leaves out: secrets, and addresses that have one in them."""
        return tuple(name for name, value in self._given() if isinstance(value, SecretStr) or _has_secret(str(value)))

    def public(self) -> dict[str, str]:
        """What is set otherwise than by default and may be read by everybody, by field."""
        hidden = self.withheld()
        return {
            name: str(value.resolve() if isinstance(value, Path) else value)
            for name, value in self._given() if name not in hidden
        }  # fmt: skip

    def _given(self) -> Iterator[tuple[str, Any]]:
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if value != field.get_default(call_default_factory=True):
                yield name, value

    def environment(self) -> dict[str, str]:
        """These settings as environment variables for a child process.

        A secret from the environment goes there again; one from a file stays there, and its path is handed over.
        """
        values: dict[str, str] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if value is None or value == "":
                continue
            plain = value.get_secret_value() if isinstance(value, SecretStr) else value
            values[f"COHOBATE_{name.upper()}"] = str(plain.resolve() if isinstance(plain, Path) else plain)
        return values
