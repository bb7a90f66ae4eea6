"""The admin application over a control database, with tokens of every role and a controller that answers orders."""

import asyncio
import threading
from types import SimpleNamespace

import argon2
import httpx
import pytest

from components.contracts.settings import Settings
from components.control import tokens as token_module
from components.control.intent import Intent, ModelRef
from components.control.order_client import RemoteOrderClient
from components.control.tokens import Tokens
from components.ledger.ledger import entries
from serving.admin import code_flow, oidc
from serving.admin.app import create_app
from tests.clock import Time
from tests.stores import migrated

W = "signs"


class Registry:
    """A registry without versions."""

    def versions(self, workload):
        return []


def ref(version):
    return ModelRef(version=version, uri=f"file:///v{version}", digest="d" * 64, snapshot="s" * 64, teacher="t@1")


class SyncTransport(httpx.BaseTransport):
    """An ASGI application for synchronous clients, from any thread."""

    def __init__(self, app, client=("127.0.0.1", 5000)):
        self._inner = httpx.ASGITransport(app, client=client, raise_app_exceptions=True)

    def handle_request(self, request):
        async def ask():
            made = httpx.Request(
                request.method, request.url, headers=request.headers, content=request.read(),
            )  # fmt: skip
            answer = await self._inner.handle_async_request(made)
            return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())

        return asyncio.run(ask())


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch):
    """Argon2id at its least cost: 0.3 s a token would be most of the tests' time."""
    monkeypatch.setattr(token_module, "HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture(autouse=True)
def one_minute(monkeypatch):
    """Limits of a minute are not over because the machine stood still for one; nor is an issuer away for that."""
    monkeypatch.setattr("limits.storage.memory.time", Time())
    monkeypatch.setattr(oidc, "FETCH_SECONDS", 90.0)
    monkeypatch.setattr(code_flow, "FETCH_SECONDS", 90.0)


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path)


@pytest.fixture
def control(settings):
    store = migrated(settings.control_url)
    store.put_intent(W, 0, Intent(champion=ref("1")))
    yield store
    store.close()


@pytest.fixture
def answering(control):
    """A controller's part: answers every order with ``ok`` and ``outcome``, until the test ends."""
    reply = SimpleNamespace(ok=True, outcome="done")
    stop = threading.Event()

    def work():
        while not stop.is_set():
            for order in control.open_orders(W):
                control.finish_order(order.id, reply.ok, reply.outcome)
            stop.wait(0.01)

    thread = threading.Thread(target=work)
    thread.start()
    yield reply
    stop.set()
    thread.join()


@pytest.fixture
def tokens(control):
    made = Tokens(control)
    return {role: made.create(f"{role}-eve", role, "test")[1] for role in ("viewer", "operator", "admin")}


@pytest.fixture
def app(settings, control):
    return create_app(settings, store=control, registry=Registry())


@pytest.fixture
def client(app, tokens):
    """``client("operator")``: an HTTP client with that role's token; None: without one."""
    opened = []

    def make(role=None, address="127.0.0.1", token=None):
        token = token or (tokens[role] if role else None)
        made = httpx.Client(
            base_url="http://127.0.0.1:8401",
            transport=SyncTransport(app, (address, 5000)),
            headers={"Authorization": f"Bearer {token}"} if token else {},
        )
        opened.append(made)
        return made

    yield make
    for made in opened:
        made.close()


@pytest.fixture
def order_client(app, tokens):
    return lambda role: RemoteOrderClient("http://127.0.0.1:8401", tokens[role], transport=SyncTransport(app))


@pytest.fixture
def ledger(control):
    """The ledger as ``(workload, actor, action, detail)``."""
    return lambda: [(e.workload, e.actor, e.action, e.detail) for e in entries(control)]
