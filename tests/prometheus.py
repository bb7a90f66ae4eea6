"""The real Prometheus (Debian's package ``prometheus``): its checker, and a server for as long as a block runs.

With ``COHOBATE_TEST_PROMETHEUS`` set, as in CI, tests that want it fail where it is not there; else they are skipped.
"""

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.ports import free_port

there = pytest.mark.skipif(
    shutil.which("promtool") is None and not os.environ.get("COHOBATE_TEST_PROMETHEUS"),
    reason="Prometheus is not here: apt-get install prometheus",
)


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What the checker says; its exit status is 0 where all is well."""
    return subprocess.run(
        [shutil.which("promtool") or "promtool", *arguments], capture_output=True, text=True, check=False
    )


class Prometheus:
    """A running server's API."""

    def __init__(self, port: int) -> None:
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=180.0)

    def close(self) -> None:
        self._client.close()

    def ready(self) -> bool:
        try:
            return self._client.get("/-/ready").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def api(self, path: str, **query: str) -> Any:
        """The data of an answer of the API."""
        answer = self._client.get(f"/api/v1/{path}", params=query).json()
        assert answer["status"] == "success", (query, answer)
        return answer["data"]


@contextlib.contextmanager
def prometheus(config: Path):
    """A server of this configuration, whose data lie beside it."""
    port = free_port()
    command = [
        shutil.which("prometheus") or "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={config.parent / 'data'}",
    ]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    with (config.parent / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    server, deadline = Prometheus(port), time.monotonic() + 240.0
    try:
        while not server.ready():
            assert process.poll() is None and time.monotonic() < deadline, (
                config.parent / "prometheus.log"
            ).read_text()
            time.sleep(0.05)
        yield server
    finally:
        server.close()
        process.terminate()
        process.wait()
