"""Labelled inputs per second through the embedded broker, against a bare loop of the same teacher in memory."""

import socket
import tempfile
import time
from pathlib import Path

from components.contracts.records import Input, encode
from components.contracts.settings import Settings
from components.contracts.spec import build, load_spec
from components.label.labeler import Labeler
from components.stream import open_broker
from infra.broker import EmbeddedBroker
from infra.workloads import files

INPUTS = 400


def main() -> None:
    source = files.source(seed=0)
    spec = load_spec(source.spec)
    items = [item for phase in source.phases for item in phase.items][::5][:INPUTS]
    teacher = build(spec.teacher, spec.source)
    teacher.label([items[0].payload])

    started = time.perf_counter()
    for first in range(0, len(items), spec.label.batch):
        teacher.label([item.payload for item in items[first : first + spec.label.batch]])
    bare = len(items) / (time.perf_counter() - started)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker(port, Path(folder) / "broker.log"):
        broker = open_broker(Settings(home=Path(folder), broker_port=port))
        broker.ensure_topics(spec.topics)
        producer = broker.producer()
        for item in items:
            entry = Input(workload=spec.name, id=item.id, key=item.key, time=time.time(), payload=item.payload)
            producer.send(spec.topic("inputs"), item.key, encode(entry))
        producer.close()
        labeler = Labeler(spec, teacher, broker)
        started = time.perf_counter()
        while sum(labeler.counts.values()) < len(items):
            labeler.step()
        through = len(items) / (time.perf_counter() - started)
        labeler.close()
    print(f"bare teacher  {bare:8.1f} inputs/s")
    print(f"broker        {through:8.1f} inputs/s")
    print(f"ratio         {through / bare:8.3f}")
