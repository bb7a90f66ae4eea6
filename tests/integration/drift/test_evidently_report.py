import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from drift.evidently_page import document_of, light
from drift.evidently_report import MOST_CATEGORIES, write
from drift.monitor import Reference

pytestmark = pytest.mark.integration


def frame(seed: int, n: int, shift: float = 0.0) -> pd.DataFrame:
    chance = np.random.default_rng(seed)
    numeric = {f"n{i}": chance.normal(shift if i == 0 else 0.0, 1.0, n) for i in range(7)}
    return pd.DataFrame(numeric | {f"c{i}": chance.choice(list("abcdef"), n) for i in range(3)})


def test_both_files_are_written_with_our_verdict_beside_evidently(tmp_path: Path) -> None:
    before, now = frame(0, 300), frame(1, 150, shift=1.0)
    columns = {name: before[name].tolist() for name in before}
    reference = Reference.fit(columns, window=150, alpha=0.01, min_effect=0.1, resamples=400, seed=0)
    verdict = reference.assess({name: now[name].tolist() for name in now})
    report = write(before, now, tmp_path / "deep" / "er", "window-3", verdict)
    assert report.html == tmp_path / "deep" / "er" / "window-3.html"
    assert "<html" in report.html.read_text(encoding="utf-8")
    content = json.loads(report.json.read_text(encoding="utf-8"))
    assert content["verdict"]["drifted"] == ["n0"]
    said = {m["config"].get("column"): m["value"] for m in content["evidently"]["metrics"]}
    assert said["n0"] < 1e-6 < said["n1"]
    assert 0.1 <= report.drifted_share < 1.0
    assert report.left_out == ()


def test_a_page_of_thirty_columns_is_light_and_is_evidently_s_own_with_what_a_chart_can_show(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)

    def wide(shift: float) -> pd.DataFrame:
        numeric = {f"n{i}": chance.normal(shift, 1.0, 500) for i in range(15)}
        return pd.DataFrame(
            numeric | {f"c{i}": chance.choice([f"kind {k}" for k in range(40)], 500) for i in range(15)}
        )

    report = write(wide(0.0), wide(0.5), tmp_path, "wide", None)
    page = report.html.read_text(encoding="utf-8")
    assert report.html.stat().st_size < 1_500_000
    document = document_of(page)
    assert all(f'"{name}"' in document for name in ("n0", "n14", "c0", "c14", "kind 39"))
    assert "Plotly" in document and len(document) > 3_000_000
    with pytest.raises(ValueError, match="no packed report"):
        document_of(document)


@pytest.mark.parametrize("length", range(8))
def test_a_document_of_any_length_is_unpacked_as_it_was(length: int) -> None:
    document = "<p>&\u00e9\U0001f600 0.25, 12345.6789012 </p>"[: 5 * length]
    assert document_of(light(document, "t")) == document.replace("12345.6789012", "12345.7")


def test_a_report_of_ten_columns_takes_less_than_three_seconds(tmp_path: Path) -> None:
    write(frame(0, 50), frame(1, 50), tmp_path, "first", None)
    calls = 0

    def count(_frame: object, event: str, _arg: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        write(frame(0, 300), frame(1, 150), tmp_path, "second", None)
    finally:
        sys.setprofile(None)
    print(f"{calls} calls")
    assert 0 < calls < 3_000_000, "a million calls are about a second's work"


def test_columns_that_evidently_cannot_take_are_left_out_or_made_fit(tmp_path: Path) -> None:
    before, now = frame(0, 60)[["n0"]], frame(1, 60)[["n0"]]
    before = before.assign(
        gone=1.5, never=None, names=[f"a{i}" for i in range(60)], holes=["a", None] * 30, mixed=[1.0, "x"] * 30
    )
    now = now.assign(gone=np.nan, never=None, names=[f"b{i}" for i in range(60)], holes=["a"] * 60, mixed=2.0)
    report = write(before, now, tmp_path, "odd", None)
    assert report.left_out == ("gone", "never")
    content = json.loads(report.json.read_text(encoding="utf-8"))
    assert (content["verdict"], content["left_out"]) == (None, ["gone", "never"])
    assert "(other)" in document_of(report.html.read_text(encoding="utf-8"))
    assert MOST_CATEGORIES < 60


def test_frames_without_rows_or_columns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not 60 and 0"):
        write(frame(0, 60), frame(0, 0), tmp_path, "empty", None)
    with pytest.raises(ValueError, match=r"\['x'\] are left out"):
        write(pd.DataFrame({"x": [None, None]}), pd.DataFrame({"x": [1.0]}), tmp_path, "bare", None)
    with pytest.raises(KeyError, match="n1"):
        write(frame(0, 60), frame(0, 60)[["n0"]], tmp_path, "lacking", None)
    assert list(tmp_path.iterdir()) == []
