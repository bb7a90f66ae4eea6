import json

import pytest
from typer.testing import CliRunner

from components.contracts.spec import Limits
from components.evaluate.evidence import Answer, Evidence, Judgement, Row, encode
from components.evaluate.judge import demanded, judge
from infra.cli import app

RIGHT, WRONG = Answer(label="a", confidence=0.9), Answer(label="b", confidence=0.9)


def write(folder, right, wrong, *, verdict=True):
    rows = [Row(set="new", truth="a", candidate=RIGHT)] * right + [Row(set="new", truth="a", candidate=WRONG)] * wrong
    judgement = Judgement(workload="w", task="classification")
    limits = Limits(min_rows=5, min_accuracy=0.8, confidence=0.95)
    made = demanded(Evidence(judgement=judgement, rows=tuple(rows)), limits)
    path = folder / "evidence.jsonl"
    path.write_bytes(encode(made, judge(made) if verdict else None))
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["gate", "replay", *map(str, arguments)])


@pytest.mark.parametrize(
    ("right", "wrong", "code", "decision"), [(95, 5, 0, "promote"), (20, 80, 1, "reject"), (17, 3, 2, "hold")]
)
def test_exit_codes_tell_the_verdict(tmp_path, right, wrong, code, decision):
    done = run(write(tmp_path, right, wrong), "--json")
    said = json.loads(done.output)
    assert (done.exit_code, said["decision"], said["same"]) == (code, decision, True)
    accuracy = next(f for f in said["findings"] if f["measure"] == "accuracy")
    assert accuracy["limit"] == ">= 0.8" and accuracy["n"] == right + wrong and accuracy["confidence"] == 0.95
    assert (accuracy["more"] or 0) > 0 if decision == "hold" else accuracy["more"] is None


def test_evidence_that_was_changed_is_told_from_one_that_passes(tmp_path):
    path = write(tmp_path, 95, 5)
    path.write_bytes(path.read_bytes().replace(b'"label":"b"', b'"label":"a"', 2))
    done = run(path)
    assert done.exit_code == 3 and "NOT as recorded" in done.output


def test_text_gives_the_reasons(tmp_path):
    done = run(write(tmp_path, 17, 3, verdict=False))
    assert done.exit_code == 2 and done.output.startswith("hold\n") and "more labels would decide" in done.output


def test_another_spec_s_limits_are_tried(tmp_path):
    spec = tmp_path / "s.yaml"
    spec.write_text(
        "name: w\nteacher: {factory: t:T}\nfeatures: {factory: f:F}\nlimits: {min_rows: 5, min_accuracy: 0.5, "
        "confidence: 0.9}\n"
    )
    assert run(write(tmp_path, 17, 3), "--spec", spec).exit_code == 0


def test_what_is_not_evidence_is_neither_a_pass_nor_a_failure(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("{}\n")
    assert run(path).exit_code == 3


def test_a_page_is_drawn_from_evidence_and_refuses_what_is_none(tmp_path):
    output = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["gate", "page", str(write(tmp_path, 17, 3)), "--output", str(output)])
    assert done.exit_code == 0 and done.output.strip() == str(output)
    text = output.read_text()
    assert text.startswith("<!doctype html>") and "<strong>hold</strong>" in text and "more labels" in text
    (tmp_path / "x.jsonl").write_text("{}\n")
    assert CliRunner().invoke(app, ["gate", "page", str(tmp_path / "x.jsonl")]).exit_code == 3
