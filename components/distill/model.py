"""The student network: a weighted sum of embedding rows, one hidden layer, and a head.

Shapes: B inputs, L ids of the longest one, V buckets, D ``dim``, H ``hidden``, C classes (2 for regression).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from components.distill.data import MIN_SCALE

if TYPE_CHECKING:
    from components.student.card import StudentCard

EMBEDDING_DEVIATION = 0.3
"""Deviation of a fresh embedding: a weighted sum over some hundred rows has to differ from input to input."""


class StudentNet(nn.Module):  # type: ignore[misc]  # torch is not followed by the type checker
    """Logits (B, C) for classification; (B, 2), value and unconstrained scale, for regression.

    With ``normalise`` the sum goes through a LayerNorm: the sum over hashed n-grams shrinks with their number.
    """

    def __init__(self, *, buckets: int, dim: int, hidden: int, outputs: int, normalise: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(buckets, dim)
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_DEVIATION)
        self.norm = nn.LayerNorm(dim) if normalise else None
        self.hidden = nn.Linear(dim, hidden)
        self.head = nn.Linear(hidden, outputs)

    @classmethod
    def of(cls, card: StudentCard) -> StudentNet:
        """A fresh network of the shape that a card describes."""
        classification = card.task == "classification"
        outputs = len(card.classes) if classification else 2
        return cls(
            buckets=card.buckets, dim=card.dim, hidden=card.hidden, outputs=outputs, normalise=classification
        )  # fmt: skip

    def forward(self, ids_BL: Tensor, weights_BL: Tensor) -> Tensor:
        """Apply the network. Padding (weight 0) is left out before the look-up, which halves the time of a step."""
        kept_BL = weights_BL != 0
        counts_B = kept_BL.sum(dim=1)
        summed_BD = nn.functional.embedding_bag(
            ids_BL[kept_BL],
            self.embedding.weight,
            offsets=counts_B.cumsum(0) - counts_B,
            mode="sum",
            per_sample_weights=weights_BL[kept_BL],
        )
        if self.norm is not None:
            summed_BD = self.norm(summed_BD)
        logits_BC: Tensor = self.head(torch.relu(self.hidden(summed_BD)))
        return logits_BC


def value_and_scale(output_B2: Tensor) -> tuple[Tensor, Tensor]:
    """A regression student's value and its scale (> 0), both (B,), in the unit that it learns in."""
    return output_B2[:, 0], nn.functional.softplus(output_B2[:, 1]) + MIN_SCALE
