"""Pipelines as Kubernetes objects: a real API server takes them, twice, and an upgrade."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from pipelines.parameters import PARAMETERS
from tests.pipelines.conftest import remote, shared  # noqa: F401
from tests.pipelines.test_manifests import write  # noqa: F401
from tests.ports import free_ports

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory):
    """kubectl of a server with Kubeflow's objects, of which a version's spec never changes; a namespace ``team``."""
    home = Path(os.environ.get("COHOBATE_TEST_K8S", "none"))
    if not (home / "k8s").is_file():
        pytest.skip("COHOBATE_TEST_K8S names no folder with a script 'k8s': no Kubernetes API server")
    folder, port = tmp_path_factory.mktemp("k8s"), free_ports(6)[0]
    subprocess.run(
        [home / "k8s", "start", folder, str(port)], check=True, stdout=subprocess.DEVNULL, timeout=150
    )  # fmt: skip
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    program = Path(os.environ.get("K8S_BIN", cache / "k8s-test-1.37.2" / "bin")) / "kubectl"

    def call(*argv, ok=True):
        done = subprocess.run(
            [program, "--kubeconfig", folder / "kubeconfig", "--cache-dir", folder / "cache", *argv],
            capture_output=True, text=True, timeout=100,
        )  # fmt: skip
        assert not ok or done.returncode == 0, done.stderr
        return done

    try:
        crds = [home / "crds" / f"kfp-{name}.yaml" for name in ("pipelines", "pipelineversions")]
        call("apply", "--server-side", *(part for path in [*crds] for part in ("-f", path)))
        call("apply", "--server-side", "-f", home / "kfp-immutable-versions.yaml")
        call("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        call("create", "namespace", "team")
        yield call
    finally:
        subprocess.run([home / "k8s", "stop", folder], check=True, stdout=subprocess.DEVNULL, timeout=100)


def apply(kubectl, paths, ok=True):
    return kubectl("apply", "--server-side", *(part for path in paths for part in ("-f", path)), ok=ok)


def revisions(kubectl):
    found = json.loads(kubectl("get", "pipelines,pipelineversions", "-n", "team", "-o", "json").stdout)["items"]
    return {(o["kind"], o["metadata"]["name"]): o["metadata"]["resourceVersion"] for o in found}


def test_applied_twice_nothing_changes_and_an_upgrade_makes_new_versions(kubectl, write):  # noqa: F811
    first = write("here/cohobate:1", "first")
    apply(kubectl, first)
    made = revisions(kubectl)
    assert len(made) == 2 * len(PARAMETERS)
    apply(kubectl, first)
    assert revisions(kubectl) == made
    # The policy takes effect some moments after it is applied: from when it refuses, nothing below goes by chance.
    changed = first[0].with_name("changed.yaml")
    changed.write_text(first[0].read_text().replace("here/cohobate:1", "here/cohobate:9"))
    for number in range(1_000):
        changed.write_text(changed.read_text().replace(f"cohobate:{8 + number}", f"cohobate:{9 + number}"))
        if (refused := apply(kubectl, [changed], ok=False)).returncode:
            break
    assert "a PipelineVersion never changes" in refused.stderr
    apply(kubectl, write("here/cohobate:2", "second"))
    versions = [name for kind, name in revisions(kubectl) if kind == "PipelineVersion"]
    assert len(versions) == 2 * len(PARAMETERS)
