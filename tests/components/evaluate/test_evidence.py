import dataclasses

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.contracts.errors import ConfigError
from components.contracts.records import SoftLabel
from components.contracts.spec import Limits
from components.evaluate.evidence import Answer, Evidence, Judgement, Row, Value, decode, encode
from components.evaluate.judge import demanded, judge, replay
from drift.gate import assess

LABELS = st.sampled_from(["a", "b", "c"])
ANSWERS = st.builds(Answer, label=LABELS, confidence=st.floats(0, 1), entropy=st.floats(0, 5))
ROWS = st.builds(
    Row, set=st.sampled_from(["new", "regime window 1"]), weight=st.floats(0.1, 10), truth=st.none() | LABELS,
    teacher=ANSWERS, candidate=ANSWERS, champion=st.none() | ANSWERS,
)  # fmt: skip
LIMITS = Limits(
    min_rows=5, confidence=0.8, min_accuracy=0.4, min_agreement=0.3, max_loss=0.3, max_slice_loss=0.5,
    max_forgetting=0.4, max_ece=0.5, max_p99_ms=5.0,
)  # fmt: skip


def evidence(rows=(), values=(), **more):
    return Evidence(judgement=Judgement(workload="w", task="classification", **more), rows=tuple(rows), values=values)


@settings(max_examples=20, deadline=None)
@given(st.lists(ROWS, max_size=25), st.floats(0, 10) | st.none())
def test_any_evidence_comes_back_and_gives_the_same_verdict_byte_for_byte(rows, p99):
    made = demanded(evidence(rows, (Value(measure="p99_ms", value=p99),), champion="x"), LIMITS)
    data = encode(made, judge(made))
    back, _ = decode(data.splitlines())
    assert back == made and encode(back, judge(back)) == data
    done = replay(data.splitlines())
    assert done.same is True and done.verdict == judge(made)


def good(n=60):
    one = Answer(label="a", confidence=0.9, entropy=0.3)
    return [Row(set="new", truth="a", teacher=one, candidate=one, champion=one)] * n


def test_a_changed_row_is_seen():
    made = demanded(evidence(good()), LIMITS)
    data = encode(made, judge(made)).replace(b'"truth":"a"', b'"truth":"b"', 40)
    assert replay(data.splitlines()).same is False


def test_other_limits_can_be_tried_on_it():
    made = demanded(evidence(good()), Limits(min_rows=5, min_accuracy=0.5))
    lines = encode(made, judge(made)).splitlines()
    assert replay(lines).verdict.decision == "promote"
    strict = replay(lines, Limits(min_rows=5, min_accuracy=0.99, confidence=0.95))
    assert strict.verdict.decision == "hold" and strict.same is None


def test_evidence_of_ones_own_needs_no_verdict():
    lines = encode(demanded(evidence(good()), LIMITS)).splitlines()
    done = replay(lines)
    assert done.recorded is False and done.same is None


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "must begin"),
        ([b"{}"], "line 1"),
        ([b"not json"], "line 1"),
        ([b'{"kind":"value","measure":"x","value":1}'], "first line"),
        ([b'{"kind":"evaluation","workload":"w","task":"classification"}'] * 2, "line 2"),
        ([b'{"kind":"evaluation","workload":"w","task":"classification","schema":2}'], "line 1"),
        (
            [b'{"kind":"evaluation","workload":"w","task":"classification","criteria":[{"measure":"x"}]}'],
            "has no limit",
        ),
    ],
)
def test_what_is_not_evidence_is_refused_and_the_line_named(lines, said):
    with pytest.raises(ConfigError, match=said):
        decode(lines)


@pytest.mark.parametrize(
    "text",
    ["PER", "[[0,4,1]]", '[["0","4","PER"]]', '[[5, 9, "LOC"], [0, 4, "PER"]]', '[[0, 4, "PER"], [2, 6, "LOC"]]'],
)
@pytest.mark.parametrize("at", ["truth", "teacher", "candidate", "champion"])
def test_spans_that_are_none_are_refused_and_the_line_named(at, text):
    good = '[[0, 4, "PER"], [5, 9, "LOC"]]'
    said = {name: {"label": good} for name in ("teacher", "candidate", "champion")} | {"truth": good}
    first = b'{"kind":"evaluation","workload":"w","task":"tagging"}'
    row = {"kind": "row", "set": "new", **said}
    assert decode([first, msgspec.json.encode(row)])[0].rows[0].truth == good
    wrong = row | {at: text if at == "truth" else {"label": text}}
    with pytest.raises(ConfigError, match=r"line 2.*spans must be the JSON array"):
        decode([first, msgspec.json.encode(wrong)])


def test_an_answer_is_made_from_a_soft_label():
    soft = SoftLabel(task="classification", space="s", distribution={"a": 0.75, "b": 0.25})
    assert Answer.of(soft) == Answer(label="a", confidence=0.75, entropy=soft.entropy)
    assert Answer.of(SoftLabel(task="regression", space="m", value=1.0, scale=2.0)).scale == 2.0


def test_a_student_that_copies_the_teacher_s_mistakes_is_stopped_though_it_agrees_always():
    """The teacher has become wrong of class b; the champion still has it right."""
    a, b = (Answer(label=x, confidence=0.9, entropy=0.3) for x in "ab")
    rows = [Row(set="new", truth="a", teacher=a, candidate=a, champion=a)] * 80
    rows += [Row(set="new", truth="b", teacher=a, candidate=a, champion=b)] * 20
    limits = Limits(min_rows=5, confidence=0.95, min_agreement=0.9, max_loss=0.05, max_slice_loss=0.2)
    made = demanded(evidence(rows, champion="x"), limits)
    found = {f.measure: f for f in judge(made).findings}
    assert judge(made).decision == "reject"
    assert found["agreement"].outcome == "pass" and found["agreement"].value == 1.0
    assert found["loss"].outcome == found["slice_loss[b]"].outcome == "fail"
    agreeing = msgspec.structs.replace(limits, max_loss=None, max_slice_loss=None)
    assert judge(demanded(made, agreeing)).decision == "promote"  # it is the gold gate alone that sees it


def test_the_gate_sees_nothing_that_is_not_in_the_evidence():
    made = demanded(evidence(good()), LIMITS)
    assert dataclasses.asdict(judge(made)) == dataclasses.asdict(judge(decode(encode(made).splitlines())[0]))
    assert assess({}, made.judgement.criteria).decision == "hold"
