import fsspec
import pytest

from components.contracts.errors import NotFoundError, UnavailableError
from components.contracts.storage import digest_of, get_bytes
from serving.control.journal import Journal, journal_of, read, uri_of
from serving.rollout.replay import Looked, encode_line

W = "signs"


def looks(*at):
    return [Looked(at=float(x)) for x in at]


@pytest.fixture
def uri(tmp_path):
    return uri_of(f"file://{tmp_path}", W, "r")


def write(store, journal, lines, revision=0):
    """As the controller does: a line with the state that it led to."""
    for line in lines:
        added = journal.next(line)
        revision = store.put_rollout("r", W, revision, True, {}, added)
        journal.lines = added.number
    return revision


def test_a_line_is_there_exactly_when_its_state_is(store, uri):
    journal = Journal(store, uri, "r", 0)
    write(store, journal, looks(1, 2))
    with pytest.raises(Exception, match="is at revision 2, not 0"):
        store.put_rollout("r", W, 0, True, {}, journal.next(looks(3)[0]))
    assert list(read(store, uri, "r")) == [encode_line(x) for x in looks(1, 2)]
    # The next controller, wherever it runs, goes on with what was durable.
    again = Journal(store, uri, "r", 2)
    write(store, again, looks(9), revision=2)
    assert list(read(store, uri, "r", after=2)) == [encode_line(x) for x in looks(9)]


def test_an_ended_one_is_a_file_that_comes_back_when_its_rollout_goes_on(store, uri, tmp_path):
    journal = Journal(store, uri, "r", 0)
    write(store, journal, looks(1, 2))
    digest = journal.publish()
    assert digest == digest_of(get_bytes(uri)) and get_bytes(uri).splitlines() == [encode_line(x) for x in looks(1, 2)]
    journal.retire()
    assert list(store.journal("r")) == []
    first = encode_line(looks(1)[0])
    assert list(read(store, uri, "r", after=1, offset=len(first) + 1)) == [encode_line(looks(2)[0])]
    assert list(journal_of(store, f"file://{tmp_path}", "r")) == [encode_line(x) for x in looks(1, 2)]
    again = Journal(store, uri, "r", 2)
    write(store, again, looks(3), revision=2)
    again.retire()
    assert get_bytes(uri).splitlines() == [encode_line(x) for x in looks(1, 2, 3)]


def test_missing_lines_are_said(store, uri, caplog):
    Journal(store, uri, "r", 2)
    assert "0 lines of 2" in caplog.text


def test_a_rollout_without_a_journal_is_not_found(store, tmp_path):
    for _ in range(2):
        with pytest.raises(NotFoundError, match="journal of a rollout 'r'"):
            list(journal_of(store, f"file://{tmp_path}", "r"))
        store.put_rollout("r", W, store.workload_of("r") is not None, True, {})


def test_a_store_that_does_not_take_it_is_unavailable_and_nothing_is_lost(store, monkeypatch):
    journal = Journal(store, "memory://journals/r.jsonl", "r", 0)
    write(store, journal, looks(1))

    def refuse(*_, **__):
        raise RuntimeError("503 slow down")

    with monkeypatch.context() as patch:
        patch.setattr(fsspec.get_filesystem_class("memory"), "pipe_file", refuse)
        with pytest.raises(UnavailableError, match=r"artifact store at memory://.*503 slow down"):
            journal.retire()
    assert len(list(store.journal("r"))) == 1
    journal.retire()
    assert get_bytes("memory://journals/r.jsonl").splitlines() == [encode_line(looks(1)[0])]
