"""The batches of a training run, in an order that its seed decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from components.distill.data import TrainingSet

if TYPE_CHECKING:
    import torch

    from components.distill.privacy import PrivateSteps


def sample_of(data: TrainingSet, most: int, device: str = "cpu") -> dict[str, torch.Tensor]:
    """The first rows as a batch."""
    return {name: tensor.to(device) for name, tensor in _Rows(data)[range(min(most, len(data)))].items()}


def batch_size(net: torch.nn.Module, rows: int, size: int) -> int:
    """Rows of a batch: one more where a single row would be left over and the network normalises over the batch."""
    from torch.nn.modules.batchnorm import _BatchNorm

    lone = rows % size == 1 and any(isinstance(m, _BatchNorm) for m in net.modules())
    return size + 1 if lone else size


def private_batches(data: TrainingSet, steps: PrivateSteps) -> Any:
    """The batches that private steps draw."""
    from torch.utils.data import DataLoader

    return DataLoader(_Rows(data), sampler=_Drawn(steps), batch_size=None)


def shuffled_batches(data: TrainingSet, size: int, generator: torch.Generator) -> Any:
    """Batches in an order that the generator decides."""
    from torch.utils.data import BatchSampler, DataLoader, RandomSampler

    order = RandomSampler(range(len(data)), generator=generator)
    return DataLoader(_Rows(data), sampler=BatchSampler(order, size, drop_last=False), batch_size=None)


def shared_batches(data: TrainingSet, size: int, seed: int, world: int, rank: int) -> Any:
    """One of several workers' batches, in an order that the seed and the epoch decide."""
    from torch.utils.data import BatchSampler, DataLoader, DistributedSampler

    order = DistributedSampler(range(len(data)), world, rank, seed=seed)
    return DataLoader(_Rows(data), sampler=BatchSampler(order, size, drop_last=False), batch_size=None)


class _Drawn:
    """The batches of private steps, as a sampler: each pass over it is an epoch."""

    def __init__(self, steps: PrivateSteps) -> None:
        self._steps = steps

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._steps.batches())


class _Rows:
    """The arrays of a training set as tensors by name, whole batches at a time."""

    def __init__(self, data: TrainingSet) -> None:
        import torch

        from components.distill.lesson import FEATURE, STATE

        arrays = {f"{FEATURE}{name}": a for name, a in data.features.items()}
        arrays |= {f"{STATE}{name}": a for name, a in data.states.items()}
        arrays |= {name: a for name in ("soft", "truth", "mask") if (a := getattr(data, name)) is not None}
        self._tensors = {name: torch.tensor(a) for name, a in arrays.items()}  # copies: Ray's are read-only
        self._length = len(data)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        import torch

        some = torch.as_tensor(rows, dtype=torch.int64)
        return {name: tensor[some] for name, tensor in self._tensors.items()}
