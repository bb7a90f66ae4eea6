"""Spans in the gate: their measures, the verdict by them, and the page that shows them."""

import math
import random

import msgspec
import pytest

from components.contracts.records import SoftLabel, Span, Token, spans_text
from components.contracts.spec import Limits
from components.evaluate.evidence import Answer, Evidence, Judgement, Row, decode, encode
from components.evaluate.judge import demanded, judge, replay
from components.evaluate.measure import measures
from components.evaluate.membership import loss_of
from components.evaluate.page import evidence_page
from drift.ratio import Ratio, RatioLoss

ADA, LONDON, ACME = (0, 3, "PER"), (7, 13, "LOC"), (20, 24, "ORG")


def text(*spans):
    return spans_text(Span(start=s, end=e, label=k) for s, e, k in spans)


def said(*spans, sure=0.9):
    return Answer(label=text(*spans), confidence=sure, entropy=0.1)


def row(candidate, truth=(), teacher=None, champion=None, set="new"):
    return Row(
        set=set,
        truth=None if truth is None else text(*truth),
        teacher=said(*(truth if teacher is None else teacher)),
        candidate=said(*candidate),
        champion=None if champion is None else said(*champion),
    )


def evidence(rows, limits=None, champion=None):
    made = Evidence(
        judgement=Judgement(workload="w", task="tagging", digest="d", champion=champion), rows=tuple(rows)
    )  # fmt: skip
    return demanded(made, limits or Limits(min_rows=2))


def test_spans_count_by_their_boundaries_and_kind_and_texts_as_a_whole():
    rows = [
        row([ADA, LONDON], truth=[ADA, LONDON]),
        row([ADA, (7, 12, "LOC")], truth=[ADA, LONDON]),  # a boundary is wrong
        row([(0, 3, "ORG")], truth=[ADA]),  # a kind is wrong
        row([], truth=[]),
    ]
    found = measures(evidence(rows, Limits(min_rows=1)))
    assert isinstance(found["span_f1"], Ratio) and found["span_f1"].value == pytest.approx(2 * 3 / (5 + 5))
    assert (found["span_f1"].n, found["rows"], found["truth_rows"]) == (3, 4.0, 4.0)  # one has no span
    assert found["span_f1[PER]"].value == pytest.approx(2 * 2 / (2 + 3))
    assert found["span_f1[LOC]"].value == 0.5 and found["span_f1[ORG]"].value == 0.0
    assert found["accuracy"].value == 0.5 and found["teacher_span_f1"].value == 1.0
    assert found["span_agreement"].value == found["span_f1"].value and found["agreement"].value == 0.5
    assert found["ece"] is not None and "worst_slice_accuracy" not in found
    assert not [name for name in found if name.startswith("slice_loss")]


def test_of_what_is_not_known_or_too_few_there_is_no_measure():
    found = measures(evidence([row([ADA], truth=None, teacher=[ADA])] * 5))
    assert found["span_f1"] is None and found["span_f1_loss"] is None and found["span_agreement"].value == 1.0
    assert measures(evidence([row([ADA], truth=[ADA])], Limits(min_rows=2)))["span_f1"] is None
    none = measures(evidence([row([], truth=[])] * 5))
    assert none["span_f1"] is None and none["accuracy"].value == 1.0


def test_the_drop_is_the_champion_s_f1_less_the_candidate_s_on_the_same_texts():
    rows = [row([ADA], truth=[ADA, LONDON], champion=[ADA, LONDON])] * 4 + [row([ADA], truth=[ADA])]
    found = measures(evidence(rows))
    assert isinstance(found["span_f1_loss"], RatioLoss)
    assert found["span_f1_loss"].value == pytest.approx(1.0 - 2 * 4 / (4 + 8)) and found["span_f1_loss"].n == 4


def test_texts_without_a_span_are_no_evidence_of_f1():
    rows = [row([], truth=[], champion=[])] * 199 + [row([ADA], truth=[ADA], champion=[ADA])]
    limits = Limits(min_rows=10, confidence=0.95, min_span_f1=0.9, max_span_f1_loss=0.05)
    few = measures(evidence(rows, limits, "c"))
    assert [few[name] for name in ("span_f1", "span_f1[PER]", "span_agreement", "span_f1_loss")] == [None] * 4
    assert judge(evidence(rows, limits, "c")).decision == "hold"
    lone = measures(evidence(rows, Limits(min_rows=1), "c"))
    assert lone["span_f1"].value == 1.0 and lone["span_f1"].bound("lower", 0.95) <= 0.05  # as one of one


LIMITS = Limits(min_rows=10, confidence=0.9, min_span_f1=0.8, min_span_agreement=0.8, max_span_f1_loss=0.1)
GOOD = [row([ADA, LONDON], truth=[ADA, LONDON], champion=[ADA, LONDON])] * 60
BAD = [row([ADA], truth=[ADA, LONDON], champion=[ADA, LONDON])] * 60


def test_the_gate_promotes_holds_and_rejects_by_them():
    assert judge(evidence(GOOD, LIMITS, "c")).decision == "promote"
    held = judge(evidence(GOOD[:11], LIMITS, "c"))
    assert held.decision == "hold" and {f.measure for f in held.findings if f.outcome == "missing"} >= {"span_f1_loss"}
    rejected = judge(evidence(BAD, LIMITS, "c"))
    failed = {f.measure for f in rejected.findings if f.outcome == "fail"}
    assert rejected.decision == "reject" and failed == {"span_f1", "span_agreement", "span_f1_loss"}
    assert any("span_f1 is 0.6667, at least" in reason for reason in rejected.reasons)


def test_without_a_champion_the_drop_is_not_demanded_and_without_truth_there_is_no_pass():
    first = [msgspec.structs.replace(r, champion=None) for r in GOOD]
    assert judge(evidence(first, LIMITS)).decision == "promote"
    unknown = [msgspec.structs.replace(r, truth=None) for r in GOOD]
    assert judge(evidence(unknown, LIMITS)).decision == "hold"


def test_a_verdict_is_had_again_byte_for_byte():
    made = evidence(BAD + GOOD, LIMITS, "c")
    lines = encode(made, judge(made)).splitlines()
    assert decode(lines)[0] == made and replay(lines).same is True
    looser = msgspec.structs.replace(LIMITS, min_span_f1=0.1, min_span_agreement=0.1, max_span_f1_loss=0.9)
    assert replay(lines, looser).verdict.decision == "promote"


def test_the_page_shows_spans_by_kind_beside_champion_and_teacher():
    rows = [row([ADA, LONDON], truth=[ADA, LONDON], champion=[ADA])] * 20
    rows += [row([ADA], truth=[ADA, ACME], champion=[ADA, ACME])] * 20
    rows += [row([ADA], truth=[ADA], champion=[ADA], set="regime window 1")] * 20
    page = evidence_page(evidence(rows, LIMITS, "c"), {}, {}).decode()
    assert "<h2>Spans</h2>" in page and "labels on the new holdout" not in page
    for cell in ("ORG", "0.8571", "accuracy on older regimes", "confidence and what came true"):
        assert cell in page, cell
    plain = Evidence(judgement=Judgement(workload="w", task="classification"), rows=())
    assert "<h2>Spans</h2>" not in evidence_page(plain, {}, {}).decode()


def test_how_far_an_answer_is_from_what_was_to_be_learnt_goes_by_the_student_s_tokens():
    def soft(*parts):
        tokens = tuple(Token(start=s, end=e, distribution={"B-X": p, "O": 1 - p}) for s, e, p in parts)
        return SoftLabel(task="tagging", space="s", tokens=tokens)

    student = soft((0, 2, 0.5), (3, 5, 0.5))
    assert loss_of(soft((0, 2, 0.5), (3, 5, 0.5)), student) == pytest.approx(0.0)
    assert loss_of(soft((0, 2, 1.0), (3, 5, 0.0)), student) == pytest.approx(0.6931, abs=1e-4)
    assert loss_of(soft((0, 5, 0.0)), student) == pytest.approx(0.6931, abs=1e-4)
    assert loss_of(soft(), soft()) == 0.0


def drawn(chance, n, level):
    """Texts of up to three spans, each of which is found with the chance ``level``, or another is said instead."""
    rows = []
    for _ in range(n):
        truth = [ADA, LONDON, ACME][: chance.randint(0, 3)]
        rows.append(row([s if chance.random() < level else (s[0] + 1, s[1], s[2]) for s in truth], truth=truth))
    return rows


@pytest.mark.parametrize("level", [0.6, 0.9])
def test_the_bounds_are_beyond_the_truth_as_seldom_as_they_say(level):
    """F1 of such a model is ``level``; of 300 samples 5 % and three deviations of chance may have it beyond a bound."""
    chance, beyond = random.Random(0), {"lower": 0, "upper": 0}
    for _ in range(300):
        found = measures(evidence(drawn(chance, 60, level)))["span_f1"]
        beyond["lower"] += found.bound("lower", 0.95) > level
        beyond["upper"] += found.bound("upper", 0.95) < level
    assert max(beyond.values()) <= 300 * 0.05 + 3 * math.sqrt(300 * 0.05 * 0.95)


def test_f1_is_measured_of_one_look_alone():
    once, often = (measures(evidence(GOOD, Limits(min_rows=10, looks=looks), "c")) for looks in ("once", "repeated"))
    for name in ("span_f1", "span_agreement", "teacher_span_f1", "span_f1_loss", "span_f1[PER]"):
        assert once[name] is not None and often[name] is None
