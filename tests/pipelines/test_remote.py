"""Runs on a Kubeflow server, and every command of ``cohobate pipeline`` that talks to one, in both of its modes."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from components.contracts.errors import ConfigError, NotFoundError, RefusedError
from components.contracts.settings import IMAGE
from components.contracts.spec import load_spec
from pipelines.cli import app
from pipelines.compiled import compiled
from pipelines.kubeflow_api import connect
from pipelines.remote import arguments_there, run_name, submit
from tests.kubeflow import kubeflow, team

NIGHT = datetime(2026, 11, 29, 3, 4, 5, tzinfo=UTC)


def start(settings, made, **more):
    given = {"workload": "tickets", "reason": "it is bad", "settings": settings, **more}
    with connect(settings) as server:
        return submit(server, compiled("rollback", settings), made, **given)


def test_a_run_is_submitted_with_its_arguments_image_and_experiment(shared, remote):
    made = {"spec": "/app/tickets.yaml", "reason": "it is bad", "to": "3"}
    done = start(remote.model_copy(update={"kfp_image": "here/cohobate:2"}), made)
    (run,) = shared.runs.values()
    assert (done.id, done.host) == (run["run_id"], shared.url)
    assert run["runtime_config"]["parameters"] == made
    assert run["pipeline_spec"]["pipelineInfo"]["name"] == "rollback"
    executors = run["pipeline_spec"]["deploymentSpec"]["executors"].values()
    assert {e["container"]["image"] for e in executors} == {"here/cohobate:2"}
    (experiment,) = shared.experiments.values()
    assert (experiment["display_name"], experiment["namespace"]) == ("tickets", "team")
    assert run["experiment_id"] == experiment["experiment_id"] and run["service_account"] == "default-editor"


def test_the_service_account_overrides_the_servers_own(shared, remote):
    start(remote.model_copy(update={"kfp_service_account": "mine"}), {"spec": "s"})
    assert [run["service_account"] for run in shared.runs.values()] == ["mine"]


def test_runs_of_a_pipeline_have_names_that_tell_them_apart(shared, remote):
    first, second = (start(remote, {"spec": "s"}, reason=why) for why in ("bad answers", "the canary"))
    assert first.name.startswith("rollback tickets ") and first.name.endswith(": bad answers")
    assert second.name.endswith(": the canary")
    assert run_name("rollback", "files", " a\nlong " + "reason " * 20, NIGHT) == (
        "rollback files 2026-11-29 03:04:05: a long " + ("reason " * 20)[: 60 - len("a long ")]
    )
    assert run_name("continual", "files", "", NIGHT) == "continual files 2026-11-29 03:04:05"


@pytest.mark.parametrize(
    ("made", "named"),
    [
        ({"spec": "s", "colour": "red"}, "colour is not an input"),
        ({}, "spec is required"),
        ({"spec": 3}, "type STRING"),
    ],
)
def test_a_parameter_that_the_server_refuses_is_named(shared, remote, made, named):
    with pytest.raises(RefusedError, match=f"refused: .*{named}"):
        start(remote, made)
    assert shared.runs == {}


def test_what_is_special_to_a_platform_goes_along(shared, remote):
    from pipelines.compiled import Package

    platform = {"platforms": {"kubernetes": {"deploymentSpec": {}}}}
    package = Package((*compiled("rollback", remote).documents, platform)).with_image("here/cohobate:2")
    with connect(remote) as server:
        submit(server, package, {"spec": "s"}, workload="tickets", reason="r", settings=remote)
    (run,) = shared.runs.values()
    assert run["pipeline_spec"]["platform_spec"] == platform
    executors = run["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"].values()
    assert {e["container"]["image"] for e in executors} == {"here/cohobate:2"}
    assert list(yaml.safe_load_all(package.text)) == list(package.documents)


def test_the_spec_is_named_as_the_image_has_it(remote, spec):
    made = arguments_there("rollback", spec.source, {}, "r", remote)
    assert made["spec"] == "/specs/tickets.yaml"
    given = arguments_there("rollback", spec.source, {"spec": "/app/t.yaml"}, "r", remote)
    assert given["spec"] == "/app/t.yaml"
    with pytest.raises(ConfigError, match="COHOBATE_KFP_SPEC"):
        arguments_there("rollback", spec.source, {}, "r", remote.model_copy(update={"kfp_spec": ""}))


def test_a_version_of_the_registry_is_named_by_its_digest_where_the_steps_reach_the_bundle(remote, spec, settings):
    from components.contracts.spec.bundles import keep

    reference = keep(Path(spec.source), "tickets", settings).reference
    load_spec(reference, settings)
    shared = remote.model_copy(update={"artifact_root": "s3://bucket/root"})
    assert arguments_there("rollback", reference, {}, "r", shared)["spec"] == reference
    assert arguments_there("rollback", reference, {"spec": "/app/t.yaml"}, "r", shared)["spec"] == "/app/t.yaml"
    assert arguments_there("rollback", reference, {}, "r", remote)["spec"] == "/specs/tickets.yaml"


def test_a_history_is_a_uri_that_the_steps_can_read(remote, spec):
    with pytest.raises(ConfigError, match=r"param history_uri is 'h\.jsonl': must be a URI"):
        arguments_there("bootstrap", spec.source, {"history_uri": "h.jsonl"}, "r", remote)
    made = arguments_there("bootstrap", spec.source, {"history_uri": "s3://b/h.jsonl"}, "r", remote)
    assert made["history_uri"] == "s3://b/h.jsonl"


# The commands.


@pytest.fixture(params=["multi-user", "single-user"])
def world(request, settings, monkeypatch):
    with kubeflow(**team()) if request.param == "multi-user" else kubeflow() as server:
        given = {"host": server.url, "token": "s3cret", "namespace": "team", "spec": "/specs/{workload}.yaml"}
        for name, value in given.items():
            monkeypatch.setenv(f"COHOBATE_KFP_{name.upper()}", value)
        yield server


@pytest.fixture
def say(spec):
    def call(*argv, as_json=True, code=0):
        done = CliRunner().invoke(app, [*argv, "--spec", spec.source, *(["--json"] if as_json else [])])
        assert done.exit_code == code, (done.output, done.exception)
        return json.loads(done.stdout) if as_json else done.stdout

    return call


def test_every_command_works_in_both_modes(world, say, tmp_path):
    done = say("submit", "rollback", "--param", "to=2", "--reason", "bad", "--output", str(tmp_path / "ir"))
    (run,) = world.runs.values()
    assert (done["id"], done["host"]) == (run["run_id"], world.url)
    assert run["runtime_config"]["parameters"] == {"spec": "/specs/tickets.yaml", "to": "2", "reason": "bad"}
    assert (tmp_path / "ir" / "rollback.yaml").is_file()
    installed = say("install")
    assert len(installed["pipelines"]) == 5 and installed["outdated"] == []
    made = say("schedule", "continual", "--cron", "0 3 * * *")
    assert made["cron"] == "0 0 3 * * *" and len(made["next"]) == 3
    assert len(world.versions) == 5, "it runs what is installed"
    assert say("schedules") == [made]
    assert say("link", "rollback")["url"] == installed["link"]
    assert say("unschedule", "continual") == {"removed": [made["id"]]}
    assert len(say("uninstall")["pipelines"]) == 5
    assert (world.pipelines, world.jobs) == ({}, {})


def test_every_command_tells_a_person(world, say):
    assert "run " in say("submit", "rollback", as_json=False)
    assert "tickets-promote: version 0.1.0-" in say("install", as_json=False)
    text = say("schedule", "continual", "--cron", "@daily", as_json=False)
    assert text.startswith("tickets-continual: 0 0 0 * * *, enabled, version 0.1.0-") and text.count(" UTC (") == 3
    assert say("schedules", as_json=False) == text
    assert say("link", "rollback", as_json=False).startswith(f"{world.url}/#/runs/new?pipelineId=")
    assert say("unschedule", "continual", as_json=False).startswith("removed ")
    assert say("unschedule", "continual", as_json=False) == "there was none\n"
    assert say("schedules", as_json=False) == "there is none\n"
    assert say("uninstall", as_json=False).startswith("removed tickets-bootstrap, ")


def test_a_dry_run_says_when_and_sends_nothing(world, say):
    told = say("schedule", "continual", "--cron", "0 3 * * *", "--dry-run")
    assert told["cron"] == "0 0 3 * * *" and len(told["next"]) == 3
    text = say("schedule", "continual", "--cron", "0 3 * * *", "--dry-run", as_json=False)
    assert text.splitlines()[0] == "0 0 3 * * *" and text.count("03:00:00 UTC (") == 3
    assert world.requests == []


def test_without_an_expression_a_schedule_is_renewed_as_it_is(shared, remote, say):
    first = say("schedule", "continual", "--cron", "0 3 * * *", "--param", "force=true")
    newer = ("--image", "here/cohobate:2")
    assert say("install", *newer)["outdated"] == ["continual"]
    assert say("schedule", "continual", "--dry-run")["cron"] == "0 0 3 * * *"
    second = say("schedule", "continual", *newer)
    assert (second["cron"], second["parameters"]) == (first["cron"], first["parameters"])
    assert second["parameters"] == {"spec": "/specs/tickets.yaml", "force": True, "reason": "scheduled"}
    assert second["version"] != first["version"] and say("install", *newer)["outdated"] == []
    changed = say("schedule", "continual", *newer, "--param", "force=false")
    assert changed["parameters"]["force"] is False and set(shared.jobs) == {changed["id"]}


def test_there_is_nothing_to_renew_where_nothing_is_scheduled(shared, remote, spec):
    done = CliRunner().invoke(app, ["schedule", "continual", "--spec", spec.source])
    assert isinstance(done.exception, NotFoundError) and "no schedule 'tickets-continual': --cron" in str(
        done.exception
    )
    assert shared.changes == []


def test_what_cannot_be_understood_is_not_renewed(shared, remote, spec, say):
    say("schedule", "continual", "--cron", "0 3 * * *")
    (job,) = shared.jobs.values()
    job["trigger"] = {"cron_schedule": {"cron": "when it suits"}}
    done = CliRunner().invoke(app, ["schedule", "continual", "--spec", spec.source])
    assert isinstance(done.exception, ConfigError)
    assert "cron is 'when it suits': is not understood: say it anew" in str(done.exception)
    assert list(shared.jobs.values()) == [job]


@pytest.mark.parametrize(
    "argv",
    [
        ["submit", "nothing"], ["schedule", "nothing", "--cron", "@daily"], ["unschedule", "nothing"],
        ["link", "nothing"],
    ],
)  # fmt: skip
def test_a_pipeline_that_there_is_not_is_named_before_anything_is_sent(world, spec, argv):
    done = CliRunner().invoke(app, [*argv, "--spec", spec.source])
    assert isinstance(done.exception, NotFoundError)
    assert "no pipeline 'nothing': there are bootstrap" in str(done.exception)
    assert world.changes == []


def test_options_override_the_settings(shared, remote, say):
    say("submit", "rollback", "--namespace", "team", "--service-account", "mine", "--image", "here/cohobate:2")
    (run,) = shared.runs.values()
    assert run["service_account"] == "mine"
    executors = run["pipeline_spec"]["deploymentSpec"]["executors"].values()
    assert {e["container"]["image"] for e in executors} == {"here/cohobate:2"} != {IMAGE}


def test_a_run_is_submitted_without_importing_kubeflows_client(shared, remote, spec):
    code = (
        "import sys; from infra.cli import app\n"
        f"try: app(['pipeline', 'submit', 'rollback', '--spec', {spec.source!r}])\n"
        "except SystemExit: print(sorted({'kfp', 'kfp_server_api', 'sqlalchemy', 'mlflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]" and len(shared.runs) == 1
