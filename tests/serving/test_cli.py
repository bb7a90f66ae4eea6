import json
import threading

import pytest
from typer.testing import CliRunner

from serving.cli import app
from serving.rollout.evidence import Answered
from serving.rollout.replay import Begun, Looked, encode_line
from serving.rollout.state import as_dict

runner = CliRunner()


@pytest.fixture
def home(tmp_path, monkeypatch, model, spec):
    monkeypatch.setenv("COHOBATE_HOME", str(tmp_path))
    monkeypatch.setenv("COHOBATE_ACTOR", "eve")
    return tmp_path


def begun(model, spec):
    return Begun(
        at=1.0, id="r", workload="signs", candidate=model("2"), champion=model("1"), policy=spec.rollout,
        audit_share=0.0, forced=False, skip_shadow=False, reason="test", actor="me",
    )  # fmt: skip


def finishing(store, ok, outcome):
    """A controller that finishes the first order that comes."""

    def work():
        while not (orders := store.open_orders("signs")):
            pass
        store.finish_order(orders[0].id, ok, outcome)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def run(*args):
    return runner.invoke(app, [*args, "--workload", "signs"])


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 1)])
def test_a_verb_waits_for_its_outcome_and_fails_on_refusal(home, store, ok, code):
    thread = finishing(store, ok, "what came of it")
    done = run("abort", "--reason", "looks odd", "--json")
    thread.join()
    assert done.exit_code == code
    told = json.loads(done.stdout)
    assert (told["ok"], told["outcome"]) == (ok, "what came of it")
    order = store.get_order(told["order"])
    assert (order.verb, order.actor, order.reason) == ("abort", "eve", "looks odd")


@pytest.mark.parametrize("verb", ["pause", "resume", "promote", "abort", "rollback"])
def test_a_reason_is_required(home, store, verb):
    assert run(verb).exit_code == 2
    assert store.open_orders("signs") == []


def test_the_same_key_orders_once(home, store):
    for _ in range(2):
        thread = finishing(store, True, "done") if not store.workloads() else None
        store.put_gauge("signs", "seen", {})
        assert run("pause", "--reason", "r", "--key", "K").exit_code == 0
        if thread:
            thread.join()
    listed = json.loads(run("orders", "--json").stdout)
    assert [(o["id"], o["ok"], o["outcome"]) for o in listed] == [("K", True, "done")]


def test_lists_and_shows_rollouts(home, store, model, spec):
    assert json.loads(run("list", "--json").stdout) == []
    state, _ = begun(model, spec).state()
    store.put_rollout(state.id, "signs", 0, True, as_dict(state))
    (row,) = json.loads(run("list", "--json").stdout)
    assert (row["candidate"], row["phase"]) == ("2", "shadow")
    assert json.loads(run("status", "--json").stdout)["id"] == "r"
    assert "shadow" in run("list").stdout


def test_replays_a_journal(home, model, spec):
    seen = tuple(Answered(id=str(i), arm="champion", ok=False, latency_ms=1.0) for i in range(3))
    lines = [encode_line(begun(model, spec)), encode_line(Looked(at=2.0, seen=seen))]
    (home / "r.jsonl").write_bytes(b"\n".join(lines))
    done = json.loads(runner.invoke(app, ["replay", str(home / "r.jsonl"), "--json"]).stdout)
    assert done["phase"] == "rolled_back" and "errors" in done["reason"]
    assert [d["verb"] for d in done["decisions"]] == ["start", "rollback"]
    tried = runner.invoke(app, ["replay", str(home / "r.jsonl"), "--spec", spec.source, "--json"])
    assert json.loads(tried.stdout)["phase"] == "rolled_back"
