import subprocess
import sys

import msgspec
import numpy as np
import onnx
import pytest

from components.contracts.errors import ArtifactError, RecordError
from components.contracts.storage import digest_of
from components.distill.data import Unit
from components.student.card import CARD_KEY, StudentCard
from components.student.features import bag_signature
from components.student.runtime import Student
from tests.students import bag, exported


def state(buckets=1024, dim=4, hidden=5, outputs=2, norm=True):
    chance = np.random.default_rng(0)
    shapes = {
        "embedding.weight": (buckets, dim),
        "hidden.weight": (hidden, dim),
        "hidden.bias": (hidden,),
        "head.weight": (outputs, hidden),
        "head.bias": (outputs,),
    }
    made = {name: chance.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    extra = {"norm.weight": np.ones(dim, np.float32), "norm.bias": np.zeros(dim, np.float32)}
    return {**made, **(extra if norm else {})}


@pytest.fixture(scope="module")
def card(letter_spec):
    return StudentCard(
        workload="letters", task="classification", space="letters@1", classes=("a", "b"),
        features=letter_spec.features, payload=letter_spec.payload, **bag(1024, 4, 5), variant="tiny",
        snapshots=("0" * 64,), teacher="t@1", parent=None, code="0",
    )  # fmt: skip


def test_a_student_knows_its_card_and_digest(card):
    artifact = exported(card, state())
    student = Student.load(artifact)
    assert student.card == card and student.digest == digest_of(artifact)


def test_loads_from_a_file(card, tmp_path):
    (tmp_path / "model.onnx").write_bytes(exported(card, state()))
    assert Student.load(tmp_path / "model.onnx").card == card


def test_answers_are_soft_labels_in_the_card_s_space_alone_and_in_a_batch(card):
    student = Student.load(exported(card, state()))
    payloads = [b"x", b"a longer payload than the first", b"\x00" * 500]
    together = student.predict(payloads)
    for soft, payload in zip(together, payloads, strict=True):
        (alone,) = student.predict([payload])
        assert soft.space == "letters@1" and soft.distribution.keys() == {"a", "b"}
        assert soft.distribution == pytest.approx(alone.distribution, abs=1e-5)
    assert student.predict([]) == []


def test_regression_answers_have_value_and_scale(card, line_spec):
    card = msgspec.structs.replace(
        card, task="regression", classes=(), space="euro", features=line_spec.features, payload=line_spec.payload,
        **bag(2, 4, 5),
    )  # fmt: skip
    student = Student.load(exported(card, state(buckets=2, norm=False), Unit(mean=1000.0, scale=10.0)))
    (soft,) = student.predict([b"[2.0]"])
    assert soft.task == "regression" and soft.space == "euro" and soft.scale > 0


def test_poison_is_refused_as_it_is_everywhere(card):
    student = Student.load(exported(card, state()))
    with pytest.raises(RecordError) as caught:
        student.predict([b""])
    assert caught.value.reason == "empty"


@pytest.mark.parametrize("data", [b"", b"not a model", bytes(range(256))])
def test_refuses_what_is_no_model(data):
    with pytest.raises(ArtifactError, match="ONNX Runtime"):
        Student.load(data)


def changed(artifact, change):
    model = onnx.load_from_string(artifact)
    change(model)
    return model.SerializeToString()


def test_refuses_a_model_that_is_cut_off(card):
    artifact = exported(card, state())
    with pytest.raises(ArtifactError):
        Student.load(artifact[: len(artifact) // 2])


def test_refuses_a_model_without_a_card(card):
    artifact = changed(exported(card, state()), lambda m: m.metadata_props.pop())
    with pytest.raises(ArtifactError, match="has no card"):
        Student.load(artifact)


def test_refuses_a_broken_card(card):
    def spoil(model):
        model.metadata_props[0].value = '{"workload": 3}'

    with pytest.raises(ArtifactError, match="card is broken"):
        Student.load(changed(exported(card, state()), spoil))


def with_card(artifact, card):
    def replace(model):
        (entry,) = [p for p in model.metadata_props if p.key == CARD_KEY]
        entry.value = msgspec.json.encode(card).decode()

    return changed(artifact, replace)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"classes": ("a", "b", "c")}, "2 probabilities for the card's 3 classes"),
        ({"task": "regression", "classes": ()}, "a regression student's"),
        ({"inputs": bag_signature(2048)}, "another version of the featuriser"),
    ],
)
def test_refuses_a_card_that_does_not_fit(card, change, reason):
    artifact = with_card(exported(card, state()), msgspec.structs.replace(card, **change))
    with pytest.raises(ArtifactError, match=reason):
        Student.load(artifact)


def test_an_answer_that_is_no_distribution_is_an_error(card):
    broken = {**state(), "head.bias": np.array([np.nan, 0.0], dtype=np.float32)}
    with pytest.raises(ArtifactError, match="not a soft label"):
        Student.load(exported(card, broken)).predict([b"payload"])


def test_serving_needs_no_torch():
    featurisers = ("bytes", "text", "table", "words", "tokens", "columns", "image", "audio")
    heavy = {"torch", "transformers", "sklearn", "onnxruntime", "scipy", "PIL", "soundfile", "tokenizers"}
    code = (
        f"import sys, components.student.runtime, {', '.join(f'components.student.{name}' for name in featurisers)}; "
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
