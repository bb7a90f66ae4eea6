import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from components.contracts.errors import ConfigError, UnavailableError
from components.contracts.settings import Settings
from pipelines.cli import app
from pipelines.remote import schedule, submit
from tests.servers import serving

pytestmark = pytest.mark.filterwarnings("ignore")


class Kubeflow(ThreadingHTTPServer):
    """As much of the Kubeflow Pipelines API (v2beta1) as starting runs needs; checks the token and the bodies."""

    def __init__(self):
        self.accepted, self.runs, self.jobs, self.experiments = "Bearer s3cret", [], [], {}
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if not self.allowed():
            return
        if self.path.startswith("/apis/v2beta1/healthz"):
            self.answer(200, {"multi_user": False})
        elif self.path.startswith("/apis/v2beta1/experiments"):
            known = [{"experiment_id": i, "display_name": n} for n, i in self.server.experiments.items()]
            self.answer(200, {"experiments": known, "total_size": len(known)})
        else:
            self.answer(404, {"error": self.path})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.allowed():
            return
        if self.path.startswith("/apis/v2beta1/experiments"):
            self.server.experiments[body["display_name"]] = "exp-1"
            self.answer(200, {"experiment_id": "exp-1", "display_name": body["display_name"]})
        elif self.path.startswith("/apis/v2beta1/runs"):
            self.take(self.server.runs, body, "run_id", "run-1")
        elif self.path.startswith("/apis/v2beta1/recurringruns"):
            self.take(self.server.jobs, body, "recurring_run_id", "job-1")
        else:
            self.answer(404, {"error": self.path})

    def take(self, kept, body, field, name):
        needed = {"display_name", "experiment_id", "pipeline_spec", "runtime_config"}
        if missing := needed - set(body):
            self.answer(400, {"error": f"missing {sorted(missing)}"})
            return
        kept.append(body)
        self.answer(200, {**body, field: name})

    def allowed(self):
        if self.headers.get("Authorization") == self.server.accepted:
            return True
        self.answer(401, {"error": "unauthenticated"})
        return False

    def answer(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def kubeflow():
    server = Kubeflow()
    with serving(server):
        yield server


@pytest.fixture
def remote(kubeflow, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))  # Kubeflow's client keeps a context there
    monkeypatch.setenv("COHOBATE_KFP_HOST", kubeflow.url)
    monkeypatch.setenv("COHOBATE_KFP_TOKEN", "s3cret")
    return Settings()


def test_a_run_is_submitted_with_its_arguments_and_image(kubeflow, remote, tmp_path):
    made = {"spec": "/app/tickets.yaml", "reason": "it is bad", "to": "3"}
    done = submit("rollback", made, experiment="tickets", settings=remote, workdir=tmp_path, image="here/cohobate:2")
    assert (done.id, done.name, done.host) == ("run-1", "rollback", kubeflow.url)
    (run,) = kubeflow.runs
    assert run["experiment_id"] == "exp-1"
    assert run["runtime_config"]["parameters"] == made
    assert run["pipeline_spec"]["pipelineInfo"]["name"] == "rollback"
    executors = run["pipeline_spec"]["deploymentSpec"]["executors"].values()
    assert {e["container"]["image"] for e in executors} == {"here/cohobate:2"}
    assert list(kubeflow.experiments) == ["tickets"]


def test_a_recurring_run_has_its_cron_and_runs_one_at_a_time(kubeflow, remote, tmp_path):
    done = schedule(
        "continual",
        {"spec": "/app/tickets.yaml"},
        cron="0 0 3 * * *",
        experiment="tickets",
        settings=remote,
        workdir=tmp_path,
    )
    assert done.id == "job-1"
    (job,) = kubeflow.jobs
    assert job["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}}
    assert (job["max_concurrency"], job["mode"], job["no_catchup"]) == (1, "ENABLE", True)
    assert job["runtime_config"]["parameters"] == {"spec": "/app/tickets.yaml"}


def test_a_wrong_token_is_named_as_the_reason(kubeflow, remote, tmp_path):
    kubeflow.accepted = "Bearer another"
    with pytest.raises(UnavailableError, match="status 401: is COHOBATE_KFP_TOKEN valid"):
        submit("rollback", {"spec": "s"}, experiment="tickets", settings=remote, workdir=tmp_path)
    assert kubeflow.runs == []


def test_a_refused_run_says_what_the_host_said(kubeflow, remote, tmp_path, monkeypatch):
    refuse = lambda self, *_: self.answer(409, {"error": "quota of runs is used up"})  # noqa: E731
    monkeypatch.setattr(Handler, "take", refuse)
    with pytest.raises(UnavailableError, match=r"status 409: .*quota of runs is used up"):
        submit("rollback", {"spec": "s"}, experiment="tickets", settings=remote, workdir=tmp_path)


def test_a_host_that_is_not_there_is_named(remote, tmp_path):
    nowhere = remote.model_copy(update={"kfp_host": "http://127.0.0.1:9"})
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:9 does not answer: is COHOBATE_KFP_HOST right"):
        submit("rollback", {"spec": "s"}, experiment="tickets", settings=nowhere, workdir=tmp_path)


@pytest.mark.parametrize("host", ["", "kubeflow.example"])
def test_without_a_host_the_setting_is_named(tmp_path, host):
    with pytest.raises(ConfigError, match="COHOBATE_KFP_HOST"):
        submit("rollback", {}, experiment="e", settings=Settings(kfp_host=host), workdir=tmp_path)


def test_a_cron_of_five_fields_is_refused(remote, tmp_path):
    with pytest.raises(ConfigError, match="six fields"):
        schedule("continual", {}, cron="0 3 * * *", experiment="e", settings=remote, workdir=tmp_path)


def test_the_command_submits_and_prints_json_alone(kubeflow, remote, spec, tmp_path):
    argv = ["submit", "rollback", "--spec", spec.source, "--param", "spec=/app/t.yaml", "--param", "to=2"]
    done = CliRunner().invoke(app, [*argv, "--reason", "bad", "--output", str(tmp_path / "ir"), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"id": "run-1", "name": "rollback", "host": kubeflow.url}
    assert kubeflow.runs[0]["runtime_config"]["parameters"] == {"spec": "/app/t.yaml", "to": "2", "reason": "bad"}


def test_the_command_schedules(kubeflow, remote, spec, tmp_path):
    argv = ["schedule", "continual", "--spec", spec.source, "--cron", "0 0 3 * * *", "--output", str(tmp_path / "ir")]
    done = CliRunner().invoke(app, argv)
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == f"recurring run job-1 on {kubeflow.url}"
