"""An ONNX graph that a network writes itself, from its inputs to its ``logits``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnx import helper

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Body:
    """``nodes`` in order, the last of which gives ``logits``; ``constants`` by name, as arrays.

    ``state``: the tensor, one vector an input, by which an input is told to be unlike what was learnt from.
    """

    nodes: list[Any]
    constants: dict[str, Any]
    state: str = "logits"


def linear(name: str, source: str, out: str, layer: nn.Linear, constants: dict[str, Any]) -> list[Any]:
    """The nodes of a Linear layer; its weights go into ``constants``."""
    constants[f"{name}_weight"] = layer.weight.detach().numpy().T
    constants[f"{name}_bias"] = layer.bias.detach().numpy()
    return [
        helper.make_node("MatMul", [source, f"{name}_weight"], [f"{name}_product"]),
        helper.make_node("Add", [f"{name}_product", f"{name}_bias"], [out]),
    ]
