import threading

import httpx
import pytest

from components.contracts.errors import ConfigError, NotFoundError, UnavailableError
from components.contracts.settings import Settings
from components.control import order_client as module
from components.control.database import StaleRevisionError
from components.control.order_client import LocalOrderClient, Order, RemoteOrderClient, open_order_client
from components.control.tables import WorkloadRow
from components.ledger.ledger import entries, verify

W = "signs"


def order(**changes):
    return Order(**{"workload": W, "verb": "abort", "reason": "why", "key": "K", **changes})


@pytest.mark.parametrize("wrong", [{"reason": " "}, {"reason": "x" * 501}, {"key": ""}, {"key": "a b"}, {"key": "é"}])
def test_an_order_says_why_and_has_a_key(wrong):
    with pytest.raises(ConfigError):
        order(**wrong)


def test_the_settings_say_where_orders_go(tmp_path, store):
    local = open_order_client(Settings(database_url=store.url))
    assert isinstance(local, LocalOrderClient)
    local.store.close()
    assert isinstance(open_order_client(Settings(home=tmp_path, admin_url="http://127.0.0.1:1")), RemoteOrderClient)
    with pytest.raises(ConfigError, match="COHOBATE_ADMIN_URL"):
        open_order_client(Settings(home=tmp_path, admin_url="admin:8401"))


def test_an_order_and_its_entry_are_written_together_and_once(store):
    order_client = LocalOrderClient(store, "eve")
    made = [threading.Thread(target=order_client.put, args=(order(),)) for _ in range(6)]
    for thread in made:
        thread.start()
    for thread in made:
        thread.join()
    assert [o.id for o in store.open_orders(W)] == ["K"]
    assert [(e.actor, e.action, e.detail["via"]) for e in entries(store)] == [("eve", "ordered abort", "database")]
    assert verify(store) == 1
    with pytest.raises(ConfigError, match="taken by another order"):
        order_client.put(order(verb="pause"))


def test_a_removed_workload_takes_no_order_until_it_is_back(store):
    order_client = LocalOrderClient(store, "eve")
    with store.transaction("test") as s:
        s.add(WorkloadRow(workload=W, version=1, changes=1))
    assert order_client.put(order(key="before"))
    with store.transaction("test") as s:
        s.get(WorkloadRow, W).version = None
    with pytest.raises(NotFoundError, match=r"'signs': it was removed.*workload apply"):
        order_client.put(order())
    assert not order_client.put(order(key="before"))
    assert [o.id for o in store.open_orders(W)] == ["before"] and verify(store) == 1


def test_the_revision_is_compared_with_the_rollout_under_way_else_the_last(store):
    order_client = LocalOrderClient(store, "eve")
    with pytest.raises(StaleRevisionError) as stale:
        order_client.put(order(revision=3))
    assert stale.value.found == 0
    store.put_rollout("old", W, 0, False, {"actions": 9})
    store.put_rollout("now", W, 0, True, {"actions": 4})
    with pytest.raises(StaleRevisionError):
        order_client.put(order(revision=9))
    with pytest.raises(StaleRevisionError):
        order_client.put(order(revision=4, rollout="old"))
    assert order_client.put(order(revision=4, rollout="now"))
    assert store.open_orders(W)[0].args == {"revision": 4}
    assert not order_client.put(order(revision=4))  # the same again


class Flaky(httpx.BaseTransport):
    """Fails in several ways before it answers, and keeps the requests."""

    def __init__(self, *first):
        self.first, self.keys = list(first), []

    def handle_request(self, request):
        self.keys.append(request.headers.get("idempotency-key"))
        if self.first:
            now = self.first.pop(0)
            if isinstance(now, int):
                return httpx.Response(now, json={"title": "busy", "detail": "busy"}, headers={"Retry-After": "0"})
            raise now
        return httpx.Response(200, json={"order": self.keys[-1], "ok": True, "outcome": "done"})


def test_a_request_that_failed_is_sent_again_with_the_same_key():
    flaky = Flaky(httpx.ConnectError("no"), 503, httpx.ReadTimeout("no"))
    done = RemoteOrderClient("http://127.0.0.1:1", "t", transport=flaky).place(order(key="K"))
    assert (done.ok, done.outcome, flaky.keys) == (True, "done", ["K"] * 4)


def test_an_api_that_stays_away_is_named(monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    flaky = Flaky(*[httpx.ConnectError("no")] * 9)
    with pytest.raises(UnavailableError, match="COHOBATE_ADMIN_URL"):
        RemoteOrderClient("http://127.0.0.1:1", "t", transport=flaky).place(order())
    assert len(flaky.keys) == 2
