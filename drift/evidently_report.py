"""Evidently's drift report over the columns that the monitor judges.

Evidently shows, our calibrated verdict decides: Evidently's default thresholds alarm on most unchanged windows of a few
hundred rows. The verdict stands before Evidently's numbers in both files. The first report of a process takes
3 to 5 s longer, for importing Evidently.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drift.evidently_page import light
from drift.evidently_workspace import keep
from drift.monitor import DriftVerdict

if TYPE_CHECKING:
    import pandas as pd

MOST_CATEGORIES = 40
"""Categories of a column that are shown by name; Evidently takes 9 s for one of 450, and nobody reads as many."""

MISSING, OTHER = "(missing)", "(other)"


@dataclass(frozen=True, kw_only=True)
class Report:
    """The two files, and how they came out.

    ``drifted_share``: share of columns, in [0, 1], that Evidently's own default tests call drifted; ``left_out``:
    columns that it cannot take since a side has no value at all.
    """

    html: Path
    json: Path
    drifted_share: float
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """The folder of an Evidently workspace, the project in it, and what is said ``about`` the report there."""

    workspace: str
    project: str
    about: Mapping[str, str] = field(default_factory=dict)


DECIMALS = 9
"""Decimals that are kept: Evidently cannot draw a histogram of values that differ in their last bits only."""


def write(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    directory: Path,
    name: str,
    verdict: DriftVerdict | None,
    extra: Sequence[str] = (),
    shelf: Shelf | None = None,
) -> Report:
    """Write ``<name>.html`` (one file, see :mod:`drift.evidently_page`) and ``<name>.json`` into ``directory``.

    The directory is made. Our verdict comes first, as Evidently's metrics and tests (:mod:`drift.evidently_metrics`);
    ``extra`` names presets and metrics of Evidently's to be shown behind its drift preset; ``shelf`` is where the
    report is kept for Evidently's UI. The JSON has ``verdict`` (ours, or null), ``left_out`` and ``evidently``. Columns
    are those of ``reference``, of numbers or text as in :class:`drift.monitor.Reference`; categories beyond the
    :data:`MOST_CATEGORIES` most frequent are counted together.

    Raises:
        ValueError: a frame has no rows, no column is left to report, or Evidently has no such preset or metric.
        KeyError: ``current`` lacks a column of ``reference``.

    """
    if not len(reference) or not len(current):
        raise ValueError(f"a report needs rows on both sides, not {len(reference)} and {len(current)}")
    before, now, numeric, left_out = _prepared(reference, current)
    if not len(before.columns):
        raise ValueError(f"no column has values on both sides: {list(left_out)} are left out")
    directory.mkdir(parents=True, exist_ok=True)
    html, data = directory / f"{name}.html", directory / f"{name}.json"
    snapshot = _run(before, now, numeric, verdict, extra, shelf)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        html.write_text(light(snapshot.get_html_str(as_iframe=False), f"{name}: Evidently's report"), encoding="utf-8")
        evidently = json.loads(snapshot.json(), parse_constant=lambda _: None)  # null for NaN
    if shelf is not None:
        keep(snapshot, shelf.workspace, shelf.project)
    content = {"verdict": verdict.as_dict() if verdict else None, "left_out": left_out, "evidently": evidently}
    data.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
    return Report(html=html, json=data, drifted_share=_drifted_share(evidently), left_out=left_out)


def _run(
    before: pd.DataFrame,
    now: pd.DataFrame,
    numeric: list[str],
    verdict: DriftVerdict | None,
    extra: Sequence[str],
    shelf: Shelf | None,
) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations and 0/0 of Evidently and its plotting are not ours to mend
        from evidently import DataDefinition, Dataset
        from evidently import Report as EvidentlyReport
        from evidently.presets import DataDriftPreset

        from drift.evidently_metrics import metrics, named

        definition = DataDefinition(
            numerical_columns=numeric, categorical_columns=[c for c in before.columns if c not in numeric]
        )
        sides = [Dataset.from_pandas(frame, data_definition=definition) for frame in (now, before)]
        shown = [*(metrics(verdict) if verdict else ()), DataDriftPreset(), *(named(e) for e in extra)]
        about = dict(shelf.about) if shelf is not None else {}
        return EvidentlyReport(shown).run(current_data=sides[0], reference_data=sides[1], metadata=about)


def _prepared(
    reference: pd.DataFrame, current: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame, list[str], tuple[str, ...]]:
    """Both frames as Evidently can take them, the names of the numeric columns, and those left out."""
    import pandas as pd

    before, now, numeric, left_out = {}, {}, [], []
    for name in reference.columns:
        pooled = pd.concat([reference[name].astype(object), current[name].astype(object)], ignore_index=True)
        if any(isinstance(v, str) for v in pooled):
            pooled = _categories(pooled)
        else:
            pooled = pooled.astype("float64").round(DECIMALS)
            numeric.append(str(name))
        old, new = pooled[: len(reference)], pooled[len(reference) :].reset_index(drop=True)
        if old.isna().all() or new.isna().all():
            left_out.append(str(name))
        else:
            before[str(name)], now[str(name)] = old, new
    numeric = [n for n in numeric if n in before]
    return pd.DataFrame(before), pd.DataFrame(now), numeric, tuple(left_out)


def _categories(values: pd.Series[Any]) -> pd.Series[Any]:
    text = values.map(lambda v: MISSING if v is None or v != v else str(v))
    shown = set(text.value_counts().index[:MOST_CATEGORIES])
    return text.map(lambda v: v if v in shown else OTHER)


def _drifted_share(evidently: dict[str, Any]) -> float:
    for metric in evidently["metrics"]:
        value = metric.get("value")
        if isinstance(value, dict) and "share" in value:
            return float(value["share"])
    raise ValueError("Evidently's report has no share of drifted columns: was its format changed?")
