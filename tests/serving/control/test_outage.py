"""A connection to the control database that breaks at any commit of an order, before it is durable or just after."""

import contextlib
import sqlite3

import pytest
from sqlalchemy.exc import OperationalError

from components.ledger.ledger import entries, verify
from tests.serving.control.test_controller import W, actions, begun, platform

__all__ = ["platform"]  # a fixture

COMMITS = 9
"""As many as two cycles of the controller take with one of these orders, a replica's acknowledgements among them."""

RECORDED = {"promote-full": "rollout promote", "rollback": "rollout rollback", "promote": "rollout step"}


@contextlib.contextmanager
def outage(store, at, durable):
    """Break the connection once, at the ``at``-th commit; ``durable``: the database has it, the answer is lost."""
    dialect, seen = store.engine.dialect, []
    commit = dialect.do_commit

    def breaking(connection):
        seen.append(1)
        if len(seen) - 1 != at:
            return commit(connection)
        if durable:
            commit(connection)
        raise sqlite3.OperationalError("the connection is lost")

    dialect.do_commit = breaking
    try:
        yield seen
    finally:
        dialect.do_commit = commit


@pytest.mark.parametrize("durable", [False, True], ids=["undone", "durable"])
@pytest.mark.parametrize("at", range(COMMITS))
@pytest.mark.parametrize("verb", RECORDED)
def test_what_a_broken_connection_left_is_finished(platform, verb, at, durable):
    begun(platform)
    key = platform.store.order(W, verb, "eve", "a reason")
    with outage(platform.store, at, durable) as seen:
        for _ in range(2):
            try:
                platform.tick()
            except OperationalError:
                platform.restart()
    assert len(seen) > at
    for _ in range(3):
        platform.tick()
    order = platform.store.get_order(key)
    assert order.ok, order.outcome
    champion = "2" if verb == "promote-full" else "1"
    assert platform.intent.champion.version == champion == platform.registry.aliases["champion"]
    assert (platform.intent.candidate is None) == (verb != "promote") and platform.intent.weight <= 0.2
    assert actions(platform).count(RECORDED[verb]) == 1
    keys = [e.detail["key"] for e in entries(platform.store, W)]
    assert len(keys) == len(set(keys)) == verify(platform.store)
