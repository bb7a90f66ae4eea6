"""``cohobate deploy check`` without a cluster, and that the manifests say what their sources say."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from components.contracts.payload import decoder
from components.contracts.settings import IMAGE
from components.contracts.spec import build, load_spec
from components.student.features import featuriser
from infra.cli import app
from infra.manifests import templates

HERE = Path("infra/deploy")
KUSTOMIZE = HERE / "kustomize"


def check(*argv, **options):
    return CliRunner().invoke(app, ["deploy", "check", *argv], **options)


def test_rules_and_declarations_are_what_their_sources_say():
    """Alerts have one source, and so has what Serve is told to run: the very code of ``cohobate serve config``."""
    done = subprocess.run([sys.executable, HERE / "render.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_is_not_up_to_date_is_named(tmp_path):
    copy = tmp_path / "infra"
    shutil.copytree("infra", copy, ignore=shutil.ignore_patterns("__pycache__"))  # other tests write there
    stale = copy / "deploy" / "kustomize" / "overlays" / "small" / "serve.yaml"
    stale.write_text(stale.read_text().replace("port: 8400", "port: 8500"))
    alerts = copy / "observability" / "alerts.yaml"
    alerts.write_text(alerts.read_text().replace("severity: page", "severity: ticket"))
    env = os.environ | {"PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        [sys.executable, copy / "deploy" / "render.py", "--check"], env=env, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert sorted(line.split(" is not")[0] for line in done.stderr.splitlines()) == [
        "kustomize/components/monitoring/rules.yaml", "kustomize/overlays/small/serve.yaml"
    ]  # fmt: skip


@pytest.mark.parametrize("path", sorted((HERE / "example").iterdir()), ids=lambda path: path.stem)
def test_the_examples_are_workloads_that_work(path):
    """What a spec names is looked up when its workers start, and not before."""
    spec = load_spec(str(path))
    assert spec.name == path.stem
    payload = b"#!/bin/sh\n"
    assert decoder(spec.payload, spec.source)(payload) == payload
    assert build(spec.teacher, spec.source).label([payload])[0].label
    assert featuriser(spec.features, spec.source).encode([payload])


def test_every_image_is_on_the_list_and_ours_is_this_version():
    found = {
        image
        for path in KUSTOMIZE.rglob("*.yaml")
        for image in re.findall(r"^\s*(?:- )?image(?:Name)?: (\S+)$", path.read_text(), flags=re.MULTILINE)
    }
    listed = {line.split("#")[0].strip() for line in (HERE / "images.txt").read_text().splitlines()}
    assert IMAGE in found and found <= listed


def test_no_manifest_holds_a_secret():
    kinds = {one["kind"] for path in KUSTOMIZE.rglob("*.yaml") for one in objects(path.read_text())}
    assert "Deployment" in kinds and "Secret" not in kinds
    for path in KUSTOMIZE.rglob("*.env"):
        assert not re.search(r"(PASSWORD|TOKEN|SECRET|KEY)=", path.read_text())


def test_who_makes_topics_may_say_for_how_long_they_are_kept():
    """The spec's ``retention.topics`` asks the one, and sets the other."""
    paths = [path for path in KUSTOMIZE.rglob("*.yaml") if "kind: KafkaUser" in path.read_text()]
    users = [user for path in paths for user in yaml.safe_load_all(path.read_text()) if user["kind"] == "KafkaUser"]
    acls = [acl for user in users for acl in user["spec"]["authorization"]["acls"] if "Create" in acl["operations"]]
    assert len(acls) >= 3
    assert all({"DescribeConfigs", "AlterConfigs"} <= set(acl["operations"]) for acl in acls)


def objects(text):
    return [one for one in yaml.safe_load_all(text) if isinstance(one, dict) and "kind" in one]


POD = {"containers": [{"name": "one", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}


def test_templates_are_found_wherever_an_object_has_them():
    given = [
        {"kind": "Deployment", "metadata": {"name": "a", "namespace": "x"}, "spec": {"template": {"spec": POD}}},
        {"kind": "RayService", "metadata": {"name": "b"}, "spec": {"rayClusterConfig": {
            "headGroupSpec": {"template": {"metadata": {"labels": {"l": "1"}}, "spec": POD}},
            "workerGroupSpecs": [{"template": {"spec": POD}}, {"template": {"spec": POD}}],
        }}},
        {"kind": "StatefulSet", "metadata": {"name": "c"}, "spec": {
            "template": {"spec": POD}, "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
        }},
        {"kind": "ConfigMap", "metadata": {"name": "d"}, "data": {}},
    ]  # fmt: skip
    found = list(templates(given))
    assert [(t.owner, t.place) for t in found] == [
        ("Deployment a", "spec.template"),
        ("RayService b", "spec.rayClusterConfig.headGroupSpec.template"),
        ("RayService b", "spec.rayClusterConfig.workerGroupSpecs[0].template"),
        ("RayService b", "spec.rayClusterConfig.workerGroupSpecs[1].template"),
        ("StatefulSet c", "spec.template"),
    ]
    assert found[0].pod["metadata"] == {"name": "check", "namespace": "x"}
    assert found[1].pod["metadata"]["labels"] == {"l": "1"}
    assert found[4].pod["spec"]["volumes"] == [{"name": "data", "emptyDir": {}}]


@pytest.mark.parametrize(
    ("text", "why"),
    [("a: [", "must be manifests in YAML"), ("just: this", "a kind and a name"), ("[1]", "a kind and a name")],
)
def test_what_is_no_manifest_is_refused(tmp_path, monkeypatch, text, why):
    monkeypatch.setattr("shutil.which", lambda _: "/bin/true")
    (tmp_path / "it.yaml").write_text(text)
    done = check(str(tmp_path / "it.yaml"))
    assert done.exit_code != 0 and why in str(done.exception)


def test_without_kubectl_or_without_a_server_one_line_says_so(tmp_path, monkeypatch):
    manifest = {"kind": "Deployment", "metadata": {"name": "a"}, "spec": {"template": {"spec": POD}}}
    (tmp_path / "it.yaml").write_text(json.dumps(manifest))
    monkeypatch.setenv("PATH", "/nowhere")
    assert "install it" in str(check(str(tmp_path / "it.yaml")).exception)
    program = tmp_path / "kubectl"
    program.write_text("#!/bin/sh\necho 'The connection to the server localhost:1 was refused' >&2; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "Kubernetes at kubectl does not answer" in str(check(str(tmp_path / "it.yaml")).exception)
