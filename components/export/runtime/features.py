"""What the featurisers in this folder are described by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One array: ``shape`` has a number for an axis of that size, a name for one that differs; integers are < below."""

    dtype: str
    shape: tuple[str | int, ...]
    below: int | None = None


Signature = Mapping[str, TensorSpec]


def located(path: str, spec_folder: str, field: str) -> Path:
    """Raise a ConfigError: files of a featuriser are in the bundle, and none is looked for elsewhere."""
    raise ConfigError(field, path, "is not in the bundle")
