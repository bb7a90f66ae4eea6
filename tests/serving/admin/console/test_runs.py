"""Runs: what there were, how far one is, its log, and starting one."""

import os
import time

import pytest

from components.contracts.errors import ConfigError, PipelineError
from components.contracts.settings import Settings
from components.control.tables import RunRow
from serving.admin.app import create_app
from serving.admin.console import runs
from serving.admin.console.runs import log_tail, run_of
from tests.serving.admin.conftest import W
from tests.serving.admin.console.test_workload import MARKUP, SHOWN


class Pipelines:
    """Starts nothing, and keeps what it was asked for."""

    parameters = {"continual": ("force",), "rollback": ("reason", "to", "key")}  # noqa: RUF012

    def __init__(self):
        self.started, self.refuses = [], None

    def start(self, *asked):
        if self.refuses is not None:
            raise self.refuses
        self.started.append(asked)


@pytest.fixture
def pipelines():
    return Pipelines()


@pytest.fixture
def app(settings, control, pipelines):
    return create_app(settings, store=control, pipelines=pipelines)


@pytest.fixture
def run(control, settings):
    """A run that is under way, with two steps behind it, and was heard of just now."""
    now = time.time()
    control.clock, began = lambda: now, now - 100
    with control.transaction() as s:
        s.add(RunRow(id=f"{W}-1", workload=W, pipeline="continual", reason=MARKUP, actor="eve", started_at=began,
                     status="running", detail={"alive_at": now}))  # fmt: skip
    for name, after, text in (("snapshot", 4, '{"parameterValues": {"Output": "<b>"}}'), ("distill", 34, "{")):
        path = settings.home / "pipelines" / f"{W}-1" / "continual-x" / name / "executor_output.json"
        path.parent.mkdir(parents=True)
        path.write_text(text)
        os.utime(path, (began + after, began + after))
    (settings.home / "logs").mkdir()
    log = settings.home / "logs" / f"{W}-1-continual.log"
    log.write_text(f"first\n{MARKUP}\n")
    return log


def test_runs_are_listed_of_all_workloads_and_of_one(person, run, control):
    control.finish_run(control.start_run("other", "bootstrap", "r", "ada"), "failed", {"failure": MARKUP})
    viewer = person("viewer")
    text = viewer.get("/console/runs").text
    assert f"{W}-1" in text and ">failed<" in text and SHOWN in text and "<img" not in text
    mine = viewer.get(f"/console/w/{W}/runs").text
    assert f"{W}-1" in mine and "bootstrap" not in mine and "<form" in mine and "/runs/start/" not in mine


def test_a_run_shows_its_steps_with_their_times_and_the_end_of_its_log(person, run, control, monkeypatch):
    viewer, page = person("viewer"), f"/console/w/{W}/runs/{W}-1"
    text = viewer.get(page).text
    for shown in (
        ">snapshot<",
        ">4 s<",
        ">distill<",
        ">30 s<",
        "&lt;b&gt;",
        f"first\n{SHOWN}",
        'hx-trigger="every 1s"',
    ):
        assert shown in text, shown
    part = viewer.get(page, headers={"HX-Request": "true"}).text
    assert part.startswith('<div id="run"') and "<html" not in part
    monkeypatch.setattr(runs, "TAIL_BYTES", 20)
    run.write_text("x" * 100 + "\nthe end\n")
    assert log_tail(run.parents[1], run_of(control, W, f"{W}-1")) == "the end\n"
    control.finish_run(f"{W}-1", "succeeded", {"arguments": {"force": MARKUP}})
    text = viewer.get(page).text
    assert "continual: succeeded" in text and "hx-trigger" not in text and SHOWN in text


def test_a_run_that_fell_silent_is_not_called_running(person, run, control):
    control.clock = lambda: time.time() + 61
    assert "continual: silent" in person("viewer").get(f"/console/w/{W}/runs/{W}-1").text


def test_another_workloads_run_and_none_at_all_are_not_found(person, run, control):
    control.put_gauge("other", "seen", {})
    viewer = person("viewer")
    for page in (f"w/other/runs/{W}-1", f"w/{W}/runs/none", f"w/{W}/runs/..%2F..%2Fetc"):
        assert viewer.get(f"/console/{page}").status_code in (404, 422)


def test_an_operator_starts_a_run_with_its_parameters(person, pipelines):
    operator, page = person("operator"), f"/console/w/{W}/runs"
    text = operator.get(page).text
    assert 'name="to"' in text and 'name="key"' not in text and "Force it" not in text
    fields = {"csrf": operator.csrf(), "reason": " it is bad ", "to": "3"}
    done = operator.post(f"{page}/start/rollback", data=fields, follow_redirects=False)
    assert (done.status_code, done.headers["location"]) == (303, page)
    assert pipelines.started == [(W, "rollback", {"to": "3"}, "it is bad", "operator-eve")]
    assert "Force it" in person("admin").get(page).text


def test_who_may_not_and_what_is_wrong_starts_nothing(person, pipelines, ledger):
    page = f"/console/w/{W}/runs/start/continual"
    viewer, operator, admin = person("viewer"), person("operator"), person("admin")
    assert viewer.post(page, data={"csrf": viewer.csrf(), "reason": "r"}).status_code == 403
    forced = {"reason": "r", "force": "true"}
    assert operator.post(page, data={"csrf": operator.csrf(), **forced}).status_code == 403
    assert operator.post(page, data={"reason": "r"}).status_code == 403
    assert [e[2] for e in ledger() if e[2].startswith("refused")] == ["refused post"] * 3
    for refuses, fields, status in (
        (None, {"reason": ""}, 422), (ConfigError("param", MARKUP, "is wrong"), {"reason": MARKUP}, 422),
        (PipelineError("continual", W, "one at a time"), {"reason": "r"}, 409),
    ):  # fmt: skip
        pipelines.refuses = refuses
        refused = operator.post(page, data={"csrf": operator.csrf(), **fields})
        assert refused.status_code == status and 'role="alert"' in refused.text and "<img" not in refused.text
    assert pipelines.started == []
    pipelines.refuses = None
    assert admin.post(page, data={"csrf": admin.csrf(), **forced}, follow_redirects=False).status_code == 303


def test_where_pipelines_run_on_kubeflow_the_pages_lead_there(tmp_path, control, tokens, person):
    app = create_app(Settings(home=tmp_path, kfp_host="https://kfp.example/"), store=control)
    from tests.serving.admin.conftest import SyncTransport
    from tests.serving.admin.console.conftest import BASE, Person

    with Person(base_url=BASE, transport=SyncTransport(app), follow_redirects=True) as one:
        one.post("/console/sign-in", data={"token": tokens["operator"]})
        for page in ("/console/runs", f"/console/w/{W}/runs"):
            text = one.get(page).text
            assert 'href="https://kfp.example/#/runs"' in text and "/runs/start/" not in text
