"""Versions: the list, one with its lineage and verdict, two side by side, and reports that cannot reach the console."""

import time

import msgspec
import pytest

from components.contracts.spec import RolloutPolicy
from components.contracts.storage import put_bytes
from components.control.tables import WindowRow
from components.ledger.ledger import append
from components.registry.registry import ForeignVersion, VersionInfo
from serving.admin.app import create_app
from serving.rollout.state import as_dict
from serving.rollout.step import begin
from tests.serving.admin.conftest import W, ref
from tests.serving.admin.console.test_workload import MARKUP, SHOWN
from tests.serving.conftest import MemoryRegistry

VERDICT = {
    "decision": "reject",
    "findings": [
        {"measure": "agreement", "value": 0.71, "limit": ">= 0.8", "outcome": "fail", "bound": 0.65, "n": 120,
         "reason": "agreement is 0.71, at least 0.65 with confidence 0.9; it must be >= 0.8"},
        {"measure": "rows", "value": None, "limit": ">= 30", "outcome": "missing", "reason": MARKUP},
    ],
}  # fmt: skip


class Registry(MemoryRegistry):
    def sorted_out(self, workload):
        return list(self.infos.values()), [ForeignVersion(version="9", aliases=("candidate",), why=MARKUP)]


@pytest.fixture
def registry():
    made = Registry()
    for version, more in {
        "1": {"aliases": ("champion",), "verdict": {"decision": "promote", "reasons": ["all is well"]},
              "metrics": {"agreement": 0.9, "p99_ms": 2.0}},
        "2": {"parent": "1", "verdict": VERDICT, "metrics": {"agreement": 0.71, "p99_ms": 2.0, "bytes": 1000.0}},
    }.items():  # fmt: skip
        values = {"aliases": (), "parent": None, **more}
        made.infos[version] = VersionInfo(
            ref=ref(version), created_at=time.time(), snapshots=("a" * 64, "b" * 64), code="abc", variant=MARKUP,
            run_id="run", **values,
        )  # fmt: skip
    return made


@pytest.fixture
def app(settings, control, registry):
    return create_app(settings, store=control, registry=registry)


def test_versions_are_listed_newest_first_with_what_the_gate_said(person):
    text = person("viewer").get(f"/console/w/{W}/versions").text
    assert text.index("/versions/2") < text.index("/versions/1")
    for shown in ("champion", ">reject<", ">promote<", "0.71", SHOWN, "v9 candidate"):
        assert shown in text
    assert "<img" not in text


def test_a_version_shows_its_lineage_its_verdict_and_its_rollouts(person, control):
    control.add_window(WindowRow(digest="a" * 64, workload=W, number=1, uri="file:///x", rows=640, created_at=1.0,
                                 manifest={}))  # fmt: skip
    append(control, W, "pipeline-eve", "register", {"version": "2", "forced": True})
    for rollout, version in (("rollout-a", "2"), ("rollout-b", "1")):
        state, _ = begin(rollout, W, ref(version), ref("0"), RolloutPolicy(), 1.0, audit_share=0.1, reason=MARKUP)
        control.put_rollout(rollout, W, 0, False, as_dict(state))
    text = person("viewer").get(f"/console/w/{W}/versions/2").text
    for shown in (
        "window 1, 640 labels", "not in this control database", "pipeline-eve", "Registered against the gate",
        "rollout-a", "compare?a=1&amp;b=2", "it must be &gt;= 0.8", "0.65", ">missing<", SHOWN,
        "<dt>bytes</dt><dd>1,000</dd>", "<dt>agreement</dt><dd>0.71</dd>",
    ):  # fmt: skip
        assert shown in text, shown
    assert "rollout-b" not in text and "<img" not in text and "Start a rollout" not in text
    assert "Start a rollout" in person("operator").get(f"/console/w/{W}/versions/2").text


def test_a_rollout_is_started_from_its_version(person, control):
    operator = person("operator")
    page = f"/console/w/{W}/order/start?version=2"
    assert "v2 becomes the candidate of a new rollout against v1" in operator.get(page).text
    fields = {**operator.form(page), "version": "2", "reason": "try it", "skip_shadow": "true"}
    assert operator.post(f"/console/w/{W}/order/start", data=fields, follow_redirects=False).status_code == 303
    (order,) = control.open_orders(W)
    assert order.args == {"version": "2", "skip_shadow": True, "revision": 0}


def test_two_versions_stand_side_by_side(person):
    text = person("viewer").get(f"/console/w/{W}/compare?a=1&b=2").text
    row = text[text.index(">agreement<") :]
    assert ">0.9<" in row and ">0.71<" in row and ">-0.19<" in row
    assert '<tr class=""><th scope="row">p99 ms' in text and '<tr class="diff"><th scope="row">bytes' in text


def test_a_report_is_shown_in_a_frame_that_reaches_nothing(person, settings):
    viewer = person("viewer")
    page = f"/console/w/{W}/versions/2/quality"
    missing = viewer.get(page)
    assert missing.status_code == 404 and "has no quality report" in missing.text
    folder = f"{settings.artifacts}/{W}/reports/{'d' * 64}-{'a' * 12}"
    put_bytes(f"{folder}/quality.html", b"<script>top.location='//evil.example'</script>")
    assert '<iframe class="report" title="The quality report" sandbox="allow-scripts"' in viewer.get(page).text
    content = viewer.get(f"{page}/content")
    policy = content.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none'") and "connect-src" not in policy
    assert "allow-same-origin" not in policy and content.headers["x-frame-options"] == "SAMEORIGIN"
    assert person().get(f"{page}/content", follow_redirects=False).status_code == 303


@pytest.mark.parametrize("page", ["versions/3", "versions/../1", "versions/1/secret", "compare?a=1", "versions/1%2F.."])
def test_what_is_not_there_is_not_found(person, page):
    assert person("viewer").get(f"/console/w/{W}/{page}").status_code in (404, 422)


def test_measures_that_only_one_has_are_unknown_of_the_other(registry):
    from serving.admin.console.versions import compared

    lineage, measures = compared(registry.infos["1"], registry.infos["2"])
    found = {line.name: line for line in measures}
    assert (found["bytes"].first, found["bytes"].second, found["bytes"].change) == (None, 1000.0, None)
    assert {line.name for line in lineage if line.differs} == {"decision", "parent"}
    assert msgspec.to_builtins(found["p99 ms"])["change"] == 0.0
