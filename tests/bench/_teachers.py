"""Teachers of benchmarks and what runs a labeler in them."""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from components.contracts.records import Input, SoftLabel, encode
from components.contracts.spec import Factory, Label, Payload, Spec
from components.label.labeler import Labeler
from components.stream.contract import Broker


class Trivial:
    """Answers at once, or after ``seconds`` for a batch."""

    name, digest, task, space, classes, size_bytes = "trivial", "0" * 64, "classification", "s@1", ("a", "b"), 1

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.answer = SoftLabel.of(self.space, self.classes, [0.75, 0.25])

    def label(self, payloads: Sequence[Any]) -> list[SoftLabel]:
        if self.seconds:
            time.sleep(self.seconds)
        return [self.answer] * len(payloads)


def spec_of(name: str, partitions: int = 1, **label: Any) -> Spec:
    """A workload of raw payloads."""
    factory = Factory(factory="tests.bench._teachers:Trivial")
    return Spec(name=name, teacher=factory, features=factory, payload=Payload(), partitions=partitions,
                label=Label(**label))  # fmt: skip


def publish(broker: Broker, spec: Spec, first: int, n: int, size: int = 200, kind: str = "inputs") -> None:
    """Put ``n`` different inputs of ``size`` bytes on a topic."""
    producer = broker.producer()
    for i in range(first, first + n):
        payload = b"%012d" % i + b"x" * (size - 12)
        entry = Input(workload=spec.name, id=f"i{i}", key=f"k{i}", time=time.time(), payload=payload)
        producer.send(spec.topic(kind), entry.key, encode(entry))  # type: ignore[arg-type]
    producer.close()


@contextlib.contextmanager
def at_work(labeler: Labeler) -> Iterator[None]:
    """The labeler runs while the context lasts."""
    stop = threading.Event()
    thread = threading.Thread(target=labeler.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def until(labelers: Sequence[Labeler], n: int, seconds: float = 900.0) -> None:
    """Wait until the labelers have dealt with ``n`` inputs together."""
    deadline = time.monotonic() + seconds
    while sum(sum(x.counts.values()) for x in labelers) < n:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{[x.counts for x in labelers]} of {n} after {seconds:.0f} s")
        time.sleep(0.005)
