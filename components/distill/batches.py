"""The batches of a training run, in an order that its seed and the epoch decide."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from components.distill import columns
from components.distill.data import TrainingSet

if TYPE_CHECKING:
    import torch

    from components.distill.privacy import PrivateSteps

Batch = dict[str, "torch.Tensor"]
"""Tensors of a batch by name: :mod:`components.distill.lesson` says by which."""

BLOCK = 64
"""Batches whose rows are looked up together, which takes as long as for one or two."""


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of what chance decides in one epoch: a run that was interrupted goes on as it would have."""
    return seed * 1_000_003 + epoch


def tensors_of(data: TrainingSet, most: int | None = None) -> dict[str, torch.Tensor]:
    """The arrays of (the first ``most`` rows of) a training set by the names that a batch has them by, as they lie."""
    import torch

    return {name: torch.from_numpy(array[:most]) for name, array in data.arrays.items()}


def sample_of(data: TrainingSet, most: int, device: str = "cpu") -> dict[str, torch.Tensor]:
    """The first rows as a batch."""
    return {name: tensor.to(device) for name, tensor in tensors_of(data, most).items()}


def batch_size(net: torch.nn.Module, rows: int, size: int) -> int:
    """Rows of a batch: one more where a single row would be left over and the network normalises over the batch."""
    from torch.nn.modules.batchnorm import _BatchNorm

    lone = rows % size == 1 and any(isinstance(m, _BatchNorm) for m in net.modules())
    return size + 1 if lone else size


def gathered(column: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Some rows of a column; what they bring of a file into memory is given back."""
    if not columns.in_files():
        return column[rows]
    found = column.new_empty((len(rows), *column.shape[1:]))
    for span in columns.spans(len(rows), columns.APART):
        found[span] = column[rows[span]]
    return found


class Batches:
    """Shuffled batches of rows; one of several workers (``world``, ``rank``) has its share of them.

    All workers have equally many: the first rows of an epoch come twice where they do not part evenly. ``together``:
    batches of one step.
    """

    def __init__(
        self,
        rows: dict[str, torch.Tensor],
        size: int,
        *,
        seed: int,
        device: str,
        world: int = 1,
        rank: int = 0,
        together: int = 1,
    ) -> None:
        self._rows, self._size, self._seed, self._device, self._together = rows, size, seed, device, together
        self._world, self._rank = world, rank
        self._length = len(next(iter(rows.values())))
        self._each = math.ceil(self._length / world)

    def __len__(self) -> int:
        return math.ceil(self._each / self._size / self._together)

    def epoch(self, number: int, done: int) -> Iterator[list[Batch]]:
        """The batches of each step of an epoch without the first ``done``."""
        batches = self._batches(self._order(number)[done * self._together * self._size :])
        while step := list(itertools.islice(batches, self._together)):
            yield step

    def _batches(self, order: torch.Tensor) -> Iterator[Batch]:
        for some in order.split(BLOCK * self._size):
            block = {n: gathered(t, some).to(self._device).split(self._size) for n, t in self._rows.items()}
            for parts in zip(*block.values(), strict=True):
                yield dict(zip(block, parts, strict=True))

    def _order(self, epoch: int) -> torch.Tensor:
        import torch

        order = torch.randperm(self._length, generator=torch.Generator().manual_seed(epoch_seed(self._seed, epoch)))
        return order.repeat(2)[: self._each * self._world][self._rank :: self._world]


class DrawnBatches:
    """The batches that private steps draw."""

    def __init__(self, rows: dict[str, torch.Tensor], steps: PrivateSteps, device: str) -> None:
        self._rows, self._steps, self._device = rows, steps, device

    def __len__(self) -> int:
        return len(self._steps)

    def epoch(self, number: int, done: int) -> Iterator[list[Batch]]:
        """The batch of each step that is left of an epoch after ``done``; it is drawn when it is asked for."""
        for _ in range(done, len(self._steps)):
            some = self._steps.draw()
            yield [{name: gathered(t, some).to(self._device) for name, t in self._rows.items()}]
