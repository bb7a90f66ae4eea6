"""A network and what it learns by, as one module: what a step of training calls, and what several workers share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from components.contracts.errors import ConfigError
from components.contracts.records import Task
from components.contracts.spec.objective import Term, check_states
from components.distill.networks.contract import logits, value_and_scale
from components.distill.terms import Objective, Said, Shapes, Taught

FEATURE, STATE = "feature.", "state."
"""What names of a batch's tensors begin with that are the student's inputs, and the teacher's states."""

MASK = "mask"
"""The student's input, or inner state, that says which positions are real."""


class Lesson(nn.Module):  # type: ignore[misc]  # torch is not followed by the type checker
    """``forward(batch, at)`` is the objective's loss of a batch, and the part of it that each term has.

    ``sample``: some rows of the batch, from which the widths of the states are read. States of the student are what it
    returns by name, else what the module of that path gives.

    Raises:
        ConfigError: a term names a state that the network or the teacher does not have.

    """

    def __init__(
        self, net: nn.Module, terms: Sequence[Term], task: Task, sample: dict[str, Tensor], *, seed: int
    ) -> None:
        super().__init__()
        self.net, self.task = net, task
        self._wanted = sorted({name for term in terms for name in term.student_states})
        self._caught: dict[str, Tensor] = {}
        for name, module in net.named_modules():
            if name in self._wanted:
                module.register_forward_hook(self._catch(name))
        was = net.training
        net.eval()
        with torch.no_grad():
            said, taught = self._said(sample), _taught(sample)
        net.train(was)
        there = {*said.states, *(name for name, _ in net.named_modules() if name)}
        check_states(terms, student=there, teacher=taught.states)
        self.objective = Objective(terms, task, Shapes.of(said, taught), seed=seed)

    def forward(self, batch: dict[str, Tensor], at: float) -> tuple[Tensor, dict[str, Tensor]]:
        """See the class."""
        found: tuple[Tensor, dict[str, Tensor]] = self.objective(self._said(batch), _taught(batch), at)
        return found

    def losses(self, batch: dict[str, Tensor], at: float) -> Tensor:
        """Each term's part of each row's loss: (K, B)."""
        found: Tensor = self.objective.losses(self._said(batch), _taught(batch), at)
        return found

    def returned(self, batch: dict[str, Tensor]) -> tuple[str, ...]:
        """Names of what the network returns beside its logits."""
        with torch.no_grad():
            out = self.net(**_features(batch))
        return tuple(out) if isinstance(out, dict) else ()

    def _said(self, batch: dict[str, Tensor]) -> Said:
        features = _features(batch)
        self._caught.clear()
        out = self.net(**features)
        returned = out if isinstance(out, dict) else {}
        states = {name: returned[name] if name in returned else self._caught[name] for name in self._there(returned)}
        answer = logits(out).float()
        if self.task == "regression":
            answer = torch.stack(value_and_scale(answer), dim=1)
        mask = returned.get(MASK, features.get(MASK))
        return Said(logits=answer, states=states, mask=None if mask is None else mask.bool())

    def _there(self, returned: dict[str, Any]) -> list[str]:
        return [name for name in self._wanted if name in returned or name in self._caught]

    def _catch(self, name: str) -> Any:
        def hook(_module: nn.Module, _given: Any, out: Any) -> None:
            if not isinstance(out, Tensor):
                raise ConfigError("student.objective", name, "gives no tensor: name a module that does")
            self._caught[name] = out

        return hook


def _features(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(FEATURE): t for name, t in batch.items() if name.startswith(FEATURE)}


def _taught(batch: dict[str, Tensor]) -> Taught:
    states = {name.removeprefix(STATE): t for name, t in batch.items() if name.startswith(STATE)}
    return Taught(soft=batch.get("soft"), truth=batch.get("truth"), states=states, mask=batch.get("mask"))
