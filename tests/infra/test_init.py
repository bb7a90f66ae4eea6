import time

import pytest
from typer.testing import CliRunner

from components.contracts.errors import ConfigError
from components.contracts.spec import build, load_spec
from components.control.store import ControlStore
from components.distill.train import distill
from components.evaluate.evaluate import evaluate
from components.label.history import label_history
from components.label.history_file import read_history
from components.snapshot import freeze
from components.stream.memory import MemoryBroker
from infra.cli import app
from infra.history_check import check_history
from infra.init import HISTORY, MODALITIES, write_workload


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_written_workload_s_history_has_no_fault_and_its_teacher_knows_the_classes(modality, tmp_path):
    path = write_workload("mine", modality, tmp_path / "mine")
    spec = load_spec(path)
    report = check_history(str(path.parent / HISTORY), spec)
    assert report.wrong == 0, report.faults
    assert report.rows == report.with_truth == 400 and spec.name == "mine"
    teacher = build(spec.teacher, spec.source)
    assert set(report.classes) == set(teacher.classes) and teacher.space == "mine@1"


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("modality", MODALITIES)
def test_a_written_workload_s_first_student_is_promoted(modality, tmp_path):
    path = write_workload("mine", modality, tmp_path / "mine")
    spec, broker, artifacts = load_spec(path), MemoryBroker(), f"file://{tmp_path}/artifacts"
    store = ControlStore(f"sqlite:///{tmp_path}/control.db")
    store.migrate()
    counts = label_history(spec, broker, read_history(str(path.parent / HISTORY), spec), patience=0.0)
    assert counts["inputs"] == 400 and counts["dead"] == 0
    window = freeze(spec, broker, store, artifacts, now=time.time())
    made = distill(spec, [window], variant=spec.student.variants[0], parent=None, artifacts=artifacts, seed=spec.seed)
    done = evaluate(spec, made.uri, made.digest, made.float_uri, windows=[window], champion=None, store=store)
    assert done.verdict.decision == "promote", done.verdict.reasons
    store.close()


def run(*arguments):
    return CliRunner().invoke(app, ["init", *arguments])


def test_the_command_says_what_comes_next(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("notes", "--modality", "table")
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in (tmp_path / "notes").iterdir()) == ["history.jsonl", "notes.yaml", "teacher.py"]
    assert "cohobate history check notes/history.jsonl --spec notes/notes.yaml" in done.output
    assert (
        "cohobate pipeline run bootstrap --spec notes/notes.yaml --param history_uri=notes/history.jsonl" in done.output
    )


def test_nothing_is_overwritten(tmp_path):
    write_workload("mine", "text", tmp_path / "mine")
    with pytest.raises(ConfigError, match="nothing is overwritten"):
        write_workload("other", "text", tmp_path / "mine")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="nothing is overwritten"):
        write_workload("other", "text", tmp_path / "file")


@pytest.mark.parametrize("name", ["Mine", "1st", "a b", "../x", ""])
def test_a_name_that_topics_cannot_have_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="small letters"):
        write_workload(name, "text", tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_a_modality_that_there_is_not_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(ConfigError, match="text, table, bytes, image, audio, regression"):
        write_workload("mine", "video", tmp_path / "mine")
    assert not (tmp_path / "mine").exists()
