"""What an update minimises.

Shapes: B inputs, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from components.distill.data import MIN_SCALE, NO_TRUTH

PROBABILITY_FLOOR = 1e-6
"""Stands for the classes that a soft label leaves out, so that a temperature can be applied to them."""


def soften(probabilities_BC: Tensor, temperature: float) -> Tensor:
    """A distribution at a temperature: proportional to ``p ** (1 / temperature)``."""
    return torch.softmax(torch.log(probabilities_BC.clamp_min(PROBABILITY_FLOOR)) / temperature, dim=1)


def classification_loss(
    logits_BC: Tensor, soft_BC: Tensor, truth_B: Tensor, *, temperature: float, truth_weight: float
) -> Tensor:
    """Distillation from soft labels, mixed with cross entropy on truth for the rows that have it.

    ``(1 - w) T² KL(teacher_T || student_T) + w CE(truth)``, with *w* = ``truth_weight`` for rows with truth and 0 for
    the others (``truth_B`` is ``NO_TRUTH`` there). Hinton, Vinyals & Dean, "Distilling the knowledge in a neural
    network" (arXiv 1503.02531).
    """
    student = torch.log_softmax(logits_BC / temperature, dim=1)
    teacher = soften(soft_BC, temperature)
    distilled_B = functional.kl_div(student, teacher, reduction="none").sum(dim=1) * temperature**2
    known_B = truth_B != NO_TRUTH
    hard_B = functional.cross_entropy(logits_BC, truth_B.clamp_min(0), reduction="none")
    share_B = truth_weight * known_B
    return ((1 - share_B) * distilled_B + share_B * hard_B).mean()


def regression_loss(
    value_B: Tensor, scale_B: Tensor, soft_B2: Tensor, truth_B: Tensor, *, truth_weight: float
) -> Tensor:
    """Distillation from the teacher's normals, mixed with the negative log likelihood of truth.

    ``(1 - w) KL(teacher || student) + w NLL(truth)``, with *w* = ``truth_weight`` for rows with truth and 0 for the
    others (``truth_B`` is NaN there). The likelihood leaves out its constant, ``log(2 pi) / 2``.
    """
    mean_B, deviation_B = soft_B2[:, 0], soft_B2[:, 1]
    distilled_B = torch.log(scale_B / deviation_B) + (deviation_B**2 + (mean_B - value_B) ** 2) / (2 * scale_B**2) - 0.5
    known_B = ~torch.isnan(truth_B)
    error_B = torch.where(known_B, truth_B - value_B, torch.zeros_like(value_B))
    hard_B = torch.log(scale_B) + error_B**2 / (2 * scale_B**2)
    share_B = truth_weight * known_B
    return ((1 - share_B) * distilled_B + share_B * hard_B).mean()


def value_and_scale(output_B2: Tensor) -> tuple[Tensor, Tensor]:
    """A regression student's value and its scale (> 0), both (B,), in the unit that it learns in."""
    return output_B2[:, 0], functional.softplus(output_B2[:, 1]) + MIN_SCALE
