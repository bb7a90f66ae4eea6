"""Divergence of normals, for regression.

``KL(teacher || student) = log(s / d) + (d² + (m - v)²) / (2 s²) - 1/2``, with the teacher's mean m and deviation d, the
student's value v and scale s.

Shapes: logits (B, 2) as value and scale, soft (B, 2) as value and scale, loss (B,) in nats.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from components.distill.terms.contract import Said, Taught, Term, answers


class NormalTerm(Term):
    """``normal``."""

    outputs: ClassVar[bool] = True

    def forward(self, said: Said, taught: Taught) -> Tensor:
        """See the module."""
        said_B2, soft_B2 = answers(said, taught)
        (value_B, scale_B), (mean_B, deviation_B) = said_B2.unbind(1), soft_B2.unbind(1)
        return torch.log(scale_B / deviation_B) + (deviation_B**2 + (mean_B - value_B) ** 2) / (2 * scale_B**2) - 0.5
