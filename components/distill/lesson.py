"""A network and what it learns by, as one module: what a step of training calls, and what several workers share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from components.contracts.errors import ConfigError
from components.contracts.records import Task
from components.contracts.spec.objective import FIELD, VECTOR, Term, check_states, imitating
from components.distill import columns
from components.distill.data import FEATURE, STATE
from components.distill.networks.contract import logits, measured, probabilities
from components.distill.networks.entity import modules_of
from components.distill.terms import Objective, Said, Shapes, Taught, build

READY = "ready."
"""What names of tensors begin with that terms made beforehand, followed by the number of the member."""

MASK = "mask"
"""The student's input, or inner state, that says which positions are real."""


class Lesson(nn.Module):  # type: ignore[misc]  # torch is not followed by the type checker
    """``forward(batch, at)`` is the objective's loss of a batch, and the part of it that each term has.

    ``peers``: what learns beside it, by which terms, and where the spec has these, with ``mutual`` as the weight of the
    mean divergence of each one's answers from those of each other (arXiv 1706.00384); the loss is then the sum of all
    members', and the parts are this one's. ``sample``: some rows of the batch, from which the widths of the states are
    read. States of the student are what it returns by name, else what the module of that path gives. ``field``: where
    the spec has the terms.

    Raises:
        ConfigError: a term names a state that the network or the teacher does not have.

    """

    def __init__(
        self,
        net: nn.Module,
        terms: Sequence[Term],
        task: Task,
        sample: dict[str, Tensor],
        *,
        seed: int,
        peers: Sequence[tuple[nn.Module, Sequence[Term], str]] = (),
        mutual: float = 0.0,
        field: str = FIELD,
    ) -> None:
        super().__init__()
        self.peers = nn.ModuleList(Lesson(peer, own, task, sample, seed=seed, field=at) for peer, own, at in peers)
        self._mutual, self._between = mutual, build(imitating(task, 1.0), task, Shapes())
        self.net, self.task = net, task
        self._wanted = sorted({name for term in terms for name in term.student_states})
        self._caught: dict[str, Tensor] = {}
        for name, module in modules_of(net).items():
            if name in self._wanted:
                first = next(i for i, term in enumerate(terms) if name in term.student_states)
                module.register_forward_hook(self._catch(name, f"{field}[{first}].student"))
        was = net.training
        net.eval()
        with torch.no_grad():
            said, taught, returned = self._said(sample), self._taught(sample), self.returned(sample)
        net.train(was)
        own = {VECTOR} & said.states.keys()
        there = {*own, *returned, *(name for name in modules_of(net) if name)}
        check_states(terms, student=there, teacher=taught.states, field=field)
        self.objective = Objective(terms, task, Shapes.of(said, taught), seed=seed)

    def forward(self, batch: dict[str, Tensor], at: float) -> tuple[Tensor, dict[str, Tensor]]:
        """See the class."""
        if not self.peers:
            return self.objective(self._said(batch), self._taught(batch, 0), at)  # type: ignore[no-any-return]
        members = [self, *self.peers]
        said = [member._said(batch) for member in members]
        found = [member.objective(said[i], self._taught(batch, i), at) for i, member in enumerate(members)]
        between = [self._others(i, said) for i in range(len(said))]
        total = torch.stack([loss for loss, _ in found]).sum() + torch.stack(between).sum()
        return total, {**found[0][1], "mutual": between[0].detach()}

    def prepared(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rows with what the members' terms make of them that stays the same as long as they learn."""
        found = dict(rows)
        for i, member in enumerate((self, *self.peers)):
            made = columns.filled(len(next(iter(rows.values()))), partial(_ready, member.objective, rows))
            counting = member.objective.counting({name: torch.from_numpy(array) for name, array in made.items()})
            found |= {f"{READY}{i}.{name}": tensor for name, tensor in counting.items()}
        return found

    def _others(self, i: int, said: Sequence[Said]) -> Tensor:
        """How far a member's answers are from the others', whose are not moved by it."""
        others = [_answer(other, self.task) for j, other in enumerate(said) if j != i]
        losses = [self._between(said[i], Taught(soft=soft)).mean() for soft in others]
        return self._mutual * torch.stack(losses).mean()

    def losses(self, batch: dict[str, Tensor], at: float) -> Tensor:
        """Each term's part of each row's loss: (K, B)."""
        found: Tensor = self.objective.losses(self._said(batch), self._taught(batch), at)
        return found

    def returned(self, batch: dict[str, Tensor]) -> tuple[str, ...]:
        """Names of what the network returns beside its logits."""
        with torch.no_grad():
            return tuple(_returned(self.net(**_features(batch))))

    def _said(self, batch: dict[str, Tensor]) -> Said:
        features = _features(batch)
        self._caught.clear()
        out = self.net(**features)
        returned = _returned(out)
        states = {name: returned[name] if name in returned else self._caught[name] for name in self._there(returned)}
        answer = logits(out).float()
        if self.task in ("regression", "embedding"):
            answer = measured(answer, self.task)
        if self.task == "embedding":
            states[VECTOR] = answer[:, :-1]
        mask = returned.get(MASK, features.get(MASK))
        return Said(logits=answer, states=states, mask=None if mask is None else mask.bool())

    def _taught(self, batch: dict[str, Tensor], member: int | None = None) -> Taught:
        taught = _taught(batch, member)
        if self.task != "embedding" or taught.soft is None:
            return taught
        return replace(taught, states={**taught.states, VECTOR: taught.soft[:, :-1]})

    def _there(self, returned: dict[str, Any]) -> list[str]:
        return [name for name in self._wanted if name in returned or name in self._caught]

    def _catch(self, name: str, field: str) -> Any:
        def hook(_module: nn.Module, _given: Any, out: Any) -> None:
            if not isinstance(out, Tensor):
                raise ConfigError(field, name, "gives no tensor: name a module that does")
            self._caught[name] = out

        return hook


def _returned(out: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: state for name, state in out.items() if name != "logits"} if isinstance(out, dict) else {}


def _answer(said: Said, task: Task) -> Tensor:
    """What a member answers, as a teacher would: probabilities, or values and scales."""
    if said.logits is None:
        raise ConfigError("student.cohort", task, "learns from answers: a stage on states has none")
    answer = said.logits.detach()
    return answer if task == "regression" else probabilities(answer, task)


def _ready(objective: Objective, rows: dict[str, Tensor], span: slice) -> columns.Arrays:
    with torch.no_grad():
        made = objective.ready(_taught({name: tensor[span] for name, tensor in rows.items()}))
    return {name: tensor.numpy() for name, tensor in made.items()}


def _features(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(FEATURE): t for name, t in batch.items() if name.startswith(FEATURE)}


def _taught(batch: dict[str, Tensor], member: int | None = None) -> Taught:
    """What is known of a batch, and what was prepared of it for one member."""
    states = {name.removeprefix(STATE): t for name, t in batch.items() if name.startswith(STATE)}
    own = f"{READY}{member}."
    ready = {name.removeprefix(own): t for name, t in batch.items() if name.startswith(own)}
    return Taught(soft=batch.get("soft"), truth=batch.get("truth"), states=states, mask=batch.get("mask"), ready=ready)
