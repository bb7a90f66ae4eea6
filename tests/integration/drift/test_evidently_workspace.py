from pathlib import Path

import pytest

from drift.evidently_workspace import drop, keep
from tests.integration.drift.test_evidently_report import frame

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]  # Evidently's imports warn


def test_two_who_make_a_project_at_once_make_one(tmp_path: Path) -> None:
    from evidently import Report
    from evidently.metrics import RowCount
    from evidently.ui.workspace import Workspace

    run = Report([RowCount()]).run(frame(0, 60), None)
    kept = {keep(run, str(tmp_path), name) for name in ("mail", "mail", "files")}
    assert len(kept) == 3 and {p.name for p in Workspace(str(tmp_path)).list_projects()} == {"mail", "files"}


def test_runs_of_snapshots_that_lost_rows_are_deleted_and_no_others(tmp_path: Path) -> None:
    from evidently import Report
    from evidently.metrics import RowCount

    assert drop(str(tmp_path / "none"), "mail", {"d1"}) == 0
    for project, snapshot in (("mail", "d1"), ("mail", "d2"), ("files", "d1")):
        keep(Report([RowCount()]).run(frame(0, 60), None, metadata={"snapshot": snapshot}), str(tmp_path), project)
    before = {p for p in tmp_path.rglob("*.json") if "snapshots" in p.parts}
    assert drop(str(tmp_path), "mail", {"d1", "d3"}) == 1
    assert drop(str(tmp_path), "mail", {"d1", "d3"}) == 0 and drop(str(tmp_path), "nobody", {"d1"}) == 0
    after = {p for p in tmp_path.rglob("*.json") if "snapshots" in p.parts}
    assert len(before) == 3 and len(before - after) == 1 and after < before
