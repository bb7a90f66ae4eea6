"""Convolutions over a text: embeddings, filters of several widths, and the strongest answer of each.

After Y. Kim, "Convolutional neural networks for sentence classification" (EMNLP 2014, arXiv 1408.5882).

Shapes: B inputs, L places of the longest one, D ``dim``, F ``filters``, W widths, C outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from components.distill.networks.contract import needs
from components.distill.networks.units import kept, linear, watched
from components.student.features import Features, Signature

EMBEDDING_DEVIATION = 0.3
"""Of a fresh embedding; PyTorch's 1 takes a small student several epochs more to unlearn."""


class TextConvolution(nn.Module):  # type: ignore[misc]  # torch is not followed by the type checker
    """Logits (B, C) of a sequence of ids; places where ``mask`` is 0, or the id where there is no mask, are padding.

    ``widths``: places that a filter sees; ``filters``: of each width; ``dropout``: of what they answer, in training.
    """

    TABLE = ("embedding", "ids")
    EMBEDS = "pooled"
    QUANTISED = ("Gather",)
    """Nearly all of its numbers are the embedding's."""

    def __init__(
        self,
        *,
        task: str,
        inputs: Signature,
        outputs: int,
        dim: int = 64,
        filters: int = 64,
        widths: Sequence[int] = (1, 2, 3),
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        buckets = needs(inputs, ids=("int64", 2))["ids"].below or 0
        self.embedding = nn.Embedding(buckets, dim)
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_DEVIATION)
        self.convolutions = nn.ModuleList(nn.Conv1d(dim, filters, width) for width in widths)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(filters * len(widths), outputs)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """The logits, and what the filters found: ``pooled``, (B, W F)."""
        real_B1L = (ids if mask is None else mask).ne(0).unsqueeze(1).to(self.head.weight.dtype)
        embedded_BDL = self.embedding(ids).transpose(1, 2) * real_B1L
        found = []
        for convolution in self.convolutions:
            wide = nn.functional.pad(embedded_BDL, (0, convolution.kernel_size[0] - 1))
            found.append((torch.relu(convolution(wide)) * real_B1L).amax(dim=2))
        pooled = torch.cat(found, dim=1)
        return {"logits": self.head(self.dropout(pooled)), "pooled": pooled}

    def cut(self, features: Features, share: float) -> TextConvolution:
        """Remove ``share`` of the filters and as much of the embedding's dimensions, at most all but one of each.

        Filters of all widths by :func:`components.distill.networks.units.kept`; a width that has none left goes.
        Dimensions by the norm of what filters weigh them with, times their deviation over the embedding's rows that
        ``features`` name.
        """
        (fed,) = watched(self, [self.head], features)
        with torch.no_grad():
            stay = kept(self.head, fed, share)
            self.head = linear(self.head.weight[:, stay], self.head.bias)
            used = self.embedding.weight[torch.from_numpy(np.unique(features["ids"]))]
            parts, first = [], 0
            for convolution in self.convolutions:
                filters = stay[(stay >= first) & (stay < first + len(convolution.weight))] - first
                parts.append((convolution.weight[filters], convolution.bias[filters]))
                first += len(convolution.weight)
            moves = torch.cat([weight.flatten(2).norm(dim=2) for weight, _ in parts]).norm(dim=0) * used.std(dim=0)
            count = max(1, len(moves) - round(share * len(moves)))
            dims = moves.argsort(descending=True, stable=True)[:count].sort().values
            self.embedding = nn.Embedding.from_pretrained(self.embedding.weight[:, dims].contiguous(), freeze=False)
            self.convolutions = nn.ModuleList(
                _convolution(weight[:, dims], bias) for weight, bias in parts if len(bias)
            )
        return self


def _convolution(weight: Tensor, bias: Tensor) -> nn.Conv1d:
    made = nn.Conv1d(weight.shape[1], weight.shape[0], weight.shape[2])
    made.weight.copy_(weight)
    made.bias.copy_(bias)
    return made
