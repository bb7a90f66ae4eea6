"""Snapshots: windows of labelled inputs frozen to Parquet by content hash, and their features in Feast."""

from components.snapshot.features import FeatureRepo
from components.snapshot.table import snapshot_schema, soft_of, split_of
from components.snapshot.truth import known_truths, with_truth
from components.snapshot.window import feature_repo, freeze, read

__all__ = [
    "FeatureRepo",
    "feature_repo",
    "freeze",
    "known_truths",
    "read",
    "snapshot_schema",
    "soft_of",
    "split_of",
    "with_truth",
]
