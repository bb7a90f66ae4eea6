"""Distance of hidden states, after a learnt projection P of the student's to the teacher's width.

* ``mse``: ``1/D sum_d (P h_d - t_d)²`` (Romero et al., "FitNets", arXiv 1412.6550; Jiao et al., "TinyBERT", arXiv
  1909.10351);
* ``cosine``: ``1 - cos(P h, t)`` (Sanh et al., "DistilBERT", arXiv 1910.01108).

A row's loss is the mean over its real positions. Where one side has positions and the other has one vector a row, the
former is averaged over its real positions first.

Shapes: states (B, D) or (B, L, D), of any width with a projection; loss (B,), in squared units of the teacher's state,
or 0 to 2 for the cosine.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from components.contracts.spec import objective as spec
from components.distill.terms.contract import Said, Taught, Term, state
from components.distill.terms.masking import mean_over_real, pooled, positions, real
from components.distill.terms.projection import projection

NORM_FLOOR = 1e-8
"""Added to a squared length before it divides: keeps the gradient finite at a state of zeros."""


class HiddenTerm(Term):
    """``hidden``. ``student`` and ``teacher``: the widths of the two states."""

    outputs: ClassVar[bool] = False

    def __init__(self, term: spec.Hidden, *, student: int, teacher: int) -> None:
        super().__init__()
        self.term = term
        self.projection = projection(term.project, student, teacher)

    def forward(self, said: Said, taught: Taught) -> Tensor:
        """See the module."""
        student, teacher = state(said, self.term.student), state(taught, self.term.teacher)
        if student.dim() == teacher.dim() == 3:
            mask = positions(said, taught, student.shape[1], teacher.shape[1])
            shorter = min(student.shape[1], teacher.shape[1])
            student, teacher = real(student[:, :shorter], mask), real(teacher[:, :shorter], mask)
            return mean_over_real(self._distance(self.projection(student), teacher), mask)
        return self._distance(self.projection(pooled(student, said.mask)), pooled(teacher, taught.mask))

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        if self.term.distance == "mse":
            return (student - teacher).square().mean(dim=-1)
        return 1 - (unit(student) * unit(teacher)).sum(dim=-1)


def unit(vectors: Tensor) -> Tensor:
    """Vectors (..., D) at length 1; zeros stay zeros."""
    return vectors / torch.sqrt(vectors.square().sum(dim=-1, keepdim=True) + NORM_FLOOR)
