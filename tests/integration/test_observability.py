"""A real Prometheus scrapes a platform and evaluates every rule and every panel that ships."""

import contextlib
import json
import re
import time
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from components.contracts.spec import Budget, Monitor
from components.control.tables import LeaderRow
from components.label.assembly import assemble
from components.telemetry.endpoint import Health, exposed
from components.telemetry.metrics import GaugesOfStore, LabelerMetrics
from infra.demo import bad
from pipelines.monitor import Monitor as Watch
from serving.control.facts import read_facts
from serving.control.metrics import FactsOfStore
from tests.integration.loop import TICKETS, Loop, Platform
from tests.prometheus import prometheus, there
from tests.waiting import wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420), pytest.mark.filterwarnings("ignore"), there]

FOLDER = Path("infra/observability")
SELECTOR = re.compile(r"\b((?:cohobate|process)_\w+)(?!\w*\s*=)(\{[^}]*\})?")
GROUPED = re.compile(r"\b(?:by|on|ignoring|without) \(([^)]*)\)")
LEGEND = re.compile(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}")
KINDS = ("billing", "login")


@pytest.fixture(scope="module")
def scraped(tmp_path_factory):
    """A Prometheus that has scraped a labeler, a gateway and the monitor of a platform a few times."""
    folder = tmp_path_factory.mktemp("platform")
    platform = Platform(folder / "home")
    loop, store = Loop(platform, TICKETS), platform.store
    metrics = LabelerMetrics(loop.name)
    label = msgspec.structs.replace(loop.spec.label, budget=Budget(per_hour=100_000, per_day=1_000_000))
    watched = Monitor(window=60, reference=60, resamples=200, run_length=1_000)
    spec = msgspec.structs.replace(loop.spec, label=label, monitor=watched)
    loop.labeler.close()
    loop.labeler = assemble(spec, platform.settings, store, loop.broker, metrics=metrics)
    loop.first(KINDS, 200)
    champion = store.intent(loop.name)[1].champion
    worse = bad.register(loop.spec, loop.settings, loop.registry, champion)
    assert loop.order("start", "a test", {"version": worse.version, "forced": True, "skip_shadow": True})
    assert loop.order("promote-full", "so that there is a previous one", {}) and loop.order("rollback", "a test", {})
    monitor = Watch(spec, store, loop.broker)
    for _ in range(4):
        loop.ask(loop.chance.choices(KINDS, k=40))
        while monitor.step(0.0):
            pass
    with store.transaction() as s:  # its controller is heard of, however long the tests take
        s.add(LeaderRow(name=f"controller/{loop.name}", holder="here", beats=1, at=time.time() + 1e6))
    store.put_gauge(loop.name, "labeler", loop.labeler.gauge())
    store.raise_alarm(loop.name, "drift", 1, {"champion": store.intent(loop.name)[1].champion.version})
    store.finish_run(store.start_run(loop.name, "continual", "by hand", "eve"), "failed", {})
    happened(loop, metrics)
    registry = CollectorRegistry()
    registry.register(GaugesOfStore(loop.name, lambda: {n: g.value for n, g in store.gauges(loop.name).items()}))
    registry.register(
        FactsOfStore(
            loop.name, lambda: read_facts(store, loop.name, time.time(), leader_term=platform.settings.leader_seconds)
        )
    )
    with contextlib.ExitStack() as stack:
        for role, known in (
            ("labeler", metrics.registry), ("gateway", loop.gateway.metrics.registry), ("monitor", registry)
        ):  # fmt: skip
            stack.enter_context(exposed(platform.settings, role, loop.name, known, Health()))
        server = stack.enter_context(prometheus(configured(folder, platform.settings.home)))
        wait_for(lambda: all(scrapes(server, role) >= 3 for role in ("labeler", "gateway", "monitor")))
        yield server
    loop.close()


def happened(loop, metrics):
    """What does not happen while all is well is counted by hand."""
    loop.gateway.metrics.refused("undecodable")
    loop.gateway.metrics.asked("teacher", "answered")
    metrics.dead("undecodable")
    metrics.teacher_failed("timeout")


def configured(folder, home):
    """The configuration that ships, for this home and in a hurry; its file."""
    config = msgspec.yaml.decode((FOLDER / "prometheus.yaml").read_bytes())
    (job,) = config["scrape_configs"]
    assert job["file_sd_configs"][0]["files"][0].endswith("/metrics/*.json")
    job["file_sd_configs"][0]["files"] = [f"{home}/metrics/*.json"]
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    (folder / "prometheus.yaml").write_bytes(msgspec.yaml.encode(config))
    (folder / "alerts.yaml").write_bytes((FOLDER / "alerts.yaml").read_bytes())
    return folder / "prometheus.yaml"


def scrapes(server, role):
    found = server.api("query", query=f'count_over_time(cohobate_ready{{role="{role}"}}[1h])')["result"]
    return int(found[0]["value"][1]) if found else 0


def rules():
    groups = msgspec.yaml.decode((FOLDER / "alerts.yaml").read_bytes())["groups"]
    return [(r["alert"], r["expr"], r["annotations"]["summary"]) for group in groups for r in group["rules"]]


def panels():
    for path in sorted((FOLDER / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                # longer than a busy machine may go without a scrape
                expression = target["expr"].replace("$workload", "tickets").replace("$__rate_interval", "1h")
                yield f"{path.stem}: {panel['title']}", expression.replace("$__range", "1h"), target["legendFormat"]


OF_SOME = ("cohobate_entity_defaults_total", "entity_skew", "cohobate_masking_columns_absent")
"""Of workloads alone that name features of entities, or columns to mask, which this platform has none of."""


def test_every_metric_of_a_rule_or_panel_is_exported_with_these_labels(scraped):
    for place, expression, says in (*rules(), *panels()):
        if any(name in expression for name in OF_SOME):
            continue
        known = set()
        for name, matchers in SELECTOR.findall(expression):
            found = scraped.api("series", **{"match[]": name + matchers})
            assert found, (place, name + matchers)
            known |= set().union(*found)
        grouped = {label.strip() for labels in GROUPED.findall(expression) for label in labels.split(",")}
        named = {n for n in LEGEND.findall(says) if n != "value"} - ({"alertname"} if "ALERTS" in expression else set())
        assert grouped | named <= known | {"le", "alertname", "severity", "workload"}, (place, grouped | named, known)


def test_every_rule_is_evaluated_without_an_error(scraped):
    def evaluated():
        """All rules, once each was evaluated on what was scraped."""
        found = [rule for group in scraped.api("rules")["groups"] for rule in group["rules"]]
        known = all(rule["health"] != "unknown" for rule in found)
        return found if known and awake_of(found) >= {"CohobateDrift", "CohobateRunFailed"} else None

    def awake_of(found):
        return {rule["name"] for rule in found if rule["state"] != "inactive"}

    found = wait_for(evaluated)  # the alarm that is open, and the run that failed
    assert {rule["name"]: (rule["health"], rule.get("lastError", "")) for rule in found} == {
        name: ("ok", "") for name, _, _ in rules()
    }
    asleep = {"CohobateNoLeader", "CohobateTeacherChanged", "CohobateBudgetSpent", "CohobateDisagrees"}
    assert not awake_of(found) & asleep


def test_every_panel_shows_something_and_its_legend_has_its_labels(scraped):
    empty = []
    for place, expression, legend in panels():
        found = scraped.api("query", query=expression)["result"]
        if not found and "ALERTS" not in expression:
            empty.append((place, expression))
        for series in found:
            missing = set(LEGEND.findall(legend)) - series["metric"].keys()
            assert not missing, (place, legend, series["metric"])
    assert empty == []
