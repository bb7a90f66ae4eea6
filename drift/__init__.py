"""Pure statistics of change: detectors, calibrated thresholds, entropy, anytime-valid tests, quality, and the gate.

What is exported here needs numpy alone; :mod:`drift.evidently_report` imports Evidently when a report is written.
"""

from drift.betting import EProcess
from drift.change_point import Change, ChangeDetector
from drift.confidence_sequence import anytime_bound
from drift.deferral import DeferralLimit, deferral_limit
from drift.entropy import Summary, shannon, summarise
from drift.gate import Criterion, Finding, Verdict, assess
from drift.label_free import Foretold, Scores, foretell
from drift.measured import ErrorLevel, ErrorRise, Measured, Share
from drift.monitor import ColumnFinding, DriftVerdict, Reference
from drift.paired import PairedLoss
from drift.quality import (
    Proportion,
    accuracy,
    agreement,
    expected_calibration_error,
    mae,
    per_slice,
    proportion,
    rmse,
    weighted_proportion,
)
from drift.reweight import Estimate, hajek, horvitz_thompson, stratum_weights

__all__ = [
    "Change",
    "ChangeDetector",
    "ColumnFinding",
    "Criterion",
    "DeferralLimit",
    "DriftVerdict",
    "EProcess",
    "ErrorLevel",
    "ErrorRise",
    "Estimate",
    "Finding",
    "Foretold",
    "Measured",
    "PairedLoss",
    "Proportion",
    "Reference",
    "Scores",
    "Share",
    "Summary",
    "Verdict",
    "accuracy",
    "agreement",
    "anytime_bound",
    "assess",
    "deferral_limit",
    "expected_calibration_error",
    "foretell",
    "hajek",
    "horvitz_thompson",
    "mae",
    "per_slice",
    "proportion",
    "rmse",
    "shannon",
    "stratum_weights",
    "summarise",
    "weighted_proportion",
]
