"""Terms added up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from components.contracts.errors import ConfigError
from components.contracts.records import Task
from components.contracts.spec import objective as spec
from components.distill.terms.attention import AttentionTerm
from components.distill.terms.bernoulli import BernoulliTerm
from components.distill.terms.contract import Said, Shapes, Taught, Term
from components.distill.terms.contrastive import ContrastiveTerm
from components.distill.terms.cosine import CosineTerm
from components.distill.terms.distance import DistanceTerm
from components.distill.terms.dkd import DkdTerm
from components.distill.terms.hidden import HiddenTerm
from components.distill.terms.kl import KlTerm
from components.distill.terms.mse_logits import MseLogitsTerm
from components.distill.terms.normal import NormalTerm
from components.distill.terms.pkt import PktTerm
from components.distill.terms.relation import RelationTerm, check_heads
from components.distill.terms.rkd import RkdTerm
from components.distill.terms.spkd import SpkdTerm
from components.distill.terms.token_kl import TokenKlTerm
from components.distill.terms.truth import TruthTerm

WEIGHT = "weight "
"""What names of prepared weights begin with, followed by the term's place."""


def scheduled(schedule: spec.Schedule, at: float) -> float:
    """What a weight is multiplied by at a point ``at`` of a stage, 0 to 1: 0 to 1.

    >>> [round(scheduled("cosine-decay", at), 2) for at in (0, 0.25, 0.5, 1)]
    [1.0, 0.85, 0.5, 0.0]
    """
    shape, _, direction = schedule.partition("-")
    if shape == "constant":
        return 1.0
    risen = at if shape == "linear" else (1 - math.cos(math.pi * at)) / 2
    return risen if direction == "warmup" else 1 - risen


def build(term: spec.Term, task: Task, shapes: Shapes) -> Term:
    """A term as a module; projections are drawn from torch's generator of the moment.

    Raises:
        ConfigError: a state that it needs is not among ``shapes``, or the widths do not fit it.

    """
    match term:
        case spec.Kl():
            return KlTerm(term)
        case spec.Dkd():
            return DkdTerm(term)
        case spec.MseLogits():
            return MseLogitsTerm()
        case spec.Truth():
            return TruthTerm(term, task)
        case spec.Normal():
            return NormalTerm()
        case spec.Bernoulli():
            return BernoulliTerm(term)
        case spec.TokenKl():
            return TokenKlTerm(term)
        case spec.Cosine():
            return CosineTerm()
        case spec.Distance():
            return DistanceTerm()
    students = [_width(shapes.student, name, "student") for name in term.student_states]
    teachers = [_width(shapes.teacher, name, "teacher") for name in term.teacher_states]
    match term:
        case spec.Hidden():
            return HiddenTerm(term, student=students[0], teacher=teachers[0])
        case spec.Contrastive():
            return ContrastiveTerm(term, student=students[0], teacher=teachers[0])
        case spec.Attention():
            return AttentionTerm(term)
        case spec.Rkd():
            return RkdTerm(term)
        case spec.Pkt():
            return PktTerm(term)
        case spec.Spkd():
            return SpkdTerm(term)
        case spec.Relation():
            names, widths = (*term.student_states, *term.teacher_states), (*students, *teachers)
            for name, width in zip(names, widths, strict=True):
                check_heads(term.heads, name, width)
            return RelationTerm(term)


def _width(widths: Mapping[str, int], name: str, side: str) -> int:
    if name not in widths:
        has = f"has {', '.join(sorted(widths))}" if widths else "gives no states: leave the term out"
        raise ConfigError(side, name, f"is no state of the {side}, which {has}")
    return widths[name]


def _built(term: spec.Term, task: Task, shapes: Shapes, where: str) -> Term:
    try:
        return build(term, task, shapes)
    except ConfigError as error:
        raise ConfigError(f"{where}.{error.field}", error.value, error.allowed) from error


class Objective(nn.Module):  # type: ignore[misc]  # torch is not followed by the type checker
    """A list of terms: what a step minimises, and each term's part of it.

    A row's loss is the sum of its terms' losses times their weights of the moment. The weight of a term that does not
    apply to a row (a truth that is not known) goes to the terms against outputs that do apply to it, in proportion to
    their weights, so that no row counts for less: ``kl`` with 0.7 and ``truth`` with 0.3 is ``kl`` alone where the
    truth is not known. Where no term against outputs applies, it is lost.

    Equal ``terms``, ``shapes`` and ``seed`` give equal projections. They are parameters of this module, to be learnt
    and checkpointed with the student, and no part of it.
    """

    def __init__(
        self,
        terms: Sequence[spec.Term],
        task: Task,
        shapes: Shapes | None = None,
        *,
        seed: int = 0,
        field: str = spec.FIELD,
    ) -> None:
        """Make the modules of the terms.

        Args:
            terms: what the spec says, which :func:`~components.contracts.spec.objective.check_objective` has seen.
            task: the student's.
            shapes: the widths of the states that the terms read.
            seed: decides the projections' first weights.
            field: where the terms stand in the spec, for messages.

        Raises:
            ConfigError: a state is not among ``shapes``, or its width does not fit the term.

        """
        super().__init__()
        self.sections, self.names = tuple(terms), spec.term_names(terms)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.terms = nn.ModuleList(
                _built(term, task, shapes or Shapes(), f"{field}[{i}]") for i, term in enumerate(terms)
            )
        self.register_buffer("weights_K", torch.tensor([float(t.weight) for t in terms]), persistent=False)
        self.register_buffer("outputs_K1", torch.tensor([[t.outputs] for t in terms]), persistent=False)
        self.constant = all(t.schedule == "constant" for t in terms)

    @property
    def per_row(self) -> bool:
        """Whether a row's loss depends on that row alone, as clipping of gradients row by row asks."""
        return all(term.per_row for term in self.terms)

    def weights(self, taught: Taught, at: float) -> Tensor:
        """What each term's loss of each row is multiplied by: (K, B), K terms."""
        applies_KB = torch.stack([term.applies(taught) for term in self.terms])
        now_K1 = self.weights_K.new_tensor([t.weight * scheduled(t.schedule, at) for t in self.sections]).unsqueeze(1)
        own_KB = now_K1 * applies_KB
        left_B = (now_K1 - own_KB).sum(dim=0)
        takers_KB = own_KB * self.outputs_K1
        if not self.constant:  # where all that could take it have the weight 0 now, their declared weights part it
            declared_KB = self.weights_K.unsqueeze(1) * applies_KB * self.outputs_K1
            takers_KB = torch.where(takers_KB.sum(dim=0) > 0, takers_KB, declared_KB)
        total_B = takers_KB.sum(dim=0)
        return own_KB + takers_KB * (left_B / torch.where(total_B > 0, total_B, 1.0))

    def prepared(self, taught: Taught) -> dict[str, Tensor]:
        """What stays the same of each row while a student learns: what the terms make of it, and what each counts.

        A term that counts nothing of any row is left out: its loss is then not computed.
        """
        return self.counting(self.ready(taught))

    def ready(self, taught: Taught) -> dict[str, Tensor]:
        """As :meth:`prepared`, of some of the rows, with every term."""
        made = {name: tensor for term in self.terms for name, tensor in term.prepared(taught).items()}
        if not self.constant:
            return made
        weights_KN = self.weights(taught, 0.0)
        return made | {f"{WEIGHT}{i}": weights_N.clone() for i, weights_N in enumerate(weights_KN)}

    def counting(self, made: dict[str, Tensor]) -> dict[str, Tensor]:
        """What was made of all the rows without the terms that count nothing of any; one is left at least."""
        weights = [f"{WEIGHT}{i}" for i in range(len(self.names)) if self.constant]
        counting = [name for name in weights if made[name].any()] or weights[:1]
        return {name: tensor for name, tensor in made.items() if name not in weights or name in counting}

    def losses(self, said: Said, taught: Taught, at: float) -> Tensor:
        """Each term's part of each row's loss: (K, B); their sum over the terms is the row's loss."""
        values_KB = torch.stack([term(said, taught) for term in self.terms])
        return self.weights(taught, at) * values_KB

    def forward(self, said: Said, taught: Taught, at: float) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss of a batch, and the part of it that each term has, detached, which add up to it.

        ``at``: how much of the stage is done, 0 to 1, for the schedules.

        Raises:
            ConfigError: a state that a term reads is not there, or has a shape that it cannot compare.

        """
        ready = {i: taught.ready[f"{WEIGHT}{i}"] for i in range(len(self.names)) if f"{WEIGHT}{i}" in taught.ready}
        if not ready:
            parts_K = self.losses(said, taught, at).mean(dim=1)
            return parts_K.sum(), dict(zip(self.names, parts_K.detach().unbind(), strict=True))
        found = {
            i: torch.dot(weights_B, self.terms[i](said, taught)) / len(weights_B) for i, weights_B in ready.items()
        }
        total, *others = found.values()
        for part in others:
            total = total + part
        none = self.weights_K.new_zeros(())
        return total, {name: found[i].detach() if i in found else none for i, name in enumerate(self.names)}
