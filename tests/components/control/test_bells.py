"""Bells: a ring wakes whoever listens, in this process and in others, and one that cannot be heard says so."""

import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
from sqlalchemy.engine import make_url

from components.control import bells
from components.control.intent import Intent
from components.control.order_client import LocalOrderClient, Order
from components.control.store import ControlStore, orders_bell, routing_bell

PATIENCE = 180.0
"""Seconds for what takes a millisecond on a machine that is not busy; nothing here waits for it to pass."""


def test_a_ring_is_heard_by_those_of_its_name_alone(store):
    mine, same, other = (store.bells.listen(name) for name in ("a/b", "a/b", "c"))
    assert store.bells.heard
    store.bells.ring("a/b")
    assert mine.wait(PATIENCE) and same.wait(PATIENCE)
    store.bells.ring("c")
    assert other.wait(PATIENCE)
    mine.clear()
    store.bells.leave(mine)
    store.bells.ring("a/b")
    same.clear()
    store.bells.ring("a/b")
    assert same.wait(PATIENCE) and not mine.is_set()


def test_every_ring_is_told_not_the_first_alone(store):
    rung = store.bells.listen("x")
    for _ in range(100):
        rung.clear()
        store.bells.ring("x")
        assert rung.wait(PATIENCE)


@pytest.mark.parametrize(
    ("write", "bell"),
    [
        (lambda s: s.put_intent("w", 0, Intent()), routing_bell("w")),
        (lambda s: s.renew_lease("w", 0, 5.0), routing_bell("w")),
        (lambda s: s.order("w", "pause", "eve", "why"), orders_bell("w")),
        (lambda s: LocalOrderClient(s, "eve").put(Order(workload="w", verb="pause", reason="why")), orders_bell("w")),
    ],
    ids=["intent", "lease", "order", "order client"],
)
def test_a_write_rings_once_it_can_be_read(store, write, bell):
    seen, rung = [], store.bells.listen(bell)
    reader = ControlStore(store.url)

    def look():
        seen.append(rung.wait(PATIENCE) and (reader.intent("w"), len(reader.open_orders("w"))))

    thread = threading.Thread(target=look)
    thread.start()
    write(store)
    thread.join()
    assert seen == [(store.intent("w"), len(store.open_orders("w")))]
    reader.close()


def test_another_process_is_heard(store):
    rung = store.bells.listen(routing_bell("w"))
    code = "import sys; from components.control.store import *; ControlStore(sys.argv[1]).renew_lease('w', 0, 1.0)"
    subprocess.run([sys.executable, "-c", code, store.url], check=True)
    assert rung.wait(PATIENCE)


def test_where_nothing_is_told_nothing_is_heard(tmp_path, monkeypatch):
    for url in ("sqlite://", "postgresql+pg8000://db/control"):
        silent = bells.bells_of(SimpleNamespace(url=make_url(url)))
        rung = silent.listen("x")
        silent.ring("x")
        assert not silent.heard and not rung.is_set()
        silent.close()

    class NoInotify:
        def __init__(self, *_, **__):
            pass

    monkeypatch.setattr(bells.ctypes, "CDLL", NoInotify)
    deaf = bells.FileBells(tmp_path / "control.db-bells")
    deaf.listen("x")
    assert not deaf.heard
    deaf.ring("x")
    deaf.close()


def test_a_closed_one_can_listen_again(store):
    store.bells.listen("x")
    store.bells.close()
    assert not store.bells.heard
    rung = store.bells.listen("x")
    store.bells.ring("x")
    assert rung.wait(PATIENCE)
