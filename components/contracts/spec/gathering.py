"""The files that a spec needs: itself, the Python files that it names, what these import beside it, and data.

Data is what the options of featuriser and network name by a path relative to the spec, the histories of
``student.unlabelled``, and the files and folders of ``files``. Absolute paths are left to whoever has such a file on
every host.
"""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from components.contracts.errors import ConfigError
from components.contracts.spec.user_code import local

log = logging.getLogger(__name__)

SPEC = "spec.yaml"
"""The name of the spec in a bundle, whatever its file is called."""

FILE = re.compile(r"(?P<path>[^:]+\.py):\w+")
"""A reference to an object in a Python file."""

LEFT_OUT = ("__pycache__", ".git")
"""Folders that are never gathered."""

MEBIBYTE = 1024 * 1024


def gather(path: Path, most: int) -> dict[str, bytes]:
    """What goes into the bundle of a spec file, by relative path; ``most`` is the limit of all together in bytes.

    Raises:
        ConfigError: a file that is named is not there, lies outside of the spec's folder, or all are too large.

    """
    path = path.resolve()
    found = _Gathered(path.parent)
    text = path.read_bytes()
    found.all(msgspec.yaml.decode(text))
    if SPEC in found.files and found.files[SPEC] != path:
        raise ConfigError("files", SPEC, "the spec itself has this name in a bundle: give the file another")
    places = {**found.files, SPEC: path}
    _require_small({name: place.stat().st_size for name, place in places.items()}, most)
    return {**{name: place.read_bytes() for name, place in found.files.items()}, SPEC: text}


def by_section(path: Path) -> dict[str, dict[str, bytes]]:
    """The files that each section of a spec file needs beside it, by relative path, and their content.

    Raises:
        ConfigError: a file that is named is not there, or lies outside of the spec's folder.

    """
    path = path.resolve()
    raw, made = msgspec.yaml.decode(path.read_bytes()), {}
    for section, value in raw.items():
        found = _Gathered(path.parent)
        found.all({section: value})
        made[section] = {name: place.read_bytes() for name, place in found.files.items()}
    return made


def _require_small(sizes: Mapping[str, int], most: int) -> None:
    if (whole := sum(sizes.values())) > most:
        largest = max(sizes, key=lambda name: sizes[name])
        raise ConfigError(
            "workload bundle",
            f"{whole / MEBIBYTE:.1f} MiB",
            f"may have {most / MEBIBYTE:.1f} MiB; its largest file is {largest} ({sizes[largest] / MEBIBYTE:.1f} MiB): "
            "put it into a Python package that is installed, or raise COHOBATE_WORKLOAD_MAX_BYTES",
        )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, str):
        yield value


def _references(raw: Any) -> Iterator[str]:
    for text in _texts(raw):
        if found := FILE.fullmatch(text):
            yield found["path"]


def _options(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _texts(one) if name == "options" else _options(one)
    elif isinstance(value, list):
        for one in value:
            yield from _options(one)


def _data(raw: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Fields, and the paths that they name for certain (``files``, ``unlabelled``) or may name (others, empty)."""
    student = raw.get("student") or {}
    yield from (("files", name) for name in raw.get("files") or ())
    yield from (("student.unlabelled", uri) for uri in student.get("unlabelled") or () if "://" not in uri)
    inputs = (student.get("data_free") or {}).get("inputs") or {}
    yield from (("", name) for name in (inputs.get("vocabulary"),) if isinstance(name, str))
    yield from (
        ("", text) for section in (raw.get("features"), student, raw.get("masking")) for text in _options(section)
    )


class _Gathered:
    """Files by their path in the bundle."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, Path] = {}

    def all(self, raw: Mapping[str, Any]) -> None:
        """What a spec, or some sections of one, name."""
        for name in sorted(set(_references(raw))):
            self.code(name)
        for field, name in _data(raw):
            self.data(field, name)

    def code(self, name: str) -> None:
        """A Python file that the spec names, and what it imports."""
        place = Path(name)
        if place.is_absolute():
            log.warning("%s is named by an absolute path: it is in no bundle, and every host needs it there", name)
            return
        if not (self.folder / place).is_file():
            raise ConfigError("reference", name, f"no such file: {self.folder / place}")
        self._add("reference", self.folder / place)
        for parent in (self.folder / place).parents:
            if parent == self.folder or self.folder not in parent.parents:
                break
            if (init := parent / "__init__.py").is_file():
                self._add("reference", init)

    def data(self, field: str, name: str) -> None:
        """A file or folder that a field names; with no field, one that a text may happen to name."""
        place = Path(name)
        if not field and (place.is_absolute() or not place.parts or not _exists(self.folder / place)):
            return
        if place.is_absolute():
            raise ConfigError(field, name, "must be relative to the spec")
        if not _exists(self.folder / place):
            raise ConfigError(field, name, f"no such file or folder: {self.folder / place}")
        self._add(field or "options", self.folder / place)

    def _add(self, field: str, place: Path) -> None:
        if self.folder not in place.resolve().parents or ".." in place.relative_to(self.folder).parts:
            remedy = "must lie beside the spec or below, and so must what a link leads to: other hosts get no more"
            raise ConfigError(field, str(place.relative_to(self.folder)), remedy)
        if place.is_dir():
            for one in sorted(place.iterdir()):
                if one.name not in LEFT_OUT:
                    self._add(field, one)
            return
        name = place.relative_to(self.folder).as_posix()
        if name in self.files:
            return
        self.files[name] = place
        if place.suffix == ".py":
            for imported in self._imported(place):
                self._add("import", imported)

    def _imported(self, file: Path) -> Iterator[Path]:
        """The files and packages beside the spec that a Python file imports."""
        try:
            tree = ast.parse(file.read_bytes(), filename=str(file))
        except (SyntaxError, ValueError) as error:
            raise ConfigError("reference", str(file.relative_to(self.folder)), f"not Python: {error}") from error
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield from self._module(alias.name.split(".")[0], None)
            elif isinstance(node, ast.ImportFrom):
                base = file.parents[node.level - 1] if node.level else None
                names = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
                for name in names:
                    yield from self._module(name, base)

    def _module(self, name: str, base: Path | None) -> Iterator[Path]:
        """What a first name means: beside the spec, or for a relative import in the folder ``base``."""
        if base is None:
            found = local(name, self.folder)
            if found is not None:
                yield found
        elif (file := base / f"{name}.py").is_file():
            yield file
        elif (base / name).is_dir():
            yield base / name


def _exists(place: Path) -> bool:
    try:
        return place.exists()
    except OSError:  # a text too long for a name
        return False
