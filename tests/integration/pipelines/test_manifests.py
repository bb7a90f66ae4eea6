"""Pipelines as Kubernetes objects: a real API server takes them, twice, and an upgrade."""

import json

import pytest

from pipelines.parameters import PARAMETERS
from tests.kubernetes import home, running
from tests.pipelines.conftest import remote, shared  # noqa: F401
from tests.pipelines.test_manifests import write  # noqa: F401

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory):
    """kubectl of a server with Kubeflow's objects, of which a version's spec never changes; a namespace ``team``."""
    with running(tmp_path_factory.mktemp("k8s")) as call:
        call.define("kfp-pipelines.yaml", "kfp-pipelineversions.yaml")
        call("apply", "--server-side", "-f", home() / "kfp-immutable-versions.yaml")
        call("create", "namespace", "team")
        yield call


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
