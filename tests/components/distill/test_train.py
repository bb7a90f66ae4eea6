import random
from dataclasses import replace
from unittest.mock import Mock

import msgspec
import pytest

from components.contracts.errors import ArtifactError, ConfigError, ProvenanceError
from components.contracts.records import SoftLabel
from components.contracts.spec import Variant
from components.contracts.storage import digest_of, get_bytes, local_path
from components.control.intent import ModelRef
from components.distill import fit, temperature, train
from components.distill.artifact import weights_uri
from components.distill.data import arrays, encoded, window_rows
from components.distill.fit import Run
from components.distill.networks import contract
from components.distill.prune import answers
from components.distill.stages import taught
from components.distill.start import Start
from components.distill.train import distill
from components.distill.work import Work
from components.evaluate.criteria import LEAST, MANY, MOST
from components.student.runtime import Student

TINY = Variant(name="tiny", dim=8, hidden=16)


def reference(done, version="1"):
    return ModelRef(
        version=version, uri=done.uri, digest=done.digest, snapshot=done.card.snapshots[0], teacher=done.card.teacher
    )


def accuracy(done, window):
    rows = window_rows(window, "holdout", "classification", "t@1")
    answers = Student.load(get_bytes(done.uri, done.digest)).predict(rows.payloads)
    return sum(a.label == t for a, t in zip(answers, rows.truth, strict=True)) / len(rows)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return f"file://{tmp_path_factory.mktemp('artifacts')}"


@pytest.fixture(scope="module")
def windows(letter_spec, letters, freeze_rows, artifacts):
    return [
        freeze_rows(letter_spec, letters("ab", 80), artifacts, 1),
        freeze_rows(letter_spec, letters("cd", 80), artifacts, 2),
    ]


@pytest.fixture(scope="module")
def first(letter_spec, windows, artifacts):
    return distill(letter_spec, windows[:1], variant=TINY, parent=None, artifacts=artifacts, seed=0)


@pytest.fixture(scope="module")
def second(letter_spec, windows, first, artifacts):
    return distill(
        letter_spec, windows, variant=Variant(name="other"), parent=reference(first), artifacts=artifacts, seed=0
    )


def test_the_first_student_learns_its_window(first, windows):
    assert accuracy(first, windows[0]) > 0.9
    assert first.card.classes == ("a", "b") and first.card.parent is None
    assert first.card.snapshots == (windows[0].digest,)
    assert len(first.history) == 12 and first.history[-1] < first.history[0]


def test_no_number_of_an_update_has_the_name_of_one_that_the_gate_measures(second):
    """Both are the registry's: the training's loss would stand there as the loss against the champion."""
    parities = {"parity_gap", "probability_gap"}  # which the gate takes from the update
    assert second.metrics["training_loss"] == second.history[-1]
    assert (
        not {name.partition("[")[0] for name in second.metrics} & (LEAST.keys() | MOST.keys() | MANY.keys()) - parities
    )


def test_a_checkpoint_is_of_one_version_of_the_code_beside_the_spec(letter_spec, windows, tmp_path, monkeypatch):
    seen = Mock()
    monkeypatch.setattr(train, "remove", seen)
    for version in ("a", "a", "b"):
        spec = msgspec.structs.replace(letter_spec, source=f"workload:{letter_spec.name}@{version * 64}")
        distill(spec, windows[:1], variant=TINY, parent=None, artifacts=tmp_path.as_uri(), seed=0)
    one, again, other = (call.args[0] for call in seen.call_args_list)
    assert one == again != other


def test_everything_lies_in_the_folder_of_the_artifact_and_no_checkpoint_is_left(first, artifacts):
    folder = f"{artifacts}/letters/students/{first.digest}"
    assert (first.uri, first.float_uri) == (f"{folder}/model.onnx", f"{folder}/float.onnx")
    assert first.weights_uri == weights_uri(first.uri) == f"{folder}/student.safetensors"
    assert digest_of(get_bytes(first.weights_uri)) == first.card.weights
    assert Student.load(get_bytes(first.uri)).card == first.card
    assert Student.load(get_bytes(first.float_uri, first.float_digest)).card.precision == "float32"
    assert not list(local_path(f"{artifacts}/letters/training").iterdir())


def test_an_update_learns_new_classes_and_keeps_the_old_ones(first, second, windows):
    assert accuracy(first, windows[1]) == 0.0
    assert accuracy(second, windows[1]) > 0.9
    assert accuracy(second, windows[0]) >= accuracy(first, windows[0]) - 0.05
    assert second.card.classes == ("a", "b", "c", "d") and second.card.parent == "1"
    assert second.card.snapshots == (windows[1].digest, windows[0].digest)
    assert second.metrics["replay_rows"] > 100


def test_an_update_has_its_parent_s_shape(second):
    assert (second.card.variant, second.card.network.options) == ("tiny", {"dim": 8, "hidden": 16})


def test_the_rows_that_calibrate_are_learnt_from_too(first, second, windows):
    learnt = len(window_rows(windows[0], "train", "classification", "t@1"))
    assert first.metrics["new_rows"] == learnt == first.card.learnt and first.card.labels == 160
    assert 30 <= first.metrics["calibration_rows"] < learnt / 2 and first.metrics["temperature"] != 1.0
    assert second.metrics["learnt_share"] == second.card.learnt / second.card.labels > 0.7


def test_the_temperature_is_not_fitted_on_what_its_network_has_learnt(letter_spec, letters, freeze_rows, artifacts):
    """Truths by chance, learnt by heart: only rows that are new to a network tell that it knows nothing."""
    chance = random.Random(0)
    rows = [(p, s, chance.choice("ab")) for p, s, _ in letters("ab", 150)]
    by_heart = changed(letter_spec, "student", truth_weight=1.0, epochs=60)
    window = freeze_rows(by_heart, rows, artifacts, 1)
    done = distill(by_heart, [window], variant=TINY, parent=None, artifacts=artifacts, seed=0)
    train = window_rows(window, "train", "classification", "t@1")
    said = Student.load(get_bytes(done.float_uri)).predict(train.payloads)
    in_sample = done.metrics["temperature"] * temperature.fit(said, train.soft, train.truth, done.card.classes)
    assert done.metrics["temperature"] > 1.5 * in_sample


def test_the_same_update_gives_the_same_artifact(letter_spec, windows, first, tmp_path):
    again = distill(letter_spec, windows[:1], variant=TINY, parent=None, artifacts=f"file://{tmp_path}", seed=0)
    assert again.digest == first.digest


def test_without_a_parent_a_student_learns_all_windows(letter_spec, windows, artifacts):
    done = distill(letter_spec, windows, variant=TINY, parent=None, artifacts=artifacts, seed=1)
    assert min(accuracy(done, w) for w in windows) > 0.85


def changed(spec, section, **values):
    return msgspec.structs.replace(spec, **{section: msgspec.structs.replace(getattr(spec, section), **values)})


def test_serves_the_quantised_model_where_it_answers_the_same(first):
    assert first.card.precision == "int8" and first.parity_gap <= 0.02
    assert first.metrics["int8_bytes"] < 0.5 * first.metrics["float_bytes"]


def test_serves_the_float_model_where_nothing_is_known_of_the_quantised_one(
    letter_spec, letters, freeze_rows, artifacts
):
    spec = changed(letter_spec, "student", holdout_share=1e-9, epochs=1)
    window = freeze_rows(spec, letters("ab", 10), artifacts, 1)
    done = distill(spec, [window], variant=TINY, parent=None, artifacts=artifacts, seed=0)
    assert done.card.precision == "float32" and done.digest == done.float_digest
    assert done.parity_gap == 0.0 and "int8_parity_gap" not in done.metrics


def test_a_parent_with_other_features_teaches_the_first_lesson(letter_spec, windows, first, artifacts, caplog):
    features = msgspec.structs.replace(letter_spec.features, options={"head": 64, "buckets": 2048})
    spec = msgspec.structs.replace(letter_spec, features=features)
    done = distill(spec, windows[:1], variant=TINY, parent=reference(first), artifacts=artifacts, seed=0)
    assert done.card.parent == "1" and done.card.inputs["ids"].below == 2048


def test_a_student_s_answer_never_becomes_a_label(letter_spec, letters, freeze_rows, windows, first, artifacts):
    forged = freeze_rows(letter_spec, letters("ab", 5, seed=9), artifacts, 3, teacher="student@1", declared="t@1")
    with pytest.raises(ProvenanceError, match="student@1"):
        distill(letter_spec, [windows[0], forged], variant=TINY, parent=None, artifacts=artifacts, seed=0)


def test_weights_that_were_changed_are_no_start(letter_spec, windows, tmp_path, first):
    folder = tmp_path / first.digest
    folder.mkdir()
    for name in ("model.onnx", "student.safetensors"):
        (folder / name).write_bytes(get_bytes(first.uri.replace("model.onnx", name)))
    moved = msgspec.structs.replace(reference(first), uri=f"file://{folder}/model.onnx")
    weights = folder / "student.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(ArtifactError, match="was changed"):
        distill(letter_spec, windows, variant=TINY, parent=moved, artifacts=f"file://{tmp_path}", seed=0)
    weights.unlink()
    with pytest.raises(ArtifactError, match="does not exist"):
        distill(letter_spec, windows, variant=TINY, parent=moved, artifacts=f"file://{tmp_path}", seed=0)


def test_an_update_needs_rows(letter_spec, artifacts):
    with pytest.raises(ConfigError, match="at least one snapshot"):
        distill(letter_spec, [], variant=TINY, parent=None, artifacts=artifacts, seed=0)


def test_a_regression_is_learnt_in_its_own_unit_and_goes_on_in_it(line_spec, lines, freeze_rows, artifacts):
    windows = [
        freeze_rows(line_spec, lines(150), artifacts, 1),
        freeze_rows(line_spec, lines(80, seed=1), artifacts, 2),
    ]
    done = distill(line_spec, windows[:1], variant=TINY, parent=None, artifacts=artifacts, seed=0)
    more = distill(line_spec, windows, variant=TINY, parent=reference(done), artifacts=artifacts, seed=0)
    for student, most in ((done, 25.0), (more, 20.0)):
        answers = Student.load(get_bytes(student.uri, student.digest)).predict([b'{"x": 0}', b"[5.0]"])
        assert answers[0].value == pytest.approx(1000, abs=most) and answers[1].value == pytest.approx(2000, abs=most)
        assert all(0 < a.scale < 60 for a in answers)
    assert more.card.parent == "1" and more.card.classes == ()


def test_the_first_lesson_is_what_the_parent_answers_and_not_the_labels(letter_spec, windows, first, tmp_path):
    wider = Variant(name="tiny", dim=16, hidden=32)
    spec = changed(letter_spec, "student", variants=(wider,))
    rows = window_rows(windows[0], "train", "classification", "t@1")
    start = Start(student=Student.load(get_bytes(first.uri)), state=None)
    card = msgspec.structs.replace(first.card, network=spec.student.network_of(wider))
    other = {c: SoftLabel.of("letters@1", ("a", "b"), [float(c == "b"), float(c == "a")]) for c in "ab"}
    wrong = replace(rows, soft=[other[s.label] for s in rows.soft])
    work = Work(
        spec=spec,
        card=card,
        data=arrays(spec, wrong, ("a", "b")),
        objective=spec.student.objective_of(spec.student.variants[0], spec.task),
        epochs=spec.student.epochs,
        start=None,
        seed=0,
    )
    run = Run(name="run", folder=f"file://{tmp_path}", artifacts=f"file://{tmp_path}")
    net = taught(work, start, wrong, ("a", "b"), run).net
    said = answers(net, encoded(spec, rows.payloads)).argmax(dim=1).tolist()
    wanted = ["ab".index(a.label) for a in start.student.predict(rows.payloads)]
    assert sum(a == b for a, b in zip(said, wanted, strict=True)) > 0.95 * len(rows)


@pytest.mark.parametrize(("warm", "built"), [(False, 2), (True, 1)])
def test_a_network_is_built_once_to_be_looked_at_before_it_is_trained(
    letter_spec, windows, first, artifacts, monkeypatch, warm, built
):
    """A fresh one once more, with one output more: its head must grow."""
    made, begun = [], RuntimeError("training begins")
    make = contract.made
    monkeypatch.setattr(contract, "made", lambda *args: made.append(args) or make(*args))
    monkeypatch.setattr(fit, "fit", Mock(side_effect=begun))
    with pytest.raises(RuntimeError, match="training begins"):
        distill(
            letter_spec, windows, variant=TINY, parent=reference(first) if warm else None, artifacts=artifacts, seed=5
        )
    assert len(made) == built
