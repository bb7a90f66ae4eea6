"""Any network, told what is known of an input's entity: what its head is fed is scaled and shifted by it.

Feature-wise linear modulation (E. Perez et al., "FiLM", AAAI 2018, arXiv 1709.07871): h becomes h * (1 + s(e)) + t(e).
The product lets an entity change what the payload means, which a sum could not; it stands at the one place that all
networks have. It begins as the network is by itself, with s = t = 0.

Shapes: B inputs, K numbers of the entity, H what the head is fed.
"""

from __future__ import annotations

from typing import Any

import torch
from onnx import helper
from torch import Tensor, nn

from components.distill.graph import Body
from components.distill.graph import linear as linear_nodes
from components.student.entity import ENTITY
from components.student.features import Features

UNITS = 32
"""Of the layer between the entity's numbers and the scale and shift."""

TRACE = 1e-30
"""Times its number is what a row of the head says of a unit while units are cut: too little to count for any."""


class WithEntity(nn.Module):  # type: ignore[misc]  # torch is not followed by the type checker
    """A network (``net``, its head at the path ``head``) with ``width`` numbers of the entity beside its inputs."""

    def __init__(self, net: nn.Module, head: str, width: int) -> None:
        super().__init__()
        fed = net.get_submodule(head).in_features
        self.net, self._head, self.HEAD = net, head, f"net.{head}"
        self.known = nn.Linear(width, UNITS)
        self.scale, self.shift = nn.Linear(UNITS, fed), nn.Linear(UNITS, fed)
        for layer in (self.scale, self.shift):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def __getattr__(self, name: str) -> Any:
        """What the network itself has of the contract's optional parts."""
        if name in ("begin", "QUANTISED", "RATE"):
            return getattr(super().__getattr__("net"), name)
        return super().__getattr__(name)

    @property
    def TABLE(self) -> tuple[str, str]:
        """Where the network's table lies now."""
        path, array = self.net.TABLE
        return f"net.{path}", array

    def forward(self, entity: Tensor, **features: Tensor) -> Tensor | dict[str, Tensor]:
        """Apply the network, what its head is fed modulated."""
        known = torch.relu(self.known(entity))
        scale, shift = self.scale(known), self.shift(known)

        def modulated(_head: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
            state, by, further = (
                given[0],
                scale,
                shift,
            )  # (B, H), or (B, ..., H) of a head that is called at every place
            for _ in range(state.dim() - 2):
                by, further = by.unsqueeze(1), further.unsqueeze(1)
            return (state * (1 + by) + further,)

        hook = self.net.get_submodule(self._head).register_forward_pre_hook(modulated)
        try:
            said: Tensor | dict[str, Tensor] = self.net(**features)
            return said
        finally:
            hook.remove()

    @property
    def graph(self) -> Any:
        """Its own ONNX graph, where the network writes one that says what its head is fed."""
        if not getattr(self.net, "FED", None):
            raise AttributeError("graph")
        return self._graph

    def _graph(self) -> Body:
        made, fed = self.net.graph(), self.net.FED
        constants: dict[str, Any] = {}
        nodes = [
            *linear_nodes("entity_known", ENTITY, "entity_before", self.known, constants),
            helper.make_node("Relu", ["entity_before"], ["entity_after"]),
            *linear_nodes("entity_scale", "entity_after", "entity_by", self.scale, constants),
            *linear_nodes("entity_shift", "entity_after", "entity_further", self.shift, constants),
            helper.make_node("Mul", [fed, "entity_by"], ["entity_scaled"]),
            helper.make_node("Add", [fed, "entity_scaled"], ["entity_sum"]),
            helper.make_node("Add", ["entity_sum", "entity_further"], ["entity_modulated"]),
        ]
        at = next(i for i, node in enumerate(made.nodes) if fed in node.input)
        for node in made.nodes[at:]:
            node.input[:] = ["entity_modulated" if name == fed else name for name in node.input]
        whole = [*made.nodes[:at], *nodes, *made.nodes[at:]]
        return Body(nodes=whole, constants=made.constants | constants, state=made.state)

    @property
    def cut(self) -> Any:
        """Its own pruning, where the network has one."""
        if not hasattr(self.net, "cut"):
            raise AttributeError("cut")
        return self._cut

    def _cut(self, features: Features, share: float) -> WithEntity:
        """Cut the network, and of scale and shift what its head is fed no longer: a further row of the head tells."""
        head = self.net.get_submodule(self._head)
        with torch.no_grad():
            trace = TRACE * torch.arange(1, head.in_features + 1, dtype=head.weight.dtype)
            bias = torch.cat([head.bias, head.bias.new_zeros(1)])
            self.net.set_submodule(self._head, _layer(torch.cat([head.weight, trace[None]]), bias))
            self.net = self.net.cut({name: array for name, array in features.items() if name != ENTITY}, share)
            head = self.net.get_submodule(self._head)
            stay = (head.weight[-1] / TRACE).round().long() - 1
            self.net.set_submodule(self._head, _layer(head.weight[:-1], head.bias[:-1]))
            self.scale, self.shift = (_layer(x.weight[stay], x.bias[stay]) for x in (self.scale, self.shift))
        return self


def _layer(weight: Tensor, bias: Tensor) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0])
    made.weight.copy_(weight)
    made.bias.copy_(bias)
    return made


def modules_of(net: nn.Module) -> dict[str, nn.Module]:
    """A network's modules by the paths that it has by itself."""
    return dict((net.net if isinstance(net, WithEntity) else net).named_modules())
