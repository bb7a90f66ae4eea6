"""Tasks that share a process: all run, one that fails is started again, and all end together."""

import threading

import pytest

from infra import together
from infra.together import run_together

PATIENCE = 300.0


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(together, "RESTART_SECONDS", (0.0,))


def test_all_run_at_once_and_end_when_they_are_told_to():
    stop, met = threading.Event(), threading.Barrier(4, timeout=PATIENCE)
    ended = []

    def task(name, stop):
        met.wait()
        assert stop.wait(PATIENCE)
        ended.append(name)

    tasks = {name: lambda stop, name=name: task(name, stop) for name in ("a", "b", "c")}
    running = threading.Thread(target=run_together, args=(tasks, stop))
    running.start()
    met.wait()
    stop.set()
    running.join(PATIENCE)
    assert not running.is_alive() and sorted(ended) == ["a", "b", "c"]


def test_one_that_fails_is_started_again_and_the_others_do_not_notice(caplog):
    stop, other, begun = threading.Event(), threading.Event(), {"weak": 0, "strong": 0}

    def weak(stop):
        assert other.wait(PATIENCE)
        begun["weak"] += 1
        if begun["weak"] < 3:
            raise RuntimeError("of a sudden")
        stop.set()

    def strong(stop):
        begun["strong"] += 1
        other.set()
        assert stop.wait(PATIENCE)

    run_together({"weak": weak, "strong": strong}, stop)
    assert begun == {"weak": 3, "strong": 1}
    assert caplog.text.count("weak failed") == 2 and "of a sudden" in caplog.text


def test_one_that_ends_by_itself_is_not_started_again():
    begun = []
    run_together({"short": lambda _: begun.append(1)}, threading.Event())
    assert begun == [1]
