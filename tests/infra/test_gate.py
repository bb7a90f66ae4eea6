import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from drift.monitor import Reference
from infra.cli import app

RUN = CliRunner()


def save(path: Path, seed: int, n: int, shift: float = 0.0) -> Path:
    chance = np.random.default_rng(seed)
    columns = {
        "x": chance.normal(shift, 1.0, n), "whole": chance.integers(0, 9, n), "text": chance.choice(["a", "b"], n),
        "when": pa.array(chance.integers(0, 10**6, n), pa.timestamp("s")),
        "vector": list(chance.normal(size=(n, 4))),
    }  # fmt: skip
    pq.write_table(pa.table(columns), path)
    return path


def check(*arguments: object) -> tuple[int, str]:
    done = RUN.invoke(app, ["gate", "check", *map(str, arguments)])
    return done.exit_code, done.output


@pytest.mark.parametrize(
    ("rows", "shift", "code", "outcome"),
    [(150, 0.0, 0, "none"), (150, 1.0, 1, "drift"), (10, 1.0, 2, "not_enough_data")],
)
def test_the_exit_code_is_the_verdict(tmp_path: Path, rows: int, shift: float, code: int, outcome: str) -> None:
    before, now = save(tmp_path / "r.parquet", 0, 300), save(tmp_path / "c.parquet", 1, rows, shift)
    found, output = check("--reference", before, "--current", now, "--json")
    verdict = json.loads(output)
    assert (found, verdict["outcome"]) == (code, outcome)
    assert verdict["drifted"] == (["x"] if code == 1 else [])
    assert len(verdict["reference_digest"]) == 64
    found, output = check("--reference", before, "--current", now)
    assert found == code
    assert f"{outcome}:" in output


def test_it_is_the_platform_s_verdict_with_the_spec_s_settings(tmp_path: Path) -> None:
    chance = np.random.default_rng(3)
    sides = {name: {"x": chance.normal(size=200), "c": chance.choice(list("abc"), 200)} for name in ("r", "c")}
    for name, columns in sides.items():
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "name: t\nteacher: {factory: 'x:y'}\nfeatures: {factory: 'x:y'}\nseed: 5\n"
        "monitor: {window: 120, alpha: 0.2, min_effect: 0.0, resamples: 99, block: 1, joint: false,"
        " detectors: {numeric: [energy], c: [g_test]}}\n"
    )
    _, output = check(
        "--reference", tmp_path / "r.parquet", "--current", tmp_path / "c.parquet", "--spec", spec, "--json"
    )
    reference = Reference.fit(
        sides["r"], window=120, alpha=0.2, min_effect=0.0, resamples=99, seed=5, block=1, joint=False,
        detectors={"numeric": ["energy"], "c": ["g_test"]},
    )  # fmt: skip
    verdict = json.loads(output)
    assert verdict == json.loads(
        json.dumps(reference.assess(sides["c"]).as_dict() | {"reference_digest": reference.digest})
    )
    assert [f["detector"] for f in verdict["findings"]] == ["energy", "g_test"]


def test_the_report_is_written(tmp_path: Path) -> None:
    before, now = save(tmp_path / "r.parquet", 0, 200), save(tmp_path / "c.parquet", 1, 100, 1.0)
    code, _ = check("--reference", before, "--current", now, "--report", tmp_path / "out", "--json")
    assert code == 1
    report = json.loads((tmp_path / "out" / "drift.json").read_text())
    assert report["verdict"]["outcome"] == "drift"
    assert "Calibrated verdict: drift" in (tmp_path / "out" / "drift.html").read_text()


def test_errors_have_their_own_exit_code(tmp_path: Path) -> None:
    before = save(tmp_path / "r.parquet", 0, 100)
    pq.write_table(pa.table({"x": [1.0]}), tmp_path / "lacking.parquet")
    (tmp_path / "no.parquet").write_text("no")
    for current, said in (("absent", "exists"), ("no", "Parquet"), ("lacking", "lacks text")):
        code, output = check("--reference", before, "--current", tmp_path / f"{current}.parquet")
        assert code == 3
        assert said in output


def test_the_ui_of_a_platform_without_reports_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COHOBATE_HOME", str(tmp_path))
    done = RUN.invoke(app, ["gate", "ui"])
    assert done.exit_code == 3 and "the first update of a workload makes it" in done.output
