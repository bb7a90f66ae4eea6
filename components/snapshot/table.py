"""The tables of a window: the snapshot itself and the sources of its features, as Arrow tables and Parquet bytes."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from components.contracts.records import Label, SoftLabel, Truth, content_hash
from components.contracts.sampling import bucket
from components.contracts.spec import Spec
from components.contracts.storage import digest_of
from components.query.policies import least_chance, representative

if TYPE_CHECKING:
    import pyarrow as pa

MICROSECONDS = 1_000_000

INPUT_KEYS = ("input_id", "key", "seen_at", "event_time")
"""Columns of the input source that are not descriptors."""

FEAST_KEEPS = frozenset({*INPUT_KEYS, "created", "event_timestamp", "entity_row_id", "rn", "__dummy_id"})
"""Columns, in lower case, that Feast's joins and stores make or look for beside those of a source; with one of these
names a descriptor is taken for it, or hides it."""

DESCRIPTOR = b"descriptor"
"""Metadata of a column: the descriptor's own name, where the column has another."""

Descriptors = Mapping[str, float | str]


def place(content: str) -> float:
    """The place of a content (hash in hex) in [0, 1) by which it is held out: the same in every window."""
    return int(content[:16], 16) / 2**64


def split_of(content: str, holdout_share: float) -> str:
    """``holdout`` or ``train`` by a content hash (hex): equal content is always on one side of a share."""
    return "holdout" if place(content) < holdout_share else "train"


def soft_of(text: str) -> SoftLabel:
    """The soft label in a snapshot's ``soft`` column."""
    return msgspec.json.decode(text, type=SoftLabel)


def known_of(text: str | None) -> dict[str, float | str] | None:
    """What is known of an input's entity, in a snapshot's ``entity`` column; None: nothing was asked."""
    return None if text is None else msgspec.json.decode(text, type=dict[str, float | str])


def snapshot_schema() -> pa.Schema:
    """The columns of a snapshot; times are Unix seconds, entropy is in nats, how a row was chosen as in its label.

    ``synthetic``: how an input was made up, as in the input; null of traffic.
    """
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    return pa.schema([
        ("input_id", text), ("key", text), ("time", number), ("payload", pa.binary()), ("content", text),
        ("label_key", text), ("teacher", text), ("space", text), ("soft", text), ("label", text),
        ("confidence", number), ("entropy", number), ("labelled_at", number),
        ("truth_label", text), ("truth_value", number), ("truth_known_at", number), ("split", text),
        ("policy", text), ("probability", number), ("audit", pa.bool_()), ("sketch", pa.binary()),
        ("entity", text), ("synthetic", text),
    ])  # fmt: skip


def calibrates(content: str, share: float) -> bool:
    """Whether a content (hash in hex) is for calibration alone: a ``share`` of them is, the same in every window."""
    return bucket("", "calibration", content) < share


def with_entity(table: pa.Table, known: Mapping[str, Mapping[str, float | str]]) -> pa.Table:
    """The snapshot with what is known of its inputs' entities, by the label's key."""
    import pyarrow as pa

    column = [msgspec.json.encode(known[key], order="deterministic").decode() for key in table["label_key"].to_pylist()]
    at = table.schema.get_field_index("entity")
    return table.set_column(at, table.schema.field("entity"), pa.array(column, pa.string()))


def snapshot_table(labels: Sequence[Label], truths: Mapping[str, Mapping[str, Any]], holdout_share: float) -> pa.Table:
    """The snapshot of ``labels`` in the order of (time, input id, label key), with what is known of their truth.

    ``truths`` gives ``truth_label``, ``truth_value`` and ``truth_known_at`` by input id.
    The whole audit slice is holdout; what was made up is for training, whatever its hash says.
    """
    import pyarrow as pa

    rows = []
    for label in sorted(labels, key=lambda x: (x.input.time, x.input.id, x.key)):
        content = content_hash(label.input.payload)
        truth = truths.get(label.input.id, {})
        rows.append({
            "input_id": label.input.id, "key": label.input.key, "time": label.input.time,
            "payload": label.input.payload, "content": content,
            **_labelling(label),
            "truth_label": truth.get("truth_label"), "truth_value": truth.get("truth_value"),
            "truth_known_at": truth.get("truth_known_at"),
            "split": _split(label, content, holdout_share),
            "policy": label.policy, "probability": label.probability,
            "audit": label.audit and label.input.synthetic is None,
            "synthetic": label.input.synthetic,
        })  # fmt: skip
    return pa.Table.from_pylist(rows, schema=snapshot_schema())


def _split(label: Label, content: str, holdout_share: float) -> str:
    if label.input.synthetic is not None:
        return "train"
    return "holdout" if label.audit else split_of(content, holdout_share)


ADDED = {"policy": "all", "probability": 1.0, "audit": False, "sketch": None, "entity": None, "synthetic": None}
"""Columns that a snapshot from before rows said how they were chosen, or had sketches, has not, and what was true."""


def completed(table: pa.Table, names: Sequence[str] | None = None) -> pa.Table:
    """A snapshot with the columns ``names`` (all of them), those among them that it is too old to have."""
    import pyarrow as pa

    names = snapshot_schema().names if names is None else names
    for name, value in ADDED.items():
        if name in names and name not in table.schema.names:
            column = pa.array([value] * table.num_rows, snapshot_schema().field(name).type)
            table = table.append_column(snapshot_schema().field(name), column)
    in_order = table.schema.names == list(names) or set(table.schema.names) != set(names)
    return table if in_order else table.select(names)


def representatives(spec: Spec, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a snapshot that are a uniform sample of the traffic, whatever the policy preferred."""
    rows = [row for row in rows if row["synthetic"] is None]
    chances = [row["probability"] for row in rows if not row["audit"]]
    least = least_chance(spec.label.policy, chances)
    return [r for r in rows if representative(least, spec.name, r["input_id"], r["probability"], r["audit"])]


def _labelling(label: Label) -> dict[str, Any]:
    soft = label.soft
    return {
        "label_key": label.key, "teacher": label.teacher, "space": soft.space,
        "soft": msgspec.json.encode(soft, order="deterministic").decode(),
        "label": None if soft.task in ("regression", "embedding") else soft.label,
        "confidence": soft.confidence, "entropy": soft.entropy, "labelled_at": label.labelled_at,
    }  # fmt: skip


def truth_schema() -> pa.Schema:
    """The columns of the truth source; ``created`` orders truths that became known at the same time."""
    import pyarrow as pa

    stamp = pa.timestamp("us", tz="UTC")
    return pa.schema([
        ("input_id", pa.string()), ("truth_label", pa.string()), ("truth_value", pa.float64()),
        ("truth_known_at", pa.float64()), ("truth_source", pa.string()), ("event_time", stamp), ("created", stamp),
    ])  # fmt: skip


def truth_table(truths: Sequence[tuple[Truth, int]]) -> pa.Table:
    """The truth source's rows from truths and the time that each was written to the stream (microseconds)."""
    import pyarrow as pa

    rows = [
        {
            "input_id": truth.input_id,
            "truth_label": None if truth.value is not None else truth.said, "truth_value": truth.value,
            "truth_known_at": truth.known_at, "truth_source": truth.source,
            "event_time": int(truth.known_at * MICROSECONDS), "created": written,
        }
        for truth, written in truths
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=truth_schema())


def label_table(labels: Sequence[Label]) -> pa.Table:
    """The soft-label source's rows."""
    import pyarrow as pa

    stamp, text, number = pa.timestamp("us", tz="UTC"), pa.string(), pa.float64()
    schema = pa.schema([
        ("input_id", text), ("label_key", text), ("teacher", text), ("space", text), ("soft", text), ("label", text),
        ("confidence", number), ("entropy", number), ("labelled_at", number), ("event_time", stamp),
    ])  # fmt: skip
    rows = [{"input_id": x.input.id, **_labelling(x), "event_time": int(x.labelled_at * MICROSECONDS)} for x in labels]
    return pa.Table.from_pylist(rows, schema=schema)


def input_table(labels: Sequence[Label], descriptors: Sequence[Descriptors]) -> pa.Table:
    """The input source's rows: descriptors by input and entity key. ``seen_at`` is the input's event time.

    A descriptor that is a number in every row is a number; one that is text anywhere is text. Columns are named by
    :func:`column_names`.
    """
    import pyarrow as pa

    stamp, text, number = pa.timestamp("us", tz="UTC"), pa.string(), pa.float64()
    columns = column_names({name for row in descriptors for name in row})
    names = sorted(columns)
    textual = {n for n in names if any(isinstance(row.get(n), str) for row in descriptors)}
    schema = pa.schema([
        ("input_id", text), ("key", text), ("seen_at", number), ("event_time", stamp),
        *(_column(columns[n], text if n in textual else number, n) for n in names),
    ])  # fmt: skip
    rows = []
    for label, row in zip(labels, descriptors, strict=True):
        when = {"seen_at": label.input.time, "event_time": int(label.input.time * MICROSECONDS)}
        values = {columns[n]: str(v) if n in textual else float(v) for n, v in row.items()}
        rows.append({"input_id": label.input.id, "key": label.input.key, **when, **values})
    return pa.Table.from_pylist(rows, schema=schema)


def column_names(descriptors: Collection[str]) -> dict[str, str]:
    """A column's name for each descriptor: its own, unless Feast or DuckDB would confuse it with another.

    Feast keeps some names for itself and parts a reference at its colon; DuckDB tells no capitals from small letters.
    Such a descriptor gets a name with a part of its digest, which is the same in every window.

    >>> column_names(["age", "rn"])
    {'age': 'age', 'rn': 'rn_584b5edc'}
    """
    small = Counter(name.lower() for name in descriptors)
    return {
        name: name
        if name and ":" not in name and name.lower() not in FEAST_KEEPS and small[name.lower()] == 1
        else f"{re.sub(r'[^a-z0-9]', '_', name.lower())}_{digest_of(name.encode())[:8]}"
        for name in descriptors
    }


def _column(name: str, kind: pa.DataType, descriptor: str) -> pa.Field:
    import pyarrow as pa

    return pa.field(name, kind, metadata=None if name == descriptor else {DESCRIPTOR: descriptor.encode()})


def parquet_bytes(table: pa.Table, of: int | None = None) -> bytes:
    """The table as Parquet; the same rows give the same bytes (with the same pyarrow).

    ``of``: the number of the window that it says it is of, by which it differs from others without rows.
    """
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    said = None if of is None else {"window": str(of)}
    pq.write_table(table.replace_schema_metadata(said), sink, compression="zstd", version="2.6")
    return sink.getvalue()
