"""The drift verdict on tables, as the monitors, the reports and ``cohobate gate check`` take it."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from components.contracts.errors import ConfigError
from components.contracts.spec import Monitor
from drift.calibration import least_resamples
from drift.columns import Column
from drift.detectors.contract import Floats
from drift.monitor import Reference

PANDAS_INDEX = re.compile(r"__index_level_\d+__")
"""The name that pandas gives an index without one when it is stored."""

UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
"""A second in each unit of a time."""


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


def column_names(path: Path) -> list[str]:
    """The columns of a Parquet file, without an index that pandas stored: it numbers or names the rows.

    Raises:
        ConfigError: the file is missing or no Parquet file, or two columns have one name.

    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise ConfigError("file", str(path), "must be a Parquet file that exists")
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise ConfigError("file", str(path), f"must be a Parquet file: {error}") from error
    if twice := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        raise ConfigError("file", str(path), f"must have one column of a name, not several of {', '.join(twice)}")
    stored = [name for name in _index_columns(schema.pandas_metadata) if isinstance(name, str)]
    return [name for name in schema.names if name not in stored and not PANDAS_INDEX.fullmatch(name)]


def _index_columns(metadata: Any) -> list[Any]:
    """What pandas says of its index: names of columns, or descriptions of a range that is stored nowhere."""
    found = metadata.get("index_columns") if isinstance(metadata, dict) else None
    return found if isinstance(found, list) else []


def read_columns(path: Path, exclude: Container[str] = ()) -> dict[str, Column]:
    """The columns of a Parquet file: numbers and times (in seconds) as float64, text, and lists of numbers as vectors.

    An index that pandas stored is no column, and those in ``exclude`` are not read. Whole numbers beyond 2^53 are
    rounded to the nearest float64.

    Raises:
        ConfigError: the file is missing or no Parquet file, or a column is of another type.

    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = column_names(path)
    if not names:
        raise ConfigError("file", str(path), "must have a column")
    wanted = [name for name in names if name not in exclude]
    try:
        with pq.ParquetFile(path) as file:
            table = file.read(wanted)
    except (pa.ArrowException, OSError) as error:
        raise ConfigError("file", str(path), f"must be a Parquet file that can be read: {error}") from error
    return {name: _column(f"{path.name}: {name}", table[name]) for name in wanted}


def _column(name: str, column: Any) -> Column:
    import pyarrow.types as of

    kind = column.type.value_type if of.is_dictionary(column.type) else column.type
    if of.is_string(kind) or of.is_large_string(kind) or of.is_string_view(kind):
        return np.array(column.to_pylist(), dtype=object)
    if of.is_dictionary(column.type):
        column = column.cast(kind)
    if of.is_temporal(kind) and not of.is_interval(kind):
        return _seconds(column)
    if of.is_floating(kind) or of.is_integer(kind) or of.is_boolean(kind) or of.is_decimal(kind):
        return _numbers(column)
    if of.is_null(kind):
        return np.full(len(column), np.nan)
    lists = (of.is_list, of.is_large_list, of.is_fixed_size_list, of.is_list_view, of.is_large_list_view)
    if any(is_of(kind) for is_of in lists):
        return _vectors(name, column.to_pylist())
    raise ConfigError("column", name, f"is of type {kind}: it must be numbers, times, text or lists of numbers")


def _numbers(column: Any) -> Floats:
    values: Floats = column.cast("float64", safe=False).to_numpy()
    return values


def _seconds(column: Any) -> Floats:
    """Dates and times since 1970, times of day and durations, to a float64's precision."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_date32(kind):
        return _numbers(column.cast(pa.int32())) * 86_400.0
    unit = "ms" if pa.types.is_date64(kind) else str(kind.unit)
    whole = column.cast(pa.int32() if pa.types.is_time32(kind) else pa.int64())
    if unit != "ns":
        return _numbers(whole) / UNITS[unit]
    import pyarrow.compute as pc

    microseconds = pc.divide(whole, 1_000)
    rest = pc.subtract(whole, pc.multiply(microseconds, 1_000))
    return _numbers(microseconds) / UNITS["us"] + _numbers(rest) / UNITS["ns"]


def _vectors(name: str, rows: list[Any]) -> Column:
    try:
        found = np.array(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError("column", name, f"its lists must be numbers, all of one length: {error}") from error
    if found.ndim != 2:
        raise ConfigError("column", name, "its lists must be numbers, all of one length, and none missing")
    return found
