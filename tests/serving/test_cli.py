import json
import threading

import msgspec
import pytest
from typer.testing import CliRunner

from serving.cli import app
from serving.rollout.certificate import Certified, Judged, Seen
from serving.rollout.evidence import Audited
from serving.rollout.replay import Begun, Looked, encode_line
from serving.rollout.state import as_dict
from serving.rollout.step import command, step
from tests.serving.rollout.made import pair

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


@pytest.mark.parametrize("verb", ["pause", "resume", "promote", "abort", "retry", "undo", "rollback"])
def test_a_reason_is_required(home, store, verb):
    assert run(verb).exit_code == 2
    assert store.open_orders("signs") == []


@pytest.mark.parametrize(
    ("args", "verb", "order_args"),
    [
        (("promote",), "promote", {}),
        (("promote", "--full"), "promote-full", {}),
        (("undo", "--revision", "0"), "undo", {"revision": 0}),
    ],
)
def test_options_of_a_verb_go_with_the_order(home, store, args, verb, order_args):
    thread = finishing(store, True, "done")
    told = json.loads(run(*args, "--reason", "r", "--json").stdout)
    thread.join()
    order = store.get_order(told["order"])
    assert (order.verb, order.args) == (verb, order_args)


def test_an_order_that_was_decided_on_another_revision_is_not_placed(home, store):
    assert run("undo", "--revision", "7", "--reason", "r").exit_code == 1
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


def test_the_screen_of_a_rollout_says_what_it_needs_and_what_may_be_done(home, store, model, spec):
    assert run("status").stdout == "no rollout of signs yet\n"
    state, _ = begun(model, spec).state()
    wrong = [Audited(id="i", champion=False, candidate=True, weight=0.0, by="truth")] * 5
    state, _ = step(state, [pair(), *wrong], 3.0)
    store.put_rollout(state.id, "signs", 0, True, as_dict(state))
    shown = run("status").stdout
    assert "rollout   r, revision 1: shadow" in shown and "v2 against champion v1, given 0 %" in shown
    assert "1 requests, 1 the candidate's, 0 audited, in 2 s" in shown
    assert "limit 20; most of it: wrong by the truth: 5 of 5" in shown and "promote --full" in shown
    state, _ = command(state, "abort", 4.0, order="o", actor="me", reason="enough")
    store.put_rollout(state.id, "signs", 1, False, as_dict(state))
    assert "reason    enough" in (ended := run("status").stdout) and "given" not in ended and "retry, undo" in ended


def test_replays_a_journal(home, model, spec):
    lines = [encode_line(begun(model, spec)), encode_line(Looked(at=2.0, seen=(pair(ok=False),) * 20))]
    (home / "r.jsonl").write_bytes(b"\n".join(lines))
    done = json.loads(runner.invoke(app, ["replay", str(home / "r.jsonl"), "--json"]).stdout)
    assert done["phase"] == "rolled_back" and "errors" in done["reason"]
    assert (done["decisions"][0]["verb"], done["decisions"][0]["request"]) == ("start", 0)
    assert done["decisions"][1]["verb"] == "rollback" and 5 < done["decisions"][1]["request"] < 20
    tried = runner.invoke(app, ["replay", str(home / "r.jsonl"), "--policy", spec.source, "--json"])
    assert json.loads(tried.stdout) == done


def test_replays_evidence_under_a_policy(home):
    line = {"time": 1.0, "arm": "champion", "ok": True, "latency_ms": 2.0, "label": "a", "teacher": "a"}
    pairs = [line | {"time": float(n), "other": {"ok": True, "latency_ms": 2.0, "label": "b"}} for n in range(40)]
    (home / "e.jsonl").write_text("\n".join(json.dumps(p) for p in pairs))
    (home / "p.yaml").write_text("alpha: 0.01\nsteps: [{weight: 0.0, min_requests: 100}]\n")
    done = json.loads(
        runner.invoke(app, ["replay", str(home / "e.jsonl"), "--policy", str(home / "p.yaml"), "--json"]).stdout
    )
    last = done["decisions"][-1]
    assert (last["verb"], done["phase"]) == ("rollback", "rolled_back")
    assert 5 < last["request"] < 20 and last["at"] == last["request"] - 1 and "disagreement" in last["reason"]
    assert (
        f"request={last['request']}"
        in runner.invoke(app, ["replay", str(home / "e.jsonl"), "--policy", str(home / "p.yaml")]).stdout
    )


def test_replays_the_journal_of_a_certificate(home):
    begun = Certified(at=1.0, version="7", digest="d" * 64, most=0.1, limit=0.6)
    wrong = tuple(Judged(id=str(n), confidence=0.9, disagrees=True) for n in range(20))
    lines = [msgspec.json.encode(line) for line in (begun, Seen(at=2.0, judged=wrong))]
    (home / "c.jsonl").write_bytes(b"\n".join(lines))
    done = json.loads(runner.invoke(app, ["replay", str(home / "c.jsonl"), "--json"]).stdout)
    assert [step["kind"] for step in done["steps"]] == ["guard"] and done["guarded"] and done["version"] == "7"
    shown = runner.invoke(app, ["replay", str(home / "c.jsonl")])
    assert shown.exit_code == 0 and "every answer is deferred" in shown.stdout
