"""InfoNCE with the batch's own rows as negatives.

With s_i the student's state of row i, projected to the teacher's width, t_j the teacher's of row j, both at length 1:

``-log( exp(s_i . t_i / tau) / sum_j exp(s_i . t_j / tau) )``

the student's state has to pick its own row's among the teacher's states of the batch, so it is at most log B for a
student that knows nothing. This is van den Oord et al., arXiv 1807.03748, on the pairs of Tian et al., "Contrastive
representation distillation" (CRD), arXiv 1910.10699. It is not CRD in full: that estimates the same quantity by noise
contrast against some 16,000 states of a memory over the data set, and projects both sides; here there is no memory, the
negatives are the B - 1 other rows, and the teacher's side is not projected, so the two cannot agree on nothing.

A row's loss depends on the others of its batch, and so on the batch's size. Its least value is not at s = t: a student
may do better by moving away from the others. States with positions are averaged over the real ones first.

Shapes: states (B, D) or (B, L, D), loss (B,) in nats.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from components.contracts.spec import objective as spec
from components.distill.terms.contract import Said, Taught, Term, state
from components.distill.terms.hidden import unit
from components.distill.terms.masking import pooled
from components.distill.terms.projection import projection


class ContrastiveTerm(Term):
    """``contrastive``. ``student`` and ``teacher``: the widths of the two states."""

    outputs: ClassVar[bool] = False
    per_row: ClassVar[bool] = False

    def __init__(self, term: spec.Contrastive, *, student: int, teacher: int) -> None:
        super().__init__()
        self.term = term
        self.projection = projection(term.project, student, teacher)

    def forward(self, said: Said, taught: Taught) -> Tensor:
        """See the module."""
        student = self.projection(pooled(state(said, self.term.student), said.mask))
        teacher = pooled(state(taught, self.term.teacher), taught.mask)
        similarity_BB = unit(student) @ unit(teacher).T / self.term.temperature
        return functional.cross_entropy(
            similarity_BB, torch.arange(len(similarity_BB), device=similarity_BB.device), reduction="none"
        )
