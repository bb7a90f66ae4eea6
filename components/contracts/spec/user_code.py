"""Python files of the user's beside a spec, imported so that those of two folders never meet.

A folder is a package of its own name, whatever its files are called: ``tickets.py`` of one version of a workload and of
the next are two modules in one process. Within a folder ``import words`` finds ``words.py`` beside it, as it would in a
script, wherever in the code it stands (but not ``importlib.import_module("words")``). Python's own modules and
Cohobate's come before that, all others after it. Nothing is written into the folder.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

PREFIX = "cohobate_user_"
"""How the name of a folder's package begins."""

OWN = frozenset({"components", "drift", "infra", "pipelines", "serving"})
"""Top-level packages of Cohobate."""

_lock = threading.Lock()


def local(name: str, folder: Path) -> Path | None:
    """The file or package folder beside the spec that a module's first name means; None of one that is elsewhere."""
    if name in OWN or name in sys.stdlib_module_names:
        return None
    file, package = folder / f"{name}.py", folder / name
    if (package / "__init__.py").is_file():
        return package
    if file.is_file():
        return file
    return package if package.is_dir() and any(package.glob("*.py")) else None


def package_of(folder: Path) -> str:
    """The name of a folder's package, which can be imported from now on."""
    folder = folder.resolve()
    name = f"{PREFIX}{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
    with _lock:
        if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
            sys.meta_path.insert(0, _Finder())
        if name not in sys.modules:
            spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = [str(folder)]
            sys.modules[name] = importlib.util.module_from_spec(spec)
    return name


def folders() -> list[str]:
    """The folders that code was imported from in this process."""
    return [
        path
        for name, module in list(sys.modules.items())
        if name.startswith(PREFIX) and "." not in name
        for path in module.__path__
    ]


def module_of(folder: Path, file: Path) -> ModuleType:
    """The module of a Python file in or below ``folder``, read once in a process."""
    parts = file.relative_to(folder).with_suffix("").parts
    return importlib.import_module(".".join((package_of(folder), *parts)))


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of folders' packages as Python finds others; only how they are executed differs."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(PREFIX):
            return None
        found = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if found is not None and isinstance(found.loader, importlib.machinery.SourceFileLoader):
            found.loader = _Loader(fullname, found.loader.path)
            found.cached = None
        return found


class _Loader(importlib.abc.SourceLoader):
    """Executes a file in whose code an import looks into the file's folder first; keeps no bytecode."""

    def __init__(self, name: str, path: str) -> None:
        self._name, self._path = name, path

    def get_filename(self, fullname: str) -> str:
        return self._path

    def get_data(self, path: str | bytes) -> bytes:
        return Path(str(path)).read_bytes()

    def exec_module(self, module: ModuleType) -> None:
        package = self._name.partition(".")[0]
        folder = Path(sys.modules[package].__path__[0])

        def find(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
            first = name.partition(".")[0]
            if level or local(first, folder) is None:
                return builtins.__import__(name, globals, locals, fromlist, level)
            found = builtins.__import__(f"{package}.{name}", globals, locals, fromlist, 0)
            return found if fromlist else sys.modules[f"{package}.{first}"]

        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": find}
        super().exec_module(module)
