"""Small real artifacts, and a registry in memory, so that serving is tested without training or MLflow."""

import json
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from components.contracts.errors import NotFoundError
from components.contracts.records import Input, Label, SoftLabel, encode, label_key
from components.contracts.spec import Factory, Payload, Spec, load_spec
from components.contracts.storage import digest_of, put_bytes
from components.control.intent import ModelRef
from components.registry.registry import VersionInfo
from components.stream.memory import MemoryBroker
from components.student.card import CARD_KEY, StudentCard
from tests.clock import Clock
from tests.servers import answering
from tests.serving.running import Running
from tests.students import bag

TEACHER = "sign@1"
FEATURES = Factory(factory="components.student.table:TableColumns", options={"columns": [{"name": "x"}]})

SPEC = """
name: signs
teacher: {factory: "teacher.py:SignTeacher"}
payload: {decoder: json, max_bytes: 200}
features: {factory: "components.student.table:TableColumns", options: {columns: [{name: x}]}}
rollout:
  steps:
    - {weight: 0.0, min_requests: 30, min_candidate: 20}
    - {weight: 0.2, min_requests: 30, min_candidate: 5}
    - {weight: 0.5, min_requests: 30, min_candidate: 10}
  slow_ms: 1000
  patience_seconds: 60
  lease_seconds: 10
serve: {replicas: 1, defer_below: 0.7, audit_share: 1.0, max_batch: 4, buffer_records: 1000, request_seconds: 100}
"""
"""A request may take longer than a busy machine stands still."""

TEACHER_FILE = """
from components.contracts.records import SoftLabel


class SignTeacher:
    name, digest, task, space, classes, size_bytes = "sign", "1", "classification", "signs@1", ("neg", "pos"), 10

    def label(self, payloads):
        sure = [1.0 if p["x"] > 0 else 0.0 for p in payloads]
        return [SoftLabel.of(self.space, self.classes, [1 - s, s]) for s in sure]
"""


def artifact(classes=("neg", "pos"), rows=2, workload="signs", space="signs@1", novelty=(), task="classification"):
    """A student of ``x``'s sign as ONNX bytes: wrong with swapped ``classes``, failing at serving with ``rows=1``.

    ``novelty``: groups of known scores, which are the sizes of ``x``. Of multilabel its classes are both likely at 0.
    """
    table = np.array([[-4.0, 4.0], [0.0, 0.0]], dtype=np.float32)[:rows]
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Unsqueeze", ["weights", "one"], ["row"]),
        helper.make_node("MatMul", ["row", "rows"], ["logits_1"]),
        helper.make_node("Squeeze", ["logits_1", "one"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["probabilities"])
        if task == "multilabel"
        else helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])]
    if novelty:
        nodes.append(helper.make_node("ReduceL1", ["weights"], ["novelty"], axes=[1], keepdims=0))
        outputs.append(helper.make_tensor_value_info("novelty", TensorProto.FLOAT, ["batch"]))
    graph = helper.make_graph(
        nodes,
        "student",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "length"]),
            helper.make_tensor_value_info("weights", TensorProto.FLOAT, ["batch", "length"]),
        ],
        outputs,
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1]), "one")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    card = StudentCard(
        workload=workload, task=task, space=space, classes=tuple(classes), features=FEATURES,
        payload=Payload(decoder="json", max_bytes=200), **bag(2, 2, 1), variant="tiny",
        snapshots=("s" * 64,), teacher=TEACHER, parent=None, code="test",
        novelty=novelty,
    )  # fmt: skip
    entry = onnx.StringStringEntryProto(key=CARD_KEY, value=msgspec.json.encode(card).decode())
    model.metadata_props.append(entry)
    return model.SerializeToString(deterministic=True)


class MemoryRegistry:
    """The registry's contract in memory."""

    def __init__(self):
        self.infos, self.aliases = {}, {}

    def add(self, ref, decision="promote"):
        self.infos[ref.version] = VersionInfo(
            ref=ref, aliases=(), created_at=0.0, snapshots=(ref.snapshot,), parent=None, code="", variant="tiny",
            verdict={"decision": decision}, metrics={}, run_id="",
        )  # fmt: skip
        return ref

    def changed(self):
        return True

    def get(self, workload, name):
        info = self.infos.get(self.aliases.get(name, name))
        return info.ref if info else None

    def named(self, workload, alias):
        return self.aliases.get(alias)

    def info(self, workload, name):
        if name not in self.infos:
            raise NotFoundError("model version", name, "")
        return self.infos[name]

    def verdict(self, workload, name):
        return self.info(workload, name).verdict

    def sorted_out(self, workload):
        return list(self.infos.values()), []

    def set_alias(self, workload, alias, version):
        self.aliases[alias] = version

    def drop_alias(self, workload, alias):
        self.aliases.pop(alias, None)


@pytest.fixture
def clock():
    return Clock(1_700_000_000.0)


@pytest.fixture
def spec(tmp_path) -> Spec:
    (tmp_path / "teacher.py").write_text(TEACHER_FILE)
    (tmp_path / "signs.yaml").write_text(SPEC)
    return load_spec(tmp_path / "signs.yaml")


@pytest.fixture
def broker(spec):
    made = MemoryBroker()
    made.ensure_topics(spec.topics)
    return made


@pytest.fixture
def registry():
    return MemoryRegistry()


@pytest.fixture
def model(tmp_path, registry):
    """Write an artifact and register it: ``model("2", classes=..., decision=...)`` gives its reference."""

    def make(version, decision="promote", **options):
        data = artifact(space=f"signs@{version}", **options)
        uri = Path(tmp_path / f"v{version}.onnx").as_uri()
        put_bytes(uri, data)
        ref = ModelRef(version=version, uri=uri, digest=digest_of(data), snapshot="s" * 64, teacher=TEACHER)
        return registry.add(ref, decision)

    return make


def payload(x):
    return json.dumps({"x": x}).encode()


def label_of(x, at=1_700_000_000.0, teacher=TEACHER):
    """The teacher's label record of an input, encoded."""
    content, name = payload(x), "pos" if x > 0 else "neg"
    soft = SoftLabel(task="classification", space="signs@1", distribution={name: 1.0})
    entry = Input(workload="signs", id=f"i{x}", key="k", time=at, payload=content)
    key = label_key(entry, teacher, "signs@1")
    return encode(Label(key=key, teacher=teacher, soft=soft, input=entry, labelled_at=at))


@pytest.fixture
def signs():
    """Bytes of this workload: ``payload(x)``, the teacher's ``label(x)`` as a record, ``artifact(...)``."""
    return SimpleNamespace(payload=payload, label=label_of, artifact=artifact, teacher=TEACHER)


@pytest.fixture
def running(spec, store, broker, clock, model):
    """A gateway whose champion is version 1."""
    made = Running(spec, store, broker, clock)
    made.serve(model("1"))
    return made


@pytest.fixture
def url(running):
    """Where that gateway answers."""
    with answering(running.app) as (host, port):
        yield f"http://{host}:{port}"
