"""One update of the student: warm start, replay, distillation by Ray Train, export, and the parity of the export."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, NamedTuple

import msgspec
from torch import nn

from components.contracts.errors import ArtifactError, ConfigError
from components.contracts.records import content_hash
from components.contracts.spec import Factory, Privacy, Spec, Variant
from components.contracts.spec.objective import Kl, Normal, Term
from components.contracts.spec.student import Stage
from components.contracts.storage import get_bytes, remove
from components.control.intent import ModelRef
from components.control.tables import WindowRow
from components.distill.account import Plan, Spent, account
from components.distill.admission import admitted
from components.distill.artifact import Distilled, Trained, export, weights_uri
from components.distill.data import (
    Rows,
    TrainingSet,
    Unit,
    arrays,
    declared_teacher,
    encoded,
    holdout_payloads,
    replayable,
    unit_of,
    update_rows,
)
from components.distill.export import body
from components.distill.grow import Arrays, classes_of, grow_head
from components.distill.loop import Work, device_of, fresh, read_checkpoint, train_loop, widen
from components.distill.networks.contract import check_growth, head_of, load, network, state_of
from components.distill.novelty import groups, unlearnt
from components.distill.search import search
from components.distill.signals import teacher_states
from components.distill.unlabelled import NONE, Unlabelled
from components.student.card import StudentCard
from components.student.features import featuriser, files_of
from components.student.runtime import Student

log = logging.getLogger(__name__)

FAILURES = 2
"""How often Ray Train starts its workers anew, from the last checkpoint, before an update fails."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """A parent to start from. ``state``: its weights, of a network of the same shape; None where that has changed."""

    student: Student
    state: Arrays | None

    @property
    def card(self) -> StudentCard:
        """The parent's card."""
        return self.student.card


def distill(
    spec: Spec,
    windows: Sequence[WindowRow],
    *,
    variant: Variant,
    parent: ModelRef | None,
    artifacts: str,
    seed: int,
    inputs: Callable[[], Unlabelled] = lambda: NONE,
    secret: int | None = None,
) -> Distilled:
    """Train a student on the newest of ``windows`` with replay from the older ones, starting from ``parent``.

    A warm start has the shape of the variant that the parent was made of, as the spec has it now; of ``variant`` where
    the spec has it no longer. Where that shape, or the features, are not the parent's, the new network first learns the
    parent's answers and then the teacher's. A parent of another task is no start. An update that was killed goes on
    from its last epoch when it is asked for again. ``inputs`` gives the unlabelled ones, and is asked where a stage
    wants them. ``secret``: seed of the noise of an update in private, for tests; else nobody knows it, and equal
    updates give other artifacts.

    1. Read the parent, and the rows: new ones and replay.
    2. Grow the head by the new classes (regression: take over the parent's unit).
    3. Grow and export the network that it begins with, so that one that cannot be is found out before it is trained; a
       warm start's was. In private: see that the account of the parent's lineage allows the update, and that the
       network can learn so.
    4. Train: the stages that come before the labels; a network of another shape by the parent's answers; the labels.
    5. Where the spec declares a pruned export: prune, and train what is left to answer as before.
    6. Export, calibrated on rows that were not learnt from; measure the parity of the exports, write it all.
    7. Forget the checkpoints.

    Raises:
        ConfigError: there is nothing to train on, or the network is none that can be trained and exported; in private
            too: the update would spend more than there is left, or the parent has no account.
        ProvenanceError: a label was not made by the declared teacher.
        ArtifactError: a snapshot, the parent or its weights are missing or were changed.

    """
    if not windows:
        raise ConfigError("windows", [], "an update needs at least one snapshot")
    # Step 1
    start = _start(parent, spec, variant) if parent else None
    learnt = update_rows(spec, windows, seed)
    rows = learnt.new + learnt.replay
    if not len(rows):
        raise ConfigError("windows", windows[-1].digest, "the snapshot has no training rows")
    # Step 2
    classes = classes_of(rows.soft, start.card.classes if start else ()) if spec.task == "classification" else ()
    chosen = _variant(spec, start.card, variant) if start else variant
    stages = [s for s in spec.student.stages if s.updates or start is None or start.state is None]
    traffic = inputs() if any(s.rows == "unlabelled" for s in stages) else NONE
    card = _card(spec, windows, classes, chosen, start, parent, traffic)
    objective = spec.student.objective_of(chosen, spec.task)
    net = network(card, spec.source)
    state, unit = _grown(start, card, head_of(net, card.outputs), rows, seed, spec.student.privacy)
    run = _run_name(spec, card, parent, seed)
    folder = f"{artifacts}/{spec.name}/training/{run}"
    work = Work(
        spec=spec,
        card=card,
        data=_with_states(spec, arrays(spec, rows, unit or classes), objective, rows.payloads, card, artifacts),
        objective=objective,
        epochs=spec.student.epochs,
        start=state,
        checkpoint=f"{folder}/checkpoint.pt",
        seed=seed,
        secret=secret,
    )
    # Step 3
    if state is None:
        check_growth(card, spec.source)
        body(fresh(work), card.inputs)
    taught = rows if start is not None and start.state is None else None
    imitated = [(imitation(spec), work.epochs)] if taught is not None else []
    lessons = [*((s.objective, s.epochs) for s in stages), *imitated, (objective, work.epochs)]
    private = admitted(work, lessons, start.card if start else None, parent.version if parent else None)
    work = replace(work, noise=private.noise if private else None)
    # Step 4
    work, losses, spent = _staged(work, stages, traffic, rows.payloads, artifacts, run, folder)
    if start is not None and taught is not None:
        likeness = _taught(work, start, taught, unit or classes, run, folder)
        work, spent = replace(work, start=state_of(likeness.net)), (*spent, *likeness.spent)
    chosen_by: dict[str, float] = {}
    if spec.student.search and not chosen.recipe:
        work, chosen_by = _searched(work, rows.payloads, artifacts, run, folder)
        card = work.card
    if spec.student.cohort is not None and start is None:
        work = replace(work, peers=tuple(v for v in spec.student.variants if v.name != chosen.name))
    done = fit(work, run, f"{folder}/ray")
    # Step 5
    smaller = _pruned(work, done.net, run, folder) if spec.student.export.pruning else None
    if spec.student.privacy is not None:
        before = start.card.privacy if start else None
        card = msgspec.structs.replace(card, privacy=account(spec.student.privacy, before, (*spent, *done.spent)))
    # Step 6
    holdout = holdout_payloads(spec, windows)
    counts = {
        "new_rows": float(len(learnt.new)),
        "replay_rows": float(len(learnt.replay)),
        "refused_rows": float(learnt.refused),
        "loss": done.history[-1],
        **{f"loss_{name}": part for name, part in done.parts.items()},
        "unlabelled_rows": float(len(traffic.payloads)),
        **losses,
        **chosen_by,
        **_told(card, private),
        **({"taught_rows": float(len(taught))} if taught is not None else {}),
    }
    novelty: dict[str, Any] = {}
    if spec.student.privacy is None:  # means of rows would tell of them
        novelty = {"learnt": work.data, "unlearnt": groups(unlearnt(spec, windows, learnt.calibration))}
    networks = Trained(net=done.net, unit=unit, pruned=smaller, **novelty)
    distilled = export(spec, networks, card, holdout, learnt.calibration, artifacts, counts, done.history)
    # Step 7
    remove(folder)
    return distilled


def _staged(
    work: Work,
    stages: Sequence[Stage],
    traffic: Unlabelled,
    labelled: Sequence[bytes],
    artifacts: str,
    run: str,
    folder: str,
) -> tuple[Work, dict[str, float], tuple[Spent, ...]]:
    """The work with the weights that its stages leave behind, the last loss of each, and what they spent."""
    spec, losses = work.spec, {}
    spent: tuple[Spent, ...] = ()
    for stage in stages:
        data, payloads = work.data, labelled
        if stage.rows == "unlabelled":
            if not traffic.payloads:
                log.warning("%s: there are no unlabelled inputs: the stage %s is left out", spec.name, stage.name)
                continue
            payloads = traffic.payloads
            data = TrainingSet(features=encoded(spec, payloads), soft=None, truth=None)
        lesson = replace(
            work,
            data=_with_states(spec, data, stage.objective, payloads, work.card, artifacts, stage.encoder),
            objective=stage.objective,
            epochs=stage.epochs,
            checkpoint=f"{folder}/stage-{stage.name}.pt",
        )
        done = fit(lesson, f"{run}-{stage.name}", f"{folder}/ray")
        work, losses[f"{stage.name}_loss"] = replace(work, start=state_of(done.net)), done.history[-1]
        spent += done.spent
    return work, losses, spent


def _told(card: StudentCard, private: Plan | None) -> dict[str, float]:
    """What the registry's run has of the account."""
    if private is None or card.privacy is None:
        return {}
    return {
        "privacy_epsilon": card.privacy.epsilon,
        "privacy_delta": card.privacy.delta,
        "privacy_noise": private.noise,
        "privacy_sample_rate": private.rate,
        "privacy_steps": float(private.steps),
        "privacy_lineage_steps": float(sum(steps for _, _, steps in card.privacy.history)),
    }


def _searched(
    work: Work, payloads: Sequence[bytes], artifacts: str, run: str, folder: str
) -> tuple[Work, dict[str, float]]:
    """The work with the recipe that learns best, and what was seen of it."""
    spec = work.spec
    recipes = {name: spec.student.recipes[name] for name in spec.student.search}
    every = [term for terms in recipes.values() for term in terms]
    data = _with_states(spec, work.data, every, payloads, work.card, artifacts)

    def train(arm: Work, name: str) -> nn.Module:
        return fit(replace(arm, checkpoint=f"{folder}/{name}.pt"), f"{run}-{name}", f"{folder}/ray").net

    found = search(replace(work, data=data), recipes, [content_hash(p) for p in payloads], train)
    log.info("%s: the recipe %s, of %s on %d rows", spec.name, found.recipe, found.scores, found.rows)
    seen = {"search_rows": float(found.rows), **{f"search_{n}": s for n, s in found.scores.items()}}
    if found.margin is not None:
        seen["search_margin"] = found.margin
    card = msgspec.structs.replace(work.card, recipe=found.recipe)
    return replace(work, data=data, card=card, objective=tuple(recipes[found.recipe])), seen


def _with_states(
    spec: Spec,
    data: TrainingSet,
    objective: Sequence[Term],
    payloads: Sequence[bytes],
    card: StudentCard,
    artifacts: str,
    encoder: Factory | None = None,
) -> TrainingSet:
    """The rows with what the terms read of the teacher's inside."""
    names = sorted({name for term in objective for name in term.teacher_states})
    if not names:
        return data
    found = teacher_states(spec, payloads, names, card.teacher, artifacts, encoder)
    return replace(data, states=found.arrays, mask=found.mask)


def _start(parent: ModelRef, spec: Spec, variant: Variant) -> Start | None:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    student = Student.load(get_bytes(parent.uri, parent.digest), source=spec.source)
    card = student.card
    if card.task != spec.task:
        log.warning("%s: version %s has another task: starting afresh", spec.name, parent.version)
        return None
    wanted = spec.student.network_of(_variant(spec, card, variant))
    files = files_of(featuriser(spec.features, spec.source))
    if (wanted, spec.features, files) != (card.network, card.features, files_of(student.featuriser)):
        log.info("%s: a network of another shape first learns what version %s answers", spec.name, parent.version)
        return Start(student=student, state=None)
    uri = weights_uri(parent.uri)
    if card.weights is None:
        raise ArtifactError(parent.uri, "names no trainable weights: it cannot be updated; train without a parent")
    try:
        return Start(student=student, state=load(get_bytes(uri, card.weights)))
    except SafetensorError as error:
        raise ArtifactError(uri, f"is not a file of weights: {error}") from error


def _variant(spec: Spec, card: StudentCard, otherwise: Variant) -> Variant:
    """The variant that a student was made of, as the spec has it now."""
    return next((v for v in spec.student.variants if v.name == card.variant), otherwise)


def _card(
    spec: Spec,
    windows: Sequence[WindowRow],
    classes: tuple[str, ...],
    variant: Variant,
    start: Start | None,
    parent: ModelRef | None,
    traffic: Unlabelled,
) -> StudentCard:
    return StudentCard(
        workload=spec.name,
        task=spec.task,
        space=str(windows[-1].manifest["space"]),
        classes=classes,
        features=spec.features,
        payload=spec.payload,
        inputs=dict(featuriser(spec.features, spec.source).signature),
        network=spec.student.network_of(variant),
        variant=variant.name,
        snapshots=tuple(w.digest for w in (windows[-1], *reversed(replayable(spec, windows)))),
        teacher=declared_teacher(spec, windows),
        parent=parent.version if start and parent else None,
        code=version("cohobate"),
        recipe=variant.recipe,
        unlabelled=traffic.digest,
    )


def _grown(
    start: Start | None, card: StudentCard, head: str, rows: Rows, seed: int, privacy: Privacy | None
) -> tuple[Arrays | None, Unit | None]:
    """The weights to start from, and the unit of a regression."""
    if start is None or start.state is None:
        return None, _unit(rows, privacy) if card.task == "regression" else None
    if card.task == "classification":
        return grow_head(start.state, head, start.card.classes, card.classes, seed), None
    mean, scale = start.state["unit"].tolist()
    return {k: v for k, v in start.state.items() if k != "unit"}, Unit(mean=mean, scale=scale)


def _unit(rows: Rows, privacy: Privacy | None) -> Unit:
    """The unit of a fresh regression; in private it is declared, since that of the rows would tell of them."""
    if privacy is None:
        return unit_of(rows)
    if privacy.centre is None or privacy.spread is None:
        raise ConfigError("student.privacy.centre", privacy.centre, "and spread go with a regression")
    return Unit(mean=privacy.centre, scale=privacy.spread)


def _taught(work: Work, start: Start, rows: Rows, head: Sequence[str] | Unit, run: str, folder: str) -> Fitted:
    """A fresh network that has learnt what the parent answers to the rows, whatever the truth is."""
    answers = start.student.predict(rows.payloads)
    lesson = replace(
        work,
        data=arrays(work.spec, replace(rows, soft=answers, truth=[None] * len(rows)), head),
        objective=imitation(work.spec),
        checkpoint=f"{folder}/parent.pt",
    )
    return fit(lesson, f"{run}-parent", f"{folder}/ray")


def _run_name(spec: Spec, card: StudentCard, parent: ModelRef | None, seed: int) -> str:
    """A name that equal updates share, and no others: what a checkpoint is found by."""
    parts = (spec.digest, msgspec.json.encode(card).decode(), parent.digest if parent else "", str(seed))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def imitation(spec: Spec) -> tuple[Term, ...]:
    """What a network minimises that is to answer as another student does."""
    return (Kl(temperature=spec.student.temperature),) if spec.task == "classification" else (Normal(),)


def _pruned(work: Work, trained: nn.Module, run: str, folder: str) -> nn.Module:
    """The network without the units that the spec removes, trained to answer as it did with them."""
    from components.distill.prune import pruned

    pruning = work.spec.student.export.pruning
    if pruning is None:
        raise ConfigError("student.export.pruning", None, "must be given where a pruned export is")
    cut = pruned(trained, work.card, work.data, pruning.share)
    if not pruning.epochs:
        return cut.net
    lesson = replace(
        work,
        data=cut.lesson,
        objective=imitation(work.spec),
        epochs=pruning.epochs,
        start=None,
        peers=(),
        shape=pickle.dumps(cut.net),
        checkpoint=f"{folder}/pruned.pt",
    )
    return fit(lesson, f"{run}-pruned", f"{folder}/ray").net


class Fitted(NamedTuple):
    """A trained network, the mean loss of each epoch, what each term had of the last one, and what was spent."""

    net: nn.Module
    history: tuple[float, ...]
    parts: dict[str, float]
    spent: tuple[Spent, ...] = ()


def fit(work: Work, run: str, storage: str) -> Fitted:
    """Train by Ray Train.

    Raises:
        ConfigError: the spec wants a device that is not there.
        ArtifactError: the workers share no artifact root.

    """
    with _quiet_ray():
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        workers, cuda = work.spec.student.workers, device_of(work.spec) == "cuda"
        TorchTrainer(
            lambda config: train_loop(config["work"]),
            train_loop_config={"work": work},
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=cuda and workers > 0),
            run_config=RunConfig(name=run, storage_path=storage, failure_config=FailureConfig(max_failures=FAILURES)),
        ).fit()
    done = read_checkpoint(work.checkpoint)
    if done is None:
        raise ArtifactError(work.checkpoint, "was not written by the workers: the artifact root must be one they share")
    net = fresh(work)
    state = {k: v.numpy() for k, v in done["model"].items()}
    whole = load(net, widen(net, state, work.data) if work.narrows else state).eval()
    spent = [] if work.noise is None else done["generator"]["spent"]
    return Fitted(
        net=whole, history=tuple(done["history"]), parts=dict(done["parts"]), spent=tuple(tuple(s) for s in spent)
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
