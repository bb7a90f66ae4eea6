"""docs/entity.md: its example is a workload whose student, told of the account, says what the teacher says."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.contracts.settings import Settings
from components.contracts.spec.features import EntityFeature
from components.contracts.storage import get_bytes
from components.control.store import ControlStore
from components.control.workloads import opened
from components.distill.data import holdouts
from components.distill.train import distill
from components.label.history import label_history
from components.label.history_file import read_history
from components.snapshot import freeze
from components.snapshot.entity_store import entity_store
from components.stream.memory import MemoryBroker
from components.student.runtime import Student

ROOT = Path(__file__).parents[1]
DOC = (ROOT / "docs" / "entity.md").read_text()


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", DOC, flags=re.DOTALL)


@pytest.fixture
def example(tmp_path):
    """The example's files, made as the page says."""
    accounts, maker = blocks("python")
    features, rest = blocks("yaml")
    (tmp_path / "accounts.py").write_text(accounts)
    (tmp_path / "make_accounts.py").write_text(maker)
    (tmp_path / "payments.yaml").write_text(rest + features)
    env = {"PYTHONPATH": str(ROOT), "PATH": ""}
    subprocess.run([sys.executable, "make_accounts.py"], check=True, cwd=tmp_path, env=env)
    return tmp_path


def test_every_field_of_a_feature_is_told():
    told = {name for row in re.findall(r"^\| (`.*?) \|", DOC, re.M) for name in re.findall(r"`([\w-]+)`", row)}
    assert set(EntityFeature.__struct_fields__) - {"seconds", "label", "view", "feature"} == told
    assert all(f"`{name}`" in DOC for name in EntityFeature.__struct_fields__)


def test_the_example_s_student_is_told_of_the_account(example):
    artifacts = f"file://{example}/artifacts"
    settings = Settings(home=example / "home", artifact_root=artifacts)
    spec, broker = opened(str(example / "payments.yaml"), settings)[0], MemoryBroker()
    store = ControlStore(f"sqlite:///{example}/control.db")
    store.migrate()
    label_history(spec, broker, store, read_history(str(example / "history.jsonl"), spec), patience=0.0)
    window = freeze(spec, broker, store, artifacts, now=time.time())
    done = distill(spec, [window], variant=spec.student.variants[0], parent=None, artifacts=artifacts, seed=0)
    ((_, rows),) = holdouts(spec, [window])
    said = Student.load(get_bytes(done.uri), source=spec.source).predict(rows.payloads)
    assert sum(s.label == t.label for s, t in zip(said, rows.soft, strict=True)) / len(rows) > 0.9
    assert set(rows.payloads[0].entity) == {f.name for f in spec.features.entity.features}
    held = entity_store(spec, artifacts).online(["a2"])["a2"]
    assert (held["account:kind"].value, held["account:age_years"].value) == ("strict", 2.0)
    store.close()
