"""Requests that are answered later, on SQLite and on PostgreSQL: a key is taken once, and so is each try."""

import uuid
from concurrent.futures import ThreadPoolExecutor

from components.control import requests
from components.control.tables import RequestRow


def row(store, *, key=None, workload="w", fingerprint="f" * 64, callback=None):
    now = store.clock()
    return RequestRow(
        id=uuid.uuid4().hex, workload=workload, key=key, fingerprint=fingerprint, content=b"c", callback=callback,
        mode="structured", accepted_at=now, attempts=0, next_at=now,
    )  # fmt: skip


def test_of_many_writers_with_one_key_one_request_comes(store):
    def accept(_):
        return requests.accept(store, row(store, key="k"), 100)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(accept, range(24)))
    assert [one.outcome for one in found].count("new") == 1
    assert {one.outcome for one in found} == {"new", "repeated"} and len({one.row.id for one in found}) == 1
    assert requests.accept(store, row(store, key="k", fingerprint="g" * 64), 100).outcome == "another"
    assert requests.accept(store, row(store, key="k", workload="other"), 100).outcome == "new"


def test_each_is_taken_by_one_and_again_once_its_time_is_over(store):
    ids = {requests.accept(store, row(store), 100).row.id for _ in range(12)}

    def take(_):
        return requests.take(store, "w", answered=False, hold=3600)

    with ThreadPoolExecutor(4) as pool:
        taken = [one.id for one in pool.map(take, range(16)) if one is not None]
    rest = []
    while (one := take(None)) is not None:  # one that found a row taken by another went away with none
        rest.append(one.id)
    assert sorted(taken + rest) == sorted(ids)
    again = requests.accept(store, row(store), 100).row.id
    assert [requests.take(store, "w", answered=False, hold=-1).attempts for _ in range(2)] == [1, 2]
    assert requests.find(store, "w", again).attempts == 2


def test_an_answer_is_written_once_and_then_told_of(store):
    one = requests.accept(store, row(store, callback="https://robots.example"), 1).row
    assert requests.accept(store, row(store), 1).outcome == "full"
    requests.answer(store, one.id, b"first")
    requests.answer(store, one.id, b"second")
    found = requests.find(store, "w", one.id)
    assert found.answer == b"first" and found.content is None and requests.find(store, "other", one.id) is None
    assert requests.take(store, "w", answered=False, hold=60) is None
    assert requests.take(store, "w", answered=True, hold=60).id == one.id
    assert requests.forget(store, "w", store.clock() + 10) == 0
    requests.delivered(store, one.id)
    assert requests.take(store, "w", answered=True, hold=-1) is None
    assert requests.forget(store, "w", store.clock() + 10) == 1 and requests.find(store, "w", one.id) is None
