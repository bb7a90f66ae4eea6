"""Dilated convolutions over a text's words, each of which is the mean of its hashed features.

After E. Strubell, P. Verga, D. Belanger & A. McCallum, "Fast and accurate entity recognition with iterated dilated
convolutions" (EMNLP 2017, arXiv 1702.02098); words as sums of hashed pieces after P. Bojanowski et al. (TACL 2017,
arXiv 1607.04606).

Shapes: B inputs, L words of the longest one, P pieces, D ``dim``, C outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.contracts.errors import ConfigError
from components.distill.networks.contract import FIELD, needs
from components.student.features import Signature

EMBEDDING_DEVIATION = 0.3
"""Of a fresh embedding; PyTorch's 1 takes a small student several epochs more to unlearn."""


class Tagger(nn.Module):  # type: ignore[misc]  # torch is not followed by the type checker
    """Logits (B, L, C) of the words that :class:`components.student.tagging.TaggedWords` makes ids of.

    ``width``: words that a filter sees, an odd number; ``layers``: of filters, each looks twice as far as the one
    before it, so that three of width 3 see 7 words on both sides; ``dropout``: of what they answer, in training.
    """

    TABLE = ("embedding", "ids")
    QUANTISED = ("Gather",)
    """Nearly all of its numbers are the embedding's."""

    def __init__(
        self,
        *,
        task: str,
        inputs: Signature,
        outputs: int,
        dim: int = 64,
        width: int = 3,
        layers: int = 3,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        buckets = needs(inputs, ids=("int64", 3))["ids"].below or 0
        for name, value, good, wanted in (
            ("width", width, width >= 1 and width % 2 == 1, "must be an odd number >= 1"),
            ("layers", layers, layers >= 1, "must be >= 1"),
            ("task", task, task == "tagging", "is no tagging: name another network"),
        ):
            if not good:
                raise ConfigError(f"{FIELD}.options.{name}", value, wanted)
        self.embedding = nn.Embedding(buckets, dim)
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_DEVIATION)
        self.first = nn.Linear(dim, dim)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(dim, dim, width, padding=(width // 2) * 2**i, dilation=2**i) for i in range(layers)
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(dim, outputs)

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        """The logits; ``mask`` (B, L), True at words; ``hidden`` (B, L, D), and its mean over words ``pooled`` (B, D).

        Padding is zero wherever a filter looks, so that an answer does not hang on the length of others.
        """
        there_BLP1 = ids.ne(0).unsqueeze(3).to(self.head.weight.dtype)
        words_BLD = (self.embedding(ids) * there_BLP1).sum(dim=2) / there_BLP1.sum(dim=2).clamp(min=1.0)
        real_BL = ids.ne(0).any(dim=2)
        real_B1L = real_BL.unsqueeze(1).to(self.head.weight.dtype)
        hidden_BDL = torch.relu(self.first(words_BLD)).transpose(1, 2) * real_B1L
        for convolution in self.convolutions:
            hidden_BDL = (hidden_BDL + self.dropout(torch.relu(convolution(hidden_BDL)))) * real_B1L
        hidden_BLD = hidden_BDL.transpose(1, 2)
        pooled = hidden_BDL.sum(dim=2) / real_B1L.sum(dim=2).clamp(min=1.0)
        logits_BLC = self.head(self.dropout(hidden_BLD))
        return {"logits": logits_BLC, "mask": real_BL, "hidden": hidden_BLD, "pooled": pooled}
