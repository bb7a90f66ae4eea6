"""Measures of multilabel, from evidence alone."""

import json

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from components.contracts.errors import ConfigError
from components.contracts.records import SoftLabel, set_text
from components.contracts.spec import Limits
from components.evaluate.evidence import Answer, Evidence, Judgement, Row, decode, encode
from components.evaluate.judge import demanded, judge, replay
from components.evaluate.measure import flat, measures, slice_accuracies
from components.evaluate.page import render
from components.evaluate.sets import per_class

CLASSES = ("late", "lost", "rude", "torn")


def sets(table):
    return [set_text(c for c, has in zip(CLASSES, row, strict=True) if has) for row in table]


def said(text):
    return Answer(label=text, confidence=0.8, entropy=0.4)


def drawn(n=120, wrong=0.1, champion=0.1, seed=0):
    """Truths, and answers to them of which each class is wrong with a chance; the teacher is always right."""
    chance = np.random.default_rng(seed)
    true = chance.random((n, 4)) < 0.35
    mine, theirs = (true ^ (chance.random((n, 4)) < p) for p in (wrong, champion))
    rows = [
        Row(set="new", id=str(i), truth=t, teacher=said(t), candidate=said(a), champion=said(b))
        for i, (t, a, b) in enumerate(zip(sets(true), sets(mine), sets(theirs), strict=True))
    ]
    return rows, true, mine, theirs


def evidence(rows, *, least=1, **limits):
    judgement = Judgement(workload="w", task="multilabel", digest="d" * 64, champion="c", min_rows=least)
    return demanded(Evidence(judgement=judgement, rows=tuple(rows)), Limits(min_rows=least, **limits))


def test_measures_are_those_of_scikit_learn():
    rows, true, mine, theirs = drawn()
    found = flat(measures(evidence(rows)), 0.95)
    assert found["accuracy"] == pytest.approx((true == mine).all(axis=1).mean()) == found["agreement"]
    assert found["micro_f1"] == pytest.approx(f1_score(true, mine, average="micro"))
    assert found["macro_f1"] == pytest.approx(f1_score(true, mine, average="macro"))
    champion = f1_score(true, theirs, average="micro")
    assert found["micro_f1_loss"] == pytest.approx(champion - f1_score(true, mine, average="micro"))
    assert found["hamming_agreement"] == pytest.approx((true == mine).mean())
    for name in ("micro_f1", "macro_f1", "micro_f1_loss", "hamming_agreement"):
        assert found[f"{name}_lower"] < found[name] < found[f"{name}_upper"]


def test_each_class_has_its_precision_and_recall():
    rows, true, mine, _ = drawn()
    found = {of.name: of for of in per_class(rows)}
    assert list(found) == list(CLASSES)
    for i, name in enumerate(CLASSES):
        of, pair = found[name], (true[:, i], mine[:, i])
        assert of.rows == true[:, i].sum() and of.f1 == pytest.approx(f1_score(*pair))
        assert of.precision.value == pytest.approx(precision_score(*pair))
        assert of.recall.value == pytest.approx(recall_score(*pair))
    assert per_class([]) == []
    (never,) = per_class([Row(set="new", truth='["late"]', candidate=said("[]"))])
    assert (never.precision, never.recall.value, never.f1) == (None, 0.0, 0.0)


def test_a_row_is_in_the_slice_of_every_class_that_it_has():
    rows, true, mine, _ = drawn()
    found = slice_accuracies(rows, "multilabel")
    right = (true == mine).all(axis=1)
    assert found == {c: pytest.approx(right[true[:, i]].mean()) for i, c in enumerate(CLASSES)}
    losses = {n for n in measures(evidence(rows)) if n.startswith("slice_loss[")}
    assert losses == {f"slice_loss[{c}]" for c in CLASSES}


def test_fewer_rows_than_are_needed_and_sets_that_are_all_empty_say_nothing():
    rows, *_ = drawn(n=20)
    found = measures(evidence(rows, least=30))
    assert [found[n] for n in ("micro_f1", "macro_f1", "micro_f1_loss", "hamming_agreement")] == [None] * 4
    empty = [Row(set="new", truth="[]", teacher=said("[]"), candidate=said("[]")) for _ in range(40)]
    seen = evidence(empty, least=30, confidence=0.9, min_micro_f1=0.5)
    assert judge(seen).decision == "hold" and measures(seen)["accuracy"].value == 1.0


def test_inputs_without_a_class_are_no_evidence_of_f1():
    empty, one = said("[]"), said('["late"]')
    rows = [Row(set="new", truth="[]", teacher=empty, candidate=empty, champion=empty)] * 199
    rows += [Row(set="new", truth='["late"]', teacher=one, candidate=one, champion=one)]
    seen = evidence(rows, least=30, confidence=0.95, min_micro_f1=0.9, max_micro_f1_loss=0.05)
    found = measures(seen)
    assert [found[n] for n in ("micro_f1", "macro_f1", "micro_f1_loss")] == [None] * 3 and judge(
        seen
    ).decision == "hold"
    assert found["hamming_agreement"].n == 200


@pytest.mark.parametrize(
    ("wrong", "limits", "decision"),
    [
        (0.02, {"min_micro_f1": 0.8}, "promote"),
        (0.4, {"min_micro_f1": 0.8}, "reject"),
        (0.02, {"max_micro_f1_loss": 0.1}, "promote"),
        (0.3, {"max_micro_f1_loss": 0.1}, "reject"),
    ],
)
def test_a_limit_of_f1_is_judged_by_its_bound(wrong, limits, decision):
    rows, *_ = drawn(n=300, wrong=wrong, champion=0.02)
    seen = evidence(rows, least=30, confidence=0.9, **limits)
    verdict = judge(seen)
    assert verdict.decision == decision
    assert all(f.bound is not None for f in verdict.findings if "f1" in f.measure)
    assert replay(encode(seen, verdict).splitlines()).same is True


def test_a_loss_of_f1_is_not_demanded_without_a_champion():
    rows, *_ = drawn(n=60)
    alone = Evidence(judgement=Judgement(workload="w", task="multilabel"), rows=tuple(rows))
    made = demanded(alone, Limits(min_rows=30, max_micro_f1_loss=0.1, min_micro_f1=0.1)).judgement.criteria
    assert [c.measure for c in made] == ["rows", "micro_f1"]


@pytest.mark.parametrize("text", ["late", '["torn", "late"]', '["late", "late"]', "[1]", '{"a": 1}', '["late","torn"]'])
@pytest.mark.parametrize("field", ["truth", "candidate"])
def test_evidence_that_is_no_set_is_refused(text, field):
    row = {"kind": "row", "set": "new", "truth": "[]", "candidate": {"label": "[]"}}
    row[field] = text if field == "truth" else {"label": text}
    lines = [encode(evidence([])).splitlines()[0], json.dumps(row).encode()]
    with pytest.raises(ConfigError, match="JSON array of their sorted names"):
        decode(lines)


def test_the_page_has_every_class_with_its_bounds_and_no_markup_of_theirs():
    rows, *_ = drawn(n=80)
    rows = [Row(set="new", truth='["<b>"]', teacher=said("[]"), candidate=said('["<b>"]')), *rows]
    seen = evidence(rows, least=30, confidence=0.9, min_micro_f1=0.5)
    text = render(seen, judge(seen), {}, {}, []).decode()
    assert "<th>precision</th>" in text and "<h2>Classes</h2>" in text and "<h2>Reliability</h2>" in text
    assert all(f"<td class=number>{name}</td>" in text for name in CLASSES)
    assert "&lt;b&gt;" in text and "<b>" not in text


def test_an_answer_s_label_is_its_set():
    found = Answer.of(SoftLabel.multilabel("s", ("b", "a", "c"), [0.9, 0.5, 0.2]))
    assert found.label == '["a", "b"]' and found.confidence == pytest.approx(0.9 * 0.5 * 0.8)


def test_f1_is_measured_of_one_look_alone():
    rows, *_ = drawn(n=60)
    once, often = (measures(evidence(rows, looks=looks)) for looks in ("once", "repeated"))
    for name in ("micro_f1", "macro_f1", "micro_f1_loss", "hamming_agreement"):
        assert once[name] is not None and often[name] is None
