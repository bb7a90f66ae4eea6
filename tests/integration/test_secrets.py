"""A secret is nowhere to be read: not in what is printed or logged, not in files, not in the list of processes."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from components.contracts.settings import Settings
from components.control.store import ControlStore
from components.stream import open_broker
from tests.secured_kafka import PASSWORD

SECRET = "Xq7-recognisable-3kV"  # noqa: S105
SPEC = str(Path("infra/workloads/files.yaml").resolve())


def environment(settings, **more):
    kept = {n: v for n, v in os.environ.items() if not n.startswith("COHOBATE_")}
    return kept | settings.environment() | {"PYTHONPATH": os.getcwd()} | more


def run(argv, env):
    """Run a command to its end; returns what it printed, and the command lines of it and its children."""
    process = subprocess.Popen(
        [sys.executable, *argv], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    seen, watched, deadline = set(), psutil.Process(process.pid), time.monotonic() + 330
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(psutil.Error):
            seen |= {" ".join(p.cmdline()) for p in (watched, *watched.children(recursive=True))}
        time.sleep(0.05)
    process.kill()
    return process.communicate()[0], seen


def written(home):
    """Everything that was written under ``home``, as one text."""
    return "\n".join(p.read_bytes().decode("latin-1") for p in home.rglob("*") if p.is_file())


COMMANDS = {
    "labeler": (["-m", "infra.worker", "labeler", SPEC], "refuses us (password)"),
    "up": (["-m", "infra.cli", "up"], "refuses us (password)"),
    "status": (["-m", "infra.cli", "status", "--json"], "localhost"),
}


@pytest.mark.integration
@pytest.mark.parametrize("name", COMMANDS)
def test_a_refused_password_is_named_but_never_told(secured_kafka, tmp_path, name):
    argv, said = COMMANDS[name]
    settings = secured_kafka.settings(sasl_password=SECRET, home=tmp_path, gateway_port=0, cache=tmp_path / "cache")
    if name == "labeler":  # a worker makes no database
        with contextlib.closing(ControlStore(settings.control_url)) as store:
            store.migrate()
    output, processes = run(argv, environment(settings))
    assert said in output
    assert len(processes) > 0
    for text in (output, written(tmp_path), *processes):
        assert SECRET not in text


LOUD = """
import logging, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
from components.contracts.settings import Settings
from components.stream import open_broker
settings = Settings()
broker = open_broker(settings)
broker.ensure_topics(["loud"])
broker.producer().close()
"""


@pytest.mark.integration
def test_even_at_debug_no_password_is_logged(secured_kafka):
    """PLAIN sends the password as it is: kafka-python would write the whole request."""
    settings = secured_kafka.settings(sasl_mechanism="PLAIN", sasl_username="plain")
    output, _ = run(["-W", "ignore", "-c", LOUD], environment(settings))
    assert "DEBUG:kafka" in output and "Authenticated as plain" in output
    assert PASSWORD not in output


@pytest.mark.integration
def test_a_password_from_a_file_does_not_go_into_the_environment_of_children(secured_kafka, tmp_path):
    path = tmp_path / "password"
    path.write_text(PASSWORD)
    settings = secured_kafka.settings(sasl_password=None, sasl_password_file=path)
    env = settings.environment()
    assert env["COHOBATE_SASL_PASSWORD_FILE"] == str(path) and PASSWORD not in " ".join(env.values())
    open_broker(settings).ensure_topics(["from-file"])


def test_no_setting_shows_a_secret():
    settings = Settings(
        sasl_password=SECRET,
        sasl_oauth_token=SECRET,
        sasl_oauth_client_secret=SECRET,
        ssl_password=SECRET,
        kfp_token=SECRET,
        database_url=f"postgresql://me:{SECRET}@db/control",
        tracking_uri=f"https://me:{SECRET}@mlflow",
        artifact_root="s3://bucket/a",
    )
    assert SECRET not in repr(settings) and SECRET not in str(settings)
    assert "postgresql://me:***@db/control" in repr(settings)


def test_a_wrong_setting_does_not_print_the_right_ones(monkeypatch):
    monkeypatch.setenv("COHOBATE_SASL_PASSWORD", SECRET)
    monkeypatch.setenv("COHOBATE_GATEWAY_PORT", "none")
    with pytest.raises(ValueError, match="gateway_port") as error:
        Settings()
    assert SECRET not in str(error.value)
