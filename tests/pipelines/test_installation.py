"""What a cluster gives the steps: the description of the installation, and what it makes of a compiled pipeline."""

import json
from types import SimpleNamespace

import pytest
import yaml
from typer.testing import CliRunner

from components.contracts.errors import ConfigError
from pipelines.cli import app
from pipelines.compiled import FOLDER, compiled, read
from pipelines.installation import STEPS, completed, read_installation
from pipelines.parameters import PARAMETERS

TEXT = """
image: registry.example/cohobate:1
namespace: team
service_account: cohobate-steps
image_pull_policy: IfNotPresent
image_pull_secrets: [registry]
environment: {COHOBATE_BOOTSTRAP_SERVERS: "kafka:9092", COHOBATE_KFP_HOST: "http://kfp"}
secrets:
- {name: database, variables: {COHOBATE_DATABASE_URL: url}}
- {name: kafka, path: /var/run/secrets/kafka}
config_maps:
- {name: settings, variables: {COHOBATE_ARTIFACT_ROOT: root}}
- {name: specs, path: /specs}
volumes:
- {claim: cache, path: /data}
- {empty: scratch, path: /scratch, size: 10Gi, memory: true}
- {empty: more, path: /more}
steps:
  default: {cpu: "1", cpu_limit: "2", memory: 2Gi, memory_limit: 4Gi, retries: 2, timeout_seconds: 3600}
  distill:
    image: registry.example/cohobate-gpu:1
    memory_limit: 16Gi
    gpu: 1
    retries: 0
    node_selector: {pool: gpu}
    tolerations: [{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]
"""


@pytest.fixture
def described(remote, tmp_path):
    """Settings that name a description with this text."""

    def make(text=TEXT, **more):
        path = tmp_path / "installation.yaml"
        path.write_text(text)
        return remote.model_copy(update={"kfp_installation": path, **more})

    return make


@pytest.mark.filterwarnings("ignore")
def test_it_makes_of_a_pipeline_what_kfp_kubernetes_makes_of_it(described, tmp_path, monkeypatch):
    from kfp import compiler
    from kfp import kubernetes as k8s
    from kfp.dsl.pipeline_task import PipelineTask

    from pipelines import dags

    def equip(task):
        gpu = task.name.startswith("distill")
        task.set_container_image("registry.example/cohobate-gpu:1" if gpu else "registry.example/cohobate:1")
        for name, value in (("COHOBATE_BOOTSTRAP_SERVERS", "kafka:9092"), ("COHOBATE_KFP_HOST", "http://kfp")):
            task.set_env_variable(name, value)
        k8s.use_secret_as_env(task, "database", secret_key_to_env={"url": "COHOBATE_DATABASE_URL"})
        k8s.use_secret_as_volume(task, "kafka", mount_path="/var/run/secrets/kafka")
        k8s.use_config_map_as_env(task, "settings", config_map_key_to_env={"root": "COHOBATE_ARTIFACT_ROOT"})
        k8s.use_config_map_as_volume(task, "specs", mount_path="/specs")
        k8s.mount_pvc(task, pvc_name="cache", mount_path="/data")
        k8s.empty_dir_mount(task, volume_name="scratch", mount_path="/scratch", medium="Memory", size_limit="10Gi")
        k8s.empty_dir_mount(task, volume_name="more", mount_path="/more")
        k8s.set_image_pull_secrets(task, ["registry"])
        k8s.set_image_pull_policy(task, "IfNotPresent")
        k8s.set_timeout(task, 3600)
        task.set_cpu_request("1").set_cpu_limit("2").set_memory_request("2Gi")
        task.set_memory_limit("16Gi" if gpu else "4Gi")
        if not gpu:
            task.set_retry(2, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration="3600s")
            return
        task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)
        k8s.add_node_selector(task, "pool", "gpu")
        k8s.add_toleration(task, key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")

    class Task(PipelineTask):
        """Every task of ours is told that it is not cached."""

        def set_caching_options(self, enabled):
            equip(self)
            return super().set_caching_options(enabled)

    monkeypatch.setattr("kfp.dsl.base_component.pipeline_task.PipelineTask", Task)
    # To name a method in an error, kfp has the source of each frame looked for among all modules that are loaded.
    monkeypatch.setattr("kfp.dsl.pipeline_task.inspect", SimpleNamespace(stack=lambda: [(None, None, None, "?")] * 2))
    settings = described()
    for name in PARAMETERS:
        compiler.Compiler().compile(dags._pipeline(name), str(tmp_path / f"{name}.yaml"))
        wanted, made = read(tmp_path / f"{name}.yaml").documents, compiled(name, settings).documents
        for executor in wanted[0]["deploymentSpec"]["executors"].values():
            _without_older_fields(executor["container"]["resources"])
        wanted[0]["sdkVersion"] = made[0]["sdkVersion"]
        assert made == wanted


def _without_older_fields(resources):
    """Numbers that servers before 2.17 read, in place of quantities."""
    for name in ("cpuRequest", "cpuLimit", "memoryRequest", "memoryLimit"):
        resources.pop(name, None)
    for name in ("count", "type"):
        resources.get("accelerator", {}).pop(name, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: {train: {}}", "steps has train: there are default, begin"),
        ("steps: {distill: {cpus: 1}}", r"unknown field `cpus`, in steps\.distill$"),
        ("steps: {distill: {memory: lots}}", "memory is 'lots': must be a quantity of Kubernetes"),
        ("steps: {distill: {gpu: -1}}", r"`int` >= 0 - at `\$\.gpu`, in steps\.distill$"),
        ("secrets: [{name: db}]", r"needs variables \(NAME: key\) or the path.*secrets\[0\]"),
        ("secrets: [{name: Db, path: /x}]", r"regex.*secrets\[0\]\.name"),
        ("volumes: [{path: /x}]", r"needs either claim .*volumes\[0\]"),
        ("volumes: [{path: /x, claim: a, size: 1Gi}]", "size and memory go with empty"),
        ("volumes: [{path: x, claim: a}]", r"volumes\[0\]\.path"),
        ("image_pull_policy: Sometimes", r"image_pull_policy"),
        ("environment: {A: b}\nsecrets: [{name: s, variables: {A: k}}]", "A comes from two places"),
        ("steps: [", "must be a readable YAML file"),
    ],
)
def test_what_is_wrong_is_named_by_its_field_in_one_line(described, text, said):
    settings = described(text)
    with pytest.raises(ConfigError, match=said) as raised:
        compiled("continual", settings)
    assert "COHOBATE_KFP_INSTALLATION is" in str(raised.value) and "\n" not in str(raised.value)


def test_a_file_that_is_not_there_is_named(remote, tmp_path):
    with pytest.raises(ConfigError, match=r"none.yaml.*must be a readable YAML file"):
        read_installation(tmp_path / "none.yaml")


def test_a_setting_comes_before_the_description(described):
    settings = completed(described(kfp_namespace="", kfp_image="", kfp_service_account="mine"))
    assert (settings.kfp_namespace, settings.kfp_image, settings.kfp_service_account) == (
        "team", "registry.example/cohobate:1", "mine",
    )  # fmt: skip


def test_every_step_can_be_named_and_none_besides(described):
    labels = {
        label.removeprefix("exec-").removesuffix("-2")
        for name in PARAMETERS
        for label in read(FOLDER / f"{name}.yaml").documents[0]["deploymentSpec"]["executors"]
    }
    assert labels == set(STEPS)


def test_without_a_description_nothing_changes_and_an_empty_one_gives_nothing(described, remote):
    assert compiled("continual", described("")) == compiled("continual", remote)
    assert len(compiled("continual", remote).documents) == 1


def test_a_run_is_submitted_with_its_platform_service_account_and_another_image(
    described, shared, remote, spec, monkeypatch
):
    monkeypatch.setenv("COHOBATE_KFP_INSTALLATION", str(described().kfp_installation))
    monkeypatch.delenv("COHOBATE_KFP_NAMESPACE")
    argv = ["submit", "continual", "--spec", spec.source, "--image", "registry.example/cohobate:2", "--json"]
    done = CliRunner().invoke(app, argv)
    assert done.exit_code == 0, (done.output, done.exception)
    (run,) = shared.runs.values()
    assert run["run_id"] == json.loads(done.stdout)["id"] and run["service_account"] == "cohobate-steps"
    pods = run["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert pods["exec-distill"]["nodeSelector"] == {"labels": {"pool": "gpu"}}
    executors = run["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"]
    images = {label: e["container"]["image"] for label, e in executors.items()}
    assert images.pop("exec-distill") == "registry.example/cohobate-gpu:1"
    assert set(images.values()) == {"registry.example/cohobate:2"}


def test_what_is_compiled_to_files_and_objects_has_it_too(described, spec, tmp_path, monkeypatch):
    monkeypatch.setenv("COHOBATE_KFP_INSTALLATION", str(described().kfp_installation))
    for form in (["--format", "ir"], ["--format", "kubernetes", "--spec", spec.source]):
        done = CliRunner().invoke(app, ["compile", *form, "--output", str(tmp_path / form[1])])
        assert done.exit_code == 0, (done.output, done.exception)
    _, platform = yaml.safe_load_all((tmp_path / "ir" / "continual.yaml").read_text())
    _, version = yaml.safe_load_all((tmp_path / "kubernetes" / "tickets-continual.yaml").read_text())
    assert version["spec"]["platformSpec"] == platform and version["metadata"]["namespace"] == "team"
