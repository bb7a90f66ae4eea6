"""The bag of features: a weighted sum of embedding rows, one hidden layer, and a head.

Shapes: B inputs, L ids of the longest one, V buckets, D ``dim``, H ``hidden``, C outputs.
"""

from __future__ import annotations

import numpy as np
import torch
from onnx import helper
from torch import Tensor, nn

from components.contracts.errors import ConfigError
from components.distill.graph import Body
from components.distill.graph import linear as linear_nodes
from components.distill.networks.units import kept, linear, watched
from components.student.features import Features, Signature, bag_signature

EMBEDDING_DEVIATION = 0.3
"""Deviation of a fresh embedding: a weighted sum over some hundred rows has to differ from input to input."""


class WeightedBag(nn.Embedding):  # type: ignore[misc]
    """An embedding that gives the weighted sum of an input's rows: (B, D) of ids and weights, (B, L) both.

    Opacus sees modules alone, and is told how long the gradient of one input is by :mod:`components.distill.privacy`.
    """

    def forward(self, ids: Tensor, weights: Tensor) -> Tensor:
        """Add up. Padding (weight 0) is left out before the look-up, which halves the time of a step."""
        kept_BL = weights != 0
        counts_B = kept_BL.sum(dim=1)
        summed_BD: Tensor = nn.functional.embedding_bag(
            ids[kept_BL],
            self.weight,
            offsets=counts_B.cumsum(0) - counts_B,
            mode="sum",
            per_sample_weights=weights[kept_BL],
        )
        return summed_BD


class BagOfFeatures(nn.Module):  # type: ignore[misc]  # torch is not followed by the type checker
    """Logits (B, C) of weighted bucket ids.

    In all tasks but regression the sum goes through a LayerNorm: over hashed n-grams it shrinks with their number.
    """

    TABLE = ("embedding", "ids")
    FED = "after"
    RATE = 0.01
    EMBEDS = "hidden"
    QUANTISED = ("Gather",)
    """Nearly all of its numbers are the embedding's: the matrices too would spare 1 % and double the error."""

    def __init__(self, *, task: str, inputs: Signature, outputs: int, dim: int = 32, hidden: int = 64) -> None:
        super().__init__()
        buckets = inputs["ids"].below if "ids" in inputs else None
        if buckets is None or dict(inputs) != bag_signature(buckets):
            raise ConfigError("student.network", sorted(inputs), "a bag of features takes weighted ids in buckets")
        self.embedding = WeightedBag(buckets, dim)
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_DEVIATION)
        self.norm = nn.LayerNorm(dim) if task != "regression" else None
        self.hidden = nn.Linear(dim, hidden)
        self.head = nn.Linear(hidden, outputs)

    def forward(self, ids: Tensor, weights: Tensor) -> Tensor:
        """Apply the network."""
        summed_BD = self.embedding(ids, weights)
        if self.norm is not None:
            summed_BD = self.norm(summed_BD)
        logits_BC: Tensor = self.head(torch.relu(self.hidden(summed_BD)))
        return logits_BC

    def graph(self) -> Body:
        """Its ONNX graph, node by node: exact, without the seconds that tracing takes and the loop that it writes.

        Novelty is read before the hidden layer, which has learnt to see nothing but what tells the classes apart: on
        CLINC150's domains one after another 82 % of a new one are found there at 5 % of the known ones, 63 % behind it.
        """
        constants = {"embedding": self.embedding.weight.detach().numpy(), "axis_1": np.array([1])}
        nodes = [
            helper.make_node("Gather", ["embedding", "ids"], ["rows"]),
            helper.make_node("Unsqueeze", ["weights", "axis_1"], ["weights_1"]),
            helper.make_node("MatMul", ["weights_1", "rows"], ["summed_1"]),
            helper.make_node("Squeeze", ["summed_1", "axis_1"], ["summed"]),
        ]
        last = "summed"
        if self.norm is not None:
            constants |= {
                "norm_weight": self.norm.weight.detach().numpy(),
                "norm_bias": self.norm.bias.detach().numpy(),
            }
            inputs = ["summed", "norm_weight", "norm_bias"]
            nodes.append(helper.make_node("LayerNormalization", inputs, ["normed"], axis=-1, epsilon=self.norm.eps))
            last = "normed"
        nodes += [
            *linear_nodes("hidden", last, "before", self.hidden, constants),
            helper.make_node("Relu", ["before"], ["after"]),
            *linear_nodes("head", "after", "logits", self.head, constants),
        ]
        return Body(nodes=nodes, constants=constants, state=last)

    def cut(self, features: Features, share: float) -> BagOfFeatures:
        """Remove ``share`` of the embedding's dimensions and as much of the hidden units, at most all but one of each.

        What goes is what moves the next layer least over ``features`` (:func:`components.distill.networks.units.kept`).
        """
        to_hidden, to_head = watched(self, [self.hidden, self.head], features)
        with torch.no_grad():
            dims, units = kept(self.hidden, to_hidden, share), kept(self.head, to_head, share)
            self.embedding = WeightedBag.from_pretrained(self.embedding.weight[:, dims].contiguous(), freeze=False)
            if self.norm is not None:
                norm = nn.LayerNorm(len(dims))
                norm.weight.copy_(self.norm.weight[dims])
                norm.bias.copy_(self.norm.bias[dims])
                self.norm = norm
            self.hidden = linear(self.hidden.weight[units][:, dims], self.hidden.bias[units])
            self.head = linear(self.head.weight[:, units], self.head.bias)
        return self
