"""Teacher calls per deferred and audited input, and what a question to the teacher behind the gateway takes.

One process holds a gateway with a small student, the teacher behind it and a labeler, on a broker in memory. Inputs
come one a request and in batches; the student defers about a third. Beside it the same with the teacher's answers taken
out of the records, as it was before they went there: the labeler then asks about every deferred input again.

Then what 256 questions of one moment take with a teacher that needs 5 ms for a call and 0.2 ms for an input in it: one
by one, and in batches.
"""

import asyncio
import collections
import json
import random
import tempfile
import time
from pathlib import Path

import msgspec

from components.contracts.records import Input, SoftLabel, decode
from components.contracts.sampling import audited
from components.contracts.settings import Settings
from components.contracts.spec import Budget as Limits
from components.contracts.spec import Policy, Probe, load_spec
from components.contracts.storage import digest_of
from components.control.intent import ModelRef
from components.control.store import ControlStore
from components.label.asking import Company
from components.label.labeler import Labeler
from components.query.budget import Budget
from components.query.selector import Selector
from components.stream.memory import MemoryBroker
from components.student.runtime import Student
from serving.gateway.answering import Gateway
from serving.gateway.telemetry import Telemetry
from serving.gateway.wire import Item
from serving.replica.loaded_versions import Loaded, LoadedVersions, Routing
from serving.teacher import Answering, TeacherService
from tests.serving.conftest import SPEC, TEACHER_FILE, artifact

INPUTS = 3_000
CALL_SECONDS, INPUT_SECONDS = 0.005, 0.0002
QUESTIONS = 256


class Counting:
    """The sign of ``x``; how often it was asked about each."""

    name, digest, task, space, classes, size_bytes = "sign", "1", "classification", "signs@1", ("neg", "pos"), 10

    def __init__(self, call_seconds=0.0, input_seconds=0.0):
        self.asked = collections.Counter()
        self._call, self._input = call_seconds, input_seconds

    def label(self, payloads):
        time.sleep(self._call + self._input * len(payloads))
        self.asked.update(p["x"] for p in payloads)
        sure = [float(p["x"] > 0) for p in payloads]
        return [SoftLabel.of(self.space, self.classes, [1 - s, s]) for s in sure]


def workload(folder, **label):
    (folder / "teacher.py").write_text(TEACHER_FILE)
    (folder / "signs.yaml").write_text(
        SPEC.replace("audit_share: 1.0, max_batch: 4", "audit_share: 0.1, max_batch: 32")
    )
    spec = load_spec(folder / "signs.yaml")
    changes = {"probe": Probe(size=0), "policy": Policy(kind="random", share=0.1), "reuse": 0} | label
    return msgspec.structs.replace(spec, label=msgspec.structs.replace(spec.label, **changes))


def calls(carried):
    """Calls per deferred input, per audited one that is not deferred, of all, and what the budget's account says."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec, broker = workload(folder, budget=Limits(per_hour=10.0 * INPUTS)), MemoryBroker()
        broker.ensure_topics(spec.topics)
        store = ControlStore(f"sqlite:///{folder}/control.db")
        store.migrate()
        teacher = Counting()
        answering = Answering(spec, Settings(home=folder), store, broker, teacher=teacher)
        service = TeacherService(spec.source, answer=answering)

        async def ask(entry, student, urgency, need, version=""):
            reply = await service.label(entry.id, entry.payload, urgency, need)
            return reply if carried else reply._replace(headers={})

        data = artifact(space="signs@1")
        ref = ModelRef(version="1", uri="", digest=digest_of(data), snapshot="s" * 64, teacher="sign@1")
        versions = LoadedVersions(spec, store, "r1")
        versions.routing = Routing(workload="signs", revision=1, champion=Loaded(ref, Student.load(data)))
        telemetry = Telemetry(spec, lambda: broker)
        gateway = Gateway(spec, versions, telemetry, {"teacher": ask})
        dice = random.Random(0)
        xs = [dice.uniform(-0.3, 0.3) for _ in range(INPUTS)]
        items = [Item(id=f"i{n}", json={"x": x}) for n, x in enumerate(xs)]

        async def run():
            found, at = [], 0
            while at < len(items):
                size = dice.choice((1, 32))
                found += await gateway.predict(items[at : at + size], allow_defer=True)
                at += size
                while telemetry.drain(broker.producer(), timeout=0.0):
                    pass
            return found

        answers = asyncio.run(run())
        budget = Budget(spec.label.budget, spec.name, store)
        labeler = Labeler(spec, teacher, broker, company=Company(selector=Selector(spec, budget)))
        while labeler.lag():
            labeler.step(0.0)
        by_id = {
            decode(Input, r.value).id: r
            for t in ("inputs", "inputs.urgent")
            for r in broker.consumer([f"signs.{t}"]).poll(10**6, 0)
        }
        assert len(by_id) == INPUTS
        deferred = [x for x, a in zip(xs, answers, strict=True) if a.answered_by == "teacher"]
        watched = [
            x
            for x, a in zip(xs, answers, strict=True)
            if not a.defer and audited("signs", a.id, spec.serve.audit_share)
        ]
        spent = budget.spending()["hour"].calls
        store.close()
        per = [sum(teacher.asked[x] for x in part) / len(part) for part in (deferred, watched)]
        both = sum(teacher.asked[x] for x in deferred + watched) / len(deferred + watched)
        return len(deferred), len(watched), *per, both, spent, teacher.asked.total()


def seconds(batch):
    """What the questions of one moment take where the teacher takes so many at once."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec, broker = workload(folder, batch=batch), MemoryBroker()
        broker.ensure_topics(spec.topics)
        store = ControlStore(f"sqlite:///{folder}/control.db")
        store.migrate()
        answering = Answering(spec, Settings(home=folder), store, broker, teacher=Counting(CALL_SECONDS, INPUT_SECONDS))
        service = TeacherService(spec.source, answer=answering)
        service._spec = spec

        async def run():
            payloads = [json.dumps({"x": n}).encode() for n in range(QUESTIONS)]
            began = time.perf_counter()
            await asyncio.gather(*(service.label(f"i{n}", p) for n, p in enumerate(payloads)))
            return time.perf_counter() - began

        found = asyncio.run(run())
        store.close()
        return found


def main() -> None:
    for name, carried in (("the answer goes with the input", True), ("the labeler asks again", False)):
        deferred, watched, first, second, both, spent, made = calls(carried)
        print(
            f"{name}: calls per deferred input {first:.2f} ({deferred}), per audited one {second:.2f} ({watched}), "
            f"of both {both:.2f}; the account says {spent} calls, the teacher {made}"
        )
    alone, together = seconds(1), seconds(32)
    print(f"{QUESTIONS} questions at once: one by one {alone:.2f} s, in batches of 32 {together:.2f} s")


if __name__ == "__main__":
    main()
