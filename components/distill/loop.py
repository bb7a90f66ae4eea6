"""The training loop of one update, as each Ray Train worker runs it, and the checkpoint that it goes on from."""

from __future__ import annotations

import io
import logging
import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from components.contracts.errors import ArtifactError, ConfigError
from components.contracts.spec import Spec, Variant
from components.contracts.spec.objective import Term
from components.contracts.storage import get_bytes, put_bytes
from components.distill.data import TrainingSet
from components.distill.grow import Arrays
from components.student.card import StudentCard

if TYPE_CHECKING:
    import torch

    from components.distill.lesson import Lesson
    from components.distill.privacy import PrivateSteps

LAST_RATE = 0.05
"""Learning rate of the last step as a share of the first; it falls along half a cosine."""

TORCH_THREADS = 1
"""Threads of one worker. The matrices of a step are small: a second thread gains little on a quiet machine, and on a
busy one the two wait for each other (measured: 17 times slower)."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """All that a worker needs.

    ``objective``: what is minimised over ``epochs`` passes over the data; ``start``: weights to start from; ``shape``:
    a pickled network of another shape than the card's (a pruned one); ``peers``: variants that learn beside it, each
    afresh; ``checkpoint``: URI of this run's checkpoint. ``noise``: of an update in private, in multiples of the
    clipping length; ``secret``: the seed of its noise, which tests alone give: else nobody knows it.
    """

    spec: Spec
    card: StudentCard
    data: TrainingSet
    objective: tuple[Term, ...]
    epochs: int
    start: Arrays | None
    checkpoint: str
    seed: int
    shape: bytes | None = None
    peers: tuple[Variant, ...] = ()
    noise: float | None = None
    secret: int | None = None

    @property
    def narrows(self) -> bool:
        """Whether rows of a table that no input names may be left out while it learns."""
        return not self.peers and self.noise is None


@dataclass(kw_only=True)
class Progress:
    """Where a run stands: next epoch, steps done, mean loss of each epoch, and each term's part of the last one's."""

    epoch: int
    step: int
    history: list[float]
    parts: dict[str, float]


def train_loop(work: Work) -> None:
    """Train for ``work.epochs`` epochs; equal work gives equal weights, interrupted or not.

    In private equal work gives other weights each time, unless it gives the seed of the noise.

    1. Make the network, from ``start`` where there is one; rows of its table that no input has stay out of training,
       except in private, where that would tell which ones they are.
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
    data = narrow(net, work.data) if work.narrows else work.data
    lesson = lesson_of(work, net, data).to(device).train()
    optimiser = torch.optim.Adam(_learnt(work, lesson), lr=work.spec.student.learning_rate, fused=True)
    private = _private(work, lesson, optimiser, device) if work.noise is not None else None
    generator = private or torch.Generator().manual_seed(work.seed)
    # Step 2
    progress = _resume(work.checkpoint, lesson, optimiser, generator)
    # Step 3
    unused = {"find_unused_parameters": True}  # a stage without labels leaves the head alone
    parallel = prepare_model(lesson, parallel_strategy_kwargs=unused) if world > 1 else lesson
    step = private.step if private else lambda batch, at: _step(parallel, optimiser, batch, at)
    loader = _loader(work, data, world, rank, generator, _batch_size(work, net))
    while progress.epoch < work.epochs:
        if world > 1:
            loader.sampler.sampler.set_epoch(progress.epoch)
        _epoch(work, step, optimiser, loader, progress)
        progress.epoch += 1
        if rank == 0:
            _save(work.checkpoint, lesson, optimiser, generator, progress)
        ray.train.report({"epoch": progress.epoch, "loss": progress.history[-1]})


def _learnt(work: Work, lesson: Lesson) -> list[torch.nn.Parameter]:
    """The weights that are trained: in private those alone that the objective reaches."""
    if work.noise is not None:
        from components.distill.privacy import rest

        rest(lesson, sample_of(work.data, 2, device_of(work.spec)))
        return [p for p in lesson.parameters() if p.requires_grad]
    return list(lesson.parameters())


def _private(work: Work, lesson: Lesson, optimiser: torch.optim.Optimizer, device: str) -> PrivateSteps:
    """Steps in private.

    Raises:
        ConfigError: the spec has no section for it.

    """
    from components.distill.privacy import PrivateSteps

    privacy = work.spec.student.privacy
    if privacy is None or work.noise is None:
        raise ConfigError("student.privacy", None, "must be given where an update is to be private")
    return PrivateSteps(
        lesson,
        optimiser,
        rows=len(work.data),
        batch_size=work.spec.student.batch_size,
        noise=work.noise,
        clip=privacy.clip,
        device=device,
        seed=work.secret,
    )


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


def lesson_of(work: Work, net: torch.nn.Module, data: TrainingSet) -> Lesson:
    """The network, and its peers, with what they learn by, as one module."""
    import torch

    from components.distill.lesson import Lesson
    from components.distill.networks.contract import network

    peers = []
    for variant in work.peers:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(work.seed)
            card = msgspec.structs.replace(work.card, network=work.spec.student.network_of(variant))
            peer = network(card, work.spec.source)
            if hasattr(peer, "begin"):
                peer.begin()
        peers.append((peer, work.spec.student.objective_of(variant, work.spec.task)))
    cohort = work.spec.student.cohort
    weight = cohort.weight if cohort else 0.0
    sample = sample_of(data, 2)
    return Lesson(net, work.objective, work.spec.task, sample, seed=work.seed, peers=peers, mutual=weight)


def sample_of(data: TrainingSet, most: int, device: str = "cpu") -> dict[str, torch.Tensor]:
    """The first rows as a batch."""
    return {name: tensor.to(device) for name, tensor in _Rows(data)[range(min(most, len(data)))].items()}


def narrow(net: torch.nn.Module, data: TrainingSet) -> TrainingSet:
    """Leave the rows of an embedding that no input names out of a network, which then learns the same sooner.

    A row without a gradient is not moved by Adam, but takes as long as one that is. Returns the rows by new numbers.
    """
    used = used_rows(net, data)
    if used is None:
        return data
    import torch

    name, array = net.TABLE
    whole = net.get_submodule(name)
    weight = whole.weight.detach()[torch.from_numpy(used)].clone()
    net.set_submodule(name, type(whole).from_pretrained(weight, freeze=False))
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


def _loader(
    work: Work, data: TrainingSet, world: int, rank: int, generator: torch.Generator | PrivateSteps, size: int
) -> Any:
    """Batches in an order that the generator decides, or, with several workers, the seed and the epoch.

    In private they are what its steps draw.
    """
    from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, RandomSampler

    rows = _Rows(data)
    if work.noise is not None:
        return DataLoader(rows, sampler=_Drawn(generator), batch_size=None)
    if world > 1:
        order: Any = DistributedSampler(range(len(data)), world, rank, seed=work.seed)
    else:
        order = RandomSampler(range(len(data)), generator=generator)
    return DataLoader(rows, sampler=BatchSampler(order, size, drop_last=False), batch_size=None)


class _Drawn:
    """The batches of private steps, as a sampler: each pass over it is an epoch."""

    def __init__(self, steps: Any) -> None:
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


def _batch_size(work: Work, net: torch.nn.Module) -> int:
    """Rows of a batch: one more where a single row would be left over and the network normalises over the batch."""
    from torch.nn.modules.batchnorm import _BatchNorm

    size = work.spec.student.batch_size
    lone = len(work.data) % size == 1 and any(isinstance(m, _BatchNorm) for m in net.modules())
    return size + 1 if lone else size


def _step(
    lesson: Any, optimiser: torch.optim.Optimizer, batch: dict[str, torch.Tensor], at: float
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Learn from a batch; returns its loss, and the part of it that each term has."""
    import torch

    device = next(iter(batch.values())).device.type
    mixed = device == "cuda" and torch.cuda.is_bf16_supported()
    with torch.autocast(device, torch.bfloat16, enabled=mixed):
        loss, found = lesson(batch, at)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    return loss.detach(), found


def _epoch(
    work: Work, step: Callable[..., Any], optimiser: torch.optim.Optimizer, loader: Any, progress: Progress
) -> None:
    import torch

    torch.manual_seed(work.seed * 1_000_003 + progress.epoch)  # of dropout: a run that was interrupted drops the same
    student, device = work.spec.student, device_of(work.spec)
    steps, losses = work.epochs * len(loader), []
    parts: dict[str, float] = {}
    for batch in loader:
        given = {name: tensor.to(device) for name, tensor in batch.items()}
        fall = (1 + math.cos(math.pi * progress.step / steps)) / 2
        for group in optimiser.param_groups:
            group["lr"] = student.learning_rate * (LAST_RATE + (1 - LAST_RATE) * fall)
        loss, found = step(given, progress.step / steps)
        losses.append(float(loss))
        for name, part in found.items():
            parts[name] = parts.get(name, 0.0) + float(part) / len(loader)
        progress.step += 1
    progress.history.append(float(np.mean(losses)))
    progress.parts = parts


def _save(uri: str, lesson: Any, optimiser: Any, generator: torch.Generator | PrivateSteps, progress: Progress) -> None:
    """Write all that is needed to go on from the end of an epoch."""
    import torch

    buffer = io.BytesIO()
    content = {
        "model": lesson.net.state_dict(),
        "objective": lesson.objective.state_dict(),
        "peers": lesson.peers.state_dict(),
        "optimiser": optimiser.state_dict(),
        "generator": generator.get_state(),
        "epoch": progress.epoch,
        "step": progress.step,
        "history": progress.history,
        "parts": progress.parts,
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


def _resume(uri: str, lesson: Any, optimiser: Any, generator: torch.Generator | PrivateSteps) -> Progress:
    saved = read_checkpoint(uri)
    if saved is None:
        return Progress(epoch=0, step=0, history=[], parts={})
    lesson.net.load_state_dict(saved["model"])
    lesson.objective.load_state_dict(saved["objective"])
    lesson.peers.load_state_dict(saved["peers"])
    optimiser.load_state_dict(saved["optimiser"])
    generator.set_state(saved["generator"])
    return Progress(epoch=saved["epoch"], step=saved["step"], history=saved["history"], parts=saved["parts"])
