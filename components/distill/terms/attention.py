"""Distance of attention maps.

With a_h(i, j) what head h of the teacher gives to position j when it reads position i, and s the student's:

* ``kl``: mean over heads and real i of ``sum_j a log(a / s)`` (Wang et al., "MiniLM", arXiv 2002.10957). Maps are
  probabilities, brought to sum to one over the real j again: dropout leaves them otherwise;
* ``mse``: mean over heads, real i and real j of ``(a - s)²`` (Jiao et al., "TinyBERT", arXiv 1909.10351, who compare
  scores before the softmax: it may be either, the same on both sides).

Where the numbers of heads differ, the means over the heads are compared.

Shapes: maps (B, H, L, L), loss (B,) in nats or squared units of the map.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from components.contracts.errors import ConfigError
from components.contracts.spec import objective as spec
from components.distill.terms.contract import Said, Taught, Term, state
from components.distill.terms.masking import mean_over_real, positions

ATTENTION_FLOOR = 1e-6
"""Least attention that a position counts with, so that one that is not looked at has a logarithm."""


class AttentionTerm(Term):
    """``attention``."""

    outputs: ClassVar[bool] = False

    def __init__(self, term: spec.Attention) -> None:
        super().__init__()
        self.term = term

    def forward(self, said: Said, taught: Taught) -> Tensor:
        """See the module."""
        student, teacher = _map(said, self.term.student), _map(taught, self.term.teacher)
        mask_BL = positions(said, taught, student.shape[-1], teacher.shape[-1])
        length = min(student.shape[-1], teacher.shape[-1])
        student, teacher = student[..., :length, :length], teacher[..., :length, :length]
        if mask_BL is None:
            mask_BL = torch.ones(len(student), length, dtype=torch.bool, device=student.device)
        pairs_BLL = mask_BL.unsqueeze(2) & mask_BL.unsqueeze(1)
        student, teacher = (maps.masked_fill(~pairs_BLL.unsqueeze(1), 0.0) for maps in (student, teacher))
        if student.shape[1] != teacher.shape[1]:
            student, teacher = student.mean(dim=1, keepdim=True), teacher.mean(dim=1, keepdim=True)
        if self.term.distance == "kl":
            a, s = _distribution(teacher, pairs_BLL), _distribution(student, pairs_BLL)
            compared_BHL = (a * torch.log(a / s)).masked_fill(~pairs_BLL.unsqueeze(1), 0.0).sum(dim=-1)
        else:
            compared_BHL = (teacher - student).square().sum(dim=-1) / mask_BL.sum(dim=1).clamp_min(1).view(-1, 1, 1)
        return mean_over_real(compared_BHL.mean(dim=1), mask_BL)


def _map(side: Said | Taught, name: str) -> Tensor:
    found = state(side, name)
    if found.dim() != 4 or found.shape[-1] != found.shape[-2]:
        raise ConfigError(
            f"state {name}", tuple(found.shape), "is no attention map (rows, heads, positions, positions)"
        )
    return found


def _distribution(maps_BHLL: Tensor, pairs_BLL: Tensor) -> Tensor:
    """The attention of each position over the real ones; 1 elsewhere, where it is never looked at."""
    floored = maps_BHLL.clamp_min(ATTENTION_FLOOR)
    real = pairs_BLL.unsqueeze(1)
    total = floored.masked_fill(~real, 0.0).sum(dim=-1, keepdim=True).clamp_min(ATTENTION_FLOOR)
    return (floored / total).masked_fill(~real, 1.0)
