"""A network for tables: embedded categories beside numbers, and hidden layers.

Shapes: B inputs, N numbers, M categories, D ``dim``, H hidden units of the last layer, C outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from components.distill.networks.contract import needs
from components.distill.networks.units import kept, linear, watched
from components.student.features import Features, Signature


class TableNetwork(nn.Module):  # type: ignore[misc]  # torch is not followed by the type checker
    """Logits (B, C) of a row: its numbers, which of them are missing, and its categories' ids.

    ``dim``: of a category's embedding; ``hidden``: units of each layer. Embeddings begin at zero, so that a value that
    was never learnt from says nothing.
    """

    def __init__(
        self, *, task: str, inputs: Signature, outputs: int, dim: int = 8, hidden: Sequence[int] = (64, 32)
    ) -> None:
        super().__init__()
        found = needs(inputs, numbers=("float32", 2), missing=("float32", 2), categories=("int64", 2), of_them=1)
        width = sum(int(found[name].shape[1]) for name in ("numbers", "missing") if name in found)
        self.embedding = None
        if "categories" in found:
            self.embedding = nn.Embedding(found["categories"].below or 0, dim)
            nn.init.zeros_(self.embedding.weight)
            width += dim * int(found["categories"].shape[1])
        sizes = [width, *hidden]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.head = nn.Linear(sizes[-1], outputs)

    def forward(
        self, numbers: Tensor | None = None, missing: Tensor | None = None, categories: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The logits, and the last hidden layer: ``pooled``, (B, H)."""
        given = [array for array in (numbers, missing) if array is not None]
        if self.embedding is not None and categories is not None:
            given.append(self.embedding(categories).flatten(1))
        pooled = torch.cat(given, dim=1)
        for layer in self.layers:
            pooled = torch.relu(layer(pooled))
        return {"logits": self.head(pooled), "pooled": pooled}

    def cut(self, features: Features, share: float) -> TableNetwork:
        """Remove ``share`` of each hidden layer's units (:func:`components.distill.networks.units.kept`)."""
        following = [*self.layers[1:], self.head] if len(self.layers) else []
        given = watched(self, following, features)
        with torch.no_grad():
            for i, after in enumerate(following):
                stay = kept(after, given[i], share)
                self.layers[i] = linear(self.layers[i].weight[stay], self.layers[i].bias[stay])
                smaller = linear(after.weight[:, stay], after.bias)
                if i + 1 < len(self.layers):
                    self.layers[i + 1] = smaller
                else:
                    self.head = smaller
        return self
