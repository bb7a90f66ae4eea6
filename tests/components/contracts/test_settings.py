import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from components.contracts.errors import ConfigError
from components.contracts.settings import Settings, mask


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    for name in [n for n in os.environ if n.startswith("COHOBATE_")]:
        monkeypatch.delenv(name)


def test_urls_are_derived_from_home(tmp_path):
    settings = Settings(home=tmp_path)
    assert settings.control_url == f"sqlite:///{tmp_path}/control.db"
    assert settings.mlflow_uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert settings.artifacts == f"file://{tmp_path}/artifacts"
    assert settings.kafka == "127.0.0.1:19392"


def test_a_given_address_is_used_as_it_is():
    settings = Settings(
        bootstrap_servers="k1:9092,k2:9092",
        database_url="postgresql://db/control",
        tracking_uri="http://mlflow:5000",
        artifact_root="s3://bucket/cohobate/",
    )
    assert settings.kafka == "k1:9092,k2:9092"
    assert settings.control_url == "postgresql://db/control"
    assert settings.mlflow_uri == "http://mlflow:5000"
    assert settings.artifacts == "s3://bucket/cohobate"


def test_the_environment_is_read_under_our_prefix(monkeypatch):
    monkeypatch.setenv("COHOBATE_BROKER_PORT", "7000")
    monkeypatch.setenv("BROKER_PORT", "1")
    assert Settings().kafka == "127.0.0.1:7000"


def test_a_wrong_setting_is_named(monkeypatch):
    monkeypatch.setenv("COHOBATE_SECURITY_PROTOCOL", "PLAIN")
    with pytest.raises(ValidationError, match="security_protocol"):
        Settings()


def test_an_unknown_setting_is_refused():
    with pytest.raises(ValidationError, match="colour"):
        Settings(colour="red")


def test_a_secret_is_not_shown_but_is_handed_to_children(monkeypatch, tmp_path):
    settings = Settings(home=tmp_path, sasl_password="hunter2", gateway_port=1234)  # noqa: S106
    assert "hunter2" not in repr(settings)
    environment = settings.environment()
    assert environment["COHOBATE_SASL_PASSWORD"] == "hunter2"  # noqa: S105
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings


def test_children_get_absolute_paths(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert Settings(home=Path("here")).environment()["COHOBATE_HOME"] == f"{tmp_path}/here"


def test_a_secret_may_be_in_a_file(monkeypatch, tmp_path):
    path = tmp_path / "token"
    path.write_text("  from a file\n")
    monkeypatch.setenv("COHOBATE_KFP_TOKEN_FILE", str(path))
    settings = Settings()
    assert settings.secret("kfp_token") == "from a file" and settings.secret("sasl_password") is None
    assert "from a file" not in str(settings.environment())
    path.write_text("a new one")
    assert settings.secret("kfp_token") == "a new one", "it is read when it is needed"


def test_a_secret_is_given_once_and_can_be_read(tmp_path):
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigError, match="keep one of the two"):
        Settings(kfp_token="a", kfp_token_file=tmp_path / "empty").secret("kfp_token")  # noqa: S106
    with pytest.raises(ConfigError, match="the file is empty"):
        Settings(kfp_token_file=tmp_path / "empty").secret("kfp_token")
    with pytest.raises(ConfigError, match="must be a readable text file"):
        Settings(kfp_token_file=tmp_path / "nowhere").secret("kfp_token")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql+psycopg://me:p@ss@db:5432/x", "postgresql+psycopg://me:***@db:5432/x"),
        ("postgresql://me@db/x", "postgresql://me@db/x"),
        ("postgresql://db/x?user=me&password=p&sslmode=on", "postgresql://db/x?user=me&password=***&sslmode=on"),
        ("http://mlflow:5000/a@b", "http://mlflow:5000/a@b"),
        ("sqlite:////home/me/control.db", "sqlite:////home/me/control.db"),
    ],
)
def test_only_the_password_of_a_url_is_masked(url, shown):
    assert mask(url) == shown


def test_what_may_be_told_and_what_is_withheld_are_all_that_was_set():
    settings = Settings(
        database_url="postgresql://db/x?password=hush", tracking_uri="https://t0ken@mlflow", artifact_root="s3://b",
        sasl_password="hush", gateway_port=8400, metrics_port=9,  # noqa: S106
    )  # fmt: skip
    assert settings.public() == {"artifact_root": "s3://b", "metrics_port": "9"}
    assert set(settings.withheld()) == {"database_url", "tracking_uri", "sasl_password"}
    assert Settings().public() == {} and Settings().withheld() == ()


def test_services_of_kubernetes_leave_the_settings_valid(monkeypatch):
    """What the kubelet sets in every pod for Services of these names, beside a port that somebody set."""
    for service in ("GATEWAY", "BROKER", "METRICS"):
        monkeypatch.setenv(f"COHOBATE_{service}_PORT", "tcp://10.96.0.7:8400")
        monkeypatch.setenv(f"COHOBATE_{service}_PORT_8400_TCP_ADDR", "10.96.0.7")
        monkeypatch.setenv(f"COHOBATE_{service}_SERVICE_HOST", "10.96.0.7")
    monkeypatch.setenv("COHOBATE_ADMIN_PORT", "8501")
    settings, default = Settings(), Settings.model_fields
    assert settings.gateway_port == default["gateway_port"].default and settings.admin_port == 8501
    monkeypatch.setenv("COHOBATE_GATEWAY_PORT", "none")
    with pytest.raises(ValidationError):
        Settings()


@pytest.mark.parametrize("port", [9000, *Settings(gateway_port=9000).haproxy_ports])
def test_grpc_gets_a_port_that_neither_the_gateway_nor_its_haproxy_has(port):
    """HAProxy lets others listen where it does: the connections of gRPC would go to its page of statistics."""
    with pytest.raises(ValidationError, match=r"gateway_grpc_port\n.*another port: \[9000, 9002, 9003, 9004\]"):
        Settings(gateway_port=9000, gateway_grpc_port=port)
    assert Settings(gateway_port=9000, gateway_grpc_port=9005).gateway_grpc_port == 9005
