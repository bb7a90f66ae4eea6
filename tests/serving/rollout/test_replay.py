import msgspec
import pytest

from components.contracts.errors import ConfigError
from components.contracts.spec import RolloutPolicy, Step
from components.control.intent import ModelRef
from serving.rollout.evidence import Audited
from serving.rollout.replay import Begun, Looked, Ordered, encode_line, policy_of, replay
from serving.rollout.step import command, step
from tests.serving.rollout.made import pair

POLICY = RolloutPolicy(steps=(Step(weight=0.0, min_requests=5, min_candidate=5), Step(weight=0.5, min_candidate=5)))


def ref(version):
    return ModelRef(version=version, uri="u", digest=f"d{version}", snapshot="s", teacher="t@1")


def recorded():
    """A live course of decisions, and the journal that was written beside it."""
    begun = Begun(
        at=1.0, id="r", workload="w", candidate=ref("2"), champion=ref("1"), policy=POLICY, audit_share=1.0,
        forced=False, skip_shadow=False, reason="test", actor="me",
    )  # fmt: skip
    lines, (state, actions) = [begun], begun.state()
    decisions = list(actions)
    answers = tuple(pair(id=str(i)) for i in range(6))
    bad = tuple(Audited(id=str(i), champion=i == 3, candidate=i > 4, weight=0.0) for i in range(30))
    for at, seen in ((2.0, answers), (3.0, bad[:4]), (4.0, bad[4:6])):
        lines.append(Looked(at=at, seen=seen))
        state, actions = step(state, seen, at)
        decisions += actions
    lines.append(Ordered(at=5.0, order="o", verb="pause", actor="me", reason="look"))
    state, actions = command(state, "pause", 5.0, order="o", actor="me", reason="look")
    decisions += actions
    lines.append(Looked(at=6.0, seen=bad[6:]))
    state, actions = step(state, bad[6:], 6.0)
    return [encode_line(line) for line in lines], [*decisions, *actions], state


def test_a_replay_decides_the_same_byte_for_byte():
    lines, decisions, state = recorded()
    done = replay(lines)
    assert msgspec.json.encode(done.decisions) == msgspec.json.encode(tuple(decisions))
    assert [a.verb for a in done.decisions] == ["start", "step", "pause", "rollback"]
    assert (done.phase, done.reason, done.requests) == (state.phase, state.reason, 6)


def test_another_policy_is_tried_on_the_same_evidence():
    lines, _, _ = recorded()
    lenient = msgspec.structs.replace(POLICY, max_extra_disagreement=1.0, max_slice_disagreement=1.0)
    assert replay(lines, lenient).phase == "paused"
    one_step = msgspec.structs.replace(POLICY, steps=POLICY.steps[:1])
    done = replay(lines, one_step)
    assert done.phase == "promoted" and "cannot pause" in done.refused[0]


def test_evidence_that_is_changed_is_decided_on_anew():
    lines, _, _ = recorded()
    assert replay(lines[:-1]).phase == "paused"


@pytest.mark.parametrize("lines", [[], [b"{}"], [encode_line(Looked(at=1.0))], [b"not json"]])
def test_what_is_no_journal_is_refused(lines):
    with pytest.raises(ConfigError, match="journal"):
        replay(lines)


def test_an_undo_and_a_retry_are_replayed():
    lines, _, state = recorded()
    lines.append(encode_line(Ordered(at=7.0, order="p", verb="retry", actor="me", reason="again")))
    lines.append(encode_line(Looked(at=8.0, seen=tuple(pair(id=str(i)) for i in range(6)))))
    done = replay(lines)
    assert (state.phase, done.phase, done.requests) == ("rolled_back", "shadow", 12)
    assert [a.verb for a in done.decisions] == ["start", "step", "pause", "rollback", "retry"]


def evidence(*lines):
    return [msgspec.json.encode(line) for line in lines]


def request(time, arm="champion", **fields):
    return {"time": time, "arm": arm, "ok": True, "latency_ms": 2.0, "label": "a", **fields}


OTHER = {"ok": True, "latency_ms": 2.0, "label": "a"}


def test_evidence_of_anybody_begins_a_rollout_at_its_first_line():
    pairs = [request(100.0 + i, other=OTHER, teacher="a", truth="a") for i in range(5)]
    canary = [request(110.0 + i, arm="candidate", teacher="a") for i in range(5)]
    done = replay(evidence(*pairs, *canary), POLICY, audit_share=1.0)
    assert [(a.verb, a.at, a.request) for a in done.decisions] == [
        ("start", 100.0, 0), ("step", 104.0, 5), ("promote", 114.0, 10),
    ]  # fmt: skip
    assert (done.phase, done.candidate_requests) == ("promoted", 5)


def test_evidence_keeps_the_weight_that_it_names():
    """Half of the requests at a share of one half are no mismatch, whatever step the replayed policy is in."""
    policy = msgspec.structs.replace(POLICY, steps=(Step(weight=0.01, min_candidate=10_000),))
    lines = [request(float(i), arm=("champion", "candidate")[i % 2]) for i in range(400)]
    assert "alarm" in [a.verb for a in replay(evidence(*lines), policy).decisions]
    weighed = [line | {"weight": 0.5} for line in lines]
    assert "alarm" not in [a.verb for a in replay(evidence(*weighed), policy).decisions]


def test_evidence_counts_truth_and_slices():
    lines = [request(float(i), other=OTHER | {"label": "b"}, truth="a", slice="s") for i in range(60)]
    done = replay(evidence(*lines), POLICY)
    assert done.phase == "rolled_back" and "truth" in done.reason


@pytest.mark.parametrize(
    "line", [request(1.0) | {"colour": "red"}, {"time": 1.0, "arm": "champion"}, request(1.0, arm="third")]
)
def test_evidence_that_is_none_is_refused(line):
    with pytest.raises(ConfigError, match="line 1"):
        replay(evidence(line), POLICY)


def test_evidence_needs_a_policy():
    with pytest.raises(ConfigError, match="policy"):
        replay(evidence(request(1.0)))


def test_a_policy_is_read_from_its_fields_or_from_a_spec():
    assert policy_of(b"alpha: 0.01", "p").alpha == 0.01
    assert policy_of(b"name: x\nrollout: {alpha: 0.02}", "p").alpha == 0.02
    for text in (b"alpha: 2", b"colour: red", b"steps: [{weight: 0.5}, {weight: 0.1}]", b"[1, 2"):
        with pytest.raises(ConfigError):
            policy_of(text, "p")


@pytest.mark.parametrize("weight", [10, 1.0001, -0.1, 5])
def test_a_share_of_requests_out_of_range_is_refused(weight):
    line = b'{"time": 1.0, "arm": "candidate", "ok": true, "latency_ms": 1.0, "weight": %s}' % str(weight).encode()
    with pytest.raises(ConfigError, match=r"line 1.*\$\.weight"):
        replay([line], POLICY)


@pytest.mark.parametrize("weight", [0, 0.5, 1])
def test_every_share_of_requests_is_taken(weight):
    rows = (("candidate", "true"), ("champion", "true"), ("champion", "false"))
    lines = [
        b'{"time": %d, "arm": "%s", "ok": %s, "latency_ms": 1.0, "label": "a", "teacher": "a", "weight": %s}'
        % (i, arm.encode(), ok.encode(), str(weight).encode())
        for i, (arm, ok) in enumerate(rows * 3)
    ]
    assert replay(lines, POLICY).requests == 9
