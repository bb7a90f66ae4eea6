"""Features of the entity from the online store to the answer, onto the stream, into the next window, and back.

The teacher knows the account that an amount belongs to, the payload does not: a small amount is to be reviewed of a
strict account, a large one of any other.
"""

import asyncio
import random
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import msgspec
import pandas as pd
import pytest

from components.contracts.errors import UnavailableError
from components.contracts.payload import decoder, knowing
from components.contracts.records import Input, Label, Prediction, SoftLabel, decode, encode, label_key
from components.contracts.spec import load_spec
from components.contracts.storage import get_bytes
from components.control.intent import Intent, ModelRef
from components.control.store import ControlStore
from components.distill.data import holdouts
from components.distill.start import read_start
from components.distill.train import distill
from components.evaluate.robustness import noise_rows
from components.snapshot.entity_join import GAUGE
from components.snapshot.entity_store import Held, entity_store
from components.snapshot.table import known_of
from components.snapshot.window import freeze, read
from components.stream.memory import MemoryBroker
from components.student.entity import events_of
from components.student.runtime import Student
from serving.gateway.answering import Gateway
from serving.gateway.entity import EntityReader
from serving.gateway.telemetry import Telemetry
from serving.gateway.wire import Item
from serving.replica.loaded_versions import Loaded, LoadedVersions, Routing
from tests.clock import Clock

BASE = 1_700_000_000.0
ACCOUNTS = 20
STRICT = {f"a{i}" for i in range(0, ACCOUNTS, 2)}

SPEC = """
name: payments
teacher: {factory: "accounts.py:Teacher"}
payload: {decoder: json}
features:
  factory: components.student.columns:MixedColumns
  options: {numbers: [{name: amount, mean: 0.5, scale: 0.3}]}
  entity:
    objects: accounts.py:FEAST
    timeout_ms: 10000
    max_skew: 0.05
    features:
      - {name: kind, view: account, type: category, values: [strict, lax], default: lax}
      - {name: years, view: account, default: 0.0, mean: 5.0, scale: 3.0}
      - {name: seen, of: count, seconds: 100000, default: 0.0, log: true}
student:
  network: {factory: "components.distill.networks.table:TableNetwork", options: {hidden: [16]}}
  epochs: 30
  learning_rate: 0.02
serve: {audit_share: 0.0}
"""

FILE = """
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, String

who = Entity(name="account", join_keys=["account_id"], value_type=ValueType.STRING)
rows = FileSource(
    name="accounts", path=str(Path(__file__).resolve().parent / "accounts.parquet"), timestamp_field="known_at",
    created_timestamp_column="created",
)
fields = [Field(name="kind", dtype=String), Field(name="years", dtype=Float64)]
FEAST = [who, FeatureView(name="account", entities=[who], ttl=timedelta(0), schema=fields, source=rows, online=True)]
"""


def kinds(folder, change=None):
    """The accounts' file: what was known a day before, and ``change`` (account, kind, when) known since."""
    rows = [(f"a{i}", "strict" if f"a{i}" in STRICT else "lax", float(i % 10), BASE - 86_400) for i in range(ACCOUNTS)]
    rows += [(account, kind, float(int(account[1:]) % 10), at) for account, kind, at in change or ()]
    frame = pd.DataFrame(rows, columns=["account_id", "kind", "years", "at"])
    stamp = pd.to_datetime(frame.pop("at"), unit="s", utc=True)
    frame.assign(known_at=stamp, created=stamp).to_parquet(folder / "accounts.parquet")


def truth(account, amount):
    return "review" if (amount < 0.5) == (account in STRICT) else "pass"


def label(entry, at):
    soft = SoftLabel.of("payments@1", ("pass", "review"), [0.0, 1.0])
    if truth(entry.key, msgspec.json.decode(entry.payload)["amount"]) == "pass":
        soft = SoftLabel.of("payments@1", ("pass", "review"), [1.0, 0.0])
    return Label(key=label_key(entry, "t@1", "payments@1"), teacher="t@1", soft=soft, input=entry, labelled_at=at)


def put(broker, kind, *records):
    producer = broker.producer()
    for record in records:
        producer.send(f"payments.{kind}", record.input.key, encode(record))
    producer.flush()


def payments(folder):
    """The spec, with its files."""
    (folder / "payments.yaml").write_text(SPEC)
    (folder / "accounts.py").write_text(FILE)
    kinds(folder)
    spec = load_spec(folder / "payments.yaml")
    patient = msgspec.structs.replace(spec.features.entity, timeout_ms=100_000.0)
    features = msgspec.structs.replace(spec.features, entity=patient)
    return msgspec.structs.replace(spec, features=features, teacher_digest="t@1", teacher_space="payments@1")


class World:
    """A stream, a control database, artifacts and a first window; a gateway in which a student of it serves."""

    def __init__(self, spec, folder):
        self.spec, self.folder, self.artifacts = spec, folder, f"file://{folder}/artifacts"
        self.broker = MemoryBroker(lambda: BASE + 2_000)
        self.broker.ensure_topics(spec.topics)
        self.store = ControlStore(f"sqlite:///{folder}/control.db")
        self.store.migrate()
        chance = random.Random(0)
        for i in range(600):
            payload = msgspec.json.encode({"amount": round(chance.random(), 4)})
            entry = Input(workload="payments", id=f"h{i}", key=f"a{i % ACCOUNTS}", time=BASE + i, payload=payload)
            put(self.broker, "labels", label(entry, BASE + i + 0.5))
        self.window = self.freeze(spec, BASE + 1_000)

    def student(self, spec):
        variant = spec.student.variants[0]
        return distill(spec, [self.window], variant=variant, parent=None, artifacts=self.artifacts, seed=0)

    def freeze(self, spec, now):
        return freeze(spec, self.broker, self.store, self.artifacts, now=now)

    def gateway(self, done, store=None):
        """Its clock stands after the first window."""
        spec = self.spec
        store = entity_store(spec, self.artifacts) if store is None else store
        reader = EntityReader(store)
        reader.start()
        clock = Clock(BASE + 1_500)
        versions = LoadedVersions(spec, self.store, "r1", clock)
        ref = ModelRef(version="1", uri=done.uri, digest=done.digest, snapshot=self.window.digest, teacher="t@1")
        champion = Loaded(ref, Student.load(get_bytes(done.uri, done.digest), source=spec.source))
        versions.routing = Routing(
            workload="payments", revision=1, intent=Intent(champion=ref), champion=champion, candidate=None
        )
        return Gateway(spec, versions, Telemetry(spec, lambda: self.broker), clock=clock, entities=reader)

    def answers(self, gateway, asked):
        """The labels of (account, amount)s, asked in batches as a client would, and what was published."""
        items = [Item(id=uuid.uuid4().hex, key=a, json={"amount": x}, time=BASE + 1_500) for a, x in asked]
        found = []

        async def ask():
            for first in range(0, len(items), 20):
                found.extend(await gateway.predict(items[first : first + 20]))

        asyncio.run(ask())
        while gateway.telemetry.drain(self.broker.producer(), timeout=0.0):
            pass
        ids = {i.id for i in items}
        records = [decode(Input, r.value) for r in self.broker.consumer(["payments.inputs"]).poll(10_000, 0)]
        predictions = [
            decode(Prediction, r.value) for r in self.broker.consumer(["payments.predictions"]).poll(10_000, 0)
        ]
        published = [r for r in records if r.id in ids]
        return [a.label for a in found], published, [p for p in predictions if p.input_id in ids]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = World(payments(tmp_path_factory.mktemp("payments")), tmp_path_factory.mktemp("world"))
    yield made
    made.store.close()


@pytest.fixture(scope="module")
def told(world):
    """A student that is told of entities."""
    return world.student(world.spec)


@pytest.fixture(scope="module")
def blind(world):
    """One that is not."""
    features = msgspec.structs.replace(world.spec.features, entity=None)
    return world.student(msgspec.structs.replace(world.spec, features=features))


def asked(count, seed=1):
    chance = random.Random(seed)
    return [(f"a{chance.randrange(ACCOUNTS)}", round(chance.random(), 4)) for _ in range(count)]


def right(labels, of):
    return sum(found == truth(*one) for found, one in zip(labels, of, strict=True)) / len(of)


def test_a_student_that_is_told_of_the_entity_beats_one_that_is_not(world, told, blind):
    of = asked(200)
    knowing, published, predictions = world.answers(world.gateway(told), of)
    guessing, _, _ = world.answers(world.gateway(blind), of)
    assert right(knowing, of) > 0.9 > 0.65 > right(guessing, of)
    assert [p.entity["kind"] for p in published] == ["strict" if a in STRICT else "lax" for a, _ in of]
    assert all(p.defaulted == {} for p in predictions)


def test_held_out_rows_carry_what_is_known_through_exports_novelty_and_the_gate(world, told):
    card = told.card
    assert card.inputs["entity"].shape == ("batch", 5) and card.features == world.spec.features.learnt_from
    assert told.metrics["novelty_rows"] > 0 and told.metrics["int8_parity_gap"] <= 0.1
    ((_, rows),) = holdouts(world.spec, [world.window])
    student = Student.load(get_bytes(told.uri))
    said = student.predict(rows.payloads)
    assert sum(s.label == t.label for s, t in zip(said, rows.soft, strict=True)) / len(rows) > 0.9
    clean = [knowing(decoder(world.spec.payload))(p) for p in rows.payloads]
    found = noise_rows(student, rows, clean, world.spec.limits.disturbance, 0)
    agree = sum(r.candidate.label == r.teacher.label for r in found if r.set == "noise noise")
    assert agree / sum(r.set == "noise noise" for r in found) > 0.8  # without its account, half of them would be wrong


def test_an_update_begins_from_a_student_that_was_not_told(world, told, blind):
    parent = ModelRef(version="1", uri=blind.uri, digest=blind.digest, snapshot=world.window.digest, teacher="t@1")
    done = distill(world.spec, [world.window], variant=world.spec.student.variants[0], parent=parent,
                   artifacts=world.artifacts, seed=0)  # fmt: skip
    assert done.metrics["taught_rows"] > 0 and done.card.parent == "1"
    of = asked(100, seed=3)
    labels, _, _ = world.answers(world.gateway(done), of)
    assert right(labels, of) > 0.9
    again = ModelRef(version="2", uri=told.uri, digest=told.digest, snapshot=world.window.digest, teacher="t@1")
    looked_up_otherwise = msgspec.structs.replace(world.spec.features.entity, timeout_ms=1.0, max_skew=None)
    features = msgspec.structs.replace(world.spec.features, entity=looked_up_otherwise)
    spec = msgspec.structs.replace(world.spec, features=features)
    assert read_start(again, spec, spec.student.variants[0]).state is not None  # it is of the same shape


@pytest.mark.parametrize("late", [0, 3])
def test_the_next_window_learns_what_was_served_and_tells_how_far_that_is_from_what_is_joined(told, tmp_path, late):
    """Of so many accounts the kind became known before their inputs came, and was not sent to the online store."""
    home = tmp_path / "home"
    home.mkdir()
    world = World(payments(home), tmp_path)
    accounts = {f"a{2 * i + 1}" for i in range(late)}
    kinds(home, [(account, "strict", BASE + 1_200) for account in accounts])
    of = asked(100)
    _, published, _ = world.answers(world.gateway(told), of)
    alone = msgspec.structs.replace(published[0], id="alone", key="a1", entity=None)
    strange = msgspec.structs.replace(published[0], id="strange", key="a1", entity={"kind": "lax", "years": "old"})
    for entry in (*published, alone, strange):
        put(world.broker, "labels", label(entry, BASE + 1_600))
    window = world.freeze(world.spec, BASE + 2_000)
    share = sum(a in accounts for a, _ in of) / len(of)
    assert window.manifest["entity_served"] == 100
    assert window.manifest["entity_skew"] == {"kind": share, "years": 0.0, "seen": 0.0}
    rows = {row["input_id"]: row for row in read(window.uri, window.digest).to_pylist()}
    assert {i: known_of(rows[i]["entity"])["kind"] for i in (p.id for p in published)} == {
        p.id: "strict" if p.key in STRICT else "lax" for p in published
    }
    joined = {"kind": "strict" if late else "lax", "years": 1.0, "seen": 30.0}
    assert known_of(rows["alone"]["entity"]) == known_of(rows["strange"]["entity"]) == joined
    gauge = world.store.gauges("payments")[GAUGE].value
    assert (gauge["rows"], gauge["share"], gauge["over"]) == (100, share, share > 0.05) and gauge["limit"] == 0.05
    # What became known has been sent online by now.
    held = entity_store(world.spec, world.artifacts).online(["a1"])["a1"]
    assert held["account:kind"].value == joined["kind"] and len(events_of(held["recent:recent"].value)) > 30
    world.store.close()


class Store:
    """An online store that does as it is told: it is away, or answers when it may."""

    def __init__(self, world, *, timeout_ms=100_000.0, cache_seconds=0.0, away=False):
        self.entity = msgspec.structs.replace(
            world.spec.features.entity, timeout_ms=timeout_ms, cache_seconds=cache_seconds
        )
        self.asked, self.away, self.may = [], away, threading.Event()
        self.may.set()

    def online(self, keys):
        self.may.wait()
        if self.away:
            raise UnavailableError("online store", "payments", "is away")
        self.asked += [k for k in keys if k]
        return {key: {"account:kind": Held("strict", BASE + 1_000)} for key in keys}


DEFAULTS = {"kind": "lax", "years": 0.0, "seen": 0.0}


def test_answers_go_on_with_defaults_while_the_online_store_is_away(world, told):
    gateway = world.gateway(told, Store(world, away=True))
    labels, published, predictions = world.answers(gateway, asked(40, seed=2))
    assert None not in labels and len(labels) == 40
    assert all(p.entity == DEFAULTS for p in published)
    assert all(p.defaulted == dict.fromkeys(DEFAULTS, "unavailable") for p in predictions)
    told = 'cohobate_entity_defaults_total{feature="kind",reason="unavailable",workload="payments"} 40.0'
    assert told in gateway.metrics.text().decode()


def test_nobody_waits_longer_than_the_time_out_and_what_comes_too_late_is_used_by_the_next(world):
    store = Store(world, timeout_ms=20.0, cache_seconds=1_000.0)
    reader = EntityReader(store)
    reader.start()
    store.may.clear()

    async def read():
        return await reader.read({"a1"})

    found = [asyncio.run(read()) for _ in range(3)]
    assert [(f.why, set(f.missing)) for f in found] == [("timeout", {"a1"})] * 3
    assert reader.of(found[0], "a1", BASE) == (DEFAULTS, dict.fromkeys(DEFAULTS, "timeout"))
    store.may.set()
    while (late := asyncio.run(read())).why:
        pass
    assert reader.of(late, "a1", BASE) == ({**DEFAULTS, "kind": "strict"}, {})
    assert reader.of(late, "a1", BASE + 2_000) == (DEFAULTS, {})  # past its view's ttl
    assert reader.of(late, None, BASE) == (DEFAULTS, {})  # an input without a key


@pytest.mark.parametrize(("seconds", "times"), [(1_000.0, 1), (0.0, 2)])
def test_what_was_read_is_known_for_as_long_as_the_spec_says(world, seconds, times):
    store = Store(world, cache_seconds=seconds)
    reader = EntityReader(store)
    reader.start()
    for _ in range(2):
        assert asyncio.run(reader.read({"a1", "a2"})).held["a2"]
    assert store.asked == ["a1", "a2"] * times
    reader.stop()


READING = """
import asyncio, os, sys
from components.contracts.spec import load_spec
from components.snapshot.entity_store import Held, entity_store
from components.snapshot.table import known_of
from serving.gateway.entity import EntityReader
before = dict(os.environ)
reader = EntityReader(entity_store(load_spec(sys.argv[1]), sys.argv[2]))
reader.start()
print(reader.of(asyncio.run(reader.read(["a2"])), "a2", 1700001500.0)[0]["kind"])
print([m for m in ("torch", "transformers", "sklearn", "mlflow") if m in sys.modules], dict(os.environ) == before)
import prometheus_client.values as v
print(v.ValueClass.__name__)
"""


def test_reading_brings_no_torch_into_a_replica_and_leaves_its_metrics_alone(world):
    command = [sys.executable, "-c", READING, world.spec.source, world.artifacts]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    assert done.stdout.split("\n")[:3] == ["strict", "[] True", "MutexValue"], done.stderr
