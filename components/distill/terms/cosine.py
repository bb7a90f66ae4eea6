"""Cosine distance of vectors, for embedding.

``1 - u . t``, with the student's vector u and the teacher's t, both at length 1: 0 to 2, and half their squared
distance. It is what Reimers and Gurevych ("Making monolingual sentence embeddings multilingual using knowledge
distillation", EMNLP 2020, arXiv 2004.09813) minimise, as the squared distance, to have a student's sentence embeddings
imitate a teacher's; of vectors whose directions alone count the two are the same.

Shapes: logits (B, D + 1) as vector and expected distance, soft (B, D + 1) as vector and scale, loss (B,), no unit.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from components.distill.terms.contract import Said, Taught, Term, answers


class CosineTerm(Term):
    """``cosine``."""

    outputs: ClassVar[bool] = True

    def forward(self, said: Said, taught: Taught) -> Tensor:
        """See the module."""
        return distance(*answers(said, taught))


def distance(said_BO: Tensor, soft_BO: Tensor) -> Tensor:
    """The cosine distance of two answers' vectors, (B,)."""
    return 1.0 - (said_BO[:, :-1] * soft_BO[:, :-1]).sum(dim=1)
