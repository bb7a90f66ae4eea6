"""What one screen says, drawn from reports as ``cohobate status`` reads them."""

import contextlib
import io
import json
import time
from pathlib import Path

import jsonschema
import msgspec
import pytest
from rich.console import Console
from sqlalchemy import Engine, event
from typer.testing import CliRunner

from components.contracts.errors import NotFoundError
from components.contracts.settings import Settings
from components.control.intent import Intent, ModelRef
from components.control.leader import Lease
from components.ledger.ledger import append
from components.registry import runs
from infra import cli
from infra.specs import prepared, record
from infra.status import AlarmSeen, Registered, Report, Routing, RunSeen, Windows, Workload, read, schema
from infra.status_screen import screen, watch
from serving.rollout.condition import Condition, Crowned, Press, condition
from tests.pipelines.conftest import TICKETS
from tests.serving.rollout.test_condition import CANARY, NOW, WELL, facts, rolling
from tests.stores import migrated

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "docs" / "status.schema.json"
DIGEST = "0123456789abcdef" * 4


def workload(seen=WELL, **changed):
    """A workload in the condition that these facts give it."""
    routing = Routing(
        revision=3, champion=seen.champion, candidate=seen.candidate, previous=seen.previous, weight=seen.weight,
        shadow=False,
    )  # fmt: skip
    made = Workload(
        condition=condition(seen), crowned=seen.crowned, models=(), not_ours=(), intent=routing, replicas=(),
        rollout=None, windows=Windows(count=0, labels=0), gauges={}, stale=(), runs=(), alarms=(),
    )  # fmt: skip
    return msgspec.structs.replace(made, **changed)


def drawn(width=80, all_=False, **workloads):
    """The screen of a platform with these workloads, as lines."""
    report = Report(home="h", up=True, gateway="g", kafka="k", processes={}, metrics={}, workloads=workloads)
    console = Console(file=io.StringIO(), width=width)
    console.print(screen(report, NOW, width, all_=all_), highlight=False)
    return console.file.getvalue().splitlines()


def line(lines, name):
    return next(one for one in lines if one.startswith(f"{name} "))


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        (facts(champion=None, replicas=0, crowned=None), "champion  none"),
        (WELL, "champion  v7 for 10 min, by promote; no previous; 0 replicas"),
        (facts(crowned=None, previous="6"), "champion  v7; previous v6; 0 replicas"),
        (rolling(), "candidate v8 at 5 %"),
    ],
)
def test_the_screen_says_who_serves(seen, says):
    lines = drawn(files=workload(seen))
    assert line(lines, says.split()[0]).rstrip() == says and "None" not in "\n".join(lines)


def test_an_address_leaves_room_for_why_a_champion_does_not_load():
    uri = f"file:///srv/platform/home/artifacts/files/students/{DIGEST}/model.onnx"
    refused = f"UntrustedError: artifact {uri}: is signed by pipelines (b4cccc67cdc2fee3), a key that is revoked"
    said = " ".join(" ".join(drawn(files=workload(facts(refused=refused)))).split())
    assert f"…/{DIGEST[:12]}…/model.onnx: is signed by pipelines (b4cccc67cdc2fee3), a key that is revoked" in said


def test_the_screen_says_how_many_labels_are_learnt_from():
    assert "0 in 0 windows" in line(drawn(files=workload()), "labels")
    seen = Windows(count=4, labels=4_000, learnt_share=0.9249)
    assert "4,000 in 4 windows, 92 % to learn from" in line(drawn(files=workload(windows=seen)), "labels")


def longest():
    """A workload of which everything is as long as it can be."""
    rollout = {
        "candidate": {"version": "88"}, "phase": "rolled_back", "requests": 1_234_567, "candidate_requests": 61_728,
        "reason": "disagreement with the teacher " * 20,
    }  # fmt: skip
    seen = facts(rollout=CANARY, candidate="8", weight=0.05)
    press = Press(remark="because " * 60, command='cohobate teacher reject --spec /a/very/long/path --reason "…"')
    found = Condition(state="canary", word="canary 5 %", why="why " * 200, press=press, since=1.0, alarm="done " * 99)
    gauges = {f"labeler-{n}": {"age_seconds": 99.0, "lag": 9_999_999, "paused": "teacher away"} for n in range(9)}
    gauges |= {
        "trigger": {"age_seconds": 1.0, "last": "new labels " * 30},
        "drift": {"age_seconds": 1.0, "outcome": "drift", "index": 1, "drifted": "a, " * 99},
        "agreement": {"rows": 150, "share": 0.9, "lower": 0.8, "upper": 1.0},
        "foretold_accuracy": {"calibrated": 0.9, "calibrated_lower": 0.8, "calibrated_upper": 1.0, "accuracy": 0.9},
    }
    return workload(
        seen, condition=found, rollout=rollout, gauges=gauges, stale=("labeler-1",),
        runs=(RunSeen(id="files-999", pipeline="continual", status="failed", reason="r " * 99, seconds=1e6),),
        alarms=(AlarmSeen(kind="entropy", input_index=10**9, age_seconds=1e6),),
        spec=Registered(version=999, digest=DIGEST, actor="ana", reason="better " * 99, age_seconds=1e6),
    )  # fmt: skip


def test_a_workload_of_which_all_is_said_fits_on_80_by_24_with_a_prompt_and_its_command_is_whole():
    lines = drawn(files=longest())
    assert len(lines) <= 23 and max(map(len, lines)) <= 80
    assert '  cohobate teacher reject --spec /a/very/long/path --reason "…"' in [one.rstrip() for one in lines]
    assert line(lines, "next").startswith("next      because")


def test_where_something_can_be_taken_back_the_screen_has_kubeflow_s_address_whole():
    link = {"rollback_link": {"url": "http://kfp/pipeline/#/runs/new?pipelineId=" + "1" * 60}}
    canary = "".join(one.strip() for one in drawn(files=workload(rolling(), gauges=link)))
    assert "or in Kubeflow:" in canary and link["rollback_link"]["url"] in canary
    assert "in Kubeflow" not in "".join(drawn(files=workload(WELL, gauges=link)))


def test_a_report_that_is_too_old_is_marked_and_the_last_alarm_says_what_is_done():
    gauges = {"labeler": {"age_seconds": 60.0, "lag": 12}, "monitor": {"age_seconds": 5.0, "lag": 3}}
    alarms = (AlarmSeen(kind="drift", input_index=5, age_seconds=7.0),)
    lines = drawn(files=workload(gauges=gauges, stale=("labeler",), alarms=alarms))
    assert "labeler 12 STALE (60 s old), monitor 3" in line(lines, "lag")
    assert "drift at input 5, 7 s ago: nothing is left to do about it" in line(lines, "alarm")


def test_the_platform_is_up_down_or_starts():
    for up, processes, says in ((True, {"broker": 1}, "up"), (False, {"broker": 1}, "starting"), (False, {}, "down")):
        made = Report(home="h", up=up, gateway="g", kafka="k", processes=processes, metrics={}, workloads={})
        console = Console(file=io.StringIO(), width=80)
        console.print(screen(made, NOW, 80), highlight=False)
        assert console.file.getvalue().startswith(f"platform {says}")


def test_what_drifted_is_named():
    drifted = {"outcome": "drift", "index": 7, "drifted": "size, kind", "age_seconds": 1.0}
    none = {"outcome": "none", "index": 7, "drifted": "", "age_seconds": 1.0}
    lines = drawn(files=workload(gauges={"drift": drifted, "predictive_entropy": none, "entropy": none}))
    said = "drift     drift in size, kind at input 7, doubt none, entropy none at label 7"
    assert line(lines, "drift").rstrip() == said


def test_agreement_and_accuracy_have_their_intervals_where_they_were_measured():
    gauges = {"agreement": {"share": 0.9, "lower": 0.8, "upper": 0.95}, "foretold_accuracy": {"accuracy": 0.7}}
    lines = drawn(files=workload(gauges=gauges))
    assert line(lines, "agreement").rstrip() == "agreement 0.900 (0.800 to 0.950) with the teacher, newest window"
    assert line(lines, "accuracy").rstrip() == "accuracy  true 0.700"
    empty = drawn(files=workload(gauges={"foretold_accuracy": {"calibrated": None}}))
    assert not any(one.startswith(("agreement ", "accuracy ")) for one in empty)


def test_several_workloads_are_a_table_worst_first_with_what_to_press_below():
    lines = drawn(good=workload(), bad=workload(facts(workload="bad", leader_age=None)), held=workload(rolling()))
    rows = [one.split()[0] for one in lines if one.startswith(("good", "bad ", "held"))]
    assert rows == ["bad", "held", "good"] and max(map(len, lines)) <= 80
    assert "bad: no controller leads" in "\n".join(lines) and "  cohobate up" in [one.rstrip() for one in lines]


def test_all_shows_every_report_with_short_digests():
    gauges = {"evaluation": {"age_seconds": 1.0, "digest": DIGEST}, "snapshot": {"age_seconds": 1.0, "duplicates": 2}}
    text = "\n".join(drawn(width=120, all_=True, files=workload(gauges=gauges)))
    assert "digest 0123456789ab…" in text and DIGEST not in text and "duplicates 2" in text


def test_watching_draws_until_the_wait_is_interrupted():
    console, drawings = Console(file=io.StringIO(), width=80), []

    def draw():
        drawings.append(len(drawings))
        return f"drawing {len(drawings)}"

    def wait():
        if len(drawings) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch(draw, console, wait)
    assert drawings == [0, 1, 2] and "drawing 3" in console.file.getvalue()


@pytest.fixture(scope="session")
def lived(tmp_path_factory):
    """The settings of a home whose workload has a champion of somebody else's making, and a clock that is ahead."""
    settings = Settings(home=tmp_path_factory.mktemp("home"))
    store = migrated(settings.control_url)
    store.put_intent("signs", 0, Intent(champion=ModelRef(version="1", uri="", digest="", snapshot="", teacher="")))
    ahead = time.time() + 3600.0  # another machine's clock
    store.clock = lambda: ahead
    store.acknowledge("signs", "r1", 1, {})
    store.put_gauge("signs", "labeler", {"lag": 0})
    store.raise_alarm("signs", "drift", 7, {"champion": "1"})
    append(store, "signs", "eve", "first champion", {"version": "1"})
    assert Lease(store, "controller/signs", "here", 5.0).acquire()
    store.finish_run(store.start_run("signs", "bootstrap", "by hand", "eve"), "succeeded", {})
    store.close()
    client = runs.connect(settings)
    client.create_registered_model("cohobate-signs")
    client.create_model_version("cohobate-signs", source="file:///somewhere/model")
    client.set_registered_model_alias("cohobate-signs", "champion", "1")
    return settings


def test_a_model_made_by_hand_is_shown_as_not_ours_and_no_age_is_negative(lived):
    report = read(lived)
    found = report.workloads["signs"]
    assert (found.models, [m.version for m in found.not_ours]) == ((), ["1"])
    assert [x.age_seconds for x in (*found.replicas, *found.alarms)] == [0.0, 0.0]
    assert found.gauges["labeler"]["age_seconds"] == 0.0
    assert (found.condition.word, found.crowned.how) == ("serving", "first champion")
    for all_, says in ((False, "champion  v1 (not ours)"), (True, "v1 champion (not ours)")):
        console = Console(file=io.StringIO(), width=80)
        console.print(screen(report, time.time(), 80, all_=all_), highlight=False)
        assert says in console.file.getvalue()


def test_the_version_of_the_spec_that_is_in_force_is_shown(lived, monkeypatch, tmp_path):
    alone = lived.model_copy(update={"home": tmp_path})
    store = migrated(alone.control_url)
    made = record(store, alone, prepared(alone, TICKETS), "first")
    store.close()
    spec = read(alone).workloads["tickets"].spec
    assert (spec.version, spec.digest, spec.actor, spec.reason) == (1, made.digest, "local", "first")
    assert read(lived).workloads["signs"].spec is None
    lines = drawn(tickets=read(alone).workloads["tickets"])
    assert f"spec 1 ({made.digest[:12]})" in line(lines, "tickets")
    every = " ".join(drawn(all_=True, width=200, tickets=read(alone).workloads["tickets"]))
    assert f"version 1, {made.digest[:12]}…, by local" in every and "first" in every


def test_the_json_is_what_its_schema_in_the_docs_says(lived, monkeypatch):
    monkeypatch.setenv("COHOBATE_HOME", str(lived.home))
    done = CliRunner().invoke(cli.app, ["status", "--json"])
    report = json.loads(done.stdout)
    written = json.loads(SCHEMA.read_text())
    assert written == schema(), "write it anew: python -c 'import json; from infra.status import schema; …'"
    jsonschema.validate(report, written)
    assert report["workloads"]["signs"]["intent"]["champion"] == "1"
    broken = json.loads(done.stdout)
    broken["workloads"]["signs"]["intent"]["weight"] = "half"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, written)


def test_members_that_scripts_rely_on_stay():
    made = {"Report": Report, "Workload": Workload, "Routing": Routing}
    names = {name: {f.name for f in msgspec.structs.fields(struct)} for name, struct in made.items()}
    assert {"home", "up", "gateway", "kafka", "processes", "metrics", "workloads"} <= names["Report"]
    kept = {"models", "not_ours", "intent", "replicas", "rollout", "windows", "gauges", "runs", "alarms"}
    assert kept <= names["Workload"]
    assert {"revision", "champion", "candidate", "previous", "weight", "shadow"} <= names["Routing"]


def test_a_workload_may_be_named_and_watching_prints_no_json(lived, monkeypatch):
    monkeypatch.setenv("COHOBATE_HOME", str(lived.home))
    assert "signs  SERVING" in CliRunner().invoke(cli.app, ["status", "--workload", "signs"]).stdout
    unknown = CliRunner().invoke(cli.app, ["status", "--workload", "sings"])
    assert "signs" in str(unknown.exception) and unknown.exit_code == 1
    assert CliRunner().invoke(cli.app, ["status", "--watch", "--json"]).exit_code == 2


def test_the_decision_that_made_another_version_champion_is_not_shown_as_this_ones():
    crowned = Crowned(version="6", how="promote", at=1.0)
    assert "by promote" not in "\n".join(drawn(files=workload(facts(crowned=crowned))))


@contextlib.contextmanager
def asked(home):
    """The questions that the databases of a home are asked meanwhile."""
    found = []

    def note(connection, cursor, statement, *_):
        if str(home) in str(connection.engine.url):  # not what a thread of another test asks
            found.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def test_of_many_workloads_status_asks_what_it_asks_of_one(tmp_path):
    """But for the ledger's last entries, of which each workload has its own."""
    counts = {}
    for many in (1, 12):
        settings = Settings(home=tmp_path / str(many))
        store = migrated(settings.control_url)
        for n in range(many):
            store.put_gauge(f"w{n}", "labeler", {"lag": 0})
        store.close()
        with asked(settings.home) as questions:
            assert len(read(settings).workloads) == many
        counts[many] = len([q for q in questions if "FROM ledger" not in q])
    assert counts[1] == counts[12]


def test_one_workload_is_looked_at_alone(tmp_path):
    settings = Settings(home=tmp_path)
    store = migrated(settings.control_url)
    for name in ("a", "b"):
        store.put_gauge(name, "labeler", {"lag": 0})
    store.close()
    assert list(read(settings, "b").workloads) == ["b"]
    with pytest.raises(NotFoundError, match=r"workload 'c'.*: a, b"):
        read(settings, "c")
