"""Training by Ray Train: one work after the other, and the network that comes of each."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import nn

from components.contracts.errors import ArtifactError
from components.contracts.settings import Settings
from components.contracts.storage import remove
from components.distill.account import Spent
from components.distill.checkpoint import read_checkpoint
from components.distill.cluster import elsewhere, joined
from components.distill.columns import saved
from components.distill.data import NO_ROWS
from components.distill.job import by_job, train_by_job
from components.distill.narrow import widen
from components.distill.networks.contract import load
from components.distill.training import Training, train
from components.distill.work import Work, device_of, fresh


@dataclass(frozen=True, kw_only=True)
class Run:
    """The trainings of one update.

    ``name``: equal updates share it, and no others; ``folder``: URI of what they leave to go on from, until the update
    is done; ``artifacts``: the artifact root.
    """

    name: str
    folder: str
    artifacts: str

    def fit(self, work: Work, part: str = "") -> Fitted:
        """Train one work; ``part`` tells it from the others of the update."""
        checkpoint = f"{self.folder}/{part or 'checkpoint'}.pt"
        name = f"{self.name}-{part}" if part else self.name
        return fit(replace(work, checkpoint=checkpoint), name, f"{self.folder}/ray")


class Fitted(NamedTuple):
    """A trained network, the mean loss of each epoch, what each term had of it, and what was spent.

    Of several workers the loss is that of the first one's share of the rows.
    """

    net: nn.Module
    history: tuple[float, ...]
    terms: tuple[dict[str, float], ...]
    spent: tuple[Spent, ...] = ()


def fit(work: Work, run: str, storage: str) -> Fitted:
    """Train by Ray Train; workers on the cluster that the settings name, where they name one by its client server.

    Where they name the Jobs API of its head, a job of that cluster trains.

    Raises:
        ConfigError: the spec wants a device that is not there.
        ArtifactError: the workers share no artifact root.
        UnavailableError: the cluster does not answer.
        AccessError: it asks for a token, and ours is missing or another.
        RefusedError: the job failed.

    """
    workers, settings = work.spec.student.workers, Settings()
    there = elsewhere(workers, settings)
    # what devices a cluster has it knows alone: the spec says what is asked of it
    cuda = (work.spec.student.device if there else device_of(work.spec)) == "cuda"
    rows = f"{work.checkpoint}.rows" if workers else ""
    # what workers are given is sent to each of them: the rows are not
    given = replace(work, data=NO_ROWS) if workers else work
    training = Training(work=given, rows=rows, cuda=cuda, run=run, storage=storage)
    with _quiet_ray():
        if there and by_job(settings):
            train_by_job(training, settings, lambda: saved(rows, work.data.arrays))
        else:
            with joined(settings) if there else contextlib.nullcontext():
                if workers:
                    saved(rows, work.data.arrays)
                train(training)
    if rows:
        remove(rows)
    done = read_checkpoint(work.checkpoint)
    if done is None:
        raise ArtifactError(work.checkpoint, "was not written by the workers: the artifact root must be one they share")
    net = fresh(work)
    state = {k: v.numpy() for k, v in done["model"].items()}
    whole = load(net, widen(net, state, work.data) if work.narrows else state).eval()
    spent = [] if work.noise is None else done["private"]["spent"]
    return Fitted(
        net=whole,
        history=tuple(done["progress"]["history"]),
        terms=tuple(done["progress"]["terms"]),
        spent=tuple(tuple(s) for s in spent),
    )


@contextlib.contextmanager
def _quiet_ray() -> Iterator[None]:
    """Ray Train logs every epoch's metrics and reports its usage; the curves are in the registry."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    logger = logging.getLogger("ray.train")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
