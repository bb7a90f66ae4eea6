"""An entity in an online store that is a real PostgreSQL, where another workload has the same entity."""

import json
from contextlib import closing

import psycopg
import pytest
from psycopg import sql

from components.forget.order import forget
from tests.components.forget.conftest import KEY, World

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def world(postgres, monkeypatch, tmp_path):
    server = postgres
    url = server.database()
    given = {"type": "postgres", "host": server.address, "port": server.port, "database": url.rsplit("/", 1)[1],
             "user": "cohobate", "password": "any", "sslmode": "disable"}  # fmt: skip
    monkeypatch.setenv("COHOBATE_FEAST_ONLINE", json.dumps(given))
    made = World(tmp_path)
    made.url = url.replace("+psycopg", "")
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
