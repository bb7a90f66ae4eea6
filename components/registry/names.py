"""What a workload is called in MLflow."""


def model_name(workload: str) -> str:
    """Name of a workload's registered model and experiment in MLflow."""
    return f"cohobate-{workload}"
