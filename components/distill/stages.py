"""What a student learns beside its labels: stages before them, a parent's answers, a recipe, and to do with less."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import msgspec
import numpy as np
from torch import nn

from components.contracts.errors import ConfigError
from components.contracts.records import SoftLabel, content_hash
from components.contracts.spec import Factory, Spec, Variant
from components.contracts.spec.objective import VECTOR, Hidden, Term, imitating
from components.contracts.spec.references import resolve
from components.contracts.spec.student import VECTORS, Stage
from components.distill.account import Spent
from components.distill.artifact import Trained
from components.distill.columns import spans, spooled
from components.distill.data import Rows, TrainingSet, Unit, arrays, encoded
from components.distill.fit import Fitted, Run
from components.distill.networks.contract import state_of
from components.distill.prune import pruned
from components.distill.search import search
from components.distill.signals import shows, teacher_states
from components.distill.start import Start
from components.distill.temperature import LEAST_ROWS
from components.distill.unlabelled import NONE, Unlabelled
from components.distill.work import Work
from components.student.runtime import CHUNK
from components.teachers.inner import EMBEDDING

log = logging.getLogger(__name__)


PRETRAIN = "student.pretrain"
"""Where a spec has the stage that comes by itself."""


def pretraining(spec: Spec, variant: Variant) -> tuple[Stage, ...]:
    """The stage of a fresh student whose spec names none: the teacher's embedding, where both sides have a state of it.

    Whether the teacher has it turns out when it is asked.
    """
    student = spec.student
    if student.stages or student.pretrain == "off" or student.privacy is not None or spec.task != "classification":
        return ()
    state = getattr(resolve(student.network_of(variant).factory, spec.source), "EMBEDS", "")
    if not state or not shows(spec):
        return ()
    return (Stage(name="pretrain", objective=(Hidden(student=state, teacher=EMBEDDING, distance="cosine"),), epochs=8),)


def traffic_for(stages: Sequence[Stage], spec: Spec, inputs: Callable[[], Unlabelled]) -> Unlabelled:
    """The unlabelled inputs that stages learn from; none where only the one that comes by itself would, in vain.

    Raises:
        CohobateError: the stream does not answer, or a history cannot be read, and the spec has a stage that needs it.

    """
    if all(s.rows != "unlabelled" for s in stages):
        return NONE
    try:
        return inputs()
    except Exception as error:  # what nobody asked for stops no update
        if spec.student.stages:
            raise
        log.warning("%s: the student learns from its labels alone: %s", spec.name, error)
        return NONE


def with_states(work: Work, payloads: Sequence[bytes], artifacts: str, encoder: Factory | None = None) -> Work:
    """The work with what its objective reads of the inside of the teacher, or of an ``encoder``."""
    own = {VECTOR} if work.spec.task == "embedding" else set[str]()
    names = sorted({name for term in work.objective for name in term.teacher_states} - own)
    if not names:
        return work
    found = teacher_states(work.spec, payloads, names, work.card.teacher, artifacts, encoder, field=work.field)
    return replace(work, data=replace(work.data, states=found.arrays, mask=found.mask))


def beside(work: Work, peers: tuple[Variant, ...], payloads: Sequence[bytes], artifacts: str) -> Work:
    """The work in which ``peers`` learn too, with what their objectives read of the inside of the teacher."""
    student = work.spec.student
    others = tuple(term for peer in peers for term in student.objective_of(peer, work.spec.task))
    every = replace(work, objective=(*work.objective, *others), field="student.variants")
    return replace(work, peers=peers, data=with_states(every, payloads, artifacts).data)


def staged(
    work: Work, stages: Sequence[Stage], traffic: Unlabelled, labelled: Sequence[bytes], run: Run
) -> tuple[Work, dict[str, float], tuple[Spent, ...]]:
    """The work with the weights that its stages leave behind, the last loss of each, and what they spent."""
    spec, losses = work.spec, {}
    spent: tuple[Spent, ...] = ()
    for stage in stages:
        own, unlabelled = stage not in spec.student.stages, stage.rows == "unlabelled"
        if unlabelled and not traffic.payloads:
            log.warning("%s: there are no unlabelled inputs: the stage %s is left out", spec.name, stage.name)
            continue
        payloads = traffic.payloads if unlabelled else labelled
        field = PRETRAIN if own else f"student.stages[{spec.student.stages.index(stage)}].objective"
        lesson = replace(work, objective=stage.objective, field=field, epochs=stage.epochs)
        try:
            if unlabelled:
                data = TrainingSet(features=encoded(spec, payloads), soft=None, truth=None)
                lesson = replace(lesson, data=data)
            lesson = with_states(lesson, payloads, run.artifacts, stage.encoder)
            done = run.fit(lesson, f"stage-{stage.name}")
        except Exception as error:  # what nobody asked for stops no update, whatever a teacher's code raises
            if not own:
                raise
            log.warning("%s: the student learns from its labels alone: %s: %r", spec.name, PRETRAIN, error)
            continue
        work, losses[f"stage_loss_{stage.name}"] = replace(work, start=state_of(done.net)), done.history[-1]
        spent += done.spent
    return work, losses, spent


def taught(work: Work, start: Start, rows: Rows, head: Sequence[str] | Unit, run: Run) -> Fitted:
    """A fresh network that has learnt what the parent answers to the rows, whatever the truth is."""
    said = (a for span in spans(len(rows), CHUNK) for a in start.student.predict(rows.payloads[span]))
    answers = spooled(said, msgspec.json.encode, partial(msgspec.json.decode, type=SoftLabel))
    data = arrays(work.spec, Rows(payloads=rows.payloads, soft=answers, truth=[None] * len(rows)), head)
    return run.fit(replace(work, data=data, objective=imitation(work.spec)), "parent")


def searched(work: Work, payloads: Sequence[bytes], run: Run) -> tuple[Work, dict[str, float]]:
    """The work with the recipe that learns best, and what was seen of it."""
    spec = work.spec
    recipes = {name: spec.student.recipes[name] for name in spec.student.search}
    every = tuple(term for terms in recipes.values() for term in terms)
    work = with_states(replace(work, objective=every, field="student.recipes"), payloads, run.artifacts)
    found = search(work, recipes, map(content_hash, payloads), lambda arm, name: run.fit(arm, name).net)
    log.info("%s: the recipe %s, of %s on %d rows", spec.name, found.recipe, found.scores, found.rows)
    seen = {"searched_rows": float(found.rows), **{f"search_{n}": s for n, s in found.scores.items()}}
    if found.margin is not None:
        seen["searched_margin"] = found.margin
    card = msgspec.structs.replace(work.card, recipe=found.recipe)
    return replace(work, card=card, objective=tuple(recipes[found.recipe])), seen


def smaller(work: Work, trained: nn.Module, run: Run) -> nn.Module:
    """The network without the units that the spec removes, trained to answer as it did with them."""
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
    )
    return run.fit(lesson, "pruned").net


def crossfitted(work: Work, aside: Sequence[int], first: Trained, run: Run) -> Trained:
    """What calibrates ``first``: the same training without the rows ``aside``; itself where there are too few of them.

    One fold of cross-fitting (V. Chernozhukov et al., "Double/debiased machine learning", Econometrics Journal 21,
    2018): the temperature that suits the second network on rows that are new to it suits the first on traffic.
    """
    if len(aside) < LEAST_ROWS or len(aside) == len(work.data):
        return first
    rows = np.ones(len(work.data), dtype=bool)
    rows[list(aside)] = False
    second, own = (
        replace(work, data=work.data.take(rows)),
        replace(run, name=f"{run.name}-twin", folder=f"{run.folder}/twin"),
    )
    net = own.fit(second).net
    return replace(first, net=net, pruned=None if first.pruned is None else smaller(second, net, own))


def imitation(spec: Spec) -> tuple[Term, ...]:
    """What a network minimises that is to answer as another student does."""
    return VECTORS if spec.task == "embedding" else (imitating(spec.task, spec.student.temperature),)
