"""Relations among a layer's queries, keys and values.

The D columns of a state X (queries, keys or values of all positions) are parted into R relation heads of d = D / R
columns, whatever heads its attention has. With ``R_r(X) = softmax(X_r X_r^T / sqrt(d))`` over the real positions, the
loss is the mean over relation heads and real positions i of ``KL(R_r(X teacher)_i || R_r(X student)_i)``, and the mean
of that over the states in ``of``. Positions are related to positions, so widths need not agree and nothing is
projected (Wang et al., "MiniLMv2", arXiv 2012.15828).

Shapes: states (B, L, D), loss (B,) in nats.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from components.contracts.errors import ConfigError
from components.contracts.spec import objective as spec
from components.distill.terms.contract import Said, Taught, Term, state
from components.distill.terms.masking import mean_over_real, positions, real


class RelationTerm(Term):
    """``relation``."""

    outputs: ClassVar[bool] = False

    def __init__(self, term: spec.Relation) -> None:
        super().__init__()
        self.term = term

    def forward(self, said: Said, taught: Taught) -> Tensor:
        """See the module."""
        names = zip(self.term.student_states, self.term.teacher_states, strict=True)
        losses = [self._of(said, taught, student, teacher) for student, teacher in names]
        return torch.stack(losses).mean(dim=0)

    def _of(self, said: Said, taught: Taught, student_name: str, teacher_name: str) -> Tensor:
        student, teacher = state(said, student_name), state(taught, teacher_name)
        for name, found in ((student_name, student), (teacher_name, teacher)):
            if found.dim() != 3:
                raise ConfigError(f"state {name}", tuple(found.shape), "has no positions (rows, positions, width)")
            check_heads(self.term.heads, name, found.shape[-1])
        mask_BL = positions(said, taught, student.shape[1], teacher.shape[1])
        length = min(student.shape[1], teacher.shape[1])
        p = self._log_relations(teacher[:, :length], mask_BL)
        q = self._log_relations(student[:, :length], mask_BL)
        divergence_BRL = (p.exp() * (p - q)).sum(dim=-1)
        return mean_over_real(divergence_BRL.mean(dim=1), mask_BL)

    def _log_relations(self, state_BLD: Tensor, mask_BL: Tensor | None) -> Tensor:
        rows, length, width = state_BLD.shape
        part = width // self.term.heads
        heads_BRLd = real(state_BLD, mask_BL).view(rows, length, self.term.heads, part).transpose(1, 2)
        scores = heads_BRLd @ heads_BRLd.transpose(2, 3) / math.sqrt(part)
        if mask_BL is not None:  # a finite number, so that a row without a real position has no NaN
            scores = scores.masked_fill(~mask_BL.view(rows, 1, 1, length), torch.finfo(scores.dtype).min / 4)
        return torch.log_softmax(scores, dim=-1)


def check_heads(heads: int, name: str, width: int) -> None:
    """Refuse a number of relation heads that does not divide a state's width.

    Raises:
        ConfigError: names the state, its width and the numbers that do.

    """
    if width % heads:
        allowed = ", ".join(str(n) for n in range(1, width + 1) if width % n == 0)
        raise ConfigError("heads", heads, f"must divide the width of {name}, {width}: one of {allowed}")
