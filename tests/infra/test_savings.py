import json
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from components.contracts.errors import ConfigError, NotFoundError
from components.contracts.settings import Settings
from components.control.tables import TrafficRow
from components.control.workloads import apply, opened
from infra.cli import app
from infra.savings import UNITS, report, told
from tests.stores import migrated

DAY = "2026-03-01"

SPEC = """
name: letters
teacher: {factory: "t:T"}
features: {factory: "components.student.bytes:ByteNgrams"}
label: {budget: {cost: 0.5}}
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("COHOBATE_HOME", str(tmp_path / "home"))
    store = migrated(Settings().control_url)
    hour = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp())
    with store.transaction() as s:
        s.add(TrafficRow(workload="letters", hour=hour, answers=1000, deferred=10, student_answers=1000,
                         student_seconds=2.0, labels=100, teacher_calls=10, teacher_seconds=5.0))  # fmt: skip
    store.put_gauge("letters", "monitor", {})
    yield store
    store.close()


def shown(*options):
    done = CliRunner().invoke(app, ["savings", *options])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_savings_of_a_period_are_printed_and_unknown_prices_are_blank(home):
    (row,) = json.loads(shown("--since", DAY, "--until", DAY, "--json"))
    assert (row["workload"], row["since"], row["until"]) == ("letters", DAY, DAY)
    assert (row["answers"], row["avoided"]) == (1000, 900)
    assert [row[name] for name in ("avoided_cost", "teacher_per_1000", "student_per_1000", "saved")] == [None] * 4
    lines = [line.rstrip() for line in shown("--since", DAY, "--until", DAY).splitlines()]
    assert lines[0] == f"letters, {DAY} to {DAY}; costs in the currency of the declared prices"
    assert "  teacher cost per 1000" in lines


def test_people_are_told_rounded_numbers_with_what_they_are_of(home):
    (row,) = report(DAY, DAY, [])
    row |= {"student_cost": 44.71732207793348, "saved": -12345.678, "teacher_ms": 0.00012345678, "stale_hour": None}
    shown = told(row)
    assert (shown["student cost"], shown["saved cost"], shown["teacher ms per call"]) == (
        "44.72",
        "-12346",
        "0.0001235",
    )
    assert (shown["stale cost per hour"], shown["answers"]) == ("", "1000")
    assert len(shown) == len(row) - 3 and set(UNITS) <= set(row)


def test_the_prices_are_those_of_the_version_in_force(home, tmp_path):
    (tmp_path / "t.py").write_text("class T: pass\n")
    path = tmp_path / "letters.yaml"
    path.write_text(SPEC.replace("t:T", "t.py:T"))
    spec, bundle = opened(str(path), Settings())
    apply(home, bundle, spec, actor="ada", reason="first")
    (row,) = report(DAY, DAY, ["letters"])
    assert (row["teacher_per_1000"], row["avoided_cost"]) == (500.0, 450.0)


@pytest.mark.parametrize(
    ("since", "until", "names", "error"),
    [("2026-13-01", "", [], ConfigError), ("2026-03-02", DAY, [], ConfigError), ("", "", ["nobody"], NotFoundError)],
)
def test_what_is_no_period_and_no_workload_is_refused(home, since, until, names, error):
    with pytest.raises(error):
        report(since, until, names)
