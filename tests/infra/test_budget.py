import json

import pytest
from typer.testing import CliRunner

from components.contracts.spec import Budget as Limits
from components.contracts.spec import load_spec
from components.query.budget import Budget
from infra.cli import app
from tests.stores import migrated

SPEC = """
name: w
teacher: {factory: "t:T"}
features: {factory: "f:F"}
label: {budget: {per_hour: 10, reserve: 0.0}}
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("COHOBATE_HOME", str(tmp_path))
    (tmp_path / "w.yaml").write_text(SPEC)
    return lambda *args: CliRunner().invoke(app, ["budget", *args, "--spec", str(tmp_path / "w.yaml"), "--json"])


def test_a_person_sees_what_is_left(run, tmp_path):
    store = migrated(f"sqlite:///{tmp_path}/control.db")
    ahead = store.clock() + 3_000  # the newest hour stays the present one, should the next one begin meanwhile
    Budget(load_spec(tmp_path / "w.yaml").label.budget, "w", store, clock=lambda: ahead).reserve(0, 14)
    found = json.loads(run("status").stdout)
    assert (found["hour"]["calls"], found["hour"]["left"], found["hour"]["skipped"]) == (10, 0.0, 4)
    assert found["day"]["left"] is None and found["unsettled"] == 1 and found["hour"]["kept"] == 0.0


def test_a_person_sees_what_is_kept_for_audits(run, tmp_path):
    (tmp_path / "w.yaml").write_text(SPEC.replace("reserve: 0.0", "reserve: 0.0, audits: 0.4"))
    store = migrated(f"sqlite:///{tmp_path}/control.db")
    ahead = store.clock() + 3_000
    Budget(load_spec(tmp_path / "w.yaml").label.budget, "w", store, clock=lambda: ahead).reserve(14, 0)
    found = json.loads(run("status").stdout)["hour"]
    assert (found["calls"], found["left"], found["kept"]) == (6, 4.0, 4.0)


def test_a_clock_that_was_set_right_frees_the_budget_and_is_in_the_ledger(run, tmp_path):
    store = migrated(f"sqlite:///{tmp_path}/control.db")
    ahead = store.clock() + 90_000
    Budget(Limits(per_hour=10, reserve=0.0), "w", store, clock=lambda: ahead).reserve(0, 10)
    assert json.loads(run("status").stdout)["hour"]["left"] == 0.0
    assert run("trust-clock", "--reason", "ntp").exit_code == 0
    assert json.loads(run("status").stdout)["hour"]["left"] == 10.0
    ledger = CliRunner().invoke(app, ["ledger", "show", "--json"]).stdout
    assert "budget trust-clock" in ledger and "ntp" in ledger
