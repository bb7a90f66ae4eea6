"""Pipelines as Kubernetes objects: what is written, and that a real API server takes it, twice, and an upgrade."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from components.contracts.errors import ConfigError
from pipelines.cli import app
from pipelines.compiled import read
from pipelines.install import packages_of
from pipelines.parameters import PARAMETERS
from tests.ports import free_ports

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def write(spec, remote, tmp_path):
    """Write the manifests of the workload, by the command."""

    def make(image="here/cohobate:1", name="objects"):
        argv = ["compile", "--spec", spec.source, "--format", "kubernetes", "--namespace", "team", "--image", image]
        done = CliRunner().invoke(app, [*argv, "--output", str(tmp_path / name), "--json"])
        assert done.exit_code == 0, (done.output, done.exception)
        return [Path(path) for path in json.loads(done.stdout)]

    return make


def objects(paths):
    return [document for path in paths for document in yaml.safe_load_all(path.read_text())]


def test_each_pipeline_is_an_object_with_a_version_named_by_its_content(write, spec, remote):
    paths = write()
    assert sorted(path.stem for path in paths) == sorted(f"tickets-{name}" for name in PARAMETERS)
    packages = packages_of(spec, remote.model_copy(update={"kfp_image": "here/cohobate:1"}))
    for path, package in zip(paths, packages.values(), strict=True):
        pipeline, version = objects([path])
        assert (pipeline["kind"], version["kind"]) == ("Pipeline", "PipelineVersion")
        assert {one["metadata"]["namespace"] for one in (pipeline, version)} == {"team"}
        assert pipeline["metadata"]["name"] == version["spec"]["pipelineName"] == package.name
        assert version["metadata"]["name"] == f"{package.name}-{package.version}"
        assert pipeline["spec"]["description"] == package.description
        assert version["spec"]["pipelineSpec"] == package.documents[0], "the same as is installed by the API"
        spec_parameter = version["spec"]["pipelineSpec"]["root"]["inputDefinitions"]["parameters"]["spec"]
        assert spec_parameter["defaultValue"] == "/specs/tickets.yaml"
        executors = version["spec"]["pipelineSpec"]["deploymentSpec"]["executors"].values()
        assert {executor["container"]["image"] for executor in executors} == {"here/cohobate:1"}


def test_written_again_they_are_the_same_and_with_another_image_other_versions(write):
    first, again, other = (objects(write(image, name)) for image, name in (("a:1", "x"), ("a:1", "y"), ("a:2", "z")))
    assert first == again
    names = [{o["metadata"]["name"] for o in made if o["kind"] == "PipelineVersion"} for made in (first, other)]
    assert names[0].isdisjoint(names[1]) and {len(one) for one in names} == {len(PARAMETERS)}


def test_what_is_special_to_a_platform_stays_beside_the_pipeline(tmp_path, remote, spec):
    from pipelines.compiled import Package
    from pipelines.compiling import write_manifests

    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"exec-rollback": {}}}}}}
    package = packages_of(spec, remote)["rollback"]
    both = Package((*package.documents, platform))
    (path,) = write_manifests([both.with_image("here/cohobate:2")], tmp_path, "team")
    _, version = objects([path])
    assert version["spec"]["platformSpec"] == platform
    assert version["spec"]["pipelineSpec"]["deploymentSpec"]["executors"]["exec-rollback"]["container"]["image"] == (
        "here/cohobate:2"
    )
    (tmp_path / "both.yaml").write_text(both.text)
    assert read(tmp_path / "both.yaml") == both


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--format", "kubernetes", "--namespace", "team"], "spec is ''"),
        (["--format", "kubernetes", "--spec", "SPEC"], "namespace is ''"),
        (["--spec", "SPEC"], "format is 'ir'"),
        (["--namespace", "team"], "format is 'ir'"),
    ],
)
def test_what_is_missing_or_of_no_use_is_named(spec, remote, monkeypatch, tmp_path, argv, named):
    monkeypatch.delenv("COHOBATE_KFP_NAMESPACE")
    argv = [spec.source if word == "SPEC" else word for word in argv]
    done = CliRunner().invoke(app, ["compile", *argv, "--output", str(tmp_path)])
    assert isinstance(done.exception, ConfigError) and named in str(done.exception)
    assert list(tmp_path.glob("*.yaml")) == []


# A real Kubernetes API server.


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


@pytest.mark.integration
def test_applied_twice_nothing_changes_and_an_upgrade_makes_new_versions(kubectl, write):
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
