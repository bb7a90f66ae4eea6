import pytest

from components.contracts.records import Input, Label, SoftLabel, Truth, encode, label_key
from components.contracts.spec import Factory, Payload, Spec, Student
from components.stream.contract import Record, TopicPartition

BASE = 1_700_000_000.0
TEACHER = "sure@1"


class Tape:
    """A broker in memory that can also lose its oldest records, or everything, as real ones do."""

    def __init__(self):
        self.logs = {}
        self.beginnings = {}

    def ensure_topics(self, topics, partitions=1):
        for topic in topics:
            for partition in range(partitions):
                self.logs.setdefault(TopicPartition(topic, partition), [])

    def put(self, topic, value, partition=0, timestamp=BASE, headers=None):
        self.ensure_topics([topic])
        log = self.logs[TopicPartition(topic, partition)]
        log.append(Record(topic, partition, len(log), None, value, dict(headers or {}), timestamp))

    def expire(self, topic, before):
        self.beginnings[TopicPartition(topic, 0)] = before

    def producer(self):
        return Writer(self)

    def consumer(self, topics, group=None, start="earliest", partitions=None):
        assigned = list(partitions) if partitions is not None else [p for p in self.logs if p.topic in topics]
        return Reader(self, {p: 0 if start == "earliest" else start[p] for p in assigned})


class Writer:
    def __init__(self, tape):
        self.tape = tape

    def send(self, topic, key, value, headers=None):
        self.tape.put(topic, value, headers=headers)

    def flush(self, timeout=30.0):
        pass

    def close(self):
        pass


class Reader:
    def __init__(self, tape, at):
        self.tape, self.at = tape, {p: max(o, tape.beginnings.get(p, 0)) for p, o in at.items()}

    def poll(self, max_records=500, timeout=0.5):
        for partition, offset in self.at.items():
            batch = self.tape.logs[partition][offset : offset + min(max_records, 7)]
            if batch:
                self.at[partition] += len(batch)
                return batch
        return []

    def positions(self):
        return dict(self.at)

    def ends(self):
        return {p: len(self.tape.logs[p]) for p in self.at}

    def commit(self, positions=None):
        raise ValueError("opened without a group")

    def lag(self):
        return sum(end - self.at[p] for p, end in self.ends().items())

    def close(self):
        pass


USER_CODE = """
class Describer:
    buckets = 16

    def describe(self, payload):
        return {"size": float(len(payload)), "first": payload[:1].decode("latin-1")}


class Sure:
    name, digest, task, space, classes = "sure", "1", "classification", "s@1", ("a", "b")
"""


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "user.py").write_text(USER_CODE)
    return Spec(
        name="files",
        teacher=Factory(factory="user.py:Sure"),
        features=Factory(factory="user.py:Describer"),
        payload=Payload(max_bytes=1000),
        student=Student(holdout_share=0.25),
        source=str(tmp_path / "files.yaml"),
    )


@pytest.fixture
def tape():
    return Tape()


@pytest.fixture
def artifacts(tmp_path):
    return f"file://{tmp_path}/artifacts"


@pytest.fixture
def make_label():
    def make(i, *, payload=None, teacher=TEACHER, workload="files", key=None, entity="k", time=None, soft=None):
        payload = f"payload {i}".encode() if payload is None else payload
        record = Input(workload=workload, id=f"i{i:04d}", key=entity, time=time or BASE + i, payload=payload)
        return Label(
            key=key or label_key(record, teacher, soft.space if soft else "s@1"),
            teacher=teacher,
            soft=soft or SoftLabel(task="classification", space="s@1", distribution={"a": 0.75, "b": 0.25}),
            input=record,
            labelled_at=BASE + i + 1,
        )

    return make


@pytest.fixture
def make_truth():
    def make(i, known_at, label="a", workload="files"):
        return Truth(
            workload=workload, input_id=f"i{i:04d}", time=BASE + i, known_at=known_at, source="extension", label=label
        )

    return make


@pytest.fixture
def put(tape):
    def put(*records):
        for record in records:
            kind = "labels" if isinstance(record, Label) else "truth"
            tape.put(f"files.{kind}", encode(record))

    return put
