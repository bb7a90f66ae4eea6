"""The drift verdict on tables, as the monitors, the reports and ``cohobate gate check`` take it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from components.contracts.errors import ConfigError
from components.contracts.spec import Monitor
from drift.calibration import least_resamples
from drift.columns import Column
from drift.detectors.contract import Floats
from drift.monitor import Reference


def fitted(
    columns: Mapping[str, Column], monitor: Monitor, *, window: int, seed: int, alpha: float | None = None
) -> Reference:
    """The reference that judges windows as the spec's ``monitor`` section says; ``alpha`` is a share of its own.

    Raises:
        ValueError: there are no columns, or they have different lengths.

    """
    rate = monitor.alpha if alpha is None else alpha
    return Reference.fit(
        columns,
        window=window,
        alpha=rate,
        min_effect=monitor.min_effect,
        resamples=max(monitor.resamples, least_resamples(rate)),
        seed=seed,
        detectors=monitor.detectors,
        block=monitor.block,
        joint=monitor.joint,
    )


def read_columns(path: Path) -> dict[str, Column]:
    """The columns of a Parquet file: numbers and times (in seconds) as float64, text, and lists of numbers as vectors.

    Raises:
        ConfigError: the file is missing or no Parquet file, or a column is of another type.

    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise ConfigError("file", str(path), "must be a Parquet file that exists")
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ConfigError("file", str(path), f"must be a Parquet file: {error}") from error
    if not table.num_columns:
        raise ConfigError("file", str(path), "must have a column")
    return {name: _column(f"{path.name}: {name}", table[name]) for name in table.column_names}


def _column(name: str, column: Any) -> Column:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.array(column.to_pylist(), dtype=object)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _numbers(column.cast(pa.timestamp("us")).cast(pa.int64())) / 1e6
    if (
        pa.types.is_floating(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    ):
        return _numbers(column)
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return _vectors(name, column.to_pylist())
    raise ConfigError("column", name, f"is of type {kind}: it must be numbers, times, text or lists of numbers")


def _numbers(column: Any) -> Floats:
    values: Floats = column.cast("float64").to_numpy()
    return values


def _vectors(name: str, rows: list[Any]) -> Column:
    try:
        found = np.array(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError("column", name, f"its lists must be numbers, all of one length: {error}") from error
    if found.ndim != 2:
        raise ConfigError("column", name, "its lists must be numbers, all of one length, and none missing")
    return found
