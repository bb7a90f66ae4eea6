"""Likelihood of the distance that came by the one that was expected, for embedding.

``log s + d / s``: the negative log likelihood of an exponential with the mean s, the student's expected distance, at d,
the cosine distance of its vector from the teacher's. The distance is taken as it is (no gradient goes through it), so
that the vector is learnt as if it had no scale, and a student cannot buy a better likelihood by worse vectors. So Stirn
et al. train the mean of a normal beside its deviation ("Faithful heteroscedastic regression with neural networks",
AISTATS 2023, arXiv 2212.09184), whose joint likelihood would neglect the rows that are hard (Seitzer et al., arXiv
2203.09168). The least loss of a row is at s = d.

Shapes: logits (B, D + 1) as vector and expected distance (> 0), soft (B, D + 1) as vector and scale, loss (B,) in nats.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from components.distill.terms.contract import Said, Taught, Term, answers
from components.distill.terms.cosine import distance


class DistanceTerm(Term):
    """``distance``."""

    outputs: ClassVar[bool] = True

    def forward(self, said: Said, taught: Taught) -> Tensor:
        """See the module."""
        said_BO, soft_BO = answers(said, taught)
        expected_B = said_BO[:, -1]
        return torch.log(expected_B) + distance(said_BO, soft_BO).detach() / expected_B
