"""Truth that comes late: what is known by a given time, joined to a snapshot that itself never changes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from components.contracts.storage import files, get_bytes
from components.snapshot.table import truth_schema

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("truth_label", "truth_value", "truth_known_at")


def known_truths(workload: str, artifacts: str) -> pa.Table:
    """Every truth of a workload that any window has read, in :func:`~components.snapshot.table.truth_schema`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = files(f"{artifacts}/{workload}/feast/truth/*.parquet")
    tables = [pq.read_table(io.BytesIO(get_bytes(part)), schema=truth_schema()) for part in parts]
    return pa.concat_tables(tables) if tables else truth_schema().empty_table()


def with_truth(table: pa.Table, truths: pa.Table, cut: float) -> pa.Table:
    """The snapshot's rows with the newest truth that was known at ``cut`` (Unix seconds).

    A row of whose input ``truths`` says nothing keeps the truth that it was frozen with, if that was known at the
    cut. The result is a new join, not another snapshot: ``table``'s digest stays the name of what was frozen.
    """
    import pyarrow as pa

    newest: dict[str, dict[str, Any]] = {}
    for row in sorted(truths.to_pylist(), key=lambda r: (r["event_time"], r["created"])):
        if row["truth_known_at"] <= cut:
            newest[row["input_id"]] = row
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for row in table.select(["input_id", *COLUMNS]).to_pylist():
        frozen = row if (row["truth_known_at"] or 0.0) <= cut else {}
        found = newest.get(row["input_id"], frozen)
        for name, values in columns.items():
            values.append(found.get(name))
    for name, values in columns.items():
        position = table.schema.get_field_index(name)
        table = table.set_column(position, table.schema.field(name), pa.array(values, table.schema.field(name).type))
    return table
