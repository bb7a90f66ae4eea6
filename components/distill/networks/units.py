"""Linear layers without some of their inputs: what networks cut themselves by."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from components.distill.columns import sample, taken
from components.distill.networks.contract import tensors
from components.student.features import Features

WATCHED = 256
"""Rows that are looked at together before units are cut; more take memory and save no time."""

MOST_WATCHED = 20_000
"""Rows that are looked at; of more some are taken."""


def watched(net: nn.Module, layers: Sequence[nn.Module], features: Features) -> list[Tensor]:
    """What rows feed into layers of a network, (N, inputs) each; of a sequence every place counts as a row.

    Of very many rows some are taken.
    """
    caught: list[list[Tensor]] = [[] for _ in layers]
    hooks = [
        layer.register_forward_pre_hook(lambda _, given, i=i: caught[i].append(given[0].flatten(0, -2)))
        for i, layer in enumerate(layers)
    ]
    count = len(next(iter(features.values())))
    if count > MOST_WATCHED:
        rows = sample(count, MOST_WATCHED)
        features, count = {name: taken(array, rows) for name, array in features.items()}, len(rows)
    with torch.no_grad():
        for first in range(0, count, WATCHED):
            net(**tensors({name: array[first : first + WATCHED] for name, array in features.items()}))
    for hook in hooks:
        hook.remove()
    return [torch.cat(pieces) for pieces in caught]


def kept(layer: nn.Linear, given: Tensor, share: float) -> Tensor:
    """Places of a layer's inputs that stay when ``share`` of them goes, at most all but one.

    ``given``: what the layer is fed, (N, inputs). What goes is what moves the layer least: an input counts by its
    deviation times the norm of the weights that it feeds, and its mean stays, in the layer's bias. So an input that
    never changes costs nothing. Norms of whole units are what H. Li et al., "Pruning filters for efficient ConvNets"
    (ICLR 2017) prune by; the deviation makes up for inputs of different scales.
    """
    count = min(round(share * layer.in_features), layer.in_features - 1)
    weight = layer.weight.detach().clone()
    moves = weight * given.std(dim=0, correction=0)
    prune.ln_structured(layer, "weight", amount=count, n=2, dim=1, importance_scores=moves)
    stays = layer.weight_mask[0] != 0
    prune.remove(layer, "weight")
    layer.bias += weight[:, ~stays] @ given[:, ~stays].mean(dim=0)
    return stays.nonzero().flatten()


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A layer of these weights."""
    made = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        made.weight.copy_(weight)
        made.bias.copy_(bias)
    return made
