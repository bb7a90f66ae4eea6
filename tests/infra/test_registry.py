import json
import re

import pytest
from typer.testing import CliRunner

from components.contracts.errors import ConfigError, NotFoundError, OrderError
from components.contracts.settings import Settings
from components.contracts.spec import load_spec
from components.control.store import ControlStore
from components.ledger.ledger import entries, verify
from infra.cli import app
from infra.workloads import spec_path

SPEC = "name: w\nseed: {seed}\nteacher: {{factory: 'code.py:Teacher'}}\nfeatures: {{factory: 'builtins:dict'}}\n"


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("COHOBATE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COHOBATE_ACTOR", "ana")
    store = ControlStore(Settings().control_url)
    store.migrate()
    yield store
    store.close()


@pytest.fixture
def written(tmp_path):
    (tmp_path / "code.py").write_text("class Teacher: pass\n")

    def write(seed, extra=""):
        (tmp_path / "w.yaml").write_text(SPEC.format(seed=seed) + extra)
        return str(tmp_path / "w.yaml")

    return write


def run(*words):
    """What a command prints as JSON; its error as it is."""
    done = CliRunner().invoke(app, ["workload", *words, "--json"])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


def test_a_workload_is_applied_listed_shown_rolled_back_and_removed_and_all_of_it_is_kept(store, written):
    assert run("list") == []
    assert run("apply", written(1), "--reason", "the first")["version"] == 1
    assert run("apply", written(2))["taken"] == {"seed": []}
    (row,) = run("list")
    assert (row["workload"], row["number"], row["reference"]) == ("w", 2, f"workload:w@{row['digest']}")
    shown = run("show", "w", "--version", "1")
    assert (shown["number"], shown["actor"], shown["reason"]) == (1, "ana", "the first")
    assert list(shown["files"]) == ["code.py", "spec.yaml"] and run("show", "w")["digest"] == row["digest"]
    assert run("rollback", "w", "--reason", "worse")["version"] == 1
    assert load_spec(spec_path("workload:w")).seed == 1 and load_spec(spec_path("workload:w@2")).seed == 2
    assert run("rollback", "w", "--to", row["digest"], "--reason", "no")["version"] == 2
    assert run("remove", "w", "--reason", "over")["version"] is None and run("list") == []
    with pytest.raises(NotFoundError, match="none of this name is registered"):
        run("show", "w")
    assert [(c["verb"], c["before"], c["version"], c["reason"]) for c in run("history", "w")] == [
        ("apply", None, 1, "the first"), ("apply", 1, 2, ""), ("roll back", 2, 1, "worse"), ("roll back", 1, 2, "no"),
        ("remove", 2, None, "over"),
    ]  # fmt: skip
    assert [e.action for e in entries(store, "w")] == [
        "apply workload", "apply workload", "roll back workload", "roll back workload", "remove workload",
    ]  # fmt: skip
    assert verify(store) == 5
    with pytest.raises(NotFoundError, match="none of this name was ever registered"):
        run("history", "v")


def test_a_version_that_only_a_run_used_is_in_the_history_too(store, written):
    from components.control import workloads

    run("apply", written(1))
    spec, bundle = workloads.opened(written(2), Settings())
    workloads.apply(store, bundle, spec, actor="bo", reason="a run of continual", in_force=False)
    last = run("history", "w")[-1]
    assert (last["verb"], last["version"], last["actor"]) == ("recorded", 2, "bo")


def test_what_cannot_change_is_refused_for_a_rollback_too_and_changes_nothing(store, written):
    run("apply", written(1))
    before = run("show", "w")
    with pytest.raises(ConfigError, match=r"partitions is 'changed': cannot change: .*another name"):
        run("apply", written(2, "partitions: 4\n"))
    run("remove", "w", "--reason", "to begin anew")
    run("apply", written(2, "partitions: 4\n"))
    with pytest.raises(ConfigError, match="partitions is 'changed'"):
        run("rollback", "w", "--to", "1", "--reason", "back")
    assert run("show", "w")["number"] == 2 and run("show", "w", "--version", "1") == before


def test_a_workload_that_somebody_works_for_is_not_removed(store, written):
    run("apply", written(1))
    store.acknowledge("w", "replica", 1, {})
    with pytest.raises(
        OrderError, match=r"order to remove w: 1 replicas of the gateway answer for it: 'cohobate down'"
    ):
        run("remove", "w", "--reason", "over")
    assert len(run("list")) == 1


def test_every_command_prints_text_for_a_person(store, written):
    invoke = CliRunner().invoke
    assert invoke(app, ["workload", "apply", written(1)]).output == "w: version 1 is in force\n"
    same = "w: nothing differs from the spec in force (version 1)\n"
    assert invoke(app, ["workload", "apply", written(1)]).output == same
    assert (
        invoke(app, ["workload", "apply", written(2)]).output
    ) == "w: seed taken up (by whoever starts from now on)\nw: version 2 is in force\n"
    for words in (["list"], ["show", "w"], ["history", "w"]):
        assert re.search(r"workload=w .*[0-9a-f]{64}", invoke(app, ["workload", *words]).output)
