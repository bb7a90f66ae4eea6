"""Features of a workload's entity in Feast: joined point in time for training, and read online for answers.

Two of Feast's stores may be asked: one beside the workload's, whose registry lies under ``<root>/entity`` and whose
online store is that of the settings, for the platform's own view (``recent``) and the objects that a spec names; and
the repository that a spec names.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import fsspec

from components.contracts.errors import CohobateError, ConfigError, UnavailableError
from components.contracts.records import Label
from components.contracts.spec import Entity, EntityFeature, Spec, resolve
from components.contracts.spec.features import RECENT
from components.contracts.storage import digest_of, local_path, put_bytes
from components.process import without
from components.snapshot.features import OTHER_STORES, alone, import_feast, joining, online_store, open_store
from components.snapshot.recent import recent_table
from components.snapshot.table import MICROSECONDS, parquet_bytes

if TYPE_CHECKING:
    import pyarrow as pa
    from feast import FeatureStore

log = logging.getLogger(__name__)

VIEW = RECENT.partition(":")[0]

NUMBERS = frozenset({"Int32", "Int64", "Float32", "Float64", "Bool"})
CATEGORIES = frozenset({"String", "Int32", "Int64", "Bool"})
"""Feast's types that a number or a category may be read from."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Held(NamedTuple):
    """What the online store holds of a feature, and until when it counts (Unix seconds, by its view's ttl)."""

    value: Any
    until: float


def at_time(held: Mapping[str, Held], at: float) -> dict[str, Any]:
    """What counts at a time: Feast's online stores give rows that are past their view's ttl too."""
    return {source: h.value for source, h in held.items() if at <= h.until}


class EntityStore:
    """The features that ``entity`` names, of the workload whose Feast repository lies at ``root``.

    ``spec_source``: the spec file, which ``objects`` is relative to.
    """

    def __init__(self, root: str, workload: str, entity: Entity, spec_source: str = "") -> None:
        self.entity, self._root, self._workload, self._source = entity, root.rstrip("/"), workload, spec_source
        self._opened: FeatureStore | None = None
        self._repository: FeatureStore | None = None
        self._own = any(f.of != "view" for f in entity.features)

    @property
    def _ours(self) -> FeatureStore:
        if self._opened is None:
            import_feast()
            if self._root.startswith("file://"):
                Path(local_path(self._root), "entity").mkdir(parents=True, exist_ok=True)
            self._opened = open_store(f"{self._root}/entity", f"{self._workload}_entity", online_store(self._root))
        return self._opened

    @property
    def _theirs(self) -> FeatureStore:
        if self._repository is None:
            feast, folder = import_feast(), str(self.entity.repository)
            try:
                self._repository = feast.FeatureStore(repo_path=folder)
            except Exception as error:  # Feast's errors, and pydantic's
                raise _refused(
                    "repository", folder, f"is no feature repository that Feast opens: {_line(error)}"
                ) from error
        return self._repository

    def check(self) -> None:
        """Refuse features that Feast does not have, or has of a kind that no student can be fed.

        Raises:
            ConfigError: names the feature and what about it.
            UnavailableError: the files of a view cannot be read.

        """
        if not any(f.of == "view" for f in self.entity.features):
            return
        views, keys = self._views()
        duckdb = not self.entity.repository or self._theirs.config.offline_store.type == "duckdb"
        asked: dict[str, list[EntityFeature]] = {}
        for feature in self.entity.features:
            if feature.of == "view":
                _check(feature, views, keys)
                asked.setdefault(feature.view or "", []).append(feature)
        for name, features in asked.items() if duckdb else ():
            view = views[name]
            with self._reached("sources"):
                _check_files(features, view, keys[view.entities[0]].join_key, published=bool(self.entity.objects))

    def _views(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The user's views and the user's entities, both by name."""
        if self.entity.repository:
            store = self._theirs
            objects = [*store.list_feature_views(), *store.list_stream_feature_views(), *store.list_entities()]
        else:
            objects = self._objects()
        views = {o.name: o for o in objects if hasattr(o, "entities") and hasattr(o, "online")}
        return views, {o.name: o for o in objects if hasattr(o, "join_key")}

    def _objects(self) -> list[Any]:
        if not self.entity.objects:
            return []
        import_feast()
        try:
            found = resolve(self.entity.objects, self._source)
        except CohobateError:
            raise
        except Exception as error:  # the user's code, and Feast's, at its import
            why = f"cannot be read: {type(error).__name__}: {_line(error)}"
            raise _refused("objects", self.entity.objects, why) from error
        if not isinstance(found, Sequence) or not all(hasattr(o, "name") for o in found):
            raise _refused("objects", self.entity.objects, "must be a list of Feast's objects: entities and views")
        if any(o.name == VIEW for o in found):
            raise _refused(
                "objects", self.entity.objects, f"must not name one {VIEW!r}, which the platform's own view is"
            )
        return list(found)

    def remember(self, number: int, labels: Sequence[Label], now: float) -> pa.Table | None:
        """Add a window's labels to the platform's own view; gives the rows that :meth:`publish` sends online."""
        feast = import_feast()
        objects: list[Any] = self._objects()
        table = None
        if self._own:
            who = feast.Entity(name="cohobate_key", join_keys=["key"], value_type=feast.ValueType.STRING)
            place = f"{self._root}/entity/{VIEW}"
            path = str(local_path(place)) if place.startswith("file://") else place
            source = feast.FileSource(
                name=f"{VIEW}_source", path=f"{path}/*.parquet", timestamp_field="event_time",
                created_timestamp_column="created",
            )  # fmt: skip
            fields = [feast.Field(name=VIEW, dtype=feast.types.String)]
            objects += [who, feast.FeatureView(name=VIEW, entities=[who], schema=fields, source=source, online=True)]
            last = max([now, *(label.input.time for label in labels)])
            keys = sorted({label.input.key for label in labels})
            before = dict(zip(keys, self._recent(keys, last) if number > 1 else [None] * len(keys), strict=True))
            table = recent_table(labels, before, now)
            data = parquet_bytes(table)
            put_bytes(f"{place}/{number:06d}-{digest_of(data)[:12]}.parquet", data)
        if objects:
            self._ours.apply(objects)
        return table

    def _recent(self, keys: Sequence[str], at: float) -> list[str | None]:
        if VIEW not in {v.name for v in self._ours.list_feature_views()}:
            return [None] * len(keys)  # its features are new in the spec
        return [row[RECENT] for row in self._joined(self._ours, [RECENT], [(key, at) for key in keys])]

    def publish(self, recent: pa.Table | None, now: float) -> None:
        """Send what is newest by ``now`` to the online store: of the platform's own view, and of the spec's objects."""
        if recent is not None and recent.num_rows:
            newest = recent.to_pandas().drop_duplicates("key", keep="last")
            self._ours.write_to_online_store(VIEW, newest)
        views = [name for name in {f.view for f in self.entity.features} if name] if self.entity.objects else []
        if not views:
            return
        with self._reached("sources"):
            progress = io.StringIO()
            with contextlib.redirect_stdout(progress), contextlib.redirect_stderr(progress), alone():
                self._ours.materialize(EPOCH, datetime.fromtimestamp(now, UTC), feature_views=sorted(views))

    def history(self, asked: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
        """What was known of entities, each a key and a time (Unix seconds), by ``view:feature``.

        Raises:
            UnavailableError: what a view reads is not there, or not as its view says.

        """
        found: list[dict[str, Any]] = [{} for _ in asked]
        for store, sources in self._stores():
            for row, more in zip(found, self._joined(store, sources, asked), strict=True):
                row |= more
        return found

    def _joined(
        self, store: FeatureStore, sources: Sequence[str], asked: Sequence[tuple[str, float]]
    ) -> list[dict[str, Any]]:
        import pandas as pd

        stamps = [int(at * MICROSECONDS) for _, at in asked]
        places = sorted({(key, stamp) for (key, _), stamp in zip(asked, stamps, strict=True)})
        if not places:
            return []
        views = _views(store, sources)
        times = pd.to_datetime([stamp for _, stamp in places], unit="us", utc=True)
        frame = pd.DataFrame({name: [key for key, _ in places] for name in _join_keys(views)})
        frame = frame.assign(event_timestamp=times, cohobate_row=range(len(places)))
        with self._reached("sources"), joining(store, views, copies=store is self._opened) as local:
            rows = local.get_historical_features(entity_df=frame, features=list(sources), full_feature_names=True)
            done = rows.to_arrow().sort_by("cohobate_row")  # as a frame, its whole numbers would be floats beside gaps
            columns = [_declared(views, s, done[s.replace(":", "__", 1)].to_pylist()) for s in sources]
        known = [dict(zip(sources, row, strict=True)) for row in zip(*columns, strict=True)]
        place = {key: i for i, key in enumerate(places)}
        return [dict(known[place[key, stamp]]) for (key, _), stamp in zip(asked, stamps, strict=True)]

    def online(self, keys: Sequence[str]) -> dict[str, dict[str, Held]]:
        """What the online stores hold of entities, by key and ``view:feature``; of what they do not know, nothing.

        Raises:
            UnavailableError: they do not answer, or do not have the views yet.

        """
        found: dict[str, dict[str, Held]] = {key: {} for key in keys}
        try:
            with self._reached("online store"):
                for store, sources in self._stores():
                    self._look_up(store, sources, found)
        except UnavailableError:
            for opened in (self._opened, self._repository):
                with contextlib.suppress(Exception):
                    if opened is not None:
                        opened.refresh_registry()  # what it lacks may have been applied since it was read
            raise
        return found

    @contextlib.contextmanager
    def _reached(self, what: str) -> Iterator[None]:
        """Say of what fails there that it is not to be had now: databases, files and Feast have no common error."""
        try:
            yield
        except CohobateError:
            raise
        except Exception as error:
            remedy = f"of the entity's features: {type(error).__name__}: {_line(error)}"
            raise UnavailableError(what, self._workload, remedy) from error

    def _look_up(self, store: FeatureStore, sources: Sequence[str], found: dict[str, dict[str, Held]]) -> None:
        keys = list(found)
        views = _views(store, sources)
        ttls = {name: float(view.ttl.total_seconds()) if view.ttl else 0.0 for name, view in views.items()}
        asked = dict.fromkeys(_join_keys(views), keys)
        with without(*OTHER_STORES):
            answer = store.get_online_features(list(sources), asked, full_feature_names=True)
        columns = answer.to_dict(include_event_timestamps=True)
        for source in sources:
            name = source.replace(":", "__", 1)
            ttl = ttls[source.partition(":")[0]]
            for key, value, stamp in zip(keys, columns[name], columns[f"{name}__ts"], strict=True):
                if value is not None:
                    found[key][source] = Held(value, stamp + ttl if ttl else math.inf)

    def _stores(self) -> Iterator[tuple[FeatureStore, list[str]]]:
        """The stores to ask, and what to ask each."""
        theirs = list(dict.fromkeys(f.source for f in self.entity.features if f.of == "view"))
        ours = [RECENT] if self._own else []
        if self.entity.objects:
            ours, theirs = [*ours, *theirs], []
        if ours:
            yield self._ours, ours
        if theirs:
            yield self._theirs, theirs


def entity_store(spec: Spec, artifacts: str) -> EntityStore | None:
    """The features of a workload's entity under the artifact root; None where the spec names none."""
    entity = spec.features.entity
    return None if entity is None else EntityStore(f"{artifacts}/{spec.name}/feast", spec.name, entity, spec.source)


def _views(store: FeatureStore, sources: Sequence[str]) -> dict[str, Any]:
    """The views of sources (``view:feature``) by name."""
    return {name: store.get_feature_view(name) for name in sorted({s.partition(":")[0] for s in sources})}


def _declared(views: Mapping[str, Any], source: str, column: Sequence[Any]) -> list[Any]:
    """A column of a join in the type that its view declares, as an online store holds it.

    A join gives the type that the file has: a category 3 of a column that pandas wrote with gaps would be "3.0".
    """
    from feast.type_map import feast_value_type_to_python_type, python_values_to_proto_values

    view, _, name = source.partition(":")
    (kind,) = (f.dtype.to_value_type() for f in views[view].features if f.name == name)
    return [feast_value_type_to_python_type(value) for value in python_values_to_proto_values(column, kind)]


def _join_keys(views: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(key for view in views.values() for key in view.join_keys))


def _check(feature: EntityFeature, views: Mapping[str, Any], keys: Mapping[str, Any]) -> None:
    view = views.get(feature.view or "")
    if view is None:
        raise _refused(
            f"{feature.name}.view", feature.view, f"is no view: there are {', '.join(sorted(views)) or 'none'}"
        )
    if len(view.entities) != 1 or view.entities[0] not in keys:
        allowed = "must have one entity, whose join key the input's key is, and which is among the objects"
        raise _refused(f"{feature.name}.view", feature.view, allowed)
    kind = keys[view.entities[0]].value_type.name
    if kind not in ("STRING", "UNKNOWN"):
        allowed = f"is joined by a key of type {kind}: the input's key is text, so must its column be"
        raise _refused(f"{feature.name}.view", feature.view, allowed)
    path = getattr(view.batch_source, "path", "/")
    if "://" not in path and not Path(path).is_absolute():
        allowed = f"reads {path}: write it as an absolute path, from Path(__file__).resolve() on"
        raise _refused(f"{feature.name}.view", feature.view, allowed)
    if "://" not in path and not fsspec.filesystem("file").glob(path):
        allowed = f"reads {path}, where nothing is: list it in the spec's files, or name what is there on every host"
        raise _refused(f"{feature.name}.view", feature.view, allowed)
    if not view.online:
        raise _refused(f"{feature.name}.view", feature.view, "is not online: answers could not read it")
    types = {f.name: str(f.dtype) for f in view.features}
    name = feature.feature or feature.name
    if name not in types:
        raise _refused(f"{feature.name}.feature", name, f"is no feature of {feature.view}: it has {', '.join(types)}")
    fitting = NUMBERS if feature.type == "number" else CATEGORIES
    if types[name] not in fitting:
        raise _refused(f"{feature.name}.type", feature.type, f"cannot be read from a feature of type {types[name]}")


def _check_files(features: Sequence[EntityFeature], view: Any, key: str, *, published: bool) -> None:
    """Refuse a view whose files DuckDB reads as something else than the view says.

    It reads all files of a source in the first one's types: a 0.75 is then read as 1 where the numbers of the first
    file happen to be whole. ``key``: the view's join key. ``published``: whether all of the view is sent online too.
    """
    source, first = view.batch_source, features[0]
    columns = {new: old for old, new in source.field_mapping.items()}
    types = _types(getattr(source, "path", ""))
    for feature in features:
        name = feature.feature or feature.name
        found = types.get(columns.get(name, name), {})
        if len(found) > 1:
            told = ", ".join(f"{kind} in {path}" for kind, path in found.items())
            remedy = f"the first type would count, and round the others: write all files of {source.path} alike"
            raise _refused(f"{feature.name}.feature", name, f"is {told}: {remedy}")
    column = columns.get(key, key)
    for kind, path in types.get(column, {}).items():
        if str(kind) != "string":
            remedy = "the input's key is text, so write the column as text"
            raise _refused(f"{first.name}.view", view.name, f"is joined by {column}, {kind} in {path}: {remedy}")
    asked = {f.feature or f.name for f in features}
    for field in view.features:
        column = columns.get(field.name, field.name)
        if str(field.dtype) not in NUMBERS | CATEGORIES or not (published or field.name in asked):
            continue
        for kind, path in types.get(column, {}).items():
            if not _taken(kind, field.dtype.to_value_type(), published=published):
                told = f"declares {field.name} as {field.dtype}, which Feast does not take from {column}, {kind} in"
                remedy = "write the column in the declared type, its gaps as nulls, or declare another"
                raise _refused(f"{first.name}.view", view.name, f"{told} {path}: {remedy}")


def _types(path: str) -> dict[str, dict[pa.DataType, str]]:
    """The types, as DuckDB reads them, that each column of a source has, and the first file with each."""
    import pyarrow.parquet as pq

    found: dict[str, dict[pa.DataType, str]] = {}
    if not path:
        return found
    filesystem, pattern = fsspec.core.url_to_fs(path)
    for place, about in sorted(filesystem.glob(pattern, detail=True).items()):
        if about["type"] != "file":  # a table in a folder has a schema of its own
            continue
        for field in pq.read_schema(place, filesystem=filesystem):
            found.setdefault(field.name, {}).setdefault(_plain(field.type), place.rpartition("/")[2])
    return found


def _plain(kind: pa.DataType) -> pa.DataType:
    """A type without what only Arrow tells apart: Parquet has one text, and no dictionaries."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    return pa.string() if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) else kind


def _taken(kind: pa.DataType, declared: Any, *, published: bool) -> bool:
    """Whether Feast makes a declared type of a column's values, tried on one as a join and as its publishing do."""
    import pyarrow as pa
    from feast.type_map import python_values_to_proto_values

    if pa.types.is_null(kind) or declared.name == "STRING":  # all has a text
        return True
    if pa.types.is_decimal(kind):
        kind = pa.decimal128(38, 0)  # its own digits may have no room for a 1
    try:
        values = pa.array([1]).cast(kind)
        python_values_to_proto_values(values.to_pylist(), declared)
        if published:
            python_values_to_proto_values(values.to_numpy(zero_copy_only=False), declared)
    except (AssertionError, TypeError, ValueError, pa.ArrowNotImplementedError):
        return False
    return True


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _refused(field: str, value: object, allowed: str) -> ConfigError:
    return ConfigError(f"features.entity.{field}", value, allowed)
