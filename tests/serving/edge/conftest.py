"""A gateway that edges ask over HTTP, its published bundles, and a device that may be switched off."""

import pytest

from components.contracts.storage import put_bytes
from components.control.intent import Guard, ModelRef
from serving.edge import Edge, Link
from serving.edge.bundle import pack
from serving.gateway.app import create_app
from serving.gateway.edge import Edges, bundle_uri
from tests.clock import Clock
from tests.servers import answering
from tests.serving.edge import bundles


class Platform:
    """What a fleet's operators do: publish bundles, and decide who serves."""

    def __init__(self, running, store, signs, folder):
        self.running, self.store, self.signs, self.folder = running, store, signs, folder
        self.artifacts = (folder / "artifacts").as_uri()
        self.edges = Edges(running.gateway, store, self.artifacts)
        self.app = create_app(running.gateway, edges=self.edges)
        self.refs = {}

    def version(self, number, *, publish=True, key=bundles.KEY, **more):
        """Make a version, whose answers are wrong where the number is even, and publish its bundle."""
        model = self.signs.artifact(space=f"signs@{number}")
        classes = ("neg", "pos") if int(number) % 2 else ("pos", "neg")
        digest = bundles.make(self.folder / f"bundle{number}", model, number, key=key, classes=classes, **more)
        self.refs[number] = ModelRef(
            version=number, uri="file:///none", digest=digest, snapshot="s" * 64, teacher=self.signs.teacher
        )
        if publish:
            self.publish(number)
        return self.refs[number]

    def publish(self, number):
        uri = bundle_uri(self.artifacts, "signs", self.refs[number].digest)
        put_bytes(uri, pack(self.folder / f"bundle{number}"))

    def decide(self, champion, candidate=None, *, weight=0.0, lease=10.0, guard=None, **more):
        """Have the durable intent say so."""
        from components.control.intent import Intent

        champion = self.refs[champion]
        intent = Intent(
            champion=champion, candidate=self.refs[candidate] if candidate else None, weight=weight,
            lease_until=self.store.clock() + lease, **more,
            guard=None if guard is None else Guard(digest=champion.digest, defer_below=guard),
        )  # fmt: skip
        self.store.put_intent("signs", self.store.intent("signs")[0], intent)


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A gateway on a busy machine is there, though it does not answer at once."""
    monkeypatch.setattr("serving.edge.link.SECONDS", 90.0)


@pytest.fixture
def store(store, clock):
    store.clock = clock
    return store


@pytest.fixture
def platform(running, store, signs, tmp_path):
    return Platform(running, store, signs, tmp_path)


@pytest.fixture
def link(platform):
    with answering(platform.app) as (host, port):
        yield Link(f"http://{host}:{port}")


@pytest.fixture
def device_clock():
    """Wrong by a year, as a device without a battery behind its clock has it."""
    return Clock(1_670_000_000.0)


@pytest.fixture
def device(tmp_path, device_clock):
    """Switch the device on: ``device()`` gives the edge on its disk, and ends the one before."""
    on = []

    def off():
        while on:
            on.pop().close()

    def switch_on(key=None, **options):
        off()
        on.append(Edge(tmp_path / "device", key or bundles.public(), clock=device_clock, **options))
        return on[-1]

    switch_on.off = off
    yield switch_on
    off()
