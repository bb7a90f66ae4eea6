"""The condition as Prometheus sees it."""

import msgspec
from prometheus_client import CollectorRegistry

from serving.control.metrics import FactsOfStore
from serving.rollout.condition import STATES, Alarm, Promise, Run
from tests.serving.rollout.test_condition import NOW, WELL, facts, rolling


def sampled(seen):
    registry = CollectorRegistry()
    registry.register(FactsOfStore("files", lambda: seen))
    return lambda name, **labels: registry.get_sample_value(f"cohobate_{name}", {"workload": "files", **labels})


def test_a_workload_is_in_one_state_and_what_is_known_has_its_value():
    value = sampled(WELL)
    assert [state for state in STATES if value("state", state=state)] == ["serving"]
    assert [value("state", state=state) for state in STATES].count(0.0) == len(STATES) - 1
    assert (value("replicas_live"), value("controller_leads"), value("teacher_trusted")) == (2.0, 1.0, 1.0)
    assert value("champion_age_seconds") == 600.0 and value("report_age_seconds", report="trigger") == 4.0
    assert sampled(rolling())("state", state="canary") == 1.0


def test_what_is_not_known_has_no_sample():
    value = sampled(facts(crowned=None, teacher=None))
    names = ("champion_age_seconds", "teacher_trusted", "last_run_failed")
    assert [value(name) for name in names] == [None, None, None]
    assert value("alarm_open", kind="drift") is None


def test_what_wakes_somebody():
    alarms = (Alarm(kind="drift", at=NOW, champion="7"), Alarm(kind="change", at=NOW, champion="6"))
    run = Run(id="files-1", pipeline="continual", status="failed")
    value = sampled(msgspec.structs.replace(WELL, alarms=alarms, run=run, teacher="held", leader_age=None))
    assert (value("alarm_open", kind="drift"), value("alarm_open", kind="change")) == (1.0, None)
    assert (value("last_run_failed"), value("teacher_trusted"), value("controller_leads")) == (1.0, 0.0, 0.0)


def test_a_guard_is_a_metric():
    assert sampled(WELL)("guarded") == 0.0
    assert sampled(msgspec.structs.replace(WELL, guard=Promise(defer_below=1.01)))("guarded") == 1.0


def test_columns_that_masking_names_and_no_label_had_are_a_metric():
    assert sampled(WELL)("masking_columns_absent") is None
    for absent in ((), ("nmae", "adress")):
        value = sampled(msgspec.structs.replace(WELL, columns_absent=absent))
        assert value("masking_columns_absent") == len(absent)
