import msgspec
import pytest

from components.contracts.errors import ConfigError
from components.contracts.spec import RolloutPolicy, Step
from components.control.intent import ModelRef
from serving.rollout.evidence import Answered, Audited
from serving.rollout.replay import Begun, Looked, Ordered, encode_line, replay
from serving.rollout.step import command, step

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
    answers = tuple(Answered(id=str(i), arm="champion", ok=True, latency_ms=1.0) for i in range(6))
    bad = tuple(Audited(id=str(i), champion=i == 3, candidate=i > 4) for i in range(30))
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
    lenient = msgspec.structs.replace(POLICY, max_extra_disagreement=1.0)
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
