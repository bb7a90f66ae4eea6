"""Pipelines as Kubernetes objects: what is written."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from components.contracts.errors import ConfigError
from pipelines.cli import app
from pipelines.compiled import read
from pipelines.install import packages_of
from pipelines.parameters import PARAMETERS

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
    return [document for path in paths for document in yaml.load_all(path.read_text(), yaml.CSafeLoader)]


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
