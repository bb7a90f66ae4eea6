import pytest
from typer.testing import CliRunner

from components.contracts.errors import ConfigError
from components.contracts.records import OUTSIDE
from components.contracts.spec import build, load_spec
from components.contracts.tagging import kind_of
from infra.cli import app
from infra.history_check import check_history
from infra.init import HISTORY, MODALITIES, write_workload


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_written_workload_s_history_has_no_fault_and_its_teacher_knows_the_classes(modality, tmp_path):
    path = write_workload("mine", modality, tmp_path / "mine")
    spec = load_spec(path)
    report = check_history(str(path.parent / HISTORY), spec)
    assert report.wrong == 0, report.faults
    truths = 0 if spec.task == "embedding" else 400  # nothing is true of a vector
    assert (report.rows, report.with_truth, spec.name) == (400, truths, "mine")
    teacher = build(spec.teacher, spec.source)
    kinds = {kind_of(tag) for tag in teacher.classes} - {OUTSIDE} if spec.task == "tagging" else set(teacher.classes)
    assert set(report.classes) == kinds and teacher.space == "mine@1"


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
    with pytest.raises(
        ConfigError, match="text, table, bytes, image, audio, regression, multilabel, tagging, embedding"
    ):
        write_workload("mine", "video", tmp_path / "mine")
    assert not (tmp_path / "mine").exists()
