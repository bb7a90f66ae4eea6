"""Where things are: the one place that reads the environment. Every setting is ``COHOBATE_<NAME>``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Addresses and credentials of the platform; the defaults are the embedded platform on the loopback.

    ``home`` holds everything that the embedded platform writes. A URL left empty is derived from ``home``.
    """

    model_config = SettingsConfigDict(env_prefix="COHOBATE_", frozen=True, extra="forbid")

    home: Path = Path(".cohobate")
    cache: Path = Field(default_factory=lambda: Path.home() / ".cache" / "cohobate")
    """Folder for data that is fetched once and used by every home."""
    bootstrap_servers: str = ""
    """``host:port`` (comma separated) of a Kafka; empty: the embedded broker's address."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    database_url: str = ""
    """SQLAlchemy URL of the control database; empty: SQLite under ``home``."""
    tracking_uri: str = ""
    """MLflow tracking URI; empty: SQLite under ``home``."""
    artifact_root: str = ""
    """fsspec URI under which snapshots, students and reports are kept; empty: a folder under ``home``."""
    gateway_port: int = 8400
    broker_port: int = 19392
    ray_address: str = ""
    """Address of a Ray cluster; empty: one is started on this machine."""
    kfp_host: str = ""
    kfp_token: SecretStr | None = None
    worker: str = ""
    """Name of a worker among those of its workload, the same after a restart: a labeler that comes back under its name
    goes on at once, another waits until the old one's leases have run out. Empty: host and process."""
    actor: str = "local"
    """Who acts, as the ledger records it, where no identity is given."""

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

    def environment(self) -> dict[str, str]:
        """These settings as environment variables for a child process (secrets included)."""
        values: dict[str, str] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if value is None or value == "":
                continue
            plain = value.get_secret_value() if isinstance(value, SecretStr) else value
            values[f"COHOBATE_{name.upper()}"] = str(plain.resolve() if isinstance(plain, Path) else plain)
        return values
