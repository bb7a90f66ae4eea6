"""Two labelers against one on two partitions, with a teacher that sleeps, so that cores are not the limit."""

import contextlib
import tempfile
import time
from pathlib import Path

from components.control.leases import Leases
from components.control.store import ControlStore
from components.label.labeler import Labeler
from components.stream.contract import Broker
from tests.bench._brokers import kinds, running
from tests.bench._teachers import Trivial, at_work, publish, spec_of, until

INPUTS = 2_000
BATCH = 20
SLEEP_SECONDS = 0.2
TAIL = 100
"""The last inputs are not timed: one of two labelers may have none left."""
GOAL = 1.9


def main() -> None:
    for kind in kinds():
        with running(kind) as (_, broker):
            one, two = rate(broker, 1), rate(broker, 2)
        print(f"{kind:9} one labeler {one:7.1f} inputs/s, two {two:7.1f} inputs/s, ratio {two / one:5.3f}, "
              f"goal {GOAL}: {'met' if two / one >= GOAL else 'MISSED'}")  # fmt: skip


def rate(broker: Broker, labelers: int) -> float:
    spec = spec_of(f"scaling-{labelers}", partitions=2, batch=BATCH, linger_seconds=0.02)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        store = ControlStore(f"sqlite:///{Path(folder) / 'control.db'}")
        store.migrate()
        stack.callback(store.close)
        made = [Labeler(spec, Trivial(SLEEP_SECONDS), broker, leases=Leases(store, spec.name, f"labeler-{n}"))
                for n in range(labelers)]  # fmt: skip
        for labeler in made:
            stack.enter_context(at_work(labeler))
        while [x.gauge()["shares"] for x in made] != [2 // labelers] * labelers or not all(
            x.gauge()["ready"] for x in made
        ):
            time.sleep(0.05)
        _send(broker, spec, _balanced(broker, spec, INPUTS))
        before, started = sum(sum(x.counts.values()) for x in made), time.perf_counter()
        until(made, INPUTS - TAIL)
        done = sum(sum(x.counts.values()) for x in made)
        return (done - before) / (time.perf_counter() - started)


def _balanced(broker: Broker, spec, n: int) -> list[str]:
    """Keys of which half belong to either partition, as the broker's own partitioner puts them."""
    probe = spec_of(f"{spec.name}-keys", partitions=2)
    broker.ensure_topics(probe.topics, partitions=2)
    publish(broker, probe, 0, n * 2)
    consumer, keys = broker.consumer([probe.topic("inputs")]), {0: [], 1: []}
    while any(len(k) < n // 2 for k in keys.values()):
        for record in consumer.poll(timeout=0.2):
            keys[record.partition].append(record.key.decode())
    consumer.close()
    return [k for pair in zip(keys[0][: n // 2], keys[1][: n // 2], strict=True) for k in pair]


def _send(broker: Broker, spec, keys: list[str]) -> None:
    from components.contracts.records import Input, encode

    producer = broker.producer()
    for i, key in enumerate(keys):
        entry = Input(workload=spec.name, id=f"i{i}", key=key, time=time.time(), payload=b"%200d" % i)
        producer.send(spec.topic("inputs"), key, encode(entry))
    producer.close()
