"""Feast: the views of a workload, joins at a point in time, and the newest features by entity. Only here is Feast.

Offline, each window adds one Parquet file to each source under ``<root>/{inputs,labels,truth}``; files are named by
window number and content, so that writing one again, or leaving one behind in a crash, changes nothing that a join
sees. Views of a workload (its Feast project):

========== ============== ===========================================================================
view       entity         features
========== ============== ===========================================================================
``inputs`` input          the featuriser's descriptors, at the input's event time
``labels`` input          the teacher's soft label, at the time of labelling
``truth``  input          late truth, at the time that it became known
``latest`` spec.entity    the descriptors of the entity's newest input; online, fed by a PushSource
========== ============== ===========================================================================

Joins run on DuckDB (Feast's other local engine drops the rows for which nothing is known). It reads files of this
machine alone: for others it would fetch an extension from the network, so what a join needs is copied here first.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from components.contracts.chatter import hush
from components.contracts.errors import ConfigError
from components.contracts.settings import Settings
from components.contracts.storage import digest_of, files, get_bytes, local_path, put_bytes
from components.process import without
from components.snapshot.table import DESCRIPTOR, INPUT_KEYS, parquet_bytes

if TYPE_CHECKING:
    import pyarrow as pa
    from feast import FeatureStore

Source = Literal["inputs", "labels", "truth"]

TRUTH = ("truth_label", "truth_value", "truth_known_at")
PUSH = "latest_push"

OTHER_STORES = (
    "feast.infra.online_stores.mysql_online_store.mysql",
    "feast.infra.online_stores.postgres_online_store.postgres",
    "feast.infra.online_stores.faiss_online_store",
    "feast.infra.online_stores.redis",
    "feast.infra.online_stores.dynamodb",
    "feast.infra.online_stores.milvus_online_store.milvus",
)
"""What Feast 0.67 imports at a store's first read, to see whether that store is one of them, with the clients of all
that are installed (a second, measured on two busy cores): the one that is used has been imported by then."""

_joins = threading.Lock()
"""Feast's DuckDB engine shares one connection in a process."""

_importing = threading.Lock()


class FeatureRepo:
    """The features of one workload under ``root``, a URI (``<artifacts>/<workload>/feast``).

    ``entity``: name of the workload's entity. ``ttl``: how long a feature counts after its time; zero: for good.
    ``online``: Feast's configuration of an online store; None: what ``COHOBATE_FEAST_ONLINE`` says, else SQLite beside
    the registry, for which ``root`` must be a local folder. One process at a time may push.
    """

    def __init__(
        self,
        root: str,
        workload: str,
        *,
        entity: str = "key",
        ttl: timedelta = timedelta(0),
        online: Mapping[str, Any] | None = None,
    ) -> None:
        if entity == "input":
            raise ConfigError("entity", entity, "must not be 'input', which every workload has already")
        self.root, self.workload, self.entity, self.ttl = root.rstrip("/"), workload, entity, ttl
        self._online = dict(online) if online is not None else None
        self._opened: FeatureStore | None = None
        self._pushing = threading.Lock()

    def add(self, source: Source, number: int, table: pa.Table) -> str:
        """Add one window's rows to an offline source; returns the file's URI."""
        data = parquet_bytes(table)
        uri = f"{self.root}/{source}/{number:06d}-{digest_of(data)[:12]}.{_shape(table.schema)}.parquet"
        put_bytes(uri, data)
        return uri

    def apply(self, inputs: pa.Schema, labels: pa.Schema, truth: pa.Schema) -> None:
        """Register the views for sources of these schemas; again changes nothing, other descriptors replace them.

        Joins then read the source files of these very columns: files from before a change of descriptors stay.
        """
        feast = import_feast()
        described = [f for f in inputs if f.name not in INPUT_KEYS]

        def source(name: Source, schema: pa.Schema) -> Any:
            created = "created" if name == "truth" else ""
            return feast.FileSource(
                name=f"{name}_source", path=self._glob(name, schema), timestamp_field="event_time",
                created_timestamp_column=created, file_format=_parquet(),
            )  # fmt: skip

        one = feast.Entity(name="input", join_keys=["input_id"], value_type=feast.ValueType.STRING)
        who = feast.Entity(name=self.entity, join_keys=["key"], value_type=feast.ValueType.STRING)
        of_inputs = source("inputs", inputs)
        push = feast.PushSource(name=PUSH, batch_source=of_inputs)
        views = [
            feast.FeatureView(
                name=name, entities=[entity], ttl=self.ttl, schema=_fields(fields), source=origin, online=online
            )
            for name, entity, fields, origin, online in (
                ("inputs", one, [inputs.field("seen_at"), *described], of_inputs, False),
                ("labels", one, [f for f in labels if f.name not in INPUT_KEYS], source("labels", labels), False),
                ("truth", one, [truth.field(n) for n in TRUTH], source("truth", truth), False),
                ("latest", who, [inputs.field("seen_at"), *described], push, True),
            )
        ]  # fmt: skip
        self._store.apply([one, who, push, *views])

    def history(self, keys: Sequence[str], at: float, features: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The features (``view:feature``) of inputs as they were known ``at`` (Unix seconds), by input id.

        What became known later is not seen, nor what is older than ``ttl``; an input of which nothing is known is
        there with None everywhere.
        """
        import pandas as pd

        unique = sorted(set(keys))
        if not unique:
            return {}
        when = pd.Timestamp(int(at * 1_000_000), unit="us", tz="UTC")
        asked = pd.DataFrame({"input_id": unique, "event_timestamp": pd.Series([when] * len(unique))})
        names, columns = [f.split(":", 1)[1] for f in features], [self._column(f) for f in features]
        with joining(self._store, {f.split(":", 1)[0] for f in features}) as store:
            found = store.get_historical_features(entity_df=asked, features=columns).to_df()
        rows = found[["input_id", *(c.split(":", 1)[1] for c in columns)]].astype(object)
        return {
            str(row[0]): {n: None if pd.isna(v) else v for n, v in zip(names, row[1:], strict=True)}
            for row in rows.itertuples(index=False)
        }

    def truth(self, keys: Sequence[str], at: float) -> dict[str, dict[str, Any]]:
        """:data:`TRUTH` of inputs as it was known ``at``, by input id; inputs without truth are left out."""
        found = self.history(keys, at, [f"truth:{name}" for name in TRUTH])
        return {key: row for key, row in found.items() if row["truth_known_at"] is not None}

    def push(self, inputs: pa.Table) -> int:
        """Send the newest input of each entity to the online store; returns how many rows were newer and written.

        Feast writes whatever it is given, so a row that comes late would replace a newer one: rows are first
        filtered by event time, against each other and against what is stored.
        """
        newest: dict[str, dict[str, Any]] = {}
        for row in inputs.to_pylist():
            if row["seen_at"] > newest.get(row["key"], {"seen_at": float("-inf")})["seen_at"]:
                newest[row["key"]] = row
        with self._pushing:
            stored = self._stored(newest, ["seen_at"])
            late = {key for key, row in stored.items() if row["seen_at"] >= newest[key]["seen_at"]}
            rows = [row for key, row in newest.items() if key not in late]
            if rows:
                import pandas as pd

                frame = pd.DataFrame(rows, columns=inputs.schema.names)
                self._store.push(PUSH, frame)
        return len(rows)

    def latest(self, keys: Iterable[str], now: float) -> dict[str, dict[str, Any]]:
        """The online features of entities, by key; unknown ones, and those older than ``ttl``, are left out.

        (Feast's online store gives rows past their ttl too.)
        """
        columns = self._columns("latest")
        ttl = self.ttl.total_seconds()
        rows = self._stored(list(keys), list(columns.values()))
        fresh = {key: row for key, row in rows.items() if not ttl or now - row["seen_at"] <= ttl}
        return {key: {name: row[column] for name, column in columns.items()} for key, row in fresh.items()}

    def _columns(self, view: str) -> dict[str, str]:
        """The columns of a view by the descriptors' own names; what a source's keys are called is theirs."""
        features = self._store.get_feature_view(view).features
        named = {f.name: f.tags.get("descriptor", f.name) for f in features}
        return {column if name in INPUT_KEYS else name: column for column, name in named.items()}

    def _column(self, feature: str) -> str:
        view, _, name = feature.partition(":")
        return f"{view}:{self._columns(view).get(name, name)}"

    def _stored(self, keys: Iterable[str], names: Sequence[str]) -> dict[str, dict[str, Any]]:
        asked = [{"key": key} for key in keys]
        if not asked:
            return {}
        with without(*OTHER_STORES):
            found = self._store.get_online_features([f"latest:{n}" for n in names], asked).to_dict()
        rows = [
            dict(zip(("key", *names), row, strict=True))
            for row in zip(found["key"], *(found[n] for n in names), strict=True)
        ]
        return {row.pop("key"): row for row in rows if row["seen_at"] is not None}

    def _glob(self, source: Source, schema: pa.Schema) -> str:
        pattern = f"{self.root}/{source}/*.{_shape(schema)}.parquet"
        return str(local_path(pattern)) if pattern.startswith("file://") else pattern

    @property
    def _store(self) -> FeatureStore:
        if self._opened is None:
            self._opened = open_store(self.root, self.workload, self._online)
        return self._opened


@contextmanager
def alone() -> Iterator[None]:
    """While Feast's DuckDB engine works for one thread, without what libraries warn of in each other's calls."""
    with _joins, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Discarding nonzero nanoseconds", category=UserWarning)
        warnings.filterwarnings("ignore", message="fetch_arrow_table", category=DeprecationWarning)
        yield


@contextmanager
def joining(opened: FeatureStore, views: Collection[str], *, copies: bool = True) -> Iterator[FeatureStore]:
    """The store to join these views with, alone: ``opened``, or one of copies on this machine of what is not here.

    ``copies``: whether files are copied at all; what another offline store reads is its own affair.
    """
    with alone():
        if not copies or all(_is_here(opened.get_feature_view(name)) for name in views):
            yield opened
            return
        with tempfile.TemporaryDirectory(prefix="cohobate-join-") as folder:
            yield _copied(opened, views, folder)


def _is_here(view: Any) -> bool:
    return "://" not in view.batch_source.path


def _copied(opened: FeatureStore, views: Collection[str], folder: str) -> FeatureStore:
    feast = import_feast()
    store = open_store(f"file://{folder}", opened.project, {"type": "sqlite", "path": f"{folder}/online.db"})
    entities = {e.name: e for e in opened.list_entities()}
    copies: list[Any] = list(entities.values())
    for name in sorted(views):
        view = opened.get_feature_view(name)
        source = view.batch_source
        path = source.path
        if not _is_here(view):
            place = Path(folder) / name
            place.mkdir()
            for i, uri in enumerate(files(source.path)):
                (place / f"{i:06d}.parquet").write_bytes(get_bytes(uri))
            path = f"{place}/*.parquet"
        local = feast.FileSource(
            name=source.name, path=path, timestamp_field=source.timestamp_field,
            created_timestamp_column=source.created_timestamp_column, file_format=_parquet(),
            field_mapping=source.field_mapping,
        )  # fmt: skip
        copies.append(
            feast.FeatureView(
                name=name, entities=[entities[e] for e in view.entities], ttl=view.ttl, schema=view.features,
                source=local, online=False,
            )
        )  # fmt: skip
    store.apply(copies)
    return store


def online_store(root: str) -> dict[str, Any]:
    """Feast's configuration of the online store of the repository at ``root``, by the settings.

    Raises:
        ConfigError: it is no JSON object with a type, or the settings name none and ``root`` is not on this machine.

    """
    given = Settings().secret("feast_online")
    if given is None:
        if root.startswith("file://"):
            return {"type": "sqlite", "path": str(local_path(root) / "online.db")}
        allowed = f"must name an online store, because {root} is not on this machine"
        raise ConfigError("COHOBATE_FEAST_ONLINE", None, f'{allowed}: {{"type": "postgres", "host": …}}, for one')
    try:
        found = json.loads(given)
    except ValueError as error:
        raise ConfigError("COHOBATE_FEAST_ONLINE", "what it is", f"must be JSON ({error})") from error
    if not isinstance(found, dict) or not isinstance(found.get("type"), str):
        allowed = "must be a JSON object with a type, and the settings of Feast's online store of that type"
        raise ConfigError("COHOBATE_FEAST_ONLINE", "what it is", allowed)
    return found


def open_store(root: str, workload: str, online: dict[str, Any] | None) -> FeatureStore:
    """Feast's store of a project whose registry lies at ``root``; ``online``: None, what the settings say."""
    feast = import_feast()
    online = online_store(root) if online is None else online
    registry = str(local_path(root) / "registry.db") if root.startswith("file://") else f"{root}/registry.db"
    return feast.FeatureStore(
        config=feast.RepoConfig(
            project=workload.replace("-", "_"),
            provider="local",
            registry=registry,
            online_store=online,
            offline_store={"type": "duckdb"},
            entity_key_serialization_version=3,
        )
    )


def import_feast() -> Any:
    """Feast, imported without three things that it does to the whole process.

    It imports all of PyTorch where that is installed, for a method that gives tensors (308 MB instead of 121,
    measured); it weaves run-time type checks into its API, which takes half of the 5 s of its import; and it puts
    Prometheus' client into multi-process mode, by environment variables that name a folder which goes with this
    process, and that children (Ray's, say) would inherit.
    """
    import prometheus_client  # noqa: F401  (before Feast, so that it keeps its values in memory)
    import typeguard

    plain: Any = lambda target=None, **_: target if target is not None else (lambda made: made)  # noqa: E731
    with _importing:  # else the second of two threads would take what the first has changed for what there was
        before, woven = set(os.environ), typeguard.typechecked
        typeguard.typechecked = plain
        try:
            with without("torch"):
                import feast
                import feast.infra.data_sources.mlflow.mlflow_dataset_source  # which its joins import
        finally:
            typeguard.typechecked = woven
            for name in {"PROMETHEUS_MULTIPROCESS_DIR", "PROMETHEUS_MULTIPROC_DIR"} - before:
                os.environ.pop(name, None)
    hush("feast", Settings().log_level)  # a line whenever it reads its registry
    return feast


def _parquet() -> Any:
    from feast.data_format import ParquetFormat

    return ParquetFormat()


def _fields(columns: Iterable[pa.Field]) -> list[Any]:
    import pyarrow as pa
    from feast import Field
    from feast.types import Float64, String

    return [
        Field(
            name=c.name,
            dtype=String if c.type == pa.string() else Float64,
            tags={"descriptor": c.metadata[DESCRIPTOR].decode()} if c.metadata else {},
        )
        for c in columns
    ]


def _shape(schema: pa.Schema) -> str:
    """A short name of a set of columns."""
    return digest_of(json.dumps([(f.name, str(f.type)) for f in schema]).encode())[:8]
