from pathlib import Path

import pytest

from drift.evidently_workspace import keep
from tests.integration.drift.test_evidently_report import frame

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]  # Evidently's imports warn


def test_two_who_make_a_project_at_once_make_one(tmp_path: Path) -> None:
    from evidently import Report
    from evidently.metrics import RowCount
    from evidently.ui.workspace import Workspace

    run = Report([RowCount()]).run(frame(0, 60), None)
    kept = {keep(run, str(tmp_path), name) for name in ("mail", "mail", "files")}
    assert len(kept) == 3 and {p.name for p in Workspace(str(tmp_path)).list_projects()} == {"mail", "files"}
