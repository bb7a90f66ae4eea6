"""Divergence of the distributions of tokens, and what truth says of them, for tagging.

With p_l = softmax(log teacher_l / T), q_l = softmax(logits_l / T) of the L tokens of a text that are there:

    ``T² / L sum_l sum_c p_l,c (log p_l,c - log q_l,c)``

the mean over a text's tokens of the divergence of Hinton, Vinyals & Dean (arXiv 1503.02531), as token-level
distillation has it (Y. Kim & A. M. Rush, "Sequence-level knowledge distillation", EMNLP 2016, arXiv 1606.07947, section
3.1), and of truth ``-1 / L sum_l log softmax(logits_l)_y``, over the tokens whose true tag the student has. A text
counts as much as any other, however long it is: it is texts that are answered, judged and drawn.

Shapes: logits (B, L, C), soft (B, L, C), zero where there is no token, truth (B, L), class indices or ``NO_TRUTH``,
loss (B,) in nats.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from components.contracts.spec import objective as spec
from components.distill.terms.contract import Said, Taught, Term, answers, precise
from components.distill.terms.soft import logits_of


class TokenKlTerm(Term):
    """``token-kl``."""

    outputs: ClassVar[bool] = True

    def __init__(self, term: spec.TokenKl) -> None:
        super().__init__()
        self.term = term
        self.ready = f"token log p at {term.temperature}"

    def prepared(self, taught: Taught) -> dict[str, Tensor]:
        """The teacher's log p."""
        return {} if taught.soft is None else {self.ready: self._log(logits_of(precise(taught.soft)))}

    def forward(self, said: Said, taught: Taught) -> Tensor:
        """See the module; 0 of a text without tokens."""
        student_BLC, soft_BLC = answers(said, taught)
        p = taught.ready[self.ready] if self.ready in taught.ready else self._log(logits_of(soft_BLC))
        divergence_BL = (p.exp() * (p - self._log(student_BLC))).sum(dim=2)
        return mean_of(divergence_BL, soft_BLC.sum(dim=2) > 0) * self.term.temperature**2

    def _log(self, logits_BLC: Tensor) -> Tensor:
        return torch.log_softmax(logits_BLC / self.term.temperature, dim=2)


def mean_of(values_BL: Tensor, there_BL: Tensor) -> Tensor:
    """The mean over the tokens that are there: (B, L), (B, L) to (B,); 0 where none is."""
    kept_BL = torch.where(there_BL, values_BL, torch.zeros_like(values_BL))
    return kept_BL.sum(dim=1) / there_BL.sum(dim=1).clamp(min=1)


def token_truth(logits_BLC: Tensor, truth_BL: Tensor) -> Tensor:
    """What truth says of the tokens whose true tag is known (not negative), by text: (B,); see the module."""
    loss_BL = functional.cross_entropy(logits_BLC.transpose(1, 2), truth_BL.clamp_min(0), reduction="none")
    return mean_of(loss_BL, truth_BL >= 0)
