"""Every kind of bad artifact is refused with its reason, in a process of its own, and traffic does not notice."""

import threading
import time

import msgspec
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from components.contracts.errors import ArtifactError, UnavailableError
from components.contracts.storage import digest_of, put_bytes
from components.control.tables import WindowRow
from components.student.card import CARD_KEY
from components.student.runtime import Student
from serving.gateway.app import Gateway, create_app
from serving.gateway.telemetry import Telemetry
from serving.replica.admission import ADMITTED, Admission, Trial, admit
from serving.replica.loaded_versions import LoadedVersions
from tests import front
from tests.serving.running import Running
from tests.waiting import wait_for

CRASHING = """
import ctypes
import os
import time

from components.student.table import TableColumns


class Crashing(TableColumns):
    def encode(self, payloads):
        ctypes.string_at(0)


class Greedy(TableColumns):
    def encode(self, payloads):
        self.kept = b"x" * (64 << 30)


class Leaving(TableColumns):
    def __init__(self, columns):
        os._exit(3)


class Hanging(TableColumns):
    def __init__(self, columns):
        while True:
            pass


class Sleeping(TableColumns):
    def __init__(self, columns):
        time.sleep(600)
"""


def changed_card(data, **fields):
    """The artifact with other fields in its card."""
    model = onnx.load_from_string(data)
    for entry in model.metadata_props:
        if entry.key == CARD_KEY:
            entry.value = msgspec.json.encode(msgspec.json.decode(entry.value) | fields).decode()
    return model.SerializeToString(deterministic=True)


def with_features(name):
    return lambda data: changed_card(
        data, features={"factory": f"bad.py:{name}", "options": {"columns": [{"name": "x"}]}}
    )


def wrong_signature(data):
    model = onnx.load_from_string(data)
    model.graph.input[0].name = "tokens"
    model.graph.node[0].input[1] = "tokens"
    return model.SerializeToString(deterministic=True)


def wrong_type(data):
    """Its ids are int32, where features have int64."""
    model = onnx.load_from_string(data)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT32
    return model.SerializeToString(deterministic=True)


def not_probabilities(data):
    model = onnx.load_from_string(data)
    model.graph.node.pop()
    model.graph.node.append(helper.make_node("Identity", ["logits"], ["probabilities"]))
    return model.SerializeToString(deterministic=True)


def padded(data):
    model = onnx.load_from_string(data)
    zeros = numpy_helper.from_array(onnx.numpy_helper.np.zeros(60_000, dtype="float32"), "unused")
    model.graph.initializer.append(zeros)
    return model.SerializeToString(deterministic=True)


BAD = {
    "empty": (lambda data: b"", "not a model"),
    "garbage": (lambda data: b"\x00\xff" * 500, "not a model"),
    "pickle": (lambda data: b"\x80\x04\x95cposix\nsystem\n", "not a model"),
    "truncated": (lambda data: data[: len(data) // 2], "not a model|no card|its card is broken|its graph"),
    "wrong signature": (wrong_signature, "its graph is"),
    "wrong type": (wrong_type, "int32|int64"),
    "not probabilities": (not_probabilities, "not a soft label"),
    "oversized": (padded, "a student has at most 200000"),
    "crashing": (with_features("Crashing"), "signal 11"),
    "greedy": (with_features("Greedy"), "MemoryError"),
    "leaving": (with_features("Leaving"), "no reason given"),
    "of another teacher": (lambda data: changed_card(data, teacher="other@2"), "teacher 'other@2'"),
    "of another snapshot": (lambda data: changed_card(data, snapshots=["t" * 64]), "snapshot"),
    "of another workload": (lambda data: changed_card(data, workload="other"), "workload 'other'"),
}


@pytest.fixture
def spec(spec, tmp_path):
    (tmp_path / "bad.py").write_text(CRASHING)
    return msgspec.structs.replace(spec, limits=msgspec.structs.replace(spec.limits, max_bytes=200_000))


@pytest.fixture
def source(spec, tmp_path):
    """The path of a spec with a limit of bytes, for the process that reads it anew."""
    path = tmp_path / "limited.yaml"
    path.write_text((tmp_path / "signs.yaml").read_text() + "limits: {max_bytes: 200000}\n")
    return str(path)


@pytest.fixture
def bad(model, signs):
    """Register a version whose artifact is spoilt before it is registered: its digest is right."""

    def make(spoil, version="2"):
        ref, data = model(version), spoil(signs.artifact(space=f"signs@{version}"))
        put_bytes(ref.uri, data)
        return msgspec.structs.replace(ref, digest=digest_of(data))

    return make


def test_a_good_artifact_is_admitted(source, model, signs):
    admit(model("1"), source, payloads=[signs.payload(1.0), b"{"])


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_one_is_refused_with_the_reason(source, bad, kind):
    spoil, why = BAD[kind]
    with pytest.raises(ArtifactError, match=why):
        admit(bad(spoil), source)


def test_one_that_fails_on_what_it_is_given_is_refused(source, model):
    with pytest.raises(ArtifactError, match="refused on trial"):
        admit(model("1", rows=1), source)


def test_what_was_changed_or_swapped_after_registration_is_refused(source, model, signs):
    ref, other = model("1"), model("2")
    with pytest.raises(ArtifactError, match="digest"):
        admit(msgspec.structs.replace(ref, uri=other.uri), source)
    put_bytes(ref.uri, signs.artifact(classes=("pos", "neg"), space="signs@1"))
    with pytest.raises(ArtifactError, match="digest"):
        admit(ref, source)


@pytest.mark.parametrize(
    ("kind", "patience", "why"),
    [("Hanging", 60.0, "within 3 s of processor time"), ("Sleeping", 1.0, "did not load within 3 s")],
)
def test_one_that_hangs_is_given_up(source, bad, monkeypatch, kind, patience, why):
    monkeypatch.setattr("serving.replica.admission.PATIENCE", patience)
    with pytest.raises(ArtifactError, match=why):
        admit(bad(with_features(kind)), source, seconds=3)


def test_one_that_needs_too_much_memory_is_refused(source, model):
    with pytest.raises(ArtifactError, match=r"refused on trial|crashed"):
        admit(model("1"), source, memory_bytes=100 << 20)


def test_a_student_that_can_use_none_of_the_real_inputs_is_refused(source, model):
    with pytest.raises(ArtifactError, match="all 2 real inputs"):
        admit(model("1"), source, payloads=[b'{"x": "word"}', b"[]"])


def test_the_snapshot_gives_real_inputs_and_a_digest_is_tried_once(spec, store, model, monkeypatch, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "w.parquet"
    pq.write_table(pa.table({"payload": [b'{"x": "word"}']}), path)
    digest = digest_of(path.read_bytes())
    store.add_window(
        WindowRow(digest=digest, workload="signs", number=0, uri=path.as_uri(), rows=1, created_at=0.0, manifest={})
    )
    ref, admission = model("1"), Admission(spec, store)
    other = msgspec.structs.replace(ref, snapshot=digest)
    assert admission._window(other) == (path.as_uri(), digest)
    with pytest.raises(ArtifactError, match="all 1 real inputs"):
        admit(ref, spec.source, window=admission._window(other))
    admission(ref, spec.source)
    assert store.gauges("signs")[ADMITTED].value == {ref.digest: spec.digest}
    monkeypatch.setattr("serving.replica.admission.admit", lambda *a, **k: pytest.fail("tried again"))
    admission(ref, spec.source)


def test_a_snapshot_that_is_gone_is_not_the_artifacts_fault(source, model, tmp_path):
    admit(model("1"), source, window=((tmp_path / "gone.parquet").as_uri(), "d" * 64))


def test_threads_are_set_on_purpose(signs):
    options = Student.load(signs.artifact())._session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)


def test_traffic_does_not_notice_a_bad_candidate(spec, source, store, broker, bad, model):
    """Candidates of every kind are routed to one after the other while requests are answered: no answer fails."""
    spec = msgspec.structs.replace(spec, source=source)
    versions = LoadedVersions(spec, store, "r1", trial=Admission(spec, store))
    telemetry = Telemetry(spec, lambda: broker)
    running = Running.__new__(Running)
    running.app, running.spec = create_app(Gateway(spec, versions, telemetry)), spec
    versions.start()
    stop, statuses, slowest = threading.Event(), [], 0.0

    def ask():
        nonlocal slowest
        while not stop.is_set():
            began = time.monotonic()
            statuses.append(running.call("POST", "/v1/predict", json={"json": {"x": 3}}).status_code)
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.01)

    asking = threading.Thread(target=ask)

    def route(**fields):
        revision, intent = store.intent("signs")
        intent = msgspec.structs.replace(intent, lease_until=time.time() + 600, **fields)
        return store.put_intent("signs", revision, intent)

    try:
        route(champion=model("1"))
        wait_for(lambda: versions.routing.champion is not None)
        asking.start()
        for kind in (
            "truncated",
            "wrong signature",
            "not probabilities",
            "oversized",
            "crashing",
            "of another teacher",
        ):
            spoil, _ = BAD[kind]
            ref = bad(spoil)
            revision = route(candidate=ref, weight=0.5)
            wait_for(lambda: ref.digest in versions.failed and versions.routing.revision == revision)  # noqa: B023
            answered = len(statuses)
            wait_for(lambda: len(statuses) >= answered + 20)  # noqa: B023
            assert versions.routing.candidate is None
        good = model("3")
        route(candidate=good, weight=0.5)
        wait_for(lambda: versions.routing.candidate is not None)
    finally:
        stop.set()
        if asking.is_alive():
            asking.join()
        versions.stop()
    assert set(statuses) == {200}
    print(f"{len(statuses)} answers, the slowest took {slowest * 1000:.0f} ms")


def test_a_store_that_does_not_answer_is_no_verdict(spec, model, monkeypatch):
    given = {
        "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }  # fmt: skip
    with front.standing("127.0.0.1", "http://nowhere") as store:
        store.away = True
        for name, value in {**given, "AWS_ENDPOINT_URL": store.url}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(UnavailableError, match="Service Unavailable"):
            admit(msgspec.structs.replace(model("1"), uri="s3://bucket/model.onnx"), spec.source)
        assert store.refused


def test_a_trial_survives_its_encoding(model):
    trial = Trial(model=model("1"), spec="s", memory_bytes=1, seconds=1.0, payloads=(b"\xff",))
    assert msgspec.json.decode(msgspec.json.encode(trial), type=Trial) == trial
