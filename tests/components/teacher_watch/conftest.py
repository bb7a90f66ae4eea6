import itertools
import zlib

import msgspec
import pytest

from components.contracts.errors import TeacherError
from components.contracts.records import Input, Label, SoftLabel, decode, encode, label_key
from components.contracts.spec import Factory, Payload, Probe, Spec
from components.contracts.spec import Label as LabelSection
from components.stream.contract import TopicPartition
from components.stream.memory import MemoryBroker
from components.teacher_watch.guard import Guard
from tests.clock import Clock

NOW = 1_700_000_000.0


class Changing:
    """Says whether a text is even; with ``share`` it answers that share of all texts the other way round."""

    name, digest, task, space = "parity", "d" * 64, "classification", "parity@1"
    classes, size_bytes = ("even", "odd"), 1

    def __init__(self, share=0.0):
        self.share, self.calls, self.fails = share, [], False

    def label(self, payloads):
        if self.fails:
            raise TeacherError(self.name, "down")
        self.calls.append(len(payloads))
        return [self.answer(p) for p in payloads]

    def answer(self, text):
        number = zlib.crc32(text.encode())
        other = (number >> 8) % 1000 < 1000 * self.share
        p = 0.9 if (number % 2 == 0) != other else 0.1
        return SoftLabel.of(self.space, self.classes, [p, 1 - p])


class Loop:
    """A labeler that does what the guard needs of one, and nothing else."""

    def __init__(self, guard, broker, clock, signer=None, name=0):
        self.name = name
        self.guard, self.broker, self.clock, self.signer = guard, broker, clock, signer
        self.spec = guard.spec
        self.made = 0

    def step(self, texts):
        inputs = [
            Input(workload=self.spec.name, id=f"i-{t}", key="k", time=NOW, payload=t.encode()) for t in texts
        ]  # fmt: skip
        return self.label(inputs)

    def label(self, inputs):
        soft = self.guard.ask(inputs, [i.payload.decode() for i in inputs])
        teacher = self.guard.reference
        labels = [
            Label(key=label_key(i, teacher, s.space), teacher=teacher, soft=s, input=i, labelled_at=self.clock())
            for i, s in zip(inputs, soft, strict=True)
        ]
        topic = self.guard.route(labels)
        for label in labels:
            value = encode(label)
            self.broker.producer().send(topic, label.key, value, self.signer.headers(value) if self.signer else None)
        self.made += len(labels)
        return topic

    def many(self, count, batch=10):
        """Batches until ``count`` labels are made, or until they go to quarantine; the labels made."""
        before = self.made
        while self.made - before < count:
            first = self.made
            if self.step([f"text {first + n} of loop {self.name}" for n in range(batch)]).endswith("quarantine"):
                break
        return self.made - before


def labels_on(broker, topic):
    return [decode(Label, r.value) for r in broker.logs[TopicPartition(topic, 0)]]


@pytest.fixture
def watched():
    return Spec(
        name="w",
        teacher=Factory(factory="t:T"),
        features=Factory(factory="f:F"),
        payload=Payload(decoder="text", max_bytes=100),
        label=LabelSection(batch=10, probe=Probe(size=60, share=0.5, repeats=2, rotate=4, retry_seconds=5.0)),
    )


@pytest.fixture
def clock(store):
    clock = Clock(NOW, step=0.001)
    store.clock = clock
    return clock


@pytest.fixture
def stream(watched):
    broker = MemoryBroker()
    broker.ensure_topics(watched.topics)
    return broker


@pytest.fixture
def begin(watched, store, stream, clock, tmp_path, monkeypatch):
    """Start a labeler, as after a restart where there was one before."""
    monkeypatch.setattr("components.teacher_watch.guard.REFRESH_SECONDS", 0.0)
    names = itertools.count()

    def make(teacher=None, member="labeler", budget=None, aside=False, **probe):
        section = msgspec.structs.replace(watched.label.probe, **probe)
        spec = msgspec.structs.replace(watched, label=msgspec.structs.replace(watched.label, probe=section))
        guard = Guard(
            spec, teacher or Changing(), store, stream, f"file://{tmp_path}/artifacts", member=member, budget=budget,
            clock=clock, aside=aside,
        )  # fmt: skip
        return Loop(guard, stream, clock, name=next(names))

    return make
