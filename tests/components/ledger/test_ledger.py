import hashlib
import threading
from contextlib import contextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from components.contracts.errors import LedgerError, UnavailableError
from components.control.store import ControlStore
from components.ledger import GENESIS, append, append_if, entries, entry_hash, verify
from tests.stores import migrated


@pytest.fixture
def store(tmp_path):
    store = migrated(f"sqlite:///{tmp_path}/control.db", clock=lambda: 1_700_000_000.25)
    yield store
    store.close()


def fill(store, count=5):
    return [append(store, f"w{i % 2}", "ada", "promote", {"version": str(i), "share": 0.1 * i}) for i in range(count)]


def execute(store, statement):
    with store.transaction() as s:
        s.execute(text(statement))


def test_an_empty_ledger_verifies(store):
    assert verify(store) == 0
    assert verify(store, head=GENESIS) == 0


def test_entries_are_chained_and_verify(store):
    rows = fill(store)
    assert [r.seq for r in rows] == [1, 2, 3, 4, 5]
    assert rows[0].previous == GENESIS
    assert [r.previous for r in rows[1:]] == [r.hash for r in rows[:-1]]
    assert verify(store) == 5
    assert verify(store, head=rows[2].hash) == 5


def test_the_hash_is_pinned(store):
    row = append(store, "files", "ada", "promote", {"b": 1, "a": "é"})
    content = (
        '{"action":"promote","actor":"ada","at":1700000000.25,"detail":{"a":"é","b":1},"seq":1,"workload":"files"}'
    )
    assert row.hash == hashlib.sha256(("0" * 64 + content).encode()).hexdigest()
    assert row.hash == "01f8380234bfbf875a35604fd412f05f417a0eba2dfbe266b838cedcc65e2f7a"


def test_entries_of_one_workload(store):
    fill(store)
    assert [e.seq for e in entries(store, "w1")] == [2, 4]
    assert len(entries(store)) == 5


@pytest.mark.parametrize(
    ("statement", "seq", "says"),
    [
        ("UPDATE ledger SET actor = 'eve' WHERE seq = 3", 3, "was changed"),
        ('UPDATE ledger SET detail = \'{"version": "9"}\' WHERE seq = 2', 2, "was changed"),
        ("UPDATE ledger SET at = at + 1 WHERE seq = 1", 1, "was changed"),
        ("DELETE FROM ledger WHERE seq = 3", 3, "is missing"),
        ("DELETE FROM ledger WHERE seq = 1", 1, "is missing"),
        ("UPDATE ledger SET seq = CASE seq WHEN 2 THEN -3 ELSE -2 END WHERE seq IN (2, 3)", 1, "is missing"),
    ],
)
def test_tampering_names_the_first_bad_entry(store, statement, seq, says):
    fill(store)
    execute(store, statement)
    with pytest.raises(LedgerError, match=says) as caught:
        verify(store)
    assert caught.value.seq == seq


def test_entries_in_another_order_do_not_verify(store):
    fill(store)
    execute(store, "UPDATE ledger SET seq = seq + 100 WHERE seq IN (2, 3)")
    execute(store, "UPDATE ledger SET seq = CASE seq WHEN 102 THEN 3 ELSE 2 END WHERE seq > 100")
    with pytest.raises(LedgerError, match="does not follow") as caught:
        verify(store)
    assert caught.value.seq == 2


def test_a_rehashed_entry_breaks_the_one_after_it(store):
    fill(store)
    forged = entries(store)[1]
    forged.actor = "eve"
    execute(store, f"UPDATE ledger SET actor = 'eve', hash = '{entry_hash(forged)}' WHERE seq = 2")  # noqa: S608
    with pytest.raises(LedgerError, match="does not follow") as caught:
        verify(store)
    assert caught.value.seq == 3


def test_a_cut_end_is_found_by_its_anchor(store):
    head = fill(store)[-1].hash
    execute(store, "DELETE FROM ledger WHERE seq = 5")
    assert verify(store) == 4
    with pytest.raises(LedgerError, match="cut off") as caught:
        verify(store, head=head)
    assert caught.value.seq == 5


def test_a_detail_with_nan_is_refused_and_nothing_is_written(store):
    with pytest.raises(ValueError, match="JSON"):
        append(store, "w", "ada", "gate", {"accuracy": float("nan")})
    assert verify(store) == 0


def test_appends_of_two_stores_and_many_threads_make_one_chain(store):
    other = ControlStore(store.url)
    failures = []

    def work(target, name):
        try:
            for i in range(10):
                append(target, "w", name, "tick", {"i": i})
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(s, f"{n}")) for n in range(3) for s in (store, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert failures == []
    assert verify(store) == 60
    by_actor = {n: [e.detail["i"] for e in entries(store) if e.actor == n] for n in "012"}
    assert all(sorted(seen) == sorted(list(range(10)) * 2) for seen in by_actor.values())


class Beaten(ControlStore):
    """A store where, as on a database without SQLite's write lock, others take the next seq a few times."""

    losses = 0

    @contextmanager
    def transaction(self, turn=""):
        with super().transaction(turn) as s:
            yield s
            if self.losses > 0:
                self.losses -= 1
                raise IntegrityError("INSERT INTO ledger", {}, ValueError("UNIQUE constraint failed: ledger.seq"))


@pytest.fixture
def beaten(tmp_path):
    store = migrated(f"sqlite:///{tmp_path}/control.db", of=Beaten)
    yield store
    store.close()


def test_a_lost_race_is_tried_again(beaten):
    beaten.losses = 3
    assert append(beaten, "w", "ada", "tick", {}).seq == 1
    assert verify(beaten) == 1


def test_a_race_that_is_always_lost_says_so(beaten):
    beaten.losses = 10_000
    with pytest.raises(UnavailableError, match="lost to other writers"):
        append(beaten, "w", "ada", "tick", {})
    beaten.losses = 0
    assert verify(beaten) == 0


def test_an_entry_is_added_only_if_the_entries_before_it_allow(store):
    fill(store)

    def unless_dropped(rows):
        return None if any(r.action == "drop" for r in rows) else {"seen": [r.seq for r in rows]}

    first = append_if(store, "w1", "ada", "drop", unless_dropped, after=2)
    assert first is not None and (first.seq, first.detail) == (6, {"seen": [4]})
    assert append_if(store, "w1", "eve", "drop", unless_dropped) is None
    assert append_if(store, "w1", "eve", "drop", unless_dropped, after=6) is not None, "it was told to look no further"
    assert verify(store) == 7 and [e.seq for e in entries(store, "w1", after=4)] == [6, 7]


def test_of_many_who_decide_at_once_one_is_first(store):
    def first_only(rows):
        return None if rows else {"letters": ["one"]}

    won = []
    threads = [
        threading.Thread(target=lambda: won.append(append_if(store, "w", "ada", "claim", first_only))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([row for row in won if row is not None]) == 1 and verify(store) == 1


def test_a_decision_that_lost_is_made_again_on_what_the_winner_wrote(store, monkeypatch):
    """As on a database whose writers do not take turns: an entry comes between the reading and the adding."""
    real, looked = ControlStore.transaction, []

    def decide(rows):
        looked.append([r.seq for r in rows])
        return {"looks": len(looked)}

    @contextmanager
    def slower(self, turn=""):
        with real(self, turn) as s:
            yield s
            if len(looked) == 1:
                raise IntegrityError("insert", {}, Exception("another writer took this seq"))

    monkeypatch.setattr(ControlStore, "transaction", slower)
    assert append_if(store, "w", "ada", "claim", decide).detail == {"looks": 2}
    assert looked == [[], []] and verify(store) == 1
