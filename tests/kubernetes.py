"""A real Kubernetes API server, with controllers and operators where a test wants them; no container runs."""

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from tests.ports import free_ports

SECONDS = 300
"""How long each part of it may take to start on a busy machine."""


def kubectl():
    """The program: without a server it renders."""
    return programs() / "kubectl"


def home():
    """The folder with the script ``k8s``; a test is skipped where there is none."""
    found = Path(os.environ.get("COHOBATE_TEST_K8S", "none"))
    if not (found / "k8s").is_file():
        pytest.skip("COHOBATE_TEST_K8S names no folder with a script 'k8s': no Kubernetes API server")
    return found


def programs():
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return Path(os.environ.get("K8S_BIN", cache / "k8s-test-1.37.2" / "bin"))


class Cluster:
    """A server that runs; called with arguments of kubectl, it gives the process that ended."""

    def __init__(self, folder, crds):
        self.folder, self.crds = folder, crds
        self.kubeconfig = folder / "kubeconfig"

    def __call__(self, *argv, ok=True, input=None):
        done = subprocess.run(
            [kubectl(), "--kubeconfig", self.kubeconfig, "--cache-dir", self.folder / "cache", *argv],
            capture_output=True, text=True, input=input, timeout=SECONDS,
        )  # fmt: skip
        assert not ok or done.returncode == 0, done.stderr
        return done

    def define(self, *patterns):
        """Make the objects known whose definitions match."""
        paths = [path for pattern in patterns for path in sorted(self.crds.glob(pattern))]
        assert paths, patterns
        self("apply", "--server-side", *(part for path in paths for part in ("-f", path)))
        self("wait", "--for=condition=Established", "crd", "--all", "--timeout=240s")


@contextlib.contextmanager
def running(folder, **options):
    """A server in ``folder``, with the ``options`` of the script, such as ``FULL=1, NODES=2``."""
    script, port = home() / "k8s", free_ports(11)[0]
    variables = {name: str(value) for name, value in options.items()}
    env = os.environ | {"TIMEOUT": str(SECONDS)} | variables
    subprocess.run([script, "start", folder, str(port)], env=env, check=True, stdout=subprocess.DEVNULL, timeout=900)
    try:
        yield Cluster(folder, home() / "crds")
    finally:
        subprocess.run([script, "stop", folder], check=True, stdout=subprocess.DEVNULL, timeout=SECONDS)
