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


def test_evidence_is_read_by_the_uri_that_status_names(tmp_path):
    done = run(write(tmp_path, 95, 5).as_uri())
    assert done.exit_code == 0 and "as recorded" in done.output


def test_evidence_that_was_changed_is_told_from_one_that_passes(tmp_path):
    path = write(tmp_path, 95, 5)
    path.write_bytes(path.read_bytes().replace(b'"label":"b"', b'"label":"a"', 2))
    done = run(path)
    assert done.exit_code == 3 and "NOT as recorded" in done.output


def test_text_gives_the_reasons(tmp_path):
    done = run(write(tmp_path, 17, 3, verdict=False))
    assert done.exit_code == 2 and done.output.startswith("hold\n") and "more labels would decide" in done.output


def test_a_built_in_workload_s_limits_are_tried_by_its_name(tmp_path):
    assert run(write(tmp_path, 17, 3), "--spec", "files").exit_code == 1


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


def file(folder, *rows, task="classification", **limits):
    """Evidence without a verdict, from rows as JSON has them."""
    made = demanded(Evidence(judgement=Judgement(workload="w", task=task)), Limits(min_rows=2, **limits))
    first = encode(made).splitlines()[0]
    path = folder / "e.jsonl"
    path.write_bytes(b"\n".join([first, *(json.dumps({"kind": "row", "set": "new", **row}).encode() for row in rows)]))
    return path


def says(label, **more):
    return {"candidate": {"label": label, "confidence": 0.9, **more}}


@pytest.mark.parametrize("weight", [-1, 1e10, -1e-9])
def test_a_weight_out_of_range_is_refused(tmp_path, weight):
    done = run(file(tmp_path, {"weight": weight, "truth": "a"} | says("a"), min_accuracy=0.5))
    assert done.exit_code == 3 and "$.weight" in done.output and "line 2" in done.output


def test_a_row_of_no_weight_counts_nowhere(tmp_path):
    good = [{"truth": "a"} | says("a")] * 20
    for rows in (good, [*good, *[{"weight": 0, "truth": "a"} | says("b")] * 50]):
        done = run(file(tmp_path, *rows, min_accuracy=0.5, confidence=0.9), "--json")
        assert done.exit_code == 0
        assert next(f["n"] for f in json.loads(done.output)["findings"] if f["measure"] == "accuracy") == 20
    nothing = run(file(tmp_path, *[{"weight": 0, "truth": "a"} | says("a")] * 50, min_accuracy=0.5))
    assert nothing.exit_code == 2


@pytest.mark.parametrize(("confidence", "code"), [(1.0, 0), (1.0000005, 0), (1.01, 3), (-0.1, 3), (97, 3)])
def test_a_confidence_out_of_range_is_refused(tmp_path, confidence, code):
    row = {"truth": "a", "candidate": {"label": "a", "confidence": confidence}}
    done = run(file(tmp_path, *[row] * 20, min_accuracy=0.5, confidence=0.9))
    assert done.exit_code == code and (code == 0 or "must be in [0, 1]" in done.output)


def test_an_answer_without_a_label_is_refused(tmp_path):
    done = run(file(tmp_path, {"truth": "a", "candidate": {"confidence": 0.9}}, min_accuracy=0.5))
    assert done.exit_code == 3 and "line 2" in done.output and "candidate's answer must have a label" in done.output


@pytest.mark.parametrize(
    ("truths", "labels"), [((0, 1), ("0", "1")), ((1.0, 2.5), ("1.0", "2.5")), ((7, 8), ("7", "8.0"))]
)
def test_a_number_is_the_class_of_that_name(tmp_path, truths, labels):
    rows = [{"truth": t} | says(label) for t, label in zip(truths, labels, strict=True)] * 20
    done = run(file(tmp_path, *rows, min_accuracy=0.5, confidence=0.9), "--json")
    found = next(f for f in json.loads(done.output)["findings"] if f["measure"] == "accuracy")
    assert (done.exit_code, found["value"]) == (0, 1.0)
    wrong = [{"truth": t} | says(label) for t, label in zip(truths, reversed(labels), strict=True)] * 20
    assert run(file(tmp_path, *wrong, min_accuracy=0.5, confidence=0.9)).exit_code == 1


def test_a_regression_without_a_value_is_missing_evidence(tmp_path):
    near = [{"truth": 0.1, "candidate": {"value": 0.1, "scale": 1.0}}] * 40
    limits = {"task": "regression", "max_rmse": 1.0, "confidence": 0.9}
    assert run(file(tmp_path, *near, **limits)).exit_code == 0
    for missing in ({}, {"value": None, "scale": 1.0}):
        assert run(file(tmp_path, *near, {"truth": 0.1, "candidate": missing}, **limits)).exit_code == 2
    assert run(file(tmp_path, *[{"truth": 0.0, "candidate": {}}] * 40, **limits)).exit_code == 2


def test_a_regressions_truth_is_a_number_also_as_text(tmp_path):
    limits = {"task": "regression", "max_rmse": 1.0, "confidence": 0.9}
    rows = [{"truth": "2.5", "candidate": {"value": 2.5, "scale": 1.0}}] * 40
    assert run(file(tmp_path, *rows, **limits)).exit_code == 0
    done = run(file(tmp_path, {"truth": "much", "candidate": {"value": 2.5}}, **limits))
    assert done.exit_code == 3 and "must be a number, not 'much'" in done.output


def test_a_file_that_is_not_there_is_no_verdict(tmp_path):
    done = run(tmp_path / "absent.jsonl")
    assert done.exit_code == 3 and "absent.jsonl" in done.output
    assert run(tmp_path).exit_code == run().exit_code == 3
