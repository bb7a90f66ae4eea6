"""The specs that a platform works with: copies in its home, so that no process ever reads a file that is being edited.

``<home>/specs/<workload>/spec.yaml`` is the spec in force, put there as a whole once it was found valid. Python files
that it names by a relative path are linked beside it, so that they are found from there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from components.contracts.errors import NotFoundError
from components.contracts.settings import Settings

if TYPE_CHECKING:
    from components.contracts.spec import Spec

FILE = re.compile(r"(?P<path>[^:]+\.py):\w+")
"""A reference to an object in a Python file."""


def place_of(settings: Settings, workload: str) -> Path:
    """Where the spec in force of a workload lies."""
    return settings.home.resolve() / "specs" / workload / "spec.yaml"


def workloads(settings: Settings) -> list[str]:
    """The workloads that this home has a spec in force of."""
    return sorted(path.parent.name for path in (settings.home.resolve() / "specs").glob("*/spec.yaml"))


def in_force(settings: Settings, workload: str) -> Spec:
    """The spec that a workload of this home works with.

    Raises:
        NotFoundError: the platform was never started with such a workload.
        ConfigError: the copy was changed by hand, and is not valid.
    """
    from components.contracts.spec import load_spec

    place = place_of(settings, workload)
    if not place.is_file():
        raise NotFoundError("workload", workload, f"no platform of {settings.home} was started with it")
    return load_spec(place)


def put_in_force(settings: Settings, path: str | Path) -> Spec:
    """Make a spec file the one in force, in one step, and give it as the platform's processes will read it.

    Raises:
        ConfigError: the file is not valid; what was in force stays so.
    """
    from components.contracts.spec import load_spec

    given = load_spec(path)
    origin, place = Path(given.source), place_of(settings, given.name)
    if origin == place:
        return given
    place.parent.mkdir(parents=True, exist_ok=True)
    text = origin.read_bytes()
    for name in sorted(set(_files(msgspec.yaml.decode(text)))):
        if not Path(name).is_absolute():
            _link(place.parent / name, origin.parent / name)
    new = place.with_suffix(".tmp")
    new.write_bytes(text)
    check_entity_features(load_spec(new), settings)  # the file may have been written to since it was read first
    new.replace(place)
    return load_spec(place)


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


def _files(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for one in value.values():
            yield from _files(one)
    elif isinstance(value, list):
        for one in value:
            yield from _files(one)
    elif isinstance(value, str) and (found := FILE.fullmatch(value)):
        yield found["path"]


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    os.symlink(target, new)
    new.replace(link)
