"""One update of the student: warm start, replay, distillation by Ray Train, export, and the parity of the export."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import msgspec
import numpy as np

from components.contracts.errors import ConfigError
from components.contracts.records import NAMED
from components.contracts.spec import Spec, Variant
from components.contracts.spec.declared import attributions
from components.contracts.storage import remove
from components.control.intent import ModelRef
from components.control.tables import WindowRow
from components.distill.account import Plan, account
from components.distill.admission import admitted
from components.distill.artifact import Distilled, Trained, export
from components.distill.data import arrays, declared_teacher, holdout_payloads, replayable, update_rows
from components.distill.export import body
from components.distill.fit import Run
from components.distill.grow import classes_of
from components.distill.networks.contract import check_growth, head_of, load, state_of
from components.distill.novelty import groups, unlearnt
from components.distill.prune import check_pruning
from components.distill.stages import (
    beside,
    crossfitted,
    imitation,
    pretraining,
    searched,
    smaller,
    staged,
    taught,
    traffic_for,
    with_states,
)
from components.distill.start import Start, grown, read_start, variant_of, wanted_of
from components.distill.tagging import tags_seen
from components.distill.unlabelled import NONE, Unlabelled
from components.distill.work import Work, seeded
from components.student.card import Begun, StudentCard
from components.student.features import featuriser


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
    begun: Begun | None = None,
) -> Distilled:
    """Train a student on the newest of ``windows`` with replay from the older ones, starting from ``parent``.

    A warm start has the shape of the variant that the parent was made of, as the spec has it now; of ``variant`` where
    the spec has it no longer. Where that shape, or the features, are not the parent's, the new network first learns the
    parent's answers and then the teacher's. A parent of another task is no start. An update that was killed goes on
    from its last checkpoint when it is asked for again. ``inputs`` gives the unlabelled ones, and is asked where a
    stage wants them. ``secret``: seed of the noise of an update in private, for tests; else nobody knows it, and equal
    updates give other artifacts. ``begun``: what the card says of a parent that is no version here.

    1. Read the parent, and the rows: new ones and replay.
    2. Grow the head by the new classes (regression: take over the parent's unit).
    3. Grow and export the network that it begins with, so that one that cannot be is found out before it is trained; a
       warm start's was. In private: see that the account of the parent's lineage allows the update, and that the
       network can learn so.
    4. Train: the stages that come before the labels; a network of another shape by the parent's answers; the labels.
    5. Where the spec declares a pruned export: prune, and train what is left to answer as before.
    6. Export, calibrated on rows that were not learnt from, or by a second network that has not learnt from them;
       measure the parity of the exports, write it all.
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
    dimension = int(windows[-1].manifest.get("dimension", 0))
    start = read_start(parent, spec, variant, dimension) if parent else None
    learnt = update_rows(spec, windows, seed, fresh=start is None)
    rows = learnt.new + learnt.replay
    if not len(rows):
        raise ConfigError("windows", windows[-1].digest, "the snapshot has no training rows")
    # Step 2
    named = tags_seen if spec.task == "tagging" else classes_of
    classes = named(rows.soft, start.card.classes if start else ()) if spec.task in NAMED else ()
    if spec.task in NAMED and not classes:
        raise ConfigError("windows", windows[-1].digest, "no label has a class in it: there is nothing to tell apart")
    chosen = variant_of(spec, start.card, variant) if start else variant
    warm = start is not None and start.state is not None
    stages = [s for s in spec.student.stages if s.updates or not warm]
    if not warm and not learnt.synthetic:  # whose inputs are made up may keep none of its traffic
        stages += pretraining(spec, chosen)
    traffic = traffic_for(stages, spec, inputs)
    card = _card(spec, windows, classes, chosen, start, parent, traffic, begun)
    card = msgspec.structs.replace(card, labels=learnt.labels, learnt=learnt.learnt, synthetic=learnt.synthetic)
    net = seeded(card, spec.source, seed, begin=not warm)
    state, unit = grown(start, card, head_of(net, card.outputs), rows, seed, spec.student.privacy)
    epochs = spec.student.epochs_of(len(rows))
    run = first = _run(spec, card, parent, seed, epochs, artifacts)
    work = Work(
        spec=spec,
        card=card,
        data=arrays(spec, rows, unit or classes),
        objective=spec.student.objective_of(chosen, spec.task),
        field=spec.student.field_of(chosen),
        epochs=epochs,
        start=state,
        seed=seed,
        secret=secret,
    )
    work = with_states(work, rows.payloads, artifacts)
    # Step 3
    if state is None:
        check_growth(net, card, spec.source)
        body(net, card.inputs)
    else:
        load(net, state)
    if spec.student.export.pruning:
        check_pruning(net)
    reshaped = start is not None and not warm
    imitated = [(imitation(spec), work.epochs)] if reshaped else []
    lessons = [*((s.objective, s.epochs) for s in stages), *imitated, (work.objective, work.epochs)]
    private = admitted(work, net, lessons, start.card if start else None, parent.version if parent else None)
    work = replace(work, noise=private.noise if private else None)
    # Step 4
    kept = np.ones(len(rows), dtype=bool)
    kept[list(learnt.aside)] = False  # what calibrates is new to what comes before the labels
    early = rows.take(np.flatnonzero(kept).tolist())
    beginning = replace(work, data=work.data.take(kept)) if stages else work
    readied, losses, spent = staged(beginning, stages, traffic, early.payloads, run)
    if traffic.digest and not losses:  # what it was to learn from traffic it could not: another run's checkpoint may
        traffic, card = NONE, msgspec.structs.replace(card, unlabelled="")
        run = _run(spec, card, parent, seed, epochs, artifacts)
    work = replace(work, start=readied.start, card=card)
    if start is not None and reshaped:
        likeness = taught(work, start, early, unit or classes, run)
        work, spent = replace(work, start=state_of(likeness.net)), (*spent, *likeness.spent)
    chosen_by: dict[str, float] = {}
    if spec.student.search and not chosen.recipe:
        work, chosen_by = searched(work, rows.payloads, run)
        card = work.card
    if spec.student.cohort is not None and start is None:
        work = beside(work, tuple(v for v in spec.student.variants if v.name != chosen.name), rows.payloads, artifacts)
    done = run.fit(work)
    # Step 5
    cut = smaller(work, done.net, run) if spec.student.export.pruning else None
    if spec.student.privacy is not None:
        before = start.card.privacy if start else None
        card = msgspec.structs.replace(card, privacy=account(spec.student.privacy, before, (*spent, *done.spent)))
    # Step 6
    counts = {
        "new_rows": float(len(learnt.new)),
        "replay_rows": float(len(learnt.replay)),
        "refused_rows": float(learnt.refused),
        **({"synthetic_rows": float(len(rows) - rows.synthetic.count(""))} if learnt.synthetic else {}),
        "released_rows": float(learnt.released),
        "learnt_share": learnt.learnt / max(learnt.labels, 1),
        "training_loss": done.history[-1],
        **{f"loss_{name}": part for name, part in done.terms[-1].items()},
        "unlabelled_rows": float(len(traffic.payloads)),
        **losses,
        **chosen_by,
        **_told(card, private),
        **({"taught_rows": float(len(rows))} if reshaped else {}),
    }
    novelty: dict[str, Any] = {}
    if spec.student.privacy is None:  # means of rows would tell of them
        novelty = {"learnt": work.data, "unlearnt": groups(unlearnt(spec, windows, learnt))}
    networks = Trained(net=done.net, unit=unit, pruned=cut, **novelty)
    twin = crossfitted(work, learnt.aside, networks, run)
    holdout = holdout_payloads(spec, windows)
    distilled = export(spec, networks, twin, card, holdout, learnt.calibration, artifacts, counts, done.history)
    distilled = replace(distilled, terms=done.terms)
    # Step 7
    for folder in dict.fromkeys((first.folder, run.folder)):
        remove(folder)
    return distilled


def _card(
    spec: Spec,
    windows: Sequence[WindowRow],
    classes: tuple[str, ...],
    variant: Variant,
    start: Start | None,
    parent: ModelRef | None,
    traffic: Unlabelled,
    begun: Begun | None,
) -> StudentCard:
    inherited = start.card.attribution if start else ()
    return StudentCard(
        workload=spec.name,
        task=spec.task,
        space=str(windows[-1].manifest["space"]),
        classes=classes,
        dimension=int(windows[-1].manifest.get("dimension", 0)),
        features=spec.features.learnt_from,
        payload=spec.payload,
        inputs=dict(featuriser(spec.features, spec.source).signature),
        network=wanted_of(spec, start.card, variant) if start else spec.student.network_of(variant),
        variant=variant.name,
        snapshots=tuple(w.digest for w in (windows[-1], *reversed(replayable(spec, windows)))),
        teacher=declared_teacher(spec, windows),
        parent=(parent.version or None) if start and parent else None,
        code=version("cohobate"),
        recipe=variant.recipe,
        unlabelled=traffic.digest,
        attribution=tuple(dict.fromkeys((*attributions(spec), *inherited))),
        start=(begun or start.card.start) if start else None,
    )


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


def _run(spec: Spec, card: StudentCard, parent: ModelRef | None, seed: int, epochs: int, artifacts: str) -> Run:
    """The run by whose name, which equal updates share and no others, a checkpoint is found.

    The code of a network beside the spec is told by the version of the workload, which the bundle is.
    """
    parts = (
        spec.digest,
        spec.bundle or "",
        msgspec.json.encode(card).decode(),
        parent.digest if parent else "",
        str(seed),
        str(epochs),
    )
    name = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    return Run(name=name, folder=f"{artifacts}/{spec.name}/training/{name}", artifacts=artifacts)
