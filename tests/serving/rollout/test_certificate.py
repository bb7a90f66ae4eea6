"""The watched promise: what guards, what gives back, and how often either is wrong over whole streams."""

import msgspec
import numpy as np
import pytest

from components.contracts.errors import ConfigError
from components.contracts.records import Answer, Prediction
from components.control.intent import EVERY_ANSWER
from serving.rollout.certificate import Certified, Judged, Seen, certify, follow, limits, replay, told, waiting

MOST, OWN = 0.1, 0.6


def fresh(**changed):
    return certify("7", "d" * 64, **{"most": MOST, "limit": OWN, "at": 1.0, **changed})


def after(state, *seen, at=2.0):
    return follow(state, Seen(at=at, judged=tuple(seen)))


def answers(n, disagrees=False, confidence=0.97, novel=False):
    return [Judged(id=f"r{i}", confidence=confidence, disagrees=disagrees, novel=novel) for i in range(n)]


def test_a_champion_that_keeps_its_promise_is_not_guarded():
    few = [Judged(id=f"r{i}", confidence=0.97, disagrees=i % 40 == 0) for i in range(800)]
    state, steps = after(fresh(), *few)
    assert not steps and not state.guarded and (state.answers, state.disagreements) == (800, 20)
    assert 20 / 800 < state.upper < MOST


def test_one_that_does_not_is_guarded_at_once_and_every_answer_deferred():
    state, steps = after(fresh(), *answers(2_000), *answers(20, disagrees=True), at=9.0)
    assert [s.kind for s in steps] == ["guard"] and steps[0].limit == EVERY_ANSWER
    assert state.guarded and state.guarded_at == 9.0 and steps[0].number == 1
    assert "shown to be above 0.1, every answer is deferred" in steps[0].reason


def test_what_is_deferred_anyway_says_nothing():
    low, novel = answers(300, disagrees=True, confidence=0.59), answers(300, disagrees=True, novel=True)
    state, steps = after(fresh(), *low, *novel)
    assert not steps and state.answers == 0


def test_answers_are_given_again_the_surest_first_and_the_last_ends_the_guard():
    state, _ = after(fresh(), *answers(20, disagrees=True))
    state, steps = after(state, *answers(600, confidence=0.995), at=5.0)
    given = [s.limit for s in steps]
    assert given == list(limits(OWN))[1:] and [s.kind for s in steps] == ["relax"] * 4 + ["release"]
    assert not state.guarded and state.guarded_at is None and "own limit holds again" in state.last.reason


def test_a_limit_is_not_given_back_on_the_word_of_surer_answers_than_it_gives():
    state, _ = after(fresh(), *answers(20, disagrees=True))
    mixed = [j for pair in zip(answers(400, confidence=0.995), answers(400, True, 0.85), strict=True) for j in pair]
    state, steps = after(state, *mixed)
    assert state.guarded and min(s.limit for s in steps) == 0.9
    assert told(state)["defer_below"] == 0.9 and told(state)["guarded"]


def test_one_that_was_given_back_too_soon_is_taken_again():
    state, _ = after(fresh(), *answers(20, disagrees=True))
    state, _ = after(state, *answers(600, confidence=0.995))
    state, steps = after(state, *answers(40, disagrees=True))
    assert [s.kind for s in steps] == ["guard"] and state.steps == 7


def test_a_version_without_a_certified_limit_gives_nothing_to_watch():
    state, steps = after(fresh(limit=EVERY_ANSWER), *answers(200, disagrees=True, confidence=1.0))
    assert not steps and not state.guarded and state.upper == 1.0


def earning(**changed):
    return fresh(limit=EVERY_ANSWER, earns=True, **changed)


def test_a_version_without_a_certified_limit_earns_one_and_keeps_it_only_as_long_as_it_holds():
    state = earning()
    assert state.guarded and state.guarded_at is None and told(state)["defer_below"] == EVERY_ANSWER
    assert "no limit could be certified" in told(state)["reason"]
    state, steps = after(state, *answers(25, confidence=0.995))
    assert not steps, "29 in a row are the least that show a share to be below 0.1 at 95 %"
    state, steps = after(state, *answers(200, confidence=0.93))
    assert not steps, "surer answers are asked about first"
    state, steps = after(state, *answers(600, confidence=0.995))
    assert [s.limit for s in steps] == [0.99, 0.95, 0.9, 0.8] and {s.kind for s in steps} == {"relax"}
    state, steps = after(state, *answers(50, confidence=0.995))
    assert not steps and state.guarded and told(state)["defer_below"] == 0.8, "there is no limit of its own to go to"
    state, steps = after(state, *answers(400, disagrees=True, confidence=0.85))
    assert (
        [s.kind for s in steps] == ["guard"] and state.guarded_at == 2.0 and state.limits[state.place] == EVERY_ANSWER
    )
    state, _ = after(state, *answers(60, confidence=0.995))
    assert state.guarded_at is None and state.limits[state.place] < 1.0


def test_one_that_disagrees_too_often_earns_nothing():
    """Of streams whose share of disagreement is the promised one, at most 5 % earn a limit: 19 of 200 would not be."""
    chance = np.random.default_rng(7)
    earned = 0
    for _ in range(200):
        wrong = chance.random(400) < MOST
        _, steps = after(earning(), *(Judged(id="r", confidence=0.995, disagrees=bool(w)) for w in wrong))
        earned += bool(steps)
    assert earned < 19


def test_limits_that_share_alpha_wait_for_no_surer_answers_than_there_are():
    state = fresh(limit=EVERY_ANSWER, earns=True, shared=True)
    state, steps = after(state, *answers(200, confidence=0.93))
    assert [s.limit for s in steps] == [0.8], "of what is as sure as 0.9, and of what is as sure as 0.8, it is the same"
    state, steps = after(state, *answers(60, confidence=0.995), *answers(60, disagrees=True, confidence=0.85))
    assert [s.kind for s in steps] == ["guard"]
    pairs = zip(answers(200, disagrees=True, confidence=0.85), answers(200, confidence=0.93), strict=True)
    state, steps = after(state, *(j for pair in pairs for j in pair))
    assert state.limits[state.place] == 0.9, "what disagrees is below it"


@pytest.mark.parametrize("least", [0.8, 0.99])
def test_of_those_that_share_alpha_one_that_disagrees_too_often_earns_nothing(least):
    """As above: the promised share disagrees at every limit, with answers at all of them or at the strictest."""
    chance = np.random.default_rng(11)
    earned = 0
    for _ in range(200):
        wrong, sure = chance.random(300) < MOST, chance.uniform(least, 1.0, 300)
        state = fresh(limit=EVERY_ANSWER, earns=True, shared=True)
        made = [Judged(id="r", confidence=float(c), disagrees=bool(w)) for c, w in zip(sure, wrong, strict=True)]
        earned += bool(after(state, *made)[1])
    assert earned < 19


def test_where_the_stricter_limit_was_shown_its_part_of_alpha_goes_to_the_next():
    """The second limit is given at twice its part, so with fewer answers than it needs alone."""
    counts = []
    for surer in (60, 0):
        state, _ = after(fresh(limit=EVERY_ANSWER, earns=True, shared=True), *answers(surer, confidence=0.9999))
        n = 0
        while state.place < 2:
            state, _ = after(state, *answers(1, confidence=0.96))
            n += 1
        counts.append(n)
    assert counts[0] < counts[1]


ANSWER = Answer(
    arm="champion", version="7", ok=True, latency_ms=1.0, label="a", confidence=0.9, entropy=0.1, novelty=0.04
)


def prediction(audited=True, **changed):
    answer = msgspec.structs.replace(ANSWER, **changed)
    return Prediction(
        workload="w", request_id="r", input_id="i", key="k", time=1.0, content="c", answer=answer, audited=audited
    )


def test_of_predictions_those_count_that_are_audited_and_the_champion_s():
    found = waiting(prediction(), fresh(), 0.05, 4.0)
    assert (found.id, found.content, found.label, found.confidence, found.novel) == ("r", "c", "a", 0.9, True)
    assert found.at == 4.0
    assert not waiting(prediction(), fresh(), None, 4.0).novel and not waiting(prediction(), fresh(), 0.03, 4.0).novel
    assert not waiting(prediction(novelty=None), fresh(), 0.05, 4.0).novel
    others = [{"audited": False}, {"version": "6"}, {"arm": "candidate"}, {"ok": False}, {"confidence": None}]
    assert [waiting(prediction(**other), fresh(), 0.05, 4.0) for other in others] == [None] * 5


def test_while_every_answer_is_deferred_all_of_them_count_and_what_it_said_in_its_rollout():
    state = earning(at=5.0)
    later = {"audited": False}
    at = [msgspec.structs.replace(prediction(**later), time=t) for t in (4.0, 6.0)]
    assert [waiting(p, state, None, 9.0).phase for p in at] == [1, 2]
    assert waiting(msgspec.structs.replace(at[1], audited=True), state, None, 9.0).phase == 0
    beside = msgspec.structs.replace(ANSWER, version="6", confidence=0.5)
    shadow = msgspec.structs.replace(at[0], answer=beside, shadow=ANSWER)
    assert waiting(shadow, state, None, 9.0).confidence == 0.9
    assert waiting(msgspec.structs.replace(shadow, time=6.0), state, None, 9.0) is None, "it is no candidate any more"
    failed = msgspec.structs.replace(shadow, answer=msgspec.structs.replace(beside, ok=False))
    assert waiting(failed, state, None, 9.0) is None, "it was asked for another's failure"
    state, _ = after(state, *answers(80, confidence=0.995))
    assert state.place > 0 and waiting(at[1], state, None, 9.0) is None, "those that are given are audited"
    guarded, _ = after(fresh(), *answers(20, disagrees=True))
    assert waiting(at[1], guarded, None, 9.0, 7.0) is None, "the replicas had not heard of it"
    assert waiting(at[1], guarded, None, 9.0, 5.0).phase == 2 + guarded.steps
    assert waiting(at[0], guarded, None, 9.0, 5.0) is None


def test_a_journal_gives_the_same_steps_again():
    begun = Certified(at=1.0, version="7", digest="d" * 64, most=MOST, limit=OWN)
    seen = [Seen(at=2.0, judged=tuple(answers(30, True))), Seen(at=3.0, judged=tuple(answers(600, False, 0.999)))]
    state, first = follow(begun.state(), seen[0])
    state, second = follow(state, seen[1])
    found, steps = replay([msgspec.json.encode(line) for line in (begun, *seen)])
    assert (found, steps) == (state, first + second) and len(steps) == 6


@pytest.mark.parametrize(
    ("lines", "says"),
    [([], "empty"), ([b"x"], "line 1"), ([msgspec.json.encode(Seen(at=1.0, judged=()))], "line 1")],
)
def test_what_is_no_journal_is_refused(lines, says):
    with pytest.raises(ConfigError, match=says):
        replay(lines)


STREAMS, LENGTH, AUDITED, DELAY = 100, 2_000, 0.5, 25


def run(seed, switch):
    """A stream: the share of undeferred answers that disagree, and at which inputs it was guarded.

    Of the known traffic 5 % of what is given disagrees, half of the promise. After the switch nine of ten answers do,
    as sure as before; seven of ten inputs are told as novel. A label comes 25 inputs after its answer.
    """
    chance = np.random.default_rng(seed)
    state, guarded, waits, given, wrong = fresh(), [], [], 0, 0
    for i in range(LENGTH):
        new = switch is not None and i >= switch
        confidence, disagrees = chance.beta(8, 1), chance.random() < (0.9 if new else 0.05)
        novel = chance.random() < (0.7 if new else 0.05)
        if not novel and confidence >= state.limits[state.place]:
            given, wrong = given + 1, wrong + disagrees
        if chance.random() < AUDITED:
            waits.append((i + DELAY, Judged(id=str(i), confidence=confidence, disagrees=bool(disagrees), novel=novel)))
        while waits and waits[0][0] <= i:
            state, steps = after(state, waits.pop(0)[1], at=float(i))
            guarded += [i for s in steps if s.kind == "guard"]
    return wrong / max(given, 1), guarded


def test_over_streams_with_a_switch_what_is_given_keeps_the_promise():
    """Goal: in at least 95 of 100 streams, over the whole run. Without a guard it is broken in all."""
    kept = [run(seed, LENGTH // 2)[0] <= MOST for seed in range(STREAMS)]
    assert sum(kept) >= 0.95 * STREAMS


def test_over_streams_without_one_it_is_not_guarded():
    assert sum(not run(seed, None)[1] for seed in range(STREAMS)) >= 0.95 * STREAMS
