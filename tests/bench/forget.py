"""What it takes to forget one entity of many: processor time, what an independent search finds, and the next student.

A workload with many entities and windows, on the embedded broker, Feast and MLflow: every input is labelled, answered
and given its truth, and one entity has an input in every tenth window. A student has learnt from all of it. Then the
entity is forgotten; every file under the platform's home, every table and every record on every topic is searched for
anything that names it; and a student is made by the pipeline's own steps, and judged.
"""

import contextlib
import os
import random
import resource
import sqlite3
import tempfile
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq

from components.contracts.records import (
    Answer,
    Input,
    Label,
    Prediction,
    SoftLabel,
    Truth,
    content_hash,
    encode,
    label_key,
)
from components.contracts.settings import Settings
from components.contracts.spec import load_spec
from components.control.intent import Intent
from components.control.store import ControlStore
from components.distill.step import distil
from components.evaluate.step import judge
from components.forget.order import Platform, forget
from components.registry.registry import Registry
from components.registry.step import register
from components.snapshot import freeze
from components.steps import NOTHING
from components.stream import open_broker
from components.stream.contract import read_to_end
from infra.broker import EmbeddedBroker, ask_to_erase
from tests.ports import free_port

KEY = "person-7731"
TEACHER = "sure@1"
LETTERS = {"a": "abcde", "b": "fghij", "c": "klmno"}

SPEC = """
name: letters
teacher: {factory: "user.py:Sure"}
teacher_digest: "sure@1"
teacher_space: letters@1
features: {factory: "components.student.bytes:ByteNgrams", options: {head: 64, buckets: 1024}}
student: {variants: [{name: tiny, dim: 8, hidden: 16}], epochs: 12, batch_size: 16, learning_rate: 0.02}
limits: {min_rows: 10, min_accuracy: 0.8, min_agreement: 0.8, max_loss: 0.1}
"""


def said(i, entity):
    """A payload of which only a class of letters can be told."""
    label = "abc"[i % 3]
    return label, "".join(random.Random(f"{i} {entity}").choices(LETTERS[label], k=40)).encode()


class World:
    """A platform's home whose windows hold one input of each of ``entities``, and some of :data:`KEY`."""

    def __init__(self, folder, entities, windows):
        self.folder, self.port = Path(folder), free_port()
        os.environ |= {"COHOBATE_HOME": str(self.folder / "home"), "COHOBATE_BROKER_PORT": str(self.port)}
        (self.folder / "letters.yaml").write_text(SPEC)
        self.settings = Settings()
        self.settings.home.mkdir()
        self.spec = load_spec(str(self.folder / "letters.yaml"))
        self.store = ControlStore(self.settings.control_url)
        self.store.migrate()
        self.broker = open_broker(self.settings)
        self.registry = Registry(self.settings)
        self.keep = self.settings.home / "broker"
        self.sent = []
        self._entities, self._windows = entities, windows

    def fill(self):
        """Send and freeze it all, and make a student that learnt from it, which serves."""
        self.broker.ensure_topics(self.spec.topics, self.spec.partitions)
        each, start = self._entities // self._windows, time.time() - self._entities - 1
        with contextlib.closing(self.broker.producer()) as producer:
            for number in range(self._windows):
                names = [f"entity-{number * each + i}" for i in range(each)]
                names += [KEY] if number % 10 == 0 else []
                for i, entity in enumerate(names):
                    self._send(producer, number * each + i, entity, start + number * each + i)
                producer.flush()
                freeze(self.spec, self.broker, self.store, self.settings.artifacts, now=time.time())
        made = judge(self.spec.source, distil(self.spec.source, "tiny", True, NOTHING))
        register(self.spec.source, made, force=True)
        self.store.put_intent("letters", 0, Intent(champion=self.registry.get("letters", "1")))

    def _send(self, producer, i, entity, at):
        label, payload = said(i, entity)
        given = Input(workload="letters", id=f"{entity}/input-{i}", key=entity, time=at, payload=payload)
        shares = {c: 0.9 if c == label else 0.05 for c in LETTERS}
        soft = SoftLabel(task="classification", space="letters@1", distribution=shares)
        made = Label(
            key=label_key(given, TEACHER, "letters@1"), teacher=TEACHER, soft=soft, input=given, labelled_at=at
        )
        answer = Answer(arm="champion", version="1", ok=True, latency_ms=1.0, label=label, confidence=0.9, entropy=0.1)
        asked = Prediction(
            workload="letters", request_id=f"{given.id}/request", input_id=given.id, key=entity, time=at,
            content=content_hash(payload), answer=answer,
        )  # fmt: skip
        known = Truth(workload="letters", input_id=given.id, time=at, known_at=at, source="person", label=label)
        for kind, key, record in (
            ("inputs", entity, given), ("labels", entity, made), ("predictions", entity, asked),
            ("truth", given.id, known),
        ):  # fmt: skip
            producer.send(self.spec.topic(kind), key, encode(record))
        if entity == KEY:
            self.sent += [payload.decode(), content_hash(payload), made.key]

    def forget(self):
        """Forget the entity, while this thread tends the broker; what the order says."""
        found = {}

        def order():
            on = Platform(
                spec=self.spec, settings=self.settings, store=self.store, broker=self.broker, registry=self.registry,
                erase=lambda places: ask_to_erase(self.keep, places, lambda: True),
            )  # fmt: skip
            found.update(forget(on, KEY, "asked"))

        asking = threading.Thread(target=order)
        asking.start()
        while asking.is_alive():
            self._tended.tend()
            asking.join(0.1)
        return found

    def traces(self):
        """Where anything that names the entity stands: files as they are, tables by their content, records."""
        with sqlite3.connect(self.settings.home / "control.db") as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        wanted = [text.encode() for text in (KEY, *self.sent)]
        found = set()
        for path in (p for p in self.folder.rglob("*") if p.is_file()):
            data = path.read_bytes()
            if path.suffix == ".parquet":
                data += repr(pq.read_table(path).to_pylist()).encode()
            found |= {str(path.relative_to(self.folder))} if any(text in data for text in wanted) else set()
        with contextlib.closing(self.broker.consumer(self.spec.topics)) as consumer:
            for record in read_to_end(consumer):
                data = (record.key or b"") + (record.value or b"") + repr(record.headers).encode()
                found |= {record.topic} if any(text in data for text in wanted) else set()
        return found

    def __enter__(self):
        self._tended = EmbeddedBroker(self.port, self.folder / "broker.log", self.keep)
        self._tended.start()
        return self

    def __exit__(self, *_):
        self._tended.stop()
        self.registry.close()
        self.store.close()


def cpu():
    """Processor seconds of this process and of those that it ended."""
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in uses)


def measured(folder, entities, windows):
    """What was found and what it took, by name."""
    with World(folder, entities, windows) as world:
        world.fill()
        before = world.traces()
        began, at = cpu(), time.monotonic()
        result = world.forget()
        took = cpu() - began, time.monotonic() - at
        after = world.traces()
        student = distil(world.spec.source, "", False, NOTHING)
        judged = judge(world.spec.source, student)
        return {
            "before": before, "after": after, "cpu_seconds": took[0], "seconds": took[1], "result": result,
            "snapshots": set(student.card.snapshots), "decision": judged.decision, "parent": student.card.parent,
            "verdict": judged.verdict, "windows": {w.digest for w in world.store.windows("letters")},
        }  # fmt: skip


def main():
    with tempfile.TemporaryDirectory() as folder:
        found = measured(folder, 10_000, 50)
    result = found["result"]
    print(f"places that named it: {len(found['before'])} before, {len(found['after'])} after {sorted(found['after'])}")
    print(f"{sum(w['rows'] for w in result['windows'])} rows of {len(result['windows'])} windows, {result['topics']}")
    print(f"{found['cpu_seconds']:.1f} s of processor time, {found['seconds']:.1f} s")
    print(f"students that had learnt: {[s['version'] for s in result['students']]}")
    print(f"the next one, from parent {found['parent']}: {found['decision']} {found['verdict'].get('reasons')}")
