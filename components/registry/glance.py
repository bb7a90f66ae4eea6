"""A look at a workload's versions without MLflow's library, whose import takes seconds: for whoever only wants to see.

The same registry is asked at the same moment, so nothing here is older than what the library would say. A tracking
server is asked by its REST API, a database by its tables; of any other kind of URI MLflow itself is asked.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    return versions_of(settings, [workload])[workload]


def versions_of(settings: Settings, workloads: Sequence[str]) -> dict[str, list[Glimpse]]:
    """All versions of each of these workloads, oldest first, by as many questions as one of them takes.

    A server's answers have so many versions each; it is asked for those of all workloads where more than one is wanted.

    Raises:
        UnavailableError: the tracking server does not answer.

    """
    uri, names = settings.mlflow_uri, {model_name(workload): workload for workload in workloads}
    if uri.startswith(("http://", "https://")):
        found = _from_server(uri, names) if names else ()
    elif uri.startswith(("sqlite:", "postgresql", "mysql", "mssql")):
        found = _from_database(uri, list(names))
    else:
        return {workload: _from_library(settings, workload) for workload in workloads}
    made: dict[str, list[Glimpse]] = {workload: [] for workload in workloads}
    for name, version in found:
        if name in names:
            made[names[name]].append(version)
    return {workload: sorted(seen, key=lambda version: int(version.version)) for workload, seen in made.items()}


def _glimpse(version: str, aliases: Mapping[str, str], tags: Mapping[str, str | None]) -> Glimpse:
    metrics = json_object(tags.get("metrics"))
    return Glimpse(
        version=version,
        aliases=aliases_of(version, aliases),
        teacher=tags.get("teacher") or "",
        defer_below=None if metrics is None else metrics.get("defer_below"),
        ours=metrics is not None and tags.keys() >= set(TAGS),
    )


def _from_database(uri: str, names: Sequence[str]) -> Iterator[tuple[str, Glimpse]]:
    from sqlalchemy import case, column, create_engine, inspect, select, table

    engine = create_engine(uri)
    try:
        with engine.connect() as connection:
            if not inspect(connection).has_table("model_versions"):
                return
            model = table("model_versions", column("name"), column("version"), column("current_stage"))
            rows = connection.execute(
                select(model.c.name, model.c.version).where(model.c.name.in_(names), model.c.current_stage != DELETED)
            )
            numbers = [(name, str(version)) for name, version in rows]
            given = table("registered_model_aliases", column("name"), column("alias"), column("version"))
            aliases: dict[str, dict[str, str]] = {}
            for name, alias, version in connection.execute(
                select(given.c.name, given.c.alias, given.c.version).where(given.c.name.in_(names))
            ):
                aliases.setdefault(name, {})[alias] = str(version)
            known = table("model_version_tags", column("name"), column("version"), column("key"), column("value"))
            shown = case((known.c.key.in_(("teacher", "metrics")), known.c.value)).label("value")
            told = connection.execute(
                select(known.c.name, known.c.version, known.c.key, shown).where(known.c.name.in_(names))
            )
            tags: dict[tuple[str, str], dict[str, str | None]] = {}
            for name, version, key, value in told:
                tags.setdefault((name, str(version)), {})[key] = value
    finally:
        engine.dispose()
    for name, number in numbers:
        yield name, _glimpse(number, aliases.get(name, {}), tags.get((name, number), {}))


def _from_server(uri: str, names: Iterable[str]) -> Iterator[tuple[str, Glimpse]]:
    import httpx

    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    auth = (user, os.environ.get("MLFLOW_TRACKING_PASSWORD", "")) if user and not token else None
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    base = f"{uri.rstrip('/')}/api/2.0/mlflow"
    first, *others = names
    wanted = f"name LIKE '{model_name('%')}'" if others else f"name = '{first}'"
    try:
        with httpx.Client(timeout=REST_SECONDS, auth=auth, headers=headers) as client:
            aliases = {
                model["name"]: {a["alias"]: str(a["version"]) for a in model.get("aliases", ())}
                for model in _pages(client, f"{base}/registered-models/search", wanted, "registered_models")
            }
            if not aliases:
                return
            for version in _pages(client, f"{base}/model-versions/search", wanted, "model_versions"):
                tags = {tag["key"]: tag.get("value", "") for tag in version.get("tags", ())}
                name = version["name"]
                yield name, _glimpse(str(version["version"]), aliases.get(name, {}), tags)
    except httpx.HTTPError as error:
        remedy = f"is it up? COHOBATE_TRACKING_URI names it ({type(error).__name__})"
        raise UnavailableError("MLflow", mask(uri), remedy) from error


def _pages(client: Any, url: str, wanted: str, member: str) -> Iterator[dict[str, Any]]:
    """What a search finds, page after page."""
    query: dict[str, str | int] = {"filter": wanted, "max_results": PAGE}
    while True:
        answer = client.get(url, params=query)
        answer.raise_for_status()
        page: dict[str, Any] = answer.json()
        yield from page.get(member, ())
        if not page.get("next_page_token"):
            return
        query["page_token"] = page["next_page_token"]


def _from_library(settings: Settings, workload: str) -> list[Glimpse]:
    from components.registry.registry import Registry

    ours, foreign = Registry(settings).sorted_out(workload)
    seen = [
        Glimpse(version=v.version, aliases=v.aliases, teacher=v.ref.teacher, defer_below=v.ref.defer_below, ours=True)
        for v in ours
    ]
    seen += [Glimpse(version=f.version, aliases=f.aliases, teacher="", defer_below=None, ours=False) for f in foreign]
    return sorted(seen, key=lambda version: int(version.version))
