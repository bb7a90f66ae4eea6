"""The training loop of one update, as each Ray Train worker runs it, and the checkpoint that it goes on from."""

from __future__ import annotations

import io
import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from components.contracts.errors import ArtifactError
from components.contracts.spec import Spec
from components.contracts.storage import get_bytes, put_bytes
from components.distill.data import TrainingSet
from components.distill.grow import Arrays
from components.student.card import StudentCard

if TYPE_CHECKING:
    import torch

LAST_RATE = 0.05
"""Learning rate of the last step as a share of the first; it falls along half a cosine."""

TORCH_THREADS = 1
"""Threads of one worker. The matrices of a step are small: a second thread gains little on a quiet machine, and on a
busy one the two wait for each other (measured: 17 times slower)."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """All that a worker needs. ``start``: weights of a warm start; ``checkpoint``: URI of this run's checkpoint."""

    spec: Spec
    card: StudentCard
    data: TrainingSet
    start: Arrays | None
    checkpoint: str
    seed: int


@dataclass(kw_only=True)
class Progress:
    """Where a run stands: the next epoch, the steps done, and the mean loss of each epoch."""

    epoch: int
    step: int
    history: list[float]


def train_loop(work: Work) -> None:
    """Train for ``spec.student.epochs`` epochs; equal work gives equal weights, interrupted or not.

    1. Make the network, from ``start`` where there is one.
    2. Take up the run's checkpoint, if there is one.
    3. For every epoch: train; write the checkpoint (rank 0); report the loss to Ray Train.
    """
    import ray.train
    import torch
    from ray.train.torch import prepare_model

    torch.set_num_threads(TORCH_THREADS)
    logging.getLogger("ray.train").setLevel(logging.WARNING)  # else every report is a line
    context = ray.train.get_context()
    world, rank = context.get_world_size(), context.get_world_rank()
    # Step 1
    net = _network(work)
    optimiser = torch.optim.Adam(net.parameters(), lr=work.spec.student.learning_rate, fused=True)
    generator = torch.Generator().manual_seed(work.seed)
    # Step 2
    progress = _resume(work.checkpoint, net, optimiser, generator)
    # Step 3
    parallel = prepare_model(net) if world > 1 else net
    loader = _loader(work, world, rank, generator)
    while progress.epoch < work.spec.student.epochs:
        if world > 1:
            loader.sampler.set_epoch(progress.epoch)
        progress.history.append(_epoch(work, parallel, optimiser, loader, progress))
        progress.epoch += 1
        if rank == 0:
            _save(work.checkpoint, net, optimiser, generator, progress)
        ray.train.report({"epoch": progress.epoch, "loss": progress.history[-1]})


def _network(work: Work) -> torch.nn.Module:
    import torch

    from components.distill.model import StudentNet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(work.seed)
        net = StudentNet.of(work.card)
    if work.start is not None:
        net.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in work.start.items()})
    return net


def _loader(work: Work, world: int, rank: int, generator: torch.Generator) -> Any:
    """Batches in an order that the generator decides, or, with several workers, the seed and the epoch."""
    import torch
    from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, RandomSampler, TensorDataset

    data = work.data
    arrays = (data.ids, data.weights, data.soft, data.truth)
    rows = TensorDataset(*(torch.tensor(a) for a in arrays))  # copies: what Ray hands to a worker is read-only
    size = work.spec.student.batch_size
    if world > 1:
        return DataLoader(rows, batch_size=size, sampler=DistributedSampler(rows, world, rank, seed=work.seed))
    batches = BatchSampler(RandomSampler(rows, generator=generator), size, drop_last=False)
    return DataLoader(rows, sampler=batches, batch_size=None)  # whole batches at once: no collation row by row


def _epoch(work: Work, net: Any, optimiser: torch.optim.Optimizer, loader: Any, progress: Progress) -> float:
    student = work.spec.student
    steps, losses = student.epochs * len(loader), []
    for ids_BL, weights_BL, soft, truth in loader:
        fall = (1 + math.cos(math.pi * progress.step / steps)) / 2
        for group in optimiser.param_groups:
            group["lr"] = student.learning_rate * (LAST_RATE + (1 - LAST_RATE) * fall)
        loss = _loss(work.spec, net(ids_BL, weights_BL), soft, truth)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
        progress.step += 1
    return float(np.mean(losses))


def _loss(spec: Spec, output: torch.Tensor, soft: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    from components.distill.losses import classification_loss, regression_loss
    from components.distill.model import value_and_scale

    student = spec.student
    if spec.task == "regression":
        value_B, scale_B = value_and_scale(output)
        return regression_loss(value_B, scale_B, soft, truth, truth_weight=student.truth_weight)
    return classification_loss(output, soft, truth, temperature=student.temperature, truth_weight=student.truth_weight)


def _save(uri: str, net: Any, optimiser: Any, generator: torch.Generator, progress: Progress) -> None:
    """Write all that is needed to go on from the end of an epoch."""
    import torch

    buffer = io.BytesIO()
    content = {
        "model": net.state_dict(),
        "optimiser": optimiser.state_dict(),
        "generator": generator.get_state(),
        "epoch": progress.epoch,
        "step": progress.step,
        "history": progress.history,
    }
    torch.save(content, buffer)
    put_bytes(uri, buffer.getvalue())


def read_checkpoint(uri: str) -> dict[str, Any] | None:
    """A run's checkpoint; None where it has none yet."""
    import torch

    try:
        data = get_bytes(uri)
    except ArtifactError:
        return None
    content: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True)
    return content


def _resume(uri: str, net: Any, optimiser: Any, generator: torch.Generator) -> Progress:
    saved = read_checkpoint(uri)
    if saved is None:
        return Progress(epoch=0, step=0, history=[])
    net.load_state_dict(saved["model"])
    optimiser.load_state_dict(saved["optimiser"])
    generator.set_state(saved["generator"])
    return Progress(epoch=saved["epoch"], step=saved["step"], history=saved["history"])
