"""What Ray Train is asked for, by whoever is a part of the cluster: this process, its client, or a job."""

from __future__ import annotations

from dataclasses import dataclass

from components.distill.loop import train_loop
from components.distill.work import Work

FAILURES = 2
"""How often Ray Train starts its workers anew, from the last checkpoint, before an update fails."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """What Ray Train is asked for. ``rows``: URI of the rows, where ``work`` has none; ``cuda``: a GPU for each worker.

    ``run`` names it, and below the URI ``storage`` Ray Train keeps its own state.
    """

    work: Work
    rows: str
    cuda: bool
    run: str
    storage: str


def train(training: Training) -> None:
    """Train by Ray Train, on the cluster that this process is a part of, or one that starts here."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from components.distill.process_group import Reachable

    work, rows, storage = training.work, training.rows, training.storage
    workers = work.spec.student.workers
    failure = FailureConfig(max_failures=FAILURES)
    TorchTrainer(
        lambda: train_loop(work, rows),
        torch_config=Reachable() if workers else None,
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=training.cuda and workers > 0),
        run_config=RunConfig(name=training.run, storage_path=storage, failure_config=failure),
    ).fit()
