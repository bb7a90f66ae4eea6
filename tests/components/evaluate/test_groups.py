"""Groups that a student is to treat alike: who is of them, how the gate judges the gap, and what is missing."""

import msgspec
import pytest

from components.contracts.errors import ConfigError
from components.contracts.payload import carrying
from components.contracts.spec import Entity, EntityFeature, Factory, Features, Groups, Limits, Payload, Spec, load_spec
from components.evaluate.evidence import Answer, Compared, Evidence, Judgement, Row, decode, encode
from components.evaluate.groups import grouped
from components.evaluate.judge import demanded, judge, replay
from components.evaluate.measure import flat, measures
from components.evaluate.page import evidence_page

SEX = Groups(field="who.sex", values=("f", "m"), max_accuracy_gap=0.1)
A, B = Answer(label="a", confidence=0.9), Answer(label="b", confidence=0.6)


def rows(group, right, n, *, truth="a", deferred=0, by="sex"):
    return [
        Row(set="new", id=f"{group}{i}", truth=truth, teacher=A, candidate=A if i < right else B,
            groups={by: group} if group else {}, deferred=i < deferred)
        for i in range(n)
    ]  # fmt: skip


def judged(made, groups=SEX, task="classification", **limits):
    asked = Limits(**{"min_rows": 30, "confidence": 0.95, "groups": {"sex": groups}, **limits})
    judgement = Judgement(workload="w", task=task)
    return demanded(Evidence(judgement=judgement, rows=tuple(made)), asked)


def test_a_student_that_treats_groups_alike_passes_and_one_that_does_not_is_rejected():
    fair = judge(judged(rows("f", 285, 300) + rows("m", 290, 300)))
    assert fair.decision == "promote"
    unfair = judge(judged(rows("f", 285, 300) + rows("m", 200, 300)))
    assert unfair.decision == "reject"
    assert unfair.reasons[0].startswith("accuracy_gap[sex] is 0.2833, at most 0.3") and "<= 0.1" in unfair.reasons[0]
    unsure = judge(judged(rows("f", 38, 40) + rows("m", 37, 40)))
    assert unsure.decision == "hold" and "more labels would decide" in unsure.reasons[0]


@pytest.mark.parametrize("few", [0, 1, 29])
def test_too_few_rows_of_a_group_hold_and_say_which(few):
    verdict = judge(judged(rows("f", 285, 300) + rows("m", few, few)))
    assert verdict.decision == "hold"
    assert f"group_truth_rows[sex=m] is {few}; it must be >= 30" in verdict.reasons
    assert "accuracy_gap[sex] was not measured; it must be <= 0.1" in verdict.reasons
    assert [f.outcome for f in verdict.findings if f.measure == "group_truth_rows[sex=f]"] == ["pass"]


def test_rows_without_truth_count_for_agreement_and_not_for_accuracy():
    made = rows("f", 290, 300, truth=None) + rows("m", 290, 300, truth=None)
    assert judge(judged(made)).decision == "hold"
    agreeing = msgspec.structs.replace(SEX, max_accuracy_gap=None, max_agreement_gap=0.1)
    assert judge(judged(made, agreeing)).decision == "promote"


def test_a_third_group_that_is_too_small_cannot_hide_that_two_are_far_apart():
    three = msgspec.structs.replace(SEX, values=("f", "m", "x"))
    assert judge(judged(rows("f", 285, 300) + rows("m", 200, 300) + rows("x", 2, 2), three)).decision == "reject"
    assert judge(judged(rows("f", 285, 300) + rows("m", 285, 300) + rows("x", 2, 2), three)).decision == "hold"


def audited_and_chosen(group, right, audits, chosen):
    made = rows(group, right, audits + chosen)
    return [
        msgspec.structs.replace(row, audit=i < audits, weight=1.0 if i < audits else 0.5) for i, row in enumerate(made)
    ]


@pytest.mark.parametrize("limit", ["max_accuracy_gap", "max_agreement_gap"])
def test_a_group_whose_share_rests_on_too_few_audits_does_not_drop_out_of_a_gap_that_is_looked_at_repeatedly(limit):
    three = Groups(field="who.sex", values=("f", "m", "x"), **{limit: 0.3})
    alike = audited_and_chosen("f", 115, 100, 20) + audited_and_chosen("m", 115, 100, 20)
    few = judged(alike + audited_and_chosen("x", 20, 5, 100), three, looks="repeated")
    verdict = judge(few)
    count = "group_truth_rows" if limit == "max_accuracy_gap" else "group_rows"
    assert verdict.decision == "hold" and f"{count}[sex=x] is 5; it must be >= 30" in verdict.reasons
    enough = alike + audited_and_chosen("x", 115, 100, 20)
    assert judge(judged(enough, three, looks="repeated")).decision == "promote"


def test_evidence_from_before_that_counted_other_rows_of_a_group_has_its_verdict_again():
    few = judged(rows("f", 285, 300) + audited_and_chosen("m", 20, 5, 100), looks="repeated")
    before = msgspec.structs.replace(few, judgement=msgspec.structs.replace(few.judgement, throughout=False))
    assert measures(before)["group_rows[sex=m]"] == 105 and measures(few)["group_rows[sex=m]"] == 5
    assert b"throughout" not in encode(before), "evidence without the word is read so"
    assert replay(encode(before, judge(before)).splitlines()).same is True


def test_deferral_is_limited_beside_accuracy():
    sent = msgspec.structs.replace(SEX, max_deferral_gap=0.1)
    alike = rows("f", 285, 300, deferred=20) + rows("m", 285, 300, deferred=25)
    assert judge(judged(alike, sent)).decision == "promote"
    assert judge(judged(rows("f", 285, 300, deferred=200) + rows("m", 285, 300), sent)).decision == "reject"
    unknown = [msgspec.structs.replace(row, deferred=None) for row in alike]
    assert judge(judged(unknown, sent)).decision == "hold"


def test_without_a_confidence_estimates_are_judged():
    made = rows("f", 38, 40) + rows("m", 37, 40)
    assert judge(judged(made, confidence=None)).decision == "promote"
    assert judge(judged(rows("f", 38, 40) + rows("m", 30, 40), confidence=None)).decision == "reject"


def test_groups_without_a_limit_are_measured_and_demand_nothing():
    bare = Groups(field="who.sex", values=("f", "m"))
    evidence = judged(rows("f", 285, 300) + rows("m", 200, 300) + rows("", 5, 5), bare)
    assert [c.measure for c in evidence.judgement.criteria] == ["rows"]
    found = flat(measures(evidence), 0.95)
    assert found["accuracy_gap[sex]"] == pytest.approx(285 / 300 - 200 / 300)
    assert found["accuracy_gap[sex]_lower"] < found["accuracy_gap[sex]"] < found["accuracy_gap[sex]_upper"]
    assert found["group_accuracy[sex=m]"] == pytest.approx(2 / 3) and found["ungrouped_rows[sex]"] == 5
    assert found["group_rows[sex=f]"] == found["group_truth_rows[sex=f]"] == 300


def test_a_regression_has_a_gap_of_agreement():
    near, far = Answer(value=1.0, scale=1.0), Answer(value=9.0, scale=1.0)
    made = [
        Row(set="new", teacher=near, candidate=near if i < 95 else far, groups={"sex": "f" if i % 2 else "m"})
        for i in range(100)
    ]
    asked = Groups(field="who.sex", values=("f", "m"), max_agreement_gap=0.5)
    verdict = judge(judged(made, asked, task="regression"))
    assert {f.measure: f.outcome for f in verdict.findings}["agreement_gap[sex]"] == "pass"


def test_the_verdict_can_be_had_again_and_other_limits_tried():
    evidence = judged(rows("f", 285, 300) + rows("m", 290, 300))
    lines = encode(evidence, judge(evidence)).splitlines()
    assert decode(lines)[0] == evidence and replay(lines).same is True
    strict = msgspec.structs.replace(SEX, max_accuracy_gap=0.001)
    assert replay(lines, Limits(min_rows=30, confidence=0.95, groups={"sex": strict})).verdict.decision == "hold"
    other = replay(lines, Limits(min_rows=30, confidence=0.95, groups={"age": SEX})).verdict
    assert other.decision == "hold" and "group_truth_rows[age=f] is 0; it must be >= 30" in other.reasons
    edited = [line.replace(b'"sex":"m"', b'"sex":"f"', 1) for line in lines]
    assert replay(edited).same is False, "who is of a group is part of what the verdict rests on"


def test_evidence_from_before_groups_has_the_same_bytes():
    evidence = Evidence(judgement=Judgement(workload="w", task="classification"), rows=(Row(set="new", candidate=A),))
    assert b"groups" not in encode(evidence) and b"deferred" not in encode(evidence)


def test_the_page_shows_each_group_and_what_has_too_few_rows():
    evidence = judged(rows("f", 285, 300) + rows("m", 2, 3) + rows("", 4, 4))
    text = evidence_page(evidence, {}, {}).decode()
    assert "<h2>Groups</h2>" in text and "4 rows are of no group" in text and "too few rows" in text
    assert "0.95 (" in text and "largest gap" in text
    bare = Evidence(judgement=Judgement(workload="w", task="classification"), rows=tuple(rows("f", 1, 1)))
    assert "<h2>Groups</h2>" not in evidence_page(bare, {}, {}).decode()


def spec(groups, *, task="classification", decoder="json", entity=None):
    features = Features(
        factory="components.student.table:TableColumns", options={"columns": [{"name": "x"}]}, entity=entity
    )
    return Spec(
        name="w", task=task, teacher=Factory(factory="t:T"), features=features, payload=Payload(decoder=decoder),
        limits=Limits(groups=groups),
    )  # fmt: skip


def test_an_input_is_of_a_group_by_its_payload_its_entity_or_a_descriptor():
    known = Entity(features=(EntityFeature(name="tier", default="none", type="category", values=("gold",), view="v"),))
    groups = {
        "sex": Groups(field="who.sex", values=("f", "m")),
        "first": Groups(field="list.0", values=("1", "2")),
        "age": Groups(field="age", edges=(30, 60)),
        "tier": Groups(feature="tier", values=("gold", "none")),
        "x": Groups(descriptor="x", edges=(0.5,)),
    }
    payloads = [
        carrying(b'{"x": 1, "who": {"sex": "f"}, "age": 30, "list": [1]}', {"tier": "gold"}),
        carrying(b'{"x": 0, "who": "f", "age": "30", "list": [true, 2]}', {"tier": "tin"}),
        b'{"x": 0.4, "who": {"sex": "other"}, "list": []}',
    ]
    assert grouped(spec(groups, entity=known), payloads) == [
        {"sex": "f", "first": "1", "age": "30 to 60", "tier": "gold", "x": "0.5 and above"},
        {"x": "below 0.5"},
        {"x": "below 0.5"},
    ]
    assert grouped(spec({}), payloads) == [{}, {}, {}]


def test_compared_groups_are_those_of_the_limits():
    assert judged([], SEX).judgement.groups == {"sex": Compared(names=("f", "m"), min_rows=30)}
    own = msgspec.structs.replace(SEX, min_rows=7)
    assert judged([], own).judgement.groups["sex"].min_rows == 7


@pytest.mark.parametrize(
    ("groups", "more", "said"),
    [
        ({"values": ["f", "m"]}, {}, "one of field, feature and descriptor"),
        ({"field": "a", "descriptor": "b", "values": ["f", "m"]}, {}, "one of field, feature and descriptor"),
        ({"field": "a"}, {}, "values, or edges"),
        ({"field": "a", "values": ["f", "m"], "edges": [1]}, {}, "values, or edges"),
        ({"field": "a", "values": ["f"]}, {}, "two groups or more"),
        ({"field": "a", "values": ["f", "f"]}, {}, "two groups or more"),
        ({"field": "a", "edges": [2, 1]}, {}, "in rising order"),
        ({"field": "a", "values": ["f", "m"]}, {"payload": {"decoder": "text"}}, "have no fields"),
        ({"feature": "a", "values": ["f", "m"]}, {}, "must be one of features.entity.features: there are none"),
        ({"field": "a", "values": ["f", "m"], "max_accuracy_gap": 0.1}, {"task": "regression"}, "has no accuracy"),
        ({"field": "a", "values": ["f", "m"], "max_accuracy_gap": 1.1}, {}, "max_accuracy_gap"),
    ],
)
def test_groups_that_cannot_be_are_refused_by_the_field(tmp_path, groups, more, said):
    path = tmp_path / "spec.yaml"
    content = {
        "name": "w", "teacher": {"factory": "t:T"}, "features": {"factory": "f:F"}, "payload": {"decoder": "json"},
        "limits": {"groups": {"sex": groups}},
    }  # fmt: skip
    path.write_bytes(msgspec.yaml.encode({**content, **more}))
    with pytest.raises(ConfigError, match=said):
        load_spec(path)
