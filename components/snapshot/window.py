"""Freezing a window: labelled inputs since the last window become one Parquet file, named by its content."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import fsspec
import msgspec

from components.contracts import storage
from components.contracts.errors import ArtifactError, ProvenanceError, RecordError
from components.contracts.records import Label, Truth, decode
from components.contracts.spec import Spec, build
from components.contracts.storage import PART, digest_of, get_bytes, put_bytes
from components.control.forgettings import Forgotten
from components.control.store import ControlStore
from components.control.tables import WindowRow
from components.snapshot.entity_join import joined, report
from components.snapshot.entity_store import entity_store
from components.snapshot.features import FeatureRepo
from components.snapshot.holdout import parted
from components.snapshot.masks import Masks
from components.snapshot.provenance import Declared, Refusal, quarantine, reasons_of
from components.snapshot.reading import Reading, read_new
from components.snapshot.students import lacked_evidence
from components.snapshot.table import (
    Descriptors,
    completed,
    input_table,
    label_table,
    parquet_bytes,
    snapshot_schema,
    truth_table,
    with_entity,
)
from components.stream.contract import Broker, Record
from components.student.features import featuriser
from components.teachers.contract import declared_of, reference

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

SIDES = ["content", "split", "audit", "sketch", "truth_known_at"]
"""The columns of an earlier window that say what is held out."""

READ_ROWS = 1_024
"""Rows of a snapshot that are read together."""


@dataclass
class Harvest:
    """Labels of a window that are fit to be learnt from, and how many were not, by reason.

    ``forgotten``: labels of entities that were forgotten since their inputs came (:mod:`components.forget.order`).
    """

    labels: list[Label] = field(default_factory=list)
    descriptors: list[Descriptors] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    duplicates: int = 0
    forgotten: int = 0
    stranger: Label | None = None
    """The first label of another teacher."""


def freeze(
    spec: Spec,
    broker: Broker,
    store: ControlStore,
    artifacts: str,
    *,
    now: float,
    vouch: Callable[[WindowRow], None] = lambda window: None,
) -> WindowRow | None:
    """Freeze all labels since the last window; None where there are no new ones.

    ``vouch`` is called with the window before it is recorded, so that none is recorded without its signature.

    The declared teacher is ``spec.teacher_digest``, else that of the last window, else what the spec's teacher says
    of itself. Labels of others, labels and truths that :mod:`components.snapshot.provenance` refuses, and records that
    cannot be used are counted by reason in the manifest, and kept with the reason on ``labels.refused``.

    1. Read the place of the last window in the stream from its manifest.
    2. Read labels and truth from there to the present ends, and mask what is not masked; sort out what is refused, and
       put it on its own topic, or known already. What is known is counted in the gauge ``snapshot``: the labeler labels
       nothing twice.
    3. Add the inputs' descriptors, the soft labels and the truth to the Feast sources, and what features of the entity
       are read from.
    4. Join the truth known at ``now`` (Unix seconds) and what was known of entities, point in time; hold out what the
       verdict on a student needs, release what older windows held out, if a champion serves, and refuse rows that are
       like held-out ones.
    5. Write the snapshot under its content hash.
    6. Send the newest inputs, and what is newest of entities, to the online store, which takes only what is newer.
    7. Record the window, the new place in its manifest: from here on, and not before, it is frozen. Whatever fails
       earlier leaves files that no join sees differently and no row refers to, and online features that are true; the
       next freeze reads the same records again.

    Raises:
        ConfigError: Feast does not have the features of the entity that the spec names.
        ProvenanceError: there are new labels, and all of them were made by another teacher.
        StaleRevisionError: somebody else froze a window at the same time.
        UnavailableError: the stream does not answer, or (FinderError) personal data cannot be looked for.

    """
    # Step 1
    earlier = store.windows(spec.name)
    last: dict[str, Any] = earlier[-1].manifest if earlier else {}
    number = earlier[-1].number + 1 if earlier else 1
    # Step 2
    topics = (spec.topic("labels"), spec.topic("truth"))
    broker.ensure_topics(topics, spec.partitions)
    reading = read_new(broker, topics, last.get("anchors", {}))
    if not reading.of(topics[0]):
        return None
    declared = _declared(spec, store, last)
    masks = Masks(spec)
    harvest = _sort_out(reading.of(topics[0]), declared, known_keys(earlier), Forgotten.of(store, spec.name), masks)
    _report_duplicates(spec, store, sum(w.manifest.get("duplicates", 0) for w in earlier) + harvest.duplicates)
    written = dict(last.get("truth_written", {}))
    truths, strange_truths = _truths(declared, reading.of(topics[1]), written)
    refused = [masks.refusal(one) for one in harvest.refusals]
    quarantine(spec, broker, store, [*refused, *strange_truths], now)
    if harvest.refusals:
        log.warning("%s: labels refused: %s", spec.name, reasons_of(harvest.refusals))
    if not harvest.labels:
        if harvest.stranger is not None and not harvest.duplicates:
            raise ProvenanceError(harvest.stranger.input.id, declared.reference, harvest.stranger.teacher)
        return None
    # Step 3
    repo = feature_repo(spec, artifacts)
    inputs = input_table(harvest.labels, harvest.descriptors)
    labels, truth = label_table(harvest.labels), truth_table(truths)
    repo.add("inputs", number, inputs)
    repo.add("labels", number, labels)
    repo.add("truth", number, truth)
    repo.apply(inputs.schema, labels.schema, truth.schema)
    entities = entity_store(spec, artifacts)
    told = joined(entities, number, harvest.labels, now)
    # Step 4
    known = repo.truth([label.input.id for label in harvest.labels], now)
    sides = parted(
        spec,
        harvest.labels,
        known,
        [(w, _sides(w)) for w in earlier],
        teacher=declared.reference,
        serves=store.intent(spec.name)[1].champion is not None,
        short=bool(earlier) and lacked_evidence(earlier[-1]),
    )
    table = with_entity(sides.table, told.known) if entities is not None else sides.table
    if sides.leaks:
        log.info("%s: rows that are like held-out or learnt ones: %s", spec.name, dict(sides.leaks))
    # Step 5
    data = parquet_bytes(table)
    digest = digest_of(data)
    uri = f"{artifacts}/{spec.name}/snapshots/{digest}.parquet"
    put_bytes(uri, data)
    # Step 6
    repo.push(inputs)
    if entities is not None:
        entities.publish(told.recent, now)
    # Step 7
    masked = masks.manifest(table["payload"].to_pylist())
    manifest = _manifest(table, reading, harvest) | {
        "teacher": declared.reference,
        "truth_rejected": len(strange_truths),
        "truth_rejected_reasons": reasons_of(strange_truths),
        "truth_written": written,
        **masked,
        **sides.manifest,
        **told.manifest,
        "started_at_index": sum(w.rows for w in earlier),
        "cut": now,
    }
    row = WindowRow(
        digest=digest, workload=spec.name, number=number, uri=uri, rows=table.num_rows, created_at=now,
        manifest=manifest,
    )  # fmt: skip
    vouch(row)
    store.add_window(row)
    report(spec, store, manifest)
    _report_columns(spec, store, masked)
    return row


def read(uri: str, digest: str) -> pa.Table:
    """The snapshot at ``uri``, if it still is what was frozen.

    Raises:
        ArtifactError: it does not exist, has another digest, or is not a snapshot.

    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = get_bytes(uri, digest)
    try:
        table = completed(pq.read_table(io.BytesIO(data)))
    except pa.ArrowInvalid as error:
        raise ArtifactError(uri, f"is not Parquet: {error}") from error
    _check_schema(uri, table.schema)
    return table


class Frozen:
    """A snapshot that is read some rows at a time."""

    def __init__(self, uri: str, file: Any) -> None:
        self._uri, self._file = uri, file

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """These columns of its rows, in order.

        Raises:
            ArtifactError: it is not Parquet.

        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        # What is buffered ahead would be all of a group of rows, which may be all of the snapshot.
        source = pq.ParquetFile(self._file, pre_buffer=False, buffer_size=PART)
        there = [name for name in source.schema_arrow.names if name in columns]
        try:
            for batch in source.iter_batches(READ_ROWS, columns=there, use_threads=False):
                yield completed(pa.Table.from_batches([batch]), columns)
        except (pa.ArrowInvalid, OSError) as error:
            raise ArtifactError(self._uri, f"is not Parquet: {error}") from error


@contextlib.contextmanager
def opened(uri: str, digest: str) -> Iterator[Frozen]:
    """The snapshot at ``uri``, if it still is what was frozen, to be read some rows at a time.

    Raises:
        ArtifactError: it does not exist, has another digest, or is not a snapshot.

    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with storage.opened(uri, digest) as file:
        try:
            schema = pq.read_schema(file)
        except pa.ArrowInvalid as error:
            raise ArtifactError(uri, f"is not Parquet: {error}") from error
        _check_schema(uri, completed(schema.empty_table()).schema)
        yield Frozen(uri, file)


def _check_schema(uri: str, found: pa.Schema) -> None:
    if not found.equals(snapshot_schema()):
        raise ArtifactError(uri, f"is not a snapshot: its columns are {found.names}")


def _sides(window: WindowRow) -> pa.Table:
    """What is needed of an earlier window to keep its like apart: without payloads where it has all their sketches."""
    import pyarrow.parquet as pq

    filesystem, path = fsspec.core.url_to_fs(window.uri)
    if "sketch" in pq.read_schema(path, filesystem=filesystem).names:
        table = pq.read_table(path, filesystem=filesystem, columns=SIDES)
        if not table["sketch"].null_count:
            return table
    return read(window.uri, window.digest)


def feature_repo(spec: Spec, artifacts: str) -> FeatureRepo:
    """The features of a workload under the artifact root."""
    return FeatureRepo(f"{artifacts}/{spec.name}/feast", spec.name, entity=spec.entity)


def _declared(spec: Spec, store: ControlStore, last: Mapping[str, Any]) -> Declared:
    if spec.teacher_digest or last.get("teacher"):
        teacher_now = str(spec.teacher_digest or last["teacher"])
        same = declared_of(teacher_now) == declared_of(str(last.get("teacher", "")))
        of_last = last if same else {}  # another teacher may have another space, and vectors of another length
        return Declared.of(spec, store, teacher_now, of_last.get("space"), of_last.get("dimension"))
    teacher = build(spec.teacher, spec.source)
    return Declared.of(spec, store, reference(teacher), teacher.space)


def _sort_out(
    records: Sequence[Record], declared: Declared, known: set[str], forgotten: Forgotten, masks: Masks
) -> Harvest:
    from components.contracts.payload import decoder

    spec = declared.spec
    payload_of, features = decoder(spec.payload, spec.source), featuriser(spec.features, spec.source)
    harvest = Harvest()
    for record in records:
        try:
            label = declared.check(record)
            if label.input.time <= forgotten.until(label.input.key):
                harvest.forgotten += 1
                continue
            label = masks.of(label)
            descriptors = features.describe(payload_of(label.input.payload))
        except RecordError as error:
            harvest.refusals.append((record, error))
            if error.reason == "undeclared_teacher":
                harvest.stranger = harvest.stranger or decode(Label, record.value)
            continue
        if label.key in known:
            harvest.duplicates += 1
            continue
        known.add(label.key)
        declared = dataclasses.replace(declared, space=label.soft.space)
        if declared.dimension is None and label.soft.vector:
            declared = dataclasses.replace(declared, dimension=len(label.soft.vector))
        harvest.labels.append(msgspec.structs.replace(label, teacher=declared.reference))
        harvest.descriptors.append(descriptors)
    return harvest


def _truths(
    declared: Declared, records: Sequence[Record], written: dict[str, int]
) -> tuple[list[tuple[Truth, int]], list[Refusal]]:
    """Usable truths with the time that each was written to its partition (microseconds), and the others.

    Kafka tells milliseconds, and of a producer's clock: a record is at least one microsecond later than the one before
    it, so that of truths about one input the last one is the latest. ``written``: the last time by partition, which is
    brought up to date, over windows too.
    """
    found: list[tuple[Truth, int]] = []
    refused: list[Refusal] = []
    for record in records:
        place = record.place.name
        written[place] = max(round(record.timestamp * 1000) * 1000, written.get(place, 0) + 1)
        try:
            found.append((declared.truth(record), written[place]))
        except RecordError as error:
            refused.append((record, error))
    return found, refused


def _report_duplicates(spec: Spec, store: ControlStore, duplicates: int) -> None:
    """Labels are exactly once, so this gauge stays 0; it counts over all windows."""
    store.put_gauge(spec.name, "snapshot", {"duplicates": duplicates})
    if duplicates:
        log.error("%s: %d labels had the key of another: they are left out, but nobody should make them",
                  spec.name, duplicates)  # fmt: skip


def known_keys(windows: Sequence[WindowRow]) -> set[str]:
    """Label keys of all frozen rows, by reading that one column."""
    import pyarrow.parquet as pq

    keys: set[str] = set()
    for window in windows:
        filesystem, path = fsspec.core.url_to_fs(window.uri)
        try:
            column = pq.read_table(path, filesystem=filesystem, columns=["label_key"])["label_key"]
        except FileNotFoundError as error:
            raise ArtifactError(window.uri, "does not exist; was the artifact root moved or cleaned?") from error
        keys.update(column.to_pylist())
    return keys


def _report_columns(spec: Spec, store: ControlStore, masked: Mapping[str, Any]) -> None:
    """Say which declared columns nothing was searched in; where none are declared any more, say no more of any."""
    if (absent := masked.get("masking_columns_absent")) is None:
        if "masking" in store.gauges(spec.name):
            store.put_gauge(spec.name, "masking", {})
        return
    store.put_gauge(spec.name, "masking", {"columns_absent": absent})
    if absent:
        log.warning("%s: masking.columns: no label of the window has %s: a name that is spelt otherwise protects "
                    "nothing", spec.name, ", ".join(absent))  # fmt: skip


def _manifest(table: pa.Table, reading: Reading, harvest: Harvest) -> dict[str, Any]:
    times = table["time"].to_pylist()
    vector = harvest.labels[-1].soft.vector
    return {
        **({"dimension": len(vector)} if vector else {}),
        "positions": reading.positions,
        "anchors": {place: list(anchor) for place, anchor in reading.anchors.items()},
        "replaced_partitions": list(reading.replaced),
        "space": table["space"][table.num_rows - 1].as_py(),
        "time_range": [times[0], times[-1]],
        "rejected": len(harvest.refusals),
        "rejected_reasons": reasons_of(harvest.refusals),
        "duplicates": harvest.duplicates,
        "forgotten": harvest.forgotten,
        "with_truth": table.num_rows - table["truth_known_at"].null_count,
        "holdout_rows": table["split"].to_pylist().count("holdout"),
        "audit_rows": sum(table["audit"].to_pylist()),
        "synthetic_rows": table.num_rows - table["synthetic"].null_count,
    }
