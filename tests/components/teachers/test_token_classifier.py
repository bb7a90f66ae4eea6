import shutil

import pytest

from components.contracts.errors import ArtifactError, ConfigError, TeacherError
from components.contracts.records import spans_text
from components.teachers.contract import check, outcomes
from components.teachers.token_classifier import TokenTeacher
from components.teachers.torch_module import TransformersTeacher
from tests.spans import rows
from tests.token_teacher import save


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("models") / "tiny-ner")


@pytest.fixture
def teacher(folder):
    return TokenTeacher(str(folder), "names@1")


def test_it_finds_the_spans_that_it_was_trained_on(teacher):
    for regime in ("mail", "parcel"):
        test = rows(regime, 40, seed=4)
        said = outcomes(teacher, [payload.decode() for payload, _, _ in test])
        assert sum(s.label == truth for s, (_, _, truth) in zip(said, test, strict=True)) >= 38


def test_its_tokens_are_words_with_the_tags_of_their_first_piece(teacher, folder):
    import torch
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    text = "Is Zürichberg  PX-4471?"
    (soft,) = teacher.label([text])
    assert [text[t.start : t.end] for t in soft.tokens] == ["Is", "Zürichberg", "PX", "-", "4471", "?"]
    encoded = AutoTokenizer.from_pretrained(folder)([text], return_tensors="pt")
    with torch.inference_mode():
        (row,) = AutoModelForTokenClassification.from_pretrained(folder).eval()(**encoded).logits.softmax(-1)
    first = encoded.word_ids(0).index(1)
    assert encoded.word_ids(0).count(1) > 1  # a word in pieces
    expected = {name: p for name, p in zip(teacher.classes, row[first].tolist(), strict=True) if p > 1e-5}
    found = soft.tokens[1].distribution
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-4)


def test_an_answer_does_not_hang_on_the_others(teacher):
    texts = [payload.decode() for payload, _, _ in rows("mail", 20, seed=5)]
    together = teacher.label(texts)
    assert [s.label for s in together] == [teacher.label([t])[0].label for t in texts]
    assert teacher.label([""])[0].tokens == () and teacher.label([]) == []


def test_text_behind_the_last_piece_is_in_no_token(folder):
    teacher = TokenTeacher(str(folder), "names@1", max_tokens=6)
    (soft,) = teacher.label(["a b c d e f g h"])
    assert [(t.start, t.end) for t in soft.tokens] == [(0, 1), (2, 3), (4, 5), (6, 7)]


def test_the_digest_is_another_than_a_classifier_s_and_covers_the_options(folder, transformer):
    first = TokenTeacher(str(folder), "names@1")
    assert first.digest == TokenTeacher(str(folder), "names@1", batch=1).digest and first.name == "tiny-ner"
    others = {TokenTeacher(str(folder), "names@2").digest, TokenTeacher(str(folder), "names@1", max_tokens=8).digest}
    assert len({first.digest, *others}) == 3
    assert TransformersTeacher(str(transformer), "mail@1").task == "classification" and first.task == "tagging"


def test_what_it_cannot_be_made_of_is_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match="must have O"):
        TokenTeacher(str(folder), "names@1", [f"t{i}" for i in range(9)])
    with pytest.raises(ConfigError, match="9 different names"):
        TokenTeacher(str(folder), "names@1", ["O", "PER"])
    with pytest.raises(ArtifactError, match="save_pretrained"):
        TokenTeacher(str(tmp_path), "names@1")
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match="no token classifier"):
        TokenTeacher(str(broken), "names@1")
    with pytest.raises(TeacherError, match=r"payload\.decoder to text"):
        TokenTeacher(str(folder), "names@1").label([b"x"])


def test_tags_that_a_teacher_did_not_declare_are_refused(teacher):
    (soft,) = teacher.label(["Ada Lovelace"])
    check(teacher, [soft])
    teacher.classes = ("O", "B-PER")
    with pytest.raises(TeacherError, match=r"did not declare.*I-PER"):
        check(teacher, [soft])
    assert spans_text(soft.spans) == soft.label
