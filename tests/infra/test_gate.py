import datetime
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from components.evaluate.check import _column, read_columns
from drift.evidently_page import document_of
from drift.monitor import TOGETHER, Reference
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
    assert "Calibrated verdict: drift" in document_of((tmp_path / "out" / "drift.html").read_text())


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


def two(tmp_path: Path, name: str, make, n: int = 200) -> tuple[int, str]:  # type: ignore[no-untyped-def]
    """The verdict on two draws of a column."""
    for seed, side in enumerate(("r", "c")):
        column = make(np.random.default_rng(seed), n)
        pq.write_table(pa.table({name: column}), tmp_path / f"{side}.parquet")
    return check("--reference", tmp_path / "r.parquet", "--current", tmp_path / "c.parquet", "--json")


LAST_DAY = datetime.date(9999, 12, 31)
COLUMNS = {
    "int64": lambda chance, n: pa.array(chance.integers(2**53, 2**63 - 1, n), pa.int64()),
    "uint64": lambda chance, n: pa.array(chance.integers(2**63, 2**64 - 1, n, dtype=np.uint64), pa.uint64()),
    "nanoseconds": lambda chance, n: pa.array(chance.integers(0, 2**62, n), pa.timestamp("ns")),
    "zoned": lambda chance, n: pa.array(chance.integers(0, 2**62, n), pa.timestamp("ns", "UTC")),
    "last days": lambda chance, n: pa.array([LAST_DAY - datetime.timedelta(int(d)) for d in chance.integers(0, 9, n)]),
    "milliseconds": lambda chance, n: pa.array(chance.integers(0, 10**12, n) // 86_400_000 * 86_400_000, pa.date64()),
    "far seconds": lambda chance, n: pa.array(chance.integers(0, 2**50, n), pa.timestamp("s")),
    "durations": lambda chance, n: pa.array(chance.integers(0, 2**62, n), pa.duration("ns")),
    "times of day": lambda chance, n: pa.array(chance.integers(0, 86_400, n), pa.int32()).cast(pa.time32("s")),
    "decimals": lambda chance, n: pa.array(chance.integers(0, 2**62, n)).cast(pa.decimal128(38, 9)),
    "text view": lambda chance, n: pa.array(chance.choice(["a", "b"], n).tolist(), pa.string_view()),
    "large text": lambda chance, n: pa.array(chance.choice(["a", "b"], n).tolist(), pa.large_string()),
    "dictionary": lambda chance, n: pa.array(chance.choice(["a", "b"], n).tolist()).dictionary_encode(),
    "large lists": lambda chance, n: pa.array(chance.normal(size=(n, 3)).tolist(), pa.large_list(pa.float64())),
    "fixed lists": lambda chance, n: pa.array(chance.normal(size=(n, 3)).tolist(), pa.list_(pa.float32(), 3)),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_every_column_of_numbers_times_text_or_lists_is_judged(tmp_path: Path, kind: str) -> None:
    code, output = two(tmp_path, kind, COLUMNS[kind])
    assert (code, json.loads(output)["findings"][0]["column"]) == (0, kind), output


def test_list_views_are_read_where_they_come_from_memory() -> None:
    for kind in (pa.list_view(pa.float64()), pa.large_list_view(pa.float64())):
        column = pa.chunked_array([pa.array([[1.0, 2.0], [3.0, 4.0]], kind)])
        assert _column("v", column).tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_times_are_seconds_in_every_unit() -> None:
    when = datetime.datetime(2026, 11, 29, 9, 6, 21, 123456)
    stamps = {unit: pa.chunked_array([pa.array([when, None], pa.timestamp("us"))]) for unit in ("us", "ns")}
    exact = (when - datetime.datetime(1970, 1, 1)) / datetime.timedelta(seconds=1)
    for unit, column in stamps.items():
        found = _column("t", column.cast(pa.timestamp(unit)))
        assert found[0] == exact and np.isnan(found[1])
    last = _column("t", pa.chunked_array([pa.array([LAST_DAY])]))
    assert last.tolist() == [253402214400.0]
    assert _column("t", pa.chunked_array([pa.array([1_500], pa.timestamp("ns"))])).tolist() == [1.5e-6]


@pytest.mark.parametrize("named", [True, False])
def test_an_index_that_pandas_stored_is_no_column(tmp_path: Path, named: bool) -> None:
    for seed, side in enumerate(("r", "c")):
        frame = pd.DataFrame(
            {"x": np.random.default_rng(seed).normal(size=100)}, index=range(seed * 100, seed * 100 + 100)
        )
        frame = frame.sample(frac=1, random_state=0)
        frame.rename_axis("row" if named else None).to_parquet(tmp_path / f"{side}.parquet")
    assert len(pq.read_schema(tmp_path / "r.parquet").names) == 2
    code, output = check("--reference", tmp_path / "r.parquet", "--current", tmp_path / "c.parquet", "--json")
    assert (code, [f["column"] for f in json.loads(output)["findings"]]) == (0, ["x"])


def test_an_index_without_its_metadata_is_no_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1.0], "__index_level_0__": [7]}), tmp_path / "x.parquet")
    assert list(read_columns(tmp_path / "x.parquet")) == ["x"]


def test_a_column_is_left_out(tmp_path: Path) -> None:
    before, now = save(tmp_path / "r.parquet", 0, 300), save(tmp_path / "c.parquet", 1, 150, 1.0)
    files = ("--reference", before, "--current", now)
    code, output = check(*files, "--exclude", "x", "--exclude", "vector", "--json")
    judged = {f["column"] for f in json.loads(output)["findings"]}
    assert code == 0 and judged == {"whole", "text", "when", TOGETHER}
    code, output = check(*files, "--exclude", "y")
    assert code == 3 and "must name columns of" in output and "y" in output
    everything = [word for name in ("x", "whole", "text", "when", "vector") for word in ("--exclude", name)]
    code, output = check(*files, *everything)
    assert code == 3 and "must leave a column" in output


def test_a_column_that_cannot_be_read_may_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"x": [1.0] * 40, "raw": [b"1"] * 40}), path)
    assert check("--reference", path, "--current", path)[0] == 3
    assert check("--reference", path, "--current", path, "--exclude", "raw")[0] == 0


def test_whatever_goes_wrong_is_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = save(tmp_path / "r.parquet", 0, 100)
    twice = pa.Table.from_arrays([pa.array([1.0]), pa.array([2.0])], names=["x", "x"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    code, output = check("--reference", before, "--current", tmp_path / "twice.parquet")
    assert code == 3 and "one column of a name" in output
    assert check("--reference", before)[0] == 3, "an option is missing"
    assert check("--reference", before, "--current", before, "--no-such-option")[0] == 3

    def fails(*args: object) -> None:
        raise RuntimeError("a fault\nof ours")

    monkeypatch.setattr(Reference, "assess", fails)
    code, output = check("--reference", before, "--current", before)
    assert code == 3 and output.splitlines() == [
        "error: no verdict: RuntimeError: a fault of ours ('cohobate gate --verbose ...' shows where)"
    ]


def test_verbose_shows_where_a_fault_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:  # type: ignore[no-untyped-def]
    def fails(*args: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(Reference, "assess", fails)
    before = save(tmp_path / "r.parquet", 0, 100)
    with caplog.at_level("INFO"):
        RUN.invoke(app, ["gate", "--verbose", "check", "--reference", str(before), "--current", str(before)])
    assert any(r.exc_info for r in caplog.records)
