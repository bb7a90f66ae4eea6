import json
from contextlib import closing

import msgspec
import pytest
from typer.testing import CliRunner

from components.contracts.errors import ConfigError, UntrustedError
from components.contracts.settings import Settings
from components.control.store import ControlStore
from components.distill.train import distill
from components.export.manifest import read
from components.export.targets import TARGETS, target_of
from components.ledger.ledger import entries
from components.registry import Registry
from infra.cli import EXPORTS, app
from tests.components.export.conftest import load
from tests.stores import migrated, registering

RUN = CliRunner()

SPEC = """
name: letters
teacher: {factory: "t:T"}
features: {factory: "components.student.bytes:ByteNgrams", options: {head: 64, buckets: 1024}}
payload: {max_bytes: 1000}
student: {epochs: 6, batch_size: 16, learning_rate: 0.02, variants: [{name: tiny, dim: 8, hidden: 16}]}
limits: {min_rows: 10, max_parity_gap: 0.05}
serve: {max_disagreement: 0.1, novelty: 0.05}
"""


@pytest.fixture(scope="module")
def platform(letter_spec, letters, freeze_rows, tmp_path_factory):
    """A home with one window and the student of it, registered as version 1."""
    home = tmp_path_factory.mktemp("home")
    settings = registering(Settings(home=home))
    limits = msgspec.structs.replace(letter_spec.limits, max_parity_gap=0.05)
    spec = msgspec.structs.replace(letter_spec, limits=limits)
    window = freeze_rows(spec, letters("abc", 60), settings.artifacts, 1)
    store = migrated(settings.control_url)
    done = distill(spec, [window], variant=spec.student.variants[0], parent=None, artifacts=settings.artifacts, seed=0)
    store.add_window(window)
    store.close()
    Registry(settings).register(
        spec, done.uri, done.digest, done.card, verdict={"decision": "promote"}, metrics={"defer_below": 0.7}, params={}
    )
    (home / "letters.yaml").write_text(SPEC)
    return home


def run(home, monkeypatch, *arguments):
    monkeypatch.setenv("COHOBATE_HOME", str(home))
    return RUN.invoke(app, [str(a) for a in arguments])


def test_a_version_is_exported_with_its_limits_its_lineage_and_the_gate_s_verdict(platform, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ("export", "1", "--to", "onnx", "--spec", platform / "letters.yaml", "-o", "b", "--json")
    done = run(platform, monkeypatch, *arguments)
    assert done.exit_code == 0, done.output
    said, manifest = json.loads(done.output), read(tmp_path / "b")
    assert said["parity"]["gap"] == 0.0 and said["parity"]["limit"] == 0.05 and said["parity"]["rows"] > 10
    assert (manifest.defer.below, manifest.defer.novelty) == (0.7, 0.05) and manifest.defer.known
    lineage = json.loads((tmp_path / "b/lineage.json").read_bytes())
    assert lineage["verdict"] == {"decision": "promote"} and lineage["student"] == manifest.lineage.student
    (answer,) = load(tmp_path / "b").predict([b"abcde" * 8])
    assert answer.label == "a" and answer.novelty is not None
    done = run(platform, monkeypatch, "verify-export", tmp_path / "b")
    assert done.exit_code == 0 and "letters version 1 for onnx" in done.output.replace("\n", " ")


def test_a_version_of_the_teacher_before_is_compared_on_what_that_one_labelled(platform, tmp_path, monkeypatch):
    (tmp_path / "letters.yaml").write_text(f"{SPEC}teacher_digest: newer@1\n")
    arguments = ("export", "1", "--to", "onnx", "--spec", tmp_path / "letters.yaml", "-o", tmp_path / "b", "--json")
    done = run(platform, monkeypatch, *arguments)
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["parity"]["rows"] > 10 and read(tmp_path / "b").lineage.teacher == "t@1"


def test_an_export_that_would_answer_otherwise_has_an_exit_code_of_its_own(platform, tmp_path, monkeypatch):
    from components.export import export
    from components.export.parity import Compared

    other = Compared(batch=7, rows=9, gap=0.5, largest=1.0, variation=0.5, novelty=None, defer=0.0)
    monkeypatch.setattr(export, "compare", lambda *_: (other,))
    spec = platform / "letters.yaml"
    done = run(platform, monkeypatch, "export", "1", "--to", "onnx", "--spec", spec, "-o", tmp_path / "b")
    assert done.exit_code == 4 and "judged is 0.5000 in batches of 7" in done.output.replace("\n", " ")
    assert not (tmp_path / "b").exists()


def test_the_help_names_what_there_is():
    assert EXPORTS.split(", ") == list(TARGETS)
    assert [target_of(name).name for name in TARGETS] == list(TARGETS)


def test_the_version_of_the_spec_that_is_in_force_is_asked_for_by_the_workload_s_name(platform, tmp_path, monkeypatch):
    def asked(version, to, output, source, *_):
        print(source)

    monkeypatch.setattr("infra.export.write", asked)
    monkeypatch.setattr("components.control.workloads.pinned", lambda source, _: f"{source}@1")
    asking = ("export", "1", "--to", "onnx", "-o", tmp_path / "b")
    assert run(platform, monkeypatch, *asking, "--workload", "letters").output == "workload:letters@1\n"
    assert run(platform, monkeypatch, *asking).output == "workload:letters@1\n", "the platform's only one"
    done = run(platform, monkeypatch, *asking, "--workload", "letters", "--spec", "files")
    assert done.exit_code == 2 and "leave one out" in done.output


def test_a_student_that_nobody_signed_is_not_exported_where_the_policy_asks_for_it(platform, tmp_path, monkeypatch):
    monkeypatch.setenv("COHOBATE_ARTIFACT_POLICY", "signed")
    arguments = ("export", "1", "--to", "onnx", "--spec", platform / "letters.yaml", "-o", tmp_path / "b")
    with closing(ControlStore.open(Settings(home=platform).control_url)) as store:
        for _ in range(2):
            done = run(platform, monkeypatch, *arguments)
            assert isinstance(done.exception, UntrustedError) and done.exception.reason == "unsigned"
        (entry,) = [e for e in entries(store, "letters") if e.action == "refused artifact"]
    assert (entry.detail["version"], entry.detail["code"]) == ("1", "unsigned") and not (tmp_path / "b").exists()


def test_terms_that_forbid_training_by_now_forbid_the_export(platform, tmp_path, monkeypatch):
    spec = tmp_path / "letters.yaml"
    spec.write_text(SPEC.replace('factory: "t:T"', 'factory: "t:T", licence: {outputs: {training: forbidden}}'))
    done = run(platform, monkeypatch, "export", "1", "--to", "onnx", "--spec", spec, "-o", tmp_path / "b")
    assert isinstance(done.exception, ConfigError) and "teacher.licence.outputs.training" in str(done.exception)
    assert not (tmp_path / "b").exists()
