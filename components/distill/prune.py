"""Structured pruning: a trained network without its least important units, and what it learns to answer again.

Shapes: N rows, D dimensions of the embedding, H hidden units, C outputs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from components.distill.data import NO_TRUTH, TrainingSet
from components.distill.grow import Arrays
from components.distill.loop import TORCH_THREADS
from components.distill.model import StudentNet, value_and_scale
from components.student.card import StudentCard

BATCH = 256
"""Rows that are looked at together; more take memory and save no time."""


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """A smaller network: its weights, its card, and the rows by which it learns to answer as the larger one does."""

    state: Arrays
    card: StudentCard
    lesson: TrainingSet


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What went through a network: into its hidden layer (N, D), into its head (N, H), and out of it (N, C)."""

    into_hidden: Tensor
    into_head: Tensor
    out: Tensor


def pruned(state: Arrays, card: StudentCard, data: TrainingSet, share: float) -> Pruned:
    """Remove ``share`` of the embedding's dimensions and as much of the hidden units, at most all but one of each.

    What goes is what moves the next layer least over ``data``: a unit counts by its deviation times the norm of the
    weights that it feeds, and its mean stays, in the next layer's bias. So a unit that never changes costs nothing.
    Norms of whole units are what H. Li et al., "Pruning filters for efficient ConvNets" (ICLR 2017) prune by; the
    deviation makes up for inputs of different scales.
    """
    torch.set_num_threads(TORCH_THREADS)  # sums over more threads differ in their last digits
    net = StudentNet.of(card)
    net.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in state.items()})
    seen = _watch(net, data)
    with torch.no_grad():
        dims, units = _cut(net.hidden, seen.into_hidden, share), _cut(net.head, seen.into_head, share)
    whole = net.state_dict()
    small = {
        "embedding.weight": whole["embedding.weight"][:, dims],
        **{name: whole[name][dims] for name in ("norm.weight", "norm.bias") if name in whole},
        "hidden.weight": whole["hidden.weight"][units][:, dims],
        "hidden.bias": whole["hidden.bias"][units],
        "head.weight": whole["head.weight"][:, units],
        "head.bias": whole["head.bias"],
    }
    return Pruned(
        state={k: v.contiguous().numpy() for k, v in small.items()},
        card=msgspec.structs.replace(card, dim=len(dims), hidden=len(units)),
        lesson=_lesson(card, data, seen.out),
    )


def _watch(net: StudentNet, data: TrainingSet) -> Seen:
    caught: dict[str, list[Tensor]] = {"hidden": [], "head": []}
    layers = {"hidden": net.hidden, "head": net.head}
    hooks = [
        layer.register_forward_pre_hook(lambda _, given, name=name: caught[name].append(given[0]))
        for name, layer in layers.items()
    ]
    out = []
    with torch.no_grad():
        for first in range(0, len(data.ids), BATCH):
            rows = slice(first, first + BATCH)
            out.append(net(torch.tensor(data.ids[rows]), torch.tensor(data.weights[rows])))
    for hook in hooks:
        hook.remove()
    return Seen(into_hidden=torch.cat(caught["hidden"]), into_head=torch.cat(caught["head"]), out=torch.cat(out))


def _cut(layer: nn.Linear, given: Tensor, share: float) -> Tensor:
    """Places of a layer's inputs that stay; the mean of the others goes into its bias."""
    count = min(round(share * layer.in_features), layer.in_features - 1)
    weight = layer.weight.detach().clone()
    moves = weight * given.std(dim=0, correction=0)
    prune.ln_structured(layer, "weight", amount=count, n=2, dim=1, importance_scores=moves)
    stays = layer.weight_mask[0] != 0
    prune.remove(layer, "weight")
    layer.bias += weight[:, ~stays] @ given[:, ~stays].mean(dim=0)
    return stays.nonzero().flatten()


def _lesson(card: StudentCard, data: TrainingSet, out: Tensor) -> TrainingSet:
    """The same rows with the larger network's answers in the teacher's place, and no truth: parity is all it is for."""
    if card.task == "regression":
        soft = torch.stack(value_and_scale(out), dim=1)
        return replace(data, soft=soft.numpy(), truth=np.full(len(out), np.nan, dtype=np.float32))
    return replace(data, soft=torch.softmax(out, dim=1).numpy(), truth=np.full(len(out), NO_TRUTH, dtype=np.int64))
