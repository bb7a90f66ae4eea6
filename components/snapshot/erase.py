"""Rows of one entity taken out of what was frozen: snapshots, the sources of features, and the online stores.

A snapshot is named by its content, so one that loses rows becomes another, its *successor*. The window then names the
successor, and the digests that it replaces, newest first: cards of students, verdicts and evidence go on naming what
was read then, and a window is found by each of its digests.
"""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

from components.contracts.records import content_hash
from components.contracts.spec import Spec
from components.contracts.storage import digest_of, files, get_bytes, put_bytes, remove
from components.control.store import ControlStore
from components.control.tables import FROZEN, WindowRow
from components.ledger.signatures import SUFFIX
from components.snapshot.entity_store import VIEW
from components.snapshot.features import import_feast, online_store, open_store
from components.snapshot.table import parquet_bytes

if TYPE_CHECKING:
    import pyarrow as pa
    from feast import FeatureStore, FeatureView


def column_of(window: WindowRow, names: Collection[str]) -> pa.Table:
    """Some columns of a snapshot.

    Raises:
        ArtifactError: it does not exist or has another digest.

    """
    import pyarrow.parquet as pq

    return pq.read_table(io.BytesIO(get_bytes(window.uri, window.digest)), columns=list(names))


def meant(window: WindowRow, table: pa.Table, key: str, until: float) -> list[bool]:
    """Of each row, by its ``key`` and ``time``, whether it is of an entity and was there, or had happened, by then."""
    there = window.created_at <= until
    rows = zip(table["key"].to_pylist(), table["time"].to_pylist(), strict=True)
    return [k == key and (there or time <= until) for k, time in rows]


def rewritten(
    store: ControlStore,
    window: WindowRow,
    key: str,
    until: float,
    vouch: Callable[[WindowRow], None] = lambda window: None,
) -> None:
    """Take the rows of an entity, of up to a time (Unix seconds), out of a snapshot, as :func:`without` does.

    Raises:
        ArtifactError: the snapshot does not exist or has another digest.

    """

    def noted(digest: str, count: int) -> dict[str, Any]:
        return {"forgotten_rows": int(window.manifest.get("forgotten_rows", 0)) + count}

    without(store, window, lambda table: meant(window, table, key, until), noted, vouch)


def without(
    store: ControlStore,
    window: WindowRow,
    gone: Callable[[pa.Table], list[bool]],
    noted: Callable[[str, int], dict[str, Any]],
    vouch: Callable[[WindowRow], None] = lambda window: None,
) -> None:
    """Take rows out of a snapshot: those that ``gone`` says of its table.

    ``noted``: what the manifest is to have of it, by the successor's digest and how many rows went.

    1. Write the successor; ``vouch`` is told of it before any window names it: to sign it, say. If it raises, the
       successor is deleted.
    2. Have the window name it, in one transaction.
    3. Delete what it replaces.

    A crash between two of these leaves a file that no window names: :func:`swept` finds it.

    Raises:
        ArtifactError: the snapshot does not exist or has another digest.

    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    whole = pq.read_table(io.BytesIO(get_bytes(window.uri, window.digest)))
    table = whole.filter(pa.array([not left for left in gone(whole)], pa.bool_()))  # it may have no rows at all
    if table.num_rows == whole.num_rows:
        return
    # Step 1
    data = parquet_bytes(table, of=None if table.num_rows else window.number)
    digest = digest_of(data)
    old, uri = window.uri, f"{window.uri.rsplit('/', 1)[0]}/{digest}.parquet"
    put_bytes(uri, data)
    made = WindowRow(
        digest=digest, workload=window.workload, number=window.number, uri=uri,
        rows=table.num_rows, created_at=window.created_at, manifest=window.manifest,
    )  # fmt: skip
    try:
        vouch(made)
    except BaseException:
        remove(uri)
        remove(uri + SUFFIX)
        raise
    # Step 2
    with store.transaction() as s:
        row = s.get_one(WindowRow, (window.digest, window.workload))
        counted = {**_counts(row, table), "replaces": list(row.digests), FROZEN: row.frozen_of_traffic}
        row.manifest = {**row.manifest, **counted, **noted(digest, whole.num_rows - table.num_rows)}
        row.digest, row.uri, row.rows = digest, uri, table.num_rows
    # Step 3
    remove(old)
    remove(old + SUFFIX)


def _counts(window: WindowRow, table: pa.Table) -> dict[str, Any]:
    """What the manifest counts of the rows, of those that are left."""
    sides, times = table["split"].to_pylist(), table["time"].to_pylist()
    found: dict[str, Any] = {
        "time_range": [min(times), max(times)] if times else [window.created_at, window.created_at],
        "with_truth": table.num_rows - table["truth_known_at"].null_count,
        "holdout_rows": sides.count("holdout"),
    }
    if "audit" in table.schema.names:
        found["audit_rows"] = sum(table["audit"].to_pylist())
    if "synthetic" in table.schema.names:
        found["synthetic_rows"] = table.num_rows - table["synthetic"].null_count
    return found


def swept(store: ControlStore, workload: str) -> None:
    """Delete the snapshots that no window names: those that were replaced, and what was cut off left behind.

    One that is being frozen is none yet either, so no update may be under way.
    """
    folders = {window.uri.rsplit("/", 1)[0] for window in store.windows(workload)}
    found = [uri for folder in sorted(folders) for uri in files(f"{folder}/*.parquet*")]
    named = {window.digest for window in store.windows(workload)}
    for uri in found:
        if uri.rsplit("/", 1)[1].partition(".")[0] not in named:
            remove(uri)


def unlabelled_without(
    spec: Spec, artifacts: str, windows: Collection[WindowRow], contents: Collection[str], *, dry: bool = False
) -> list[int]:
    """Take payloads, by their content hashes, out of what was frozen without labels.

    Returns the numbers of the windows beside which there were any; ``dry``: and does no more than look.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = []
    for window in windows:
        for uri in frozen_beside(spec, artifacts, window):
            payloads = pq.read_table(io.BytesIO(get_bytes(uri)))["payload"].to_pylist()
            kept = [p for p in payloads if content_hash(p) not in contents]
            if len(kept) < len(payloads):
                found.append(window.number)
                if not dry:
                    put_bytes(uri, parquet_bytes(pa.table({"payload": pa.array(kept, pa.binary())})))
    return sorted(set(found))


def frozen_beside(spec: Spec, artifacts: str, window: WindowRow) -> list[str]:
    """What was frozen without labels beside a window, by each version of the spec that asked for it."""
    return [uri for d in window.digests for uri in files(f"{artifacts}/{spec.name}/unlabelled/{d}*.parquet")]


def sources_without(spec: Spec, artifacts: str, key: str, ids: Collection[str]) -> int:
    """Take an entity's rows out of the offline sources of features; returns how many there were.

    A file that loses rows is written anew under the name that its content has now, and then deleted.
    """
    root = f"{artifacts}/{spec.name}/feast"
    named = {
        f"{root}/inputs": ("key", {key}), f"{root}/labels": ("input_id", ids), f"{root}/truth": ("input_id", ids),
        f"{root}/entity/{VIEW}": ("key", {key}),
    }  # fmt: skip
    return sum(_file_without(uri, *by) for folder, by in named.items() for uri in files(f"{folder}/*.parquet"))


def sources_aged(artifacts: str, workload: str, numbers: Collection[int], ids: Collection[str], until: float) -> None:
    """Take out of the offline sources of features what windows, by number, had and no window has any more.

    ``ids``: the inputs that windows have. A truth that is of none of them may be of one that is not labelled yet: it
    goes with what was known before ``until`` (Unix seconds) alone. What is known of entities (the platform's own
    features of them) is by entity, and stays.

    The inputs' own files are last: they tell what was lost, where this was cut off.
    """
    root = f"{artifacts}/{workload}/feast"
    inputs = [uri for uri in files(f"{root}/inputs/*.parquet") if _number(uri) in numbers]
    gone = {name for uri in inputs for name in _read(uri)["input_id"].to_pylist()}.difference(ids)
    for uri in files(f"{root}/truth/*.parquet"):
        aged = _aged(_read(uri), until).difference(ids) if _number(uri) in numbers else set()
        _file_without(uri, "input_id", gone | aged)
    for uri in [*files(f"{root}/labels/*.parquet"), *inputs]:
        _file_without(uri, "input_id", gone)


def _aged(truths: pa.Table, until: float) -> set[str]:
    """Whose truth was known before then."""
    rows = zip(truths["input_id"].to_pylist(), truths["truth_known_at"].to_pylist(), strict=True)
    return {name for name, known_at in rows if known_at < until}


def _number(uri: str) -> int:
    """The number of the window whose rows a file of a source has."""
    return int(uri.rsplit("/", 1)[1].partition("-")[0])


def _read(uri: str) -> pa.Table:
    import pyarrow.parquet as pq

    return pq.read_table(io.BytesIO(get_bytes(uri)))


def _file_without(uri: str, column: str, values: Collection[str]) -> int:
    """Take rows with these values out of a file; returns how many there were."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not values:
        return 0
    whole = _read(uri)
    table = whole.filter(pc.invert(pc.is_in(whole[column], pa.array(sorted(values), pa.string()))))
    if table.num_rows == whole.num_rows:
        return 0
    data = parquet_bytes(table)
    folder, name = uri.rsplit("/", 1)
    number, _, rest = name.partition("-")
    _, _, suffix = rest.partition(".")
    put_bytes(f"{folder}/{number}-{digest_of(data)[:12]}.{suffix}", data)
    remove(uri)
    return int(whole.num_rows - table.num_rows)


def online_without(spec: Spec, artifacts: str, key: str) -> list[str]:
    """Take an entity out of the online stores of the platform; what could not be, in words.

    Feast can write to an online store and not delete from it. So this is done to SQLite and to PostgreSQL itself; of
    another store the command of that store has to do it.
    """
    root = f"{artifacts}/{spec.name}/feast"
    wanted = [(root, spec.name)]
    if spec.features.entity is not None:
        wanted.append((f"{root}/entity", f"{spec.name}_entity"))
    left = []
    for place, project in wanted:
        if not files(f"{place}/registry.db"):
            continue
        store = _opened(place, project, root)
        online = store.config.online_store
        if online.type == "sqlite":
            _delete(str(online.path), _entity_keys(store, key))
        elif online.type == "postgres":
            _delete_from_postgres(store, _entity_keys(store, key))
        else:
            left.append(f"the online store of {project} ({online.type}): delete the entity's key there")
    return left


def _opened(place: str, project: str, root: str) -> FeatureStore:
    import_feast()
    return open_store(place, project, online_store(root))


def _views(store: FeatureStore) -> list[FeatureView]:
    """The views that may have rows online, those included that a stream feeds, and that were put offline since."""
    return [*store.list_feature_views(), *store.list_stream_feature_views()]


def _entity_keys(store: FeatureStore, key: str) -> list[bytes]:
    """An entity's key as it stands in the rows of an online store: with each name that views join it by."""
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    joined = {name for view in _views(store) for name in view.join_keys}
    return [
        serialize_entity_key(
            EntityKey(join_keys=[name], entity_values=[Value(string_val=key)]),
            entity_key_serialization_version=store.config.entity_key_serialization_version,
        )
        for name in sorted(joined)
    ]


def _delete(path: str, keys: list[bytes]) -> None:
    with closing(sqlite3.connect(path, timeout=15.0, isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete=ON")
        for table in list(_tables(connection)):
            for key in keys:
                connection.execute(f'DELETE FROM "{table}" WHERE entity_key = ?', (key,))  # noqa: S608 (its own name)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("VACUUM")


def _delete_from_postgres(store: FeatureStore, keys: list[bytes]) -> None:
    """Delete rows of the project's own tables: others may have theirs in the same database."""
    from feast.infra.online_stores.helpers import compute_table_id
    from feast.infra.utils.postgres.connection_utils import _get_conn
    from psycopg import sql

    config = store.config
    versions = config.registry.enable_online_feature_view_versioning
    names = [compute_table_id(config.project, view, versions) for view in _views(store)]
    with closing(_get_conn(config.online_store)) as connection, connection, connection.cursor() as cursor:
        for name in names:
            if cursor.execute("SELECT to_regclass(%s)", (f'"{name}"',)).fetchone() == (None,):
                continue  # a view that nothing was written of
            table = sql.Identifier(name)
            cursor.execute(sql.SQL("DELETE FROM {} WHERE entity_key = ANY(%s)").format(table), (keys,))


def _tables(connection: sqlite3.Connection) -> Iterator[str]:
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        columns = {column[1] for column in connection.execute(f'PRAGMA table_info("{name}")')}
        if "entity_key" in columns:
            yield str(name)
