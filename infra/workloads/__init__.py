"""The workloads that ship with the platform, and where their specs are."""

from pathlib import Path

BUILT_IN = Path(__file__).parent
"""Specs that ship with Cohobate: they are found here by name."""


def spec_path(name_or_path: str) -> str:
    """The file of a built-in workload's name; any other text is a path already."""
    built_in = BUILT_IN / f"{name_or_path}.yaml"
    return str(built_in) if built_in.is_file() else name_or_path
