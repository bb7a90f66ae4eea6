"""A student of before networks could be chosen (commit 74f8679): it serves, and training goes on from it.

Golden files: what reads them may change, they may not.
"""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load

from components.contracts.spec import Variant
from components.contracts.storage import digest_of
from components.control.intent import ModelRef
from components.distill.train import distill
from components.student.runtime import Student

GOLDEN = Path(__file__).parent / "golden"
SAME, WIDER = Variant(name="tiny", dim=4, hidden=6), Variant(name="tiny", dim=8, hidden=12)


@pytest.fixture
def parent(tmp_path):
    """The old student where a registry would name it."""
    folder = tmp_path / "old"
    folder.mkdir()
    for path in GOLDEN.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    uri = (folder / "model.onnx").as_uri()
    digest = digest_of((GOLDEN / "model.onnx").read_bytes())
    return ModelRef(version="1", uri=uri, digest=digest, snapshot="0" * 64, teacher="t@1")


def update(letter_spec, letters, freeze_rows, tmp_path, parent, variant):
    artifacts = tmp_path.as_uri()
    spec = msgspec.structs.replace(
        letter_spec, student=msgspec.structs.replace(letter_spec.student, variants=(variant,))
    )
    window = freeze_rows(spec, letters("abc", 40), artifacts, 1)
    done = distill(spec, [window], variant=variant, parent=parent, artifacts=artifacts, seed=0)
    return done, load(Path(done.weights_uri.removeprefix("file://")).read_bytes())


def test_it_answers_as_it_did():
    first, second = Student.load(GOLDEN / "model.onnx").predict([b"aaaa", b"some bytes"])
    assert first.distribution == pytest.approx({"a": 0.6473471329406758, "b": 0.3526528670593242}, abs=1e-5)
    assert second.distribution == pytest.approx({"a": 0.09179895439594205, "b": 0.9082010456040579}, abs=1e-5)


def test_training_goes_on_from_its_weights(letter_spec, letters, freeze_rows, tmp_path, parent):
    done, after = update(letter_spec, letters, freeze_rows, tmp_path, parent, SAME)
    before = load((GOLDEN / "student.safetensors").read_bytes())
    kept = (after["embedding.weight"] == before["embedding.weight"]).all(axis=1)
    assert done.card.parent == "1" and done.card.classes == ("a", "b", "c")
    assert 0 < kept.sum() < len(kept)  # buckets that no input of the update has stay as they were
    assert not np.array_equal(after["hidden.weight"], before["hidden.weight"])


def test_a_wider_network_learns_its_answers_first(letter_spec, letters, freeze_rows, tmp_path, parent):
    done, after = update(letter_spec, letters, freeze_rows, tmp_path, parent, WIDER)
    assert done.card.parent == "1" and done.card.network.options == {"dim": 8, "hidden": 12}
    assert after["embedding.weight"].shape == (1024, 8) and done.metrics["taught_rows"] == done.metrics["new_rows"] > 0
