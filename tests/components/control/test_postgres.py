"""What is so on PostgreSQL alone: time is the database's, and bells go over the network and outlive a restart."""

import contextlib
import threading
import time

import pytest
from sqlalchemy import event, select, text

from components.contracts.errors import ConfigError
from components.control.intent import Intent
from components.control.store import ControlStore, routing_bell
from components.control.tables import IncidentRow, TeacherRow
from components.control.teachers import (
    TeacherState,
    open_incident,
    probes_of,
    put_teacher,
    teacher_state,
    without_probes,
)
from tests.postgres import running

PATIENCE = 180.0


def test_time_is_the_database_s(postgres_store, monkeypatch):
    """A host whose clock is an hour behind writes and reads the same times as the others."""
    right = time.time()
    monkeypatch.setattr("components.control.clock.time.time", lambda: right - 3600.0)
    behind = ControlStore(postgres_store.url)
    behind.acknowledge("w", "replica", 1, {})
    assert behind.clock() > right - 60.0
    monkeypatch.undo()
    assert [a.replica for a in postgres_store.acknowledgements("w", alive_within=1_800.0)] == ["replica"]
    behind.close()


def test_a_bell_is_heard_again_after_the_server_was_away():
    with running() as server:
        store, writer = (ControlStore(server.url("postgres")) for _ in range(2))
        store.migrate()
        rung = store.bells.listen(routing_bell("w"))
        assert store.bells.heard
        server.stop()
        lost = threading.Event()
        while store.bells.heard:
            lost.wait(0.01)
        server.start()
        writer.put_intent("w", 0, Intent())
        assert rung.wait(PATIENCE)  # by the ring, or because one may have been missed meanwhile
        while not store.bells.heard:
            lost.wait(0.01)
        rung.clear()
        writer.put_intent("w", 1, Intent(weight=0.5))
        assert rung.wait(PATIENCE)
        store.close()
        writer.close()


def test_a_connection_that_the_server_closed_is_replaced_before_it_is_used(postgres, postgres_store):
    store = postgres_store
    assert store.intent("w") == (0, Intent())
    name = store.engine.url.database
    ours = f"FROM pg_stat_activity WHERE datname = '{name}'"
    postgres.execute(f"SELECT pg_terminate_backend(pid) {ours}")
    assert store.put_intent("w", 0, Intent()) == 1


def test_whether_a_connection_lives_is_asked_in_the_transaction_that_it_is_taken_for(postgres_store, monkeypatch):
    """A question of its own would be as many transactions again as there are."""
    postgres_store.intent("w")
    monkeypatch.setattr("components.control.clock.MEASURE_SECONDS", 7_200.0)  # it is asked for its time, too
    begun = []

    def note(connection):
        begun.append(connection.connection.driver_connection.info.transaction_status.name)

    event.listen(postgres_store.engine, "begin", note)
    postgres_store.intent("w")
    assert begun == ["INTRANS"]


def test_a_ring_that_cannot_be_sent_stops_nobody(postgres_store):
    with postgres_store.engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    broken = ControlStore(postgres_store.url.replace("/test_", "/gone_"))
    broken.bells.ring("x")
    broken.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql+psycopg2://me:hush@db/x", r"me:\*\*\*@db/x.*psycopg2 is not installed.*cohobate\[cluster\]"),
        ("postgres://me:hush@db/x", r"me:\*\*\*@db/x.*must be a URL of SQLAlchemy"),
        ("db/x", "must be a URL of SQLAlchemy"),
    ],
)
def test_a_url_that_cannot_be_used_names_the_remedy_and_no_password(url, says):
    with pytest.raises(ConfigError, match=says) as caught:
        ControlStore(url)
    assert "hush" not in str(caught.value)


def test_a_state_that_probes_are_taken_out_of_is_nobody_elses_meanwhile(postgres_store):
    store, seen = postgres_store, []
    probe = {"content": "x", "answers": [], "anchor": True}
    put_teacher(store, "w", "t@1", 0, TeacherState(space="s@1", probes=(probe,)))
    revision, state = teacher_state(store, "w", "t@1")
    open_incident(
        store, "w", "t@1", revision, state, suspect_from=1.0, index=1, candidate=[probe], detail={}
    )  # fmt: skip

    class Contents:
        """Looked at while each of the rows is changed: those of its table that others could lock then."""

        def __contains__(self, content):
            with contextlib.closing(ControlStore(store.url)) as other, other.session() as s:
                table = (TeacherRow, IncidentRow)[len(seen)]
                seen.append(s.scalars(select(table).with_for_update(skip_locked=True)).all())
            return content == "x"

    without_probes(store, "w", Contents())
    assert seen == [[], []] and probes_of(store, "w") == set()
