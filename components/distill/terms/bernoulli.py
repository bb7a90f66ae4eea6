"""Divergence of chances, one for each class: multi-label distillation.

With p_c the teacher's and q_c = sigmoid(z_c / T) the student's chance of class c, both softened by T (p_c by its
logit),

``T² sum_c (p_c (log p_c - log q_c) + (1 - p_c) (log(1 - p_c) - log(1 - q_c)))``,

the sum of one divergence a class (P. Yang et al., "Multi-label knowledge distillation", ICCV 2023, arXiv 2308.06453,
its multi-label logits distillation). It is the binary cross entropy with the teacher's chances less their own entropy,
so that a student who says what the teacher says has the loss 0. T² keeps the gradients' size at any temperature.

Shapes: logits (B, C), soft (B, C) with each number in [0, 1] by itself, loss (B,) in nats.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from components.contracts.spec import objective as spec
from components.distill.terms.contract import Said, Taught, Term, answers
from components.distill.terms.soft import PROBABILITY_FLOOR


class BernoulliTerm(Term):
    """``bernoulli``."""

    outputs: ClassVar[bool] = True

    def __init__(self, term: spec.Bernoulli) -> None:
        super().__init__()
        self.temperature = term.temperature

    def forward(self, said: Said, taught: Taught) -> Tensor:
        """See the module."""
        student_BC, soft_BC = answers(said, taught)
        ours_BC, theirs_BC = student_BC / self.temperature, torch.logit(soft_BC, PROBABILITY_FLOOR) / self.temperature
        p_BC = torch.sigmoid(theirs_BC)
        has_BC = functional.logsigmoid(theirs_BC) - functional.logsigmoid(ours_BC)
        lacks_BC = functional.logsigmoid(-theirs_BC) - functional.logsigmoid(-ours_BC)
        return (p_BC * has_BC + (1 - p_BC) * lacks_BC).sum(dim=1) * self.temperature**2
