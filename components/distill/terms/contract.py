"""What a term gets, and what it must give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from components.contracts.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Said:
    """What the student says of a batch.

    ``logits``: (B, C); for tagging (B, L, C), of L tokens; for regression (B, 2), the value and the scale (> 0) in the
    unit that the student learns in; for embedding (B, D + 1), the vector at length 1 and the distance that it expects
    (> 0); None where no term against outputs is asked. ``states``: its inner states by name, (B, D) or (B, L, D), or
    attention maps (B, H, L, L). ``mask``: (B, L), True at real positions; None where all are. What stands in states at
    padded positions counts for nothing.
    """

    logits: Tensor | None
    states: Mapping[str, Tensor] = field(default_factory=dict)
    mask: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Taught:
    """What is known of the same batch.

    ``soft``: the teacher's probabilities (B, C), of multilabel each by itself, for tagging (B, L, C) with zeros at
    padding, or for regression (B, 2), its value and scale (> 0) in the student's unit, for embedding (B, D + 1), its
    vector at length 1 and its scale. ``truth``: (B,), for tagging (B, L), class index or ``NO_TRUTH``; for regression
    value or NaN; of multilabel (B, C), 1 of the classes that an input has, 0 of the others, NaN in a row that is not
    known. Both are None where the rows are unlabelled. ``states`` and ``mask``: as for the student, of the teacher.
    ``ready``: what an objective and its terms made of all this beforehand, by names of their own.
    """

    soft: Tensor | None
    truth: Tensor | None = None
    states: Mapping[str, Tensor] = field(default_factory=dict)
    mask: Tensor | None = None
    ready: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def sample(self) -> Tensor:
        """Some tensor of the batch, for its number of rows and its device."""
        tensors = (self.soft, self.truth, *self.states.values())
        return next(tensor for tensor in tensors if tensor is not None)


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Widths (last dimension) of the student's and of the teacher's states by name, which projections need."""

    student: Mapping[str, int] = field(default_factory=dict)
    teacher: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, said: Said, taught: Taught) -> Shapes:
        """The widths that one batch shows."""
        widths = ({name: int(state.shape[-1]) for name, state in side.states.items()} for side in (said, taught))
        return cls(student=next(widths), teacher=next(widths))


class Term(nn.Module):  # type: ignore[misc]  # torch is not followed by the type checker
    """One part of what is minimised.

    ``forward(said, taught)`` gives a loss for each row, (B,): finite whatever finite numbers come in, and a number
    even for the rows to which the term does not apply, whose loss nobody looks at. Parameters that a term has of its
    own (projections) are learnt beside the student.
    """

    outputs: ClassVar[bool]
    """Whether it compares outputs; else it compares states."""
    per_row: ClassVar[bool] = True
    """Whether a row's loss depends on this row alone; else it relates the rows of a batch."""

    def applies(self, taught: Taught) -> Tensor:
        """Of each row, whether the term has something to compare: (B,), bool."""
        return torch.ones(len(taught.sample), dtype=torch.bool, device=taught.sample.device)

    def prepared(self, taught: Taught) -> dict[str, Tensor]:
        """What it makes of each row, (N, ...), that stays the same while a student learns: found in ``taught.ready``.

        A name says all that the numbers hang on.
        """
        return {}

    def forward(self, said: Said, taught: Taught) -> Tensor:
        """The loss of each row: (B,)."""
        raise NotImplementedError


def precise(tensor: Tensor) -> Tensor:
    """The tensor in at least 32 bits: half precision loses what logarithms and squares are about."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def answers(said: Said, taught: Taught) -> tuple[Tensor, Tensor]:
    """The outputs of student and teacher, at least in 32 bits.

    Raises:
        ConfigError: one of them is not there, as on unlabelled rows.

    """
    if said.logits is None or taught.soft is None:
        raise ConfigError("student.objective", "a term against outputs", "needs rows that the teacher labelled")
    return precise(said.logits), precise(taught.soft)


def state(side: Said | Taught, name: str) -> Tensor:
    """A state by name, at least in 32 bits.

    Raises:
        ConfigError: there is none of that name.

    """
    if name not in side.states:
        who = "student" if isinstance(side, Said) else "teacher"
        raise ConfigError(f"{who} state", name, f"the {who} gives {', '.join(sorted(side.states)) or 'none'}")
    return precise(side.states[name])
