"""The features of entities in Feast, by the real stores: joined as they were known, online as they are known now."""

from datetime import UTC, date, datetime
from decimal import Decimal

import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.contracts.errors import ConfigError, UnavailableError
from components.contracts.records import SoftLabel
from components.contracts.settings import Settings
from components.contracts.spec import Entity, EntityFeature, Features, load_spec, resolve
from components.snapshot import freeze, read
from components.snapshot.entity_store import EntityStore, at_time, entity_store
from components.snapshot.features import alone, import_feast
from components.snapshot.recent import recent_table
from components.snapshot.table import known_of
from components.student.entity import events_of, values
from infra.specs import check_entity_features

BASE = 1_700_000_000.0
OWN = Entity(
    features=(
        EntityFeature(name="seen", of="count", seconds=100.0, default=0.0),
        EntityFeature(name="last", of="last_label", type="category", values=("a", "b"), default="none"),
    )
)
FILE = """
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float64, Int64, String

who = Entity(name="sender", join_keys=["sender_id"], value_type=ValueType.STRING)
other = Entity(name="other", join_keys=["other_id"], value_type=ValueType.STRING)
HERE = Path(__file__).resolve().parent


def view(name, source=None, entities=(who,), **kinds):
    fields = [Field(name=n, dtype=kind) for n, kind in kinds.items()]
    source = source or FileSource(
        name=f"{name}_source", path=str(HERE / "senders.parquet"), timestamp_field="at", created_timestamp_column="made"
    )
    return FeatureView(name=name, entities=list(entities), ttl=timedelta(days=1), schema=fields, source=source,
                       online=name != "offline")


senders = view("senders", age=Float64, country=String)
FEAST = [who, senders]
ODD = [
    who, other, Entity(name="number", value_type=ValueType.INT64),
    view("senders", age=Float64, country=String, many=Array(Float64)),
    view("nobody", entities=(), age=Float64), view("both", entities=(who, other), age=Float64),
    view("stranger", entities=(Entity(name="strange", value_type=ValueType.STRING),), age=Float64),
    view("numbered", entities=(Entity(name="number", value_type=ValueType.INT64),), age=Float64),
    view("offline", age=Float64),
    view("relative", source=FileSource(name="r", path="senders.parquet", timestamp_field="at"), age=Float64),
]
NOT_A_LIST = who
"""


@pytest.fixture
def folder(tmp_path):
    rows = [("ada", 30.0, "fr", 0, 0), ("ada", 31.0, "de", 100, 100), ("ada", 99.0, "xx", 100, 50)]
    frame = pd.DataFrame(rows, columns=["sender_id", "age", "country", "at", "made"])
    for name in ("at", "made"):
        frame[name] = pd.to_datetime(frame[name] + BASE, unit="s", utc=True)
    frame.to_parquet(tmp_path / "senders.parquet")
    (tmp_path / "feast_objects.py").write_text(FILE)
    return tmp_path


def opened_at(artifacts, entity=OWN, source=""):
    return EntityStore(f"{artifacts}/files/feast", "files", entity, source)


def told(store, asked):
    return [values(store.entity, row, at) for row, (_, at) in zip(store.history(asked), asked, strict=True)]


def of(make_label, i, name="ada", says="a"):
    soft = SoftLabel(task="classification", space="s@1", distribution={says: 1.0})
    return make_label(i, entity=name, soft=soft)


def test_what_came_before_an_input_is_joined_and_nothing_after_it(artifacts, make_label):
    opened = opened_at(artifacts)
    opened.remember(1, [of(make_label, i, says=s) for i, s in ((10, "a"), (20, "b"), (30, "a"))], BASE + 500)
    asked = [("ada", BASE + at) for at in (10, 20.5, 21.5, 40, 115)] + [("bob", BASE + 40)]
    found = [(v["seen"], v["last"]) for v in told(opened, asked)]
    assert found == [(0.0, "none"), (2.0, "a"), (2.0, "b"), (3.0, "a"), (2.0, "a"), (0.0, "none")]


def test_a_label_that_comes_late_counts_from_its_input_on_in_joins_and_online(artifacts, make_label):
    opened = opened_at(artifacts)
    opened.publish(opened.remember(1, [of(make_label, i) for i in (10, 30)], BASE + 100), BASE + 100)
    asked = [("ada", BASE + at) for at in (20, 29, 31)]
    assert [v["seen"] for v in told(opened, asked)] == [1.0, 1.0, 2.0]
    late = of(make_label, 25, says="b")
    opened.publish(opened.remember(2, [late], BASE + 200), BASE + 200)
    assert [v["seen"] for v in told(opened, asked)] == [1.0, 2.0, 3.0]
    held = opened_at(artifacts).online(["ada", "bob"])
    assert values(OWN, at_time(held["ada"], BASE + 40), BASE + 40) == {"seen": 3.0, "last": "a"} and held["bob"] == {}


def test_remembering_again_adds_nothing_and_the_newest_alone_are_kept(artifacts, make_label):
    opened = opened_at(artifacts)
    labels = [of(make_label, i) for i in range(100)]
    for _ in range(2):  # a freeze that failed later reads the same labels again
        opened.publish(opened.remember(2, labels, BASE + 200), BASE + 200)
    events = events_of(opened.online(["ada"])["ada"]["recent:recent"].value)
    assert [e.time - BASE for e in events] == list(range(36, 100))
    (row,) = recent_table([labels[0]], {}, BASE).to_pylist()
    assert row["key"] == "ada" and len(events_of(row["recent"])) == 1


VIEWS = (
    EntityFeature(name="years", view="senders", feature="age", default=-1.0),
    EntityFeature(name="country", view="senders", type="category", values=("fr",), default="none"),
)


def test_a_view_of_the_user_s_is_joined_and_read_online_within_its_ttl(folder, artifacts, make_label):
    entity = msgspec.structs.replace(OWN, objects="feast_objects.py:FEAST", features=(*OWN.features, *VIEWS))
    opened = opened_at(artifacts, entity, str(folder / "spec.yaml"))
    opened.check()
    opened.publish(opened.remember(1, [of(make_label, 10)], BASE + 200), BASE + 200)
    asked = [("ada", BASE + at) for at in (-1, 50, 150, 100 + 90_000)] + [("bob", BASE + 150)]
    found = [(v["years"], v["country"]) for v in told(opened, asked)]
    # Of two rows of one time the one that was made later counts.
    assert found == [(-1.0, "none"), (30.0, "fr"), (31.0, "de"), (-1.0, "none"), (-1.0, "none")]
    held = opened_at(artifacts, entity, str(folder / "spec.yaml")).online(["ada", "bob"])
    for key, at in asked[2:]:
        assert values(entity, at_time(held[key], at), at) == told(opened, [(key, at)])[0]


WHOLE = (
    EntityFeature(name="tier", view="counts", type="category", values=("1", "2"), default="none"),
    EntityFeature(name="member", view="counts", type="category", values=("True", "False"), default="none"),
    EntityFeature(name="orders", view="counts", default=-1.0),
)


@pytest.mark.parametrize(
    "gap", [False, True], ids=["whole", "with-gaps"]
)  # with gaps, pandas writes a column of floats
def test_whole_numbers_are_the_same_values_joined_and_online_whoever_else_is_joined(
    tmp_path, artifacts, make_label, gap
):
    rows = {
        "sender_id": ["ada", "eve"],
        "tier": [2, 1],
        "member": [True, False],
        "orders": [2**53 + 1, 0.75 if gap else 7],
    }
    frame = pd.DataFrame({**rows, "at": pd.to_datetime([BASE, BASE], unit="s", utc=True)})
    if gap:
        frame = frame.astype({"tier": "float64"})
        frame.loc[1, "tier"] = None
    frame.to_parquet(tmp_path / "counts.parquet")
    source = 'FileSource(name="c", path=str(HERE / "counts.parquet"), timestamp_field="at")'
    view = f'view("counts", source={source}, tier=Int64, member=Bool, orders=Int64)'
    (tmp_path / "counts.py").write_text(
        f"{FILE.partition('senders = ')[0]}\nfrom feast.types import Bool\nFEAST = [who, {view}]\n"
    )
    entity = Entity(objects="counts.py:FEAST", features=WHOLE)
    opened = opened_at(artifacts, entity, str(tmp_path / "spec.yaml"))
    opened.check()
    opened.remember(1, [of(make_label, 10)], BASE + 200)
    opened.publish(None, BASE + 200)
    held = opened_at(artifacts, entity, str(tmp_path / "spec.yaml")).online(["ada", "eve", "bob"])
    online = [values(entity, at_time(held[key], BASE + 150), BASE + 150) for key in ("ada", "eve", "bob")]
    assert told(opened, [(key, BASE + 150) for key in ("ada", "eve", "bob")]) == online
    assert told(opened, [("ada", BASE + 150)]) == online[:1]
    assert online[0]["tier"] == "2" and online[1]["tier"] == ("none" if gap else "1") and online[2]["tier"] == "none"
    assert [o["orders"] for o in online[1:]] == [0.0 if gap else 7.0, -1.0]


def test_files_of_a_source_that_disagree_on_a_feature_s_type_are_refused(folder, artifacts):
    (folder / "parts").mkdir()
    for name, ages in (("1", [30]), ("2", [30.5])):
        frame = pd.DataFrame({"sender_id": ["ada"], "age": ages, "at": pd.to_datetime([BASE], unit="s", utc=True)})
        frame.to_parquet(folder / "parts" / f"{name}.parquet")
    source = 'FileSource(name="p", path=str(HERE / "parts" / "*.parquet"), timestamp_field="at")'
    (folder / "parts.py").write_text(
        f'{FILE.partition("senders = ")[0]}\nFEAST = [who, view("senders", source={source}, age=Float64)]\n'
    )
    entity = Entity(objects="parts.py:FEAST", features=VIEWS[:1])
    opened = opened_at(artifacts, entity, str(folder / "spec.yaml"))
    says = r"entity.years.feature is 'age': is int64 in 1.parquet, double in 2.parquet: the first type would count"
    with pytest.raises(ConfigError, match=says):
        opened.check()
    pd.read_parquet(folder / "parts" / "1.parquet").astype({"age": float}).to_parquet(folder / "parts" / "1.parquet")
    opened.check()


HEAD = FILE.partition("senders = ")[0]
AGE = VIEWS[:1]
COUNTRY = VIEWS[1:]


def write(folder, name="1", **columns):
    (folder / "parts").mkdir(exist_ok=True)
    stamps = pa.array([datetime.fromtimestamp(BASE, UTC)] * 2)
    columns = {"sender_id": pa.array(["ada", "bob"]), **columns, "at": stamps}
    pq.write_table(pa.table(columns), folder / "parts" / f"{name}.parquet")


def parts(folder, artifacts, features, head=HEAD, **kinds):
    """A store whose one view reads ``parts``."""
    source = 'FileSource(name="p", path=str(HERE / "parts" / "*.parquet"), timestamp_field="at")'
    fields = ", ".join(f"{name}={kind}" for name, kind in kinds.items())
    (folder / "parts.py").write_text(
        f"{head}\nfrom feast.types import Bool, Float32, Int32\n"
        f"FEAST = [who, view('senders', source={source}, {fields})]\n"
    )
    return opened_at(artifacts, Entity(objects="parts.py:FEAST", features=features), str(folder / "spec.yaml"))


TEXTS = (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.large_string()))


def test_texts_that_only_arrow_tells_apart_are_joined_and_read_online(tmp_path, artifacts, make_label):
    for i, kind in enumerate(TEXTS):
        write(
            tmp_path,
            str(i),
            sender_id=pa.array([f"ada{i}", f"bob{i}"]).cast(kind),
            country=pa.array(["fr", "de"], kind),
        )
    opened = parts(tmp_path, artifacts, COUNTRY, country="String")
    opened.check()
    opened.remember(1, [of(make_label, 10)], BASE + 200)
    opened.publish(None, BASE + 200)
    keys = [f"ada{i}" for i in range(len(TEXTS))]
    assert [v["country"] for v in told(opened, [(key, BASE + 10) for key in keys])] == ["fr"] * len(TEXTS)
    assert {h["senders:country"].value for h in opened.online(keys).values()} == {"fr"}


@pytest.mark.filterwarnings("ignore:Entity value_type:DeprecationWarning")
@pytest.mark.parametrize("one", [True, False], ids=["one-file", "several"])
def test_a_view_whose_join_key_is_no_text_in_its_files_is_refused(tmp_path, artifacts, one):
    write(tmp_path, age=pa.array([1.0, 2.0]), **({"sender_id": pa.array([7, 8])} if one else {}))
    head = HEAD.replace(", value_type=ValueType.STRING", "")  # an entity that does not say its type
    opened = parts(tmp_path, artifacts, AGE, head, age="Float64")
    if not one:
        opened.check()
        write(tmp_path, "2", age=pa.array([1.0, 2.0]), sender_id=pa.array([7, 8]))
    says = rf"entity.years.view is 'senders': is joined by sender_id, int64 in {1 if one else 2}.parquet: .* as text"
    with pytest.raises(ConfigError, match=says):
        opened.check()


@pytest.mark.parametrize(
    ("declared", "kind", "says"),
    [
        (
            "Bool",
            pa.float64(),
            r"as Bool, which Feast does not take from age, double in 1.parquet: write the column in",
        ),
        ("Float64", pa.string(), r"as Float64, .* string in 1.parquet"),
        ("Float64", pa.float32(), r"as Float64, .* float in 1.parquet"),
        ("Float64", pa.int32(), r"as Float64, .* int32 in 1.parquet"),
        ("Int64", pa.timestamp("us"), r"as Int64, .* timestamp\[us\] in 1.parquet"),
    ],
)
def test_a_column_of_which_feast_makes_no_value_of_the_declared_type_is_refused_as_it_would_fail(
    tmp_path, artifacts, make_label, declared, kind, says
):
    """Also where the spec does not use the feature: all of a view are sent online."""
    write(tmp_path, age=pa.array([1, 2]).cast(kind), country=pa.array(["fr", "de"]))
    opened = parts(tmp_path, artifacts, COUNTRY, age=declared, country="String")
    with pytest.raises(ConfigError, match=rf"entity.country.view is 'senders': declares age {says}"):
        opened.check()
    opened.remember(1, [of(make_label, 10)], BASE + 200)
    with pytest.raises(UnavailableError):
        opened.publish(None, BASE + 200)


@pytest.mark.parametrize(
    ("declared", "ages"),
    [
        ("Bool", pa.array([True, None])), ("Float64", pa.array([1, None])), ("Float32", pa.array([1.5, None])),
        ("Float64", pa.array([Decimal("1.5"), None], pa.decimal128(20, 2))), ("Int64", pa.array([1.0, None])),
        ("Int32", pa.array(["1", None])), ("Float64", pa.nulls(2)), ("String", pa.array([date(2023, 1, 1), None])),
    ],
)  # fmt: skip
def test_a_column_that_feast_takes_in_another_type_is_no_fault(tmp_path, artifacts, make_label, declared, ages):
    write(tmp_path, age=ages, country=pa.array(["fr", "de"]))
    opened = parts(tmp_path, artifacts, COUNTRY, age=declared, country="String")
    opened.check()
    opened.remember(1, [of(make_label, 10)], BASE + 200)
    opened.publish(None, BASE + 200)
    assert opened.online(["ada"])["ada"]["senders:country"].value == "fr"


def test_the_files_of_a_view_are_read_once_for_all_its_features(tmp_path, artifacts, monkeypatch):
    write(tmp_path, age=pa.array([1.0, 2.0]), country=pa.array(["fr", "de"]))
    reads, read_schema = [], pq.read_schema
    monkeypatch.setattr(pq, "read_schema", lambda *a, **k: reads.append(a) or read_schema(*a, **k))
    parts(tmp_path, artifacts, VIEWS, age="Float64", country="String").check()
    assert len(reads) == 1


def test_what_a_view_reads_and_is_not_there_is_said(folder, artifacts, make_label):
    entity = Entity(objects="feast_objects.py:FEAST", features=VIEWS)
    opened = opened_at(artifacts, entity, str(folder / "spec.yaml"))
    opened.remember(1, [of(make_label, 10)], BASE + 200)
    (folder / "senders.parquet").unlink()
    with pytest.raises(UnavailableError, match=r"of the entity's features: .*senders\.parquet"):
        opened.history([("ada", BASE)])
    with pytest.raises(UnavailableError, match="of the entity's features"):
        opened.publish(None, BASE)


def test_a_feature_repository_of_somebody_else_is_joined_and_read(folder, artifacts, make_label):
    (folder / "feature_store.yaml").write_text(
        "project: theirs\nprovider: local\nregistry: registry.db\nonline_store: {type: sqlite, path: online.db}\n"
        "offline_store: {type: duckdb}\nentity_key_serialization_version: 3\n"
    )
    theirs = import_feast().FeatureStore(repo_path=str(folder))
    theirs.apply(resolve("feast_objects.py:FEAST", str(folder / "spec.yaml")))
    with alone():
        theirs.materialize(datetime(1970, 1, 1, tzinfo=UTC), datetime.fromtimestamp(BASE + 200, UTC))
    entity = msgspec.structs.replace(OWN, repository=str(folder), features=(*OWN.features, *VIEWS))
    opened = opened_at(artifacts, entity)
    opened.check()
    opened.publish(opened.remember(1, [of(make_label, 10)], BASE + 200), BASE + 200)
    expected = {"seen": 0.0, "last": "a", "years": 31.0, "country": "de"}
    assert told(opened, [("ada", BASE + 150)]) == [expected]
    assert values(entity, at_time(opened.online(["ada"])["ada"], BASE + 150), BASE + 150) == expected


@pytest.mark.parametrize(
    ("feature", "objects", "says"),
    [
        ({"view": "nope"}, "ODD", r"entity.age.view is 'nope': is no view: there are both, nobody, numbered, offline"),
        ({"view": "nobody"}, "ODD", "must have one entity"),
        ({"view": "both"}, "ODD", "must have one entity"),
        ({"view": "stranger"}, "ODD", "and which is among the objects"),
        ({"view": "numbered"}, "ODD", "is joined by a key of type INT64: the input's key is text"),
        ({"view": "offline"}, "ODD", "is not online"),
        ({"view": "relative"}, "ODD", r"reads senders.parquet: write it as an absolute path"),
        ({"view": "senders", "feature": "height"}, "ODD", "is no feature of senders: it has age, country, many"),
        ({"view": "senders", "feature": "country"}, "ODD", "type is 'number': cannot be read from a feature"),
        ({"view": "senders", "feature": "many"}, "ODD", "cannot be read from a feature of type Array"),
        (
            {"view": "senders", "type": "category", "values": ("x",), "default": "x"}, "ODD",
            "type is 'category': cannot be read from a feature of type Float64",
        ),
        ({"view": "senders"}, "NOT_A_LIST", "must be a list of Feast's objects"),
        ({"view": "senders"}, "MISSING", "has no 'MISSING'"),
    ],
)  # fmt: skip
def test_what_feast_does_not_have_or_no_student_can_be_fed_is_refused(folder, artifacts, feature, objects, says):
    given = EntityFeature(**{"name": "age", "default": 0.0, **feature})
    entity = Entity(objects=f"feast_objects.py:{objects}", features=(given,))
    with pytest.raises(ConfigError, match=says) as caught:
        opened_at(artifacts, entity, str(folder / "spec.yaml")).check()
    assert "\n" not in str(caught.value)


def test_a_repository_that_is_none_is_refused_and_no_spec_with_it_is_put_in_force(tmp_path):
    (tmp_path / "w.yaml").write_text(
        'name: w\nteacher: {factory: "t.py:T"}\nfeatures:\n  factory: components.student.table:TableColumns\n'
        f"  entity: {{repository: {tmp_path}/none, features: [{{name: age, view: v, default: 0}}]}}\n"
    )
    with pytest.raises(ConfigError, match="is no feature repository that Feast opens"):
        check_entity_features(load_spec(tmp_path / "w.yaml"), Settings(home=tmp_path))


def test_objects_that_cannot_be_made_are_refused(folder, artifacts):
    (folder / "broken.py").write_text("from feast import Entity\n\nFEAST = [Entity()]\n")
    entity = Entity(objects="broken.py:FEAST", features=VIEWS)
    with pytest.raises(ConfigError, match=r"objects is 'broken.py:FEAST': cannot be read: TypeError: .*name"):
        opened_at(artifacts, entity, str(folder / "spec.yaml")).check()


def test_a_store_without_the_view_is_unavailable_until_it_has_it(artifacts, make_label):
    early, writer = opened_at(artifacts), opened_at(artifacts)
    with pytest.raises(UnavailableError, match="online store"):
        early.online(["ada"])
    writer.publish(writer.remember(1, [of(make_label, 10)], BASE + 100), BASE + 100)
    assert early.online(["ada"])["ada"]


def test_features_that_are_new_in_the_spec_are_joined_from_then_on(spec, tape, put, make_label, artifacts, store):
    put(make_label(1, entity="ada"))
    first = freeze(spec, tape, store, artifacts, now=BASE + 50)
    assert read(first.uri, first.digest)["entity"].to_pylist() == [None] and "entity_skew" not in first.manifest
    fed = Features(factory=spec.features.factory, options=spec.features.options, entity=OWN)
    spec = msgspec.structs.replace(spec, features=fed)
    put(make_label(60, entity="ada"), make_label(70, entity="ada"))
    second = freeze(spec, tape, store, artifacts, now=BASE + 100)
    found = [known_of(text) for text in read(second.uri, second.digest)["entity"].to_pylist()]
    assert [f["seen"] for f in found] == [0.0, 1.0] and second.manifest["entity_served"] == 0
    assert entity_store(spec, artifacts).online(["ada"])["ada"]
