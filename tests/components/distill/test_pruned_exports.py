"""Students whose spec declares pruned exports: what is served, what lies beside it, and where training goes on from."""

import os
import pickle
import signal
import subprocess
import sys

import msgspec
import pytest

from components.contracts.spec import Export, Limits, Pruning, Variant
from components.contracts.storage import get_bytes, local_path, put_bytes
from components.control.intent import ModelRef
from components.distill.train import distill
from components.evaluate.evaluate import evaluate
from components.student.card import export_uri
from components.student.runtime import Student
from tests.stores import migrated

SHAPE = Variant(name="roomy", dim=16, hidden=16)
HALF = Export(serve="pruned_int8", also=("int8", "pruned"), pruning=Pruning(share=0.5))

PATIENCE = 300.0
"""Seconds for what takes ten on a machine that has nothing else to do: a process that imports Ray and trains."""

INTERRUPTED = """
import os, pickle, signal, sys
from components.distill import checkpoint
from components.distill.train import distill
save = checkpoint.Checkpoints.save
def save_and_die(self, progress, **how):
    save(self, progress, **how)
    if self._uri.endswith("/pruned.pt"):
        os.kill(os.getpid(), signal.SIGKILL)
checkpoint.EVERY_SECONDS, checkpoint.SHARE = 0.0, float("inf")  # after every step
checkpoint.Checkpoints.save = save_and_die
with open(sys.argv[1], "rb") as file:
    spec, window, variant = pickle.load(file)
distill(spec, [window], variant=variant, parent=None, artifacts=sys.argv[2], seed=0)
"""


def exporting(spec, export, **limits):
    student = msgspec.structs.replace(spec.student, export=export)
    return msgspec.structs.replace(spec, student=student, limits=Limits(min_rows=10, **limits))


def reference(done):
    return ModelRef(version="1", uri=done.uri, digest=done.digest, snapshot="s", teacher="t@1")


@pytest.fixture(scope="module")
def spec(letter_spec):
    return exporting(letter_spec, HALF, min_accuracy=0.9, max_parity_gap=0.05, max_probability_gap=0.1)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return f"file://{tmp_path_factory.mktemp('artifacts')}"


@pytest.fixture(scope="module")
def windows(spec, letters, freeze_rows, artifacts):
    return [freeze_rows(spec, letters(kinds, 80), artifacts, n) for n, kinds in ((1, "ab"), (2, "cd"))]


@pytest.fixture(scope="module")
def first(spec, windows, artifacts):
    return distill(spec, windows[:1], variant=SHAPE, parent=None, artifacts=artifacts, seed=0)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = migrated(f"sqlite:///{tmp_path_factory.mktemp('store')}/control.db")
    yield made
    made.close()


def judged(spec, done, windows, store, uri=None):
    return evaluate(
        spec, uri or done.uri, done.digest, done.float_uri, windows=windows, champion=None, store=store
    )  # fmt: skip


def load(uri):
    return Student.load(get_bytes(uri))


def beside(done, form):
    return export_uri(done.uri.rsplit("/", 1)[0], form)


def test_the_declared_export_is_served_and_the_others_lie_beside_it(first):
    assert first.card.form == "pruned_int8" and first.card.pruned
    assert load(first.uri).card == first.card and load(first.float_uri).card.form == "float32"
    for form in ("int8", "pruned"):
        card = load(beside(first, form)).card
        assert (card.form, card.weights) == (form, first.card.weights)
    names = sorted(p.name for p in local_path(first.uri).parent.iterdir())
    assert names == ["float.onnx", "int8.onnx", "model.onnx", "pruned.onnx", "student.safetensors"]


def test_pruned_exports_are_smaller_and_answer_as_the_float_model_does(first):
    found = first.metrics
    assert found["pruned_bytes"] < 0.6 * found["float_bytes"]
    assert found["pruned_int8_bytes"] < 0.7 * found["int8_bytes"]
    assert first.parity_gap == found["pruned_int8_parity_gap"] <= 0.05
    assert 0 < found["pruned_largest_difference"] < 0.5


def test_training_goes_on_from_the_full_weights(spec, first, windows, artifacts):
    more = distill(spec, windows, variant=SHAPE, parent=reference(first), artifacts=artifacts, seed=0)
    assert more.card.parent == "1" and more.card.classes == ("a", "b", "c", "d")
    assert more.card.network.options == {"dim": 16, "hidden": 16} and more.card.pruned


def test_the_same_update_gives_the_same_exports(spec, windows, first, tmp_path):
    again = distill(spec, windows[:1], variant=SHAPE, parent=None, artifacts=f"file://{tmp_path}", seed=0)
    assert again.digest == first.digest
    assert get_bytes(beside(again, "pruned")) == get_bytes(beside(first, "pruned"))


def test_every_declared_export_is_judged_by_name(spec, first, windows, store):
    done = judged(spec, first, windows[:1], store)
    assert done.verdict.decision == "promote", done.verdict.reasons
    found = done.measurements
    assert found["parity_gap"] == found["parity_gap[pruned_int8]"] == first.parity_gap
    demanded = {c.measure for c in done.criteria}
    parities = {f"{kind}_gap[{form}]" for kind in ("parity", "probability") for form in HALF.declared}
    assert demanded == {"rows", "accuracy", *parities}


@pytest.mark.parametrize("served", [True, False])
def test_pruning_that_is_too_strong_is_rejected_and_named(letter_spec, windows, artifacts, store, served):
    pruning = Pruning(share=0.93, epochs=0)
    export = Export(serve="pruned", pruning=pruning) if served else Export(also=("pruned",), pruning=pruning)
    spec = exporting(letter_spec, export, max_parity_gap=0.02)
    spoilt = distill(spec, windows[:1], variant=SHAPE, parent=None, artifacts=artifacts, seed=0)
    assert spoilt.card.form == ("pruned" if served else "int8")
    verdict = judged(spec, spoilt, windows[:1], store).verdict
    assert verdict.decision == "reject"
    gap = spoilt.metrics["pruned_parity_gap"]
    assert gap > 0.1 and verdict.reasons[0] == f"parity_gap[pruned] is {gap:.4g}; it must be <= 0.02"
    outcomes = {f.measure: f.outcome for f in verdict.findings}
    assert served or outcomes["parity_gap[int8]"] == "pass"


def test_a_declared_export_that_is_missing_or_of_other_weights_holds(spec, first, windows, store, artifacts):
    folder = f"{artifacts}/moved"
    for name in ("model.onnx", "int8.onnx"):
        put_bytes(f"{folder}/{name}", get_bytes(first.uri.replace("model.onnx", name)))
    put_bytes(f"{folder}/int8.onnx", get_bytes(beside(first, "pruned")))
    done = judged(spec, first, windows[:1], store, uri=f"{folder}/model.onnx")
    assert done.verdict.decision == "hold"
    missing = {f.measure for f in done.verdict.findings if f.outcome == "missing"}
    assert missing == {f"{kind}_gap[{form}]" for kind in ("parity", "probability") for form in ("int8", "pruned")}


def test_an_artifact_that_is_not_the_declared_export_holds(spec, first, windows, store):
    other = exporting(spec, Export(serve="int8"), max_parity_gap=0.05)
    verdict = judged(other, first, windows[:1], store).verdict
    assert verdict.decision == "hold" and verdict.reasons[0].startswith("parity_gap[int8] was not measured")


def test_a_declared_export_is_served_whatever_its_parity_and_none_is_known_without_a_holdout(
    letter_spec, letters, freeze_rows, artifacts
):
    spec = exporting(letter_spec, Export(serve="int8"))
    student = msgspec.structs.replace(spec.student, holdout_share=1e-9, epochs=1)
    spec = msgspec.structs.replace(spec, student=student)
    window = freeze_rows(spec, letters("ab", 10), artifacts, 1)
    done = distill(spec, [window], variant=SHAPE, parent=None, artifacts=artifacts, seed=0)
    assert done.card.form == "int8" and done.parity_gap is None


def test_a_regression_is_pruned_in_its_own_unit(line_spec, lines, freeze_rows, artifacts, store):
    export = Export(serve="pruned", pruning=Pruning(share=0.25, epochs=40))
    spec = exporting(line_spec, export, max_rmse=25.0, max_probability_gap=3.0)
    window = freeze_rows(spec, lines(150), artifacts, 1)
    done = distill(spec, [window], variant=SHAPE, parent=None, artifacts=artifacts, seed=0)
    answer = load(done.uri).predict([b'{"x": 0}'])[0]
    assert done.card.pruned and answer.value == pytest.approx(1000, abs=25) and 0 < answer.scale < 60
    judgement = judged(spec, done, [window], store)
    assert judgement.verdict.decision == "promote", judgement.verdict.reasons


@pytest.mark.integration
def test_a_run_that_was_killed_while_it_pruned_goes_on_and_ends_the_same(spec, windows, first, tmp_path):
    (tmp_path / "given.pkl").write_bytes(pickle.dumps((spec, windows[0], SHAPE)))
    arguments = [sys.executable, "-c", INTERRUPTED, str(tmp_path / "given.pkl"), f"file://{tmp_path}/cut"]
    victim = subprocess.run(arguments, cwd=os.getcwd(), timeout=PATIENCE, check=False)
    assert victim.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "cut").glob("*/training/*/pruned.pt"))) == 1
    assert not list((tmp_path / "cut").glob("*/students/*"))
    again = distill(spec, windows[:1], variant=SHAPE, parent=None, artifacts=f"file://{tmp_path}/cut", seed=0)
    assert again.digest == first.digest
    assert not list((tmp_path / "cut").glob("*/training/*"))
