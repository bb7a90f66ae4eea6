"""Evidently's drift report over the same columns that the monitor judges: the one module that touches Evidently.

Evidently reports, our calibrated verdict decides; the verdict is written beside Evidently's numbers in the JSON file.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drift.monitor import DriftVerdict

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Report:
    """The two files, and the share of columns that Evidently's own default tests call drifted."""

    html: Path
    json: Path
    drifted_share: float


def write(
    reference: pd.DataFrame, current: pd.DataFrame, directory: Path, name: str, verdict: DriftVerdict | None
) -> Report:
    """Write ``<name>.html`` and ``<name>.json`` into ``directory``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Evidently's and its plotting library's deprecations are not ours to mend
        from evidently import Report as EvidentlyReport
        from evidently.presets import DataDriftPreset

        snapshot = EvidentlyReport([DataDriftPreset()]).run(current_data=current, reference_data=reference)
        directory.mkdir(parents=True, exist_ok=True)
        html, data = directory / f"{name}.html", directory / f"{name}.json"
        snapshot.save_html(str(html))
        evidently: dict[str, Any] = json.loads(snapshot.json())
    content = {"verdict": verdict.as_dict() if verdict else None, "evidently": evidently}
    data.write_text(json.dumps(content, indent=1))
    return Report(html=html, json=data, drifted_share=_drifted_share(evidently))


def _drifted_share(evidently: dict[str, Any]) -> float:
    for metric in evidently["metrics"]:
        value = metric.get("value")
        if isinstance(value, dict) and "share" in value:
            return float(value["share"])
    raise ValueError("Evidently's report has no share of drifted columns: was its format changed?")
