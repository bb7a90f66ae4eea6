"""Relational distillation: distances and angles among the rows of a batch.

With x the states, ``d_ij = ||x_i - x_j|| / mean of all distances > 0``, ``e_ij = (x_j - x_i) / ||x_j - x_i||``,
``a_ijk = e_ij . e_ik`` (the cosine of the angle at i), and the Huber loss h (quadratic up to 1):

``distances 1/B sum_j h(d_ij student - d_ij teacher) + angles 1/B² sum_jk h(a_ijk student - a_ijk teacher)``

(Park et al., "Relational knowledge distillation", arXiv 1904.05068; the means are those of the authors' code, which
counts j = i, too). Widths and units of the two sides need not agree. A batch of B rows takes B³ numbers for the
angles: 64 rows 1 MB, 256 rows 67 MB, 512 rows 537 MB in 32 bits.

States with positions are averaged over the real ones first. Shapes: states (B, D) or (B, L, D), loss (B,), no unit.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from components.contracts.spec import objective as spec
from components.distill.terms.contract import Said, Taught, Term, state
from components.distill.terms.masking import pooled

SQUARE_FLOOR = 1e-12
"""Squared distance up to which two rows are one: a root has no gradient there."""


class RkdTerm(Term):
    """``rkd``."""

    outputs: ClassVar[bool] = False
    per_row: ClassVar[bool] = False

    def __init__(self, term: spec.Rkd) -> None:
        super().__init__()
        self.term = term

    def forward(self, said: Said, taught: Taught) -> Tensor:
        """See the module."""
        student = pooled(state(said, self.term.student), said.mask)
        teacher = pooled(state(taught, self.term.teacher), taught.mask)
        sides = [_differences(states) for states in (student, teacher)]
        loss_B = student.new_zeros(len(student))
        if self.term.distances:
            ours, theirs = (_relative(lengths_BB) for _, lengths_BB in sides)
            loss_B = loss_B + self.term.distances * functional.huber_loss(ours, theirs, reduction="none").mean(dim=1)
        if self.term.angles:
            ours, theirs = (_cosines(*side) for side in sides)
            loss_B = loss_B + self.term.angles * functional.huber_loss(ours, theirs, reduction="none").mean(dim=(1, 2))
        return loss_B


def _differences(states_BD: Tensor) -> tuple[Tensor, Tensor]:
    """``x_j - x_i`` (B, B, D), and their lengths (B, B): 0 between equal rows."""
    differences_BBD = states_BD.unsqueeze(0) - states_BD.unsqueeze(1)
    squares_BB = differences_BBD.square().sum(dim=-1)
    return differences_BBD, torch.where(
        squares_BB > SQUARE_FLOOR, squares_BB.clamp_min(SQUARE_FLOOR).sqrt(), torch.zeros_like(squares_BB)
    )


def _relative(lengths_BB: Tensor) -> Tensor:
    """Lengths in units of the mean of those above 0; 0 where there is none."""
    mean = lengths_BB.sum() / (lengths_BB > 0).sum().clamp_min(1)
    return lengths_BB / mean.clamp_min(SQUARE_FLOOR**0.5)


def _cosines(differences_BBD: Tensor, lengths_BB: Tensor) -> Tensor:
    """The cosine at i of the angle between j and k: (B, B, B)."""
    directions_BBD = differences_BBD / lengths_BB.clamp_min(SQUARE_FLOOR**0.5).unsqueeze(-1)
    return directions_BBD @ directions_BBD.transpose(1, 2)
