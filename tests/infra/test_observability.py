"""The alerts and dashboards that ship, as Prometheus' own checker and Grafana's format see them."""

import json
import re
from pathlib import Path

import msgspec
import pytest

from tests.prometheus import promtool, there

FOLDER = Path("infra/observability")
ALERTS = FOLDER / "alerts.yaml"
UNIT_TESTS = Path("tests/infra/observability/alerts_test.yaml")
BOARDS = sorted((FOLDER / "dashboards").glob("*.json"))


def rules():
    return [rule for group in msgspec.yaml.decode(ALERTS.read_bytes())["groups"] for rule in group["rules"]]


def anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@there
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "--lint=all", "--lint-fatal", str(ALERTS)),
        ("check", "config", str(FOLDER / "prometheus.yaml")),
        ("test", "rules", str(UNIT_TESTS)),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_prometheus_takes_the_rules_and_they_fire_when_they_should(arguments):
    done = promtool(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_shown_to_fire_and_to_wait():
    shown = {}
    for case in msgspec.yaml.decode(UNIT_TESTS.read_bytes())["tests"]:
        for step in case.get("alert_rule_test", ()):
            shown.setdefault(step["alertname"], set()).add(bool(step["exp_alerts"]))
    assert shown == {rule["alert"]: {True, False} for rule in rules()}


def test_every_alert_says_how_urgent_it_is_and_has_its_section_in_the_runbook():
    page = anchors(Path("docs/runbook.md").read_text())
    for rule in rules():
        file, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert file == "docs/runbook.md" and anchor in page, rule["alert"]
        assert rule["labels"]["severity"] in ("page", "ticket") and rule["annotations"]["summary"]
    named = set(re.findall(r"`(Cohobate[A-Za-z]+)`", Path("docs/runbook.md").read_text()))
    assert named == {rule["alert"] for rule in rules()}


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_whole_and_its_panels_do_not_overlap(path):
    board = json.loads(path.read_text())
    assert board["uid"].startswith("cohobate-") and board["panels"]
    names = {variable["name"] for variable in board["templating"]["list"]}
    assert names == {"datasource", "workload"}
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    taken = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}" and 'workload=~"$workload"' in target["expr"]


def test_the_three_dashboards_are_there():
    assert [path.stem for path in BOARDS] == ["cost", "on-call", "quality"]
