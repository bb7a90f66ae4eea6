"""Divergence of distributions.

With p = softmax(log teacher / T), q = softmax(logits / T), and the direction

* ``forward``: ``T² sum_c p (log p - log q)`` (Hinton, Vinyals & Dean, "Distilling the knowledge in a neural network",
  arXiv 1503.02531);
* ``reverse``: ``T² sum_c q (log q - log p)``;
* ``jensen-shannon``: ``T² (b KL(p || m) + (1 - b) KL(q || m))``, m = b p + (1 - b) q (Agarwal et al., "On-policy
  distillation of language models", arXiv 2306.13649).

T² keeps the gradients' size at any temperature. Standardised, the logits of both sides are (z - mean) / deviation over
the classes before they are divided by T (Sun et al., "Logit standardization in knowledge distillation", arXiv
2403.01427): the loss is then 0 for every student whose logits are those of the teacher times a > 0, plus b.

Shapes: logits (B, C), soft (B, C), loss (B,) in nats.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from components.contracts.spec import objective as spec
from components.distill.terms.contract import Said, Taught, Term, answers, precise
from components.distill.terms.soft import logits_of

VARIANCE_FLOOR = 1e-6
"""Added to the variance of logits: keeps the gradient finite where a fresh head says the same of every class."""

DEFAULT_BETA = 0.5


class KlTerm(Term):
    """``kl``."""

    outputs: ClassVar[bool] = True

    def __init__(self, term: spec.Kl) -> None:
        super().__init__()
        self.term = term
        self.beta = DEFAULT_BETA if term.beta is None else term.beta
        self.ready = f"log p at {term.temperature}{', standardised' if term.standardise else ''}"

    def prepared(self, taught: Taught) -> dict[str, Tensor]:
        """The teacher's log p."""
        return {} if taught.soft is None else {self.ready: self._log(logits_of(precise(taught.soft)))}

    def forward(self, said: Said, taught: Taught) -> Tensor:
        """See the module."""
        student_BC, soft_BC = answers(said, taught)
        p = taught.ready[self.ready] if self.ready in taught.ready else self._log(logits_of(soft_BC))
        return self._divergence(p, self._log(student_BC)) * self.term.temperature**2

    def _log(self, logits_BC: Tensor) -> Tensor:
        if self.term.standardise:
            logits_BC = _standardised(logits_BC)
        return torch.log_softmax(logits_BC / self.term.temperature, dim=1)

    def _divergence(self, p: Tensor, q: Tensor) -> Tensor:
        if self.term.direction == "forward":
            return _kl(p, q)
        if self.term.direction == "reverse":
            return _kl(q, p)
        mixture = torch.logaddexp(p + math.log(self.beta), q + math.log1p(-self.beta))
        return self.beta * _kl(p, mixture) + (1 - self.beta) * _kl(q, mixture)


def _kl(of: Tensor, to: Tensor) -> Tensor:
    """KL of two distributions given by their logarithms: (B, C), (B, C) to (B,)."""
    return (of.exp() * (of - to)).sum(dim=1)


def _standardised(logits_BC: Tensor) -> Tensor:
    centred = logits_BC - logits_BC.mean(dim=1, keepdim=True)
    return centred / torch.sqrt(centred.square().mean(dim=1, keepdim=True) + VARIANCE_FLOOR)
