"""What state a workload is in, and what to press, from facts alone."""

import msgspec
import pytest

from serving.rollout.condition import STATES, Alarm, Crowned, Facts, Promise, Rollout, Run, condition, response

NOW = 1000.0
WELL = Facts(
    now=NOW, workload="files", champion="7", candidate=None, weight=0.0, replicas=2, leader_age=1.0, leader_term=5.0,
    reports={"labeler": 3.0, "monitor": 9.0, "trigger": 4.0, "drift": 90_000.0}, teacher="trusted",
    crowned=Crowned(version="7", how="promote", at=400.0), trigger="12 new labels",
)  # fmt: skip
GUARD = Promise(defer_below=1.01, at=700.0, reason="9 of 9 disagree")
CANARY = Rollout(id="r1", phase="canary", candidate="8", champion="7", at=900.0, weight=0.05, limit=20.0)


def facts(**changed):
    return msgspec.structs.replace(WELL, **changed)


def rolling(in_force=0.05, **changed):
    rollout = msgspec.structs.replace(CANARY, **changed)
    return facts(candidate="8", weight=in_force, rollout=rollout)


@pytest.mark.parametrize(
    ("seen", "word", "since", "command"),
    [
        (WELL, "serving", 400.0, ""),
        (facts(crowned=None), "serving", None, ""),
        (rolling(), "canary 5 %", 900.0, ""),
        (rolling(0.0, phase="shadow", weight=0.0), "shadow", 900.0, ""),
        (rolling(evidence=4.4), "canary 5 %", 900.0, ""),
        (rolling(evidence=4.5), "guarded", 900.0, "rollout rollback --workload files"),
        (rolling(0.0), "guarded", 900.0, "rollout rollback --workload files"),
        (rolling(phase="paused"), "paused", 900.0, "rollout resume --workload files"),
        (facts(rollout=msgspec.structs.replace(CANARY, phase="rolled_back")), "rolled back", 900.0, ""),
        (facts(crowned=Crowned(version="7", how="rollback", at=500.0)), "rolled back", 500.0, ""),
        (facts(rollout=msgspec.structs.replace(CANARY, phase="aborted")), "serving", 400.0, ""),
        (facts(champion="9", rollout=msgspec.structs.replace(CANARY, phase="rolled_back")), "serving", None, ""),
        (
            facts(champion=None, replicas=0, crowned=None),
            "no champion",
            None,
            "pipeline run bootstrap --spec SPEC --param history_uri=HISTORY",
        ),
        (facts(refused="is not signed"), "no champion", None, "rollout rollback --to VERSION --workload files"),
        (facts(replicas=0), "stale", None, "cohobate up"),
        (facts(leader_age=None), "stale", None, "cohobate up"),
        (facts(leader_age=10.5), "stale", NOW - 10.5, "cohobate up"),
        (facts(reports={"labeler": 1.0, "labeler-2": 301.0}), "stale", NOW - 301.0, "cohobate up"),
        (facts(guard=GUARD), "guarded", 700.0, ""),
        (facts(guard=GUARD, replicas=0), "stale", None, "cohobate up"),
        (msgspec.structs.replace(rolling(), guard=GUARD), "guarded", 700.0, ""),
        (facts(teacher="suspect"), "serving", 400.0, "teacher reject --spec SPEC"),
        (facts(teacher="held"), "serving", 400.0, ""),
        (facts(run=Run(id="files-3", pipeline="continual", status="failed")), "serving", 400.0, "run continual"),
        (facts(run=Run(id="files-3", pipeline="forget", status="failed")), "serving", 400.0, "cohobate forget --list"),
        (facts(run=Run(id="files-3", pipeline="retention", status="failed")), "serving", 400.0, "cohobate retention"),
        (facts(run=Run(id="files-3", pipeline="continual", status="succeeded")), "serving", 400.0, ""),
    ],
)
def test_the_word_and_what_to_press(seen, word, since, command):
    found = condition(seen)
    assert (found.word, found.since) == (word, since)
    assert command in found.press.command and bool(command) == bool(found.press.command)


def test_a_report_may_be_as_old_as_its_worker_s_longest_work_and_one_of_an_event_is_never_stale():
    assert condition(facts(reports={"labeler": 300.0, "monitor": 60.0, "entropy": 1e9})).state == "serving"
    assert condition(facts(reports={"trigger": 60.1})).why == "not heard: trigger"


def test_of_a_workload_that_nothing_has_run_no_log_is_to_be_looked_at():
    never = condition(facts(champion=None, crowned=None, replicas=0, leader_age=None, reports={}))
    assert (never.state, never.press.command) == ("stale", "cohobate up")
    assert "nothing has run it yet" in never.press.remark and "log" not in never.press.remark
    assert "look at its log" in condition(facts(leader_age=None, reports={"trigger": 5.0})).press.remark


def test_the_worst_stands_first():
    ranks = [condition(s).rank for s in (facts(replicas=0), rolling(phase="paused"), rolling(evidence=19.0), WELL)]
    assert ranks == sorted(ranks) and ranks[-1] == len(STATES) - 1


@pytest.mark.parametrize(
    ("alarm", "changed", "says"),
    [
        (Alarm(kind="drift", at=1.0, champion="7"), {}, "an update is to come (12 new labels)"),
        (
            Alarm(kind="drift", at=1.0, champion="7"),
            {"run": Run(id="files-3", pipeline="continual", status="running")},
            "run files-3 is under way",
        ),
        (Alarm(kind="drift", at=1.0, champion="7"), {"rollout": CANARY}, "v8 is being rolled out"),
        (Alarm(kind="drift", at=1.0, champion="6"), {}, ""),
        (Alarm(kind="teacher", at=1.0), {"teacher": "suspect"}, "its labels are in quarantine until a person decides"),
        (Alarm(kind="teacher", at=1.0), {}, ""),
        (Alarm(kind="guarded", at=1.0, champion="7"), {"guard": GUARD}, "an update is to come (12 new labels)"),
        (Alarm(kind="guarded", at=1.0, champion="7"), {}, ""),
        (Alarm(kind="lost_positions", at=NOW - 60.0), {}, "the labeler read on from where the broker begins"),
        (Alarm(kind="lost_positions", at=NOW - 3600.0), {}, ""),
        (Alarm(kind="sample_ratio", at=1.0, rollout="r0"), {"rollout": CANARY}, ""),
    ],
)
def test_what_is_done_about_the_last_alarm(alarm, changed, says):
    seen = facts(alarms=(alarm,), **changed)
    assert condition(seen).alarm == says
    assert not says or response(alarm, seen) == says


def test_a_split_that_is_not_as_ordered_is_pressed_before_the_canary_goes_on():
    alarms = (Alarm(kind="sample_ratio", at=1.0, rollout="r1"),)
    seen = msgspec.structs.replace(rolling(), alarms=alarms)
    assert condition(seen).press.verb == "abort" and condition(seen).alarm


def test_a_guard_says_what_is_deferred_and_why():
    assert condition(facts(guard=GUARD)).why == "v7: every answer is deferred: 9 of 9 disagree"
    some = msgspec.structs.replace(GUARD, defer_below=0.95)
    assert condition(facts(guard=some)).why.startswith("v7: answers of a confidence below 0.95 are deferred")
