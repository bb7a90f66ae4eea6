import pytest
from typer.testing import CliRunner

from components.contracts.errors import NotFoundError
from components.contracts.settings import Settings
from infra.cli import app
from serving.cli import place
from serving.workload_option import only_one
from tests.stores import migrated


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


def run(*args):
    return CliRunner().invoke(app, args)


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
