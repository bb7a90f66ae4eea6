"""An entity in an online store that is a real PostgreSQL, where another workload has the same entity."""

import json
from contextlib import closing
from datetime import timedelta

import pandas as pd
import psycopg
import pytest
from psycopg import sql

from components.contracts.spec import Factory, Spec
from components.forget.order import forget
from components.snapshot.erase import online_without
from components.snapshot.features import import_feast, open_store
from tests.components.forget.conftest import KEY, World

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def url(postgres, monkeypatch):
    """The database of the online store."""
    found = postgres.database()
    given = {"type": "postgres", "host": postgres.address, "port": postgres.port, "database": found.rsplit("/", 1)[1],
             "user": "cohobate", "password": "any", "sslmode": "disable"}  # fmt: skip
    monkeypatch.setenv("COHOBATE_FEAST_ONLINE", json.dumps(given))
    return found.replace("+psycopg", "")


@pytest.fixture
def world(url, tmp_path):
    made = World(tmp_path)
    made.url = url
    made.fill()
    yield made
    made.store.close()


def rows(world):
    """How many rows each table of the online store has, by the entity's key as it is: of ours, and of all others."""
    found = {}
    with closing(psycopg.connect(world.url)) as connection, connection.cursor() as cursor:
        tables = cursor.execute(
            "SELECT table_name FROM information_schema.columns WHERE column_name = 'entity_key' ORDER BY 1"
        ).fetchall()
        for (table,) in tables:
            query = sql.SQL("SELECT entity_key FROM {}").format(sql.Identifier(table))
            keys = [key for (key,) in cursor.execute(query).fetchall()]
            ours = sum(KEY.encode() in key for key in keys)
            found[table] = ours, len(keys) - ours
    return found


def test_an_entity_is_deleted_from_the_tables_of_its_workload_alone(world):
    before = rows(world)
    assert all(ours and others for ours, others in before.values()) and before
    with closing(psycopg.connect(world.url)) as connection, connection:
        for table in before:
            names = map(sql.Identifier, (f"files_2{table}", table))
            connection.execute(sql.SQL("CREATE TABLE {} AS SELECT * FROM {}").format(*names))
    result = forget(world.platform, KEY, "asked by letter")
    assert result["left"] == []
    after = rows(world)
    assert {t: after[t] for t in before} == {t: (0, others) for t, (_, others) in before.items()}
    assert {t: after[f"files_2{t}"] for t in before} == before


class Theirs:
    """Views of the user's own in a project's registry: one that a stream feeds, and one that may be put offline."""

    def __init__(self, artifacts):
        self.feast = import_feast()
        self.store = open_store(f"{artifacts}/files/feast", "files", None)
        self.apply()
        for view, column in (("streamed", "sender"), ("plain", "who")):
            rows = {column: [KEY, "another"], "said": ["x", "y"], "at": pd.to_datetime([0, 0], unit="s", utc=True)}
            self.store.write_to_online_store(view, pd.DataFrame(rows))

    def apply(self, online=True):
        from feast.data_format import JsonFormat
        from feast.types import String

        f = self.feast
        file = f.FileSource(name="file", path="none.parquet", timestamp_field="at")
        stream = f.KafkaSource(
            name="stream", kafka_bootstrap_servers="none", topic="t", timestamp_field="at", batch_source=file,
            message_format=JsonFormat(schema_json="said string, at timestamp"),
        )  # fmt: skip
        sender, who = (
            f.Entity(name=name, join_keys=[name], value_type=f.ValueType.STRING) for name in ("sender", "who")
        )
        common = {"schema": [f.Field(name="said", dtype=String)], "ttl": timedelta(0)}
        self.store.apply(
            [
                sender, who, f.StreamFeatureView(name="streamed", entities=[sender], source=stream, **common),
                f.FeatureView(name="plain", entities=[who], source=file, online=online, **common),
            ]
        )  # fmt: skip

    def said(self):
        """What the store has of both, by view."""
        found = {}
        for view, column in (("streamed", "sender"), ("plain", "who")):
            asked = [{column: KEY}, {column: "another"}]
            found[view] = self.store.get_online_features([f"{view}:said"], asked).to_dict()["said"]
        return found


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_an_entity_is_deleted_from_views_that_a_stream_feeds_or_that_were_put_offline(kind, request, tmp_path):
    if kind == "postgres":
        request.getfixturevalue("url")
    (tmp_path / "files" / "feast").mkdir(parents=True)
    artifacts = f"file://{tmp_path}"
    theirs = Theirs(artifacts)
    assert theirs.said() == {"streamed": ["x", "y"], "plain": ["x", "y"]}
    theirs.apply(online=False)
    spec = Spec(name="files", teacher=Factory(factory="t:T"), features=Factory(factory="f:F"))
    assert online_without(spec, artifacts, KEY) == []
    theirs.apply()
    assert theirs.said() == {"streamed": [None, "y"], "plain": [None, "y"]}
