"""A teacher's distribution at a temperature."""

from __future__ import annotations

import torch
from torch import Tensor

PROBABILITY_FLOOR = 1e-6
"""Stands for the classes that a soft label leaves out, so that a temperature can be applied to them."""


def logits_of(probabilities_BC: Tensor) -> Tensor:
    """Logits of a distribution, up to a constant of each row that no softmax sees."""
    return torch.log(probabilities_BC.clamp_min(PROBABILITY_FLOOR))


def soften(probabilities_BC: Tensor, temperature: float) -> Tensor:
    """A distribution at a temperature: proportional to ``p ** (1 / temperature)``."""
    return torch.softmax(logits_of(probabilities_BC) / temperature, dim=1)
