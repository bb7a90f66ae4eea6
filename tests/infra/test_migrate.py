"""``cohobate migrate``: a backup first, then the newest schema; nothing else ever migrates what others work on."""

import shutil
import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from components.contracts.settings import Settings
from components.control import schema as schemas
from components.control.schema import SchemaError, nothing
from components.control.store import ControlStore
from infra.cli import app
from infra.migrate import migrate
from infra.status import read
from pipelines.install import note

NEWEST = nothing().newest
OLDER = "0006_admin"


def at(store, revision):
    """Leave the database at a revision, as another version would have."""
    with store.transaction() as s:
        s.execute(text("UPDATE alembic_version SET version_num = :to"), {"to": revision})


def down(store, to=OLDER):
    """The schema as an older version made it."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(schemas.MIGRATIONS))
    with store.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, to)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("COHOBATE_HOME", str(tmp_path))
    return lambda *args: CliRunner().invoke(app, ["migrate", *args])


def test_a_look_at_nothing_creates_nothing(run, tmp_path):
    assert isinstance(run("--check").exception, SchemaError)
    assert read(Settings(home=tmp_path)).workloads == {} and not note(Settings(home=tmp_path), "w", "http://kfp/")
    assert list(tmp_path.iterdir()) == []


def test_a_new_database_is_made_without_a_backup_and_again_nothing_is_done(run, tmp_path):
    assert f"from nothing to {NEWEST}" in run().output
    assert f"is at revision {NEWEST} already" in run().output
    assert run("--check").exit_code == 0
    assert not list(tmp_path.glob("control.db.at-*"))


def test_an_older_one_is_refused_to_workers_and_migrated_after_a_backup(run, store, tmp_path):
    store.put_gauge("files", "lag", {"n": 1})
    down(store)
    store.close()
    for look in (lambda: ControlStore.open(store.url), lambda: read(Settings(home=tmp_path))):
        with pytest.raises(SchemaError, match=f"at revision {OLDER}, and this one wants {NEWEST}.*cohobate migrate"):
            look()
    assert isinstance(run("--check").exception, SchemaError)
    done = run()
    assert f"from {OLDER} to {NEWEST}; backup: " in done.output
    with closing(sqlite3.connect(tmp_path / f"control.db.at-{OLDER}")) as saved:
        assert saved.execute("SELECT version_num FROM alembic_version").fetchall() == [(OLDER,)]
        assert saved.execute("SELECT count(*) FROM gauges").fetchall() == [(1,)]
    with closing(ControlStore.open(store.url)) as opened:
        assert opened.gauges("files")["lag"].value == {"n": 1}


def test_a_newer_one_is_touched_by_nobody(run, store, tmp_path):
    at(store, "9999_later")
    for use in (lambda: ControlStore.open(store.url), store.migrate, lambda: migrate(store.url, None)):
        with pytest.raises(SchemaError, match="migrated by a newer Cohobate: use that version"):
            use()
    assert isinstance(run().exception, SchemaError)


def test_a_migration_that_fails_changes_nothing(store, monkeypatch, tmp_path):
    down(store)
    versions = tmp_path / "migrations"
    shutil.copytree(schemas.MIGRATIONS, versions, ignore=shutil.ignore_patterns("__pycache__"))
    last = versions / "versions" / f"{NEWEST}.py"
    last.write_text(
        last.read_text().replace("\n\n\ndef downgrade", "\n    raise RuntimeError('half way')\n\n\ndef downgrade")
    )
    monkeypatch.setattr(schemas, "MIGRATIONS", versions)
    with pytest.raises(RuntimeError, match="half way"):
        migrate(store.url, None)
    assert store.schema.found == OLDER
    monkeypatch.undo()
    migrate(store.url, tmp_path / "again.db")
    assert store.schema.found == NEWEST


def test_a_postgres_is_dumped_first_or_not_migrated(postgres_store, postgres, tmp_path):
    url = postgres_store.url
    down(postgres_store)
    postgres_store.close()
    with pytest.raises(Exception, match=r"--backup.*name a file that pg_dump writes"):
        migrate(url, None)
    _, saved = migrate(url, tmp_path / "control.dump")
    assert saved is not None and saved.read_bytes()[:5] == b"PGDMP"
    with closing(ControlStore.open(url)) as opened:
        assert opened.schema.found == NEWEST
        down(opened)
    assert migrate(url, None, without_backup=True)[1] is None
