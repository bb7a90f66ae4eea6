import json
from contextlib import closing

import pytest
from typer.testing import CliRunner

from components.contracts.errors import ConfigError, NotFoundError
from components.contracts.settings import Settings
from components.control import workloads
from components.control.store import ControlStore
from components.control.workloads import opened
from infra.cli import app
from serving.cli import place
from serving.workload_option import only_one, only_spec
from tests.stores import migrated

SPEC = """
name: {name}
teacher: {{factory: "builtins:dict"}}
features: {{factory: "builtins:dict"}}
label: {{budget: {{per_hour: {per_hour}}}}}
"""
ELSEWHERE = "http://127.0.0.1:9"


@pytest.fixture
def known(tmp_path, monkeypatch):
    """Has the platform of this home know some workloads."""
    monkeypatch.setenv("COHOBATE_HOME", str(tmp_path))
    store = migrated(Settings().control_url)

    def make(*names):
        for name in names:
            store.put_gauge(name, "trigger", {})

    yield make
    store.close()


@pytest.fixture
def store(known):
    with closing(ControlStore(Settings().control_url)) as store:
        yield store


@pytest.fixture
def registered(store, tmp_path):
    """Registers a workload, of another budget than the built-in one's."""

    def make(name, per_hour=77):
        file = tmp_path / f"{name}.yaml"
        file.write_text(SPEC.format(name=name, per_hour=per_hour))
        spec, bundle = opened(str(file), Settings())
        return workloads.apply(store, bundle, spec, actor="ana", reason="test")

    return make


def run(*args):
    return CliRunner().invoke(app, args, env={"COLUMNS": "200", "NO_COLOR": "1"})


def test_a_workload_that_is_not_named_is_the_only_one(known):
    known("mail")
    done = run("rollout", "status")
    assert (done.exit_code, done.stdout) == (0, "no rollout of mail yet\n")


def test_of_several_it_is_the_built_in_one_or_has_to_be_named(known):
    known("files", "mail")
    assert run("rollout", "status").stdout == "no rollout of files yet\n"
    assert only_one([]) == "files"
    with pytest.raises(NotFoundError, match=r"'files'.*known are mail, notes"):
        only_one(["mail", "notes"])


@pytest.mark.parametrize("command", [("rollout", "list"), ("review", "list"), ("dlq", "list"), ("keys", "check", "1")])
def test_a_workload_that_the_platform_does_not_have_is_refused(known, command):
    known("mail")
    assert isinstance(run(*command, "--workload", "nope").exception, NotFoundError)


def test_an_order_to_a_workload_that_there_is_none_of_is_not_placed(known):
    known("mail")
    with pytest.raises(NotFoundError, match=r"'files'.*known are mail"):
        place("rollback", "files", "bad answers", "", False, {"to": "previous"})
    assert run("rollout", "orders", "--json").stdout == "[]\n"


def test_help_shows_what_is_meant_where_an_option_is_left_out():
    assert "only one, else files]" in run("review", "list", "--help").stdout
    assert "[today]" in run("savings", "--help").stdout


def test_where_orders_go_to_an_admin_api_all_other_commands_go_by_the_local_database(known, monkeypatch):
    known("mail")
    monkeypatch.setenv("COHOBATE_ADMIN_URL", ELSEWHERE)
    assert isinstance(run("forget", "--list", "--workload", "nope").exception, NotFoundError)
    assert isinstance(run("review", "list", "--workload", "nope").exception, NotFoundError)
    assert run("review", "publish").stdout == "workload=mail  published=0\n"


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (("rollout", "status"), "--workload"),
        (("rollout", "rollback", "--reason", "bad"), "--workload"),
        (("rollback", "--reason", "bad"), "--spec"),
    ],
)
def test_a_workload_of_an_admin_api_has_to_be_named(known, monkeypatch, command, option):
    known("mail")
    monkeypatch.setenv("COHOBATE_ADMIN_URL", ELSEWHERE)
    refused = run(*command).exception
    assert isinstance(refused, ConfigError) and refused.field == option
    assert f"COHOBATE_ADMIN_URL is set: the workloads are those of {ELSEWHERE}" in str(refused)
    assert "required with COHOBATE_ADMIN_URL" in run(*command, "--help").stdout


def test_a_spec_that_is_left_out_is_the_version_in_force_of_the_built_in_workload_too(registered):
    assert only_spec() == "files"
    registered("files", per_hour=77)
    assert json.loads(run("budget", "status", "--json").stdout)["hour"]["limit"] == 77
    registered("notes")
    assert only_spec() == "workload:files"


def test_a_removed_workload_is_not_one_of_several(known, registered, store):
    known("files", "mail")
    registered("mail")
    made = registered("files")
    assert run("rollout", "status").stdout == "no rollout of files yet\n"
    workloads.remove(store, "files", before=made.number, actor="ana", reason="over")
    assert run("rollout", "status").stdout == "no rollout of mail yet\n" and only_spec() == "workload:mail"
    assert run("rollout", "status", "--workload", "files").stdout == "no rollout of files yet\n"
