"""Inputs by the gradient of a teacher: pixels that are optimised themselves, or a generator that is trained.

Both minimise, over a batch with a class sought by each input,

- the cross entropy of the teacher's answer to that class (``inversion``), or to its own most likely class (the one-hot
  loss of H. Chen et al., "Data-free learning of student networks", DAFL, ICCV 2019, arXiv 1904.01186), beside the
  negative entropy of the mean answer, so that all classes come up (``generator``);
- the distance of each batch norm's input from what that layer has counted of real ones, squared differences of means
  and deviations (H. Yin et al., "Dreaming to distill", DeepInversion, CVPR 2020, arXiv 1912.08795); a network without
  batch norms has none;
- for images the total variation, since neighbouring pixels are alike.

Shapes: B inputs, C classes, any shape of an input.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from components.teachers.contract import Differentiable

if TYPE_CHECKING:
    import torch

INVERSION_STEPS, GENERATOR_STEPS = 150, 300
"""Steps of the optimiser where the spec names none."""

BATCH = 256
"""Inputs that are optimised, or generated, together: batch norms' statistics need many."""

STATISTICS, VARIATION, BALANCE = 10.0, 0.02, 5.0
"""Weights beside the cross entropy. On digits, students of inversions agree in 77 % where the first is 10 and in 60 %
where it is 1 (``tests/bench/datafree.py``)."""

NOISE = 64
"""Numbers that the generator makes an input of."""

Gradient = Literal["inversion", "generator"]


def synthesise(
    teacher: Differentiable, method: Gradient, classes: int, rows: int, steps: int, seed: int
) -> npt.NDArray[np.float32]:
    """``rows`` arrays by the gradient of a teacher, equal for equal seeds on one machine, (rows, *shape)."""
    import torch

    module = teacher.module.eval()
    wanted = [p for p in module.parameters() if p.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(seed)
            make = _inverted if method == "inversion" else _generated
            return np.concatenate(list(make(teacher, classes, rows, steps)))
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


def noise(teacher: Differentiable, rows: int, seed: int) -> npt.NDArray[np.float32]:
    """Uniform arrays in the teacher's limits, (rows, *shape)."""
    chance = np.random.default_rng(seed)
    return chance.uniform(teacher.low, teacher.high, (rows, *teacher.shape)).astype(np.float32)


def _inverted(teacher: Differentiable, classes: int, rows: int, steps: int) -> Iterator[npt.NDArray[np.float32]]:
    """Batches of inputs that are the parameters of an optimiser."""
    import torch

    for first in range(0, rows, BATCH):
        count = min(BATCH, rows - first)
        goals_B = (torch.arange(first, first + count) % classes)[torch.randperm(count)]
        free = torch.randn(count, *teacher.shape).requires_grad_()
        optimiser = torch.optim.Adam([free], lr=0.1)
        with _statistics(teacher.module) as distances:
            for _ in range(steps):
                inputs = _limited(teacher, free)
                distances.clear()
                loss = torch.nn.functional.cross_entropy(teacher.module(inputs), goals_B)
                loss = loss + STATISTICS * _sum(distances) + VARIATION * _variation(inputs, teacher)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        yield _limited(teacher, free).detach().numpy()


def _generated(teacher: Differentiable, classes: int, rows: int, steps: int) -> Iterator[npt.NDArray[np.float32]]:
    """Batches of inputs that a generator makes of noise."""
    import torch

    generator = _generator(teacher.shape)
    optimiser = torch.optim.Adam(generator.parameters(), lr=2e-3)
    with _statistics(teacher.module) as distances:
        for _ in range(steps):
            inputs = _limited(teacher, generator(torch.randn(BATCH, NOISE)).view(BATCH, *teacher.shape))
            distances.clear()
            logits_BC = teacher.module(inputs)
            mean_C = logits_BC.softmax(dim=1).mean(dim=0)
            loss = torch.nn.functional.cross_entropy(logits_BC, logits_BC.argmax(dim=1))
            loss = loss + BALANCE * torch.special.xlogy(mean_C, mean_C).sum()
            loss = loss + STATISTICS * _sum(distances) + VARIATION * _variation(inputs, teacher)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    generator.train()  # as it was taught: by the statistics of the batch
    with torch.no_grad():
        for first in range(0, rows, BATCH):
            made = _limited(teacher, generator(torch.randn(BATCH, NOISE)).view(BATCH, *teacher.shape))
            yield made[: rows - first].numpy()


def _generator(shape: tuple[int, ...]) -> torch.nn.Module:
    """Noise (B, NOISE) to an input's numbers; images by convolutions that widen a small one."""
    from torch import nn

    if len(shape) == 3 and shape[1] % 4 == 0 and shape[2] % 4 == 0:
        depth, height, width = shape
        return nn.Sequential(
            nn.Linear(NOISE, 64 * height * width // 16),
            nn.Unflatten(1, (64, height // 4, width // 4)),
            nn.BatchNorm2d(64),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.BatchNorm2d(64),
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(64, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.LeakyReLU(0.2),
            nn.Conv2d(32, depth, 3, padding=1),
        )
    return nn.Sequential(
        nn.Linear(NOISE, 128), nn.BatchNorm1d(128), nn.LeakyReLU(0.2),
        nn.Linear(128, 128), nn.BatchNorm1d(128), nn.LeakyReLU(0.2), nn.Linear(128, int(np.prod(shape))),
    )  # fmt: skip


def _limited(teacher: Differentiable, free: torch.Tensor) -> torch.Tensor:
    """Any numbers, brought between the teacher's limits."""
    return teacher.low + (teacher.high - teacher.low) * free.sigmoid()


def _sum(distances: list[torch.Tensor]) -> torch.Tensor | float:
    return sum(distances[1:], distances[0]) / len(distances) if distances else 0.0


def _variation(inputs: torch.Tensor, teacher: Differentiable) -> torch.Tensor | float:
    """Mean absolute difference of neighbouring pixels, in parts of the range; 0 of what is no image."""
    if inputs.dim() != 4:
        return 0.0
    down, right = inputs[:, :, 1:] - inputs[:, :, :-1], inputs[..., 1:] - inputs[..., :-1]
    return (down.abs().mean() + right.abs().mean()) / (teacher.high - teacher.low)


@contextmanager
def _statistics(module: Any) -> Iterator[list[torch.Tensor]]:
    """Within it every pass leaves how far the input of each batch norm is from what it has counted of real ones."""
    import torch

    found: list[torch.Tensor] = []

    def look(norm: Any, given: tuple[torch.Tensor, ...], _out: torch.Tensor) -> None:
        axes = [0, *range(2, given[0].dim())]
        mean, spread = given[0].mean(dim=axes), given[0].var(dim=axes, unbiased=False)
        scale = norm.running_var + norm.eps
        gap = ((mean - norm.running_mean) ** 2 / scale).mean()
        found.append(gap + ((spread.clamp_min(0) + norm.eps).sqrt() / scale.sqrt() - 1).pow(2).mean())

    norms = [m for m in module.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    handles = [m.register_forward_hook(look) for m in norms if m.running_mean is not None]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
