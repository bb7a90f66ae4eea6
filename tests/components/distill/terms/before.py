"""The loss of before there were terms: what the two terms that came in its place must add up to."""

import torch
from torch.nn import functional

from components.distill.data import NO_TRUTH

PROBABILITY_FLOOR = 1e-6


def soften(probabilities_BC, temperature):
    return torch.softmax(torch.log(probabilities_BC.clamp_min(PROBABILITY_FLOOR)) / temperature, dim=1)


def classification_loss(logits_BC, soft_BC, truth_B, *, temperature, truth_weight):
    student = torch.log_softmax(logits_BC / temperature, dim=1)
    teacher = soften(soft_BC, temperature)
    distilled_B = functional.kl_div(student, teacher, reduction="none").sum(dim=1) * temperature**2
    known_B = truth_B != NO_TRUTH
    hard_B = functional.cross_entropy(logits_BC, truth_B.clamp_min(0), reduction="none")
    share_B = truth_weight * known_B
    return ((1 - share_B) * distilled_B + share_B * hard_B).mean()


def regression_loss(value_B, scale_B, soft_B2, truth_B, *, truth_weight):
    mean_B, deviation_B = soft_B2[:, 0], soft_B2[:, 1]
    distilled_B = torch.log(scale_B / deviation_B) + (deviation_B**2 + (mean_B - value_B) ** 2) / (2 * scale_B**2) - 0.5
    known_B = ~torch.isnan(truth_B)
    error_B = torch.where(known_B, truth_B - value_B, torch.zeros_like(value_B))
    hard_B = torch.log(scale_B) + error_B**2 / (2 * scale_B**2)
    share_B = truth_weight * known_B
    return ((1 - share_B) * distilled_B + share_B * hard_B).mean()
