"""The token by which Ray knows who may use a cluster (https://docs.ray.io/en/latest/ray-security/token-auth.html).

Whoever reaches Ray's ports runs what they like there, unless it asks for one.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from components.contracts.settings import Settings

MODE, TOKEN, FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"

JOBS_API = ("http://", "https://")
"""What an address begins with that is one of a head's Jobs API."""

SAID_CHARACTERS = 2_000
"""How much of what Ray says stands in an error."""


def last_line(error: Exception) -> str:
    """What a failure of Ray's says at its end: before that stand the calls that led to it."""
    return str(error).strip().rpartition("\n")[2][:SAID_CHARACTERS]


def access(settings: Settings, given: Mapping[str, str]) -> dict[str, str]:
    """Ray's variables, for the cluster that the settings name or for one that is started here; set before its import.

    ``given`` is what this process's environment has: on a cluster of somebody else's its variables stand where the
    settings name no token, and so does a mode that was set on purpose. A Ray of our own gets a token of its own.

    Raises:
        ConfigError: the token is given twice, or its file cannot be read or is empty.

    """
    token = settings.secret("ray_token")
    if settings.ray_token_file is not None:
        return {MODE: "token", FILE: str(settings.ray_token_file.resolve())}
    if token is not None:
        return {MODE: "token", TOKEN: token}
    if settings.ray_address or given.keys() & {MODE, TOKEN, FILE}:
        return {}
    return {MODE: "token", FILE: str(_own(settings.home.resolve() / "ray-token"))}


def _own(path: Path) -> Path:
    """The file of our own Ray's token, made where it is missing; nobody else on this machine may read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}")
    if not path.exists():
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
        new.replace(path)
    return path
