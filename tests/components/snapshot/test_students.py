import msgspec
import pytest

from components.contracts.settings import Settings
from components.contracts.storage import put_bytes
from components.ledger.ledger import append
from components.snapshot import step
from components.snapshot.students import MOST_TIMES, decisions, without_student
from components.snapshot.window import freeze
from components.steps import evidence_folder
from tests.components.snapshot.conftest import BASE
from tests.stores import migrated

NOW = BASE + 10_000


@pytest.fixture
def store(tmp_path):
    store = migrated(f"sqlite:///{tmp_path}/control.db", clock=lambda: NOW)
    yield store
    store.close()


@pytest.fixture
def new_window(spec, tape, store, artifacts, put, make_label):
    """Freeze ten more labels."""

    def make():
        n = 10 * len(store.windows("files"))
        put(*(make_label(i) for i in range(n, n + 10)))
        return freeze(spec, tape, store, artifacts, now=NOW)

    return make


def judge(window, digest, decision):
    verdict = {"kind": "verdict", "decision": decision, "findings": [], "reasons": []}
    put_bytes(f"{evidence_folder(window)}/{digest}.jsonl", b"{}\n" + msgspec.json.encode(verdict) + b"\n")


def register(store, digest):
    append(store, "files", "me", "register", {"version": "1", "digest": digest})


def test_a_window_that_nobody_judged_a_student_on_has_none(spec, store, new_window):
    assert without_student(spec, store) is None
    first = new_window()
    assert without_student(spec, store).digest == first.digest
    assert decisions(first) == {}


@pytest.mark.parametrize(
    ("judged", "registered", "left"),
    [
        ({"s1": "promote"}, "s1", False),
        ({"s1": "promote"}, None, True),
        ({"s1": "promote"}, "other", True),
        ({"s1": "hold"}, None, False),
        ({"s1": "reject"}, None, False),
        ({"s1": "reject", "s2": "hold"}, None, False),
        ({"s1": "promote", "s2": "promote"}, "s2", False),
        ({"s1": "promote", "s2": "hold"}, None, True),
        ({"s1": "hold"}, "s1", False),
    ],
)
def test_a_student_was_made_once_it_was_registered_or_all_were_held_or_rejected(
    spec, store, new_window, judged, registered, left
):
    window = new_window()
    for digest, decision in judged.items():
        judge(window, digest, decision)
    if registered:
        register(store, registered)
    assert decisions(window) == judged
    assert (without_student(spec, store) is not None) is left


def test_only_the_newest_counts_for_older_ones_were_replayed(spec, store, new_window):
    new_window()
    newest = new_window()
    judge(newest, "s", "reject")
    assert without_student(spec, store) is None


def test_no_student_can_be_made_of_another_teacher_s_labels(spec, store, new_window):
    new_window()
    assert without_student(msgspec.structs.replace(spec, teacher_digest="other@1"), store) is None


def test_no_student_can_be_made_of_held_out_rows_alone(spec, store, new_window):
    new_window()
    with store.transaction() as s:
        window = s.merge(store.windows("files")[0])
        window.manifest = {**window.manifest, "holdout_rows": window.rows}
    assert without_student(spec, store) is None


@pytest.fixture
def take(spec, tape, store, artifacts, monkeypatch):
    """The step, on the test's broker and database."""
    import components.stream

    settings = Settings(database_url=str(store.engine.url), artifact_root=artifacts)
    monkeypatch.setattr(step, "Settings", lambda: settings)
    monkeypatch.setattr(step, "load_spec", lambda path: spec)
    monkeypatch.setattr(components.stream, "open_broker", lambda settings: tape)
    return lambda fresh=False: step.take_snapshot("files.yaml", fresh)


def test_a_window_whose_update_failed_is_taken_again_and_what_is_new_waits(take, store, put, make_label):
    assert take() == (0, "nothing")
    put(*(make_label(i) for i in range(10)))
    rows, digest = take()
    assert rows == 10
    # The update fails here. The next one is of the same window, with new labels and without.
    assert take() == (10, digest)
    put(make_label(10))
    assert take() == (10, digest)
    judge(store.windows("files")[0], "s", "promote")
    register(store, "s")
    rows, newer = take()
    assert rows == 1 and newer != digest


def test_a_window_on_which_every_update_fails_does_not_stop_those_behind_it(take, put, make_label):
    put(*(make_label(i) for i in range(10)))
    _, digest = take()
    put(make_label(10))
    assert [take() for _ in range(MOST_TIMES)] == [(10, digest)] * MOST_TIMES
    rows, newer = take()
    assert rows == 1 and newer != digest
    # Nothing is new: the newest without a student, however often.
    assert [take() for _ in range(MOST_TIMES + 2)] == [(1, newer)] * (MOST_TIMES + 2)


def test_for_a_fresh_student_what_is_new_goes_first(take, put, make_label):
    put(*(make_label(i) for i in range(10)))
    _, digest = take(fresh=True)
    put(make_label(10))
    rows, newer = take(fresh=True)
    assert rows == 1 and newer != digest
    assert take(fresh=True) == (1, newer)
