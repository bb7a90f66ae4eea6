import msgspec
import pytest

from components.contracts.records import Answer, Input, Label, Prediction, SoftLabel
from serving.rollout.evidence import (
    PENDING,
    Answered,
    Audited,
    Failed,
    Pending,
    Reply,
    Teachings,
    Told,
    disagrees,
    failures,
    join,
    observe,
)


def answer(arm="champion", version="1", ok=True, label="a"):
    return Answer(arm=arm, version=version, ok=ok, latency_ms=2.0, label=label if ok else None)


def prediction(served, shadow=None, audited=True, turn=None):
    return Prediction(
        workload="w", request_id="r", input_id="i", key="k", time=1.0, content="c", answer=served, shadow=shadow,
        audited=audited, turn=turn,
    )  # fmt: skip


def taught(label="a", teacher="t@1", payload=b"x", scale=None):
    if scale is None:
        soft = SoftLabel(task="classification", space="s", distribution={label: 1.0})
    else:
        soft = SoftLabel(task="regression", space="m", value=label, scale=scale)
    entry = Input(workload="w", id="i", key="k", time=1.0, payload=payload)
    return Label(key="l", teacher=teacher, soft=soft, input=entry, labelled_at=2.0)


CONTENT = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"


def reply(ok=True, label="a"):
    return Reply(ok=ok, latency_ms=2.0, label=label if ok else None)


def test_the_champions_answer_counts_as_a_request_and_waits_for_its_label():
    seen, waits = observe(prediction(answer()), "1", "2", 0.05, repeat=True)
    assert seen == Answered(id="r", arm="champion", weight=0.05, champion=reply(), repeat=True)
    assert waits == Pending(id="r", content="c", champion="a", weight=0.05)


def test_in_shadow_both_students_are_compared():
    seen, waits = observe(prediction(answer(), answer("candidate", "2", label="b")), "1", "2", 0.0)
    assert seen == Answered(id="r", arm="champion", weight=0.0, champion=reply(), candidate=reply(label="b"))
    assert seen.paired and seen.given_to == "champion"
    assert waits == Pending(id="r", content="c", champion="a", candidate="b", weight=0.0)


@pytest.mark.parametrize(("weight", "label"), [(0.05, None), (0.0, "a")])
def test_a_failed_candidate_is_evidence_though_the_champion_answered(weight, label):
    """In the canary the champion answered in its place: that is no sample of the champion's own inputs."""
    seen, waits = observe(prediction(answer(), answer("candidate", "2", ok=False)), "1", "2", weight)
    assert (seen.candidate, seen.given_to) == (reply(ok=False), "candidate" if weight else "champion")
    assert (waits and waits.champion) == label


@pytest.mark.parametrize("turn", ["champion", "candidate"])
def test_in_a_canary_a_pair_is_compared_whoever_was_served(turn):
    both = {"champion": answer(), "candidate": answer("candidate", "2", label="b")}
    served = both.pop(turn)
    (other,) = both.values()
    for weight in (0.05, None):
        seen, waits = observe(prediction(served, other, turn=turn), "1", "2", weight)
        assert seen.paired and seen.given_to == turn
        assert (seen.champion, seen.candidate) == (reply(), reply(label="b"))
        assert seen.own == ((reply(), None) if turn == "champion" else (None, reply(label="b")))
        assert waits == Pending(id="r", content="c", champion="a", candidate="b", weight=weight)


@pytest.mark.parametrize("bad", ["champion", "candidate"])
@pytest.mark.parametrize("turn", ["champion", "candidate"])
def test_where_one_of_a_pair_failed_the_others_label_is_not_judged(turn, bad):
    both = {"champion": answer(ok=bad != "champion"), "candidate": answer("candidate", "2", ok=bad != "candidate")}
    served = both.pop("champion" if bad == "candidate" else turn)
    (other,) = both.values()
    seen, waits = observe(prediction(served, other, turn=turn), "1", "2", 0.05)
    assert seen.paired and seen.given_to == turn and waits is None


def test_a_version_that_is_not_in_the_rollout_makes_no_pair():
    seen, waits = observe(prediction(answer(), answer("candidate", "9"), turn="champion"), "1", "2", 0.05)
    assert not seen.paired and seen.candidate is None and waits.candidate is None


@pytest.mark.parametrize("served", [answer(version="0"), answer("candidate", "3")])
def test_answers_of_other_versions_say_nothing(served):
    assert observe(prediction(served), "1", "2", 0.0) == (None, None)


def test_an_answer_without_a_label_is_nothing_to_judge():
    seen, given = observe(prediction(answer(ok=False)), "1", "2", 0.05)
    assert seen.champion == reply(ok=False) and given is None


def test_a_label_before_or_after_joins_once():
    teachings = Teachings(10)
    one = Pending(id="r", content=CONTENT, champion="a", candidate="b", weight=0.0)
    assert join([one], teachings, "t@1") == ([], (one,))
    teachings.learn(taught())
    audits, waiting = join([one], teachings, "t@1")
    assert audits == [Audited(id="r", champion=False, candidate=True, weight=0.0, slice="a")] and waiting == ()


def test_another_teachers_label_is_none():
    teachings = Teachings(10)
    teachings.learn(taught(teacher="other@2"))
    assert teachings.of(CONTENT, "t@1") is None


def test_a_regression_disagrees_beyond_two_scales():
    teachings = Teachings(10)
    teachings.learn(taught(label=10.0, scale=1.0))
    (audit,), _ = join([Pending(id="r", content=CONTENT, champion="11.9", candidate="12.1")], teachings, "t@1")
    assert audit == Audited(id="r", champion=False, candidate=True)


def test_memory_is_bounded():
    teachings = Teachings(2)
    for n in range(5):
        teachings.learn(taught(payload=str(n).encode()))
    assert len(teachings) == 2
    _, waiting = join([Pending(id=str(n), content="c") for n in range(PENDING + 5)], teachings, "t@1")
    assert len(waiting) == PENDING and waiting[0].id == "5"


def test_a_replica_that_cannot_load_the_candidate_is_named():
    details = [("r1", {}), ("r2", {"d": "corrupt"}), ("r3", {"other": "x"})]
    assert failures(details, "d") == [Failed(replica="r2", error="corrupt")]


@pytest.mark.parametrize("one", [Answered(id="r", arm="champion"), Audited(id="r"), Failed(replica="r", error="e")])
def test_observations_round_trip_through_json(one):
    assert msgspec.json.decode(msgspec.json.encode(one), type=Answered | Audited | Failed) == one


def test_a_label_of_a_later_epoch_is_of_the_same_teacher():
    teachings = Teachings(10)
    teachings.learn(taught(teacher="t@1#2"))
    assert teachings.of(CONTENT, "t@1").label == "a" and teachings.of(CONTENT, "t@11") is None


def test_an_answer_that_cannot_be_read_is_no_evidence():
    told = SoftLabel(task="embedding", space="s@1", vector=(1.0, 0.0), scale=0.1)
    vector = Told("t", told.label, 0.1, vector=True)
    assert disagrees(told.label, vector) is False
    assert disagrees("lost", vector) is None and disagrees("YQ==", vector) is None
    assert disagrees("9.1", Told("t", "9.0", 1.0)) is False and disagrees("lost", Told("t", "9.0", 1.0)) is None
