"""The specs that a platform works with: versions of the registry, so that no process reads a file that is being edited.

A spec file becomes a bundle at the artifact root, with the user's code, and a version in the control database; the
platform's processes hold a reference to it and load it by its digest.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from components.contracts.errors import NotFoundError
from components.contracts.settings import Settings

if TYPE_CHECKING:
    from components.contracts.spec import Spec
    from components.control.store import ControlStore
    from components.control.workloads import Verb, Version


def prepared(settings: Settings, source: str | Path) -> Spec:
    """A spec file, or a version of the registry, as the platform's processes will read it; nothing is recorded yet.

    Raises:
        ConfigError: the file is not valid, or cannot be taken along, or names features that Feast does not have.
        NotFoundError: there is no such version.
    """
    from components.contracts.reference import parse
    from components.contracts.spec import load_spec
    from components.control.workloads import opened, pinned

    if parse(str(source)) is None:
        spec = opened(str(source), settings)[0]
    else:
        spec = load_spec(pinned(str(source), settings), settings)
    check_entity_features(spec, settings)
    return spec


def record(
    store: ControlStore,
    settings: Settings,
    spec: Spec,
    reason: str,
    *,
    before: int | Literal["any"] | None = "any",
    detail: dict[str, Any] | None = None,
    verb: Verb = "apply",
) -> Version:
    """Make what was :func:`prepared` the version in force; the ledger notes it, unless it is in force already.

    Raises:
        StaleRevisionError: another version than ``before`` is in force.
    """
    from components.contracts.spec.bundles import kept
    from components.control.workloads import apply, registered
    from components.ledger.ledger import append

    standing = registered(store, [spec.name]).get(spec.name)
    made = apply(
        store, kept(spec.source, settings), spec, actor=settings.actor, reason=reason,
        before=(standing.number if standing else None) if before == "any" else before, verb=verb,
    )  # fmt: skip
    if standing is None or standing.number != made.number:
        did = {"version": made.number, "before": standing.number if standing else None, "digest": made.digest}
        append(store, spec.name, settings.actor, f"{verb} workload", {**did, "reason": reason, **(detail or {})})
    return made


def in_force(settings: Settings, workload: str) -> Spec:
    """The spec that is in force of a workload.

    Raises:
        NotFoundError: none of this name is registered.
        SchemaError: the control database is another version's.
    """
    from components.contracts.spec import load_spec
    from components.control.schema import SchemaError
    from components.control.store import ControlStore
    from components.control.workloads import in_force as standing

    try:
        with closing(ControlStore.open(settings.control_url)) as store:
            return load_spec(standing(store, workload).reference, settings)
    except SchemaError as error:
        if error.schema.state != "missing":
            raise
        raise NotFoundError("workload", workload, f"no platform of {settings.home} was started with it") from error


def check_entity_features(spec: Spec, settings: Settings) -> None:
    """Refuse features of the entity that Feast does not have; Feast is imported where some come from its views alone.

    Raises:
        ConfigError: names the feature.
    """
    entity = spec.features.entity
    if entity is not None and any(f.of == "view" for f in entity.features):
        from components.snapshot.entity_store import entity_store

        store = entity_store(spec, settings.artifacts)
        if store is not None:
            store.check()
