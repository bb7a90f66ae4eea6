import subprocess
import sys
from pathlib import Path

import pytest

from drift.evidently_report import Shelf, write
from drift.evidently_workspace import drop, keep
from drift.monitor import Reference
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


def test_who_deletes_knows_the_metrics_of_ours_that_another_process_kept(tmp_path: Path) -> None:
    before, now = frame(0, 300), frame(1, 150, shift=1.0)
    columns = {name: before[name].tolist() for name in before}
    reference = Reference.fit(columns, window=150, alpha=0.01, min_effect=0.1, resamples=400, seed=0)
    verdict = reference.assess({name: now[name].tolist() for name in now})
    shelf = Shelf(workspace=str(tmp_path / "space"), project="mail", about={"snapshot": "d1"})
    write(before, now, tmp_path, "drift", verdict, shelf=shelf)
    told = f"from drift.evidently_workspace import drop; print(drop({str(tmp_path / 'space')!r}, 'mail', ['d1']))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
