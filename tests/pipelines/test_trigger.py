import dataclasses
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event

from components.contracts.records import Label, decode, encode
from components.contracts.spec import Trigger as Policy
from components.contracts.storage import local_path, put_bytes
from components.control import forgettings, learning, runs
from components.control.intent import Intent, ModelRef
from components.control.tables import WindowRow
from components.control.workloads import apply, opened
from components.ledger.ledger import entries
from components.snapshot.reading import read_new
from components.snapshot.table import parquet_bytes
from components.stream.memory import MemoryBroker
from drift.learning_curve import Point
from pipelines.payoff import Evidence, replayed
from pipelines.trigger import Decision, Trigger, TriggerState, decide, near
from tests.pipelines.conftest import TICKETS
from tests.waiting import wait_for

POLICY = Policy(min_labels=600, alarm_labels=200, cooldown_seconds=300.0)
IDLE = TriggerState(labels=0, alarms=(), since_alarm=0, running=False, rolling=False, last_end=None, has_champion=True)
CHAMPION = ModelRef(version="7", uri="u", digest="d", snapshot="s", teacher="t")


@pytest.mark.parametrize(
    ("change", "start", "reason"),
    [
        ({"labels": 600}, True, "600 new labels (at least 600)"),
        ({"labels": 599}, False, "599 new labels"),
        (
            {"labels": 300, "since_alarm": 200, "alarms": ("drift", "entropy", "drift")},
            True,
            "drift and entropy alarm and 200 labels since",
        ),
        ({"labels": 300, "since_alarm": 199, "alarms": ("drift",)}, False, "300 new labels"),
        ({"labels": 199, "since_alarm": 900, "alarms": ("drift",)}, False, "199 new labels"),
        (
            {"labels": 300, "since_alarm": 200, "alarms": ("drift",), "least": 301},
            False,
            "drift alarm and 300 new labels (at least 301 before its student can be judged)",
        ),
        ({"labels": 301, "since_alarm": 200, "alarms": ("drift",), "least": 301}, True, "200 labels since"),
        ({"labels": 600, "least": 601}, True, "600 new labels (at least 600)"),
        ({"labels": 9999, "running": True}, False, "a run is under way"),
        ({"labels": 9999, "rolling": True}, False, "a rollout is under way"),
        ({"labels": 9999, "has_champion": False}, False, "bootstrap"),
        ({"labels": 9999, "last_end": 800.0}, False, "cooling down for 100 s more"),
        ({"labels": 9999, "last_end": 700.0}, True, "9999 new labels"),
        ({"forgotten": ("o1", "o2")}, True, "had learnt from what was forgotten since (order o1, o2)"),
        ({"forgotten": ("o1",), "rolling": True}, False, "a rollout is under way"),
        ({"forgotten": ("o1",), "last_end": 800.0}, False, "cooling down for 100 s more"),
    ],
)
def test_an_update_starts_when_it_pays_and_may(change, start, reason):
    decision = decide(dataclasses.replace(IDLE, **change), 1000.0, POLICY)
    assert decision.start is start
    assert reason in decision.reason


PAYING = Policy(min_labels=600, alarm_labels=200, cooldown_seconds=300.0, payoff=True)
CHANGED = Evidence(
    learnt=0.0, fresh=80.0, left=120.0, horizon=600, points=(Point(labels=0, wrong=95, rows=100),),
    past=((Point(labels=0, wrong=95, rows=100), Point(labels=100, wrong=4, rows=100)),) * 3,
)  # fmt: skip
ALARMED = dataclasses.replace(IDLE, labels=90, since_alarm=80, alarms=("drift",), least=70, evidence=CHANGED)


@pytest.mark.parametrize(
    ("change", "policy", "start", "reason"),
    [
        ({}, PAYING, True, "drift alarm and 80 labels since: an update is to take wrong or deferred answers from"),
        ({}, POLICY, False, "90 new labels"),
        ({"since_alarm": 69}, PAYING, False, "at least 70 before an update can pay"),
        ({"labels": 69, "since_alarm": 300}, PAYING, False, "at least 70 before an update can pay"),
        ({"evidence": None}, PAYING, False, "before an update can pay"),
        ({"evidence": msgspec.structs.replace(CHANGED, cost=9_999.0)}, PAYING, False, "costs 9999"),
        ({"evidence": msgspec.structs.replace(CHANGED, cost=9_999.0), "labels": 600}, PAYING, True, "at least 600"),
        ({"labels": 200, "since_alarm": 200, "evidence": None}, PAYING, True, "at least 200"),
        ({"certain": 99, "promise": 0.96}, PAYING, False, "at least 99 certify a limit of deferral"),
        ({"certain": 99, "promise": 0.1}, PAYING, True, "an update is to take"),
        ({"certain": 90, "promise": 0.96}, PAYING, True, "an update is to take"),
        ({"labels": 240, "since_alarm": 210, "least": 250}, PAYING, False, "at least 250 before an update can pay"),
        ({"labels": 260, "since_alarm": 210, "least": 250, "evidence": None}, PAYING, True, "at least 200"),
        ({"least": 700, "labels": 600}, PAYING, True, "at least 600"),
        ({"rolling": True}, PAYING, False, "a rollout is under way"),
    ],
)
def test_between_its_bounds_an_update_starts_when_it_is_expected_to_pay(change, policy, start, reason):
    decision = decide(dataclasses.replace(ALARMED, **change), 1000.0, policy)
    assert decision.start is start
    assert reason in decision.reason


@given(
    state=st.builds(
        TriggerState,
        labels=st.integers(0, 2000),
        alarms=st.lists(st.sampled_from(["drift", "entropy"]), max_size=3).map(tuple),
        since_alarm=st.integers(0, 2000),
        running=st.booleans(),
        rolling=st.booleans(),
        last_end=st.none() | st.floats(0, 2000),
        has_champion=st.booleans(),
    ),
    now=st.floats(0, 2000),
    more=st.integers(0, 1000),
)
def test_more_labels_never_stop_a_start_and_nothing_starts_beside_another(state, now, more):
    decision = decide(state, now, POLICY)
    assert decision.reason
    if decision.start:
        assert not state.running and not state.rolling and state.has_champion
        assert decide(dataclasses.replace(state, labels=state.labels + more), now, POLICY).start


@pytest.fixture
def put(broker, spec, tickets, label_of):
    def put(n, seed=0, to=broker, **label):
        producer = to.producer()
        for entry in tickets(n, classes=("login",), seed=seed):
            producer.send(spec.topic("labels"), entry.input.id, encode(label_of(entry, **label)))

    return put


@pytest.fixture
def trigger(spec, store, broker, clock):
    started = []

    def launch(reason):
        started.append(reason)
        return 0

    made = Trigger(spec, store, broker, launch=launch, clock=clock)
    made.started = started
    return made


@pytest.fixture
def frozen(spec, store, broker, clock, tmp_path):
    """Freeze what is on the stream, as far as the trigger looks at a window."""

    def freeze(anchors=None):
        read = read_new(broker, [spec.topic("labels")], {})
        number = len(store.windows("tickets")) + 1
        uri = f"file://{tmp_path}/w{number}.parquet"
        keys = [decode(Label, r.value).key for r in read.records]
        put_bytes(uri, parquet_bytes(pa.table({"label_key": keys})))
        anchors = {p: list(a) for p, a in read.anchors.items()} if anchors is None else anchors
        store.add_window(
            WindowRow(
                digest=f"w{number}", workload="tickets", number=number, uri=uri, rows=len(keys), created_at=clock.now,
                manifest={"positions": read.positions, "anchors": anchors},
            )
        )  # fmt: skip
        return uri

    return freeze


def test_labels_are_counted_after_the_last_window(trigger, put, frozen):
    put(5)
    assert trigger.new_labels() == 5
    frozen()
    assert trigger.new_labels() == 0
    put(2, seed=1)
    assert trigger.new_labels() == 2


def test_a_tombstone_is_no_new_label(trigger, broker, spec, put):
    put(5)
    broker.producer().send(spec.topic("labels"), "k", None)
    assert trigger.new_labels() == 5


@pytest.mark.parametrize("again", [3, 500, 501, 600])
def test_a_history_that_was_labelled_again_after_a_restart_is_not_new(spec, store, put, clock, frozen, again):
    """Whether the new broker has as many records as the old one had, or fewer, or more."""
    put(500)
    frozen()
    fresh = MemoryBroker()
    fresh.ensure_topics(spec.topics)
    trigger = Trigger(spec, store, fresh, launch=lambda _: 0, clock=clock)
    put(min(again, 500), to=fresh, at=clock.now + 60)
    put(max(0, again - 500), to=fresh, at=clock.now + 60)
    assert trigger.new_labels() == 0
    put(101, seed=1, to=fresh)
    assert trigger.new_labels() == 101
    fresh.producer().send(spec.topic("labels"), "x", b"no label")
    assert trigger.new_labels() == 102


def test_a_window_from_before_there_were_anchors_is_known_by_its_labels(trigger, put, frozen):
    put(5)
    frozen(anchors={})
    put(2, seed=1)
    assert trigger.new_labels() == 2


def test_without_the_window_s_file_all_labels_of_a_new_broker_count(spec, store, put, clock, frozen):
    put(5)
    local_path(frozen()).unlink()
    fresh = MemoryBroker()
    fresh.ensure_topics(spec.topics)
    trigger = Trigger(spec, store, fresh, launch=lambda _: 0, clock=clock)
    put(4, to=fresh)
    assert trigger.new_labels() == 4


def test_nothing_starts_before_there_is_a_champion(trigger, put):
    put(400)
    assert trigger.look() == Decision(start=False, reason="there is no champion yet: run the bootstrap pipeline")
    assert trigger.started == []


def test_an_update_starts_with_a_recorded_reason(trigger, store, put):
    store.put_intent("tickets", 0, Intent(champion=CHAMPION))
    put(300)
    assert trigger.look().start
    assert trigger.started == ["300 new labels (at least 300)"]
    assert store.gauges("tickets")["trigger"].value == {"last": "300 new labels (at least 300)"}


def test_how_many_labels_there_are_is_said_while_an_update_waits_for_more(trigger, store, put):
    def said():
        trigger.look()
        return store.gauges("tickets")["trigger"].value

    put(100)
    assert "labels" not in said(), "it waits for a champion"
    store.put_intent("tickets", 0, Intent(champion=CHAMPION))
    store.put_gauge("tickets", "monitor", {"index": 90})
    found = said()
    assert (found["labels"], found["index"]) == (100, 90)
    revision = store.intent("tickets")[0]
    store.put_intent(
        "tickets", revision, Intent(champion=CHAMPION, candidate=msgspec.structs.replace(CHAMPION, version="8"))
    )
    assert "labels" not in said(), "it waits for a rollout"


@pytest.mark.parametrize(("made", "started"), [(True, 1), (False, 2)])
def test_a_champion_that_learnt_from_what_was_forgotten_is_made_anew_once(spec, store, broker, clock, made, started):
    """On Kubeflow a launch says nothing of how the run ends: what counts is that the student was made."""
    launched = []

    def launch(reason):
        launched.append(reason)
        if made:  # as the step does that distils
            asking = forgettings.waiting(store, "tickets", CHAMPION.digest)
            forgettings.retrained(store, "tickets", [row.id for row in asking])
        return 0

    trigger = Trigger(spec, store, broker, launch=launch, clock=clock)
    store.put_intent("tickets", 0, Intent(champion=CHAMPION))
    for key, student in (("someone", CHAMPION.digest), ("another", "another's digest")):
        row = forgettings.open_order(store, "tickets", key, "ada", "asked")
        forgettings.put(store, row.id, result={"students": [{"version": "7", "digest": student}]})
    assert [r.result["students"][0]["digest"] for r in forgettings.waiting(store, "tickets", "d")] == ["d"]
    assert trigger.look().start and len(launched) == 1 and "forgotten since" in launched[0]
    trigger.look()
    assert len(launched) == started, "one that came to no student is tried again"
    noted = {r.result["students"][0]["digest"]: r.retrained_at for r in forgettings.orders(store, "tickets")}
    assert noted["another's digest"] is None and (noted["d"] is not None) == made


def test_its_report_is_renewed_while_an_update_is_under_way(spec, store, broker, clock, put, monkeypatch):
    ages = []

    class Child:
        """A run that ends at its sixth look, each 6 s after the one before."""

        def __init__(self, *_, **__):
            self.looks = 0

        def poll(self):
            clock.now += 6.0
            self.looks += 1
            ages.append(clock.now - store.gauges("tickets")["trigger"].at)
            return 0 if self.looks == 6 else None

    monkeypatch.setattr("pipelines.trigger.subprocess.Popen", Child)
    monkeypatch.setattr("pipelines.trigger.POLL_SECONDS", 0.0)
    store.put_intent("tickets", 0, Intent(champion=CHAMPION))
    put(300)
    assert Trigger(spec, store, broker, clock=clock).look().start
    assert ages == [6.0, 12.0, 6.0, 12.0, 6.0, 12.0]


def test_an_update_works_with_the_version_that_is_in_force_when_it_starts(
    settings, store, broker, clock, put, monkeypatch, tmp_path
):
    started = []

    class Child:
        """A run that has ended."""

        def __init__(self, argv, **given):
            started.append(argv[-2])

        def poll(self):
            return 0

    def version(seed):
        text = Path(TICKETS).read_text().replace("tickets.py:", f"{Path(TICKETS).parent}/tickets.py:")
        (tmp_path / "t.yaml").write_text(f"{text}\nseed: {seed}\n")
        spec, bundle = opened(str(tmp_path / "t.yaml"), settings)
        apply(store, bundle, spec, actor="ana", reason="r")
        return spec

    monkeypatch.setattr("pipelines.trigger.subprocess.Popen", Child)
    store.put_intent("tickets", 0, Intent(champion=CHAMPION))
    put(300)
    first = version(1)
    trigger = Trigger(first, store, broker, clock=clock)
    trigger.look()
    second = version(2)
    trigger.look()
    assert started == [first.source, second.source] and first.bundle != second.bundle


def test_an_alarm_counts_until_another_champion_serves(trigger, store, put):
    revision = store.put_intent("tickets", 0, Intent(champion=CHAMPION))
    store.raise_alarm("tickets", "drift", 100, {"champion": "6"})
    put(160)
    assert not trigger.look().start
    store.raise_alarm("tickets", "drift", 150, {"champion": "7"})
    store.put_gauge("tickets", "monitor", {"index": 290})
    assert trigger.state().alarms == ("drift",)
    assert trigger.state().since_alarm == 140
    assert not trigger.look().start
    store.put_gauge("tickets", "monitor", {"index": 310})
    assert trigger.look().start
    store.put_intent(
        "tickets", revision, Intent(champion=ModelRef(version="8", uri="u", digest="d", snapshot="s", teacher="t"))
    )
    assert trigger.state().alarms == ()


@pytest.mark.parametrize("candidate", [True, False])
def test_it_waits_for_a_candidate_and_for_a_rollout(trigger, store, put, candidate):
    store.put_intent("tickets", 0, Intent(champion=CHAMPION, candidate=CHAMPION if candidate else None))
    if not candidate:
        store.put_rollout("r1", "tickets", 0, True, {})
    put(400)
    assert trigger.look().reason == "a rollout is under way"


def test_a_run_of_another_process_is_waited_for_until_it_falls_silent(trigger, store, put, clock):
    store.put_intent("tickets", 0, Intent(champion=CHAMPION))
    put(400)
    run = runs.begin(store, "tickets", "continual", "by hand", "somebody")
    assert trigger.look().reason == "a run is under way"
    clock.now += runs.SILENT_SECONDS - 1
    runs.beat(store, run)
    clock.now += runs.SILENT_SECONDS - 1
    assert trigger.look().reason == "a run is under way"
    clock.now += 2
    assert trigger.look().start


def test_the_cool_down_begins_when_a_run_ends(trigger, store, put, clock):
    store.put_intent("tickets", 0, Intent(champion=CHAMPION))
    put(400)
    store.finish_run(runs.begin(store, "tickets", "continual", "by hand", "somebody"), "failed", {})
    clock.now += 59
    assert "cooling down for 1 s" in trigger.look().reason
    clock.now += 1
    assert trigger.look().start


def test_stopping_ends_the_update_that_is_under_way(spec, store, broker, put, tmp_path, monkeypatch):
    store.put_intent("tickets", 0, Intent(champion=CHAMPION))
    put(300)
    interpreter = tmp_path / "python"  # stands for one whose pipeline runs on and on
    interpreter.write_text("#!/bin/sh\nexec sleep 600\n")
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    begun, popen = [], subprocess.Popen

    def begin(*args, **given):
        begun.append(popen(*args, **given))
        return begun[-1]

    monkeypatch.setattr("pipelines.trigger.subprocess.Popen", begin)
    trigger, stop = Trigger(spec, store, broker), threading.Event()
    thread = threading.Thread(target=trigger.run, args=(stop,), daemon=True)
    thread.start()
    try:
        wait_for(lambda: begun)
    finally:
        stop.set()
        thread.join()
    assert [run.returncode for run in begun] == [-15]


class Reporting:
    """An update that has come to its reports when it is looked at first, and goes on with them until it is ended."""

    def __init__(self, store):
        self.store, self.ended = store, None

    def poll(self):
        if self.ended is None and not self.store.runs("tickets"):
            runs.reporting(self.store, runs.begin(self.store, "tickets", "continual", "why", "trigger"))
        return self.ended

    def terminate(self):
        self.ended = -15

    def wait(self):
        return self.ended


def test_the_next_update_does_not_wait_for_the_reports_of_the_last(spec, store, broker, put, clock, monkeypatch):
    run = Reporting(store)
    monkeypatch.setattr("pipelines.trigger.subprocess.Popen", lambda *_, **__: run)
    store.put_intent("tickets", 0, Intent(champion=CHAMPION))
    put(300)
    trigger = Trigger(spec, store, broker, clock=clock)
    assert trigger.look().start
    (row,) = store.runs("tickets")
    assert row.status == "running" and run.ended is None
    clock.now += 1
    assert "cooling down for 59 s" in trigger.look().reason, "its update has ended"
    clock.now += 59
    runs.beat(store, row.id)
    assert trigger.state().at_work and not trigger.state().running
    assert decide(trigger.state(), clock.now, spec.trigger).start
    runs.begin(store, "tickets", "continual", "the next", "trigger")
    stop = threading.Event()
    stop.set()
    trigger.run(stop)
    assert run.ended == -15, "who stops the trigger ends the reports, too"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, False),
        ({"labels": 299}, False),
        ({"labels": 300}, True),
        ({"alarms": ("drift",)}, True),
        ({"alarms": ("drift",), "has_champion": False}, False),
        ({"has_champion": False, "at_work": True}, True),
    ],
)
def test_an_update_is_near_with_an_alarm_with_half_of_the_labels_and_beside_another(change, expected):
    assert near(dataclasses.replace(IDLE, **change), POLICY) is expected


class Server:
    """Remembers when it was wanted."""

    def __init__(self, home):
        self.home, self.wanted = home, []

    def tend(self, *, wanted):
        self.wanted.append(wanted)


def test_processes_are_warm_before_an_update_begins(spec, store, broker, put, tmp_path):
    warm = Server(tmp_path)
    trigger = Trigger(spec, store, broker, launch=lambda reason: 0, warm=warm)
    store.put_intent("tickets", 0, Intent(champion=CHAMPION))
    put(149)
    trigger.look()
    put(1, seed=1)
    trigger.look()
    assert warm.wanted == [False, True]


def test_a_regimes_first_update_starts_by_what_the_past_ones_gained_and_says_so(spec, store, broker, put, clock):
    """The champion, of window 2, knows nothing of what came after the alarm; a regime before was learnt quickly."""
    spec = msgspec.structs.replace(spec, trigger=Policy(min_labels=600, alarm_labels=300, payoff=True, least_labels=60))
    places = {}

    def freeze(number, count):
        nonlocal places
        read = read_new(broker, [spec.topic("labels")], places)
        places = read.anchors
        store.add_window(
            WindowRow(
                digest=f"w{number}", workload="tickets", number=number, uri="", rows=count, created_at=clock.now,
                manifest={"positions": read.positions, "anchors": {p: list(a) for p, a in places.items()}},
            )
        )  # fmt: skip

    store.clock = clock
    put(300, seed=1)
    freeze(1, 300)
    clock.now += 1.0
    store.raise_alarm("tickets", "drift", 310, {"champion": "6"})
    clock.now += 1.0
    put(100, seed=2)
    freeze(2, 100)
    store.put_intent("tickets", 0, Intent(champion=msgspec.structs.replace(CHAMPION, snapshot="w2")))
    point = learning.Evaluated(
        window="w2", digest="c", rows=100, wrong=3, champion_window="w1", champion_wrong=95
    )  # fmt: skip
    learning.add(store, "tickets", point)
    started: list[str] = []
    trigger = Trigger(spec, store, broker, launch=lambda reason: started.append(reason) or 0, clock=clock)
    clock.now += 60.0
    put(90, seed=3)
    answers = {"champion": "7", "rows": 80, "wrong": 76}
    store.put_gauge("tickets", "monitor", {"index": 490, "inputs": 980, "beside": 490, "answers": answers})

    decision = trigger.look()
    assert not decision.start and "90 new labels" in decision.reason  # no alarm: a champion that errs may be unlucky
    store.raise_alarm("tickets", "drift", 410, {"champion": "7"})
    decision = trigger.look()
    assert decision.start and "drift alarm and 80 labels since" in decision.reason
    assert started == [decision.reason]
    gauge = store.gauges("tickets")["trigger"].value
    assert gauge["last"] == decision.reason and gauge["payoff_gain"] > 600 and gauge["payoff_now"] > 0.8
    (entry,) = [e for e in entries(store, "tickets") if e.action == "decide update"]
    assert entry.detail["reason"] == decision.reason
    assert replayed(entry.detail) == decision.payoff
    evidence = entry.detail["evidence"]
    assert (evidence["learnt"], evidence["fresh"], evidence["ratio"]) == (0, 80, 2.0)
    assert [len(regime) for regime in evidence["past"]] == [2]
    # no champion came of that update: its labels are learnt from by the next one, too
    clock.now += 1.0
    freeze(3, 90)
    put(70, seed=4)
    store.put_gauge("tickets", "monitor", {"index": 560, "inputs": 1_120, "beside": 560, "answers": answers})
    state = trigger.state()
    assert (state.labels, state.fresh, state.evidence.fresh, state.evidence.learnt) == (70, 70, 90 + 70, 0)


def test_what_is_too_old_is_deleted_where_no_update_starts(spec, store, broker, clock, put):
    swept = []
    sweeper = SimpleNamespace(tend=lambda found: swept.append(found.name))
    trigger = Trigger(spec, store, broker, launch=lambda reason: 0, sweeper=sweeper, clock=clock)
    store.put_intent("tickets", 0, Intent(champion=CHAMPION))
    assert not trigger.look().start and swept == ["tickets"]
    put(spec.trigger.min_labels)
    assert trigger.look().start and swept == ["tickets"], "nothing is taken away under one that starts"


def test_a_sweep_of_what_is_too_old_is_no_update_to_cool_down_after(trigger, store):
    before = trigger.state()
    run = runs.begin(store, "tickets", runs.RETENTION, "what is too old", "trigger")
    assert trigger.state().running, "nor does one start beside it"
    runs.end(store, run, "succeeded", {}, "trigger")
    assert trigger.state() == before


@pytest.mark.parametrize("pipeline", [runs.RETENTION, runs.FORGET])
def test_a_sweep_does_not_make_the_labels_since_the_last_update_come_faster(
    spec, store, broker, clock, put, frozen, pipeline
):
    policy = Policy(min_labels=600, alarm_labels=300, payoff=True, least_labels=1)
    trigger = Trigger(msgspec.structs.replace(spec, trigger=policy), store, broker, clock=clock)
    store.clock = clock
    update = runs.begin(store, "tickets", "continual", "by hand", "somebody")
    clock.now += 20.0
    runs.end(store, update, "succeeded", {}, "somebody")
    frozen()
    store.put_intent("tickets", 0, Intent(champion=msgspec.structs.replace(CHAMPION, snapshot="w1")))
    put(50)
    clock.now += 1_000.0
    before = trigger.state().evidence.making
    assert before == pytest.approx(50 / 1_000.0 * 20.0)
    runs.end(store, runs.begin(store, "tickets", pipeline, "a reason", "trigger"), "succeeded", {}, "trigger")
    assert trigger.state().evidence.making == before


def test_a_look_at_which_nothing_is_new_is_one_transaction(spec, store, broker):
    """Where many workloads rest on one database, that is what they cost it."""
    trigger, begun = Trigger(spec, store, broker), []
    trigger.look()
    event.listen(store.engine, "begin", begun.append)
    trigger.look()
    assert len(begun) == 1
