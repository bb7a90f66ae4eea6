"""Evidently's own UI on the workspace that our reports are kept in."""

from pathlib import Path

import pytest

from drift.evidently_report import Shelf, write
from drift.monitor import Reference
from tests.integration.drift.test_evidently_report import frame

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]  # Evidently's imports warn


def test_the_ui_shows_the_verdict_of_every_report_in_its_workload_s_project(tmp_path: Path) -> None:
    before = frame(0, 300)
    reference = Reference.fit(
        {name: before[name].tolist() for name in before},
        window=150, alpha=0.01, min_effect=0.1, resamples=400, seed=0,
    )  # fmt: skip
    space = str(tmp_path / "evidently")
    for number, shift in enumerate((0.0, 1.0)):
        now = frame(1 + number, 150, shift)
        verdict = reference.assess({name: now[name].tolist() for name in now})
        shelf = Shelf(workspace=space, project="mail", about={"window": str(number)})
        write(before, now, tmp_path, f"w{number}", verdict, shelf=shelf)

    from evidently.ui.service.app import create_app, get_config
    from litestar.testing import TestClient

    with TestClient(create_app(get_config(workspace=space))) as client:
        (project,) = client.get("/api/projects").json()
        assert project["name"] == "mail"
        runs = client.get(f"/api/projects/{project['id']}/snapshots").json()
        runs = sorted(runs, key=lambda r: r["timestamp"])
        assert [r["metadata"]["window"] for r in runs] == ["0", "1"]
        shown = [client.get(f"/api/projects/{project['id']}/{r['id']}/data").text for r in runs]
        assert ["Calibrated verdict: drift" in text for text in shown] == [False, True]
