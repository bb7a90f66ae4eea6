"""Leaving the rows of an embedding that no input names out of a network while it learns."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from components.distill.columns import changed, spans
from components.distill.data import TrainingSet

if TYPE_CHECKING:
    import torch


def narrow(net: torch.nn.Module, data: TrainingSet) -> TrainingSet:
    """Leave the rows of an embedding that no input names out of a network, which then learns the same sooner.

    A row without a gradient is not moved by Adam, but takes as long as one that is. Returns the rows by new numbers.
    """
    used = used_rows(net, data)
    if used is None:
        return data
    import torch

    name, array = net.TABLE
    whole = net.get_submodule(name)
    weight = whole.weight.detach()[torch.from_numpy(used)].clone()
    net.set_submodule(name, type(whole).from_pretrained(weight, freeze=False))
    place = np.zeros(len(whole.weight), dtype=np.int64)
    place[used] = np.arange(len(used))
    return replace(data, features={**data.features, array: changed(data.features[array], lambda ids: place[ids])})


def widen(net: torch.nn.Module, state: dict[str, Any], data: TrainingSet) -> dict[str, Any]:
    """The weights of a whole network from those of one that was narrowed; ``net`` is as it was before."""
    used = used_rows(net, data)
    if used is None:
        return state
    key = f"{net.TABLE[0]}.weight"
    whole = net.state_dict()[key].numpy().copy()
    whole[used] = state[key]
    return {**state, key: whole}


def used_rows(net: torch.nn.Module, data: TrainingSet) -> npt.NDArray[np.int64] | None:
    """The rows of a network's table that inputs name, in order; None for a network that has no such table.

    Row 0 is among them: padding names it.
    """
    table = getattr(net, "TABLE", None)
    if table is None:
        return None
    used = np.zeros(len(net.get_submodule(table[0]).weight), dtype=bool)
    used[0] = True
    ids = data.features[table[1]]
    for span in spans(len(ids)):
        used[ids[span]] = True
    return np.flatnonzero(used)
