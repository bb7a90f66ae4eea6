import shutil
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pyarrow.parquet as pq
import pytest

from components.contracts.admission import dead_letter
from components.contracts.errors import RecordError
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
from components.contracts.spec import Factory, Payload, Spec, Student
from components.contracts.storage import put_bytes
from components.contracts.stream_record import Record
from components.control.intent import ModelRef
from components.control.requests import Content
from components.control.store import ControlStore, JournalLine
from components.control.tables import IncidentRow, RequestRow, ReviewRow, TeacherRow
from components.control.teachers import TeacherState
from components.evaluate.evidence import Answer as Said
from components.evaluate.evidence import Evidence, Judgement, Row
from components.evaluate.evidence import encode as evidence_bytes
from components.evaluate.judge import judge
from components.forget.order import Platform
from components.registry.registry import VersionInfo
from components.snapshot import freeze
from components.snapshot.table import parquet_bytes
from components.steps import evidence_folder
from components.stream.memory import MemoryBroker
from tests.stores import migrated

BASE = 1_700_000_000.0
KEY = "person-7731"
TEACHER = "sure@1"

USER_CODE = """
class Describer:
    buckets = 16

    def describe(self, payload):
        return {"size": float(len(payload)), "first": payload.decode("latin-1")}


class Sure:
    name, digest, task, space, classes = "sure", "1", "classification", "s@1", ("a", "b")
"""


class Registry:
    """Versions, as MLflow has them."""

    def __init__(self):
        self.known = []

    def versions(self, workload):
        return self.known

    def add(self, number, snapshots, parent=None):
        ref = ModelRef(version=number, uri="", digest=f"student-{number}", snapshot=snapshots[0], teacher=TEACHER)
        self.known.append(
            VersionInfo(
                ref=ref, aliases=(), created_at=0.0, snapshots=tuple(snapshots), parent=parent, code="", variant="tiny",
                verdict={}, metrics={}, run_id="",
            )
        )  # fmt: skip


def payload_of(i, entity):
    return f"what {entity} said the {i} time".encode()


def input_of(i, entity, time):
    return Input(workload="files", id=f"{entity}/input-{i}", key=entity, time=time, payload=payload_of(i, entity))


def label_of(i, entity, time):
    given = input_of(i, entity, time)
    soft = SoftLabel(task="classification", space="s@1", distribution={"a": 0.75, "b": 0.25})
    return Label(
        key=label_key(given, TEACHER, "s@1"),
        teacher=TEACHER,
        soft=soft,
        input=given,
        labelled_at=time + 0.5,
        audit=False,
    )


class World:
    """A workload with two windows, and an entity that is named in every place where one can be."""

    def __init__(self, folder: Path):
        (folder / "user.py").write_text(USER_CODE)
        self.folder = folder
        self.spec = Spec(
            name="files",
            teacher=Factory(factory="user.py:Sure"),
            features=Factory(factory="user.py:Describer"),
            payload=Payload(max_bytes=1000),
            student=Student(holdout_share=0.25),
            source=str(folder / "files.yaml"),
        )
        self.settings = Settings(home=folder / "home")
        self.artifacts = self.settings.artifacts
        self.now = BASE + 10_000
        self.store = migrated(self.settings.control_url, clock=lambda: self.now)
        self.broker = MemoryBroker(clock=lambda: self.now)
        self.broker.ensure_topics(self.spec.topics, self.spec.partitions)
        self.registry = Registry()

    @property
    def platform(self):
        return Platform(
            spec=self.spec, settings=self.settings, store=self.store, broker=self.broker, registry=self.registry,
            erase=self.broker.erase,
        )  # fmt: skip

    def send(self, kind, key, record):
        self.broker.producer().send(f"files.{kind}", key, encode(record) if record is not None else None)

    def labelled(self, i, entity, time):
        """An input as it goes through: on every topic that it comes to."""
        label = label_of(i, entity, time)
        given = label.input
        self.send("inputs", entity, given)
        self.send("labels", entity, label)
        answer = Answer(arm="champion", version="1", ok=True, latency_ms=1.0, label="a", confidence=0.9, entropy=0.1)
        said = Prediction(
            workload="files", request_id=f"{given.id}/request", input_id=given.id, key=entity, time=time,
            content=content_hash(given.payload), answer=answer,
        )  # fmt: skip
        self.send("predictions", entity, said)
        known = Truth(workload="files", input_id=given.id, time=time, known_at=time + 1, source="person", label="a")
        self.send("truth", given.id, known)
        return label

    def freeze(self):
        return freeze(self.spec, self.broker, self.store, self.artifacts, now=self.now)

    def fill(self, others=20, own=3):
        for number in (1, 2):
            for i in range(others):
                self.labelled(100 * number + i, f"entity-{i % 5}", BASE + 1_000 * number + i)
            for i in range(own):
                self.labelled(100 * number + i, KEY, BASE + 1_000 * number + 500 + i)
            window = self.freeze()
            self.evidence(window, number)
            put_bytes(f"{self.artifacts}/files/reports/student-{number}-{window.digest[:12]}/drift.html", b"drawn")
            unlabelled = [payload_of(900, KEY), payload_of(901, "entity-1")]
            table = {"payload": unlabelled}
            put_bytes(f"{self.artifacts}/files/unlabelled/{window.digest}.parquet", parquet_bytes(_table(table)))
        put_bytes(f"{self.artifacts}/files/states/of-both.safetensors", b"what the teacher knows of them")
        self.registry.add("1", [self.store.windows("files")[0].digest])
        self.registry.add("2", [w.digest for w in reversed(self.store.windows("files"))], parent="1")
        self.asides()

    def evidence(self, window, number):
        rows = [
            Row(set="new", id=f"{entity}/input-{100 * number + i}", candidate=Said(label="a"), teacher=Said(label="a"))
            for entity, i in [(KEY, 0), (KEY, 1), ("entity-1", 1)]
        ]
        kept = Evidence(judgement=Judgement(workload="files", task="classification", digest="d"), rows=tuple(rows))
        put_bytes(f"{evidence_folder(window)}/student-{number}.jsonl", evidence_bytes(kept, judge(kept)))

    def asides(self):
        """What is neither in a window nor a label."""
        for i, entity in ((900, KEY), (901, "entity-1")):
            given = input_of(i, entity, BASE + i)
            self.send("inputs", entity, given)
            record = Record("files.inputs", 0, i, entity.encode(), encode(given), {}, BASE + i)
            letter = dead_letter(record, RecordError("teacher_refused", "it did"), "files", BASE + i)
            self.send("inputs.dlq", f"files.inputs:0@{i}", letter)
            self.review(given)
            journal = f'{{"kind":"evidence","at":1.0,"seen":[{{"kind":"answered","id":"{given.id}"}}]}}'
            self.store.keep_journal(f"rollout-{i}", [JournalLine(1, journal)])
            put_bytes(f"{self.artifacts}/files/rollouts/{entity != KEY}.jsonl", journal.encode() + b"\n")
            self.probe(given)
            self.request(given)
        self.store.put_rollout("rollout-900", "files", 0, True, {})
        self.send("labels.quarantine", KEY, label_of(902, KEY, BASE + 902))
        self.broker.producer().send("files.inputs", KEY, b"\xff is no record")
        self.send("inputs", KEY, None)

    def review(self, given):
        label = label_of(int(given.id.rpartition("-")[2]), given.key, given.time)
        with self.store.transaction() as s:
            s.add(
                ReviewRow(
                    workload="files", key=label.key, teacher=TEACHER, space="s@1", classes=["a", "b"],
                    input=encode(given), draft=None, why="", policy="all", probability=1.0, audit=False,
                    asked_at=BASE,
                )
            )  # fmt: skip

    def request(self, given):
        """What is answered later: one request waits, and the other has its answer."""
        body = msgspec.json.encode({"inputs": [{"id": given.id, "key": given.key, "text": given.payload.decode()}]})
        answer = msgspec.json.encode([{"id": given.id, "request_id": f"{given.id}/request", "label": "a"}])
        waits = {"content": msgspec.msgpack.encode(Content(body, [given.id], 6)), "answer": None}
        for name, what in {"waits": waits, "told": {"content": None, "answer": answer}}.items():
            with self.store.transaction() as s:
                s.add(
                    RequestRow(
                        id=f"{name}-{int(given.time - BASE)}", workload="files", fingerprint="f", mode="structured",
                        accepted_at=BASE, attempts=0, **what,
                    )
                )  # fmt: skip

    def probe(self, given):
        content = content_hash(given.payload)
        put_bytes(f"{self.artifacts}/files/probes/{content}", given.payload)
        probe = {"content": content, "answers": [], "anchor": False}
        with self.store.transaction() as s:
            row = s.get(TeacherRow, ("files", TEACHER))
            if row is None:
                state = msgspec.to_builtins(TeacherState(space="s@1", classes=("a", "b"), probes=(probe,)))
                s.add(TeacherRow(workload="files", teacher=TEACHER, revision=1, state=state))
            else:
                row.state = {**row.state, "probes": [*row.state["probes"], probe]}
            s.add(
                IncidentRow(
                    workload="files", teacher=TEACHER, epoch=0, suspect_from=BASE, opened_at=BASE, mixed=False,
                    candidate=[probe], detail={},
                )
            )  # fmt: skip

    # An independent search: whatever lies in the folder, and whatever the broker holds.

    def traces(self, needles):
        """The places where any of these texts stands: raw files, the content of tables, and the broker's memory."""
        wanted = [n.encode() if isinstance(n, str) else n for n in needles]
        found = set()
        for path in sorted(p for p in self.folder.rglob("*") if p.is_file()):
            data = path.read_bytes()
            if path.suffix == ".parquet":
                data += repr(pq.read_table(path).to_pylist()).encode()
            found |= {f"{path.relative_to(self.folder)}: {n.decode()}" for n in wanted if n in data}
        for place, log in self.broker.logs.items():
            for record in log:
                data = (record.key or b"") + (record.value or b"") + repr(record.headers).encode()
                found |= {f"{place.name}@{record.offset}: {n.decode()}" for n in wanted if n in data}
        return found

    def needles(self):
        """All by which the entity, or anything that it sent, is told."""
        with sqlite3.connect(self.settings.home / "control.db") as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        sent = [(n, BASE) for n in (100, 101, 102, 200, 201, 202, 900, 902)]
        contents = [content_hash(payload_of(i, KEY)) for i, _ in sent]
        keys = [label_of(i, KEY, at).key for i, at in sent]
        return [KEY, *contents, *keys]

    # So that a test may begin again.

    def kept(self):
        with sqlite3.connect(self.settings.home / "control.db") as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        copy = self.folder.parent / f"{self.folder.name}-kept"
        shutil.copytree(self.folder, copy)
        return SimpleNamespace(folder=copy, logs={p: list(log) for p, log in self.broker.logs.items()})

    def restore(self, kept):
        self.store.close()
        shutil.rmtree(self.folder)
        shutil.copytree(kept.folder, self.folder)
        self.store = ControlStore(self.settings.control_url, clock=lambda: self.now)
        self.broker.logs = {p: list(log) for p, log in kept.logs.items()}
        self.broker.erased.clear()


def _table(columns):
    import pyarrow as pa

    return pa.table({name: pa.array(values, pa.binary()) for name, values in columns.items()})


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("world"))
    world.fill()
    world.before = world.kept()
    yield world
    world.store.close()


@pytest.fixture
def world(filled):
    filled.restore(filled.before)
    return filled
