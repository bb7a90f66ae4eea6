import json

import numpy as np
import pytest

from components.contracts.errors import ArtifactError, ConfigError, TeacherError
from components.teachers import minilm
from components.teachers.minilm import DIM, Head, MiniLM, MiniLMTeacher, fit_head

SPAM = [f"Win {n}00 dollars now, cheap pills and a free prize, click here" for n in range(2, 10)]
HAM = [f"The kernel patch number {n} fails to compile, see the mailing list" for n in range(2, 10)]
TEXTS, TRUTHS = [*SPAM, *HAM], ["spam"] * 8 + ["ham"] * 8


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    path = tmp_path_factory.mktemp("head") / "head.json"
    fit_head(TEXTS, TRUTHS, path, space="spam@1")
    return path


@pytest.fixture(scope="module")
def teacher(head):
    return MiniLMTeacher(str(head))


def test_it_has_learned_what_gold_says(teacher):
    spam, ham = teacher.label(["Free dollars: claim the prize now!", "does the patch compile on your kernel?"])
    assert (spam.label, ham.label) == ("spam", "ham")
    assert spam.space == teacher.space == "spam@1" and teacher.classes == ("ham", "spam")
    assert 0.5 < spam.confidence < 1.0


def test_the_company_of_a_batch_changes_no_answer(teacher):
    texts = ["short", "a much longer text about nothing at all " * 20, "", TEXTS[0]]
    together = teacher.label(texts)
    for text, soft in zip(texts, together, strict=True):
        (alone,) = teacher.label([text])
        assert alone.distribution["spam"] == pytest.approx(soft.distribution["spam"], abs=1e-4)
    assert teacher.label([]) == []


def test_embeddings_have_unit_length_and_the_order_of_the_texts():
    encoder = MiniLM(max_tokens=16)
    rows = encoder.embed(TEXTS[::-1])
    assert rows.shape == (16, DIM) and np.allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    assert np.allclose(rows[-1], encoder.embed(TEXTS[:1])[0], atol=1e-4)
    cut = encoder.embed([TEXTS[0] + " and more" * 50, TEXTS[0] + " and more" * 80])
    assert np.allclose(cut[0], cut[1], atol=1e-5), "what comes after max_tokens is not read"


def test_three_classes(tmp_path):
    path = tmp_path / "three.json"
    fit_head([*TEXTS, "ein deutscher Satz", "noch ein Satz"], [*TRUTHS, "de", "de"], path, space="kinds@1")
    soft = MiniLMTeacher(str(path)).label(["dies ist ein Satz", SPAM[0]])
    assert [s.label for s in soft] == ["de", "spam"] and set(soft[0].distribution) == {"de", "ham", "spam"}


def test_the_digest_covers_encoder_and_head(teacher, head, tmp_path):
    assert MiniLMTeacher(str(head)).digest == teacher.digest and len(teacher.digest) == 64
    other = tmp_path / "other.json"
    fit_head(TEXTS[2:], TRUTHS[2:], other, space="spam@1")
    assert MiniLMTeacher(str(other)).digest != teacher.digest
    assert teacher.size_bytes > 90_000_000


def test_heads_that_do_not_fit_are_refused(head, tmp_path):
    good = json.loads(head.read_text())
    for change, says in (
        ({"encoder": "0" * 64}, "another encoder"),
        ({"intercepts": [0.0]}, "do not fit"),
        ({"coefficients": [[0.0] * DIM, [0.0]]}, "do not fit"),
        ({"classes": "spam"}, "is not a head"),
    ):
        path = tmp_path / "bad.json"
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(ArtifactError, match=says):
            MiniLMTeacher(str(path))
    with pytest.raises(ArtifactError, match="does not exist"):
        MiniLMTeacher(str(tmp_path / "none.json"))


def test_other_weights_are_refused(monkeypatch):
    monkeypatch.setattr(minilm, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(ArtifactError, match=r"model\.safetensors: has digest 53aa51172d14"):
        MiniLM().embed(["text"])


def test_without_the_extra_it_says_how_to_get_it(head, monkeypatch):
    monkeypatch.setattr(minilm, "PACKAGE", "no_such_package")
    with pytest.raises(ConfigError, match=r"cohobate\[mail\]"):
        MiniLMTeacher(str(head))


@pytest.mark.parametrize(("texts", "labels"), [(TEXTS, TRUTHS[1:]), (SPAM, ["spam"] * 8)])
def test_gold_must_have_two_classes_and_a_label_each(texts, labels, tmp_path):
    with pytest.raises(ConfigError, match="labels"):
        fit_head(texts, labels, tmp_path / "head.json", space="spam@1")


@pytest.mark.parametrize("tokens", [0, 7, 257])
def test_text_lengths_out_of_range(tokens):
    with pytest.raises(ConfigError, match="max_tokens"):
        MiniLM(max_tokens=tokens)


def test_probabilities_survive_large_logits():
    head = Head(encoder="e", max_tokens=8, space="s@1", classes=("a", "b"), coefficients=[[1e4] * 2, [0.0] * 2],
                intercepts=[0.0, 0.0])  # fmt: skip
    rows = head.probabilities(np.array([[1.0, 1.0], [-1.0, -1.0]], dtype=np.float32))
    assert rows.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_its_pooled_vectors_are_a_teacher_of_embeddings():
    from components.contracts.vectors import distance
    from components.teachers.contract import outcomes
    from components.teachers.minilm_embedding import MiniLMEmbedding

    teacher = MiniLMEmbedding(space="minilm@1", max_tokens=16, scale=0.2)
    texts = ["the parcel is late", "my package has not arrived yet", "an orchestra plays a symphony"]
    late, package, music = outcomes(teacher, texts)
    assert len(late.vector) == 384 and (late.task, late.space, late.scale) == ("embedding", "minilm@1", 0.2)
    assert distance(late.vector, package.vector) < 0.6 < distance(late.vector, music.vector)
    assert teacher.digest != MiniLMEmbedding(space="minilm@1", max_tokens=16, scale=0.1).digest
    assert teacher.size_bytes > 10**7 and teacher.label([]) == []
    with pytest.raises(TeacherError, match="reads texts"):
        teacher.label([b"bytes"])
