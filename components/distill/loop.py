"""The training loop of one update, as each Ray Train worker runs it."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from components.contracts.errors import ConfigError
from components.contracts.failpoint import failpoint
from components.distill.batches import Batch, Batches, DrawnBatches, batch_size, epoch_seed, sample_of, tensors_of
from components.distill.checkpoint import Checkpoints
from components.distill.columns import read
from components.distill.data import TrainingSet
from components.distill.narrow import narrow
from components.distill.work import Work, device_of, fresh, lesson_of

if TYPE_CHECKING:
    import torch

    from components.distill.lesson import Lesson
    from components.distill.privacy import PrivateSteps

Step = Callable[[list[Batch], float], tuple["torch.Tensor", dict[str, "torch.Tensor"]]]
"""Learn from the batches of one step; gives the mean loss, and the part of it that each term has."""

LAST_RATE = 0.05
"""Learning rate of the last step as a share of the first."""

TORCH_THREADS = 1
"""Threads of one worker. The matrices of a step are small: a second thread gains little on a quiet machine, and on a
busy one the two wait for each other (measured: 17 times slower)."""


def train_loop(work: Work, rows_at: str = "") -> None:
    """Train for ``work.epochs`` epochs; equal work gives equal weights, interrupted or not.

    ``rows_at``: URI of a folder of the work's rows; left out: the work has them.

    In private equal work gives other weights each time, unless it gives the seed of the noise.

    1. Make the network, from ``start`` where there is one; rows of its table that no input has stay out of training,
       except in private, where that would tell which ones they are.
    2. Take up the run's checkpoint, if there is one.
    3. Train; now and then, and at the end, write the checkpoint (rank 0), and tell Ray Train the loss.
    """
    import ray.train
    import torch
    from ray.train.torch import prepare_model

    torch.set_num_threads(TORCH_THREADS)
    logging.getLogger("ray.train").setLevel(logging.WARNING)  # else every report is a line
    context = ray.train.get_context()
    world, rank = context.get_world_size(), context.get_world_rank()
    # Step 1
    if rows_at:
        work = replace(work, data=TrainingSet.of(read(rows_at)))
    device = device_of(work.spec)
    net = fresh(work)
    data = narrow(net, work.data) if work.narrows else work.data
    lesson = lesson_of(work, net, data)
    rows = tensors_of(data) if work.noise is not None else lesson.prepared(tensors_of(data))
    lesson = lesson.to(device).train()
    first = work.spec.student.rate(getattr(net, "RATE", None))
    optimiser = torch.optim.Adam(_learnt(work, lesson), lr=first, fused=True)
    private = _private(work, lesson, optimiser, device) if work.noise is not None else None
    # Step 2
    checkpoints = Checkpoints(work.checkpoint, lesson, optimiser, private)
    progress = checkpoints.resume()
    # Step 3
    unused = {"find_unused_parameters": True}  # a stage without labels leaves the head alone
    parallel = prepare_model(lesson, parallel_strategy_kwargs=unused) if world > 1 else lesson
    step = private_step(private) if private is not None else step_of(parallel, optimiser, device)
    batches: Batches | DrawnBatches
    if private is not None:
        batches = DrawnBatches(rows, private, device)
    else:
        size = batch_size(net, len(data), work.spec.student.batch_size)
        together = work.spec.student.accumulate
        batches = Batches(rows, size, seed=work.seed, device=device, world=world, rank=rank, together=together)
    steps = work.epochs * len(batches)
    while progress.epoch < work.epochs:
        if not progress.done:
            torch.manual_seed(epoch_seed(work.seed, progress.epoch))  # of dropout
        for group in batches.epoch(progress.epoch, progress.done):
            at = progress.step / steps
            for weights in optimiser.param_groups:
                weights["lr"] = first * falling(at)
            progress.note(*step(group, at))
            if rank == 0 and checkpoints.due():
                checkpoints.save(progress)
            failpoint(f"train.3.{rank}")
        progress.end_epoch()
        over = progress.epoch == work.epochs
        if rank == 0 and over:
            checkpoints.save(progress, over=True)
        if world > 1 or over:  # who trains alone is watched by nobody
            ray.train.report({"epoch": progress.epoch, "loss": progress.history[-1]})


def falling(at: float) -> float:
    """The learning rate at a point of a run, 0 to 1, as a share of the first: it falls along half a cosine.

    >>> [round(falling(at), 3) for at in (0.0, 0.5, 1.0)]
    [1.0, 0.525, 0.05]
    """
    return LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * at)) / 2


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


def private_step(private: PrivateSteps) -> Step:
    """A step in private, of one batch."""
    return lambda group, at: private.step(group[0], at)


def step_of(lesson: Any, optimiser: torch.optim.Optimizer, device: str) -> Step:
    """A step of training, by the mean gradient over the rows of all its batches; workers add theirs up at the last."""
    import torch

    mixed = device == "cuda" and torch.cuda.is_bf16_supported()
    autocast = torch.autocast(device, torch.bfloat16) if mixed else contextlib.nullcontext()
    apart = getattr(lesson, "no_sync", contextlib.nullcontext)

    def learn(batch: Batch, at: float, share: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        with autocast:
            loss, found = lesson(batch, at)
        if share < 1.0:
            loss, found = loss * share, {name: part * share for name, part in found.items()}
        loss.backward()
        return loss.detach(), found

    def step(group: list[Batch], at: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        optimiser.zero_grad(set_to_none=True)
        sizes = [len(next(iter(batch.values()))) for batch in group]
        shares = [size / sum(sizes) for size in sizes]
        with apart() if len(group) > 1 else contextlib.nullcontext():
            first = [learn(batch, at, share) for batch, share in zip(group[:-1], shares, strict=False)]
        loss, found = learn(group[-1], at, shares[-1])
        optimiser.step()
        for other, parts in first:
            loss, found = loss + other, {name: found[name] + part for name, part in parts.items()}
        return loss, found

    return step
