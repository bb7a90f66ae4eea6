"""The gateway as a declaration: what stands in it, what does not, and what a node makes of it."""

import json
import os
import subprocess
import sys

import pydantic
import pytest

from components.contracts.errors import ConfigError
from components.contracts.settings import Settings, is_loopback
from serving.declaration import GatewayArgs, Workload, apart, declared, load, serve_config
from serving.ray_environment import environment

ALL = "0.0.0.0"  # noqa: S104 (nothing listens there)
DIGEST = "d" * 64
FILES = Workload(name="files", digest=DIGEST)


@pytest.fixture
def node(monkeypatch):
    """An environment of a Ray node that says nothing of ours, and gets its own back after the test."""
    for name in [n for n in os.environ if n.startswith("COHOBATE_")]:
        monkeypatch.delenv(name)
    for name in ("BOOTSTRAP_SERVERS", "SASL_PASSWORD", "DATABASE_URL"):  # so that what the test sets goes again
        monkeypatch.setenv(f"COHOBATE_{name}", "")
        monkeypatch.delenv(f"COHOBATE_{name}")
    return monkeypatch


def of(**settings):
    return declared(Settings(home="/home/platform", **settings), [FILES])


def test_applications_apart_share_no_port_of_grpc():
    both = [FILES, Workload(name="mail", digest=DIGEST)]
    of_one = declared(Settings(gateway_grpc_port=9001), [FILES])
    assert len(apart(of_one)) == 1
    assert len(apart(declared(Settings(gateway_grpc_port=0), both))) == 2
    args = declared(Settings(gateway_grpc_port=9001), both)
    with pytest.raises(ConfigError, match="COHOBATE_GATEWAY_GRPC_PORT is '9001': applications apart cannot share"):
        apart(args)


SCHEMA = """
import json, sys
from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema
config = json.load(sys.stdin)
known = (set(ServeDeploySchema.model_fields), set(ServeApplicationSchema.model_fields))
assert set(config) <= known[0] and set(config["applications"][0]) <= known[1], "what Ray does not know it ignores"
print(ServeDeploySchema.model_validate(config).model_dump_json())
"""


def test_rays_own_schema_takes_it_with_every_field():
    """In a process of its own: Ray's import warns."""
    settings = Settings(gateway_host=ALL, gateway_port=9000, gateway_prefix="/models", gateway_application="ours")
    config = serve_config(settings, [declared(settings, [FILES])], environment(settings, haproxy=True))
    command = [sys.executable, "-c", SCHEMA]
    done = subprocess.run(command, input=json.dumps(config), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout)
    assert (read["http_options"]["host"], read["http_options"]["port"]) == (ALL, 9000)
    assert read["proxy_location"] == "EveryNode"
    (one,) = read["applications"]
    assert (one["name"], one["route_prefix"], one["import_path"]) == ("ours", "/models", "serving.app:build")
    assert GatewayArgs.model_validate(one["args"]).workloads == (FILES,)
    assert read["controller_options"]["runtime_env"]["env_vars"]["RAY_SERVE_ENABLE_HA_PROXY"] == "1"


def test_secrets_are_named_and_never_told():
    args = of(
        database_url="postgresql+psycopg://me:hush-1@db/control",
        sasl_password="hush-2",  # noqa: S106
        label_signing_key="hush-3",
        artifact_root="s3://bucket/root",
        bootstrap_servers="kafka:9092",
    )
    told = json.dumps(serve_config(Settings(), [args], {}))
    assert "hush" not in told
    assert set(args.secrets) == {"database_url", "sasl_password", "label_signing_key"}
    assert args.settings == {"artifact_root": "s3://bucket/root", "bootstrap_servers": "kafka:9092"}


def test_what_no_replica_reads_does_not_replace_them():
    """Another value of it is the same declaration, and so are secrets of other roles."""
    others = {"admin_token": "t", "kfp_host": "http://kfp", "webhooks": "[]", "actor": "me", "ray_token": "r"}
    assert of(**others) == of() and not of().secrets


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, True),
        ({"artifact_root": "s3://b"}, True),
        ({"database_url": "postgresql://db/control"}, True),
        ({"database_url": "postgresql://db/control", "artifact_root": "s3://b"}, False),
    ],
)
def test_a_folder_of_this_machine_is_told_where_something_lasts_in_it(settings, told):
    assert ("home" in of(**settings).settings) is told


def test_a_node_takes_what_its_environment_does_not_say(node):
    args = of(bootstrap_servers="declared:9092", gateway_port=9000)
    node.setenv("COHOBATE_BOOTSTRAP_SERVERS", "internal:9092")
    assert args.in_force().bootstrap_servers == "internal:9092"
    node.delenv("COHOBATE_BOOTSTRAP_SERVERS")
    assert args.in_force().bootstrap_servers == "declared:9092"
    assert Settings().bootstrap_servers == "declared:9092", "what it starts reads the same"


def test_a_node_without_a_secret_says_which(node, tmp_path):
    args = of(sasl_password="hush", database_url="postgresql://me:hush@db/c")  # noqa: S106
    node.setenv("COHOBATE_DATABASE_URL", "postgresql://me:hush@db/c")
    with pytest.raises(ConfigError, match="COHOBATE_SASL_PASSWORD is None: each Ray node needs it"):
        args.in_force()
    node.setenv("COHOBATE_SASL_PASSWORD", "hush")
    assert args.in_force().secret("sasl_password") == "hush"
    node.delenv("COHOBATE_SASL_PASSWORD")
    (tmp_path / "password").write_text("from a file")
    node.setenv("COHOBATE_SASL_PASSWORD_FILE", str(tmp_path / "password"))
    assert args.in_force().secret("sasl_password") == "from a file"


def test_the_path_of_a_secret_is_no_secret(tmp_path):
    assert of(sasl_password_file=tmp_path / "password").settings["sasl_password_file"] == str(tmp_path / "password")


def test_applications_apart_have_names_and_routes_of_their_own():
    settings = Settings(gateway_prefix="/models")
    both = declared(settings, [FILES, Workload(name="mail", spec="/specs/mail.yaml")], replicas=3)
    config = serve_config(settings, apart(both), {})
    assert [(one["name"], one["route_prefix"]) for one in config["applications"]] == [
        ("gateway-files", "/models/files"), ("gateway-mail", "/models/mail")
    ]  # fmt: skip
    assert [one["args"]["replicas"] for one in config["applications"]] == [3, 3]
    assert both.route("mail") == apart(both)[1].route("mail") == "/models/mail"


@pytest.mark.parametrize(
    "wrong",
    [
        {"workloads": []},
        {"workloads": [{"name": "files"}]},
        {"workloads": [{"name": "files", "digest": DIGEST, "spec": "/a.yaml"}]},
        {"workloads": [{"name": "files", "digest": "short"}]},
        {"workloads": [{"name": "files", "digest": DIGEST, "version": 1}]},
        {"workloads": [{"name": "files", "digest": DIGEST}] * 2},
        {"workloads": [{"name": "files", "digest": DIGEST}], "replica": 2},
        {"workloads": [{"name": "files", "digest": DIGEST}], "replicas": 0},
        {"workloads": [{"name": n, "digest": DIGEST} for n in ("files", "mail")], "apart": True},
    ],
)
def test_arguments_that_are_wrong_are_refused(wrong):
    with pytest.raises(pydantic.ValidationError):
        GatewayArgs.model_validate(wrong)


def test_a_workload_is_loaded_from_where_its_spec_was(spec):
    made = Workload.of(spec)
    assert made == Workload(name="signs", spec=spec.source)
    assert load(made, Settings()) == spec


@pytest.mark.parametrize(
    ("host", "here"), [("127.0.0.1", True), ("localhost", True), ("::1", True), (ALL, False), ("gw", False)]
)
def test_which_addresses_are_of_this_machine_alone(host, here):
    assert is_loopback(host) is here


@pytest.mark.parametrize("wrong", ["models", "/models/", "", "/a b", "//"])
def test_a_prefix_that_serve_would_refuse_is_refused(wrong):
    with pytest.raises(pydantic.ValidationError, match="gateway_prefix"):
        Settings(gateway_prefix=wrong)
