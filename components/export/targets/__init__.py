"""The targets, one module each."""

from __future__ import annotations

import importlib
import importlib.util

from components.contracts.errors import ConfigError
from components.export import TARGETS
from components.export.targets.contract import Target


def target_of(name: str) -> Target:
    """The target of a name.

    Raises:
        ConfigError: there is none, or what it needs is not installed.

    """
    if name not in TARGETS:
        raise ConfigError("--to", name, f"must be one of {', '.join(TARGETS)}")
    module, _, kind = TARGETS[name].partition(":")
    made: Target = getattr(importlib.import_module(f"{__name__}.{module}"), kind)()
    for package, extra in made.extra:
        if importlib.util.find_spec(package) is None:
            raise ConfigError("--to", name, f"needs the package {package}: pip install 'cohobate[{extra}]'")
    return made
