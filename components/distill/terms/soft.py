"""A teacher's distribution as logits."""

from __future__ import annotations

import torch
from torch import Tensor

PROBABILITY_FLOOR = 1e-6
"""Stands for the classes that a soft label leaves out, so that a temperature can be applied to them."""


def logits_of(probabilities_BC: Tensor) -> Tensor:
    """Logits of a distribution, up to a constant of each row that no softmax sees."""
    return torch.log(probabilities_BC.clamp_min(PROBABILITY_FLOOR))
