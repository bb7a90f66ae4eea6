import json
import socket
import subprocess
import sys

import httpx
import pytest
from prometheus_client import CollectorRegistry

from components.contracts.errors import ConfigError
from components.contracts.settings import Settings
from components.telemetry.endpoint import STALL_SECONDS, Health, announced, exposed
from components.telemetry.metrics import LabelerMetrics
from tests.clock import Clock


@pytest.fixture
def clock():
    return Clock(0.0)


def test_a_worker_answers_prometheus_and_whoever_looks_after_it(tmp_path, clock):
    metrics, health = LabelerMetrics("w"), Health(clock)
    with exposed(Settings(home=tmp_path), "labeler", "w", metrics.registry, health) as address:

        def get(path):
            answer = httpx.get(f"http://{address}{path}", trust_env=False, timeout=180)
            return answer.status_code, answer.text

        assert get("/readyz") == (503, "starting") and get("/healthz") == (200, "ok")
        assert "\ncohobate_ready 0.0" in get("/metrics")[1]
        health.ready()
        metrics.labelled.inc(3)
        status, text = get("/metrics")
        assert status == 200 and get("/readyz") == (200, "ok")
        for line in ('cohobate_labels_total{workload="w"} 3.0', "cohobate_ready 1.0", "process_resident_memory_bytes"):
            assert line in text
        health.beat()
        clock.now += STALL_SECONDS + 1
        assert get("/healthz")[0] == get("/readyz")[0] == 503, "a loop that stands still is no worker"
        health.beat()
        health.not_ready("teacher away")
        assert get("/healthz")[0] == 200 and get("/readyz") == (503, "teacher away")
        assert get("/elsewhere")[0] == 404
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{address}/metrics", trust_env=False)


def test_prometheus_finds_every_worker_of_a_home(tmp_path):
    settings = Settings(home=tmp_path)
    with (
        exposed(settings, "labeler", "w", CollectorRegistry(), Health()) as first,
        exposed(settings, "monitor", "w", CollectorRegistry(), Health()) as second,
    ):
        entries = [json.loads(p.read_text()) for p in (tmp_path / "metrics").glob("*.json")]
        assert sorted(e[0]["targets"][0] for e in entries) == sorted([first, second])
        assert {e[0]["labels"]["role"] for e in entries} == {"labeler", "monitor"}
        assert sorted(announced(tmp_path).values()) == sorted([first, second])
    assert announced(tmp_path) == {}


def test_the_file_of_a_worker_that_was_killed_is_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    path = tmp_path / "metrics" / f"w-labeler-{dead.pid}.json"
    path.parent.mkdir()
    path.write_text(json.dumps([{"targets": ["127.0.0.1:1"], "labels": {"pid": str(dead.pid)}}]))
    assert announced(tmp_path) == {} and not path.exists()


def test_a_port_that_is_taken_is_named(tmp_path):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        settings = Settings(home=tmp_path, metrics_port=holder.getsockname()[1])
        with (
            pytest.raises(ConfigError, match="COHOBATE_METRICS_PORT"),
            exposed(settings, "labeler", "w", CollectorRegistry(), Health()),
        ):
            pass


def test_without_a_host_nothing_is_exposed(tmp_path):
    with exposed(Settings(home=tmp_path, metrics_host=""), "labeler", "w", CollectorRegistry(), Health()) as address:
        assert address == "" and announced(tmp_path) == {}
