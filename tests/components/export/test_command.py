import json

import msgspec
import pytest
from typer.testing import CliRunner

from components.contracts.settings import Settings
from components.distill.train import distill
from components.export.manifest import read
from components.export.targets import TARGETS, target_of
from components.registry import Registry
from infra.cli import EXPORTS, app
from tests.components.export.conftest import load
from tests.stores import migrated

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
    settings = Settings(home=home)
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
    arguments = ("export", "1", "--to", "onnx", "--spec", platform / "letters.yaml", "-o", tmp_path / "b", "--json")
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
