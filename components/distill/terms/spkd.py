"""Similarity-preserving distillation: inner products in a batch.

With ``G_ij = x_i . x_j``, each row of G brought to length 1, the loss of row i is ``1/B sum_j (G_ij student - G_ij
teacher)²``, and so the batch's mean is the paper's ``1/B² ||G student - G teacher||²`` (Tung & Mori,
"Similarity-preserving knowledge distillation", arXiv 1907.09682). Widths need not agree.

States with positions are averaged over the real ones first. Shapes: states (B, D) or (B, L, D), loss (B,), no unit.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from components.contracts.spec import objective as spec
from components.distill.terms.contract import Said, Taught, Term, state
from components.distill.terms.hidden import unit
from components.distill.terms.masking import pooled


class SpkdTerm(Term):
    """``spkd``."""

    outputs: ClassVar[bool] = False
    per_row: ClassVar[bool] = False

    def __init__(self, term: spec.Spkd) -> None:
        super().__init__()
        self.term = term

    def forward(self, said: Said, taught: Taught) -> Tensor:
        """See the module."""
        student = pooled(state(said, self.term.student), said.mask)
        teacher = pooled(state(taught, self.term.teacher), taught.mask)
        return (unit(student @ student.T) - unit(teacher @ teacher.T)).square().mean(dim=1)
