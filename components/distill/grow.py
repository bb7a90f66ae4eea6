"""A student's classes over its life: new ones extend its head, and the rows of the old ones are kept exactly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from components.contracts.records import SoftLabel, set_of

Arrays = Mapping[str, npt.NDArray[Any]]
"""A network's weights by PyTorch's names."""

NEW_ROW_DEVIATION = 0.01
"""Deviation of a new class's weights: near zero, so that it starts out neither likely nor unlikely anywhere."""


def classes_of(soft: Iterable[SoftLabel], before: Sequence[str]) -> tuple[str, ...]:
    """The classes of a student's head: those it had, then the teacher's new ones in alphabetical order.

    Those of multilabel are what the teacher's sets have in them.
    """
    found = {name for s in soft for name in (set_of(s.label) if s.task == "multilabel" else (s.label,))}
    return (*before, *sorted(found - set(before)))


def grow_head(
    state: Arrays, head: str, old: Sequence[str], new: Sequence[str], seed: int
) -> dict[str, npt.NDArray[Any]]:
    """A state whose ``head`` has rows for ``new``: those of ``old`` are kept exactly, others start near zero.

    ``head``: path of the Linear layer that gives the logits. A new class's bias is the mean of the old ones'.

    Raises:
        ValueError: a class of ``old`` is not in ``new``: a label space only grows.

    """
    if missing := [c for c in old if c not in new]:
        raise ValueError(f"classes {missing} would be lost: a label space only grows")
    matrix, shift = f"{head}.weight", f"{head}.bias"
    width = state[matrix].shape[1]
    chance = np.random.default_rng(seed)
    weight = (chance.standard_normal((len(new), width)) * NEW_ROW_DEVIATION).astype(np.float32)
    places = [new.index(c) for c in old]
    weight[places] = state[matrix]
    if shift not in state:
        return {**state, matrix: weight}
    bias = np.full(len(new), state[shift].mean(), dtype=np.float32)
    bias[places] = state[shift]
    return {**state, matrix: weight, shift: bias}
