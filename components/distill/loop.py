"""The training loop of one update, as each Ray Train worker runs it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from components.contracts.errors import ConfigError
from components.distill.batches import batch_size, private_batches, sample_of, shared_batches, shuffled_batches
from components.distill.checkpoint import Progress, resume, save
from components.distill.narrow import narrow
from components.distill.work import Work, device_of, fresh, lesson_of

if TYPE_CHECKING:
    import torch

    from components.distill.lesson import Lesson
    from components.distill.privacy import PrivateSteps

LAST_RATE = 0.05
"""Learning rate of the last step as a share of the first; it falls along half a cosine."""

TORCH_THREADS = 1
"""Threads of one worker. The matrices of a step are small: a second thread gains little on a quiet machine, and on a
busy one the two wait for each other (measured: 17 times slower)."""


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
    progress = resume(work.checkpoint, lesson, optimiser, generator)
    # Step 3
    unused = {"find_unused_parameters": True}  # a stage without labels leaves the head alone
    parallel = prepare_model(lesson, parallel_strategy_kwargs=unused) if world > 1 else lesson
    step = private.step if private else lambda batch, at: _step(parallel, optimiser, batch, at)
    size = batch_size(net, len(data), work.spec.student.batch_size)
    if private is not None:
        loader = private_batches(data, private)
    elif world > 1:
        loader = shared_batches(data, size, work.seed, world, rank)
    else:
        loader = shuffled_batches(data, size, generator)
    while progress.epoch < work.epochs:
        if world > 1:
            loader.sampler.sampler.set_epoch(progress.epoch)
        _epoch(work, step, optimiser, loader, progress)
        progress.epoch += 1
        if rank == 0:
            save(work.checkpoint, lesson, optimiser, generator, progress)
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
