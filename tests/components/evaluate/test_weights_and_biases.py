"""Judged candidates as runs of Weights & Biases, offline: what is written is read back from W&B's own file."""

import json
import struct
from types import SimpleNamespace

import msgspec
import pytest

from components.contracts.records import SoftLabel
from components.contracts.settings import Settings
from components.contracts.spec import Variant
from components.contracts.spec.objective import Kl, Truth
from components.contracts.storage import get_bytes
from components.distill.data import Rows
from components.distill.train import distill
from components.evaluate import step, weights_and_biases
from components.evaluate.weights_and_biases import COLUMNS, track, wanted
from components.steps import Candidate
from components.student.runtime import Student
from tests.stores import migrated

TINY = Variant(name="tiny", dim=8, hidden=16, recipe="half")
BLOCK, HEADER = 32_768, 7


@pytest.fixture(scope="module")
def wandb():
    """The package, whose import takes longer than most of these tests do: only where they run."""
    return pytest.importorskip("wandb")


@pytest.fixture(scope="module", autouse=True)
def patient(wandb):
    """W&B's process may take what a busy machine takes to start: a run that it gives up is logged, and not there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_X_SERVICE_WAIT", "180")
        patch.setenv("WANDB_INIT_TIMEOUT", "180")
        yield


@pytest.fixture(scope="module")
def world(letter_spec, letters, freeze_rows, tmp_path_factory):
    artifacts = f"file://{tmp_path_factory.mktemp('artifacts')}"
    student = msgspec.structs.replace(
        letter_spec.student, recipes={"half": (Kl(weight=0.5), Truth(weight=0.5))}, variants=(TINY,), epochs=3
    )
    spec = msgspec.structs.replace(letter_spec, student=student)
    window = freeze_rows(spec, letters("ab", 60), artifacts, 1)
    done = distill(spec, [window], variant=TINY, parent=None, artifacts=artifacts, seed=0)
    candidate = Candidate(
        uri=done.uri, digest=done.digest, float_uri=done.float_uri, card=done.card, parity_gap=done.parity_gap,
        metrics=done.metrics, history=done.history, terms=done.terms, decision="promote",
        measurements={"agreement": 0.9, "unknown": None},
    )  # fmt: skip
    return spec, window, candidate


@pytest.fixture(scope="module")
def tracked(world, tmp_path_factory):
    """The folder of a run that was made with two examples, and its records."""
    folder = tmp_path_factory.mktemp("wandb")
    spec, window, candidate = world
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WANDB_API_KEY", raising=False)
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_DIR", str(folder))
        patch.setenv("WANDB_DATA_DIR", str(folder / "data"))
        assert wanted()
        track(spec, Settings(home=folder, wandb_examples=2), candidate, [window])
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    return file.parent, records(file.read_bytes())


def records(data):
    """The records of a file in LevelDB's log format (https://github.com/google/leveldb/blob/main/doc/log_format.md)."""
    from wandb.proto import wandb_internal_pb2

    at, parts, found = HEADER, b"", []
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + HEADER])
        parts += data[at + HEADER : at + HEADER + size]
        at += HEADER + size
        if kind in (1, 4):  # whole, or the last part
            found.append(wandb_internal_pb2.Record.FromString(parts))
            parts = b""
    return found


def items(updates):
    return {"/".join([item.key] if item.key else item.nested_key): json.loads(item.value_json) for item in updates}


def test_each_epoch_s_loss_is_there_with_each_term_s_part_of_it(world, tracked):
    _, _, candidate = world
    history = [items(r.history.item) for r in tracked[1] if r.WhichOneof("record_type") == "history"]
    epochs = [row for row in history if "epoch" in row]
    assert [row["epoch"] for row in epochs] == [1, 2, 3]
    assert [row["training_loss"] for row in epochs] == pytest.approx(list(candidate.history))
    assert all(row["loss_kl"] + row["loss_truth"] == pytest.approx(row["training_loss"], rel=1e-5) for row in epochs)
    assert epochs[-1]["loss_kl"] == pytest.approx(candidate.metrics["loss_kl"])


def test_the_run_says_what_was_trained_and_how_it_was_judged(world, tracked):
    spec, _, candidate = world
    (run,) = [r.run for r in tracked[1] if r.WhichOneof("record_type") == "run"]
    assert run.run_id == candidate.digest[:32] and run.project == "cohobate-letters" and list(run.tags) == ["promote"]
    config = items(run.config.update)
    assert config["recipe"] == "half" and config["spec"] == spec.digest and config["card"]["teacher"] == "t@1"
    summary = {}
    for record in tracked[1]:
        if record.WhichOneof("record_type") == "summary":
            summary |= items(record.summary.update)
    assert summary["agreement"] == 0.9 and summary["decision"] == "promote" and "unknown" not in summary
    assert summary["int8_parity_gap"] == candidate.metrics["int8_parity_gap"]


def test_examples_are_held_out_inputs_with_what_all_say(world, tracked):
    _, _, candidate = world
    (file,) = tracked[0].glob("files/media/table/*.json")
    table = json.loads(file.read_text())
    assert table["columns"] == COLUMNS and len(table["data"]) == 2
    served = Student.load(get_bytes(candidate.uri))
    for text, _, _, said, sure in table["data"]:
        (answer,) = served.predict([text.encode()])
        assert answer.label == said and max(answer.distribution.values()) == pytest.approx(sure)


def test_the_confidence_in_a_vector_is_the_student_s(monkeypatch):
    soft, answer = (
        SoftLabel(task="embedding", space="v", vector=(1.0, 0.0), scale=scale) for scale in (0.1, 0.25)
    )  # fmt: skip
    student = SimpleNamespace(predict=lambda _: [answer])
    rows = Rows(payloads=[b"x"], soft=[soft], truth=[None])
    for name, made in (("window_rows", rows), ("declared_teacher", "t@1"), ("get_bytes", b"")):
        monkeypatch.setattr(weights_and_biases, name, lambda *_, made=made: made)
    monkeypatch.setattr(weights_and_biases, "Student", SimpleNamespace(load=lambda *_, **__: student))
    spec, candidate = SimpleNamespace(task="embedding", source=""), SimpleNamespace(uri="", digest="")
    assert weights_and_biases._examples(spec, candidate, None, 1) == [["x", None, None, None, 0.8]]


def test_no_input_leaves_the_platform_unless_the_setting_says_so(world, tmp_path, monkeypatch):
    monkeypatch.setattr(weights_and_biases, "_examples", lambda *_: pytest.fail("inputs were read"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    spec, window, candidate = world
    track(spec, Settings(home=tmp_path), candidate, [window])
    assert list(tmp_path.glob("wandb/offline-run-*"))


@pytest.mark.parametrize("kind", ["CommError", "OSError"])
def test_weights_and_biases_that_fails_is_logged_and_changes_nothing(world, tmp_path, monkeypatch, caplog, wandb, kind):
    failure = wandb.errors.CommError("no answer") if kind == "CommError" else OSError("disk full")

    def fail(**_):
        raise failure

    monkeypatch.setattr(wandb, "init", fail)
    spec, window, candidate = world
    track(spec, Settings(home=tmp_path), candidate, [window])
    assert f"has no run of {candidate.digest[:12]}: {failure}" in caplog.text


@pytest.mark.parametrize(
    ("mode", "key", "asked"),
    [(None, None, False), (None, "k", True), ("offline", None, True), ("online", "k", True), ("disabled", "k", False)],
)
def test_runs_go_there_where_a_key_or_the_offline_mode_is_set(monkeypatch, mode, key, asked, caplog):
    for name, value in (("WANDB_MODE", mode), ("WANDB_API_KEY", key)):
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    assert wanted() is asked
    monkeypatch.setattr(weights_and_biases, "find_spec", lambda _: None)
    assert wanted() is False
    assert ("pip install 'cohobate[wandb]'" in caplog.text) is asked


@pytest.mark.parametrize("asked", [True, False])
def test_whatever_the_gate_says_of_a_candidate_its_run_is_made(world, tmp_path, monkeypatch, asked):
    spec, window, candidate = world
    monkeypatch.setenv("COHOBATE_HOME", str(tmp_path))
    store = migrated(Settings().control_url)
    store.close()
    made = []
    said = SimpleNamespace(decision="hold", as_dict=lambda: {"decision": "hold"})
    done = SimpleNamespace(verdict=said, measurements={"agreement": 0.5}, confusion={}, evidence_uri="")
    monkeypatch.setattr("components.evaluate.evaluate.evaluate", lambda *_, **__: done)
    monkeypatch.setattr(step, "windows_until", lambda *_: [window])
    monkeypatch.setattr(step, "load_spec", lambda _: spec)
    monkeypatch.setattr(weights_and_biases, "wanted", lambda: asked)
    monkeypatch.setattr(weights_and_biases, "track", lambda *given: made.append(given))
    judged = step.judge.__wrapped__("spec.yaml", candidate)
    assert [(of.decision, windows) for _, _, of, windows in made] == ([("hold", [window])] if asked else [])
    assert judged.decision == "hold"
