"""Features of tables with numbers and categories, for networks that embed the categories."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from components.contracts.errors import ConfigError, RecordError
from components.student.arrays import BATCH, Features
from components.student.features import Signature, TensorSpec
from components.student.table import CLIP

MISSING, UNSEEN = "(missing)", "(unseen)"
"""What the descriptors tell of a category without a value, and of a value that is not among its ``values``."""


class MixedColumns:
    """Columns of a JSON object: ``numbers`` with a name, mean and scale each, ``categories`` with a name and values.

    Arrays, each left out where it would have no columns: ``numbers`` (B, numbers), standardised, 0 where one is
    missing; ``missing`` (B, numbers), 1 where it is; ``categories`` (B, categories), ids that no two columns share: the
    first of a column stands for a missing value, the second for one that is not among its values.
    """

    def __init__(self, numbers: Sequence[Mapping[str, Any]] = (), categories: Sequence[Mapping[str, Any]] = ()) -> None:
        if not numbers and not categories:
            raise ConfigError("features.options", {}, "must name columns, in numbers or categories")
        try:
            self._numbers = [(str(c["name"]), float(c.get("mean", 0.0)), float(c.get("scale", 1.0))) for c in numbers]
        except (KeyError, TypeError, ValueError) as error:
            allowed = f"each needs a name, and numbers as mean and scale ({error})"
            raise ConfigError("features.options.numbers", numbers, allowed) from error
        if not all(scale > 0 for _, _, scale in self._numbers):
            raise ConfigError("features.options.numbers", numbers, "every scale must be > 0")
        self._categories, self._ids = [], 0
        for column in categories:
            name, values = _category(column)
            self._categories.append((name, self._ids, {v: self._ids + 2 + i for i, v in enumerate(values)}))
            self._ids += 2 + len(values)
        names = [c[0] for c in (*self._numbers, *self._categories)]
        if len(set(names)) < len(names):
            raise ConfigError("features.options", names, "must name every column once")
        self.signature: Signature = self._signature()

    def _signature(self) -> Signature:
        made: dict[str, TensorSpec] = {}
        if self._numbers:
            spec = TensorSpec(dtype="float32", shape=(BATCH, len(self._numbers)))
            made |= {"numbers": spec, "missing": spec}
        if self._categories:
            shape = (BATCH, len(self._categories))
            made["categories"] = TensorSpec(dtype="int64", shape=shape, below=self._ids)
        return made

    def encode(self, payloads: Sequence[Any]) -> Features:
        """The arrays of ``signature``.

        Raises:
            RecordError: ``invalid``, the payload is no object, a number is none, or a category is no plain value.

        """
        rows = [(self._values(p), self._names(p)) for p in payloads]
        out: Features = {}
        if self._numbers:
            values = np.array([v for v, _ in rows], dtype=np.float64).reshape(len(rows), len(self._numbers))
            mean, scale = np.array([n[1:] for n in self._numbers]).T
            missing = np.isnan(values)
            scaled = np.clip((values - mean) / scale, -CLIP, CLIP)
            out["numbers"] = np.where(missing, 0.0, scaled).astype(np.float32)
            out["missing"] = missing.astype(np.float32)
        if self._categories:
            ids = [
                [first if n is None else known.get(n, first + 1) for n, (_, first, known) in pairs]
                for pairs in (zip(names, self._categories, strict=True) for _, names in rows)
            ]
            out["categories"] = np.array(ids, dtype=np.int64).reshape(len(rows), len(self._categories))
        return out

    def describe(self, payload: Any) -> dict[str, float | str]:
        """The columns themselves; a missing number is NaN, a category that is missing or unseen says so.

        Raises:
            RecordError: as for :meth:`encode`.

        """
        numbers = zip((n for n, _, _ in self._numbers), self._values(payload), strict=True)
        told = {
            name: MISSING if value is None else value if value in known else UNSEEN
            for value, (name, _, known) in zip(self._names(payload), self._categories, strict=True)
        }
        return {**dict(numbers), **told}

    def _values(self, payload: Any) -> list[float]:
        cells = _object(payload)
        found = []
        for name, _, _ in self._numbers:
            cell = cells.get(name)
            try:
                found.append(math.nan if cell is None else float(cell))
            except (TypeError, ValueError, OverflowError) as error:
                raise RecordError("invalid", f"column {name!r} is not a number: {error}") from error
        return found

    def _names(self, payload: Any) -> list[str | None]:
        cells = _object(payload)
        return [_name(cells.get(name), name) for name, _, _ in self._categories]


def _object(payload: Any) -> Mapping[str, Any]:
    if not isinstance(payload, Mapping):
        raise RecordError("invalid", f"expected a JSON object, not a {type(payload).__name__}")
    return payload


def _category(column: Mapping[str, Any]) -> tuple[str, list[str]]:
    try:
        name, values = str(column["name"]), [_name(v, "values") for v in column["values"]]
    except (KeyError, TypeError, RecordError) as error:
        allowed = f"each needs a name, and a list of values ({error})"
        raise ConfigError("features.options.categories", column, allowed) from error
    known = [v for v in values if v is not None]
    if len(known) < len(values) or len(set(known)) < len(known) or not known:
        raise ConfigError("features.options.categories", column, "needs values, each once; a missing one needs no name")
    return name, known


def _name(value: Any, column: str) -> str | None:
    """A category's value as text: JSON's true, 1 and 1.0 are ``true``, ``1`` and ``1``; None where it is missing."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return None if math.isnan(value) else str(int(value)) if value.is_integer() else repr(value)
    raise RecordError("invalid", f"column {column!r} is neither text nor a number nor a truth value")
