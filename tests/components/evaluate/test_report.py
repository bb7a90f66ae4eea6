import json

import msgspec
import pytest

from components.contracts.storage import get_bytes
from components.evaluate.report import columns, drift_report


@pytest.fixture
def artifacts(tmp_path):
    return f"file://{tmp_path}"


@pytest.fixture
def ui(tmp_path):
    return str(tmp_path / "evidently")


def test_without_an_older_window_there_is_nothing_to_compare(letter_spec, letters, freeze_rows, artifacts, ui):
    window = freeze_rows(letter_spec, letters("ab", 20), artifacts, 1)
    assert drift_report(letter_spec, [window], f"{artifacts}/r", ui) == ("", "", None)


@pytest.mark.filterwarnings("ignore")
def test_writes_evidently_s_report_with_our_verdict(letter_spec, letters, freeze_rows, artifacts, ui):
    old = freeze_rows(letter_spec, letters("ab", 50), artifacts, 1)
    new = freeze_rows(letter_spec, letters("cd", 50, seed=1), artifacts, 2)
    html, data, verdict = drift_report(letter_spec, [old, new], f"{artifacts}/r", ui)
    assert (html, data) == (f"{artifacts}/r/drift.html", f"{artifacts}/r/drift.json")
    assert verdict.outcome == "drift" and "teacher_label" in verdict.drifted
    assert get_bytes(html).lstrip().lower().startswith((b"<html", b"<!doctype"))
    assert json.loads(get_bytes(data))["verdict"]["outcome"] == "drift"
    from evidently.ui.workspace import Workspace

    (project,) = Workspace(ui).list_projects()
    (run,) = Workspace(ui).list_runs(project.id)
    assert project.name == letter_spec.name
    assert Workspace(ui).get_run(project.id, run).metadata["snapshot"] == new.digest


def test_a_window_of_the_same_kind_does_not_drift(letter_spec, letters, freeze_rows, artifacts, ui):
    windows = [freeze_rows(letter_spec, letters("ab", 40, seed=i), artifacts, i) for i in range(3)]
    assert drift_report(letter_spec, windows, f"{artifacts}/r", ui)[2].outcome == "none"


def test_the_reference_is_no_longer_than_it_has_to_be(letter_spec, letters, freeze_rows, artifacts, ui):
    windows = [freeze_rows(letter_spec, letters("ab", 40, seed=i), artifacts, i) for i in range(4)]
    assert drift_report(letter_spec, windows, f"{artifacts}/r", ui)[2].reference_rows == 80
    spec = msgspec.structs.replace(letter_spec, monitor=msgspec.structs.replace(letter_spec.monitor, reference=150))
    assert drift_report(spec, windows, f"{artifacts}/r", ui)[2].reference_rows == 160


def test_columns_are_the_descriptors_and_what_the_teacher_says(
    letter_spec, line_spec, letters, lines, freeze_rows, artifacts
):
    found = columns(letter_spec, [freeze_rows(letter_spec, letters("a", 5), artifacts, 1)])
    assert {"byte_entropy", "teacher_label", "teacher_entropy"} <= set(found)
    assert found["teacher_label"] == ["a"] * 5 and {len(c) for c in found.values()} == {5}
    found = columns(line_spec, [freeze_rows(line_spec, lines(5), artifacts, 1)])
    assert set(found) == {"x", "teacher_entropy"}
