"""A look at a workload's versions without MLflow's library, whose import takes seconds: for whoever only wants to see.

The same registry is asked at the same moment, so nothing here is older than what the library would say. A tracking
server is asked by its REST API, a database by its tables; of any other kind of URI MLflow itself is asked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from components.contracts.errors import UnavailableError
from components.contracts.settings import Settings, mask
from components.registry.names import TAGS, aliases_of, json_object, model_name

REST_SECONDS = 5.0
"""How long the tracking server may take to answer one question."""

PAGE = 200
"""Versions in one answer of the tracking server."""

DELETED = "Deleted_Internal"
"""The stage of a version that was deleted: MLflow keeps its row."""


class Glimpse(msgspec.Struct, frozen=True, kw_only=True):
    """What is shown of a registered version. ``ours``: this platform registered it; else ``teacher`` may be empty."""

    version: str
    aliases: tuple[str, ...]
    teacher: str
    defer_below: float | None
    ours: bool


def versions(settings: Settings, workload: str) -> list[Glimpse]:
    """All versions of a workload, oldest first.

    Raises:
        UnavailableError: the tracking server does not answer.

    """
    uri, name = settings.mlflow_uri, model_name(workload)
    if uri.startswith(("http://", "https://")):
        found = _from_server(uri, name)
    elif uri.startswith(("sqlite:", "postgresql", "mysql", "mssql")):
        found = _from_database(uri, name)
    else:
        return _from_library(settings, workload)
    return sorted(found, key=lambda version: int(version.version))


def _glimpse(version: str, aliases: Mapping[str, str], tags: Mapping[str, str | None]) -> Glimpse:
    metrics = json_object(tags.get("metrics"))
    return Glimpse(
        version=version,
        aliases=aliases_of(version, aliases),
        teacher=tags.get("teacher") or "",
        defer_below=None if metrics is None else metrics.get("defer_below"),
        ours=metrics is not None and tags.keys() >= set(TAGS),
    )


def _from_database(uri: str, name: str) -> Iterator[Glimpse]:
    from sqlalchemy import case, column, create_engine, inspect, select, table, text

    engine = create_engine(uri)
    try:
        with engine.connect() as connection:
            if not inspect(connection).has_table("model_versions"):
                return
            rows = connection.execute(
                text("SELECT version FROM model_versions WHERE name = :name AND current_stage <> :deleted"),
                {"name": name, "deleted": DELETED},
            )
            numbers = [str(row.version) for row in rows]
            rows = connection.execute(
                text("SELECT alias, version FROM registered_model_aliases WHERE name = :name"), {"name": name}
            )
            aliases = {row.alias: str(row.version) for row in rows}
            known = table("model_version_tags", column("name"), column("version"), column("key"), column("value"))
            shown = case((known.c.key.in_(("teacher", "metrics")), known.c.value)).label("value")
            rows = connection.execute(select(known.c.version, known.c.key, shown).where(known.c.name == name))
            tags: dict[str, dict[str, str | None]] = {}
            for row in rows:
                tags.setdefault(str(row.version), {})[row.key] = row.value
    finally:
        engine.dispose()
    yield from (_glimpse(number, aliases, tags.get(number, {})) for number in numbers)


def _from_server(uri: str, name: str) -> Iterator[Glimpse]:
    import httpx

    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    auth = (user, os.environ.get("MLFLOW_TRACKING_PASSWORD", "")) if user and not token else None
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    base = f"{uri.rstrip('/')}/api/2.0/mlflow"
    try:
        with httpx.Client(timeout=REST_SECONDS, auth=auth, headers=headers) as client:
            model = _asked(client, f"{base}/registered-models/get", {"name": name})
            if model is None:
                return
            aliases = {a["alias"]: str(a["version"]) for a in model["registered_model"].get("aliases", ())}
            query: dict[str, str | int] = {"filter": f"name = '{name}'", "max_results": PAGE}
            while True:
                page = _asked(client, f"{base}/model-versions/search", query) or {}
                for version in page.get("model_versions", ()):
                    tags = {tag["key"]: tag.get("value", "") for tag in version.get("tags", ())}
                    yield _glimpse(str(version["version"]), aliases, tags)
                if not page.get("next_page_token"):
                    return
                query["page_token"] = page["next_page_token"]
    except httpx.HTTPError as error:
        remedy = f"is it up? COHOBATE_TRACKING_URI names it ({type(error).__name__})"
        raise UnavailableError("MLflow", mask(uri), remedy) from error


def _asked(client: Any, url: str, query: Mapping[str, str | int]) -> dict[str, Any] | None:
    """The answer, or None where the named thing does not exist."""
    answer = client.get(url, params=query)
    if answer.status_code == 404 and answer.json().get("error_code") == "RESOURCE_DOES_NOT_EXIST":
        return None
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def _from_library(settings: Settings, workload: str) -> list[Glimpse]:
    from components.registry.registry import Registry

    ours, foreign = Registry(settings).sorted_out(workload)
    seen = [
        Glimpse(version=v.version, aliases=v.aliases, teacher=v.ref.teacher, defer_below=v.ref.defer_below, ours=True)
        for v in ours
    ]
    seen += [Glimpse(version=f.version, aliases=f.aliases, teacher="", defer_below=None, ours=False) for f in foreign]
    return sorted(seen, key=lambda version: int(version.version))
