import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import event, inspect, text
from sqlalchemy.pool import QueuePool

from components.control import database
from components.control.intent import Intent
from components.control.store import ControlStore
from components.control.tables import AlarmRow, Base


def test_migrations_make_the_tables_of_the_models(store):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_migrating_again_and_at_once_changes_nothing(tmp_path):
    stores = [ControlStore(f"sqlite:///{tmp_path}/deep/er/control.db") for _ in range(3)]
    failures = []

    def migrate(store):
        try:
            store.migrate()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=migrate, args=(s,)) for s in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert "routing" in inspect(stores[0].engine).get_table_names()
    for store in stores:
        store.close()


def test_a_reader_does_not_wait_for_a_writer(store):
    store.put_intent("files", 0, Intent(weight=0.5))
    with store.transaction() as s:
        s.connection()
        assert store.intent("files")[1].weight == 0.5  # the writer goes on after this: who waited for it would fail


def test_a_transaction_that_raises_leaves_nothing(store):
    with pytest.raises(RuntimeError, match="half way"), store.transaction() as s:
        s.add(AlarmRow(workload="files", kind="drift", input_index=1, at=1.0, detail={}))
        s.flush()
        raise RuntimeError("half way")
    assert list(store.alarms("files")) == []


def test_writers_of_one_turn_wait_for_each_other(store):
    order = []

    def write():
        with store.transaction(turn="mine") as s:
            s.connection()
            order.append("other")

    thread = threading.Thread(target=write)
    with store.transaction(turn="mine") as s:
        s.connection()
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "other"]


def test_a_schema_that_is_new_is_not_migrated_and_an_old_one_is(tmp_path, monkeypatch):
    from alembic import command
    from alembic.script import ScriptDirectory

    store, upgrade, done = ControlStore(f"sqlite:///{tmp_path}/control.db"), command.upgrade, []
    store.migrate()
    monkeypatch.setattr(command, "upgrade", lambda config, to: (done.append(to), upgrade(config, to)))
    store.migrate()
    assert done == []
    folder = ScriptDirectory(str(Path(database.__file__).with_name("migrations")))
    with store.transaction() as s:
        assert s.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == folder.get_current_head()
        s.execute(text("DROP TABLE alembic_version"))
        Base.metadata.drop_all(s.connection())
    store.migrate()
    assert done == ["head"] and inspect(store.engine).has_table("routing")
    store.close()


def test_what_is_read_together_is_one_transaction_and_writes_are_their_own(store):
    store.put_intent("files", 0, Intent(weight=0.5))
    begun = []
    event.listen(store.engine, "begin", begun.append)
    with store.together():
        assert store.intent("files")[0] == 1 and store.alarms("files") == [] and store.runs("files") == []
        assert len(begun) == 1
        store.raise_alarm("files", "drift", 1, {})
        assert len(begun) == 2, "what is written is not undone where the reading fails"
        elsewhere = []
        other = threading.Thread(target=lambda: elsewhere.append(store.intent("files")[0]))
        other.start()
        other.join()
        assert elsewhere == [1] and len(begun) == 3, "another thread reads for itself"
    assert [a.kind for a in store.alarms("files")] == ["drift"]
    assert len(begun) == 4, "and so does this one afterwards"


def test_a_block_that_reads_together_within_another_belongs_to_that(store):
    begun = []
    event.listen(store.engine, "begin", begun.append)
    with store.together():
        store.intent("a")
        with store.together():
            store.intent("b")
        store.intent("c")
    assert len(begun) == 1


def test_a_connection_that_was_just_opened_is_not_asked_whether_it_lives_and_one_of_the_pool_is():
    """What fails on a new one is the driver's own error, by which callers know that the database is away."""
    asked = []

    class Connection:
        def __init__(self):
            self.number = len(opened)
            opened.append(self)

        def cursor(self):
            return self

        def execute(self, _):
            asked.append(self.number)
            raise OSError("the server closed the connection")

        def close(self):
            pass

        rollback = close

    opened = []
    pool = QueuePool(Connection)
    event.listen(pool, "connect", database._opened)
    event.listen(pool, "checkout", database._alive)
    pool.connect().close()
    assert asked == []
    assert pool.connect().dbapi_connection.number == 1
    assert asked == [0], "and the one that was opened in its place is not"
