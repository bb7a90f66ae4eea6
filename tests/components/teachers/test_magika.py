import json
import math

import pytest

from components.contracts.errors import ConfigError
from components.teachers.contract import reference
from components.teachers.magika import MagikaTeacher

PYTHON = b"import os\n\n\ndef main() -> None:\n    for name in os.listdir('.'):\n        print(name)\n" * 4
SAMPLES = {
    "python": PYTHON,
    "json": json.dumps({"a": [1, 2, {"b": None}], "words": ["x"] * 40}).encode(),
    "html": b"<!doctype html><html><head><title>t</title></head><body><p>words</p></body></html>" * 3,
    "pdf": b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog >>\nendobj\n" + b"trailer\n<< /Root 1 0 R >>\n%%EOF\n" * 3,
    "empty": b"",
    "txt": b"ab",
    "unknown": b"\x00\x01\xfe\xff",
}


@pytest.fixture(scope="module")
def teacher():
    return MagikaTeacher()


def test_it_says_what_magika_says(teacher):
    from magika import Magika, PredictionMode

    theirs = Magika(prediction_mode=PredictionMode.BEST_GUESS)
    ours = teacher.label(list(SAMPLES.values()))
    for name, payload, soft in zip(SAMPLES, SAMPLES.values(), ours, strict=True):
        result = theirs.identify_bytes(payload)
        assert soft.label == str(result.output.label) == name
        assert soft.confidence == pytest.approx(result.score, abs=1e-3)


def test_a_soft_label_is_the_whole_softmax(teacher):
    (soft,) = teacher.label([b"# notes\n\nsome = words\nmore words, and 12 numbers\n" * 2])
    assert soft.space == teacher.space == "magika-standard_v3_3@1"
    assert math.isclose(math.fsum(soft.distribution.values()), 1.0)
    assert 10 < len(soft.distribution) <= len(teacher.classes) and set(soft.distribution) <= set(teacher.classes)
    assert soft.entropy > 0


def test_a_batch_answers_like_one_by_one(teacher):
    payloads = list(SAMPLES.values())
    for alone, together in zip([teacher.label([p])[0] for p in payloads], teacher.label(payloads), strict=True):
        assert alone.label == together.label
        for name in alone.distribution.keys() | together.distribution.keys():
            assert alone.distribution.get(name, 0) == pytest.approx(together.distribution.get(name, 0), abs=1e-4)
    assert teacher.label([]) == []


def test_too_small_for_the_model_is_magikas_rule_with_all_the_mass(teacher):
    for payload, name in ((b"", "empty"), (b"a", "txt"), (b"  \n\n  \t", "txt"), (b"\x00\xff", "unknown")):
        (soft,) = teacher.label([payload])
        assert soft.distribution == {name: 1.0}
        assert name in teacher.classes


def test_merged_labels_add_up(teacher):
    merged = MagikaTeacher(merge={"python": "source", "javascript": "source"})
    (apart,), (together,) = teacher.label([PYTHON]), merged.label([PYTHON])
    both = apart.distribution.get("python", 0) + apart.distribution.get("javascript", 0)
    assert together.distribution["source"] == pytest.approx(both, abs=1e-5)
    assert "python" not in merged.classes and len(merged.classes) == len(teacher.classes) - 1
    assert merged.digest != teacher.digest and merged.space != teacher.space


def test_a_merge_of_what_it_does_not_know_is_refused():
    with pytest.raises(ConfigError, match="phyton"):
        MagikaTeacher(merge={"phyton": "source"})


def test_the_digest_names_model_and_classes(teacher):
    assert MagikaTeacher(threads=2).digest == teacher.digest, "threads change no answer"
    assert len(teacher.digest) == 64 and reference(teacher) == f"magika@{teacher.digest}"
    assert teacher.size_bytes > 1_000_000 and len(set(teacher.classes)) == len(teacher.classes) > 200
