"""Decoupled distillation.

With the target class t, p and q as in :mod:`~components.distill.terms.kl`, and p^, q^ the same over the C - 1 other
classes alone:

``T² (alpha KL((p_t, 1 - p_t) || (q_t, 1 - q_t)) + beta KL(p^ || q^))``

The plain divergence is this with alpha = 1 and beta = 1 - p_t, which hides what a sure teacher knows of the others
(Zhao et al., "Decoupled knowledge distillation", arXiv 2203.08679). The target is the truth where it is known, as in
the paper, else the teacher's most probable class.

Shapes: logits (B, C), soft (B, C), truth (B,) or None, loss (B,) in nats.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from components.contracts.spec import objective as spec
from components.distill.data import NO_TRUTH
from components.distill.terms.contract import Said, Taught, Term, answers
from components.distill.terms.soft import logits_of


class DkdTerm(Term):
    """``dkd``."""

    outputs: ClassVar[bool] = True

    def __init__(self, term: spec.Dkd) -> None:
        super().__init__()
        self.term = term

    def forward(self, said: Said, taught: Taught) -> Tensor:
        """See the module."""
        student_BC, soft_BC = answers(said, taught)
        teacher_BC = logits_of(soft_BC)
        target_B = soft_BC.argmax(dim=1)
        if taught.truth is not None:
            target_B = torch.where(taught.truth == NO_TRUTH, target_B, taught.truth)
        p, p_others = _parted(teacher_BC / self.term.temperature, target_B)
        q, q_others = _parted(student_BC / self.term.temperature, target_B)
        target_part = (p.exp() * (p - q)).sum(dim=1)
        other_part = (p_others.exp() * (p_others - q_others)).sum(dim=1)
        return self.term.temperature**2 * (self.term.alpha * target_part + self.term.beta * other_part)


def _parted(logits_BC: Tensor, target_B: Tensor) -> tuple[Tensor, Tensor]:
    """Log probabilities of target and not target (B, 2), and of the others among themselves (B, C - 1)."""
    classes = logits_BC.shape[1]
    after = torch.arange(1, classes, device=logits_BC.device)
    others = logits_BC.gather(1, (target_B.unsqueeze(1) + after) % classes)
    target = logits_BC.gather(1, target_B.unsqueeze(1)).squeeze(1)
    two = torch.stack([target, torch.logsumexp(others, dim=1)], dim=1)
    return torch.log_softmax(two, dim=1), torch.log_softmax(others, dim=1)
