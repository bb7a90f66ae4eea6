import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.contracts.spec import load_spec
from infra.cli import app
from infra.history_check import FIRST, check_history
from infra.init import HISTORY, write_workload

TICKETS = str(Path(__file__).parents[1] / "workloads" / "tickets" / "tickets.yaml")
REGRESSION = str(Path(__file__).parents[1] / "workloads" / "regression.yaml")
NOW = 1_800_000_000.0


def ticket(body, **more):
    return {"json": {"subject": "help", "body": body}, "time": NOW - 100, **more}


@pytest.fixture
def checked(tmp_path):
    def check(*rows, spec=TICKETS):
        path = tmp_path / "h.jsonl"
        path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows))
        return check_history(str(path), load_spec(spec), NOW)

    return check


def test_a_good_history_is_told_in_numbers(checked):
    report = checked(
        ticket("a", label="billing"), ticket("b", label="login"), ticket("b", id="x"), ticket("c", label="login")
    )
    assert (report.rows, report.contents, report.with_truth, report.wrong) == (4, 3, 3, 0)
    assert report.classes == {"login": 2, "billing": 1}
    assert report.seconds == [NOW - 100, NOW - 100]


@pytest.mark.parametrize(
    ("rows", "place", "reason"),
    [
        ([ticket("a"), '{"json": '], "line 2", "unreadable"),
        ([{"json": {"subject": "no body"}, "time": NOW}], "line 1", "bad_ticket"),
        ([ticket("a", time=NOW + 90_000)], "line 1", "future_time"),
        ([ticket("a", workload="mail")], "line 1", "wrong_workload"),
        ([ticket("x" * 5000)], "line 1", "oversize"),
        ([ticket("a", value=3.0)], "line 1", "other_task"),
        ([ticket("a", id="1"), "", ticket("b", id="1")], "line 3", "same_id"),
        ([ticket("a", id="1", label="login"), ticket("a", id="1", label="billing")], "line 2", "other_truth"),
        ([], "", "empty"),
    ],
)
def test_what_labelling_would_refuse_is_told_with_its_line(checked, rows, place, reason):
    report = checked(*rows)
    assert report.wrong == 1 and report.reasons == {reason: 1}
    ((where, what),) = report.faults
    assert place in where and what.startswith(f"{reason}: ")


def test_a_regression_has_values(checked):
    rows = [{"json": [1.0, 2.0, v], "value": v} for v in (2.0, -1.0, 5.0)]
    report = checked(*rows, spec=REGRESSION)
    assert report.values == [-1.0, 5.0] and report.classes == {} and report.wrong == 0


def test_of_sets_each_class_is_counted(tmp_path):
    spec = write_workload("mine", "multilabel", tmp_path / "mine")
    report = check_history(str(spec.with_name(HISTORY)), load_spec(spec))
    assert report.wrong == 0 and report.with_truth == 400
    assert set(report.classes) == {"delivery", "price", "quality", "service"} and sum(report.classes.values()) > 400


def run(*arguments):
    return CliRunner().invoke(app, ["history", "check", *arguments], env={"COLUMNS": "200"})


def test_the_command_ends_with_0_or_1_and_tells_the_first_faults(tmp_path):
    path = tmp_path / "h.jsonl"
    path.write_text(
        "\n".join(json.dumps({"json": {"subject": "s", "body": str(i)}, "label": "login"}) for i in range(40))
    )
    good = run(str(path), "--spec", TICKETS)
    assert good.exit_code == 0, good.output
    assert "rows      40, 40 different payloads" in good.output
    assert "known of 40 (1 classes: login 40)" in good.output
    assert "held out  at most 8 (0.2); limits.min_rows asks for 30" in good.output
    path.write_text("\n".join(["{"] * (FIRST + 5)))
    bad = run(str(path), "--spec", TICKETS)
    assert bad.exit_code == 1
    assert bad.output.count("wrong     ") == FIRST
    assert f"{FIRST + 5} faults ({FIRST + 5} unreadable), of which the first {FIRST} are shown" in bad.output
    told = run(str(path), "--spec", TICKETS, "--json")
    assert told.exit_code == 1 and json.loads(told.output)["wrong"] == FIRST + 5
