"""How a workload's versions stand in MLflow, for whoever reads them with its library and for whoever does without."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

TAGS = ("uri", "digest", "snapshots", "teacher", "parent", "code", "variant", "verdict", "metrics")
"""The tags that every version of ours has; one that lacks any was made by hand, or by another program."""


def model_name(workload: str) -> str:
    """Name of a workload's registered model and experiment in MLflow."""
    return f"cohobate-{workload}"


def aliases_of(version: str, aliases: Mapping[str, str]) -> tuple[str, ...]:
    """The aliases of one version, of those of all its model's."""
    return tuple(sorted(alias for alias, named in aliases.items() if named == version))


def json_object(tag: str | None) -> dict[str, Any] | None:
    """The JSON object that a tag of ours holds; None of anything else."""
    try:
        found = json.loads(tag or "")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
