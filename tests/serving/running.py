"""A gateway without a server, for tests."""

import asyncio

import httpx
import msgspec

from components.contracts.records import Input, Prediction, decode
from serving.gateway.app import Gateway, create_app
from serving.gateway.telemetry import Telemetry
from serving.replica.loaded_versions import Loaded, LoadedVersions, Routing


class Running:
    """A gateway without a server, its routing set by hand."""

    def __init__(self, spec, store, broker, clock, ask=None):
        self.spec, self.broker, self.clock = spec, broker, clock
        self.versions = LoadedVersions(spec, store, "r1", clock)
        self.telemetry = Telemetry(spec, lambda: broker)
        self.gateway = Gateway(spec, self.versions, self.telemetry, {"teacher": ask} if ask else {}, clock)
        self.app = create_app(self.gateway)

    def serve(self, champion, candidate=None, pairs=1.0, **intent):
        load = self.load
        intent = {"lease_until": self.clock.now + 10, **intent}
        routing = Routing(workload="signs", revision=1, champion=load(champion), candidate=load(candidate))
        full = msgspec.structs.replace(routing.intent, champion=champion, candidate=candidate, **intent)
        self.versions.routing = Routing(
            workload="signs", revision=1, intent=full, champion=routing.champion, candidate=routing.candidate,
            pairs=pairs,
        )  # fmt: skip

    @staticmethod
    def load(ref):
        from components.contracts.storage import get_bytes
        from components.student.runtime import Student

        return Loaded(ref, Student.load(get_bytes(ref.uri, ref.digest))) if ref else None

    def call(self, method, path, **options):
        async def run():
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
                return await client.request(method, path, **options)

        return asyncio.run(run())

    def predict(self, *xs, **options):
        inputs = [{"id": f"i{n}", "json": {"x": x}} for n, x in enumerate(xs)]
        return self.call("POST", "/v1/predict", json={"inputs": inputs, **options})

    def predict_texts(self, *texts):
        return self.call("POST", "/v1/predict", json={"inputs": [{"text": t} for t in texts]}).json()["predictions"]

    def published(self, kind=Prediction):
        while self.telemetry.drain(self.broker.producer(), timeout=0.0):
            pass
        topics = ["signs.inputs", "signs.inputs.urgent"] if kind is Input else ["signs.predictions"]
        return [decode(kind, r.value) for r in self.broker.consumer(topics).poll(1_000, 0)]
