"""Mean squared difference of logits.

``1/C sum_c (s_c - t_c)²``, with s the student's logits and t the teacher's log probabilities, both less their mean over
the classes: a constant that no softmax sees is no error (Ba & Caruana, "Do deep nets really need to be deep?", arXiv
1312.6184; Kim et al., arXiv 2105.08919). It asks for the teacher's very sureness, which a small student may not reach.

Shapes: logits (B, C), soft (B, C), loss (B,) in squared nats.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from components.distill.terms.contract import Said, Taught, Term, answers
from components.distill.terms.soft import logits_of


class MseLogitsTerm(Term):
    """``mse-logits``."""

    outputs: ClassVar[bool] = True

    def forward(self, said: Said, taught: Taught) -> Tensor:
        """See the module."""
        student_BC, soft_BC = answers(said, taught)
        teacher_BC = logits_of(soft_BC)
        centred = [z - z.mean(dim=1, keepdim=True) for z in (student_BC, teacher_BC)]
        return (centred[0] - centred[1]).square().mean(dim=1)
