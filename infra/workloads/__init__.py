"""The workloads that ship with the platform, and where their specs are."""

from pathlib import Path

from components.contracts.reference import SCHEME

BUILT_IN = Path(__file__).parent
"""Specs that ship with Cohobate: they are found here by name."""


def spec_path(name_or_path: str) -> str:
    """The file of a built-in workload's name, a path as it is, or a version of the registry by its digest.

    Raises:
        ConfigError, NotFoundError: see :func:`components.control.workloads.pinned`.
    """
    if name_or_path.startswith(SCHEME):
        from components.contracts.settings import Settings
        from components.control.workloads import pinned

        return pinned(name_or_path, Settings())
    built_in = BUILT_IN / f"{name_or_path}.yaml"
    return str(built_in) if built_in.is_file() else name_or_path
