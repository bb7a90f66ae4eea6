import json
import random
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from components.contracts.records import Input, Label, SoftLabel, Truth, label_key
from components.contracts.settings import Settings
from components.contracts.spec import load_spec
from components.label.history_file import Historic
from components.stream.memory import MemoryBroker
from tests.clock import Clock
from tests.kubeflow import kubeflow, team
from tests.ports import free_port
from tests.stores import migrated

TICKETS = Path(__file__).parents[1] / "workloads" / "tickets" / "tickets.yaml"
NOW = 1_800_000_000.0
WORDS = {
    "billing": "invoice refund charge card price",
    "login": "password account reset locked token",
    "shipping": "parcel courier address delivery late",
    "returns": "broken exchange return size damaged",
}


class Noon(datetime):
    """In the place of a module's ``datetime``: it is noon, so that no next time passes while a test runs."""

    @classmethod
    def now(cls, tz=None):
        return cls(2026, 11, 29, 12, tzinfo=tz)


@pytest.fixture(autouse=True)
def unhurried(monkeypatch):
    """A server is waited for though the machine stands still, and schedules are looked at within one moment."""
    monkeypatch.setattr("pipelines.kubeflow_api.TIME_LIMITS", httpx.Timeout(300.0))
    monkeypatch.setattr("pipelines.schedules.datetime", Noon)


@pytest.fixture
def clock():
    return Clock(NOW)


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Settings whose home and broker port are the test's own, in the environment too: that is where components look.

    Nothing listens on the port: a platform that runs on this machine is none of a test's business.
    """
    monkeypatch.setenv("COHOBATE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COHOBATE_BROKER_PORT", str(free_port()))
    return Settings()


@pytest.fixture
def store(settings, clock):
    store = migrated(settings.control_url, clock)
    yield store
    store.close()


@pytest.fixture
def spec():
    return load_spec(TICKETS)


@pytest.fixture
def broker(spec):
    broker = MemoryBroker()
    broker.ensure_topics(spec.topics)
    return broker


@pytest.fixture
def tickets():
    """``n`` different tickets of each class, with their truth."""

    def make(n, *, classes=tuple(WORDS), seed=0, start=NOW, length=6):
        chance, entries = random.Random(seed), []
        for i in range(n):
            for name in classes:
                words = chance.choices(WORDS[name].split(), k=length)
                mark = "".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=8))  # makes each ticket another one
                payload = json.dumps({"subject": "ticket", "body": " ".join([*words, mark])}).encode()
                entry = Input(
                    workload="tickets", id=f"t{seed}-{name}-{i}", key=f"c{i % 7}", time=start + i, payload=payload
                )
                truth = Truth(
                    workload="tickets", input_id=entry.id, time=start + i, known_at=start + i, source="test", label=name
                )
                entries.append(Historic(input=entry, truth=truth))
        chance.shuffle(entries)
        return entries

    return make


@pytest.fixture
def label_of():
    def make(entry, *, teacher="words@1", space="tickets@1", sure=0.9, at=NOW):
        name = entry.truth.label
        soft = SoftLabel(
            task="classification",
            space=space,
            distribution={name: sure, **{c: (1 - sure) / 3 for c in WORDS if c != name}},
        )
        key = label_key(entry.input, teacher, space)
        return Label(key=key, teacher=teacher, soft=soft, input=entry.input, labelled_at=at)

    return make


@pytest.fixture
def shared():
    """A Kubeflow server in multi-user mode."""
    with kubeflow(**team()) as world:
        yield world


@pytest.fixture
def remote(shared, settings, monkeypatch):
    """Settings that name the server, in the environment too."""
    given = {"host": shared.url, "token": "s3cret", "namespace": "team", "spec": "/specs/{workload}.yaml"}
    for name, value in given.items():
        monkeypatch.setenv(f"COHOBATE_KFP_{name.upper()}", value)
    return Settings()
