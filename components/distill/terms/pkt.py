"""Probabilistic knowledge transfer: who is near whom in a batch.

With the similarity ``k_ij = (1 + cos(x_i, x_j)) / 2`` and ``p(j | i) = k_ij / sum_j k_ij``, the loss of row i is
``sum_j p(j | i) teacher (log p(j | i) teacher - log p(j | i) student)`` (Passalis & Tefas, "Learning deep
representations with probabilistic knowledge transfer", arXiv 1803.10837; j = i is counted, as in the authors' code,
which takes the mean over j as well, so it is B times theirs). Widths need not agree.

States with positions are averaged over the real ones first. Shapes: states (B, D) or (B, L, D), loss (B,) in nats.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from components.contracts.spec import objective as spec
from components.distill.terms.contract import Said, Taught, Term, state
from components.distill.terms.hidden import unit
from components.distill.terms.masking import pooled

SIMILARITY_FLOOR = 1e-7
"""Least similarity of two rows, so that opposite ones have a logarithm (the authors' number)."""


class PktTerm(Term):
    """``pkt``."""

    outputs: ClassVar[bool] = False
    per_row: ClassVar[bool] = False

    def __init__(self, term: spec.Pkt) -> None:
        super().__init__()
        self.term = term

    def forward(self, said: Said, taught: Taught) -> Tensor:
        """See the module."""
        student = _near(pooled(state(said, self.term.student), said.mask))
        teacher = _near(pooled(state(taught, self.term.teacher), taught.mask))
        return (teacher * torch.log(teacher / student)).sum(dim=1)


def _near(states_BD: Tensor) -> Tensor:
    directions_BD = unit(states_BD)
    similarity_BB = ((1 + directions_BD @ directions_BD.T) / 2).clamp_min(SIMILARITY_FLOOR)
    return similarity_BB / similarity_BB.sum(dim=1, keepdim=True)
