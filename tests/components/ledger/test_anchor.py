import subprocess

import msgspec
import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from components.contracts.errors import ConfigError, LedgerError
from components.control.tables import LedgerRow
from components.ledger import GENESIS, append, entry_hash, verify
from components.ledger.anchor import Anchor, head_of, read_anchor, sign, verify_against
from infra.ledger import app
from tests.stores import migrated


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("COHOBATE_HOME", str(tmp_path))
    made = migrated(f"sqlite:///{tmp_path}/control.db")
    for i in range(6):
        append(made, f"w{i % 2}", "ada", "promote", {"version": str(i)})
    yield made
    made.close()


def execute(store, *statements):
    with store.transaction() as s:
        for statement in statements:
            s.execute(text(statement))


def rechain(store):
    """What an attacker with write access does after a change: number and chain all entries anew."""
    with store.session() as s:
        rows = [dict(r._mapping) for r in s.execute(text("SELECT * FROM ledger ORDER BY seq"))]
    execute(store, "DELETE FROM ledger")
    previous = GENESIS
    with store.transaction() as s:
        for seq, old in enumerate(rows, 1):
            row = LedgerRow(**{**old, "seq": seq, "previous": previous, "detail": msgspec.json.decode(old["detail"])})
            row.hash = previous = entry_hash(row)
            s.add(row)
    assert verify(store) == len(rows)  # without an anchor nobody could tell


CHANGE = "UPDATE ledger SET actor = 'eve' WHERE seq = 2"
DELETE = "DELETE FROM ledger WHERE seq = 3"
TRUNCATE = "DELETE FROM ledger WHERE seq > 4"
SWAP = (
    "UPDATE ledger SET seq = -2 WHERE seq = 2", "UPDATE ledger SET seq = 2 WHERE seq = 3",
    "UPDATE ledger SET seq = 3 WHERE seq = -2",
)  # fmt: skip
INSERT = (
    "UPDATE ledger SET seq = -seq WHERE seq > 3", "UPDATE ledger SET seq = 1 - seq WHERE seq < 0",
    "INSERT INTO ledger SELECT 4, previous, hash, at, workload, 'eve', action, detail FROM ledger WHERE seq = 3",
)  # fmt: skip
MANIPULATIONS = {
    "change": (CHANGE,), "delete": (DELETE,), "truncate": (TRUNCATE,), "reorder": SWAP, "insert": INSERT,
}  # fmt: skip


@pytest.mark.parametrize("how", MANIPULATIONS)
@pytest.mark.parametrize("covered", [False, True])
@pytest.mark.parametrize("form", ["hash", "file"])
def test_an_anchor_finds_every_manipulation_even_if_the_chain_is_made_anew(store, tmp_path, how, covered, form):
    head = head_of(store)
    (tmp_path / "anchor.json").write_bytes(msgspec.json.encode(head))
    anchor = head.hash if form == "hash" else str(tmp_path / "anchor.json")
    append(store, "w0", "ada", "later", {})
    assert CliRunner().invoke(app, ["verify", "--anchor", anchor]).exit_code == 0
    execute(store, *MANIPULATIONS[how])
    if covered:
        rechain(store)
    with pytest.raises(LedgerError):
        verify_against(store, read_anchor(anchor))
    assert CliRunner().invoke(app, ["verify", "--anchor", anchor]).exit_code != 0


def test_a_cut_that_was_filled_up_again_is_found_at_its_place(store):
    head = head_of(store)
    execute(store, TRUNCATE)
    for _ in range(4):
        append(store, "w0", "eve", "promote", {})
    assert verify(store) == 8
    with pytest.raises(LedgerError, match="rewritten") as error:
        verify_against(store, head)
    assert error.value.seq == 6


def test_the_anchor_is_written_and_signed(store, tmp_path):
    key, public, file = tmp_path / "key.pem", tmp_path / "public.pem", tmp_path / "a.json"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True, capture_output=True)  # noqa: S607
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True, capture_output=True)  # noqa: S607
    done = CliRunner().invoke(app, ["anchor", "--output", str(file), "--key", str(key), "--json"])
    assert done.exit_code == 0 and msgspec.json.decode(done.stdout)["seq"] == 6
    verified = CliRunner().invoke(app, ["verify", "--anchor", str(file), "--public-key", str(public), "--json"])
    assert verified.exit_code == 0 and msgspec.json.decode(verified.stdout) == {"ok": True, "entries": 6}
    forged = msgspec.json.decode(file.read_bytes()) | {"hash": "0" * 64}
    file.write_bytes(msgspec.json.encode(forged))
    with pytest.raises(ConfigError, match="signature"):
        read_anchor(str(file), public)
    file.write_bytes(msgspec.json.encode(head_of(store)))
    with pytest.raises(ConfigError, match="signature"):
        read_anchor(str(file), public)
    with pytest.raises(ConfigError, match="no signature"):
        read_anchor("0" * 64, public)


def test_what_is_no_anchor_is_named(tmp_path):
    for wrong in ("xyz", str(tmp_path)):
        with pytest.raises(ConfigError, match="64 hex digits"):
            read_anchor(wrong)
    (tmp_path / "key.pem").write_text("no key")
    with pytest.raises(ConfigError, match="Ed25519"):
        sign(Anchor(seq=0, hash=GENESIS, at=0.0), tmp_path / "key.pem")
