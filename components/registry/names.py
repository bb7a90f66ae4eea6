"""What a workload and its versions' lineage are called in MLflow."""

TAGS = ("uri", "digest", "snapshots", "teacher", "parent", "code", "variant", "verdict", "metrics")
"""The tags that every version of ours has; one that lacks any was made by hand, or by another program."""


def model_name(workload: str) -> str:
    """Name of a workload's registered model and experiment in MLflow."""
    return f"cohobate-{workload}"
