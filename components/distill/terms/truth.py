"""What truth says, for the rows of which it is known.

Classification: ``-sum_c y_c log softmax(logits)_c``, y the truth's class with the share ``1 - e`` and every class with
``e / C`` beside it (label smoothing: Szegedy et al., arXiv 1512.00567; e = ``smoothing``).

Multilabel: ``-sum_c (y_c log q_c + (1 - y_c) log(1 - q_c))``, q_c = sigmoid(logits_c), y_c = 1 of the classes that the
input has and 0 of the others.

Regression: ``log s + (y - v)² / (2 s²)``, the negative log likelihood of the student's normal (v, s) without its
constant, ``log(2 pi) / 2``.

Tagging: the mean of the first over a text's tokens (:mod:`components.distill.terms.token_kl`).

Shapes: logits (B, C), (B, L, C), or (B, 2) as value and scale; truth (B,), (B, L), or (B, C) of multilabel; loss (B,)
in nats.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from components.contracts.errors import ConfigError
from components.contracts.records import Task
from components.contracts.spec import objective as spec
from components.distill.data import NO_TRUTH
from components.distill.terms.contract import Said, Taught, Term, precise
from components.distill.terms.token_kl import token_truth


class TruthTerm(Term):
    """``truth``."""

    outputs: ClassVar[bool] = True

    def __init__(self, term: spec.Truth, task: Task) -> None:
        super().__init__()
        self.term, self.task = term, task

    def applies(self, taught: Taught) -> Tensor:
        """Where the truth is known."""
        if taught.truth is None:
            return torch.zeros(len(taught.sample), dtype=torch.bool, device=taught.sample.device)
        if self.task == "multilabel":
            return ~torch.isnan(taught.truth).any(dim=1)
        if self.task == "tagging":
            return (taught.truth != NO_TRUTH).any(dim=1)
        return ~torch.isnan(taught.truth) if self.task == "regression" else taught.truth != NO_TRUTH

    def forward(self, said: Said, taught: Taught) -> Tensor:
        """See the module; 0 where the truth is not known."""
        if said.logits is None:
            raise ConfigError("student.objective", "truth", "needs rows with labels and the student's output")
        output, known_B = precise(said.logits), self.applies(taught)
        if taught.truth is None:
            return output.new_zeros(len(output))
        if self.task == "regression":
            value_B, scale_B = output[:, 0], output[:, 1]
            error_B = torch.where(known_B, taught.truth - value_B, torch.zeros_like(value_B))
            loss_B = torch.log(scale_B) + error_B**2 / (2 * scale_B**2)
        elif self.task == "multilabel":
            target_BC = torch.where(known_B.unsqueeze(1), taught.truth, torch.zeros_like(taught.truth))
            loss_B = functional.binary_cross_entropy_with_logits(output, target_BC.to(output.dtype), reduction="none")
            loss_B = loss_B.sum(dim=1)
        elif self.task == "tagging":
            loss_B = token_truth(output, taught.truth)
        else:
            loss_B = functional.cross_entropy(
                output, taught.truth.clamp_min(0), reduction="none", label_smoothing=self.term.smoothing
            )
        return torch.where(known_B, loss_B, torch.zeros_like(loss_B))
