import random

import pytest

from components.contracts.finder import _Process
from components.contracts.records import Input, Label, SoftLabel, label_key
from components.contracts.spec import Factory, Limits, Monitor, Payload, Spec, Student, Variant
from components.contracts.storage import digest_of, put_bytes
from components.control.tables import WindowRow
from components.snapshot.table import parquet_bytes, snapshot_table

TEACHER = "t@1"
LETTERS = {"a": "abcde", "b": "fghij", "c": "klmno", "d": "pqrst"}


def peaked(label):
    """A soft label that is sure of ``label``, the rest spread over the other letters."""
    rest = {c: 0.1 / (len(LETTERS) - 1) for c in LETTERS if c != label}
    return SoftLabel(task="classification", space="letters@1", distribution={label: 0.9, **rest})


def words(label, n, seed=0):
    """``n`` different payloads that only a class of letters can be told from."""
    chance = random.Random(f"{label} {seed}")
    return ["".join(chance.choices(LETTERS[label], k=40)).encode() for _ in range(n)]


@pytest.fixture(scope="session")
def letters():
    """Rows (payload, soft label, truth) of ``n`` inputs of each class; shuffled."""

    def make(classes, n, *, seed=0, truth=True):
        rows = [(p, peaked(c), c if truth else None) for c in classes for p in words(c, n, seed)]
        random.Random(seed).shuffle(rows)
        return rows

    return make


@pytest.fixture(scope="session")
def letter_spec():
    return Spec(
        name="letters",
        teacher=Factory(factory="t:T"),
        features=Factory(
            factory="components.student.bytes:ByteNgrams", options={"head": 64, "buckets": 1024}
        ),
        payload=Payload(max_bytes=1000),
        student=Student(
            variants=(Variant(name="tiny", dim=8, hidden=16),), epochs=12, batch_size=16, learning_rate=0.02
        ),
        limits=Limits(min_rows=10, min_accuracy=0.9, min_agreement=0.9, max_loss=0.05, max_forgetting=0.05),
        monitor=Monitor(reference=60, resamples=200),
    )  # fmt: skip


@pytest.fixture(scope="session")
def line_spec(letter_spec):
    """A regression: y = 1000 + 200 x, known by the teacher to within 5."""
    return Spec(
        name="lines",
        task="regression",
        teacher=Factory(factory="t:T"),
        features=Factory(
            factory="components.student.table:TableColumns",
            options={"columns": [{"name": "x", "mean": 3.0, "scale": 2.0}]},
        ),
        payload=Payload(decoder="json"),
        student=Student(
            variants=(Variant(name="tiny", dim=8, hidden=16),), epochs=60, batch_size=16, learning_rate=0.005
        ),
        limits=Limits(min_rows=10, max_rmse=25.0),
        monitor=Monitor(reference=60, resamples=200),
    )


@pytest.fixture(scope="session")
def lines():
    def make(n, *, seed=0):
        chance = random.Random(seed)
        rows = []
        for _ in range(n):
            x = chance.uniform(-1, 7)
            soft = SoftLabel(task="regression", space="euro", value=1000 + 200 * x, scale=5.0)
            rows.append((b'{"x": %r}' % x, soft, 1000 + 200 * x + chance.gauss(0, 5)))
        return rows

    return make


@pytest.fixture(scope="session")
def freeze_rows():
    """A window of rows (payload, soft label, truth), frozen as the snapshot step does it.

    ``chosen`` gives fields of the label (policy, probability, audit) by the row's index.
    """

    def freeze(spec, rows, artifacts, number, *, teacher=TEACHER, declared=None, chosen=lambda i: {}):
        labels, truths = [], {}
        for i, (payload, soft, truth) in enumerate(rows):
            when = 1_700_000_000.0 + 1000 * number + i
            record = Input(workload=spec.name, id=f"w{number}-{i:04d}", key="k", time=when, payload=payload)
            key = label_key(record, teacher, soft.space)
            made = Label(key=key, teacher=teacher, soft=soft, input=record, labelled_at=when, **chosen(i))
            labels.append(made)
            if truth is not None:
                column = "truth_value" if spec.task == "regression" else "truth_label"
                truths[record.id] = {column: truth, "truth_known_at": when}
        table = snapshot_table(labels, truths, spec.student.holdout_share)
        data = parquet_bytes(table)
        uri = f"{artifacts}/{spec.name}/snapshots/{digest_of(data)}.parquet"
        put_bytes(uri, data)
        manifest = {"teacher": declared or teacher, "space": rows[0][1].space}
        if vector := rows[0][1].vector:
            manifest["dimension"] = len(vector)
        return WindowRow(
            digest=digest_of(data), workload=spec.name, number=number, uri=uri, rows=len(rows), created_at=0.0,
            manifest=manifest,
        )  # fmt: skip

    return freeze


@pytest.fixture
def hangs(monkeypatch):
    """What of a finder hangs is not waited for as long as what may only be slow on a busy machine."""
    ask = _Process.ask
    monkeypatch.setattr(
        _Process, "ask", lambda self, what, seconds, late: ask(self, what, 0.1 if "hang" in what else seconds, late)
    )
