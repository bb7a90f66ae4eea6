"""Python objects that a spec names."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
from pathlib import Path
from typing import Any

from components.contracts.errors import ConfigError
from components.contracts.reference import SCHEME
from components.contracts.spec import bundles
from components.contracts.spec.fields import Factory
from components.contracts.spec.user_code import module_of

log = logging.getLogger(__name__)

MOVED = {
    "components.label.magika": "components.teachers.magika",
    "components.label.minilm": "components.teachers.minilm",
    "components.label.teachers.human": "components.review.human",
    "components.label.teachers.oip": "components.teachers.oip",
    "components.label.teachers.openai_chat": "components.teachers.openai_chat",
    "components.label.teachers.torch_module": "components.teachers.torch_module",
}
"""Modules that specs may name and that have moved: their old names go on working, with a warning."""


def resolve(reference: str, source: str = "") -> Any:
    """The Python object that ``module:name`` or ``file.py:name`` names; files are relative to the spec ``source``.

    What such a file imports is looked for beside the spec first (:mod:`components.contracts.spec.user_code`).

    Raises:
        ConfigError: the module, file or name does not exist.

    """
    module_name, _, name = reference.partition(":")
    if not name:
        raise ConfigError("reference", reference, "must have the form module:name or file.py:name")
    if module_name.endswith(".py"):
        folder = Path(folder_of(source))
        path = folder / module_name
        if not path.is_file():
            raise ConfigError("reference", reference, f"no such file: {path}")
        beside = not Path(module_name).is_absolute() and ".." not in Path(module_name).parts
        module = module_of(folder if beside else path.parent, path)
    else:
        if module_name in MOVED:
            log.warning("%s has moved: write %s:%s in the spec", reference, MOVED[module_name], name)
        try:
            module = importlib.import_module(MOVED.get(module_name, module_name))
        except ModuleNotFoundError as error:
            raise ConfigError("reference", reference, f"cannot import: {error}") from error
    if not hasattr(module, name):
        raise ConfigError("reference", reference, f"module {module_name} has no {name!r}")
    return getattr(module, name)


def build(factory: Factory, source: str = "") -> Any:
    """Call a spec's factory with its options.

    Raises:
        ConfigError: the reference is wrong, or the object does not take these options.

    """
    made = resolve(factory.factory, source)
    try:
        return made(**factory.options)
    except TypeError as error:
        names = sorted(factory.options)  # not their values: one may be a key that does not belong here
        raise ConfigError("options", names, f"{factory.factory} does not take them: {error}") from error


FOLDER = "spec_folder"
"""Parameter by which a featuriser or a network that reads files is told where the spec lies."""


def placed(factory: Factory, source: str = "") -> Factory:
    """A factory that takes the spec's folder, with it among its options; any other as it is.

    Raises:
        ConfigError: the reference is wrong.

    """
    made = resolve(factory.factory, source)
    try:
        takes = FOLDER in inspect.signature(made).parameters
    except (TypeError, ValueError):  # not callable, or written in C
        takes = False
    return (
        Factory(factory=factory.factory, options={FOLDER: folder_of(source), **factory.options}) if takes else factory
    )


def folder_of(source: str) -> str:
    """The folder of a spec: of its file, or of the bundle that is its source; empty of none.

    Raises:
        ArtifactError, UnavailableError: see :func:`components.contracts.spec.bundles.folder_of`.

    """
    if source.startswith(SCHEME):
        return str(bundles.folder_of(source))
    return str(Path(source).parent) if source else ""


def located(path: str, spec_folder: str, field: str) -> Path:
    """A file or folder that an option names: absolute, relative to the spec, or within an installed Python package.

    The last (``a_package/folder``) is what names the same on every machine.

    Raises:
        ConfigError: there is none.

    """
    beside = Path(spec_folder) / path
    if beside.exists():
        return beside
    package, _, rest = path.partition("/")
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    for root in (found.submodule_search_locations or []) if found else []:
        if (Path(root) / rest).exists():
            return Path(root) / rest
    wanted = "absolute, relative to the spec, or a_package/path within a Python package that is installed here"
    raise ConfigError(field, path, f"no such file or folder: give one that is {wanted}")
