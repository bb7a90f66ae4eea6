"""Keys are entries of the ledger: what is added, what ends, what is taken back, and what somebody edits."""

import json

import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from components.contracts.errors import ConfigError, LedgerError, NotFoundError
from components.control.tables import LedgerRow
from components.ledger.keys import ADD, REVOKE, add, keys, revoke
from components.ledger.ledger import entries, verify
from infra.cli import app
from tests.clock import Clock
from tests.keys import keys as key_files

DAY = 86_400


@pytest.fixture
def public(tmp_path):
    return key_files(tmp_path)[1].read_bytes()


def test_a_key_counts_until_it_ends_or_is_revoked_and_all_of_it_is_in_the_ledger(store, public):
    store.clock = clock = Clock(1_700_000_000.0)
    key = add(store, "ana", public, name="ci", reason="the first", days=10, workloads=("mail",))
    assert (key.name, key.workloads, key.added_by) == ("ci", ("mail",), "ana")
    assert key.state(clock.now) == "good" and key.state(clock.now + 10 * DAY - 1) == "good"
    assert key.state(clock.now + 10 * DAY) == "expired"
    later = add(store, "ana", public, name="ci", reason="goes on", days=20)
    assert later.id == key.id and later.state(clock.now + 10 * DAY) == "good" and later.workloads == ()
    gone = revoke(store, "bob", key.id[:8], "lost")
    assert gone.state(clock.now) == "revoked" and gone.why_revoked == "lost"
    assert revoke(store, "bob", key.id, "again").why_revoked == "lost"
    assert [(e.action, e.actor) for e in entries(store, "*")] == [(ADD, "ana"), (ADD, "ana"), (REVOKE, "bob")]
    with pytest.raises(ConfigError, match="does not come back"):
        add(store, "ana", public, name="ci", reason="back")
    assert keys(store) == {gone.id: gone} and verify(store) == 3


def test_one_that_is_none_or_is_not_there_is_refused(store, public):
    with pytest.raises(ConfigError, match="must be a public key in PEM"):
        add(store, "ana", b"ssh-ed25519 AAAA", name="ci", reason="r")
    with pytest.raises(ConfigError, match="printable"):
        add(store, "ana", public, name=" ", reason="r")
    with pytest.raises(ConfigError, match="at most 3650"):
        add(store, "ana", public, name="ci", reason="r", days=4000)
    with pytest.raises(NotFoundError, match="keys list"):
        revoke(store, "ana", "abc", "r")
    assert entries(store) == []


def test_a_start_that_several_have_is_not_enough(store, tmp_path):
    for name in ("a", "b"):
        add(store, "ana", key_files(tmp_path, name)[1].read_bytes(), name=name, reason="r")
    with pytest.raises(NotFoundError, match="several begin so"):
        revoke(store, "ana", "", "r")


def test_an_edited_entry_is_found_before_the_key_counts(store, public):
    add(store, "ana", public, name="ci", reason="r", days=1)
    with store.transaction() as s:
        (row,) = s.query(LedgerRow).all()
        s.execute(update(LedgerRow).values(detail={**row.detail, "expires_at": None}))
    with pytest.raises(LedgerError, match="changed after it was written"):
        keys(store)


def test_the_commands_add_list_and_revoke(store, tmp_path, monkeypatch):
    monkeypatch.setenv("COHOBATE_DATABASE_URL", store.url)
    monkeypatch.setenv("COHOBATE_ACTOR", "ana")
    _, public = key_files(tmp_path)

    def run(*words):
        done = CliRunner().invoke(app, ["keys", *words, "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.output)

    assert run("list") == []
    assert "no key was added yet" in CliRunner().invoke(app, ["keys", "list"]).output
    made = run("add", str(public), "--name", "ci", "--reason", "the first", "--days", "30", "--workload", "mail")
    assert (made["state"], made["days_left"], made["workloads"], made["added_by"]) == ("good", 30.0, ["mail"], "ana")
    assert [row["id"] for row in run("list")] == [made["id"]]
    assert run("revoke", made["id"][:12], "--reason", "lost")["state"] == "revoked"
    assert run("list")[0]["why_revoked"] == "lost"
