"""One update of the student: warm start, replay, distillation by Ray Train, export, and the parity of the export."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import msgspec
import numpy as np

from components.contracts.errors import ArtifactError, ConfigError
from components.contracts.spec import Spec, Variant, build
from components.contracts.storage import get_bytes, remove
from components.control.intent import ModelRef
from components.control.tables import WindowRow
from components.distill.artifact import Distilled, Trained, export, weights_uri
from components.distill.data import (
    Rows,
    Unit,
    arrays,
    declared_teacher,
    holdout_payloads,
    replayable,
    unit_of,
    update_rows,
)
from components.distill.grow import Arrays, classes_of, grow_head
from components.distill.loop import Work, read_checkpoint, train_loop
from components.student.card import StudentCard
from components.student.runtime import Student

log = logging.getLogger(__name__)

FAILURES = 2
"""How often Ray Train starts its workers anew, from the last checkpoint, before an update fails."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """A parent's card and weights, to start from."""

    card: StudentCard
    state: Arrays


def distill(
    spec: Spec, windows: Sequence[WindowRow], *, variant: Variant, parent: ModelRef | None, artifacts: str, seed: int
) -> Distilled:
    """Train a student on the newest of ``windows`` with replay from the older ones, starting from ``parent``.

    A warm start has the parent's shape, whatever ``variant`` says; a parent whose features or task are no longer the
    spec's is no start, and a fresh student of ``variant`` is trained. An update that was killed goes on from its last
    epoch when it is asked for again.

    1. Read the parent, and the rows: new ones and replay.
    2. Grow the head by the new classes (regression: take over the parent's unit).
    3. Train.
    4. Where the spec declares a pruned export: prune, and train what is left to answer as before.
    5. Export, calibrated on rows that were not learnt from; measure the parity of the exports, write it all.
    6. Forget the checkpoints.

    Raises:
        ConfigError: there is nothing to train on.
        ProvenanceError: a label was not made by the declared teacher.
        ArtifactError: a snapshot, the parent or its weights are missing or were changed.

    """
    if not windows:
        raise ConfigError("windows", [], "an update needs at least one snapshot")
    # Step 1
    start = _start(parent, spec) if parent else None
    learnt = update_rows(spec, windows, seed)
    rows = learnt.new + learnt.replay
    if not len(rows):
        raise ConfigError("windows", windows[-1].digest, "the snapshot has no training rows")
    # Step 2
    classes = classes_of(rows.soft, start.card.classes if start else ()) if spec.task == "classification" else ()
    card = _card(spec, windows, classes, variant, start, parent)
    state, unit = _grown(start, card, rows, seed)
    run = _run_name(spec, card, parent, seed)
    folder = f"{artifacts}/{spec.name}/training/{run}"
    work = Work(
        spec=spec,
        card=card,
        data=arrays(spec, rows, unit or classes),
        start=state,
        checkpoint=f"{folder}/checkpoint.pt",
        seed=seed,
    )
    # Step 3
    trained, history = fit(work, run, f"{folder}/ray")
    # Step 4
    smaller = _pruned(work, trained, run, folder) if spec.student.export.pruning else None
    for state in (trained, smaller):
        if unit and state is not None:
            state["unit"] = np.array([unit.mean, unit.scale])
    # Step 5
    holdout = holdout_payloads(spec, windows)
    counts = {
        "new_rows": float(len(learnt.new)),
        "replay_rows": float(len(learnt.replay)),
        "refused_rows": float(learnt.refused),
        "loss": history[-1],
    }
    networks = Trained(state=trained, pruned=smaller)
    distilled = export(spec, networks, card, holdout, learnt.calibration, artifacts, counts, history)
    # Step 6
    remove(folder)
    return distilled


def _start(parent: ModelRef, spec: Spec) -> Start | None:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    card = Student.load(get_bytes(parent.uri, parent.digest), source=spec.source).card
    if card.features != spec.features or card.task != spec.task:
        log.warning("%s: version %s has other features or another task: starting afresh", spec.name, parent.version)
        return None
    uri = weights_uri(parent.uri)
    if card.weights is None:
        raise ArtifactError(parent.uri, "names no trainable weights: it cannot be updated; train without a parent")
    try:
        return Start(card=card, state=load(get_bytes(uri, card.weights)))
    except SafetensorError as error:
        raise ArtifactError(uri, f"is not a file of weights: {error}") from error


def _card(
    spec: Spec,
    windows: Sequence[WindowRow],
    classes: tuple[str, ...],
    variant: Variant,
    start: Start | None,
    parent: ModelRef | None,
) -> StudentCard:
    if start:
        variant = Variant(name=start.card.variant, dim=start.card.dim, hidden=start.card.hidden)
    return StudentCard(
        workload=spec.name,
        task=spec.task,
        space=str(windows[-1].manifest["space"]),
        classes=classes,
        features=spec.features,
        payload=spec.payload,
        buckets=build(spec.features, spec.source).buckets,
        dim=variant.dim,
        hidden=variant.hidden,
        variant=variant.name,
        snapshots=tuple(w.digest for w in (windows[-1], *reversed(replayable(spec, windows)))),
        teacher=declared_teacher(spec, windows),
        parent=parent.version if start and parent else None,
        code=version("cohobate"),
    )


def _grown(start: Start | None, card: StudentCard, rows: Rows, seed: int) -> tuple[Arrays | None, Unit | None]:
    """The weights to start from, and the unit of a regression."""
    if start is None:
        return None, unit_of(rows) if card.task == "regression" else None
    if card.task == "classification":
        return grow_head(start.state, start.card.classes, card.classes, seed), None
    mean, scale = start.state["unit"].tolist()
    return {k: v for k, v in start.state.items() if k != "unit"}, Unit(mean=mean, scale=scale)


def _run_name(spec: Spec, card: StudentCard, parent: ModelRef | None, seed: int) -> str:
    """A name that equal updates share, and no others: what a checkpoint is found by."""
    parts = (spec.digest, msgspec.json.encode(card).decode(), parent.digest if parent else "", str(seed))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _pruned(work: Work, trained: Arrays, run: str, folder: str) -> dict[str, Any]:
    """The network without the units that the spec removes, trained to answer as it did with them."""
    from components.distill.prune import pruned

    pruning = work.spec.student.export.pruning
    if pruning is None:
        raise ConfigError("student.export.pruning", None, "must be given where a pruned export is")
    cut = pruned(trained, work.card, work.data, pruning.share)
    if not pruning.epochs:
        return dict(cut.state)
    student = msgspec.structs.replace(work.spec.student, epochs=pruning.epochs)
    lesson = replace(
        work,
        spec=msgspec.structs.replace(work.spec, student=student),
        card=cut.card,
        data=cut.lesson,
        start=cut.state,
        checkpoint=f"{folder}/pruned.pt",
    )
    return fit(lesson, f"{run}-pruned", f"{folder}/ray")[0]


def fit(work: Work, run: str, storage: str) -> tuple[dict[str, Any], tuple[float, ...]]:
    """Train by Ray Train; the weights and the mean loss of each epoch."""
    with _quiet_ray():
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        TorchTrainer(
            lambda config: train_loop(config["work"]),
            train_loop_config={"work": work},
            scaling_config=ScalingConfig(num_workers=work.spec.student.workers, use_gpu=False),
            run_config=RunConfig(name=run, storage_path=storage, failure_config=FailureConfig(max_failures=FAILURES)),
        ).fit()
    done = read_checkpoint(work.checkpoint)
    if done is None:
        raise ArtifactError(work.checkpoint, "was not written by the workers: the artifact root must be one they share")
    return {k: v.numpy() for k, v in done["model"].items()}, tuple(done["history"])


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
