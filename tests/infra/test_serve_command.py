"""``cohobate serve``: what it prints is what Serve reads, for workloads of the registry and for spec files."""

import json
import shlex

import pytest
import yaml
from typer.testing import CliRunner

from components.contracts.settings import Settings
from components.control import workloads
from components.control.store import ControlStore
from infra.cli import app
from infra.workloads import spec_path

run = CliRunner().invoke


@pytest.fixture
def platform(tmp_path, monkeypatch):
    """A home with a control database."""
    monkeypatch.setenv("COHOBATE_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    store = ControlStore(Settings().control_url)
    store.migrate()
    yield store
    store.close()


def applied(store, text, folder):
    folder.mkdir(exist_ok=True)
    (folder / "mine.yaml").write_text(text)
    spec, bundle = workloads.opened(str(folder / "mine.yaml"), Settings())
    return workloads.apply(store, bundle, spec, actor="test", reason="")


SPEC = """
name: mine
teacher: {{factory: "components.teachers.magika:MagikaTeacher"}}
payload: {{decoder: bytes, max_bytes: {bytes}}}
features: {{factory: "components.student.bytes:ByteBigrams"}}
"""


def test_registered_workloads_are_named_by_the_digest_of_a_version(platform, tmp_path):
    first = applied(platform, SPEC.format(bytes=1000), tmp_path / "specs")
    second = applied(platform, SPEC.format(bytes=2000), tmp_path / "specs")
    assert first.digest != second.digest
    for args, wanted in (((), second), (("--workload", "mine"), second), (("--workload", "mine@1"), first)):
        done = run(app, ["serve", "config", *args])
        assert done.exit_code == 0, done.output
        (one,) = yaml.safe_load(done.stdout)["applications"]
        assert one["args"]["workloads"] == [{"name": "mine", "digest": wanted.digest}]


def test_a_spec_file_is_named_by_its_path_and_options_by_their_values(monkeypatch):
    monkeypatch.setenv("COHOBATE_SASL_PASSWORD", "hush")
    options = ["--replicas", "3", "--host", "10.0.0.1", "--port", "9000", "--apart", "--json"]
    done = run(app, ["serve", "config", "--spec", "files", *options])
    assert done.exit_code == 0 and "hush" not in done.stdout
    config = json.loads(done.stdout)
    assert config["http_options"] == {"host": "10.0.0.1", "port": 9000}
    (one,) = config["applications"]
    assert (one["name"], one["route_prefix"]) == ("gateway-files", "/files")
    assert one["args"]["workloads"] == [{"name": "files", "spec": str(spec_path("files"))}]
    assert one["args"]["replicas"] == 3 and one["args"]["secrets"] == ["sasl_password"]
    variables = config["controller_options"]["runtime_env"]["env_vars"]
    assert variables["RAY_SERVE_HAPROXY_STATS_PORT"] == "9004", "HAProxy's other ports follow from the gateway's"


def test_both_forms_say_the_same_and_so_do_the_nodes_variables():
    plain, as_json = (run(app, ["serve", "config", "--spec", "files", *more]).stdout for more in ((), ("--json",)))
    config = json.loads(as_json)
    assert yaml.safe_load(plain) == config
    told = json.loads(run(app, ["serve", "environment", "--json"]).stdout)
    assert told == config["controller_options"]["runtime_env"]["env_vars"]
    words = shlex.split(run(app, ["serve", "environment"]).stdout)
    assert dict(w.split("=", 1) for w in words if w != "export") == told


def test_without_haproxy_nothing_asks_for_it(monkeypatch):
    monkeypatch.setenv("COHOBATE_GATEWAY_PROXY", "ray")
    config = json.loads(run(app, ["serve", "config", "--spec", "files", "--json"]).stdout)
    assert "RAY_SERVE_ENABLE_HA_PROXY" not in config["controller_options"]["runtime_env"]["env_vars"]
    assert config["applications"][0]["args"]["proxy"] == "ray"


def test_where_no_workload_is_registered_it_says_what_to_do(platform):
    done = run(app, ["serve", "config"])
    assert done.exit_code != 0 and "cohobate workload apply SPEC" in str(done.exception)
    done = run(app, ["serve", "config", "--workload", "nobody"])
    assert done.exit_code != 0 and "no workload 'nobody'" in str(done.exception)
