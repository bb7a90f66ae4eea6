"""Features of tables: numeric columns, standardised, each with a bucket of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from components.contracts.errors import ConfigError, RecordError
from components.student.arrays import Ids, Weights

CLIP = 8.0
"""Standard deviations at which a value is cut off: one wild value must not drown the others."""


class TableColumns:
    """Columns of a JSON object (or a JSON list, in order); ``columns`` gives each a name, mean and scale.

    Column *j* has bucket *j*; a missing value weighs nothing. The last bucket is a constant: beside it the size of
    a value survives the network's normalisation.
    """

    def __init__(self, columns: Sequence[Mapping[str, Any]]) -> None:
        if not columns:
            raise ConfigError("features.options.columns", columns, "must name at least one column")
        try:
            self.names = [str(c["name"]) for c in columns]
            self._mean = np.array([float(c.get("mean", 0.0)) for c in columns])
            self._scale = np.array([float(c.get("scale", 1.0)) for c in columns])
        except (KeyError, TypeError, ValueError) as error:
            allowed = f"each needs a name, and numbers as mean and scale ({error})"
            raise ConfigError("features.options.columns", columns, allowed) from error
        if not (self._scale > 0).all() or len(set(self.names)) < len(self.names):
            raise ConfigError("features.options.columns", columns, "every scale must be > 0, every name unique")
        self.buckets = len(columns) + 1
        self._means, self._scales = self._mean.tolist(), self._scale.tolist()
        self._ids = np.arange(self.buckets).reshape(1, -1)

    def encode(self, payloads: Sequence[Any]) -> tuple[Ids, Weights]:
        """Ids and weights of shape (B, columns + 1).

        Raises:
            RecordError: ``invalid``, the payload does not have these columns or one is not a number.

        """
        if len(payloads) == 1:
            return self._one(payloads[0])
        values = np.array([self._values(p) for p in payloads]).reshape(len(payloads), len(self.names))
        scaled = np.clip((values - self._mean) / self._scale, -CLIP, CLIP)
        constant = np.ones((len(payloads), 1))
        weights = np.concatenate([np.where(np.isnan(scaled), 0.0, scaled), constant], axis=1)
        return np.tile(np.arange(self.buckets), (len(payloads), 1)), weights.astype(np.float32)

    def _one(self, payload: Any) -> tuple[Ids, Weights]:
        """The same for one payload, number by number: NumPy would take several times as long for so few."""
        weights = []
        for value, mean, scale in zip(self._values(payload), self._means, self._scales, strict=True):
            scaled = (value - mean) / scale
            weights.append(0.0 if scaled != scaled else min(max(scaled, -CLIP), CLIP))
        weights.append(1.0)
        return self._ids.copy(), np.array([weights], dtype=np.float32)

    def _values(self, payload: Any) -> list[float]:
        cells = [payload.get(n) for n in self.names] if isinstance(payload, Mapping) else payload
        if not isinstance(cells, list | tuple) or len(cells) != len(self.names):
            raise RecordError("invalid", f"expected {len(self.names)} columns: {', '.join(self.names)}")
        try:
            return [math.nan if c is None else float(c) for c in cells]
        except (TypeError, ValueError, OverflowError) as error:
            raise RecordError("invalid", f"a column is not a number: {error}") from error

    def describe(self, payload: Any) -> dict[str, float | str]:
        """The columns themselves; a missing value is NaN.

        Raises:
            RecordError: ``invalid``, as for :meth:`encode`.

        """
        return dict(zip(self.names, self._values(payload), strict=True))
