"""The whole loop in one process: stream, label, train, gate, canary, promotion, and two rollbacks."""

from pathlib import Path

import pytest

from components.contracts.attestation import signer, verifier
from components.contracts.storage import get_bytes
from components.ledger.ledger import entries, verify
from components.snapshot.window import read
from infra.demo import bad
from infra.evidence.verify import verify as show
from infra.evidence.write import write
from serving.replica.split import to_candidate
from tests.integration.loop import HEAT, TICKETS, Loop, Platform
from tests.keys import keys
from tests.waiting import wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420), pytest.mark.filterwarnings("ignore")]


def test_a_student_is_distilled_updated_promoted_and_taken_back(tmp_path: Path) -> None:
    loop = Loop(Platform(tmp_path), TICKETS)
    old, new = ["billing", "login"], ["shipping", "returns"]
    first = loop.first(old, 200)

    # The traffic changes: the champion knows none of the new classes.
    stale = [a["label"] in new for _ in range(13) for a in loop.ask(loop.chance.choices(new, k=20))]
    assert not any(stale)

    # An update passes the gate, the canary takes it to 100 %.
    second = loop.promote(old + new)
    assert second != first
    assert loop.alias("previous") == first and loop.alias("candidate") is None
    rollout = loop.store.rollouts("tickets")[-1].state
    assert rollout["outcome"] == "promoted" and rollout["steps"][0]["name"] == "shadow"
    loop.chance.seed(1)  # the same inputs in every run, however many it took to come here
    fresh = [(a["label"], a["model_version"]) for a in loop.ask(["shipping"] * 20)]
    assert sum(label == "shipping" for label, _ in fresh) >= 18 and {v for _, v in fresh} == {second}

    # A student with permuted classes is forced past the gate; the canary's guard takes it back.
    champion = loop.store.intent("tickets")[1].champion
    assert champion is not None
    worse = bad.register(loop.spec, loop.settings, loop.registry, champion)
    assert not loop.order("start", "without force", {"version": worse.version})
    assert loop.order("start", "a test", {"version": worse.version, "forced": True, "skip_shadow": True})
    loop.until(lambda: loop.store.active_rollout("tickets") is None, old + new)
    rollout = loop.store.rollouts("tickets")[-1].state
    assert rollout["outcome"] == "rolled_back" and "disagreement" in rollout["reason"]
    # It served what its first weight gives it and nothing else, which may be none of the few that the guard let pass.
    given = [a["id"] for a in loop.answers if a["model_version"] == worse.version]
    assert [step["weight"] for step in rollout["steps"]] == [0.05] and rollout["candidate_requests"] == len(given)
    assert all(to_candidate("tickets", worse.digest, key, 0.05) for key in given)
    assert loop.alias("champion") == second
    assert loop.store.intent("tickets")[1].candidate is None

    # A person on call takes the last promotion back.
    assert loop.order("rollback", "three in the morning", {"to": "previous"})
    assert loop.alias("champion") == first and loop.alias("previous") == second
    wait_for(lambda: {a["model_version"] for a in loop.ask(["login"])} == {first})

    # All of it is in the ledger, and what serves is what was registered.
    assert verify(loop.store) == len(list(entries(loop.store)))
    actions = [e.action for e in entries(loop.store, "tickets")]
    assert shown(loop, second, tmp_path) == []
    assert "first champion" in actions and "rollout promote" in actions and "rollback" in actions
    served = loop.store.intent("tickets")[1].champion
    assert served is not None and get_bytes(served.uri, served.digest)
    loop.close()


def shown(loop: Loop, version: str, folder: Path) -> list[str]:
    """What a stranger finds wrong with the evidence of a version."""
    secret, public = keys(folder)
    bundle = folder / "bundle.tar"
    bundle.write_bytes(write(loop.settings, loop.registry, loop.store, "tickets", version, signer(str(secret)), True))
    done = show(bundle, verifier(public))
    assert any(check.name == "rollouts" and check.told.startswith("1 rollouts") for check in done.checks)
    return [wrong for check in done.checks for wrong in check.wrong]


def test_two_workloads_on_one_platform_do_not_see_each_other(tmp_path: Path) -> None:
    """A classification and a regression take turns; the regression goes the same whole way."""
    platform = Platform(tmp_path)
    loops = [Loop(platform, TICKETS), Loop(platform, HEAT)]
    tickets, heat = loops
    old, new = {"tickets": ["billing", "login"], "heat": ["steady"]}, {"tickets": ["shipping"], "heat": ["rise"]}
    firsts = {loop.name: loop.first(old[loop.name], 200) for loop in loops}

    # Only the weather changes, and only its student is updated, promoted, and taken back.
    for _ in range(10):
        heat.ask(["rise"] * 20)
        tickets.ask(tickets.chance.choices(old["tickets"], k=5))
    heat.chance.seed(1)
    off = [abs(a["soft_label"]["value"] - 12.0) > 5.0 for a in heat.ask(["rise"] * 20)]
    assert sum(off) >= 15
    second = heat.promote(new["heat"])
    heat.chance.seed(1)  # the same inputs in every run, however many it took to come here
    near = [abs(a["soft_label"]["value"] - 12.0) < 10.0 for a in heat.ask(["rise"] * 20)]
    assert sum(near) >= 18
    assert heat.order("start", "the stale one again", {"version": firsts["heat"], "forced": True, "skip_shadow": True})
    heat.until(lambda: platform.store.active_rollout("heat") is None, new["heat"])
    rollout = platform.store.rollouts("heat")[-1].state
    assert rollout["outcome"] == "rolled_back" and "disagreement" in rollout["reason"]
    assert heat.alias("champion") == second

    # Nothing of that reached the other: models, aliases, weights, rollouts, orders, windows.
    assert platform.store.rollouts("tickets") == []
    assert tickets.alias("champion") == firsts["tickets"] and tickets.alias("previous") is None
    assert {a["model_version"] for a in tickets.ask(["login"] * 5)} == {firsts["tickets"]}
    assert len(platform.registry.versions("tickets")) == 1 and len(platform.registry.versions("heat")) == 2
    assert {e.workload for e in entries(platform.store, "tickets")} == {"tickets"}

    # Nor did a record: every topic holds what its own workload sent, and every label is by its own teacher.
    for loop, other in (loops, loops[::-1]):
        assert loop.labeler.counts["dead"] == 0
        assert loop.labeler.counts["labelled"] == loop.sent != other.sent
        for window in platform.store.windows(loop.name):
            assert window.manifest["teacher"] == loop.labeler.asking.reference
            ids = read(window.uri, window.digest)["input_id"].to_pylist()
            assert ids and all(name.startswith(f"{loop.name}-") for name in ids)
    for loop in loops:
        loop.close()
