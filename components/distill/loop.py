"""The training loop of one update, as each Ray Train worker runs it, and the checkpoint that it goes on from."""

from __future__ import annotations

import io
import logging
import math
import pickle
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from components.contracts.errors import ArtifactError, ConfigError
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
    """All that a worker needs.

    ``start``: weights of a warm start; ``shape``: a pickled network of another shape than the card's (a pruned one);
    ``checkpoint``: URI of this run's checkpoint.
    """

    spec: Spec
    card: StudentCard
    data: TrainingSet
    start: Arrays | None
    checkpoint: str
    seed: int
    shape: bytes | None = None


@dataclass(kw_only=True)
class Progress:
    """Where a run stands: the next epoch, the steps done, and the mean loss of each epoch."""

    epoch: int
    step: int
    history: list[float]


def train_loop(work: Work) -> None:
    """Train for ``spec.student.epochs`` epochs; equal work gives equal weights, interrupted or not.

    1. Make the network, from ``start`` where there is one; rows of its table that no input has stay out of training.
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
    device = device_of(work.spec)
    net = fresh(work)
    data = narrow(net, work.data)
    net.to(device).train()
    optimiser = torch.optim.Adam(net.parameters(), lr=work.spec.student.learning_rate, fused=True)
    generator = torch.Generator().manual_seed(work.seed)
    # Step 2
    progress = _resume(work.checkpoint, net, optimiser, generator)
    # Step 3
    parallel = prepare_model(net) if world > 1 else net
    loader = _loader(work, data, world, rank, generator, _batch_size(work, net))
    while progress.epoch < work.spec.student.epochs:
        if world > 1:
            loader.sampler.set_epoch(progress.epoch)
        progress.history.append(_epoch(work, parallel, optimiser, loader, progress))
        progress.epoch += 1
        if rank == 0:
            _save(work.checkpoint, net, optimiser, generator, progress)
        ray.train.report({"epoch": progress.epoch, "loss": progress.history[-1]})


def device_of(spec: Spec) -> str:
    """Where a spec's network is trained.

    Raises:
        ConfigError: it wants CUDA, and there is no device.

    """
    import torch

    there = torch.cuda.is_available()
    if spec.student.device == "cuda" and not there:
        raise ConfigError("student.device", "cuda", "PyTorch sees no CUDA device here: use auto, or cpu")
    return "cuda" if there and spec.student.device != "cpu" else "cpu"


def fresh(work: Work) -> torch.nn.Module:
    """The network that a run begins with: equal for equal work."""
    import torch

    from components.distill.networks.contract import load, network

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(work.seed)
        net = network(work.card, work.spec.source)
        if work.shape is None and work.start is None and hasattr(net, "begin"):
            net.begin()
    if work.shape is not None:
        # A network of the user's own file is known by its module once the line above has read that file.
        net = pickle.loads(work.shape)  # noqa: S301  (made by this update)
    return net if work.start is None else load(net, work.start)


def narrow(net: torch.nn.Module, data: TrainingSet) -> TrainingSet:
    """Leave the rows of an embedding that no input names out of a network, which then learns the same sooner.

    A row without a gradient is not moved by Adam, but takes as long as one that is. Returns the rows by new numbers.
    """
    used = used_rows(net, data)
    if used is None:
        return data
    import torch
    from torch import nn

    name, array = net.TABLE
    whole = net.get_submodule(name).weight.detach()
    net.set_submodule(name, nn.Embedding.from_pretrained(whole[torch.from_numpy(used)].clone(), freeze=False))
    return replace(data, features={**data.features, array: np.searchsorted(used, data.features[array])})


def widen(net: torch.nn.Module, state: dict[str, Any], data: TrainingSet) -> dict[str, Any]:
    """The weights of a whole network from those of one that was narrowed; ``net`` is as it was before."""
    used = used_rows(net, data)
    if used is None:
        return state
    key = f"{net.TABLE[0]}.weight"
    whole = net.state_dict()[key].numpy().copy()
    whole[used] = state[key]
    return {**state, key: whole}


def used_rows(net: torch.nn.Module, data: TrainingSet) -> npt.NDArray[np.int64] | None:
    """The rows of a network's table that inputs name, in order; None for a network that has no such table.

    Row 0 is among them: padding names it.
    """
    table = getattr(net, "TABLE", None)
    return None if table is None else np.union1d([0], data.features[table[1]]).astype(np.int64)


def _loader(work: Work, data: TrainingSet, world: int, rank: int, generator: torch.Generator, size: int) -> Any:
    """Batches in an order that the generator decides, or, with several workers, the seed and the epoch."""
    import torch
    from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, RandomSampler, TensorDataset

    arrays = (*data.features.values(), data.soft, data.truth)
    rows = TensorDataset(*(torch.tensor(a) for a in arrays))  # copies: what Ray hands to a worker is read-only
    if world > 1:
        return DataLoader(rows, batch_size=size, sampler=DistributedSampler(rows, world, rank, seed=work.seed))
    batches = BatchSampler(RandomSampler(rows, generator=generator), size, drop_last=False)
    return DataLoader(rows, sampler=batches, batch_size=None)  # whole batches at once: no collation row by row


def _batch_size(work: Work, net: torch.nn.Module) -> int:
    """Rows of a batch: one more where a single row would be left over and the network normalises over the batch."""
    from torch.nn.modules.batchnorm import _BatchNorm

    size = work.spec.student.batch_size
    lone = len(work.data) % size == 1 and any(isinstance(m, _BatchNorm) for m in net.modules())
    return size + 1 if lone else size


def _epoch(work: Work, net: Any, optimiser: torch.optim.Optimizer, loader: Any, progress: Progress) -> float:
    import torch

    from components.distill.networks.contract import logits

    torch.manual_seed(work.seed * 1_000_003 + progress.epoch)  # of dropout: a run that was interrupted drops the same
    student, names, device = work.spec.student, list(work.data.features), device_of(work.spec)
    mixed = device == "cuda" and torch.cuda.is_bf16_supported()
    steps, losses = student.epochs * len(loader), []
    for batch in loader:
        *arrays, soft, truth = (array.to(device) for array in batch)
        fall = (1 + math.cos(math.pi * progress.step / steps)) / 2
        for group in optimiser.param_groups:
            group["lr"] = student.learning_rate * (LAST_RATE + (1 - LAST_RATE) * fall)
        with torch.autocast(device, torch.bfloat16, enabled=mixed):
            said = logits(net(**dict(zip(names, arrays, strict=True))))
        loss = _loss(work.spec, said.float(), soft, truth)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
        progress.step += 1
    return float(np.mean(losses))


def _loss(spec: Spec, output: torch.Tensor, soft: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    from components.distill.losses import classification_loss, regression_loss, value_and_scale

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
    content: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    return content


def _resume(uri: str, net: Any, optimiser: Any, generator: torch.Generator) -> Progress:
    saved = read_checkpoint(uri)
    if saved is None:
        return Progress(epoch=0, step=0, history=[])
    net.load_state_dict(saved["model"])
    optimiser.load_state_dict(saved["optimiser"])
    generator.set_state(saved["generator"])
    return Progress(epoch=saved["epoch"], step=saved["step"], history=saved["history"])
