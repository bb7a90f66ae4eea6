import io

import numpy as np
import pytest
from PIL import Image as pillow

from components.contracts.errors import RecordError
from components.contracts.records import SoftLabel
from components.contracts.spec import Disturbance
from components.distill.data import Rows
from components.evaluate.evidence import Answer
from components.evaluate.robustness import attack_rows, noise_rows

DISTURBANCE = Disturbance(rows=5, strength=0.2, queries=30)


def soft(share):
    return SoftLabel.of("s@1", ("lower", "upper"), [share, 1.0 - share])


class Brittle:
    """Says how much of a text is lower case."""

    def __init__(self):
        self.asked = 0

    def predict_decoded(self, payloads):
        self.asked += len(payloads)
        return [soft(sum(c.islower() for c in p) / max(1, sum(c.isalpha() for c in p))) for p in payloads]


def made(payloads, label=0.9):
    return Rows(payloads=[b"x"] * len(payloads), soft=[soft(label)] * len(payloads), truth=[None] * len(payloads))


def test_noise_finds_what_a_student_cannot_stand():
    texts = ["plain words in lower case"] * 8
    found = noise_rows(Brittle(), made(texts), texts, DISTURBANCE, 0)
    by = {name: [r.candidate.label for r in found if r.set == f"noise {name}"] for name in ("typos", "case")}
    assert set(by["typos"]) == {"lower"} and len(by["typos"]) == 5
    assert "upper" in by["case"]
    assert {r.champion.label for r in found} == {r.teacher.label for r in found} == {"lower"}
    assert noise_rows(Brittle(), made(texts), texts, DISTURBANCE, 0) == found
    assert noise_rows(Brittle(), made([]), [], DISTURBANCE, 0) == []


def test_the_search_finds_it_within_its_budget():
    texts = ["plain words in lower case"] * 3
    student = Brittle()
    found = attack_rows(student, made(texts), texts, DISTURBANCE, 0)
    assert {r.candidate.label for r in found} == {"upper"} and {r.set for r in found} == {"attack"}
    assert student.asked <= 3 + 3 * DISTURBANCE.queries
    none = attack_rows(Brittle(), made(texts), texts, Disturbance(rows=5, queries=1, strength=1e-9), 0)
    assert len(none) == 3


class Picky(Brittle):
    error: type[Exception] = RecordError

    def predict_decoded(self, payloads):
        if any(p != "clean" for p in payloads):
            raise RecordError("bad", "no") if self.error is RecordError else self.error("no")
        return super().predict_decoded(payloads)


@pytest.mark.parametrize(("error", "kept"), [(RecordError, 0), (TypeError, 5)])
def test_what_is_refused_is_left_out_and_what_breaks_the_student_is_no_agreement(error, kept):
    student = Picky()
    student.error = error
    found = noise_rows(student, made(["clean"] * 5), ["clean"] * 5, Disturbance(rows=5, strength=1.0), 0)
    broken = [r for r in found if r.set == "noise case" and r.candidate != r.champion]
    assert {r.candidate for r in broken} <= {Answer()}
    assert (len([r for r in found if r.candidate == Answer()]) > 0) == bool(kept)


def grey(level):
    out = io.BytesIO()
    pillow.new("L", (8, 8), level).save(out, "PNG")
    return out.getvalue()


class Photometer(Brittle):
    """Says how light an image is."""

    def predict_decoded(self, payloads):
        return [
            soft(0.9 if len(p) == 50 else float(np.mean(pillow.open(io.BytesIO(p)).convert("L"))) / 255)
            for p in payloads
        ]


def test_images_are_disturbed_as_images_and_those_that_cannot_be_are_left_out():
    images = [grey(136)] * 30
    found = noise_rows(Photometer(), made(images), images, Disturbance(rows=40, strength=0.02), 0)
    by = {name: [r.candidate.label for r in found if r.set == f"noise {name}"] for name in {r.set[6:] for r in found}}
    assert set(by) == {"pixel_noise", "blur", "compression", "brightness"} and all(len(x) == 30 for x in by.values())
    assert set(by["blur"]) == set(by["compression"]) == {"lower"} and set(by["brightness"]) == {"lower", "upper"}
    broken = [*images, grey(136)[:50]]  # which the student answers, but nothing can disturb
    again = noise_rows(Photometer(), made(broken), broken, Disturbance(rows=40, strength=0.02), 0)
    assert again == found
    assert len(attack_rows(Photometer(), made(broken[-2:]), broken[-2:], DISTURBANCE, 0)) == 2


def test_the_search_makes_the_teacher_s_set_less_likely():
    class Sets(Brittle):
        def predict_decoded(self, payloads):
            return [SoftLabel.multilabel("s", ("lower", "text"), [s.distribution.get("lower", 0.0), 0.9])
                    for s in super().predict_decoded(payloads)]  # fmt: skip

    texts = ["plain words in lower case"] * 3
    taught = SoftLabel.multilabel("s", ("lower", "text"), [0.9, 0.9])
    rows = Rows(payloads=[b"x"] * 3, soft=[taught] * 3, truth=[None] * 3)
    found = attack_rows(Sets(), rows, texts, DISTURBANCE, 0)
    assert {r.candidate.label for r in found} == {'["text"]'} and {r.teacher.label for r in found} == {taught.label}
