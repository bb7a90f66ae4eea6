"""Real and padded positions: means over the real ones, and what two sides have in common.

A padded position may hold anything, NaN included, and changes nothing; a row without a real position has a mean of 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from components.contracts.errors import ConfigError
from components.distill.terms.contract import Said, Taught


def real(values: Tensor, mask_BL: Tensor | None) -> Tensor:
    """(B, L, ...) with 0 at padded positions."""
    if mask_BL is None:
        return values
    return values.masked_fill(~mask_BL.view(*mask_BL.shape, *[1] * (values.dim() - 2)), 0.0)


def mean_over_real(values_BL: Tensor, mask_BL: Tensor | None) -> Tensor:
    """The mean of each row over its real positions: (B, L, ...) to (B, ...)."""
    if mask_BL is None:
        return values_BL.mean(dim=1)
    counts_B = mask_BL.sum(dim=1).clamp_min(1)
    return real(values_BL, mask_BL).sum(dim=1) / counts_B.view(-1, *[1] * (values_BL.dim() - 2))


def pooled(state: Tensor, mask_BL: Tensor | None) -> Tensor:
    """One vector a row: (B, D) as it is, (B, L, D) as the mean over its real positions.

    Raises:
        ConfigError: the state is neither.

    """
    if state.dim() == 2:
        return state
    if state.dim() == 3:
        return mean_over_real(state, mask_BL)
    raise ConfigError("state", tuple(state.shape), "must be (rows, width) or (rows, positions, width)")


def positions(said: Said, taught: Taught, length: int, other: int) -> Tensor | None:
    """The mask that both sides share, over the positions that both have: (B, min(L, L')); None: all are real.

    ``length`` and ``other`` are the positions of the student's and of the teacher's state.

    Raises:
        ConfigError: the two have other real positions, so that they cannot be compared one by one.

    """
    if length == other and said.mask is taught.mask:
        return said.mask
    shorter = min(length, other)
    masks = [
        torch.ones(len(taught.sample), size, dtype=torch.bool, device=taught.sample.device) if m is None else m
        for m, size in ((said.mask, length), (taught.mask, other))
    ]
    heads = [mask[:, :shorter] for mask in masks]
    if not torch.equal(*heads) or any(bool(mask[:, shorter:].any()) for mask in masks):
        raise ConfigError(
            "states", f"{length} and {other} positions", "are real at other places in student and teacher: "
            "cut both into the same tokens, or compare pooled states",
        )  # fmt: skip
    return heads[0]
